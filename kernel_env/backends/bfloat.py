"""bfloat16 in Triton's interpreter, which keeps it as 16-bit integers and would compute with those: every operation goes through
float32 and is rounded to the nearest bfloat16 afterwards, as on a GPU."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np


def to_single(bits: Any) -> Any:
    return (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)


def to_bfloat(numbers: Any) -> Any:
    """To the nearest, ties to even."""
    numbers = np.asarray(numbers, dtype=np.float32)
    bits = numbers.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(numbers), np.uint16(0x7FC0), rounded)


def compute_in_single() -> None:
    """Change the interpreter so. What its other operations do with the bits (moving, loading, storing) is right as it is."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, ReduceOps, ScanOps, TensorHandle

    def is_bfloat(value: Any) -> bool:
        return isinstance(value, TensorHandle) and value.dtype.scalar == tl.bfloat16 and value.data.dtype == np.uint16

    def widened(value: Any) -> Any:
        return TensorHandle(to_single(value.data), tl.float32) if is_bfloat(value) else value

    def narrowed(value: Any) -> Any:
        return TensorHandle(to_bfloat(value.data), tl.bfloat16)

    def operation(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def in_single(self: Any, *arguments: Any) -> Any:
            if not any(map(is_bfloat, arguments)):
                return method(self, *arguments)
            *_, last = (argument for argument in arguments if isinstance(argument, TensorHandle))
            made = method(self, *map(widened, arguments))
            if made.data.dtype == bool:
                return TensorHandle(made.data, tl.int1)
            return narrowed(made) if is_bfloat(last) else made  # a product is added to the last one, in that one's type

        return in_single

    def reduction(method: Callable[..., Any]) -> Callable[..., Any]:
        def back(made: Any) -> Any:
            if isinstance(made, (list, tuple)):
                return type(made)(map(back, made))
            if made.dtype != tl.float32:  # an index
                return made
            kind = tl.block_type(tl.bfloat16, made.type.shape) if made.type.is_block() else tl.bfloat16
            return tl.core.tensor(narrowed(made.handle), kind)

        @functools.wraps(method)
        def in_single(self: Any, given: Any, *arguments: Any, **options: Any) -> Any:
            first = given[0] if isinstance(given, tuple) else given
            if not is_bfloat(first.handle):
                return method(self, given, *arguments, **options)
            kind = tl.block_type(tl.float32, first.type.shape) if first.type.is_block() else tl.float32
            return back(method(self, tl.core.tensor(widened(first.handle), kind), *arguments, **options))

        return in_single

    convert, convert_custom = InterpreterBuilder.cast_impl, InterpreterBuilder.create_fp_to_fp

    def cast_impl(self: Any, source: Any, kind: Any) -> Any:
        source = widened(source)
        if kind.scalar != tl.bfloat16:
            return convert(self, source, kind)
        return narrowed(source if source.data.dtype == np.float32 else convert(self, source, tl.float32))

    def create_fp_to_fp(self: Any, source: Any, kind: Any, rounding: Any) -> Any:
        nearest = rounding is None or rounding.name == "RTNE"
        if nearest and tl.bfloat16 in (kind.scalar, source.dtype.scalar) and min(_bits(kind), _bits(source.dtype)) > 8:
            return cast_impl(self, source, kind)
        return convert_custom(self, source, kind, rounding)

    def _bits(kind: Any) -> int:
        return int(kind.scalar.primitive_bitwidth)

    for name in ("binary_op", "ternary_op", "unary_op", "create_fma", "create_erf", "create_rsqrt", "create_dot"):
        setattr(InterpreterBuilder, name, operation(getattr(InterpreterBuilder, name)))
    for kind, names in ((ReduceOps, ("sum", "min_max")), (ScanOps, ("cumsum", "cumprod"))):
        for name in names:
            setattr(kind, name, reduction(getattr(kind, name)))
    InterpreterBuilder.cast_impl = cast_impl
    InterpreterBuilder.create_fp_to_fp = create_fp_to_fp
    InterpreterBuilder.get_bf16 = lambda self, value: TensorHandle(to_bfloat([value]), tl.bfloat16)

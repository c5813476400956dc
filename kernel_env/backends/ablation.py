"""Other numbers in place of a program's own, and whether two results tell of that: what `provenance` replaces and compares."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

_SCALES = 1.0, 0.75, -1.0, 16.0, -16.0
"""What copies its input at all of these sizes does nothing. A relu of positive numbers does not copy negative ones, nor a hardtanh
large ones."""


def is_copy(output: torch.Tensor, given: Sequence[torch.Tensor]) -> bool:
    return any(same(output.reshape(-1), tensor.reshape(-1)) for tensor in given)


def differs(function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> bool:
    """Whether it gives other results for other numbers. Where that cannot be told it is no decoy.

    Integers beside other numbers are tried last, and only where those make no difference: a table of offsets that is no longer one
    can end the process.
    """
    given = list(tensors((arguments, named)))
    if not given:
        return True
    some = [kept for kept in given if _may_be_index(kept)]
    tries = [_may_be_index, _never] if 0 < len(some) < len(given) else [_never]
    return any(_differs(function, arguments, named, stays) for stays in tries)


def _may_be_index(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype is torch.bool)


def _never(tensor: torch.Tensor) -> bool:
    return False


def _differs(
    function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any], stays: Callable[[torch.Tensor], bool]
) -> bool:
    found, copied = [], False
    try:
        for tried, scale in enumerate(_SCALES, 1):
            if tried > 2 and not copied:
                break
            given, names = replaced((arguments, named), functools.partial(_drawn, scale=scale, stays=stays))
            drawn = [tensor.clone() for tensor in tensors((given, names))]
            result = function(*given, **names)
            changed = [t.clone() for t, old in zip(tensors((given, names)), drawn, strict=True) if not same(t, old)]
            found.append(([t.clone() for t in tensors(result)] + changed, result))
            copies = bool(found[-1][0]) and all(is_copy(t, drawn) for t in found[-1][0])
            if copies and tried == len(_SCALES):
                return False
            copied = copies or (copied and tried < 3)
    except Exception:  # noqa: BLE001 - anything that a kernel raises for numbers it was not made for
        return True
    (first, plain), (second, other) = found[:2]
    if not first and not second:
        return plain is None or bool(plain != other)
    if all(_is_nowhere(t) for t in (*first, *second)):
        return True
    return len(first) != len(second) or not all(map(same, first, second))


def of_other_numbers(function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """What a kernel gives for other numbers of the same kind, also where it writes into its arguments. Integers stay, if there are
    other numbers beside them."""
    given = list(tensors((arguments, named)))
    stays = _never if all(map(_may_be_index, given)) else _may_be_index
    others = [_drawn(tensor, 0.75, stays) for tensor in given]
    drawn, remaining = [tensor.clone() for tensor in others], iter(others)
    result = function(*(replaced(arguments, lambda _: next(remaining))), **replaced(named, lambda _: next(remaining)))
    for tensor, other, old in zip(given, others, drawn, strict=True):
        if not same(other, old):
            tensor.copy_(other)
    back = {id(other): tensor for other, tensor in zip(others, given, strict=True)}
    return replaced(result, lambda tensor: back.get(id(tensor), tensor))


def tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from tensors(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from tensors(inner)


def replaced(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {k: replaced(v, change) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return rebuilt(value, [replaced(v, change) for v in value])
    return value


def rebuilt(like: list[Any] | tuple[Any, ...], items: list[Any]) -> Any:
    """The items in a list or tuple of that type; a named tuple wants its fields one by one."""
    make: Callable[[list[Any]], Any] = getattr(type(like), "_make", type(like))
    return make(items)


_GLANCE = 4096
"""Elements that are compared before the others."""


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Equal, and NaN where the other is. Most that differ do so at once, and most that agree have no NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    first, second = a.reshape(-1)[:_GLANCE], b.reshape(-1)[:_GLANCE]
    if not bool(((first == second) | ((first != first) & (second != second))).all()):
        return False
    return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())


def _is_nowhere(t: torch.Tensor) -> bool:
    """Whether all of it is NaN."""
    return bool((t.reshape(-1)[:_GLANCE] != t.reshape(-1)[:_GLANCE]).all()) and bool((t != t).all())


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two outputs differ by less than 1% of what they vary: an own kernel's part of the work is more than that."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return same(a, b)
    wide, other = ((t if t.dtype is torch.float32 else t.double()).reshape(-1) for t in (a, b))
    spread = float(wide.std(correction=0)) if wide.numel() else 0.0
    if not math.isfinite(spread):
        finite = wide[wide.isfinite()]
        spread = float(finite.std(correction=0)) if finite.numel() else 0.0
    near = functools.partial(torch.allclose, rtol=1e-2, atol=1e-2 * spread, equal_nan=True)
    return near(wide[:_GLANCE], other[:_GLANCE]) and near(wide, other)  # most that differ do so at once


def disturb(tensor: torch.Tensor) -> None:
    """Other values of the same size in place; still in range where they are an index of more than one."""
    if tensor.is_floating_point() or tensor.is_complex():
        size = float(tensor.abs().double().nan_to_num(0.0, 0.0, 0.0).mean()) if tensor.numel() else 0.0
        tensor.mul_(-1.5).add_(0.375 * size if size else 1.0)
    elif tensor.dtype is torch.bool:
        tensor.logical_not_()
    elif tensor.numel():
        most = tensor.max()
        tensor.bitwise_xor_(1)
        if most:
            tensor.masked_fill_(tensor > most, most - 1)


_LEAST_NUDGE = 1e-6
"""Relative: it is still there when a float64 becomes a float32."""


def nudge(tensor: torch.Tensor) -> bool:
    """Its numbers as little larger as shows, in place. Returns whether it has any that are not whole."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.any():
        return False
    tensor.mul_(1 + max(_LEAST_NUDGE, 4 * torch.finfo(tensor.dtype).eps))
    return True


def other(result: Any) -> Any:
    """Plain numbers too."""
    if isinstance(result, bool):
        return not result
    if isinstance(result, (int, float)):
        return result * -1.5 + 0.375 if isinstance(result, float) else result ^ 1
    return result


def _drawn(tensor: torch.Tensor, scale: float, stays: Callable[[torch.Tensor], bool]) -> torch.Tensor:
    return tensor.clone() if stays(tensor) else _other_numbers(tensor, scale)


def _other_numbers(tensor: torch.Tensor, scale: float) -> torch.Tensor:
    """Drawn from those that are there, so that indices stay in range and what is positive stays so; floats in another size. Of
    large tensors either half is a stretch from anywhere: that is as fast as a copy, and a sum is another than before."""
    flat = tensor.detach().reshape(-1)
    count, half = flat.numel(), flat.numel() // 2
    drawn = torch.empty_like(flat)
    if count < _GLANCE:
        torch.index_select(flat, 0, torch.randint(max(count, 1), (count,)), out=drawn)
    else:
        for part in (drawn[:half], drawn[half:]):
            start = int(torch.randint(count, ()))
            first = min(len(part), count - start)
            part[:first], part[first:] = flat[start : start + first], flat[: len(part) - first]
    if scale != 1.0 and (tensor.is_floating_point() or tensor.is_complex()):
        drawn.mul_(scale)
    return drawn.reshape(tensor.shape)


_HUGE, _MADV_HUGEPAGE, _MOST_ROOM = 2 << 20, 14, 256 << 20
_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def make_room(size: int) -> None:
    """Have so much of the heap that comes next in pages of 2 MB, where this machine gives them: what is kept while a forward is
    watched is new memory, and faults for pages of 4 KB were half of the time. Not before what is timed: it would change that."""
    with contextlib.suppress(Exception):  # without so much memory it is as it was
        room = torch.empty(min(size, _MOST_ROOM), dtype=torch.uint8)
        start, end = -(-room.data_ptr() // _HUGE) * _HUGE, (room.data_ptr() + room.nbytes) // _HUGE * _HUGE
        if start < end:
            _madvise(start, end - start, _MADV_HUGEPAGE)


def fill(value: Any) -> None:
    for tensor in tensors(value):
        if tensor.is_floating_point() or tensor.is_complex():
            tensor.fill_(1234.5)
        else:
            tensor.fill_(1)

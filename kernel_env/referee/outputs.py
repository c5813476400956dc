"""Fetching outputs: from where a runner says that they lie in its memory, into a mapping of ours."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kernel_env.referee.layout import ITEM_BYTES, Memory, TensorSpec, leaves, of_one_kind
from kernel_env.referee.memory import read_memory, read_runs

_MOST_SPARSE = 8
"""A view may reach over so many times its own bytes to be read as a whole; of a sparser one each run of elements is read alone."""
_MOST_ROWS = 1 << 16
"""So many runs are asked for at a time."""
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What walking an untrusted tree may raise."""


class Unreadable(Exception):
    """An output cannot be read where it is said to lie."""


def regions(described: Any) -> list[tuple[int, int]]:
    """(address, bytes) of the contiguous tensors of a described output; nothing where it is malformed."""
    try:
        return [(spec.address, spec.nbytes) for spec in leaves(described) if spec.stride is None and spec.address]
    except _MALFORMED:
        return []


def watched(described: Any) -> list[tuple[int, int]]:
    """(address, bytes) of memory of each tensor, however it lies: of a sparse one only the first element's."""
    try:
        return [(spec.address, _reach(spec)) for spec in leaves(described) if spec.nbytes and spec.address]
    except _MALFORMED:
        return []


def _reach(spec: TensorSpec) -> int:
    if spec.stride is None:
        return spec.nbytes
    item = ITEM_BYTES[spec.dtype]
    reach = (1 + sum((n - 1) * s for n, s in zip(spec.shape, spec.stride, strict=True))) * item
    return reach if 0 < reach <= _MOST_SPARSE * spec.nbytes else item


def fetch(described: Any, layout: Any, memory: Memory, pid: int) -> None:
    """Copy every tensor of an output, as process `pid` described it, to its place in `layout` (a `packed` tree).

    Only where shapes and dtypes agree. What does not agree stays unread: comparing the trees tells how they differ.

    Raises Unreadable.
    """
    try:
        ((kind, value),) = layout.items()
        ((got_kind, got),) = described.items()
        if not of_one_kind(kind, got_kind):
            return
        if kind == "tensor":
            _fetch_tensor(TensorSpec.parse(got), TensorSpec.parse(value), memory, pid)
        elif kind in ("list", "tuple"):
            for item, place in zip(got, value, strict=False):
                fetch(item, place, memory, pid)
        elif kind == "dict":
            for key in value.keys() & got.keys():
                fetch(got[key], value[key], memory, pid)
    except _MALFORMED:
        return


def _fetch_tensor(spec: TensorSpec, place: TensorSpec, memory: Memory, pid: int) -> None:
    if (spec.shape, spec.dtype) != (place.shape, place.dtype) or place.nbytes == 0:
        return
    target = np.frombuffer(memory.map, np.uint8, place.nbytes, place.offset)
    try:
        if spec.stride is None:
            read_memory(pid, spec.address, target)
            return
        item = ITEM_BYTES[spec.dtype]
        reach = (1 + sum((n - 1) * s for n, s in zip(spec.shape, spec.stride, strict=True))) * item
        if reach > _MOST_SPARSE * place.nbytes:
            _gather(spec, spec.stride, item, target, pid)
            return
        block = np.empty(reach, np.uint8)
        read_memory(pid, spec.address, block)
    except (OSError, MemoryError) as error:
        raise Unreadable(str(error) or "it reaches too far") from error
    element = np.dtype(f"V{item}")
    view = np.ndarray(spec.shape, element, buffer=block.data, strides=[s * item for s in spec.stride])
    target.view(element).reshape(spec.shape)[...] = view


def _gather(spec: TensorSpec, strides: Sequence[int], item: int, target: npt.NDArray[np.uint8], pid: int) -> None:
    """Read a sparse view run by run, in the order of its elements. Raises OSError."""
    dims, run = list(zip(spec.shape, strides, strict=True)), item
    while dims and (dims[-1][1] == run // item or dims[-1][0] == 1):
        run *= dims.pop()[0]
    rows, step = math.prod(size for size, _ in dims), max(1, _MOST_ROWS)
    for start in range(0, rows, step):
        index = np.arange(start, min(start + step, rows), dtype=np.uint64)
        addresses = np.full(index.size, spec.address, np.uint64)
        for size, stride in reversed(dims):
            index, place = np.divmod(index, np.uint64(size))
            addresses += place * np.uint64(stride * item % (1 << 64))
        read_runs(pid, addresses, run, target[start * run : (start + addresses.size) * run])


def excerpt(expected: Any, got: Any, most_bytes: int, rng: random.Random) -> tuple[Any, Any]:
    """Two described outputs with the same random block of each pair of tensors in place of the whole: `most_bytes` of it at most.

    Raises ValueError where they differ in structure, shape or dtype, or are malformed.
    """
    try:
        ((kind, value),) = expected.items()
        ((got_kind, got_value),) = got.items()
        if not of_one_kind(kind, got_kind):
            raise ValueError("not of one kind")
        if kind == "tensor":
            ours, theirs = TensorSpec.parse(value), TensorSpec.parse(got_value)
            if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
                raise ValueError("not of one shape")
            block = _block(ours.shape, ITEM_BYTES[ours.dtype], most_bytes, rng)
            return tuple({"tensor": _narrowed(spec, block)} for spec in (ours, theirs))  # type: ignore[return-value]
        if kind not in ("list", "tuple", "dict"):
            return expected, got
        keys = list(value) if kind == "dict" else range(len(value))
        if len(value) != len(got_value):
            raise ValueError("not of one length")
        pairs = [excerpt(value[key], got_value[key], most_bytes, rng) for key in keys]
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("not an output") from error
    first, second = ([pair[i] for pair in pairs] for i in (0, 1))
    if kind == "dict":
        return {kind: dict(zip(keys, first, strict=True))}, {kind: dict(zip(keys, second, strict=True))}
    return {kind: first}, {kind: second}


def _block(shape: tuple[int, ...], item: int, most_bytes: int, rng: random.Random) -> list[tuple[int, int]]:
    """(start, length) in each dimension of a random block of neighbours."""
    block, rest = [], math.prod(shape) * item
    for size in shape:
        rest = rest // size if size else 0
        length = min(size, max(1, most_bytes // rest)) if rest else size
        block.append((rng.randrange(size - length + 1), length))
        most_bytes = max(1, most_bytes // length) if length else 0
    return block


def _narrowed(spec: TensorSpec, block: Sequence[tuple[int, int]]) -> dict[str, Any]:
    item = ITEM_BYTES[spec.dtype]
    strides = spec.stride or tuple(math.prod(spec.shape[i + 1 :]) for i in range(len(spec.shape)))
    shape = [length for _, length in block]
    return {
        "dtype": spec.dtype,
        "shape": shape,
        "stride": list(strides),
        "offset": 0,
        "nbytes": math.prod(shape) * item,
        "address": spec.address + sum(start * stride for (start, _), stride in zip(block, strides, strict=True)) * item,
    }

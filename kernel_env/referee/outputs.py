"""Fetching outputs: from where a runner says that they lie in its memory, into a mapping of ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernel_env.referee.layout import ITEM_BYTES, Memory, TensorSpec, leaves
from kernel_env.referee.memory import read_memory

_MOST_SPARSE = 8
"""A view may reach over so many times its own bytes; a sparser one is copied together by the runner."""
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What walking an untrusted tree may raise."""


class Unreadable(Exception):
    """An output cannot be read where it is said to lie (no permission, or a sparse view): the runner has to hand it over."""


def regions(described: Any) -> list[tuple[int, int]]:
    """(address, bytes) of the contiguous tensors of a described output; nothing where it is malformed."""
    try:
        return [(spec.address, spec.nbytes) for spec in leaves(described) if spec.stride is None and spec.address]
    except _MALFORMED:
        return []


def fetch(described: Any, layout: Any, memory: Memory, pid: int) -> None:
    """Copy every tensor of an output, as process `pid` described it, to its place in `layout` (a `packed` tree).

    Only where shapes and dtypes agree. What does not agree stays unread: comparing the trees tells how they differ.

    Raises Unreadable.
    """
    try:
        ((kind, value),) = layout.items()
        ((got_kind, got),) = described.items()
        if kind != got_kind:
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
            raise Unreadable("a sparse view")
        block = np.empty(reach, np.uint8)
        read_memory(pid, spec.address, block)
    except OSError as error:
        raise Unreadable(str(error)) from error
    element = np.dtype(f"V{item}")
    view = np.ndarray(spec.shape, element, buffer=block.data, strides=[s * item for s in spec.stride])
    target.view(element).reshape(spec.shape)[...] = view

"""Whose memory is an output? A forward that returns new memory must be answered with new memory.

Else a candidate could save the writing: hand back an input, one buffer again and again, or a view that repeats a few elements.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from kernel_env.referee.layout import ITEM_BYTES, TensorSpec, leaves
from kernel_env.referee.memory import own_memory

REPEATS = "is a view that repeats elements"
SHARED = "has tensors that share memory"
EARLIER = "lies in the memory of an earlier output, which is still in use"
FOREIGN = "lies in memory that is not the program's own, such as an input"


def traits(output: Any, earlier: Any = None, pid: int | None = None) -> frozenset[str]:
    """What an output (as its runner described it) does not own. `earlier` is one that was kept alive beside it.

    With `pid`, the process's memory map is read too. Nothing is found where an output is malformed or a map cannot be read:
    comparing tells of the one, and the other is a machine that does not allow it.
    """
    mine, before = _tensors(output), _tensors(earlier)
    spans = [span for spec in mine if (span := _span(spec))]
    found = set()
    if any(map(_repeats, mine)):
        found.add(REPEATS)
    if any(_overlap(a, b) for a, b in itertools.pairwise(sorted(spans))):
        found.add(SHARED)
    if any(_overlap(a, b) for a in spans for spec in before if (b := _span(spec))):
        found.add(EARLIER)
    if pid is not None and spans:
        own = own_memory(pid)
        if own and not all(any(start <= a and b <= end for start, end in own) for a, b in spans):
            found.add(FOREIGN)
    return frozenset(found)


def _tensors(described: Any) -> Sequence[TensorSpec]:
    try:
        return [spec for spec in leaves(described) if spec.nbytes and spec.address]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # untrusted
        return []


def _span(spec: TensorSpec) -> tuple[int, int]:
    """First and last address (exclusive)."""
    strides = spec.stride or ()
    reach = 1 + sum((n - 1) * s for n, s in zip(spec.shape, strides, strict=True)) if spec.stride is not None else None
    return spec.address, spec.address + (spec.nbytes if reach is None else reach * ITEM_BYTES[spec.dtype])


def _repeats(spec: TensorSpec) -> bool:
    """Whether two indices may name one element."""
    reach = 0
    for stride, size in sorted(zip(spec.stride or (), spec.shape, strict=False)):
        if size > 1 and stride <= reach:
            return True
        reach += (size - 1) * stride
    return False


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]

"""Whose memory is an output? A forward that returns new memory must be answered with new memory.

Else a candidate could save the writing: hand back an input, one buffer again and again, or a view that repeats a few elements.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kernel_env.referee.layout import ITEM_BYTES, TensorSpec, leaves
from kernel_env.referee.memory import are_own

_MOST_MAPPED = 1 << 26
"""Elements that are looked at one by one."""
REPEATS = "is a view that repeats elements"
SHARED = "has tensors that share memory"
EARLIER = "lies in the memory of an earlier output, which is still in use"
FOREIGN = "lies in memory that is not the program's own, such as an input"


def traits(output: Any, earlier: Any, pid: int) -> frozenset[str]:
    """What an output (as its runner described it) does not own. `earlier` is one that was kept alive beside it.

    The process's memory map is asked too. Nothing is found where an output is malformed or a map cannot be read:
    comparing tells of the one, and the other is a machine that does not allow it.
    """
    mine, before = _tensors(output), _tensors(earlier)
    spans = [span for spec in mine if (span := _span(spec))]
    found = set()
    if any(map(_repeats, mine)):
        found.add(REPEATS)
    if any(_share(a, b) for a, b in itertools.combinations(mine, 2)):
        found.add(SHARED)
    if any(_overlap(a, b) for a in spans for spec in before if (b := _span(spec))):
        found.add(EARLIER)
    if not are_own(pid, spans):
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


def _share(a: TensorSpec, b: TensorSpec) -> bool:
    """Whether two tensors have memory in common. Columns of one buffer lie between each other and share none."""
    spans = _span(a), _span(b)
    if not _overlap(*spans):
        return False
    item = ITEM_BYTES[a.dtype]
    start, end = min(s for s, _ in spans), max(e for _, e in spans)
    if item != ITEM_BYTES[b.dtype] or (a.address - b.address) % item or end - start > _MOST_MAPPED * item:
        return True
    taken = np.zeros((end - start) // item, dtype=np.int8)
    for spec in (a, b):
        strides = spec.stride if spec.stride is not None else [math.prod(spec.shape[i + 1 :]) for i in range(len(spec.shape))]
        if min(strides, default=0) < 0:
            return True
        view = np.lib.stride_tricks.as_strided(taken[(spec.address - start) // item :], spec.shape, strides)
        view += 1
    return bool((taken > 1).any())


def _overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]

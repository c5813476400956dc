"""Do two values agree? Reads bytes with numpy, in the referee's process; knows nothing of torch.

Floating-point leaves agree where |got - expected| <= atol + rtol * |expected| (see `tolerance`), element by element; NaN agrees
with NaN and infinities with equal ones only. Everything else agrees exactly. Where outputs are known well enough
(`Tolerance.least`) parts of a tensor are compared by themselves too: one that is small beside the others could be left out, element
by element.

An element that differs may be undetermined: which of two equal numbers comes first, or what a threshold does with one that lies on
it. It is when the reference itself gives that other answer on inputs that differ in their last bits (`excused`).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kernel_env.referee.layout import Memory, TensorSpec, leaves, of_one_kind
from kernel_env.referee.tolerance import PART, Tolerance

Array = npt.NDArray[Any]
_CHUNK = 1 << 16
"""Elements compared at a time: what comparing needs of memory stays in a core's cache. A multiple of `PART`."""
PART_SHARE = 0.05
"""How much of a part's mean magnitude its mean difference may be."""
UNDETERMINED, _UNDETERMINED_COUNT = 0.05, 2
"""A share of a tensor's elements, and a number: so many may be undetermined, whichever is more. Where more differ, the reference
says too little to excuse anyone."""
FEW_ANSWERS = 16
"""So many answers of the reference that do not explain any of the elements that differ are enough."""
_MESSAGE_CHARS = 2000
"""An untrusted tree can be described at any length."""


@dataclass(frozen=True)
class Difference:
    """Why two values do not agree. `category`: structure, shape, dtype, values or nonfinite."""

    category: str
    message: str
    wrong: int = 0
    """Elements of a tensor that differ, ..."""
    total: int = 0
    """... of so many. 0 where it is no matter of single elements."""

    @property
    def may_be_undetermined(self) -> bool:
        return 0 < self.wrong <= _most_undetermined(self.total)


def compare(
    expected: Any, expected_arena: Memory, got: Any, got_arena: Memory, tol: Tolerance, path: str = "output"
) -> Difference | None:
    """Compare two spec trees over their mappings. Tensor data of `got` is read at the places that `expected` dictates.

    `got` may be untrusted JSON: anything malformed is a structural difference.
    """
    try:
        found = _compare(expected, expected_arena, got, got_arena, _Limits(tol), path)
        return found and replace(found, message=found.message[:_MESSAGE_CHARS])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # untrusted tree: malformed is a difference
        return Difference("structure", f"{path} cannot be read as a value")


def excused(expected: Any, expected_arena: Memory, got: Any, got_arena: Memory, tol: Tolerance, answers: Iterator[Memory]) -> bool:
    """Whether the few elements that differ are as in one of these answers of the reference, each laid out as the expected one.

    Changes what is in `got_arena`, which is laid out likewise: what is explained is as expected then.
    """
    found = compare(expected, expected_arena, got, got_arena, tol)
    for count, answer in enumerate(answers if found and found.may_be_undetermined else ()):
        _take_over(expected, expected_arena, got_arena, answer, tol)
        left = compare(expected, expected_arena, got, got_arena, tol)
        if left is None or not left.may_be_undetermined:
            return left is None
        if count + 1 == FEW_ANSWERS and left == found:
            break
    return found is None


def _take_over(expected: Any, expected_arena: Memory, got_arena: Memory, answer: Memory, tol: Tolerance) -> None:
    """Where a few elements differ and are as in the answer, make them as expected."""
    limits = _Limits(tol)
    for spec in leaves(expected):
        atol, rtol, _ = limits.of_tensor(spec.dtype)
        stored, mine, other = (flat(spec, arena) for arena in (expected_arena, got_arena, answer))
        found, left = [np.empty(0, np.int64)], _most_undetermined(stored.size)
        for start in range(0, stored.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            found.append(start + np.flatnonzero(_bad(stored[part], mine[part], spec.dtype, atol, rtol)))
            left -= found[-1].size
            if left < 0:  # too many; and their places would need more memory than they do
                break
        else:
            places = np.concatenate(found)
            same = places[~_bad(other[places], mine[places], spec.dtype, atol, rtol)]
            mine[same] = stored[same]


def _most_undetermined(total: int) -> float:
    return max(UNDETERMINED * total, _UNDETERMINED_COUNT)


def _bad(stored: Array, other: Array, dtype: str, atol: float, rtol: float) -> Array:
    """Which elements differ."""
    expected, got = wide(stored, dtype), wide(other, dtype)
    if expected.dtype.kind not in "fc":
        return np.asarray(expected != got)
    with np.errstate(invalid="ignore", over="ignore"):
        return _differ(expected, got, np.abs(got - expected), np.abs(expected) * rtol + atol)


def _differ(expected: Array, got: Array, size: Array, room: Array) -> Array:
    bad: Array = ~((size <= room) & np.isfinite(expected))
    bad &= ~((expected == got) | (np.isnan(expected) & np.isnan(got)))
    return bad


class _Limits:
    """Tolerances of tensors in the order in which they are met."""

    def __init__(self, tol: Tolerance) -> None:
        self._tol, self._met = tol, 0

    def of_tensor(self, dtype: str) -> tuple[float, float, float | None]:
        """atol, rtol, and what is always allowed."""
        self._met += 1
        return *self._tol.limits(dtype, self._met - 1), self._tol.least(dtype, self._met - 1)

    def of_number(self) -> float:
        return self._tol.single


def _compare(expected: Any, a: Memory, got: Any, b: Memory, limits: _Limits, path: str) -> Difference | None:
    ((kind, value),) = expected.items()
    ((got_kind, got_value),) = got.items()
    if not of_one_kind(kind, got_kind):
        return Difference("structure", f"{path} should be {_described(expected)}, got {_described(got)}")
    if kind == "tensor":
        spec = TensorSpec.parse(value)
        return _compare_tensor(spec, a, TensorSpec.parse(got_value), b, limits.of_tensor(spec.dtype), path)
    if kind in ("list", "tuple"):
        if len(value) != len(got_value):
            return Difference("structure", f"{path} should have {len(value)} items, got {len(got_value)}")
        pairs = [(f"{path}[{i}]", x, y) for i, (x, y) in enumerate(zip(value, got_value, strict=True))]
    elif kind == "dict":
        if value.keys() != got_value.keys():
            return Difference("structure", f"{path} should have keys {list(value)}, got {list(got_value)}")
        pairs = [(f"{path}[{k!r}]", value[k], got_value[k]) for k in value]
    else:
        return _compare_plain(value, got_value, limits.of_number(), path)
    for name, x, y in pairs:
        found = _compare(x, a, y, b, limits, name)
        if found is not None:
            return found
    return None


def _described(tree: Any) -> str:
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return f"a tensor of shape {list(value['shape'])}"
    return f"a {kind} of {len(value)} items" if kind in ("list", "tuple", "dict") else f"the plain value {str(value)[:60]}"


def _compare_plain(expected: Any, got: Any, tol: float, path: str) -> Difference | None:
    if isinstance(expected, float) and isinstance(got, float):
        near = math.isfinite(expected) and abs(got - expected) <= tol + tol * abs(expected)
        same = expected == got or (math.isnan(expected) and math.isnan(got))
        return None if near or same else Difference("values", f"{path}: expected {expected:.6g}, got {got:.6g}")
    same = type(expected) is type(got) and expected == got
    return None if same else Difference("values", f"{path}: expected {expected!r:.60}, got {got!r:.60}")


def _compare_tensor(
    spec: TensorSpec, a: Memory, got: TensorSpec, b: Memory, limits: tuple[float, float, float | None], path: str
) -> Difference | None:
    if got.shape != spec.shape:
        return Difference("shape", f"{path} has the wrong shape: expected {list(spec.shape)}, got {list(got.shape)}")
    if got.dtype != spec.dtype:
        return Difference("dtype", f"{path} has the wrong dtype: expected {spec.dtype}, got {got.dtype}")
    expected_flat, got_flat = flat(spec, a), flat(spec, b)
    report = _Report(spec, limits, path)
    for start in range(0, expected_flat.size, _CHUNK):
        report.add(
            start, wide(expected_flat[start : start + _CHUNK], spec.dtype), wide(got_flat[start : start + _CHUNK], spec.dtype)
        )
    return report.difference()


def flat(spec: TensorSpec, arena: Memory) -> Array:
    """The tensor's elements as a flat array over the mapping (bfloat16 as its uint16 bits)."""
    stored = np.dtype("uint16" if spec.dtype == "bfloat16" else spec.dtype)
    return np.frombuffer(arena.map, dtype=stored, count=spec.nbytes // stored.itemsize, offset=spec.offset)


def wide(values: Array, dtype: str) -> Array:
    """Floating-point values in a type wide enough to subtract in."""
    if dtype == "bfloat16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32) if dtype == "float16" else values


class _Report:
    """Collects where a tensor differs, chunk by chunk."""

    def __init__(self, spec: TensorSpec, limits: tuple[float, float, float | None], path: str) -> None:
        self.spec, self.path = spec, path
        self.atol, self.rtol, self.least = limits
        self.always = self.atol if self.least is None else min(self.atol, self.least)
        """A difference that is allowed anywhere."""
        self.wrong = self.nonfinite = 0
        self.first: tuple[int, Any, Any] | None = None
        self.worst: tuple[float, int, Any, Any] | None = None
        self.part: tuple[int, float] | None = None
        """Where a part begins that is wrong as a whole, and by which share of its size."""

    def add(self, start: int, expected: Array, got: Array) -> None:
        if expected.dtype.kind not in "fc":
            bad = expected != got
            if not bad.any():
                return
            size = np.abs(got.astype(np.float64) - expected.astype(np.float64))
        else:
            with np.errstate(invalid="ignore", over="ignore"):
                size = got - expected
                size = np.abs(size, out=size if size.dtype.kind == "f" else None)
                if size.size and size.max() <= self.always:  # as most are; false where one is not finite
                    return
                magnitude = np.abs(expected)
                self._look_at_parts(start, magnitude, size)
                room = magnitude * magnitude.dtype.type(self.rtol)
                room += magnitude.dtype.type(self.atol)
                if (size <= room).all() and np.isfinite(room).all():
                    return
                bad = _differ(expected, got, size, room)
        count = int(np.count_nonzero(bad))
        if count == 0:
            return
        self.wrong += count
        where = np.flatnonzero(bad)
        self.nonfinite += int(np.count_nonzero(~np.isfinite(got[where]))) if got.dtype.kind in "fc" else 0
        if self.first is None:
            self.first = (start + int(where[0]), expected[where[0]], got[where[0]])
        errors = np.where(np.isfinite(size[where]), size[where], np.inf)
        top = int(where[int(np.argmax(errors))])
        if self.worst is None or float(errors.max()) > self.worst[0]:
            self.worst = (float(errors.max()), start + top, expected[top], got[top])

    def _look_at_parts(self, start: int, expected: Array, size: Array) -> None:
        whole = expected.size // PART * PART
        if self.least is None or self.part is not None or not whole:
            return
        of, by = (_means(values[:whole].reshape(-1, PART)) for values in (expected, size))
        bad = np.flatnonzero((by > self.least) & (by > PART_SHARE * of))  # false where a part is not finite
        if bad.size:
            self.part = (start + int(bad[0]) * PART, float(by[bad[0]] / of[bad[0]]) if of[bad[0]] else math.inf)

    def difference(self) -> Difference | None:
        if self.first is None and self.part is not None:
            begin, share = self.part
            where = f"elements {begin:,} to {begin + PART - 1:,} of {math.prod(self.spec.shape):,}, from {self._index(begin)} on"
            text = f"{self.path} has wrong values: {where}, differ by {100 * share:.3g}% of their size on average."
            return Difference("values", f"{text}\nShape {list(self.spec.shape)}, dtype {self.spec.dtype}.")
        if self.first is None or self.worst is None:
            return None
        total = math.prod(self.spec.shape)
        text = f"{self.path} has wrong values: {self.wrong:,} of {total:,} elements ({100 * self.wrong / total:.3g}%) differ"
        text += f" by more than {self.atol:.3g} + {self.rtol:.3g} * |expected|" if self.atol or self.rtol else ""
        text += f"; {self.nonfinite:,} of them are NaN or infinite" if self.nonfinite else ""
        error, index, expected, got = self.worst
        text += f".\nFirst at {self._index(self.first[0])}: expected {_number(self.first[1])}, got {_number(self.first[2])}."
        text += f"\nWorst at {self._index(index)}: expected {_number(expected)}, got {_number(got)} (absolute error {error:.4g})."
        text += f"\nShape {list(self.spec.shape)}, dtype {self.spec.dtype}."
        return Difference("nonfinite" if self.nonfinite else "values", text, self.wrong, total)

    def _index(self, flat_index: int) -> str:
        return str([int(i) for i in np.unravel_index(flat_index, self.spec.shape)]) if self.spec.shape else "[]"


def _means(rows: Array) -> Array:
    """Of each row. Sums in single precision are good enough, and ten times as fast, unless they overflow."""
    with np.errstate(over="ignore"):
        found: Array = rows.mean(axis=1).astype(np.float64)
    return found if np.isfinite(found).all() else np.asarray(rows.mean(axis=1, dtype=np.float64))


def _number(value: Any) -> str:
    return f"{value:.6g}" if np.asarray(value).dtype.kind in "fc" else str(value)


_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def same_bytes(a: Memory, b: Memory) -> bool:
    first, second = np.frombuffer(a.map, np.uint8), np.frombuffer(b.map, np.uint8)
    return first.size == second.size and _memcmp(first.ctypes.data, second.ctypes.data, first.size) == 0

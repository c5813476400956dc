"""How values travel between processes: a JSON tree whose tensor leaves point into one shared mapping.

Spec of a tensor leaf: `{"tensor": {"dtype", "shape", "stride" or null, "offset", "nbytes"}}`, offsets in bytes, 64-byte aligned.
This module knows no torch; `runner` writes and reads tensors, `compare` reads the same bytes with numpy.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

ALIGN = 64
ITEM_BYTES = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8, "uint64": 8,
    "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip
_SEALS = 1 | 2 | 4  # F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW
_F_ADD_SEALS = 1033


def align(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN


def paged(size: int) -> int:
    """Size of the pages that so many bytes need."""
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


@dataclass(frozen=True)
class TensorSpec:
    """One tensor's place in a mapping. `stride` (in elements) is None for contiguous ones."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...] | None
    offset: int
    nbytes: int
    address: int = 0
    """Where an output lies in its runner's own memory, as the runner says; 0 elsewhere."""

    @staticmethod
    def parse(data: Any) -> TensorSpec:
        """From untrusted JSON; raises ValueError."""
        if not isinstance(data, dict) or data.get("dtype") not in ITEM_BYTES:
            raise ValueError("not a tensor spec")
        shape, stride = data["shape"], data.get("stride")
        for ints in (shape, stride or []):
            if not isinstance(ints, list) or len(ints) > 64 or not all(type(n) is int and 0 <= n < 1 << 48 for n in ints):
                raise ValueError("not a tensor spec")
        offset, nbytes, address = data.get("offset"), data.get("nbytes"), data.get("address", 0)
        if not all(type(n) is int and 0 <= n < 1 << 63 for n in (offset, nbytes, address)):
            raise ValueError("not a tensor spec")
        assert isinstance(offset, int)
        if nbytes != math.prod(shape) * ITEM_BYTES[data["dtype"]] or (stride is not None and len(stride) != len(shape)):
            raise ValueError("not a tensor spec")
        return TensorSpec(data["dtype"], tuple(shape), None if stride is None else tuple(stride), offset, nbytes, address)


def of_one_kind(kind: str, other: str) -> bool:
    """Whether two nodes of trees may stand for one value: a function of an extension returns a list where a tuple is meant."""
    return kind == other or {kind, other} == {"list", "tuple"}


def leaves(tree: Any) -> Iterator[TensorSpec]:
    """Tensor specs of a spec tree, in order. Raises ValueError on malformed trees."""
    if not isinstance(tree, dict) or len(tree) != 1:
        raise ValueError("not a value tree")
    ((kind, value),) = tree.items()
    if kind == "tensor":
        yield TensorSpec.parse(value)
    elif kind in ("list", "tuple"):
        for item in value:
            yield from leaves(item)
    elif kind == "dict":
        for item in value.values():
            yield from leaves(item)


def total_bytes(tree: Any) -> int:
    """Size of the mapping that the tree's tensors need."""
    return max((spec.offset + spec.nbytes for spec in leaves(tree)), default=0)


def packed(tree: Any, offset: int = 0) -> tuple[Any, int]:
    """The same tree with its tensors contiguous, one after the other from `offset`; and the first free offset.

    Raises ValueError on malformed trees.
    """
    if not isinstance(tree, dict) or len(tree) != 1:
        raise ValueError("not a value tree")
    ((kind, value),) = tree.items()
    if kind == "tensor":
        spec, start = TensorSpec.parse(value), align(offset)
        leaf = {"dtype": spec.dtype, "shape": list(spec.shape), "stride": None, "offset": start, "nbytes": spec.nbytes}
        return {"tensor": leaf}, start + spec.nbytes
    if kind not in ("list", "tuple", "dict"):
        return tree, offset
    entries = {}
    for key, item in value.items() if kind == "dict" else enumerate(value):
        entries[key], offset = packed(item, offset)
    return {kind: entries if kind == "dict" else list(entries.values())}, offset


class Arena:
    """An anonymous shared mapping of fixed size; its descriptor can be handed to one runner.

    Sealed against resizing, so that no peer can make our own reads fail by shrinking it.
    """

    fd = -1

    def __init__(self, size: int) -> None:
        self.size = max(size, 1)
        self.fd = os.memfd_create("kernel-env", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, self.size)
        fcntl.fcntl(self.fd, _F_ADD_SEALS, _SEALS)
        self.map = mmap.mmap(self.fd, self.size)

    def copy_from(self, other: Memory) -> None:
        np.frombuffer(self.map, np.uint8)[:] = np.frombuffer(other.map, np.uint8)

    def parts(self, size: int) -> list[Part]:
        """As many of this size as there is room for, each on pages of its own. They have to be closed before this is."""
        return [Part(self.map, start, size) for start in range(0, self.size - size + 1, paged(size))]

    def keep_private(self) -> None:
        """No one else is given it from now on. Frees the descriptor, of which a process may have a thousand only."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def close(self) -> None:
        self.map.close()
        self.keep_private()

    def __del__(self) -> None:
        self.keep_private()


class Part:
    """Some pages of an arena."""

    def __init__(self, whole: mmap.mmap, start: int, size: int) -> None:
        self.size = size
        self.map = memoryview(whole)[start : start + size]

    def copy_from(self, other: Memory) -> None:
        np.frombuffer(self.map, np.uint8)[:] = np.frombuffer(other.map, np.uint8)

    def close(self) -> None:
        self.map.release()


class Buffer:
    """Private memory of this process, for outputs that are read from a runner's memory. Filled with a byte pattern that reads as
    NaN in every floating-point type, so that nothing stale can look right."""

    def __init__(self, size: int, *, lasting: bool = False) -> None:
        """What is `lasting` lies beside the heap, which is never given back."""
        self.size = max(size, 1)
        own = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.map = np.frombuffer(mmap.mmap(-1, self.size, own), np.uint8) if lasting else np.empty(self.size, np.uint8)
        self.map[:] = 0xFF

    @classmethod
    def of(cls, other: Memory) -> Buffer:
        """A lasting copy. A mapping that others may have costs a descriptor for as long as it is there."""
        copy = cls(other.size, lasting=True)
        copy.copy_from(other)
        return copy

    def copy_from(self, other: Memory) -> None:
        self.map[:] = np.frombuffer(other.map, np.uint8)

    def close(self) -> None:
        self.map = np.empty(0, np.uint8)


Memory = Arena | Part | Buffer

"""Moves the code that this process has generated at run time to other physical pages, at the same addresses.

Which pages such code happens to lie in decides how it shares the second-level cache with its data: one instance in ten of a
convolution of oneDNN runs 7 to 50% slower than the others, for as long as its code stays where it is. Where it is moved now and
then, that evens out. (Curtsinger and Berger, "Stabilizer", ASPLOS 2013, does the same by virtual addresses.) Code in files lies
in pages that all processes share.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

MOST_BYTES = 16 << 20
"""So much is moved at most. A larger mapping is a reserve, or no code."""
SPARE_PAGES = 64
"""Up to so many pages are held meanwhile, else the kernel gives the same ones again."""
_MAYMOVE_FIXED = 1 | 2
_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_POPULATE = 0x8000
_FAILED = ctypes.c_void_p(-1).value

_GENERATED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) r([-w])xp [0-9a-f]+ [0-9a-f:]+ 0 *$", re.MULTILINE)
"""A line of the memory map. (To take all lines apart costs ten times as much, and this is done before each block.)"""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = _libc.mremap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def generated() -> list[tuple[int, int, int]]:
    """Address, size and protection of each private mapping of no file that may be executed and read."""
    found = []
    for line in _GENERATED.finditer(Path("/proc/self/maps").read_bytes()):
        start, end = int(line[1], 16), int(line[2], 16)
        found.append((start, end - start, mmap.PROT_READ | mmap.PROT_EXEC | (mmap.PROT_WRITE if line[3] == b"w" else 0)))
    return found


def move(spare_pages: int) -> int:
    """Move what was generated; other threads may run it meanwhile, but not write to it. Returns how many bytes were moved. Raises
    OSError where there is no memory for it: then the rest stays where it is."""
    moved, held = 0, max(1, spare_pages) * mmap.PAGESIZE
    for start, size, protection in generated():
        if moved + size > MOST_BYTES:
            continue
        with _new(held, _POPULATE), _new(size) as copy:
            ctypes.memmove(copy, start, size)
            _checked(_libc.mprotect(copy, size, protection) == 0)
            _checked(_libc.mremap(copy, size, size, _MAYMOVE_FIXED, start) == start)
        moved += size
    return moved


@contextlib.contextmanager
def _new(size: int, flags: int = 0) -> Iterator[int]:
    """A mapping for a while. (To unmap what was moved away is no error.)"""
    address = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, _ANONYMOUS | flags, -1, 0)
    _checked(address != _FAILED)
    try:
        yield address
    finally:
        _libc.munmap(address, size)


def _checked(done: bool) -> None:
    if not done:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

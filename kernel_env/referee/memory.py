"""Reading another process's memory from outside, while that process is frozen or between two of its calls.

The referee reads outputs where a runner says that they lie. So nothing of the candidate's has to run to hand an output over, and
what was not yet written when "done" arrived is seen as missing. Uses process_vm_readv(2), which needs the right to trace the
process: the same user, and under Yama's restriction the runner's own consent (`PR_SET_PTRACER`).
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

_PIECE = 1 << 30
"""One call reads at most this much: the kernel refuses 2 GiB and more."""
_MOST_RUNS = 1024
"""The kernel takes no longer lists (IOV_MAX)."""
_libc = ctypes.CDLL(None, use_errno=True)
_readv = _libc.process_vm_readv
_readv.restype = ctypes.c_ssize_t
_readv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_ulong]
_IOVEC = np.dtype([("base", np.uint64), ("length", np.uint64)])


def read_memory(pid: int, address: int, target: npt.NDArray[np.uint8]) -> None:
    """Fill `target` (contiguous) from `address` of the process. Raises OSError: PermissionError where it may not be read."""
    for start in range(0, target.size, _PIECE):
        part = target[start : start + _PIECE]
        local = np.array([(part.ctypes.data, part.size)], _IOVEC)
        remote = np.array([(address + start, part.size)], _IOVEC)
        if _call(pid, local, remote) != part.size:
            raise OSError(f"{part.size} bytes at {address + start:#x} of process {pid} cannot be read whole")


def read_runs(pid: int, addresses: npt.NDArray[np.uint64], size: int, target: npt.NDArray[np.uint8]) -> None:
    """Fill `target` with so many bytes from each of these addresses of the process. Raises OSError."""
    for start in range(0, addresses.size, _MOST_RUNS):
        some = addresses[start : start + _MOST_RUNS]
        part = target[start * size : (start + some.size) * size]
        remote = np.zeros(some.size, _IOVEC)
        remote["base"], remote["length"] = some, size
        if _call(pid, np.array([(part.ctypes.data, part.size)], _IOVEC), remote) != part.size:
            raise OSError(f"{part.size} bytes of process {pid} cannot be read whole")


_OWN = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) .w.p [0-9a-f]+ [0-9a-f:]+ 0(?: |$)", re.MULTILINE)
"""A line of private writable memory that belongs to no file. Lines end at line feeds only."""
_LINE = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) (....) [0-9a-f]+ [0-9a-f:]+ ([0-9]+) *(.*)", re.MULTILINE)
_QUERY = struct.Struct("=9Q4I2Q")
"""What is asked and answered: its size, flags, address; start, end, rights, page size, offset and inode of the area; more."""
_PROCMAP_QUERY = 0xC0686611
"""Linux 6.11 and later."""
_WRITABLE, _SHARED = 2, 8
"""Rights. System V's shared memory may have inode 0, as what belongs to no file has."""


class Area(NamedTuple):
    """A line of a process's memory map."""

    start: int
    end: int
    rights: str
    inode: int
    name: str


def areas(pid: int | str) -> list[Area]:
    """A process's memory map. Raises OSError. Names are the process's own choice, and may hold any byte but a line feed."""
    lines = _LINE.findall(Path(f"/proc/{pid}/maps").read_bytes())
    return [
        Area(int(start, 16), int(end, 16), rights.decode(), int(inode), name.decode(errors="replace").rstrip(" "))
        for start, end, rights, inode, name in lines
    ]


def code_files(pid: int) -> set[str]:
    """Paths of the files whose code a process can run. Raises OSError."""
    return {area.name for area in areas(pid) if area.inode and "x" in area.rights}


def is_readable(pid: int) -> bool:
    """Whether this process may read memory of that one. Asked before it runs foreign code, which can see to it that nobody may."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb", buffering=1 << 12) as maps:
        for line in filter(None, map(_LINE.match, maps)):
            with contextlib.suppress(OSError):
                read_memory(pid, int(line[1], 16), np.zeros(1, np.uint8))
                return True
    return False


def are_own(pid: int, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether all of these addresses (start, end) lie in private writable memory of the process; so where its map may not be read.
    A file's pages are not its own: one small file can be mapped again and again, as a large output that was never written."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb", buffering=0) as maps:
        try:
            return all(_asked(maps.fileno(), *span) for span in spans)
        except OSError:  # an older kernel, or a container that forbids to ask
            own = _own_memory(maps.read())
        return not own or all(any(start <= a and b <= end for start, end in own) for a, b in spans)
    return True


def _asked(maps: int, start: int, end: int) -> bool:
    """As above, asked area by area: a map has a thousand lines, and takes half a millisecond to read. Raises OSError."""
    with contextlib.suppress(FileNotFoundError, struct.error):  # nothing lies there, or no process has such addresses
        while True:
            query = bytearray(_QUERY.pack(_QUERY.size, 0, start, *[0] * 12))
            fcntl.ioctl(maps, _PROCMAP_QUERY, query)
            *_, area_end, rights, _, _, inode = _QUERY.unpack(query)[:9]
            if rights & (_WRITABLE | _SHARED) != _WRITABLE or inode:
                return False
            if end <= area_end:
                return True
            start = area_end
    return False


def _own_memory(text: bytes) -> list[tuple[int, int]]:
    """(start, end) of them in a memory map, neighbours joined."""
    found: list[tuple[int, int]] = []
    for line in _OWN.finditer(text):
        start, end = int(line[1], 16), int(line[2], 16)
        found.append((found.pop()[0] if found and found[-1][1] == start else start, end))
    return found


def private_bytes(pid: int) -> int:
    """Memory that is the process's own and that it uses; 0 where that cannot be read."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        rows = Path(f"/proc/{pid}/status").read_bytes().split(b"\n")  # its name may hold a carriage return
        return next((int(row.split()[1]) for row in rows if row.startswith(b"RssAnon:")), 0) << 10
    return 0


class Samples:
    """8-byte words at random places of an output's tensors, read in one system call of a few microseconds."""

    def __init__(self, sizes: Sequence[int], rng: np.random.Generator, count: int = 64) -> None:
        """`sizes` are bytes; tensors under 8 bytes are left out."""
        weights = np.array([max(size - 7, 0) for size in sizes], np.float64)
        count = count if weights.any() else 0
        self._chosen = rng.choice(len(sizes), count, p=weights / weights.sum()) if count else np.zeros(0, np.int64)
        self._places = (rng.random(count) * weights[self._chosen]).astype(np.uint64)
        self._remote = np.zeros(count, _IOVEC)
        self._remote["length"] = 8

    def read(self, pid: int, addresses: Sequence[int]) -> bytes:
        """The words, of tensors at these addresses. Raises OSError."""
        words = np.zeros(self._remote.size, np.uint64)
        if words.size:
            self._remote["base"] = np.array(addresses, np.uint64)[self._chosen] + self._places
            local = np.array([(words.ctypes.data, words.nbytes)], _IOVEC)
            if _call(pid, local, self._remote) != words.nbytes:
                raise OSError(f"the output's memory in process {pid} cannot be read")
        return words.tobytes()


def _call(pid: int, local: npt.NDArray[Any], remote: npt.NDArray[Any]) -> int:
    got = int(_readv(pid, local.ctypes.data, local.size, remote.ctypes.data, remote.size, 0))
    if got < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return got


def move(memory: np.ndarray[Any, np.dtype[np.uint64]]) -> float:
    """Through the caches, reading and writing: what is only written may go past them. Returns for how many seconds."""
    started = time.perf_counter()
    memory += np.uint64(1)
    return time.perf_counter() - started

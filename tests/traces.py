"""What a verifier's processes hold and have made: taken before and after, to see what is left behind.

Ours are this process, all below it, and whatever else was started with the same directory for temporary files and has lost its
parent. What another user's right does not show (descriptors and mappings of hidden processes, unless we are root) stays empty.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kernel_env.processes import WAITING

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Held:
    """Of one process."""

    name: str
    threads: int = 0
    descriptors: Counter[str] = field(default_factory=Counter)
    """How many of each sort: `socket`, `pipe`, `/dev/null`, ..."""
    locks: int = 0
    mappings: int = 0
    resident_mb: float = 0.0


_RUNNER = re.compile(r"(/runner-)\w+$")


@dataclass(frozen=True)
class Traces:
    """Of all of ours at one moment."""

    processes: dict[int, Held]
    """By pid; a zombie too. Without runners that wait for the next job: those change all the time, ..."""
    waiting: int
    """... but not their number."""
    files: frozenset[str]
    """Below our directory for temporary files, in /dev/shm and in /dev/mqueue."""
    segments: frozenset[str]
    """System V shared memory, semaphores and queues."""
    mounts: frozenset[str]
    threads: int = field(default_factory=threading.active_count)
    """Of Python, in this process."""

    @staticmethod
    def now() -> Traces:
        processes = {pid: _held(pid) for pid in _ours()}
        waiting = [pid for pid, held in processes.items() if held.name == WAITING]
        for pid in waiting:
            del processes[pid]
        return Traces(processes, len(waiting), _files(), _segments(), _mounts())

    def left(self, later: Traces) -> list[str]:
        """What differs later, in words; mappings and resident memory aside (see `grown`)."""
        found = []
        for name in ("files", "segments", "mounts"):
            before, after = getattr(self, name), getattr(later, name)
            found += [f"{name}: {thing} is left" for thing in sorted(after - before)]
            found += [f"{name}: {thing} is gone" for thing in sorted(before - after)]
        found += [f"process {pid} is gone: {held.name}" for pid, held in self.processes.items() if pid not in later.processes]
        for pid, held in later.processes.items():
            if pid not in self.processes:
                found.append(f"process {pid} is left: {held.name}")
                continue
            before = self.processes[pid]
            for what in ("threads", "descriptors", "locks"):
                if getattr(held, what) != getattr(before, what):
                    found.append(f"{held.name}: {what} were {getattr(before, what)}, are {getattr(held, what)}")
        if self.waiting != later.waiting:
            found.append(f"{self.waiting} runners waited, {later.waiting} do")
        return found + ([f"threads were {self.threads}, are {later.threads}"] if self.threads != later.threads else [])

    def grown(self, later: Traces) -> dict[str, tuple[float, int]]:
        """By how many MB of resident memory, and how many mappings, each process grew."""
        common = self.processes.keys() & later.processes.keys()
        pairs = {pid: (self.processes[pid], later.processes[pid]) for pid in common}
        return {
            f"{after.name} {pid}": (after.resident_mb - before.resident_mb, after.mappings - before.mappings)
            for pid, (before, after) in sorted(pairs.items())
        }


def _ours() -> list[int]:
    """Pids of this process, of all below it, and of orphans that were started with our directory for temporary files."""
    children: dict[int, list[int]] = {}
    mark = b"TMPDIR=" + os.fsencode(tempfile.gettempdir())
    found, waiting = [], [os.getpid()]
    for pid, parent in _processes():
        children.setdefault(parent, []).append(pid)
        with suppress(OSError):
            if parent == 1 and mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                waiting.append(pid)
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return sorted(set(found))


def _processes() -> Iterator[tuple[int, int]]:
    """(pid, parent) of every process of this machine."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                yield int(entry.name), int(Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1])


def _held(pid: int) -> Held:
    name = f"process {pid}"
    with suppress(OSError, IndexError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        known = [part.rpartition(".")[2] for part in command if part.startswith("kernel_env.referee.")]
        name = (
            "this process"
            if pid == os.getpid()
            else WAITING
            if _waits(pid)
            else known[0]
            if known
            else f"{' '.join(command)[:60]} ({_state(pid)})"
        )
    sorts: Counter[str] = Counter()
    with suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # the one that lists
                sorts[_NUMBER.sub("", os.readlink(f"/proc/{pid}/fd/{fd}"))] += 1
    numbers = {"Threads": 0, "VmRSS": 0}
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            key, _, value = line.partition(":")
            if key in numbers:
                numbers[key] = int(value.split()[0])
    with suppress(OSError):
        return Held(name, numbers["Threads"], sorts, _locks(pid), _lines(f"/proc/{pid}/maps"), numbers["VmRSS"] / 1024)
    return Held(name, numbers["Threads"], sorts)


def _waits(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text().strip() == WAITING


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _locks(pid: int) -> int:
    return sum(line.split()[4] == str(pid) for line in Path("/proc/locks").read_text().splitlines() if "->" not in line)


def _lines(path: str) -> int:
    try:
        return len(Path(path).read_text().splitlines())
    except PermissionError:
        return 0


def _files() -> frozenset[str]:
    found: set[str] = set()
    for place in (tempfile.gettempdir(), "/dev/shm", "/dev/mqueue"):
        for directory, below, names in os.walk(place):
            found |= {os.path.join(directory, name) for name in (*below, *names)}
    scratch = {path for path in found if _RUNNER.search(path)}  # new for each runner: what counts is how many there are
    numbered = {_RUNNER.sub(rf"\g<1>{number}", path) for number, path in enumerate(sorted(scratch))}
    return frozenset(found - scratch | numbered)


def _segments() -> frozenset[str]:
    """Kind, key and owner of each."""
    found: set[str] = set()
    for kind in ("shm", "sem", "msg"):
        with suppress(OSError):
            rows = [line.split() for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]]
            found |= {f"{kind} {row[0]} {row[1]}" for row in rows}
    return frozenset(found)


def _mounts() -> frozenset[str]:
    """Without the statistics of other tests' namespaces: what this process sees is what the zygote sees."""
    return frozenset(line.split(" - ")[0] for line in Path("/proc/self/mountinfo").read_text().splitlines())

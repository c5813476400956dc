"""Where a runner's threads run while it is timed.

Left to the scheduler, a main thread that wakes for a call often lands on the core where one of its own OpenMP workers still spins,
and then waits for a time slice of milliseconds while another core idles. So workers get cores of their own, and a main thread
is woken on the first core. There it stays, unless the program starts threads of its own, which inherit where it may run, or can
count the cores on which it may run. Then it may run anywhere between its waking and its next sleep.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from kernel_env.checks.symbols import COUNTING
from kernel_env.errors import MachineBusy
from kernel_env.referee.memory import areas

PAUSES_S = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Waits before each attempt at a quiet session."""
_OPENMP = re.compile(r"/lib(gomp|omp|iomp5)\b[^/]*$")


def counts_cores(imports: Iterable[str]) -> bool:
    """Whether an extension that takes these symbols from libraries can see how many cores its main thread has."""
    return not COUNTING.isdisjoint(imports)


class Placed(NamedTuple):
    """What was found in a frozen process."""

    seen: frozenset[int] = frozenset()
    """Threads that were looked at: none is left out unless it had not yet stopped."""
    own: frozenset[int] = frozenset()
    """Those beside the main thread that are no worker of OpenMP's."""


def place_workers(pid: int, cores: tuple[int, ...]) -> Placed:
    """Deal the cores to the OpenMP threads of a frozen process, in the order of their creation in each library. The first core is
    the main thread's: a worker shares it only where there are more threads than cores.

    A worker is known by where it waits: in code of the OpenMP library. Without the right to see that, nothing is placed.
    """
    libraries, placed, seen, own = _libraries(pid), dict[str, int](), set[int](), set[int]()
    for thread in sorted(threads(pid)):
        instruction = _instruction(pid, thread)
        library = _library_at(instruction, libraries) if thread != pid else None
        if instruction or thread == pid:
            seen.add(thread)
        if library is not None:
            index = placed[library] = placed.get(library, 0) + 1
            with contextlib.suppress(OSError):  # it ended meanwhile
                os.sched_setaffinity(thread, {cores[index % len(cores)]})
        elif thread != pid:
            own.add(thread)
    return Placed(frozenset(seen), frozenset(own))


def ended_s(pid: int) -> float:
    """Seconds that threads of a frozen process had a core which are there no more; 0 if none has ended since it was forked.

    Until it has stopped the kernel's books of threads lag behind that of the process: then two readings differ.
    """
    before, found_s = -1.0, 0.0
    for _ in range(20):
        if found_s == before:
            break
        before, alive = found_s, threads(pid)
        found_s = round(cpu_s(pid) - sum(_thread_s(pid, thread) for thread in alive), 9) if alive else 0.0
    return max(0.0, found_s)


def _thread_s(pid: int, thread: int) -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0]) / 1e9
    return 0.0


def threads(pid: int) -> frozenset[int]:
    """Its threads; none when it has ended."""
    try:
        return frozenset(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return frozenset()


def _libraries(pid: int) -> list[tuple[int, int, str]]:
    """(start, end, path) of the code of OpenMP libraries."""
    with contextlib.suppress(OSError):
        return [(area.start, area.end, area.name) for area in areas(pid) if "x" in area.rights and _OPENMP.search(area.name)]
    return []


def _instruction(pid: int, thread: int) -> int:
    """The user-mode instruction at which a thread stands; 0 where that cannot be seen."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/task/{thread}/syscall").read_text().split()[-1], 16)
    return 0


def _library_at(address: int, libraries: list[tuple[int, int, str]]) -> str | None:
    return next((path for start, end, path in libraries if start <= address < end), None)


def page_faults(pid: int) -> int:
    """Pages that it was given so far without reading a disk; 0 where that cannot be seen."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])
    return 0


def booked_s(pid: int) -> float:
    """`cpu_s` until now. The kernel books what a thread runs once a tick (4 ms), or when its policy changes: so that is done, and
    all of a runner's threads have the last one."""
    if pid != os.getpid():
        for thread in threads(pid):
            with contextlib.suppress(OSError):  # it ended, or that is forbidden here
                for policy in (os.SCHED_OTHER, os.SCHED_BATCH):
                    os.sched_setscheduler(thread, policy, os.sched_param(0))
    return cpu_s(pid)


def cpu_s(pid: int) -> float:
    """Seconds that all threads of another process have had a core so far, as far as that is booked, to the nanosecond; 0 where that
    cannot be seen."""
    if pid == os.getpid():  # debugging: what we do ourselves is no work of a program's
        return 0.0
    return _process_s(pid)


class Waits:
    """How long threads of a process were ready to run and had no core, by the kernel's books. Reading costs microseconds."""

    def __init__(self, pid: int, *, own: bool = False) -> None:
        """Of the threads that are there now. With `own` the caller's counts too: where it waits for its core, replies come late."""
        self._files = []
        also = [(os.getpid(), threading.get_native_id())] if own else []
        for owner, thread in {*((pid, thread) for thread in threads(pid)), *also}:
            with contextlib.suppress(OSError):
                self._files.append(os.open(f"/proc/{owner}/task/{thread}/schedstat", os.O_RDONLY | os.O_CLOEXEC))

    def seconds(self) -> float:
        """Sum over the threads; 0 where the kernel keeps no books."""
        total_ns = 0
        for file in self._files:
            with contextlib.suppress(OSError, IndexError):  # the thread ended meanwhile
                total_ns += int(os.pread(file, 100, 0).split()[1])
        return total_ns / 1e9

    def close(self) -> None:
        for file in self._files:
            os.close(file)
        self._files = []


class OtherWork:
    """How much of some cores' time went to other processes than the given ones, since this object was made."""

    def __init__(self, cores: tuple[int, ...], processes: tuple[int, ...]) -> None:
        self._cores, self._processes = cores, processes
        self._ended: dict[int, float] = {}
        self._started = self._now()

    def ended(self, process: int, most_s: float) -> None:
        """One of the processes has ended or is about to, after so many seconds of CPU time at most."""
        self._ended[process] = most_s

    def share(self) -> float:
        """Between 0 and 1. The kernel counts in ticks: some tenths of a second are too short to say much."""
        wall_s, busy_s, *own_s = (now - then for now, then in zip(self._now(), self._started, strict=True))
        own = sum(max(0.0, used_s) for used_s in own_s)  # one whose end nobody told has no clock any more
        return min(1.0, max(0.0, (busy_s - own) / (wall_s * len(self._cores))))

    def _now(self) -> tuple[float, ...]:
        used_s = (max(_process_s(process), self._ended.get(process, 0.0)) for process in self._processes)
        return time.perf_counter(), sum(map(_busy_s, self._cores)), *used_s


def _busy_s(core: int) -> float:
    """Seconds that a core was not idle, stolen time of a virtual machine included; 0 where that cannot be read."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/stat").read_text().splitlines()
        fields = [int(n) for n in next(line for line in lines if line.startswith(f"cpu{core} ")).split()[1:9]]
        return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _process_s(pid: int) -> float:
    with contextlib.suppress(OSError):  # it ended
        return time.clock_gettime((~pid << 3) | 2)  # the clock of a process's CPU time, as clock_getcpuclockid(3) makes it
    return 0.0


def quiet(attempt: Callable[[], float], noise_limit: float) -> None:
    """Measure until the noise is within the limit. Raises MachineBusy, never a score, when it never is."""
    noise = []
    for pause_s in PAUSES_S:
        time.sleep(pause_s)
        noise.append(attempt())
        if noise[-1] <= noise_limit:
            return
    raise MachineBusy(
        f"too busy to take times: in {len(noise)} tries, threads waited for a core at least {min(noise):.0%} of the time; "
        "stop other work on this machine, or raise verify.noise_limit"
    )

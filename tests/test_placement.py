"""Threads of real processes: where OpenMP workers are put, how long threads waited, and whose time the cores' time was."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_env.referee.placement import OtherWork, Waits, page_faults, place_workers, threads

CORES = tuple(sorted(os.sched_getaffinity(0)))
NOBODY = 2**22 - 1
"""No process has this number."""
SPIN = "import sys; print(flush=True)\nwhile True: pass"
OPENMP = """
import sys, threading, torch
threading.Thread(target=threading.Event().wait, daemon=True).start()
torch.set_num_threads(2)
x = torch.randn(1 << 22)
y = x + x
print(flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def running(code: str) -> Iterator[int]:
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline()
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def stopped(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 10
    while any("\nState:\tT" not in Path(f"/proc/{pid}/task/{t}/status").read_text() for t in threads(pid)):
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_openmp_workers_get_a_core_and_other_threads_stay_free() -> None:
    with running(OPENMP) as pid:
        stopped(pid)
        assert place_workers(pid, CORES[:2]) == threads(pid)
        bound = {thread: os.sched_getaffinity(thread) for thread in threads(pid)}
        assert sorted(map(sorted, bound.values()))[-1] == [CORES[1]]
        assert list(bound.values()).count({CORES[1]}) == 1 and bound[pid] == set(CORES)
        assert len(bound) >= 3


def test_a_process_that_is_gone_has_nothing() -> None:
    assert threads(NOBODY) == frozenset()
    assert place_workers(NOBODY, CORES) == frozenset({})
    assert page_faults(NOBODY) == 0
    waits = Waits(NOBODY)
    assert waits.seconds() == 0.0
    waits.close()


def test_two_that_share_a_core_wait_for_it() -> None:
    with running(SPIN) as one, running(SPIN) as other:
        for pid in (one, other):
            os.sched_setaffinity(pid, CORES[:1])
        with contextlib.closing(Waits(one)) as waits:
            before = waits.seconds()
            deadline = time.monotonic() + 20
            while waits.seconds() - before < 0.1:
                assert time.monotonic() < deadline
                time.sleep(0.02)


def test_other_work_is_that_of_processes_that_are_not_named() -> None:
    with running(SPIN) as pid:
        os.sched_setaffinity(pid, CORES[:1])
        others, ours = OtherWork(CORES[:1], ()), OtherWork(CORES[:1], (pid,))
        time.sleep(1.0)
        assert others.share() > 0.3
        assert ours.share() < others.share() - 0.2


def test_touching_memory_is_counted() -> None:
    before = page_faults(os.getpid())
    block = bytearray(32 << 20)
    block[:: 1 << 12] = b"x" * (len(block) >> 12)
    assert page_faults(os.getpid()) > before

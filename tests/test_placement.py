"""Where a runner's threads run, and what the kernel's books say about waiting and other work."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernel_env.referee import placement as module
from kernel_env.referee.placement import (
    OtherWork,
    Waits,
    booked_s,
    counts_cores,
    cpu_s,
    ended_s,
    page_faults,
    place_workers,
    threads,
)

CORES = tuple(sorted(os.sched_getaffinity(0)))
WORKERS = """
import os, sys, threading, torch
torch.set_num_threads(3)
torch.randn(1 << 20).exp_()
threading.Thread(target=lambda: threading.Event().wait(), daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    words = line.split()
    if words[0] == "touch":
        kept = bytearray(int(words[1]))
        kept[:] = b"x" * len(kept)
    if words[0] == "thread":
        thread = threading.Thread(target=sum, args=(range(1 << 20),))
        thread.start()
        thread.join()
    print("done", flush=True)
"""


class Program:
    def __init__(self, source: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "passive"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.pid = self._process.pid

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        assert self.line() == "done"

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        os.kill(self.pid, signal.SIGSTOP)
        try:
            deadline = time.monotonic() + 10
            while any(_state(self.pid, thread) not in "Tt" for thread in threads(self.pid)):
                assert time.monotonic() < deadline
                time.sleep(0.005)
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def _state(pid: int, thread: int) -> str:
    return Path(f"/proc/{pid}/task/{thread}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    """Two OpenMP workers beside the main thread, and one thread that is none."""
    started = Program(WORKERS)
    try:
        assert started.line() == "ready"
        yield started
    finally:
        started.end()


@pytest.fixture
def gone() -> int:
    """A process that ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@contextlib.contextmanager
def burning(cores: set[int], count: int = 1) -> Iterator[list[Program]]:
    """Processes that take what they get of these cores."""
    source = f"import os\nos.sched_setaffinity(0, {cores!r})\nprint('ready', flush=True)\nwhile True: pass"
    burners = [Program(source) for _ in range(count)]
    try:
        for burner in burners:
            assert burner.line() == "ready"
        yield burners
    finally:
        for burner in burners:
            burner.end()


def affinities(pid: int) -> dict[int, set[int]]:
    return {thread: os.sched_getaffinity(thread) for thread in sorted(threads(pid))}


needs_two = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")


@needs_two
def test_workers_get_a_core_each_and_no_other_thread_does(program: Program) -> None:
    with program.frozen():
        placed = place_workers(program.pid, CORES[:2])
        found = affinities(program.pid)
    assert placed.seen == set(found) == threads(program.pid)
    assert placed.own == {thread for thread, cores in found.items() if cores == set(CORES) and thread != program.pid}
    assert found.pop(program.pid) == set(CORES)
    bound = [cores for cores in found.values() if cores != set(CORES)]
    assert sorted(bound, key=min) == [{CORES[0]}, {CORES[1]}]  # three threads on two cores
    assert len(found) - len(bound) >= 1  # the thread that is no worker of OpenMP


@needs_two
def test_workers_are_dealt_over_the_cores_after_the_main_thread(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[int, set[int]] = {}
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, cores: given.update({thread: set(cores)}))
    with program.frozen():
        place_workers(program.pid, (4, 9, 6))
        assert [given[thread] for thread in sorted(given)] == [{9}, {6}]
        given.clear()
        place_workers(program.pid, (4, 9))
        assert [given[thread] for thread in sorted(given)] == [{9}, {4}]
    assert program.pid not in given


def test_eight_threads_share_two_cores_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[int, set[int]] = {}
    monkeypatch.setattr(module, "threads", lambda pid: frozenset(range(1, 9)))
    monkeypatch.setattr(module, "_libraries", lambda pid: [])
    monkeypatch.setattr(module, "_instruction", lambda *_: 1)
    monkeypatch.setattr(module, "_library_at", lambda *_: "libgomp.so")
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, cores: given.update({thread: set(cores)}))
    place_workers(1, (4, 9))
    assert list(given.values()).count({4}) + 1 == list(given.values()).count({9}) == 4


@pytest.mark.parametrize(
    ("imports", "counts"),
    [
        (("omp_get_thread_num", "omp_get_num_threads", "malloc", "sched_yield"), False),
        (("malloc", "omp_get_num_procs"), True),
        (("_ZNSt6thread20hardware_concurrencyEv",), True),
        (("sched_getaffinity",), True),
        (("sysconf",), True),
    ],
)
def test_what_can_count_cores(imports: tuple[str, ...], counts: bool) -> None:
    assert counts_cores(imports) is counts


def test_a_main_thread_is_not_bound_wherever_it_stands(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []
    monkeypatch.setattr(module, "_library_at", lambda *_: "libgomp.so")
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, cores: given.append(thread))
    with program.frozen():
        place_workers(program.pid, (0, 1))
        assert sorted(given) == sorted(threads(program.pid) - {program.pid})


def test_a_program_without_openmp_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_setaffinity", lambda thread, cores: pytest.fail("bound a thread"))
    with Waiting() as pid:
        assert place_workers(pid, (0, 1)) == ({pid}, set())


def test_threads_that_ended_are_known_by_the_time_they_had(program: Program) -> None:
    with program.frozen():
        before = ended_s(program.pid)
        assert ended_s(program.pid) == before
    for _ in range(2):  # the first is gone from the books, too, once the second has ended
        program.say("thread")
    with program.frozen():
        assert ended_s(program.pid) > before
    with Waiting() as pid:
        assert ended_s(pid) == 0.0


class Waiting:
    """A process of one thread that sleeps."""

    def __enter__(self) -> int:
        self._process = subprocess.Popen(["sleep", "60"])
        return self._process.pid

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def test_threads_are_those_that_live(program: Program) -> None:
    found = threads(program.pid)
    assert program.pid in found and len(found) >= 4
    with Waiting() as pid:
        assert threads(pid) == {pid}


def test_page_faults_grow_by_the_memory_that_is_touched(program: Program) -> None:
    before = page_faults(program.pid)
    assert before > 1000
    program.say("touch 200000000")
    assert page_faults(program.pid) - before >= 90  # that many even where pages are huge ones of 2 MiB
    before = page_faults(program.pid)
    program.say("nothing")
    assert page_faults(program.pid) - before < 50


def test_waiting_for_a_core_grows_where_others_take_it() -> None:
    """One of three on a core waits twice as long as it runs."""
    with burning({CORES[0]}, 3) as (burner, *_), contextlib.closing(Waits(burner.pid)) as waits:
        waited_s, ran_s = waits.seconds(), module._process_s(burner.pid)
        time.sleep(0.8)
        waited_s, ran_s = waits.seconds() - waited_s, module._process_s(burner.pid) - ran_s
    assert 0.2 < waited_s < 2.0
    assert waited_s > 1.2 * ran_s > 0


def test_a_thread_that_sleeps_waits_for_nothing() -> None:
    with Waiting() as pid, contextlib.closing(Waits(pid)) as waits:
        before = waits.seconds()
        time.sleep(0.3)
        assert waits.seconds() - before < 0.05


def test_where_the_callers_own_thread_waits_counts_if_asked() -> None:
    def spun() -> float:
        with contextlib.closing(Waits(pid)) as theirs, contextlib.closing(Waits(pid, own=True)) as waits:
            before = waits.seconds() - theirs.seconds()
            until = time.monotonic() + 0.5
            while time.monotonic() < until:
                pass
            return waits.seconds() - theirs.seconds() - before

    mine = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {CORES[0]})
        with Waiting() as pid, burning({CORES[0]}, 2):
            assert spun() > 0.15
    finally:
        os.sched_setaffinity(0, mine)


def test_waits_count_the_threads_that_were_there(program: Program) -> None:
    before = len(os.listdir("/proc/self/fd"))
    waits = Waits(program.pid)
    assert len(os.listdir("/proc/self/fd")) - before == len(threads(program.pid))
    waits.close()
    waits.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert waits.seconds() == 0.0


def test_waits_of_a_thread_that_ended_are_forgotten() -> None:
    with Waiting() as pid:
        waits = Waits(pid)
    assert waits.seconds() == 0.0
    waits.close()


def test_other_work_is_seen_on_the_cores_that_are_asked_about() -> None:
    core = CORES[-1]
    with burning({core}):
        other = OtherWork((core,), (os.getpid(),))
        time.sleep(0.5)
        assert other.share() > 0.5


def test_work_of_the_given_processes_is_no_other_work() -> None:
    """The burner's time alone makes the difference: what else happens on the core is in both."""
    core = CORES[-1]
    with burning({core}) as (burner,):
        other, own = OtherWork((core,), ()), OtherWork((core,), (burner.pid,))
        time.sleep(0.6)
        theirs, ours = other.share(), own.share()
    assert theirs - ours > 0.2


def test_work_of_a_process_that_ended_is_no_other_work() -> None:
    """Its clock is gone with it; whoever knows says what it used."""
    core = CORES[-1]
    with burning({core}) as (burner,):
        lost, told = OtherWork((core,), (burner.pid,)), OtherWork((core,), (burner.pid,))
        started = time.perf_counter()
        time.sleep(0.6)
    told.ended(burner.pid, time.perf_counter() - started + 1.0)
    assert lost.share() - told.share() > 0.2


def test_a_share_is_a_share() -> None:
    with burning({CORES[-1]}) as (burner,):
        everything = OtherWork((CORES[-1],), (burner.pid,) * 20)
        time.sleep(0.3)
        assert everything.share() == 0.0
    assert 0.0 <= OtherWork(CORES, ()).share() <= 1.0


def test_a_process_that_ended_has_no_threads_waits_or_work(gone: int) -> None:
    assert threads(gone) == frozenset()
    assert page_faults(gone) == 0
    with contextlib.closing(Waits(gone)) as waits:
        assert waits.seconds() == 0.0
    assert 0.0 <= OtherWork(CORES, (gone,)).share() <= 1.0
    assert place_workers(gone, (0, 1)) == (frozenset(), frozenset())
    assert ended_s(gone) == 0.0


def test_a_core_is_busy_with_everything_but_idling(monkeypatch: pytest.MonkeyPatch) -> None:
    """user nice system idle iowait irq softirq steal guest guest_nice; a guest's time is in the user's already."""
    text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 1 2 4 1000 2000 8 16 32 4000 8000\ncpu11 7 0 0 0 0 0 0 0 0 0\nintr 3\n"
    monkeypatch.setattr(Path, "read_text", lambda path: text)
    second = os.sysconf("SC_CLK_TCK")
    assert module._busy_s(1) == 63 / second and module._busy_s(11) == 7 / second


def test_a_core_that_is_not_there_is_never_busy() -> None:
    other = OtherWork((100_000,), ())
    time.sleep(0.05)
    assert other.share() == 0.0


def distinct(read: Callable[[int], float], pid: int) -> int:
    """Different answers in a twentieth of a second."""
    seen, until = set[float](), time.perf_counter() + 0.05
    while time.perf_counter() < until:
        seen.add(read(pid))
    return len(seen)


@pytest.mark.skipif(len(CORES) < 2, reason="where the two share a core all is booked when they change places")
def test_what_a_thread_has_run_is_booked_when_asked() -> None:
    """The kernel does so once a tick, of 1 to 10 ms, or when it changes places with another; a program could work in between,
    unseen. (Other programs on its core have all of it booked, too: one quiet moment is enough.)"""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as program:
        try:
            os.sched_setaffinity(program.pid, CORES[-1:])
            os.sched_setaffinity(0, CORES[:1])
            assert any(distinct(booked_s, program.pid) > 3 * distinct(cpu_s, program.pid) for _ in range(40))
            assert os.sched_getscheduler(program.pid) == os.SCHED_BATCH, "as the zygote made it"
        finally:
            os.sched_setaffinity(0, CORES)
            program.kill()
    assert booked_s(program.pid) == 0.0 and booked_s(os.getpid()) == 0.0

"""Who has to wait for whom: timers and compilers, by the cores that they use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from kernel_env.errors import ConfigError
from kernel_env.hostlock import CoresLock
from kernel_env.verifier import VerifierConfig

SOON_S = 0.2


class Holder:
    """Takes a lock in a thread of its own, and keeps it until told otherwise."""

    def __init__(self, lock: AbstractContextManager[None]) -> None:
        self._has, self._go_on = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(lock,))
        self._thread.start()

    def _hold(self, lock: AbstractContextManager[None]) -> None:
        with lock:
            self._has.set()
            self._go_on.wait(30)

    def has_it(self, within_s: float = 10.0) -> bool:
        return self._has.wait(within_s)

    def waits(self) -> bool:
        return not self.has_it(SOON_S)

    def let_go(self) -> None:
        self._go_on.set()

    def leave(self) -> None:
        self.let_go()
        self._thread.join()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[type[Held]]:
    Held.directory, Held.holders = tmp_path, []
    yield Held
    for holder in Held.holders:  # all of them, before any is waited for: it may be waiting for another
        holder.let_go()
    for holder in Held.holders:
        holder.leave()


class Held:
    directory: Path
    holders: list[Holder]

    @classmethod
    def timer(cls, *cores: int) -> Holder:
        return cls._holder(CoresLock(cls.directory, cores).exclusive())

    @classmethod
    def compiler(cls, *cores: int) -> Holder:
        return cls._holder(CoresLock(cls.directory, cores).shared())

    @classmethod
    def _holder(cls, lock: AbstractContextManager[None]) -> Holder:
        holder = Holder(lock)
        cls.holders.append(holder)
        return holder


def test_timers_on_other_cores_do_not_wait_for_each_other(held: type[Held]) -> None:
    assert held.timer(0, 1).has_it() and held.timer(2, 3).has_it()
    third = held.timer(1, 2)
    assert third.waits()


def test_compilers_share_cores_and_timers_do_not(held: type[Held]) -> None:
    compilers = [held.compiler(0, 1) for _ in range(3)]
    assert all(compiler.has_it() for compiler in compilers)
    timer = held.timer(1)
    assert timer.waits()
    late = held.compiler(0, 1)
    assert late.waits(), "a timer that waits keeps new builds from starting"
    for compiler in compilers:
        compiler.leave()
    assert timer.has_it()
    assert late.waits()
    timer.leave()
    assert late.has_it()


def test_compilers_with_cores_of_their_own_wait_for_no_timer(held: type[Held]) -> None:
    assert held.timer(0, 1).has_it() and held.compiler(2).has_it()


def test_whoever_has_a_lock_may_build_within_it_and_keeps_it(held: type[Held], tmp_path: Path) -> None:
    lock = CoresLock(tmp_path, (0,))
    with lock.exclusive():
        other = held.timer(0)
        with lock.shared(), lock.shared():
            pass
        assert other.waits()
    assert other.has_it()


def test_the_same_cores_in_another_order_are_no_deadlock(held: type[Held]) -> None:
    for _ in range(20):
        first, second = held.timer(0, 1, 2), held.timer(2, 1, 0)
        holder, waiter = (first, second) if first.has_it(SOON_S) else (second, first)
        holder.leave()
        assert waiter.has_it()
        waiter.leave()


def test_slots_leave_cores_to_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(10)))
    config = VerifierConfig(slots=2, build_cores=4)
    assert [config.cores(slot) for slot in range(2)] == [(0, 1, 2), (3, 4, 5)] and config.compiling() == (6, 7, 8, 9)
    config = VerifierConfig(slots=3)
    assert config.cores(2) == (6, 7, 8) and config.compiling() == tuple(range(10))
    with pytest.raises(ConfigError, match="build_cores must leave a core for each slot: between 0 and 8, got 9"):
        VerifierConfig(slots=2, build_cores=9)

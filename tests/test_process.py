"""The referee's handle on a runner, with a thread in the runner's place and a clock that we turn."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from kernel_env.referee import process
from kernel_env.referee.process import FREE_BUILD_S, FREE_BUILDS, RunnerProcess, RunnerTimeout, Slot
from kernel_env.referee.protocol import Channel, ChannelClosed, Frame


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def perf_counter(self) -> float:
        return self.now_s


class Zygote:
    """Reaps nobody."""

    def reap(self, pid: int) -> int:
        return 0


@contextmanager
def asking(channel: Channel, builds: int) -> Iterator[None]:
    """The other end: asks for so many builds, one after the other, and then answers."""

    def run() -> None:
        with suppress(ChannelClosed):
            channel.send({"ready": True, "isolation": []})
            channel.recv()
            for _ in range(builds):
                channel.send({"build": {}})
                channel.recv()
            channel.send({"done": True})

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: int, each_s: float, limit_s: float) -> tuple[int, bool]:
    """How many builds were served to a program that asks for so many, and whether it came to its answer within its limit."""
    clock, count = Clock(), 0
    monkeypatch.setattr(process, "time", clock)

    def build(frame: Frame) -> Frame:
        nonlocal count
        count += 1
        clock.now_s += each_s
        return {"ok": True}

    ours, theirs = map(Channel, socket.socketpair())
    log, log_end = os.pipe()
    runner = RunnerProcess(
        cast(Any, Zygote()), "candidate", Slot((0,)), os.getpid(), os.pidfd_open(os.getpid()), tmp_path / "none", ours, log
    )
    runner.build_handler = build
    answered = False
    with asking(theirs, builds):
        with suppress(RunnerTimeout):
            answered = runner.request({"op": "load"}, timeout_s=limit_s) == {"done": True}
        runner.close()
    theirs.close()
    os.close(log_end)
    return count, answered


def test_the_time_of_builds_is_not_the_programs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served(tmp_path, monkeypatch, builds=5, each_s=60.0, limit_s=1.0) == (5, True)


def test_a_program_that_asks_for_builds_for_ever_meets_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served(tmp_path, monkeypatch, builds=10_000, each_s=1.0, limit_s=10.0) == (FREE_BUILDS + 10, False)


def test_long_builds_are_free_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served(tmp_path, monkeypatch, builds=10_000, each_s=100.0, limit_s=250.0) == (int(FREE_BUILD_S / 100) + 3, False)

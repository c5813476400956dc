"""Told to stop, a run ends in order: its exit code says by what, nothing that was finished is lost, and it goes on later."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_env.schema import StopReason
from rollout.health import Health, read_status
from rollout.monitor import Monitor, State
from rollout.stopping import SIGNALS, Stopped, run_stoppable
from rollout.store import RunReader
from tests.chat_server import ChatServer, Slow

PATIENCE_S = 60.0


@pytest.mark.parametrize("by", SIGNALS)
def test_work_is_cancelled_and_may_end_in_order(by: signal.Signals) -> None:
    ended = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), by)
            await asyncio.sleep(PATIENCE_S)
        finally:
            os.kill(os.getpid(), by)  # whoever is impatient does not interrupt the end
            await asyncio.sleep(0.01)
            ended.append(by)

    with pytest.raises(Stopped) as raised:
        run_stoppable(work())
    assert ended == [by] and raised.value.exit_code == 128 + by
    assert str(raised.value) == f"stopped by {by.name}; finished turns are kept, and the same command resumes"
    assert pickle.loads(pickle.dumps(raised.value)).by is by  # noqa: S301 - ours
    assert all(signal.getsignal(number) is signal.SIG_DFL for number in SIGNALS), "as they were"


def test_work_that_fails_on_its_way_to_the_end_was_stopped(caplog: pytest.LogCaptureFixture) -> None:
    """Else a job whose time is up would not be queued again."""

    async def fail() -> None:
        try:
            await asyncio.sleep(PATIENCE_S)
        finally:
            raise OSError("no room to tidy up")

    async def work() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())
            await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.raises(Stopped):
        run_stoppable(work())
    assert "no room to tidy up" in caplog.text


def test_work_that_nobody_stops_has_its_result() -> None:
    async def work() -> int:
        return 7

    assert run_stoppable(work()) == 7


def test_a_run_that_is_stopped_has_not_ended_and_resumes(tmp_path: Path) -> None:
    """The first reply comes at once, the second never does: it is stopped while it waits for that."""
    later = threading.Event()

    def script(messages: list[dict[str, str]]) -> str | Slow:
        return "no code" if len(messages) == 2 or later.is_set() else Slow("no code")

    with ChatServer(script) as server:
        command = [
            sys.executable, "-m", "kernel_env", "eval", "run.name=r", "run.canaries=false", "run.allow_zero=true",
            "problems.levels=1", "problems.limit=1", "rollout.max_turns=2",
            "policy=openai", "policy.model=test-model", f"policy.base_url={server.base_url}",
        ]  # fmt: skip
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            wait_until(lambda: len(server.requests) == 2)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, said) == (
            143, "kernel-env eval: stopped by SIGTERM; finished turns are kept, and the same command resumes\n"
        )  # fmt: skip
        run = tmp_path / "runs/r"
        assert read_status(run) is None and Monitor(run).rows()[0].state is State.STOPPED
        first = (run / "turns/level1_problem1_turn0.json").read_bytes()
        later.set()
        subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
        assert len(server.requests) == 3, "the finished turn is not asked for again"
    (episode,) = RunReader(run).load_episodes()
    assert (episode.stop_reason, len(episode.turns)) == (StopReason.TURN_LIMIT, 2)
    assert (run / "turns/level1_problem1_turn0.json").read_bytes() == first
    ended = read_status(run)
    assert ended is not None and ended.health is Health.OK


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)

"""The same request at the same time: one request to the judge, and for each who asked an end of its own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import JudgeUnreachable
from rewards.judge import BaseJudgeReward
from tests.conftest import GOOD
from tests.judge_client import Ask
from tests.scripted_judge import HANGS_S, Asked, ScriptedJudge, good, held, refused, score_of, slow, until

pytestmark = pytest.mark.usefixtures("judgeless_environment")

ROOT = Path(__file__).parents[1]


async def asked_together(system: BaseJudgeReward, server: ScriptedJudge, people: int) -> list[asyncio.Future[Any]]:
    """So many ask the same, and the judge has been asked."""
    waiting = [asyncio.ensure_future(system.acompute_reward("p", "same")) for _ in range(people)]
    await until(lambda: server.asked)
    return waiting


async def test_the_same_at_the_same_time_is_one_request(asking: Ask) -> None:
    release = threading.Event()
    system, server = asking([held(release)])
    waiting = await asked_together(system, server, 5)
    other = asyncio.ensure_future(system.acompute_reward("p", "another"))
    await until(lambda: len(server.asked) == 2)
    release.set()
    assert [judged.score for judged in await asyncio.gather(*waiting, other)] == [score_of("same")] * 5 + [score_of("another")]
    assert len(server.asked) == 2
    assert [judged.cached for judged in await asyncio.gather(*waiting)] == [False] * 5
    assert (await system.acompute_reward("p", "same")).cached
    assert system.get_metrics()["judged"] == 6


async def test_without_a_cache_each_has_a_request_of_its_own(asking: Ask) -> None:
    system, server = asking(use_cache=False)
    await asyncio.gather(*(system.acompute_reward("p", "same") for _ in range(5)))
    assert sum(len(asked.requests) for asked in server.asked) == 5


async def test_who_leaves_leaves_the_others_their_answer(asking: Ask) -> None:
    release = threading.Event()
    system, server = asking([held(release)])
    first, *others = await asked_together(system, server, 3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    late = asyncio.ensure_future(system.acompute_reward("p", "same"))
    await asyncio.sleep(0.02)
    release.set()
    assert [judged.score for judged in await asyncio.gather(*others, late)] == [score_of("same")] * 3
    assert len(server.asked) == 1


async def test_when_all_have_left_the_next_asks_anew(asking: Ask) -> None:
    release = threading.Event()
    system, server = asking([held(release), good])
    waiting = await asked_together(system, server, 3)
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (await system.acompute_reward("p", "same")).score == score_of("same")
    assert len(server.asked) == 2
    release.set()


@pytest.mark.parametrize("fallback", [True, False])
async def test_a_failure_of_one_request_is_each_ones_own(asking: Ask, fallback: bool) -> None:
    async def no(asked: Asked) -> bytes:
        await until(release.is_set)
        return refused(500)(asked)  # type: ignore[return-value]

    release = threading.Event()
    system, server = asking([no], max_retries=0, fallback_to_rule=fallback)

    def ask() -> asyncio.Future[Any]:
        return asyncio.ensure_future(system.acompute_reward("relu", GOOD, "class Model", "KERNEL_CPP"))

    waiting = [ask() for _ in range(4)]
    await until(lambda: server.asked)
    release.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert len(server.asked) == 1
    if fallback:
        assert [(one.source, one.cached) for one in found] == [("rule_fallback", False)] * 4
    else:
        assert {type(one) for one in found} == {JudgeUnreachable} and len(set(map(id, found))) == 4
    metrics = system.get_metrics()
    assert (metrics["errors"], metrics["fallbacks"]) == ({"judge_unreachable": 4}, 4 if fallback else 0)
    await asyncio.gather(ask(), return_exceptions=True)
    assert len(server.asked) == 2  # nothing of it is remembered


FORKED_MEANWHILE = """
import os, sys, time
from rewards.judge import JudgeRewardSystem

system = JudgeRewardSystem({"judge_url": sys.argv[1], "batch_timeout": 0.0})
system.reward("p", "before")  # all is imported
asked = system.submit("p", "same")
while not system.get_metrics()["in_flight"]:
    time.sleep(0.001)
child = os.fork()
print(system.reward("p", "same")["score"] if child == 0 else asked.result().score, flush=True)
if child == 0:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_does_not_wait_for_what_its_parent_asked() -> None:
    with ScriptedJudge([slow(0.5)]) as server:
        command = [sys.executable, "-c", FORKED_MEANWHILE, server.url]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [*map(float, done.stdout.split())] == [score_of("same")] * 2

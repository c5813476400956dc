"""The judge's client over real sockets: requests, batches, cache, metrics, a judge of one's own, beginning and end."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Awaitable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kernel_env import errors
from kernel_env.errors import ConfigError, JudgeBusy, JudgeError, JudgeRefused
from rewards.judge import BaseJudgeReward, JudgeConfig, JudgeRewardSystem
from rewards.judge.cache import JudgeCache, cache_key
from rewards.judge.wire import JudgeRequest, JudgeResponse
from tests.conftest import GOOD
from tests.judge_client import Ask
from tests.scripted_judge import HANGS_S, ScriptedJudge, answered, good, held, refused, score_of, scored, slow, until

pytestmark = pytest.mark.usefixtures("judgeless_environment")

ROOT = Path(__file__).parents[1]


async def all_of(system: BaseJudgeReward, completions: list[str]) -> list[Any]:
    """Asked for at once; a failure stands where its score would be."""
    async with asyncio.timeout(HANGS_S):
        work = (system.acompute_reward("2 + 2?", completion, "4", "NUMBER") for completion in completions)
        return await asyncio.gather(*work, return_exceptions=True)


# ------------------------------------------------------------------ one request


def test_a_result_says_everything(asking: Ask) -> None:
    explained = lambda asked: answered(asked, [r | {"explanation": "fine", "score": 0.25} for r in scored(asked)])  # noqa: E731
    system, _ = asking([explained])
    result = system.reward("p", "c", "a")
    assert result.pop("latency_ms") > 0
    assert result == {"reward": 0.25, "score": 0.25, "source": "judge", "cached": False, "explanation": "fine"}


async def test_the_same_may_be_awaited(asking: Ask) -> None:
    system, _ = asking()
    assert (await system.areward("p", "c", "a"))["reward"] == system.reward("p", "c", "a")["reward"] == score_of("c")


def test_a_request_travels_as_it_is(asking: Ask) -> None:
    system, server = asking(api_key="secret")
    system.reward("é\u2028\ud800", "c\x00", "a", "KERNEL_CPP", {"measured": {"status": "correct", "speedup": 1.5}})
    system.reward("p", "c", "")
    first, second = server.asked
    assert first.headers["authorization"] == "Bearer secret"
    assert first.body.pop("request_id") != second.body.pop("request_id")
    measured = {"measured": {"status": "correct", "speedup": 1.5}}
    assert first.body == {
        "prompt": "é\u2028?",
        "completion": "c\x00",
        "answer": "a",
        "answer_type": "KERNEL_CPP",
        "metadata": measured,
    }
    assert second.body == {"prompt": "p", "completion": "c", "answer": ""}


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"completion": "x" * (1 << 20 | 1)}, "completion: String should have at most 1048576 characters"),
        ({"answer_type": "POEM"}, "'POEM' is not a valid AnswerType"),
        ({"metadata": {"measured": {"speedup": float("nan")}}}, "metadata: .*finite"),
    ],
)
def test_what_no_judge_takes_is_a_typed_failure(asking: Ask, given: Mapping[str, Any], fault: str) -> None:
    system, server = asking()
    with pytest.raises(JudgeRefused, match=fault):
        system.reward(**({"prompt": "p", "completion": "c", "answer": "a"} | given))
    assert server.asked == []
    assert system.get_metrics()["errors"] == {"judge_refused": 1}


def test_integrity_flags_arrive(asking: Ask) -> None:
    system, _ = asking([lambda asked: answered(asked, scored(asked, flags=["calls_reference"]))])
    assert system.compute_reward("p", "c").flags == ("calls_reference",)


# ------------------------------------------------------------------ batches


async def test_requests_of_one_moment_share_a_batch(asking: Ask) -> None:
    system, server = asking(batch_timeout=0.05, max_batch_size=4)
    completions = [f"c{n}" for n in range(10)]
    assert [judged.score for judged in await all_of(system, completions)] == [score_of(c) for c in completions]
    assert sorted(len(asked.requests) for asked in server.asked) == [2, 4, 4]
    assert {asked.path for asked in server.asked} == {"/batch_judge"}
    assert system.get_metrics()["batched_share"] == 1.0


async def test_a_full_batch_does_not_wait(asking: Ask) -> None:
    system, server = asking(batch_timeout=HANGS_S, max_batch_size=4)
    await all_of(system, list("abcdefgh"))
    assert [len(asked.requests) for asked in server.asked] == [4, 4]


def test_one_alone_is_asked_alone(asking: Ask) -> None:
    system, server = asking(batch_timeout=0.01)
    system.reward("p", "c", "a")
    assert [asked.path for asked in server.asked] == ["/judge"]
    assert system.get_metrics()["batched_share"] == 0.0


async def test_no_more_requests_are_under_way_than_allowed(asking: Ask) -> None:
    release = threading.Event()
    system, server = asking([held(release)], max_concurrent_requests=3, max_batch_size=1)
    asked = asyncio.ensure_future(all_of(system, [f"c{n}" for n in range(20)]))
    await until(lambda: server.at_once == 3 and system.get_metrics()["current_queue_size"] == 17)
    release.set()
    assert [judged.score for judged in await asked] == [score_of(f"c{n}") for n in range(20)]
    assert server.at_once == 3


def test_threads_share_batches(asking: Ask) -> None:
    system, server = asking([slow(0.01)], batch_timeout=0.05, max_batch_size=8)
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda n: system.reward("p", f"c{n}", "a")["reward"], range(64)))
    assert found == [score_of(f"c{n}") for n in range(64)]
    assert len(server.asked) < 32


async def test_a_full_queue_refuses_at_once(asking: Ask) -> None:
    system, _ = asking(queue_size=3, batch_timeout=HANGS_S, max_batch_size=16, fallback_to_rule=False)
    waiting = [asyncio.ensure_future(system.acompute_reward("p", f"c{n}")) for n in range(3)]
    await until(lambda: system.get_metrics()["current_queue_size"] == 3)
    with pytest.raises(JudgeBusy, match=r"request queue full: 3 requests wait for http.*raise judge.max_concurrent_requests"):
        await system.acompute_reward("p", "one more")
    await system.aclose()
    assert [judged.score for judged in await asyncio.gather(*waiting)] == [score_of(f"c{n}") for n in range(3)]


async def test_who_leaves_is_not_sent(asking: Ask) -> None:
    system, server = asking(batch_timeout=0.1)
    leaving, staying = (asyncio.ensure_future(system.acompute_reward("p", c)) for c in ("leaves", "stays"))
    await until(lambda: system.get_metrics()["current_queue_size"] == 2)
    leaving.cancel()
    assert (await staying).score == score_of("stays")
    assert [r["completion"] for asked in server.asked for r in asked.requests] == ["stays"]
    assert system.get_metrics()["errors"] == {}


# ------------------------------------------------------------------ cache


def test_the_same_request_is_asked_once(asking: Ask) -> None:
    system, server = asking()
    first, second = (system.reward("p", "c", "a") for _ in range(2))
    assert (first["cached"], second["cached"]) == (False, True)
    assert first["score"] == second["score"]
    assert len(server.asked) == 1
    assert system.get_metrics()["cache_hit_rate"] == 0.5


def test_without_a_cache_it_is_asked_again(asking: Ask) -> None:
    system, server = asking(use_cache=False)
    assert [system.reward("p", "c", "a")["cached"] for _ in range(2)] == [False, False]
    assert len(server.asked) == 2


REQUEST = JudgeRequest(prompt="ab", completion="c", answer="d", answer_type="KERNEL_CPP", metadata={"measured": {"speedup": 2.0}})


def test_the_key_covers_who_judges_and_all_that_is_asked() -> None:
    others = [
        {"prompt": "abc", "completion": ""},
        {"prompt": "a", "completion": "bc"},
        {"completion": "cd", "answer": ""},
        {"answer": None},
        {"answer": ""},
        {"answer": "null"},
        {"answer_type": None},
        {"answer_type": "KERNEL_CUDA"},
        {"metadata": {}},
        {"metadata": {"measured": {"speedup": 2.5}}},
        {"prompt": 'ab","completion":"c'},
    ]
    requests = [REQUEST, *(JudgeRequest(**(REQUEST.model_dump() | other)) for other in others)]
    keys = [cache_key(judge, request) for judge in (("a", "1"), ("a", "2"), ("a, 1", ""), ("a1",)) for request in requests]
    assert len(set(keys)) == len(keys) == 48
    assert cache_key(("a", "1"), REQUEST.model_copy(update={"request_id": "7"})) == keys[0]


def test_another_judge_behind_the_same_address_is_asked_anew(asking: Ask) -> None:
    versions = iter("1122")
    system, server = asking(lambda _: lambda asked: answered(asked, scored(asked, version=next(versions))))
    assert [system.reward("p", c, "a")["cached"] for c in ("x", "x", "y", "z", "x", "z")] == [
        False,
        True,
        False,
        False,
        False,
        True,
    ]
    assert len(server.asked) == 4


def response(score: float) -> JudgeResponse:
    return JudgeResponse(score=score, request_id="1")


def test_the_least_used_score_is_forgotten_first() -> None:
    cache = JudgeCache(2, 60.0)
    cache.put("a", response(0.1))
    cache.put("b", response(0.2))
    assert cache.get("a")
    cache.put("c", response(0.3))
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]


def test_a_score_is_good_for_an_hour() -> None:
    clock = [1000.0]
    cache = JudgeCache(9, 3600.0, now=lambda: clock[0])
    cache.put("a", response(0.1))
    clock[0] += 3599.0
    assert cache.get("a")
    clock[0] += 1.0
    assert cache.get("a") is None


def test_a_file_keeps_scores_beyond_the_process(tmp_path: Path) -> None:
    clock, path = [1000.0], str(tmp_path / "scores.sqlite")
    for key, score in (("a", 0.1), ("b", 0.2)):
        cache = JudgeCache(9, 60.0, path, now=lambda: clock[0])
        cache.put(key, response(score))
        cache.close()
        clock[0] += 40.0
    again = JudgeCache(1, 60.0, path, now=lambda: clock[0])
    assert (again.get("a"), again.get("b")) == (None, response(0.2))
    again.close()
    assert again.get("other") is None


def test_a_file_that_is_none_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a database\n" * 100)
    with pytest.raises(ConfigError, match=r"judge.cache_path=.*notes.txt: .*name another file"):
        JudgeCache(9, 60.0, str(tmp_path / "notes.txt"))


def test_a_file_that_fails_later_is_a_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "scores.sqlite"
    cache = JudgeCache(1, 60.0, str(path))
    cache.put("a", response(0.1))
    cache.put("b", response(0.2))
    assert cache._file is not None
    cache._file.execute("UPDATE scores SET response = 'garbled'")
    assert cache.get("a") is None and cache.get("b") == response(0.2)
    cache._file.execute("DROP TABLE scores")
    cache.put("c", response(0.3))
    assert cache.get("a") is None and cache.get("c") == response(0.3)
    cache.close()
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "the judge's cache cannot be read",
        "the judge's cache cannot be written",
        "the judge's cache cannot be read",
    ]


def test_no_message_shows_the_key(asking: Ask, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    system, _ = asking([refused(401)], api_key="sk-secret", fallback_to_rule=False)
    with pytest.raises(JudgeRefused) as caught:
        system.reward("p", "c")
    config = JudgeConfig("http://user:sk-secret@host:1/judge", "sk-secret")
    assert config.where == "http://host:1/judge"
    shown = [str(caught.value), repr(system.config), *(record.getMessage() for record in caplog.records)]
    assert not any("sk-secret" in text for text in shown)


# ------------------------------------------------------------------ metrics


def test_metrics_count_what_happened(asking: Ask) -> None:
    answers = [good, good, refused(400), refused(400)]
    system, _ = asking(answers)
    assert system.get_metrics() == {
        "requests": 0, "judged": 0, "cache_hits": 0, "cache_hit_rate": 0.0, "batched_share": 0.0, "fallbacks": 0, "errors": {},
        "error_rate": 0.0, "latency_ms": {"p50": None, "p90": None, "p99": None}, "current_queue_size": 0, "in_flight": 0,
        "circuit_breaker": {"state": "closed", "failure_count": 0, "last_failure_time": None},
    }  # fmt: skip
    for completion in ("a", "b", "a", GOOD):
        system.reward("p", completion, "x")
    with pytest.raises(JudgeError):
        system.reward("p", "", "x", "KERNEL_CPP")  # the judge refuses it, and rules have nothing to say
    metrics = system.get_metrics()
    counts = {name: metrics[name] for name in ("requests", "judged", "cache_hits", "fallbacks", "errors")}
    assert counts == {"requests": 5, "judged": 2, "cache_hits": 1, "fallbacks": 1, "errors": {"judge_refused": 2}}
    assert (metrics["cache_hit_rate"], metrics["error_rate"]) == (0.2, 0.4)
    assert 0 < metrics["latency_ms"]["p50"] <= metrics["latency_ms"]["p90"] <= metrics["latency_ms"]["p99"]


async def test_what_is_under_way_is_counted(asking: Ask) -> None:
    release = threading.Event()
    system, server = asking([held(release)], max_concurrent_requests=1, max_batch_size=1)
    asked = [asyncio.ensure_future(system.acompute_reward("p", f"c{n}")) for n in range(3)]
    await until(lambda: server.asked and system.get_metrics()["current_queue_size"] == 2)
    assert system.get_metrics()["in_flight"] == 1
    release.set()
    await asyncio.gather(*asked)
    assert (system.get_metrics()["in_flight"], system.get_metrics()["current_queue_size"]) == (0, 0)


# ------------------------------------------------------------------ a judge of one's own


async def test_a_judge_of_ones_own_is_cached_timed_and_counted() -> None:
    asked: list[str] = []

    class Length(BaseJudgeReward):
        async def _request_judge(self, request: JudgeRequest) -> JudgeResponse:
            asked.append(request.completion)
            return JudgeResponse(score=len(request.completion) / 10, request_id=str(request.request_id))

    with Length() as judge:
        assert [judge.compute_reward("p", c).score for c in ("abc", "abcd", "abc")] == [0.3, 0.4, 0.3]
        assert asked == ["abc", "abcd"]
        assert judge.get_metrics()["cache_hit_rate"] == pytest.approx(1 / 3)


def test_a_fault_in_it_is_no_judges_failure() -> None:
    class Broken(BaseJudgeReward):
        def _request_judge(self, request: JudgeRequest) -> Awaitable[JudgeResponse]:
            raise KeyError("a fault of whoever wrote this")

    with Broken() as judge, pytest.raises(KeyError):
        judge.compute_reward("p", "c")


def test_it_cannot_wait_for_itself() -> None:
    class Nested(BaseJudgeReward):
        async def _request_judge(self, request: JudgeRequest) -> JudgeResponse:
            self.compute_reward("p", "another")
            raise AssertionError("unreachable")

    with Nested() as judge, pytest.raises(ConfigError, match="use acompute_reward"):
        judge.compute_reward("p", "c")


# ------------------------------------------------------------------ beginning and end


async def test_closing_lets_everything_end(asking: Ask) -> None:
    system, server = asking([slow(0.05)], batch_timeout=HANGS_S)
    asked = [asyncio.ensure_future(system.acompute_reward("p", f"c{n}")) for n in range(20)]
    await until(lambda: server.asked)
    await system.aclose()
    assert [judged.score for judged in await asyncio.gather(*asked)] == [score_of(f"c{n}") for n in range(20)]
    with pytest.raises(JudgeBusy, match="closed"):
        await system.acompute_reward("p", "late")
    await system.aclose()


def test_a_system_that_is_forgotten_ends_its_thread(asking: Ask) -> None:
    with ScriptedJudge() as server:
        system = JudgeRewardSystem({"judge_url": server.url, "batch_timeout": 0.0})
        system.reward("p", "c")
        thread = next(thread for thread in threading.enumerate() if thread.name == "judge-reward")
        del system
        gc.collect()
        thread.join(HANGS_S)
        assert not thread.is_alive()


def test_a_program_that_never_closes_it_ends() -> None:
    code = (
        "import sys; from rewards.judge import JudgeRewardSystem\n"
        "print(JudgeRewardSystem({'judge_url': sys.argv[1]}).reward('p', 'c', 'a')['source'])\n"
        "kept = JudgeRewardSystem({'judge_url': sys.argv[1]}); print(kept.reward('p', 'c', 'a')['source'])"
    )
    with ScriptedJudge() as server:
        command = [sys.executable, "-W", "error", "-c", code, server.url]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "judge\njudge\n", "")


FORKED = """
import os, sys
from rewards.judge import JudgeRewardSystem

system = JudgeRewardSystem({"judge_url": sys.argv[1], "batch_timeout": 0.0})
print(system.reward("p", "before")["score"], flush=True)
child = os.fork()
print(system.reward("p", "child" if child == 0 else "parent")["score"], flush=True)
if child == 0:
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_asks_by_itself() -> None:
    with ScriptedJudge() as server:
        command = [sys.executable, "-c", FORKED, server.url]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=HANGS_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(map(float, done.stdout.split())) == sorted(map(score_of, ("before", "child", "parent")))


@pytest.mark.parametrize("kind", [errors.JudgeUnreachable, errors.JudgeRefused, errors.JudgeBadReply, errors.JudgeBusy])
def test_failures_travel_between_processes(kind: type[JudgeError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("what, where")))  # noqa: S301 - our own bytes
    assert (type(copy), str(copy), copy.exit_code) == (kind, "what, where", 4)

"""A judge that fails in every way there is: each request still ends as the judge's score, as a rule's, or as a typed failure."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import JudgeBadReply, JudgeError, JudgeRefused, JudgeUnreachable
from rewards.judge import JudgeConfig, JudgeRewardSystem
from rewards.judge.adapter import Judged, rule_score
from rewards.judge.models import CustomJudge
from rewards.judge.server import ServerConfig
from rewards.judge.static import StaticJudge
from rewards.judge.wire import JudgeRequest
from tests.conftest import GOOD
from tests.judge_server import JudgeServer
from tests.scripted_judge import (
    HANGS_S,
    Asked,
    Script,
    ScriptedJudge,
    answered,
    doubled,
    failing,
    garbled,
    good,
    held,
    mixed_up,
    refused,
    reordered,
    reset,
    score_of,
    scoring,
    short,
    slow,
    stalled,
    until,
)
from tests.test_judge_breaker import Clock

ROOT = Path(__file__).parents[1]
RUN_HANGS_S = 600.0
UNAVAILABLE = {"kind": "unavailable", "message": "no model"}

Ask = Callable[..., tuple[JudgeRewardSystem, ScriptedJudge]]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def asking() -> Iterator[Ask]:
    """A system and the server that it asks; both end with the test."""
    with ExitStack() as closing:

        def started(script: Script, clock: Callable[[], float] = time.monotonic, **options: Any) -> Any:
            server = closing.enter_context(ScriptedJudge(script))
            quick = {"batch_timeout": 0.02, "timeout": HANGS_S, "retry_wait": 0.001, "retry_wait_max": 0.002, "use_cache": False}
            config = JudgeConfig(judge_url=server.url, **(quick | options))  # type: ignore[arg-type]
            return closing.enter_context(JudgeRewardSystem(config, now=clock)), server

        yield started


KERNELS = [f"{GOOD}\n# {n}\n" for n in range(6)]


async def all_of(system: JudgeRewardSystem, completions: Sequence[str] = KERNELS) -> list[Judged | BaseException]:
    """Asked for at once; a failure stands where its score would be."""
    async with asyncio.timeout(HANGS_S):
        work = (system.acompute_reward("relu", completion, "class Model", "KERNEL_CPP") for completion in completions)
        return await asyncio.gather(*work, return_exceptions=True)


def sources(found: Sequence[Judged | BaseException]) -> list[str]:
    return [one.source if isinstance(one, Judged) else type(one).__name__ for one in found]


def by_path(server: ScriptedJudge) -> Counter[str]:
    return Counter(asked.path for asked in server.asked)


# ------------------------------------------------------------------ the circuit breaker


async def test_the_breaker_lets_many_requests_be_under_way(asking: Ask) -> None:
    """It once held a lock while it waited: one at a time."""
    release = threading.Event()
    system, server = asking([held(release)], max_batch_size=1)
    asked = asyncio.ensure_future(all_of(system))
    await until(lambda: server.at_once == len(KERNELS))
    release.set()
    assert set(sources(await asked)) == {"judge"}


async def test_an_open_circuit_leaves_the_judge_alone_and_tries_it_once(asking: Ask) -> None:
    clock, release = Clock(), threading.Event()
    answers: list[Any] = [refused(500)]
    system, server = asking(lambda _: answers[-1], clock, max_retries=0, max_batch_size=1, circuit_breaker_threshold=3)
    assert set(sources(await all_of(system, KERNELS[:3]))) == {"rule_fallback"}
    assert system.get_metrics()["circuit_breaker"]["state"] == "open"
    assert set(sources(await all_of(system))) == {"rule_fallback"}
    assert len(server.asked) == 3
    clock.now_s += 61.0
    assert sources(await all_of(system)) == ["rule_fallback"] * 6  # the probe failed, the others were not asked
    assert len(server.asked) == 4
    clock.now_s += 61.0
    answers.append(held(release))
    refusals = system.get_metrics()["errors"]["judge_busy"]
    asked = asyncio.ensure_future(all_of(system))
    await until(lambda: system.get_metrics()["errors"]["judge_busy"] == refusals + 5)
    release.set()
    assert sources(await asked).count("judge") == 1  # the probe
    assert len(server.asked) == 5
    assert sources(await all_of(system)) == ["judge"] * 6
    assert system.get_metrics()["circuit_breaker"]["state"] == "closed"


async def test_timeouts_open_the_circuit(asking: Ask) -> None:
    system, server = asking([slow(HANGS_S)], timeout=0.05, max_retries=5, max_batch_size=1, circuit_breaker_threshold=2)
    assert sources(await all_of(system, KERNELS[:1])) == ["rule_fallback"]
    assert system.get_metrics()["circuit_breaker"]["state"] == "open"
    assert len(server.asked) == 2  # the other four retries were not made


# ------------------------------------------------------------------ batches that fail


@pytest.mark.parametrize(
    "fault",
    [
        *(reordered, short, doubled, mixed_up, garbled, failing("unavailable"), refused(400), refused(404), refused(302)),
        *(refused(200, document) for document in ([], {"responses": {}}, {"responses": []})),
        *(scoring(score) for score in (float("nan"), float("inf"), 1.5, -0.1, "0.5", True, None)),
    ],
)
async def test_every_request_of_a_spoilt_batch_has_its_own_score(asking: Ask, fault: Any) -> None:
    system, server = asking([fault, good])
    assert scores_of(await all_of(system)) == [score_of(kernel) for kernel in KERNELS]
    assert by_path(server)["/batch_judge"] == 1
    assert fault is not reordered or len(server.asked) == 1


def scores_of(found: Sequence[Judged | BaseException]) -> list[float]:
    assert set(sources(found)) == {"judge"}, found
    return [float(one) for one in found if isinstance(one, Judged)]


@pytest.mark.parametrize("kind", ["bad_verdict", "nothing_to_judge", "unsupported"])
async def test_one_request_without_a_score_is_the_only_one(asking: Ask, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    system, server = asking([failing(kind)])
    assert sources(await all_of(system)) == ["rule_fallback"] + ["judge"] * 5
    assert len(server.asked) == 1  # the judge has said its last word
    assert [record.name for record in caplog.records] == ["JudgeReward"]
    assert f"no score, {kind}: no score; scored by rules" in caplog.text


@pytest.mark.parametrize("fault", [refused(500), refused(403), garbled, mixed_up])
async def test_a_judge_that_never_has_a_score_leaves_each_to_the_rules(asking: Ask, fault: Any) -> None:
    system, _ = asking([fault], max_retries=1, circuit_breaker_threshold=1000)
    found = await all_of(system)
    assert sources(found) == ["rule_fallback"] * 6
    assert all(isinstance(one, Judged) and one.score > 0 and not one.cached for one in found)


async def test_a_model_that_is_down_is_tried_again_as_a_batch(asking: Ask) -> None:
    def down(asked: Asked) -> bytes:
        return answered(asked, [], [UNAVAILABLE | {"request_id": r["request_id"]} for r in asked.requests])

    system, server = asking([down, down, good])
    assert set(sources(await all_of(system))) == {"judge"}
    assert by_path(server) == {"/batch_judge": 3}


# ------------------------------------------------------------------ one request that fails


@pytest.mark.parametrize(
    ("fault", "kind", "requests", "said"),
    [
        (refused(500), JudgeUnreachable, 3, "status 500"),
        (refused(429), JudgeUnreachable, 3, "status 429"),
        (refused(503, UNAVAILABLE), JudgeUnreachable, 3, "unavailable: no model"),
        (reset, JudgeUnreachable, 3, "the connection failed"),
        (slow(HANGS_S), JudgeUnreachable, 3, "no answer within 0.2 s"),
        (stalled, JudgeUnreachable, 3, "no answer within 0.2 s"),
        (refused(401), JudgeRefused, 1, "no score, status 401"),
        (refused(502, {"kind": "bad_verdict", "message": "hm"}), JudgeRefused, 1, "no score, bad_verdict: hm"),
        (garbled, JudgeBadReply, 1, "not JSON"),
        (refused(200, b"[" * 100_000), JudgeBadReply, 1, "not JSON"),
        (refused(302), JudgeBadReply, 1, "status 302"),
        (mixed_up, JudgeBadReply, 1, "no score for the request that was made"),
        (scoring(float("nan")), JudgeBadReply, 1, "no score for the request that was made"),
    ],
)
def test_a_failure_is_typed_and_retried_in_one_layer(
    asking: Ask, fault: Any, kind: type[JudgeError], requests: int, said: str
) -> None:
    timeout = 0.2 if "0.2 s" in said else HANGS_S
    system, server = asking([fault], max_retries=2, timeout=timeout, retry_wait_max=1.0, fallback_to_rule=False)
    with pytest.raises(kind) as caught:
        system.reward("relu", GOOD)
    assert type(caught.value) is kind
    assert said in str(caught.value) and server.url in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.asked) == requests
    assert system.get_metrics()["errors"] == {caught.value.kind: 1}


def test_a_failure_that_passes_is_not_seen(asking: Ask) -> None:
    system, server = asking([refused(500), reset, good])
    assert system.reward("relu", GOOD)["source"] == "judge"
    assert len(server.asked) == 3


def test_nobody_waits_longer_than_all_attempts_may_take(asking: Ask) -> None:
    """Nor for a place among the requests under way."""
    system, _ = asking(
        [slow(HANGS_S)], timeout=0.2, max_retries=0, max_concurrent_requests=1, max_batch_size=1, fallback_to_rule=False
    )
    futures = [system.submit("relu", kernel) for kernel in KERNELS]
    failures = [future.exception(HANGS_S) for future in futures]
    assert {type(failure) for failure in failures} == {JudgeUnreachable}
    assert sum("no score within 0.22 s, retries included" in str(failure) for failure in failures) >= 4


def test_nothing_that_listens_is_a_failure_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    config = JudgeConfig(url, max_retries=0, fallback_to_rule=False)
    with JudgeRewardSystem(config) as system, pytest.raises(JudgeUnreachable, match="the connection failed"):
        system.reward("relu", GOOD)


# ------------------------------------------------------------------ rules in the judge's stead


def test_a_fallback_is_tagged_and_never_the_judges_word(asking: Ask) -> None:
    system, server = asking([refused(400), good], use_cache=True)
    first, second, third = (system.reward("relu", GOOD, "class Model", "KERNEL_CPP") for _ in range(3))
    assert (first["source"], first["cached"]) == ("rule_fallback", False)
    assert (second["source"], second["cached"], second["score"]) == ("judge", False, score_of(GOOD))
    assert (third["source"], third["cached"], third["score"]) == ("judge", True, score_of(GOOD))
    assert len(server.asked) == 2


def test_what_rules_cannot_score_either_is_a_failure(asking: Ask) -> None:
    system, _ = asking([refused(500)], max_retries=0)
    with pytest.raises(JudgeRefused, match="not even by rules: nothing_to_judge"):
        system.reward("relu", "I could not do it.", "class Model", "KERNEL_CPP")


# ------------------------------------------------------------------ the server of this project


async def test_our_own_server_is_understood() -> None:
    with JudgeServer(StaticJudge(), ServerConfig(port=0, api_key="right")) as server:
        config = JudgeConfig(server.url, "right", fallback_to_rule=False)
        async with JudgeRewardSystem(config) as system:
            found = await all_of(system, [*KERNELS, "I could not do it."])
            by_rules = await asyncio.gather(*(rule_score(JudgeRequest(prompt="", completion=kernel)) for kernel in KERNELS))
            assert scores_of(found[:-1]) == [one.score for one in by_rules]
            assert isinstance(found[-1], JudgeRefused) and "nothing_to_judge" in str(found[-1])
            assert [one.cached for one in await all_of(system) if isinstance(one, Judged)] == [True] * 6
            assert (await system.areward("2 + 2?", "The answer is 4.0", "4", "NUMBER"))["reward"] == 1.0
            assert system.get_metrics()["circuit_breaker"]["failure_count"] == 0
        async with JudgeRewardSystem(JudgeConfig(server.url, "wrong", fallback_to_rule=False)) as system:
            (refusal,) = await all_of(system, KERNELS[:1])
            assert isinstance(refusal, JudgeRefused) and "unauthorized" in str(refusal)


async def test_a_judge_of_our_own_server_that_breaks_leaves_each_to_the_rules() -> None:
    class Broken(CustomJudge):
        def score(self, prompt: str, completion: str, answer: str | None, answer_type: str | None) -> dict[str, Any]:
            raise KeyError("no model")

    with JudgeServer(Broken(), ServerConfig(port=0)) as server:
        config = JudgeConfig(server.url, max_retries=1, retry_wait=0.001)
        async with JudgeRewardSystem(config) as system:
            assert sources(await all_of(system)) == ["rule_fallback"] * 6


# ------------------------------------------------------------------ everything at random


class JudgeProcess:
    """A server in a process of its own that can be killed, and started again at the same address."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self._process: subprocess.Popen[str] | None = None

    def start(self, faults: bool = True) -> None:
        command = [sys.executable, "-m", "tests.scripted_judge", "--port", str(self.port)]
        command += ["--seed", str(self._draw.randrange(2**32)), *(["--faults"] if faults else [])]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None and self._process.stdout.readline() == "ready\n"

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process = None


async def killed_now_and_then(judge: JudgeProcess, system: JudgeRewardSystem, ended: Sequence[Any], requests: int) -> None:
    """After every tenth of all that was judged; then so much ends without a server."""
    share = requests // 10

    def judged() -> int:
        return int(system.get_metrics()["judged"])

    while len(ended) < requests:
        enough = judged() + share
        await until(lambda: judged() >= enough or len(ended) == requests, RUN_HANGS_S)  # noqa: B023 - waited for
        await asyncio.to_thread(judge.kill)
        enough = len(ended) + share
        await until(lambda: len(ended) >= min(enough, requests), RUN_HANGS_S)  # noqa: B023
        await asyncio.to_thread(judge.start)


@pytest.mark.parametrize(
    ("requests", "fallback"),
    [
        (200, True),
        pytest.param(5000, True, marks=pytest.mark.slow),
        pytest.param(5000, False, marks=pytest.mark.slow),
    ],
)
async def test_a_judge_that_fails_at_random(requests: int, fallback: bool, caplog: pytest.LogCaptureFixture) -> None:
    draw, judge = random.Random(requests), JudgeProcess(seed=requests)
    config = JudgeConfig(
        f"http://127.0.0.1:{judge.port}", batch_timeout=0.01, timeout=0.3, max_retries=2, retry_wait=0.01, retry_wait_max=0.05,
        circuit_breaker_threshold=5, circuit_breaker_timeout=0.2, fallback_to_rule=fallback,
    )  # fmt: skip
    kernels = [f"{GOOD}\n# {n % (requests * 2 // 3)}\n" for n in range(requests)]
    ended: list[tuple[str, Judged | JudgeError]] = []
    judge.start()
    async with JudgeRewardSystem(config) as system:
        work = iter(kernels)

        async def ask_for_some() -> None:
            for kernel in work:
                await asyncio.sleep(draw.uniform(0, 0.2))
                ended.append((kernel, await ended_in_time(system, kernel)))

        await asyncio.gather(killed_now_and_then(judge, system, ended, requests), *(ask_for_some() for _ in range(24)))
        judge.kill()
        check_all(ended, kernels, fallback)
        await check_recovered(system, judge, dict(ended))
    check_circuit([record.getMessage() for record in caplog.records if record.getMessage().startswith("circuit breaker: ")])


async def ended_in_time(system: JudgeRewardSystem, kernel: str) -> Judged | JudgeError:
    """A score or a typed failure, no later than is promised, but for what a busy machine adds."""
    async with asyncio.timeout(system.config.patience_s + 5.0):
        try:
            return await system.acompute_reward("relu", kernel, "class Model", "KERNEL_CPP")
        except JudgeError as error:
            return error


def check_all(ended: Sequence[tuple[str, Judged | JudgeError]], kernels: Sequence[str], fallback: bool) -> None:
    assert sorted(kernel for kernel, _ in ended) == sorted(kernels)
    ways = Counter(one.source if isinstance(one, Judged) else "failure" for _, one in ended)
    assert set(ways) == {"judge", "rule_fallback" if fallback else "failure"}, ways
    for kernel, one in ended:
        if isinstance(one, Judged) and one.source == "judge":
            assert one.score == score_of(kernel)
        elif isinstance(one, Judged):
            assert one.score > 0 and not one.cached


async def check_recovered(system: JudgeRewardSystem, judge: JudgeProcess, ended: dict[str, Judged | JudgeError]) -> None:
    """Once the judge is well it scores everything, and what comes from the cache is what it said."""
    await asyncio.to_thread(judge.start, faults=False)
    try:
        await asyncio.sleep(system.config.circuit_breaker_timeout)
        assert (await system.acompute_reward("relu", "the probe, if there is to be one")).source == "judge"
        for start in range(0, len(ended), 50):
            kernels = list(ended)[start : start + 50]
            assert scores_of(await all_of(system, kernels)) == [score_of(kernel) for kernel in kernels]
        assert system.get_metrics()["cache_hits"] > 0
    finally:
        judge.kill()


def check_circuit(changes: Sequence[str]) -> None:
    """It opens, one request tries the judge, and that one's end closes it or opens it again."""
    states = ["closed", *(change.removeprefix("circuit breaker: ").partition(",")[0] for change in changes)]
    steps = Counter(itertools.pairwise(states))
    assert set(steps) <= {("closed", "open"), ("open", "half_open"), ("half_open", "open"), ("half_open", "closed")}
    assert steps["closed", "open"] == steps["half_open", "closed"] > 0

"""The judge as a reward: one call a completion, blocking or not, and a score whatever becomes of the judge.

    system = JudgeRewardSystem({"judge_url": "http://localhost:8888"})
    system.reward(prompt, completion, answer)          # {"reward": 0.95, "source": "judge", ...}
    await system.areward(prompt, completion, answer)   # the same, in any event loop

All calls of a system, from whatever thread or loop, share one background loop, and so its batches, cache and circuit breaker.
Where the judge gives no score, rules do, and the result says `rule_fallback`; with `fallback_to_rule: false` it is a `JudgeError`.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import threading
import time
import uuid
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import ValidationError

from kernel_env.errors import ConfigError, JudgeBusy, JudgeError, JudgeRefused, JudgeUnreachable
from rewards.judge.background import Background
from rewards.judge.cache import JudgeCache, cache_key
from rewards.judge.client import JudgeClient
from rewards.judge.config import JudgeConfig
from rewards.judge.flights import Flights
from rewards.judge.metrics import JudgeMetrics
from rewards.judge.models import Scored
from rewards.judge.wire import AnswerType, JudgeRequest, JudgeResponse

if TYPE_CHECKING:
    import numpy as np

LOG = logging.getLogger("JudgeReward")


@dataclass(frozen=True)
class Judged:
    """One completion's score, and where it comes from. numpy takes it as a number: `np.mean` of several works."""

    score: float
    """From 0 to 1."""
    source: Literal["judge", "rule_fallback"]
    cached: bool = False
    """The judge said so before."""
    latency_ms: float = 0.0
    """From the call to the score."""
    explanation: str = ""
    flags: tuple[str, ...] = ()
    """Integrity flags that facts of the source confirm."""
    doubts: tuple[str, ...] = ()
    """What should be looked at before the score is believed."""
    failure: str = ""
    """Why the judge gave no score, where rules did."""

    def as_reward(self) -> dict[str, Any]:
        names = ("score", "source", "cached", "latency_ms", "explanation")
        return {"reward": self.score} | {name: getattr(self, name) for name in names}

    def __float__(self) -> float:
        return self.score

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        import numpy as np

        return np.asarray(self.score, dtype)


class BaseJudgeReward:
    """One judge. A judge of your own overrides `_request_judge`; cache, time limit, fallback and metrics are around it."""

    def __init__(self, config: JudgeConfig | Mapping[str, Any] | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        """A mapping has `JudgeConfig`'s names, and the environment overrides it. Nothing is sent before the first request."""
        self.config = config if isinstance(config, JudgeConfig) else JudgeConfig.of(config, os.environ)
        self._now = now
        self._metrics = JudgeMetrics()
        self._cache: JudgeCache | None = None
        if self.config.use_cache:
            self._cache = JudgeCache(self.config.cache_size, self.config.cache_ttl, self.config.cache_path)
        self._judge: tuple[str, ...] | None = None
        self._lock = threading.Lock()
        self._client = self._new_client()
        self._flights = Flights[JudgeResponse]()
        self._running: Background | None = None
        self._closed = False
        self._name, self._numbers = uuid.uuid4().hex, itertools.count()

    # ------------------------------------------------------------------ asking

    def compute_reward(
        self,
        prompt: str,
        completion: str,
        answer: str | None = None,
        answer_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Judged:
        """Blocks the calling thread. Raises JudgeError where there is no score, of the judge's or of rules."""
        if self._running is not None and self._running.inside:
            raise ConfigError("a judge's own loop would wait for itself: use acompute_reward in _request_judge")
        future = self.submit(prompt, completion, answer, answer_type, metadata)
        try:
            return future.result()
        except BaseException:  # an interrupt too: nothing may go on there unasked
            future.cancel()
            raise

    async def acompute_reward(
        self,
        prompt: str,
        completion: str,
        answer: str | None = None,
        answer_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Judged:
        """The same in any event loop. Cancelling it cancels the request."""
        return await asyncio.wrap_future(self.submit(prompt, completion, answer, answer_type, metadata))

    def submit(
        self,
        prompt: str,
        completion: str,
        answer: str | None = None,
        answer_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Future[Judged]:
        """The same as a future. A score that is known is there at once."""
        started_s = self._now()
        request = self._request(prompt, completion, answer, answer_type, metadata)
        known = self._known(request, started_s)
        if known is None:
            return self._background().start(functools.partial(self._judged, request, started_s))
        future: Future[Judged] = Future()
        future.set_result(known)
        return future

    def _request_judge(self, request: JudgeRequest) -> Awaitable[JudgeResponse]:
        """Runs on the background loop. Override it for a judge of your own; a JudgeError from it leads to the fallback."""
        return self._client.ask(request)

    # ------------------------------------------------------------------ looking in

    def get_metrics(self) -> dict[str, Any]:
        """Counts since the start, by name; `current_queue_size` waits for a batch, `in_flight` has left in one."""
        return self._metrics.snapshot() | {
            "current_queue_size": self._client.outbox.waiting,
            "in_flight": self._client.outbox.in_flight,
            "circuit_breaker": self._client.breaker.snapshot(),
        }

    # ------------------------------------------------------------------ closing

    def close(self) -> None:
        """Take nothing new and wait for what is under way. Idempotent; forgetting a system does the same."""
        with self._lock:
            self._closed = True
            running = self._running
        if running is not None:
            running.stop()
        if self._cache is not None:
            self._cache.close()

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    # ------------------------------------------------------------------ one request

    def _request(
        self, prompt: str, completion: str, answer: str | None, answer_type: str | None, metadata: Mapping[str, Any] | None
    ) -> JudgeRequest:
        try:
            return JudgeRequest(
                prompt=_storable(prompt),
                completion=_storable(completion),
                answer=None if answer is None else _storable(answer),
                answer_type=None if answer_type is None else AnswerType(answer_type),
                request_id=f"{self._name}-{next(self._numbers)}",
                metadata=dict(metadata or {}),
            )
        except ValueError as error:  # pydantic's are such
            failure = JudgeRefused(f"no request to a judge: {_first_fault(error)}")
        self._metrics.failed(failure)
        raise failure

    def _known(self, request: JudgeRequest, started_s: float) -> Judged | None:
        """What this judge said before. Before its first reply it has no name, and nothing is looked up."""
        if self._cache is None or self._judge is None:
            return None
        response = self._cache.get(cache_key(self._judge, request))
        if response is None:
            return None
        self._metrics.cached()
        return self._as_judged(response, started_s, cached=True)

    async def _judged(self, request: JudgeRequest, started_s: float) -> Judged:
        failure: JudgeError
        try:
            async with asyncio.timeout(self.config.patience_s):
                response = await self._answer(request)
        except TimeoutError:
            failure = JudgeUnreachable(f"judge {self.config.where}: no score within {self.config.patience_s:g} s, retries included")
        except JudgeError as error:
            failure = type(error)(*error.args)  # whoever asked the same has the other one
        else:
            judged = self._as_judged(response, started_s)
            self._metrics.judged(judged.latency_ms)
            return judged
        return await self._fallen_back(request, failure, started_s)

    async def _answer(self, request: JudgeRequest) -> JudgeResponse:
        """The judge's word, remembered. Where words are remembered, several who ask the same at a time are one request to it."""

        async def asked() -> JudgeResponse:
            response = await self._request_judge(request)
            self._remember(request, response)
            return response

        return await (asked() if self._cache is None else self._flights.join(cache_key((), request), asked))

    async def _fallen_back(self, request: JudgeRequest, failure: JudgeError, started_s: float) -> Judged:
        self._metrics.failed(failure)
        if not self.config.fallback_to_rule:
            raise failure
        LOG.warning("%s; scored by rules", failure)
        scored = await rule_score(request)
        self._metrics.fell_back()
        said = (scored.explanation, scored.flags, scored.doubts)
        return Judged(scored.score, "rule_fallback", False, self._since_ms(started_s), *said, str(failure))

    def _remember(self, request: JudgeRequest, response: JudgeResponse) -> None:
        """Under the name that the judge gives itself, so that another model or rubric behind the same address is another judge."""
        self._judge = (type(self).__qualname__, self.config.judge_url, response.metadata.judge, response.metadata.version)
        if self._cache is not None:
            self._cache.put(cache_key(self._judge, request), response)

    def _as_judged(self, response: JudgeResponse, started_s: float, *, cached: bool = False) -> Judged:
        said = response.metadata
        return Judged(response.score, "judge", cached, self._since_ms(started_s), response.explanation, said.flags, said.doubts)

    def _since_ms(self, started_s: float) -> float:
        return (self._now() - started_s) * 1e3

    # ------------------------------------------------------------------ background

    def _new_client(self) -> JudgeClient:
        return JudgeClient(self.config, self._metrics, now=self._now)

    def _background(self) -> Background:
        with self._lock:
            if self._closed:
                raise JudgeBusy(f"judge {self.config.where}: this client is closed; make a new one")
            if self._running is not None and not self._running.alive:  # left behind by a fork, with its connections
                self._client, self._flights, self._running = self._new_client(), Flights(), None
            if self._running is None:
                self._running = Background(self._client)
                weakref.finalize(self, self._running.stop)
            return self._running


class JudgeRewardSystem(BaseJudgeReward):
    """A drop-in reward system: results are plain dictionaries, `{reward, score, source, cached, latency_ms, explanation}`."""

    def reward(
        self,
        prompt: str,
        completion: str,
        answer: str | None = None,
        answer_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Blocks the calling thread. Raises JudgeError where there is no score, of the judge's or of rules."""
        return self.compute_reward(prompt, completion, answer, answer_type, metadata).as_reward()

    async def areward(
        self,
        prompt: str,
        completion: str,
        answer: str | None = None,
        answer_type: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The same in any event loop."""
        return (await self.acompute_reward(prompt, completion, answer, answer_type, metadata)).as_reward()


def create_judge_reward(config: Mapping[str, Any] | None = None) -> JudgeRewardSystem:
    """One judge of several. What `config` says stands and the environment fills in the rest: JUDGE_MODEL_URL must not turn a
    panel into as many times the same judge."""
    return JudgeRewardSystem(JudgeConfig.of(config, os.environ, given_wins=True))


def compute_reward(
    prompt: str, completion: str, answer: str | None = None, answer_type: str | None = None, config: Mapping[str, Any] | None = None
) -> Judged:
    """One score by a client of its own, for scripts. Whoever wants many makes one `JudgeRewardSystem`."""
    with create_judge_reward(config) as judge:
        return judge.compute_reward(prompt, completion, answer, answer_type)


class MultiCritiqueJudge:
    """Several judges, asked at the same time; the score is their mean. The server's `PanelJudge` knows other ways."""

    def __init__(self, judges: Sequence[str]) -> None:
        """`judges` are URLs."""
        if not judges:
            raise ConfigError("MultiCritiqueJudge: give at least one judge's URL")
        self.judges = [create_judge_reward({"judge_url": url}) for url in judges]

    def score(self, prompt: str, completion: str, answer: str | None = None) -> dict[str, Any]:
        """Raises JudgeError where one of them has no score. `source` is `judge` only if it is so of all."""
        scores = [future.result() for future in [judge.submit(prompt, completion, answer) for judge in self.judges]]
        each = [judged.score for judged in scores]
        return {
            "score": sum(each) / len(each),
            "scores": each,
            "source": "judge" if all(judged.source == "judge" for judged in scores) else "rule_fallback",
            "explanation": f"mean of {len(each)} judges: {', '.join(f'{score:.2f}' for score in each)}",
        }

    def close(self) -> None:
        for judge in self.judges:
            judge.close()


async def rule_score(request: JudgeRequest) -> Scored:
    """What rules say, without any model. Raises JudgeRefused where they have nothing to say."""
    from rewards.judge.static import StaticJudge

    (outcome,) = await StaticJudge().score_batch([request])
    if isinstance(outcome, Scored):
        return outcome
    raise JudgeRefused(f"no score, not even by rules: {outcome.kind.value}: {outcome.message}")


def _storable(text: str) -> str:
    """Lone surrogates, which a model may write and UTF-8 cannot hold, as question marks."""
    return text.encode(errors="replace").decode()


def _first_fault(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
    return str(error)

"""Asks a judge's server: batches, retries, a circuit breaker, and a strict reading of what comes back.

Failures that may pass (connections, timeouts, 408, 425, 429, 5xx, a model that is down) are retried in this one layer and are
`JudgeUnreachable`. A request that the judge will not score is `JudgeRefused`, an answer outside of the protocol `JudgeBadReply`.
A batch that was refused, garbled or answered in part is asked for again one by one, as far as it has no answer: one request's
fault is never another's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import httpx2
import stamina
from pydantic import BaseModel, ValidationError

from kernel_env.errors import JudgeBadReply, JudgeError, JudgeRefused, JudgeUnreachable
from rewards.judge.breaker import CircuitBreaker
from rewards.judge.config import JudgeConfig
from rewards.judge.metrics import JudgeMetrics
from rewards.judge.outbox import Answers, Outbox
from rewards.judge.wire import BatchJudgeRequest, Failure, FailureKind, JudgeRequest, JudgeResponse

LOG = logging.getLogger("JudgeReward")
ERROR_CHARS = 300

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

_MAY_PASS = frozenset({FailureKind.UNAVAILABLE, FailureKind.TIMEOUT, FailureKind.OVERLOADED, FailureKind.STOPPING})


class JudgeClient:
    """One judge's server. Belongs to one event loop, so that nothing here needs a lock."""

    def __init__(self, config: JudgeConfig, metrics: JudgeMetrics, *, now: Callable[[], float] = time.monotonic) -> None:
        self._config, self._metrics, self._now = config, metrics, now
        self.breaker = CircuitBreaker(config.circuit_breaker_threshold, config.circuit_breaker_timeout, now=now)
        self.outbox = Outbox(self._answers, config)
        self._slots = asyncio.Semaphore(config.max_concurrent_requests)
        self._retry = stamina.AsyncRetryingCaller(
            attempts=config.max_retries + 1,
            timeout=None,  # whoever asks has a time limit of its own
            wait_initial=config.retry_wait,
            wait_max=config.retry_wait_max,
            wait_jitter=config.retry_wait,
        )
        headers = {"content-type": "application/json"}
        if config.api_key:
            headers["authorization"] = f"Bearer {config.api_key}"
        self._http = httpx2.AsyncClient(
            base_url=config.judge_url,
            headers=headers,
            timeout=None,  # the library's starts again with every byte
            limits=httpx2.Limits(max_connections=config.max_concurrent_requests),
        )

    async def ask(self, request: JudgeRequest) -> JudgeResponse:
        """The judge's answer, had together with others'. Raises JudgeError."""
        return await self.outbox.ask(request)

    async def aclose(self) -> None:
        await self._http.aclose()

    # ------------------------------------------------------------------ batches

    async def _answers(self, requests: Sequence[JudgeRequest]) -> Answers:
        self._metrics.sent(len(requests))
        answers: Answers = {}
        if len(requests) > 1:
            try:
                answers = await self._ask("/batch_judge", BatchJudgeRequest(requests=tuple(requests)), self._read_batch)
            except (JudgeRefused, JudgeBadReply) as error:
                LOG.warning("%s; the batch's %d requests are asked one by one", error, len(requests))
            except JudgeError as error:
                return {request.request_id: type(error)(*error.args) for request in requests}
        left = [request for request in requests if request.request_id not in answers]
        singles = await asyncio.gather(*(self._single(request) for request in left))
        return {**answers, **{request.request_id: answer for request, answer in zip(left, singles, strict=True)}}

    async def _single(self, request: JudgeRequest) -> JudgeResponse | JudgeError:
        def read(document: Any) -> JudgeResponse:
            for response in _understood(JudgeResponse, [document]):
                if response.request_id == request.request_id:
                    return response
            raise self._bad_reply("no score for the request that was made")

        try:
            return await self._ask("/judge", request, read)
        except JudgeError as error:
            return error

    def _read_batch(self, document: Any) -> Answers:
        """What can be understood. Garbled entries, several for one request, and failures that may pass are no answers."""
        if not isinstance(document, dict):
            raise self._bad_reply("no list of responses")
        failures = _understood(Failure, document.get("failures"))
        heard: defaultdict[str | None, list[JudgeResponse | Failure]] = defaultdict(list)
        for response in _understood(JudgeResponse, document.get("responses")):
            heard[response.request_id].append(response)
        for failure in failures:
            heard[failure.request_id].append(failure)
        once = {request_id: entries[0] for request_id, entries in heard.items() if len(entries) == 1}
        answers = {
            request_id: self._failure(entry) if isinstance(entry, Failure) else entry
            for request_id, entry in once.items()
            if not (isinstance(entry, Failure) and entry.kind in _MAY_PASS)
        }
        if not answers:
            raise self._failure(failures[0]) if failures else self._bad_reply("no answer to any request of the batch")
        return answers

    # ------------------------------------------------------------------ one request

    async def _ask(self, path: str, message: BaseModel, read: Callable[[Any], T]) -> T:
        """The answer as `read` understands it. The only retry layer. Raises JudgeError."""
        body = message.model_dump_json(exclude_defaults=True).encode()

        async def once() -> T:
            async with self._slots:
                with self.breaker.exchange():
                    return read(await self._post(path, body))

        return await self._retry(JudgeUnreachable, once)

    async def _post(self, path: str, body: bytes) -> Any:
        """The JSON document that answers."""
        failure: JudgeError
        started_s = self._now()
        try:
            async with asyncio.timeout(self._config.timeout):
                response = await self._http.post(path, content=body)
        except TimeoutError:
            failure = self._unreachable(f"no answer within {self._config.timeout:g} s")
        except httpx2.HTTPError as error:
            failure = self._unreachable(f"the connection failed ({type(error).__name__}: {error})")
        else:
            LOG.debug("POST %s: %d in %.1f ms", path, response.status_code, (self._now() - started_s) * 1e3)
            return self._document(response)
        raise failure  # outside of the except clauses: the library's exception holds the request, and so the key

    def _document(self, response: httpx2.Response) -> Any:
        status = response.status_code
        if status == 200:
            try:
                return response.json()
            except (ValueError, RecursionError):
                raise self._bad_reply("an answer that is not JSON") from None
        try:
            raise self._failure(Failure.model_validate_json(response.content))
        except ValidationError:  # a judge of another make: its status has to do
            said = f"status {status}"
        if status in (408, 425, 429) or status >= 500:
            raise self._unreachable(said)
        if status >= 400:
            raise self._refused(said)
        raise self._bad_reply(said)

    # ------------------------------------------------------------------ failures

    def _failure(self, failure: Failure) -> JudgeError:
        said = f"{failure.kind.value}: {' '.join(failure.message.split())[:ERROR_CHARS]}"
        return self._unreachable(said) if failure.kind in _MAY_PASS else self._refused(said)

    def _unreachable(self, what: str) -> JudgeUnreachable:
        return JudgeUnreachable(f"judge {self._config.where}: {what}; is it running, is judge.timeout long enough?")

    def _refused(self, what: str) -> JudgeRefused:
        return JudgeRefused(f"judge {self._config.where}: no score, {what}")

    def _bad_reply(self, what: str) -> JudgeBadReply:
        return JudgeBadReply(f"judge {self._config.where}: {what}; does it speak this protocol?")


def _understood(kind: type[M], entries: object) -> list[M]:
    """Those of a list's entries that are what they should be."""
    found = []
    for entry in entries if isinstance(entries, list) else ():
        try:
            found.append(kind.model_validate(entry))
        except ValidationError:
            continue
    return found

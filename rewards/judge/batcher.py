"""Gathers requests into batches for a judge, within a bounded queue.

A batch is sent when it is full, or a moment after its first request came. Whatever a judge does, every request that was taken gets
an outcome: a judge that raises, hangs or answers too few has failed for the requests of that batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from kernel_env.errors import ConfigError
from rewards.judge.bounds import MAX_BATCH
from rewards.judge.counters import Counters
from rewards.judge.models import Judge, JudgeFailure, Outcome
from rewards.judge.wire import FailureKind, JudgeRequest


@dataclass(frozen=True)
class BatchConfig:
    """How requests are gathered."""

    max_batch_size: int = 16
    """Most requests that the judge is given at once."""
    batch_timeout_s: float = 0.05
    """How long the first request of a batch waits for others."""
    batches_in_flight: int = 4
    """Batches that the judge works on at a time. A judge that holds one model takes them one by one."""
    queue: int = 1000
    """Requests that may wait; beyond that they are refused (429)."""
    timeout_s: float = 120.0
    """A batch that takes longer has failed."""

    def __post_init__(self) -> None:
        for name in ("max_batch_size", "batches_in_flight", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a number above 0")
        if self.batch_timeout_s < 0:
            raise ConfigError(f"batch_timeout_s is {self.batch_timeout_s}: give 0 or more")
        if self.queue < MAX_BATCH:
            raise ConfigError(f"queue is {self.queue}: it has to hold one full batch of a client, {MAX_BATCH}")


class Refused(Exception):
    """Requests that were not taken. `failure` says why."""

    def __init__(self, failure: JudgeFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass
class _Waiting:
    request: JudgeRequest
    outcome: asyncio.Future[Outcome]
    arrived_s: float = field(default_factory=time.perf_counter)


class Batcher:
    """Call `start` and `aclose` within one event loop."""

    def __init__(self, judge: Judge, config: BatchConfig, counters: Counters) -> None:
        self._judge = judge
        self._config = config
        self._counters = counters
        self._queue: deque[_Waiting] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Semaphore(config.batches_in_flight)
        self._running: set[asyncio.Task[None]] = set()
        self._owed: set[asyncio.Future[Outcome]] = set()
        self._loop_task: asyncio.Task[None] | None = None
        self._stopping = False

    def start(self) -> None:
        self._loop_task = asyncio.create_task(self._forever(), name="judge-batcher")

    async def aclose(self, drain_s: float = 30.0) -> None:
        """Take nothing new, finish what was taken, and give up on it after `drain_s`."""
        self._stopping = True
        self._changed.set()
        if self._owed:
            await asyncio.wait(self._owed, timeout=drain_s)
        tasks = [*self._running, *([self._loop_task] if self._loop_task else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = JudgeFailure(FailureKind.STOPPING, "the server stopped before the judge had answered")
        while self._queue:
            _settle(self._queue.popleft(), left)

    async def score(self, requests: Sequence[JudgeRequest]) -> list[Outcome]:
        """One outcome a request, in order. Raises Refused where they cannot all be taken."""
        if self._stopping:
            raise Refused(JudgeFailure(FailureKind.STOPPING, "the server is shutting down: ask another one"))
        if len(self._queue) + len(requests) > self._config.queue:
            raise Refused(JudgeFailure(FailureKind.OVERLOADED, f"{len(self._queue)} requests wait already: try again later"))
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(request, loop.create_future()) for request in requests]
        for entry in waiting:
            self._owed.add(entry.outcome)
            entry.outcome.add_done_callback(self._owed.discard)
        self._queue.extend(waiting)
        self._counters.taken(len(waiting))
        self._counters.queue_size = len(self._queue)
        self._changed.set()
        return list(await asyncio.gather(*(entry.outcome for entry in waiting)))

    # ------------------------------------------------------------------ batches

    async def _forever(self) -> None:
        while True:
            await self._room.acquire()
            batch = await self._gather()
            task = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _gather(self) -> list[_Waiting]:
        """The next batch: it is full, or its first request has waited long enough, or nothing more will come."""
        while True:
            if not self._queue:
                await self._wait(None)
                continue
            left_s = self._queue[0].arrived_s + self._config.batch_timeout_s - time.perf_counter()
            if len(self._queue) >= self._config.max_batch_size or left_s <= 0 or self._stopping:
                size = min(len(self._queue), self._config.max_batch_size)
                batch = [self._queue.popleft() for _ in range(size)]
                self._counters.queue_size = len(self._queue)
                return batch
            await self._wait(left_s)

    async def _wait(self, seconds: float | None) -> None:
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    async def _run(self, batch: list[_Waiting]) -> None:
        self._counters.batch(len(batch))
        outcomes: list[Outcome] = [JudgeFailure(FailureKind.STOPPING, "the server stopped while the judge was at work")] * len(
            batch
        )
        try:
            outcomes = await self._outcomes([entry.request for entry in batch])
        finally:
            self._counters.in_flight -= len(batch)
            self._room.release()
            for entry, outcome in zip(batch, outcomes, strict=True):
                _settle(entry, outcome)
                self._counters.answered(outcome, time.perf_counter() - entry.arrived_s)

    async def _outcomes(self, requests: list[JudgeRequest]) -> list[Outcome]:
        try:
            async with asyncio.timeout(self._config.timeout_s):
                outcomes = await self._judge.score_batch(requests)
        except TimeoutError:
            failure = JudgeFailure(FailureKind.TIMEOUT, f"the judge took longer than {self._config.timeout_s:g} s")
        except Exception as error:  # noqa: BLE001  # a judge may be anyone's code: its failure is the batch's, not the server's
            failure = JudgeFailure(FailureKind.UNAVAILABLE, f"the judge raised {type(error).__name__}: {error}"[:300])
        else:
            if len(outcomes) == len(requests):
                return list(outcomes)
            failure = JudgeFailure(FailureKind.UNAVAILABLE, f"the judge gave {len(outcomes)} answers to {len(requests)} requests")
        return [failure] * len(requests)


def _settle(entry: _Waiting, outcome: Outcome) -> None:
    if not entry.outcome.done():
        entry.outcome.set_result(outcome)

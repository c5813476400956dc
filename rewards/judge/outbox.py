"""Requests that arrive within a moment of each other leave together."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from kernel_env.errors import JudgeBadReply, JudgeBusy, JudgeError
from rewards.judge.config import JudgeConfig
from rewards.judge.wire import JudgeRequest, JudgeResponse

Answers = Mapping[str | None, JudgeResponse | JudgeError]
"""By `request_id`."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    request: JudgeRequest
    since_s: float
    answer: asyncio.Future[JudgeResponse]


class Outbox:
    """A batch leaves when it is full, or when its oldest request has waited for `batch_timeout`, and a lane is free.

    Belongs to one event loop. Every request has a `request_id` of its own.
    """

    def __init__(self, send: Callable[[Sequence[JudgeRequest]], Awaitable[Answers]], config: JudgeConfig) -> None:
        """`send` answers for every request of a batch: a failure is an answer too."""
        self._send, self._config = send, config
        self._waiting: deque[_Waiting] = deque()
        self._flights: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._wait_s = config.batch_timeout
        self.in_flight = 0
        """Requests that left and are not answered."""

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def ask(self, request: JudgeRequest) -> JudgeResponse:
        """Raises JudgeError."""
        if len(self._waiting) >= self._config.queue_size:
            raise JudgeBusy(
                f"request queue full: {len(self._waiting)} requests wait for {self._config.where}; "
                "ask for less at once, or raise judge.max_concurrent_requests"
            )
        loop = asyncio.get_running_loop()
        mine = _Waiting(request, loop.time(), loop.create_future())
        self._waiting.append(mine)
        self._pump()
        try:
            return await mine.answer
        finally:
            if mine.answer.cancelled():  # whoever asked has left
                with contextlib.suppress(ValueError):
                    self._waiting.remove(mine)

    def hurry(self) -> None:
        """No request waits for others any more."""
        self._wait_s = 0.0
        self._pump()

    def _pump(self) -> None:
        """Send what is to leave now, and be back when the next is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        size, lanes = self._config.max_batch_size, self._config.max_concurrent_requests
        while self._waiting and len(self._flights) < lanes:
            due_s = self._waiting[0].since_s + self._wait_s
            if len(self._waiting) < size and loop.time() < due_s:
                self._timer = loop.call_at(due_s, self._pump)
                return
            batch = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
            self.in_flight += len(batch)
            flight = loop.create_task(self._fly(batch))
            self._flights.add(flight)
            flight.add_done_callback(self._landed)

    async def _fly(self, batch: Sequence[_Waiting]) -> None:
        """There and back. Whatever happens, every request of the batch ends."""
        answers: Mapping[str | None, JudgeResponse | Exception] = {}
        lost: Exception = JudgeBadReply(f"{self._config.where}: no answer to this request")
        try:
            answers = await self._send([one.request for one in batch])
        except Exception as error:  # noqa: BLE001 - a fault of this program: whoever asked is to see it
            lost = error
        finally:
            self.in_flight -= len(batch)
        for one in batch:
            if one.answer.done():  # whoever asked has left
                continue
            answer = answers.get(one.request.request_id, lost)
            if isinstance(answer, JudgeResponse):
                one.answer.set_result(answer)
            else:
                one.answer.set_exception(answer)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._pump()

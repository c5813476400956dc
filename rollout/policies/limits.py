"""Rate limits of an endpoint, kept on this side: so many requests and so many tokens in any minute."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 60.0


@dataclass
class Ticket:
    """One admitted request."""

    at_s: float
    tokens: int


class RateLimiter:
    """Admits requests in the order in which they come, so that no 60 s see more requests or tokens than allowed.

    How many tokens a request takes is known when its reply is there. Until then it counts with the most that it may take; `settle`
    corrects that. One that may take more than all that is allowed is admitted when nothing else counts any more. Waiting is
    measured on a clock of its own, never on a recorded one.
    """

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        *,
        window_s: float = WINDOW_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests, self._tokens, self._window_s, self._now = requests, tokens, window_s, now
        self._admitted: deque[Ticket] = deque()
        """Of the last minute, the oldest first."""
        self._line = asyncio.Lock()
        """Its waiters get it in the order in which they came."""
        self._settled = asyncio.Event()

    async def admit(self, tokens: int) -> Ticket:
        """Waits until one more request with so many tokens is allowed."""
        if self._requests is None and self._tokens is None:
            return Ticket(0.0, tokens)
        async with self._line:
            while (wait_s := self._wait_s(tokens)) > 0:
                self._settled.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._settled.wait(), wait_s)
            ticket = Ticket(self._now(), tokens)
            self._admitted.append(ticket)
            return ticket

    def settle(self, ticket: Ticket, tokens: int) -> None:
        """The request has taken so many tokens in the end."""
        ticket.tokens = tokens
        self._settled.set()

    def _wait_s(self, tokens: int) -> float:
        """Seconds until the oldest request no longer counts, 0 where this one is allowed now."""
        now_s = self._now()
        while self._admitted and now_s - self._admitted[0].at_s >= self._window_s:
            self._admitted.popleft()
        if not self._admitted:
            return 0.0
        too_many = self._requests is not None and len(self._admitted) >= self._requests
        too_much = self._tokens is not None and sum(ticket.tokens for ticket in self._admitted) + tokens > self._tokens
        return self._admitted[0].at_s + self._window_s - now_s if too_many or too_much else 0.0

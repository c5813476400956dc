"""A circuit breaker: a judge that keeps failing is left alone for a while, then tried by one request.

    closed     all requests go out; so many failures in a row, none answered in between, open it
    open       none goes out, until the recovery time is over
    half_open  one request is out, the probe: an answer closes the circuit, a failure opens it again

It belongs to one event loop and has no lock, so nothing can be held while a request is under way.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from kernel_env.errors import JudgeBadReply, JudgeBusy, JudgeRefused, JudgeUnreachable

LOG = logging.getLogger("JudgeReward")


class State(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    def __init__(self, threshold: int, recovery_s: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._threshold, self._recovery_s, self._now = threshold, recovery_s, now
        self.state = State.CLOSED
        self.failures = 0
        """In a row."""
        self._failed_at_s: float | None = None
        self._opened_at_s = 0.0
        self._era = 0
        """Counts changes of state: what began in another era says nothing about this one."""

    @contextmanager
    def exchange(self) -> Iterator[None]:
        """Around one request to the judge. Raises JudgeBusy where it must not go out.

        JudgeUnreachable and JudgeBadReply are failures. JudgeRefused is an answer. Anything else, a cancelled request above all,
        tells nothing about the judge; was it the probe, the next request is.
        """
        self._admit()
        era = self._era
        try:
            yield
        except (JudgeUnreachable, JudgeBadReply):
            self._failed(era)
            raise
        except JudgeRefused:
            self._answered(era)
            raise
        except BaseException:  # a cancelled probe, or a fault of ours: neither says anything about the judge
            if era == self._era and self.state is State.HALF_OPEN:
                self._become(State.OPEN)
            raise
        else:
            self._answered(era)

    def snapshot(self) -> dict[str, Any]:
        """For records. `last_failure_time` is in seconds since 1970, None before the first failure."""
        failed_at_s = self._failed_at_s
        at = None if failed_at_s is None else time.time() - (self._now() - failed_at_s)
        return {"state": self.state.value, "failure_count": self.failures, "last_failure_time": at}

    def _admit(self) -> None:
        if self.state is State.CLOSED:
            return
        left_s = self._opened_at_s + self._recovery_s - self._now()
        if self.state is State.OPEN and left_s <= 0:
            self._become(State.HALF_OPEN)
            return
        wait = "one request tries whether it is back" if self.state is State.HALF_OPEN else f"it is tried again in {left_s:.0f} s"
        raise JudgeBusy(f"circuit breaker open: the judge failed {self.failures} times in a row; {wait}; look at its log")

    def _answered(self, era: int) -> None:
        if era != self._era:
            return
        self.failures = 0
        if self.state is State.HALF_OPEN:
            self._become(State.CLOSED)

    def _failed(self, era: int) -> None:
        self._failed_at_s = self._now()
        if era != self._era:
            return
        self.failures += 1
        if self.state is State.HALF_OPEN or self.failures >= self._threshold:
            self._opened_at_s = self._now()
            self._become(State.OPEN)

    def _become(self, state: State) -> None:
        LOG.warning("circuit breaker: %s, was %s", state.value, self.state.value)
        self.state = state
        self._era += 1

"""One timing session: who runs, who is frozen, and whether the machine was quiet enough to believe the times.

Noise is read from the kernel's own books: how long the baseline's threads were ready to run and had no core. The candidate is
frozen while the baseline runs, so it cannot make that noise, and a session that was too noisy says nothing about anyone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from kernel_env.errors import MachineBusy
from kernel_env.referee.clock import Clock, TimingPlan
from kernel_env.referee.process import Endpoint
from kernel_env.referee.protocol import Frame
from kernel_env.schema import Timing

PAUSES_S = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Waits before each attempt at a quiet session."""
WAKING_S = 50e-6
"""A thread that is woken for a call waits about so long for its core on a quiet machine too."""

Ask = Callable[[Frame], Frame]


@dataclass(frozen=True)
class Side:
    """One program in the session: how to ask it, and how to stop it."""

    endpoint: Endpoint
    ask: Ask


class Session:
    """Times a candidate against the baseline, one call a message, in random order, the other side frozen."""

    def __init__(self, clock: Clock, baseline: Side, candidate: Side, inputs: Sequence[int], threads: int, seed: int) -> None:
        self._clock, self._baseline, self._candidate = clock, baseline, candidate
        self._inputs, self._threads = inputs, threads
        self._seed = seed
        self._pick = random.Random(seed)
        self._active: Side | None = None
        self._calls = 0
        self._baseline_s = 0.0

    def timing(self, plan: TimingPlan, key: tuple[str, str]) -> Timing:
        """The times, with their noise."""
        self._calls, self._baseline_s = 0, 0.0
        waited_s = self._baseline.endpoint.waited_s()
        timing = self._clock.measure(self._candidate_call, self._baseline_call, self._empty_call, plan, key, self._seed)
        waited_s = self._baseline.endpoint.waited_s() - waited_s - self._calls * self._threads * WAKING_S
        self._candidate.endpoint.thaw()
        self._active = None
        return replace(timing, noise=round(max(0.0, waited_s) / self._baseline_s, 4)) if self._baseline_s else timing

    def _candidate_call(self) -> float:
        return self._timed(self._candidate, self._baseline, self._chosen())

    def _baseline_call(self) -> float:
        self._calls += 1
        elapsed_s = self._timed(self._baseline, self._candidate, self._chosen())
        self._baseline_s += elapsed_s
        return elapsed_s

    def _empty_call(self) -> float:
        return self._timed(self._baseline, self._candidate, {"op": "noop"})

    def _chosen(self) -> Frame:
        return {"op": "call", "index": self._pick.choice(self._inputs)}

    def _timed(self, side: Side, other: Side, frame: Frame) -> float:
        if self._active is not side:
            other.endpoint.freeze()
            side.endpoint.thaw()
            self._active = side
        started = self._clock.now()
        side.ask(frame)
        return self._clock.now() - started


def quiet_timing(attempt: Callable[[], Timing], noise_limit: float) -> Timing:
    """Measure until the noise is within the limit. Raises MachineBusy, never a score, when it never is."""
    noise = []
    for pause_s in PAUSES_S:
        time.sleep(pause_s)
        timing = attempt()
        if timing.noise <= noise_limit:
            return timing
        noise.append(timing.noise)
    raise MachineBusy(
        f"too busy to take times: in {len(noise)} tries, threads waited for a core at least {min(noise):.0%} of the time; "
        "stop other work on this machine, or raise verify.noise_limit"
    )

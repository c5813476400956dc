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
WAKING_S = 150e-6
"""A thread that is woken for a call waits about so long for its core on a quiet machine too."""
SETTLE_BELOW_S = 0.1
"""Longer calls settle by themselves; an extra one would cost more than it gives."""

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
        self._last_s: dict[int, float] = {}
        self._waited_s = self._baseline_s = 0.0

    def timing(self, plan: TimingPlan, key: tuple[str, str]) -> Timing:
        """The times, with their noise."""
        self._waited_s = self._baseline_s = 0.0
        timing = self._clock.measure(self._candidate_call, self._baseline_call, self._empty_call, plan, key, self._seed)
        self._candidate.endpoint.thaw()
        self._active = None
        return replace(timing, noise=round(self._waited_s / self._baseline_s, 4)) if self._baseline_s else timing

    def _candidate_call(self) -> float:
        self._activate(self._candidate, self._baseline)
        return self._timed(self._candidate)

    def _baseline_call(self) -> float:
        self._activate(self._baseline, self._candidate)
        before_s = self._baseline.endpoint.waited_s()
        elapsed_s = self._timed(self._baseline)
        waited_s = self._baseline.endpoint.waited_s() - before_s
        self._waited_s += max(0.0, waited_s - self._threads * WAKING_S)
        self._baseline_s += elapsed_s
        return elapsed_s

    def _empty_call(self) -> float:
        self._activate(self._baseline, self._candidate)
        return self._timed(self._baseline, {"op": "noop"})

    def _activate(self, side: Side, other: Side) -> None:
        """Freeze the other side, thaw this one and, if that changes anything, let it settle: after a thaw the scheduler needs a
        call to spread the threads over the cores again (measured: half as long again, and four times the waiting)."""
        if self._active is side:
            return
        other.endpoint.freeze()
        side.endpoint.thaw()
        self._active = side
        if self._last_s.get(id(side), 0.0) < SETTLE_BELOW_S:
            self._timed(side)

    def _timed(self, side: Side, frame: Frame | None = None) -> float:
        chosen = frame or {"op": "call", "index": self._pick.choice(self._inputs)}
        started = self._clock.now()
        side.ask(chosen)
        self._last_s[id(side)] = self._clock.now() - started
        return self._last_s[id(side)]


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

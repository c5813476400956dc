"""The clock: times calls from outside of the processes that run them, or replays recorded times.

A seam with two sides. `LiveClock` measures. `RecordedClock` looks the result up (or derives it from the candidate's digest) and
reports every duration as zero, which makes whole runs byte-reproducible.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from kernel_env.errors import ConfigError
from kernel_env.schema import Stats, Timing

FLOOR_MS = 1e-3
"""No call is reported as shorter than this: the exchange around it costs more."""
_BOOTSTRAPS = 1000

Call = Callable[[], float]
"""Runs one call and returns the seconds from request to reply, seen from outside."""


@dataclass(frozen=True)
class TimingPlan:
    """How long to measure. Rounds (one baseline and one candidate call each, in random order) end at `max_rounds` or when
    `budget_s` is spent, but not before `min_rounds`."""

    max_rounds: int = 100
    min_rounds: int = 5
    warmup_rounds: int = 2
    budget_s: float = 1.0


class Clock(Protocol):
    kind: Literal["live", "recorded"]

    def now(self) -> float:
        """Seconds, monotonic."""

    def measure(self, candidate: Call, baseline: Call, empty: Call, plan: TimingPlan, key: tuple[str, str], seed: int) -> Timing:
        """Time `candidate` against `baseline`; `empty` is the same exchange without work.

        `key` is (problem digest, candidate digest).
        """


class LiveClock:
    """Measures: request to reply from outside, less the cost of an empty exchange."""

    kind: Literal["live", "recorded"] = "live"

    def now(self) -> float:
        return time.perf_counter()

    def measure(self, candidate: Call, baseline: Call, empty: Call, plan: TimingPlan, key: tuple[str, str], seed: int) -> Timing:
        order = random.Random(seed)
        for _ in range(plan.warmup_rounds):
            baseline(), candidate()
        exchange = statistics.median(empty() for _ in range(30))
        sides = ((baseline, theirs := list[float]()), (candidate, ours := list[float]()))
        started = self.now()
        for count in range(plan.max_rounds):
            if count >= plan.min_rounds and self.now() - started > plan.budget_s:
                break
            for call, times_ms in order.sample(sides, 2):
                times_ms.append(max((call() - exchange) * 1e3, FLOOR_MS))
        return timing(ours, theirs, seed)


def timing(runtime_ms: list[float], baseline_ms: list[float], seed: int) -> Timing:
    """Summary of two lists of times: ratio of medians, and its 95% interval from a bootstrap of both lists."""
    ours, theirs = np.asarray(runtime_ms), np.asarray(baseline_ms)
    rng = np.random.default_rng(seed % (1 << 63))
    ratios = _resampled_medians(theirs, rng) / _resampled_medians(ours, rng)
    speedup = float(np.median(theirs) / np.median(ours))
    low, high = (float(q) for q in np.quantile(ratios, (0.025, 0.975)))
    return Timing(stats(ours), stats(theirs), speedup, min(low, speedup), max(high, speedup))


def _resampled_medians(values: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    picks = rng.integers(0, values.size, (_BOOTSTRAPS, values.size))
    medians: npt.NDArray[np.float64] = np.median(values[picks], axis=1)
    return medians


def stats(values_ms: npt.NDArray[np.float64]) -> Stats:
    return Stats(
        median_ms=float(np.median(values_ms)),
        mean_ms=float(values_ms.mean()),
        std_ms=float(values_ms.std()),
        min_ms=float(values_ms.min()),
        max_ms=float(values_ms.max()),
        count=int(values_ms.size),
    )


class RecordedClock:
    """Replays times. Without a recording for a candidate, times derive from its digest: arbitrary, but always the same."""

    kind: Literal["live", "recorded"] = "recorded"

    def __init__(self, recorded: Mapping[str, tuple[float, float]] | None = None) -> None:
        self._recorded = dict(recorded or {})

    @classmethod
    def load(cls, path: Path) -> RecordedClock:
        """Read `{"<candidate digest>": [runtime_ms, baseline_ms]}`. Raises ConfigError."""
        try:
            rows = json.loads(path.read_text())
            recorded = {digest: (float(runtime_ms), float(baseline_ms)) for digest, (runtime_ms, baseline_ms) in rows.items()}
            if not all(0 < time_ms < math.inf for pair in recorded.values() for time_ms in pair):
                raise ValueError("times are positive and finite")
            return cls(recorded)
        except OSError as error:
            raise ConfigError(f"cannot read the recorded clock {path}: {error.strerror}; check verifier.clock_path") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path} is not a recorded clock: expected {{digest: [runtime_ms, baseline_ms]}}; check verifier.clock_path"
            ) from error

    def now(self) -> float:
        return 0.0

    def measure(self, candidate: Call, baseline: Call, empty: Call, plan: TimingPlan, key: tuple[str, str], seed: int) -> Timing:
        runtime_ms, baseline_ms = self._recorded.get(key[1]) or self._derived(key)
        return timing([runtime_ms], [baseline_ms], seed)

    def _derived(self, key: tuple[str, str]) -> tuple[float, float]:
        word = hashlib.sha256("/".join(key).encode()).digest()
        speedup = 0.5 + 2.5 * int.from_bytes(word[:4], "big") / 2**32
        return 10.0 / speedup, 10.0

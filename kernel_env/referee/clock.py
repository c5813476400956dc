"""The clock: times calls from outside of the processes that run them, or replays recorded times.

A seam with two sides. `LiveClock` measures. `RecordedClock` looks the result up (or derives it from the candidate's digest) and
reports every duration as zero, which makes whole runs byte-reproducible.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from kernel_env.errors import ConfigError
from kernel_env.schema import Stats, Timing

FLOOR_MS = 1e-3
"""No call is reported as shorter than this: the exchange around it costs more."""
_BOOTSTRAPS = 1000


@dataclass(frozen=True)
class TimingPlan:
    """How long to measure. Rounds (a block of calls of the baseline and one of the candidate, in random order) end at
    `max_rounds` or when `budget_s` is spent in calls, but not before `min_rounds`."""

    max_rounds: int = 100
    min_rounds: int = 5
    budget_s: float = 1.0


@dataclass(frozen=True)
class Round:
    """One block of either side, taken shortly after each other: milliseconds a call, each of `together` calls in one message."""

    together: int
    candidate_ms: tuple[float, ...]
    baseline_ms: tuple[float, ...]


class Clock(Protocol):
    kind: Literal["live", "recorded"]

    def now(self) -> float:
        """Seconds, monotonic."""

    def measure(self, rounds: Callable[[], Sequence[Round]], key: tuple[str, str], seed: int) -> Timing:
        """The times of a candidate against its baseline. `rounds` takes them; `key` is (problem digest, candidate digest)."""


class LiveClock:
    """Measures."""

    kind: Literal["live", "recorded"] = "live"

    def now(self) -> float:
        return time.perf_counter()

    def measure(self, rounds: Callable[[], Sequence[Round]], key: tuple[str, str], seed: int) -> Timing:
        return timing(rounds(), seed)


def timing(rounds: Sequence[Round], seed: int) -> Timing:
    """Summary of rounds: a side's time is the median over rounds of its blocks' medians, the speedup their ratio.

    Where calls were sent both singly and several at a time, the larger of a side's times counts: neither padding single calls nor
    working on several at once gains anything. The 95% interval is a bootstrap over rounds, both sides of a round together, so
    that what slows the machine for a while does not widen it.
    """
    rng = np.random.default_rng(seed % (1 << 63))
    groups = [[r for r in rounds if r.together == n] for n in sorted({r.together for r in rounds})]
    sides = [
        [np.array([np.median(r.baseline_ms) for r in g]) for g in groups],
        [np.array([np.median(r.candidate_ms) for r in g]) for g in groups],
    ]
    picks = [rng.integers(0, len(g), (_BOOTSTRAPS, len(g))) for g in groups]
    resampled = [np.max([np.median(m[p], axis=1) for m, p in zip(side, picks, strict=True)], axis=0) for side in sides]
    slowest = [int(np.argmax([np.median(m) for m in side])) for side in sides]
    baseline_ms, runtime_ms = (float(np.median(side[i])) for side, i in zip(sides, slowest, strict=True))
    low, high = (float(q) for q in np.quantile(resampled[0] / resampled[1], (0.025, 0.975)))
    speedup = baseline_ms / runtime_ms
    return Timing(
        stats([ms for r in groups[slowest[1]] for ms in r.candidate_ms], runtime_ms),
        stats([ms for r in groups[slowest[0]] for ms in r.baseline_ms], baseline_ms),
        speedup,
        min(low, speedup),
        max(high, speedup),
    )


def stats(values_ms: Sequence[float], median_ms: float) -> Stats:
    """Of single calls, around a median that was found in another way."""
    values = np.asarray(values_ms)
    return Stats(
        median_ms=median_ms,
        mean_ms=float(values.mean()),
        std_ms=float(values.std()),
        min_ms=min(float(values.min()), median_ms),
        max_ms=max(float(values.max()), median_ms),
        count=int(values.size),
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

    def measure(self, rounds: Callable[[], Sequence[Round]], key: tuple[str, str], seed: int) -> Timing:
        runtime_ms, baseline_ms = self._recorded.get(key[1]) or self._derived(key)
        return timing([Round(1, (runtime_ms,), (baseline_ms,))], seed)

    def _derived(self, key: tuple[str, str]) -> tuple[float, float]:
        word = hashlib.sha256("/".join(key).encode()).digest()
        speedup = 0.5 + 2.5 * int.from_bytes(word[:4], "big") / 2**32
        return 10.0 / speedup, 10.0

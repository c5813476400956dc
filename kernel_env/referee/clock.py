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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from kernel_env.errors import ConfigError
from kernel_env.schema import Stats, Timing

FLOOR_MS = 1e-3
"""No call is reported as shorter than this: the exchange around it costs more."""
CACHE_BYTES_S = 768e9
"""What a core can write into its first cache in a second: 128 bytes a cycle at 6 GHz, which is more than any has."""
SHORT_MS = 0.05
"""Of shorter calls, what a single one costs beside a hot loop is part of its time: work on several at once could not be told."""
SHORT_WIDER, SINGLY_WIDER = 2, 3
"""Half a microsecond is a tenth of a very short call, and is dear to tell. Where such calls count as they are when sent singly,
most of what is told is the cost of waking up, which is the same for both."""
LAYOUT, LAYOUT_OF_SHORT = 0.01, 0.02
"""Two processes that run one program differ by about so much (one standard deviation): their memory lies elsewhere. No number of
rounds of one session tells by how much, so each interval is widened by it. Half a microsecond is much of a short call."""
SINGLE = 0.06
"""Single calls of two such processes differ by so much more (their caches are cold in other ways): what they show against calls
that were sent together counts beyond that."""
MOST_COLD = 0.5
"""The share of a candidate's single call that cold caches and sleeping threads are believed to cost."""
_BOOTSTRAPS = 1000
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class TimingPlan:
    """How long to measure. Rounds (a block of calls of the baseline and one of the candidate, in random order) end when there are
    `rounds`, or when `budget_s` is spent in calls, but not before `min_rounds`. While the interval's half-width is above
    `precision` then (a share of the speedup; `SHORT_WIDER` times that for calls below `SHORT_MS`, and so much more for each
    doubling beyond 2), they go on, up to `extended` times both."""

    rounds: int = 100
    min_rounds: int = 5
    budget_s: float = 1.0
    extended: float = 1.0
    precision: float = 0.03
    noise_limit: float = math.inf
    """Times with more noise will not be used."""


def precise(rounds: Sequence[Round], precision: float) -> bool:
    """Whether their interval is as narrow as wanted: a share of the speedup, `SHORT_WIDER` times that for very short calls. Nobody
    has to know whether something is 9.8 or 10 times as fast."""
    found, wider = _told(rounds, 0)
    doublings = max(0.0, abs(math.log2(found.speedup)) - 1)
    return half_width(found) <= precision * wider * (1 + doublings)


def half_width(timing: Timing) -> float:
    """Of the interval, as a share of the speedup."""
    return (timing.speedup_high - timing.speedup_low) / 2 / timing.speedup


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


class _Group:
    """Rounds with the same number of calls in a message."""

    def __init__(self, rounds: Sequence[Round], picks: npt.NDArray[np.int64]) -> None:
        self.rounds, self._picks = rounds, picks
        self.candidate = np.array([np.median(r.candidate_ms) for r in rounds])
        self.baseline = np.array([np.median(r.baseline_ms) for r in rounds])

    def less(self, excess_ms: float) -> None:
        """Take so much off every call of either side; off the candidate's no more than `MOST_COLD` of it, or where the baseline's
        excess is large nothing would be left to be smaller than."""
        self.candidate = np.maximum(self.candidate - np.minimum(excess_ms, MOST_COLD * self.candidate), FLOOR_MS)
        self.baseline = np.maximum(self.baseline - excess_ms, FLOOR_MS)

    @property
    def speedup(self) -> float:
        """The median over rounds of the sides' ratio. What slows both sides of a round cancels, round by round."""
        return float(np.median(self.baseline / self.candidate))

    @property
    def resampled(self) -> npt.NDArray[np.float64]:
        """Logarithms of what it could have been."""
        resampled: npt.NDArray[np.float64] = np.median(np.log(self.baseline / self.candidate)[self._picks], axis=1)
        return resampled

    def timing(self) -> Timing:
        speedup = self.speedup
        low, high = (float(q) for q in np.quantile(self.resampled, (0.025, 0.975)))
        short = np.median(self.baseline) < SHORT_MS
        layout = _NORMAL_95 * (LAYOUT_OF_SHORT if short else LAYOUT)
        return Timing(
            stats([ms for r in self.rounds for ms in r.candidate_ms], float(np.median(self.candidate))),
            stats([ms for r in self.rounds for ms in r.baseline_ms], float(np.median(self.baseline))),
            speedup,
            speedup * math.exp(-math.hypot(min(low - math.log(speedup), 0.0), layout)),
            speedup * math.exp(math.hypot(max(high - math.log(speedup), 0.0), layout)),
        )


def timing(rounds: Sequence[Round], seed: int) -> Timing:
    """Summary of rounds. The speedup is the median of the rounds' ratios; its 95% interval a bootstrap over rounds, widened by
    `LAYOUT`.

    Where calls were sent both singly and several at a time, those sent together tell what a call costs in a hot loop; but where
    single calls show a speedup that is smaller beyond noise, theirs counts: working on several calls at once gains nothing. A
    single call costs more, for its caches are cold; so much as that is for the baseline is taken off both sides' single calls.
    """
    return _told(rounds, seed)[0]


def by_ratio_ms(rounds: Sequence[Round]) -> float:
    """How long a call of the candidate takes by the speedup of these rounds. Its own median may be far from that, where it is now
    fast and now slow."""
    group = _Group(rounds, np.empty((0, 0), np.int64))
    return float(np.median(group.baseline)) / group.speedup


def _told(rounds: Sequence[Round], seed: int) -> tuple[Timing, int]:
    """And how many times as wide as usual its interval may be."""
    rng = np.random.default_rng(seed % (1 << 63))
    groups = []
    for together in sorted({r.together for r in rounds}):
        mine = [r for r in rounds if r.together == together]
        groups.append(_Group(mine, rng.integers(0, len(mine), (_BOOTSTRAPS, len(mine)))))
    single, main = groups[0], groups[-1]
    usual = SHORT_WIDER if np.median(main.baseline) < SHORT_MS else 1
    if single is main or len(single.rounds) < 2:  # one round has no interval
        return main.timing(), usual
    short = np.median(main.candidate) < SHORT_MS
    if not short:
        single.less(max(0.0, float(np.median(single.baseline) - np.median(main.baseline))))
    # against what is reported, not what that might be: a program that is fast in a few more than half of the rounds makes it any
    smaller = np.quantile(single.resampled, 0.975) < math.log(main.speedup) - SINGLE
    return (single.timing(), SINGLY_WIDER if short else usual) if smaller else (main.timing(), usual)


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


def least_ms(output_bytes: int, cores: int) -> float:
    """No call is faster than writing its output into the nearest cache of so many cores."""
    return output_bytes / (CACHE_BYTES_S * cores) * 1e3


def slowed(baseline_ms: Sequence[float], alone_ms: Sequence[float]) -> float:
    """By which share the baseline was slower beside a candidate than afterwards, alone: 1 where that is within its ups and downs.

    Both are medians of blocks. A candidate is frozen while the baseline runs, so there should be nothing to find. With fewer than
    five the fastest of them says nothing.
    """
    if len(baseline_ms) < 5:
        return 1.0
    alone, fastest = float(np.median(alone_ms)), float(np.quantile(baseline_ms, 0.05))
    return float(np.median(baseline_ms)) / alone if alone < fastest * (1 - _NORMAL_95 * LAYOUT) else 1.0


def against_alone(timing: Timing, slower: float) -> Timing:
    """The same candidate against a baseline that is faster by this factor."""
    base = timing.baseline
    faster = Stats(
        base.median_ms / slower, base.mean_ms / slower, base.std_ms / slower, base.min_ms / slower, base.max_ms / slower, base.count
    )
    low, high = timing.speedup_low / slower, timing.speedup_high / slower
    kind = f"{timing.baseline_kind}, alone"
    return replace(timing, baseline=faster, speedup=timing.speedup / slower, speedup_low=low, speedup_high=high, baseline_kind=kind)


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

"""What the scores of judges and other sources look like: how they spread, how they go with what was measured, what they cost.

results = [system.reward(...) for ...]
spreads = distribution(scores_of(results, measured=[turn.reward.measured for ...]))
print(table(spreads))
Path("rewards.svg").write_text(picture(spreads))  # of rewards.picture
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kernel_env.errors import ConfigError
from rewards.judge.metrics import quantile

BINS = 10
"""Of equal width, from 0 to 1."""
_BAR = 40
_LATENCIES = {"median": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class Score:
    """One score, and what goes with it."""

    source: str
    """`judge`, `rule_fallback`, ..."""
    score: float
    measured: float | None = None
    """The measured reward of the same kernel, where it is known."""
    cached: bool = False
    latency_ms: float | None = None


@dataclass(frozen=True)
class Spread:
    """The scores of one source."""

    counts: tuple[int, ...]
    """In each bin; a score of 1 is in the last."""
    mean: float
    std: float
    pairs: tuple[tuple[float, float], ...]
    """Score and measured reward, of the kernels that have both."""
    correlation: float | None
    """Pearson's, of `pairs`; None where either never varies."""
    cache_hits: int
    latency_ms: Mapping[str, float | None]
    """Quantiles over scores that did not come from a cache; None where no time is known."""

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def correlation_text(self) -> str:
        return "unknown" if self.correlation is None else f"{self.correlation:+.3f} (n = {len(self.pairs)})"

    @property
    def cache_text(self) -> str:
        return f"{self.cache_hits} of {self.count} ({self.cache_hits / self.count:.1%})"

    @property
    def latency_text(self) -> str:
        return ", ".join(f"{name} {ms:.1f} ms" for name, ms in self.latency_ms.items() if ms is not None) or "unknown"


def distribution(scores: Sequence[Score]) -> dict[str, Spread]:
    """By source, in alphabetical order."""
    return {name: _spread([one for one in scores if one.source == name]) for name in sorted({one.source for one in scores})}


def scores_of(results: Sequence[Mapping[str, Any]], measured: Sequence[float | None] | None = None) -> list[Score]:
    """Of what `JudgeRewardSystem.reward` returned; `measured` has the measured reward of each. Raises ConfigError."""
    if measured is not None and len(measured) != len(results):
        raise ConfigError(f"{len(results)} results and {len(measured)} measured rewards: give one, or None, for each")
    rewards = measured if measured is not None else [None] * len(results)
    return [
        Score(result["source"], result["score"], reward, result["cached"], result["latency_ms"])
        for result, reward in zip(results, rewards, strict=True)
    ]


def table(spreads: Mapping[str, Spread]) -> str:
    """For a terminal, in plain text."""
    lines = []
    for source, spread in spreads.items():
        lines.append(f"{source}: {spread.count} scores, mean {spread.mean:.3f}, standard deviation {spread.std:.3f}")
        most = max(spread.counts)
        for n, count in enumerate(spread.counts):
            bar = "#" * math.ceil(_BAR * count / most)
            lines.append(f"  {n / BINS:.1f} to {(n + 1) / BINS:.1f} {count:>7} {bar}".rstrip())
        lines.append(f"  correlation with what was measured: {spread.correlation_text}")
        lines.append(f"  from the cache: {spread.cache_text}")
        lines.append(f"  latency: {spread.latency_text}")
    return "\n".join(lines)


def _spread(scores: Sequence[Score]) -> Spread:
    counts = [0] * BINS
    for one in scores:
        counts[min(int(one.score * BINS), BINS - 1)] += 1
    values = [one.score for one in scores]
    pairs = tuple((one.score, one.measured) for one in scores if one.measured is not None)
    latencies_ms = sorted(one.latency_ms for one in scores if one.latency_ms is not None and not one.cached)
    return Spread(
        counts=tuple(counts),
        mean=statistics.fmean(values),
        std=statistics.pstdev(values),
        pairs=pairs,
        correlation=_correlation(pairs),
        cache_hits=sum(one.cached for one in scores),
        latency_ms={name: quantile(latencies_ms, share) for name, share in _LATENCIES.items()},
    )


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    scores, rewards = [score for score, _ in pairs], [reward for _, reward in pairs]
    if len(set(scores)) < 2 or len(set(rewards)) < 2:
        return None
    return statistics.correlation(scores, rewards)

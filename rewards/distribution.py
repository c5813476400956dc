"""What a judge's rewards look like: how they spread, how they go with what was measured, and what they cost.

results = [system.reward(...) for ...]
found = distribution(results, measured=[turn.reward.value for ...])
print(found.table())
found.plot("rewards.png")
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
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
class Spread:
    """Scores of one source."""

    counts: tuple[int, ...]
    """In each bin; a score of 1 is in the last."""
    mean: float
    std: float

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True)
class Distribution:
    spreads: Mapping[str, Spread]
    """By source: `judge`, `rule_fallback`."""
    correlation: float | None
    """Pearson's, of the judge's scores with the measured rewards; None where either never varies."""
    cache_hit_rate: float
    latency_ms: Mapping[str, float | None]
    """Quantiles over scores that did not come from the cache; None where all did."""

    def table(self) -> str:
        """For a terminal, in plain text."""
        lines = []
        for source, spread in self.spreads.items():
            lines.append(f"{source}: {spread.count} scores, mean {spread.mean:.3f}, standard deviation {spread.std:.3f}")
            most = max(spread.counts)
            for n, count in enumerate(spread.counts):
                bar = "#" * math.ceil(_BAR * count / most)
                lines.append(f"  {n / BINS:.1f} to {(n + 1) / BINS:.1f} {count:>7} {bar}".rstrip())
        correlation = "unknown" if self.correlation is None else f"{self.correlation:+.3f}"
        latency = ", ".join(f"{name} {'unknown' if ms is None else f'{ms:.1f} ms'}" for name, ms in self.latency_ms.items())
        lines += [
            f"correlation of judge and measured: {correlation}",
            f"cache hits: {self.cache_hit_rate:.1%}",
            f"latency: {latency}",
        ]
        return "\n".join(lines)

    def plot(self, path: str) -> None:
        """Histograms as a picture, in the format that the name ends with. Raises ConfigError without matplotlib."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ConfigError("a plot needs matplotlib: install it, or use the table") from None
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        edges = [n / BINS for n in range(BINS)]
        for source, spread in self.spreads.items():
            axes.bar(edges, spread.counts, width=1 / BINS, align="edge", alpha=0.6, label=f"{source} ({spread.count})")
        axes.set(xlabel="score", ylabel="completions", xlim=(0, 1))
        axes.legend()
        figure.savefig(path)


def distribution(results: Sequence[Mapping[str, Any]], measured: Sequence[float | None] | None = None) -> Distribution:
    """Of what `JudgeRewardSystem.reward` returned; `measured` has the measured reward of each. Raises ConfigError."""
    if not results or (measured is not None and len(measured) != len(results)):
        raise ConfigError("a distribution needs results, and a measured reward (or None) for each of them")
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for result in results:
        scores[result["source"]].append(result["score"])
    pairs = [
        (result["score"], reward)
        for result, reward in zip(results, measured or (), strict=False)
        if result["source"] == "judge" and reward is not None
    ]
    latencies_ms = sorted(result["latency_ms"] for result in results if not result["cached"])
    return Distribution(
        {source: _spread(found) for source, found in sorted(scores.items())},
        _correlation(pairs),
        sum(bool(result["cached"]) for result in results) / len(results),
        {name: quantile(latencies_ms, share) for name, share in _LATENCIES.items()},
    )


def _spread(scores: Sequence[float]) -> Spread:
    counts = [0] * BINS
    for score in scores:
        counts[min(int(score * BINS), BINS - 1)] += 1
    return Spread(tuple(counts), statistics.fmean(scores), statistics.pstdev(scores))


def _correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    scores, rewards = [score for score, _ in pairs], [reward for _, reward in pairs]
    if len(set(scores)) < 2 or len(set(rewards)) < 2:
        return None
    return statistics.correlation(scores, rewards)

"""Counts of an evaluation server, as JSON and in Prometheus's text format."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass

from kernel_env.exposition import family, quantile
from kernel_env.remote.wire import Failure, Health
from kernel_env.schema import Status, Verdict

KEPT = 2_000
"""Latencies that quantiles are of."""
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class Metrics:
    accepted: int
    """Jobs since the start."""
    verdicts: dict[str, int]
    """By status."""
    failures: dict[str, int]
    """Jobs and requests without a verdict, by kind."""
    cancelled: int
    unfinished: int
    kept: int
    """Jobs that are known, finished or not."""
    latency_s: dict[str, float | None]
    """From submission to verdict, of the last ones."""
    uptime_s: float


class Counters:
    """Written by one event loop."""

    def __init__(self) -> None:
        self.accepted = self.cancelled = 0
        self._verdicts: Counter[Status] = Counter()
        self._failures: Counter[str] = Counter()
        self._latencies_s: deque[float] = deque(maxlen=KEPT)
        self._latency_sum_s = 0.0
        self._started_s = time.monotonic()

    def ended(self, outcome: Verdict | Failure | None, latency_s: float) -> None:
        """None: it was cancelled."""
        if outcome is None:
            self.cancelled += 1
        elif isinstance(outcome, Failure):
            self.failed(outcome.kind)
        else:
            self._verdicts[outcome.status] += 1
            self._latencies_s.append(latency_s)
            self._latency_sum_s += latency_s

    def failed(self, kind: str) -> None:
        self._failures[kind] += 1

    def snapshot(self, health: Health, kept: int) -> Metrics:
        return Metrics(
            accepted=self.accepted,
            verdicts={status.value: self._verdicts[status] for status in Status},
            failures=dict(self._failures),
            cancelled=self.cancelled,
            unfinished=health.unfinished,
            kept=kept,
            latency_s={name: quantile(self._latencies_s, share) for name, share in _QUANTILES.items()},
            uptime_s=time.monotonic() - self._started_s,
        )

    def prometheus(self, health: Health, kept: int) -> str:
        now, load = self.snapshot(health, kept), health.load
        quantiles = {f'{{quantile="{share}"}}': now.latency_s[name] for name, share in _QUANTILES.items()}
        latency = {name: value for name, value in quantiles.items() if value is not None}
        places = {
            "building": load.building,
            "to_build": load.to_build,
            "measuring": load.slots_taken,
            "to_measure": load.to_measure,
        }
        lines = [
            *_family("accepted_total", "counter", "Jobs taken.", {"": now.accepted}),
            *_family("verdicts_total", "counter", "Verdicts, by status.", _labelled("status", now.verdicts)),
            *_family("failures_total", "counter", "Jobs and requests without one, by kind.", _labelled("kind", now.failures)),
            *_family("cancelled_total", "counter", "Jobs that were given up.", {"": now.cancelled}),
            *_family("unfinished", "gauge", "Jobs that run or wait.", {"": now.unfinished}),
            *_family("kept", "gauge", "Jobs that are known, finished or not.", {"": now.kept}),
            *_family("candidates", "gauge", "Where candidates are.", _labelled("stage", places)),
            *_family("slots", "gauge", "Verifications at a time.", {"": health.slots}),
            *_family("uptime_seconds", "gauge", "Since the server's start.", {"": now.uptime_s}),
            *_family(
                "latency_seconds", "summary", "From submission to verdict.",
                {**latency, "_sum": self._latency_sum_s, "_count": sum(now.verdicts.values())},
            ),
        ]  # fmt: skip
        return "\n".join(lines) + "\n"


def _labelled(label: str, values: dict[str, int]) -> dict[str, float]:
    return {f'{{{label}="{name}"}}': value for name, value in values.items()}


def _family(name: str, kind: str, text: str, values: dict[str, float]) -> list[str]:
    return family(f"kernel_env_{name}", kind, text, values)

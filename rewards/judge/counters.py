"""Counts of a judge server, as JSON and in Prometheus's text format."""

from __future__ import annotations

import time
from collections import Counter, deque

from kernel_env.exposition import family, quantile
from rewards.judge.models import JudgeFailure, Outcome
from rewards.judge.wire import FailureKind, LatencyQuantiles, MetricsResponse

_KEPT = 2_000
"""Latencies that quantiles are of."""
_QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))


class Counters:
    """Written by one event loop."""

    def __init__(self) -> None:
        self.queue_size = 0
        self.in_flight = 0
        self._requests = 0
        self._scored = 0
        self._batches = 0
        self._batched = 0
        self._failures: Counter[FailureKind] = Counter()
        self._latencies_s: deque[float] = deque(maxlen=_KEPT)
        self._latency_sum_s = 0.0
        self._started_s = time.monotonic()

    def taken(self, requests: int) -> None:
        self._requests += requests

    def batch(self, size: int) -> None:
        """A batch went to the judge."""
        self._batches += 1
        self._batched += size if size > 1 else 0
        self.in_flight += size

    def answered(self, outcome: Outcome, latency_s: float) -> None:
        if isinstance(outcome, JudgeFailure):
            self.failed(outcome.kind)
            return
        self._scored += 1
        self._latencies_s.append(latency_s)
        self._latency_sum_s += latency_s

    def failed(self, kind: FailureKind) -> None:
        self._failures[kind] += 1

    def snapshot(self) -> MetricsResponse:
        return MetricsResponse(
            requests=self._requests,
            scored=self._scored,
            failures={kind.value: self._failures[kind] for kind in FailureKind},
            batches=self._batches,
            batched=self._batched,
            current_queue_size=self.queue_size,
            in_flight=self.in_flight,
            latency_s=LatencyQuantiles(**{name: self._quantile(q) for name, q in _QUANTILES}),
            uptime_s=time.monotonic() - self._started_s,
        )

    def prometheus(self) -> str:
        """The same, in the text exposition format 0.0.4."""
        now = self.snapshot()
        lines = [
            *_family("requests_total", "counter", "Requests taken into the queue.", {"": now.requests}),
            *_family("scored_total", "counter", "Requests that got a score.", {"": now.scored}),
            *_family(
                "failures_total",
                "counter",
                "Requests without a score, by reason.",
                {f'{{kind="{kind}"}}': count for kind, count in now.failures.items()},
            ),
            *_family("batches_total", "counter", "Batches given to the judge.", {"": now.batches}),
            *_family("batched_total", "counter", "Requests that shared a batch.", {"": now.batched}),
            *_family("queue_size", "gauge", "Requests that wait.", {"": now.current_queue_size}),
            *_family("in_flight", "gauge", "Requests that the judge is working on.", {"": now.in_flight}),
            *_family("uptime_seconds", "gauge", "Since the server's start.", {"": now.uptime_s}),
            *_family("latency_seconds", "summary", "From arrival to score.", self._summary()),
        ]
        return "\n".join(lines) + "\n"

    def _summary(self) -> dict[str, float]:
        quantiles = {f'{{quantile="{q}"}}': value for _, q in _QUANTILES if (value := self._quantile(q)) is not None}
        return {**quantiles, "_sum": self._latency_sum_s, "_count": self._scored}

    def _quantile(self, q: float) -> float | None:
        return quantile(self._latencies_s, q)


def _family(name: str, kind: str, text: str, values: dict[str, float]) -> list[str]:
    return family(f"judge_{name}", kind, text, values)

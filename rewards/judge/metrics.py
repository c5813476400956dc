"""What became of the requests to a judge: counts since the start, and how long the last ones took."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from kernel_env.errors import JudgeError

KEPT = 1000
"""Latencies that quantiles are taken over, the last ones."""


def quantile(values: Sequence[float], share: float) -> float | None:
    """The smallest of sorted values that so many are not above; None of none."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else None


class JudgeMetrics:
    """Any thread may count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._latencies_ms: deque[float] = deque(maxlen=KEPT)

    def sent(self, together: int) -> None:
        """So many requests left in one batch."""
        with self._lock:
            self._counts["sent"] += together
            self._counts["batched"] += together if together > 1 else 0

    def cached(self) -> None:
        with self._lock:
            self._counts["cached"] += 1

    def judged(self, latency_ms: float) -> None:
        with self._lock:
            self._counts["judged"] += 1
            self._latencies_ms.append(latency_ms)

    def failed(self, error: JudgeError) -> None:
        """The judge gave no score, for this reason."""
        with self._lock:
            self._errors[error.kind] += 1

    def fell_back(self) -> None:
        """Rules scored in its stead."""
        with self._lock:
            self._counts["fallbacks"] += 1

    def snapshot(self) -> dict[str, Any]:
        """`requests` ended with a score of the judge's, from the cache or fresh, or with one of the `errors`."""
        with self._lock:
            counts, errors, latencies_ms = Counter(self._counts), dict(self._errors), sorted(self._latencies_ms)
        failed = sum(errors.values())
        requests = counts["cached"] + counts["judged"] + failed
        return {
            "requests": requests,
            "judged": counts["judged"],
            "cache_hits": counts["cached"],
            "cache_hit_rate": _share(counts["cached"], requests),
            "batched_share": _share(counts["batched"], counts["sent"]),
            "fallbacks": counts["fallbacks"],
            "errors": errors,
            "error_rate": _share(failed, requests),
            "latency_ms": {f"p{round(share * 100)}": quantile(latencies_ms, share) for share in (0.5, 0.9, 0.99)},
        }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0

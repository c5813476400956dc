"""Metrics of our servers, in Prometheus's text format 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PROMETHEUS = "text/plain; version=0.0.4"


def family(name: str, kind: str, text: str, values: Mapping[str, float]) -> list[str]:
    """One metric in Prometheus's text format 0.0.4. `values` has samples by what follows the name: `""`, `{kind="a"}`, `_sum`."""
    samples = [
        f"{name}{suffix} {value:g}" if isinstance(value, float) else f"{name}{suffix} {value}" for suffix, value in values.items()
    ]
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *samples]


def quantile(values: Iterable[float], share: float) -> float | None:
    """The smallest value that so many are not above; None of none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None

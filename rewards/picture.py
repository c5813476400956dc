"""A distribution of scores as a picture: an SVG that needs nothing else, one row a source.

On the left a histogram of its scores, on the right each score against what was measured of the same kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.sax.saxutils import escape

from rewards.distribution import BINS, Spread

_WIDTH, _ROW, _PLOT_WIDTH, _PLOT_HEIGHT = 780, 250, 320, 130
_LEFT, _RIGHT, _TOP = 56, 436, 56
"""Of the two plots of a row."""
_COLOURS = ("#3a6ea5", "#c8782a", "#4b8f5c", "#8a5a9e")
_GAP = 2


def picture(spreads: Mapping[str, Spread]) -> str:
    """The same spreads give the same text."""
    height = _ROW * len(spreads)
    size = f'width="{_WIDTH}" height="{height}"'
    rows = (
        f'<g transform="translate(0 {n * _ROW})">{"".join(_row(name, spread, _COLOURS[n % len(_COLOURS)]))}</g>\n'
        for n, (name, spread) in enumerate(spreads.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" {size} '
        f'font-family="system-ui, sans-serif" fill="#333">\n<rect {size} fill="#fff"/>\n{"".join(rows)}</svg>\n'
    )


def _row(name: str, spread: Spread, colour: str) -> Iterator[str]:
    yield _text(_LEFT, 22, f"{name} (n = {spread.count})", weight="bold", size=14)
    yield _text(_LEFT, 42, f"mean {spread.mean:.3f}, standard deviation {spread.std:.3f}")
    yield _text(_RIGHT, 42, f"correlation with what was measured: {spread.correlation_text}")
    yield from _axes(_LEFT, "score", str(max(spread.counts)), "0")
    yield from _bars(spread, colour)
    rewards = [reward for _, reward in spread.pairs] or [0.0, 1.0]
    low, high = min(0.0, *rewards), max(1.0, *rewards)
    yield from _axes(_RIGHT, "score; upwards the measured reward", f"{high:.2g}", f"{low:.2g}")
    yield from _points(spread, low, high, colour)
    yield _text(_LEFT, _ROW - 10, f"from the cache: {spread.cache_text};  latency of the others: {spread.latency_text}")


def _bars(spread: Spread, colour: str) -> Iterator[str]:
    width, most = _PLOT_WIDTH / BINS, max(spread.counts)
    for n, count in enumerate(spread.counts):
        tall = _PLOT_HEIGHT * count / most
        if count:
            yield (
                f'<rect x="{_LEFT + n * width + _GAP / 2:.1f}" y="{_TOP + _PLOT_HEIGHT - tall:.1f}" width="{width - _GAP:.1f}" '
                f'height="{tall:.1f}" fill="{colour}"><title>{n / BINS:.1f} to {(n + 1) / BINS:.1f}: {count}</title></rect>'
            )


def _points(spread: Spread, low: float, high: float, colour: str) -> Iterator[str]:
    for score, reward in spread.pairs:
        y = _TOP + _PLOT_HEIGHT * (1 - (reward - low) / (high - low))
        yield f'<circle cx="{_RIGHT + _PLOT_WIDTH * score:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}" fill-opacity="0.45"/>'


def _axes(x: int, label: str, top: str, bottom: str) -> Iterator[str]:
    floor = _TOP + _PLOT_HEIGHT
    yield f'<path d="M{x} {_TOP}V{floor}H{x + _PLOT_WIDTH}" fill="none" stroke="#999"/>'
    yield _text(x - 6, _TOP + 9, top, anchor="end")
    yield _text(x - 6, floor, bottom, anchor="end")
    for share in (0.0, 0.5, 1.0):
        yield _text(x + int(share * _PLOT_WIDTH), floor + 16, f"{share:g}", anchor="middle")
    yield _text(x + _PLOT_WIDTH // 2, floor + 32, label, anchor="middle")


def _text(x: int, y: int, text: str, *, anchor: str = "start", weight: str = "normal", size: int = 12) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}">{escape(text)}</text>'

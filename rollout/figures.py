"""The figures of a report: SVG for charts, an HTML table for the flow of statuses. No script, and the same bytes each time.

Colours and sizes of letters are classes of the page's style. Every number is one of `rollout.metrics`, and every figure says what
it is over.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kernel_env.schema import Episode, Status
from rollout.markdown import number, share
from rollout.metrics import (
    THRESHOLDS,
    AtTurn,
    ByTurn,
    Estimate,
    Groups,
    Metrics,
    at_turn,
    best_speedup,
    completed,
    flow,
    is_fast,
    longest,
    pass_at,
)

WIDTH, HEIGHT = 420, 240
"""Of a chart, in its own units: about as wide as a phone, so that letters are legible there."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 10, 40
_CURVE = sorted({*THRESHOLDS, *(quarter / 4 for quarter in range(13))})
"""Where the curve of fast_p is drawn, as far as 3."""
_HALVES = range(-6, 9)
"""Bars of the distribution: half powers of two, from 1/8 to 16. What is beyond is in the last."""
_STYLE = (
    "svg{font:12px system-ui,sans-serif;fill:#333}.end{text-anchor:end}.middle{text-anchor:middle}.grid{stroke:#ddd}"
    ".line{fill:none;stroke-width:2}.first{stroke:#2a6fb0}"
    "@media(prefers-color-scheme:dark){svg{fill:#ccc}.grid{stroke:#444}.first{stroke:#6cb0f0}}"
)


@dataclass(frozen=True)
class Axes:
    """Maps numbers to places. Both ranges have an extent."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)

    def line(self, points: Iterable[tuple[float, float]], kind: str) -> str:
        return f'<polyline class="line {kind}" points="{self.path(points)}"/>'

    def band(self, estimates: Sequence[tuple[float, Estimate]]) -> str:
        """Between the ends of the intervals. Without one it is as thin as the line; without a bound it ends with the chart."""
        known = [(x, e, e.value) for x, e in estimates if e.value is not None]
        below = [(x, value if e.low is None else e.low) for x, e, value in known]
        above = [(x, value if e.low is None else self.y_range[1] if e.high is None else e.high) for x, e, value in reversed(known)]
        return f'<polygon class="band" points="{self.path([*below, *above])}"/>'

    def dot(self, x: float, y: float, kind: str, told: str) -> str:
        place = f'cx="{self.x(x):.1f}" cy="{self.y(y):.1f}"'
        return f'<circle class="dot {kind}" {place} r="4"><title>{html.escape(told)}</title></circle>'

    def frame(self, x_ticks: Iterable[tuple[float, str]], y_ticks: Iterable[tuple[float, str]], x_label: str) -> Iterator[str]:
        bottom = HEIGHT - _BOTTOM
        for value, text in y_ticks:
            y = self.y(value)
            yield f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{text}</text>'
        for value, text in x_ticks:
            yield f'<text class="middle" x="{self.x(value):.1f}" y="{bottom + 16}">{text}</text>'
        yield f'<text class="middle" x="{(_LEFT + WIDTH - _RIGHT) / 2:.1f}" y="{HEIGHT - 6}">{html.escape(x_label)}</text>'


def figures(groups: Groups, episodes: Sequence[Episode], metrics: Metrics | None) -> Iterator[str]:
    """Those that there can be: without metrics none that has an interval."""
    turns = longest(episodes)
    if metrics is not None and metrics.problems:
        yield fast_p_curve(groups, metrics)
    if metrics is not None and turns:
        yield rewards_by_turn(metrics.by_turn, [at_turn(episodes, turn) for turn in range(1, turns + 1)], metrics.samples)
        yield speedups(groups, metrics)
    if turns > 1:
        yield flows([flow(episodes, turn) for turn in range(1, turns)])


def fast_p_curve(groups: Groups, metrics: Metrics) -> str:
    axes = Axes((0, _CURVE[-1]), (0, 1))
    asked = [(p, pass_at(groups, 1, is_fast(p))) for p in _CURVE]
    scored = completed(groups)
    among = [(p, value) for p in _CURVE if (value := pass_at(scored, 1, is_fast(p)).value) is not None]
    known = [(f.p, f.asked, f.asked.value) for f in metrics.fast_p if f.asked.value is not None]
    parts = [
        *axes.frame([(p, f"{p:g}") for p in (0, 0.5, 1, 1.5, 2, 2.5, 3)], [(y / 4, f"{y * 25}%") for y in range(5)], "p"),
        axes.band(asked),
        axes.line(among, "second"),
        axes.line([(p, e.value) for p, e in asked if e.value is not None], "first"),
        *(axes.dot(p, value, "first", f"fast_{p:g}: {share(estimate)}") for p, estimate, value in known),
    ]
    said = ", ".join(f"fast_{f.p:g} {share(f.asked)}" for f in metrics.fast_p)
    of = metrics.fast_p[0].completed.of
    note = (
        f'<i class="first"></i> of all {metrics.problems} problems asked for, with the 95% interval over problems; '
        f'<i class="second"></i> of the {of} with a completed sample.'
    )
    return _figure(
        "fast_p", "Share of a problem's samples with a correct kernel more than p times as fast.", note, _svg(parts, said)
    )


def rewards_by_turn(best: Sequence[ByTurn], each: Sequence[AtTurn], samples: int) -> str:
    ends = [end for b in best for end in (b.reward.value, b.reward.low, b.reward.high) if end is not None]
    means = [(a.turn, a.reward) for a in each if a.reward is not None]
    ticks = _ticks(min([0.0, *ends, *(mean for _, mean in means)]), max([0.0, *ends, *(mean for _, mean in means)]))
    axes = Axes((0.5, len(best) + 0.5), (ticks[0], ticks[-1]))
    known = [(b, b.reward.value) for b in best if b.reward.value is not None]
    told = [f"best by turn {b.turn}: {number(b.reward)}, {b.reward.of} of {samples} samples scored" for b, _ in known]
    seen = {
        a.turn: f"turn {a.turn}: {a.reward:.3f}, {a.scored} scored, {a.unscored} unscored" for a in each if a.reward is not None
    }
    parts = [
        *axes.frame(_thinned([(b.turn, str(b.turn)) for b in best]), [(tick, f"{tick:g}") for tick in ticks], "turn"),
        axes.band([(b.turn, b.reward) for b in best]),
        axes.line(means, "second"),
        axes.line([(b.turn, value) for b, value in known], "first"),
        *(axes.dot(turn, mean, "second", seen[turn]) for turn, mean in means),
        *(axes.dot(b.turn, value, "first", text) for (b, value), text in zip(known, told, strict=True)),
    ]
    note = (
        f'<i class="first"></i> best so far of the {best[-1].reward.of} of {samples} samples with a scored turn; '
        '<i class="second"></i> that turn alone, over those that came to it and were scored.'
    )
    return _figure("Reward by turn", "A solved sample has no later turns.", note, _svg(parts, "; ".join([*told, *seen.values()])))


def speedups(groups: Groups, metrics: Metrics) -> str:
    found = [speedup for group in groups.values() for e in group if (speedup := best_speedup(e)) is not None]
    bars = Counter(min(max(math.floor(2 * math.log2(speedup)), _HALVES[0]), _HALVES[-1]) for speedup in found)
    ticks = _ticks(0, max(bars.values(), default=1), finest=1)
    axes = Axes((_HALVES[0], _HALVES[-1] + 1), (0, ticks[-1]))
    labels = [(half, f"{2 ** (half / 2):g}x") for half in range(-6, 10, 2)]
    parts = [*axes.frame(labels, [(tick, f"{tick:g}") for tick in ticks], "speedup over the baseline")]
    told = []
    for half in _HALVES:
        low, high = ("0" if half == _HALVES[0] else f"{2 ** (half / 2):.2f}"), 2 ** ((half + 1) / 2)
        told.append(f"{low} to {high:.2f}x: {bars[half]}" if half < _HALVES[-1] else f"{low}x and more: {bars[half]}")
        left, right, top = axes.x(half) + 1, axes.x(half + 1) - 1, axes.y(bars[half])
        size = f'x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{axes.y(0) - top:.1f}"'
        parts.append(f'<rect class="{"first" if half >= 0 else "second"}" {size}><title>{told[-1]}</title></rect>')
    note = (
        f"The fastest correct kernel of each of the {metrics.speedup.of} samples (of {metrics.samples}) with a timed one; "
        f"geometric mean {number(metrics.speedup, '.2f', 'x')}. {metrics.untimed} correct without any time."
    )
    return _figure("Speedups", "Samples by speedup.", note, _svg(parts, "; ".join(told)))


def flows(steps: Sequence[Mapping[tuple[Status, str], int]]) -> str:
    """A table for each step: what a status (a row) became (a column)."""
    tables = "".join(_flow_table(turn, step) for turn, step in enumerate(steps, start=1))
    note = "Samples of all ended episodes that came to the turn. Columns in italics say why those without a next turn ended."
    return _figure(
        "Error flow", "Rows: the status of a turn. Columns: what came next.", note, f'<div class="flows">{tables}</div>', "wide"
    )


def _flow_table(turn: int, step: Mapping[tuple[Status, str], int]) -> str:
    befores = [status for status in Status if any(before is status for before, _ in step)]
    statuses = [str(status) for status in Status]
    afters = sorted({after for _, after in step}, key=lambda after: (statuses.index(after) if after in statuses else 99, after))
    most = max(step.values(), default=1)
    heads = "".join(f'<th scope="col"{"" if after in statuses else " class=end"}><span>{after}</span></th>' for after in afters)
    rows = []
    for before in befores:
        counts = [step.get((before, after), 0) for after in afters]
        cells = "".join(f'<td style="--heat:{count / most:.2f}">{count or ""}</td>' for count in counts)
        rows.append(f'<tr><th scope="row">{before}</th>{cells}<td class="sum">{sum(counts)}</td></tr>')
    head = f'<tr><th scope="col">turn {turn} → {turn + 1}</th>{heads}<th scope="col"><span>all</span></th></tr>'
    return f'<div class="scroll" tabindex="0"><table class="flow"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _figure(title: str, text: str, note: str, content: str, kind: str = "") -> str:
    """`note` is HTML of ours."""
    head = f"<h3>{html.escape(title)}</h3><p>{html.escape(text)}</p>"
    return f'<figure class="{kind}">{head}{content}<figcaption>{note}</figcaption></figure>'


def _svg(parts: Iterable[str], said: str) -> str:
    """`said` is read out in its place."""
    label = html.escape(said)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def standalone(parts: Iterable[str], said: str) -> str:
    """A file of its own, for documents that no style of a page reaches: light or dark as the reader has it."""
    size = f'xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
    return _svg([f"<style>{_STYLE}</style>", *parts], said).replace("<svg ", f"<svg {size} ", 1) + "\n"


def _ticks(low: float, high: float, finest: float = 0.0) -> list[float]:
    """Round numbers around a range, eight at most, at least `finest` apart; 0 is among them where the range has it."""
    extent = (high - low) or 1.0
    power = 10.0 ** math.floor(math.log10(extent / 4))
    size = max(next(step * power for step in (1, 2, 5, 10) if extent / (step * power) <= 6), finest)
    first, last = math.floor(low / size), max(math.ceil(high / size), math.floor(low / size) + 1)
    return [round(index * size, 10) for index in range(first, last + 1)]


def _thinned(ticks: Sequence[tuple[float, str]]) -> Sequence[tuple[float, str]]:
    return ticks[:: math.ceil(len(ticks) / 12) or 1]

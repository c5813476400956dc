"""The strengths of an arena as a picture: an SVG that needs nothing else, one row a model, by the judge and by the clock."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from kernel_env.printable import printable
from rollout.arena.standings import Arena, Model
from rollout.arena.strengths import Bounds, Strength

_WIDTH, _ROW, _LEFT, _RIGHT, _TOP, _BOTTOM = 780, 30, 230, 740, 40, 46
_JUDGE, _STYLED, _CLOCK = "#3a6ea5", "#4b8f5c", "#c8782a"
_NAME_CHARS = 32
_BEYOND = 1.15
"""How much wider than its finite ends the scale is: what is infinite ends there."""


def picture(arena: Arena, models: Sequence[Model]) -> str:
    """The same standings give the same text. `models` are in the order of the rows."""
    height = _TOP + _ROW * len(models) + _BOTTOM
    reach = _BEYOND * max((abs(end) for model in models for end in _ends(model)), default=1.0)
    size = f'width="{_WIDTH}" height="{height}"'
    parts = [*_legend(arena), *_axis(reach, height - _BOTTOM)]
    for place, model in enumerate(models):
        parts += _row(model, _TOP + _ROW * place + _ROW / 2, reach)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" {size} '
        f'font-family="system-ui, sans-serif" font-size="12" fill="#333">\n<rect {size} fill="#fff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _ends(model: Model) -> Iterator[float]:
    """All that is finite of it."""
    for strength in (model.judged.strength, model.styled, model.measured.strength):
        if strength is not None:
            ends = (strength.value, *(end for bounds in (strength.at_90, strength.at_95) if bounds for end in bounds))
            yield from (end for end in ends if math.isfinite(end) and end)


def _row(model: Model, y: float, reach: float) -> Iterator[str]:
    name = printable(model.name)
    shown = name if len(name) <= _NAME_CHARS else f"{name[: _NAME_CHARS - 3]}..."
    yield f'<text x="{_LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(shown)}</text>'
    for offset, colour, what, strength in (
        (-7, _JUDGE, "judge", model.judged.strength),
        (0, _STYLED, "judge, at equal style", model.styled),
        (7, _CLOCK, "clock", model.measured.strength),
    ):
        if strength is not None:
            yield f"<g><title>{escape(name)}, {what}: {strength.value:.3f}</title>{_mark(strength, y + offset, reach, colour)}</g>"


def _mark(strength: Strength, y: float, reach: float, colour: str) -> str:
    """A thin line for the 95% interval, a thick one for the 90%, and a dot; what is infinite is an arrowhead at the edge."""
    lines = (_line(bounds, y, reach, colour, width) for bounds, width in ((strength.at_95, 1), (strength.at_90, 3)))
    x = _x(strength.value, reach)
    if math.isfinite(strength.value):
        dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    else:
        back = math.copysign(7, -strength.value)
        dot = f'<path d="M{x:.1f} {y:.1f}l{back:g} -4v8z" fill="{colour}"/>'
    return "".join((*lines, dot))


def _line(bounds: Bounds | None, y: float, reach: float, colour: str, width: int) -> str:
    if bounds is None:
        return ""
    low, high = (_x(end, reach) for end in bounds)
    return f'<path d="M{low:.1f} {y:.1f}H{high:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _x(value: float, reach: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (min(max(value, -reach), reach) + reach) / (2 * reach)


def _axis(reach: float, floor: float) -> Iterator[str]:
    middle = _x(0, reach)
    yield f'<path d="M{_LEFT} {floor}H{_RIGHT}" stroke="#999"/>'
    yield f'<path d="M{middle:.1f} {_TOP}V{floor}" stroke="#999" stroke-dasharray="3"/>'
    for tick in _ticks(reach):
        text = f"{tick:+g}" if tick else "0"
        yield f'<text x="{_x(tick, reach):.1f}" y="{floor + 16}" text-anchor="middle">{text}</text>'
    yield f'<text x="{middle:.1f}" y="{floor + 34}" text-anchor="middle">strength in log odds; the baseline is at 0</text>'


def _ticks(reach: float) -> list[float]:
    """Round numbers, five or so on each side."""
    power = 10.0 ** math.floor(math.log10(reach))
    size = next(step * power / 10 for step in (1, 2, 5, 10, 20, 50) if reach / (step * power / 10) <= 5)
    return [round(index * size, 10) for index in range(-math.floor(reach / size), math.floor(reach / size) + 1)]


def _legend(arena: Arena) -> Iterator[str]:
    for x, colour, text in ((20, _JUDGE, "judge"), (110, _STYLED, "judge, at equal style"), (290, _CLOCK, "clock")):
        yield f'<circle cx="{x}" cy="18" r="4" fill="{colour}"/><text x="{x + 9}" y="22">{text}</text>'
    against = escape(printable(arena.baseline)[:_NAME_CHARS])
    yield f'<text x="{_RIGHT}" y="22" text-anchor="end">thick 90%, thin 95%, against {against}</text>'

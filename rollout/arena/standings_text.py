"""The standings of an arena as tables: for the terminal, Markdown and a page the same rows, and all numbers as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rollout.arena.standings import ALIKE, TIE, Arena, Model, Standing
from rollout.arena.strengths import Bounds, Strength
from rollout.markdown import NONE, cell, rate, share, table, warning
from rollout.metrics import Estimate

UNSURE = 0.5
"""A judge that agrees with itself in fewer matches than this carries a warning."""
PICTURE = "standings.svg"
"""Beside the Markdown."""
_NAMED = 5
Side = Literal["judge", "clock"]
_SIDES: Mapping[Side, Callable[[Model], Standing]] = {"judge": lambda model: model.judged, "clock": lambda model: model.measured}


@dataclass(frozen=True)
class Shown:
    """A table."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def standings_text(arena: Arena, cut_off: Sequence[str]) -> str:
    """Markdown. `cut_off` are files whose last line has no end."""
    return "\n".join(_lines(arena, cut_off)) + "\n"


def _lines(arena: Arena, cut_off: Sequence[str]) -> Iterator[str]:
    yield f"# Arena: {len(arena.models)} model{'s' * (len(arena.models) != 1)} against {cell(arena.baseline)}"
    yield ""
    for text in cautions(arena, cut_off):
        yield from warning(cell(text))
    yield footing(arena)
    yield ""
    for shown, notes in ((judged_table(arena), judge_notes(arena)), (measured_table(arena), clock_notes(arena))):
        yield from _section(shown)
        yield from notes
        yield ""
    yield f"![{cell(said(arena))}]({PICTURE})"
    yield ""
    for shown in (category_table(arena), null_table(arena)):
        if shown.rows:
            yield from _section(shown)


def _section(shown: Shown) -> Iterator[str]:
    yield f"## {shown.title}"
    yield ""
    yield from table(shown.head, shown.rows)
    yield ""


# ------------------------------------------------------------------ sentences


def footing(arena: Arena) -> str:
    """What the numbers stand on."""
    games, asked = sum(m.judged.win_rate.of for m in arena.models), 2 * sum(m.matches for m in arena.models)
    return (
        f"Judge {cell(arena.judge)}. The standings rest on {games} of {asked} games ({asked - games} are null), two of each of "
        f"{asked // 2} matches on {arena.problems} problems. {rate(arena.judged_matches, asked // 2)} matches were judged, "
        "correctness decided the others."
    )


def cautions(arena: Arena, cut_off: Sequence[str]) -> Iterator[str]:
    """Why not to believe the tables, a sentence or two each."""
    itself, models = arena.consistency, arena.models
    if not arena.ranked:
        yield (
            f"the judge contradicts itself in each of {itself.of} matches: it answers to the order of the kernels, not to them. "
            "There is no ranking by it."
        )
    elif itself.value is not None and itself.value < UNSURE:
        yield f"the judge agrees with itself in only {share(itself)} of {itself.of} matches."
    nulls = sum(sum(model.nulls.values()) for model in models)
    if nulls:
        yield f"{nulls} games are null and count nowhere. The next run asks for them again."
    if cut_off:
        yield f"the last line of {_listed(cut_off)} has no end and is left out: its writer was killed. The next run asks again."
    if few := [model.name for model in models if model.problems < arena.problems]:
        yield f"not all models met the same problems: fewer than {arena.problems} have {_listed(few)}."
    for what, standing in _SIDES.items():
        if extreme := [model.name for model in models if _is_infinite(standing(model).strength)]:
            yield f"by the {what} {_listed(extreme)} won all or nothing: no finite strength fits best, and no interval is known."
    untimed = sum(model.matches - model.measured.win_rate.of for model in models)
    if untimed:
        yield f"{untimed} matches have no word of the clock: a kernel or its time is not known."


def judge_notes(arena: Arena) -> Iterator[str]:
    yield (
        "Strength: Bradley-Terry, in log odds, the baseline at 0. 90% and 95%: bootstrap over problems. At equal style: with the "
        "difference of style as covariates. Agrees with itself: both games of a match name one winner, in all "
        f"{share(arena.consistency)} of {arena.consistency.of} judged matches with both verdicts."
    )
    if arena.style.note:
        yield f"No strength at equal style: {arena.style.note}."
    else:
        slopes = ", ".join(f"{name} {with_bounds(slope)}" for name, slope in arena.style.slopes.items())
        yield f"What style is worth to the judge, in log odds a standard deviation: {slopes}."


def clock_notes(arena: Arena) -> Iterator[str]:
    kappa, tau = (NONE if number is None else f"{number:.2f}" for number in (arena.kappa, arena.tau))
    yield (
        f"A correct kernel beats a wrong one; of two correct ones the faster wins, where their ratio is above {ALIKE:g}. Agrees "
        f"with the judge: one winner, in all {share(arena.agreement)} of {arena.agreement.of} judged matches "
        f"(Cohen's kappa {kappa}). Kendall's tau of the two orders: {tau}."
    )


def said(arena: Arena) -> str:
    """What the picture shows, in words."""
    shown = (f"{model.name} {_number(model.judged.strength)}" for model in arena.models[:_NAMED])
    return f"Strengths by judge and clock with their intervals: {', '.join(shown)}{', ...' if len(arena.models) > _NAMED else ''}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _is_infinite(strength: Strength | None) -> bool:
    return strength is not None and math.isinf(strength.value)


# ------------------------------------------------------------------ tables


def judged_table(arena: Arena) -> Shown:
    head = ("Rank", "Model", "Win rate", "Strength", "90%", "95%", "At equal style", "Agrees with itself", "Games", "Null")
    rows = (
        (
            *_placed(model.name, model.judged),
            with_bounds(model.styled),
            _of(model.consistency),
            f"{model.judged.win_rate.of} of {2 * model.matches}",
            str(sum(model.nulls.values())),
        )
        for model in by_rank(arena, "judge")
    )
    return Shown(f"By the judge {arena.judge}", head, _with_baseline(arena, rows, "judge", len(head)))


def measured_table(arena: Arena) -> Shown:
    head = ("Rank", "Model", "Win rate", "Strength", "90%", "95%", "Agrees with the judge", "Matches")
    rows = (
        (*_placed(model.name, model.measured), _of(model.agreement), f"{model.measured.win_rate.of} of {model.matches}")
        for model in by_rank(arena, "clock")
    )
    return Shown("By the clock", head, _with_baseline(arena, rows, "clock", len(head)))


def category_table(arena: Arena) -> Shown:
    """Win rates by the judge."""
    rows = (
        (model.name, *(_of_games(model.by_category.get(category)) for category in arena.categories))
        for model in by_rank(arena, "judge")
    )
    return Shown("Win rates by category", ("Model", *arena.categories), tuple(rows) if len(arena.categories) > 1 else ())


def null_table(arena: Arena) -> Shown:
    rows = ((model.name, reason, str(count)) for model in arena.models for reason, count in model.nulls.items())
    return Shown("Null games", ("Model", "Reason", "Games"), tuple(rows))


def by_rank(arena: Arena, side: Side) -> list[Model]:
    """Best first, those without a rank last."""
    return sorted(arena.models, key=lambda model: (_SIDES[side](model).rank or math.inf, model.name))


def _with_baseline(arena: Arena, rows: Iterable[tuple[str, ...]], side: Side, width: int) -> tuple[tuple[str, ...], ...]:
    """In its place, behind those that share it."""
    standings = map(_SIDES[side], arena.models)
    rates = [standing.win_rate.value for standing in standings if standing.rank is not None and standing.win_rate.value is not None]
    found = list(rows)
    if rates:
        own = (str(1 + sum(rate > TIE for rate in rates)), f"{arena.baseline} (baseline)", NONE, "0")
        found.insert(sum(rate >= TIE for rate in rates), (*own, *[NONE] * (width - len(own))))
    return tuple(found)


def _placed(name: str, standing: Standing) -> tuple[str, ...]:
    strength = standing.strength
    rank = NONE if standing.rank is None else str(standing.rank)
    bounds = (NONE, NONE) if strength is None else (_bounds(strength.at_90), _bounds(strength.at_95))
    return rank, name, share(standing.win_rate), _number(strength), *bounds


def _of(found: Estimate) -> str:
    return NONE if found.value is None else f"{found.value:.1%} of {found.of}"


def _of_games(found: Estimate | None) -> str:
    return NONE if found is None or found.value is None else f"{share(found)} of {found.of}"


def with_bounds(strength: Strength | None) -> str:
    """With the 95% interval, where there is one."""
    if strength is None or strength.at_95 is None:
        return _number(strength)
    return f"{_number(strength)} {_bounds(strength.at_95)}"


def _number(strength: Strength | None) -> str:
    return NONE if strength is None else _signed(strength.value)


def _bounds(bounds: Bounds | None) -> str:
    return NONE if bounds is None else f"[{', '.join(map(_signed, bounds))}]"


def _signed(value: float) -> str:
    return f"{value + 0.0:+.2f}" if math.isfinite(value) else "+∞" if value > 0 else "-∞"


# ------------------------------------------------------------------ CSV


def standings_csv(arena: Arena) -> str:
    """A line a model. What is not known is empty."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    ends = ("", "_low_90", "_high_90", "_low_95", "_high_95")
    rate_ends = ("", "_low_95", "_high_95")
    lines.writerow(
        [
            *("model", "matches", "problems", "games", "null_games", "rank"),
            *(f"{name}{end}" for name, used in (("win_rate", rate_ends), ("strength", ends), ("styled", ends)) for end in used),
            *("consistency", "consistency_of", "clock_matches", "clock_rank"),
            *(f"clock_{name}{end}" for name, used in (("win_rate", rate_ends), ("strength", ends)) for end in used),
            *("agreement", "agreement_of"),
        ]
    )
    lines.writerows(map(_csv_row, by_rank(arena, "judge")))
    return text.getvalue()


def _csv_row(model: Model) -> list[object]:
    judged, measured = model.judged, model.measured
    return [
        *(model.name, model.matches, model.problems, judged.win_rate.of, sum(model.nulls.values()), judged.rank),
        *(*_rate_cells(judged.win_rate), *_strength_cells(judged.strength), *_strength_cells(model.styled)),
        *(_plain(model.consistency.value), model.consistency.of, measured.win_rate.of, measured.rank),
        *(*_rate_cells(measured.win_rate), *_strength_cells(measured.strength)),
        *(_plain(model.agreement.value), model.agreement.of),
    ]


def _rate_cells(found: Estimate) -> list[str]:
    return [_plain(found.value), _plain(found.low), _plain(found.high)]


def _strength_cells(strength: Strength | None) -> list[str]:
    if strength is None:
        return [""] * 5
    return [_plain(strength.value), *(_plain(end) for bounds in (strength.at_90, strength.at_95) for end in bounds or (None, None))]


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value + 0.0:.6f}"

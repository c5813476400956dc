"""What an arena comes to: the same standings twice, once from the judge's verdicts and once from the clock. Pure functions of
matches, whose order changes nothing.

A game counts for the model as 1, one half (a tie) or 0; a clear verdict (`>>`) weighs 3, any other 1, as in Arena-Hard. The clock
says one thing a match, of weight 1. Intervals are over problems, as in `rollout.metrics`: all matches of a problem, of all models,
are drawn together, because one problem's baseline stands in all of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from kernel_env.errors import ConfigError
from rollout.arena.records import Game, Kernel, Label, Match
from rollout.arena.strengths import Fit, Played, Strength, fit
from rollout.metrics import Estimate, ratio

VERDICTS: Mapping[Label, tuple[float, int]] = {"A>>B": (1, 3), "A>B": (1, 1), "A=B": (0.5, 1), "B>A": (0, 1), "B>>A": (0, 3)}
"""What a label says for A, and what it weighs."""
ALIKE = 1.05
"""Two speedups are a tie up to this ratio. Half of a 95% interval of the clock is 2.0 to 2.6% of a speedup (docs/log.md), for calls
of 0.1 ms and more: up to here two such intervals overlap, and `rollout.compare` calls no kernel faster either."""
STYLE = ("code length", "comment density")
TIE = 0.5


@dataclass(frozen=True)
class Standing:
    """Of one model against the baseline."""

    win_rate: Estimate
    """`of` is the number of games, by the clock of matches."""
    strength: Strength | None = None
    """Bradley-Terry's; the baseline's is 0. None without a game, and where there is no ranking."""
    rank: int | None = None
    """By win rate, the baseline among the models. Equal ones share it."""


@dataclass(frozen=True)
class Model:
    name: str
    matches: int
    problems: int
    judged: Standing
    styled: Strength | None
    """The judge's strength if its kernels were written in the baseline's style."""
    measured: Standing
    consistency: Estimate
    """Share of the judged matches whose two games name the same winner, or a tie both. `of` are those with both verdicts. Of one
    model without an interval, as is ..."""
    agreement: Estimate
    """... the share of those in which judge and clock name the same winner. A judge that contradicts itself says tie."""
    nulls: Mapping[str, int]
    """Games without a verdict, by reason."""
    by_category: Mapping[str, Estimate]
    """Win rates by the judge."""


@dataclass(frozen=True)
class Style:
    """What the judge makes of style: by how much the log odds change with one standard deviation of a difference."""

    slopes: Mapping[str, Strength]
    note: str = ""
    """Why there are none."""


@dataclass(frozen=True)
class Arena:
    judge: str
    baseline: str
    problems: int
    models: tuple[Model, ...]
    """By name."""
    categories: tuple[str, ...]
    consistency: Estimate
    style: Style
    agreement: Estimate
    kappa: float | None
    """Cohen's, of win, tie and loss by judge and by clock: the agreement beyond chance. None where one of them always says the
    same."""
    tau: float | None
    """Kendall's tau-b of the two orders of models. None with fewer than two, or no order."""

    judged_matches: int
    """The others were decided by correctness."""

    @property
    def ranked(self) -> bool:
        """Whether the judge can be believed at all: one whose two games never agree looks at the order alone."""
        return believable(self.consistency)


def believable(consistency: Estimate) -> bool:
    return consistency.value != 0


# ------------------------------------------------------------------ one match


@dataclass(frozen=True)
class _Scored:
    """A match as numbers, all from the model's side."""

    match: Match
    problem: int
    games: int
    """With a verdict."""
    weight: int
    won: float
    judge: float | None
    """What both games say, a tie where they differ. None unless a judge was asked and gave both."""
    clock: float | None

    @property
    def judged(self) -> bool:
        return self.match.decided == "judge"


Counts = Callable[[_Scored], tuple[float, int] | None]
"""What a match adds above and below the line of a share. None: nothing."""


def for_model(game: Game, place: int) -> tuple[float, int] | None:
    """Its part of the game and what that weighs. In the first game (place 0) it is B. None without a verdict."""
    if game.score is None:
        return None
    share, weight = VERDICTS[game.score]
    return (share if place else 1 - share), weight


def by_clock(match: Match) -> float | None:
    """1, a tie, or 0 for the model: a correct kernel beats a wrong one, and of two correct ones the faster wins. None where a time
    that decides is not known."""
    ours, theirs = match.model_kernel, match.baseline_kernel
    if ours is None or theirs is None:
        return None
    if ours.correct != theirs.correct:
        return float(ours.correct)
    if not ours.correct:
        return TIE
    if ours.speedup is None or theirs.speedup is None:
        return None
    if max(ours.speedup, theirs.speedup) <= ALIKE * min(ours.speedup, theirs.speedup):
        return TIE
    return float(ours.speedup > theirs.speedup)


def _scored(match: Match, problem: int) -> _Scored:
    found = [verdict for place, game in enumerate(match.games) if (verdict := for_model(game, place)) is not None]
    both = [share for share, _ in found] if match.whole and match.decided == "judge" else []
    return _Scored(
        match=match,
        problem=problem,
        games=len(found),
        weight=sum(weight for _, weight in found),
        won=sum(share * weight for share, weight in found),
        judge=None if not both else both[0] if _agree(match) else TIE,
        clock=by_clock(match),
    )


def _agree(match: Match) -> bool:
    shares = {verdict[0] for place, game in enumerate(match.games) if (verdict := for_model(game, place)) is not None}
    return len(shares) == 1


def style_of(ours: Kernel, theirs: Kernel) -> tuple[float, float]:
    """By how much the first one has more: of code, relative to both together; of comments, as shares of all lines."""
    lines = ours.code_lines + theirs.code_lines
    return (ours.code_lines - theirs.code_lines) / lines if lines else 0.0, _density(ours) - _density(theirs)


def _density(kernel: Kernel) -> float:
    lines = kernel.code_lines + kernel.comment_lines
    return kernel.comment_lines / lines if lines else 0.0


# ------------------------------------------------------------------ all of them


def standings(matches: Iterable[Match]) -> Arena:
    """Raises ConfigError where they are of several judges or baselines: no table stands on both."""
    ordered = sorted(matches, key=lambda match: (match.model, match.uid))
    judge, baseline = (_only(what, ordered) for what in ("judge", "baseline"))
    places = {key: place for place, key in enumerate(sorted({match.problem for match in ordered}))}
    scored = [_scored(match, places[match.problem]) for match in ordered]
    by_model: dict[str, list[_Scored]] = {}
    for one in scored:
        by_model.setdefault(one.match.model, []).append(one)
    problems, consistency = len(places), _share(scored, _consistent)
    judged, measured = _judged(by_model, problems), _measured(by_model, problems)
    style, styled = _styled(by_model, problems)
    if not believable(consistency):
        judged = {model: Standing(standing.win_rate) for model, standing in judged.items()}
        style, styled = Style({}, "there is no ranking"), {}
    return Arena(
        judge=judge,
        baseline=baseline,
        problems=problems,
        models=tuple(_model(name, found, judged[name], styled.get(name), measured[name]) for name, found in by_model.items()),
        categories=tuple(sorted({match.category for match in ordered})),
        consistency=consistency,
        style=style,
        agreement=_share(scored, _agreeing),
        kappa=_kappa([(one.judge, one.clock) for one in scored if one.judge is not None and one.clock is not None]),
        tau=_tau([(judged[name], measured[name]) for name in by_model]),
        judged_matches=sum(one.judged for one in scored),
    )


def _only(what: str, matches: Sequence[Match]) -> str:
    found = sorted({getattr(match, what) for match in matches})
    if len(found) != 1:
        raise ConfigError(
            f"a table has one {what}, and these judgments have {len(found)} ({', '.join(found[:5])}): keep them apart"
        )
    return str(found[0])


def _model(name: str, found: Sequence[_Scored], judged: Standing, styled: Strength | None, measured: Standing) -> Model:
    categories = sorted({one.match.category for one in found})
    return Model(
        name=name,
        matches=len(found),
        problems=len({one.problem for one in found}),
        judged=judged,
        styled=styled,
        measured=measured,
        consistency=_plain_share(found, _consistent),
        agreement=_plain_share(found, _agreeing),
        nulls=dict(sorted(Counter(_reason(game) for one in found for game in one.match.games if game.score is None).items())),
        by_category={c: _win_rate([one for one in found if one.match.category == c]) for c in categories},
    )


def _reason(game: Game) -> str:
    """The first words of an error say of what kind it is."""
    return game.error.partition(":")[0].strip() or "unknown"


# ------------------------------------------------------------------ shares


def _share(found: Iterable[_Scored], counts: Counts) -> Estimate:
    """The sum of one number over that of the other, with its interval over problems. `of` is the number of matches with them."""
    sums: dict[int, tuple[float, int]] = {}
    matches = 0
    for one in found:
        if (pair := counts(one)) is not None:
            above, below = sums.get(one.problem, (0.0, 0))
            sums[one.problem] = above + pair[0], below + pair[1]
            matches += 1
    ordered = [sums[problem] for problem in sorted(sums)]
    return replace(ratio([above for above, _ in ordered], [below for _, below in ordered]), of=matches)


def _plain_share(found: Iterable[_Scored], counts: Counts) -> Estimate:
    pairs = [pair for one in found if (pair := counts(one)) is not None]
    above, below = math.fsum(above for above, _ in pairs), sum(below for _, below in pairs)
    return Estimate(above / below if below else None, None, None, len(pairs))


def _win_rate(found: Sequence[_Scored]) -> Estimate:
    return replace(_share(found, lambda one: (one.won, one.weight)), of=sum(one.games for one in found))


def _consistent(one: _Scored) -> tuple[float, int] | None:
    return None if one.judge is None else (float(_agree(one.match)), 1)


def _agreeing(one: _Scored) -> tuple[float, int] | None:
    return None if one.judge is None or one.clock is None else (float(one.judge == one.clock), 1)


def _kappa(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Cohen, "A coefficient of agreement for nominal scales", 1960."""
    if not pairs:
        return None
    first, second = (Counter(pair[side] for pair in pairs) for side in (0, 1))
    seen = sum(a == b for a, b in pairs) / len(pairs)
    chance = sum(first[outcome] * second[outcome] for outcome in first) / len(pairs) ** 2
    return None if chance == 1 else (seen - chance) / (1 - chance)


def _tau(models: Sequence[tuple[Standing, Standing]]) -> float | None:
    """Kendall, "The treatment of ties in ranking problems", 1945."""
    known = [(a.win_rate.value, b.win_rate.value) for a, b in models if a.rank is not None and b.rank is not None]
    signs_a, signs_b = (np.sign(np.subtract.outer(side, side)) for side in np.array(known, dtype=float).reshape(-1, 2).T)
    size = math.sqrt(float((signs_a**2).sum()) * float((signs_b**2).sum()))
    return float((signs_a * signs_b).sum()) / size if size else None


# ------------------------------------------------------------------ strengths


def _judged(by_model: Mapping[str, Sequence[_Scored]], problems: int) -> dict[str, Standing]:
    return _standings({model: _win_rate(found) for model, found in by_model.items()}, _played(by_model), problems)


def _measured(by_model: Mapping[str, Sequence[_Scored]], problems: int) -> dict[str, Standing]:
    """By the clock."""
    known = {
        model: [replace(one, games=1, weight=1, won=one.clock) for one in found if one.clock is not None]
        for model, found in by_model.items()
    }
    return _standings({model: _win_rate(found) for model, found in known.items()}, _played(known), problems)


def _standings(rates: Mapping[str, Estimate], played: Mapping[str, Played], problems: int) -> dict[str, Standing]:
    strengths = _strengths(fit(list(played.values()), problems), played)
    values = [TIE, *(rate.value for rate in rates.values() if rate.value is not None)]
    return {
        model: Standing(rate, strengths.get(model), None if rate.value is None else 1 + sum(v > rate.value for v in values))
        for model, rate in rates.items()
    }


def _styled(by_model: Mapping[str, Sequence[_Scored]], problems: int) -> tuple[Style, dict[str, Strength]]:
    """What correctness decided nobody looked at: its style counts as equal. Differences are divided by their standard deviation
    over judged games. Their mean is 0, because each match has its two sides in both places."""
    judged = [one for found in by_model.values() for one in found if one.judged and one.games]
    unknown = sum(one.match.model_kernel is None or one.match.baseline_kernel is None for one in judged)
    if unknown:
        return Style({}, f"of {unknown} judged matches the kernels are not known"), {}
    squares = np.array([_difference(one) for one in judged]).reshape(-1, len(STYLE)) ** 2
    games = np.array([one.games for one in judged], dtype=float)
    scales = np.sqrt(games @ squares / max(games.sum(), 1))
    vary = [place for place, scale in enumerate(scales) if scale > 0]
    if not vary:
        return Style({}, "the kernels that were judged do not differ in style"), {}
    played = _played(by_model, lambda one: [_difference(one)[place] / scales[place] for place in vary])
    found = fit(list(played.values()), problems)
    if found is None:
        return Style({}, "these games do not tell style and strength apart"), {}
    return Style({STYLE[place]: slope for place, slope in zip(vary, found.slopes_K, strict=True)}), _strengths(found, played)


def _difference(one: _Scored) -> tuple[float, float]:
    ours, theirs = one.match.model_kernel, one.match.baseline_kernel
    return style_of(ours, theirs) if one.judged and ours is not None and theirs is not None else (0.0, 0.0)


def _played(
    by_model: Mapping[str, Sequence[_Scored]], style: Callable[[_Scored], Sequence[float]] = lambda one: ()
) -> dict[str, Played]:
    """Of the models that have a match with a verdict."""
    kept = {model: [one for one in found if one.weight] for model, found in by_model.items()}
    return {
        model: Played(
            problem_N=np.array([one.problem for one in found]),
            weight_N=np.array([one.weight for one in found], dtype=float),
            won_N=np.array([one.won for one in found]),
            style_NK=np.array([style(one) for one in found], dtype=float),
        )
        for model, found in kept.items()
        if found
    }


def _strengths(found: Fit | None, played: Mapping[str, Played]) -> dict[str, Strength]:
    return {} if found is None else dict(zip(played, found.strengths_M, strict=True))

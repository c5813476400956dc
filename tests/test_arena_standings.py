"""Standings of an arena: strengths beside an independent fit, intervals that cover, judges that cannot be believed, the clock."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score

from kernel_env.errors import ConfigError
from rollout.arena.records import LABELS, Kernel, Match
from rollout.arena.standings import ALIKE, Arena, Model, by_clock, standings, style_of
from rollout.arena.strengths import Played, Strength, fit, maximum
from rollout.metrics import resamples
from tests.arena_games import PLAIN, correct, drawn, fair, match, three_models, wrong

KNOWN = (-1.4, -0.5, 0.0, 0.6, 1.3)
SAYS = {"A>>B": (1, 3), "A>B": (1, 1), "A=B": (0.5, 1), "B>A": (0, 1), "B>>A": (0, 3)}
"""A's part of a game, and its weight."""


def model(arena: Arena, name: str) -> Model:
    return next(found for found in arena.models if found.name == name)


def strength(found: Strength | None) -> float:
    assert found is not None
    return found.value


def places(arena: Arena) -> tuple[list[str], list[str]]:
    """Models by their ranks, of the judge and of the clock."""
    judged, measured = (sorted(arena.models, key=lambda m: getattr(m, side).rank) for side in ("judged", "measured"))
    return [m.name for m in judged], [m.name for m in measured]


def many(by_model: dict[str, list[Match]]) -> list[Match]:
    return [one for matches in by_model.values() for one in matches]


# ------------------------------------------------------------------ an independent fit


def independent(matches: Sequence[Match], *, style: bool, counts: Counter[str] | None = None) -> dict[str, float]:
    """Game by game, from the side of A, as two rows each: one that A wins and one that it loses."""
    names = sorted({one.model for one in matches})
    rows, styles, parts = [], [], []
    for one in matches:
        for place, game in enumerate(one.games):
            if game.score is None:
                continue
            a_is_model = place == 1
            row = np.zeros(len(names))
            row[names.index(one.model)] = 1 if a_is_model else -1
            rows.append(row)
            sides = (one.model_kernel, one.baseline_kernel) if a_is_model else (one.baseline_kernel, one.model_kernel)
            styles.append(style_of(*sides) if style and one.decided == "judge" else (0.0, 0.0))
            share, weight = SAYS[game.score]
            times = 1 if counts is None else counts[one.problem]
            parts.append((share * weight * times, (1 - share) * weight * times))
    features = np.array(rows)
    if style:
        raw = np.array(styles)
        judged = np.array([one.decided == "judge" for one in matches for _ in one.games])
        features = np.hstack([features, raw / raw[judged].std(axis=0)])
    won, lost = np.array(parts).T
    found = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-13, solver="newton-cholesky", max_iter=200).fit(
        np.vstack([features, features]), np.repeat([1, 0], len(rows)), np.concatenate([won, lost])
    )
    return dict(zip((*names, "code length", "comment density"), found.coef_[0], strict=False))


def scattered(seed: int) -> list[Match]:
    """With ties, clear verdicts, and matches that correctness decided."""
    rng = random.Random(seed)
    found = []
    for one in drawn(KNOWN, 40, seed, slopes=(0.6, -0.4)):
        if rng.random() < 0.15:
            found.append(replace(one, games=match("m", 1, (rng.choice(LABELS), "A=B")).games))
        elif rng.random() < 0.15:
            found.append(replace(one, games=match("m", 1, fair("B>>A")).games, decided="correctness", model_kernel=wrong()))
        else:
            found.append(one)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_strengths_are_those_of_an_independent_fit(seed: int) -> None:
    matches = scattered(seed)
    rng = random.Random(seed)
    with_nulls = [
        replace(one, games=(one.games[0], match("m", 1, (None, None)).games[1])) if rng.random() < 0.1 else one for one in matches
    ]
    for some in (matches, with_nulls):
        arena = standings(some)
        expected = independent(some, style=False)
        assert {m.name: strength(m.judged.strength) for m in arena.models} == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_strengths_at_equal_style_are_those_of_an_independent_fit(seed: int) -> None:
    matches = scattered(seed)
    arena = standings(matches)
    found = {m.name: strength(m.styled) for m in arena.models} | {name: s.value for name, s in arena.style.slopes.items()}
    assert found == pytest.approx(independent(matches, style=True), abs=1e-6)
    assert any(abs(strength(m.styled) - strength(m.judged.strength)) > 0.02 for m in arena.models)


def test_who_wins_every_game_says_nothing_of_style() -> None:
    """But for the scale: its kernels are among those whose style varies."""
    matches = [one for one in scattered(2) if one.model != "m4"]
    best = [match("best", n, fair("A>B"), ours=correct(1.0, 30 + n, n % 7), theirs=correct(1.0, 50, 3)) for n in range(40)]
    arena, alone = standings([*matches, *best]), standings(matches)
    assert strength(model(arena, "best").styled) == math.inf
    for name in ("m0", "m1", "m2", "m3"):
        assert strength(model(arena, name).styled) == pytest.approx(strength(model(alone, name).styled), abs=1e-6)
    assert arena.style.slopes != alone.style.slopes


@pytest.mark.parametrize("at", [0, 700, 1999])
def test_each_draw_of_the_bootstrap_is_a_fit_of_its_own(at: int) -> None:
    """All models' matches of a problem are drawn together."""
    matches = scattered(3)
    keys = sorted({one.problem for one in matches})
    counts = resamples(len(keys))[at]
    unit = independent(matches, style=True)
    scale = {name: unit[name] for name in ("code length", "comment density")}
    played = _played(matches, keys)
    strengths, slopes = maximum(played, resamples(len(keys))[[at]], np.array(list(scale.values())))
    expected = independent(matches, style=True, counts=Counter({key: int(count) for key, count in zip(keys, counts, strict=True)}))
    assert [*strengths[0], *slopes[0]] == pytest.approx(list(expected.values()), abs=1e-6)


def _played(matches: Sequence[Match], keys: Sequence[str]) -> list[Played]:
    styles = np.array([style_of(one.model_kernel, one.baseline_kernel) for one in matches if one.decided == "judge"])  # type: ignore[arg-type]
    scale = np.sqrt((styles**2).mean(axis=0))
    found = []
    for name in sorted({one.model for one in matches}):
        ours = [one for one in matches if one.model == name]
        verdicts = [(SAYS[one.games[0].score], SAYS[one.games[1].score]) for one in ours]  # type: ignore[index]
        found.append(
            Played(
                np.array([keys.index(one.problem) for one in ours]),
                np.array([float(a[1] + b[1]) for a, b in verdicts]),
                np.array([(1 - a[0]) * a[1] + b[0] * b[1] for a, b in verdicts]),
                np.array(
                    [
                        style_of(one.model_kernel, one.baseline_kernel) / scale if one.decided == "judge" else (0, 0)  # type: ignore[arg-type]
                        for one in ours
                    ]
                ),
            )
        )
    return found


# ------------------------------------------------------------------ intervals


def test_a_90_percent_interval_covers_the_truth_about_that_often() -> None:
    """20 sets of data, 5 models each; and with a judge that likes long code."""
    plain = [arena for seed in range(20) for arena in [standings(drawn(KNOWN, 100, seed))]]
    biased = [standings(drawn(KNOWN, 100, 100 + seed, slopes=(0.8, -0.3))) for seed in range(20)]
    covered = {
        "judged": [_covers(m.judged.strength, KNOWN[n]) for arena in plain for n, m in enumerate(arena.models)],
        "styled": [_covers(m.styled, KNOWN[n]) for arena in biased for n, m in enumerate(arena.models)],
    }
    for what, found in covered.items():
        assert 0.8 <= sum(found) / len(found) <= 0.97, (what, sum(found), len(found))


def _covers(found: Strength | None, truth: float) -> bool:
    assert found is not None and found.at_90 is not None and found.at_95 is not None
    assert found.at_95[0] <= found.at_90[0] <= found.value <= found.at_90[1] <= found.at_95[1]
    return found.at_90[0] <= truth <= found.at_90[1]


def test_the_interval_of_a_strength_is_that_of_its_win_rate() -> None:
    for m in standings(drawn(KNOWN, 60, 1)).models:
        rate, found = m.judged.win_rate, m.judged.strength
        ends = [math.log(end / (1 - end)) for end in (rate.low, rate.high)]  # type: ignore[operator]
        assert found is not None and found.at_95 == pytest.approx(tuple(ends), abs=1e-9)


# ------------------------------------------------------------------ scores


def test_a_clear_verdict_weighs_three_and_a_tie_is_half_a_win() -> None:
    found = model(standings([match("m", 1, ("B>>A", "A=B")), match("m", 2, ("A>>B", "B>A")), match("m", 3, ("A>B", "A>>B"))]), "m")
    assert found.judged.win_rate.value == pytest.approx((3 + 0.5 + 3) / (3 + 1 + 3 + 1 + 1 + 3))
    assert found.judged.win_rate.of == 6


def test_three_models_stand_in_the_obvious_order_by_judge_and_by_clock() -> None:
    arena = standings(many(three_models()))
    assert places(arena) == (["fast", "half", "slow"], ["fast", "half", "slow"])
    assert [m.judged.rank for m in arena.models] == [1, 3, 4]  # the baseline is in second place
    assert arena.consistency.value == arena.agreement.value == arena.kappa == 1
    assert arena.tau == pytest.approx(1)
    assert arena.ranked


def test_the_order_of_matches_changes_nothing() -> None:
    matches = scattered(7)
    shuffled = random.Random(1).sample(matches, len(matches))
    assert standings(shuffled) == standings(matches)


def test_a_judge_that_always_says_a_has_no_consistency_and_ranks_nobody() -> None:
    always = [
        replace(one, games=match("m", 1, ("A>B", "A>B")).games) if one.decided == "judge" else one for one in many(three_models())
    ]
    arena = standings(always)
    assert arena.consistency.value == 0 and not arena.ranked
    assert all(m.judged.rank is None and m.judged.strength is None and m.styled is None for m in arena.models)
    assert arena.tau is None
    assert [m.measured.rank for m in arena.models] == [1, 2, 4]  # by the clock half of them wrong is as good as the baseline


def test_what_correctness_decided_says_nothing_of_the_judge() -> None:
    arena = standings([match("m", 1, fair("A>>B"), theirs=wrong(), decided="correctness"), match("m", 2, ("A>B", "A>B"))])
    assert (arena.consistency.value, arena.consistency.of) == (0, 1)
    assert arena.agreement.of == 1 and arena.judged_matches == 1


def test_games_agree_where_they_name_one_winner_however_clear() -> None:
    labels = [("B>>A", "A>B"), ("A=B", "A=B"), ("B>A", "A=B"), ("B>A", "B>A"), ("B>A", None)]
    found = standings([match("m", number, games) for number, games in enumerate(labels)]).consistency
    assert (found.value, found.of) == (0.5, 4)


def test_null_games_count_nowhere_and_are_counted_by_reason() -> None:
    rng = random.Random(5)
    matches = [
        replace(one, games=tuple(match("m", 1, (None, None)).games[0] if rng.random() < 0.1 else game for game in one.games))
        for one in drawn(KNOWN, 100, 4)
    ]
    nulls = sum(game.score is None for one in matches for game in one.games)
    arena = standings(matches)
    assert 60 < nulls < 140
    assert sum(m.judged.win_rate.of for m in arena.models) == 1000 - nulls
    assert sum(m.nulls["judge_bad_reply"] for m in arena.models) == nulls
    assert {name for m in arena.models for name in m.nulls} == {"judge_bad_reply"}


def test_a_model_whose_games_are_all_null_has_no_strength() -> None:
    arena = standings([match("lost", 1, (None, None)), match("m", 1, fair("A>B")), match("m", 2, fair("B>A"))])
    found = model(arena, "lost").judged
    assert (found.rank, found.strength, found.win_rate.value, found.win_rate.of) == (None, None, None, 0)
    assert strength(model(arena, "m").judged.strength) == 0


def test_win_rates_by_category_are_over_its_games() -> None:
    found = model(standings(many(three_models(4))), "half").by_category
    assert [(name, rate.value, rate.of) for name, rate in found.items()] == [("level1", 0.0, 4), ("level2", 1.0, 4)]


def test_two_judges_or_baselines_are_no_one_table() -> None:
    ours = match("m", 1, fair("A>B"))
    with pytest.raises(ConfigError, match="one baseline, and these judgments have 2"):
        standings([ours, match("n", 1, fair("A>B"), baseline="other")])
    with pytest.raises(ConfigError, match="one judge"):
        standings([ours, match("n", 1, fair("A>B"), judge="other")])


# ------------------------------------------------------------------ all or nothing


def test_who_wins_every_game_has_no_finite_strength_and_no_interval() -> None:
    arena = standings([match(name, number, fair(label)) for number in range(9) for name, label in (("w", "A>B"), ("l", "B>>A"))])
    won, lost = model(arena, "w").judged.strength, model(arena, "l").judged.strength
    assert (won, lost) == (Strength(math.inf, None, None), Strength(-math.inf, None, None))


def test_an_interval_has_no_end_where_draws_win_everything() -> None:
    labels = ["A>B"] * 9 + ["B>A"]
    found = standings([match("m", number, fair(label)) for number, label in enumerate(labels)]).models[0].judged.strength
    assert found is not None and found.at_90 is not None
    assert math.isfinite(found.value) and math.isfinite(found.at_90[0]) and found.at_90[1] == math.inf


def test_where_style_decides_every_game_there_is_no_strength_at_equal_style() -> None:
    matches = [
        match("m", number, fair("A>B" if number % 2 else "B>A"), ours=correct(1.0, 60 if number % 2 else 20))
        for number in range(20)
    ]
    arena = standings(matches)
    assert arena.style.slopes == {} and "do not tell style and strength apart" in arena.style.note
    assert model(arena, "m").styled is None and strength(model(arena, "m").judged.strength) == 0


def test_where_style_goes_with_the_model_there_is_no_strength_at_equal_style() -> None:
    matches = [match("m", number, fair("A>B" if number % 3 else "B>A"), ours=correct(1.0, 90, 9)) for number in range(20)]
    assert "do not tell" in standings(matches).style.note


def test_style_that_does_not_vary_is_left_out() -> None:
    rng = random.Random(2)
    matches = [
        match("m", number, fair(rng.choice(LABELS)), ours=correct(1.0, rng.randrange(10, 90), 0), theirs=correct(1.0, 50, 0))
        for number in range(40)
    ]
    assert list(standings(matches).style.slopes) == ["code length"]
    alike = [replace(one, model_kernel=one.baseline_kernel) for one in matches]
    assert "do not differ in style" in standings(alike).style.note


def test_without_kernels_there_is_neither_style_nor_clock() -> None:
    arena = standings([match("m", 1, fair("A>B"), ours=None, theirs=None), match("m", 2, fair("B>A"), ours=None, theirs=None)])
    assert "of 2 judged matches the kernels are not known" in arena.style.note
    assert arena.models[0].measured.strength is None and arena.models[0].measured.win_rate.value is None
    assert arena.agreement.value is None and arena.kappa is None


MATCHES = st.lists(
    st.builds(
        lambda name, number, games, code, comments, speedup: match(
            name, number, games, ours=correct(speedup, code, comments), theirs=correct(1.0, 30, 3)
        ),
        st.sampled_from("ab"),
        st.integers(1, 6),
        st.tuples(st.sampled_from([*LABELS, None]), st.sampled_from([*LABELS, None])),
        st.integers(0, 60),
        st.integers(0, 9),
        st.sampled_from([0.5, 1.0, 2.0, None]),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda one: (one.model, one.uid),
)


@given(MATCHES)
@settings(max_examples=30, deadline=None)
def test_no_games_however_few_break_a_fit(matches: list[Match]) -> None:
    """And where there is an interval, the value is in it."""
    for m in standings(matches).models:
        for found in (m.judged.strength, m.styled, m.measured.strength):
            for bounds in () if found is None else (found.at_90, found.at_95):
                assert bounds is None or (found is not None and bounds[0] <= found.value <= bounds[1])


def test_a_draw_that_does_not_tell_could_be_anything() -> None:
    """Of three problems each has some: there are draws without a game of the first model, and a few without the second."""
    one = Played(np.array([0]), np.array([2.0]), np.array([1.0]), np.empty((1, 0)))
    two = Played(np.array([1, 2]), np.array([2.0, 2.0]), np.array([0.5, 1.5]), np.empty((2, 0)))
    found = fit([one, two], 3)
    assert found is not None
    assert found.strengths_M[0] == Strength(0.0, None, None)
    assert found.strengths_M[1].at_95 == (-math.inf, math.inf)


# ------------------------------------------------------------------ the clock


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        (correct(2.0), correct(1.0), 1.0),
        (correct(1.0), correct(2.0), 0.0),
        (correct(1.04), correct(1.0), 0.5),
        (correct(1.0), correct(1.04), 0.5),
        (correct(1.06), correct(1.0), 1.0),
        (correct(0.5), wrong(), 1.0),
        (correct(None), wrong(), 1.0),
        (wrong(), correct(None), 0.0),
        (wrong(), wrong(), 0.5),
        (correct(None), correct(1.0), None),
        (PLAIN, None, None),
    ],
)
def test_what_the_clock_says(ours: Kernel | None, theirs: Kernel | None, outcome: float | None) -> None:
    assert by_clock(match("m", 1, fair("A>B"), ours=ours, theirs=theirs)) == outcome


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_clock_has_no_side(a: float, b: float) -> None:
    one, other = (by_clock(match("m", 1, fair("A>B"), ours=correct(x), theirs=correct(y))) for x, y in ((a, b), (b, a)))
    assert one is not None and other is not None and one + other == 1
    assert (one == 0.5) == (max(a, b) <= ALIKE * min(a, b))


def test_agreement_beyond_chance_and_of_orders_are_the_known_ones() -> None:
    arena = standings(matches := scattered(11))
    judge, clock = [], []
    for one in matches:
        shares = {1 - SAYS[one.games[0].score][0], SAYS[one.games[1].score][0]}  # type: ignore[index]
        if one.decided == "judge":
            judge.append(shares.pop() if len(shares) == 1 else 0.5)
            clock.append(by_clock(one))
    assert arena.kappa == pytest.approx(cohen_kappa_score(np.array(judge) * 2, np.array(clock) * 2))
    assert arena.agreement.value == pytest.approx(np.mean(np.array(judge) == np.array(clock)))
    rates = [(m.judged.win_rate.value, m.measured.win_rate.value) for m in arena.models]
    assert arena.tau == pytest.approx(kendalltau(*zip(*rates, strict=True)).statistic)

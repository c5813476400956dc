"""The estimators against brute force, and what counts in which denominator."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_env.errors import ConfigError
from kernel_env.schema import Episode, Generation, Status, StopReason, Thinking, Usage, from_json, to_json
from rollout.documents import results_of
from rollout.metrics import (
    Estimate,
    Kind,
    Metrics,
    best_reward,
    best_speedup,
    completed,
    grouped,
    is_correct,
    is_fast,
    measure,
    mixture,
    pass_at,
    pass_at_k,
    ratio,
)
from rollout.policies.base import Endpoint
from tests.sample_run import problem, run_info, solved, turn
from tests.synthetic import Recipe, episodes, info
from tests.test_report import ASKED, every_kind

FEW = settings(max_examples=60)
COUNTS = st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))
NUMBERS = st.floats(-50, 50)


def once(problem_id: int, status: Status = Status.CORRECT, speedup: float | None = None, sample: int = 0) -> Episode:
    """One turn."""
    reward = None if status is Status.NEEDS_DEVICE else float(status is Status.CORRECT)
    posed = problem(problem_id)
    stop = StopReason.UNSCORED if reward is None else StopReason.TURN_LIMIT
    return Episode(posed, sample, (turn(0, status, reward, speedup=speedup, posed=posed),), stop)


def keys(*sizes: int) -> tuple[str, ...]:
    """So many samples of problem 1, 2, ..."""
    return tuple(
        f"level1_problem{number}" + (f"_sample{sample}" if sample else "")
        for number, size in enumerate(sizes, 1)
        for sample in range(size)
    )


# ------------------------------------------------------------------ pass@k


@given(COUNTS)
@FEW
def test_pass_at_k_is_the_share_of_all_choices_of_k_samples_that_hold_a_success(counts: tuple[int, int, int]) -> None:
    n, c, k = counts
    choices = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, choices)) / len(choices), abs=1e-12)


def test_pass_at_k_with_worked_numbers() -> None:
    assert [pass_at_k(4, 1, k) for k in (1, 2, 4)] == [0.25, 0.5, 1.0]
    assert pass_at_k(250, 1, 250) == 1.0 and pass_at_k(250, 0, 7) == 0.0


@pytest.mark.parametrize(("n", "c", "k"), [(2, 1, 3), (2, 3, 1), (2, -1, 1), (2, 1, 0)])
def test_pass_at_k_cannot_be_told_of_fewer_than_k_samples(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{k} of {c} successes in {n} samples"):
        pass_at_k(n, c, k)


def test_a_problem_with_fewer_than_k_samples_is_in_no_pass_at_k_and_no_such_k_is_measured() -> None:
    found = [once(1), once(1, Status.WRONG_OUTPUT, sample=1), once(2, sample=0)]
    groups = grouped(keys(2, 1), found)
    assert pass_at(groups, 2, is_correct()).of == 1
    assert [p.k for p in measure(keys(2, 1), found).pass_at_k] == [1]
    assert [p.k for p in measure(keys(6, 7), found).pass_at_k] == [1, 2, 4, 6]


def test_each_problem_weighs_the_same_however_many_samples_it_has() -> None:
    found = [once(1), *(once(2, Status.WRONG_OUTPUT, sample=sample) for sample in range(3))]
    assert measure(keys(1, 3), found).correct == Estimate(0.5, 0.0, 1.0, 2)


# ------------------------------------------------------------------ denominators


def test_what_did_not_run_failed_or_is_unscored_stays_in_all_that_was_asked_for() -> None:
    found = measure(ASKED, every_kind())
    assert (found.problems, found.samples, found.completed) == (9, 9, 4)
    assert (found.correct.value, found.correct.of) == (pytest.approx(4 / 9), 9)
    fast_1 = found.fast_p[3]
    assert fast_1.p == 1.0
    assert (fast_1.asked.value, fast_1.asked.of) == (pytest.approx(3 / 9), 9)  # 1, 2, and 6, which failed later
    assert (fast_1.completed.value, fast_1.completed.of) == (pytest.approx(2 / 4), 4)
    assert (found.speedup.value, found.speedup.of) == (pytest.approx((2.5 * 2.0 * 0.5 * 1.5) ** 0.25), 4)


def test_completed_samples_ended_on_their_own_with_every_turn_scored() -> None:
    assert list(completed(grouped(ASKED, every_kind()))) == [f"level1_problem{number}" for number in range(1, 5)]


def test_a_correct_kernel_without_a_time_is_in_no_fast_p_and_counted() -> None:
    found = measure(keys(1, 1), [once(1), once(2, speedup=1.5)])
    assert (found.correct.value, found.untimed, found.speedup.of) == (1.0, 1, 1)
    assert [share.asked.value for share in found.fast_p] == [0.5] * 4 + [0.0] * 2


def test_an_episode_that_ended_keeps_its_best_in_later_turns() -> None:
    found = measure(keys(1, 1), [solved(), once(2, speedup=1.2)]).by_turn  # rewards 0, 0.1, 2.5 and 1
    assert [b.reward.value for b in found] == pytest.approx([0.5, 0.55, 1.75])
    assert [b.correct.value for b in found] == [0.5, 0.5, 1.0]
    assert [b.fast_1.value for b in found] == [0.5, 0.5, 1.0]


def test_a_later_turn_that_is_worse_takes_nothing_away() -> None:
    worse = replace(every_kind()[2], problem=problem())  # correct at half speed, then a crash and a timeout
    assert (best_speedup(worse), best_reward(worse), best_reward(worse, 1)) == (0.5, 1.0, 1.0)
    assert is_correct(1)(worse) and is_fast(0.4)(worse) and not is_fast(0.5)(worse)


def test_steps_count_both_directions_and_average_the_change() -> None:
    into_2, into_3 = measure(ASKED, every_kind()).steps
    assert (into_2.improved, into_2.unchanged, into_2.worse, into_2.change.of) == (2, 0, 1, 3)
    assert into_2.change.value == pytest.approx((0.1 - 0.9 + 0.1) / 3)
    assert (into_3.improved, into_3.unchanged, into_3.worse) == (1, 1, 0)


def test_a_run_without_an_ended_episode_has_metrics_of_nothing() -> None:
    found = measure(ASKED, [])
    assert (found.correct.value, found.correct.of, found.fast_p[0].completed) == (0.0, 9, Estimate(None, None, None, 0))
    assert (found.by_turn, found.steps, found.speedup.value, found.spending.cost) == ((), (), None, None)
    nothing = measure((), [])
    assert (nothing.problems, nothing.pass_at_k, nothing.correct.value) == (0, (), None)


def test_errors_are_ranked_by_status_and_finer_word() -> None:
    found = measure(ASKED, every_kind())
    assert found.turn_errors[0] == Kind("build_error", "", 1)
    assert Kind("crashed", "SIGSEGV", 1) in found.turn_errors and Kind("needs_device", "", 1) in found.turn_errors
    failed = replace(every_kind()[5], error="verifier: a referee died")
    assert measure(ASKED, [failed]).episode_errors == (Kind("infra_error", "verifier", 1),)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"profile": "gpu24"}, r"mixed size profiles \(full; gpu24\): use a run for each"),
        ({"clock": "recorded"}, r"mixed clocks \(live; recorded\)"),
        ({"mode": "imported"}, r"mixed ways of verification \(imported; process\)"),
    ],
)
def test_no_metrics_over_verdicts_that_mean_different_things(change: dict[str, str], words: str) -> None:
    first = once(1)
    other = replace(first.turns[0], verdict=replace(first.turns[0].verdict, **change))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=words):
        measure(keys(2), [first, Episode(first.problem, 1, (other,), StopReason.TURN_LIMIT)])
    assert mixture([first]) == ""


def test_no_metrics_over_times_of_different_hardware() -> None:
    """A run may be resumed on another machine. Its verdicts stay; its times cannot be averaged."""
    first, second = once(1, speedup=2.0), once(2, speedup=2.0)
    here, there = (
        replace(e, turns=(replace(t, verdict=replace(t.verdict, timing=replace(t.verdict.timing, hardware=name))),))
        for e, name in ((first, "one, 2 cores"), (second, "another, 2 cores"))
        for t in e.turns
        if t.verdict.timing is not None
    )
    assert mixture([here, here]) == mixture([first, here]) == ""
    assert mixture([here, there]) == "no metrics over mixed hardware (another, 2 cores; one, 2 cores): use a run for each"


def test_a_reply_without_code_mixes_nothing() -> None:
    """No verifier had a say in it, so it has none of a verifier's marks."""
    first = once(1)
    way: dict[str, Any] = {"mode": "inprocess", "clock": "recorded"}
    verified = replace(first.turns[0], verdict=replace(first.turns[0].verdict, **way))
    unread = once(1, Status.NO_CODE, sample=1)
    empty = replace(unread.turns[0], verdict=replace(unread.turns[0].verdict, tolerance=""))
    ended = [replace(first, turns=(verified,)), replace(unread, turns=(empty,))]
    assert measure(keys(2), ended).correct.value == 0.5
    metadata = results_of(run_info(asked=keys(2)), ended).metadata
    assert (metadata.verification, metadata.clocks) == (("inprocess",), ("recorded",))


# ------------------------------------------------------------------ what it took


def test_tokens_seconds_and_cost_of_all_turns_are_shared_by_the_problems_that_were_solved() -> None:
    right, wrong = once(1, speedup=2.0), once(2, Status.WRONG_OUTPUT)
    asking = Thinking("self", True, "yes", True, Usage(10, 1), 0.5)
    said = Generation("x", usage=Usage(1000, 200), duration_s=2.0)
    turns = [replace(e.turns[0], generation=said, thinking=asking) for e in (right, wrong)]
    played = [replace(e, turns=(t,)) for e, t in zip((right, wrong), turns, strict=True)]
    prices = Endpoint(price_per_million_prompt=1.0, price_per_million_completion=10.0)
    spent = measure(keys(1, 1), played, prices.cost).spending
    assert (spent.prompt_tokens, spent.completion_tokens, spent.policy_s) == (2020, 402, 5.0)
    assert spent.cost == pytest.approx((2020 + 4020) / 1e6)
    assert (spent.tokens_per_solved.value, spent.tokens_per_solved.of) == (2422, 1)
    assert spent.cost_per_solved is not None and spent.cost_per_solved.value == pytest.approx(spent.cost)
    assert measure(keys(1, 1), played).spending.cost_per_solved is None


def test_a_cost_per_solved_problem_has_no_upper_bound_where_perhaps_none_is_solved() -> None:
    found = ratio([1.0, 1.0, 1.0], [1, 0, 0])
    assert (found.value, found.high) == (3.0, None) and found.low is not None


def test_there_is_nothing_per_solved_problem_where_none_was_solved() -> None:
    assert measure(keys(1), [once(1, Status.WRONG_OUTPUT)]).spending.policy_s_per_solved.value is None


# ------------------------------------------------------------------ intervals


@given(st.lists(st.tuples(NUMBERS, st.integers(0, 3)), min_size=1, max_size=12))
@FEW
def test_an_interval_holds_its_value(problems: list[tuple[float, int]]) -> None:
    found = ratio([a if b else 0.0 for a, b in problems], [b for _, b in problems])
    if found.value is None:
        assert not any(b for _, b in problems)
    elif found.low is not None and found.high is not None:
        assert found.low <= found.value <= found.high


@given(st.lists(NUMBERS, min_size=2, max_size=12))
@FEW
def test_an_interval_is_the_same_each_time_and_moves_with_its_numbers(values: list[float]) -> None:
    ones = [1] * len(values)
    found, moved = ratio(values, ones), ratio([value + 10 for value in values], ones)
    assert found == ratio(list(values), list(ones))
    if found.low is not None and moved.low is not None:
        assert moved.low == pytest.approx(found.low + 10, abs=1e-6)


@pytest.mark.parametrize("values", [[0.5], [1.0, 1.0, 1.0], [0.0, 0.0], [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]])
def test_there_is_no_interval_of_one_problem_or_of_problems_that_are_all_alike(values: list[float]) -> None:
    found = ratio(values, [1] * len(values))
    assert (found.low, found.high) == (None, None) and found.value == pytest.approx(values[0])


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Of 400 samples of 40 problems from one distribution, whose mean is 1."""
    rng = np.random.default_rng(1)
    samples = rng.exponential(1.0, size=(400, 40))
    held = sum((e.low or 0) <= 1.0 <= (e.high or math.inf) for e in (ratio(list(row), [1] * 40) for row in samples))
    assert 0.88 * 400 <= held <= 0.98 * 400


def test_more_samples_of_the_same_problems_do_not_narrow_an_interval_over_problems() -> None:
    one = [once(number, Status.CORRECT if number % 2 else Status.WRONG_OUTPUT) for number in range(1, 9)]
    four = [replace(e, sample=sample) for e in one for sample in range(4)]
    assert measure(keys(*[1] * 8), one).correct == measure(keys(*[4] * 8), four).correct


# ------------------------------------------------------------------ records


def test_metrics_survive_a_round_through_json() -> None:
    recipe = Recipe(failures=0.3)
    found = measure(info(recipe).asked, episodes(recipe), Endpoint(price_per_million_prompt=1.0).cost)
    assert from_json(Metrics, to_json(found)) == found
    assert found.speed_of_light.of < found.speedup.of


def test_metrics_do_not_depend_on_the_order_of_episodes() -> None:
    recipe = Recipe(failures=0.3)
    ended = episodes(recipe)
    assert measure(info(recipe).asked, ended) == measure(info(recipe).asked, ended[::-1])

"""Returns and advantages: worked numbers, and what an unscored turn does to them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.returns import (
    ADVANTAGES,
    GROUP_RETURNS,
    RETURNS,
    among_all_turns,
    among_turn_index,
    best_returns,
    dr_grpo,
    grpo,
    loo_per_turn_index,
    per_turn_returns,
    reinforce,
    rloo,
    trajectory_return,
)

GAMMA = 0.4


def test_trajectory_return_is_r1_plus_gamma_r2_plus_gamma_squared_r3() -> None:
    # 0.1 + 0.4 * 1.0 + 0.16 * 2.5
    assert trajectory_return((0.1, 1.0, 2.5), GAMMA) == pytest.approx(0.9)


def test_a_single_turn_returns_its_own_reward() -> None:
    assert trajectory_return((1.75,), GAMMA) == 1.75


def test_gamma_zero_keeps_the_first_reward_and_gamma_one_adds_up() -> None:
    assert trajectory_return((0.1, 1.0, 2.5), 0.0) == 0.1
    assert trajectory_return((0.1, 1.0, 2.5), 1.0) == pytest.approx(3.6)


def test_each_turn_is_credited_with_what_follows_it() -> None:
    # last: 2.5; middle: 1.0 + 0.4 * 2.5 = 2.0; first: 0.1 + 0.4 * 2.0 = 0.9
    assert per_turn_returns((0.1, 1.0, 2.5), GAMMA) == pytest.approx((0.9, 2.0, 2.5))


def test_failed_turns_count_as_zero() -> None:
    assert per_turn_returns((0.0, 0.0, 1.0), GAMMA) == pytest.approx((0.16, 0.4, 1.0))


def test_an_unscored_turn_is_not_a_zero() -> None:
    assert trajectory_return((0.1, None, 1.0), GAMMA) is None
    assert trajectory_return((None,), GAMMA) is None


def test_returns_after_an_unscored_turn_stay_known() -> None:
    assert per_turn_returns((0.1, None, 1.0, 2.0), GAMMA) == (None, None, pytest.approx(1.8), 2.0)


def test_a_trajectory_without_turns_has_no_return() -> None:
    assert trajectory_return((), GAMMA) is None
    assert per_turn_returns((), GAMMA) == ()


def test_the_best_that_a_turn_led_to_is_discounted_by_its_distance() -> None:
    # last: 2.5; middle: 1.0 against 0.4 * 2.5 = 1.0; first: 0.1 against 0.4 * 1.0
    assert best_returns((0.1, 1.0, 2.5), GAMMA) == pytest.approx((0.4, 1.0, 2.5))
    assert best_returns((1.0, 3.0, 0.5), 1.0) == (3.0, 3.0, 0.5)


def test_the_best_of_bad_turns_is_no_zero() -> None:
    assert best_returns((-1.0, -2.0), 1.0) == (-1.0, -2.0)


def test_an_unscored_turn_could_have_been_the_best() -> None:
    assert best_returns((3.0, None, 1.0), 1.0) == (None, None, 1.0)
    assert best_returns((), 1.0) == ()


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan")])
def test_a_discount_outside_of_the_unit_interval_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must lie in"):
        trajectory_return((1.0,), gamma)
    for returns in RETURNS.values():
        with pytest.raises(ValueError, match="gamma must lie in"):
            returns((1.0,), gamma)
    for group_returns in GROUP_RETURNS.values():
        with pytest.raises(ValueError, match="gamma must lie in"):
            group_returns([(1.0,), ()], gamma)


def test_the_registry_gives_one_return_a_turn() -> None:
    rewards_T = (0.1, 1.0, 2.5)
    assert RETURNS["trajectory"](rewards_T, GAMMA) == pytest.approx((0.9, 0.9, 0.9))
    assert RETURNS["per_turn"](rewards_T, GAMMA) == pytest.approx((0.9, 2.0, 2.5))
    assert RETURNS["best"](rewards_T, GAMMA) == pytest.approx((0.4, 1.0, 2.5))


@given(st.lists(st.floats(0, 3), min_size=1, max_size=8), st.floats(0, 1))
def test_the_recursion_equals_the_sum_that_defines_it(rewards_T: list[float], gamma: float) -> None:
    for t, value in enumerate(per_turn_returns(rewards_T, gamma)):
        assert value == pytest.approx(sum(gamma ** (i - t) * r for i, r in enumerate(rewards_T) if i >= t))


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=8), st.floats(0, 1))
def test_the_best_equals_the_maximum_that_defines_it(rewards_T: list[float], gamma: float) -> None:
    for t, value in enumerate(best_returns(rewards_T, gamma)):
        assert value == pytest.approx(max(gamma ** (i - t) * r for i, r in enumerate(rewards_T) if i >= t))


# ------------------------------------------------------------------ advantages

RETURNS_N = (1.0, 2.0, 3.0, 6.0)
"""Mean 3; squared distances 4, 1, 0, 9."""


def test_without_a_baseline_the_return_is_the_advantage() -> None:
    assert reinforce(RETURNS_N) == RETURNS_N


def test_dr_grpo_takes_the_mean_off() -> None:
    assert dr_grpo(RETURNS_N) == (-2.0, -1.0, 0.0, 3.0)


def test_grpo_divides_by_the_standard_deviation_too() -> None:
    std = (14 / 3) ** 0.5
    assert grpo(RETURNS_N) == pytest.approx((-2 / std, -1 / std, 0.0, 3 / std), rel=1e-5)


def test_leave_one_out_takes_the_mean_of_the_others_off() -> None:
    # 1 - 11/3, 2 - 10/3, 3 - 9/3, 6 - 6/3
    assert rloo(RETURNS_N) == pytest.approx((-8 / 3, -4 / 3, 0.0, 4.0))


@pytest.mark.parametrize("name", ADVANTAGES)
def test_an_unscored_sample_has_no_advantage_and_is_in_no_baseline(name: str) -> None:
    advantages = ADVANTAGES[name]
    with_gap = advantages((1.0, None, 2.0, 3.0, None, 6.0))
    assert with_gap[1] is None and with_gap[4] is None
    assert tuple(a for a in with_gap if a is not None) == advantages(RETURNS_N)
    assert advantages((None, None)) == (None, None)
    assert advantages(()) == ()


def test_equal_returns_teach_nothing_but_without_a_baseline() -> None:
    assert [ADVANTAGES[name]((2.0, 2.0)) for name in ("dr_grpo", "grpo", "rloo")] == [(0.0, 0.0)] * 3


def test_a_lone_return_is_its_own_mean_and_nobody_is_left_out_for_it() -> None:
    assert (dr_grpo((2.0,)), grpo((2.0, None)), rloo((2.0,))) == ((0.0,), (0.0, None), (2.0,))


GROUP = [(1.0, 4.0), (3.0,), (5.0, 2.0)]


def test_turns_of_the_same_index_are_compared_with_each_other() -> None:
    # first turns 1, 3, 5; second turns 4, 2
    assert among_turn_index(dr_grpo, GROUP) == ((-2.0, 1.0), (0.0,), (2.0, -1.0))
    assert among_turn_index(rloo, GROUP) == ((-3.0, 2.0), (0.0,), (3.0, -2.0))


def test_all_turns_of_a_group_can_be_compared_with_each_other() -> None:
    assert among_all_turns(dr_grpo, GROUP) == ((-2.0, 1.0), (0.0,), (2.0, -1.0))
    assert among_all_turns(dr_grpo, [(1.0, 1.0, 1.0), (5.0,)]) == ((-1.0, -1.0, -1.0), (3.0,)), "a longer one counts more often"


@pytest.mark.parametrize("arranged", [among_turn_index, among_all_turns])
def test_a_group_without_turns_has_no_advantages(arranged: Callable[..., object]) -> None:
    assert arranged(grpo, []) == ()
    assert arranged(grpo, [(), (1.0,)]) == ((), (0.0,))


def test_dr_kernels_return_leaves_each_trajectory_out_of_the_baseline_of_its_turn() -> None:
    # returns to go: 0.1 + 0.5 * 1 = 0.6, 1; 1 + 0.5 * 2 = 2, 2; 1.4
    advantages_GT = loo_per_turn_index([(0.1, 1.0), (1.0, 2.0), (1.4,)], 0.5)
    assert [pytest.approx(a) for a in advantages_GT] == [(0.6 - 1.7, 1.0 - 2.0), (2.0 - 1.0, 2.0 - 1.0), (1.4 - 1.3,)]


def test_a_turn_that_no_other_trajectory_reached_has_no_baseline() -> None:
    assert loo_per_turn_index([(1.0, 2.5), (1.0,)], 0.0) == ((0.0, 2.5), (0.0,))


def test_an_unscored_turn_is_in_no_baseline_of_dr_kernels_return() -> None:
    # the first turn of the third trajectory has no return to go, since its second is unscored
    assert loo_per_turn_index([(1.0, 4.0), (3.0, 2.0), (9.0, None)], 0.0) == ((-2.0, 2.0), (2.0, -2.0), (None, None))


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=8))
def test_a_mean_that_counts_the_sample_itself_shrinks_the_advantage(returns_N: list[float]) -> None:
    share = 1 - 1 / len(returns_N)
    for shrunk, whole in zip(dr_grpo(returns_N), rloo(returns_N), strict=True):
        assert shrunk is not None and whole is not None and shrunk == pytest.approx(share * whole, abs=1e-9)

"""Returns: worked numbers, and what an unscored turn does to them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.returns import RETURNS, per_turn_returns, trajectory_return

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


@pytest.mark.parametrize("gamma", [-0.1, 1.1, float("nan")])
def test_a_discount_outside_of_the_unit_interval_is_refused(gamma: float) -> None:
    with pytest.raises(ValueError, match="gamma must lie in"):
        trajectory_return((1.0,), gamma)
    with pytest.raises(ValueError, match="gamma must lie in"):
        per_turn_returns((1.0,), gamma)


def test_the_registry_gives_one_return_a_turn() -> None:
    rewards_T = (0.1, 1.0, 2.5)
    assert RETURNS["trajectory"](rewards_T, GAMMA) == pytest.approx((0.9, 0.9, 0.9))
    assert RETURNS["per_turn"](rewards_T, GAMMA) == pytest.approx((0.9, 2.0, 2.5))


@given(st.lists(st.floats(0, 3), min_size=1, max_size=8), st.floats(0, 1))
def test_the_recursion_equals_the_sum_that_defines_it(rewards_T: list[float], gamma: float) -> None:
    for t, value in enumerate(per_turn_returns(rewards_T, gamma)):
        assert value == pytest.approx(sum(gamma ** (i - t) * r for i, r in enumerate(rewards_T) if i >= t))

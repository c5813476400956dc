"""Discounted returns of one trajectory: pure functions of its rewards, one a turn (`rewards_T`).

A reward of None means that the turn was not scored. That is not a zero: a zero says that the candidate failed, None says
that nobody could tell. So every return that would need an unscored reward is None as well, and the caller leaves that
trajectory (or that turn) out instead of training on an invented number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence


def per_turn_returns(rewards_T: Sequence[float | None], gamma: float) -> tuple[float | None, ...]:
    """Return to go of each turn: `R_t = sum over i >= t of gamma^(i-t) * r_i`.

    The credit that Kevin (arXiv 2507.11948) gives a turn: what it earned itself and, discounted, what it led to. Solved
    backwards as `R_t = r_t + gamma * R_{t+1}`.

    Shape: (T,) to (T,). An unscored turn makes its own return and those of all earlier turns None; later ones stay known.
    Raises ValueError when gamma is outside of [0, 1].
    """
    _check(gamma)
    returns_T: list[float | None] = []
    following: float | None = 0.0
    for reward in reversed(rewards_T):
        following = None if reward is None or following is None else reward + gamma * following
        returns_T.append(following)
    return tuple(reversed(returns_T))


def trajectory_return(rewards_T: Sequence[float | None], gamma: float) -> float | None:
    """Discounted sum of the whole trajectory: `R = r_1 + gamma * r_2 + gamma^2 * r_3 + ...`.

    None when any turn is unscored, and when there is no turn: nothing was played, so there is nothing to discount.
    Raises ValueError when gamma is outside of [0, 1].
    """
    _check(gamma)
    return per_turn_returns(rewards_T, gamma)[0] if rewards_T else None


def broadcast_trajectory_return(rewards_T: Sequence[float | None], gamma: float) -> tuple[float | None, ...]:
    """The trajectory's return as the credit of each of its turns. Shape: (T,) to (T,)."""
    return (trajectory_return(rewards_T, gamma),) * len(rewards_T)


Returns = Callable[[Sequence[float | None], float], tuple[float | None, ...]]
"""Rewards of a trajectory and gamma to one return a turn."""

RETURNS: Mapping[str, Returns] = {"trajectory": broadcast_trajectory_return, "per_turn": per_turn_returns}
"""By the name that the configuration uses."""


def _check(gamma: float) -> None:
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma}")

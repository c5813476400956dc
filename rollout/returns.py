"""Returns of trajectories, and advantages within a group: pure functions of rewards, one a turn.

Names end in their axes: `_T` are the turns of one trajectory, `_GT` those of each trajectory of a group, that is of the samples of
one problem. Trajectories have different numbers of turns, so `_GT` is a tuple of tuples, and turn t of one is compared with turn t
of those others that have one.

A reward of None means that the turn was not scored. That is not a zero: a zero says that the candidate failed, None says
that nobody could tell. So every return that would need an unscored reward is None as well, the advantage of such a return is None,
and no baseline counts it: the caller leaves that trajectory (or that turn) out instead of training on an invented number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

STD_FLOOR = 1e-6
"""Added to a standard deviation before anything is divided by it."""


def per_turn_returns(rewards_T: Sequence[float | None], gamma: float) -> tuple[float | None, ...]:
    """Return to go of each turn: `R_t = sum over i >= t of gamma^(i-t) * r_i`.

    The credit that Kevin (arXiv 2507.11948) gives a turn: what it earned itself and, discounted, what it led to. Solved
    backwards as `R_t = r_t + gamma * R_{t+1}`.

    Shape: (T,) to (T,). An unscored turn makes its own return and those of all earlier turns None; later ones stay known.
    Raises ValueError when gamma is outside of [0, 1].
    """
    return _backwards(rewards_T, gamma, lambda reward, following: reward + following)


def best_returns(rewards_T: Sequence[float | None], gamma: float) -> tuple[float | None, ...]:
    """The best that is still to come, of each turn: `R_t = max over i >= t of gamma^(i-t) * r_i`.

    With gamma 1 the first turn's is the best reward of the trajectory: what matters where the best kernel is kept. Kevin (arXiv
    2507.11948) compares this with the sum. Solved backwards as `R_t = max(r_t, gamma * R_{t+1})`.

    Shape: (T,) to (T,). None as in `per_turn_returns`. Raises ValueError when gamma is outside of [0, 1].
    """
    return _backwards(rewards_T, gamma, max)


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

RETURNS: Mapping[str, Returns] = {
    "trajectory": broadcast_trajectory_return,
    "per_turn": per_turn_returns,
    "best": best_returns,
}
"""Those of one trajectory, by the name that the configuration uses."""


# ------------------------------------------------------------------ advantages

Advantages = Callable[[Sequence[float | None]], tuple[float | None, ...]]
"""Returns that are compared with each other to one advantage each. Shape: (N,) to (N,); None stays None and counts nowhere."""


def reinforce(returns_N: Sequence[float | None]) -> tuple[float | None, ...]:
    """`A_i = R_i`: REINFORCE (Williams, 1992) without a baseline."""
    return tuple(returns_N)


def dr_grpo(returns_N: Sequence[float | None]) -> tuple[float | None, ...]:
    """`A_i = R_i - mean(R)`: Dr. GRPO (arXiv 2503.20783), which leaves the division out: it weighs problems by how
    little their returns spread.

    The mean counts R_i itself, so in expectation this is 1 - 1/N of the leave-one-out advantage.
    """
    mean = _mean(_known(returns_N))
    return tuple(None if value is None else value - mean for value in returns_N)


def grpo(returns_N: Sequence[float | None]) -> tuple[float | None, ...]:
    """`A_i = (R_i - mean(R)) / std(R)`: GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    The paper does not say which std; like the trainers (verl, TRL) this one divides by N - 1. Equal returns, and a lone one, have
    an advantage of 0.
    """
    known = _known(returns_N)
    mean = _mean(known)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / max(len(known) - 1, 1))
    return tuple(None if value is None else (value - mean) / (std + STD_FLOOR) for value in returns_N)


def rloo(returns_N: Sequence[float | None]) -> tuple[float | None, ...]:
    """`A_i = R_i - mean over j != i of R_j`: REINFORCE leave-one-out (Kool et al., 2019; arXiv 2402.14740).

    The baseline does not depend on what sample i did, so the gradient has no bias. A lone return has the baseline 0.
    """
    known = _known(returns_N)
    total, others = math.fsum(known), max(len(known) - 1, 1)
    return tuple(None if value is None else value - (total - value if len(known) > 1 else 0.0) / others for value in returns_N)


ADVANTAGES: Mapping[str, Advantages] = {"reinforce": reinforce, "dr_grpo": dr_grpo, "grpo": grpo, "rloo": rloo}


def among_turn_index(advantages: Advantages, returns_GT: Sequence[Sequence[float | None]]) -> tuple[tuple[float | None, ...], ...]:
    """Advantages among the turns of the same index. Shape: (G, T) to (G, T)."""
    longest = max(map(len, returns_GT), default=0)
    columns = []
    for index in range(longest):
        columns.append(iter(advantages([returns_T[index] for returns_T in returns_GT if len(returns_T) > index])))
    return tuple(tuple(next(columns[index]) for index in range(len(returns_T))) for returns_T in returns_GT)


def among_all_turns(advantages: Advantages, returns_GT: Sequence[Sequence[float | None]]) -> tuple[tuple[float | None, ...], ...]:
    """Advantages among all turns of the group, each a sample of its own. Shape: (G, T) to (G, T).

    A longer trajectory counts more often in the baseline.
    """
    found = iter(advantages([value for returns_T in returns_GT for value in returns_T]))
    return tuple(tuple(next(found) for _ in returns_T) for returns_T in returns_GT)


def loo_per_turn_index(rewards_GT: Sequence[Sequence[float | None]], gamma: float) -> tuple[tuple[float | None, ...], ...]:
    """TRLOO of Dr. Kernel (arXiv 2602.05885): `A_it = R_it - mean over j != i of R_jt`, with the return to go `R_it`.

    j runs over the trajectories of the group that have a scored turn t: histories of different lengths are different states, and a
    trajectory that is its own baseline would shrink the gradient by 1 - 1/N, the more the fewer reach turn t. A turn that no
    other trajectory reached has the baseline 0, as in the authors' code (`compute_multi_turn_rloo_outcome_advantage`).

    Shape: (G, T) to (G, T). Raises ValueError when gamma is outside of [0, 1].
    """
    return among_turn_index(rloo, [per_turn_returns(rewards_T, gamma) for rewards_T in rewards_GT])


GroupReturns = Callable[[Sequence[Sequence[float | None]], float], tuple[tuple[float | None, ...], ...]]
"""Rewards of a group and gamma to the credit of each turn."""

GROUP_RETURNS: Mapping[str, GroupReturns] = {"loo_per_turn_index": loo_per_turn_index}
"""Those that need the whole group, by the name that the configuration uses."""


def credits(name: str, rewards_GT: Sequence[Sequence[float | None]], gamma: float) -> tuple[tuple[float | None, ...], ...]:
    """The credit of each turn of a group by the name that the configuration uses. Shape: (G, T) to (G, T)."""
    if name in GROUP_RETURNS:
        return GROUP_RETURNS[name](rewards_GT, gamma)
    return tuple(RETURNS[name](rewards_T, gamma) for rewards_T in rewards_GT)


# ------------------------------------------------------------------ parts


def _backwards(rewards_T: Sequence[float | None], gamma: float, join: Callable[[float, float], float]) -> tuple[float | None, ...]:
    """`R_T = r_T`, then `R_t = join(r_t, gamma * R_{t+1})`; None from an unscored turn on backwards."""
    _check(gamma)
    returns_T: list[float | None] = []
    for reward in reversed(rewards_T):
        if not returns_T or reward is None:
            returns_T.append(reward)
        else:
            following = returns_T[-1]
            returns_T.append(None if following is None else join(reward, gamma * following))
    return tuple(reversed(returns_T))


def _known(returns_N: Sequence[float | None]) -> list[float]:
    return [value for value in returns_N if value is not None]


def _mean(known: Sequence[float]) -> float:
    return math.fsum(known) / max(len(known), 1)


def _check(gamma: float) -> None:
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma}")

"""What a run comes to, in numbers: pure functions of its episodes, and of what it was asked for.

A problem with all its samples is one unit. Shares (`fast_p`, `pass@k`, correct) are means over problems, and every problem that
was asked for is one of them: a sample that is unscored, failed or never ran is no success, and it is not left out. `completed`
gives the same problems without such samples, for the share among those that could succeed. Other numbers are ratios of sums over
problems.

Each number is an `Estimate`: its value, what it is divided by, and a 95% interval. That is the percentile bootstrap over problems
(Efron, 1979): problems are drawn again with replacement, each with all its samples, because samples of one problem are alike. Its
draws come from a fixed seed, so the same episodes give the same interval. Where all problems are alike (all solved, none solved)
they cannot tell how sure that is, and there is no interval.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kernel_env.errors import ConfigError
from kernel_env.schema import Episode, Status, Turn, Usage, episode_key
from rollout.documents import episode_order, fastest, was_verified

THRESHOLDS = (0.0, 0.5, 0.8, 1.0, 1.5, 2.0)
"""Of `fast_p`, as KernelBench has them."""
RESAMPLES = 2000
"""Draws of the bootstrap, ..."""
SEED = 0
"""... and their seed."""
PLACES = (25, 975)
"""Of the draws in their order, per mille: the ends of a 95% interval."""

Groups = Mapping[str, Sequence[Episode | None]]
"""The samples of each problem, by its key. None: it has not ended."""
Holds = Callable[[Episode | None], bool]
"""Whether a sample is a success."""
Cost = Callable[[Usage], float | None]
"""What tokens cost, in any currency; None where no price is known."""


@dataclass(frozen=True)
class Estimate:
    value: float | None
    """None where there is nothing to divide by."""
    low: float | None
    """Ends of the 95% interval. None where there is none: fewer than two problems say anything, or all say the same."""
    high: float | None
    """None also where it has no bound: too many draws have something to divide and nothing to divide by."""
    of: int
    """What it is divided by."""

    def mapped(self, rising: Callable[[float], float]) -> Estimate:
        """Of a rising function of it."""
        value, low, high = (None if end is None else rising(end) for end in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.of)


@dataclass(frozen=True)
class FastP:
    """Share of problems with a correct kernel that is more than `p` times as fast as the baseline."""

    p: float
    asked: Estimate
    """Of all problems that were asked for."""
    completed: Estimate
    """Of those with a sample that ran to its end with every turn scored, and of such samples alone."""


@dataclass(frozen=True)
class PassAtK:
    """Chance that one of `k` samples of a problem succeeds, of all problems that were asked for."""

    k: int
    correct: Estimate
    fast_1: Estimate
    """Correct and faster than the baseline."""


@dataclass(frozen=True)
class ByTurn:
    """The best of a sample up to a turn. One that ended before keeps what it had."""

    turn: int
    """From 1."""
    reward: Estimate
    """Over samples with a scored turn by then."""
    correct: Estimate
    """Of all problems that were asked for, ..."""
    fast_1: Estimate
    """... like this."""


@dataclass(frozen=True)
class AtTurn:
    """One turn of the samples that came to it."""

    turn: int
    """From 1."""
    reward: float | None
    """Average over the `scored` ones. None without one."""
    scored: int
    unscored: int


@dataclass(frozen=True)
class Step:
    """From one turn to the next, over samples in which both were scored."""

    turn: int
    """The later one, from 1."""
    change: Estimate
    """Of the reward."""
    improved: int
    unchanged: int
    worse: int


@dataclass(frozen=True)
class Spending:
    """What all turns took, those of failed samples too. Requests that failed are in no turn."""

    prompt_tokens: int
    completion_tokens: int
    """Both with the tokens of asking whether to think."""
    policy_s: float
    """Waiting for replies, as if there had been one request at a time."""
    verify_s: float
    """Likewise verifying."""
    cost: float | None
    """None where no price is known."""
    tokens_per_solved: Estimate
    """All of them, over the number of problems with a correct kernel in any sample, ..."""
    policy_s_per_solved: Estimate
    verify_s_per_solved: Estimate
    cost_per_solved: Estimate | None
    """... and so on."""


@dataclass(frozen=True)
class Kind:
    """How often one thing went wrong."""

    name: str
    """A `Status` of a turn, or a `StopReason` of an episode."""
    reason: str
    """A finer word: the verdict's category, or the error's kind. May be empty."""
    count: int


@dataclass(frozen=True)
class Metrics:
    problems: int
    """Asked for, as are ..."""
    samples: int
    """... these."""
    completed: int
    """Samples that ran to an end of their own with every turn scored."""
    correct: Estimate
    """Share of samples with a correct turn, averaged over the problems that were asked for."""
    untimed: int
    """Samples with a correct kernel and no time for any: they count in no `fast_p` and in no speedup."""
    fast_p: tuple[FastP, ...]
    pass_at_k: tuple[PassAtK, ...]
    by_turn: tuple[ByTurn, ...]
    steps: tuple[Step, ...]
    speedup: Estimate
    """Geometric mean over the samples with a timed correct kernel, of the fastest of each."""
    speed_of_light: Estimate
    """Share of what the machine could do at its peaks (`kernel_env.roofline`), the mean over the fastest of each sample for which
    that is known."""
    spending: Spending
    turn_errors: tuple[Kind, ...]
    """Of turns that are not correct, the most frequent first; `needs_device`, which says nothing of the candidate, among them."""
    episode_errors: tuple[Kind, ...]
    """Of episodes that the policy or the infrastructure ended."""


def measure(asked: Sequence[str], episodes: Iterable[Episode], cost: Cost = lambda usage: None) -> Metrics:
    """Every metric of the ended `episodes` of a run that was asked for the episodes with the keys `asked`.

    Raises ConfigError where size profiles, clocks, ways of verification or the hardware of times are mixed: no mean over them means
    anything.
    """
    groups = grouped(asked, episodes)
    ended = [episode for group in groups.values() for episode in group if episode is not None]
    if reason := mixture(ended):
        raise ConfigError(reason)
    scored = completed(groups)
    smallest = min(map(len, groups.values()), default=0)
    turns = longest(ended)
    return Metrics(
        problems=len(groups),
        samples=sum(map(len, groups.values())),
        completed=sum(map(len, scored.values())),
        correct=pass_at(groups, 1, is_correct()),
        untimed=sum(is_correct()(episode) and best_speedup(episode) is None for episode in ended),
        fast_p=tuple(FastP(p, pass_at(groups, 1, is_fast(p)), pass_at(scored, 1, is_fast(p))) for p in THRESHOLDS),
        pass_at_k=tuple(PassAtK(k, pass_at(groups, k, is_correct()), pass_at(groups, k, is_fast(1.0))) for k in _ks(smallest)),
        by_turn=tuple(by_turn(groups, turn) for turn in range(1, turns + 1)),
        steps=tuple(step(groups, turn) for turn in range(2, turns + 1)),
        speedup=geometric_mean_speedup(groups),
        speed_of_light=speed_of_light(groups),
        spending=spending(groups, cost),
        turn_errors=_ranked(
            (turn.verdict.status, turn.verdict.category) for e in ended for turn in e.turns if not turn.verdict.correct
        ),
        episode_errors=_ranked((e.stop_reason, e.error.partition(":")[0]) for e in ended if e.error),
    )


# ------------------------------------------------------------------ groups


def grouped(asked: Sequence[str], episodes: Iterable[Episode]) -> dict[str, tuple[Episode | None, ...]]:
    """The samples that were asked for, by problem, in the run's order."""
    ended = {episode.key: episode for episode in episodes}
    groups: dict[str, list[Episode | None]] = {}
    for key in sorted(asked, key=episode_order):
        level, problem_id, _ = episode_order(key)
        groups.setdefault(episode_key(f"level{level}_problem{problem_id}", 0), []).append(ended.get(key))
    return {key: tuple(group) for key, group in groups.items()}


def completed(groups: Groups) -> dict[str, tuple[Episode, ...]]:
    """Without samples that did not run to an end of their own or have an unscored turn, and problems with none."""
    kept = {
        key: tuple(e for e in group if e is not None and e.turns and not e.cut_short and None not in e.rewards_T)
        for key, group in groups.items()
    }
    return {key: group for key, group in kept.items() if group}


def mixture(episodes: Iterable[Episode]) -> str:
    """Why there can be no metrics over these, in words. Empty where there can."""
    return mixed(conditions(turn for episode in episodes for turn in episode.turns))


def conditions(turns: Iterable[Turn]) -> dict[str, set[str]]:
    """Under which verdicts came about."""
    verdicts = [turn.verdict for turn in turns if was_verified(turn.verdict)]
    return {
        "size profiles": {v.profile for v in verdicts},
        "clocks": {v.clock for v in verdicts},
        "ways of verification": {v.mode for v in verdicts},
        "hardware": {v.timing.hardware for v in verdicts if v.timing is not None and v.timing.hardware},
    }


def mixed(found: Mapping[str, Collection[str]]) -> str:
    """What there is more than one of, in words."""
    return "; ".join(
        f"no metrics over mixed {what} ({'; '.join(sorted(values))}): use a run for each"
        for what, values in found.items()
        if len(values) > 1
    )


def longest(episodes: Iterable[Episode]) -> int:
    """Most turns that one of them has."""
    return max((len(episode.turns) for episode in episodes), default=0)


# ------------------------------------------------------------------ samples


def is_correct(by: int | None = None) -> Holds:
    """A correct kernel in some turn, in one of the first `by` if that is given."""
    return lambda episode: episode is not None and any(turn.verdict.correct for turn in episode.turns[:by])


def is_fast(p: float, by: int | None = None) -> Holds:
    """Correct and more than `p` times as fast. A correct kernel without a time is not: nobody knows how fast it is."""
    return lambda episode: (best_speedup(episode, by) or 0.0) > p


def best_speedup(episode: Episode | None, by: int | None = None) -> float | None:
    """Of the correct and timed turns, of the first `by` if that is given. None without one."""
    turns = () if episode is None else episode.turns[:by]
    return max((speedup for turn in turns if (speedup := turn.verdict.speedup) is not None), default=None)


def best_reward(episode: Episode | None, by: int | None = None) -> float | None:
    """Of the scored turns, of the first `by` if that is given. None without one."""
    rewards = () if episode is None else episode.rewards_T[:by]
    return max((reward for reward in rewards if reward is not None), default=None)


def usages(turns: Sequence[Turn]) -> list[Usage]:
    """Of replies, and of asking whether to think."""
    return [u for turn in turns for u in (turn.generation.usage, turn.thinking.usage if turn.thinking else Usage())]


# ------------------------------------------------------------------ estimators


def fast_p(speedups: Iterable[float | None], p: float) -> float:
    """Share of kernels that are correct (else None) and more than `p` times as fast. Ouyang et al., "KernelBench", 2025.

    Raises ValueError without a kernel.
    """
    found = list(speedups)
    if not found:
        raise ValueError("fast_p of no problem")
    return sum(speedup is not None and speedup > p for speedup in found) / len(found)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that k of n samples, drawn without replacement, hold one of the c successes: `1 - C(n-c, k) / C(n, k)`.

    The unbiased estimator of Chen et al., "Evaluating Large Language Models Trained on Code", arXiv 2107.03374, section 2.1.
    Raises ValueError unless 0 <= c <= n and 1 <= k <= n: of fewer than k samples it cannot be estimated.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {c} successes in {n} samples")
    return (math.comb(n, k) - math.comb(n - c, k)) / math.comb(n, k)


def pass_at(groups: Groups, k: int, holds: Holds) -> Estimate:
    """Mean of pass@k over problems. With k = 1 it is the share of a problem's samples that succeed; with `is_fast(p)`, fast_p@k.

    Problems may have different numbers of samples. Those with fewer than k are left out, and `of` counts the others; `measure` asks
    for no such k.
    """
    values = [pass_at_k(len(group), sum(map(holds, group)), k) for group in groups.values() if len(group) >= k]
    return ratio(values, [1] * len(values))


def by_turn(groups: Groups, turn: int) -> ByTurn:
    """`turn` is counted from 1."""
    rewards = [_known(best_reward(episode, turn) for episode in group) for group in groups.values()]
    return ByTurn(
        turn,
        reward=ratio([math.fsum(found) for found in rewards], list(map(len, rewards))),
        correct=pass_at(groups, 1, is_correct(turn)),
        fast_1=pass_at(groups, 1, is_fast(1.0, turn)),
    )


def at_turn(episodes: Iterable[Episode], turn: int) -> AtTurn:
    """`turn` is counted from 1."""
    column = [episode.rewards_T[turn - 1] for episode in episodes if len(episode.turns) >= turn]
    rewards = _known(column)
    return AtTurn(turn, math.fsum(rewards) / len(rewards) if rewards else None, len(rewards), len(column) - len(rewards))


def flow(episodes: Iterable[Episode], turn: int) -> Counter[tuple[Status, str]]:
    """What became of each status in `turn`, counted from 1: the next turn's status, or why the episode ended."""
    return Counter(
        (e.turns[turn - 1].verdict.status, str(e.turns[turn].verdict.status if len(e.turns) > turn else e.stop_reason))
        for e in episodes
        if len(e.turns) >= turn
    )


def step(groups: Groups, turn: int) -> Step:
    """Into `turn`, counted from 1, from the one before."""
    changes = [_known(_change(episode, turn - 1) for episode in group) for group in groups.values()]
    flat = [change for found in changes for change in found]
    return Step(
        turn,
        change=ratio([math.fsum(found) for found in changes], list(map(len, changes))),
        improved=sum(change > 0 for change in flat),
        unchanged=sum(change == 0 for change in flat),
        worse=sum(change < 0 for change in flat),
    )


def geometric_mean_speedup(groups: Groups) -> Estimate:
    """Of the fastest correct kernel of each sample that has a timed one. `of` is the number of those."""
    logs = [[math.log(speedup) for speedup in _known(map(best_speedup, group))] for group in groups.values()]
    return ratio([math.fsum(each) for each in logs], list(map(len, logs))).mapped(math.exp)


def speed_of_light(groups: Groups) -> Estimate:
    """`of` is the number of samples whose fastest kernel's problem has its work counted."""
    timings = [[fastest(episode) for episode in group if episode is not None] for group in groups.values()]
    shares = [[t.light_ms / t.runtime.median_ms for t in group if t is not None and t.light_ms is not None] for group in timings]
    return ratio([math.fsum(each) for each in shares], list(map(len, shares)))


def spending(groups: Groups, cost: Cost = lambda usage: None) -> Spending:
    turns = [[turn for episode in group if episode is not None for turn in episode.turns] for group in groups.values()]
    used = [Usage(sum(u.prompt_tokens for u in each), sum(u.completion_tokens for u in each)) for each in map(usages, turns)]
    policy_s = [math.fsum(t.generation.duration_s + (t.thinking.duration_s if t.thinking else 0.0) for t in each) for each in turns]
    verify_s = [math.fsum(turn.verdict.duration_ms / 1e3 for turn in each) for each in turns]
    costs = _known(map(cost, used))
    solved = [int(any(map(is_correct(), group))) for group in groups.values()]
    priced = len(costs) == len(used) > 0
    return Spending(
        prompt_tokens=sum(u.prompt_tokens for u in used),
        completion_tokens=sum(u.completion_tokens for u in used),
        policy_s=math.fsum(policy_s),
        verify_s=math.fsum(verify_s),
        cost=math.fsum(costs) if priced else None,
        tokens_per_solved=ratio([u.prompt_tokens + u.completion_tokens for u in used], solved),
        policy_s_per_solved=ratio(policy_s, solved),
        verify_s_per_solved=ratio(verify_s, solved),
        cost_per_solved=ratio(costs, solved) if priced else None,
    )


# ------------------------------------------------------------------ intervals


def ratio(numerators: Sequence[float], denominators: Sequence[int]) -> Estimate:
    """Sum of one over sum of the other, where each holds one number a problem, with its interval over problems.

    A draw of problems with nothing to divide and nothing to divide by says nothing, and is left out; one with something to divide
    is infinite.
    """
    of = sum(denominators)
    if not of:
        return Estimate(None, None, None, 0)
    value = math.fsum(numerators) / of  # exact sums: the same in any order
    if sum(bool(above or below) for above, below in zip(numerators, denominators, strict=True)) < 2:
        return Estimate(value, None, None, of)
    weights = resamples(len(numerators))
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = (weights @ np.array(numerators, dtype=float)) / (weights @ np.array(denominators, dtype=float))
    found = np.sort(drawn[~np.isnan(drawn)])
    if _digits(found[0]) == _digits(found[-1]):
        return Estimate(value, None, None, of)
    low, high = (_digits(found[math.ceil(len(found) * place / 1000) - 1]) for place in PLACES)
    return Estimate(value, min(low, value), max(high, value) if math.isfinite(high) else None, of)


@functools.cache
def resamples(problems: int) -> npt.NDArray[np.float64]:
    """How often each draw has each problem. Shape: (RESAMPLES, problems)."""
    drawn = np.random.default_rng(SEED).multinomial(problems, [1 / problems] * problems, size=RESAMPLES)
    return drawn.astype(float)


def _digits(value: np.float64) -> float:
    """Twelve digits of it: how a sum over a draw rounds in the last ones depends on the processor."""
    return float(f"{value:.12g}")


# ------------------------------------------------------------------ parts


def _ks(smallest: int) -> list[int]:
    """1, 2, 4, ... and the smallest number of samples that a problem has: no problem is left out of any pass@k."""
    return sorted({*(2**power for power in range(smallest.bit_length())), smallest}) if smallest else []


def _change(episode: Episode | None, index: int) -> float | None:
    """Of the reward, into turn `index`. None unless both were scored."""
    rewards = () if episode is None else episode.rewards_T[index - 1 : index + 1]
    before, after = rewards if len(rewards) == 2 else (None, None)
    return None if before is None or after is None else after - before


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _ranked(found: Iterable[tuple[str, str]]) -> tuple[Kind, ...]:
    """The most frequent first, then by name."""
    counted = sorted(Counter(found).items(), key=lambda item: (-item[1], item[0]))
    return tuple(Kind(str(name), reason, count) for (name, reason), count in counted)

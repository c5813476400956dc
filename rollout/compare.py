"""Runs held against each other, problem by problem.

The first run is the one that the others are held against. A problem counts once, with the mean over its completed samples in each
run, so runs with different numbers of samples can be compared. A difference has a 95% interval over problems (bootstrap, as in
`metrics`) and the p-value of a permutation test. Runs whose numbers mean different things are refused unless told.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from kernel_env.errors import ConfigError, GateError
from kernel_env.reward import PRESETS, RewardConfig
from kernel_env.schema import SCHEMA_VERSION, Episode, Problem, Timing
from rollout.conduct import Conduct, conduct
from rollout.documents import Results, RunInfo, Summary, episode_order, fastest, results_of
from rollout.metrics import (
    SEED,
    Cost,
    Estimate,
    Groups,
    Metrics,
    best_reward,
    best_speedup,
    completed,
    grouped,
    is_correct,
    is_fast,
    measure,
    mixture,
    ratio,
    usages,
)
from rollout.report import cautions, cost_of
from rollout.returns import trajectory_return
from rollout.store import RunReader

SIGNIFICANT = 0.05
EXACT_UP_TO = 16
"""Problems with a difference for which all assignments of signs are tried; of more, so many are drawn: ..."""
FLIPS = 10_000
JUDGED = ("reward", "fast_1")
"""Differences that `worse` looks at."""
VERIFIED = ("clock", "verification", "tolerance")
"""Conditions that a run in which no reply had code has none of: it can be held against any."""
_WEIGHTS = "sources.weights."


@dataclass(frozen=True)
class Side:
    """One run."""

    name: str
    policy: str
    models: tuple[str, ...]
    conditions: Mapping[str, str]
    """What its numbers depend on besides the policy, in words."""
    summary: Summary
    metrics: Metrics
    conduct: Conduct
    cautions: tuple[str, ...]
    """Why not to believe its numbers, as its own report says on top."""

    @property
    def verified(self) -> bool:
        """Whether anything was."""
        return bool(self.conditions["verification"])


@dataclass(frozen=True)
class Standing:
    """Of one run on one problem, over its completed samples."""

    samples: int
    correct: float
    """Share of them with a correct kernel."""
    reward: float
    """Mean of their best rewards."""
    timing: Timing | None
    """Of the fastest correct kernel."""


@dataclass(frozen=True)
class Pair:
    """One problem that both runs have completed samples of."""

    problem: str
    name: str
    before: Standing
    after: Standing
    change: Literal["better", "worse", "alike"]
    """By the share of correct samples; where that is equal by speed, if the intervals do not overlap; by reward where none is
    correct."""


@dataclass(frozen=True)
class Difference:
    """Of one number between two runs."""

    what: str
    before: float
    """Mean over the problems of both. Of `speedup` the geometric one."""
    after: float
    change: Estimate
    """After less before; of `speedup` after over before. `of` is the number of problems."""
    p: float
    """That of no difference: sign-flip permutation test over problems, two-sided."""
    exact: bool
    """All assignments of signs were tried, not some drawn."""


@dataclass(frozen=True)
class Versus:
    """One run against the first."""

    base: str
    run: str
    pairs: tuple[Pair, ...]
    differences: tuple[Difference, ...]
    only_base: tuple[str, ...]
    """Problems that the other run was not asked for; ..."""
    only_run: tuple[str, ...]
    """... likewise."""
    lost: tuple[str, ...]
    """Both were asked for them, and only the first run has a completed sample; ..."""
    gained: tuple[str, ...]
    """... only the other one; ..."""
    neither: tuple[str, ...]
    """... none."""

    @property
    def worse(self) -> tuple[Difference, ...]:
        """Significantly: p below 0.05 in the mean reward or in fast_1."""
        return tuple(d for d in self.differences if d.what in JUDGED and d.p < SIGNIFICANT and d.after < d.before)


@dataclass(frozen=True)
class Comparison:
    schema_version: int
    mixed: tuple[str, ...]
    """Why the numbers of the runs do not mean the same, where that was allowed."""
    sides: tuple[Side, ...]
    against_first: tuple[Versus, ...]


# ------------------------------------------------------------------ reading


@dataclass(frozen=True)
class Run:
    """What a comparison needs of a run directory."""

    name: str
    info: RunInfo
    environment: Mapping[str, object]
    settings: Mapping[str, object]
    problems: Mapping[str, Problem]
    """Those that were begun."""
    episodes: tuple[Episode, ...]
    cost: Cost

    @classmethod
    def read(cls, reader: RunReader) -> Run:
        """Raises ConfigError when it is damaged."""
        episodes = tuple(reader.load_episodes())
        problems = {episode.problem.key: episode.problem for episode in episodes}
        return cls(reader.info.name, reader.info, reader.environment, reader.settings, problems, episodes, cost_of(reader))


def compare(runs: Sequence[Run], *, mixed: bool = False) -> Comparison:
    """Each of the others against the first. Raises ConfigError where their numbers do not mean the same, unless that is allowed by
    `mixed`, and where they have no problem in common; GateError where no common problem is scored."""
    if len(runs) < 2:
        raise ConfigError("a comparison takes two runs or more")
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ConfigError(f"two of the runs have one name: {', '.join(names)}")
    sides = tuple(map(_side, runs))
    found = tuple(_mixture(runs, sides))
    if found and not mixed:
        raise ConfigError(f"not comparable, they differ in {', '.join(found)}; --mixed compares them all the same")
    return Comparison(SCHEMA_VERSION, found, sides, tuple(_versus(runs[0], run) for run in runs[1:]))


def _side(run: Run) -> Side:
    if reason := mixture(run.episodes):
        raise ConfigError(f"{run.name}: {reason}")
    results = results_of(run.info, run.episodes)
    return Side(
        name=run.name,
        policy=run.info.policy,
        models=results.metadata.models,
        conditions=_conditions(run, results),
        summary=results.summary,
        metrics=measure(run.info.asked, run.episodes, run.cost),
        conduct=conduct(run.info, run.episodes),
        cautions=tuple(cautions(results, run.episodes)),
    )


def _conditions(run: Run, results: Results) -> dict[str, str]:
    meta, machine = results.metadata, run.environment
    gpus = machine.get("gpus")
    shown = ", ".join(map(str, gpus)) if isinstance(gpus, list) and gpus else "none"
    return {
        "hardware": f"{machine['cpu']}, {machine.get('cores')} cores, GPUs {shown}" if "cpu" in machine else "",
        "size profile": ", ".join(meta.profiles),
        "clock": ", ".join(meta.clocks),
        "verification": ", ".join(meta.verification),
        "tolerance": ", ".join(meta.tolerances),
        "baseline": "" if "imported" in machine else str(run.settings.get("verify.baseline", "eager")),
        "reward": _reward(run.settings),
        "reward sources": _sources(run.settings),
    }


def _reward(settings: Mapping[str, object]) -> str:
    """The preset, and what was changed of it."""
    preset = str(settings.get("reward.preset", RewardConfig.preset))
    usual = PRESETS.get(preset, RewardConfig())
    values = {field.name: settings.get(f"reward.{field.name}", getattr(usual, field.name)) for field in fields(RewardConfig)}
    return ", ".join([preset, *(f"{name} {value}" for name, value in values.items() if value != getattr(usual, name))])


def _sources(settings: Mapping[str, object]) -> str:
    """The preset, and weights of its own."""
    weights = {key.removeprefix(_WEIGHTS): value for key, value in settings.items() if key.startswith(_WEIGHTS)}
    return ", ".join([str(settings.get("sources.preset", "measured")), *(f"{name} {weights[name]}" for name in sorted(weights))])


def _mixture(runs: Sequence[Run], sides: Sequence[Side]) -> list[str]:
    found = []
    for name in sides[0].conditions:
        shown = {side.name: side.conditions[name] or "unknown" for side in sides if name not in VERIFIED or side.verified}
        if len(set(shown.values())) > 1:
            found.append(f"{name} ({'; '.join(f'{run}: {value}' for run, value in shown.items())})")
    others = sorted({key for a, b in combinations(runs, 2) for key in _changed(a, b)}, key=episode_order)
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        found.append(f"source or precision of problems ({others[0]}{more})")
    return found


def _changed(a: Run, b: Run) -> list[str]:
    """Problems that are not the same in both. One without a source, as in an imported run, is not known to be another."""
    common = [(key, problem, b.problems[key]) for key, problem in a.problems.items() if key in b.problems]
    return [key for key, one, other in common if one.source and other.source and one.digest != other.digest]


# ------------------------------------------------------------------ pairs


def _versus(base: Run, run: Run) -> Versus:
    asked_a, asked_b = (grouped(each.info.asked, each.episodes) for each in (base, run))
    scored_a, scored_b = completed(asked_a), completed(asked_b)
    common = [key for key in asked_a if key in asked_b]
    both = [key for key in common if key in scored_a and key in scored_b]
    if not common:
        raise ConfigError(f"{base.name} and {run.name} have no problem in common")
    if not both:
        raise GateError(f"no problem has a completed sample in both {base.name} and {run.name}: there is nothing to compare")
    standings = {key: (_standing(scored_a[key]), _standing(scored_b[key])) for key in both}
    return Versus(
        base=base.name,
        run=run.name,
        pairs=tuple(Pair(key, base.problems[key].name, a, b, _change(a, b)) for key, (a, b) in standings.items()),
        differences=tuple(_differences(base, run, scored_a, scored_b, both)),
        only_base=tuple(key for key in asked_a if key not in asked_b),
        only_run=tuple(key for key in asked_b if key not in asked_a),
        lost=tuple(key for key in common if key in scored_a and key not in scored_b),
        gained=tuple(key for key in common if key in scored_b and key not in scored_a),
        neither=tuple(key for key in common if key not in scored_a and key not in scored_b),
    )


def _standing(samples: Sequence[Episode]) -> Standing:
    timings = [timing for timing in map(fastest, samples) if timing is not None]
    return Standing(
        samples=len(samples),
        correct=sum(map(is_correct(), samples)) / len(samples),
        reward=_mean(best_reward, samples) or 0.0,
        timing=max(timings, key=lambda timing: timing.speedup, default=None),
    )


def _change(a: Standing, b: Standing) -> Literal["better", "worse", "alike"]:
    up, down = b.correct > a.correct, b.correct < a.correct
    if a.correct == b.correct == 0:
        up, down = b.reward > a.reward, b.reward < a.reward
    elif a.correct == b.correct and a.timing is not None and b.timing is not None:
        up, down = b.timing.speedup_low > a.timing.speedup_high, b.timing.speedup_high < a.timing.speedup_low
    return "better" if up else "worse" if down else "alike"


# ------------------------------------------------------------------ differences

Measure = Callable[[Episode], float | None]


def _logarithm(episode: Episode) -> float | None:
    speedup = best_speedup(episode)
    return None if speedup is None else math.log(speedup)


def _tokens(episode: Episode) -> float | None:
    return sum(usage.prompt_tokens + usage.completion_tokens for usage in usages(episode.turns)) or None


def _measures(base: Run, run: Run) -> dict[str, Measure]:
    """Of a completed sample. `return` only where it is the same sum in both."""
    found: dict[str, Measure] = {
        "reward": best_reward,
        "reward of turn 1": lambda episode: best_reward(episode, 1),
        "correct": lambda episode: float(is_correct()(episode)),
        "fast_1": lambda episode: float(is_fast(1.0)(episode)),
        "speedup": _logarithm,
        "turns": lambda episode: len(episode.turns),
        "tokens": _tokens,
    }
    gamma = base.info.gamma
    if (run.info.gamma, run.info.max_turns) == (gamma, base.info.max_turns):
        found["return"] = lambda episode: trajectory_return(episode.rewards_T, gamma)
    return found


def _differences(base: Run, run: Run, scored_a: Groups, scored_b: Groups, both: Sequence[str]) -> list[Difference]:
    found = []
    for what, measure_of in _measures(base, run).items():
        means = [(_mean(measure_of, scored_a[key]), _mean(measure_of, scored_b[key])) for key in both]
        known = [(a, b) for a, b in means if a is not None and b is not None]
        if known:
            found.append(_difference(what, known))
    return found


def _difference(what: str, pairs: Sequence[tuple[float, float]]) -> Difference:
    changes = [b - a for a, b in pairs]
    p, exact = sign_flip(changes)
    before, after = (math.fsum(side) / len(pairs) for side in zip(*pairs, strict=True))
    change = ratio(changes, [1] * len(changes))
    if what == "speedup":
        before, after, change = math.exp(before), math.exp(after), change.mapped(math.exp)
    return Difference(what, before, after, change, p, exact)


def _mean(measure_of: Measure, samples: Sequence[Episode | None]) -> float | None:
    values = [value for episode in samples if episode is not None and (value := measure_of(episode)) is not None]
    return float(statistics.mean(values)) if values else None  # exact: alike samples have one mean, however many there are


def sign_flip(changes: Sequence[float]) -> tuple[float, bool]:
    """Two-sided p-value of no difference between paired values, and whether it is exact.

    If it does not matter which run a value is of, each difference is as likely with the other sign (Fisher, 1935). The p-value is
    the share of all assignments of signs whose sum is as far from 0 as the one that was found. Of many problems so many are drawn,
    from a fixed seed, and the one that was found counts as one more, so that p is never 0. Differences of 0 have no sign.
    """
    sizes = np.abs(np.array([change for change in changes if change]))
    exact = len(sizes) <= EXACT_UP_TO
    signs = _all_signs(len(sizes)) if exact else np.random.default_rng(SEED).choice((-1.0, 1.0), (FLIPS, len(sizes)))
    slack = 1e-9 * float(sizes.sum())  # sums that are equal but for their rounding are as far
    extreme = int(np.sum(np.abs(signs @ sizes) >= abs(math.fsum(changes)) - slack))
    return (extreme / len(signs), True) if exact else ((extreme + 1) / (FLIPS + 1), False)


def _all_signs(count: int) -> npt.NDArray[np.float64]:
    """Shape: (2 ** count, count)."""
    bits = np.arange(2**count)[:, None] >> np.arange(count)
    return np.where(bits & 1, -1.0, 1.0)

"""What the adapter of every trainer is made of: problems as rows of its data set, batches of them played by the engine, what of
each episode is trained on, and what trainers that step through an episode themselves are told of each turn.

The trainer owns the model, the batches and the optimiser. Who turns its model into a `Policy` gets episodes from `play`, and
from these `training_samples`: the tokens are those of the canonical record (`rollout.tokens`), the numbers those of
`rollout.returns`. What was not scored has no credit, and a mask without a single token: it is left out, never a zero.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from kernel_env.episode import EpisodeConfig
from kernel_env.errors import ConfigError, VerifierError
from kernel_env.prompts import initial_messages
from kernel_env.reward import Shaping
from kernel_env.schema import Episode, Message, Problem, Reward, Verdict, episode_key
from kernel_env.verifier import Verifier
from rollout.engine import Engine, EngineConfig, MemoryJournal
from rollout.policies import Policy
from rollout.returns import GROUP_RETURNS, RETURNS, credits
from rollout.tokens import Ids, Layout, Sample, record_of

OF_A_TRAJECTORY = ("trajectory", "best")
"""Returns whose value for the first turn is that of the trajectory; the others tell its turns apart."""


# ------------------------------------------------------------------ rows


class Row(TypedDict):
    """One problem in a trainer's data set."""

    prompt: list[Message]
    """As the first turn has it."""
    problem: str
    """`Problem.key`."""


class Rows:
    """Problems as a data set, and back: by their key where the trainer hands rows on, by their prompt where it has nothing else."""

    def __init__(self, problems: Sequence[Problem], episode: EpisodeConfig) -> None:
        """Raises ConfigError where two problems cannot be told apart."""
        told = [initial_messages(problem, episode.backend, episode.dataset_prompt) for problem in problems]
        self.rows = [Row(prompt=list(messages), problem=problem.key) for messages, problem in zip(told, problems, strict=True)]
        self._by_key = {problem.key: problem for problem in problems}
        self._by_prompt = {_text(messages): problem for messages, problem in zip(told, problems, strict=True)}
        if not len(problems) == len(self._by_key) == len(self._by_prompt):
            raise ConfigError("two problems have the same key or the same prompt: choose problems of one source")

    def by_key(self, key: str) -> Problem:
        if key not in self._by_key:
            raise ConfigError(f"the data set names problem {key!r}, which is none of these: make it of the same problems")
        return self._by_key[key]

    def by_prompt(self, prompt: Sequence[Mapping[str, str]] | str) -> Problem:
        if isinstance(prompt, str) or _text(prompt) not in self._by_prompt:
            raise ConfigError("the data set has a prompt that is none of these problems': make it of `rows`, and change nothing")
        return self._by_prompt[_text(prompt)]


def _text(messages: Sequence[Mapping[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in messages)


# ------------------------------------------------------------------ play


async def play(
    policy: Policy,
    verifier: Verifier,
    config: EngineConfig,
    problems: Sequence[Problem],
    master_seed: int,
    shaping: Shaping | None = None,
) -> list[Episode]:
    """An episode for each of `problems`, in their order. A problem that is there several times is a group: `config.samples` is not
    used. Groups of one size are played together, the smaller ones first: those that a trainer has split between its processes.

    Raises what `Engine.play` raises: a member's failure is an end of that member.
    """
    journal, times = MemoryJournal(), Counter(problem.key for problem in problems)
    for samples in sorted(set(times.values())):
        group = {problem.key: problem for problem in problems if times[problem.key] == samples}
        engine = Engine(policy, verifier, journal, replace(config, samples=samples), master_seed, shaping)
        await engine.play(list(group.values()))
    members = Counter[str]()
    episodes = []
    for problem in problems:
        episodes.append(journal.episodes[episode_key(problem.key, members[problem.key])])
        members[problem.key] += 1
    return episodes


# ------------------------------------------------------------------ what is trained on


@dataclass(frozen=True)
class TrainingSample:
    """One sequence: a prompt, and what follows it, from the first sampled token to the last."""

    prompt_ids: Ids
    completion_ids: Ids
    loss_mask: tuple[int, ...]
    """Of the completion: 1 for each sampled token. All 0 where there is no credit."""
    logprobs: tuple[float, ...] | None
    """Of the completion, 0.0 for what was not sampled; None where the engine gave none."""
    credit: float | None
    """The return of its first turn: in layout `append` that of the trajectory, in `per-turn` that of its one turn. None: not
    scored."""


def check_returns(returns: str, layout: Layout) -> None:
    """Raises ConfigError for a scheme that does not exist, or that one number a sample of this layout cannot say."""
    known = (*RETURNS, *GROUP_RETURNS)
    if returns not in known:
        raise ConfigError(f"returns={returns}: choose one of {', '.join(known)}")
    if layout is Layout.APPEND and returns not in OF_A_TRAJECTORY:
        raise ConfigError(
            f"returns={returns} tells the turns of an episode apart, and in layout append it is one sample: "
            f"use {' or '.join(OF_A_TRAJECTORY)}, or layout per-turn"
        )


def training_samples(episodes: Sequence[Episode], layout: Layout, returns: str, gamma: float) -> list[list[TrainingSample]]:
    """The samples of each episode; none of one without a turn or without tokens.

    The episodes of one problem are a group, for `returns` that compare its members. Raises ConfigError as `check_returns` does, and
    where the turns are not of this layout.
    """
    check_returns(returns, layout)
    groups = defaultdict[str, list[int]](list)
    for at, episode in enumerate(episodes):
        groups[episode.problem.key].append(at)
    found: list[list[TrainingSample]] = [[] for _ in episodes]
    for group in groups.values():
        credits_GT = credits(returns, [rewards_of(episodes[at]) for at in group], gamma)
        for at, credits_T in zip(group, credits_GT, strict=True):
            record = record_of(episodes[at].turns, layout)
            found[at] = [_training_sample(sample, credits_T) for sample in (record.samples if record else ())]
    return found


def rewards_of(episode: Episode) -> tuple[float | None, ...]:
    """Of each turn; all None where nobody knows the end, which has no return."""
    return (None,) * len(episode.turns) if episode.cut_short else episode.rewards_T


def _training_sample(sample: Sample, credits_T: Sequence[float | None]) -> TrainingSample:
    start, credit = sample.prompt_length, credits_T[sample.spans[0].turn]
    mask = sample.loss_mask[start:]
    return TrainingSample(
        prompt_ids=sample.ids[:start],
        completion_ids=sample.ids[start:],
        loss_mask=mask if credit is not None else (0,) * len(mask),
        logprobs=None if sample.logprobs is None else sample.logprobs[start:],
        credit=credit,
    )


# ------------------------------------------------------------------ what is told of each turn


@dataclass(frozen=True)
class Facts:
    """What became of one reply, in plain values."""

    status: str
    compiled: bool
    correct: bool
    speedup: float | None
    """Of a correct kernel that was timed."""
    reward: float | None
    """None: not scored."""
    message: str
    """As the verdict has it."""


def facts(verdict: Verdict, reward: Reward) -> Facts:
    return Facts(
        status=str(verdict.status),
        compiled=verdict.compiled,
        correct=verdict.correct,
        speedup=verdict.speedup,
        reward=reward.value,
        message=verdict.message,
    )


def metrics(facts_T: Sequence[Facts]) -> dict[str, float]:
    """Of an episode, for the trainer's log. `speedup` is the best one, and is not there where no kernel was timed."""
    speedups = [told.speedup for told in facts_T if told.speedup is not None]
    found = {"turns": float(len(facts_T)), "correct": float(any(told.correct for told in facts_T))}
    return found | ({"speedup": max(speedups)} if speedups else {})


def known(value: float | None, problem: Problem, why: str) -> float:
    """`value`, for trainers that have no word for what was not scored. Raises VerifierError for None."""
    if value is None:
        raise VerifierError(f"{problem.key} has no reward: {why or 'a turn was not scored'}")
    return value

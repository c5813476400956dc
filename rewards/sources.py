"""What is added to the measured reward, by whom, and how little.

    total = measured + sum of weight * score of each source, for correct kernels alone

A source's score is from 0 to 1, so no source can lift a wrong kernel over a right one, and all weights together are at most
`MAX_WEIGHT`. An integrity flag that facts confirm makes the turn worth 0. A source that has no score adds nothing, and the record
says so: its part is None and the reward's reason says why. Whether an episode is over is a question to the measured reward.

A prediction that counted on correct kernels alone would always best claim certain success. So its source costs wrong kernels
`weight * (1 - score)`: up to a constant that no prediction can change, that is the negative Brier loss everywhere, and saying what
one believes is the best that can be said.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from kernel_env.errors import ConfigError, JudgeError, PolicyError
from kernel_env.reward import Attempt
from kernel_env.schema import Generation, Message, Opinion, Reward, Verdict

if TYPE_CHECKING:
    from rewards.judge.adapter import BaseJudgeReward

LOG = logging.getLogger("JudgeReward")

MAX_WEIGHT = 0.1
RULES = "rule_fallback"

# ------------------------------------------------------------------ what is configured


@dataclass(frozen=True)
class Share:
    """One source's say."""

    weight: float
    """What a score of 1 adds to a correct kernel's reward."""
    wrong_costs: bool = False
    """A kernel that is not correct loses `weight * (1 - score)`: for predictions."""


@dataclass(frozen=True)
class SourcesConfig:
    """Which sources have a say beside the measured reward."""

    preset: str = "measured"
    """Name for records; choosing one is `sources_config`'s work."""
    shares: Mapping[str, Share] = field(default_factory=dict)
    """By name of the source."""
    unsafe_alone: bool = False
    """Neither the measured reward nor correctness counts, only the sources. A policy learns to talk to the judge, not to write
    kernels: for studies of just that, never for training."""

    def __post_init__(self) -> None:
        weights = {name: share.weight for name, share in self.shares.items()}
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(f"weight of {name} is {weight}: give a finite number of 0 or more")
        if not self.unsafe_alone and sum(weights.values()) > MAX_WEIGHT + 1e-9:
            raise ConfigError(f"weights add up to {sum(weights.values()):g}: at most {MAX_WEIGHT} may lie beside what is measured")
        if self.unsafe_alone and not weights:
            raise ConfigError(f"preset {self.preset}: without the measured reward at least one source is needed")


PRESETS: Mapping[str, SourcesConfig] = MappingProxyType(
    {
        "measured": SourcesConfig(),
        "measured+judge": SourcesConfig("measured+judge", {"judge": Share(0.1)}),
        "measured+self": SourcesConfig("measured+self", {"self": Share(0.05, wrong_costs=True)}),
        "measured+judge+self": SourcesConfig("measured+judge+self", {"judge": Share(0.05), "self": Share(0.05, wrong_costs=True)}),
        "judge-only": SourcesConfig("judge-only", {"judge": Share(1.0)}, unsafe_alone=True),
    }
)


def sources_config(preset: str) -> SourcesConfig:
    """The preset of that name. Raises ConfigError for an unknown one."""
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset of reward sources {preset!r}: use one of {', '.join(PRESETS)}")
    return PRESETS[preset]


# ------------------------------------------------------------------ what sources add


def composed(measured: Reward, verdict: Verdict, opinions: Mapping[str, Opinion], config: SourcesConfig) -> Reward:
    """The turn's reward; its parts add up to its value, and every opinion is kept. What is unscored stays so.

    Parts are the measured ones and one a source, named `judge_rule_fallback` where rules scored in the judge's stead; `integrity`
    takes all of it away. Raises ConfigError for an opinion of a source that has no share.
    """
    strangers = set(opinions) - set(config.shares)
    if strangers:
        raise ConfigError(f"no weight for {', '.join(sorted(strangers))}: preset {config.preset} knows {', '.join(config.shares)}")
    if measured.value is None:
        return measured
    base = 0.0 if config.unsafe_alone else measured.value
    reasons = ["unsafe: no measurement counts"] if config.unsafe_alone else [measured.reason] if measured.reason else []
    opinions = {name: opinions.get(name, Opinion(None, "not asked")) for name in config.shares}
    parts: dict[str, float | None] = {}
    for name, share in config.shares.items():
        opinion = opinions[name]
        part = _part(share, opinion, counts=verdict.correct or config.unsafe_alone)
        parts[name] = None if opinion.by_rules else part
        if opinion.by_rules:
            parts[f"{name}_{RULES}"] = part
        if parts[name] is None:
            reasons.append(f"{name}: {opinion.reason}")
    own = [part for part in parts.values() if part is not None]
    value = None if config.unsafe_alone and not own else base + sum(own)
    flags = [f"{name}: {', '.join(opinion.flags)}" for name, opinion in opinions.items() if opinion.flags]
    if flags:
        parts["integrity"] = -(value or 0.0)
        value, reasons = 0.0, [f"integrity, {flag}" for flag in flags] + reasons
    all_parts = parts if config.unsafe_alone else {**measured.parts, **parts}
    return Reward(value, all_parts, "; ".join(reasons), opinions, measured.value if opinions else None)


def _part(share: Share, opinion: Opinion, *, counts: bool) -> float | None:
    if not counts and not share.wrong_costs:
        return 0.0
    if opinion.score is None:
        return None
    return share.weight * (opinion.score if counts else opinion.score - 1)


# ------------------------------------------------------------------ sources


class RewardSource(Protocol):
    """Somebody with a say in the reward. A failure is an opinion without a score, never an exception."""

    @property
    def name(self) -> str:
        """That of its share, and of its part in records."""

    async def ahead(self, attempt: Attempt) -> str | None:
        """What has to be known before the evaluation, raw; None: nothing."""

    async def opinion(self, attempt: Attempt, ahead: str | None, verdict: Verdict) -> Opinion: ...


_ANSWER_TYPES: Mapping[str, str] = {"triton": "KERNEL_TRITON", "cuda": "KERNEL_CUDA", "cpp": "KERNEL_CPP"}


class JudgeSource:
    """A judge's opinion on correct kernels. Others it is not asked about, unless `judge_all` (where its word alone counts)."""

    def __init__(self, judge: BaseJudgeReward, name: str = "judge", *, judge_all: bool = False) -> None:
        self.name, self._judge, self._judge_all = name, judge, judge_all

    async def ahead(self, attempt: Attempt) -> None:
        return None

    async def opinion(self, attempt: Attempt, ahead: str | None, verdict: Verdict) -> Opinion:
        if not verdict.correct and not self._judge_all:
            return Opinion(None, "not asked: the kernel is not correct")
        if attempt.code is None:
            return Opinion(0.0, "no code to judge")
        problem = attempt.problem
        prompt = f"Write a {verdict.backend} kernel that computes what the reference module {problem.name} computes, and faster."
        try:
            judged = await self._judge.acompute_reward(
                prompt, attempt.code, problem.source, _ANSWER_TYPES.get(verdict.backend), {"measured": measured_facts(verdict)}
            )
        except JudgeError as error:
            return Opinion(None, str(error))
        by_rules = judged.source == RULES
        return Opinion(judged.score, judged.failure, by_rules, judged.flags, judged.cached, judged.latency_ms, judged.doubts)


def measured_facts(verdict: Verdict) -> dict[str, Any]:
    """What a judge is told that was measured. Two digits of a speedup: more are noise, and no score would be found in the cache."""
    facts: dict[str, Any] = {"status": verdict.status.value}
    if verdict.speedup is not None:
        facts["speedup"] = float(f"{verdict.speedup:.2g}")
    return facts


# ------------------------------------------------------------------ the policy's own prediction

QUESTION = """Before your code is run, predict how it will do. Give three probabilities from 0 to 1:
- compiles: it is accepted, built and imported;
- correct: it also computes what the reference computes, on every input that is tried;
- faster: it is also faster than the reference.
You are scored by how close they come to what happens. Answer with one line of JSON and nothing else, such as:
{"compiles": 0.9, "correct": 0.6, "faster": 0.3}"""


@dataclass(frozen=True)
class Prediction:
    """Probabilities."""

    compiles: float
    correct: float
    faster: float
    """Correct, and with a speedup above 1."""


def parsed_prediction(text: str) -> Prediction | None:
    """The prediction that a reply's last line is, once its thinking is over. None for anything else: nothing is guessed."""
    lines = text.rpartition("</think>")[2].strip().splitlines()
    try:
        found = json.loads(lines[-1] if lines else "", object_pairs_hook=_no_name_twice)
    except (ValueError, RecursionError):
        return None
    names = Prediction.__dataclass_fields__
    if not isinstance(found, dict) or set(found) != set(names):
        return None
    if not all(type(value) in (int, float) and 0 <= value <= 1 for value in found.values()):
        return None
    return Prediction(**found)


def brier_loss(prediction: Prediction, verdict: Verdict) -> float:
    """A third of each probability's squared distance from what happened, 0 to 1 (Brier, "Verification of forecasts expressed in
    terms of probability", 1950). Whether a correct kernel is faster costs nothing where it was not timed; the thirds stay, for a
    weight that depends on what happens would make another answer than the honest one the best."""
    loss = (prediction.compiles - verdict.compiled) ** 2 + (prediction.correct - verdict.correct) ** 2
    if not verdict.correct or verdict.speedup is not None:
        loss += (prediction.faster - (verdict.speedup is not None and verdict.speedup > 1)) ** 2
    return loss / 3


class SelfPredictionSource:
    """The policy says before the evaluation how its kernel will do; the score is 1 less its Brier loss."""

    def __init__(self, ask: Callable[[tuple[Message, ...]], Awaitable[Generation]], name: str = "self") -> None:
        """`ask` continues a conversation. A PolicyError from it is no prediction."""
        self.name, self._ask = name, ask

    async def ahead(self, attempt: Attempt) -> str | None:
        reply = {"role": "assistant", "content": attempt.generation.text}
        try:
            said = await self._ask((*attempt.messages, reply, {"role": "user", "content": QUESTION}))
        except PolicyError as error:
            LOG.warning("no prediction: %s", error)
            return None
        return said.text if said.finish_reason == "stop" else None

    async def opinion(self, attempt: Attempt, ahead: str | None, verdict: Verdict) -> Opinion:
        prediction = None if ahead is None else parsed_prediction(ahead)
        if prediction is None:
            return Opinion(None, "no prediction was had" if ahead is None else "the reply is no prediction")
        if not verdict.scored:
            return Opinion(None, "nothing was measured")
        return Opinion(1.0 - brier_loss(prediction, verdict))


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


# ------------------------------------------------------------------ all together


class RewardSources:
    """The sources of a configuration, asked at the same time."""

    def __init__(self, config: SourcesConfig, sources: Sequence[RewardSource] = ()) -> None:
        """Raises ConfigError where sources and shares do not have the same names."""
        names = [source.name for source in sources]
        if sorted(names) != sorted(config.shares):
            raise ConfigError(f"preset {config.preset} wants the sources {sorted(config.shares)}, not {sorted(names)}")
        self._config, self._sources = config, tuple(sources)

    async def ahead(self, attempt: Attempt) -> dict[str, str | None]:
        """Before the evaluation. Keep it for `reward`; it is raw, for records."""
        return await self._each(lambda source: source.ahead(attempt))

    async def reward(self, measured: Reward, attempt: Attempt, ahead: Mapping[str, str | None], verdict: Verdict) -> Reward:
        """After it."""
        if measured.value is None:
            return measured
        opinions = await self._each(lambda source: source.opinion(attempt, ahead.get(source.name), verdict))
        return composed(measured, verdict, opinions, self._config)

    async def _each(self, asked: Callable[[RewardSource], Awaitable[Any]]) -> dict[str, Any]:
        answers = await asyncio.gather(*(asked(source) for source in self._sources))
        return {source.name: answer for source, answer in zip(self._sources, answers, strict=True)}

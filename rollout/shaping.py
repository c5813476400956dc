"""The reward sources of a run, from its settings."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from kernel_env.errors import ConfigError
from kernel_env.reward import Shaping
from kernel_env.schema import Generation, Message
from rewards.judge.config import JudgeConfig
from rewards.sources import JudgeSource, RewardSource, RewardSources, SelfPredictionSource, Share, SourcesConfig, sources_config
from rollout.policies.base import GenerationRequest, Policy, Sampling

PREDICTION_TOKENS = 64


@dataclass(frozen=True)
class SourcesSettings:
    preset: str = "measured"
    """What has a say in the reward beside what is measured: `measured` (nothing), `measured+judge`, `measured+self` (the policy
    predicts how its kernel will do, and is scored by how close it came), `measured+judge+self` (both), or `judge-only` (for
    studies; unsafe: a policy learns to talk to the judge)."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Other weights than the preset's: `{judge: 0.05}`. At most 0.1 in all may lie beside what is measured."""
    judge: JudgeConfig = field(default_factory=JudgeConfig)

    def __post_init__(self) -> None:
        _ = self.config

    @property
    def config(self) -> SourcesConfig:
        """Raises ConfigError."""
        chosen = sources_config(self.preset)
        strangers = sorted(set(self.weights) - set(chosen.shares))
        if strangers:
            known = ", ".join(chosen.shares) or "no source"
            raise ConfigError(f"sources.weights names {', '.join(strangers)}: sources.preset={self.preset} has {known}")
        shares = {name: Share(self.weights.get(name, share.weight), share.wrong_costs) for name, share in chosen.shares.items()}
        return dataclasses.replace(chosen, shares=shares)


@asynccontextmanager
async def shaping(settings: SourcesSettings, policy: Policy) -> AsyncIterator[Shaping | None]:
    """None where only what is measured counts. A judge is asked first when there is a kernel to judge."""
    config = settings.config
    if not config.shares:
        yield None
        return
    from rewards.judge.adapter import BaseJudgeReward

    sources: list[RewardSource] = []
    judge = BaseJudgeReward(judge_config(settings.judge)) if "judge" in config.shares else None
    if judge is not None:
        sources.append(JudgeSource(judge, judge_all=config.unsafe_alone))
    if "self" in config.shares:
        sources.append(SelfPredictionSource(_asking(policy)))
    try:
        yield RewardSources(config, sources)
    finally:
        if judge is not None:
            await judge.aclose()


def judge_config(given: JudgeConfig) -> JudgeConfig:
    """The environment fills in what was left at its default."""
    chosen = {f.name: getattr(given, f.name) for f in dataclasses.fields(given) if getattr(given, f.name) != f.default}
    return JudgeConfig.of(chosen, os.environ, given_wins=True)


def _asking(policy: Policy) -> Callable[[tuple[Message, ...]], Awaitable[Generation]]:
    async def ask(messages: tuple[Message, ...]) -> Generation:
        thinking = False if policy.capabilities.thinking else None
        sampling = Sampling(temperature=0.0, max_tokens=PREDICTION_TOKENS, top_p=None)
        return await policy.generate(GenerationRequest(messages, sampling, "", 0, thinking))

    return ask

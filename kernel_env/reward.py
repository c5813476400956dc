"""The measured reward: a pure function of a verdict. Shaping and judges are built on top of it, elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from kernel_env.errors import ConfigError
from kernel_env.schema import Generation, Message, Problem, Reward, Status, Verdict


@dataclass(frozen=True)
class RewardConfig:
    """Constants of the measured reward. The defaults are those of preset `seed`."""

    preset: str = "seed"
    """Name for records; choosing one is `reward_config`'s work."""
    compiled: float = 0.1
    """For a kernel that was accepted, built and imported but is not correct."""
    correct: float = 1.0
    """For a correct kernel; it replaces `compiled`."""
    bonus_above: float = 1.0
    """The speed bonus is what the speedup has beyond this, ..."""
    bonus_weight: float = 1.0
    """... times this, ..."""
    max_bonus: float | None = 2.0
    """... and no more than this; null: without a limit."""
    stop_at: float | None = 2.0
    """An episode ends when a turn's reward reaches this; null: all turns are played."""

    def __post_init__(self) -> None:
        for name in ("compiled", "correct", "bonus_above", "bonus_weight", "max_bonus", "stop_at"):
            value = getattr(self, name)
            if value is not None and (not math.isfinite(value) or value < 0):
                raise ConfigError(f"reward.{name} is {value}: give a finite number of 0 or more")

    def bonus(self, speedup: float) -> float:
        """Of a correct kernel."""
        found = self.bonus_weight * max(speedup - self.bonus_above, 0.0)
        return found if self.max_bonus is None else min(found, self.max_bonus)


PRESETS: Mapping[str, RewardConfig] = MappingProxyType(
    {
        "seed": RewardConfig(),
        "tritonforge": RewardConfig(preset="tritonforge", correct=0.3, stop_at=1.3),
        "kevin": RewardConfig(preset="kevin", compiled=0.0, correct=0.3, bonus_above=0.0, max_bonus=None, stop_at=None),
        "dr-kernel": RewardConfig(
            preset="dr-kernel", compiled=0.0, correct=0.5, bonus_above=0.0, bonus_weight=0.5, max_bonus=1.5, stop_at=None
        ),
    }
)
"""`kevin`: `0.3 + speedup` for a correct kernel, Baronio et al., "Kevin", arXiv 2507.11948. `dr-kernel`: half of correctness plus
half of the speedup up to 3, as the training configuration of Liu et al., "Dr. Kernel", arXiv 2602.05885, has it; without the part
that its profiler adds. Neither gives anything for a kernel that is only compiled, or ends an episode early."""


_WORTHLESS = frozenset({Status.REJECTED, Status.TAMPERED})
"""Not even `compiled` is paid for these."""
MEASURED = ("compiled", "correct", "speedup_bonus")
"""Names of its parts."""


@dataclass(frozen=True)
class Attempt:
    """A reply, before its evaluation."""

    problem: Problem
    messages: tuple[Message, ...]
    """What the policy was shown."""
    generation: Generation
    code: str | None
    """The extracted kernel."""


class Shaping(Protocol):
    """What else has a say in a turn's reward: see `rewards.sources`. A failure of its own is a part that is None."""

    async def ahead(self, attempt: Attempt) -> Mapping[str, str | None]:
        """What has to be known before the evaluation."""

    async def reward(self, measured: Reward, attempt: Attempt, ahead: Mapping[str, str | None], verdict: Verdict) -> Reward:
        """After it."""


def reward_config(preset: str) -> RewardConfig:
    """The preset of that name. Raises ConfigError for an unknown one."""
    if preset not in PRESETS:
        raise ConfigError(f"unknown reward preset {preset!r}: use one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def measured_reward(verdict: Verdict, config: RewardConfig) -> Reward:
    """`compiled`, or `correct + min(bonus_weight * max(speedup - bonus_above, 0), max_bonus)`, or 0.

    The parts `compiled`, `correct` and `speedup_bonus` add up to the value; a part that could not be measured here is None.
    What was found out gets 0 however far it came: a run that was tampered with, and a kernel that was rejected for how it computes,
    which is seen only once it ran. An unscored verdict has no value.
    """
    if not verdict.scored:
        parts = {"compiled": None, "correct": None, "speedup_bonus": None}
        return Reward(None, parts, verdict.message or "this machine cannot run the candidate")
    if not verdict.correct:
        compiled = config.compiled if verdict.compiled and verdict.status not in _WORTHLESS else 0.0
        return Reward(compiled, {"compiled": compiled, "correct": 0.0, "speedup_bonus": 0.0})
    if verdict.speedup is None:
        reason = f"no speed bonus: {verdict.timing_note or 'not measured'}"
        return Reward(config.correct, {"compiled": 0.0, "correct": config.correct, "speedup_bonus": None}, reason)
    bonus = config.bonus(verdict.speedup)
    return Reward(config.correct + bonus, {"compiled": 0.0, "correct": config.correct, "speedup_bonus": bonus})


def measured_part(reward: Reward) -> float | None:
    """What was measured of a reward, whatever else has a say in it."""
    if reward.opinions:
        return reward.measured
    # a record that was written before opinions were kept has a part for each
    parts = [reward.parts[name] for name in MEASURED if name in reward.parts]
    return sum(part for part in parts if part is not None) if parts and reward.value is not None else reward.value


def reached_stop(reward: Reward, config: RewardConfig) -> bool:
    """Whether a turn with this measured reward ends its episode as solved."""
    return reward.value is not None and config.stop_at is not None and reward.value >= config.stop_at

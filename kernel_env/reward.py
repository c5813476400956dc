"""The measured reward: a pure function of a verdict. Shaping and judges are built on top of it, elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from kernel_env.errors import ConfigError
from kernel_env.schema import Reward, Status, Verdict


@dataclass(frozen=True)
class RewardConfig:
    """Constants of the measured reward. The defaults are those of preset `seed`."""

    preset: str = "seed"
    """Name for records; choosing one is `reward_config`'s work."""
    compiled: float = 0.1
    """For a kernel that was accepted, built and imported but is not correct."""
    correct: float = 1.0
    """For a correct kernel; it replaces `compiled`."""
    max_bonus: float = 2.0
    """Limit of the speed bonus `speedup - 1`."""
    stop_at: float = 2.0
    """An episode ends when a turn's reward reaches this."""

    def __post_init__(self) -> None:
        for name in ("compiled", "correct", "max_bonus", "stop_at"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ConfigError(f"reward.{name} is {value}: give a finite number of 0 or more")

    @property
    def maximum(self) -> float:
        """The highest reward that a turn can get."""
        return max(self.compiled, self.correct + self.max_bonus)


PRESETS: Mapping[str, RewardConfig] = MappingProxyType(
    {
        "seed": RewardConfig(),
        "tritonforge": RewardConfig(preset="tritonforge", correct=0.3, stop_at=1.3),
    }
)


def reward_config(preset: str) -> RewardConfig:
    """The preset of that name. Raises ConfigError for an unknown one."""
    if preset not in PRESETS:
        raise ConfigError(f"unknown reward preset {preset!r}: use one of {', '.join(PRESETS)}")
    return PRESETS[preset]


def measured_reward(verdict: Verdict, config: RewardConfig) -> Reward:
    """`compiled`, or `correct + min(max(speedup - 1, 0), max_bonus)`, or 0.

    The parts `compiled`, `correct` and `speedup_bonus` add up to the value; a part that could not be measured here is None.
    A tampered run gets 0 however far it came. An unscored verdict has no value.
    """
    if not verdict.scored:
        parts = {"compiled": None, "correct": None, "speedup_bonus": None}
        return Reward(None, parts, verdict.message or "this machine cannot run the candidate")
    if not verdict.correct:
        compiled = config.compiled if verdict.compiled and verdict.status is not Status.TAMPERED else 0.0
        return Reward(compiled, {"compiled": compiled, "correct": 0.0, "speedup_bonus": 0.0})
    if verdict.speedup is None:
        reason = f"no speed bonus: {verdict.timing_note or 'not measured'}"
        return Reward(config.correct, {"compiled": 0.0, "correct": config.correct, "speedup_bonus": None}, reason)
    bonus = min(max(verdict.speedup - 1.0, 0.0), config.max_bonus)
    return Reward(config.correct + bonus, {"compiled": 0.0, "correct": config.correct, "speedup_bonus": bonus})


def reached_stop(reward: Reward, config: RewardConfig) -> bool:
    """Whether a turn with this measured reward ends its episode as solved."""
    return reward.value is not None and reward.value >= config.stop_at

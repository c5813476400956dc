"""A judge's scores as a reward, over HTTP. Names are imported when they are first asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewards.judge.adapter import BaseJudgeReward as BaseJudgeReward
    from rewards.judge.adapter import JudgeRewardSystem as JudgeRewardSystem
    from rewards.judge.adapter import MultiCritiqueJudge as MultiCritiqueJudge
    from rewards.judge.adapter import compute_reward as compute_reward
    from rewards.judge.adapter import create_judge_reward as create_judge_reward
    from rewards.judge.config import JudgeConfig as JudgeConfig

_HOMES = {
    "BaseJudgeReward": "rewards.judge.adapter",
    "JudgeConfig": "rewards.judge.config",
    "JudgeRewardSystem": "rewards.judge.adapter",
    "MultiCritiqueJudge": "rewards.judge.adapter",
    "compute_reward": "rewards.judge.adapter",
    "create_judge_reward": "rewards.judge.adapter",
}
__all__ = ["BaseJudgeReward", "JudgeConfig", "JudgeRewardSystem", "MultiCritiqueJudge", "compute_reward", "create_judge_reward"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'rewards.judge' has no attribute {name!r}")

"""SkyRL: a text environment for its generator, written against skyrl-gym 0.4 (the extra `skyrl`).

    with BlockingVerifier() as verifier:
        register(lambda max_turns: KernelBenchEnv(problems, max_turns=max_turns, verifier=verifier))
        ...  # in the process of SkyRL's generator, before it plays

`rows` are the data set. The reward of a step is that of its turn, and SkyRL makes returns of them. It has no word for a turn that
was not scored, so such a turn is an error, as is a failure of the machine; neither is ever a 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import skyrl_gym
from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput

from kernel_env.env import KernelBenchEnv
from kernel_env.episode import EpisodeConfig
from kernel_env.errors import ConfigError
from kernel_env.schema import Problem
from rollout.adapters.common import Facts, Rows, facts, known, metrics

ENV_CLASS = "kernel-env"


def register(make: Callable[[int], KernelBenchEnv], env_class: str = ENV_CLASS) -> None:
    """`make` makes the environment of one trajectory from the trainer's `generator.max_turns`; give all of them one verifier."""
    skyrl_gym.register(env_class, KernelTextEnv, {"make": make})


def rows(problems: Sequence[Problem], backend: str = "cpp", env_class: str = ENV_CLASS) -> list[dict[str, Any]]:
    """For `datasets.Dataset.from_list(...).to_parquet`."""
    return [{**row, "env_class": env_class} for row in Rows(problems, EpisodeConfig(backend)).rows]


class KernelTextEnv(BaseTextEnv):  # type: ignore[misc]
    """One trajectory. `step` blocks, so `environment.skyrl_gym.max_env_workers` are verified at a time."""

    def __init__(
        self, make: Callable[[int], KernelBenchEnv], env_config: object = None, extras: Mapping[str, Any] | None = None
    ) -> None:
        """`extras` are the other columns of the row, and `max_turns`."""
        super().__init__()
        given = extras or {}
        missing = [name for name in ("problem", "max_turns") if name not in given]
        if missing:
            raise ConfigError(f"the data set's row has no {' and no '.join(missing)}: make it of `rows`")
        self.max_turns = int(given["max_turns"])
        self._problem_key = str(given["problem"])
        self._env = make(self.max_turns)
        self._told_T: list[Facts] = []

    def init(self, prompt: list[dict[str, str]]) -> tuple[list[dict[str, str]], dict[str, Any]]:
        """Raises ConfigError where the row's prompt is not the one that the environment has."""
        self._told_T = []
        _, info = self._env.reset(options={"problem": self._problem_key})
        if [dict(message) for message in prompt] != info["messages"]:
            raise ConfigError(f"the data set's prompt for {self._problem_key} is not this environment's: make it of `rows` again")
        return info["messages"], {}

    def step(self, action: str) -> BaseTextEnvStepOutput:
        feedback, _, terminated, truncated, info = self._env.step(action)
        told = facts(info["verdict"], info["reward"])
        value = known(told.reward, info["problem"], info["reward"].reason)
        self._told_T.append(told)
        self.turns = info["turn"]
        return BaseTextEnvStepOutput(
            observations=[{"role": "user", "content": feedback}] if feedback else [],
            reward=value,
            done=terminated or truncated,
            metadata=asdict(told),
        )

    def get_metrics(self) -> dict[str, float]:
        return metrics(self._told_T)

    def close(self) -> None:
        self._env.close()

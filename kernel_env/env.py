"""The Gymnasium environment: text in, text out.

    env = gymnasium.make("KernelBench-v0", backend="cpp")
    prompt, info = env.reset(seed=0)
    feedback, reward, terminated, truncated, info = env.step(reply)

`terminated` means solved (reward >= the preset's stop value), `truncated` means the turn limit or an unscored turn. A turn that
this machine could not score has reward NaN and `info["reward"].value is None`; it never counts as 0. An infrastructure
failure raises `kernel_env.errors.InfraError` out of `step`, and the same step can be tried again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, TypedDict

import gymnasium as gym

from kernel_env.backends import get_backend
from kernel_env.episode import EpisodeConfig, EpisodeState
from kernel_env.errors import ConfigError
from kernel_env.printable import printable
from kernel_env.problems import find, load_problems
from kernel_env.referee.config import VerifyConfig
from kernel_env.reward import reward_config
from kernel_env.schema import Generation, Problem, Reward, StopReason, Turn, Verdict
from kernel_env.spaces import TextSpace
from kernel_env.verifier import BlockingVerifier, LocalVerifier, SocketVerifier, Verifier, VerifierConfig


class StepInfo(TypedDict, total=False):
    """`info` of `reset` (the first three fields) and `step` (all)."""

    problem: Problem
    messages: list[dict[str, str]]
    """The whole conversation so far, ready to be sent to a chat model. A fresh copy each time."""
    turn: int
    """Number of replies judged so far."""
    verdict: Verdict
    reward: Reward
    code: str | None
    """The extracted kernel."""
    stop_reason: StopReason | None


class KernelBenchEnv(gym.Env[str, str]):
    """Multi-turn kernel generation over a set of problems.

    `problems` is a source name (`bundled`), or problems already loaded. `verifier` is the address of a shared one
    (`unix:...`), those of servers (`http://a:18188,http://b:18188`), a `BlockingVerifier`, or None for one of its own.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(
        self,
        problems: str | Sequence[Problem] = "bundled",
        path: str | None = None,
        backend: str = "cpp",
        profile: str | None = None,
        max_turns: int = 3,
        reward: str = "seed",
        verify: VerifyConfig | None = None,
        verifier: BlockingVerifier | str | None = None,
        clock: Literal["live", "recorded"] = "live",
        render_mode: str | None = None,
    ) -> None:
        if render_mode not in (None, "ansi"):
            raise ConfigError(f"render_mode must be None or 'ansi', got {render_mode!r}")
        self.render_mode = render_mode
        chosen = profile or get_backend(backend).profile
        self._problems = load_problems(problems, path, chosen) if isinstance(problems, str) else tuple(problems)
        if not self._problems:
            raise ConfigError("the environment needs at least one problem")
        self._config = EpisodeConfig(
            backend=backend, max_turns=max_turns, reward=reward_config(reward), verify=verify or VerifyConfig()
        )
        self._given, self._clock = verifier, clock
        self._verifier: BlockingVerifier | None = verifier if isinstance(verifier, BlockingVerifier) else None
        self._state: EpisodeState | None = None
        self.observation_space: TextSpace = TextSpace()
        self.action_space: TextSpace = TextSpace()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode. `options={"problem": "level1_problem3"}` chooses it (key, `1/3` or name); else the seed does.

        Returns the user message of the first prompt. The system message is in `info["messages"]`.
        """
        super().reset(seed=seed)
        wanted = (options or {}).get("problem")
        unknown = set(options or {}) - {"problem"}
        if unknown:
            raise ConfigError(f"unknown reset option {', '.join(sorted(unknown))}: only `problem` exists")
        problem = find(self._problems, str(wanted)) if wanted is not None else self._drawn()
        self._state = EpisodeState(problem, self._config, int(self.np_random.integers(1 << 62)))
        return str(self._state.messages[-1]["content"]), dict(self._info(self._state))

    def _drawn(self) -> Problem:
        return self._problems[int(self.np_random.integers(len(self._problems)))]

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Judge one reply. The observation is the next user message, empty when the episode ended."""
        if self._state is None:
            raise ConfigError("call reset() before step()")
        if not isinstance(action, str):
            raise ConfigError(f"an action is the model's reply as a str, got {type(action).__name__}")
        turn = self._blocking().run(self._state.step(Generation(action), self._blocking().verifier))
        info = self._info(self._state)
        info["verdict"], info["reward"], info["code"] = turn.verdict, turn.reward, turn.code
        info["stop_reason"] = self._state.stop_reason
        terminated = self._state.stop_reason is StopReason.SOLVED
        value = math.nan if turn.reward.value is None else turn.reward.value
        return turn.feedback or "", value, terminated, self._state.done and not terminated, dict(info)

    def _info(self, state: EpisodeState) -> StepInfo:
        return StepInfo(problem=state.problem, messages=[dict(message) for message in state.messages], turn=len(state.turns))

    def _blocking(self) -> BlockingVerifier:
        if self._verifier is None:
            self._verifier = BlockingVerifier(self._made)
        return self._verifier

    def _made(self) -> Verifier:
        return verifier_at(self._given) if isinstance(self._given, str) else LocalVerifier(VerifierConfig(clock=self._clock))

    def render(self) -> str | None:
        """The conversation's turns as text, with statuses and rewards."""
        if self.render_mode is None or self._state is None:
            return None
        state = self._state
        head = f"{state.problem.key} {state.problem.name} ({self._config.backend}, {state.problem.profile})"
        return "\n".join(
            [head, *map(turn_line, state.turns), f"stopped: {state.stop_reason}" if state.done else "waiting for a reply"]
        )

    def close(self) -> None:
        """Idempotent. A verifier that was handed in stays open. The next step needs a reset first."""
        self._state = None
        if self._verifier is not None and self._verifier is not self._given:
            self._verifier.close()
        self._verifier = None


def verifier_at(address: str) -> Verifier:
    """A shared one (`unix:...`), or those of servers (`http://a:18188,http://b:18188`). Raises ConfigError for what is neither."""
    if not address.startswith("http"):
        return SocketVerifier(address)
    from kernel_env.remote.client import RemoteVerifier

    return RemoteVerifier(address.split(","))


def turn_line(turn: Turn) -> str:
    """One turn in one line, for people."""
    value = "unscored" if turn.reward.value is None else f"{turn.reward.value:.3f}"
    speed = f"  {turn.verdict.speedup:.2f}x" if turn.verdict.speedup is not None else ""
    first = printable(turn.verdict.message.strip().split("\n", 1)[0][:100])
    return f"turn {turn.index}: {turn.verdict.status:<14} reward {value}{speed}  {first}".rstrip()

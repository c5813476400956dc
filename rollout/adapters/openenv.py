"""OpenEnv: a server of episodes and its client, written against openenv 0.10 (the extra `openenv`).

    with BlockingVerifier() as verifier:
        app = make_app(lambda: KernelBenchEnv(problems, verifier=verifier), max_sessions=64)
        uvicorn.run(app, port=8000)

    async with KernelClient("http://127.0.0.1:8000") as client:
        result = await client.reset(seed=0)
        while not result.done:
            result = await client.step(Reply(text=await model(result.observation.messages)))

Each connection is an environment of its own, and all of them share the verifier. A turn that was not scored has the reward None; a
failure of the server's machine is an error of that step, which can be tried again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from openenv.core import EnvClient
from openenv.core.client_types import StepResult
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app

from kernel_env.env import KernelBenchEnv
from kernel_env.errors import ConfigError
from kernel_env.schema import StopReason
from rollout.adapters.common import Facts, facts

PATIENCE_S = 900.0
"""For one step: the build, the verification, and the wait for a slot."""


class Reply(Action):  # type: ignore[misc]
    text: str
    """All that the model wrote."""


class Seen(Observation):  # type: ignore[misc]
    """`reward` is that of the last reply; None: not scored."""

    problem: str
    """`Problem.key`."""
    messages: list[dict[str, str]]
    """The whole conversation so far, ready to be sent to a chat model."""
    feedback: str = ""
    """The last user message, which is new; empty where the episode ended."""
    facts: Facts | None = None
    """Of the last reply."""
    stop_reason: StopReason | None = None


class Standing(State):  # type: ignore[misc]
    problem: str = ""
    done: bool = False


class KernelEnvironment(Environment[Reply, Seen, Standing]):  # type: ignore[misc]
    """One session. `step` blocks in the thread that the server gives each of them."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, make: Callable[[], KernelBenchEnv]) -> None:
        super().__init__()
        self._env = make()
        self._state = Standing()

    def reset(self, seed: int | None = None, episode_id: str | None = None, problem: str | None = None) -> Seen:
        """`problem` chooses it (key, `1/3` or name); else the seed does."""
        prompt, info = self._env.reset(seed=seed, options=None if problem is None else {"problem": problem})
        key = info["problem"].key
        self._state = Standing(episode_id=episode_id, problem=key)
        return Seen(problem=key, messages=info["messages"], feedback=prompt)

    def step(self, action: Reply, timeout_s: float | None = None) -> Seen:
        if timeout_s is not None:
            raise ConfigError("timeout_s of a step: a verification has limits of its own, VerifyConfig.timeout_s; leave it out")
        feedback, _, terminated, truncated, info = self._env.step(action.text)
        done, reward = terminated or truncated, info["reward"]
        self._state = self._state.model_copy(update={"step_count": info["turn"], "done": done})
        return Seen(
            done=done,
            reward=reward.value,
            problem=self._state.problem,
            messages=info["messages"],
            feedback=feedback,
            facts=facts(info["verdict"], reward),
            stop_reason=info["stop_reason"],
        )

    @property
    def state(self) -> Standing:
        return self._state

    def close(self) -> None:
        self._env.close()


def make_app(make: Callable[[], KernelBenchEnv], max_sessions: int = 64) -> FastAPI:
    """The server. `make` makes the environment of one session; give all of them one verifier."""
    session = functools.partial(KernelEnvironment, make)
    app: FastAPI = create_fastapi_app(session, Reply, Seen, max_concurrent_envs=max_sessions, state_cls=Standing)
    return app


class KernelClient(EnvClient[Reply, Seen, Standing]):  # type: ignore[misc]
    """A session. OpenEnv's own minute for an answer is too short where builds and verifications queue."""

    def __init__(self, base_url: str, *, message_timeout_s: float = PATIENCE_S, **given: Any) -> None:
        super().__init__(base_url, message_timeout_s=message_timeout_s, **given)

    def _step_payload(self, action: Reply) -> dict[str, Any]:
        payload: dict[str, Any] = action.model_dump()
        return payload

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[Seen]:
        reward, done = payload["reward"], payload["done"]
        return StepResult(Seen(**payload["observation"], reward=reward, done=done), reward, done)

    def _parse_state(self, payload: dict[str, Any]) -> Standing:
        return Standing(**payload)

"""verifiers and prime-rl: problems as a taskset, and the environment that plays them, written against verifiers 0.4.

    [env.taskset]
    id = "kernel-env-verifiers"   # that package has the three classes of this module

The trainer's engine replies. verifiers keeps the tokens of what was sampled, and the conversation, which only grows. The reward of
an episode is its return. Where the machine failed or a turn was not scored there is none: the rollout has an error, with which
verifiers and prime-rl leave it out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Literal

import verifiers.v1 as vf
from openai import AsyncOpenAI
from pydantic import Field
from verifiers.v1.dialects.chat import message_to_wire

from kernel_env.backends import get_backend
from kernel_env.env import verifier_at
from kernel_env.episode import EpisodeConfig, EpisodeState
from kernel_env.problems import load_problems
from kernel_env.referee.config import VerifyConfig, derive_seed
from kernel_env.reward import reward_config
from kernel_env.schema import Generation, Problem, from_json, to_json
from kernel_env.verifier import LocalVerifier, Verifier
from rollout.adapters.common import Rows, facts, known, metrics
from rollout.returns import RETURNS

REWARD = "kernel_return"


# ------------------------------------------------------------------ tasks


class KernelData(vf.TaskData):  # type: ignore[misc]
    problem: dict[str, Any]
    """All of it, as JSON: an environment server is sent tasks and reads no data set."""


class KernelTask(vf.Task[KernelData, vf.State, vf.TaskConfig]):  # type: ignore[misc]
    """A problem. The environment scores it, since the replies before the last one count too."""


class KernelTasksetConfig(vf.TasksetConfig):  # type: ignore[misc]
    problems: str = "bundled"
    """The source: `bundled`, `kernelbench`, `jsonl` or `huggingface`, ..."""
    path: str | None = None
    """... and what it reads."""
    profile: str | None = None
    """Of sizes; by default the back end's."""
    backend: str = "cpp"


class KernelTaskset(vf.Taskset[KernelTask, KernelTasksetConfig]):  # type: ignore[misc]
    def load(self) -> Iterator[KernelTask]:
        config = self.config
        problems = load_problems(config.problems, config.path, config.profile or get_backend(config.backend).profile)
        for row, problem in zip(Rows(problems, EpisodeConfig(config.backend)).rows, problems, strict=True):
            told = [message for message in row["prompt"] if message["role"] != "system"]
            system = [message["content"] for message in row["prompt"] if message["role"] == "system"]
            yield KernelTask(
                KernelData(
                    id=problem.key,
                    name=problem.name,
                    prompt=told,
                    system_prompt="\n\n".join(system) or None,
                    problem=to_json(problem),
                ),
                config.task,
            )


# ------------------------------------------------------------------ episodes


class KernelEnvConfig(vf.EnvConfig):  # type: ignore[misc]
    agent: vf.AgentConfig = vf.AgentConfig(runtime={"type": "subprocess"})
    """Nothing of what the model writes runs there: the verifier builds and runs it."""
    max_turns: int = 3
    reward: str = "seed"
    """A preset."""
    verify: dict[str, Any] = Field(default_factory=dict)
    """Fields of `VerifyConfig`."""
    verifier: str = ""
    """The address of a shared one, or those of servers, as `kernel_env.env.verifier_at` takes them; by default one of its own."""
    returns: Literal["trajectory", "best"] = "trajectory"
    gamma: float = 1.0


class KernelEnv(vf.Env[KernelEnvConfig]):  # type: ignore[misc]
    def __init__(self, config: KernelEnvConfig) -> None:
        super().__init__(config)
        self._episode = EpisodeConfig(
            backend=config.taskset.backend,
            max_turns=config.max_turns,
            reward=reward_config(config.reward),
            verify=from_json(VerifyConfig, config.verify),
        )
        self._verifier: Verifier | None = None

    async def start(self) -> None:
        self._verifier = verifier_at(self.config.verifier) if self.config.verifier else LocalVerifier()

    async def stop(self) -> None:
        if self._verifier is not None:
            await self._verifier.aclose()

    async def run(self, task: KernelTask, agents: Any) -> None:
        assert self._verifier is not None, "verifiers calls `start` before any `run`"
        async with agents.agent.interaction(task) as interaction:
            trace = interaction.trace
            state = EpisodeState(from_json(Problem, task.data.problem), self._episode, derive_seed(0, trace.id))
            segment = await interaction.turn()
            while not segment.terminated:
                turn = await state.step(_reply(trace), self._verifier)
                if state.done:
                    break
                segment = await interaction.turn(turn.feedback)
            if not trace.errors:
                self._score(trace, state)

    def _score(self, trace: Any, state: EpisodeState) -> None:
        """Also where a limit of the trainer's ended the exchange early: of the turns that there were."""
        told_T = [facts(turn.verdict, turn.reward) for turn in state.turns]
        trace.info["turns"] = [asdict(told) for told in told_T]
        trace.record_metrics(metrics(told_T))
        trace.rewards[REWARD] = None
        returns_T = RETURNS[self.config.returns]([turn.reward.value for turn in state.turns], self.config.gamma)
        why = state.turns[-1].reward.reason if state.turns else f"there was no reply ({trace.stop_condition})"
        trace.record_reward(REWARD, known(returns_T[0] if returns_T else None, state.problem, why))


def _reply(trace: Any) -> Generation:
    message, call = trace.assistant_messages[-1], trace.calls[-1]
    cut = call.finish_reason == "length"
    return Generation(message.content or "", message.reasoning_content or "", "length" if cut else "stop", model=call.model or "")


# ------------------------------------------------------------------ the model's side


class ChatHarness(vf.Harness[vf.HarnessConfig]):  # type: ignore[misc]
    """One chat request a turn, from this process: there are no tools, so no program has to be started for it."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: Any,
        trace: Any,
        runtime: Any,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        system, prompt = self.resolve_prompt(data)
        messages: list[Any] = [{"role": "system", "content": system}] if system else []
        messages += [message_to_wire(message) for message in prompt]
        async with AsyncOpenAI(base_url=endpoint, api_key=secret, timeout=None) as client:
            await client.chat.completions.create(model=ctx.model, messages=messages)
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")

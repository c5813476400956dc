"""verl: an agent loop, written against verl 0.9 (the extra `verl`) and its trainer v1, which is the default.

    actor_rollout_ref.rollout.agent.agent_loop_config_path=agent.yaml

    # agent.yaml
    - name: kernel_env
      _target_: rollout.adapters.verl.KernelAgentLoop
      options: [problems=kernelbench, backend=triton, rollout.max_turns=3, "verifier.remote=[http://gpu1:18188]"]

`rows` are the data set. Of verl nothing is used but `server_manager.generate` and the type of the result, so the class has no base
of verl's, and this module can be imported without it.

An episode is one sequence, or one a turn where the chat template or `rollout.history` changes the past; verl gives all of them the
reward of the episode. An episode that was not scored has no sequence at all: verl's trainer goes on without it.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from kernel_env.errors import ConfigError, PolicyError
from kernel_env.schema import Generation, Turn, Usage
from rollout.adapters.common import check_returns
from rollout.adapters.worker import Played, TrainersModel, environment
from rollout.policies import GenerationRequest
from rollout.tokens import ChatTemplate, HuggingFaceTemplate, Layout

NAME = "kernel_env"
"""Of the agent loop, in rows and in `agent.yaml`."""


def rows(*options: str) -> list[dict[str, Any]]:
    """The data set, for a file of verl's `data.train_files`. `options` are those of `agent.yaml`."""
    return [
        {
            "prompt": list(row["prompt"]),
            "agent_name": NAME,
            "data_source": NAME,
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"index": at, "problem": row["problem"]},
        }
        for at, row in enumerate(environment(options).rows.rows)
    ]


class KernelAgentLoop:
    """Plays one episode for each call of `run`. verl makes a new one for each."""

    def __init__(self, trainer_config: Any, server_manager: Any, tokenizer: Any, options: Sequence[str] = (), **_: object) -> None:
        """`options` are those of `kernel-env eval`. Raises ConfigError."""
        self._environment = environment(tuple(options))
        check_returns(self._environment.settings.rollout.returns, Layout.APPEND)  # verl knows one reward an episode
        config = trainer_config.config
        self._most_tokens = int(config.actor_rollout_ref.rollout.response_length)
        self._servers, self._tokenizer = server_manager, tokenizer
        self._template = _template(tokenizer, tuple(sorted((config.data.get("apply_chat_template_kwargs") or {}).items())))

    async def run(self, sampling_params: dict[str, Any], **fields: Any) -> Any:
        """An `AgentLoopOutput`, or a list of them: one a turn, and none for an episode that was not scored."""
        problem = (fields.get("extra_info") or {}).get("problem")
        if problem is None:
            raise ConfigError("the data set's rows have no extra_info.problem: make them with rollout.adapters.verl.rows")
        policy = ServerPolicy(self._servers, self._template, frozenset(self._tokenizer.all_special_ids), sampling_params)
        sampling = self._environment.sampling(sampling_params["temperature"], sampling_params["top_p"], self._most_tokens)
        renderer = self._environment.renderer(self._template)
        played = await self._environment.play(policy, problem, sampling, renderer, fields.get("uid"))
        outputs = self._outputs(played, policy)
        return outputs[0] if len(outputs) == 1 else outputs

    def _outputs(self, played: Played, policy: ServerPolicy) -> list[Any]:
        from verl.experimental.agent_loop import AgentLoopOutput

        turns, most = played.episode.turns, self._most_tokens
        score = played.samples[0].credit if played.samples else None
        if score is None:
            return []
        metrics = {
            "generate_sequences": sum(turn.generation.duration_s for turn in turns),
            "tool_calls": sum(turn.verdict.duration_ms for turn in turns) / 1e3,
            "num_preempted": policy.preempted,
        }
        extra = {
            "turn_scores": list(played.episode.rewards_T),
            "tool_rewards": [],
            "reward_extra_info": {"correct": float(played.correct)},
            **_weights(turns),
        }
        return [
            AgentLoopOutput(
                prompt_ids=list(sample.prompt_ids),
                response_ids=list(sample.completion_ids[:most]),
                response_mask=list(sample.loss_mask[:most]),
                response_logprobs=None if sample.logprobs is None else list(sample.logprobs[:most]),
                reward_score=score,
                num_turns=2 * len(turns),
                metrics=metrics,
                extra_fields=dict(extra),
            )
            for sample in played.samples
        ]


@functools.lru_cache(maxsize=4)
def _template(tokenizer: Any, options: tuple[tuple[str, object], ...]) -> HuggingFaceTemplate:
    return HuggingFaceTemplate(tokenizer, dict(options))


class ServerPolicy(TrainersModel):
    """The model on verl's servers, for one episode: all its requests go to the same one, which has the conversation cached."""

    name = "verl"

    def __init__(self, servers: Any, template: ChatTemplate, ends: frozenset[int], params: Mapping[str, Any]) -> None:
        self.preempted = -1
        """As verl counts it; -1 where its servers do not say."""
        self._servers, self._template, self._ends, self._params = servers, template, ends, params
        self._id = uuid.uuid4().hex

    async def generate(self, request: GenerationRequest) -> Generation:
        """Raises PolicyError."""
        began_s, limit = time.monotonic(), request.sampling.max_tokens
        prompt = request.prompt_ids or self._template.render(request.messages, request.thinking)
        params = {**self._params, "temperature": request.sampling.temperature, "top_p": request.sampling.top_p, "max_tokens": limit}
        try:
            output = await self._servers.generate(request_id=self._id, prompt_ids=list(prompt), sampling_params=params)
        except Exception as error:  # Ray raises what its servers raise, too long a conversation among it
            said = " ".join(str(error).split())[-300:]
            raise PolicyError(f"verl's servers gave no reply ({type(error).__name__}: {said}); see their log") from error
        if output.num_preempted is not None:
            self.preempted = max(self.preempted, 0) + output.num_preempted
        sampled = tuple(output.token_ids)
        ended = bool(sampled) and sampled[-1] in self._ends
        finish = _finish(output.stop_reason, not ended and limit is not None and len(sampled) >= limit)
        return Generation(
            text=self._template.decode(sampled[:-1] if ended and finish == "stop" else sampled),
            finish_reason=finish,
            usage=Usage(len(prompt), len(sampled)),
            duration_s=time.monotonic() - began_s,
            output_ids=sampled,
            output_logprobs=tuple(output.log_probs) if output.log_probs or not sampled else None,
            weight_version=_version(output.extra_fields),
            prompt_ids=prompt,
        )


def _finish(said: str | None, full: bool) -> Any:
    """With vLLM, `completed` is either end."""
    if said in ("abort", "aborted"):
        return "abort"
    return "length" if said == "length" or full else "stop"


def _version(extra: Mapping[str, Any]) -> str | None:
    """The trainer's step that the weights are of, `FIRST..LAST` where they changed on the way."""
    first, last = extra.get("min_global_steps"), extra.get("max_global_steps")
    return None if first is None or last is None else f"{first}" if first == last else f"{first}..{last}"


def _weights(turns: Sequence[Turn]) -> dict[str, int | None]:
    """Of all turns together, in verl's words."""
    versions = [turn.generation.weight_version for turn in turns]
    steps = [int(step) for version in versions if version for step in version.split("..")]
    return {"min_global_steps": min(steps, default=None), "max_global_steps": max(steps, default=None)}

"""TRL: the `rollout_func` and the reward function of a `GRPOTrainer`, written against trl 1.16 (the extra `trl`).

    with BlockingVerifier() as verifier:
        rollouts = Rollouts(problems, verifier, EngineConfig(EpisodeConfig(max_turns=3)))
        data = Dataset.from_list(rollouts.rows)
        GRPOTrainer(model, verified_return, args, data, rollout_func=rollouts).train()

The trainer's model replies itself, or the vLLM server that the trainer keeps in step (`vllm_mode="server"`, never run with vLLM).
The trainer decides how replies are drawn: `temperature`, `top_p`, `seed`, `num_generations`, and `max_completion_length`, which is
the limit of one reply.

TRL trains on one sequence for each prompt of a batch, so an episode is one, in layout `append`. Chat templates that change the past
(Qwen3's) are refused where there is more than one turn; `trl.chat_template_utils.get_training_chat_template` has others for them.
An episode that was not scored has the reward None, which TRL keeps out of its group's baseline, and no token of it is trained on.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kernel_env.errors import ConfigError
from kernel_env.referee.config import derive_seed
from kernel_env.reward import Shaping
from kernel_env.schema import Episode, Problem
from kernel_env.verifier import BlockingVerifier
from rollout.adapters.common import Rows, TrainingSample, check_returns, play, training_samples
from rollout.engine import EngineConfig
from rollout.policies import Endpoint, Policy, Sampling, make_policy
from rollout.policies.transformers import TransformersPolicy
from rollout.tokens import HuggingFaceTemplate, Layout, Renderer, choose_layout

if TYPE_CHECKING:
    from rollout.policies.local_model import LocalModel

LAYOUT = Layout.APPEND
OF_THE_TRAINER = ("samples", "sampling", "renderer")
"""What an `EngineConfig` has and the trainer decides."""
NOT_SAMPLED = {"top_k": (0, None), "min_p": (None,), "repetition_penalty": (1.0, None)}
"""Options of the trainer that replies are not drawn with, and their values that change nothing."""


class Rollouts:
    """Plays the prompts of each batch to the ends of their episodes. Use `rows` as the data set."""

    def __init__(
        self,
        problems: Sequence[Problem],
        verifier: BlockingVerifier,
        config: EngineConfig,
        *,
        returns: str = "trajectory",
        gamma: float = 1.0,
        shaping: Shaping | None = None,
    ) -> None:
        """`returns` is `trajectory` or `best`, a name of `rollout.returns`. Raises ConfigError for what TRL cannot train with, and
        where `config` says what the trainer decides."""
        check_returns(returns, LAYOUT)
        given = [name for name in OF_THE_TRAINER if getattr(config, name) != getattr(EngineConfig(), name)]
        if given:
            raise ConfigError(f"{', '.join(given)} of the engine's configuration: the trainer decides that, set it in GRPOConfig")
        self._rows = Rows(problems, config.episode)
        self._verifier, self._config, self._shaping = verifier, config, shaping
        self._returns, self._gamma = returns, gamma
        self._calls = Counter[tuple[int, bool]]()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """For `datasets.Dataset.from_list`."""
        return [dict(row) for row in self._rows.rows]

    def __call__(self, prompts: Sequence[Sequence[Mapping[str, str]]], trainer: Any) -> dict[str, list[Any]]:
        """What TRL asks of a `rollout_func`: one sequence for each prompt, in their order."""
        problems = [self._rows.by_prompt(prompt) for prompt in prompts]
        renderer = _renderer(trainer, self._config)
        seed = self._seed(trainer)
        config = replace(self._config, sampling=_sampling(trainer, seed), renderer=renderer)
        with _policy(trainer) as policy:
            episodes = self._verifier.run(self._played(policy, config, problems, seed))
        samples = training_samples(episodes, LAYOUT, self._returns, self._gamma)
        ending = trainer.processing_class.eos_token_id
        sequences = [
            found[0] if found else TrainingSample(renderer.template.render(prompt, None), (ending,), (0,), (0.0,), None)
            for found, prompt in zip(samples, prompts, strict=True)  # TRL wants a sequence where there was no reply, too
        ]
        return {
            "prompt_ids": [list(s.prompt_ids) for s in sequences],
            "completion_ids": [list(s.completion_ids) for s in sequences],
            "env_mask": [list(s.loss_mask) for s in sequences],
            "logprobs": [list(s.logprobs or ()) for s in sequences],
            "kernel_return": [s.credit for s in sequences],
            "kernel_turns": [len(episode.turns) for episode in episodes],
            "kernel_correct": [_correct(episode) for episode in episodes],
        }

    async def _played(self, policy: Policy, config: EngineConfig, problems: Sequence[Problem], seed: int) -> list[Episode]:
        try:
            return await play(policy, self._verifier.verifier, config, problems, seed, self._shaping)
        finally:
            await policy.aclose()

    def _seed(self, trainer: Any) -> int:
        """Of this very batch, in all processes, and again after a restart from a checkpoint."""
        step = trainer.state.global_step, bool(trainer.model.training)
        self._calls[step] += 1
        return derive_seed(trainer.args.seed, "batch", *step, self._calls[step])


def verified_return(
    kernel_return: Sequence[float | None],
    kernel_turns: Sequence[int],
    kernel_correct: Sequence[bool],
    log_metric: Any = None,
    **_: object,
) -> list[float | None]:
    """The reward function: the return of each episode, as it was verified. None, which is not 0, where it was not scored."""
    if log_metric is not None:
        log_metric("kernel/turns", sum(kernel_turns) / len(kernel_turns))
        log_metric("kernel/correct", sum(kernel_correct) / len(kernel_correct))
        log_metric("kernel/unscored", sum(value is None for value in kernel_return) / len(kernel_return))
    return list(kernel_return)


def _correct(episode: Episode) -> bool:
    return any(turn.verdict.correct for turn in episode.turns)


# ------------------------------------------------------------------ what the trainer says


def _sampling(trainer: Any, seed: int) -> Sampling:
    """Raises ConfigError for options that replies would not be drawn with."""
    odd = [name for name, same in NOT_SAMPLED.items() if getattr(trainer, name) not in same]
    odd += ["generation_kwargs"] if trainer.args.generation_kwargs else []
    if odd:
        raise ConfigError(f"{', '.join(odd)} of GRPOConfig: replies are drawn with temperature and top_p only; leave it out")
    if not trainer.temperature > 0:
        raise ConfigError("temperature of GRPOConfig must be above 0: the trainer divides by it")
    own = derive_seed(seed, "process", trainer.accelerator.process_index)  # a group may be split between processes
    return Sampling(trainer.temperature, trainer.max_completion_length, trainer.top_p, own)


def _renderer(trainer: Any, config: EngineConfig) -> Renderer:
    """Raises ConfigError where an episode of these turns would not be one sequence."""
    template = HuggingFaceTemplate(trainer.processing_class, trainer.chat_template_kwargs)
    if config.episode.max_turns > 1:
        try:
            choose_layout(template, config.episode.history, config.thinking.modes, LAYOUT)
        except ConfigError as error:
            raise ConfigError(
                f"TRL trains on one sequence an episode, and here {error}".removesuffix("; use layout per-turn")
                + "; use history=accumulate and the template of trl.chat_template_utils.get_training_chat_template, or max_turns=1"
            ) from error
    return Renderer(template, LAYOUT)


@contextmanager
def _policy(trainer: Any) -> Iterator[Policy]:
    """The trainer's model as it stands."""
    name = trainer.accelerator.unwrap_model(trainer.model).name_or_path or "model"
    if trainer.use_vllm:
        if trainer.vllm_mode != "server":
            raise ConfigError(f"vllm_mode={trainer.vllm_mode} of GRPOConfig: use server")
        said = trainer.args
        url = said.vllm_server_base_url or f"http://{said.vllm_server_host}:{said.vllm_server_port}"
        yield make_policy(f"vllm/{name}", endpoint=Endpoint(base_url=f"{url.rstrip('/')}/v1"))
        return
    if trainer.is_fsdp_enabled:
        raise ConfigError("with FSDP no process has all the weights to reply with: use vllm_mode=server in GRPOConfig")
    from trl.models import unwrap_model_for_generation

    unwrapped = unwrap_model_for_generation(
        trainer.model_wrapped,
        trainer.accelerator,
        gather_deepspeed3_params=trainer.args.ds3_gather_for_generation,
        gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
    )
    with unwrapped as model:

        def load() -> LocalModel:
            from rollout.policies.local_model import LocalModel

            return LocalModel(model, trainer.processing_class, name, time.monotonic, tempered=True)

        yield TransformersPolicy(name, load=load)

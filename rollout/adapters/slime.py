"""slime: functions for its options, written against slime of August 2026 (THUDM/slime, which is no package).

    --custom-generate-function-path rollout.adapters.slime.generate
    --custom-reward-post-process-path rollout.adapters.slime.advantages
    --custom-config-path kernel_env.yaml       # kernel_env: [problems=kernelbench, backend=triton, rollout.max_turns=3, ...]

`rows` are the data set, with `--input-key prompt --metadata-key metadata`. Replies come from slime's own SGLang servers,
through its router. An episode is one sample, or one a turn where the chat template or `rollout.history` changes the past; these
share slime's `rollout_id`, so that slime counts them as one.

For episodes of one turn that slime generates itself there is `--custom-rm-path rollout.adapters.slime.reward` instead of the first.

What was not scored has the reward NaN, a mask without a 1, and `remove_sample`; `advantages` keeps it out of every baseline.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kernel_env.errors import ConfigError, PolicyError
from kernel_env.schema import Generation
from rollout.adapters.common import TrainingSample, rewards_of
from rollout.adapters.worker import Environment, Played, TrainersModel, environment
from rollout.policies import Capabilities, Endpoint, GenerationRequest, Sampling
from rollout.policies.sglang import SGLangPolicy
from rollout.returns import GROUP_RETURNS, among_all_turns, credits, dr_grpo, grpo
from rollout.tokens import HuggingFaceTemplate, Renderer, load_template

UNSCORED = math.nan
"""Where slime wants a number and there is none. Whoever counts it in sees that the sum is not a number either."""
OURS = (
    "temperature",
    "top_p",
    "max_new_tokens",
    "sampling_seed",
    "skip_special_tokens",
    "no_stop_trim",
    "spaces_between_special_tokens",
)
"""Sampling parameters that `SGLangPolicy` sets itself; the others are handed on as they are."""
NORMALISED = ("grpo", "gspo", "cispo", "reinforce_plus_plus_baseline")
"""Advantage estimators for which slime compares the rewards of a group, ..."""
DIVIDED = NORMALISED[:3]
"""... and those for which it may divide them by their standard deviation."""


def rows(*options: str) -> list[dict[str, Any]]:
    """The data set, a line of JSON each in the file of `--prompt-data`. `options` are those of `kernel_env.yaml`."""
    return [{"prompt": list(row["prompt"]), "metadata": {"problem": row["problem"]}} for row in environment(options).rows.rows]


# ------------------------------------------------------------------ slime's functions


async def generate(args: Any, sample: Any, sampling_params: dict[str, Any], evaluation: bool = False) -> Any:
    """One episode: a sample, or a list of one a turn. In an evaluation it is always one, the last, with the episode's return."""
    _check(args, evaluation=evaluation)
    here = _environment(args)
    renderer = here.renderer(_template(args))
    sampling = here.sampling(
        sampling_params["temperature"],
        sampling_params["top_p"],
        sampling_params["max_new_tokens"],
        sampling_params.get("sampling_seed"),
    )
    policy = RouterPolicy(args, sampling_params)
    try:
        played = await here.play(policy, _problem(sample), sampling, renderer, sample.group_index)
    finally:
        await policy.aclose()
    if policy.stopped:
        sample.status = sample.Status.ABORTED
        return sample
    found = played.samples or [_nothing(renderer, here, sample)]
    filled = [_filled(sample, played, turn, part, renderer) for turn, part in enumerate(found)]
    if evaluation:
        filled[-1].reward = filled[0].reward
        return filled[-1]
    return filled if len(filled) > 1 else filled[0]


async def reward(args: Any, sample: Any, **_: object) -> Any:
    """The reward of a reply that slime generated, or of each in a list. What cannot be scored is also marked to be removed."""
    if isinstance(sample, list):
        return list(await asyncio.gather(*(reward(args, one) for one in sample)))
    played = await _environment(args).play(
        Said(sample.response), _problem(sample), Sampling(), None, sample.group_index, most_turns=1
    )
    (value,) = rewards_of(played.episode) or (None,)
    sample.remove_sample = value is None
    return UNSCORED if value is None else value


def advantages(args: Any, samples: Sequence[Any]) -> tuple[list[float], list[float]]:
    """What slime logs and what it trains with, for each sample: its return (`rollout.returns`) and, for estimators that compare the
    samples of a prompt, how it compares with the other turns of its group.

    What was not scored is compared with nothing, and its advantage of 0.0 meets a mask without a 1. In the log it stands as the
    mean of the others, which changes no mean.
    """
    rollout = _environment(args).settings.rollout
    found: list[float | None] = [None] * len(samples)
    compared: list[float | None] = [None] * len(samples)
    for group in _groups(samples):
        credits_GT = credits(rollout.returns, [_rewards(samples[members[0]]) for members in group], rollout.gamma)
        returns_GT = [
            [credits_T[_turn(samples[at])] for at in members] for members, credits_T in zip(group, credits_GT, strict=True)
        ]
        advantages_GT = returns_GT
        if rollout.returns not in GROUP_RETURNS and args.advantage_estimator in NORMALISED and args.rewards_normalization:
            divided = args.advantage_estimator in DIVIDED and args.grpo_std_normalization
            advantages_GT = [list(values) for values in among_all_turns(grpo if divided else dr_grpo, returns_GT)]
        for members, returns_T, advantages_T in zip(group, returns_GT, advantages_GT, strict=True):
            for at, value, advantage in zip(members, returns_T, advantages_T, strict=True):
                found[at], compared[at] = value, advantage
    known = [value for value in found if value is not None]
    mean = math.fsum(known) / len(known) if known else UNSCORED
    return [mean if value is None else value for value in found], [value or 0.0 for value in compared]


# ------------------------------------------------------------------ policies


class RouterPolicy(SGLangPolicy):
    """The model on slime's servers."""

    def __init__(self, args: Any, params: Mapping[str, Any]) -> None:
        further = {name: value for name, value in params.items() if name not in OURS and value is not None}
        url = f"http://{args.sglang_router_ip}:{args.sglang_router_port}"
        super().__init__(Path(args.hf_checkpoint).name, Endpoint(base_url=url, tokenizer=args.hf_checkpoint, extra_body=further))
        self.stopped = False
        """slime has enough samples, and ends all others."""
        self._args = args

    async def generate(self, request: GenerationRequest) -> Generation:
        from slime.rollout.sglang_rollout import GenerateState

        reply = await super().generate(request)
        if reply.finish_reason == "abort" and GenerateState(self._args).aborted:
            self.stopped = True
            raise PolicyError("slime has ended this rollout")
        return reply


class Said(TrainersModel):
    """A reply that is there already."""

    name = "slime"
    capabilities = Capabilities()

    def __init__(self, text: str) -> None:
        self._text = text

    async def generate(self, request: GenerationRequest) -> Generation:
        return Generation(self._text)


# ------------------------------------------------------------------ samples


def _filled(sample: Any, played: Played, turn: int, part: TrainingSample, renderer: Renderer) -> Any:
    """A copy of slime's sample with what is trained on."""
    turns, filled = played.episode.turns, copy.copy(sample)
    last = turns[turn if len(played.samples) > 1 else -1].generation if turns else None
    filled.tokens = [*part.prompt_ids, *part.completion_ids]
    filled.response = renderer.template.decode(part.completion_ids)
    filled.response_length = len(part.completion_ids)
    filled.loss_mask = list(part.loss_mask)
    filled.rollout_log_probs = None if part.logprobs is None else list(part.logprobs)
    filled.weight_versions = [turn.generation.weight_version for turn in turns if turn.generation.weight_version]
    filled.rollout_id = sample.index if sample.rollout_id is None else sample.rollout_id
    filled.reward = UNSCORED if part.credit is None else part.credit
    filled.remove_sample = part.credit is None
    cut = last is not None and last.finish_reason == "length"
    states = sample.Status
    filled.status = states.FAILED if part.credit is None else states.TRUNCATED if cut else states.COMPLETED
    filled.metadata = {
        **sample.metadata,
        "kernel_rewards": list(rewards_of(played.episode)) or [None],
        "kernel_turn": turn,
        "kernel_correct": played.correct,
        "round_number": len(turns),
    }
    return filled


def _nothing(renderer: Renderer, here: Environment, sample: Any) -> TrainingSample:
    """Of an episode without a reply: slime wants a token."""
    row = next(row for row in here.rows.rows if row["problem"] == _problem(sample))
    prompt = renderer.template.render(row["prompt"], None)
    return TrainingSample(prompt, prompt[-1:], (0,), (0.0,), None)


def _problem(sample: Any) -> str:
    if "problem" not in (sample.metadata or {}):
        raise ConfigError("slime's sample has no metadata.problem: make the data set with rollout.adapters.slime.rows")
    return str(sample.metadata["problem"])


def _rewards(sample: Any) -> list[float | None]:
    """Of each turn of its episode."""
    found = (sample.metadata or {}).get("kernel_rewards")
    return [None if math.isnan(sample.reward) else sample.reward] if found is None else found


def _turn(sample: Any) -> int:
    return int((sample.metadata or {}).get("kernel_turn", 0))


def _groups(samples: Sequence[Any]) -> list[list[list[int]]]:
    """Positions of the samples, by prompt and by episode."""
    groups = defaultdict[Any, defaultdict[Any, list[int]]](lambda: defaultdict(list))
    for at, sample in enumerate(samples):
        groups[sample.group_index][sample.index if sample.rollout_id is None else sample.rollout_id].append(at)
    return [list(group.values()) for group in groups.values()]


# ------------------------------------------------------------------ slime's options


def _environment(args: Any) -> Environment:
    return environment(tuple(getattr(args, "kernel_env", ())))


def _template(args: Any) -> HuggingFaceTemplate:
    return _loaded(args.hf_checkpoint, tuple(sorted((args.apply_chat_template_kwargs or {}).items())))


@functools.cache
def _loaded(checkpoint: str, options: tuple[tuple[str, object], ...]) -> HuggingFaceTemplate:
    return load_template(checkpoint, dict(options))


def _check(args: Any, *, evaluation: bool) -> None:
    """Raises ConfigError for options that an episode of ours does not go with."""
    wrong = {
        "--partial-rollout": args.partial_rollout,
        "--group-rm": args.group_rm,
        "--use-rollout-routing-replay": args.use_rollout_routing_replay,
        "--rollout-top-p other than 1": args.rollout_top_p != 1 and not evaluation,
    }
    given = [option for option, there in wrong.items() if there]
    if given:
        raise ConfigError(f"slime's {', '.join(given)} does not go with episodes of several turns: leave it out")
    ours = f"{__name__}.{advantages.__name__}"
    if args.custom_reward_post_process_path != ours and not evaluation:
        raise ConfigError(f"what was not scored would be trained on: add --custom-reward-post-process-path {ours}")

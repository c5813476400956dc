"""Whole rollouts with their tokens: what the engine was given and what it sampled is what a trainer gets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_env.episode import EpisodeConfig
from kernel_env.errors import BadReply, ConfigError
from kernel_env.schema import Generation, StopReason, Usage
from rollout.compose import composed
from rollout.engine import Engine, EngineConfig, MemoryJournal
from rollout.policies import Capabilities, GenerationRequest, Policy
from rollout.runner import plan, run
from rollout.store import RunReader
from rollout.thinking import ThinkingConfig
from rollout.tokens import Layout, Renderer, load_template, record_of
from tests.chat_formats import Dialect, hugging_face, needs_transformers, plain
from tests.players import Checker, Writer
from tests.sample_run import problem
from tests.tiny_model import tiny_model

HALF = 20
"""Tokens of the reply that is broken off."""


class TokenWriter(Writer):
    """Gives its replies as tokens, and breaks off the second one."""

    def __init__(self, dialect: Dialect, *, alters: bool = False, half: int = HALF, thought: str = "") -> None:
        super().__init__(capabilities=Capabilities(token_ids=True, logprobs=True, thinking=True, thinking_budget=True))
        self._dialect, self._alters, self._half, self._thought = dialect, alters, half, thought
        self.given: list[tuple[int, ...]] = []
        self.budgets: list[int | None] = []

    async def generate(self, request: GenerationRequest) -> Generation:
        whole = await super().generate(request)
        assert request.prompt_ids is not None
        self.given.append(request.prompt_ids)
        self.budgets.append(request.thinking_budget)
        ids = (*self._dialect.encode(self._thought + whole.text), self._dialect.end)
        broken_off, goes_on = len(self.given) == 2, len(self.given) == 3
        ids = ids[: self._half] if broken_off else ids[self._half :] if goes_on else ids
        return Generation(
            self._dialect.template.decode(ids if broken_off else ids[:-1]),
            finish_reason="abort" if broken_off else "stop",
            usage=Usage(0, len(ids)),
            output_ids=ids,
            output_logprobs=(-0.5,) * len(ids),
            prompt_ids=request.prompt_ids[:-1] if self._alters else request.prompt_ids,
        )


def rolled(policy: Policy, layout: Layout, dialect: Dialect, thinking: ThinkingConfig | None = None) -> MemoryJournal:
    journal, renderer = MemoryJournal(), Renderer(dialect.template, layout)
    config = EngineConfig(EpisodeConfig(max_turns=3), renderer=renderer, thinking=thinking or ThinkingConfig())
    asyncio.run(Engine(policy, Checker(), journal, config, 7).play([problem()]))
    return journal


@pytest.mark.parametrize(("name", "layout"), [("qwen2.5", Layout.APPEND), ("qwen3", Layout.PER_TURN)])
def test_an_episodes_tokens_are_those_that_were_sent_and_sampled(name: str, layout: Layout) -> None:
    dialect = plain(name)
    policy = TokenWriter(dialect)
    (episode,) = rolled(policy, layout, dialect).episodes.values()
    assert episode.stop_reason is StopReason.TURN_LIMIT
    record = record_of(episode.turns, layout)
    assert record is not None and len(record.samples) == (1 if layout is Layout.APPEND else 3)
    sampled = [turn.generation.output_ids or () for turn in episode.turns]
    assert sum(sum(sample.loss_mask) for sample in record.samples) == sum(map(len, sampled))
    assert [turn.generation.prompt_ids for turn in episode.turns] == [policy.given[0], policy.given[1], policy.given[3]]
    assert policy.given[2] == (*policy.given[1], *sampled[1][:HALF]), "a reply that was broken off goes on after its last token"
    for turn in episode.turns:
        seen = dialect.template.decode(turn.generation.prompt_ids or ())
        assert all(message["content"] in seen for message in turn.messages if layout is Layout.APPEND or message["role"] == "user")
        assert dialect.template.decode(turn.generation.output_ids or ()) == turn.generation.text + dialect.format.end


WIDE = "# 快 \N{SLIGHTLY SMILING FACE}\n"


@pytest.mark.parametrize("half", range(len(WIDE.encode()) + 1))
@pytest.mark.parametrize("make", [plain, pytest.param(hugging_face, marks=needs_transformers)])
def test_a_character_whose_tokens_are_on_both_sides_of_a_break_stays_whole(make: Callable[[str], Dialect], half: int) -> None:
    """Wherever the break falls: these tokenizers have a token for each byte."""
    dialect = make("qwen2.5")
    assert len(dialect.encode(WIDE)) == len(WIDE.encode())
    (episode,) = rolled(TokenWriter(dialect, half=half, thought=WIDE), Layout.APPEND, dialect).episodes.values()
    first, broken, last = (turn.generation for turn in episode.turns)
    assert broken.text.startswith(WIDE)
    assert broken.text.replace("turn 1", "turn 0") == first.text
    for reply in (first, broken, last):
        assert dialect.template.decode(reply.output_ids or ()) == reply.text + dialect.format.end


@pytest.mark.parametrize(("half", "left"), [(5, 9), (len("<think>Hm.</think>"), None)])
def test_a_broken_off_thought_keeps_its_budget_and_a_finished_one_has_none(half: int, left: int | None) -> None:
    dialect = plain("qwen2.5")
    policy = TokenWriter(dialect, half=half, thought="<think>Hm.</think>")
    rolled(policy, Layout.PER_TURN, dialect, ThinkingConfig("always", budget=9))
    assert policy.budgets == [9, 9, left, 9]


def test_an_engine_that_was_given_other_tokens_is_no_reply() -> None:
    dialect = plain("qwen2.5")
    (episode,) = rolled(TokenWriter(dialect, alters=True), Layout.APPEND, dialect).episodes.values()
    assert episode.stop_reason is StopReason.POLICY_FAILURE and not episode.turns
    assert episode.error.startswith(f"{BadReply('').kind}: the engine was given other tokens than it was sent")


def test_a_run_with_a_model_in_this_process_keeps_its_tokens(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model")
    settings, text = composed(
        ["problems.levels=1", "problems.limit=1", "policy=transformers", f"policy.model={model}", "rollout.max_turns=2",
         "rollout.layout=auto", "thinking.arm=never", "sampling.temperature=0", "sampling.max_tokens=12", "run.name=r",
         f"run.root={tmp_path}", "run.canaries=false"]
    )  # fmt: skip
    (episode,) = asyncio.run(run(settings, text)).episodes
    template, stored = load_template(str(model)), RunReader(tmp_path / "r")
    layout = stored.info.layout
    assert layout == Layout.PER_TURN, "Qwen3 forgets what it thought"
    record = record_of(stored.load_turns()["level1_problem1"], Layout(layout))
    assert record is not None and len(record.samples) == len(episode.turns) == 2
    for turn, sample in zip(episode.turns, record.samples, strict=True):
        assert sample.ids[: sample.prompt_length] == template.render(turn.messages, False)
        assert sum(sample.loss_mask) == len(turn.generation.output_ids or ()) == turn.generation.usage.completion_tokens
        assert sample.logprobs is not None and all(value < 0 for value in sample.logprobs[sample.prompt_length :])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy=replay"], "rollout.layout=auto: policy replay/bundled/cpp gives no tokens"),
        (["policy=sglang", "policy.model=m", "policy.base_url=http://localhost:1"], "rollout.layout=auto needs policy.tokenizer"),
    ],
)
def test_tokens_that_cannot_be_kept_are_refused_before_anything_runs(overrides: list[str], message: str) -> None:
    settings, _ = composed([*overrides, "rollout.layout=auto"])
    with pytest.raises(ConfigError, match=message):
        plan(settings)


def test_a_layout_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="layout=whole: choose auto, append or per-turn"):
        composed(["rollout.layout=whole"])

"""Token records: what an engine was given and sampled, over chat templates of several families."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kernel_env.episode import HISTORIES, EpisodeConfig, EpisodeState
from kernel_env.errors import BadReply, ConfigError
from kernel_env.schema import Generation, Message, Problem, Reward, Stage, Status, Turn, Verdict, dumps, from_json
from kernel_env.verifier import Verifier
from rollout.tokens import (
    Choice,
    Ids,
    Layout,
    Renderer,
    Sample,
    Span,
    TokenRecord,
    choose_layout,
    honours_thinking,
    load_template,
    record_of,
    with_prompt,
)
from tests.chat_formats import DIALECTS, FORMATS, Dialect, hugging_face, needs_transformers, plain

Of = Callable[[str], Dialect]
every_dialect = pytest.mark.parametrize(("of", "name"), DIALECTS)
both_layouts = pytest.mark.parametrize("layout", Layout)

VERDICT = Verdict(Status.NO_CODE, Stage.PARSE, "level1_problem1", problem_digest="", candidate_digest="", backend="cpp")


@dataclass(frozen=True)
class Reply:
    """What the engine samples in a turn, and what it is told then."""

    ids: tuple[int, ...]
    ended: bool = True
    """By itself; else the length limit cut it."""
    thinking: bool | None = None
    """Whether it was asked to think."""
    feedback: str = "Go on."

    def sampled(self, dialect: Dialect) -> Ids:
        ids = tuple(at % dialect.size for at in self.ids)
        return (*ids, dialect.end) if self.ended else ids


@dataclass(frozen=True)
class Exchange:
    """The engine's own note of one request."""

    given: Ids
    sampled: Ids
    logprobs: tuple[float, ...]


def played(dialect: Dialect, layout: Layout, replies: Sequence[Reply]) -> tuple[list[Turn], list[Exchange]]:
    """The turns that a runner keeps, and what really went in and out of the engine."""
    renderer = Renderer(dialect.template, layout)
    messages: tuple[Message, ...] = ({"role": "user", "content": "Write a kernel."},)
    turns: list[Turn] = []
    exchanges: list[Exchange] = []
    for index, reply in enumerate(replies):
        given = renderer.prompt(turns, messages, reply.thinking)
        sampled = reply.sampled(dialect)
        logprobs = tuple(-0.5 - at for at in range(len(sampled)))
        exchanges.append(Exchange(given, sampled, logprobs))
        text = dialect.template.decode(sampled[: len(reply.ids)])
        generation = with_prompt(Generation(text, output_ids=sampled, output_logprobs=logprobs), given)
        turns.append(Turn(index, messages, generation, None, VERDICT, Reward(0.0), reply.feedback))
        messages = (*messages, {"role": "assistant", "content": text}, {"role": "user", "content": reply.feedback})
    return turns, exchanges


def record(turns: Sequence[Turn], layout: Layout) -> TokenRecord:
    made = record_of(turns, layout)
    assert made is not None
    return made


def read_back(turns: Sequence[Turn]) -> list[Turn]:
    """As they come from the disk."""
    return [from_json(Turn, json.loads(dumps(turn))) for turn in turns]


texts = st.text(max_size=8) | st.sampled_from(
    ["", "  in the\n\n", "<think>\nHm.\n</think>\n\nDone.", "<|im_end|>", "<end_of_turn>\n"]
)
answers = texts.map(str.strip).filter(lambda text: "think>" not in text)
tokens = st.integers(0, 300) | st.integers(-6, -1)  # the last ones are special
replies = st.lists(
    st.builds(
        Reply,
        ids=st.lists(tokens, max_size=8).map(tuple),
        ended=st.booleans(),
        thinking=st.sampled_from([None, True, False]),
        feedback=texts,
    ),
    min_size=1,
    max_size=4,
)
few = settings(max_examples=12)

# ------------------------------------------------------------------ properties


@every_dialect
@both_layouts
@given(replies=replies)
@few
def test_the_record_is_what_the_engine_saw(of: Of, name: str, layout: Layout, replies: list[Reply]) -> None:
    dialect = of(name)
    turns, exchanges = played(dialect, layout, replies)
    samples = record(turns, layout).samples
    spans = [(sample, span) for sample in samples for span in sample.spans]
    assert [span.turn for _, span in spans] == list(range(len(replies)))
    for (sample, span), exchange in zip(spans, exchanges, strict=True):
        assert sample.ids[: span.start] == exchange.given
        assert sample.ids[span.start : span.stop] == exchange.sampled
        assert sample.logprobs is not None
        assert sample.logprobs[span.start : span.stop] == exchange.logprobs
        decode = dialect.template.decode
        assert decode(sample.ids[: span.stop]) == decode((*exchange.given, *exchange.sampled))


@every_dialect
@both_layouts
@given(replies=replies)
@few
def test_what_was_sampled_is_trained_on_and_nothing_else(of: Of, name: str, layout: Layout, replies: list[Reply]) -> None:
    turns, exchanges = played(of(name), layout, replies)
    samples = record(turns, layout).samples
    trained = [token for s in samples for token, mask in zip(s.ids, s.loss_mask, strict=True) if mask]
    assert trained == [token for exchange in exchanges for token in exchange.sampled]
    for sample in samples:
        assert sample.logprobs is not None
        assert len(sample.ids) == len(sample.loss_mask) == len(sample.logprobs)
        assert set(sample.loss_mask) <= {0, 1}
        assert not any(value for value, mask in zip(sample.logprobs, sample.loss_mask, strict=True) if not mask)
        assert sample.loss_mask[: sample.prompt_length] == (0,) * sample.prompt_length


@every_dialect
@given(replies=replies)
@few
def test_both_layouts_train_on_the_same_tokens(of: Of, name: str, replies: list[Reply]) -> None:
    totals = [sum(sum(s.loss_mask) for s in record(played(of(name), layout, replies)[0], layout).samples) for layout in Layout]
    assert totals[0] == totals[1] == sum(len(reply.ids) + reply.ended for reply in replies)


@every_dialect
@given(replies=replies)
@few
def test_an_appended_prompt_goes_on_where_the_reply_stopped(of: Of, name: str, replies: list[Reply]) -> None:
    """Whatever was sampled, it stays; behind it stands what the format says, and no end of turn twice."""
    dialect = of(name)
    written, decode = dialect.format, dialect.template.decode
    _, exchanges = played(dialect, Layout.APPEND, replies)
    for last, following, before, after in zip(exchanges, exchanges[1:], replies, replies[1:], strict=False):
        past = (*last.given, *last.sampled)
        assert following.given[: len(past)] == past
        closing = written.closing.removeprefix(written.end) if last.sampled[-1:] == (dialect.end,) else written.closing
        new = closing + written.message("user", before.feedback) + written.opening(after.thinking)
        assert decode(following.given) == decode(past) + new


@every_dialect
@given(said=st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
@few
def test_a_turn_of_its_own_has_the_prompt_that_the_template_writes(of: Of, name: str, said: list[tuple[str, str]]) -> None:
    dialect = of(name)
    turns, exchanges = played(dialect, Layout.PER_TURN, [Reply(dialect.encode(reply), feedback=told) for reply, told in said])
    for turn, exchange in zip(turns, exchanges, strict=True):
        assert dialect.template.decode(exchange.given) == dialect.format.text(turn.messages, None)


@every_dialect
@given(said=st.lists(st.tuples(answers, texts), min_size=1, max_size=4), cut=st.booleans())
@few
def test_where_append_is_chosen_the_engine_reads_what_the_template_would_write(
    of: Of, name: str, said: list[tuple[str, str]], cut: bool
) -> None:
    dialect = of(name)
    assume(not any(reply.endswith(dialect.format.end) for reply, _ in said))  # that is no part of a reply's text
    if choose_layout(dialect.template, "accumulate").layout is Layout.APPEND:
        ids = [dialect.encode(dialect.format.thought + reply) for reply, _ in said]
        given = [Reply(reply, ended=not cut, feedback=told) for reply, (_, told) in zip(ids, said, strict=True)]
        turns, exchanges = played(dialect, Layout.APPEND, given)
        for turn, exchange in zip(turns, exchanges, strict=True):
            assert dialect.template.decode(exchange.given) == dialect.format.text(turn.messages, None)


@every_dialect
@both_layouts
@given(replies=replies)
@few
def test_the_disk_gives_the_same_record_and_the_same_next_prompt(of: Of, name: str, layout: Layout, replies: list[Reply]) -> None:
    dialect = of(name)
    turns, _ = played(dialect, layout, replies)
    live, stored = record(turns, layout), read_back(turns)
    assert record_of(stored, layout) == live == from_json(TokenRecord, json.loads(dumps(live)))
    messages = (*turns[-1].messages, {"role": "assistant", "content": turns[-1].generation.text}, {"role": "user", "content": "?"})
    renderer = Renderer(dialect.template, layout)
    assert renderer.prompt(stored, messages, True) == renderer.prompt(turns, messages, True)


@needs_transformers
@pytest.mark.parametrize("name", FORMATS)
@given(said=st.lists(texts, min_size=1, max_size=3), thinking=st.sampled_from([None, True, False]))
@few
def test_a_tokenizer_writes_what_its_format_says(name: str, said: list[str], thinking: bool | None) -> None:
    """The Jinja templates of these tests and their plain twins."""
    messages: list[Message] = [{"role": "user", "content": "Go."}]
    for text in said:
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": text}]
    dialect = hugging_face(name)
    assert dialect.template.decode(dialect.template.render(messages, thinking)) == dialect.format.text(messages, thinking)


# ------------------------------------------------------------------ single tokens


@every_dialect
def test_letters_that_were_sampled_one_by_one_are_not_merged(of: Of, name: str) -> None:
    dialect = of(name)
    apart = dialect.encode("t") + dialect.encode("h")
    assert apart != dialect.encode(dialect.template.decode(apart))
    turns, exchanges = played(dialect, Layout.APPEND, [Reply(apart), Reply(apart)])
    (sample,) = record(turns, Layout.APPEND).samples
    start = sample.prompt_length
    assert exchanges[1].given[start : start + 2] == sample.ids[start : start + 2] == apart


def test_the_line_feed_behind_an_end_of_turn_is_in_the_prompt_and_never_trained_on() -> None:
    dialect = plain("qwen2.5")
    turns, _ = played(dialect, Layout.APPEND, [Reply(dialect.encode("A")), Reply(dialect.encode("B"))])
    (sample,) = record(turns, Layout.APPEND).samples
    first = sample.spans[0]
    assert sample.ids[first.stop - 1 : first.stop + 1] == dialect.encode("<|im_end|>\n")
    assert sample.loss_mask[first.stop - 1 : first.stop + 1] == (1, 0)


def test_a_reply_that_was_cut_gets_its_end_of_turn_from_the_template() -> None:
    dialect = plain("qwen2.5")
    turns, _ = played(dialect, Layout.APPEND, [Reply(dialect.encode("A"), ended=False), Reply(dialect.encode("B"))])
    (sample,) = record(turns, Layout.APPEND).samples
    first = sample.spans[0]
    assert sample.ids[first.stop - 1 : first.stop + 2] == dialect.encode("A<|im_end|>\n")
    assert sample.loss_mask[first.stop - 1 : first.stop + 2] == (1, 0, 0)


def test_another_end_of_text_is_kept_and_trained_on_before_the_templates_own() -> None:
    dialect = plain("qwen2.5")
    turns, _ = played(dialect, Layout.APPEND, [Reply(dialect.encode("A<|endoftext|>"), ended=False), Reply(())])
    (sample,) = record(turns, Layout.APPEND).samples
    first = sample.spans[0]
    assert sample.ids[first.stop - 1 : first.stop + 1] == dialect.encode("<|endoftext|><|im_end|>")
    assert sample.loss_mask[first.stop - 1 : first.stop + 1] == (1, 0)


# ------------------------------------------------------------------ the choice of a layout

KEPT = {
    ("qwen2.5", (None,)): True,
    ("llama3", (None,)): True,
    ("gemma", (None,)): True,
    ("qwen3", (None,)): False,
    ("qwen3", (True,)): False,
    ("qwen3", (False,)): False,
    ("qwen3-keeping", (None,)): True,
    ("qwen3-keeping", (True,)): True,
    ("qwen3-keeping", (False,)): False,
    ("qwen3-keeping", (True, False)): False,
    ("qwen3.5-keeping", (None,)): True,
    ("qwen3.5-keeping", (True,)): True,
    ("qwen3.5-keeping", (False,)): True,
    ("qwen3.5-keeping", (True, False)): True,
    ("r1", (None,)): False,
}
"""Whether the past stays as it was, by format and by what turns may be asked for."""


@pytest.mark.parametrize("of", [plain, pytest.param(hugging_face, marks=needs_transformers)])
@pytest.mark.parametrize(("name", "thinking"), KEPT)
def test_a_template_that_changes_the_past_is_found_out(
    of: Of, name: str, thinking: tuple[bool | None, ...], caplog: pytest.LogCaptureFixture
) -> None:
    choice = choose_layout(of(name).template, "accumulate", thinking)
    assert choice.layout is (Layout.APPEND if KEPT[name, thinking] else Layout.PER_TURN)
    loud = [r.getMessage() for r in caplog.records if r.name == "rollout.tokens" and r.levelno >= logging.WARNING]
    assert loud == ([] if KEPT[name, thinking] else [f"layout per-turn, every turn is a training sample of its own: {choice.why}"])


@pytest.mark.parametrize(
    ("name", "thinking", "said"),
    [
        ("qwen3", None, r"in the prompt of turn 1, .*assistant\\n', .* writes 'Done.* the engine saw '<think>\\nLet me see"),
        ("qwen3", False, r"in the prompt of turn 1, .*assistant\\n', .* writes 'Done.* the engine saw '<think>\\n\\n</think>"),
        ("r1", None, r"in the prompt of turn 1, .*<\|Assistant\|>', .* writes '\\n\\nDone.* the engine saw '<think>\\nLet"),
    ],
)
def test_insisting_on_append_is_refused_with_the_first_difference(name: str, thinking: bool | None, said: str) -> None:
    with pytest.raises(ConfigError, match=f"layout append cannot be kept: {said}.*; use layout per-turn"):
        choose_layout(plain(name).template, "accumulate", (thinking,), Layout.APPEND)


def test_a_choice_of_the_users_own_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    assert choose_layout(plain("llama3").template, "accumulate", asked=Layout.PER_TURN) == Choice(Layout.PER_TURN, "asked for")
    assert choose_layout(plain("llama3").template, "accumulate", asked=Layout.APPEND).layout is Layout.APPEND
    assert not caplog.records


def test_a_template_that_notes_the_mode_at_the_very_beginning_cannot_append_turns_of_both() -> None:
    dialect = plain("llama3")

    class Noted:
        def render(self, messages: Sequence[Message], thinking: bool | None) -> Ids:
            return dialect.encode(f"thinking: {thinking}\n" + dialect.format.text(messages, thinking))

        decode = dialect.template.decode

    assert choose_layout(Noted(), "accumulate", (False,)).layout is Layout.APPEND
    assert "in the prompt of turn 1, behind 'thinking: '" in choose_layout(Noted(), "accumulate", (True, False)).why


@pytest.mark.parametrize("name", FORMATS)
def test_whether_thinking_can_be_asked_for_is_seen_in_the_prompt(name: str) -> None:
    assert honours_thinking(plain(name).template) == name.startswith("qwen3")


# ------------------------------------------------------------------ histories of real episodes


async def episode(problem: Problem, history: str, renderer: Renderer, dialect: Dialect) -> EpisodeState:
    """Four turns without code, each with a thought."""
    state = EpisodeState(problem, EpisodeConfig(max_turns=4, history=history), seed=1)
    while not state.done:
        given = renderer.prompt(state.turns, state.messages)
        text = f" <think>\nIdea {len(state.turns)}.\n</think>\n\nNo code."
        sampled = (*dialect.encode(text), dialect.end)
        generation = with_prompt(Generation(text, output_ids=sampled, output_logprobs=(-1.0,) * len(sampled)), given)
        await state.step(generation, cast(Verifier, None))  # nothing to verify without code
    return state


@pytest.mark.parametrize("history", HISTORIES)
async def test_every_history_has_a_layout_that_carries_it(problem: Problem, history: str) -> None:
    dialect = plain("qwen2.5")
    layout = choose_layout(dialect.template, history).layout
    assert layout is (Layout.APPEND if history == "accumulate" else Layout.PER_TURN)
    state = await episode(problem, history, Renderer(dialect.template, layout), dialect)
    made = record(state.turns, layout)
    assert len(made.samples) == (1 if history == "accumulate" else 4)
    for turn in state.turns:
        assert dialect.template.decode(turn.generation.prompt_ids or ()) == dialect.format.text(turn.messages, None)


@pytest.mark.parametrize("history", [h for h in HISTORIES if h != "accumulate"])
async def test_a_history_that_changes_the_past_cannot_be_appended(problem: Problem, history: str) -> None:
    dialect = plain("qwen2.5")
    with pytest.raises(ConfigError, match=f"rollout.history={history} changes past messages"):
        choose_layout(dialect.template, history, asked=Layout.APPEND)
    with pytest.raises(ConfigError, match=r"message \d was changed between turns"):
        await episode(problem, history, Renderer(dialect.template, Layout.APPEND), dialect)


async def test_turns_of_a_changed_history_make_no_single_sample(problem: Problem) -> None:
    dialect = plain("qwen2.5")
    state = await episode(problem, "restated", Renderer(dialect.template, Layout.PER_TURN), dialect)
    with pytest.raises(ConfigError, match=r"the prompt of turn 1 leaves the turn before at token \d+; use layout per-turn"):
        record_of(state.turns, Layout.APPEND)


# ------------------------------------------------------------------ engines that say less, or something else


def a_turn(**changes: object) -> Turn:
    dialect = plain("llama3")
    (turn,), _ = played(dialect, Layout.APPEND, [Reply(dialect.encode("A"))])
    return replace(turn, generation=replace(turn.generation, **changes))  # type: ignore[arg-type]


@both_layouts
@pytest.mark.parametrize("absent", ["prompt_ids", "output_ids"])
def test_an_episode_without_token_ids_has_no_record(layout: Layout, absent: str) -> None:
    without = a_turn(**{absent: None}, output_logprobs=None)
    assert record_of([without], layout) is None
    assert record_of([], layout) is None
    messages = (*without.messages, {"role": "assistant", "content": without.generation.text}, {"role": "user", "content": "?"})
    renderer = Renderer(plain("llama3").template, layout)
    if layout is Layout.APPEND:
        with pytest.raises(ConfigError, match="turn 0 has no token ids"):
            renderer.prompt([without], messages)
    else:
        assert renderer.prompt([without], messages)


@both_layouts
def test_an_engine_without_log_probabilities_has_a_record_without(layout: Layout) -> None:
    (sample,) = record([a_turn(output_logprobs=None)], layout).samples
    assert sample.logprobs is None
    assert sum(sample.loss_mask) == 2


def test_a_reply_in_text_alone_stays_as_it_is() -> None:
    assert with_prompt(Generation("Hello"), (1, 2)) == Generation("Hello")


def test_an_engine_that_was_given_something_else_is_no_source_of_records() -> None:
    assert with_prompt(Generation("", output_ids=(3,), prompt_ids=(1, 2)), (1, 2)).prompt_ids == (1, 2)
    with pytest.raises(BadReply, match="other tokens than it was sent"):
        with_prompt(Generation("", output_ids=(3,), prompt_ids=(1, 2, 2)), (1, 2))


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_log_probability_that_is_no_number_is_a_bad_reply(value: float) -> None:
    with pytest.raises(BadReply, match="not finite"):
        with_prompt(Generation("", output_ids=(3,), output_logprobs=(value,)), (1, 2))


# ------------------------------------------------------------------ what cannot be


@pytest.mark.parametrize(
    ("spans", "logprobs", "said"),
    [
        ((), None, "end with the last token"),
        ((Span(0, 1, 2),), None, "end with the last token"),
        ((Span(0, 2, 3), Span(1, 1, 3)), None, "in order"),
        ((Span(1, 1, 2), Span(0, 2, 3)), None, "one span a turn"),
        ((Span(0, 1, 2), Span(0, 2, 3)), None, "one span a turn"),
        ((Span(0, 1, 3),), (0.0, -1.0), "one log-probability a token"),
        ((Span(0, 1, 3),), (-1.0, -1.0, -1.0), "not sampled"),
        ((Span(0, 1, 3),), (0.0, -1.0, math.nan), "finite"),
    ],
)
def test_an_impossible_sample_cannot_be_made(spans: tuple[Span, ...], logprobs: tuple[float, ...] | None, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Sample((7, 8, 9), spans, logprobs)


def test_a_record_has_the_samples_of_its_layout() -> None:
    one, two = Sample((7, 8), (Span(0, 1, 2),), None), Sample((7, 8, 9), (Span(1, 1, 2), Span(2, 2, 3)), None)
    assert TokenRecord(Layout.PER_TURN, (one,)) != TokenRecord(Layout.APPEND, (one,))
    for layout, samples in ((Layout.APPEND, (one, two)), (Layout.APPEND, ()), (Layout.PER_TURN, (one, two))):
        with pytest.raises(ValueError, match="samples follow the layout"):
            TokenRecord(layout, samples)


# ------------------------------------------------------------------ tokenizers of transformers


@needs_transformers
def test_messages_that_a_template_refuses_are_a_configuration_error() -> None:
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Go."})
    with pytest.raises(ConfigError, match="refuses messages from system, user: no messages from system"):
        hugging_face("gemma").template.render(messages, None)


@needs_transformers
def test_a_template_is_loaded_from_a_models_folder(tmp_path: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    dialect = hugging_face("qwen3")
    tokenizer = cast(PreTrainedTokenizerFast, dialect.template._tokenizer)  # type: ignore[attr-defined]
    tokenizer.save_pretrained(tmp_path / "model")
    question = ({"role": "user", "content": "Go."},)
    assert load_template(str(tmp_path / "model")).render(question, False) == dialect.template.render(question, False)
    tokenizer = type(tokenizer).from_pretrained(tmp_path / "model")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(ConfigError, match="has no chat template"):
        load_template(str(tmp_path / "base"))
    with pytest.raises(ConfigError, match=r"no tokenizer can be loaded from .*absent"):
        load_template(str(tmp_path / "absent"))

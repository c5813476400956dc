"""Tokens of an episode: the prompts that an engine is given, and the record that a trainer learns from.

Tokens in, tokens out: what an engine sampled stays as it is. It is never made again from text, which would give other tokens for
the same words. The turns are all the state there is, because each holds what the engine was given and what it sampled. So an
episode that goes on after a restart has the same prompts, and one that is read from a run directory the same record, as one
that is being played.

There are two layouts. With `append`, a prompt is the last prompt, the reply as it was sampled, and the tokens of the messages that
are new; an episode is one training sample. With `per-turn`, the chat template writes every prompt anew, and each turn is a sample
of its own; it is needed wherever the past is changed, by `rollout.history` or by the template. `choose_layout` finds out.

An endpoint that answers with text only gives no tokens, and its episodes no record.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Protocol

from kernel_env.errors import BadReply, ConfigError
from kernel_env.schema import Generation, Message, Turn

_log = logging.getLogger(__name__)

Ids = tuple[int, ...]


# ------------------------------------------------------------------ chat templates


class ChatTemplate(Protocol):
    """How a model's conversations are written in its tokens."""

    def render(self, messages: Sequence[Message], thinking: bool | None) -> Ids:
        """The conversation as a prompt, up to where the reply begins. `thinking`: whether the model is to think at length, None for
        the template's own default. Raises ConfigError for messages that the template refuses."""

    def decode(self, ids: Sequence[int]) -> str:
        """Their text, special tokens included."""


class HuggingFaceTemplate:
    """The chat template of a tokenizer of the package `transformers`."""

    def __init__(self, tokenizer: Any, options: Mapping[str, object] | None = None) -> None:
        """`options` are further variables of the template."""
        self._tokenizer, self._options = tokenizer, options or {}

    def render(self, messages: Sequence[Message], thinking: bool | None) -> Ids:
        mode = dict(self._options) if thinking is None else {**self._options, "enable_thinking": thinking}
        chat = [dict(message) for message in messages]
        try:
            ids = self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False, **mode)
        except Exception as error:  # a template is a program: it refuses messages by raising what it likes
            roles = ", ".join(message["role"] for message in messages)
            said = " ".join(str(error).split())[:300]
            raise ConfigError(f"the chat template refuses messages from {roles}: {said}; use a model that takes them") from error
        return tuple(ids)

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def load_template(name: str, options: Mapping[str, object] | None = None) -> HuggingFaceTemplate:
    """The chat template of a model, by its folder or its name on the hub. Raises ConfigError."""
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise ConfigError(
            "writing prompts as tokens needs the Python package transformers: run `pip install 'kernel-env[transformers]'`"
        ) from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"no tokenizer can be loaded from {name}: {said}; set policy.tokenizer to a model's folder, or OWNER/NAME on the hub"
        ) from error
    if not tokenizer.chat_template:
        raise ConfigError(f"the tokenizer of {name} has no chat template: use that of a model that was trained to chat")
    return HuggingFaceTemplate(tokenizer, options)


def honours_thinking(template: ChatTemplate) -> bool:
    """Whether asking this model to think, or not to, changes anything."""
    question = ({"role": "user", "content": "Hi"},)
    return template.render(question, True) != template.render(question, False)


# ------------------------------------------------------------------ layouts


class Layout(StrEnum):
    APPEND = "append"
    PER_TURN = "per-turn"


@dataclass(frozen=True)
class Choice:
    layout: Layout
    why: str


def choose_layout(
    template: ChatTemplate, history: str, thinking: Sequence[bool | None] = (None,), asked: Layout | None = None
) -> Choice:
    """`append` where it shows the engine what the template would write, else `per-turn`, with a warning in the log.

    `history` is `rollout.history`, `thinking` has every value that a turn of the run may have, `asked` what the user insists on.
    What is found out is whether the template keeps replies, with their thinking if that is written as `<think>`, and what it put
    around them. Raises ConfigError, with the first difference, where `append` is asked for and cannot be kept.
    """
    if asked is Layout.PER_TURN:
        return Choice(asked, "asked for")
    broken = _broken(template, history, thinking)
    if broken is None:
        return Choice(Layout.APPEND, "every prompt is the last one, the reply, and what is new")
    if asked is Layout.APPEND:
        raise ConfigError(f"layout append cannot be kept: {broken}; use layout per-turn")
    _log.warning("layout per-turn, every turn is a training sample of its own: %s", broken)
    return Choice(Layout.PER_TURN, broken)


def _broken(template: ChatTemplate, history: str, thinking: Sequence[bool | None]) -> str | None:
    """Why `append` would not do, None where it does: play a conversation, and compare with what the template writes at once."""
    if history != "accumulate":
        return f"rollout.history={history} changes past messages"
    messages: tuple[Message, ...] = ()
    shown = ""
    for turn, mode in enumerate((*thinking, *thinking)):
        told = {"role": "user", "content": f"Message {turn}."}
        messages = (*messages, told)
        written = template.decode(template.render(messages, mode))
        shown = shown + template.decode(_after_reply(template, (told,), mode)) if turn else written
        if written != shown:
            at = _common(shown, written)
            place = f"in the prompt of turn {turn}, behind {shown[max(0, at - 24) : at]!r}"
            return f"{place}, the chat template writes {written[at : at + 24]!r} where the engine saw {shown[at : at + 24]!r}"
        reply = _reply(shown, mode)
        messages, shown = (*messages, {"role": "assistant", "content": reply}), shown + reply
    return None


def _reply(prompt: str, thinking: bool | None) -> str:
    """As a model writes it to this prompt, which may have begun the thinking already."""
    if thinking is False:
        return "Done."
    thought = "Let me see.\n</think>\n\nDone."
    return thought if prompt.rstrip().endswith("<think>") else f"<think>\n{thought}"


# ------------------------------------------------------------------ prompts


@dataclass(frozen=True)
class Renderer:
    """Writes the prompts of a run's episodes."""

    template: ChatTemplate
    layout: Layout

    def prompt(self, turns: Sequence[Turn], messages: tuple[Message, ...], thinking: bool | None = None) -> Ids:
        """What the engine is given after these turns, when the conversation stands at these messages.

        Raises ConfigError where the layout is `append` and the messages do not go on from the last turn's, or that turn has no
        tokens.
        """
        if self.layout is Layout.PER_TURN or not turns:
            return self.template.render(messages, thinking)
        last = turns[-1]
        given, sampled = last.generation.prompt_ids, last.generation.output_ids
        if given is None or sampled is None:
            raise ConfigError(
                f"turn {last.index} has no token ids, so that layout append cannot go on from it: use layout per-turn"
            )
        added = _after_reply(self.template, _new_messages(last, messages), thinking)
        ended = sampled[-1:] == added[:1]  # a reply that ended by itself has the end of its turn already, one that was cut has not
        return (*given, *sampled, *(added[1:] if ended else added))


def _new_messages(last: Turn, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Those that follow the last turn's reply."""
    past = (*last.messages, {"role": "assistant", "content": last.generation.text})
    for at, message in enumerate(past):
        if messages[at : at + 1] != (message,):
            raise ConfigError(
                f"layout append: message {at} was changed between turns {last.index} and {last.index + 1}; use layout per-turn"
            )
    return messages[len(past) :]


def _after_reply(template: ChatTemplate, messages: Sequence[Message], thinking: bool | None) -> Ids:
    """What follows the last word of a reply: the end of its turn, these messages, and the beginning of the next reply.

    It is what two conversations have in common at their end that differ in the reply alone, whatever the template does before.
    """
    one, other = (
        template.render(({"role": "user", "content": "Go."}, {"role": "assistant", "content": said}, *messages), thinking)
        for said in ("yes", "no")
    )
    return one[len(one) - _common(one[::-1], other[::-1]) :]


def _common(one: Sequence[object], other: Sequence[object]) -> int:
    """How many items both have in common before the first that differs."""
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)


def with_prompt(generation: Generation, prompt_ids: Ids) -> Generation:
    """The reply to this prompt, with the prompt in it, as the record needs it. One without token ids stays as it is.

    Raises BadReply where the engine says that it was given something else, or gives log-probabilities that are no numbers.
    """
    if generation.output_ids is None:
        return generation
    if generation.prompt_ids not in (None, prompt_ids):
        raise BadReply(
            "the engine was given other tokens than it was sent: check that nothing between here and there renders again"
        )
    if not all(map(math.isfinite, generation.output_logprobs or ())):
        raise BadReply("the engine gave log-probabilities that are not finite: check its log")
    return replace(generation, prompt_ids=prompt_ids)


# ------------------------------------------------------------------ the record


@dataclass(frozen=True)
class Span:
    """The tokens `start` to `stop` (exclusive) of a sample: what one turn's reply is made of."""

    turn: int
    """`Turn.index`; the reply's reward is `rewards_T[turn]`, its return likewise."""
    start: int
    stop: int


@dataclass(frozen=True)
class Sample:
    """One sequence to train on, as the engine saw it."""

    ids: Ids
    spans: tuple[Span, ...]
    """What was sampled, an end of turn too. All else is prompt, template and feedback, and stands before the last of them."""
    logprobs: tuple[float, ...] | None
    """Of each of `ids`, natural logarithm as the engine gave it, 0.0 outside of the spans; None where it gave none."""

    def __post_init__(self) -> None:
        edges = [0, *(edge for span in self.spans for edge in (span.start, span.stop))]
        turns = [span.turn for span in self.spans]
        _require(edges == sorted(edges) and edges[-1] == len(self.ids), "spans stand in order and end with the last token")
        _require(bool(turns) and turns == sorted(set(turns)), "a sample has one span a turn, in order")
        if self.logprobs is not None:
            _require(len(self.logprobs) == len(self.ids), "one log-probability a token")
            _require(all(map(math.isfinite, self.logprobs)), "log-probabilities are finite")
            outside = (value for value, sampled in zip(self.logprobs, self.loss_mask, strict=True) if not sampled)
            _require(not any(outside), "what was not sampled has log-probability 0.0")

    @property
    def prompt_length(self) -> int:
        """Tokens before the first reply."""
        return self.spans[0].start

    @property
    def loss_mask(self) -> tuple[int, ...]:
        """1 for each sampled token, else 0."""
        mask = [0] * len(self.ids)
        for span in self.spans:
            mask[span.start : span.stop] = [1] * (span.stop - span.start)
        return tuple(mask)


@dataclass(frozen=True)
class TokenRecord:
    """What a trainer needs of one episode, besides its rewards. `kernel_env.schema` has the codec: `to_json`, `from_json`."""

    layout: Layout
    samples: tuple[Sample, ...]
    """`append`: one. `per-turn`: one a turn."""

    def __post_init__(self) -> None:
        whole = len(self.samples) == 1
        _require(
            whole if self.layout is Layout.APPEND else all(len(s.spans) == 1 for s in self.samples), "samples follow the layout"
        )


def record_of(turns: Sequence[Turn], layout: Layout) -> TokenRecord | None:
    """The record of an episode, being played or read from the disk. None without a turn, or where one has no token ids.

    Raises ConfigError where the layout is `append` and a prompt does not go on from the turn before.
    """
    if not turns or any(t.generation.prompt_ids is None or t.generation.output_ids is None for t in turns):
        return None
    parts = [turns] if layout is Layout.APPEND else [[turn] for turn in turns]
    return TokenRecord(layout, tuple(map(_sample, parts)))


def _sample(turns: Sequence[Turn]) -> Sample:
    """These turns, which have ids, one after the other."""
    ids: Ids = ()
    spans: list[Span] = []
    logprobs: list[float] = []
    for turn in turns:
        given, sampled = turn.generation.prompt_ids or (), turn.generation.output_ids or ()
        if given[: len(ids)] != ids:
            at = _common(given, ids)
            raise ConfigError(
                f"layout append: the prompt of turn {turn.index} leaves the turn before at token {at}; use layout per-turn"
            )
        logprobs += [0.0] * (len(given) - len(ids)) + list(turn.generation.output_logprobs or ())
        spans.append(Span(turn.index, len(given), len(given) + len(sampled)))
        ids = (*given, *sampled)
    known = all(turn.generation.output_logprobs is not None for turn in turns)
    return Sample(ids, tuple(spans), tuple(logprobs) if known else None)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)

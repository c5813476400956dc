"""How chat models of several families write a conversation: once as a Jinja template for a real tokenizer, once in plain Python.

The templates are short, and ours; what they do to a conversation is what those families' templates do: default system messages,
trimmed contents, refused roles, thinking that is dropped from past replies or begun in the prompt.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pytest

from kernel_env.errors import ConfigError
from kernel_env.schema import Message
from rollout.tokens import ChatTemplate, HuggingFaceTemplate, Ids


@dataclass(frozen=True)
class Format:
    """A conversation is its head, its messages, and the opening of the reply that is asked for."""

    jinja: str
    roles: Mapping[str, str]
    """By role, how a message is written."""
    specials: tuple[str, ...]
    opening: Callable[[bool | None], str]
    head: Callable[[Sequence[Message]], str] = lambda messages: ""
    past: Callable[[str], str] = lambda reply: reply
    """What becomes of a past reply."""
    trims: bool = False
    thought: str = ""
    """What a reply begins with whose model has thought, where it knows how to."""

    @property
    def closing(self) -> str:
        """What stands behind a reply, ..."""
        return self.roles["assistant"].partition("{}")[2]

    @property
    def end(self) -> str:
        """... and the token that the model itself ends it with."""
        return next(token for token in self.specials if self.closing.startswith(token))

    def message(self, role: str, content: str) -> str:
        if role not in self.roles:
            raise ConfigError(f"no messages from {role}")
        content = self.past(content) if role == "assistant" else content
        return self.roles[role].replace("{}", content.strip() if self.trims else content)

    def text(self, messages: Sequence[Message], thinking: bool | None) -> str:
        """Of a conversation that ends with a user's message."""
        return self.head(messages) + "".join(self.message(m["role"], m["content"]) for m in messages) + self.opening(thinking)


# ------------------------------------------------------------------ the formats

_CHATML = {role: f"<|im_start|>{role}\n{{}}<|im_end|>\n" for role in ("system", "user", "assistant")}
_CHATML_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
_DEFAULT = "You are a helpful assistant."

QWEN25 = Format(
    r"""
{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}""",
    _CHATML,
    _CHATML_SPECIALS[:3],
    opening=lambda thinking: "<|im_start|>assistant\n",
    head=lambda messages: "" if messages[0]["role"] == "system" else _CHATML["system"].replace("{}", _DEFAULT),
)

_QWEN3 = r"""
{%- set ns = namespace(question=0) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.question = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '</think>' in content and loop.index0 < ns.question %}
        {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}"""


def _without_thinking(reply: str) -> str:
    return reply.rpartition("</think>")[2].lstrip("\n") if "</think>" in reply else reply


def _asks_not_to_think(thinking: bool | None) -> str:
    return "<|im_start|>assistant\n" + ("<think>\n\n</think>\n\n" if thinking is False else "")


_THOUGHT = "<think>\nHm.\n</think>\n\n"
QWEN3 = Format(_QWEN3, _CHATML, _CHATML_SPECIALS, _asks_not_to_think, past=_without_thinking, thought=_THOUGHT)
"""Drops the thinking of past replies, and the empty thinking of those that were asked for none."""

QWEN3_KEEPING = Format(
    _QWEN3.replace("'</think>' in content", "false"), _CHATML, _CHATML_SPECIALS, _asks_not_to_think, thought=_THOUGHT
)
"""As changed for training: past replies stay as they are, but not the empty thinking that a prompt ended with."""


def _with_thinking(reply: str) -> str:
    thought = reply.partition("</think>")[0].rpartition("<think>")[2] if "</think>" in reply else ""
    return "<think>\n" + thought.strip("\n") + "\n</think>\n\n" + _without_thinking(reply)


QWEN35_KEEPING = Format(
    r"""
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' %}
        {%- set thought = '' %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- set content = '<think>\n' + thought + '\n</think>\n\n' + content %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n<think>\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '\n</think>\n\n' }}{% endif %}
{%- endif %}""",
    _CHATML,
    _CHATML_SPECIALS,
    opening=lambda thinking: "<|im_start|>assistant\n<think>\n" + ("\n</think>\n\n" if thinking is False else ""),
    past=_with_thinking,
    thought="Hm.\n</think>\n\n",
)
"""Begins the thinking in the prompt, and as changed for training keeps it, the empty one too."""

_LLAMA = {role: f"<|start_header_id|>{role}<|end_header_id|>\n\n{{}}<|eot_id|>" for role in ("system", "user", "assistant")}
LLAMA3 = Format(
    r"""
{{- '<|begin_of_text|>' }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}""",
    _LLAMA,
    ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    opening=lambda thinking: "<|start_header_id|>assistant<|end_header_id|>\n\n",
    head=lambda messages: "<|begin_of_text|>",
    trims=True,
)

GEMMA = Format(
    r"""
{{- '<bos>' }}
{%- for message in messages %}
    {%- if message.role == 'system' %}{{- raise_exception('no messages from system') }}{% endif %}
    {{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\n' + message.content | trim }}
    {{- '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<start_of_turn>model\n' }}{% endif %}""",
    {"user": "<start_of_turn>user\n{}<end_of_turn>\n", "assistant": "<start_of_turn>model\n{}<end_of_turn>\n"},
    ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    opening=lambda thinking: "<start_of_turn>model\n",
    head=lambda messages: "<bos>",
    trims=True,
)

R1 = Format(
    r"""
{{- '<bos>' }}
{%- for message in messages %}
    {%- if message.role == 'system' %}{{- message.content }}
    {%- elif message.role == 'user' %}{{- '<|User|>' + message.content }}
    {%- else %}{{- '<|Assistant|>' + message.content.split('</think>')[-1] + '<|end|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|Assistant|><think>\n' }}{% endif %}""",
    {"system": "{}", "user": "<|User|>{}", "assistant": "<|Assistant|>{}<|end|>"},
    ("<bos>", "<|User|>", "<|Assistant|>", "<|end|>", "<think>", "</think>"),
    opening=lambda thinking: "<|Assistant|><think>\n",
    head=lambda messages: "<bos>",
    past=lambda reply: reply.rpartition("</think>")[2],
)
"""Begins the thinking in the prompt, drops it later, and writes nothing behind the end of a turn."""

FORMATS = {
    "qwen2.5": QWEN25,
    "qwen3": QWEN3,
    "qwen3-keeping": QWEN3_KEEPING,
    "qwen3.5-keeping": QWEN35_KEEPING,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "r1": R1,
}


# ------------------------------------------------------------------ tokenizers


@dataclass(frozen=True)
class Dialect:
    """A format with a tokenizer."""

    format: Format
    template: ChatTemplate
    encode: Callable[[str], Ids]
    size: int
    """Tokens that there are; the special ones are the last."""

    @property
    def end(self) -> int:
        (end,) = self.encode(self.format.end)
        return end


MERGES = ("th", "in", "\n\n")
"""Tokens that one may also sample letter by letter."""


class _PlainTemplate:
    """Bytes, merges and special tokens."""

    def __init__(self, written: Format) -> None:
        self._written = written
        self._pieces = [bytes([byte]) for byte in range(256)] + [piece.encode() for piece in (*MERGES, *written.specials)]
        self._ids = {piece: at for at, piece in enumerate(self._pieces)}
        longest_first = sorted((*written.specials, *MERGES), key=len, reverse=True)
        self._split = re.compile("|".join(map(re.escape, longest_first)).encode() + b"|.", re.DOTALL)

    def __len__(self) -> int:
        return len(self._pieces)

    def encode(self, text: str) -> Ids:
        return tuple(self._ids[piece] for piece in self._split.findall(text.encode()))

    def render(self, messages: Sequence[Message], thinking: bool | None) -> Ids:
        return self.encode(self._written.text(messages, thinking))

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self._pieces[at] for at in ids).decode(errors="replace")


@functools.cache
def plain(name: str) -> Dialect:
    template = _PlainTemplate(FORMATS[name])
    return Dialect(FORMATS[name], template, template.encode, len(template))


@functools.cache
def hugging_face(name: str) -> Dialect:
    """A byte-level BPE tokenizer, built on the spot."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    written = FORMATS[name]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("t", "h"), ("i", "n"), ("Ċ", "Ċ")]  # a line feed is written so
    vocabulary = {piece: at for at, piece in enumerate([*letters, *map("".join, merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in written.specials])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, chat_template=written.jinja)
    return Dialect(
        written,
        HuggingFaceTemplate(fast),
        encode=lambda text: tuple(fast.encode(text, add_special_tokens=False)),
        size=len(fast),
    )


needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="needs the Python package transformers (extra `transformers`)"
)
DIALECTS = [
    *(pytest.param(plain, name, id=f"plain-{name}") for name in FORMATS),
    *(pytest.param(hugging_face, name, id=f"transformers-{name}", marks=needs_transformers) for name in FORMATS),
]

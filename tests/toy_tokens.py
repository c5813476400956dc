"""A tokenizer and a chat template small enough to read: one token a byte, and four marks.

    <start>user\\n...<end><start>assistant\\n                    thinking left open, or on (which adds a mark of its own)
    <start>user\\n...<end><start>assistant\\n<think><end_think>  thinking off

Tests see from the tokens of a prompt which conversation it was written from, and what was said of thinking.
"""

from __future__ import annotations

from collections.abc import Sequence

START, END, THINK, END_THINK = range(256, 260)
_ASSISTANT = [START, *b"assistant\n"]
_SWITCH = {None: [], True: [THINK], False: [THINK, END_THINK]}


def encode(text: str) -> list[int]:
    return list(text.encode(errors="surrogatepass"))


def prompt(messages: Sequence[dict[str, str]], thinking: bool | None = None) -> list[int]:
    """The conversation, up to where the reply begins."""
    ids = [token for m in messages for token in (START, *encode(f"{m['role']}\n{m['content']}"), END)]
    return ids + _ASSISTANT + _SWITCH[thinking]


def conversation(ids: Sequence[int]) -> list[dict[str, str]]:
    """What `prompt` was given."""
    turns, at = [], 0
    while END in ids[at:]:
        end = ids.index(END, at)
        role, _, content = bytes(ids[at + 1 : end]).decode(errors="surrogatepass").partition("\n")
        turns.append({"role": role, "content": content})
        at = end + 1
    return turns


def thinking(ids: Sequence[int]) -> bool | None:
    return {(): None, (THINK,): True, (THINK, END_THINK): False}[tuple(i for i in ids if i in (THINK, END_THINK))]


def logprobs(count: int) -> list[float]:
    """Numbers that binary floating point holds exactly."""
    return [-(index + 1) / 16 for index in range(count)]

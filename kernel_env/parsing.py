"""Finds the kernel in a model's reply. The only extractor of the project.

A reply is read once from left to right as prose, thinking (`<think>…</think>`) and fenced blocks. Fences follow Markdown,
with three differences that replies of language models need:

- A fence line inside a triple-quoted Python string belongs to the code, so a docstring may show a fenced example.
- A new opening line such as "```python" inside a block that is still open starts over: no program has such a line outside of
  a string, so the block before it was never closed, or was only a wrapper.
- Fence lines may be indented in any way (lists); what the opening line has is taken off every line of the block.

Everything takes time linear in the reply, whatever the reply holds, and of a reply beyond a megabyte only the end is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from kernel_env.schema import Status

_THINK, _END_THINK = "<think>", "</think>"
_TAG = re.compile(f"{_THINK}|{_END_THINK}")
_FENCE = r"(?P<indent>[ \t]*+{prefix})(?P<mark>`{{3,}}+|~{{3,}}+)[ \t]*+(?P<info>[^\n]*)$"
_MARK = re.compile(f"{_THINK}|(?:^|(?<={_END_THINK}))" + _FENCE.format(prefix=r"(?:(?:[-*+]|\d{1,9}[.)])[ \t]++)?"), re.MULTILINE)
"""What ends prose: a thinking tag, or an opening fence at the start of a line or of a list item."""
_FENCE_LINE = re.compile("^" + _FENCE.format(prefix=""), re.MULTILINE)
_LANGUAGE = re.compile(r"\{?\.?[A-Za-z][\w+#.-]*\}?[ \t]*")

_QUOTES = ('"""', "'''")
_TOKEN = re.compile(
    r"""
    \#[^\n]*+
    | (?P<open>\"{3}|'{3})
    | "(?:[^"\\\n]++|\\.)*+
    | '(?:[^'\\\n]++|\\.)*+
    """,
    re.VERBOSE | re.DOTALL,
)
_IN_STRING = {
    '"""': re.compile(r'(?:[^"\\]++|\\.|"(?!""))*+', re.DOTALL),
    "'''": re.compile(r"(?:[^'\\]++|\\.|'(?!''))*+", re.DOTALL),
}
_BLANKS = r"(?:[ \t]|\\\n)"
_OF_PYTHON = r"(?:[(\[]|:(?!:|[ \t]*+(?:public|private|protected|virtual)\b))"
"""What follows a class's name in Python, and not in C++."""
_CLASS = re.compile(rf"^[ \t]*+class{_BLANKS}++(\w++){_BLANKS}*+{_OF_PYTHON}", re.MULTILINE)
_MAX_CHARS = 1 << 20
"""Of a longer reply, which no model writes in earnest, only the end is read."""
_MAX_MISSES = 4
"""Blocks per reply that may be read twice because their quotes never balance; it keeps the time linear."""


@dataclass(frozen=True)
class Extraction:
    """Either `code`, or the `status` (`no_code`, `truncated`) and a `message` for the model that says why there is none."""

    code: str | None = None
    status: Status | None = None
    message: str = ""

    def __post_init__(self) -> None:
        if (self.code is None) == (self.status is None):
            raise ValueError("an extraction has either code or a status")


class _Block(NamedTuple):
    """One fenced block, as offsets into the reply. `closed` is False when the reply ends inside it."""

    start: int
    stop: int
    end: int
    """Where reading goes on: after the closing line."""
    indent: int
    closed: bool


class _Thought(NamedTuple):
    """Thinking with its tags, as offsets into the reply."""

    start: int
    end: int


def extract_kernel(text: str, entry: str = "ModelNew") -> Extraction:
    """The last complete fenced block of `text` that defines class `entry`.

    Newlines come out as "\\n"; nothing else of the code is changed. Thinking never counts: neither `<think>…</think>`, nor what
    follows a `<think>` that is not closed, nor what precedes a `</think>` that the prompt's template opened. Never raises.
    """
    text = _end_of(text).replace("\r\n", "\n").replace("\r", "\n")
    blocks = list(_blocks(text))
    complete = [block for block in blocks if block.closed]
    chosen = _last_defining(text, complete, entry)
    if chosen is not None:
        return Extraction(code=_code(text, chosen))
    if len(complete) < len(blocks):
        why = "The reply ends inside a code block that was never closed (was it cut off at the token limit?)."
        return Extraction(status=Status.TRUNCATED, message=f"{why} {_wanted(entry)}")
    return Extraction(status=Status.NO_CODE, message=f"{_why_no_code(text, len(complete), entry)} {_wanted(entry)}")


def without_thinking(text: str) -> str:
    """A reply as it reads without what was thought, whatever `extract_kernel` takes for that. Never raises."""
    kept, position = [], 0
    for part in _parts(text):
        if isinstance(part, _Thought):
            kept.append(text[position : part.start])
            position = part.end
    return "".join([*kept, text[position:]]).lstrip()


def _end_of(text: str) -> str:
    """The last whole lines of `text`, behind a `<think>` when they begin while thinking."""
    if len(text) <= _MAX_CHARS:
        return text
    cut = text.find("\n", len(text) - _MAX_CHARS) + 1 or len(text) - _MAX_CHARS
    thinking = text.rfind(_THINK, 0, cut) > text.rfind(_END_THINK, 0, cut)
    return (_THINK if thinking else "") + text[cut:]


def _wanted(entry: str) -> str:
    return f"Answer with one complete fenced Python block that defines class {entry}."


def _why_no_code(text: str, complete: int, entry: str) -> str:
    if not text.strip():
        return "The reply is empty."
    if complete:
        return f"No fenced code block of the reply defines class {entry} ({complete} looked at)."
    if text.rfind(_THINK) > text.rfind(_END_THINK):
        return "The reply ends while still thinking (<think> without </think>)."
    return "The reply has no fenced code block."


# ------------------------------------------------------------------ blocks


def _blocks(text: str) -> Iterator[_Block]:
    """Fenced blocks outside of thinking, in order. Only the last one can be open."""
    return (part for part in _parts(text) if isinstance(part, _Block))


def _parts(text: str) -> Iterator[_Block | _Thought]:
    """All but prose, in order."""
    tries = _MAX_MISSES
    position = _after_opened_thinking(text)
    if position:
        yield _Thought(0, position)
    while (mark := _MARK.search(text, position)) is not None:
        if mark["mark"] is None:
            end = text.find(_END_THINK, mark.end())
            position = len(text) if end < 0 else end + len(_END_THINK)
            yield _Thought(mark.start(), position)
        elif "`" in mark["mark"] and "`" in mark["info"]:
            position = mark.end()  # inline code such as ```x```
        else:
            block = _read_block(text, mark, quotes=True) if tries else None
            if block is None:
                tries = max(tries - 1, 0)
                block = _read_block(text, mark, quotes=False) or _open_block(text, mark)
            yield block
            position = block.end


def _after_opened_thinking(text: str) -> int:
    """Chat templates may open the thinking inside the prompt; then the reply's first tag is the closing one."""
    tag = _TAG.search(text)
    return tag.end() if tag is not None and tag[0] == _END_THINK else 0


def _read_block(text: str, opening: re.Match[str], quotes: bool) -> _Block | None:
    """The block that `opening` starts, or None when it is not closed.

    With `quotes`, fence lines inside of triple-quoted strings are skipped.
    """
    strings = _Strings()
    position = opening.end()
    for line in _FENCE_LINE.finditer(text, opening.end()):
        if quotes:
            strings.feed(text, position, line.start())
            position = line.start()
            if strings.open:
                continue
        if _closes(line, opening):
            start = min(opening.end() + 1, line.start())
            return _Block(start, line.start(), line.end(), len(opening["indent"]), closed=True)
        if line["mark"][0] == "`" and _LANGUAGE.fullmatch(line["info"]):
            opening, strings, position = line, _Strings(), line.end()
    return None


def _closes(line: re.Match[str], opening: re.Match[str]) -> bool:
    same = line["mark"][0] == opening["mark"][0] and len(line["mark"]) >= len(opening["mark"])
    return same and not line["info"]


def _open_block(text: str, opening: re.Match[str]) -> _Block:
    return _Block(min(opening.end() + 1, len(text)), len(text), len(text), len(opening["indent"]), closed=False)


def _code(text: str, block: _Block) -> str:
    body = text[block.start : block.stop]
    if block.indent:
        body = re.sub(rf"^[ \t]{{1,{block.indent}}}", "", body, flags=re.MULTILINE)
    return body


# ------------------------------------------------------------------ Python, as far as fences need it


class _Strings:
    """Follows triple-quoted strings through Python text that is fed piece by piece, each piece ending at a line's end.

    `open` is the quote of the string that the text fed so far ends in, or "".
    """

    def __init__(self) -> None:
        self.open = ""

    def feed(self, text: str, start: int, stop: int) -> None:
        if not any(text.find(quote, start, stop) >= 0 for quote in _QUOTES):
            return
        position = start
        while position < stop:
            if self.open:
                position = _IN_STRING[self.open].match(text, position, stop).end()  # type: ignore[union-attr]  # matches always
                if position >= stop:
                    return
                position, self.open = position + 3, ""
            position = self._to_next_string(text, position, stop)

    def _to_next_string(self, text: str, start: int, stop: int) -> int:
        for token in _TOKEN.finditer(text, start, stop):
            if token["open"]:
                self.open = token["open"]
                return token.end()
        return stop


def _last_defining(text: str, blocks: list[_Block], entry: str) -> _Block | None:
    """The last block that defines `entry` in a statement of its own at the left margin: its class, or another name for a class of
    the same block (`ModelNew = Fast`).

    Failing that, the last block with such a line anywhere: its code is broken (a string never closed, a stray indentation) and
    the model should see the real error.
    """
    name = re.escape(entry)
    definition = re.compile(
        rf"^(?P<indent>[ \t]*+)(?:class{_BLANKS}++{name}{_BLANKS}*+{_OF_PYTHON}"
        rf"|{name}{_BLANKS}*+(?::[^=\n]*+)?={_BLANKS}*+(?P<other>\w++){_BLANKS}*+(?=[;\#\n]|\Z))",
        re.MULTILINE,
    )
    fallback = None
    for block in reversed(blocks):
        strings, position = _Strings(), block.start
        classes = frozenset(_CLASS.findall(text, block.start, block.stop))
        for line in definition.finditer(text, block.start, block.stop):
            if line["other"] and line["other"] not in classes:
                continue
            fallback = fallback or block
            strings.feed(text, position, line.start())
            position = line.start()
            if not strings.open and len(line["indent"]) <= block.indent:
                return block
    return fallback

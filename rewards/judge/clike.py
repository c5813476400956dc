"""Reads C++ and CUDA as far as a judge needs: text without comments, tokens, and what the exported functions come to use.

Nothing is compiled. Every text, however broken, gives some answer, in time linear in its length.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

_LITERAL = r"""
    (?:u8|[uUL])? R"(?P<fence>[^()\\\s]{0,16}+)\( (?:(?!\)(?P=fence)").)*+ (?:\)(?P=fence)"|\Z)
  | (?:u8|[uUL])? "(?:[^"\\\n]++|\\.)*+ (?:"|$)
  | (?:u8|[uUL])? '(?:[^'\\\n]++|\\.){1,8}+'
"""
_NUMBER = r"\.?\d(?:[eEpP][-+]|'?[\w.])*+"
_PART = re.compile(
    rf"(?P<comment>//(?:[^\n\\]++|\\.)*+|/\*(?:[^*]++|\*(?!/))*+(?:\*/|\Z))|(?P<literal>{_LITERAL})|(?P<other>{_NUMBER})",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_TOKEN = re.compile(
    rf"(?P<directive>^[ \t]*\#(?:[^\n\\]++|\\.)*+)|{_LITERAL}|{_NUMBER}|[A-Za-z_]\w*+"
    r"|<<<|>>>|::|->|[-+*/%&|^=!<>]=|&&|\|\||\+\+|--|\S",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_NAME = re.compile(r"[A-Za-z_]\w*")
_CONDITION = re.compile(r"[ \t\f\v]*\#[ \t\f\v]*(?P<word>if|ifdef|ifndef|elif|else|endif)\b(?P<condition>[^\n]*)")
_NEVER = re.compile(r"[\s(]*(?:0[uUlL]*|false|!\s*1)[\s)]*(?:$|&&)")
_ALWAYS = re.compile(r"[\s(]*(?:1[uUlL]*|true|!\s*0)[\s)]*$")
_DEFINE = re.compile(r"#\s*define\s+(\w+)(?:\([^)]*\))?")
_NOT_FUNCTIONS = frozenset({"__launch_bounds__", "__attribute__", "__declspec", "alignas", "decltype", "noexcept", "defined"})
_REGISTERS = frozenset({"PYBIND11_MODULE", "TORCH_LIBRARY", "TORCH_LIBRARY_IMPL", "TORCH_LIBRARY_FRAGMENT"})
"""Macros whose blocks hand functions to Python, whatever is named elsewhere."""


def without_comments(source: str, literal: Callable[[str], str] = str) -> str:
    """`source` with a blank for every comment, and what `literal` makes of every string and character literal."""

    def replaced(match: re.Match[str]) -> str:
        if match["comment"] is not None:
            return " "
        return literal(match[0]) if match["literal"] is not None else match[0]

    return _PART.sub(replaced, source)


def remarks(source: str) -> Iterator[str]:
    """The comments and string literals of a source."""
    for match in _PART.finditer(source):
        if match["other"] is None:
            yield match[0]


def without_dead(source: str) -> str:
    """`source`, which has no comments, without what a condition such as `#if 0` leaves out. (Other conditions are the compiler's to
    know.)"""
    kept, branches, dead, continued = list[str](), list[tuple[bool, bool]](), 0, False
    """Of each condition that is open: whether its branch is dead, and whether one before the next is sure to live."""
    for line in source.split("\n"):
        found, continued = None if continued else _CONDITION.match(line), line.endswith("\\")
        if found is None:
            kept += [] if dead else [line]
            continue
        word, condition = found["word"], found["condition"]
        never = word in ("if", "elif") and _NEVER.match(condition) is not None
        always = word in ("if", "elif") and _ALWAYS.match(condition) is not None
        sure = False
        if not word.startswith("if") and branches:
            was_dead, sure = branches.pop()
            dead -= was_dead
        if not dead:  # what else stands on a line that asks nothing is not read by a compiler
            kept.append(f"#{word} 0" if never else f"#{word}" if word in ("else", "endif") else line)
        if word != "endif":
            branches.append((sure or never, sure or always))
            dead += sure or never
    return "\n".join(kept)


def comments(source: str) -> Iterator[tuple[int, int]]:
    """Where each comment begins and ends."""
    for match in _PART.finditer(source):
        if match["comment"] is not None:
            yield match.span()


def tokens(source: str) -> list[str]:
    """Without comments. A directive is one token that begins with `#`, and the body of a macro follows its directive."""
    found = list[str]()
    for match in _TOKEN.finditer(without_comments(source)):
        if match["directive"] is None:
            found.append(match[0])
            continue
        line = " ".join(match[0].replace("\\\n", " ").split())
        found.append(line)
        if define := _DEFINE.match(line):
            found += [define[1], *(word[0] for word in _TOKEN.finditer(line[define.end() :])), ";"]
    return found


def is_name(token: str) -> bool:
    return _NAME.fullmatch(token) is not None


@dataclass(frozen=True)
class Part:
    """A function, class, macro or variable at the top level of a source."""

    names: frozenset[str]
    tokens: tuple[str, ...]
    has_body: bool


def parts(stream: Iterable[str]) -> list[Part]:
    """The top-level parts of a token stream. Namespaces and `extern "C"` blocks are looked into."""
    found, now, depth, opened = list[Part](), list[str](), 0, 0
    for token in stream:
        if token.startswith("#") and depth == 0:
            continue
        if token == "{" and depth == 0 and now[:1] in (["namespace"], ["inline"], ["extern"]) and "(" not in now:
            now, opened = [], opened + 1
            continue
        if token == "}" and depth == 0:
            opened, now = max(opened - 1, 0), []
            continue
        now.append(token)
        depth += (token in ("{", "(", "[")) - (token in ("}", ")", "]"))
        depth = max(depth, 0)
        if depth == 0 and (token == ";" or (token == "}" and _ends(now))):
            found.append(_part(now))
            now = []
    return [*found, _part(now)] if now else found


def _ends(now: list[str]) -> bool:
    """Whether a closing brace ends this part; after a class or an initialiser a semicolon follows."""
    return "(" in now and not {"class", "struct", "union", "enum", "="} & set(now[: now.index("{")])


def _part(now: list[str]) -> Part:
    body = now.index("{") if "{" in now else len(now)
    head = now[:body]
    for before, token in itertools.pairwise(head):
        if token == "(" and is_name(before) and before not in _NOT_FUNCTIONS:
            return Part(frozenset({before}), tuple(now), body < len(now))
    end = head.index("=") if "=" in head else body
    return Part(frozenset(filter(is_name, head[:end])), tuple(now), body < len(now))


@dataclass(frozen=True)
class Reached:
    """What exported functions may come to run."""

    tokens: tuple[str, ...]
    defined: frozenset[str]
    """Names that the source itself gives a body."""
    void: frozenset[str]
    """Of the exported functions, those that return nothing."""


def reached(source: str, exported: Iterable[str]) -> Reached:
    """From the functions named in `exported` and from whatever registers itself; from everything where neither is found."""
    everything = parts(tokens(source))
    by_name: dict[str, list[Part]] = {}
    for part in everything:
        for name in part.names:
            by_name.setdefault(name, []).append(part)
    roots = [part for name in sorted({*exported, *_REGISTERS}) for part in by_name.pop(name, []) if part.has_body]
    queue, found, seen = roots or everything, list[str](), set[int]()
    while queue:
        part = queue.pop()
        if id(part) not in seen:
            seen.add(id(part))
            found += part.tokens
            queue += [other for name in set(part.tokens) for other in by_name.pop(name, [])]
    defined = frozenset(name for part in everything if part.has_body for name in part.names)
    void = frozenset(name for part in everything if "void" in part.tokens[: _before_name(part)] for name in part.names)
    return Reached(tuple(found), defined, void)


def _before_name(part: Part) -> int:
    return min((i for i, token in enumerate(part.tokens) if token in part.names), default=0)

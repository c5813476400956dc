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
_DIRECTIVE = re.compile(
    r"^[ \t\f\v]*+\#[ \t\f\v]*+(?P<word>\w*+)(?P<rest>(?:[^\n\\]++|\\.)*+)",
    re.DOTALL | re.MULTILINE,
)
_OPERAND = re.compile(r"\s*(?:<[^>\n]*>|\"[^\"\n]*\"|\w+)")
_INSIDE = re.compile(r"\(.*\)", re.DOTALL)
_RUN = re.compile(r"[^\W\d]\w*+(?:\s++\w++){2,}+")
_OF_PRAGMAS = """
    omp acc GCC clang STDC once unroll nounroll pack push_macro pop_macro ivdep simd message nv_diag_suppress nv_diag_default
    nv_diagnostic push pop
    parallel for section sections single task taskloop taskgroup taskwait taskyield teams distribute target critical barrier
    atomic master masked ordered threadprivate declare flush read write update capture seq_cst private firstprivate lastprivate
    shared reduction default schedule collapse num_threads nowait if proc_bind aligned safelen simdlen linear uniform inbranch
    notinbranch untied mergeable depend map data end loop order scan nontemporal copyin copyprivate final priority cancel
    optimize options push_options pop_options diagnostic ignored warning error visibility hidden system_header poison
    vectorize interleave enable disable full fp contract on off ON OFF FP_CONTRACT FENV_ACCESS
    """
_PRAGMAS = frozenset(_OF_PRAGMAS.split())
"""Words of pragmas."""
_OF_KEYWORDS = """
    alignas auto bool break case char class concept const consteval constexpr constinit continue decltype default delete do double
    else enum explicit export extern false final float for friend goto half if inline int long mutable namespace new noexcept
    nullptr operator override private protected public register requires restrict return short signed sizeof static struct switch
    template this thread_local throw true try typedef typename union unsigned using virtual void volatile while
    define elif defined
    """
_KEYWORDS = frozenset(_OF_KEYWORDS.split())
_NOT_FUNCTIONS = frozenset({"__launch_bounds__", "__attribute__", "__declspec", "alignas", "decltype", "noexcept", "defined"})
_TYPED = frozenset({"class", "struct", "union", "enum", "="})
"""After a class or an initialiser a semicolon follows the closing brace."""
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


def without_prose(source: str) -> str:
    """`source`, which has no comments, without words that only a preprocessor reads: sentences in its directives and in branches
    under a condition, messages, pragmas that no compiler knows, and what stands behind a directive's end."""
    kept, depth, position = list[str](), 0, 0
    for match in (*_DIRECTIVE.finditer(source), None):
        text = source[position : match.start() if match else len(source)]
        kept.append(_without_sentences(text) if depth else text)
        if match:
            word, position = match["word"], match.end()
            depth = max(depth + word.startswith("if") - (word == "endif"), 0)
            kept.append(_directive(match[0], word, match["rest"]))
    return "".join(kept)


def _directive(line: str, word: str, rest: str) -> str:
    if word in ("define", "if", "elif"):
        return _without_sentences(line)
    if word == "pragma":
        return _INSIDE.sub(lambda match: _without_sentences(match[0]), line) if _is_pragma(rest) else ""
    if word in ("else", "endif"):
        return line
    operand = _OPERAND.match(rest) if word in ("ifdef", "ifndef", "undef", "include", "include_next") else None
    if operand is None:
        return "" if rest.strip() else line
    return line if not rest[operand.end() :].strip() else f"#{word}{operand[0]}"


def _is_pragma(rest: str) -> bool:
    """Whether a compiler may know it. One word of it is free: what a loop is unrolled by."""
    words = _NAME.findall(_INSIDE.sub(" ", _PART.sub(" ", rest)))
    return bool(words) and words[0] in _PRAGMAS and sum(word not in _PRAGMAS for word in words) <= 1


def _without_sentences(text: str) -> str:
    """Names in a row are a declaration, a macro before it at most; more of them are a sentence."""
    said = [run for run in _RUN.findall(text) if _names_in(run) > 2]
    if sum(map(_names_in, said)) <= 3:
        return text
    return _RUN.sub(lambda match: "..." if _names_in(match[0]) > 2 else match[0], text)


def _names_in(run: str) -> int:
    """Words that are names of somebody's making: no keywords, and no macros such as `__device__` and `TORCH_API`."""
    words = run.split()
    return sum(word not in _KEYWORDS and not word.startswith("__") and not ("_" in word and word.isupper()) for word in words)


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
    called = typed = False
    """Whether the part so far has a parenthesis, and, before its first brace, a word after which a brace does not end it."""
    for token in stream:
        if token.startswith("#") and depth == 0:
            continue
        if token == "{" and depth == 0 and now[:1] in (["namespace"], ["inline"], ["extern"]) and not called:
            now, typed, opened = [], False, opened + 1
            continue
        if token == "}" and depth == 0:
            opened, now, called, typed = max(opened - 1, 0), [], False, False
            continue
        if not now:
            in_head = True
        now.append(token)
        in_head &= token != "{"
        called |= token == "("
        typed |= in_head and token in _TYPED
        depth += (token in ("{", "(", "[")) - (token in ("}", ")", "]"))
        depth = max(depth, 0)
        if depth == 0 and (token == ";" or (token == "}" and called and not typed)):
            found.append(_part(now))
            now, called, typed = [], False, False
    return [*found, _part(now)] if now else found


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

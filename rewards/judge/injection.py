"""Candidate text is untrusted: it may speak to whoever judges it. Here it is made something to read and nothing to obey.

stripped(code)      the program alone: no comments, no docstrings, no strings but short names; in C++ neither, nor dead branches
quoted(text)        fenced by more backticks than any run of them inside, with what could end a turn or a verdict broken up
speaks_to_judge     whether comments, strings or names address a judge: a reason for doubt, never for a score
"""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

from kernel_env.checks.static import SourceFault, parse
from rewards.judge import clike
from rewards.judge.program import Program

_NAME_LIKE = re.compile(r"[\w.:+/=,<>()\[\] -]{0,40}")
_WORDS = re.compile(r"[A-Za-z]{2,}")
_MOST_WORDS = 3
_TAGS = re.compile(
    r"<(/?\s*(?:think|thinking|reasoning|answer|verdict|score|system|user|assistant|tool_call)\b[^<>]{0,40})>", re.IGNORECASE
)
_SPECIAL = re.compile(r"<(\|[^<>\n]{0,40}\|)>|<(/?s)>|\[(/?INST)\]", re.IGNORECASE)
_LABELS = re.compile(r"\[\[(?=\s*[A-Za-z<>=]{1,12}\s*\]\])")
_VERDICT = re.compile(r"""(?i)(verdict|final[ _]?score|judge?ment|"score|'score)(?=[\s"'\\]{0,4}(?:[:=]|is\b))""")
_ADDRESS = re.compile(
    r"""(?ix)
    \b(ignore|disregard|forget|override) \W+ (\w+\W+){0,4} (above|previous|prior|earlier|instructions?|rubric|prompt)\b
  | \b(score|rate|grade|award)s?\b \W+ (\w+\W+){0,5} (1\.0|10/10|100\s?%|full\s+marks|perfect|excellent|maximum|highest)(?!\w)
  | \b(give|assign|output|return|answer|reply)\b \W+ (\w+\W+){0,4} (high\w*|full|perfect|maxim\w+|top|excellent|best) \W+
    (\w+\W+){0,2} (scores?|ratings?|grades?|verdicts?|marks)\b
  | \b(you\s+are|as|dear)\s+(a|an|the)\s+(judge|grader|evaluator|reviewer|reward\s+model)\b
  | \b(judge|grader|evaluator|reviewer)s?\b \W+ (\w+\W+){0,3} (must|should|please|note|will)\b
  | \bverdict\b \s* ["']? \s* [:=]
  | \bsystem\s*(prompt|message|note|:)
  | </?(think|system)\b | <\|
  | \[\[ [A-Za-z<>=]+ \]\]
    """
)
_TOLD = re.compile(
    r"""(?ix)
    \b(ignore|disregard|forget) \W+ (\w+\W+){0,4} (instructions?|rubric|prompt)\b
  | \b(you\s+are|as|dear)\s+(a|an|the)\s+(judge|grader|evaluator|reviewer|reward\s+model)\b
  | \b(judge|grader|evaluator|reviewer)s?\b \W+ (\w+\W+){0,3} (must|should|please|note|will)\b
    """
)
"""What addresses a judge even where it is code of C++, in which `[[unlikely]]` and `score = maximum(...)` are ordinary."""
_PROSE = re.compile(r"\b[A-Za-z]++(?:[,.:]?[ \t]++[\w/.%]++){4,}+")
"""In code so many words in a row are most likely none: what they say is looked at as what a comment says."""
_SEPARATORS = re.compile(r"[_\W]+")
_MARK = "‹›"
_PLACE = "native source {}"
_PLACED = re.compile(r"'native source (\d+)'")


class Stripped(NamedTuple):
    text: str
    """Empty where Python cannot read the source."""
    removed: bool
    """Whether there were comments, or strings that could be sentences."""


def stripped(code: str) -> Stripped:
    """The same program without comments, docstrings and strings that hold sentences, for somebody to read."""
    tree = parse(code)
    if isinstance(tree, SourceFault):
        return Stripped("", False)
    sources = Program(tree, "").sources
    removed = "#" in code and any(token.type == tokenize.COMMENT for token in _tokens(code))
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            body = [statement for statement in node.body if not _is_remark(statement)]
            removed |= len(body) < len(node.body)
            node.body = body or [ast.Pass()]
    natives = list[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if _is_source(node.value, sources):
                bare = _native(node.value)
                removed |= _says_something(node.value) or clike.without_dead(bare) != bare
                natives.append(clike.without_dead(bare).replace('"""', r"\"\"\""))
                node.value = _PLACE.format(len(natives) - 1)
            else:
                removed |= not _is_short(node.value)
                node.value = _short(node.value)
    try:
        text = ast.unparse(ast.fix_missing_locations(tree))
    except (RecursionError, ValueError):
        return Stripped("", False)
    return Stripped(_PLACED.sub(lambda match: f'"""{natives[int(match[1])]}"""', text), removed)


def _is_remark(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)


def is_native(text: str) -> bool:
    """Whether a string is source code of C++ or CUDA."""
    return "{" in text and ";" in text and "(" in text


def _is_source(text: str, sources: frozenset[str] | None) -> bool:
    """Whether a string is C++ that is handed to the compiler, or may be where that cannot be told."""
    return is_native(text) and (sources is None or text in sources)


def _says_something(native: str) -> bool:
    return any(remark.startswith("/") or not _is_short(remark) for remark in clike.remarks(native))


def _native(text: str) -> str:
    bare = clike.without_comments(text, lambda literal: literal if _is_short(literal) else '"..."')
    return "\n" + "\n".join(line.rstrip() for line in textwrap.dedent(bare).splitlines() if line.strip()) + "\n"


def _short(text: str) -> str:
    return text if _is_short(text) else "..."


def _is_short(text: str) -> bool:
    """A name, a flag, a path or a format: nothing that could be a sentence."""
    return _NAME_LIKE.fullmatch(text.strip("\"'")) is not None and len(_WORDS.findall(_SEPARATORS.sub(" ", text))) <= _MOST_WORDS


def neutral(text: str) -> str:
    """`text` with thinking tags, chat markers and verdict tokens broken up, so that they are none any more."""
    text = _TAGS.sub(rf"{_MARK[0]}\1{_MARK[1]}", text)
    text = _SPECIAL.sub(lambda m: f"{_MARK[0]}{m[1] or m[2] or m[3]}{_MARK[1]}", text)
    text = _LABELS.sub("[ [", text)
    return _VERDICT.sub(lambda m: f"{m[1][:-1]}·{m[1][-1]}", text)


def fence(text: str) -> str:
    """Backticks, one more than any run of them in `text`, and at least three."""
    return "`" * max([3, *(len(run) + 1 for run in re.findall(r"`+", text))])


def quoted(text: str, language: str = "") -> str:
    """A fenced block that nothing inside can close."""
    inside = neutral(text).strip("\n")
    marks = fence(inside)
    return f"{marks}{language}\n{inside}\n{marks}"


def speaks_to_judge(code: str) -> bool:
    """Whether a comment, a string or a name addresses whoever judges; in names, underscores are blanks."""
    return any(_ADDRESS.search(text) or _ADDRESS.search(text.replace("_", " ")) for text in _words_of(code))


def _words_of(code: str) -> Iterator[str]:
    """Comments, strings and names; of strings that are C++ the same, and what reads like prose there. All of a text that Python
    cannot read."""
    tree = parse(code)
    if isinstance(tree, SourceFault):
        yield code
        return
    yield from (token.string for token in _tokens(code) if token.type in (tokenize.COMMENT, tokenize.NAME))
    sources = Program(tree, "").sources
    for text in (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)):
        if not _is_source(text, sources):
            yield text
            continue
        yield from clike.remarks(text)
        bare = clike.without_comments(text, lambda _: '""')
        yield from (found[0] for found in _PROSE.finditer(bare))
        yield from (found[0] for found in _TOLD.finditer(bare))


def _tokens(code: str) -> Iterator[tokenize.TokenInfo]:
    try:
        yield from tokenize.generate_tokens(io.StringIO(code).readline)
    except (tokenize.TokenError, SyntaxError):  # what the parser took and the tokenizer does not, such as a form feed
        return

"""Candidate text is untrusted: it may speak to whoever judges it. Here it is made something to read and nothing to obey.

stripped(code)      the program alone: no comments, no docstrings, no strings but short names; in C++ neither, nor dead branches,
                    nor sentences for the preprocessor. Bytes and the parts of an f-string are strings
quoted(text)        fenced by more backticks than any run of them inside, with what could end a turn or a verdict broken up
speaks_to_judge     whether comments, strings or names address a judge: a reason for doubt, never for a score
"""

from __future__ import annotations

import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kernel_env.checks.static import SourceFault, parse
from rewards.judge import clike
from rewards.judge.program import Program, text_of

_NAME_LIKE = re.compile(r"[\w.:+/=,<>()\[\] -]{0,40}", re.ASCII)
_WORDS = re.compile(r"[A-Za-z]{2,}")
_MOST_WORDS = 3
"""Of a string, and of all strings of an expression that are more than one word."""
_MOST_NAMES = 12
"""Of an expression's strings that are a word without anything else."""
_CONTROL = re.compile(
    r"""(?ix)
    <(?=
        [|｜][^<>\n]{0,40}> | [^<>|｜\n]{0,40}[|｜]>
      | /?\s*(?:think|thinking|reasoning|answer|verdict|score|system|user|assistant|tool|function)\b[^<>]{0,40}>
      | /?(?:s|[be]o[sdpt]|sop|pad|unk|mask|cls|sep|pre|suf|mid|img|unused\d+)>
      | /?[a-z]+_\w*(?<!_t)(?<!unordered_map)(?<!unordered_set)(?<!string_view)(?<!type_traits)(?<!condition_variable)
        (?<!initializer_list)(?<!shared_mutex)(?<!system_error)(?<!forward_list)> | /?[a-z]\w*:\w+> | </?sys>>
    )
  | \[(?=
        (?-i:/?(?:INST|THINK|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_(?:CALLS|RESULTS|CONTENT)|ARGS|CALL_ID|IMG(?:_BREAK|_END)?|[gs]?MASK|CLS
          |SEP|PAD|UNK|BOS|EOS|PREFIX|SUFFIX|MIDDLE|UNUSED_TOKEN_\d+)\])
      | \[\s*[A-Z<>=]{1,12}\s*\]\]
    )
  | \](?=~!?b[][])
    """
)
"""Where what may be a token of some model's own begins: of its turns and of its thinking, and a comparison's label. Most names
of such have an underscore; those of types end in `_t`, and C++'s headers are few."""
_KEYS = "reasoning|genuine|integrity|substance|readability|correctness|relevance|clarity|confidence|verdict"
_VERDICT = re.compile(
    rf"""(?i)(verdict|final[ _]?score|judge?ment|"score|'score)(?=[\s"'\\]{{0,4}}(?:[:=]|is\b))|(?<=["'])({_KEYS})(?=\\?["'])"""
)
"""What a verdict calls itself, and the keys of one (of `rubrics`) wherever they are strings."""
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
  | </?(start|end)_of_turn\b | \[/?INST\]
  | \b(genuine|integrity|substance|readability|verdict)\W+(none|poor|fair|good|excellent)\b
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
_LITERAL = (
    ast.Constant, ast.JoinedStr, ast.FormattedValue, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.BinOp, ast.operator,
    ast.expr_context,
)  # fmt: skip
_SEPARATORS = re.compile(r"[_\W]+")
_PLACE = "‹native source {}›"
"""No string of a candidate reads so: none that is left has such marks."""
_PLACED = re.compile(r"'‹native source (\d+)›'")


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
    for strings in _strings(tree):
        said = [(node, text) for node in strings if not _is_source(text := text_of(node) or "", sources)]
        together = _is_speech([text for _, text in said])
        for node, text in said:
            if not _is_short(text) or (together and _WORDS.search(text)):
                removed = True
                node.value = b"..." if isinstance(node.value, bytes) else "..."
        for node in strings:
            text = text_of(node) or ""
            if _is_source(text, sources):
                bare = _native(text)
                read = clike.without_prose(clike.without_dead(bare))
                removed |= _says_something(text) or read != bare
                natives.append(read.replace('"""', r"\"\"\""))
                node.value = _PLACE.format(len(natives) - 1)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):  # a source of several parts is several sources with what stands between them
            node.values = [ast.FormattedValue(part, -1) if _is_placed(part) else part for part in node.values]
    try:
        text = ast.unparse(ast.fix_missing_locations(tree))
    except (RecursionError, ValueError):
        return Stripped("", False)
    return Stripped(_PLACED.sub(lambda match: f'"""{natives[int(match[1])]}"""', text), removed)


def _is_placed(part: ast.expr) -> bool:
    return isinstance(part, ast.Constant) and _PLACED.fullmatch(repr(part.value)) is not None


def _is_remark(statement: ast.stmt) -> bool:
    """Whether a statement is words and does nothing: a string, or several in a tuple, a sum or a dict."""
    if not isinstance(statement, ast.Expr):
        return False
    nodes = list(ast.walk(statement.value))
    return all(isinstance(node, _LITERAL) for node in nodes) and any(text_of(node) is not None for node in nodes)


def _strings(tree: ast.Module) -> Iterator[list[ast.Constant]]:
    """The strings of each expression that is no part of another one."""
    todo: list[ast.AST] = [tree]
    while todo:
        for child in ast.iter_child_nodes(todo.pop()):
            if isinstance(child, ast.expr):
                yield [node for node in ast.walk(child) if isinstance(node, ast.Constant) and text_of(node) is not None]
            else:
                todo.append(child)


def _is_speech(texts: Iterable[str]) -> bool:
    """Whether short strings of one expression are a sentence together, or speak to a judge."""
    texts = list(dict.fromkeys(texts))
    phrases = [text for text in texts if " " in text and not all(flag.startswith("-") for flag in text.split())]
    if len(phrases) > 1 and sum(len(_WORDS.findall(text)) for text in phrases) > _MOST_WORDS:
        return True
    return sum(map(str.isalpha, texts)) > _MOST_NAMES or any(map(_speaks, _joined(texts)))


def _joined(texts: Sequence[str]) -> Iterator[str]:
    """What several strings say together."""
    if len(texts) > 1:
        yield from ("".join(texts), " ".join(texts))


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


def _is_short(text: str) -> bool:
    """A name, a flag, a path or a format: nothing that could be a sentence."""
    return _NAME_LIKE.fullmatch(text.strip("\"'")) is not None and len(_WORDS.findall(_SEPARATORS.sub(" ", text))) <= _MOST_WORDS


def neutral(text: str) -> str:
    """`text` with what a model may take for a token of its own, or for a verdict, broken up by a blank or a dot. To a reader it is
    what it was."""
    text = _CONTROL.sub(r"\g<0> ", text)
    return _VERDICT.sub(lambda m: f"{(m[1] or m[2])[:-1]}·{(m[1] or m[2])[-1]}", text)


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
    return any(map(_speaks, _words_of(code)))


def _speaks(text: str) -> bool:
    return _ADDRESS.search(text) is not None or _ADDRESS.search(text.replace("_", " ")) is not None


def _words_of(code: str) -> Iterator[str]:
    """Comments, strings and names; of strings that are C++ the same, and what reads like prose there. All of a text that Python
    cannot read."""
    tree = parse(code)
    if isinstance(tree, SourceFault):
        yield code
        return
    yield from (token.string for token in _tokens(code) if token.type in (tokenize.COMMENT, tokenize.NAME))
    sources = Program(tree, "").sources
    for strings in _strings(tree):
        texts = list(dict.fromkeys(text_of(node) or "" for node in strings))
        said = [text for text in texts if not _is_source(text, sources)]
        yield from said
        yield from _joined(said)
        for text in texts:
            if _is_source(text, sources):
                yield from _words_of_native(text)


def _words_of_native(text: str) -> Iterator[str]:
    yield from clike.remarks(text)
    bare = clike.without_comments(text, lambda _: '""')
    yield from (found[0] for found in _PROSE.finditer(bare))
    yield from (found[0] for found in _TOLD.finditer(bare))


def _tokens(code: str) -> Iterator[tokenize.TokenInfo]:
    try:
        yield from tokenize.generate_tokens(io.StringIO(code).readline)
    except (tokenize.TokenError, SyntaxError):  # what the parser took and the tokenizer does not, such as a form feed
        return

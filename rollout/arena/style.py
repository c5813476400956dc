"""How long a kernel is, and how much of it is comments: what may move a judge although it says nothing of the work."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator

from kernel_env.checks.static import SourceFault, parse
from rewards.judge.clike import comments
from rewards.judge.injection import is_native


def line_counts(code: str) -> tuple[int, int]:
    """Lines with code, and lines with a comment; one with both counts twice.

    Docstrings are comments, and so are those of C++ in strings. Of a text that Python cannot read all lines are code.
    """
    code = code.replace("\r\n", "\n").replace("\r", "\n")
    lines = code.split("\n")
    without, touched = [list(line) for line in lines], set[int]()
    for row, begin, end in _remarks(code, lines):
        without[row][begin:end] = " " * (end - begin)
        touched.add(row)
    return sum(bool("".join(line).strip()) for line in without), len(touched)


def _remarks(code: str, lines: list[str]) -> Iterator[tuple[int, int, int]]:
    """Parts of lines: row from 0, first column, and the one after the last."""
    tree = parse(code)
    if isinstance(tree, SourceFault):
        return
    docstrings = {_start(lines, node) for node in ast.walk(tree) if isinstance(node, ast.Expr) and _is_text(node.value)}
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.start in docstrings):
                yield from _rows(token.string, 0, len(token.string), token.start)
            elif token.type == tokenize.STRING and is_native(token.string):
                for begin, end in comments(token.string):
                    yield from _rows(token.string, begin, end, token.start)
    except (tokenize.TokenError, SyntaxError):  # what the parser took and the tokenizer does not, such as a form feed
        return


def _is_text(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _start(lines: list[str], node: ast.stmt) -> tuple[int, int]:
    """Line from 1, and column in characters, as tokens have them; the syntax tree counts bytes."""
    return node.lineno, len(lines[node.lineno - 1].encode(errors="surrogatepass")[: node.col_offset].decode(errors="ignore"))


def _rows(text: str, begin: int, end: int, start: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    """`text[begin:end]` line by line, without blank ones, where `text` stands at `start` (line from 1, column)."""
    row, column = start[0] - 1 + text.count("\n", 0, begin), begin - (text.rfind("\n", 0, begin) + 1)
    if row == start[0] - 1:
        column += start[1]
    for part in text[begin:end].split("\n"):
        if part.strip():
            yield row, column, column + len(part)
        row, column = row + 1, 0

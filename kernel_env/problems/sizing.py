"""Problem sizes: module-level integer constants of a source, and replacing them without touching any other byte.

A size profile is a table of such replacements. `full` leaves every problem as written; `gpu24` fits a GPU with 24 GB; `cpu` an
ordinary two-core machine with little memory; `interpret` the Triton interpreter. The tables are in `profiles.json`, by origin,
profile and `level{L}/{id}_{Name}`: the name is part of the key, so an entry never hits another data set's problem.
"""

from __future__ import annotations

import ast
import functools
import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.resources import files

from kernel_env.errors import DatasetError
from kernel_env.schema import Problem

_log = logging.getLogger(__name__)

Sizes = Mapping[str, int]
"""New values of module-level constants, by name."""


class Profile(StrEnum):
    FULL = "full"
    GPU24 = "gpu24"
    CPU = "cpu"
    INTERPRET = "interpret"


@dataclass(frozen=True)
class Constant:
    """An integer constant and where its value stands: byte offsets `[start, stop)` into the UTF-8 source."""

    value: int
    start: int
    stop: int


def parse(source: str) -> ast.Module:
    """The syntax tree. Raises ValueError, in one line, for text that is not Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a backslash in somebody's docstring is not our user's business
        try:
            return ast.parse(source)
        except SyntaxError as error:
            raise ValueError(f"line {error.lineno} is not Python: {error.msg}") from None
        except (ValueError, RecursionError, MemoryError) as error:  # null bytes, lone surrogates, absurd nesting
            raise ValueError(f"not Python: {type(error).__name__}") from None


def constants(source: str) -> Mapping[str, Constant]:
    """Constants that can be resized, by name.

    `N = 64`, `N: int = 64`, `N = 2 * 32` and `H, W = 32, 32` at module level count; `H = W = 32` is the one constant `H`; the
    elements of `shape = (3, 5)` or of a list are `shape[0]` and `shape[1]`. A name bound there more than once does not
    count: which of its values matters cannot be told from the text.
    """
    tree = parse(source)
    line_starts = _line_starts(source)
    module_level = (node for node in tree.body if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef))
    nodes = (node for statement in module_level for node in ast.walk(statement))
    bound = Counter(node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    found: dict[str, Constant] = {}
    for name, node in _bindings(tree):
        value = _int_value(node)
        if value is not None and bound[name.partition("[")[0]] == 1 and node.end_lineno and node.end_col_offset:
            start = line_starts[node.lineno - 1] + node.col_offset
            found[name] = Constant(value, start, line_starts[node.end_lineno - 1] + node.end_col_offset)
    return found


def resize(source: str, sizes: Sizes) -> str:
    """`source` with the constants named in `sizes` replaced; every other byte stays. Raises DatasetError for other names."""
    if not sizes:
        return source
    known = constants(source)
    for name, size in sizes.items():
        if name not in known:
            raise DatasetError(f"no integer constant {name!r} at module level; resizable here: {', '.join(known) or 'nothing'}")
        if type(size) is not int:
            raise DatasetError(f"{name} must be an integer, not {size!r}")
    text = source.encode()
    for name in sorted(sizes, key=lambda n: known[n].start, reverse=True):  # from the end, so that offsets stay true
        text = text[: known[name].start] + str(sizes[name]).encode() + text[known[name].stop :]
    return text.decode()


def sized(problem: Problem, profile: Profile, overrides: Sizes | None = None) -> Problem:
    """The problem at a profile's size, then with the caller's own overrides.

    The data set's prompt quotes the source, so the quotation is resized with it. Raises DatasetError when an override names
    no constant of this problem.
    """
    sizes = {**_shipped(problem, profile), **(overrides or {})}
    try:
        source = resize(problem.source, sizes)
    except DatasetError as error:
        raise DatasetError(f"{problem.key} ({problem.name}): {error}") from None
    prompt = problem.prompt
    if prompt is not None:
        prompt = tuple({**message, "content": message["content"].replace(problem.source, source)} for message in prompt)
    return replace(problem, source=source, prompt=prompt, profile=profile.value, overrides=sizes)


_TABLES = {"huggingface": "kernelbench"}
"""Sources that have the problems of another one."""


def _shipped(problem: Problem, profile: Profile) -> Sizes:
    """Our own table's entry. One that does not fit (another version of the data set) is left out with a warning."""
    entry = (
        profiles()
        .get(_TABLES.get(problem.origin, problem.origin), {})
        .get(profile.value, {})
        .get(f"level{problem.level}/{problem.problem_id}_{problem.name}", {})
    )
    unknown = entry.keys() - constants(problem.source).keys() if entry else set()
    if unknown:
        _log.warning("%s: stays as written, its source has no %s that profile %s sets", problem.key, min(unknown), profile)
        return {}
    return entry


@functools.cache
def profiles() -> Mapping[str, Mapping[str, Mapping[str, Sizes]]]:
    """Origin → profile → `level{L}/{id}_{Name}` → sizes."""
    text = files("kernel_env.problems").joinpath("profiles.json").read_text(encoding="utf-8")
    tables: dict[str, dict[str, dict[str, dict[str, int]]]] = json.loads(text)
    return tables


def _line_starts(source: str) -> list[int]:
    """Byte offset of each line; lines end as Python's tokenizer ends them (not at form feeds, as `str.splitlines` would)."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _bindings(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """Name and value expression of each plain module-level assignment, taking tuples and lists apart."""
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Tuple(elts=values) | ast.List(elts=values)):
                yield from ((f"{name}[{index}]", value) for index, value in enumerate(values))
            case ast.Assign(targets=[ast.Name(id=name), *_], value=value):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value
            case ast.Assign(targets=[ast.Tuple(elts=names)], value=ast.Tuple(elts=values)) if len(names) == len(values):
                yield from ((name.id, value) for name, value in zip(names, values, strict=True) if isinstance(name, ast.Name))


def _int_value(node: ast.expr) -> int | None:
    """The value of an integer literal or of a sum, difference or product of such; None for anything else."""
    match node:
        case ast.Constant(value=int() as value) if type(value) is int:
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value_of_operand = _int_value(operand)
            return None if value_of_operand is None else -value_of_operand
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() | ast.Mult() as op, right=right):
            a, b = _int_value(left), _int_value(right)
            if a is None or b is None:
                return None
            return a + b if isinstance(op, ast.Add) else a - b if isinstance(op, ast.Sub) else a * b
    return None

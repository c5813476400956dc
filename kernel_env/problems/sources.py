"""Where problems come from: the ones in this package, a KernelBench checkout, a JSONL file of multi-turn RL.

Each reader returns problems as their source wrote them. Sizes and selection come afterwards.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from kernel_env.errors import DatasetError
from kernel_env.problems.sizing import parse
from kernel_env.schema import Message, Problem

_log = logging.getLogger(__name__)

_LEVEL_FOLDER = re.compile(r"level(\d+)")
_PROBLEM_FILE = re.compile(r"(\d+)_(.+)\.py")
_REQUIRED = ("Model", "get_inputs", "get_init_inputs")
_ROLES = ("system", "user", "assistant")


class Source(StrEnum):
    BUNDLED = "bundled"
    KERNELBENCH = "kernelbench"
    JSONL = "jsonl"
    HUGGINGFACE = "huggingface"


def read_bundled() -> list[Problem]:
    return list(_read_folders(files("kernel_env.problems").joinpath("bundled"), Source.BUNDLED))


def read_kernelbench(path: Path) -> list[Problem]:
    """Problems of a checkout: `path` is its root, its `KernelBench/` folder, or any folder that holds `level1`, `level2`, ...

    Raises DatasetError where nothing is found, or a file is not a problem.
    """
    for root in (path, path / "KernelBench"):
        problems = list(_read_folders(root, Source.KERNELBENCH)) if root.is_dir() else []
        if problems:
            return problems
    raise DatasetError(
        f"{path}: no level1/1_Name.py there or in KernelBench/ below it; point problems.path at a checkout of "
        "https://github.com/ScalingIntelligence/KernelBench"
    )


def read_jsonl(path: Path, *, skip_bad_lines: bool = False) -> list[Problem]:
    """Problems of a file with one JSON object a line: `label`, `extra_info{level, problem_id, problem_name}`, `prompt`.

    A malformed line, or a second one for the same level and id, raises DatasetError; with `skip_bad_lines` such lines are
    left out and one warning counts them. Blank lines mean nothing.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); point problems.path at a JSONL file") from None
    problems: dict[str, Problem] = {}
    first_line: dict[str, int] = {}
    bad: list[str] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            problem = _from_record(line)
            if problem.key in problems:
                raise ValueError(f"{problem.key} again, already in line {first_line[problem.key]}")
        except ValueError as error:
            if not skip_bad_lines:
                raise DatasetError(f"{path}, line {number}: {error}; mend it, or set problems.skip_bad_lines=true") from None
            bad.append(f"line {number}: {error}")
            continue
        problems[problem.key], first_line[problem.key] = problem, number
    if bad:
        _log.warning("%s: skipped %d of %d lines; first: %s", path, len(bad), len(bad) + len(problems), bad[0])
    if not problems:
        raise DatasetError(f"{path}: holds no problem; it needs one JSON object a line")
    return list(problems.values())


def _read_folders(root: Traversable, origin: Source) -> Iterator[Problem]:
    """Every `level{L}/{id}_{Name}.py` below `root`; other files are none of our business."""
    seen: dict[str, str] = {}
    for folder in root.iterdir():
        level = _LEVEL_FOLDER.fullmatch(folder.name)
        for file in folder.iterdir() if level and folder.is_dir() else ():
            match = _PROBLEM_FILE.fullmatch(file.name)
            if level is None or match is None:
                continue
            try:
                source = file.read_bytes().decode()  # not read_text: it would change the line ends
                check_source(source)
            except (OSError, ValueError) as error:
                raise DatasetError(f"{file}: {error}; every file named like a problem must be one") from None
            problem = Problem(int(level[1]), int(match[1]), match[2], source, origin=origin.value)
            if problem.key in seen:
                raise DatasetError(f"{file}: same level and id as {seen[problem.key]}; remove one of them")
            seen[problem.key] = file.name
            yield problem


def _from_record(line: bytes) -> Problem:
    """One line's problem. Raises ValueError saying what is wrong with it."""
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    extra = record.get("extra_info")
    if not isinstance(extra, dict):
        raise ValueError("no object extra_info")
    source = text(record, "label")
    try:
        check_source(source)
    except ValueError as error:
        raise ValueError(f"label: {error}") from None
    return Problem(
        level=number(extra, "level"),
        problem_id=number(extra, "problem_id"),
        name=text(extra, "problem_name"),
        source=source,
        origin=Source.JSONL.value,
        prompt=_messages(record.get("prompt")),
    )


def _messages(prompt: object) -> tuple[Message, ...] | None:
    if prompt is None:
        return None
    if not isinstance(prompt, list) or not prompt or not all(isinstance(message, dict) for message in prompt):
        raise ValueError("prompt is not a list of messages")
    messages = tuple({"role": text(message, "role"), "content": text(message, "content")} for message in prompt)
    for message in messages:
        if message["role"] not in _ROLES:
            raise ValueError(f"prompt has the role {message['role']!r}, not one of {', '.join(_ROLES)}")
    return messages


def check_source(source: str) -> None:
    """Raises ValueError unless the text is Python that defines what a problem must define."""
    defined = {getattr(statement, "name", None) for statement in parse(source).body}
    missing = [name for name in _REQUIRED if name not in defined]
    if missing:
        raise ValueError(f"defines no {', '.join(missing)}")


def text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"no text {name}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds half a surrogate pair") from None
    return value


def number(fields: Mapping[str, Any], name: str) -> int:
    """A count from a JSON number or its decimal text: both occur in the wild."""
    value = fields.get(name)
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    if type(value) is int and value >= 0:
        return value
    raise ValueError(f"{name} is {value!r}, not a number")

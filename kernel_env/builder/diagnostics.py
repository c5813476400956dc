"""Reads GCC's diagnostics by their places, never by their words, and makes them fit to be shown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_ERROR = re.compile(r"^(?P<file>[^\s:][^:\n]*):(?P<line>\d{1,9}):(?:\d+:)?(?: fatal)? error: ", re.MULTILINE)


@dataclass(frozen=True)
class Place:
    """Where an error stands; `line` counts from 1, `offset` is where its message begins in the log."""

    file: str
    line: int
    offset: int


def errors(log: str) -> Iterator[Place]:
    for found in _ERROR.finditer(log):
        yield Place(found["file"], int(found["line"]), found.start())


def without_paths(log: str, directories: Sequence[Path]) -> str:
    """The log with files of `directories` named as they are included, not by where they lie on this machine."""
    for directory in sorted(directories, key=lambda path: len(str(path)), reverse=True):
        log = log.replace(f"{directory}/", "")
    return log

"""`arena/<judge>/<model>.jsonl`: a line for each match, for ever one a match, and never half of one.

A match is appended when both its games are over, and the disk has it before the next one. What a kill leaves of a line is no line,
and is gone with the next start. A match that lacked a verdict is replaced in its place, by writing the file again as a whole.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from kernel_env.errors import ConfigError
from kernel_env.schema import dumps
from rollout.arena.reader import SUFFIX, read_judgments
from rollout.arena.records import Match
from rollout.durable import DirectoryLock, append_file, remove_leftovers, write_file


def match_file(directory: Path, model: str) -> Path:
    return directory / f"{model}{SUFFIX}"


def read_matches(path: Path) -> dict[str, Match]:
    """What is on the disk, by uid, also while somebody writes it. Raises DatasetError for a line that is damaged."""
    return {match.uid: match for match in read_judgments(path).matches} if path.exists() else {}


class MatchFile:
    """One file, for writing. Made by `opened`, which holds its lock."""

    def __init__(self, path: Path, planned: Mapping[str, Match]) -> None:
        self.path, self._planned = path, planned
        stored = read_matches(path)
        self._refuse_others(stored)
        self.matches = {uid: match for uid, match in stored.items() if _same_kernels(match, planned[uid])}
        """By uid. One whose kernels are others by now, as its run went on, is not among them."""
        self._lines = {uid: _line(match) for uid, match in self.matches.items()}
        if path.exists() and path.read_bytes() != self._text():
            write_file(path, self._text())

    @property
    def left(self) -> list[str]:
        """Uids of matches that are not whole."""
        return left(self._planned, self.matches)

    def save(self, match: Match) -> None:
        """Makes it durable. Raises InfraError where the disk refuses."""
        known = match.uid in self.matches
        self.matches[match.uid], self._lines[match.uid] = match, _line(match)
        if known:
            write_file(self.path, self._text())
        else:
            append_file(self.path, self._lines[match.uid])

    def finish(self) -> None:
        """Brings the lines into the order of the plan, whatever order they came in."""
        ordered = {uid: self._lines[uid] for uid in self._planned if uid in self._lines}
        if list(ordered) != list(self._lines):
            self._lines = ordered
            write_file(self.path, self._text())

    def _text(self) -> bytes:
        return b"".join(self._lines.values())

    def _refuse_others(self, stored: Mapping[str, Match]) -> None:
        for match in stored.values():
            planned = self._planned.get(match.uid)
            if planned is None:
                raise ConfigError(f"{self.path} has a match of {match.uid}, which the baseline lacks: choose another arena.name")
            for what in ("judge", "baseline"):
                ours, theirs = getattr(planned, what), getattr(match, what)
                if ours != theirs:
                    raise ConfigError(f"{self.path} has another {what} ({theirs}, not {ours}): choose another arena.name")


def left(planned: Mapping[str, Match], stored: Mapping[str, Match]) -> list[str]:
    """Uids of planned matches that are not there, are not whole, or were of other kernels."""
    return [uid for uid, match in planned.items() if uid not in stored or not _is_over(stored[uid], match)]


def _is_over(stored: Match, planned: Match) -> bool:
    return stored.whole and _same_kernels(stored, planned)


def _same_kernels(stored: Match, planned: Match) -> bool:
    return replace(stored, games=planned.games) == planned


@contextmanager
def opened(path: Path, planned: Mapping[str, Match]) -> Iterator[MatchFile]:
    """No other process writes it meanwhile. Raises ConfigError where one does, or where the file holds other matches."""
    with DirectoryLock(path.parent, path.name):
        remove_leftovers(path.parent, glob.escape(path.name))
        yield MatchFile(path, planned)


def _line(match: Match) -> bytes:
    """A lone surrogate, which UTF-8 cannot hold, becomes the JSON escape of itself."""
    return f"{dumps(match)}\n".encode(errors="backslashreplace")

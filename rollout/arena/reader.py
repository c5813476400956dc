"""Files of judgments: `arena/<judge>/<model>.jsonl`, one `Match` a line, and the older form of Arena-Hard.

Of two lines with one uid the last one counts: a match with a null game is judged again, and written again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from kernel_env.errors import DatasetError
from kernel_env.schema import from_json
from rollout.arena.records import LABELS, Game, Label, Match

UNKNOWN = "unknown"
SUFFIX = ".jsonl"
_OLDER: Mapping[str, Label] = {**{label: label for label in LABELS}, "A": "A>B", "B": "B>A"}
_WRITTEN = re.compile(r"\[\[([AB<>=]+)\]\]")


@dataclass(frozen=True)
class Judgments:
    """One file."""

    matches: tuple[Match, ...]
    """In the order in which their uids first occur."""
    cut_off: bool
    """The last line has no end: its writer was killed. It is left out."""


def judgment_files(directory: Path) -> list[Path]:
    """Those of one judge, by name."""
    return sorted(path for path in directory.glob(f"*{SUFFIX}") if path.is_file() and not path.name.startswith("."))


def read_judgments(path: Path, *, texts: bool = True) -> Judgments:
    """Without `texts` prompts and replies are left out: they are nearly all of a large file.

    Raises DatasetError, which names the line, when one cannot be read.
    """
    found: dict[str, Match] = {}
    cut_off = False
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    cut_off = True
                    break
                match = _match(line, path, number)
                found[match.uid] = match if texts else _without_texts(match)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    return Judgments(tuple(found.values()), cut_off)


def _match(line: bytes, path: Path, number: int) -> Match:
    try:
        data = json.loads(line)
        older = isinstance(data, dict) and "question_id" in data and "uid" not in data
        match = _older(data, path) if older else from_json(Match, data)
        if len(match.games) != 2:
            raise ValueError(f"{len(match.games)} games instead of 2")
        return match
    except (ValueError, TypeError, RecursionError) as error:
        fault = " ".join(str(error).split())[:200]
        raise DatasetError(f"{path}, line {number} is no judgment ({fault}): mend or remove that line") from error


def _without_texts(match: Match) -> Match:
    first, second = (replace(game, judgment="", prompt="") for game in match.games)
    return replace(match, games=(first, second))


# ------------------------------------------------------------------ the older form


def _older(data: Mapping[str, Any], path: Path) -> Match:
    """`{question_id, games: [{judgment}, ...]}`. What the line does not say, the path does, or nobody."""
    uid = _text(data, "question_id", "")
    games = data.get("games")
    if not uid or not isinstance(games, list) or not all(isinstance(game, dict) for game in games):
        raise ValueError("it has no question_id, or no list of games")
    played = (*map(_older_game, games), *[Game(None, error="not played")] * (2 - len(games)))
    return Match(
        uid=uid,
        problem=uid,
        category=_text(data, "category", UNKNOWN),
        judge=_text(data, "judge", path.absolute().parent.name),
        model=_text(data, "model", path.name.removesuffix(SUFFIX)),
        baseline=_text(data, "baseline", UNKNOWN),
        decided="judge",
        games=cast(tuple[Game, Game], played),
    )


def _older_game(data: Mapping[str, Any]) -> Game:
    """Of several labels in a judgment all are the same, or it is none: so Arena-Hard reads them."""
    judgment = _text(data, "judgment", "")
    labels = set(_WRITTEN.findall(judgment))
    score = _OLDER.get(labels.pop()) if len(labels) == 1 else None
    error = "" if score is not None else "no verdict in the judgment"
    return Game(score, judgment=judgment, prompt=_text(data, "user_prompt", ""), error=error)


def _text(data: Mapping[str, Any], name: str, otherwise: str) -> str:
    value = data.get(name, otherwise)
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text: {value!r:.60}")
    return value

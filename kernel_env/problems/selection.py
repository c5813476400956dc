"""Choosing among problems by level, id, name and position. Whatever is asked for by name and does not exist is an error."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib import resources
from itertools import groupby

from kernel_env.errors import ConfigError
from kernel_env.problems.categories import CATEGORIES
from kernel_env.schema import Problem

Numbers = int | str | Sequence[int | str]
"""`3`, `"1,3,10-20"`, or a list of such: what a command line or a configuration file gives."""

Test = Callable[[Problem], bool]

_LEVEL_AND_ID = re.compile(r"(?:level)?(\d+)(?:_problem|[/:])(\d+)")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


def select(
    problems: Iterable[Problem],
    *,
    category: str | None = None,
    levels: Numbers | None = None,
    ids: Numbers | None = None,
    names: str | None = None,
    start_from: int | None = None,
    limit: int | None = None,
    skip_degenerate: bool = False,
) -> tuple[Problem, ...]:
    """Problems that meet every condition, sorted by level and id.

    `category` is one of `CATEGORIES`; `ids` are problem ids in every selected level; `names` are globs (several with commas),
    upper and lower case alike; `start_from` is the first id, and `limit` the number of problems, of each level;
    `skip_degenerate` leaves out those that are known to be met by a constant.
    Raises ConfigError when a level, id or name asked for does not exist, and when nothing is left.
    """
    everything = chosen = sorted(problems, key=_position)
    if limit is not None and limit < 1:
        raise ConfigError(f"problems.limit={limit}: at least 1, or null for all")
    if category is not None:
        chosen = list(filter(_category(category), chosen))
    if levels is not None:
        chosen = _any_of(chosen, _ranges(levels, "problems.levels", lambda p: p.level), "level")
    if ids is not None:
        chosen = _any_of(chosen, _ranges(ids, "problems.ids", lambda p: p.problem_id), "problem id")
    if names is not None:
        chosen = _any_of(chosen, _globs(names), "problem named")
    if start_from is not None:
        chosen = [p for p in chosen if p.problem_id >= start_from]
    if skip_degenerate:
        known = degenerate()
        chosen = [p for p in chosen if p.digest not in known]
    if not chosen:
        asked = {
            "category": category, "levels": levels, "ids": ids, "names": names, "start_from": start_from,
            "skip_degenerate": skip_degenerate or None,
        }  # fmt: skip
        selection = ", ".join(f"{name}={value}" for name, value in asked.items() if value is not None) or "everything"
        raise ConfigError(f"no problem is left by {selection}; there are {_summary(everything)}")
    return tuple(p for _, group in groupby(chosen, key=lambda p: p.level) for p in list(group)[:limit])


@cache
def degenerate() -> Mapping[str, str]:
    """Problems known to be degenerate: what they are called, by `Problem.digest`. (Each size profile is a problem of its own.)"""
    found: dict[str, str] = json.loads((resources.files("kernel_env.problems") / "degenerate.json").read_text())
    return found


def find(problems: Iterable[Problem], text: str) -> Problem:
    """The one problem meant by `level1_problem3`, `1/3`, `1:3`, a name, or a glob that fits one name.

    Raises ConfigError when there is none, or more than one.
    """
    everything = sorted(problems, key=_position)
    numbers = _LEVEL_AND_ID.fullmatch(text.strip())
    if numbers:
        found = [p for p in everything if _position(p) == (int(numbers[1]), int(numbers[2]))]
    else:
        found = [p for p in everything if _has_name(text.strip(), p)]
    if len(found) > 1:
        which = ", ".join(f"{p.level}/{p.problem_id} {p.name}" for p in found[:5]) + (", ..." if len(found) > 5 else "")
        raise ConfigError(f"{text!r} means {len(found)} problems: {which}; give level/id")
    if not found:
        hint = did_you_mean(text, [name for p in everything for name in (p.name, p.key)])
        raise ConfigError(f"no problem {text!r}; there are {_summary(everything)}{hint}")
    return found[0]


def did_you_mean(text: str, known: Iterable[str]) -> str:
    """`; did you mean a or b?` for the known words closest to `text`, or nothing: the end of a message."""
    words = {word.lower(): word for word in known}
    close = [words[match] for match in difflib.get_close_matches(text.lower(), words, n=3, cutoff=0.5)]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _category(name: str) -> Test:
    if name not in CATEGORIES:
        raise ConfigError(f"problems.category={name}: choose one of {', '.join(CATEGORIES)}{did_you_mean(name, CATEGORIES)}")
    return CATEGORIES[name]


def _position(problem: Problem) -> tuple[int, int]:
    return problem.level, problem.problem_id


def _any_of(problems: Sequence[Problem], tests: Mapping[str, Test], what: str) -> list[Problem]:
    """Problems that pass one of the tests. A test that none passes was a mistake: ConfigError."""
    for asked, test in tests.items():
        if not any(map(test, problems)):
            raise ConfigError(f"no {what} {asked}; there are {_summary(problems)}{did_you_mean(asked, [p.name for p in problems])}")
    return [p for p in problems if any(test(p) for test in tests.values())]


def _ranges(numbers: Numbers, option: str, number_of: Callable[[Problem], int]) -> dict[str, Test]:
    """One test for each number or range `10-20`. Raises ConfigError for what is neither."""
    parts = [numbers] if isinstance(numbers, int | str) else numbers
    tests: dict[str, Test] = {}
    for text in (piece.strip() for part in parts for piece in str(part).split(",")):
        match = _RANGE.fullmatch(text)
        if match is None:
            raise ConfigError(f"{option}: {text!r} is neither a number nor a range such as 10-20")
        span = range(int(match[1]), int(match[2] or match[1]) + 1)
        tests[text] = partial(lambda span, p: number_of(p) in span, span)
    return tests


def _globs(names: str) -> dict[str, Test]:
    return {glob.strip(): partial(_has_name, glob.strip()) for glob in names.split(",")}


def _has_name(glob: str, problem: Problem) -> bool:
    """Some names end in `_`, which nobody remembers to type."""
    name = problem.name.lower()
    return fnmatchcase(name, glob.lower()) or fnmatchcase(name.rstrip("_"), glob.lower())


def _summary(problems: Sequence[Problem]) -> str:
    """`level 1 (1-100), level 2 (1-40, 42)`."""
    levels = []
    for level, group in groupby(problems, key=lambda p: p.level):
        ids = [p.problem_id for p in group]
        runs = [list(run) for _, run in groupby(enumerate(ids), key=lambda pair: pair[1] - pair[0])]
        spans = [f"{run[0][1]}-{run[-1][1]}" if len(run) > 1 else str(run[0][1]) for run in runs]
        levels.append(f"level {level} ({', '.join(spans[:8])}{', ...' if len(spans) > 8 else ''})")
    return ", ".join(levels) or "none at all"

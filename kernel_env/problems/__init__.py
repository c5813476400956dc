"""Problems: where they come from (`sources`), which ones (`selection`), and how large (`sizing`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from kernel_env.errors import ConfigError
from kernel_env.problems.huggingface import read_huggingface
from kernel_env.problems.selection import Numbers, did_you_mean, find, select
from kernel_env.problems.sizing import Profile, Sizes, sized
from kernel_env.problems.sources import Source, read_bundled, read_jsonl, read_kernelbench
from kernel_env.schema import PRECISIONS, Problem

Choice = TypeVar("Choice", bound=StrEnum)

__all__ = ["Numbers", "Profile", "Sizes", "Source", "find", "load_problems", "select"]


def load_problems(
    source: str,
    path: str | Path | None = None,
    profile: str = "full",
    *,
    overrides: Mapping[str, Sizes] | None = None,
    skip_bad_lines: bool = False,
    precision: str | None = None,
) -> tuple[Problem, ...]:
    """All problems of a source at a size profile, sorted by level and id.

    `source` is a `Source`, `path` the checkout, file or data set it reads, `profile` a `Profile`. `overrides` sets constants of
    single problems after the profile: `{"level1_problem1": {"N": 64}}`. `skip_bad_lines` is for `jsonl`.
    `precision` is what floating-point inputs and weights are brought to (`PRECISIONS`).
    Raises ConfigError for an option that does not exist, DatasetError for a source that cannot be read or resized.
    """
    origin = _member(Source, source, "problems.source")
    chosen_profile = _member(Profile, profile, "problems.profile")
    problems = sorted(_read(origin, path, skip_bad_lines), key=lambda p: (p.level, p.problem_id))
    overrides = overrides or {}
    for key in overrides.keys() - {p.key for p in problems}:
        raise ConfigError(f"problems.overrides: no problem {key!r}{did_you_mean(key, (p.key for p in problems))}")
    if precision is not None and precision not in PRECISIONS:
        raise ConfigError(f"problems.precision={precision}: choose one of {', '.join(PRECISIONS)}")
    return tuple(replace(sized(p, chosen_profile, overrides.get(p.key)), precision=precision or "") for p in problems)


def _read(source: Source, path: str | Path | None, skip_bad_lines: bool) -> list[Problem]:
    if source is Source.BUNDLED:
        if path is not None:
            raise ConfigError(
                f"problems.path={path}: bundled problems have no path; did you mean problems=kernelbench or problems=jsonl?"
            )
        return read_bundled()
    if source is Source.HUGGINGFACE:
        return read_huggingface(path)
    if path is None:
        raise ConfigError(
            f"problems.path is missing: {source} needs the {'checkout' if source is Source.KERNELBENCH else 'file'} to read"
        )
    if source is Source.KERNELBENCH:
        return read_kernelbench(Path(path))
    return read_jsonl(Path(path), skip_bad_lines=skip_bad_lines)


def _member(kind: type[Choice], text: str, option: str) -> Choice:
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{option}={text}: not one of {', '.join(kind)}{did_you_mean(text, kind)}") from None

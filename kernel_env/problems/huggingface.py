"""KernelBench as Hugging Face has it: splits `level_1`, `level_2`, ..., columns `code`, `level`, `name`, `problem_id`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kernel_env.errors import ConfigError, DatasetError
from kernel_env.problems.sources import Source, check_source, number, text
from kernel_env.schema import Problem

DATASET = "ScalingIntelligence/KernelBench"
_SPLIT = re.compile(r"level_\d+")


def read_huggingface(path: str | Path | None) -> list[Problem]:
    """Problems of a data set: `NAME` or `NAME@REVISION` on the hub (default: KernelBench's own), or a local copy: a folder of its
    files, or one that `save_to_disk` wrote.

    Raises ConfigError without the package `datasets`, DatasetError where nothing can be loaded or a row is not a problem.
    """
    try:
        import datasets
    except ImportError:
        raise ConfigError(
            "problems=huggingface needs the Python package datasets: run `pip install 'kernel-env[datasets]'`"
        ) from None
    where = str(path or DATASET)
    if "/" not in where and not Path(where).exists():
        raise DatasetError(f"{where}: neither a local copy of a data set nor OWNER/NAME of one on the hub (problems.path)")
    try:
        if Path(where, "dataset_dict.json").exists():
            loaded = datasets.load_from_disk(where)
        else:
            name, _, revision = (where, "", "") if Path(where).exists() else where.partition("@")
            loaded = datasets.load_dataset(name, revision=revision or None)
    except Exception as error:  # of the hub, the network or the file system: each with classes of its own
        words = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DatasetError(
            f"{where}: cannot be loaded: {words}; problems.path is a data set's name or a local copy of one"
        ) from error
    problems = {problem.key: problem for problem in _problems(loaded, where)}
    if not problems:
        raise DatasetError(f"{where}: has no split level_1, level_2, ... with problems; it has {', '.join(loaded) or 'none'}")
    return list(problems.values())


def _problems(loaded: Any, where: str) -> Iterator[Problem]:
    seen = set()
    for split in loaded:
        if not _SPLIT.fullmatch(str(split)):
            continue
        for row, record in enumerate(loaded[split]):
            try:
                problem = _problem(record)
                if problem.key in seen:
                    raise ValueError(f"{problem.key} again")
            except ValueError as error:
                raise DatasetError(f"{where}, split {split}, row {row}: {error}") from None
            seen.add(problem.key)
            yield problem


def _problem(record: dict[str, Any]) -> Problem:
    """Raises ValueError saying what is wrong with it."""
    source, problem_id = text(record, "code"), number(record, "problem_id")
    check_source(source)
    name = text(record, "name").removesuffix(".py").removeprefix(f"{problem_id}_")
    return Problem(number(record, "level"), problem_id, name, source, origin=Source.HUGGINGFACE.value)

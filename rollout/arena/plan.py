"""Which runs are judged, against which, by whom, and where that is written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel_env.errors import ConfigError
from rollout.arena.comparing import judge_name
from rollout.arena.matches import match_file
from rollout.arena.pairing import name_of
from rollout.monitor import found
from rollout.settings import Settings
from rollout.store import RunReader, is_run, plain_name, run_directory

ARENA = "arena"
"""Below the root of the runs."""
_COMMENT = re.compile(r"(^|\s)#.*")
_NOT_IN_NAMES = re.compile(r"[^\w.=,+-]+")


@dataclass(frozen=True)
class Plan:
    settings: Settings
    directory: Path
    """Of the judgments: a file a model, and what jobs need and leave."""
    judge: str
    baseline: RunReader
    models: tuple[RunReader, ...]

    def make_directory(self) -> None:
        """Raises ConfigError."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make {self.directory}: {error.strerror}; choose another place") from error

    def file(self, model: RunReader) -> Path:
        return match_file(self.directory, name_of(model))


def make_plan(names: Sequence[str], settings: Settings, *, every: bool) -> Plan:
    """Of runs that are named, listed in a file, or all that there are. Raises ConfigError."""
    arena, root = settings.arena, Path(settings.run.root)
    if not arena.baseline:
        raise ConfigError("arena.baseline is missing: set it to the run that the others are judged against")
    if [bool(names), arena.models is not None, every].count(True) != 1:
        raise ConfigError("which runs? Name them, or set arena.models=FILE, or give --all")
    judge, baseline = judge_name(settings), find_run(arena.baseline, root)
    if every:
        models = list(_all_like(baseline, root))
    else:
        models = [find_run(name, root) for name in names or listed(Path(arena.models or ""))]
    _refuse_doubtful(models, baseline)
    directory = root / ARENA / plain_name(arena.name or _NOT_IN_NAMES.sub("-", judge).strip("-."))
    return Plan(settings, directory, judge, baseline, tuple(models))


def find_run(name: str, root: Path) -> RunReader:
    """By its name below the root, its path, or its name below `runs/`. Raises ConfigError."""
    return RunReader(root / name if is_run(root / name) else run_directory(name))


def listed(file: Path) -> list[str]:
    """Raises ConfigError for a file that cannot be read, or that names nobody."""
    try:
        lines = [_COMMENT.sub("", line).strip() for line in file.read_text().splitlines()]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"arena.models={file} cannot be read: {error}") from error
    names = [line for line in lines if line]
    if not names:
        raise ConfigError(f"arena.models={file} names no run")
    return names


def _all_like(baseline: RunReader, root: Path) -> Iterator[RunReader]:
    """The runs that were asked for what the baseline was, with the same problems and back end."""
    posed, backend = baseline.load_problems(), baseline.settings.get("backend.name")
    for path in found(root):
        if not is_run(path) or path.samefile(baseline.path):
            continue
        run = RunReader(path)
        alike = set(run.info.asked) >= set(baseline.info.asked) and run.settings.get("backend.name") == backend
        if alike and all(posed[key].digest == problem.digest for key, problem in run.load_problems().items() if key in posed):
            yield run


def _refuse_doubtful(models: Sequence[RunReader], baseline: RunReader) -> None:
    if not models:
        raise ConfigError(f"no run is like {name_of(baseline)}: name those that are to be judged")
    paths = dict[str, Path]()
    for run in models:
        name = name_of(run)
        if run.path.samefile(baseline.path):
            raise ConfigError(f"{name} is the baseline: it cannot be judged against itself")
        if name in paths:
            raise ConfigError(f"{run.path} and {paths[name]} have one name, so one file of judgments: judge them one at a time")
        paths[name] = run.path

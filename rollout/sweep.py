"""`kernel-env eval --multirun`: many runs from one command, each in a directory of its own, on this machine or as jobs of SLURM.

Hydra says what the values of an option are, and nothing more: its launchers take a cell that failed for one that went well. Here
a cell is a command of its own, `kernel-env eval ... run.root=SWEEP run.name=CELL`, with that command's exit code. One that fails
stops no other, and the sweep's exit code is the worst of all.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from rich.markup import escape
from stamina.instrumentation import set_on_retry_hooks

from kernel_env.errors import ConfigError, KernelEnvError
from kernel_env.verifier import Verifier
from rollout import compose, preview, slurm
from rollout.cells import cell_key, cell_name, is_complete, opened_sweep, read_sweep
from rollout.display import Display, RunView
from rollout.documents import CellInfo
from rollout.health import exit_code, reason
from rollout.monitor import Monitor, show
from rollout.runner import make_verifier, run
from rollout.settings import IGNORED_ON_RESUME, SECRETS, Settings, VerifierSettings
from rollout.stopping import run_stoppable
from rollout.store import is_below, plain_name

NAME = "sweep"
"""Directory of a sweep that is not given another name."""
OF_THE_SWEEP = ("run.name", "run.root", "sweep", "models", "exclude", "dry_run", "validate")
"""Options that no cell has."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cell:
    info: CellInfo
    overrides: tuple[str, ...]
    """Of the command that this cell is."""
    settings: Settings
    text: str
    """Its configuration."""

    @property
    def path(self) -> Path:
        return Path(self.settings.run.root) / self.info.name


@dataclass(frozen=True)
class Sweep:
    directory: Path
    cells: tuple[Cell, ...]
    settings: Settings
    """Those of its first cell, for what all have in common."""


def sweep(overrides: Sequence[str]) -> int:
    """The whole command. Returns the exit code, which is the worst of all cells'. Raises ConfigError before anything runs."""
    planned = plan_sweep(overrides)
    runs = [cell.settings for cell in planned.cells]
    if planned.settings.dry_run:
        return asyncio.run(preview.dry_run(runs))
    if planned.settings.validate:
        return asyncio.run(preview.validate(runs))
    with opened_sweep(planned.directory, [cell.info for cell in planned.cells]):
        return _submit(planned) if planned.settings.sweep.launcher == "slurm" else _play(planned)


# ------------------------------------------------------------------ cells


def plan_sweep(overrides: Sequence[str]) -> Sweep:
    """All cells, in Hydra's order. Raises ConfigError."""
    found = compose.combinations(overrides)
    common = found[0].settings
    directory = Path(common.run.root) / plain_name(common.run.name or NAME)
    if common.models is not None:
        found = compose.combinations(overrides, listed_models(Path(common.models), common.exclude))
    swept = [name for name in found[0].chosen if is_below(name, (*OF_THE_SWEEP, *SECRETS))]
    if swept:
        raise ConfigError(f"{swept[0]} is the whole sweep's: give it one value")
    names = {cell.key: cell.name for cell in read_sweep(directory).cells}
    cells: dict[str, Cell] = {}
    for one in found:
        key = cell_key(one.tree, one.chosen, IGNORED_ON_RESUME)
        info = CellInfo(key, names.get(key) or cell_name(key, one.chosen), one.chosen)
        if key in cells:
            twice = " and ".join(f"({_words(chosen)})" for chosen in (cells[key].info.chosen, one.chosen))
            raise ConfigError(f"{twice} are the same run: nothing differs that can change a result")
        cells[key] = _cell(info, one, str(directory))
    return Sweep(directory, tuple(cells.values()), common)


def _cell(info: CellInfo, one: compose.Combination, root: str) -> Cell:
    overrides = [o for o in one.overrides if not is_below(o.lstrip("+~").partition("=")[0], OF_THE_SWEEP)]
    overrides += [f"run.root={compose.quoted(root)}", f"run.name={compose.quoted(info.name)}"]
    settings = replace(one.settings, run=replace(one.settings.run, root=root, name=info.name))
    text = compose.text_of({**one.tree, "run": {**one.tree["run"], "root": root, "name": info.name}})
    return Cell(info, tuple(overrides), settings, text)


def listed_models(file: Path, exclude: object) -> list[tuple[str, ...]]:
    """Overrides for each model of a file, the first of them its name. Raises ConfigError."""
    try:
        lines = [shlex.split(line, comments=True) for line in file.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise ConfigError(f"models={file} cannot be read ({error})") from error
    globs = exclude if isinstance(exclude, list) else [exclude] if exclude else []
    named = [words for words in lines if words]
    for glob in globs:
        if not any(fnmatchcase(words[0], str(glob)) for words in named):
            raise ConfigError(f"exclude={glob} excludes no model of {file}")
    chosen = [words for words in named if not any(fnmatchcase(words[0], str(glob)) for glob in globs)]
    if not chosen:
        raise ConfigError(f"models={file}: no model is left")
    return [(f"policy.model={compose.quoted(name)}", *options) for name, *options in chosen]


def _words(chosen: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in chosen.items())


# ------------------------------------------------------------------ on this machine


def _play(planned: Sweep) -> int:
    """Each cell, `sweep.jobs` at a time."""
    with Display(planned.settings.display) as display:
        set_on_retry_hooks([display.retry])
        codes = run_stoppable(_play_all(planned, display))
    return _concluded(planned, codes, display)


async def _play_all(planned: Sweep, display: Display) -> dict[str, int]:
    """Exit codes by cell."""
    room, codes = asyncio.Semaphore(planned.settings.sweep.jobs), dict[str, int]()
    async with AsyncExitStack() as stack:
        verifiers: dict[VerifierSettings, Verifier] = {}
        for settings in {cell.settings.verifier for cell in planned.cells}:
            verifiers[settings] = make_verifier(settings)  # its processes start when they are needed
            stack.push_async_callback(verifiers[settings].aclose)

        async def play(number: int, cell: Cell) -> None:
            async with room:
                view = display.view(f"{number}/{len(planned.cells)}")
                codes[cell.info.name] = await _play_cell(cell, verifiers[cell.settings.verifier], view)

        async with asyncio.TaskGroup() as tasks:
            for number, cell in enumerate(planned.cells, 1):
                tasks.create_task(play(number, cell))
    return codes


async def _play_cell(cell: Cell, verifier: Verifier, view: RunView) -> int:
    """Its exit code. Whatever goes wrong in it, the others go on."""
    try:
        if is_complete(cell.path):
            view.say(f"complete: {escape(cell.info.name)}")
            return 0
        slurm.forget(cell.path)
        result = await run(
            cell.settings,
            cell.text,
            verifier=verifier,
            on_plan=view.plan,
            on_event=view.event,
            on_stages=view.stages,
        )
        view.close(result, table=False)
        result.check()
        return 0
    except Exception as error:  # noqa: BLE001 - boundary: a fault in one cell, also of ours, is that cell's
        if not isinstance(error, KernelEnvError):
            _log.exception("%s ended by a fault of this program", cell.info.name)
        view.fail(f"{cell.info.name}: {reason(error)}")
        return exit_code(error)


def _concluded(planned: Sweep, codes: Mapping[str, int], display: Display) -> int:
    """How all cells stand and, in the last line, which ones failed."""
    rows = [row for row in Monitor(planned.directory).rows() if row.name in codes]
    show(rows, display.console)
    failed = [f"{cell.path} (exit code {code})" for cell in planned.cells if (code := codes[cell.info.name])]
    if failed:
        print(f"kernel-env eval: {len(failed)} of {len(codes)} runs failed: {', '.join(failed)}", file=sys.stderr)
    return max(codes.values())


# ------------------------------------------------------------------ as jobs


def _submit(planned: Sweep) -> int:
    """A job for each cell that is neither complete nor has one that is queued or runs."""
    secrets = [o for cell in planned.cells for o in cell.overrides if is_below(o.partition("=")[0], SECRETS)]
    if secrets:
        name = secrets[0].partition("=")[0]
        raise ConfigError(f"{name} would be written into the jobs: set OPENAI_API_KEY instead, which they inherit")
    numbers = {cell.info.name: slurm.job_number(cell.path) for cell in planned.cells}
    words = slurm.words([number for number in numbers.values() if number is not None])
    jobs, master = [], planned.directory / "submit.sh"
    for cell in planned.cells:
        number = numbers[cell.info.name]
        word = "" if number is None else words.get(number, "")
        if is_complete(cell.path):
            print(f"complete: {cell.info.name}")
        elif word in (*slurm.QUEUED, *slurm.RUNNING, slurm.UNKNOWN):
            print(f"job {number} is {word}: {cell.info.name}")
        else:
            command = (sys.executable, "-m", "kernel_env", "eval", *cell.overrides)
            jobs.append(slurm.Job(f"{planned.directory.name}/{cell.info.name}", command, cell.path))
    slurm.write_jobs(jobs, master, planned.settings.slurm)
    if not planned.settings.slurm.submit:
        print(f"{len(jobs)} jobs are written; `sh {master}` submits them")
    elif jobs:
        slurm.submit(master)
        for job in jobs:
            print(f"submitted as job {slurm.job_number(job.directory)}: {job.directory.name}")
    print(f"`kernel-env monitor {planned.directory}` shows how they stand")
    return 0

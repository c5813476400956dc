"""`kernel-env eval --multirun`: many runs from one command, each in a directory of its own, on this machine or as jobs of SLURM.

Hydra says what the values of an option are, and nothing more: its launchers take a cell that failed for one that went well. Here
a cell is a command of its own, `kernel-env eval ... run.root=SWEEP run.name=CELL`, with that command's exit code. One that fails
stops no other, and the sweep's exit code is the worst of all.
"""

from __future__ import annotations

import asyncio
import logging
import operator
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from rich.markup import escape
from stamina.instrumentation import set_on_retry_hooks

from kernel_env.errors import ConfigError, InfraError, KernelEnvError
from kernel_env.schema import Problem
from kernel_env.verifier import Verifier
from rollout import compose, preview, slurm
from rollout.cells import cell_key, cell_name, is_complete, opened_sweep, read_sweep
from rollout.display import Display, RunView
from rollout.documents import CellInfo
from rollout.fingerprint import Change
from rollout.health import exit_code, reason
from rollout.monitor import Monitor, show
from rollout.runner import Plan, chosen_problems, make_verifier, run
from rollout.settings import IGNORED_ON_RESUME, SECRETS, Settings, VerifierSettings
from rollout.stopping import run_stoppable
from rollout.store import RunReader, is_below, plain_name

NAME = "sweep"
"""Directory of a sweep that is not given another name."""
OF_THE_SWEEP = ("run.name", "run.root", "sweep", "slurm.submit", "models", "exclude", "dry_run", "validate")
"""Options that no cell has."""
_FROM_ENVIRONMENT = {"policy.api_key": "OPENAI_API_KEY", "sources.judge.api_key": "JUDGE_MODEL_API_KEY"}
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
    overrides = [o for o in one.overrides if not is_below(compose.option_name(o), OF_THE_SWEEP)]
    overrides += [f"run.root={compose.quoted(root)}", f"run.name={compose.quoted(info.name)}"]
    settings = replace(one.settings, run=replace(one.settings.run, root=root, name=info.name))
    text = compose.text_of({**one.tree, "run": {**one.tree["run"], "root": root, "name": info.name}})
    return Cell(info, tuple(overrides), settings, text)


def listed_models(file: Path, exclude: object) -> list[tuple[str, ...]]:
    """Overrides for each model of a file, the first of them its name. Raises ConfigError."""
    try:
        lines = [shlex.split(line, comments=True) for line in file.read_text().splitlines()]
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"models={file} cannot be read: {why}") from error
    globs = exclude if isinstance(exclude, list) else [exclude] if exclude else []
    named = [words for words in lines if words]
    for glob in globs:
        if not any(fnmatchcase(words[0], str(glob)) for words in named):
            raise ConfigError(f"exclude={glob} excludes no model of {file}")
    chosen = [words for words in named if not any(fnmatchcase(words[0], str(glob)) for glob in globs)]
    if not chosen:
        raise ConfigError(f"models={file}: no model is left")
    for option in (option for _, *options in chosen for option in options):
        if is_below(name := compose.option_name(option), OF_THE_SWEEP):
            raise ConfigError(f"models={file}: {name} is the whole sweep's: set it on the command line")
    return [(f"policy.model={compose.quoted(name)}", *options) for name, *options in chosen]


def complete_cells(cells: Iterable[Cell]) -> set[str]:
    """Names of those with nothing left to do. One whose problems are others by now is not left alone: played again, it says so."""
    loaded: dict[str, dict[str, Problem]] = {}
    complete = set()
    for cell in cells:
        with suppress(KernelEnvError):  # whoever plays it is told
            if not is_complete(cell.path):
                continue
            choice = f"{cell.settings.backend.name} {cell.settings.problems}"
            if choice not in loaded:
                loaded[choice] = {problem.key: problem for problem in chosen_problems(cell.settings)}
            if RunReader(cell.path).load_problems() == loaded[choice]:
                complete.add(cell.info.name)
    return complete


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
    complete = complete_cells(planned.cells)
    async with AsyncExitStack() as stack:
        verifiers: dict[VerifierSettings, Verifier] = {}
        for settings in {cell.settings.verifier for cell in planned.cells}:
            verifiers[settings] = make_verifier(settings)  # its processes start when they are needed
            stack.push_async_callback(verifiers[settings].aclose)

        async def play(number: int, cell: Cell) -> None:
            async with room:
                view = display.view(f"{number}/{len(planned.cells)}")
                if cell.info.name in complete:
                    view.say(f"complete: {escape(cell.info.name)}")
                    codes[cell.info.name] = 0
                    return
                codes[cell.info.name] = await _play_cell(cell, verifiers[cell.settings.verifier], view)

        async with asyncio.TaskGroup() as tasks:
            for number, cell in enumerate(planned.cells, 1):
                tasks.create_task(play(number, cell))
    return codes


async def _play_cell(cell: Cell, verifier: Verifier, view: RunView) -> int:
    """Its exit code. Whatever goes wrong in it, the others go on."""

    def begun(plan: Plan, path: Path, changed: tuple[Change, ...]) -> None:
        slurm.forget(path)  # not before the run is ours: a job may be at it
        view.plan(plan, path, changed)

    try:
        result = await run(
            cell.settings,
            cell.text,
            verifier=verifier,
            on_plan=begun,
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


def refuse_secrets(runs: Iterable[Settings]) -> None:
    """Raises ConfigError for a key on the command line, which would be one of the job's."""
    given = {name for settings in runs for name in SECRETS if operator.attrgetter(name)(settings)}
    if given:
        instead = " or ".join(_FROM_ENVIRONMENT[name] for name in sorted(given))
        raise ConfigError(
            f"{' and '.join(sorted(given))} would be written into the jobs: set {instead} instead, which they inherit"
        )


def command_of(*arguments: str) -> tuple[str, ...]:
    """This very program, as a job starts it. `-P`: a directory `conf` where the job runs is not ours."""
    return (sys.executable, "-P", "-m", "kernel_env", *arguments)


def _submit(planned: Sweep) -> int:
    """A job for each cell that is neither complete nor has one that is queued or runs."""
    refuse_secrets(cell.settings for cell in planned.cells)
    complete = complete_cells(planned.cells)
    numbers = {cell.info.name: slurm.job_number(cell.path) for cell in planned.cells if cell.info.name not in complete}
    words = slurm.words([number for number in numbers.values() if number is not None])
    if slurm.UNKNOWN in words.values():
        raise InfraError("the scheduler does not answer, so it is not known which jobs are queued: run the same command again")
    jobs, master = [], planned.directory / "submit.sh"
    for cell in planned.cells:
        number = numbers.get(cell.info.name)
        word = "" if number is None else words.get(number, "")
        if cell.info.name in complete:
            print(f"complete: {cell.info.name}")
        elif word in (*slurm.QUEUED, *slurm.RUNNING):
            print(f"job {number} is {word}: {cell.info.name}")
        else:
            command = command_of("eval", *cell.overrides)
            jobs.append(slurm.Job(f"{planned.directory.name}/{cell.info.name}", command, cell.path, cell.settings.slurm))
    slurm.write_jobs(jobs, master)
    if not planned.settings.slurm.submit:
        print(f"{len(jobs)} {'job is' if len(jobs) == 1 else 'jobs are'} written; `sh {master}` submits them")
    elif jobs:
        slurm.submit(master)
        for job in jobs:
            print(f"submitted as job {slurm.job_number(job.directory)}: {job.directory.name}")
    print(f"`kernel-env monitor {planned.directory}` shows how they stand")
    return 0

"""Models in batches, each a job of SLURM that plays them here and now: `kernel-env arena run ... arena.models=BATCH`.

arena/<judge>/
  generated_judgment_configs/batch_1.txt      the batch's models, as `arena.models` reads them
  generated_judgment_scripts/batch_1.sh       its job, with `batch_1_id` once it is submitted
  generated_judgment_scripts/submit.sh        submits those that were written last
  logs/batch_1_NUMBER.log
  <model>.jsonl
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel_env.errors import InfraError
from rollout import compose, slurm
from rollout.arena.pairing import name_of
from rollout.arena.plan import Plan, listed
from rollout.durable import DirectoryLock, write_file
from rollout.store import RunReader, is_below
from rollout.sweep import command_of, refuse_secrets

SCRIPTS, CONFIGS, LOGS = "generated_judgment_scripts", "generated_judgment_configs", "logs"
_OF_THE_COMMAND = ("arena.models", "slurm.submit")
_BATCH = re.compile(r"batch_(\d+)")


@dataclass(frozen=True)
class Batch:
    number: int
    models: tuple[str, ...]
    """Names."""
    job: int | None
    """None: it was never submitted."""


def batch_name(number: int) -> str:
    return f"batch_{number}"


def read_batches(directory: Path) -> list[Batch]:
    """Those that were ever written, the oldest first. A model that was submitted twice is in two."""
    found = []
    for path in (directory / CONFIGS).glob("batch_*.txt"):
        match = _BATCH.fullmatch(path.stem)
        if match:
            names = tuple(Path(line).resolve().name for line in listed(path))
            found.append(Batch(int(match[1]), names, slurm.job_number(directory, _script(int(match[1])))))
    return sorted(found, key=lambda batch: batch.number)


def words(batches: Collection[Batch]) -> dict[int, str]:
    """The scheduler's, on their jobs."""
    return slurm.words({batch.job for batch in batches if batch.job is not None})


def submit(plan: Plan, overrides: Sequence[str], complete: Collection[str], *, send: bool) -> int:
    """Writes a job for every `arena.batch` models that are neither complete nor in a job that is queued or runs, and submits them
    where `send` says so. Raises ConfigError, InfraError."""
    refuse_secrets([plan.settings])
    plan.make_directory()
    with DirectoryLock(plan.directory):
        batches = read_batches(plan.directory)
        known = words(batches)
        if slurm.UNKNOWN in known.values():
            raise InfraError("the scheduler does not answer, so it is not known which jobs are queued: run the same command again")
        busy = {model: batch for batch in batches if _goes_on(batch, known) for model in batch.models}
        left = list(_left(plan.models, complete, busy))
        _drop_unsubmitted(plan.directory, batches)
        first = max((batch.number for batch in batches if batch.job is not None), default=0) + 1
        size = plan.settings.arena.batch
        chunks = [left[start : start + size] for start in range(0, len(left), size)]
        jobs = [_job(plan, overrides, number, models) for number, models in enumerate(chunks, first)]
        (plan.directory / SCRIPTS).mkdir(exist_ok=True)
        master = plan.directory / SCRIPTS / "submit.sh"
        slurm.write_jobs(jobs, master)
        if not send:
            print(f"{len(jobs)} {'job is' if len(jobs) == 1 else 'jobs are'} written; `sh {master}` submits them")
        elif jobs:
            slurm.submit(master)
            for job in jobs:
                print(f"submitted as job {slurm.job_number(plan.directory, job.script)}: {Path(job.script).stem}")
    return 0


def _goes_on(batch: Batch, known: Mapping[int, str]) -> bool:
    return batch.job is not None and known.get(batch.job) in (*slurm.QUEUED, *slurm.RUNNING)


def _left(models: Sequence[RunReader], complete: Collection[str], busy: Mapping[str, Batch]) -> Iterator[RunReader]:
    for model in models:
        name = name_of(model)
        if name in busy:
            print(f"in job {busy[name].job}: {name}")
        elif name in complete:
            print(f"complete: {name}")
        else:
            yield model


def _drop_unsubmitted(directory: Path, batches: Collection[Batch]) -> None:
    for batch in batches:
        if batch.job is None:
            (directory / _script(batch.number)).unlink(missing_ok=True)
            (directory / _config(batch.number)).unlink()


def _job(plan: Plan, overrides: Sequence[str], number: int, models: Sequence[RunReader]) -> slurm.Job:
    config, name = plan.directory / _config(number), batch_name(number)
    config.parent.mkdir(exist_ok=True)
    write_file(config, "".join(f"{model.path}\n" for model in models).encode(errors="surrogateescape"))
    print(f"{name}: {', '.join(map(name_of, models))}")
    own = [override for override in overrides if not is_below(compose.option_name(override), _OF_THE_COMMAND)]
    command = command_of("arena", "run", *own, f"arena.models={compose.quoted(str(config))}")
    return slurm.Job(
        f"arena/{plan.directory.name}/{name}",
        command,
        plan.directory,
        plan.settings.slurm,
        _script(number),
        f"{LOGS}/{name}_%j.log",
    )


def _script(number: int) -> str:
    return f"{SCRIPTS}/{batch_name(number)}.sh"


def _config(number: int) -> str:
    return f"{CONFIGS}/{batch_name(number)}.txt"

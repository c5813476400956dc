"""SLURM: commands as jobs, a script that submits them all, and what the scheduler says of them. It knows nothing of the commands.

A job's script ends in `exec COMMAND`: the command's exit code is the job's, and SLURM's signals are for the command. Told to stop
by SIGTERM (cancelled, pre-empted) or SIGUSR1 (its time is nearly up) it is to end in order; see `rollout.stopping`. Of two jobs of
one name SLURM runs one at a time, so submitting a job twice does no harm to what it writes.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel_env.errors import ConfigError, InfraError
from rollout.settings import SlurmSettings

FOLDER = "slurm"
"""In a directory that has a job of its own: `job.sh`, `job_id` once it is submitted, and a log `NUMBER.log`."""
SCRIPT, LOG = f"{FOLDER}/job.sh", f"{FOLDER}/%j.log"
UNKNOWN = "UNKNOWN"
"""The scheduler did not answer."""
QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
_ANSWER_S = 30.0


@dataclass(frozen=True)
class Job:
    name: str
    """No other job of this user has it."""
    command: tuple[str, ...]
    directory: Path
    """It is there already."""
    settings: SlurmSettings
    """What it asks for."""
    script: str = SCRIPT
    """Below the directory, and no other job's. Its number is kept beside it: of `job.sh` in `job_id`."""
    log: str = LOG
    """Likewise. `%j` stands for the number."""


def write_jobs(jobs: Sequence[Job], master: Path) -> None:
    """Each job's script, and `master`, which submits them all and notes their numbers."""
    for job in jobs:
        for file in (job.script, job.log):
            (job.directory / file).parent.mkdir(exist_ok=True)
        (job.directory / job.script).write_text(job_script(job))
    lines = [
        "#!/bin/sh",
        "failed=0",
        "submit() {",
        '  if number=$(sbatch --parsable "$1"); then echo "${number%%;*}" > "${1%.sh}_id"',
        '  else echo "not submitted: $1" >&2; failed=1; fi',
        "}",
        *(f"submit {shlex.quote(str(job.directory.absolute() / job.script))}" for job in jobs),
        "exit $failed",
    ]
    master.write_text("".join(f"{line}\n" for line in lines))
    master.chmod(0o755)


def job_script(job: Job) -> str:
    """It runs where it is submitted from: paths on its command line may be relative. Raises ConfigError."""
    settings = job.settings
    options = {
        "job-name": job.name,
        "chdir": Path.cwd(),
        "output": f"{job.directory.absolute()}".replace("%", "%%") + f"/{job.log}",
        "open-mode": "append",
        "dependency": "singleton",
        "partition": settings.partition,
        "time": settings.time,
        "mem": settings.mem,
        "cpus-per-task": settings.cpus_per_task,
        "gres": settings.gres,
        "signal": f"B:USR1@{settings.warning_s}" if settings.warning_s else None,
    }
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH --{name}={_value(value)}" for name, value in options.items() if value is not None),
        "#SBATCH --requeue",
        *(f"#SBATCH {option}" for option in settings.options),
        "",
        "trap '' USR1  # the command is not there yet to hear it",
        *(
            ["{", settings.setup, f"}} || {{ echo 'slurm.setup failed' >&2; exit {InfraError.exit_code}; }}"]
            if settings.setup
            else []
        ),
        f"exec {shlex.join(job.command)}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _value(value: object) -> str:
    """As `sbatch` reads it: in quotes, where only a quote and a backslash mean something. A comment begins with `#` elsewhere."""
    text = str(value)
    if "\n" in text:
        raise ConfigError(f"{text!r} has a line break, which SLURM cannot be told: choose another name or place")
    return re.sub(r'(["\\])', r"\\\1", text).join('""') if re.search(r"""[\s"'#\\]""", text) else text


def submit(master: Path) -> None:
    """Raises ConfigError where there is no SLURM, and InfraError where it took not all of them."""
    if shutil.which("sbatch") is None:
        raise ConfigError(f"there is no command `sbatch` here: run `sh {master}` where there is one, or do without jobs")
    if subprocess.run(["sh", str(master)], check=False).returncode:
        raise InfraError("SLURM did not take every job: mend what it says above, and run the same command again")


def job_number(directory: Path, script: str = SCRIPT) -> int | None:
    """Of the job that was last submitted for a directory, or for a script of its own."""
    path = _number_file(directory / script)
    text = path.read_text().strip() if path.is_file() else ""
    return int(text) if text.isdigit() else None


def forget(directory: Path) -> None:
    """A job that a directory once had: what is in it comes from elsewhere now."""
    _number_file(directory / SCRIPT).unlink(missing_ok=True)


def _number_file(script: Path) -> Path:
    return script.with_name(f"{script.stem}_id")


def words(numbers: Collection[int]) -> dict[int, str]:
    """The scheduler's word on each job, such as `RUNNING` or `TIMEOUT`. What it has forgotten is not there.

    Jobs that ended long ago are known to accounting only, which not every cluster has.
    """
    if not numbers:
        return {}
    listed = ",".join(map(str, sorted(numbers)))
    queue = _rows("squeue", "--noheader", "--states=all", "--format=%A|%T", f"--jobs={listed}")
    if queue is None:
        return dict.fromkeys(numbers, UNKNOWN)
    ended = [str(number) for number in numbers if number not in queue]
    account = _rows("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobIDRaw,State", f"--jobs={','.join(ended)}")
    return {**(account or {}), **queue} if ended else queue


def _rows(*command: str) -> dict[int, str] | None:
    """Lines `NUMBER|WORD`; None where there was no answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    rows = [line.split("|") for line in done.stdout.splitlines()]
    return {int(number): word.split()[0] for number, word in rows if number.isdigit()}  # `CANCELLED by 0`


def queue_again(settings: SlurmSettings) -> None:
    """Have the scheduler run the job that this process is in once more, as its time is up. Does nothing outside of a job."""
    number, times = os.environ.get("SLURM_JOB_ID"), int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    if number is not None and times < settings.requeues:
        print(f"queueing job {number} again, for the {times + 1}. time", flush=True)
        try:
            subprocess.run(["scontrol", "requeue", number], check=False)
        except OSError as error:
            print(f"it is not: scontrol cannot be run ({error.strerror})", flush=True)

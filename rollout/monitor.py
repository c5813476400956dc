"""`kernel-env monitor`: how runs stand, what needs a look first. It believes a run that says itself that it is well only if its
counts agree and the scheduler does not deny it.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from kernel_env.errors import ConfigError
from kernel_env.schema import Status, StopReason
from rollout import slurm
from rollout.cells import read_sweep
from rollout.documents import SWEEP_FILE, RunInfo
from rollout.durable import LOCK_NAME, lock_holder
from rollout.health import Health, RunStatus, read_status
from rollout.markdown import duration_text
from rollout.store import read_document

WINDOW_S = 900.0
"""The rate is that of so long before now."""
STUCK_S = 1800.0
EVERY_S = 5.0
PLAIN_WIDTH = 160
"""Columns where there is no terminal to fit into."""
_NONE = "–"

T = TypeVar("T")


class Standing(StrEnum):
    """How something stands. What is in capitals needs a look."""

    @property
    def wrong(self) -> bool:
        return self.isupper()

    @property
    def colour(self) -> str:
        return "red" if self.wrong else {"running": "cyan", "waiting": "dim"}.get(self, "green")


class State(Standing):
    """In the order in which they are shown."""

    FAILED = "FAILED"
    SUSPECT = "SUSPECT"
    STUCK = "STUCK"
    """It runs, and nothing has come of it for long."""
    STOPPED = "STOPPED"
    """It has not ended, and nobody is at it."""
    RUNNING = "running"
    WAITING = "waiting"
    OK = "ok"


@dataclass(frozen=True)
class Counts:
    answers: int = 0
    """Replies that were judged."""
    verdicts: int = 0
    """Those of them that this machine could score."""
    correct: int = 0
    """Episodes with a correct one."""
    infra_errors: int = 0
    no_reply: int = 0
    """Episodes that ended so."""


@dataclass(frozen=True)
class Facts:
    """What is found of one run."""

    asked: int | None = None
    """Episodes; None before it has begun."""
    ended: int = 0
    counts: Counts = Counts()
    recent: int = 0
    """Episodes that ended within `WINDOW_S`, ..."""
    recent_s: float = WINDOW_S
    """... or since the first turn, where that is less."""
    quiet_s: float = 0.0
    """Since something came of it."""
    status: RunStatus | None = None
    process: int | None = None
    """That writes it, on this machine."""
    word: str | None = None
    """The scheduler's, of its job."""
    awaited: bool = False
    """A sweep is running that has not come to it."""

    @property
    def per_minute(self) -> float:
        return 60 * self.recent / self.recent_s

    @property
    def left_s(self) -> float | None:
        left = (self.asked or 0) - self.ended
        return left / self.per_minute * 60 if self.recent and left > 0 else None


def judged(facts: Facts, stuck_s: float) -> tuple[State, str]:
    """How it stands, and why."""
    word, status = facts.word, facts.status
    if facts.process is not None or word in slurm.RUNNING:
        if facts.quiet_s > stuck_s:
            return State.STUCK, f"nothing has come of it for {duration_text(facts.quiet_s)}"
        return State.RUNNING, "" if facts.asked is not None else "starting"
    if word in slurm.QUEUED:
        return State.WAITING, "queued"
    if word == slurm.UNKNOWN and (status is None or status.health is Health.OK):
        return State.STUCK, "the scheduler does not answer"
    if status is None:
        if facts.asked is None and facts.awaited:
            return State.WAITING, ""
        known = f"the scheduler says {word}" if word else "nobody is at it"
        return State.STOPPED, f"{known}, and it has not {'begun' if facts.asked is None else 'ended'}: the same command resumes"
    if status.health is not Health.OK:
        return State.FAILED if status.health is Health.FAILED else State.SUSPECT, status.reason
    if not (status.asked == facts.asked == facts.ended and status.adds_up and status.scored):
        told = f"status.json says ok of {status.scored} of {status.asked} episodes"
        return State.SUSPECT, f"{told}, but {facts.ended} of {facts.asked} have ended"
    if word not in (None, "COMPLETED"):
        return State.FAILED, f"status.json says ok, the scheduler {word}"
    return State.OK, ""


# ------------------------------------------------------------------ looking


class Watched:
    """One run's directory, looked at again and again. As long as it has not ended, each of its files is read once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._statuses: dict[str, str] = {}
        """Of the verdict of each turn, by file name."""
        self._ends: dict[tuple[str, int], str] = {}
        """Why each episode ended, by file name and time: one that failed may be taken back, and end anew."""

    def look(self, words: Mapping[int, str]) -> Facts:
        """`words` are the scheduler's on jobs. Raises ConfigError for a file that is damaged."""
        now, job = time.time(), slurm.job_number(self.path)
        process = lock_holder(self.path)  # before its status: it ends after writing that
        status = read_status(self.path)
        run, ends = self.path / "run.json", list(self.path.glob("episodes/*.json"))
        began = min(map(_changed, self.path.glob("turns/*_turn0.json")), default=now)
        latest = max(_changed(self.path / name) for name in (".", LOCK_NAME, "turns", "episodes", slurm.FOLDER))
        return Facts(
            asked=len(read_document(run, RunInfo).asked) if run.is_file() else None,
            ended=len(ends),
            counts=self._counted(ends) if status is None or process is not None else _told(status),
            recent=sum(now - _changed(end) < WINDOW_S for end in ends),
            recent_s=min(WINDOW_S, max(now - began, 1.0)),
            quiet_s=now - latest,
            status=status,
            process=process,
            word=words.get(job) if job is not None else None,
            awaited=lock_holder(self.path.parent) is not None,
        )

    def _counted(self, ends: Sequence[Path]) -> Counts:
        for file in self.path.glob("turns/*.json"):
            if file.name not in self._statuses:
                with suppress(FileNotFoundError):  # somebody deletes it to have it done again
                    self._statuses[file.name] = json.loads(file.read_bytes())["record"]["verdict"]["status"]
        there = {}
        for file in ends:
            with suppress(FileNotFoundError):  # its failure was taken back meanwhile
                key = (file.name, file.stat().st_mtime_ns)
                there[key] = self._ends.get(key) or json.loads(file.read_bytes())["stop_reason"]
        self._ends = there
        reasons = Counter(there.values())
        return Counts(
            answers=len(self._statuses),
            verdicts=sum(status != Status.NEEDS_DEVICE for status in self._statuses.values()),
            correct=len({name.rpartition("_")[0] for name, status in self._statuses.items() if status == Status.CORRECT}),
            infra_errors=reasons[StopReason.INFRA_ERROR],
            no_reply=reasons[StopReason.POLICY_FAILURE],
        )


def _told(status: RunStatus) -> Counts:
    scored = status.turns - status.turns_unscored
    return Counts(status.turns, scored, status.correct, status.infra_errors, status.policy_failures)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def found(directory: Path) -> Iterator[Path]:
    """Runs: the directory itself, or those in it, of a sweep all that it asks for. Raises ConfigError where there is none."""
    if (directory / "run.json").is_file():
        yield directory
    elif (directory / SWEEP_FILE).is_file():
        yield from (directory / cell.name for cell in read_sweep(directory).cells)
    elif directory.is_dir():
        inside = (path for path in sorted(directory.iterdir()) if (path / "run.json").is_file() or (path / SWEEP_FILE).is_file())
        yield from (run for path in inside for run in found(path))


@dataclass(frozen=True)
class Row:
    name: str
    facts: Facts
    state: State
    note: str


class Monitor:
    """Of all runs below a directory. Raises ConfigError where there is none."""

    def __init__(self, directory: Path, stuck_s: float = STUCK_S) -> None:
        self.directory, self._stuck_s = directory, stuck_s
        self._watched: dict[Path, Watched] = {}

    def rows(self) -> list[Row]:
        """What needs a look first."""
        runs = list(found(self.directory))
        if not runs:
            raise ConfigError(f"{self.directory} holds no run: give a run's directory, a sweep's, or one with runs in it")
        numbers = {number for number in map(slurm.job_number, runs) if number is not None}
        words, rows = slurm.words(numbers), []
        for run in runs:
            name = run.name if run == self.directory else str(run.relative_to(self.directory))
            try:
                facts = self._watched.setdefault(run, Watched(run)).look(words)
            except ConfigError as error:  # of a damaged file; the others can be read
                rows.append(Row(name, Facts(), State.FAILED, str(error)))
            else:
                rows.append(Row(name, facts, *judged(facts, self._stuck_s)))
        return sorted(rows, key=lambda row: list(State).index(row.state))


# ------------------------------------------------------------------ showing


def monitor(name: str, *, once: bool, stuck_s: float, every_s: float) -> int:
    """Show how the runs of a directory, or of a name below `runs/`, stand, until none runs or waits, or `once`.

    Returns 1 where something is wrong, else 0.
    """
    directory = next((path for path in (Path(name), Path("runs") / name) if path.is_dir()), Path(name))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    rows = watch(
        Monitor(directory, stuck_s).rows,
        lambda rows: Group(_table(rows), *_lines(rows)),
        lambda rows: any(row.state in (State.RUNNING, State.WAITING, State.STUCK) for row in rows),
        console,
        every_s=None if once else every_s,
    )
    show(rows, console)
    return int(any(row.state.wrong for row in rows))


def watch(
    look: Callable[[], T], drawn: Callable[[T], Group], going: Callable[[T], bool], console: Console, *, every_s: float | None
) -> T:
    """What is seen at last: on a terminal once nothing is `going` any more, elsewhere, and where `every_s` is None, at once."""
    seen = look()
    if console.is_terminal and every_s is not None:
        with Live(drawn(seen), console=console, auto_refresh=False, transient=True) as live:
            while going(seen):
                time.sleep(every_s)
                seen = look()
                live.update(drawn(seen), refresh=True)
    return seen


def show(rows: Sequence[Row], console: Console) -> None:
    """A table, why something is wrong, and all in one line."""
    console.print(_table(rows), soft_wrap=False)
    for line in _lines(rows):
        console.print(line, soft_wrap=True)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(
        "", "run", "episodes", "answers", "verdicts", "correct", "infra errors", "no reply", "a minute", "left", "job",
        box=SIMPLE, padding=(0, 1, 0, 0),
    )  # fmt: skip
    for row in rows:
        facts, going = row.facts, row.state in (State.RUNNING, State.STUCK)
        cells = (
            row.name,
            f"{facts.ended}/{_NONE if facts.asked is None else facts.asked}",
            *map(str, astuple(facts.counts)),
            f"{facts.per_minute:.1f}" if going else "",
            duration_text(facts.left_s) if going and facts.left_s is not None else "",
            facts.word or "",
        )
        table.add_row(Text(row.state, row.state.colour), *map(Text, cells))  # Text: a name with brackets is no markup
    return table


def _lines(rows: Sequence[Row]) -> list[Text]:
    wrong = [Text(f"{row.state} {row.name}: {row.note}", row.state.colour) for row in rows if row.state.wrong]
    counts = Counter(row.state for row in rows)
    states = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    ended, asked = sum(row.facts.ended for row in rows), sum(row.facts.asked or 0 for row in rows)
    runs = "1 run" if len(rows) == 1 else f"{len(rows)} runs"
    return [*wrong, Text(f"{runs}: {states}; {ended} of {asked} episodes have ended")]

"""`kernel-env arena monitor`: a line a model, what needs a look first. It is well if its file is whole, whatever its job says."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from kernel_env.errors import ConfigError
from rollout import slurm
from rollout.arena.batches import LOGS, Batch, batch_name, read_batches, words
from rollout.arena.matches import read_matches
from rollout.arena.pairing import name_of
from rollout.arena.plan import Plan
from rollout.arena.play import Count
from rollout.durable import lock_holder
from rollout.markdown import duration_text
from rollout.monitor import PLAIN_WIDTH, Standing, watch
from rollout.store import RunReader


class State(Standing):
    """In the order in which they are shown."""

    DAMAGED = "DAMAGED"
    PARTIAL = "PARTIAL"
    """Its run has not answered everything that the baseline has: it will not be judged."""
    STUCK = "STUCK"
    """Its job runs, and nothing has come of it for long."""
    STOPPED = "STOPPED"
    """There is something left, and nobody is at it."""
    NULL = "NULL"
    """All was asked, and some games have no verdict."""
    RUNNING = "running"
    WAITING = "waiting"
    OK = "ok"

    @property
    def going(self) -> bool:
        return self in (State.STUCK, State.RUNNING, State.WAITING)


@dataclass(frozen=True)
class Facts:
    """What is found of one model."""

    asked: int = 0
    """Episodes of the baseline, ..."""
    answers: int = 0
    """... and how many of them its own run has ended."""
    count: Count = field(default_factory=Count)
    job: int | None = None
    word: str | None = None
    """The scheduler's, on its last job."""
    process: int | None = None
    """That plays it, on this machine."""
    quiet_s: float = 0.0
    """Since something came of its job."""

    @property
    def begun(self) -> bool:
        return bool(self.count.matches)

    @property
    def asked_all(self) -> bool:
        return self.count.matches == self.asked

    @property
    def whole(self) -> bool:
        return self.asked_all and not self.count.null_games


def judged(facts: Facts, stuck_s: float) -> tuple[State, str]:
    """How it stands, and why."""
    matches = f"{facts.count.matches} of {facts.asked} matches"
    runs = facts.process is not None or facts.word in slurm.RUNNING
    if facts.answers < facts.asked:
        return State.PARTIAL, f"its run has answered {facts.answers} of {facts.asked} episodes: resume that first"
    if facts.whole and facts.process is None:
        return State.OK, ""
    if runs and facts.quiet_s > stuck_s:
        return State.STUCK, f"nothing has come of its job for {duration_text(facts.quiet_s)}, at {matches}"
    if runs:
        return (State.RUNNING if facts.begun or facts.process is not None else State.WAITING), ""
    if facts.word in slurm.QUEUED:
        return State.WAITING, ""
    if facts.word == slurm.UNKNOWN:
        return State.STUCK, f"the scheduler does not answer; {matches}"
    if facts.asked_all:
        return State.NULL, f"{facts.count.null_games} games have no verdict ({facts.count.error}): the same command asks again"
    known = f"the scheduler says {facts.word} of job {facts.job}" if facts.word else "nobody is at it"
    return State.STOPPED, f"{known}, at {matches}: the same command goes on"


@dataclass(frozen=True)
class Row:
    name: str
    facts: Facts
    state: State
    note: str


class Monitor:
    """Of all models of a plan. A file is read again when it has changed."""

    def __init__(self, plan: Plan, stuck_s: float) -> None:
        self._plan, self._stuck_s = plan, stuck_s
        self._counts: dict[Path, tuple[tuple[int, int], Count]] = {}

    def rows(self) -> list[Row]:
        """What needs a look first."""
        batches = read_batches(self._plan.directory)
        known = words(batches)
        rows = [
            self._row(model, [batch for batch in batches if name_of(model) in batch.models], known) for model in self._plan.models
        ]
        return sorted(rows, key=lambda row: list(State).index(row.state))

    def _row(self, model: RunReader, batches: Sequence[Batch], known: dict[int, str]) -> Row:
        last = next((batch for batch in reversed(batches) if batch.job is not None), None)
        try:
            facts = self._facts(model, last, known)
        except ConfigError as error:  # of a damaged file; the others can be read
            return Row(name_of(model), Facts(), State.DAMAGED, str(error))
        return Row(name_of(model), facts, *judged(facts, self._stuck_s))

    def _facts(self, model: RunReader, batch: Batch | None, known: dict[int, str]) -> Facts:
        file, asked = self._plan.file(model), set(self._plan.baseline.info.asked)
        job = batch.job if batch is not None else None
        return Facts(
            asked=len(asked),
            answers=len(asked & {path.stem for path in model.path.glob("episodes/*.json")}),
            count=self._count(file),
            job=job,
            word=known.get(job) if job is not None else None,
            process=lock_holder(file.parent, file.name),
            quiet_s=time.time() - max(map(_changed, self._signs(file, batch))),
        )

    def _signs(self, file: Path, batch: Batch | None) -> list[Path]:
        """Files that change while a model is played. A batch plays one after the other."""
        directory = self._plan.directory
        signs = [file, directory / f".{file.name}.lock"]
        if batch is not None:
            signs += [directory / f"{name}.jsonl" for name in batch.models]
            signs += (directory / LOGS).glob(f"{batch_name(batch.number)}_*.log")
        return signs

    def _count(self, file: Path) -> Count:
        try:
            status = file.stat()
        except FileNotFoundError:
            return Count()
        stamp = status.st_mtime_ns, status.st_size
        if self._counts.get(file, (None,))[0] != stamp:
            self._counts[file] = stamp, Count.of(read_matches(file).values())
        return self._counts[file][1]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


# ------------------------------------------------------------------ showing


def monitor(plan: Plan, *, stuck_s: float, every_s: float | None) -> int:
    """Show how all models stand until nothing runs or waits, or once where `every_s` is None. Returns 1 where one needs a look."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    rows = watch(Monitor(plan, stuck_s).rows, _drawn, lambda rows: any(row.state.going for row in rows), console, every_s=every_s)
    console.print(_table(rows), soft_wrap=False)
    for line in _lines(rows):
        console.print(line, soft_wrap=True)
    return int(any(row.state.wrong for row in rows))


def _drawn(rows: Sequence[Row]) -> Group:
    return Group(_table(rows), *_lines(rows))


def _table(rows: Sequence[Row]) -> Table:
    table = Table("", "model", "answers", "matches", "games", "null", "job", "", box=SIMPLE, padding=(0, 1, 0, 0))
    for row in rows:
        facts, count, asked = row.facts, row.facts.count, row.facts.asked
        job = () if facts.job is None else (str(facts.job), facts.word or "")
        cells = (row.name, f"{facts.answers}/{asked}", f"{count.matches}/{asked}", f"{count.scored_games}/{2 * asked}")
        table.add_row(
            Text(row.state, row.state.colour), *map(Text, (*cells, str(count.null_games), *job))
        )  # Text: a name with brackets is no markup
    return table


def _lines(rows: Sequence[Row]) -> list[Text]:
    wrong = [Text(f"{row.state} {row.name}: {row.note}", row.state.colour) for row in rows if row.state.wrong]
    counts = Counter(row.state for row in rows)
    states = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    nulls = sum(row.facts.count.null_games for row in rows)
    models = "1 model" if len(rows) == 1 else f"{len(rows)} models"
    return [*wrong, Text(f"{models}: {states}; {nulls} games without a verdict")]

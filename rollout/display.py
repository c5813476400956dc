"""What a person sees while a run goes on: a progress bar on a terminal, plain lines elsewhere, a closing table on both."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from stamina.instrumentation import RetryDetails

from kernel_env.printable import LAYOUT, printable
from kernel_env.schema import StopReason, Turn
from kernel_env.verifier import Load
from rollout.engine import Waits
from rollout.fingerprint import Change
from rollout.markdown import noise_text
from rollout.policies import Spent
from rollout.report import PAGE, closing_table
from rollout.runner import Event, Plan, RunResult
from rollout.settings import DisplaySettings

PLAIN_WIDTH = 132
"""Columns of the closing table where there is no terminal to fit it to."""
_MESSAGE_CHARS = 80
_COLOURS = {"correct": "green", "needs_device": "yellow"}


class Display:
    """The terminal, for one run or several at a time. A context manager, so that it is left clean however they end."""

    def __init__(self, settings: DisplaySettings, console: Console | None = None) -> None:
        self.quiet = settings.quiet
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        self.console = console or Console(highlight=False, soft_wrap=True, width=width)
        bar = self.console.is_terminal if settings.progress is None else settings.progress
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self.progress = Progress(*columns, console=self.console, disable=not bar or settings.quiet, transient=True)

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def view(self, label: str = "") -> RunView:
        """Of one run; the label tells its lines from those of others."""
        return RunView(self, label)

    def say(self, text: str, *, always: bool = False) -> None:
        """Console markup. Messages, errors and names in it may be a candidate's or a model's words."""
        if always or not self.quiet:
            self.progress.console.print(printable(text, LAYOUT))

    def retry(self, details: RetryDetails) -> None:
        """A request that failed and will be sent again."""
        why = escape(str(details.caused_by))
        self.say(f"[yellow]no reply to request {details.retry_num}, next in {details.wait_for:.1f} s: {why}[/yellow]")


class RunView:
    """Shows one run's events: a bar with what its episodes wait for, and a line a turn."""

    def __init__(self, display: Display, label: str) -> None:
        self._display, self._label = display, f"{label} " if label else ""
        self._task: TaskID | None = None
        self._turns = 0

    def plan(self, plan: Plan, path: Path, changed: tuple[Change, ...]) -> None:
        episodes = len(plan.asked)
        backend, policy = plan.settings.backend.name, escape(plan.policy.name)
        self.say(f"episodes {episodes}, problems {len(plan.problems)}, back end {backend}, policy {policy}")
        if plan.left_out:
            self.say(f"left out, because nothing is recorded for them: {plan.left_out} of the selected problems")
        self.say(f"run directory {escape(_shown(path))}")
        if changed:
            self.say(f"[yellow]begun under other conditions: {escape('; '.join(map(str, changed)))}[/yellow]")
        self._task = self._display.progress.add_task(f"{self._label}episodes", total=episodes, note="")

    def event(self, event: Event) -> None:
        if event.turn is not None:
            self._turns += 1
            self.say(_turn_text(event, event.turn))
        elif event.stop_reason is not None:
            if event.error:
                self.say(f"[red]{event.episode:<18} {event.stop_reason}: {escape(event.error)}[/red]")
            elif event.stop_reason is StopReason.CANCELLED:
                self.say(f"[yellow]{event.episode:<18} cancelled: enough others are complete[/yellow]")
            if self._task is not None:
                self._display.progress.advance(self._task)

    def stages(self, waiting: Mapping[Waits, int], load: Load | None) -> None:
        """In play, how many are where; those in brackets wait for a place there."""
        if self._task is None:
            return
        words = [
            f"{self._turns} turns",
            f"reply {waiting.get(Waits.REPLY, 0)} (+{waiting.get(Waits.REQUEST, 0)})",
            f"verdict {waiting.get(Waits.VERDICT, 0)}",
        ]
        if load is not None and len(self._display.progress.tasks) == 1:  # of several runs it would be all theirs
            words.append(f"build {load.building} (+{load.to_build}), measure {load.slots_taken} (+{load.to_measure})")
        self._display.progress.update(self._task, note=", ".join(words))

    def close(self, result: RunResult, *, table: bool = True) -> None:
        """The closing table, and where to read on."""
        self._end()
        if table:
            self._display.console.print(closing_table(result.episodes), soft_wrap=False)
        summary = result.results.summary
        timed = [t.verdict.speedup for e in result.episodes for t in e.turns if t.verdict.speedup is not None]
        best = f", best speedup {max(timed):.2f}x" if timed else ""
        self.say(
            f"{summary.correct} of {summary.total} episodes correct, {summary.early_terminations} solved early, "
            f"{summary.turns} turns{best}",
            always=True,
        )
        if result.spent.requests:
            self.say(_spent_text(result.spent), always=True)
        self.say(f"to look at: {escape(_shown(result.report.with_name(PAGE)))}", always=True)
        self.say(f"report: {escape(_shown(result.report))}", always=True)

    def fail(self, reason: str) -> None:
        """It came to no end that counts."""
        self._end()
        self.say(f"[red]{escape(reason)}[/red]", always=True)

    def say(self, text: str, *, always: bool = False) -> None:
        self._display.say(f"{self._label}{text}", always=always)

    def _end(self) -> None:
        if self._task is not None:
            self._display.progress.remove_task(self._task)
            self._task = None


def _spent_text(spent: Spent) -> str:
    again = f" ({spent.retries} of them again)" if spent.retries else ""
    cost = f", cost {spent.cost:.4g}" if spent.cost is not None else ""
    return (
        f"{spent.requests} requests{again}, {spent.prompt_tokens:,} tokens of prompts, {spent.completion_tokens:,} of replies{cost}"
    )


def _turn_text(event: Event, turn: Turn) -> str:
    verdict = turn.verdict
    value = "unscored" if turn.reward.value is None else f"reward {turn.reward.value:.2f}"
    colour = _COLOURS.get(verdict.status, "red")
    speed = ""
    if verdict.timing is not None:
        timing = verdict.timing
        times = f"{timing.runtime.median_ms:.3f} ms, baseline {timing.baseline.median_ms:.3f} ms{noise_text(timing)}"
        speed = f"  {timing.speedup:.2f}x ({times})"
    what = verdict.timing_note and f"not timed ({verdict.timing_note})"
    if not verdict.correct:
        what = verdict.message.strip().partition("\n")[0]
        what = what if len(what) <= _MESSAGE_CHARS else f"{what[:_MESSAGE_CHARS]}..."
    note = f"  [dim]{escape(what)}[/dim]" if what else ""
    end = "  (from the run directory)" if event.resumed else ""
    return f"{event.episode:<18} turn {turn.index}  [{colour}]{verdict.status:<13}[/{colour}] {value}{speed}{note}{end}"


def _shown(path: Path) -> str:
    """Relative to the working directory where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) or not path.is_absolute() else str(path)

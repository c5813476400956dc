"""What a person sees while a run goes on: a progress bar on a terminal, plain lines elsewhere, a closing table on both."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from stamina.instrumentation import RetryDetails

from kernel_env.schema import StopReason, Turn
from rollout.fingerprint import Change
from rollout.policies import Spent
from rollout.report import closing_table, noise_text
from rollout.runner import Event, Plan, RunResult
from rollout.settings import DisplaySettings

PLAIN_WIDTH = 132
"""Columns of the closing table where there is no terminal to fit it to."""
_MESSAGE_CHARS = 80
_COLOURS = {"correct": "green", "needs_device": "yellow"}


class Display:
    """Shows a run's events. A context manager, so that the terminal is left clean however the run ends."""

    def __init__(self, settings: DisplaySettings, console: Console | None = None) -> None:
        self._settings = settings
        width = None if sys.stdout.isatty() else PLAIN_WIDTH
        self._console = console or Console(highlight=False, soft_wrap=True, width=width)
        bar = self._console.is_terminal if settings.progress is None else settings.progress
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
        )
        self._progress = Progress(*columns, console=self._console, disable=not bar or settings.quiet, transient=True)
        self._task: TaskID | None = None
        self._running: dict[str, int] = {}
        self._turns = 0

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def plan(self, plan: Plan, path: Path, changed: tuple[Change, ...]) -> None:
        episodes = len(plan.asked)
        backend, policy = plan.settings.backend.name, escape(plan.policy.name)
        self._print(f"episodes {episodes}, problems {len(plan.problems)}, back end {backend}, policy {policy}")
        if plan.left_out:
            self._print(f"left out, because nothing is recorded for them: {plan.left_out} of the selected problems")
        self._print(f"run directory {escape(_shown(path))}")
        if changed:
            self._print(f"[yellow]begun under other conditions: {escape('; '.join(map(str, changed)))}[/yellow]")
        self._task = self._progress.add_task("episodes", total=episodes, note="")

    def retry(self, details: RetryDetails) -> None:
        """A request that failed and will be sent again."""
        why = escape(str(details.caused_by))
        self._print(f"[yellow]no reply to request {details.retry_num}, next in {details.wait_for:.1f} s: {why}[/yellow]")

    def event(self, event: Event) -> None:
        if event.turn is not None:
            self._turns += 1
            self._running[event.episode] = event.turn.index
            self._print(_turn_text(event, event.turn))
        elif event.stop_reason is not None:
            self._running.pop(event.episode, None)
            if event.error:
                self._print(f"[red]{event.episode:<18} {event.stop_reason}: {escape(event.error)}[/red]")
            elif event.stop_reason is StopReason.CANCELLED:
                self._print(f"[yellow]{event.episode:<18} cancelled: enough others are complete[/yellow]")
            if self._task is not None:
                self._progress.advance(self._task)
        if self._task is not None:
            self._progress.update(self._task, note=f"{self._turns} turns, {len(self._running)} in play")

    def close(self, result: RunResult) -> None:
        """The closing table, and where to read on."""
        self._progress.stop()
        self._console.print(closing_table(result.episodes), soft_wrap=False)
        summary = result.results.summary
        timed = [t.verdict.speedup for e in result.episodes for t in e.turns if t.verdict.speedup is not None]
        best = f", best speedup {max(timed):.2f}x" if timed else ""
        self._console.print(
            f"{summary.correct} of {summary.total} episodes correct, {summary.early_terminations} solved early, "
            f"{summary.turns} turns{best}"
        )  # fmt: skip
        if result.spent.requests:
            self._console.print(_spent_text(result.spent))
        self._console.print(f"report: {escape(_shown(result.report))}")

    def _print(self, text: str) -> None:
        if not self._settings.quiet:
            self._progress.console.print(text)


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

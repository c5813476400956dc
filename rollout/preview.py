"""What runs would do (`dry_run=true`), and whether they could (`validate=true`). Nothing is written, and no episode is played."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import fmean

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from stamina.instrumentation import set_on_retry_hooks

from kernel_env.episode import EpisodeState
from kernel_env.errors import KernelEnvError
from kernel_env.schema import StopReason, episode_key
from rollout.health import reason
from rollout.markdown import duration_text
from rollout.policies.base import CHARS_PER_TOKEN
from rollout.runner import FREE, Plan, plan, run_name, unserved
from rollout.serving import serve_command
from rollout.settings import Settings

PLAIN_WIDTH = 160
TOKENS_PER_S = 40.0
"""Of one reply, ..."""
JUDGE_S = 3.0
"""... and for one verdict: assumed until there are turns to learn from."""
FEEDBACK_TOKENS = 300
LONGEST_REPLY = 8192
"""Assumed where `sampling.max_tokens` is not set."""
_MOST_READ = 200
"""Turns to learn from."""


@dataclass(frozen=True)
class Experience:
    """Means over turns that were played already. None where nothing is known."""

    turns: int = 0
    reply_tokens: float | None = None
    reply_s: float | None = None
    judge_s: float | None = None


@dataclass(frozen=True)
class Estimate:
    """What is left of runs, for episodes that take every turn they may."""

    problems: int = 0
    episodes: int = 0
    ended: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    reply_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Estimate)))


def directory(settings: Settings) -> Path:
    return Path(settings.run.root) / run_name(settings)


def learned(runs: Iterable[Path]) -> Experience:
    """From the turn files of runs."""
    files = [file for run in runs for file in sorted(run.glob("turns/*.json"))[:_MOST_READ]][:_MOST_READ]
    turns = [json.loads(file.read_bytes())["record"] for file in files]
    if not turns:
        return Experience()
    told = [turn["generation"] for turn in turns if turn["generation"]["usage"]["completion_tokens"]]
    return Experience(
        turns=len(turns),
        reply_tokens=fmean(one["usage"]["completion_tokens"] for one in told) if told else None,
        reply_s=fmean(one["duration_s"] for one in told) if told else None,
        judge_s=fmean(turn["verdict"]["duration_ms"] / 1e3 for turn in turns),
    )


def estimated(planned: Plan, known: Experience) -> Estimate:
    """Of what a run would still do."""
    settings = planned.settings
    free = settings.policy.scheme in FREE
    reply = 0.0 if free else known.reply_tokens or settings.sampling.max_tokens or LONGEST_REPLY
    reply_s = 0.0 if free else known.reply_s or reply / TOKENS_PER_S
    calls, ended, prompts = 0, 0, 0.0
    for problem in planned.problems:
        first = sum(len(m["content"]) for m in EpisodeState(problem, planned.engine.episode, 0).messages) / CHARS_PER_TOKEN
        for sample in range(settings.rollout.samples):
            left = _turns_left(directory(settings), episode_key(problem.key, sample), settings.rollout.max_turns)
            ended += left is None
            calls += len(left or ())
            prompts += sum(first + turn * (reply + FEEDBACK_TOKENS) for turn in left or ())
    judge_s = JUDGE_S if known.judge_s is None else known.judge_s
    return Estimate(
        problems=len(planned.problems),
        episodes=len(planned.asked),
        ended=ended,
        calls=calls,
        prompt_tokens=0 if free else math.ceil(prompts),
        reply_tokens=math.ceil(calls * reply),
        # others are answered while some are judged
        seconds=max(calls * reply_s / planned.engine.requests, calls * judge_s / settings.verifier.slots),
    )


def _turns_left(run: Path, episode: str, most: int) -> range | None:
    """Turns that may still be played; None where the episode has ended, and not by a failure."""
    end = run / "episodes" / f"{episode}.json"
    failures = (StopReason.POLICY_FAILURE, StopReason.INFRA_ERROR)
    if end.is_file() and json.loads(end.read_bytes())["stop_reason"] not in failures:
        return None
    return range(len(list((run / "turns").glob(f"{episode}_turn*.json"))), most)


# ------------------------------------------------------------------ commands


async def dry_run(runs: Sequence[Settings]) -> int:
    """Print what each would do, and all together. The exit code is the worst of those that cannot be planned."""
    heads = ("run", "problems", "episodes", "ended", "calls", "prompt tokens", "reply tokens", "time")
    table = Table(*heads, box=SIMPLE, padding=(0, 1, 0, 0))
    experience = {model: learned(directory(one) for one in runs if _model(one) == model) for model in set(map(_model, runs))}
    total, codes, wrong = Estimate(), [0], []
    for settings in runs:
        try:
            planned = _planned(settings)
        except KernelEnvError as error:
            codes.append(error.exit_code)
            wrong.append(f"{run_name(settings)}: {reason(error)}")
            continue
        async with aclosing(planned.policy):
            found = estimated(planned, experience[_model(settings)])
        total += found
        table.add_row(*_cells(run_name(settings), found))
    if len(runs) > 1:
        table.add_section()
        table.add_row(*_cells(f"{len(runs)} runs", total))
    console, turns = _console(), sum(known.turns for known in experience.values())
    console.print(table)
    console.print(
        "for episodes that take every turn they may; tokens and time of a turn are "
        + (f"those of {turns} turns that were played already" if turns else "assumed, as there are no turns to learn from")
    )
    for line in wrong:
        console.print(f"[red]{escape(line)}[/red]", soft_wrap=True)
    return max(codes)


async def validate(runs: Sequence[Settings]) -> int:
    """Check each: its problems, the server that it would start, or the endpoint that it would ask. The exit code is the worst."""
    set_on_retry_hooks([])  # its findings say all there is to say
    console, codes, answering = _console(), [0], set[tuple[str, str | None]]()
    for settings in runs:
        policy, name = settings.policy, escape(run_name(settings))
        try:
            planned = _planned(settings)
            async with aclosing(planned.policy):
                endpoint = (policy.spec, policy.base_url)
                if policy.serve is not None:
                    serve_command(policy, 0)
                elif policy.scheme != "transformers" and endpoint not in answering:  # which would load a model
                    await planned.policy.preflight()
                    answering.add(endpoint)
            said = f"[green]ok[/green]    {name}: {len(planned.asked)} episodes of {escape(planned.policy.name)}"
        except KernelEnvError as error:
            codes.append(error.exit_code)
            said = f"[red]fail[/red]  {name}: {escape(reason(error))}"
        console.print(said, soft_wrap=True)
    return max(codes)


def _planned(settings: Settings) -> Plan:
    """Raises ConfigError, DatasetError."""
    return plan(replace(settings, policy=unserved(settings.policy)))


def _model(settings: Settings) -> tuple[str, str | None, str | None]:
    return settings.policy.scheme, settings.policy.model, settings.policy.path


def _cells(name: str, found: Estimate) -> tuple[Text, ...]:
    counts = (found.problems, found.episodes, found.ended, found.calls, found.prompt_tokens, found.reply_tokens)
    return tuple(map(Text, (name, *(f"{count:,}" for count in counts), duration_text(found.seconds))))


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)

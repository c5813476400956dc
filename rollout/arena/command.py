"""`kernel-env arena validate | dry-run | submit | run | monitor | show`."""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from rich.markup import escape
from stamina.instrumentation import set_on_retry_hooks

from kernel_env.errors import ConfigError, JudgeError
from kernel_env.problems.selection import did_you_mean
from rollout import compose
from rollout.arena.batches import submit
from rollout.arena.comparing import Comparing, opened_judge
from rollout.arena.matches import left, read_matches
from rollout.arena.monitor import monitor
from rollout.arena.pairing import Answers, Pairing, PartialAnswers, name_of, paired, read_answers, refuse_partial
from rollout.arena.plan import Plan, make_plan
from rollout.arena.play import Count, play
from rollout.arena.show import show
from rollout.display import Display
from rollout.monitor import EVERY_S, STUCK_S
from rollout.slurm import queue_again
from rollout.stopping import Stopped, run_stoppable
from rollout.store import RunReader

VERBS = ("validate", "dry-run", "submit", "run", "monitor", "show")
FLAGS = ("--all", "--once")
USAGE = (
    "usage: kernel-env arena validate|dry-run|submit|run|monitor arena.baseline=RUN RUN ...|--all|arena.models=FILE [--once] "
    "[OPTION=VALUE ...], or kernel-env arena show [JUDGE] [run.root=DIRECTORY]"
)


def arena(words: Sequence[str], overrides: Sequence[str], flags: Collection[str]) -> int:
    """Raises ConfigError for what it does not know."""
    verb, *names = words or [""]
    if verb not in VERBS:
        raise ConfigError(f"{USAGE}{did_you_mean(verb, VERBS)}" if verb else USAGE)
    if "--once" in flags and verb != "monitor":
        raise ConfigError("--once is for `kernel-env arena monitor`")
    if verb == "show":
        settings = compose.composed(overrides)[0]
        if names[1:] or "--all" in flags:
            raise ConfigError(USAGE)
        return show(Path(settings.run.root), *(names or [settings.arena.name or ""]))
    plan = make_plan(names, compose.composed(overrides)[0], every="--all" in flags)
    if verb == "validate":
        return validate(plan)
    if verb == "monitor":
        return monitor(plan, stuck_s=STUCK_S, every_s=None if "--once" in flags else EVERY_S)
    if verb == "run":
        return _run(plan)
    complete = [name_of(model) for model, pairing in pairings(plan) if not _left(plan, model, pairing)]
    return submit(plan, overrides, complete, send=verb == "submit" and plan.settings.slurm.submit)


# ------------------------------------------------------------------ answers


def validate(plan: Plan) -> int:
    """Says of each run whether it can be judged. Returns 1 where one cannot."""
    baseline = read_answers(plan.baseline)
    refused = 0
    for run in (plan.baseline, *plan.models):
        try:
            if run is plan.baseline:
                refuse_partial(baseline, baseline.asked)
            else:
                _paired(plan, run, baseline)
        except (PartialAnswers, ConfigError) as error:
            refused += 1
            print(f"refused: {error}")
        else:
            print(f"complete: {name_of(run)}, {len(baseline.asked)} answers{', the baseline' * (run is plan.baseline)}")
    print(f"{refused} of {1 + len(plan.models)} runs cannot be judged" if refused else "every run can be judged")
    return int(bool(refused))


def pairings(plan: Plan) -> Iterator[tuple[RunReader, Pairing]]:
    """Raises PartialAnswers, ConfigError for the first run that cannot be judged."""
    baseline = read_answers(plan.baseline)
    for model in plan.models:
        yield model, _paired(plan, model, baseline)


def _paired(plan: Plan, model: RunReader, baseline: Answers) -> Pairing:
    return paired(plan.judge, read_answers(model), baseline)


def _left(plan: Plan, model: RunReader, pairing: Pairing) -> list[str]:
    return left(pairing.matches, read_matches(plan.file(model)))


# ------------------------------------------------------------------ playing


def _run(plan: Plan) -> int:
    with Display(plan.settings.display) as display:
        set_on_retry_hooks([display.retry])
        try:
            counts = run_stoppable(_play_all(plan, display))
        except Stopped as stopped:
            if stopped.by is signal.SIGUSR1:
                queue_again(plan.settings.slurm)
            raise
    nulls, games = (sum(getattr(count, name) for count in counts) for name in ("null_games", "scored_games"))
    if nulls:
        error = next(count.error for count in counts if count.error)
        raise JudgeError(f"{nulls} of {nulls + games} games have no verdict ({error}); the same command asks for them again")
    return 0


async def _play_all(plan: Plan, display: Display) -> list[Count]:
    """One model after the other. Before anything is asked, each is known to have answered everything."""
    ready = [(model, pairing) for model, pairing in pairings(plan)]
    plan.make_directory()
    if not any(_left(plan, model, pairing) for model, pairing in ready):
        display.say("complete: nothing is left to judge", always=True)
        return []
    async with opened_judge(plan.settings) as judge:
        return [await _play(plan, model, pairing, judge, display) for model, pairing in ready]


async def _play(plan: Plan, model: RunReader, pairing: Pairing, judge: Comparing, display: Display) -> Count:
    name, progress = escape(name_of(model)), display.progress
    task = progress.add_task(name, total=len(_left(plan, model, pairing)), note="")
    count = await play(
        pairing, judge, plan.file(model), concurrency=plan.settings.arena.concurrency, on_match=lambda: progress.advance(task)
    )
    progress.remove_task(task)
    games = f"{count.scored_games} games, {count.null_games} without a verdict"
    display.say(f"{name}: {count.matches} matches, {games}", always=True)
    return count

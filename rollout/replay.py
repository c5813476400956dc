"""`kernel-env replay`: verify recorded turns again, from the run directory alone, and say what differs and why.

A turn agrees when its kernel is extracted the same, its status and reward class are the same, and its speedup lies within the
recorded interval's reach. A time that does not agree is taken once more before it counts as a difference: the machine may have
been busy.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape

from kernel_env.errors import ConfigError, InfraError
from kernel_env.parsing import extract_kernel
from kernel_env.printable import printable
from kernel_env.problems import find
from kernel_env.reward import measured_part, measured_reward
from kernel_env.schema import Candidate, Problem, Timing, Turn, Verdict
from kernel_env.verifier import Verifier
from rollout.fingerprint import changes, fingerprint
from rollout.runner import make_verifier, reached
from rollout.settings import Settings, settings
from rollout.store import RunReader, run_directory

TIMING_SLACK = 1.25
"""Both intervals are widened by this factor before they must overlap: clocks and caches differ from minute to minute."""


@dataclass(frozen=True)
class Comparison:
    """One turn, then and now."""

    episode: str
    turn: int
    differences: tuple[str, ...]
    now: Verdict | None
    error: str = ""
    """Why it could not be verified again."""


def replay(name: str, problem: str | None, turn: int | None, overrides: Sequence[str]) -> int:
    """Returns 0 when every turn agrees, 1 when one differs. Raises InfraError when none could be verified."""
    reader = RunReader(run_directory(name))
    if "imported" in reader.environment:
        replies = f"`kernel-env eval policy=replay policy.path={reader.path}` has its replies judged here"
        raise ConfigError(f"{name} was imported: no verdict of ours is there to be found again; {replies}")
    chosen = list(_chosen(reader, problem, turn))
    console = Console(highlight=False, soft_wrap=True)
    stored = _settings(reader, overrides)
    console.print(f"verifying again: {reader.info.name}, {len(chosen)} of its turns")
    results = asyncio.run(_replayed(reader, chosen, stored, console))
    differing = [c for c in results if c.differences]
    failed = [c for c in results if c.error]
    if differing:
        _explain(reader, console)
    if times := _times_line(results, chosen):
        console.print(times)
    agreeing = len(results) - len(differing) - len(failed)
    console.print(f"{agreeing} of {len(results)} turns agree" + (f", {len(failed)} could not be verified here" if failed else ""))
    if failed and not differing:
        raise InfraError(failed[0].error)
    return 1 if differing else 0


def _chosen(reader: RunReader, problem: str | None, turn: int | None) -> Iterator[tuple[str, Turn]]:
    turns = {key: played for key, played in reader.load_turns().items() if played}
    if not turns:
        raise ConfigError(f"run {reader.info.name} has no turn yet")
    keys = _episodes(reader, turns, problem) if problem else list(turns)
    found = [(key, t) for key in keys for t in turns[key] if turn is None or t.index == turn]
    if not found:
        raise ConfigError(f"{keys[0]} has {len(turns[keys[0]])} turns, none with index {turn} (the first is 0)")
    yield from found


def _episodes(reader: RunReader, turns: Mapping[str, Sequence[Turn]], text: str) -> list[str]:
    """Keys of one episode (`level1_problem1_sample2`), or of all samples of a problem, in any of the ways to write it."""
    if "_sample" in text and text in turns:
        return [text]
    of_problem = {key: played[0].verdict.problem for key, played in turns.items()}
    meant = find([reader.load_problem(key) for key in set(of_problem.values())], text).key
    return [key for key, problem in of_problem.items() if problem == meant]


def _settings(reader: RunReader, overrides: Sequence[str]) -> Settings:
    """The run's own settings; overrides may change where and how it is verified (`verifier.*`)."""
    wrong = [o for o in overrides if not o.startswith("verifier.")]
    if wrong:
        raise ConfigError(f"replay takes its settings from the run; only verifier.* can be changed, not {wrong[0]}")
    tree = OmegaConf.merge(OmegaConf.create(reader.config_text), OmegaConf.from_dotlist(list(overrides)))
    return settings(OmegaConf.to_container(tree, resolve=True))


async def _replayed(reader: RunReader, chosen: Sequence[tuple[str, Turn]], stored: Settings, console: Console) -> list[Comparison]:
    verifier = make_verifier(stored.verifier)
    problems: dict[str, Problem] = {}
    results = []
    try:
        await reached(verifier, stored)
        for key, turn in chosen:
            problem = problems.setdefault(turn.verdict.problem, reader.load_problem(turn.verdict.problem))
            result = await _compared(key, turn, problem, stored, verifier)
            console.print(_line(result, turn))
            results.append(result)
    finally:
        await verifier.aclose()
    return results


async def _compared(key: str, turn: Turn, problem: Problem, stored: Settings, verifier: Verifier) -> Comparison:
    extraction = extract_kernel(turn.generation.text)
    if extraction.code != turn.code:
        return Comparison(key, turn.index, ("the reply's kernel is extracted differently now",), None)
    if extraction.code is None:
        same = extraction.status == turn.verdict.status
        return Comparison(key, turn.index, () if same else (f"status was {turn.verdict.status}, is {extraction.status}",), None)
    candidate = Candidate(extraction.code, turn.verdict.backend)
    for attempt in range(2):
        try:
            verdict = await verifier.verify(problem, candidate, stored.verify, turn.verdict.seed)
        except InfraError as error:
            return Comparison(key, turn.index, (), None, " ".join(str(error).split()))
        differences = tuple(_differences(turn, verdict, stored))
        if not differences or attempt == 1 or verdict.status != turn.verdict.status:
            return Comparison(key, turn.index, differences, verdict)
    raise AssertionError("unreachable")


def _differences(turn: Turn, now: Verdict, stored: Settings) -> Iterator[str]:
    then = turn.verdict
    if (now.status, now.category) != (then.status, then.category):
        said = now.message.strip().partition("\n")[0]
        yield f"status was {_status(then)}, is {_status(now)}" + (f": {said}" if said else "")
        return
    measured = measured_part(turn.reward)  # what judges add is not found out again
    before, after = _reward_class(then, measured), _reward_class(now, measured_reward(now, stored.reward).value)
    if before != after:
        yield f"reward class was {before}, is {after}"
    if (then.timing is None) != (now.timing is None):
        yield "it was timed then and is not now" if then.timing else "it is timed now and was not then"
    if then.timing is not None and now.timing is not None and not overlap(then.timing, now.timing):
        yield (
            f"speedup was {_interval(then.timing)}, is {_interval(now.timing)} "
            f"(runtime {then.timing.runtime.median_ms:.4g} -> {now.timing.runtime.median_ms:.4g} ms, "
            f"baseline {then.timing.baseline.median_ms:.4g} -> {now.timing.baseline.median_ms:.4g} ms)"
        )
    if now.problem_digest != then.problem_digest:
        yield "the problem's source is another one"


def overlap(a: Timing, b: Timing, slack: float = TIMING_SLACK) -> bool:
    """Whether the two speedup intervals, each widened by the slack, have a point in common."""
    return a.speedup_low / slack <= b.speedup_high * slack and b.speedup_low / slack <= a.speedup_high * slack


def _times_line(results: Sequence[Comparison], recorded: Sequence[tuple[str, Turn]]) -> str:
    """How many speedups agree as they are, and how many only with the slack. Empty where none was taken twice."""
    pairs = [
        (c.now.timing, turn.verdict.timing)
        for c, (_, turn) in zip(results, recorded, strict=True)
        if c.now and c.now.timing and turn.verdict.timing and not c.differences
    ]
    close = sum(overlap(now, then, slack=1.0) for now, then in pairs)
    if not pairs:
        return ""
    return f"speedups: {close} of {len(pairs)} intervals overlap" + (
        f", {len(pairs) - close} more when each is widened by {TIMING_SLACK - 1:.0%}" if close < len(pairs) else ""
    )


def _reward_class(verdict: Verdict, value: float | None) -> str:
    if value is None:
        return "unscored"
    return "correct" if verdict.correct else "compiled" if verdict.compiled and not math.isclose(value, 0.0) else "nothing"


def _status(verdict: Verdict) -> str:
    return f"{verdict.status} ({verdict.category})" if verdict.category else str(verdict.status)


def _interval(timing: Timing) -> str:
    return f"{timing.speedup:.2f}x [{timing.speedup_low:.2f}, {timing.speedup_high:.2f}]"


def _line(result: Comparison, turn: Turn) -> str:
    name = f"{result.episode:<18} turn {result.turn}  "
    if result.error:
        return f"{name}[yellow]not verified[/yellow]  {escape(printable(result.error))}"
    if result.differences:
        return f"{name}[red]differs[/red]  {escape(printable('; '.join(result.differences)))}"
    timing = result.now.timing if result.now else None
    speed = f"  speedup {_interval(timing)}, was {_interval(turn.verdict.timing)}" if timing and turn.verdict.timing else ""
    return f"{name}[green]agrees[/green]  {turn.verdict.status}{escape(speed)}"


def _explain(reader: RunReader, console: Console) -> None:
    """What has changed since the run was made: the usual reasons for a difference."""
    found = list(changes(reader.environment, fingerprint()))
    console.print("what changed since the run was made:" if found else "machine, packages and commit are those of the run")
    for change in found:
        console.print(f"  {escape(str(change))}")

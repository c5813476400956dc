"""`kernel-env verify` and `kernel-env report`."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from kernel_env.episode import EpisodeState
from kernel_env.errors import ConfigError
from kernel_env.problems import find, load_problems
from kernel_env.schema import Generation, Turn, to_json
from rollout import compose
from rollout.report import write_report
from rollout.runner import episode_config, make_verifier, profile, run_directory
from rollout.settings import Settings
from rollout.store import RunReader

MAX_FILE_BYTES = 64 << 20


def verify(problem_name: str, file: Path, overrides: Sequence[str], *, as_json: bool) -> int:
    """Judge one candidate and print the verdict. Returns 0 when correct, 1 when not or unscored."""
    text = _candidate_text(file)
    settings, _ = compose.composed([*overrides, *_implied(file, text, overrides)])
    chosen = settings.problems
    problems = load_problems(
        chosen.source, chosen.path, profile(settings), overrides=chosen.overrides, skip_bad_lines=chosen.skip_bad_lines
    )
    problem = find(problems, problem_name)
    seed = settings.run.seed if settings.run.seed is not None else secrets.randbits(62)
    state = EpisodeState(problem, episode_config(settings), seed)
    reply = text if file.suffix != ".py" else _fenced(text)
    turn = asyncio.run(_judged(state, reply, settings))
    if as_json:
        print(
            json.dumps(
                {"problem": problem.key, "name": problem.name, "verdict": to_json(turn.verdict), "reward": to_json(turn.reward)},
                indent=2,
            )
        )
    else:
        show(state, turn)
    return 0 if turn.verdict.correct else 1


async def _judged(state: EpisodeState, reply: str, settings: Settings) -> Turn:
    verifier = make_verifier(settings.verifier)
    try:
        return await state.step(Generation(reply), verifier)
    finally:
        await verifier.aclose()


def _candidate_text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{file} is larger than {MAX_FILE_BYTES >> 20} MiB; is it the right file?")
        return file.read_text(errors="replace")
    except OSError as error:
        raise ConfigError(f"cannot read the candidate {file}: {error.strerror}") from error


def _implied(file: Path, text: str, overrides: Sequence[str]) -> list[str]:
    """A file that uses Triton is judged by the Triton back end, unless the user says otherwise."""
    said = any(o.split("=", 1)[0] in ("backend", "backend.name") for o in overrides)
    return ["backend=triton"] if not said and "triton.jit" in text else []


def _fenced(code: str) -> str:
    """Source as a reply: in a fence longer than any run of backticks inside."""
    longest = max((len(run) for run in "".join(c if c == "`" else " " for c in code).split()), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{code}\n{fence}"


def show(state: EpisodeState, turn: Turn) -> None:
    """One verdict, for a person."""
    console = Console(highlight=False, soft_wrap=True)
    verdict, problem = turn.verdict, state.problem
    colour = "green" if verdict.correct else "yellow" if not verdict.scored else "red"
    category = f" ({verdict.category})" if verdict.category else ""
    console.print(f"{problem.key} {escape(problem.name)}  back end {verdict.backend}, profile {verdict.profile}")
    console.print(f"[{colour}]{verdict.status}[/{colour}]{escape(category)}, reached stage {verdict.stage}")
    if verdict.message:
        console.print(escape(verdict.message.rstrip()))
    value = f"unscored: {turn.reward.reason}" if turn.reward.value is None else f"{turn.reward.value:.3f}"
    console.print(
        f"reward {escape(value)}   trials {verdict.trials_passed} of {verdict.trials}, tolerance {verdict.tolerance or '-'}"
    )
    if verdict.timing is not None:
        timing = verdict.timing
        ours, theirs = timing.runtime, timing.baseline
        console.print(
            f"speedup {timing.speedup:.2f}x, 95% interval {timing.speedup_low:.2f} to {timing.speedup_high:.2f}: "
            f"{ours.median_ms:.4g} ms against {theirs.median_ms:.4g} ms ({timing.baseline_kind}), {ours.count} calls each"
        )
    elif verdict.timing_note:
        console.print(f"not timed ({verdict.timing_note})")
    if verdict.log.strip():
        console.print(f"the candidate printed:\n{escape(verdict.log.rstrip())}")
    console.print(
        f"took {verdict.duration_ms / 1e3:.2f} s, {verdict.build_ms / 1e3:.2f} s of it compiling; "
        f"verified in {verdict.mode}, seed {verdict.seed}"
    )


def report(name: str) -> int:
    print(write_report(RunReader(run_directory(name))))
    return 0

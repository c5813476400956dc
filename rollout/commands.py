"""`kernel-env verify`, `report`, `compare`, `import` and `export`."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from omegaconf import OmegaConf
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kernel_env.baselines import check_baselines
from kernel_env.episode import EpisodeState
from kernel_env.errors import ConfigError, GateError
from kernel_env.printable import LAYOUT, printable
from kernel_env.problems import find, load_problems
from kernel_env.prompts import compiled_lines
from kernel_env.reward import measured_reward
from kernel_env.schema import Generation, Problem, Reward, Verdict, dumps, to_json
from rollout import compose
from rollout.compare import Comparison, Run
from rollout.compare import compare as compare_runs
from rollout.compare_text import comparison_text
from rollout.documents import RunInfo, episode_order
from rollout.durable import write_file
from rollout.export import export as export_run
from rollout.health import status
from rollout.markdown import noise_text, page
from rollout.metrics import THRESHOLDS
from rollout.report import write_report
from rollout.runner import episode_config, make_verifier, profile, reached
from rollout.settings import Settings
from rollout.store import RunReader, open_run, run_directory
from rollout.tritonforge import read_dump

MAX_FILE_BYTES = 64 << 20


def verify(problem_name: str, file: Path, overrides: Sequence[str], *, as_json: bool) -> int:
    """Judge one candidate and print the verdict. Returns 0 when correct, 1 when not or unscored."""
    text = _candidate_text(file)
    settings, _ = compose.composed([*overrides, *_implied(file, text, overrides)])
    chosen = settings.problems
    problems = load_problems(
        chosen.source,
        chosen.path,
        profile(settings),
        overrides=chosen.overrides,
        skip_bad_lines=chosen.skip_bad_lines,
        precision=chosen.precision,
    )
    problem = find(problems, problem_name)
    check_baselines(settings.verify, [problem])
    seed = settings.run.seed if settings.run.seed is not None else secrets.randbits(62)
    state = EpisodeState(problem, episode_config(settings), seed)
    verdict, reward = asyncio.run(_judged(state, text, settings, bare=file.suffix == ".py"))
    if as_json:
        found = {"problem": problem.key, "name": problem.name, "verdict": to_json(verdict), "reward": to_json(reward)}
        print(json.dumps(found, indent=2))
    else:
        show(problem, verdict, reward)
    return 0 if verdict.correct else 1


async def _judged(state: EpisodeState, text: str, settings: Settings, *, bare: bool) -> tuple[Verdict, Reward]:
    """Of source code when `bare`, else of a reply that holds it."""
    verifier = make_verifier(settings.verifier)
    try:
        await reached(verifier, settings)
        if bare:
            verdict = await state.judge(text, state.seed, verifier)
            return verdict, measured_reward(verdict, settings.reward)
        turn = await state.step(Generation(text), verifier)
        return turn.verdict, turn.reward
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


def show(problem: Problem, verdict: Verdict, reward: Reward) -> None:
    """One verdict, for a person."""
    console = Console(highlight=False, soft_wrap=True)
    colour = "green" if verdict.correct else "yellow" if not verdict.scored else "red"
    category = f" ({verdict.category})" if verdict.category else ""
    console.print(f"{problem.key} {escape(problem.name)}, back end {verdict.backend}, profile {verdict.profile}")
    console.print(f"[{colour}]{verdict.status}[/{colour}]{escape(printable(category))}, reached stage {verdict.stage}")
    if verdict.message:
        console.print(escape(printable(verdict.message.rstrip(), LAYOUT)))
    if verdict.timing is not None:
        timing, ours, theirs = verdict.timing, verdict.timing.runtime, verdict.timing.baseline
        console.print(
            f"speedup {timing.speedup:.2f}x, 95% interval {timing.speedup_low:.2f} to {timing.speedup_high:.2f}: "
            f"{ours.median_ms:.4g} ms against {theirs.median_ms:.4g} ms ({timing.baseline_kind}), "
            f"{ours.count} calls each{noise_text(timing)}"
        )
    elif verdict.timing_note:
        console.print(f"not timed ({verdict.timing_note})")
    for line in compiled_lines(verdict):
        console.print(escape(printable(line)))
    if verdict.degenerate:
        console.print(
            "[yellow]the problem is degenerate:[/yellow] its output hardly varies with its inputs, and a constant may pass"
        )
    if verdict.log.strip():
        console.print(f"the candidate printed:\n{escape(printable(verdict.log.rstrip(), LAYOUT))}")
    console.print(f"reward {'unscored: ' + escape(printable(reward.reason)) if reward.value is None else f'{reward.value:.3f}'}")
    if verdict.tolerance:
        console.print(
            f"trials {verdict.trials_passed} of {verdict.trials}, tolerance {verdict.tolerance}, verifier {verdict.mode}, "
            f"seed {verdict.seed}, took {verdict.duration_ms / 1e3:.2f} s ({verdict.build_ms / 1e3:.2f} s compiling)"
        )


def report(name: str) -> int:
    print(write_report(RunReader(run_directory(name))))
    return 0


def compare(names: Sequence[str], *, mixed: bool, json_file: Path | None, html_file: Path | None, fail_if_worse: bool) -> int:
    """Print how runs compare with the first, and write it where asked.

    With `fail_if_worse` returns 1 when one is significantly worse, and raises GateError when one leaves problems unscored that the
    first one scored: nobody knows whether it is worse.
    """
    found = compare_runs([Run.read(RunReader(run_directory(name))) for name in names], mixed=mixed)
    text = comparison_text(found)
    if json_file is not None:
        write_file(json_file, f"{dumps(found, indent=2)}\n".encode(errors="backslashreplace"), durable=False)
    if html_file is not None:
        write_file(html_file, page("Comparison of runs", text).encode(errors="backslashreplace"), durable=False)
    print(text, end="")
    return _gate(found) if fail_if_worse else 0


def _gate(found: Comparison) -> int:
    worse = [(versus, difference) for versus in found.against_first for difference in versus.worse]
    for versus, d in worse:
        print(f"{versus.run} is worse than {versus.base}: {d.what} {d.before:.3f} -> {d.after:.3f}, p {d.p:.4f}")
    lost = next((versus for versus in found.against_first if versus.lost), None)
    if not worse and lost is not None:
        raise GateError(
            f"{lost.run} has no completed sample of {len(lost.lost)} problems that {lost.base} has ({lost.lost[0]}, ...): "
            "whether it is worse is not known; resume it"
        )
    return 1 if worse else 0


def import_dump(file: Path, name: str) -> int:
    """Write another trainer's trajectories as a run below `runs/`, and say what is to be known of them."""
    dump = read_dump(file)
    info = RunInfo(
        name=name,
        policy="imported/tritonforge",
        master_seed=0,
        asked=tuple(sorted((episode.key for episode in dump.episodes), key=episode_order)),
        max_turns=dump.max_turns,
        gamma=dump.gamma,
        correct_reward=dump.reward.correct,
    )
    origin = {"trainer": "TritonForge", "form": dump.form, "file": file.name, "sha256": dump.digest, "notes": list(dump.notes)}
    config = OmegaConf.to_yaml(OmegaConf.create({"imported": origin, "reward": asdict(dump.reward)}))
    with open_run(Path("runs"), info, config, {"imported": origin}) as store:
        for episode in dump.episodes:
            store.save_problem(episode.problem)
            for turn in episode.turns:
                store.save_turn(episode.problem, episode.sample, turn)
            store.end_episode(episode)
        results, report = store.write_results(), write_report(store)
        store.write_status(status(results.summary, dump.episodes, None))
    turns = sum(len(episode.turns) for episode in dump.episodes)
    print(f"{len(dump.episodes)} trajectories with {turns} turns, as another trainer judged them: nothing was verified here")
    for note in dump.notes:
        print(note)
    print(report)
    return 0


def export(name: str, directory: Path, turn: str) -> int:
    """Write a run's files for KernelBench's scripts, and print what those will say."""
    levels = export_run(RunReader(run_directory(name)), directory, turn)
    console = Console(highlight=False, soft_wrap=True)
    table = Table(
        "level", "asked", "correct", *(f"{p:g}" for p in THRESHOLDS), "mean", title="fast_p", box=SIMPLE, padding=(0, 1, 0, 0)
    )
    for found in levels:
        mean = "-" if found.geometric_mean is None else f"{found.geometric_mean:.2f}x"
        shares = (f"{share:.3f}" for share in found.fast_p.values())
        table.add_row(str(found.level), str(found.problems), str(found.correct), *shares, mean)
    console.print(table)
    for found in levels:
        if found.unscored:
            console.print(f"level {found.level}: {found.unscored} problems have no score; KernelBench counts them as failures")
        if found.untimed:
            console.print(f"level {found.level}: {found.untimed} correct kernels have no time, and count in no fast_p")
    console.print(
        f"written to {escape(str(directory))}: eval_results_dir={escape(str(directory))} run_name=level_L level=L "
        f"baseline_file={escape(str(directory))}/baseline.json"
    )
    return 0

"""A run as KernelBench's own evaluation leaves one, so that its scripts read it.

    DIRECTORY/
      baseline.json                              {"level1": {"1_Name.py": {mean, std, min, max, ...}}}: `baseline_file=`
      level_1/eval_results.json                  {"1": [{sample_id, compiled, correctness, metadata, runtime, runtime_stats}]}
      level_1/level_1_problem_1_sample_0_kernel.py

with `eval_results_dir=DIRECTORY run_name=level_1 level=1`. Of each episode one turn counts. Times are milliseconds.

A problem has one baseline there, and one here each time that a candidate was timed beside it. So `baseline.json` has the one in
the middle, and a `runtime` is that over the speedup: the ratio that the scripts take is the speedup that was measured in pairs.
What was read for the candidate itself is in `runtime_stats`. The scripts leave out problems without a baseline, which would make a
run look better than it is; so those that none was measured for (no kernel was correct) are there with 0.
"""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_env.errors import ConfigError
from kernel_env.remote.kernelbench import runtime_stats
from kernel_env.schema import Episode, Stats, Turn
from rollout.documents import best_turn, episode_order
from rollout.durable import write_file
from rollout.metrics import THRESHOLDS, fast_p
from rollout.store import RunReader

TURNS = ("best", "first", "last")


@dataclass(frozen=True)
class Level:
    """What one level's files say."""

    level: int
    problems: int
    """That the run asked for."""
    correct: int
    unscored: int
    """Sample 0 of so many problems has no score: they are in no file, and KernelBench counts them as failures."""
    untimed: int
    """Correct without a time."""
    fast_p: Mapping[float, float]
    """Of sample 0 of every problem."""
    geometric_mean: float | None
    """Of the speedups of those that were timed."""


def export(reader: RunReader, directory: Path, which: str = "best") -> list[Level]:
    """Write the files. Raises ConfigError where the directory holds something, or the run nothing to export."""
    if which not in TURNS:
        raise ConfigError(f"turn={which}: choose one of {', '.join(TURNS)}")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigError(f"{directory} is there already and not empty: export into a new directory")
    episodes = reader.load_episodes()
    if not episodes:
        raise ConfigError(f"{reader.path}: no episode has ended yet, so there is nothing to export")
    hardware = _hardware(reader.environment)
    chosen = [(episode, turn) for episode in episodes if (turn := _chosen(episode, which)) is not None]
    baselines = _baselines(chosen)
    asked = [episode_order(key) for key in reader.info.asked]
    levels = []
    for level in sorted({level for level, _, _ in asked}):
        mine = [(episode, turn) for episode, turn in chosen if episode.problem.level == level]
        _write_level(directory / f"level_{level}", mine, baselines, hardware)
        levels.append(_summary(level, {problem_id for at, problem_id, _ in asked if at == level}, mine))
    _write(directory / "baseline.json", _baseline_file(_names(reader, asked), baselines, hardware))
    return levels


def _chosen(episode: Episode, which: str) -> Turn | None:
    """The turn that counts, if one was scored."""
    scored = [turn for turn in episode.turns if turn.reward.value is not None]
    if which == "best":
        index = best_turn(episode)
        return None if index is None else episode.turns[index]
    return (scored[0] if which == "first" else scored[-1]) if scored else None


def _names(reader: RunReader, asked: Sequence[tuple[int, int, int]]) -> dict[tuple[int, int], str]:
    """File names by level and id, of the problems that were begun."""
    found = {}
    for level, problem_id in sorted({(level, problem_id) for level, problem_id, _ in asked}):
        with contextlib.suppress(ConfigError):
            found[level, problem_id] = f"{problem_id}_{reader.load_problem(f'level{level}_problem{problem_id}').name}.py"
    return found


def _baselines(chosen: Sequence[tuple[Episode, Turn]]) -> dict[str, Stats]:
    """By problem: the one whose median is in the middle."""
    seen: dict[str, list[Stats]] = {}
    for episode, turn in chosen:
        if turn.verdict.timing:
            seen.setdefault(episode.problem.key, []).append(turn.verdict.timing.baseline)
    return {key: sorted(stats, key=lambda s: s.median_ms)[(len(stats) - 1) // 2] for key, stats in seen.items()}


def _write_level(folder: Path, chosen: Sequence[tuple[Episode, Turn]], baselines: Mapping[str, Stats], hardware: str) -> None:
    results: dict[str, list[Any]] = {}
    for episode, turn in chosen:
        problem = episode.problem
        results.setdefault(str(problem.problem_id), []).append(_entry(episode, turn, baselines.get(problem.key), hardware))
        if turn.code is not None:
            name = f"level_{problem.level}_problem_{problem.problem_id}_sample_{episode.sample}_kernel.py"
            _write(folder / name, turn.code)
    _write(folder / "eval_results.json", results)


def _entry(episode: Episode, turn: Turn, baseline: Stats | None, hardware: str) -> dict[str, Any]:
    verdict, timing = turn.verdict, turn.verdict.timing
    metadata: dict[str, Any] = {"hardware": hardware, "device": "cpu", "status": verdict.status.value, "turn": turn.index}
    if not verdict.correct:
        metadata |= {"category": verdict.category, "error": verdict.message}
    return {
        "sample_id": episode.sample,
        "compiled": verdict.compiled,
        "correctness": verdict.correct,
        "metadata": metadata,
        "runtime": baseline.median_ms / timing.speedup if timing and baseline else -1.0,
        "runtime_stats": runtime_stats(timing.runtime, hardware) if timing else {},
    }


def _baseline_file(names: Mapping[tuple[int, int], str], baselines: Mapping[str, Stats], hardware: str) -> dict[str, Any]:
    """The scripts divide by `mean`; it is the median here."""
    found: dict[str, dict[str, Any]] = {}
    for (level, problem_id), name in names.items():
        stats = baselines.get(f"level{level}_problem{problem_id}")
        row = (
            {**runtime_stats(stats, hardware), "mean": stats.median_ms}
            if stats
            else {"mean": 0.0, "num_trials": 0, "hardware": hardware}
        )
        found.setdefault(f"level{level}", {})[name] = row
    return found


def _summary(level: int, asked: set[int], chosen: Sequence[tuple[Episode, Turn]]) -> Level:
    first = {episode.problem.problem_id: turn.verdict for episode, turn in chosen if episode.sample == 0}
    right = [verdict for verdict in first.values() if verdict.correct]
    speedups = [first[number].speedup if number in first else None for number in asked]
    untimed = sum(verdict.timing is None for verdict in right)
    shares = {p: fast_p(speedups, p) for p in THRESHOLDS}
    known = [speedup for speedup in speedups if speedup is not None]
    mean = statistics.geometric_mean(known) if known else None
    return Level(level, len(asked), len(right), len(asked - first.keys()), untimed, shares, mean)


def _hardware(environment: Mapping[str, Any]) -> str:
    return str(environment.get("cpu") or "unknown CPU")


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_file(path, text.encode(), durable=False)

"""The export for KernelBench's scripts: files, which turn counts, and that those scripts say what we say."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import ConfigError
from kernel_env.problems import load_problems
from kernel_env.schema import Episode, Problem, Status, StopReason
from rollout.cli import main
from rollout.export import export
from rollout.metrics import THRESHOLDS, fast_p
from rollout.store import RunReader
from tests.sample_run import open_sample, problem, save, solved, turn


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def run_with(root: Path, *episodes: Episode, asked: tuple[str, ...] | None = None) -> RunReader:
    with open_sample(root, asked or tuple(episode.key for episode in episodes)) as store:
        for episode in episodes:
            save(store, episode)
        path = store.path
    return RunReader(path)


def ended(posed: Problem, status: Status, speedup: float | None = None, sample: int = 0) -> Episode:
    reward = None if status is Status.NEEDS_DEVICE else 1.0 if status is Status.CORRECT else 0.0
    stop = StopReason.UNSCORED if reward is None else StopReason.TURN_LIMIT
    return Episode(posed, sample, (turn(0, status, reward, speedup=speedup, posed=posed),), stop)


def test_each_level_is_a_run_of_kernelbench(tmp_path: Path) -> None:
    two = problem(3, level=2)
    reader = run_with(tmp_path, solved(), solved(sample=3), ended(two, Status.BUILD_ERROR))
    export(reader, tmp_path / "out")
    results = read(tmp_path / "out/level_1/eval_results.json")
    assert [entry["sample_id"] for entry in results["1"]] == [0, 3]
    first = results["1"][0]
    assert (first["compiled"], first["correctness"], first["metadata"]["turn"]) == (True, True, 2)
    baseline = read(tmp_path / "out/baseline.json")
    assert baseline["level1"]["1_P1.py"]["mean"] / first["runtime"] == pytest.approx(2.5)
    assert first["runtime_stats"]["mean"] == 2.0 and first["runtime_stats"]["hardware"] == "two cores"
    (failed,) = read(tmp_path / "out/level_2/eval_results.json")["3"]
    assert (failed["compiled"], failed["correctness"], failed["runtime"]) == (False, False, -1.0)
    assert failed["metadata"]["status"] == "build_error" and failed["metadata"]["error"]
    assert baseline["level2"]["3_P3.py"] == {"mean": 0.0, "num_trials": 0, "hardware": "two cores"}
    kernel = tmp_path / "out/level_1/level_1_problem_1_sample_3_kernel.py"
    assert kernel.read_text() == solved().turns[2].code


@pytest.mark.parametrize(("which", "index"), [("best", 2), ("first", 0), ("last", 2)])
def test_one_turn_of_an_episode_counts(which: str, index: int, tmp_path: Path) -> None:
    export(run_with(tmp_path, solved()), tmp_path / "out", which)
    (entry,) = read(tmp_path / "out/level_1/eval_results.json")["1"]
    assert entry["metadata"]["turn"] == index


def test_what_is_not_scored_is_no_result_and_still_counts_as_a_problem(tmp_path: Path) -> None:
    asked = ("level1_problem1", "level1_problem2", "level1_problem9")
    reader = run_with(tmp_path, ended(problem(1), Status.NEEDS_DEVICE), ended(problem(2), Status.CORRECT, 1.6), asked=asked)
    (level,) = export(reader, tmp_path / "out")
    assert list(read(tmp_path / "out/level_1/eval_results.json")) == ["2"]
    assert (level.problems, level.correct, level.unscored, level.untimed) == (3, 1, 2, 0)
    assert level.fast_p == pytest.approx({0.0: 1 / 3, 0.5: 1 / 3, 0.8: 1 / 3, 1.0: 1 / 3, 1.5: 1 / 3, 2.0: 0.0})


def test_a_correct_kernel_without_a_time_counts_in_no_fast_p(tmp_path: Path) -> None:
    (level,) = export(run_with(tmp_path, ended(problem(), Status.CORRECT)), tmp_path / "out")
    assert (level.correct, level.untimed, level.geometric_mean, set(level.fast_p.values())) == (1, 1, None, {0.0})


def test_samples_of_a_problem_have_one_baseline_and_their_own_speedups(tmp_path: Path) -> None:
    speedups = [0.5, 3.0, 1.25]
    export(run_with(tmp_path, *(ended(problem(), Status.CORRECT, s, n) for n, s in enumerate(speedups))), tmp_path / "out")
    entries = read(tmp_path / "out/level_1/eval_results.json")["1"]
    mean = read(tmp_path / "out/baseline.json")["level1"]["1_P1.py"]["mean"]
    assert [mean / entry["runtime"] for entry in entries] == pytest.approx(speedups)


def test_nothing_is_overwritten_and_nothing_is_exported_of_nothing(tmp_path: Path) -> None:
    reader = run_with(tmp_path, solved())
    (tmp_path / "out").mkdir()
    export(reader, tmp_path / "out")
    with pytest.raises(ConfigError, match="not empty"):
        export(reader, tmp_path / "out")
    with pytest.raises(ConfigError, match="turn=worst: choose one of best, first, last"):
        export(reader, tmp_path / "other", "worst")
    with pytest.raises(ConfigError, match="no episode has ended"):
        export(run_with(tmp_path / "empty", asked=("level1_problem1",)), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_fast_p_with_worked_numbers() -> None:
    speedups = [None, 0.4, 0.9, 1.0, 1.6, 2.0, 8.0, None]
    assert [fast_p(speedups, p) for p in (0, 0.5, 1, 1.5, 2)] == [6 / 8, 5 / 8, 3 / 8, 3 / 8, 1 / 8]
    with pytest.raises(ValueError, match="no problem"):
        fast_p([], 1)


def test_the_command_prints_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reader = run_with(tmp_path, solved(), ended(problem(2), Status.NEEDS_DEVICE))
    assert main(["export", str(reader.path), str(tmp_path / "out"), "turn=last"]) == 0
    out = capsys.readouterr().out
    assert "fast_p" in out and "2.50x" in out and "level 1: 1 problems have no score" in out
    for arguments in (["export", str(reader.path)], ["export", "a", "b", "turns=last"]):
        assert main(arguments) == 2
    assert capsys.readouterr().err.count("usage: kernel-env export RUN DIRECTORY") == 2


# ------------------------------------------------------------------ KernelBench's own script


def random_episode(posed: Problem, rng: random.Random) -> Episode:
    kind = rng.choice([Status.CORRECT, Status.CORRECT, Status.WRONG_OUTPUT, Status.BUILD_ERROR, Status.NEEDS_DEVICE])
    return ended(posed, kind, rng.lognormvariate(0.2, 0.8) if kind is Status.CORRECT else None)


@pytest.mark.external
@pytest.mark.parametrize("level", [1, 3])
def test_kernelbenchs_own_script_prints_the_same(checkout: Path, level: int, tmp_path: Path) -> None:
    """Needs the packages pydra-config, tabulate and python-dotenv, as the script does."""
    rng = random.Random(level)
    problems = [p for p in load_problems("kernelbench", checkout) if p.level == level]
    reader = run_with(tmp_path, *(random_episode(posed, rng) for posed in problems))
    (ours,) = export(reader, tmp_path / "out")
    theirs = analysed(checkout, tmp_path / "out", level)
    assert theirs["total_count"] == ours.problems and theirs["correct_count"] == ours.correct
    assert {float(p): share for p, share in theirs["fast_p"].items()} == pytest.approx(ours.fast_p)
    assert set(ours.fast_p) == set(THRESHOLDS)
    assert theirs["geo_mean_speedup"] == pytest.approx(ours.geometric_mean)


def analysed(checkout: Path, out: Path, level: int) -> Mapping[str, Any]:
    command = [
        sys.executable, "scripts/benchmark_eval_analysis.py", f"run_name=level_{level}", f"level={level}", "hardware=here",
        "baseline=ours", f"baseline_file={out}/baseline.json", f"eval_results_dir={out}", f"output_file={out}/analysis.json",
    ]  # fmt: skip
    (out / "litellm.py").write_text("completion = None  # imported by KernelBench, and of no use here\n")
    path = os.pathsep.join([str(checkout / "src"), str(out), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(command, cwd=checkout, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    found: Mapping[str, Any] = read(out / "analysis.json")
    return found

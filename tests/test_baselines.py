"""Baselines from KernelBench's files: when they may be used, and what a verdict says then."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kernel_env.baselines import against_baseline, baseline_of, check_baselines
from kernel_env.errors import ConfigError
from kernel_env.referee.config import VerifyConfig
from kernel_env.roofline import hardware
from kernel_env.schema import Problem, Stage, Stats, Status, Timing, Verdict
from rollout.cli import main
from tests.conftest import DATA

POSED = Problem(1, 3, "Softmax", "source")
ROW = {"mean": 8.0, "std": 0.5, "min": 7.5, "max": 9.0, "num_trials": 100, "hardware": hardware(), "device": "cpu"}


def config(path: Path, rows: Any = None, **more: Any) -> VerifyConfig:
    path.write_text(json.dumps(rows if rows is not None else {"level1": {"3_Softmax.py": ROW}}))
    return VerifyConfig(baseline=str(path), **more)


def timed(runtime_ms: float = 4.0) -> Verdict:
    stats = Stats(runtime_ms, runtime_ms * 1.1, 0.1, runtime_ms / 2, runtime_ms * 2, 30)
    timing = Timing(stats, Stats(6.0, 6.0, 0.1, 5.0, 7.0, 30), 1.5, 1.35, 1.8)
    return Verdict(Status.CORRECT, Stage.DONE, POSED.key, "p", "c", "cpp", trials=5, trials_passed=5, timing=timing)


def test_the_files_time_counts_and_the_candidates_own(tmp_path: Path) -> None:
    timing = against_baseline(timed(), POSED, config(tmp_path / "b.json")).timing
    assert timing is not None
    assert (timing.speedup, timing.runtime.median_ms) == (2.0, 4.0)
    assert timing.baseline == Stats(8.0, 8.0, 0.5, 7.5, 9.0, 100)
    assert (timing.speedup_low, timing.speedup_high) == pytest.approx((1.8, 2.4)), "as well known as the session found"
    assert timing.baseline_kind == f"from a file, {hardware()}"


def test_what_has_no_time_stays_as_it_is(tmp_path: Path) -> None:
    wrong = replace(timed(), status=Status.WRONG_OUTPUT, stage=Stage.TRIALS, timing=None, trials_passed=0)
    assert against_baseline(wrong, POSED, config(tmp_path / "b.json")) is wrong
    eager = timed()
    assert against_baseline(eager, POSED, VerifyConfig()) is eager


def test_other_hardware_is_refused_unless_it_is_wanted(tmp_path: Path) -> None:
    rows = {"level1": {"3_Softmax.py": {**ROW, "hardware": "NVIDIA H100 80GB HBM3"}}}
    with pytest.raises(ConfigError, match="was measured on NVIDIA H100 80GB HBM3, and this is "):
        check_baselines(config(tmp_path / "b.json", rows), [POSED])
    asked = config(tmp_path / "b.json", rows, baseline_of_other_hardware=True)
    assert baseline_of(asked, POSED).hardware == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("posed", "complaint"),
    [
        (replace(POSED, problem_id=4, name="Other"), "has no time for level1/4_Other.py"),
        (replace(POSED, profile="cpu", overrides={"N": 3}), "posed in profile cpu, which changed its sizes"),
        (replace(POSED, precision="bf16"), "posed in precision bf16"),
    ],
)
def test_a_time_of_another_problem_is_refused(posed: Problem, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        check_baselines(config(tmp_path / "b.json"), [POSED, posed])


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "not a file of times"),
        ({"level1": {"3_Softmax.py": {"mean": 2.0}}}, "no 'min'"),
        ({"level1": {"3_Softmax.py": {**ROW, "mean": "fast"}}}, "not a file of times"),
        ({"levels": {"3_Softmax.py": ROW}}, "not a file of times"),
        ({"level1": {"3_Softmax.py": {**ROW, "mean": 0.0}}}, "has no time for level1/3_Softmax.py"),
    ],
)
def test_a_file_that_is_none_is_one_clear_line(rows: Any, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint) as caught:
        check_baselines(config(tmp_path / "b.json", rows), [POSED])
    assert "\n" not in str(caught.value)


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    first = baseline_of(config(tmp_path / "b.json"), POSED).stats.mean_ms
    second = baseline_of(config(tmp_path / "b.json", {"level1": {"3_Softmax.py": {**ROW, "mean": 8.5}}}), POSED).stats.mean_ms
    assert (first, second) == (8.0, 8.5)


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data beside the checkout")
@pytest.mark.parametrize("name", ["baseline_time_torch.json", "baseline_time_torch_compile_inductor_default.json"])
def test_kernelbenchs_own_files_are_read(name: str) -> None:
    asked = VerifyConfig(baseline=str(DATA / "baselines/H100_Modal" / name), baseline_of_other_hardware=True)
    assert baseline_of(asked, replace(POSED, problem_id=1)).stats.count == 100


def test_the_commands_use_it_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["problems.ids=1", "problems.levels=1", "verifier.clock=recorded", f"run.root={tmp_path}", "run.name=r"]
    assert main(["eval", f"verify.baseline={tmp_path}/none.json", *options]) == 2
    assert "neither `eager` nor a file that can be read" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
    assert main(["eval", *options]) == 0 and main(["export", f"{tmp_path}/r", f"{tmp_path}/out"]) == 0
    slower = json.loads((tmp_path / "out/baseline.json").read_text())
    slower["level1"]["1_TanhGelu.py"] |= {"mean": 40.0, "max": 40.0}
    (tmp_path / "b.json").write_text(json.dumps(slower))
    assert main(["eval", *options[:-1], "run.name=s", f"verify.baseline={tmp_path}/b.json"]) == 0
    (episode,) = json.loads((tmp_path / "s/results.json").read_text())["problems"].values()
    assert episode["baseline_runtime"] == 40.0 and episode["turn_rewards"][-1] == 3.0

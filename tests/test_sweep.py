"""Sweeps: which cells there are, that each stands for itself, and that none is ever played twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from stamina.instrumentation import set_on_retry_hooks

from rollout import policies as back_ends
from rollout.cli import main
from rollout.durable import DirectoryLock
from rollout.health import Health, read_status
from rollout.monitor import Monitor, monitor
from rollout.sweep import plan_sweep
from tests.chat_server import ChatServer
from tests.conftest import sampled
from tests.kill_harness import Harness, Target, compare_trees, stamps
from tests.sweep_scene import COMMAND, WRAPPER, break_compiler, furnish, policies

HERE = ("problems=jsonl", "problems.path=problems.jsonl", "verifier.clock=recorded", "run.seed=1", "run.name=s")
ALLOWED = (*HERE, "run.allow_zero=true")
DEAD = ("policy=openai", "policy.model=m", "policy.base_url=http://127.0.0.1:9/v1", "policy.attempts=1", "policy.wait_s=0.01")


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: two problems, and recorded policies."""
    furnish(tmp_path, "abNM", problems=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def multirun(*overrides: str) -> int:
    return main(["eval", "--multirun", *overrides])


def names(*overrides: str) -> list[str]:
    return [cell.info.name for cell in plan_sweep(overrides).cells]


def keys(*overrides: str) -> dict[str, str]:
    """By what was chosen."""
    return {" ".join(cell.info.chosen.values()): cell.info.key for cell in plan_sweep(overrides).cells}


# ------------------------------------------------------------------ which cells there are


@pytest.mark.parametrize(
    ("override", "values"),
    [
        ("rollout.max_turns=1,3", ["max_turns=1", "max_turns=3"]),
        ("rollout.max_turns=range(1,4)", ["max_turns=1", "max_turns=2", "max_turns=3"]),
        ("sampling.temperature=choice(0,0.5)", ["temperature=0", "temperature=0.5"]),
        ("problems.levels=[1,2],3", ["levels=1,2", "levels=3"]),
        ("preset=glob(*,exclude=full)", ["preset=balanced", "preset=quick"]),
        ("policy.model='a/b','c d'", ["model=a-b", "model=c-d"]),
    ],
)
def test_values_mean_what_they_mean_to_hydra(scene: Path, override: str, values: list[str]) -> None:
    assert [name.rpartition("-")[0] for name in names(*HERE, override)] == values


def test_a_sweep_of_one_is_one_cell_known_by_its_key(scene: Path) -> None:
    (cell,) = plan_sweep(HERE).cells
    assert cell.info.name == cell.info.key


def test_a_cell_is_the_same_however_its_command_says_it(scene: Path) -> None:
    three = keys(*HERE, "rollout.max_turns=1,2,3")
    assert len(set(three.values())) == 3
    assert keys("rollout.max_turns=2,1", "rollout.concurrency=3", "display.quiet=true", *HERE) == {n: three[n] for n in ("2", "1")}
    (alone,) = plan_sweep([*HERE, "rollout.max_turns=3"]).cells
    assert alone.info.key == three["3"], "a value that is not swept is a value like any other"


def test_what_cannot_change_a_result_makes_cells_only_where_it_is_swept(scene: Path) -> None:
    assert len(set(keys(*HERE, "rollout.concurrency=1,2").values())) == 2
    assert keys(*HERE, "rollout.concurrency=1", "rollout.gamma=0,1") == keys(*HERE, "rollout.concurrency=2", "rollout.gamma=0,1")


def test_two_options_of_one_name_are_told_apart(scene: Path) -> None:
    (first, *_) = names(*HERE, "sampling.seed=1,2", "run.seed=3,4")
    assert first.startswith("run.seed=3,sampling.seed=1-"), "Hydra keeps an option where it first was"


MODELS = """
# two of ours
org/small
org/large-base    # never asked
/checkpoints/step-100 policy.base_url=http://localhost:1/v1 "problems.levels=[1,2]"
"""


def test_models_of_a_list_are_cells_with_options_of_their_own(scene: Path) -> None:
    (scene / "models.txt").write_text(MODELS)
    cells = plan_sweep([*HERE, "policy=openai", "models=models.txt", "exclude=*-base", "sampling.temperature=0,1"]).cells
    found = [(cell.settings.policy.model, cell.settings.sampling.temperature, cell.settings.problems.levels) for cell in cells]
    assert found == [
        ("org/small", 0.0, None), ("/checkpoints/step-100", 0.0, [1, 2]),
        ("org/small", 1.0, None), ("/checkpoints/step-100", 1.0, [1, 2]),
    ]  # fmt: skip
    assert cells[1].settings.policy.base_url == "http://localhost:1/v1"
    assert [cell.info.name.rpartition("-")[0] for cell in cells[:2]] == [
        "temperature=0,model=org-small", "temperature=0,model=checkpoints-step-100",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["rollout.max_turns=1,1"], "(rollout.max_turns=1) and (rollout.max_turns=1) are the same run"),
        (["run.name=a,b"], "run.name is the whole sweep's: give it one value"),
        (["sweep.jobs=1,2"], "sweep.jobs is the whole sweep's"),
        (["policy.api_key=a,b"], "policy.api_key is the whole sweep's"),
        (["rollout.gamma=interval(0,1)"], "does not support sweep type"),
        (["hydra/launcher=joblib"], "hydra.* cannot be set here: sweep.launcher says where runs go"),
        (["sweep.launcher=joblib"], "sweep.launcher=joblib: choose local with sweep.jobs=N"),
        (["sweep.launcher=submitit"], "sweep.launcher=submitit: choose slurm"),
        (["run.name=a/b"], "run.name 'a/b' is not a plain folder name"),
        (["models=none.txt"], "models=none.txt cannot be read"),
        (["models=replies/list.txt", "exclude=*"], "models=replies/list.txt: no model is left"),
        (["models=replies/list.txt", "exclude=x"], "exclude=x excludes no model of replies/list.txt"),
        (["verifier.clock_path=none.json"], "cannot read the recorded clock none.json"),
        (["problems.category=matmull"], "problems.category=matmull: choose one of"),
    ],
)
def test_a_sweep_that_cannot_be_meant_is_refused_before_anything_runs(
    scene: Path, overrides: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (scene / "replies/list.txt").write_text("m\n")
    assert multirun(*HERE, *policies("a").split(), *overrides) == 2
    out, err = capsys.readouterr()
    assert says in err + out
    assert not list(scene.glob("runs/*/*/run.json"))


def test_a_sweep_does_not_mix_with_a_run_of_its_name(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said_nothing = (*ALLOWED, policies("N"), "problems.ids=1")
    assert main(["eval", *said_nothing, "run.name=one"]) == 0
    assert multirun(*said_nothing, "run.name=one") == 2
    assert multirun(*said_nothing, "run.name=many") == 0
    assert main(["eval", *said_nothing, "run.name=many"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "kernel-env eval: runs/one is a run of its own: choose another run.name for these",
        "kernel-env eval: runs/many holds the runs of a multirun: choose another run.name, or add --multirun",
    ]


# ------------------------------------------------------------------ what they would do


def cells_of(out: str, name: str) -> list[str]:
    """Of the table's row of this name."""
    (row,) = [line for line in out.splitlines() if f" {name} " in line]
    return row.replace(name, "", 1).replace(",", "").split()


def test_a_dry_run_says_what_would_be_and_does_nothing(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept = (*ALLOWED, policies("NM"), "rollout.samples=2", "rollout.max_turns=3")
    assert multirun(*swept, "dry_run=true") == 0
    out = capsys.readouterr().out
    assert cells_of(out, "2 runs")[:6] == ["4", "8", "0", "24", "0", "0"], "recordings cost nothing"
    assert not (scene / "runs").exists()
    assert multirun(*swept) == 0
    capsys.readouterr()
    assert multirun(*swept, "dry_run=true") == 0
    out = capsys.readouterr().out
    assert cells_of(out, "2 runs")[:4] == ["4", "8", "8", "0"] and "those of 16 turns that were played already" in out


def test_a_dry_run_counts_the_longest_replies_until_it_knows_better(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = (*HERE, *DEAD, "run.name=r", "sampling.max_tokens=100", "rollout.max_turns=2", "dry_run=true")
    assert main(["eval", *asked]) == 0
    out = capsys.readouterr().out
    problems, episodes, ended, calls, prompts, replies = map(int, cells_of(out, "r")[:6])
    assert (problems, episodes, ended, calls, replies) == (2, 2, 0, 4, 400)
    assert prompts > 400, "the problem, and in the second turn all that was said before"
    assert "assumed, as there are no turns to learn from" in out


def test_a_cell_that_cannot_be_is_seen_before_it_runs(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept = (*HERE, policies("N"), "problems.ids=77,1")
    for look in ("dry_run=true", "validate=true"):
        assert multirun(*swept, look) == 2
        assert "no problem id 77; there are level 1 (1-2)" in capsys.readouterr().out
    assert not (scene / "runs").exists()


def test_validate_asks_each_endpoint_and_plays_nothing(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (scene / "models.txt").write_text("test-model\ntest-modle\nserved policy.base_url=null policy.serve=vlm\n")
    with ChatServer() as server:
        asked = (*HERE, "policy=openai", f"policy.base_url={server.base_url}", "policy.api_key=k", "models=models.txt")
        assert multirun(*asked, "rollout.gamma=0,1", "validate=true") == 8, "the highest: no such model"
        assert server.requests == [] and server.listings == 3, "no reply is asked for, and nobody is asked twice who answered"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == 2 * ["ok", "fail", "fail"]
    assert "did you mean test-model?" in lines[1] and "policy.serve=vlm: did you mean vllm?" in lines[2]
    assert not (scene / "runs").exists()


def test_validate_says_once_that_nobody_answers(
    scene: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    set_on_retry_hooks(None)  # the library's own, which log a word
    assert multirun(*HERE, "policy=openai", "policy.base_url=http://127.0.0.1:9/v1", "policy.model=a,b", "validate=true") == 6
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["fail", "fail"]
    assert caplog.records == []


def test_what_is_of_several_runs_needs_multirun(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("models=models.txt", "sweep.launcher=slurm"):
        assert main(["eval", option]) == 2
        assert "are of several runs: add --multirun" in capsys.readouterr().err


# ------------------------------------------------------------------ playing them


def test_a_cell_that_fails_stops_no_other_and_the_sweep_fails(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept = (*ALLOWED, policies("N"), "problems.ids=77,1")
    assert multirun(*swept) == 2
    out, err = capsys.readouterr()
    wrong, right = names(*swept)
    assert f"FAILED {wrong}: no problem id 77; there are level 1 (1-2)" in out
    assert err == f"kernel-env eval: 1 of 2 runs failed: runs/s/{wrong} (exit code 2)\n"
    assert (read_status(Path("runs/s", wrong)).exit_code, read_status(Path("runs/s", right)).exit_code) == (2, 0)  # type: ignore[union-attr]
    assert multirun(*swept) == 2, "and again, as long as nobody mends it"
    assert f"complete: {right}" in capsys.readouterr().out


def test_a_sweep_leaves_nothing_but_its_directory(scene: Path) -> None:
    before = {path.name for path in scene.iterdir()}
    assert multirun(*ALLOWED, policies("N"), "problems.ids=1", "rollout.gamma=0,1") == 0
    assert {path.name for path in scene.iterdir()} == {*before, "runs"}
    index = json.loads((scene / "runs/s/sweep.json").read_text())
    assert [cell["chosen"] for cell in index["cells"]] == [{"rollout.gamma": "0"}, {"rollout.gamma": "1"}]
    assert {path.name for path in (scene / "runs/s").iterdir()} == {".lock", "sweep.json", *(c["name"] for c in index["cells"])}


def test_a_cell_is_a_command_of_its_own(scene: Path) -> None:
    """What a job runs is what the sweep runs: either goes on where the other was."""
    swept = (*ALLOWED, policies("N"), "rollout.max_turns=1,2")
    assert multirun(*swept) == 0
    before = stamps(scene / "runs/s")
    for cell in plan_sweep(swept).cells:
        assert main(["eval", *cell.overrides]) == 0
    after = stamps(scene / "runs/s")
    assert {name for name in before if before[name] != after[name]} <= {name for name in before if "/turns/" not in name}
    assert before.keys() == after.keys()


@pytest.mark.parametrize("recorded", sampled(["NM", "ab"], ["NM"]))
def test_cells_that_run_side_by_side_share_a_verifier_and_get_what_they_get_alone(scene: Path, recorded: str) -> None:
    swept = (*ALLOWED, policies(recorded), "rollout.max_turns=1,3")
    assert multirun(*swept) == 0
    shutil.move("runs", "alone")
    assert multirun(*swept, "sweep.jobs=4") == 0
    assert differing(scene / "alone", scene / "runs") == set()


def differing(a: Path, b: Path) -> set[str]:
    """Names of files that differ, but for what says how the sweep was run."""
    return {line.split()[0] for line in compare_trees(a, b, exclude=("config.yaml", "environment.json"))}


def test_a_cell_that_another_process_plays_is_left_to_it(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept = (*ALLOWED, policies("N"))
    (cell,) = plan_sweep(swept).cells
    cell.path.mkdir(parents=True)
    with DirectoryLock(cell.path):
        assert multirun(*swept) == 2
        assert f"another process (pid {os.getpid()}) is writing {cell.path}" in capsys.readouterr().out
        assert {path.name for path in cell.path.iterdir()} == {".lock"}
    assert multirun(*swept) == 0


def test_another_value_runs_only_its_own_cells(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert multirun(*ALLOWED, policies("NM"), "problems.ids=1") == 0
    before = {name: stamp for name, stamp in stamps(scene / "runs/s").items() if "/" in name and not name.endswith(".lock")}
    capsys.readouterr()
    assert multirun(*ALLOWED, policies("MaN"), "problems.ids=1") == 0
    after = stamps(scene / "runs/s")
    assert {name: after[name] for name in before} == before
    assert capsys.readouterr().out.count("complete: ") == 2
    assert len(json.loads((scene / "runs/s/sweep.json").read_text())["cells"]) == 3


def test_a_cell_whose_directory_is_deleted_is_forgotten(scene: Path) -> None:
    swept = (*ALLOWED, policies("NM"), "problems.ids=1")
    assert multirun(*swept) == 0
    gone, kept = names(*swept)
    shutil.rmtree(scene / "runs/s" / gone)
    assert [row.name for row in Monitor(scene / "runs/s").rows()] == [kept]
    assert multirun(*swept) == 0
    assert sorted(row.name for row in Monitor(scene / "runs/s").rows()) == sorted([gone, kept])


# ------------------------------------------------------------------ all of it fails


def broken_compiler(scene: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("PATH", f"{break_compiler(scene)}:{os.environ['PATH']}")
    return [policies("a"), "verifier.cache_dir=cache", "problems.ids=1"]


def dead_server(scene: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return list(DEAD)


def wrong_attribute(scene: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(back_ends, "BACK_ENDS", {"openai": WRAPPER})
    return ["policy=openai", "policy.model=m", "run.canaries=false"]


def empty_answers(scene: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for file in (scene / "replies/a/cpp").iterdir():
        file.write_text("\n")
    return [policies("a")]


@pytest.mark.parametrize(
    ("break_it", "health", "says"),
    [
        (dead_server, Health.FAILED, "the connection failed"),
        (broken_compiler, Health.FAILED, "is not a working GCC"),
        (wrong_attribute, Health.FAILED, "AttributeError: 'Wrapper' object has no attribute 'model_name'"),
        (empty_answers, Health.SUSPECT, "replies were empty"),
    ],
)
def test_a_sweep_in_which_everything_fails_looks_like_it(
    scene: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    break_it: Callable[[Path, pytest.MonkeyPatch], list[str]],
    health: Health,
    says: str,
) -> None:
    swept = (*HERE, *break_it(scene, monkeypatch), "rollout.gamma=0,1")
    assert multirun(*swept) != 0
    for cell in plan_sweep(swept).cells:
        status = read_status(cell.path)
        assert status is not None and status.exit_code != 0
        assert status.health is health and says in status.reason
    capsys.readouterr()
    assert monitor("s", once=True, stuck_s=1800, every_s=1) == 1
    out = capsys.readouterr().out
    assert out.count("SUSPECT") + out.count("FAILED") == 5, "each in the table and below it, and both in the last line"
    assert {row.state.colour for row in Monitor(Path("runs/s")).rows()} == {"red"}


# ------------------------------------------------------------------ killed at any moment


def command(policies: str, samples: int) -> tuple[str, ...]:
    """The sweep of these policies, from a working directory inside of the scene."""
    paths = ",".join(f"../replies/{name}/${{backend.name}}" for name in policies)
    return (*COMMAND, "problems.path=../problems.jsonl", f"rollout.samples={samples}", f"policy.path={paths}")


@pytest.mark.parametrize(
    ("recorded", "problems", "samples", "kills"),
    [
        ("NM", 2, 2, 2),
        pytest.param("ab", 1, 1, 3, marks=pytest.mark.thorough),
        pytest.param("abc", 30, 4, 10, marks=pytest.mark.slow),
    ],
)
def test_a_killed_sweep_resumes_and_ends_as_if_undisturbed_and_another_policy_runs_only_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: str, problems: int, samples: int, kills: int
) -> None:
    furnish(tmp_path, recorded + "Z", problems, samples)
    (tmp_path / "tmp").mkdir()
    env = {"TMPDIR": str(tmp_path / "tmp"), "GIT_DIR": os.devnull}  # see tests/test_resume.py
    killed = (sys.executable, "-m", "kernel_env", *command(recorded, samples))
    harness = Harness(killed, tmp_path, "runs/s", env, final=("*/turns/*.json",), most_changes=8 * problems * samples)
    calm = harness.undisturbed()
    for run in harness.killed(random.Random(kills), kills, Target.COMMAND):
        assert compare_trees(calm.directory, run.directory) == [], run.kills
        assert set(run.exit_codes[:-1]) <= {-signal.SIGKILL}

    monkeypatch.chdir(calm.directory)
    before = stamps(Path("runs/s"))
    assert main(list(command(recorded + "Z", samples))) == 0
    after = stamps(Path("runs/s"))
    kept = {name for name in before if "/" in name}
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    cells = {name.partition("/")[0] for name in after if "/turns/" in name}
    assert len(cells) == 2 * len(recorded + "Z") == 2 + len({name.partition("/")[0] for name in kept})


def test_a_cell_is_named_to_other_commands_by_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name holds `=`, as an option does."""
    from rollout.cli import _split

    cell = tmp_path / "runs" / "sweep" / "max_turns=2,gamma=0.3-3c45c8d438"
    cell.mkdir(parents=True)
    (cell / "run.json").touch()
    monkeypatch.chdir(tmp_path)
    given = [f"sweep/{cell.name}", str(cell), "rollout.max_turns=2"]
    assert _split(given, ()) == (given[:2], given[2:], set())


# ------------------------------------------------------------------ what is complete


def test_an_episode_that_was_deleted_is_played_again(scene: Path) -> None:
    """It is what errors about a damaged file advise."""
    assert multirun(*ALLOWED, policies("N")) == 0
    (cell,) = plan_sweep([*ALLOWED, policies("N")]).cells
    for file in [*cell.path.glob("*/level1_problem1_turn*"), cell.path / "episodes/level1_problem1.json"]:
        file.unlink()
    assert multirun(*ALLOWED, policies("N")) == 0
    assert (cell.path / "episodes/level1_problem1.json").is_file() and monitor("s", once=True, stuck_s=1, every_s=1) == 0


def test_problems_that_changed_are_seen_in_what_is_complete(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert multirun(*ALLOWED, policies("N")) == 0
    problems = scene / "problems.jsonl"
    problems.write_text(problems.read_text().replace("ScaledRelu1", "Another"))
    assert multirun(*ALLOWED, policies("N")) == 2
    assert "level1_problem1 has changed since this run was begun" in " ".join(capsys.readouterr().out.split())


def test_what_is_the_whole_sweeps_is_no_models(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (scene / "models.txt").write_text("a\nb +run.name=mine\n")
    assert multirun(*HERE, "policy=openai", "models=models.txt") == 2
    assert "models=models.txt: run.name is the whole sweep's" in capsys.readouterr().err


def test_an_option_is_the_same_however_it_is_set(scene: Path) -> None:
    assert names(*HERE, "++rollout.concurrency=1,2") == names(*HERE, "rollout.concurrency=1,2")


def test_a_long_name_in_another_script_is_a_directorys(scene: Path) -> None:
    (name, _) = names(*HERE, f"policy.model='{'模' * 120}',b")
    (scene / name).mkdir()

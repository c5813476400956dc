"""`kernel-env arena`: from runs on the disk to files of judgments, here and as jobs, and what it says of them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_env.errors import ConfigError, EndpointUnreachable, GateError, JudgeError
from kernel_env.parsing import extract_kernel
from kernel_env.schema import Status
from rollout import compose
from rollout.arena.batches import CONFIGS, SCRIPTS, read_batches
from rollout.arena.matches import opened, read_matches
from rollout.arena.monitor import Facts, State, judged
from rollout.arena.plan import make_plan
from rollout.arena.play import Count
from rollout.cli import main
from tests.arena_scene import BETTER, DECOY, Made, write_run
from tests.chat_server import ChatServer
from tests.slurm_scene import left_of, serving
from tests.test_recordings import recorded

ROOT = Path("runs")
STATIC = ROOT / "arena/static"


@pytest.fixture(autouse=True)
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A baseline, two models that answered it all, and one that did not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    write_run(ROOT, "base", [Made()] * 3)
    write_run(ROOT, "fast", [Made(2.0, BETTER)] * 3)
    write_run(ROOT, "lazy", [Made(3.0, DECOY), Made(None), Made()])
    write_run(ROOT, "partial", [Made(), None, None])
    return tmp_path


def arena(*words: str) -> int:
    return main(["arena", *words, "arena.baseline=base"])


def scores(model: str, directory: Path = STATIC) -> list[list[str | None]]:
    return [[game.score for game in match.games] for match in read_matches(directory / f"{model}.jsonl").values()]


# ------------------------------------------------------------------ which runs


def chosen(*overrides: str, names: tuple[str, ...] = (), every: bool = False) -> list[str]:
    return [run.info.name for run in make_plan(names, compose.composed(["arena.baseline=base", *overrides])[0], every=every).models]


def test_runs_are_named_or_listed_or_all_that_are_alike(tmp_path: Path) -> None:
    write_run(ROOT, "triton", [Made()] * 3, backend="triton")
    write_run(ROOT, "fewer", [Made()] * 2)
    write_run(ROOT, "level2", [Made()] * 3, level=2)
    write_run(ROOT / "study", "cell", [Made()] * 4)
    (ROOT / "study/sweep.json").write_text('{"schema_version": 1, "cells": [{"key": "1", "name": "cell", "chosen": {}}]}')
    (tmp_path / "models.txt").write_text("# the first two\nfast  # quick\n\nruns/lazy\n")
    assert chosen(names=("lazy", "runs/fast")) == ["lazy", "fast"]
    assert chosen("arena.models=models.txt") == ["fast", "lazy"]
    assert chosen(every=True) == ["fast", "lazy", "partial", "cell"], "also what is not at its end, so that it is seen"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "fast", "--all"], "which runs? Name them, or set arena.models=FILE, or give --all"),
        (["run"], "which runs?"),
        (["run", "nobody"], "no run 'nobody'"),
        (["run", "base"], "base is the baseline"),
        (["run", "fast", "runs/fast"], "have one name"),
        (["run", "arena.models=none.txt"], "arena.models=none.txt cannot be read"),
        (["run", "fast", "--once"], "--once is for `kernel-env arena monitor`"),
        (["rum", "fast"], "did you mean run?"),
        ([], "usage: kernel-env arena"),
        (["--all", "show"], "usage: kernel-env arena"),
        (["run", "fast", "arena.name=a/b"], "is not a plain folder name"),
        (["run", "fast", "arena.batch=0"], "arena.batch must be 1 or more"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert arena(*words) == ConfigError.exit_code
    assert says in capsys.readouterr().err
    assert main(["arena", "run", "fast"]) == ConfigError.exit_code, "against nobody"


# ------------------------------------------------------------------ validate, run


def test_validate_says_who_cannot_be_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert arena("validate", "fast", "lazy") == 0
    assert capsys.readouterr().out.splitlines() == [
        "complete: base, 3 answers, the baseline",
        "complete: fast, 3 answers",
        "complete: lazy, 3 answers",
        "every run can be judged",
    ]
    assert arena("validate", "--all") == 1
    out = capsys.readouterr().out
    assert "refused: partial has no answer to 2 of 3 episodes: level1_problem2 (not played to its end), level1_problem3" in out
    assert out.endswith("1 of 4 runs cannot be judged\n")
    assert main(["arena", "validate", "fast", "arena.baseline=partial"]) == 1


@pytest.mark.parametrize("verb", ["run", "dry-run", "submit"])
def test_a_partial_run_is_judged_by_nobody(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert arena(verb, "fast", "partial") == GateError.exit_code
    assert "partial has no answer to 2 of 3 episodes" in capsys.readouterr().err
    assert not list(ROOT.glob("arena/*/*"))


def test_run_judges_here_and_now_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert arena("run", "fast", "lazy") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "fast: 3 matches, 6 games, 0 without a verdict",
        "lazy: 3 matches, 6 games, 0 without a verdict",
    ]
    assert scores("fast") == [["B>A", "A>B"]] * 3
    assert scores("lazy") == [["A>>B", "B>>A"], ["A>>B", "B>>A"], ["A=B", "A=B"]], "a decoy, a wrong one, the same one"
    before = {path: path.read_bytes() for path in STATIC.glob("*.jsonl")}
    assert arena("run", "lazy", "fast") == 0
    assert capsys.readouterr().out == "complete: nothing is left to judge\n"
    assert {path: path.read_bytes() for path in STATIC.glob("*.jsonl")} == before


def test_games_without_a_verdict_end_it_with_an_error_and_are_asked_for_again(capsys: pytest.CaptureFixture[str]) -> None:
    well: list[bool] = []

    def script(messages: list[dict[str, str]]) -> str:
        return "[[A>B]]" if well or len(server.requests) % 2 else "No."

    with ChatServer(script) as server:
        model = ("arena.judge=llm", "policy=openai", "policy.model=test-model", f"policy.base_url={server.base_url}")
        assert arena("run", "fast", *model) == JudgeError.exit_code
        said = capsys.readouterr()
        assert "fast: 3 matches, 3 games, 3 without a verdict" in said.out
        assert (
            "3 of 6 games have no verdict (no verdict: its final line holds no verdicts: 'No.'); the same command asks" in said.err
        )
        assert arena("monitor", "fast", "--once", *model) == 1
        assert "NULL fast: 3 games have no verdict" in capsys.readouterr().out
        well.append(True)
        assert arena("run", "fast", *model) == 0
        assert len(server.requests) == 9
    assert scores("fast", ROOT / "arena/test-model") == [["A>B", "A>B"]] * 3


def test_a_judge_that_is_never_healthy_ends_it_and_leaves_nothing(
    scene: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts, served = serving(scene, monkeypatch, "--sick", "-1")
    served += ["arena.judge=llm", "policy.serve_start_s=2"]
    assert arena("run", "fast", *served) == EndpointUnreachable.exit_code
    assert "the server was not healthy within 2 s" in capsys.readouterr().err
    assert not list(ROOT.glob("arena/*/*.jsonl"))
    assert facts.exists() and left_of(facts) == []


# ------------------------------------------------------------------ show


def write_recorded() -> None:
    """The recorded kernels as three models, and without their threads and vectors as a baseline."""
    statuses = json.loads((Path(__file__).parent / "data/recorded_statuses.json").read_text())["bundled/cpp"]
    texts = {key: text for key, text in recorded("bundled/cpp").items() if statuses[key] == Status.CORRECT}
    last = {key.rpartition("_")[0]: extract_kernel(text).code or "" for key, text in sorted(texts.items())}
    good = [code for code in last.values() if "#pragma omp" in code]
    plain = [re.sub(r"#pragma omp[^\n]*", "", code) for code in good]
    write_run(ROOT, "plain", [Made(1.0, code) for code in plain])
    write_run(ROOT, "all-slow", [Made(0.5, code) for code in plain])
    write_run(ROOT, "all-fast", [Made(3.0, code) for code in good])
    write_run(ROOT, "half-wrong", [Made(1.0 if number % 2 else None, code) for number, code in enumerate(plain)])


def places(by: str) -> list[str]:
    """Models and baseline, the first in a table first."""
    table = (STATIC / "standings.md").read_text().partition(f"## By the {by}")[2].partition("\n## ")[0]
    return [row.split(" | ")[1].removesuffix(" (baseline)") for row in table.splitlines() if re.match(r"\| \d", row)]


def test_recordings_split_into_three_models_rank_as_they_should_in_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    write_recorded()
    models, baseline = ["all-slow", "half-wrong", "all-fast"], "arena.baseline=plain"
    assert main(["arena", "run", *models, baseline]) == 0
    assert main(["arena", "show"]) == 0
    assert places("judge static")[0] == "all-fast" and places("judge static")[-1] == "half-wrong"
    assert places("clock") == ["all-fast", "plain", "half-wrong", "all-slow"]
    before = {path.name: path.read_bytes() for path in STATIC.glob("standings.*")}
    assert len(before) == 4 and all(name in capsys.readouterr().out for name in models[:1])
    for path in STATIC.glob("*.jsonl"):
        path.unlink()
    assert main(["arena", "run", *reversed(models), baseline]) == main(["arena", "show", "static"]) == 0
    assert {path.name: path.read_bytes() for path in STATIC.glob("standings.*")} == before, "the order changes nothing"


@pytest.mark.parametrize("words", [["show", "static", "other"], ["show", "--all"], ["show", "--once"]])
def test_show_takes_one_judge_and_no_flag(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["arena", *words]) == ConfigError.exit_code
    assert "kernel-env arena" in capsys.readouterr().err


def test_where_nothing_was_judged_there_is_nothing_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["arena", "show"]) == ConfigError.exit_code
    assert "`kernel-env arena run` makes some" in capsys.readouterr().err


# ------------------------------------------------------------------ jobs


def test_dry_run_writes_jobs_of_so_many_models_and_submits_nothing(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [write_run(ROOT, f"m{n}", [Made()] * 3).info.name for n in range(5)]
    options = ("arena.batch=2", "slurm.partition=gpu", "slurm.time=1:00:00", "slurm.setup=module load x")
    assert arena("dry-run", *names, *options) == 0
    out = capsys.readouterr().out
    assert "batch_1: m0, m1\nbatch_2: m2, m3\nbatch_3: m4\n3 jobs are written; `sh runs/arena/static/" in out
    assert [(b.number, b.models, b.job) for b in read_batches(STATIC)] == [
        (1, ("m0", "m1"), None),
        (2, ("m2", "m3"), None),
        (3, ("m4",), None),
    ]
    script = (STATIC / SCRIPTS / "batch_2.sh").read_text()
    told = {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH --")}
    assert told >= {"job-name=arena/static/batch_2", "partition=gpu", "time=1:00:00", "dependency=singleton", "requeue"}
    assert f"output={scene}/runs/arena/static/logs/batch_2_%j.log" in told
    assert "sleep" not in script
    own = ["arena.baseline=base", f"arena.models='runs/arena/static/{CONFIGS}/batch_2.txt'"]
    ended = shlex.split(script.splitlines()[-1])
    assert ended == ["exec", sys.executable, "-P", "-m", "kernel_env", "arena", "run", *options, *own]
    assert (STATIC / "logs").is_dir() and not list(STATIC.glob("*.jsonl"))


def test_a_batch_is_a_command_that_judges_its_models() -> None:
    assert arena("dry-run", "fast", "lazy", "arena.batch=1") == 0
    for number in (1, 2):
        subprocess.run(["bash", str(STATIC / SCRIPTS / f"batch_{number}.sh")], check=True, stdout=subprocess.DEVNULL)
    assert scores("fast") == [["B>A", "A>B"]] * 3 and len(scores("lazy")) == 3


def test_what_is_complete_or_at_work_is_not_submitted_again(
    scene: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(ROOT, "third", [Made()] * 3)
    assert arena("run", "lazy") == 0
    scheduler = Scheduler(scene, monkeypatch)
    assert arena("submit", "fast", "lazy", "third", "arena.batch=1") == 0
    out = capsys.readouterr().out
    assert "complete: lazy\n" in out and "submitted as job 1: batch_1\nsubmitted as job 2: batch_2\n" in out
    scheduler.says(1, "RUNNING")
    scheduler.says(2, "FAILED")
    assert arena("submit", "fast", "lazy", "third") == 0
    out = capsys.readouterr().out
    assert "in job 1: fast\n" in out and "batch_3: third\nsubmitted as job 3: batch_3\n" in out
    assert arena("dry-run", "fast", "third") == 0
    assert [b.job for b in read_batches(STATIC)] == [1, 2, 3]


def test_batches_that_were_never_submitted_are_replaced(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert arena("dry-run", "fast", "lazy", "arena.batch=1") == 0
    Scheduler(scene, monkeypatch)
    assert arena("submit", "fast", "lazy") == 0
    assert [(b.models, b.job) for b in read_batches(STATIC)] == [(("fast", "lazy"), 1)]
    assert not (STATIC / SCRIPTS / "batch_2.sh").exists()


def test_a_scheduler_that_does_not_answer_gets_nothing_twice(
    scene: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler = Scheduler(scene, monkeypatch)
    assert arena("submit", "fast") == 0
    scheduler.gone()
    assert arena("submit", "fast") == 4
    assert "the scheduler does not answer" in capsys.readouterr().err


def test_without_slurm_it_is_said_what_to_do(
    scene: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(scene))
    assert arena("submit", "fast") == ConfigError.exit_code
    assert (
        "there is no command `sbatch` here: run `sh runs/arena/static/generated_judgment_scripts/submit.sh`"
        in capsys.readouterr().err
    )


def test_a_key_is_not_written_into_a_job(scene: Path) -> None:
    assert arena("dry-run", "fast", "arena.judge=llm", "policy=openai", "policy.model=m", "policy.api_key=a-secret") == 2
    assert not [path for path in scene.rglob("*") if path.is_file() and "a-secret" in path.read_text()]


class Scheduler:
    """Programs `sbatch` and `squeue` that count jobs, and say of each what they are told."""

    def __init__(self, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = scene / "slurm-bin"
        self._folder.mkdir()
        (self._folder / "queue").touch()
        self._program("sbatch", 'n=$(($(wc -l < "${0%/*}/queue") + 1)); echo "$n|PENDING" >> "${0%/*}/queue"; echo $n')
        self._program("squeue", 'cat "${0%/*}/queue"')
        self._program("sacct", "exit 1")
        monkeypatch.setenv("PATH", f"{self._folder}:{os.environ['PATH']}")

    def says(self, job: int, word: str) -> None:
        queue = self._folder / "queue"
        queue.write_text(re.sub(rf"(?m)^{job}\|.*$", f"{job}|{word}", queue.read_text()))

    def gone(self) -> None:
        self._program("squeue", "exit 1")

    def _program(self, name: str, text: str) -> None:
        (self._folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (self._folder / name).chmod(0o755)


# ------------------------------------------------------------------ monitor

NEW = Facts(asked=3, answers=3)
HALF = replace(NEW, count=Count(2, 4, 0))
WHOLE = replace(NEW, count=Count(3, 6, 0))
NULLS = replace(NEW, count=Count(3, 5, 1, "no answer"))


@pytest.mark.parametrize(
    ("facts", "state", "says"),
    [
        (WHOLE, State.OK, ""),
        (replace(WHOLE, job=1, word="FAILED"), State.OK, ""),
        (replace(NEW, answers=2, word="RUNNING"), State.PARTIAL, "its run has answered 2 of 3 episodes"),
        (replace(HALF, process=17), State.RUNNING, ""),
        (replace(NEW, process=17), State.RUNNING, ""),
        (replace(HALF, word="RUNNING"), State.RUNNING, ""),
        (replace(NEW, word="RUNNING"), State.WAITING, ""),
        (replace(NULLS, word="RUNNING"), State.RUNNING, ""),
        (replace(HALF, word="RUNNING", quiet_s=101), State.STUCK, "nothing has come of its job for 2 min, at 2 of 3 matches"),
        (replace(NEW, word="PENDING"), State.WAITING, ""),
        (replace(HALF, word="UNKNOWN"), State.STUCK, "the scheduler does not answer"),
        (NULLS, State.NULL, "1 games have no verdict (no answer): the same command asks again"),
        (replace(HALF, job=9, word="TIMEOUT"), State.STOPPED, "the scheduler says TIMEOUT of job 9, at 2 of 3 matches"),
        (replace(NEW, job=9), State.STOPPED, "nobody is at it, at 0 of 3 matches"),
    ],
)
def test_a_model_is_well_if_its_file_is_whole(facts: Facts, state: State, says: str) -> None:
    found, why = judged(facts, stuck_s=100)
    assert found is state
    assert says in why and bool(why) == bool(says)


@pytest.mark.parametrize("state", State)
def test_what_needs_a_look_is_red_and_comes_first(state: State) -> None:
    assert state.wrong is (state.colour == "red") is (list(State).index(state) < list(State).index(State.RUNNING))


def test_monitor_sees_who_plays_a_model_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    STATIC.mkdir(parents=True)
    with opened(STATIC / "fast.jsonl", {}):
        assert arena("monitor", "fast", "--once") == 0
    assert "1 model: 1 running" in capsys.readouterr().out
    assert arena("monitor", "fast", "--once") == 1
    assert "STOPPED fast: nobody is at it, at 0 of 3 matches: the same command goes on" in capsys.readouterr().out


def test_a_cell_of_a_sweep_is_judged_and_can_be_the_baseline() -> None:
    for name in ("model=a-1", "model=b-2"):
        write_run(ROOT / "study", name, [Made(1.0, BETTER)] * 3)
    assert main(["arena", "run", "study/model=a-1", "fast", "arena.baseline='study/model=b-2'"]) == 0
    assert scores("model=a-1") == scores("fast") == [["A=B", "A=B"]] * 3


def test_monitor_shows_a_line_a_model_and_the_worst_first(
    scene: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scheduler = Scheduler(scene, monkeypatch)
    write_run(ROOT, "broken", [Made()] * 3)
    assert arena("submit", "lazy") == 0
    assert arena("run", "fast") == 0
    (STATIC / "broken.jsonl").write_text("{}\n")
    capsys.readouterr()
    assert arena("monitor", "--all", "--once") == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    table = [line.split() for line in out.splitlines() if re.match(r"\s+\S+ +\S+ +\d+/\d+", line)]
    assert table == [
        ["DAMAGED", "broken", "0/0", "0/0", "0/0", "0"],
        ["PARTIAL", "partial", "1/3", "0/3", "0/6", "0"],
        ["waiting", "lazy", "3/3", "0/3", "0/6", "0", "1", "PENDING"],
        ["ok", "fast", "3/3", "3/3", "6/6", "0"],
    ]
    assert "PARTIAL partial: its run has answered 1 of 3 episodes: resume that first" in out
    assert out.splitlines()[-1] == "4 models: 1 DAMAGED, 1 PARTIAL, 1 waiting, 1 ok; 0 games without a verdict"
    scheduler.says(1, "COMPLETED")
    assert arena("monitor", "lazy", "--once") == 1, "the scheduler says that all is well, and nothing was judged"
    assert arena("monitor", "fast", "--once") == 0

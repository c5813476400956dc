"""The command line as users type it, mostly wrong: one clear line on stderr, never a traceback, and its exit code."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kernel_env.sandbox import Layer
from kernel_env.schema import Candidate, Verdict, from_json
from rollout import compose
from rollout.reference import options
from tests.chat_server import Behaviour, ChatServer, Reply, refuse
from tests.conftest import GOOD, REFERENCE, python_candidate

BAD = python_candidate("return extension.scaled_relu(x, 1.9)")
QUICK = (
    "verify.num_correct_trials=1", "verify.num_perf_trials=5", "verify.timing_budget_s=0.05", "verify.timing_precision=10",
    "verify.noise_limit=10",
)  # fmt: skip
RECORDED = ("verifier.clock=recorded", "verify.num_correct_trials=1")


@dataclass(frozen=True)
class Done:
    """One command that ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on stderr."""
        assert self.err.count("\n") == 1 and self.err.endswith("\n"), self.err
        return self.err.strip()


Command = Callable[..., Done]


def started_in(folder: Path, *arguments: str) -> Done:
    environment = {**os.environ, "COLUMNS": "200"}
    command = [sys.executable, "-m", "kernel_env", *arguments]
    done = subprocess.run(command, capture_output=True, cwd=folder, env=environment, timeout=120)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture
def kernel_env(tmp_path: Path) -> Command:
    """`kernel_env("eval", ...)` runs the command in an empty folder that holds `problems.jsonl` and recorded replies."""
    furnish(tmp_path)
    return lambda *arguments: started_in(tmp_path, *arguments)


def furnish(folder: Path) -> None:
    lines = [
        {"label": REFERENCE, "extra_info": {"level": 1, "problem_id": str(number), "problem_name": f"ScaledRelu{number}"}}
        for number in (1, 2)
    ]
    (folder / "problems.jsonl").write_text("\n".join(map(json.dumps, lines)))
    replies = folder / "replies"
    replies.mkdir()
    (replies / "level1_problem1_turn0.txt").write_text(f"```python\n{BAD}```\n")
    (replies / "level1_problem1_turn1.txt").write_text(f"```python\n{GOOD}```\n")
    (replies / "level1_problem2_turn0.txt").write_text("no code\n")
    times = {Candidate(GOOD, "cpp").digest: [2.0, 3.0]}
    (folder / "times.json").write_text(json.dumps(times))


OURS = ("problems=jsonl", "problems.path=problems.jsonl")
REPLAYED = (*OURS, "policy.path=replies", *RECORDED, "verifier.clock_path=times.json", "run.seed=1", "run.allow_zero=true")

# ------------------------------------------------------------------ wrong input

WRONG: list[tuple[str, str]] = [
    ("evla", "kernel-env evla: unknown command 'evla'; `kernel-env --help` lists all; did you mean eval"),
    ("eval stray", "'stray' is not an option: write NAME=VALUE, e.g. problems=bundled rollout.max_turns=3"),
    ("eval =3", "'=3' is not an option"),
    ("eval -x", "'-x' is not an option"),
    ("eval --frobnicate", "unknown flag --frobnicate: there are --multirun and options as NAME=VALUE"),
    ("replay r --json", "unknown flag --json: there are options as NAME=VALUE"),
    ("eval rollout.max_turn=3", "unknown option rollout.max_turn: did you mean rollout.max_turns?"),
    ("eval rolout=default", "unknown option rolout: did you mean rollout?"),
    ("eval seed=3", "unknown option seed: did you mean run.seed or sampling.seed?"),
    ("eval nonsense=1", "unknown option nonsense; `kernel-env eval --help` lists all"),
    ("eval xyzzy=3", "unknown option xyzzy; `kernel-env eval --help` lists all"),
    ("eval +foo=3", "unknown field foo"),
    ("eval rollout.max_turns=abc", "rollout.max_turns: Value 'abc' of type 'str' could not be converted to Integer"),
    ("eval rollout.max_turns=", "rollout.max_turns: Value '' of type 'str' could not be converted to Integer"),
    ("eval rollout.max_turns=0", "rollout.max_turns must be 1 or more, got 0"),
    ("eval rollout.gamma=2", "rollout.gamma must be between 0 and 1, got 2.0"),
    (
        "eval rollout.history=forgotten",
        "rollout.history=forgotten: choose one of accumulate, restated, last-turn-only, strip-thinking",
    ),
    ("eval rollout=3", "Config group override must be a string"),
    ("eval display=3", "display: Invalid type assigned"),
    ("eval verify.timeout_s=-1", "verify.timeout_s must be above 0, got -1.0"),
    ("eval verify.tolerance=lax", "verify.tolerance=lax: choose one of strict, kernelbench, "),
    ("eval verify.memory_limit_mb=-1", "verify.memory_limit_mb must be 0 or more, got -1"),
    ("eval rollout.max_turns=[1,2", "cannot read 'rollout.max_turns=[1,2': put a value with special characters in quotes"),
    ("eval run.name=${nothing}", "run.name: Interpolation key 'nothing' not found"),
    ("eval run.name=a/b", "run.name 'a/b' is not a plain folder name"),
    ("eval problems=mine", "problems=mine: choose one of bundled, huggingface, jsonl, kernelbench"),
    ("eval reward=sead", "reward=sead: choose one of dr-kernel, kevin, seed, tritonforge"),
    ("eval backend.name=cudda", "unknown back end 'cudda': did you mean 'cuda'?"),
    ("eval verifier.kind=magic", "verifier.kind=magic: choose process or inprocess"),
    ("eval problems.ids=99", "no problem id 99; there are level 1 (1-"),
    ("eval problems.names=*Flux*", "no problem named *Flux*; there are level 1 (1-"),
    ("eval problems.limit=0", "problems.limit=0: at least 1, or null for all"),
    ("eval problems.path=x.jsonl", "bundled problems have no path"),
    ("eval problems=jsonl", "problems.path is missing: jsonl needs the file to read"),
    ("eval problems=jsonl problems.path=x.jsonl", "x.jsonl: cannot be read (No such file or directory)"),
    ("eval problems=kernelbench problems.path=.", "no level1/1_Name.py there"),
    ("eval problems.overrides.level1_problem1.NONE=3", "no integer constant 'NONE' at module level"),
    ("eval policy.path=nowhere", "no recordings (level1_problem1_turn0.txt, ...) at nowhere"),
    ("eval policy=openai", "policy.model is missing: set it to the model's name at the endpoint"),
    ("eval policy=openai policy.model=m policy.base_url=ftp://x", "policy.base_url 'ftp://x' is not an http(s) URL"),
    ("eval policy=openai policy.model=m", "no API key for https://api.openai.com/v1: set OPENAI_API_KEY"),
    ("eval verifier.clock=recorded verifier.clock_path=none.json", "cannot read the recorded clock none.json"),
    ("eval verifier.clock=recorded verifier.clock_path=problems.jsonl", "problems.jsonl is not a recorded clock"),
    ("eval --multirun rollout.max_turns=1,abc", "rollout.max_turns: Value 'abc' of type 'str' could not be converted"),
    ("eval --multirun rollout.gamma=0.4,2", "rollout.gamma must be between 0 and 1, got 2.0"),
    ("replay nowhere", "no run 'nowhere': neither nowhere nor runs/nowhere holds a run.json"),
    ("report nowhere", "no run 'nowhere': neither nowhere nor runs/nowhere holds a run.json"),
    ("replay", "usage: kernel-env replay RUN [PROBLEM [TURN]]"),
    ("report", "usage: kernel-env report RUN"),
    ("doctor now", "usage: kernel-env doctor"),
    ("verify 1/1", "usage: kernel-env verify PROBLEM FILE"),
    ("verify 1/1 none.py", "cannot read the candidate none.py: No such file or directory"),
    ("verify 1/1 replies", "cannot read the candidate replies: Is a directory"),
    ("verify 9/1 times.json", "no problem '9/1'; there are level 1 (1-"),
    ("verify TanhGellu times.json", "); did you mean TanhGelu"),
]


@pytest.mark.parametrize(("command", "says"), WRONG, ids=[command for command, _ in WRONG])
def test_wrong_input_is_one_line_and_exit_code_2(kernel_env: Command, tmp_path: Path, command: str, says: str) -> None:
    done = kernel_env(*command.split())
    assert done.code == 2
    assert done.out == ""
    assert done.line.startswith(f"kernel-env {command.split()[0]}: ")
    assert says in done.line
    assert not (tmp_path / "runs").exists(), "nothing is made before the input is right"


def test_several_levels_need_brackets_unless_each_is_a_run_of_its_own(kernel_env: Command) -> None:
    done = kernel_env("eval", "problems.levels=1,2")
    assert done.code == 2
    assert done.line == (
        "kernel-env eval: problems.levels=1,2 gives several values: "
        "write 'problems.levels=[1,2]' for a list, or add --multirun for one run each"
    )


def test_a_malformed_line_is_named_and_can_be_left_out(kernel_env: Command, tmp_path: Path) -> None:
    with (tmp_path / "problems.jsonl").open("a") as file:
        file.write('\n{"label": "x =')
    done = kernel_env("eval", *REPLAYED)
    assert done.code == 2
    assert done.line.startswith("kernel-env eval: problems.jsonl, line 3: not JSON: ")
    assert done.line.endswith("; mend it, or set problems.skip_bad_lines=true")
    mended = kernel_env("eval", *REPLAYED, "problems.skip_bad_lines=true", "problems.ids=2")
    assert mended.code == 0
    assert mended.line.startswith("problems.jsonl: skipped 1 of 3 lines; first: line 3: not JSON: ")


@pytest.mark.parametrize(
    ("given", "code", "says"),
    [
        (["policy.base_url=http://127.0.0.1:9/v1", "policy.model=m"], 6, "the connection failed"),
        (["policy.model=test-model", "policy.api_key=wrong-secret"], 7, "set OPENAI_API_KEY or policy.api_key"),
        (["policy.model=test-modle", "policy.api_key=right"], 8, "did you mean test-model?"),
    ],
)
def test_an_endpoint_that_cannot_work_is_one_line_and_a_code_of_its_own(
    kernel_env: Command, tmp_path: Path, given: list[str], code: int, says: str
) -> None:
    with ChatServer(api_key="right") as server:
        done = kernel_env("eval", "policy=openai", f"policy.base_url={server.base_url}", "policy.wait_s=0.01", *given)
    assert done.code == code
    assert says in done.line
    assert "wrong-secret" not in done.err + done.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("replies", "code", "says"),
    [
        (refuse(401, "Incorrect API key"), 7, "none of 1 episodes was scored: authentication_failed: "),
        ("", 9, "all 1 replies were empty: check policy.model and its chat template"),
        (Reply("<think>Hm, ", "length"), 10, "all 1 replies ended at the token limit while still thinking: "),
    ],
)
def test_what_a_list_of_models_does_not_show_has_a_code_of_its_own_in_the_end(
    kernel_env: Command, tmp_path: Path, replies: Behaviour, code: int, says: str
) -> None:
    given = ["policy=openai", "policy.model=test-model", "policy.wait_s=0.01", "run.canaries=false", "run.name=r", "problems.ids=1"]
    with ChatServer([replies]) as server:
        done = kernel_env("eval", *OURS, *given, f"policy.base_url={server.base_url}", "rollout.max_turns=1", "display.quiet=true")
    assert done.code == code
    assert done.err.splitlines()[-1].startswith(f"kernel-env eval: {says}")
    assert json.loads((tmp_path / "runs/r/status.json").read_text())["exit_code"] == code


# ------------------------------------------------------------------ help


def test_without_a_command_the_help_is_shown_and_the_code_is_2(kernel_env: Command) -> None:
    bare, asked, of_verify = kernel_env(), kernel_env("--help"), kernel_env("verify", "--help")
    assert (bare.code, asked.code, of_verify.code) == (2, 0, 0)
    assert bare.out == asked.out == of_verify.out
    assert all(f"kernel-env {name}" in asked.out for name in ("eval", "verify", "replay", "report", "doctor"))
    assert asked.err == ""


def test_the_help_of_eval_lists_every_option_with_its_meaning(kernel_env: Command) -> None:
    done = kernel_env("eval", "--help")
    assert done.code == 0
    for option in options():
        assert f"  {option.name}={option.default}\n      " in done.out, f"{option.name} is listed with its default and a text"


SEED_004 = {
    "--levels": "problems.levels",
    "--max-problems": "problems.limit",
    "--start-from": "problems.start_from",
    "--run-name": "run.name",
    "--max-turns": "rollout.max_turns",
    "--gamma": "rollout.gamma",
    "--timeout": "verify.timeout_s",
}


def test_every_option_of_the_multi_turn_script_exists_here() -> None:
    assert set(SEED_004.values()) <= {option.name for option in options()}
    given = [
        "problems.levels=[1,2]", "problems.limit=50", "problems.start_from=11", "run.name=debug", "rollout.max_turns=2",
        "rollout.gamma=0.5", "verify.timeout_s=30", "verifier=inprocess", "rollout.history=restated",
    ]  # fmt: skip
    chosen, _ = compose.composed(given)
    assert (chosen.problems.levels, chosen.problems.limit, chosen.problems.start_from) == ([1, 2], 50, 11)
    assert (chosen.run.name, chosen.rollout.max_turns, chosen.rollout.gamma, chosen.verify.timeout_s) == ("debug", 2, 0.5, 30.0)
    assert (chosen.verifier.kind, chosen.rollout.history) == ("inprocess", "restated")  # --no-subprocess, --no-native-template
    defaults, _ = compose.composed([])
    assert (defaults.rollout.max_turns, defaults.rollout.gamma, defaults.verify.timeout_s) == (3, 0.4, 60.0)
    assert (defaults.verifier.kind, defaults.rollout.history) == ("process", "accumulate")


def test_options_that_hold_names_of_the_users_own_can_be_given() -> None:
    chosen, text = compose.composed(
        ["problems.overrides={level1_problem1:{N:64}}", "problems.overrides.level1_problem2.M=8", "policy.extra_body={top_k:20}"]
    )
    assert chosen.problems.overrides == {"level1_problem1": {"N": 64}, "level1_problem2": {"M": 8}}
    assert chosen.policy.extra_body == {"top_k": 20}
    assert "top_k: 20" in text


def test_the_key_is_never_part_of_the_stored_configuration() -> None:
    chosen, text = compose.composed(["policy.api_key=a-secret"])
    assert chosen.policy.api_key == "a-secret"
    assert "a-secret" not in text and "api_key" not in text


def test_a_reader_that_leaves_early_is_no_traceback(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "kernel_env", "eval", "--help"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, cwd=tmp_path, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


# ------------------------------------------------------------------ eval, replay, report


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `kernel-env eval ... run.name=r` has run: one problem wrong, then correct; one without code."""
    folder = tmp_path_factory.mktemp("finished")
    furnish(folder)
    done = started_in(folder, "eval", *REPLAYED, "run.name=r", "rollout.samples=2")
    assert (done.code, done.err) == (0, "")
    assert "level1_problem1    turn 0  wrong_output  reward 0.10  output has wrong values: " in done.out
    assert "level1_problem1    turn 1  correct       reward 1.50  1.50x (2.000 ms, baseline 3.000 ms)" in done.out
    assert "2 of 4 episodes correct, 0 solved early, 6 turns, best speedup 1.50x" in done.out
    assert done.out.endswith("report: runs/r/reports/MULTI_TURN_REPORT.md\n")
    return folder


def test_the_same_command_again_changes_nothing(finished: Path) -> None:
    before = {path: path.read_bytes() for path in (finished / "runs/r").rglob("*") if path.is_file()}
    done = started_in(finished, "eval", *REPLAYED, "run.name=r", "rollout.samples=2")
    assert (done.code, done.err) == (0, "")
    assert done.out.count("(from the run directory)") == 6
    assert {path: path.read_bytes() for path in (finished / "runs/r").rglob("*") if path.is_file()} == before


def test_other_settings_under_the_same_name_are_refused(finished: Path) -> None:
    done = started_in(finished, "eval", *REPLAYED, "run.name=r", "rollout.samples=2", "rollout.max_turns=2")
    assert done.code == 2
    assert done.line == (
        "kernel-env eval: runs/r was begun with other settings (rollout.max_turns 3 -> 2): choose another run.name"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("runs/r",), 6),
        pytest.param(("r", "level1_problem1_sample1"), 2, marks=pytest.mark.thorough),
        (("r", "1/1", "1"), 2),
        pytest.param(("r", "level1_problem1"), 4, marks=pytest.mark.thorough),
    ],
)
def test_replay_agrees_with_a_fresh_run(finished: Path, arguments: tuple[str, ...], expected: int) -> None:
    done = started_in(finished, "replay", *arguments)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0] == f"verifying again: r, {expected} of its turns"
    assert done.out.count("  agrees  ") == expected
    assert "level1_problem1_sample1 turn 1  agrees  correct  speedup 1.50x [1.47, 1.53], was 1.50x [1.47, 1.53]" in done.out
    assert done.out.endswith(f"{expected} of {expected} turns agree\n")
    timed = done.out.count("  speedup ")
    assert done.out.splitlines()[-2] == f"speedups: {timed} of {timed} intervals overlap"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("r", "9/9"), "no problem '9/9'; there are level 1 (1-2)"),
        (("r", "1/1", "7"), "level1_problem1 has 2 turns, none with index 7 (the first is 0)"),
        (("r", "1/1", "first"), "TURN is a number from 0, got 'first'"),
        (("r", "rollout.max_turns=2"), "only verifier.* can be changed, not rollout.max_turns=2"),
        (("r", "verifier.slots=many"), "verifier.slots"),
    ],
)
def test_replay_says_what_is_not_in_the_run(finished: Path, arguments: tuple[str, ...], says: str) -> None:
    done = started_in(finished, "replay", *arguments)
    assert done.code == 2
    assert says in done.line


@pytest.mark.parametrize(
    ("factor", "code", "said"),
    [
        (1.03, 0, "speedups: 1 of 1 intervals overlap"),
        (1.3, 0, "speedups: 0 of 1 intervals overlap, 1 more when each is widened by 25%"),
        (1.7, 1, "  differs  speedup was "),
    ],
)
def test_replay_says_how_far_times_lie_apart(finished: Path, tmp_path: Path, factor: float, code: int, said: str) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "runs/r/turns/level1_problem1_sample1_turn1.json"
    document = json.loads(path.read_text())
    for name in ("speedup", "speedup_low", "speedup_high"):
        document["record"]["verdict"]["timing"][name] *= factor
    path.write_text(json.dumps(document))
    done = started_in(tmp_path, "replay", "r", "level1_problem1_sample1", "1")
    assert done.code == code and said in done.out, done.out


def test_replay_shows_where_a_recorded_turn_differs(kernel_env: Command, tmp_path: Path) -> None:
    assert kernel_env("eval", *REPLAYED, "run.name=r", "problems.ids=1").code == 0
    change(tmp_path / "runs/r/turns/level1_problem1_turn0.json", status="runtime_error", category="ValueError")
    change(tmp_path / "runs/r/environment.json", cpu="abacus")
    done = kernel_env("replay", "r")
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[1].startswith(
        "level1_problem1    turn 0  differs  status was runtime_error (ValueError), is wrong_output (values): output has wrong"
    )
    assert lines[2].startswith("level1_problem1    turn 1  agrees")
    assert lines[3] == "what changed since the run was made:"
    assert lines[4].startswith("  cpu: abacus -> ")
    assert lines[-1] == "1 of 2 turns agree"


def change(path: Path, **fields: str) -> None:
    """Set fields of a turn's verdict, or of a plain JSON object."""
    document = json.loads(path.read_text())
    target = document["record"]["verdict"] if "record" in document else document
    assert fields.keys() <= target.keys()
    target.update(fields)
    path.write_text(json.dumps(document))


def test_a_damaged_run_is_one_line(kernel_env: Command, tmp_path: Path) -> None:
    assert kernel_env("eval", *REPLAYED, "run.name=r", "problems.ids=2").code == 0
    (tmp_path / "runs/r/turns/level1_problem2_turn0.json").write_text("{")
    for command in (("replay", "r"), ("report", "r"), ("eval", *REPLAYED, "run.name=r", "problems.ids=2")):
        done = kernel_env(*command)
        assert done.code == 2
        assert "runs/r/turns/level1_problem2_turn0.json is damaged" in done.line


def test_report_writes_the_same_report_again(finished: Path) -> None:
    report = finished / "runs/r/reports/MULTI_TURN_REPORT.md"
    before = report.read_text()
    report.unlink()
    done = started_in(finished, "report", "r")
    assert (done.code, done.out, done.err) == (0, "runs/r/reports/MULTI_TURN_REPORT.md\n", "")
    assert report.read_text() == before
    assert "# Multi-turn report: r" in before


def test_multirun_gives_each_combination_a_run_and_goes_on_after_a_failure(kernel_env: Command, tmp_path: Path) -> None:
    done = kernel_env("eval", "--multirun", *REPLAYED, "run.name=m", "problems.ids=77,1", "rollout.max_turns=1,2")
    assert done.code == 2, "the worst of all cells"
    cells = {path.name.rpartition("-")[0]: path for path in (tmp_path / "runs/m").iterdir() if path.is_dir()}
    assert sorted(cells) == [f"ids={ids},max_turns={turns}" for ids in (1, 77) for turns in (1, 2)]
    failed = [f"runs/m/{cells[f'ids=77,max_turns={turns}'].name} (exit code 2)" for turns in (1, 2)]
    assert done.line == f"kernel-env eval: 2 of 4 runs failed: {', '.join(failed)}"
    assert done.out.count("no problem id 77; there are level 1 (1-2)") == 4, "when it happened, and at the end"
    results = [json.loads((cells[f"ids=1,max_turns={turns}"] / "results.json").read_text()) for turns in (1, 2)]
    assert [r["problems"]["level1_problem1"]["num_turns"] for r in results] == [1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"problems.jsonl", "replies", "times.json", "runs"}, "no litter"


def test_a_multirun_without_a_name_is_called_sweep_and_resumes(kernel_env: Command, tmp_path: Path) -> None:
    command = ("eval", "-m", *REPLAYED, "problems.ids=2", "rollout.gamma=0.4,0.5")
    first, again = kernel_env(*command), kernel_env(*command)
    assert (first.code, first.err, again.code, again.err) == (0, "", 0, "")
    names = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "runs/sweep").iterdir() if path.is_dir())
    assert names == ["gamma=0.4", "gamma=0.5"]
    assert again.out.count("complete: ") == 2


# ------------------------------------------------------------------ verify


def test_verify_judges_a_file_for_a_person(kernel_env: Command, tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(GOOD)
    done = kernel_env("verify", "ScaledRelu1", "good.py", *OURS, *QUICK)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "level1_problem1 ScaledRelu1, back end cpp, profile cpu"
    assert lines[1] == "correct, reached stage done"
    assert lines[2].startswith("speedup ") and "95% interval" in lines[2]
    assert lines[3].startswith("reward ")
    assert lines[4].startswith("trials 1 of 1, tolerance strict, verifier process, seed ")


@dataclass(frozen=True)
class File:
    name: str
    content: bytes
    status: str
    says: str
    code: int = 1


JUNK = random.Random(0).randbytes(4096)
FILES = [
    File("good.py", GOOD.encode(), "correct", "", code=0),
    File("bad.py", BAD.encode(), "wrong_output", "output has wrong values"),
    File("reply.txt", f"<think>easy</think>Here:\n```python\n{GOOD}```\n".encode(), "correct", "", code=0),
    File("prose.md", b"I cannot.\n", "no_code", "The reply has no fenced code block."),
    File("cut.txt", f"```python\n{GOOD}".encode(), "truncated", "never closed"),
    File("empty.py", b"", "rejected", "The source compiles no C++"),
    File("empty.txt", b"", "no_code", "The reply is empty."),
    File("junk.py", JUNK, "load_error", ""),
    File("junk.txt", JUNK, "no_code", ""),
    File("huge.py", GOOD.encode() + b"#" * (10 << 20), "rejected", "at most 4,194,304 bytes are accepted"),
    File("huge.txt", b"z" * (10 << 20) + f"\n```python\n{GOOD}```\n".encode(), "correct", "", code=0),
    File("fences.py", f'"""\n```\n```python\n"""\n{GOOD}'.encode(), "correct", "", code=0),
]


MORE = ("reply.txt", "empty.py", "huge.txt", "fences.py")


@pytest.mark.parametrize("file", [pytest.param(f, id=f.name, marks=pytest.mark.thorough if f.name in MORE else ()) for f in FILES])
def test_verify_answers_in_json_whatever_the_file_holds(kernel_env: Command, tmp_path: Path, file: File) -> None:
    (tmp_path / file.name).write_bytes(file.content)
    done = kernel_env("verify", "1/1", file.name, "--json", *OURS, *RECORDED)
    assert (done.code, done.err) == (file.code, "")
    answer: dict[str, Any] = json.loads(done.out)
    verdict = from_json(Verdict, answer["verdict"])
    assert verdict.status == file.status
    assert file.says in verdict.message
    assert (answer["problem"], answer["name"]) == ("level1_problem1", "ScaledRelu1")
    assert (answer["reward"]["value"] >= 1.0) == (file.code == 0)


def test_verify_takes_a_triton_file_for_triton(kernel_env: Command, tmp_path: Path) -> None:
    (tmp_path / "kernel.py").write_text("import triton\n\n\n@triton.jit\ndef kernel(x):\n    pass\n")
    done = kernel_env("verify", "1/1", "kernel.py", *OURS)
    assert done.code == 1
    assert "back end triton" in done.out and "rejected" in done.out


# ------------------------------------------------------------------ doctor


def test_doctor_finds_that_the_main_job_can_run(kernel_env: Command) -> None:
    done = kernel_env("doctor")
    assert (done.code, done.err) == (0, "")
    looked_at = ("processor", "GPU", "compiler", "build cache", "back end cpp", "back end triton")
    for name in (*looked_at, *(f"sandbox {layer}" for layer in Layer)):
        assert f" {name} " in done.out
    assert done.out.endswith("everything that `kernel-env eval` needs here works\n")


def test_doctor_answers_in_json_and_tries_the_endpoint(kernel_env: Command) -> None:
    done = kernel_env(
        "doctor", "--json", "policy=openai", "policy.model=m", "policy.base_url=http://127.0.0.1:9/v1", "policy.wait_s=0.01"
    )
    assert (done.code, done.err) == (1, "")
    answer = json.loads(done.out)
    failed = [finding for finding in answer["findings"] if finding["level"] == "fail"]
    assert [finding["name"] for finding in failed] == ["policy openai"]
    assert "the connection failed" in failed[0]["text"]
    assert answer["environment"]["packages"]["torch"]

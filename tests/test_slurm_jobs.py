"""On a real SLURM of one node: what becomes of jobs that go well, fail, or are cancelled, killed, or out of time.

They need `sbatch` and a SLURM that answers: `eval "$(tests/local_slurm.sh start)"`, then `make test-slurm`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernel_env.errors import InfraError
from rollout import slurm
from rollout.cli import main
from rollout.health import read_status
from rollout.monitor import Monitor, Row, State
from rollout.store import RunReader
from tests.chat_server import ChatServer, Slow
from tests.slurm_scene import ENDED, PATIENCE_S, left_of, require_slurm, serving
from tests.sweep_scene import WRAPPER, break_compiler, furnish, policies

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

HERE = (
    "problems=jsonl", "problems.path=problems.jsonl", "verifier.clock=recorded", "verify.num_correct_trials=1", "run.seed=1",
    "run.name=s", "sweep.launcher=slurm",
)  # fmt: skip


def multirun(*overrides: str) -> int:
    return main(["eval", "--multirun", *overrides])


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A scene on a machine with SLURM; whatever jobs are left of the test are cancelled."""
    require_slurm()
    furnish(tmp_path, "ab", problems=2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield tmp_path
    for file in tmp_path.glob("runs/*/*/slurm/job_id"):
        subprocess.run(["scancel", file.read_text().strip()], check=False)


def rows() -> dict[str, Row]:
    return {row.name: row for row in Monitor(Path("runs/s")).rows()}


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"not {what} after {PATIENCE_S:g} s: {rows()}; {logs()}"
        time.sleep(0.2)


def logs() -> str:
    return "\n".join(path.read_text()[-2000:] for path in Path("runs/s").glob("*/slurm/*.log"))


def all_over() -> bool:
    return all(row.facts.word in (None, *ENDED) for row in rows().values())


def test_cells_are_jobs_and_a_repeated_command_submits_nothing(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept = (*HERE, policies("ab"), "run.allow_zero=true")
    assert multirun(*swept) == 0
    assert capsys.readouterr().out.count("submitted as job ") == 2
    assert multirun(*swept) == 0
    assert "submitted" not in capsys.readouterr().out, "they are queued, or run"
    wait_until(all_over, "over")
    assert {row.state for row in rows().values()} == {State.OK}, logs()
    assert multirun(*swept) == 0
    assert capsys.readouterr().out.count("complete: ") == 2
    assert main(["monitor", "s", "--once"]) == 0


MODELS = """
dead    policy.scheme=openai policy.base_url=http://127.0.0.1:9/v1 policy.attempts=1
empty   policy.path=replies/a/cpp
broken  policy.path=replies/b/cpp problems.ids=2 verifier.cache_dir=cache
wrapper policy.scheme=vllm run.canaries=false
"""


def test_jobs_that_fail_in_every_episode_fail(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dead endpoint, empty replies, a compiler that compiles nothing, and a policy with a fault."""
    for file in (cluster / "replies/a/cpp").iterdir():
        file.write_text("\n")
    monkeypatch.setenv("PATH", f"{break_compiler(cluster)}:{os.environ['PATH']}")
    fault = f"import rollout.policies as policies\npolicies.BACK_ENDS = {{**policies.BACK_ENDS, 'vllm': '{WRAPPER}'}}\n"
    (cluster / "sitecustomize.py").write_text(fault)
    monkeypatch.setenv("PYTHONPATH", f"{cluster}:{os.environ['PYTHONPATH']}")
    (cluster / "models.txt").write_text(MODELS)
    assert multirun(*HERE, "models=models.txt") == 0
    wait_until(all_over, "over")
    found = {row.name.removeprefix("model=").partition("-")[0]: row for row in rows().values()}
    assert {row.facts.word for row in found.values()} == {"FAILED"}, "a failing cell is a failing job"
    assert {row.state.colour for row in found.values()} == {"red"}
    assert found.keys() == {"dead", "empty", "broken", "wrapper"} and all(row.facts.status for row in found.values()), logs()
    assert (found["dead"].state, found["empty"].state) == (State.FAILED, State.SUSPECT)
    assert "'Wrapper' object has no attribute 'model_name'" in found["wrapper"].note
    capsys.readouterr()
    assert main(["monitor", "s", "--once"]) == 1
    out = capsys.readouterr().out
    assert "the connection failed" in out and "replies were empty" in out


def test_a_job_whose_server_never_becomes_healthy_fails_and_leaves_nothing(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts, served = serving(cluster, monkeypatch, "--sick", "-1")
    assert multirun(*HERE, *served, "policy.serve_start_s=5") == 0
    wait_until(all_over, "over")
    (row,) = rows().values()
    assert (row.state, row.facts.word) == (State.FAILED, "FAILED")
    assert "the server was not healthy within 5 s" in row.note
    assert left_of(facts) == []


def cancelled(row: Row) -> None:
    subprocess.run(["scancel", str(slurm.job_number(Path("runs/s", row.name)))], check=True)


def killed(row: Row) -> None:
    """As the kernel does where there is no memory left."""
    assert row.facts.process is not None
    os.kill(row.facts.process, signal.SIGKILL)


@pytest.mark.parametrize(("end", "word"), [(cancelled, "CANCELLED"), (killed, "FAILED")])
def test_a_job_that_is_ended_leaves_no_process_and_is_gone_on_with(
    cluster: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[Row], None],
    word: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts, served = serving(cluster, monkeypatch, "--sick", "-1")
    swept = (*HERE, *served, "policy.serve_start_s=600")
    assert multirun(*swept) == 0
    wait_until(facts.exists, "serving")
    (row,) = rows().values()
    assert row.state is State.RUNNING
    end(row)
    wait_until(all_over, "over")
    wait_until(lambda: not left_of(facts), "rid of its server")
    (row,) = rows().values()
    assert (row.state, row.facts.word) == (State.STOPPED, word), "it has not ended, and says so"
    assert read_status(Path("runs/s", row.name)) is None
    capsys.readouterr()
    assert multirun(*swept) == 0
    assert "submitted as job " in capsys.readouterr().out


def test_a_job_whose_time_is_up_is_shown_as_that(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts, served = serving(cluster, monkeypatch, "--sick", "-1")
    assert multirun(*HERE, *served, "slurm.time=1", "slurm.warning_s=0") == 0
    wait_until(all_over, "over")
    (row,) = rows().values()
    assert (row.state, row.facts.word) == (State.STOPPED, "TIMEOUT")
    assert "the scheduler says TIMEOUT" in row.note
    wait_until(lambda: not left_of(facts), "rid of its server")


def warned(number: int) -> None:
    """As SLURM does it before the time limit."""
    subprocess.run(["scancel", "--signal=USR1", "--batch", str(number)], check=True)


def preempted(number: int) -> None:
    """By a job that wants the whole node for a moment."""
    urgent = ["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=true"]
    subprocess.run(urgent, check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("interrupt", [warned, preempted])
def test_a_job_that_is_interrupted_is_queued_again_and_goes_on(cluster: Path, interrupt: Callable[[int], None]) -> None:
    """The second turn's reply would come in ten minutes, and comes at once when it is asked for again."""
    later: list[bool] = []

    def script(messages: list[dict[str, str]]) -> str | Slow:
        return "no code" if len(messages) == 2 or later else Slow("no code", 600)

    with ChatServer(script) as server:
        served = ("policy=openai", "policy.model=test-model", f"policy.base_url={server.base_url}", "run.canaries=false")
        assert multirun(*HERE, *served, "problems.ids=1", "rollout.max_turns=2", "run.allow_zero=true") == 0
        wait_until(lambda: len(server.requests) == 2, "asked")
        (row,) = rows().values()
        number = slurm.job_number(Path("runs/s", row.name))
        assert number is not None and row.state is State.RUNNING
        later.append(True)
        interrupt(number)
        wait_until(lambda: next(iter(rows().values())).state is State.WAITING, "queued again")
        subprocess.run(["scontrol", "update", f"jobid={number}", "StartTime=now+3"], check=True)  # else in two minutes
        wait_until(lambda: next(iter(rows().values())).state is State.OK, "over")
        assert len(server.requests) == 3, "the finished turn is not asked for again"
    (episode,) = RunReader(Path("runs/s", row.name)).load_episodes()
    assert len(episode.turns) == 2


def test_a_job_that_slurm_does_not_take_is_an_error(cluster: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert multirun(*HERE, policies("a"), "slurm.partition=nowhere") == InfraError.exit_code
    assert "not submitted: " in capfd.readouterr().err
    assert {row.state for row in rows().values()} == {State.STOPPED}

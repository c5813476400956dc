"""The monitor: what it makes of what it finds, and that it believes nobody alone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_env.schema import Episode, StopReason
from rollout import monitor as monitoring
from rollout.cells import opened_sweep
from rollout.cli import main
from rollout.documents import CellInfo, summarize
from rollout.durable import lock_holder
from rollout.health import Health, RunStatus, fault, status
from rollout.monitor import Counts, Facts, Monitor, State, Watched, judged, monitor
from rollout.store import RunStore
from tests.sample_run import ASKED, open_sample, problem, save, solved

OK = RunStatus(1, Health.OK, 0, "", asked=3, scored=2, policy_failures=1)
SUSPECT = replace(OK, health=Health.SUSPECT, exit_code=11, reason="none was ever correct")
FAILED = RunStatus(1, Health.FAILED, 6, "no answer")
ENDED = Facts(asked=3, ended=3, status=OK)
BEGUN = Facts(asked=3)
NEW = Facts()


@pytest.mark.parametrize(
    ("facts", "state", "says"),
    [
        (ENDED, State.OK, ""),
        (replace(ENDED, word="COMPLETED"), State.OK, ""),
        (replace(ENDED, word="FAILED"), State.FAILED, "status.json says ok, the scheduler FAILED"),
        (replace(ENDED, asked=4), State.SUSPECT, "ok of 2 of 3 episodes, but 3 of 4 have ended"),
        (replace(ENDED, ended=2), State.SUSPECT, "ok of 2 of 3 episodes, but 2 of 3 have ended"),
        (replace(ENDED, status=replace(OK, scored=3)), State.SUSPECT, "ok of 3 of 3 episodes"),
        (replace(ENDED, status=replace(OK, scored=0, not_run=2)), State.SUSPECT, "ok of 0 of 3 episodes"),
        (replace(ENDED, status=SUSPECT, word="COMPLETED"), State.SUSPECT, "none was ever correct"),
        (replace(NEW, status=FAILED, word="FAILED"), State.FAILED, "no answer"),
        (replace(BEGUN, word="COMPLETED"), State.STOPPED, "the scheduler says COMPLETED, and it has not ended"),
        (replace(BEGUN, word="TIMEOUT"), State.STOPPED, "the scheduler says TIMEOUT"),
        (BEGUN, State.STOPPED, "nobody is at it, and it has not ended: the same command resumes"),
        (NEW, State.STOPPED, "nobody is at it, and it has not begun"),
        (replace(BEGUN, awaited=True), State.STOPPED, "it has not ended"),
        (replace(NEW, awaited=True), State.WAITING, ""),
        (replace(NEW, word="PENDING", status=FAILED), State.WAITING, "queued"),
        (replace(NEW, word="RUNNING"), State.RUNNING, "starting"),
        (replace(BEGUN, process=17), State.RUNNING, ""),
        (replace(BEGUN, process=17, quiet_s=101), State.STUCK, "nothing has come of it for 2 min"),
        (replace(NEW, word="RUNNING", quiet_s=101), State.STUCK, "nothing has come of it"),
        (replace(ENDED, word="UNKNOWN"), State.STUCK, "the scheduler does not answer"),
        (replace(BEGUN, word="UNKNOWN"), State.STUCK, "the scheduler does not answer"),
        (replace(BEGUN, word="UNKNOWN", process=17), State.RUNNING, ""),
        (replace(ENDED, word="UNKNOWN", status=SUSPECT), State.SUSPECT, "none was ever correct"),
        (replace(NEW, word="UNKNOWN", status=FAILED), State.FAILED, "no answer"),
    ],
)
def test_a_run_is_well_only_if_everybody_says_so(facts: Facts, state: State, says: str) -> None:
    found, why = judged(facts, stuck_s=100)
    assert found is state
    assert says in why and bool(why) == bool(says)


@pytest.mark.parametrize("state", State)
def test_what_is_wrong_is_red_and_comes_first(state: State) -> None:
    assert state.wrong is (state.colour == "red") is (list(State).index(state) < list(State).index(State.RUNNING))


# ------------------------------------------------------------------ looking


def concluded(store: RunStore) -> None:
    episodes = store.load_episodes()
    summary = summarize(episodes, store.info)
    store.write_status(status(summary, episodes, fault(summary, episodes, allow_zero=False)))


def test_a_run_is_counted_while_it_goes_on(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "r")
    with open_sample(tmp_path) as store:
        save(store, solved())
        store.save_turn(problem(2), 0, replace(solved(problem(2)).turns[0]))
        store.end_episode(Episode(problem(10), 0, (), StopReason.INFRA_ERROR, "verifier: a worker died"))
        facts = watched.look({})
        assert (facts.asked, facts.ended, facts.status) == (len(ASKED), 2, None)
        assert facts.counts == Counts(answers=4, verdicts=4, correct=1, infra_errors=1, no_reply=0)
        assert facts.recent == 2 and facts.left_s is not None and facts.quiet_s < 60
        assert facts.process is not None and judged(facts, 1800) == (State.RUNNING, "")
        store.reopen_failed()
        store.end_episode(Episode(problem(10), 0, (), StopReason.POLICY_FAILURE, "endpoint_unreachable: gone"))
        again = watched.look({})
        assert again.counts == Counts(answers=4, verdicts=4, correct=1, infra_errors=0, no_reply=1)
    assert judged(watched.look({}), 1800)[0] is State.STOPPED


def test_a_finished_run_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_sample(tmp_path, asked=["level1_problem1"]) as store:
        save(store, solved())
        concluded(store)
    (row,) = Monitor(tmp_path).rows()
    assert (row.name, row.state, row.facts.counts) == ("r", State.OK, Counts(answers=3, verdicts=3, correct=1))
    assert main(["monitor", str(tmp_path), "--once"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out, "plain text where nobody looks at a terminal"
    assert out.splitlines()[-1] == "1 run: 1 ok; 1 of 1 episodes have ended"


def test_a_status_of_other_episodes_is_not_believed(tmp_path: Path) -> None:
    with open_sample(tmp_path, asked=["level1_problem1"]) as store:
        save(store, solved())
        concluded(store)
    text = (tmp_path / "r/run.json").read_text()
    (tmp_path / "r/run.json").write_text(text.replace('"level1_problem1"', '"level1_problem1", "level1_problem2"'))
    (row,) = Monitor(tmp_path).rows()
    assert row.state is State.SUSPECT


def test_a_file_that_is_damaged_is_its_runs_fault_alone(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with open_sample(tmp_path, asked=["level1_problem1"]) as store:
            save(store, solved())
            concluded(store)
        (tmp_path / "r").rename(tmp_path / name)
    (tmp_path / "b/status.json").write_text("{")
    damaged, well = Monitor(tmp_path).rows()
    assert (damaged.name, damaged.state, well.name, well.state) == ("b", State.FAILED, "a", State.OK)
    assert "status.json is damaged" in damaged.note


def test_a_turn_that_is_deleted_is_no_fault(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved())
    (tmp_path / "r/turns/level1_problem1_turn9.json").symlink_to("gone")  # listed, and not there any more
    assert Watched(tmp_path / "r").look({}).counts.answers == 3


def test_cells_that_were_never_begun_are_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened_sweep(tmp_path / "s", [CellInfo("1", "a-1", {}), CellInfo("2", "b-2", {})]):
        assert [row.state for row in Monitor(tmp_path / "s").rows()] == [State.WAITING, State.WAITING]
    assert monitor(str(tmp_path), once=True, stuck_s=1, every_s=1) == 1
    out = capsys.readouterr().out
    assert "STOPPED s/a-1: nobody is at it, and it has not begun: the same command resumes" in out
    assert "2 runs: 2 STOPPED; 0 of 0 episodes have ended" in out


HOLDER = """
import sys, time
from pathlib import Path
from rollout.durable import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(1000)
"""


@contextmanager
def held(directory: Path) -> Iterator[int]:
    """By another process."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(directory)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process.pid
        process.kill()


def test_the_holder_of_a_lock_is_known_as_long_as_it_lives(tmp_path: Path) -> None:
    assert lock_holder(tmp_path) is None
    with held(tmp_path) as pid:
        assert lock_holder(tmp_path) == pid
    assert (tmp_path / ".lock").read_text() == str(pid), "what a killed process leaves is no lock"
    assert lock_holder(tmp_path) is None


def test_a_run_that_is_killed_is_stopped_and_not_running(tmp_path: Path) -> None:
    open_sample(tmp_path).close()
    with held(tmp_path / "r"):
        assert Monitor(tmp_path).rows()[0].state is State.RUNNING
        later = time.time() + 2000
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(monitoring.time, "time", lambda: later)
            assert Monitor(tmp_path).rows()[0].state is State.STUCK
    assert Monitor(tmp_path).rows()[0].state is State.STOPPED


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "nowhere holds no run: give a run's directory, a sweep's, or one with runs in it"),
        (["a", "b"], "usage: kernel-env monitor [DIRECTORY]"),
        (["stuck_s=long"], "usage: kernel-env monitor"),
        (["every=1"], "usage: kernel-env monitor"),
        (["--twice"], "unknown flag --twice"),
    ],
)
def test_a_monitor_of_nothing_is_one_line(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["monitor", *words]) == 2
    assert says in capsys.readouterr().err

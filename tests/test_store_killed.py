"""A run directory survives the death of its writer at any moment."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from kernel_env.schema import Status
from rollout import durable
from rollout.store import RunReader
from tests.sample_run import ASKED, open_sample, problem, save, solved, tree, turn

REPOSITORY = Path(__file__).parents[1]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the store may catch it."""


@contextmanager
def dying_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process ends in its `step`-th call that waits for the disk, with half of the file written, or before a rename."""
    calls = count()
    fsync, rename = os.fsync, os.replace

    def mortal_fsync(descriptor: int) -> None:
        if next(calls) == step:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            raise Killed
        fsync(descriptor)

    def mortal_rename(old: Path, new: Path) -> None:
        if next(calls) == step:
            raise Killed
        rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "fsync", mortal_fsync)
        patch.setattr(durable.os, "replace", mortal_rename)
        yield


def test_death_before_any_step_loses_no_finished_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    episode = solved()
    with open_sample(tmp_path / "undisturbed") as store:
        save(store, episode)
        store.write_results()
    deaths = 0
    for step in count():
        root = tmp_path / str(step)
        with open_sample(root) as store:
            store.save_turn(episode.problem, 0, episode.turns[0])
        before = (root / "r/turns/level1_problem1_turn0.json").read_bytes()
        survived = False
        with dying_at(step, monkeypatch):
            try:
                with open_sample(root) as store:
                    save(store, episode)
                    store.write_results()
                survived = True
            except Killed:
                deaths += 1
        found = RunReader(root / "r").load_turns()["level1_problem1"]
        assert found == list(episode.turns[: len(found)])
        assert (root / "r/turns/level1_problem1_turn0.json").read_bytes() == before
        for played in found:
            assert (root / f"r/responses/level1_problem1_turn{played.index}.txt").read_text() == played.generation.text
            assert (root / f"r/generated_kernels/level1_problem1_turn{played.index}.py").read_text() == played.code
        with open_sample(root) as store:
            save(store, episode)
            store.write_results()
        assert tree(root / "r") == tree(tmp_path / "undisturbed" / "r"), f"killed before step {step}"
        if survived:
            break
    assert deaths > 20, "every write waits for the file, renames it and waits for its folder"


def test_death_while_a_run_is_created_leaves_a_run_that_can_be_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(12):
        root = tmp_path / str(step)
        with dying_at(step, monkeypatch), pytest.raises(Killed):
            open_sample(root).close()
            raise Killed  # created before that step
        open_sample(root).close()
        assert {"run.json", "config.yaml", "environment.json"} <= tree(root / "r").keys()
        assert not list((root / "r").rglob("*.tmp"))


def test_an_interrupted_turn_is_written_anew(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        pass
    (tmp_path / "r/generated_kernels/level1_problem1_turn0.py").write_text("half a ker")
    (tmp_path / "r/responses/level1_problem1_turn0.txt").write_text("half a rep")
    (tmp_path / "r/turns/.level1_problem2_turn0.json.tmp").write_text("{")
    with open_sample(tmp_path) as store:
        assert store.load_turns() == {}
        store.save_turn(problem(), 0, turn(0, Status.NO_CODE, 0.0, text="whole"))
    kept = tree(tmp_path / "r")
    assert kept["responses/level1_problem1_turn0.txt"] == b"whole"
    assert "generated_kernels/level1_problem1_turn0.py" not in kept, "the new reply has no code, so no kernel may stay"
    assert not [name for name in kept if name.endswith(".tmp")]


WRITER = """
import sys
from pathlib import Path
from tests.sample_run import ASKED, open_sample, problem, turn
from kernel_env.schema import Status

with open_sample(Path(sys.argv[1])) as store:
    print("open", flush=True)
    turns = store.load_turns().get(ASKED[0], [])
    for index in range(len(turns), 10**9):
        store.save_turn(problem(), 0, turn(index, Status.WRONG_OUTPUT, 0.1, text="x" * 20_000))
        print(index, flush=True)
"""


def test_a_killed_writer_keeps_every_turn_that_it_reported(tmp_path: Path) -> None:
    rng = random.Random(0)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    finished: dict[str, bytes] = {}
    for _ in range(8):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(rng.randint(1, 5))]
            time.sleep(rng.uniform(0, 0.03))  # so that the kill falls anywhere within a turn
            writer.kill()
            lines += writer.stdout.readlines()
        assert writer.returncode == -signal.SIGKILL
        assert lines[0] == "open\n", "the killed process before this one holds no lock any more"
        turns = RunReader(tmp_path / "r").load_turns().get(ASKED[0], [])
        reported = [int(line) for line in lines[1:] if line.endswith("\n")]
        assert len(turns) > max(reported, default=len(finished) - 1)
        assert [t.index for t in turns] == list(range(len(turns)))
        files = {name: data for name, data in tree(tmp_path / "r").items() if name.startswith("turns/level1")}
        assert finished.items() <= files.items(), "a finished turn never changes"
        finished = files
    assert len(finished) > 8

"""Killed with SIGKILL at any moment, the same command resumes and ends with the bytes of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

import pytest

from tests.kill_harness import Harness, Run, Target, compare_trees

COMMAND = (
    sys.executable, "-m", "kernel_env", "eval", "run.name=r", "run.seed=7", "problems.levels=1", "problems.ids='1-3'",
    "problems.profile=interpret", "verifier.clock=recorded", "verify.num_correct_trials=2",
)  # fmt: skip
"""8 turns of 3 problems: all kinds of verdicts, small inputs, times from the recorded clock."""
KILLS = (8, pytest.param(40, marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Harness:
    root = tmp_path_factory.mktemp("resume")
    (root / "tmp").mkdir()
    env = {
        "TMPDIR": str(root / "tmp"),  # waits for no other run's lock on the cores, and has its leftovers to itself
        "GIT_DIR": os.devnull,  # `environment.json` names the commit, which may change while the tests run
    }
    return Harness(COMMAND, root, "runs/r", env, again_on=(4,))


@pytest.fixture(scope="module")
def calm(harness: Harness) -> Run:
    """The undisturbed run; it also fills the build cache, so that kills fall on the work and not on compilers."""
    return harness.undisturbed()


def scratch(harness: Harness) -> list[str]:
    return [path.name for path in (harness.root / "tmp").glob("kernel-env-scratch-*")]


@pytest.mark.parametrize("kills", KILLS)
@pytest.mark.parametrize("target", [Target.COMMAND, Target.TREE])
def test_a_killed_command_resumes_and_ends_with_the_same_bytes(harness: Harness, calm: Run, target: Target, kills: int) -> None:
    for run in harness.killed(random.Random(f"{target}{kills}"), kills, target):
        assert compare_trees(calm.directory, run.directory) == [], run.kills
        assert set(run.exit_codes[:-1]) <= {-signal.SIGKILL}
        assert scratch(harness) == [], "each start removes what a killed one left, and the last one its own"


@pytest.mark.parametrize("kills", KILLS)
@pytest.mark.parametrize("target", [Target.WORKER, Target.ZYGOTE])
def test_a_run_goes_on_when_a_helper_is_killed(harness: Harness, calm: Run, target: Target, kills: int) -> None:
    for run in harness.killed(random.Random(f"{target}{kills}"), kills, target):
        assert run.exit_codes == (0,), run.kills
        assert compare_trees(calm.directory, run.directory) == [], run.kills


@pytest.mark.parametrize("kills", KILLS)
def test_a_killed_candidate_is_a_crash_and_a_killed_reference_is_nobodys_score(harness: Harness, calm: Run, kills: int) -> None:
    for run in harness.killed(random.Random(kills), kills, Target.CANDIDATE):
        assert set(run.exit_codes) <= {0, 4}
        for episode in sorted((calm.directory / "runs/r/episodes").iterdir()):
            first = next((pair for pair in turns(calm, run, episode.stem) if pair[0] != pair[1]), None)
            if first is not None:
                verdict = json.loads(first[1])["record"]["verdict"]
                assert (verdict["status"], verdict["category"]) == ("crashed", "SIGKILL"), run.kills


def turns(calm: Run, run: Run, episode: str) -> list[tuple[str, str]]:
    """The texts of an episode's turn files in both runs, as far as both have them."""
    pairs = []
    for index in range(3):
        paths = [r.directory / f"runs/r/turns/{episode}_turn{index}.json" for r in (calm, run)]
        if all(map(Path.exists, paths)):
            pairs.append((paths[0].read_text(), paths[1].read_text()))
    return pairs

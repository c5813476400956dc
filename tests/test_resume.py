"""Killed with SIGKILL at any moment, the same command resumes and ends with the bytes of an undisturbed run.

Whole working directories are compared and no file is left out: not even the run's `.lock`, which is empty in the end.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import InfraError
from kernel_env.verifier import VerifierConfig
from rollout.health import read_status
from rollout.runner import _claimed
from tests.conftest import sampled
from tests.kill_harness import Harness, Run, Target, compare_trees
from tests.mortal_server import MODEL, kept_server
from tests.sample_run import open_sample

COMMAND = (
    sys.executable, "-m", "kernel_env", "eval", "run.name=r", "run.seed=7", "problems.levels=1", "problems.ids='1-3'",
    "problems.profile=interpret", "verifier.clock=recorded", "verify.num_correct_trials=2",
)  # fmt: skip
"""8 turns of 3 problems: all kinds of verdicts, small inputs, times from the recorded clock."""
KILLS = (2, pytest.param(40, marks=pytest.mark.slow))
EVERYBODY = (Target.COMMAND, Target.SERVER, Target.WORKER, Target.ZYGOTE, Target.CANDIDATE, Target.BUILDER)


def make(root: Path, *more: str, cache: Path | None = None, **options: Any) -> tuple[Harness, Run]:
    """A harness and its undisturbed run, which also fills the build cache: kills are to fall on the work, not on compilers."""
    (root / "tmp").mkdir()
    env = {
        "TMPDIR": str(root / "tmp"),  # waits for no other run's lock on the cores, and has its leftovers to itself
        "GIT_DIR": os.devnull,  # `environment.json` names the commit, which may change while the tests run
        **({"KERNEL_ENV_CACHE": str(cache)} if cache else {}),
    }
    harness = Harness((*COMMAND, *more), root, "runs/r", env, **{"again_on": (3, 4), "most_changes": 8, **options})
    return harness, harness.undisturbed()


@pytest.fixture(scope="module")
def all_at_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Harness, Run]:
    return make(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def one_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> tuple[Harness, Run]:
    """Each kill of a helper hits another job: one whose helpers die each time is given up."""
    return make(tmp_path_factory.mktemp("resume"), "rollout.concurrency=1")


def scratch(harness: Harness) -> list[str]:
    return [path.name for path in (harness.root / "tmp").glob("kernel-env-scratch-*")]


@pytest.mark.parametrize("kills", KILLS)
@pytest.mark.parametrize("target", sampled([Target.COMMAND, Target.TREE], [Target.COMMAND]))
def test_a_killed_command_resumes_and_ends_with_the_same_bytes(
    all_at_once: tuple[Harness, Run], target: Target, kills: int
) -> None:
    harness, calm = all_at_once
    for run in harness.killed(random.Random(f"{target}{kills}"), kills, target):
        assert compare_trees(calm.directory, run.directory) == [], run.kills
        assert set(run.exit_codes[:-1]) <= {-signal.SIGKILL}
        assert scratch(harness) == [], "each start removes what a killed one left, and the last one its own"


@pytest.mark.parametrize("kills", KILLS)
@pytest.mark.parametrize("target", sampled([Target.CANDIDATE, Target.WORKER, Target.ZYGOTE], [Target.CANDIDATE, Target.WORKER]))
def test_a_run_goes_on_when_a_helper_is_killed(one_at_a_time: tuple[Harness, Run], target: Target, kills: int) -> None:
    harness, calm = one_at_a_time
    for run in harness.killed(random.Random(f"{target}{kills}"), kills, target):
        assert run.exit_codes == (0,), run.kills
        assert compare_trees(calm.directory, run.directory) == [], run.kills


@pytest.mark.parametrize(("kills", "builds"), [(4, False), pytest.param(50, True, marks=pytest.mark.slow)])
def test_whoever_is_killed_the_episodes_and_rewards_are_those_of_an_undisturbed_run(
    tmp_path: Path, kills: int, builds: bool
) -> None:
    """The command, its model server, workers, zygotes, programs on trial and, where it `builds` everything itself, compilers: each
    kill falls on any of them. A server may be away for longer than it is waited for, and jobs may be given up; then the same
    command goes on."""
    patience = ("policy.attempts=4", "policy.wait_s=0.1", "policy.wait_max_s=0.4")
    options: dict[str, Any] = {"again_on": (3, 4, 5, 6)}
    if builds:
        cache = tmp_path / "cache"
        options |= {"cache": cache, "forgotten": cache / "ext"}
        with_headers_only(cache)
    with kept_server() as (keeper, base_url):
        policy = ("policy=openai", f"policy.model={MODEL}", f"policy.base_url={base_url}", f"run.canaries={builds}", *patience)
        harness, calm = make(tmp_path, *policy, server=keeper, **options)
        killed = set()
        for run in harness.killed(random.Random(kills), kills, *EVERYBODY[: None if builds else -1]):
            assert compare_trees(calm.directory, run.directory) == [], run.kills
            assert scratch(harness) == []
            killed |= {kill.split()[0] for kill in run.kills}
    assert kills < 50 or killed == set(EVERYBODY)


def with_headers_only(cache: Path) -> None:
    """Precompiled headers would take longest, and are nobody's result."""
    headers = VerifierConfig().cache() / "prelude"
    headers.mkdir(parents=True, exist_ok=True)
    cache.mkdir()
    (cache / "prelude").symlink_to(headers)


def test_a_run_that_another_process_began_is_not_said_to_have_failed(tmp_path: Path) -> None:
    """Both found no directory; the slower one has no say in what is in it by then."""
    with pytest.raises(InfraError, match="slow"), _claimed(tmp_path / "r"):
        another = open_sample(tmp_path)
        raise InfraError("slow")
    another.close()
    assert read_status(tmp_path / "r") is None

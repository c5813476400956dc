"""SkyRL's environment, made by skyrl-gym's own registry and stepped as SkyRL's generator does it: from the threads of a pool.

Run with `make test-adapters`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

if find_spec("skyrl_gym") is None:
    pytest.skip("needs the extra `skyrl`: run `make test-adapters`", allow_module_level=True)

import skyrl_gym
from skyrl_gym.envs import deregister
from skyrl_gym.metrics import aggregate_for_environment

from kernel_env.env import KernelBenchEnv
from kernel_env.errors import ConfigError, VerifierError
from kernel_env.schema import Problem
from kernel_env.verifier import BlockingVerifier
from rollout.adapters.skyrl import ENV_CLASS, register, rows
from tests.adapter_scene import MANY, PROBLEMS, RECORDED, REPLIES, STATUSES, Blind, Together, guide, played, reply
from tests.eval_server import EvalServer
from tests.players import Checker, Fails
from tests.test_recordings import CONFIG

pytestmark = pytest.mark.external
TURNS = 2
Registered = Callable[..., None]


@pytest.fixture
def registered() -> Iterator[Registered]:
    """`registered(verifier, problems)` makes them SkyRL's environments for one test."""

    def done(verifier: BlockingVerifier | str, problems: Sequence[Problem] = PROBLEMS, **given: Any) -> None:
        register(lambda max_turns: KernelBenchEnv(problems, max_turns=max_turns, verifier=verifier, **given))

    yield done
    deregister(ENV_CLASS)


def trajectory(row: dict[str, Any], reply_to: Callable[[str, int], str], turns: int = TURNS) -> tuple[Any, list[Any], list[Any]]:
    """As the generator plays it: the environment at its end, the conversation, and what each step returned."""
    extras = {name: value for name, value in row.items() if name not in ("prompt", "env_class")} | {"max_turns": turns}
    env = skyrl_gym.make(row["env_class"], env_config={}, extras=extras)
    chat, _ = env.init(row["prompt"])
    steps: list[Any] = []
    while not steps or not steps[-1]["done"]:
        said = reply_to(row["problem"], len(steps))
        steps.append(env.step(said))
        chat = [*chat, {"role": "assistant", "content": said}, *steps[-1]["observations"]]
    env.close()
    return env, chat, steps


def test_recorded_replies_get_their_real_verdicts(registered: Registered, verifier: BlockingVerifier) -> None:
    registered(verifier, [RECORDED], verify=CONFIG)
    (row,) = rows([RECORDED])
    env, _, steps = trajectory(row, lambda _, turn: REPLIES[turn], len(REPLIES))
    assert [step["metadata"]["status"] for step in steps] == STATUSES
    assert steps[-1]["reward"] == 1.0 > steps[0]["reward"], "correct, and not timed"
    assert env.get_metrics() == {"turns": len(REPLIES), "correct": 1.0}


def test_the_conversation_and_the_rewards_are_the_environments(registered: Registered) -> None:
    with BlockingVerifier(Checker) as scripted:
        registered(scripted)
        for row, problem in zip(rows(PROBLEMS), PROBLEMS, strict=True):
            _, chat, steps = trajectory(row, reply)
            right: list[Any] = played(scripted, problem, TURNS)
            assert chat == right[-1]["messages"]
            assert [step["reward"] for step in steps] == [info["reward"].value for info in right]
            assert [step["done"] for step in steps] == [False, True] and steps[-1]["observations"] == []


def test_trajectories_of_a_pool_are_verified_at_the_same_time(registered: Registered) -> None:
    """By servers, over HTTP: each trajectory has the address and nothing else."""
    together = Together()
    with EvalServer(lambda: together) as server, ThreadPoolExecutor(MANY) as pool:
        registered(server.url)
        found = list(pool.map(lambda row: trajectory(row, reply), rows(PROBLEMS)))
    assert together.busy.most == MANY
    assert all(len(steps) == TURNS for _, _, steps in found)
    metrics = aggregate_for_environment(ENV_CLASS, [env.get_metrics() for env, _, _ in found])
    assert metrics["turns"] == TURNS and 0 < metrics["correct"] <= 1


def test_a_failure_of_the_machine_is_an_error_and_the_step_can_be_tried_again(registered: Registered) -> None:
    with BlockingVerifier(lambda: Fails(lambda asked: asked == 1)) as scripted:
        registered(scripted)
        row = rows(PROBLEMS)[0]
        env = skyrl_gym.make(ENV_CLASS, env_config={}, extras={"problem": row["problem"], "max_turns": TURNS})
        env.init(row["prompt"])
        with pytest.raises(VerifierError, match="nobody can tell"):
            env.step(reply(row["problem"], 0))
        assert not env.step(reply(row["problem"], 0))["done"]
        assert env.get_metrics()["turns"] == 1


def test_a_turn_that_was_not_scored_is_an_error_and_not_a_zero(registered: Registered) -> None:
    with BlockingVerifier(Blind) as scripted:
        registered(scripted)
        with pytest.raises(VerifierError, match=r"level1_problem1 has no reward: what was seen"):
            trajectory(rows(PROBLEMS)[0], reply)


def test_rows_of_another_environment_are_refused(registered: Registered) -> None:
    registered("http://127.0.0.1:1")
    row = rows(PROBLEMS)[0]
    with pytest.raises(ConfigError, match="prompt for level1_problem1 is not this environment's: make it of `rows` again"):
        trajectory({**row, "prompt": [{"role": "user", "content": "Another."}]}, reply)
    with pytest.raises(ConfigError, match="no problem 'level9_problem1'"):
        trajectory({**row, "problem": "level9_problem1"}, reply)
    with pytest.raises(ConfigError, match="row has no problem: make it of `rows`"):
        skyrl_gym.make(ENV_CLASS, env_config={}, extras={"max_turns": TURNS})


def test_the_guides_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(compile(guide("adapters.skyrl import"), "docs/train.md", "exec"), scope)  # noqa: S102 - it is our own guide
    try:
        row: Any = Dataset.from_parquet("kernels.parquet", cache_dir="cache")[0]
        _, _, steps = trajectory(row, lambda *_: "no code")
    finally:
        deregister(ENV_CLASS)
        scope["verifier"].close()
    assert [step["metadata"]["status"] for step in steps] == ["no_code"] * TURNS

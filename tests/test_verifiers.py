"""verifiers plays episodes: its loaders, its environment server, its interception of the model, and an endpoint that replies.

Run with `make test-adapters`.
"""

from __future__ import annotations

import asyncio
import contextlib
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if find_spec("verifiers") is None:
    pytest.skip("needs verifiers: run `make test-adapters`", allow_module_level=True)

import verifiers.v1 as vf
from verifiers.v1.serve import EnvClient, EnvServer

from kernel_env.problems import load_problems
from kernel_env.prompts import initial_messages
from kernel_env.verifier import BlockingVerifier, Verifier
from rollout.adapters.verifiers import REWARD, KernelEnv
from rollout.returns import RETURNS
from tests.adapter_scene import RECORDED, REPLIES, STATUSES, Blind, guide, played, reply
from tests.chat_server import ChatServer, Reply, refuse
from tests.eval_server import EvalServer, until_async
from tests.players import Checker, Fails

pytestmark = pytest.mark.external
TURNS = 3
PROBLEMS = load_problems("bundled", profile="cpu")[:4]
KEYS = [problem.key for problem in PROBLEMS]
ASKED = {initial_messages(problem, "cpp")[-1]["content"]: problem.key for problem in PROBLEMS}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("verifiers.v1.runtimes.subprocess.CACHE_DIR", tmp_path)


@pytest.fixture
def served() -> Iterator[Callable[[Callable[[], Verifier]], str]]:
    """`served(Checker)` is the address of a server with such a verifier."""
    with contextlib.ExitStack() as stack:
        yield lambda make: stack.enter_context(EvalServer(make)).url


Served = Callable[[Callable[[], Verifier]], str]


def config(**given: Any) -> Any:
    """As verifiers makes it of a configuration file."""
    return vf.resolve_env_config({"taskset": {"id": "kernel-env-verifiers"}, "max_turns": TURNS, **given})


def said(messages: list[dict[str, str]]) -> str:
    """The scripted policy: other code for each problem and turn."""
    return reply(ASKED[messages[1]["content"]], sum(message["role"] == "assistant" for message in messages))


def client(model: ChatServer) -> Any:
    return vf.EvalClientConfig(base_url=model.base_url, api_key_var="NO_KEY")


async def episodes(env: KernelEnv, model: ChatServer, *keys: str, n: int = 1) -> list[Any]:
    """`n` episodes of each task, all at a time."""
    ctx = vf.ModelContext(client=client(model), model="test-model", sampling=vf.SamplingConfig())
    async with env.serving():
        slots = [slot for task in env.taskset.include(ids=list(keys)) for slot in env.slots(task, n)]
        return await asyncio.gather(*(env.run_slot(slot, ctx) for slot in slots))


async def one(script: Any, **given: Any) -> tuple[Any, Any]:
    """An episode of the first problem, and its trace."""
    with ChatServer(script) as model:
        (episode,) = await episodes(vf.load_environment(config(**given)), model, KEYS[0])
    (trace,) = episode.traces
    return episode, trace


# ------------------------------------------------------------------ what is played


async def test_recorded_replies_get_their_real_verdicts() -> None:
    assert RECORDED.key == KEYS[0]
    episode, trace = await one(REPLIES, verify={"num_correct_trials": 2, "measure_performance": False})
    assert episode.ok and trace.ok, trace.errors
    assert [told["status"] for told in trace.info["turns"]] == STATUSES
    assert trace.reward == sum(told["reward"] for told in trace.info["turns"]) == 2.0, "correct twice, and not timed"
    assert trace.metrics == {"turns": 3, "correct": 1}


@pytest.mark.parametrize(("returns", "gamma"), [("trajectory", 0.4), ("best", 1.0)])
async def test_the_reward_is_the_episodes_return_and_the_model_sees_the_environments_messages(
    returns: str, gamma: float, served: Served
) -> None:
    env = vf.load_environment(config(verifier=served(Checker), returns=returns, gamma=gamma))
    assert isinstance(env, KernelEnv)
    with ChatServer(said) as model, BlockingVerifier(Checker) as scripted:
        found = await episodes(env, model, *KEYS, n=2)
        assert len(found) == 2 * len(KEYS) and all(episode.ok for episode in found)
        for problem in PROBLEMS:
            right: list[Any] = played(scripted, problem, TURNS)
            rewards_T = [info["reward"].value for info in right]
            traces = [episode.traces[0] for episode in found if episode.task.data.id == problem.key]
            for trace in traces:
                assert trace.reward == trace.rewards[REWARD].score == pytest.approx(RETURNS[returns](rewards_T, gamma)[0])
                assert [told["reward"] for told in trace.info["turns"]] == rewards_T
                assert (trace.num_turns, trace.num_branches, trace.stop_condition) == (TURNS, 1, "user_closed")
            last = [r.messages for r in model.requests if ASKED[r.messages[1]["content"]] == problem.key and len(r.messages) == 6]
            assert last == [right[-1]["messages"][:-1]] * 2


async def test_an_environment_server_is_sent_the_problem_and_reads_no_data_set(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As prime-rl runs environments: the tasks are the trainer's, the server is another process's."""
    given = config(verifier=served(Checker))
    task = next(iter(vf.load_taskset(given.taskset)))
    monkeypatch.setattr("rollout.adapters.verifiers.load_problems", None)
    with ChatServer(said) as model:
        server = EnvServer(given, "tcp://127.0.0.1:0")
        serving = asyncio.ensure_future(server.run())
        asking = EnvClient(server.address)
        episode = await asking.run(client(model), "test-model", vf.SamplingConfig(), task.data.model_dump(mode="json"))
        await asking.close()
        serving.cancel()
        await serving
    (trace,) = episode.traces
    assert episode.ok and trace.rewards[REWARD].score == sum(told["reward"] for told in trace.info["turns"])


async def test_a_reply_that_was_cut_off_while_it_thought_is_told_so(served: Served) -> None:
    cut = Reply("", finish_reason="length", extra={"reasoning_content": "Let me see"})
    _, trace = await one([cut, "no code"], verifier=served(Checker))
    assert [told["status"] for told in trace.info["turns"]] == ["truncated", "no_code", "no_code"]


async def test_a_limit_of_the_trainers_ends_an_episode_with_the_return_of_its_turns(served: Served) -> None:
    episode, trace = await one(said, verifier=served(Checker), agent={"max_turns": 1})
    (told,) = trace.info["turns"]
    assert episode.ok and trace.is_truncated and trace.reward == told["reward"]


# ------------------------------------------------------------------ what has no reward


async def test_a_failure_of_the_machine_is_an_error_and_no_reward(served: Served) -> None:
    episode, trace = await one(said, verifier=served(lambda: Fails(lambda asked: asked == 2)))
    assert not episode.ok and not trace.ok and not trace.rewards
    assert trace.last_error.type == "VerifierError" and "nobody can tell" in trace.last_error.message


async def test_an_episode_that_a_machine_failed_is_played_anew_where_the_trainer_wants_it(served: Served) -> None:
    url = served(lambda: Fails(lambda asked: asked == 2))
    episode, trace = await one(said, verifier=url, retries={"max_retries": 1})
    assert episode.ok and trace.rewards[REWARD] is not None and len(trace.info["turns"]) == TURNS


async def test_a_turn_that_was_not_scored_is_an_error_and_no_reward(served: Served) -> None:
    episode, trace = await one(said, verifier=served(Blind))
    assert not episode.ok and trace.rewards == {REWARD: None}
    assert f"{KEYS[0]} has no reward: what was seen" in trace.last_error.message


async def test_a_model_that_does_not_reply_is_an_error_and_no_reward(served: Served) -> None:
    episode, trace = await one([reply(KEYS[0], 0), refuse(400)], verifier=served(Checker))
    assert not episode.ok and not trace.rewards
    assert trace.last_error.type == "ProviderError"


async def test_a_rollout_that_the_trainer_gives_up_frees_its_slot(served: Served) -> None:
    hanging = Checker(lambda _: asyncio.Event().wait())
    playing = asyncio.ensure_future(one(said, verifier=served(lambda: hanging)))
    await until_async(lambda: hanging.busy.now)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    await until_async(lambda: hanging.busy.cancelled == 1 and hanging.busy.now == 0)


# ------------------------------------------------------------------ the guide


async def test_the_guides_configuration_plays() -> None:
    (source,) = tomllib.loads(guide("kernel-env-verifiers", "toml"))["orchestrator"]["train"]["source"]
    with EvalServer(Checker) as verifying, ChatServer(said) as model:
        env = vf.load_environment(vf.resolve_env_config({**source["env"], "verifier": verifying.url}))
        (episode,) = await episodes(env, model, KEYS[0])
    assert episode.ok and episode.traces[0].metrics["turns"] == 3

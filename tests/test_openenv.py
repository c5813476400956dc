"""OpenEnv's own server and WebSocket client, over real connections. Run with `make test-adapters`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import pytest

if find_spec("openenv") is None:
    pytest.skip("needs the extra `openenv`: run `make test-adapters`", allow_module_level=True)

import uvicorn
from openenv import GenericEnvClient

from kernel_env.env import KernelBenchEnv
from kernel_env.schema import Problem, StopReason
from kernel_env.verifier import BlockingVerifier
from rollout.adapters.openenv import KernelClient, Reply, Seen, make_app
from tests.adapter_scene import MANY, PROBLEMS, RECORDED, REPLIES, STATUSES, Blind, Together, guide, played, reply
from tests.eval_server import EvalServer
from tests.judge_server import ServerThread
from tests.players import Checker, Fails
from tests.test_recordings import CONFIG

pytestmark = pytest.mark.external
TURNS = 2


class Served(ServerThread):
    """The app, by uvicorn, on a free port."""

    def __init__(self, app: Any) -> None:
        async def served(on_listening: Callable[[str], None], stop: asyncio.Event) -> None:
            listening = socket.create_server(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="websockets-sansio"))
            serving = asyncio.ensure_future(server.serve([listening]))
            on_listening(f"http://127.0.0.1:{listening.getsockname()[1]}")
            await stop.wait()
            server.should_exit = True
            await serving

        super().__init__(served)


@contextmanager
def serving(
    verifier: BlockingVerifier | str, problems: Sequence[Problem] = PROBLEMS, max_sessions: int = MANY, **given: Any
) -> Iterator[str]:
    made = {"max_turns": TURNS} | given
    with Served(make_app(lambda: KernelBenchEnv(problems, verifier=verifier, **made), max_sessions)) as server:
        yield server.url


@pytest.fixture
def scripted() -> Iterator[BlockingVerifier]:
    with BlockingVerifier(Checker) as verifier:
        yield verifier


async def session(url: str, problem: Problem, reply_to: Callable[[str, int], str] = reply, seed: int = 0) -> list[Any]:
    """What each step of one episode returned."""
    steps: list[Any] = []
    async with KernelClient(url) as client:
        first = await client.reset(seed=seed, problem=problem.key)
        assert first.observation.problem == problem.key and first.reward is None and not first.done
        while not steps or not steps[-1].done:
            steps.append(await client.step(Reply(text=reply_to(problem.key, len(steps)))))
        state = await client.state()
        assert (state.problem, state.step_count, state.done) == (problem.key, len(steps), True)
    return steps


async def test_recorded_replies_get_their_real_verdicts(verifier: BlockingVerifier) -> None:
    with serving(verifier, [RECORDED], verify=CONFIG, max_turns=len(REPLIES)) as url:
        steps = await session(url, RECORDED, lambda _, turn: REPLIES[turn])
    assert [step.observation.facts.status for step in steps] == STATUSES
    assert steps[-1].reward == 1.0 > steps[0].reward, "correct, and not timed"
    assert steps[-1].observation.stop_reason is StopReason.TURN_LIMIT


async def test_eight_sessions_at_a_time_are_verified_at_the_same_time_and_none_sees_anothers(scripted: BlockingVerifier) -> None:
    """Each plays its own problem, and no verdict is told before all eight are asked for."""
    together = Together()
    with EvalServer(lambda: together) as verifying, serving(verifying.url) as url:
        found = await asyncio.gather(*(session(url, problem) for problem in PROBLEMS))
    assert together.busy.most == MANY == 8
    for problem, steps in zip(PROBLEMS, found, strict=True):
        right: list[Any] = played(scripted, problem, TURNS)
        assert steps[-1].observation.messages == right[-1]["messages"]
        assert [step.reward for step in steps] == [info["reward"].value for info in right]
        assert [step.observation.facts.message for step in steps] == [info["verdict"].message for info in right]


async def test_one_session_too_many_is_refused(scripted: BlockingVerifier) -> None:
    with serving(scripted, max_sessions=1) as url:
        async with KernelClient(url) as first:
            await first.reset()
            with pytest.raises(RuntimeError, match="CAPACITY_REACHED"):
                await session(url, PROBLEMS[1])
            assert not (await first.step(Reply(text=reply(PROBLEMS[0].key, 0)))).done


async def test_the_same_seed_chooses_the_same_problem(scripted: BlockingVerifier) -> None:
    with serving(scripted) as url:
        async with KernelClient(url) as client:
            seen = [(await client.reset(seed=seed)).observation.problem for seed in (1, 2, 3, 4, 1, 2, 3, 4)]
    assert seen[:4] == seen[4:] and len(set(seen)) > 1


async def test_a_failure_of_the_machine_is_an_error_and_the_step_can_be_tried_again() -> None:
    with BlockingVerifier(lambda: Fails(lambda asked: asked == 1)) as scripted, serving(scripted) as url:
        async with KernelClient(url) as client:
            await client.reset(problem=PROBLEMS[0].key)
            with pytest.raises(RuntimeError, match="nobody can tell"):
                await client.step(Reply(text=reply(PROBLEMS[0].key, 0)))
            assert (await client.state()).step_count == 0
            assert (await client.step(Reply(text=reply(PROBLEMS[0].key, 0)))).reward is not None


async def test_a_turn_that_was_not_scored_has_no_reward() -> None:
    with BlockingVerifier(Blind) as blind, serving(blind) as url:
        (step,) = await session(url, PROBLEMS[0])
    assert step.reward is None and step.observation.facts.reward is None
    assert step.observation.stop_reason is StopReason.UNSCORED


async def test_a_client_without_this_package_plays_too(scripted: BlockingVerifier) -> None:
    """By plain dictionaries, as verifiers' own taskset for OpenEnv does."""
    with serving(scripted) as url:
        async with GenericEnvClient(base_url=url) as client:
            await client.reset(problem=PROBLEMS[0].key)
            step = await client.step({"text": reply(PROBLEMS[0].key, 0)})
            assert step.observation["messages"][-1] == {"role": "user", "content": step.observation["feedback"]}
            assert step.reward == step.observation["facts"]["reward"]
            with pytest.raises(RuntimeError, match="VALIDATION_ERROR"):
                await client.step({"kernel": "x"})


def test_what_is_sent_comes_back_as_it_was() -> None:
    client = KernelClient("http://127.0.0.1:1")
    seen = Seen(problem="p", messages=[{"role": "user", "content": "ü\n"}], feedback="ü\n", reward=0.1)
    parsed = client._parse_result({"observation": seen.model_dump(exclude={"reward", "done"}), "reward": 0.1, "done": False})
    assert parsed.observation == seen


def test_the_guides_server_and_client_run(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []

    async def model(_: object) -> str:
        return "no code"

    def run(app: Any, port: int) -> None:
        with Served(app) as server:
            client = guide("import KernelClient").replace(f"http://127.0.0.1:{port}", server.url)
            scope: dict[str, Any] = {}
            exec(compile(client, "docs/train.md", "exec"), scope)  # noqa: S102 - it is our own guide
            found.append(asyncio.run(scope["episode"](model, 1)))

    monkeypatch.setattr(uvicorn, "run", run)
    exec(compile(guide("import make_app"), "docs/train.md", "exec"), {})  # noqa: S102
    assert found == [[0.0, 0.0, 0.0]]

"""Servers that are started for a run: real processes, which start or do not, and which nothing outlives."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import ConfigError, EndpointUnreachable, NoneCorrect
from kernel_env.schema import Status, StopReason, Usage
from rollout import serving
from rollout.compose import composed
from rollout.policies import GenerationRequest, Sampling, make_policy
from rollout.runner import run
from rollout.serving import running, serve_command, served
from rollout.settings import PolicySettings
from tests.tiny_model import tiny_model

CHILD = Path(__file__).with_name("serving_child.py")
PATIENCE_S = 60.0
VLLM = PolicySettings(scheme="openai", model="some/model", serve="vllm", serve_start_s=PATIENCE_S)


class Child:
    """A command that starts a `serving_child`, and what became of it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = serving._free_port()
        self._facts = folder / "facts.json"
        self.command = [sys.executable, str(CHILD), "--port", str(self.port), "--facts", str(self._facts), *options]

    @property
    def facts(self) -> dict[str, Any]:
        """What it wrote down; empty where it did not come so far."""
        return json.loads(self._facts.read_text()) if self._facts.exists() else {}

    @property
    def left(self) -> list[int]:
        """Its processes that still live, itself and its worker."""
        return [pid for pid in self.facts.get("pids", ()) if _lives(pid)]

    def wait_until_gone(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.left:
            assert time.monotonic() < deadline, f"still there: {self.left}"
            time.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the logs of servers are kept."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def kept(logs: Path) -> list[Path]:
    return list(logs.glob("kernel-env-server-*.log"))


# ------------------------------------------------------------------ starting and ending


async def test_a_server_is_there_once_it_is_healthy_and_gone_with_its_workers_afterwards(tmp_path: Path) -> None:
    child = Child(tmp_path, "--sick", "3")
    async with running(child.command, child.port, PATIENCE_S):
        assert await serving._is_healthy(child.port)
        assert len(child.left) == 2
    child.wait_until_gone()
    assert not await serving._is_healthy(child.port)
    assert kept(tmp_path) == []


async def test_a_server_that_dies_early_is_reported_with_its_last_words(tmp_path: Path) -> None:
    child = Child(tmp_path, "--dies", "3")
    with pytest.raises(EndpointUnreachable) as raised:
        async with running(child.command, child.port, PATIENCE_S):
            pytest.fail("it was never healthy")
    (log,) = kept(tmp_path)
    said = "exit code 3; it printed loading the weights | no such file: model-00001.safetensors; all of it is in"
    assert str(raised.value) == f"the server ended before it was healthy: {said} {log}"
    child.wait_until_gone()  # its worker, too


async def test_a_command_that_is_none_is_reported(tmp_path: Path) -> None:
    with pytest.raises(EndpointUnreachable, match=r"ended before it was healthy: exit code 1; .*FileNotFoundError"):
        async with running([str(tmp_path / "nothing")], serving._free_port(), PATIENCE_S):
            pytest.fail("it was never healthy")


async def test_a_server_that_is_never_healthy_is_given_up(tmp_path: Path) -> None:
    child = Child(tmp_path, "--sick", "-1")
    with pytest.raises(EndpointUnreachable, match=r"not healthy within 2 s \(policy.serve_start_s\): it printed "):
        async with running(child.command, child.port, 2.0):
            pytest.fail("it was never healthy")
    child.wait_until_gone()


async def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "GRACE_S", 0.2)
    child = Child(tmp_path, "--deaf")
    async with running(child.command, child.port, PATIENCE_S):
        assert len(child.left) == 2
    child.wait_until_gone()


async def test_a_server_may_end_in_order_before_it_is_killed(tmp_path: Path) -> None:
    child = Child(tmp_path)
    with pytest.raises(EndpointUnreachable):  # as a policy raises it: then the log is kept
        async with running(child.command, child.port, PATIENCE_S):
            raise EndpointUnreachable("no answer")
    child.wait_until_gone()
    assert "ending in order" in kept(tmp_path)[0].read_text()


async def test_an_error_while_it_is_in_use_ends_it(tmp_path: Path) -> None:
    child = Child(tmp_path)
    with pytest.raises(ZeroDivisionError):
        async with running(child.command, child.port, PATIENCE_S):
            raise ZeroDivisionError
    child.wait_until_gone()
    assert kept(tmp_path) == []


async def test_cancelling_the_wait_for_it_ends_it(tmp_path: Path) -> None:
    child = Child(tmp_path, "--sick", "-1")
    task = asyncio.create_task(running(child.command, child.port, PATIENCE_S).__aenter__())
    await until(lambda: child.facts)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    child.wait_until_gone()
    assert kept(tmp_path) == []


async def test_a_server_that_ends_while_it_is_in_use_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    child = Child(tmp_path)
    with caplog.at_level(logging.WARNING, "rollout.serving"):
        async with running(child.command, child.port, PATIENCE_S):
            os.kill(child.facts["pids"][0], signal.SIGKILL)
            await until(lambda: not child.left)  # the worker goes with it
            await until(lambda: not Path("/proc", str(child.facts["keeper"])).exists())
            await asyncio.sleep(0.2)  # its end is known now, and has to be told to the event loop
    (record,) = caplog.records
    assert "ended by itself while it was in use: exit code 137" in record.message
    assert str(kept(tmp_path)[0]) in record.message


PARENT = """
import asyncio, sys
from rollout import serving

async def main():
    serving.GRACE_S = 0.2
    async with serving.running(sys.argv[2:], int(sys.argv[1]), 60):
        print("up", flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_does_not_outlive_the_process_that_wanted_it(by: signal.Signals, tmp_path: Path) -> None:
    child = Child(tmp_path, "--deaf")
    command = [
        sys.executable,
        "-c",
        PARENT.replace("import asyncio", "import rollout.serving as s; s.GRACE_S = 0.2; import asyncio"),
    ]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([*command, str(child.port), *child.command], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout and parent.stdout.readline() == b"up\n"
        parent.send_signal(by)
    child.wait_until_gone()


# ------------------------------------------------------------------ what is started


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of PATH with commands of the servers' names, each a `serving_child`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in serving.ENGINES:
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "{CHILD}" "$@"\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


async def test_the_server_of_the_settings_is_started_and_its_address_given(programs: Path, tmp_path: Path) -> None:
    child = Child(tmp_path)
    settings = replace(
        VLLM, serve_args=("--facts", str(tmp_path / "facts.json")), serve_env={"CHILD_VARIABLE": 7}, serve_compile=False
    )
    async with served(settings) as endpoint:
        assert endpoint == replace(settings, serve=None, base_url=f"http://127.0.0.1:{child.facts['port']}/v1")
        assert child.facts["others"] == ["serve", "some/model", "--host", "127.0.0.1", "--enforce-eager"]
        assert child.facts["variable"] == "7"
    child.wait_until_gone()


async def test_nothing_is_started_where_nothing_is_asked_for() -> None:
    settings = PolicySettings(scheme="openai", model="m", base_url="http://localhost:1/v1")
    async with served(settings) as endpoint:
        assert endpoint is settings


@pytest.mark.parametrize(
    ("name", "compiles", "said"),
    [
        ("sglang", True, "serve --model-path some/model --host 127.0.0.1 --port 5"),
        ("sglang", False, "serve --model-path some/model --host 127.0.0.1 --port 5 --disable-cuda-graph"),
        ("vllm", True, "serve some/model --host 127.0.0.1 --port 5"),
        ("vllm", False, "serve some/model --host 127.0.0.1 --port 5 --enforce-eager"),
        ("transformers", True, "serve some/model --host 127.0.0.1 --port 5"),
        ("transformers", False, "serve some/model --host 127.0.0.1 --port 5"),
    ],
)
def test_each_server_has_its_command(name: str, compiles: bool, said: str, programs: Path) -> None:
    program, *arguments = serve_command(replace(VLLM, serve=name, serve_compile=compiles), 5)
    assert Path(program).name == name
    assert " ".join(arguments) == said


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"serve": "vlm"}, r"policy\.serve=vlm: did you mean vllm\?"),
        ({"serve": "tgi"}, "one of sglang, vllm, transformers"),
        ({"scheme": "replay"}, "policy=replay does not ask"),
        ({"scheme": "transformers"}, "policy=transformers does not ask"),
        ({"base_url": "http://h/v1"}, "http://h/v1 names another"),
        ({"model": None}, r"needs policy\.model"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any], said: str, programs: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        serve_command(replace(VLLM, **wrong), 5)


def test_a_server_that_is_not_installed_is_refused_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ConfigError, match="there is no command `vllm`: `pip install vllm`"):
        serve_command(VLLM, 5)


def test_the_command_line_takes_arguments_and_variables_of_the_server() -> None:
    settings, _ = composed(
        [
            "policy=openai",
            "policy.model=m",
            "policy.serve=vllm",
            "policy.serve_args=[--max-model-len,32768]",
            "policy.serve_env.A=0",
        ]
    )
    assert settings.policy.serve_args == ("--max-model-len", "32768")
    assert dict(settings.policy.serve_env) == {"A": 0}


# ------------------------------------------------------------------ a real one

real = pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra `transformers`")


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def endpoint(loop: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PolicySettings]:
    """`transformers serve` with a tiny model: one for all tests, as it takes seconds to start."""
    model = tiny_model(tmp_path_factory.mktemp("model"))
    quiet = {"HF_HUB_OFFLINE": 1, "HF_HUB_DISABLE_UPDATE_CHECK": 1}
    settings = PolicySettings(scheme="openai", model=str(model), serve="transformers", serve_start_s=120, serve_env=quiet)
    context = served(settings)
    with ExitStack() as stack:
        up = loop.run(context.__aenter__())
        stack.callback(lambda: loop.run(context.__aexit__(None, None, None)))
        yield up


@real
@pytest.mark.external
def test_a_model_says_the_same_in_this_process_as_in_a_server(endpoint: PolicySettings, loop: asyncio.Runner) -> None:
    async def replies(spec: str) -> list[tuple[str, str, Usage]]:
        policy = make_policy(spec, endpoint=endpoint)
        await policy.preflight()
        made = [await policy.generate(request) for request in requests]
        await policy.aclose()
        # the server cuts thoughts out of the text, and their tags away
        return [(re.sub("</?think>", "", r.reasoning + r.text), r.finish_reason, r.usage) for r in made]

    greedy = Sampling(temperature=0, max_tokens=16)
    talk = [{"role": "system", "content": "You write kernels."}, {"role": "user", "content": "Why?"}]
    later = [*talk, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nSo."}, {"role": "user", "content": "Faster."}]
    requests = [
        GenerationRequest(tuple(messages), greedy, "level1_problem1", 0, thinking)
        for messages in (talk, later)
        for thinking in (None, True, False)
    ]
    here, there = (loop.run(replies(f"{scheme}/{endpoint.model}")) for scheme in ("transformers", "openai"))
    assert here == there
    assert len({text for text, *_ in here}) > 2  # they are not all alike, so that being equal means something


@real
@pytest.mark.external
def test_a_run_starts_its_server_and_a_finished_one_needs_none(
    endpoint: PolicySettings, loop: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model writes no code: that is its result, and the run says that it looks more like a fault."""
    settings, text = composed(
        ["problems.levels=1", "problems.limit=1", "policy=openai", f"policy.model={endpoint.model}", "rollout.max_turns=2",
         "policy.serve=transformers", "policy.serve_env={HF_HUB_OFFLINE: 1, HF_HUB_DISABLE_UPDATE_CHECK: 1}",
         "sampling.temperature=0", "sampling.max_tokens=16", "run.name=r", f"run.root={tmp_path}", "run.canaries=false"]
    )  # fmt: skip
    result = loop.run(run(settings, text))
    (episode,) = result.episodes
    assert episode.stop_reason is StopReason.TURN_LIMIT
    assert [turn.verdict.status for turn in episode.turns] == [Status.NO_CODE] * 2
    assert [turn.reward.value for turn in episode.turns] == [0.0, 0.0]
    assert all(0 < turn.generation.usage.completion_tokens <= 16 for turn in episode.turns)
    with pytest.raises(NoneCorrect, match="none of 1 episodes was ever correct"):
        result.check()
    monkeypatch.setattr("rollout.serving.serve_command", lambda *_: pytest.fail("a server was started"))
    assert loop.run(run(settings, text)).episodes == result.episodes

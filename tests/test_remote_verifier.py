"""`RemoteVerifier` over real servers: the same verdicts and errors as on this machine, whatever becomes of the servers."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import gymnasium
import pytest

from kernel_env.errors import (
    BuilderError,
    ConfigError,
    InfraError,
    KernelEnvError,
    MachineBusy,
    ProblemError,
    ReferenceEnded,
    VerifierError,
)
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.slots import Order
from kernel_env.remote import client, endpoint
from kernel_env.remote.client import RemoteVerifier
from kernel_env.remote.config import ServerConfig
from kernel_env.remote.server import Service
from kernel_env.remote.wire import write
from kernel_env.schema import Candidate, Problem, Status, StopReason, Verdict
from kernel_env.verifier import BlockingVerifier, Load, LocalVerifier
from rewards.judge.static import StaticJudge
from rollout.cli import main
from rollout.compose import composed
from rollout.doctor import Level, server
from rollout.runner import make_verifier, run
from tests.conftest import GOOD, QUICK, python_candidate
from tests.eval_server import PROBLEM, EvalServer, Scripted, child, expected, until_async
from tests.judge_server import JudgeServer

CONFIG = VerifyConfig()


@asynccontextmanager
async def remote(*servers: EvalServer | str, patience_s: float = 5.0, **given: Any) -> AsyncIterator[RemoteVerifier]:
    urls = [server if isinstance(server, str) else server.url for server in servers]
    verifier = RemoteVerifier(urls, patience_s=patience_s, **given)
    try:
        yield verifier
    finally:
        await verifier.aclose()


async def verified(verifier: RemoteVerifier, code: str, seed: int = 7) -> Verdict:
    return await verifier.verify(PROBLEM, Candidate(code, "cpp"), CONFIG, seed)


# ------------------------------------------------------------------ the same as on this machine


@pytest.fixture(scope="module")
def real() -> Iterator[EvalServer]:
    with EvalServer(LocalVerifier) as server:
        yield server


CANDIDATES = {
    Status.CORRECT: GOOD,
    Status.WRONG_OUTPUT: python_candidate("return extension.scaled_relu(x, 3.0)"),
    Status.CRASHED: python_candidate("ctypes.string_at(0)", top="import ctypes"),
    Status.TIMEOUT: python_candidate("time.sleep(1000)", top="import time"),
    Status.BUILD_ERROR: GOOD.replace("return y;", "return z;"),
    Status.REJECTED: "class ModelNew: pass",
}


@pytest.mark.parametrize("status", CANDIDATES)
async def test_the_verdict_is_that_of_a_verifier_here(
    real: EvalServer, verifier: BlockingVerifier, problem: Problem, status: Status
) -> None:
    config = replace(QUICK, num_correct_trials=2, measure_performance=False, timeout_s=2)
    candidate = Candidate(CANDIDATES[status], "cpp")
    async with remote(real) as over_there:
        found = await over_there.verify(problem, candidate, config, 11)
    here = await asyncio.to_thread(verifier.verify, problem, candidate, config, 11)
    assert found.status == status
    assert undated(found) == undated(here)


def undated(verdict: Verdict) -> Verdict:
    message = re.sub(r"needed [\d.e-]+ s", "needed some time", verdict.message)
    return replace(verdict, message=message, duration_ms=0.0, build_ms=0.0, own_ms=0.0, baseline_ms=0.0)


async def test_a_broken_problem_is_the_same_error_as_here(real: EvalServer, verifier: BlockingVerifier, problem: Problem) -> None:
    broken = replace(problem, source=problem.source.replace("torch.randn(ROWS, 8)", "unknown"))
    with pytest.raises(ProblemError) as here:
        await asyncio.to_thread(verifier.verify, broken, Candidate(GOOD, "cpp"), QUICK, 11)
    async with remote(real) as over_there:
        with pytest.raises(ProblemError) as there:
            await over_there.verify(broken, Candidate(GOOD, "cpp"), QUICK, 11)
    assert type(there.value) is type(here.value)
    assert str(here.value).split()[0] in str(there.value) and real.url in str(there.value)


async def test_an_unknown_back_end_is_the_same_error_as_here(real: EvalServer, problem: Problem) -> None:
    async with remote(real) as over_there:
        for candidate, config in ((Candidate(GOOD, "cp"), QUICK), (Candidate(GOOD, "cpp"), replace(QUICK, aot=("cuda:90",)))):
            with pytest.raises(ConfigError) as found:
                await over_there.verify(problem, candidate, config, 11)
            here = LocalVerifier()
            with pytest.raises(ConfigError) as expected_error:
                await here.verify(problem, candidate, config, 11)
            await here.aclose()
            assert str(found.value) == str(expected_error.value)


@pytest.mark.parametrize("kind", [ProblemError, ReferenceEnded, BuilderError, VerifierError, MachineBusy, ConfigError])
async def test_an_error_of_the_verifier_is_the_same_error_here(kind: type[KernelEnvError]) -> None:
    with EvalServer(Scripted()) as server:
        async with remote(server) as verifier:
            with pytest.raises(kind, match=f"^{server.url}.*the script's wish$") as found:
                await verified(verifier, f"raise {kind.__name__}")
            assert type(found.value) is kind
            assert await verified(verifier, "a kernel") == expected("a kernel")


async def test_everything_that_was_asked_arrives() -> None:
    with EvalServer(scripted := Scripted()) as server:
        async with remote(server) as verifier:
            config, order = VerifyConfig(num_correct_trials=3, tolerance="kernelbench"), Order(2, "trainer 1")
            found = await verifier.verify(PROBLEM, Candidate("\ud800 é", "cpp"), config, (1 << 63) - 1, order)
    assert found == expected("\ud800 é", (1 << 63) - 1)
    assert scripted.asked == [(config, (1 << 63) - 1, order)]


# ------------------------------------------------------------------ several servers


async def test_fifty_at_once_each_get_their_own_answer_and_all_servers_work() -> None:
    first, second = Scripted(), Scripted()
    with EvalServer(first) as one, EvalServer(second) as two:
        async with remote(one, two) as verifier:
            codes = [f"wait 0.0{n % 10}\nkernel {n}" for n in range(200)]
            found = await asyncio.gather(*(verified(verifier, code, n) for n, code in enumerate(codes)))
    assert found == [expected(code, n) for n, code in enumerate(codes)]
    assert sorted(first.verified + second.verified) == sorted(codes), "each ran once"
    assert 80 <= len(first.verified) <= 120


async def test_the_one_with_the_least_to_do_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "LOOK_S", 0.05)
    busy, idle = Scripted(), Scripted()
    with EvalServer(busy, slots=2) as one, EvalServer(idle, slots=2) as two:
        async with remote(one) as other_trainer, remote(one, two) as verifier:
            others = [asyncio.create_task(verified(other_trainer, "held")) for _ in range(6)]
            await until_async(lambda: busy.busy.now == 6)
            await verifier.start("cpp")
            mine = [asyncio.create_task(verified(verifier, f"held\n{n}")) for n in range(5)]
            await until_async(lambda: busy.busy.now + idle.busy.now == 11)
            assert idle.busy.now == 5
            await until_async(lambda: verifier.load == Load(0, 0, 11, 0))
            busy.let_go.set()
            idle.let_go.set()
            await asyncio.gather(*others, *mine)


async def test_the_jobs_of_a_server_that_is_killed_go_to_another() -> None:
    with child() as first, EvalServer(second := Scripted()) as two:
        async with remote(first.url, two) as verifier:
            codes = [f"wait 0.3\nkernel {n}" for n in range(20)]
            working = [asyncio.create_task(verified(verifier, code)) for code in codes]
            await until_async(lambda: len(second.verified) == 10)
            first.process.kill()
            assert await asyncio.gather(*working) == [expected(code) for code in codes]
            assert len(second.verified) == 20


async def test_jobs_wait_for_a_server_that_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    passed_s = [0.0]
    monkeypatch.setattr(client, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed_s[0]))
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    with child(f"port={port}") as first:
        async with remote(first.url, patience_s=60) as verifier:
            working = [asyncio.create_task(verified(verifier, f"wait 0.5\nkernel {n}")) for n in range(5)]
            await asyncio.sleep(0.2)
            passed_s[0] = 1000.0  # how long they took so far is no matter
            first.process.kill()
            first.process.wait()
            with EvalServer(Scripted(), port=port):
                assert await asyncio.gather(*working) == [expected(f"wait 0.5\nkernel {n}") for n in range(5)]


async def test_a_server_that_stops_gets_nothing_new_and_finishes_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "LOOK_S", 0.01)
    first, second = Scripted(), Scripted()
    with EvalServer(first, drain_s=30.0) as one, EvalServer(second) as two:
        async with remote(one, two) as verifier:
            working = [asyncio.create_task(verified(verifier, f"held\n{n}")) for n in range(4)]
            await until_async(lambda: first.busy.now == second.busy.now == 2)
            one.stop()
            await until_async(lambda: one.get("/health").status == 503)
            await asyncio.sleep(0.1)
            for n in range(10):
                assert await verified(verifier, f"kernel {n}") == expected(f"kernel {n}")
            assert one.get("/metrics.json").json["failures"].get("stopping", 0) <= 1
            first.let_go.set()
            second.let_go.set()
            assert await asyncio.gather(*working) == [expected(f"held\n{n}") for n in range(4)]
            await asyncio.to_thread(one.join)
    assert len(first.verified) == 2 and len(second.verified) == 12


async def test_no_server_is_an_error_that_names_them_all() -> None:
    async with remote("http://127.0.0.1:9", "http://127.0.0.1:10", patience_s=0.3) as verifier:
        says = r"no server verifies \(http://127.0.0.1:9: .*http://127.0.0.1:10: .*verifier.remote"
        with pytest.raises(VerifierError, match=says):
            await verified(verifier, "a kernel")
        with pytest.raises(VerifierError, match="no server verifies"):
            await verifier.start("cpp")


async def test_a_full_server_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "FULL_S", 0.1)
    with EvalServer(scripted := Scripted(), queue=2) as server:
        async with remote(server, patience_s=0.1) as verifier:
            codes = [f"wait 0.05\nkernel {n}" for n in range(8)]
            assert await asyncio.gather(*(verified(verifier, code) for code in codes)) == [expected(code) for code in codes]
    assert scripted.busy.most == 2 and sorted(scripted.verified) == codes


async def test_a_full_server_is_left_alone_for_a_while() -> None:
    with EvalServer(scripted := Scripted(), queue=1) as server:
        async with remote(server) as verifier:
            working = [asyncio.create_task(verified(verifier, f"held\n{n}")) for n in range(2)]
            await asyncio.sleep(0.5)
            assert 1 <= server.get("/metrics.json").json["failures"]["overloaded"] <= 3
            scripted.let_go.set()
            await asyncio.gather(*working)


class Busy(Scripted):
    """Its machine has other work."""

    async def verify(self, problem: Problem, candidate: Candidate, *others: Any, **given: Any) -> Verdict:
        self.verified.append(candidate.code)
        raise MachineBusy("other work has the cores")


async def test_what_one_machine_cannot_do_another_does() -> None:
    busy, able = Busy(), Scripted()
    with EvalServer(busy, slots=8) as one, EvalServer(able) as two:
        async with remote(one, two) as verifier:
            assert await verified(verifier, "a kernel") == expected("a kernel")
            assert (busy.verified, able.verified) == (["a kernel"], ["a kernel"])


async def test_what_no_machine_can_do_is_tried_once_on_each() -> None:
    one, two = Busy(), Busy()
    with EvalServer(one) as first, EvalServer(two) as second:
        async with remote(first, second) as verifier:
            with pytest.raises(MachineBusy):
                await verified(verifier, "a kernel")
    assert one.verified == two.verified == ["a kernel"]


async def test_a_broken_problem_is_not_tried_elsewhere() -> None:
    one, two = Scripted(), Scripted()
    with EvalServer(one) as first, EvalServer(two) as second:
        async with remote(first, second) as verifier:
            with pytest.raises(ProblemError):
                await verified(verifier, "raise ProblemError")
    assert len(one.verified + two.verified) == 1


# ------------------------------------------------------------------ giving up


async def test_cancelling_a_verification_frees_the_slot() -> None:
    with EvalServer(scripted := Scripted()) as server:
        async with remote(server) as verifier:
            working = asyncio.create_task(verified(verifier, "hang"))
            await until_async(lambda: scripted.busy.now)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            assert (scripted.busy.now, scripted.busy.cancelled) == (0, 1)
            assert await verified(verifier, "a kernel") == expected("a kernel")


async def test_closing_ends_what_is_in_progress_with_an_error() -> None:
    with EvalServer(scripted := Scripted()) as server:
        async with remote(server) as verifier:
            working = asyncio.create_task(verified(verifier, "hang"))
            await until_async(lambda: scripted.busy.now)
            await verifier.aclose()
            with pytest.raises(VerifierError, match="closed"):
                await working
            with pytest.raises(VerifierError, match="closed"):
                await verified(verifier, "a kernel")
        assert scripted.busy.cancelled == 1


async def test_the_jobs_of_a_client_that_died_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LEASE_S", 0.1)
    monkeypatch.setattr(endpoint, "POLL_S", 0.02)

    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr(endpoint.Endpoint, "cancel", nothing)  # it has no time to say goodbye
    with EvalServer(scripted := Scripted()) as server:
        async with remote(server) as verifier:
            working = asyncio.create_task(verified(verifier, "hang"))
            await asyncio.sleep(1.5)
            assert scripted.busy.now == 1, "while it asks, the job is alive"
            working.cancel()
            await until_async(lambda: scripted.busy.cancelled)


# ------------------------------------------------------------------ the wrong server


@pytest.mark.parametrize("key", ["", "wrong"])
async def test_without_the_key_it_is_an_error_of_the_configuration(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with EvalServer(Scripted(), api_key="secret") as server:
        async with remote(server, api_key=key) as verifier:
            with pytest.raises(ConfigError, match=r"verifier\.api_key"):
                await verified(verifier, "a kernel")
        monkeypatch.setenv("KERNEL_ENV_API_KEY", "secret")
        async with remote(server) as verifier:
            assert await verified(verifier, "a kernel") == expected("a kernel")


async def test_a_server_of_another_kind_is_not_taken_for_one() -> None:
    with JudgeServer(StaticJudge()) as judge:
        async with remote(judge.url, patience_s=0.1) as verifier:
            with pytest.raises(VerifierError, match="not as kernel-env of this version"):
                await verified(verifier, "a kernel")


class Forgetful(BaseHTTPRequestHandler):
    """Takes every job. Whoever asks for the answer gets `said`."""

    said: tuple[int, Any] = (404, {"kind": "unknown_job", "message": "there is no such job"})
    submissions = 0

    def do_GET(self) -> None:
        health = json.loads(write(Service(Scripted(), ServerConfig()).health()))
        self.answer(*((200, health) if self.path == "/health" else self.said))

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).submissions += 1
        self.answer(202, {"id": job["id"]})

    def do_DELETE(self) -> None:
        self.answer(404, {"kind": "unknown_job", "message": ""})

    def answer(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("said", "kind", "says"),
    [
        (Forgetful.said, VerifierError, "lost a job 5 times"),
        ((502, b"<html>bad gateway</html>"), VerifierError, "lost a job 5 times"),
        ((200, b"<html>welcome</html>"), VerifierError, "cannot be read"),
        ((200, {"id": "x", "verdict": {"status": "correct"}}), VerifierError, "cannot be read"),
        ((200, {"id": "x", "verdict": json.loads(write(expected("a kernel"))) | {"status": []}}), VerifierError, "cannot be read"),
        ((200, {"id": "x", "verdict": json.loads(write(expected("another kernel")))}), VerifierError, "another question"),
        ((403, b"no"), ConfigError, "status 403"),
        ((500, {"kind": "of the future", "message": "new"}), VerifierError, "new"),
    ],
)
async def test_an_answer_that_is_none_is_never_a_verdict(
    said: tuple[int, Any], kind: type[InfraError], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "LOOK_S", 0.02)
    handler = type("Handler", (Forgetful,), {"said": said})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, ExitStack() as stack:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        stack.callback(server.shutdown)
        async with remote(f"http://127.0.0.1:{server.server_port}") as verifier:
            with pytest.raises(kind, match=says):
                await verified(verifier, "a kernel")
            assert handler.submissions == (5 if "5 times" in says else 1)


class Breaking(Forgetful):
    """Breaks the connection of the first request for the answer."""

    polls = 0

    def do_GET(self) -> None:
        if self.path != "/health":
            type(self).polls += 1
            if self.polls == 1:
                return self.connection.close()
        return super().do_GET()


async def test_a_connection_that_breaks_is_made_again_before_the_job_goes_elsewhere() -> None:
    said = 200, {"id": "x", "verdict": json.loads(write(expected("a kernel")))}
    handler = type("Handler", (Breaking,), {"said": said})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, ExitStack() as stack:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        stack.callback(server.shutdown)
        async with remote(f"http://127.0.0.1:{server.server_port}") as verifier:
            assert await verified(verifier, "a kernel") == expected("a kernel")
    assert (handler.polls, handler.submissions) == (2, 1)


@pytest.mark.parametrize("urls", [[], ["localhost:18188"], ["http://a:1", "unix:/tmp/x"], ["http://"], ["http://a:port"]])
def test_what_is_no_address_is_an_error_of_the_configuration(urls: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"verifier\.remote"):
        RemoteVerifier(urls)


# ------------------------------------------------------------------ who uses it


async def test_a_run_verifies_on_the_servers_that_its_configuration_names(tmp_path: Path) -> None:
    first, second = Scripted(), Scripted()
    with EvalServer(first, api_key="secret") as one, EvalServer(second, api_key="secret") as two:
        where = f"verifier.remote=[{one.url},{two.url}]"
        settings, text = composed([where, "verifier.api_key=secret", f"run.root={tmp_path}", "run.name=x", "problems.limit=2"])
        assert "secret" not in text
        result = await run(settings, text)
    assert {episode.stop_reason for episode in result.episodes} <= {StopReason.SOLVED, StopReason.TURN_LIMIT, StopReason.EXHAUSTED}
    asked = [turn.verdict.candidate_digest for episode in result.episodes for turn in episode.turns if turn.code is not None]
    assert len(asked) == len(first.verified) + len(second.verified) > 5
    assert first.verified and second.verified


async def test_a_run_whose_servers_are_gone_is_not_begun(tmp_path: Path) -> None:
    settings, text = composed(["verifier.remote=[http://127.0.0.1:9]", f"run.root={tmp_path}", "run.name=x", "problems.limit=1"])
    with pytest.raises(VerifierError, match=r"no server verifies \(http://127.0.0.1:9: .*is verifier.remote right"):
        await run(settings, text)
    assert not (tmp_path / "x").exists(), "no episode has an infrastructure failure for it"


def test_commands_say_at_once_that_servers_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And do not begin: a verification waits a minute for a server that is started again."""

    async def begun(*_: object) -> None:
        raise AssertionError("a verification was begun")

    monkeypatch.setattr(RemoteVerifier, "verify", begun)
    (tmp_path / "kernel.py").write_text("class ModelNew: ...")
    example = str(Path(__file__).parents[1] / "runs/example")
    for command in (["verify", "1/3", str(tmp_path / "kernel.py")], ["replay", example, "level1_problem2", "0"]):
        assert main([*command, "verifier.clock=live", "verifier.remote=[http://127.0.0.1:9]"]) == VerifierError.exit_code
        assert "no server verifies (http://127.0.0.1:9" in capsys.readouterr().err


async def test_the_doctor_tries_each_server(real: EvalServer) -> None:
    settings, _ = composed([f"verifier.remote=[{real.url},http://127.0.0.1:9]"])
    found = [await server(url, settings) for url in settings.verifier.remote]
    assert [finding.level for finding in found] == [Level.OK, Level.FAIL]


@pytest.mark.parametrize("other", ["verifier=inprocess", "verifier.clock=recorded"])
def test_what_is_the_servers_to_decide_cannot_be_set_here(other: str) -> None:
    with pytest.raises(ConfigError, match=r"verifier\.remote"):
        composed(["verifier.remote=[http://a:1]", other])


async def test_a_file_of_times_of_this_machine_does_not_go_with_servers(tmp_path: Path) -> None:
    settings, text = composed(["verifier.remote=[http://a:1]", "verify.baseline=times.json", f"run.root={tmp_path}"])
    assert isinstance(make_verifier(settings.verifier), RemoteVerifier)
    with pytest.raises(ConfigError, match=r"verify\.baseline"):
        await run(settings, text)


def test_the_environment_verifies_on_servers() -> None:
    with EvalServer(scripted := Scripted()) as server:
        env = gymnasium.make("KernelBench-v0", verifier=f"{server.url},{server.url}", max_turns=2)
        env.reset(seed=1)
        _, reward, _, _, info = env.step(f"```python\n{GOOD}\n```")
        env.close()
    assert len(scripted.verified) == 1
    assert info["verdict"].candidate_digest == Candidate(scripted.verified[0], "cpp").digest and reward is not None

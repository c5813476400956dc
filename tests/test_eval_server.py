"""`kernel-env serve`: a real server on a free port, asked over HTTP; the verifier behind it follows a script."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import count
from multiprocessing import Semaphore
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from openai import OpenAI

from kernel_env.errors import ConfigError
from kernel_env.referee.config import VerifyConfig
from kernel_env.remote import jobs as module
from kernel_env.remote.config import ServerConfig
from kernel_env.remote.counters import Counters
from kernel_env.remote.wire import Answer, Health, Job, read
from kernel_env.schema import Candidate, Status, Verdict, from_json
from rollout.cli import main
from tests.chat_server import ChatServer
from tests.conftest import GOOD, REFERENCE, python_candidate
from tests.eval_server import PROBLEM, EvalServer, Scripted, child, expected, job, until, until_async
from tests.judge_server import PATIENCE_S, ask
from tests.players import verdict

ROOT = Path(__file__).parents[1]


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
def server(scripted: Scripted) -> Iterator[EvalServer]:
    with EvalServer(scripted) as running:
        yield running


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[EvalServer, Scripted]]:
    """For tests that leave nothing behind."""
    with EvalServer(scripted := Scripted()) as running:
        yield running, scripted


def delete(server: EvalServer, path: str) -> int:
    return ask(server.url + path, method="DELETE").status


# ------------------------------------------------------------------ jobs


def test_a_candidate_gets_the_verifiers_verdict_and_nothing_is_lost_on_the_way(server: EvalServer, scripted: Scripted) -> None:
    assert server.verdict(job("a kernel")) == expected("a kernel")
    ((_, seed, order),) = scripted.asked
    assert seed == 7 and order.client == "127.0.0.1"


def test_without_a_seed_the_server_draws_one_each_time(server: EvalServer) -> None:
    seeds = {server.verdict(job("a kernel", seed=None)).seed for _ in range(3)}
    assert len(seeds) == 3


def test_text_that_no_encoding_has_arrives_as_it_is(server: EvalServer) -> None:
    assert server.verdict(job("a kernel \ud800 ü")) == expected("a kernel \ud800 ü")


def test_a_job_is_submitted_waited_for_and_fetched(server: EvalServer, scripted: Scripted) -> None:
    accepted = server.post("/jobs", job("held"))
    assert accepted.status == 202
    path = f"/jobs/{accepted.json['id']}"
    assert server.get(path).status == 202
    assert server.get(f"{path}?wait_s=0.05").json == accepted.json
    with ThreadPoolExecutor(1) as threads:
        coming = threads.submit(server.get, f"{path}?wait_s=30")
        scripted.let_go.set()
        assert from_json(Answer, coming.result().json) == Answer(accepted.json["id"], expected("held"))
    assert server.get(path).status == 200, "it can be fetched again, should the answer not have arrived"


def test_jobs_of_a_batch_are_accepted_in_their_order(server: EvalServer) -> None:
    codes = [f"kernel {n}" for n in range(20)]
    ids = server.post("/jobs/batch", {"jobs": [job(code) for code in codes]}).json["ids"]
    found = [from_json(Answer, server.get(f"/jobs/{one}?wait_s=30").json) for one in ids]
    assert found == [Answer(one, expected(code)) for one, code in zip(ids, codes, strict=True)]


def test_a_job_that_is_sent_again_runs_once(server: EvalServer, scripted: Scripted) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(server.post, ["/jobs", "/verify"] * 8, [job("wait 0.1", id="mine")] * 16))
    assert {answer.status for answer in answers} == {200, 202}
    assert server.verdict(job("wait 0.1", id="mine")) == expected("wait 0.1")
    assert scripted.verified == ["wait 0.1"]


def test_a_job_that_failed_runs_again_when_it_is_sent_again(server: EvalServer, scripted: Scripted) -> None:
    for _ in range(2):
        assert server.post("/verify", job("raise BuilderError", id="mine")).json["kind"] == "builder"
    assert scripted.verified == ["raise BuilderError"] * 2


def test_an_id_is_of_one_job(server: EvalServer) -> None:
    assert server.post("/jobs", job("a kernel", id="mine")).status == 202
    found = server.post("/jobs", job("another kernel", id="mine"))
    assert (found.status, found.json["kind"], found.json["id"]) == (409, "conflict", "mine")
    twice = server.post("/jobs/batch", {"jobs": [job("one", id="new"), job("two", id="new")]})
    assert (twice.status, server.get("/jobs/new").status) == (409, 404)


def test_cancelling_a_job_frees_its_place(server: EvalServer, scripted: Scripted) -> None:
    server.post("/jobs", job("hang", id="mine"))
    until(lambda: scripted.busy.now)
    assert delete(server, "/jobs/mine") == 204
    assert (scripted.busy.now, scripted.busy.cancelled) == (0, 1)
    assert delete(server, "/jobs/mine") == server.get("/jobs/mine").status == 404
    assert server.get("/health").json["unfinished"] == 0


def test_whoever_waits_for_a_job_that_is_cancelled_is_told(server: EvalServer, scripted: Scripted) -> None:
    server.post("/jobs", job("hang", id="mine"))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(server.get, "/jobs/mine?wait_s=30")
        until(lambda: scripted.busy.now)
        time.sleep(0.1)
        delete(server, "/jobs/mine")
        assert (waiting.result().status, waiting.result().json["kind"]) in [(410, "cancelled"), (404, "unknown_job")]


def test_a_job_that_nobody_asks_for_any_more_is_given_up(server: EvalServer, scripted: Scripted) -> None:
    server.post("/jobs/batch", {"jobs": [job("hang", id="mine", lease_s=0.1), job("wait 2.5", id="asked", lease_s=0.1)]})
    assert server.get("/jobs/asked?wait_s=30").status == 200
    assert scripted.busy.cancelled == 1
    assert server.get("/jobs/mine").status == 404


@pytest.mark.parametrize(("lease_s", "goes_on"), [(None, False), (60.0, True)])
def test_whoever_hangs_up_gives_up_the_job_unless_it_has_a_lease(
    server: EvalServer, scripted: Scripted, lease_s: float | None, goes_on: bool
) -> None:
    hang_up(server, "/verify", job("held", id="mine", lease_s=lease_s), lambda: scripted.busy.now == 1)
    if goes_on:
        scripted.let_go.set()
        assert server.verdict(job("held", id="mine", lease_s=lease_s)) == expected("held")
        assert scripted.verified == ["held"]
    else:
        until(lambda: scripted.busy.cancelled)


def hang_up(server: EvalServer, path: str, asked: object, when: Callable[[], object]) -> None:
    host, _, port = server.url.removeprefix("http://").partition(":")
    body = json.dumps(asked).encode()
    with socket.create_connection((host, int(port))) as connection:
        headers = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        connection.sendall(f"POST {path} HTTP/1.1\r\n{headers}\r\n\r\n".encode() + body)
        until(when)


# ------------------------------------------------------------------ what is no verdict


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("ProblemError", 500, "problem"),
        ("ReferenceEnded", 500, "reference_ended"),
        ("BuilderError", 500, "builder"),
        ("VerifierError", 500, "verifier"),
        ("MachineBusy", 503, "machine_busy"),
        ("ConfigError", 422, "config"),
    ],
)
def test_a_failure_of_the_machine_is_told_as_such(shared: tuple[EvalServer, Scripted], name: str, status: int, kind: str) -> None:
    server, _ = shared
    for answer in (server.post("/verify", job(f"raise {name}")), evaluated(server, f"raise {name}")):
        assert (answer.status, answer.json["kind"], answer.json["message"]) == (status, kind, "it was the script's wish")
    server.post("/jobs", job(f"raise {name}", id=name))
    answer = server.get(f"/jobs/{name}?wait_s=30")
    assert (answer.status, answer.json["kind"], answer.json["id"]) == (status, kind, name)


def test_a_fault_of_the_server_is_one_jobs_failure(server: EvalServer) -> None:
    answer = server.post("/verify", job("break"))
    assert (answer.status, answer.json["kind"]) == (500, "verifier")
    assert server.verdict(job("a kernel")) == expected("a kernel")


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "says"),
    [
        ("/verify", b"{", 400, "invalid_request", "no JSON"),
        ("/verify", b"[" * 100_000, 400, "invalid_request", "no JSON"),
        ("/verify", b'{"seed": NaN}', 400, "invalid_request", "no JSON"),
        ("/verify", b"\xff", 400, "invalid_request", "no JSON"),
        ("/eval", b"{", 400, "invalid_request", "no JSON"),
        ("/eval", {"original_model_src": "x"}, 422, "invalid_request", "custom_model_src"),
        ("/eval", {"original_model_src": "x", "custom_model_src": 3}, 422, "invalid_request", "custom_model_src"),
        ("/verify", [], 422, "invalid_request", "expected an object"),
        ("/verify", {}, 422, "invalid_request", "missing field"),
        ("/verify", job("x", sed=1), 422, "invalid_request", "unknown field sed"),
        ("/verify", job("x", id="../health"), 422, "invalid_request", "Job.id"),
        ("/verify", job("x", seed=-1), 422, "invalid_request", "Job.seed"),
        ("/verify", job("x", lease_s=0), 422, "invalid_request", "Job.lease_s"),
        ("/verify", job("x", config={"num_correct_trials": 0}), 422, "config", "num_correct_trials"),
        ("/verify", job("x", config={"baseline": "/etc/passwd"}), 422, "config", "verify.baseline"),
        ("/jobs/batch", {"jobs": [job("x"), {}]}, 422, "invalid_request", "jobs[1]"),
        ("/jobs/mine?wait_s=inf", None, 422, "invalid_request", "wait_s"),
        ("/jobs/mine?wait_s=1000", None, 422, "invalid_request", "wait_s"),
        ("/nothing", None, 404, "invalid_request", "Not Found"),
    ],
)
def test_what_is_not_as_agreed_is_refused_with_a_reason(
    shared: tuple[EvalServer, Scripted], path: str, body: object, status: int, kind: str, says: str
) -> None:
    server, scripted = shared
    before = len(scripted.verified)
    answer = server.get(path) if body is None else server.post(path, body)
    assert (answer.status, answer.json["kind"]) == (status, kind), answer
    assert says in answer.json["message"] and "\n" not in answer.json["message"]
    assert len(scripted.verified) == before


def test_a_web_page_cannot_make_a_browser_send_a_candidate(server: EvalServer, scripted: Scripted) -> None:
    for path, asked in (("/verify", job("x")), ("/jobs", job("x")), ("/jobs/batch", {"jobs": []}), ("/eval", payload("x"))):
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            assert server.post(path, asked, headers={"Content-Type": kind}).status == 415
    assert scripted.verified == []


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_is_too_large_is_refused(scripted: Scripted, announced: bool) -> None:
    with EvalServer(scripted, max_body_bytes=2000) as server:
        large = b"x" * 3000
        answer = server.post("/verify", large if announced else iter([large]))
        assert (answer.status, answer.json["kind"]) == (413, "invalid_request")
        assert server.post("/eval", large).status == 413
        assert server.verdict(job("a kernel")) == expected("a kernel")


def test_nobody_without_the_key_is_let_in(scripted: Scripted) -> None:
    with EvalServer(scripted, api_key="secret") as server:
        for key in ("", "wrong"):
            for path, body in (("/verify", job("x")), ("/eval", b""), ("/jobs/batch", b"{"), ("/metrics", None), ("/jobs/1", None)):
                answer = ask(server.url + path, body, key=key)
                assert (answer.status, answer.json["kind"]) == (401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"
        assert server.post("/verify", job("x"), key="secret").status == 200
        assert server.get("/health").status == 200
        assert scripted.verified == ["x"]


# ------------------------------------------------------------------ many at once


def test_a_full_queue_says_when_to_come_again(scripted: Scripted) -> None:
    with EvalServer(scripted, queue=2) as server:
        batch = server.post("/jobs/batch", {"jobs": [job("held", id=f"{n}") for n in range(3)]})
        assert (batch.status, server.get("/jobs/0").status) == (429, 404), "all of a batch are taken, or none"
        assert server.post("/jobs/batch", {"jobs": [job("held", id=f"{n}") for n in range(2)]}).status == 202
        for answer in (server.post("/verify", job("x")), server.post("/jobs", job("x")), evaluated(server, "x")):
            assert (answer.status, answer.json["kind"], answer.headers["retry-after"]) == (429, "overloaded", "1")
        assert server.post("/jobs", job("held", id="1")).status == 202, "it is there already"
        scripted.let_go.set()
        server.get("/jobs/1?wait_s=30")
        assert server.verdict(job("x")) == expected("x")


def test_fifty_clients_at_once_each_get_their_own_answers(server: EvalServer) -> None:
    codes = [f"wait 0.0{n % 10}\nkernel {n}" for n in range(300)]

    def asked(n: int) -> Verdict:
        if n % 2:
            return server.verdict(job(codes[n], seed=n))
        one = server.post("/jobs", job(codes[n], seed=n)).json["id"]
        return from_json(Answer, server.get(f"/jobs/{one}?wait_s=30").json).verdict

    with ThreadPoolExecutor(50) as threads:
        assert list(threads.map(asked, range(300))) == [expected(code, n) for n, code in enumerate(codes)]


def test_health_and_metrics_say_what_happens(server: EvalServer, scripted: Scripted) -> None:
    server.post("/jobs/batch", {"jobs": [job("held"), job("hang", id="mine")]})
    server.post("/verify", job("raise BuilderError"))
    server.verdict(job("wrong_output"))
    health = from_json(Health, server.get("/health").json)
    assert (health.status, health.slots, health.unfinished) == ("healthy", 1, 2)
    assert "cpp" in health.supported_backends
    delete(server, "/jobs/mine")
    found = server.get("/metrics.json").json
    assert (found["accepted"], found["cancelled"], found["unfinished"]) == (4, 1, 1)
    assert (found["verdicts"]["wrong_output"], found["failures"]) == (1, {"builder": 1})
    text = server.get("/metrics").text
    samples = dict(re.findall(r"^(kernel_env_\S+) (\S+)$", text, re.MULTILINE))
    assert samples['kernel_env_verdicts_total{status="wrong_output"}'] == samples["kernel_env_unfinished"] == "1"
    assert samples['kernel_env_failures_total{kind="builder"}'] == samples["kernel_env_latency_seconds_count"] == "1"
    assert all(re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{\w+=\"[\w.]+\"\})? [\d.e+-]+", line) for line in text.splitlines())


async def known(jobs: module.Jobs) -> set[str]:
    found = set()
    for n in range(20):
        with contextlib.suppress(module.Refused):
            await jobs.answer(f"{n}", None)
            found.add(f"{n}")
    return found


@pytest.mark.parametrize(("keep_s", "left"), [(60.0, {"10", "11", "12", "13", "14"}), (0.0, set("01234"))])
async def test_answers_that_were_had_are_forgotten_first(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch, keep_s: float, left: set[str]
) -> None:
    """Of twenty the last five were had, or the last fifteen, which then need not be kept at all."""
    monkeypatch.setattr(module, "SWEEP_S", 0.01)
    jobs = module.Jobs(scripted, 1000, 60.0, Counters())
    jobs.submit([read(Job, json.dumps(job(f"kernel {n}", id=f"{n}")).encode()) for n in range(20)])
    for n in range(15 if keep_s else 5, 20):
        await jobs.answer(f"{n}", None)
    monkeypatch.setattr(module, "FETCHED_KEEP_S", keep_s)
    monkeypatch.setattr(module, "MOST_KEPT", 5)
    await until_async(lambda: jobs.kept <= 5)
    assert await known(jobs) == left
    await jobs.aclose()


# ------------------------------------------------------------------ its end


def test_a_server_that_stops_finishes_what_it_took_and_gives_it_out(scripted: Scripted) -> None:
    with EvalServer(scripted, drain_s=PATIENCE_S) as server, ThreadPoolExecutor(1) as threads:
        server.post("/jobs", job("held", id="mine"))
        waiting = threads.submit(server.verdict, job("held\nanother"))
        until(lambda: scripted.busy.now == 2)
        server.stop()
        until(lambda: server.get("/health").status == 503)
        for answer in (server.post("/jobs", job("x")), evaluated(server, "x")):
            assert (answer.status, answer.json["kind"], answer.headers["retry-after"]) == (503, "stopping", "1")
        assert server.get("/health").json["status"] == "draining"
        scripted.let_go.set()
        assert waiting.result() == expected("held\nanother")
        until(lambda: server.get("/health").json["unfinished"] == 0)
        assert from_json(Answer, server.get("/jobs/mine").json).verdict == expected("held")
        server.join()
    assert server.error is None


def test_a_server_that_stops_waits_for_nobody_longer_than_it_was_told(scripted: Scripted) -> None:
    with EvalServer(scripted, drain_s=0.1) as server, ThreadPoolExecutor(1) as threads:
        server.post("/jobs", job("kernel", id="never-fetched"))
        waiting = threads.submit(server.post, "/verify", job("hang"))
        until(lambda: scripted.busy.now)
        server.stop()
        assert (waiting.result().status, waiting.result().json["kind"]) == (503, "stopping")
        server.join()
    assert scripted.busy.cancelled == 1


def test_sigterm_drains(scripted: Scripted) -> None:
    with child() as serving:
        ask(f"{serving.url}/jobs", job("wait 0.5", id="mine"))
        serving.process.send_signal(signal.SIGTERM)
        until(lambda: ask(f"{serving.url}/health").status == 503)
        assert ask(f"{serving.url}/jobs", job("x")).status == 503
        answer = ask(f"{serving.url}/jobs/mine?wait_s=30")
        assert from_json(Answer, answer.json).verdict == expected("wait 0.5")
        assert serving.process.wait(PATIENCE_S) == 0


def test_a_second_signal_ends_it_at_once() -> None:
    with child("drain_s=1000") as serving:
        ask(f"{serving.url}/jobs", job("hang"))
        serving.process.send_signal(signal.SIGTERM)
        until(lambda: ask(f"{serving.url}/health").status == 503)
        serving.process.send_signal(signal.SIGINT)
        assert serving.process.wait(PATIENCE_S) == 0


# ------------------------------------------------------------------ KernelBench's wire


def payload(code: str, **given: Any) -> dict[str, Any]:
    """Field by field what TritonForge's slime plug-in sends."""
    return {
        "original_model_src": "class Model: ...",
        "custom_model_src": code,
        "num_correct_trials": 5,
        "num_perf_trials": 100,
        "measure_performance": True,
        "backend": "cpp",
        "verbose": False,
        "seed": 42,
    } | given


def evaluated(server: EvalServer, code: str, **given: Any) -> Any:
    return server.post("/eval", payload(code, **given))


def test_eval_has_the_fields_that_its_clients_read_and_types_that_they_accept(server: EvalServer) -> None:
    kinds = {}
    for n in range(20):
        answer = evaluated(server, f"kernel {n}").json
        assert answer.keys() == {"compiled", "correctness", "metadata", "runtime", "runtime_stats"}
        assert isinstance(answer["runtime"], float) and isinstance(answer["metadata"], dict)
        kinds[answer["correctness"], answer["metadata"].get("speedup")] = answer
    right = kinds[True, 1.5]
    assert (right["compiled"], right["runtime"], right["metadata"]["correctness_trials"]) == (True, 1.0, "(5 / 5)")
    assert right["runtime_stats"].items() >= {"mean": 1.0, "std": 0.0, "min": 1.0, "max": 1.0, "num_trials": 5}.items()
    wrong = kinds[False, None]
    assert (wrong["compiled"], wrong["runtime"], wrong["runtime_stats"]) == (True, -1.0, {})


@pytest.mark.parametrize(
    ("status", "compiled", "field"),
    [
        ("build_error", False, "compilation_error"),
        ("runtime_error", True, "runtime_error"),
        ("crashed", True, "runtime_error"),
        ("timeout", True, "runtime_error"),
        ("wrong_output", True, "correctness_issue"),
        ("tampered", True, "correctness_issue"),
    ],
)
def test_eval_says_why_a_candidate_failed(shared: tuple[EvalServer, Scripted], status: str, compiled: bool, field: str) -> None:
    answer = evaluated(shared[0], status)
    found, metadata = answer.json, answer.json["metadata"]
    assert (answer.status, found["compiled"], found["correctness"], found["runtime"]) == (200, compiled, False, -1.0)
    assert (metadata[field], metadata[f"{field}_name"], metadata["status"]) == ("what was seen", "words", status)


def test_eval_has_no_verdict_where_this_machine_cannot_tell(server: EvalServer) -> None:
    answer = evaluated(server, "needs_device")
    assert (answer.status, answer.json["kind"]) == (501, "needs_device")


def test_eval_takes_the_trials_from_the_request_and_the_rest_from_the_server(scripted: Scripted) -> None:
    with EvalServer(scripted, verify=VerifyConfig(tolerance="kernelbench", num_correct_trials=1)) as server:
        evaluated(server, "x", num_correct_trials=3, num_perf_trials=7, measure_performance=False)
        evaluated(server, "x", seed_num=42, preferred_device=0)
        ((first, one, _), (second, two, _)) = scripted.asked
    assert (first.num_correct_trials, first.num_perf_trials, first.measure_performance) == (3, 7, False)
    assert (second.num_correct_trials, second.num_perf_trials, second.measure_performance) == (5, 100, True)
    assert first.tolerance == second.tolerance == "kernelbench"
    assert one != two and 42 not in (one, two), "with the same seed each time a policy could learn the inputs"


def test_eval_answers_the_same_question_again_without_running_it_again(server: EvalServer, scripted: Scripted) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: evaluated(server, "wait 0.1").text, range(8)))
    evaluated(server, "wait 0.1", num_correct_trials=4)
    assert len(set(answers)) == 1 and len(scripted.verified) == 2


def test_whoever_hangs_up_on_eval_gives_up_the_candidate(server: EvalServer, scripted: Scripted) -> None:
    hang_up(server, "/eval", payload("hang"), lambda: scripted.busy.now == 1)
    until(lambda: scripted.busy.cancelled)


def test_its_other_pages_are_there(scripted: Scripted) -> None:
    with EvalServer(scripted, slots=2) as server:
        server.post("/jobs", job("held"))
        until(lambda: scripted.busy.now)
        assert server.get("/health").json["status"] == "healthy"
        assert "cpp" in server.get("/backend_info").json["supported_backends"]
        devices = server.get("/gpu_status").json
        assert (devices["total_devices"], devices["semaphore_permits"]) == (2, 1)
        assert [device["available"] for device in devices["devices"]] == [False, True]


@pytest.fixture
def tritonforge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The multi-turn generator of a checkout of TritonForge, as it is. It comes with a checker of mathematics, which needs what is
    not needed here."""
    if "TRITONFORGE_ROOT" not in os.environ:
        pytest.skip("TRITONFORGE_ROOT names no checkout of https://github.com/RLsys-Foundation/TritonForge")
    monkeypatch.syspath_prepend(Path(os.environ["TRITONFORGE_ROOT"]) / "SLIME")
    mathematics: Any = ModuleType("slime_plugins.rollout_buffer.generator.reward_utils.math_utils")
    mathematics.get_rule_based_math_reward = None
    monkeypatch.setitem(sys.modules, mathematics.__name__, mathematics)
    generator: Any = import_module("slime_plugins.rollout_buffer.generator.multi_turn_kernel_generator")
    monkeypatch.setattr(generator, "LOG_DIR", str(tmp_path))
    return generator


@pytest.mark.external
def test_tritonforges_own_client_plays_an_episode(server: EvalServer, scripted: Scripted, tritonforge: Any) -> None:
    kernel = "@triton.jit\ndef kernel(x):\n    pass\n\n\nclass ModelNew:\n    def forward(self, x): ..."
    numbered = (f"{kernel}  # {n}" for n in count())
    faster = next(code for code in numbered if verdict(PROBLEM, Candidate(code, "triton"), 0).speedup == 1.5)
    codes = [f"crashed\n{kernel}", f"build_error\n{kernel}", faster]
    item = {
        "prompt": [{"role": "user", "content": "write a kernel"}],
        "label": "class Model: ...",
        "extra_info": {"level": 1, "problem_id": 1, "problem_name": "Doubled"},
    }
    with ChatServer([f"```python\n{code}\n```" for code in codes], models=("custom",)) as model:
        policy = OpenAI(base_url=model.base_url, api_key="none")
        times = {"level1": {"1_Doubled.py": {"mean": 1.5}}}
        played = tritonforge.rollout_multi_turn_trajectory(item, policy, {}, server.url, Semaphore(2), baseline_timings=times)
    _, aggregated, rewards, history = played
    assert rewards == pytest.approx([0.1, 0.0, 0.8]) and aggregated == pytest.approx(0.1 + 0.4**2 * 0.8)
    assert [turn["eval_result"]["runtime"] for turn in history] == [-1.0, -1.0, 1.0]
    assert scripted.verified == codes, "it asks three times, answered or not"


# ------------------------------------------------------------------ the command


def test_the_command_serves_the_real_verifier() -> None:
    command = [sys.executable, "-m", "rollout.cli", "serve", "port=0", "api_key=secret", "verify.tolerance=kernelbench"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment) as serving:
        assert serving.stdout is not None
        line = serving.stdout.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert url is not None and "anybody" not in line, line
        statuses = {}
        wrong = python_candidate("return extension.scaled_relu(x, 3.0)")
        for name, code in {"right": GOOD, "wrong": wrong}.items():
            asked = payload(code, original_model_src=REFERENCE, num_correct_trials=2, measure_performance=False)
            answer = ask(f"{url.group()}/eval", asked, key="secret")
            assert answer.status == 200, answer
            statuses[name] = Status(answer.json["metadata"]["status"])
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(PATIENCE_S) == 0
    assert statuses == {"right": Status.CORRECT, "wrong": Status.WRONG_OUTPUT}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["now"], "usage"),
        (["port=x"], "give a number"),
        (["prot=1"], "unknown option prot; there are host port api_key queue keep_s drain_s; did you mean port or host?"),
        (["queue=0", "port=0"], "queue=0"),
        (["verify.baseline=times.json"], "verify.baseline"),
        (["verifier.remote=[http://a:1]"], "verifier.remote"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_port_that_is_taken_is_told_in_one_line(server: EvalServer, scripted: Scripted) -> None:
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}"), EvalServer(scripted, port=port):
        pass


def test_it_listens_to_this_machine_alone_unless_told_otherwise() -> None:
    assert ServerConfig().host == "127.0.0.1"

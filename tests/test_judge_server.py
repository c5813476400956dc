"""The judge as a service: a real server on a free port, asked over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import ConfigError, EndpointUnreachable
from rewards.judge.batcher import BatchConfig, Batcher, Refused
from rewards.judge.counters import Counters
from rewards.judge.models import CustomJudge, JudgeFailure, Outcome, Scored, custom_judge
from rewards.judge.server import ServerConfig
from rewards.judge.static import StaticJudge
from rewards.judge.wire import FailureKind, JudgeRequest
from rollout.cli import main
from tests.judge_server import PATIENCE_S, Held, JudgeServer, ask

ROOT = Path(__file__).parents[1]
EXAMPLE = {
    "prompt": "What is 2+2?",
    "completion": "The answer is **boxed{4}**",
    "answer": "4",
    "answer_type": "NUMBER",
    "request_id": "unique_id",
}


@pytest.fixture(scope="module")
def server() -> Iterator[JudgeServer]:
    with JudgeServer(StaticJudge(), config(batch_timeout_s=0.0)) as running:
        yield running


def config(**batches: Any) -> ServerConfig:
    return ServerConfig(port=0, batches=BatchConfig(**batches))


def scored(value: float, request_id: str = "1") -> dict[str, Any]:
    """What `Held` scores with `value`."""
    return {"prompt": "p", "completion": str(value), "request_id": request_id}


# ------------------------------------------------------------------ the protocol


def test_one_completion_gets_a_score_as_the_guide_has_it(server: JudgeServer) -> None:
    found = server.post("/judge", EXAMPLE).json
    assert (found["score"], found["request_id"], found["explanation"]) == (1.0, "unique_id", "4 against 4")
    assert found["metadata"]["latency"] > 0
    assert found["metadata"]["judge"] == "static"
    assert found["detailed_scores"] == {"correctness": 1.0}


def test_a_request_without_an_id_gets_one(server: JudgeServer) -> None:
    found = server.post("/judge", {k: v for k, v in EXAMPLE.items() if k != "request_id"}).json
    assert len(found["request_id"]) > 8


def test_a_batch_is_answered_by_ids_and_failures_stand_beside_the_scores(server: JudgeServer) -> None:
    requests = [
        {**EXAMPLE, "request_id": "right"},
        {**EXAMPLE, "request_id": "empty", "completion": " "},
        {**EXAMPLE, "request_id": "wrong", "completion": "The answer is 5."},
    ]
    found = server.post("/batch_judge", {"requests": requests}).json
    assert {r["request_id"]: r["score"] for r in found["responses"]} == {"right": 1.0, "wrong": 0.0}
    assert [(f["request_id"], f["kind"]) for f in found["failures"]] == [("empty", "nothing_to_judge")]


def test_a_batch_without_ids_is_numbered(server: JudgeServer) -> None:
    plain = {k: v for k, v in EXAMPLE.items() if k != "request_id"}
    found = server.post("/batch_judge", {"requests": [plain, plain]}).json
    assert sorted(r["request_id"] for r in found["responses"]) == ["1", "2"]


@pytest.mark.parametrize(
    ("body", "status", "kind", "says"),
    [
        (b"{", 400, "invalid_request", "no JSON"),
        (b"[" * 100_000, 400, "invalid_request", "body"),
        (b'{"prompt": "\xff"}', 400, "invalid_request", "body"),
        (b'{"prompt": "\\ud800", "completion": "c"}', 422, "invalid_request", "prompt"),
        (b'{"\\ud800": 1, "prompt": "p", "completion": "c"}', 422, "invalid_request", ""),
        (b'{"prompt": "p", "completion": "c", "metadata": {"a": NaN}}', 422, "invalid_request", "finite"),
        (b"[]", 422, "invalid_request", ""),
        ({"prompt": "p"}, 422, "invalid_request", "completion: Field required"),
        ({**EXAMPLE, "anser": "4"}, 422, "invalid_request", "anser"),
        ({**EXAMPLE, "answer_type": "POEM"}, 422, "invalid_request", "answer_type"),
        ({**EXAMPLE, "completion": ""}, 422, "nothing_to_judge", "empty"),
        ({**EXAMPLE, "answer": None}, 422, "unsupported", "answer"),
    ],
)
def test_what_cannot_be_judged_is_refused_with_a_reason(
    server: JudgeServer, body: object, status: int, kind: str, says: str
) -> None:
    found = server.post("/judge", body)
    assert (found.status, found.json["kind"]) == (status, kind)
    assert says in found.json["message"] and "\n" not in found.json["message"]


@pytest.mark.parametrize(
    "requests",
    [[], [EXAMPLE] * 129, [EXAMPLE, EXAMPLE], [EXAMPLE, {"prompt": "p", "completion": "c"}], [{"prompt": "p"}], "requests"],
)
def test_a_batch_that_is_not_as_agreed_is_refused_as_a_whole(server: JudgeServer, requests: object) -> None:
    found = server.post("/batch_judge", {"requests": requests})
    assert (found.status, found.json["kind"]) == (422, "invalid_request")


def test_what_was_sent_is_not_echoed(server: JudgeServer) -> None:
    found = server.post("/judge", {**EXAMPLE, "answer_type": "secret words", "prompt": ["secret words"]})
    assert found.status == 422 and "secret" not in found.text


@pytest.mark.parametrize(("path", "body", "status"), [("/judges", None, 404), ("/judge", None, 405), ("/health", {}, 405)])
def test_other_places_have_errors_of_the_same_form(server: JudgeServer, path: str, body: object, status: int) -> None:
    found = ask(server.url + path, body)
    assert (found.status, set(found.json)) == (status, {"kind", "message", "request_id"})


def test_a_body_that_is_too_large_is_refused() -> None:
    with JudgeServer(StaticJudge(), ServerConfig(port=0, max_body_bytes=2_000)) as small:
        assert small.post("/judge", EXAMPLE).status == 200
        announced = small.post("/judge", {**EXAMPLE, "completion": "x" * 4_000})
        assert announced.status == 413 and "2000 bytes" in announced.json["message"]
        with contextlib.closing(HTTPConnection(small.url.removeprefix("http://"), timeout=60)) as connection:
            connection.putrequest("POST", "/judge")
            connection.putheader("Transfer-Encoding", "chunked")
            connection.endheaders()
            for _ in range(2):  # and no end: it is refused while it comes
                connection.send(b"5dc\r\n" + b"x" * 1_500 + b"\r\n")
            assert connection.getresponse().status == 413


def test_with_a_key_only_health_is_open() -> None:
    with JudgeServer(StaticJudge(), ServerConfig(port=0, api_key="hush")) as locked:
        assert locked.get("/health").status == 200
        for path, body in (
            ("/judge", EXAMPLE),
            ("/batch_judge", {"requests": [EXAMPLE]}),
            ("/metrics", None),
            ("/metrics.json", None),
        ):
            assert ask(locked.url + path, body, key="hush").status == 200
            for key in ("", "hus", "hushh", "HUSH", "hüsh".encode().decode("latin-1")):
                refused = ask(locked.url + path, body, key=key)
                assert (refused.status, refused.json["kind"]) == (401, "unauthorized")
                assert refused.headers["www-authenticate"] == "Bearer"


def test_without_the_key_nothing_of_a_body_is_read() -> None:
    with JudgeServer(StaticJudge(), ServerConfig(port=0, api_key="hush", max_body_bytes=2_000)) as locked:
        for body in (b"{", {"prompt": "p"}, {**EXAMPLE, "completion": "x" * 4_000}):
            assert ask(f"{locked.url}/judge", body, key="hus").status == 401
        with contextlib.closing(HTTPConnection(locked.url.removeprefix("http://"), timeout=60)) as connection:
            connection.putrequest("POST", "/judge")
            connection.putheader("Content-Length", "1000")
            connection.endheaders()  # and no body
            assert connection.getresponse().status == 401
        assert locked.get("/metrics.json", key="hush").json["failures"]["unauthorized"] == 4
        assert locked.get("/openapi.json").status == 200


def test_the_documentation_names_every_answer(server: JudgeServer) -> None:
    schema = server.get("/openapi.json").json
    assert set(schema["paths"]) == {"/judge", "/batch_judge", "/health", "/metrics", "/metrics.json"}
    answers = schema["paths"]["/judge"]["post"]["responses"]
    assert set(answers) == {"200", "400", "413", "422", "429", "502", "503", "504"}
    bodies = {status: a["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2] for status, a in answers.items()}
    assert bodies == dict.fromkeys(answers, "Failure") | {"200": "JudgeResponse"}
    assert "securitySchemes" not in schema["components"]
    assert schema["components"]["schemas"]["JudgeRequest"]["additionalProperties"] is False
    assert "text/plain; version=0.0.4" in schema["paths"]["/metrics"]["get"]["responses"]["200"]["content"]


# ------------------------------------------------------------------ batches and the queue


def together(server: JudgeServer, values: list[float]) -> list[Any]:
    with ThreadPoolExecutor(len(values)) as pool:
        return list(pool.map(lambda value: server.post("/judge", scored(value)).json, values))


def test_requests_of_different_clients_share_a_full_batch() -> None:
    judge = Held(held=False)
    values = [i / 8 for i in range(8)]
    with JudgeServer(judge, config(max_batch_size=8, batch_timeout_s=100 * PATIENCE_S)) as server:
        assert [found["score"] for found in together(server, values)] == values
        counts = server.get("/metrics.json").json
    assert sorted(float(r.completion) for r in judge.batches[0]) == values
    assert (len(judge.batches), counts["batches"], counts["batched"]) == (1, 1, 8)


def test_a_lone_request_waits_for_others_only_so_long() -> None:
    judge = Held(held=False)
    with JudgeServer(judge, config(batch_timeout_s=0.01)) as server:
        assert server.post("/judge", scored(0.5)).json["score"] == 0.5
    assert [len(batch) for batch in judge.batches] == [1]


def test_a_large_batch_of_a_client_is_cut_to_the_judges_size() -> None:
    judge = Held(held=False)
    requests = [scored(i / 100, str(i)) for i in range(100)]
    with JudgeServer(judge, config(max_batch_size=16, batch_timeout_s=0.0)) as server:
        found = server.post("/batch_judge", {"requests": requests}).json["responses"]
    assert {r["request_id"]: r["score"] for r in found} == {str(i): i / 100 for i in range(100)}
    assert max(map(len, judge.batches)) == 16


def test_a_full_queue_refuses_and_says_when_to_try_again() -> None:
    judge = Held()
    full = {"requests": [scored(0.5, str(i)) for i in range(128)]}
    with JudgeServer(judge, config(queue=128, batches_in_flight=1, batch_timeout_s=0.0)) as server, ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.post, "/batch_judge", full)
        assert judge.seen.wait(PATIENCE_S)
        refused = server.post("/batch_judge", full)
        assert (refused.status, refused.json["kind"]) == (429, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        counts = server.get("/metrics.json").json
        assert (counts["in_flight"], counts["current_queue_size"], counts["failures"]["overloaded"]) == (16, 112, 1)
        judge.let_go.set()
        assert len(first.result(PATIENCE_S).json["responses"]) == 128


class Stubborn(CustomJudge):
    """Works in its own thread, and goes on for as long as it likes."""

    def __init__(self) -> None:
        self.seen, self.let_go = threading.Event(), threading.Event()

    def score(self, prompt: str, completion: str, answer: str | None, answer_type: str | None) -> Mapping[str, Any]:
        self.seen.set()
        self.let_go.wait(PATIENCE_S)
        return {"score": 0.25}


def test_a_judge_that_blocks_does_not_block_the_server() -> None:
    judge = Stubborn()
    with JudgeServer(judge, config(batch_timeout_s=0.0)) as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.post, "/judge", EXAMPLE)
        assert judge.seen.wait(PATIENCE_S)
        assert server.get("/health").json["status"] == "ok"
        judge.let_go.set()
        assert asked.result(PATIENCE_S).json["score"] == 0.25


def test_a_judge_that_takes_too_long_has_failed() -> None:
    judge = Held()
    with JudgeServer(judge, config(batch_timeout_s=0.0, timeout_s=0.05)) as server:
        found = server.post("/judge", scored(0.5, "mine"))
        assert (found.status, found.json["kind"], found.json["request_id"]) == (504, "timeout", "mine")
        judge.let_go.set()


@pytest.mark.parametrize("answers", [[], [0.5, 0.5], RuntimeError("out of\nmemory")])
def test_a_judge_that_breaks_or_miscounts_gives_no_score(answers: Any) -> None:
    class Broken(Held):
        async def score_batch(self, requests: Any) -> Any:
            if isinstance(answers, Exception):
                raise answers
            return answers

    with JudgeServer(Broken(), config(batch_timeout_s=0.0)) as server:
        found = server.post("/judge", scored(0.5))
        assert (found.status, found.json["kind"]) == (502, "unavailable")
        assert server.get("/health").status == 200


# ------------------------------------------------------------------ beginning and end


def test_while_the_judge_is_loading_nothing_is_taken() -> None:
    class Loading(Held):
        async def start(self) -> None:
            await self.score_batch([])

    judge = Loading()
    with JudgeServer(judge) as server:
        health, refused = server.get("/health"), server.post("/judge", EXAMPLE)
        assert (health.status, health.json["status"], health.json["model_loaded"]) == (503, "loading", False)
        assert (refused.status, refused.json["kind"]) == (503, "stopping") and refused.headers["retry-after"]
        judge.let_go.set()


def test_a_judge_that_cannot_be_loaded_ends_the_server_with_its_reason() -> None:
    class Absent(Held):
        async def start(self) -> None:
            raise EndpointUnreachable("nothing listens there")

    with JudgeServer(Absent()) as server:
        server.join()
    assert isinstance(server.error, EndpointUnreachable)


def test_a_port_that_is_taken_is_the_users_mistake(server: JudgeServer) -> None:
    taken = int(server.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match="cannot listen on"), JudgeServer(StaticJudge(), ServerConfig(port=taken)):
        pass


def test_a_server_that_is_stopped_finishes_what_it_has_taken() -> None:
    judge = Held()
    with JudgeServer(judge, config(batch_timeout_s=0.0)) as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.post, "/judge", scored(0.75))
        assert judge.seen.wait(PATIENCE_S)
        server.stop()
        judge.let_go.set()
        assert asked.result(PATIENCE_S).json["score"] == 0.75
        server.join()
    assert server.error is None


async def taken(judge: Held) -> tuple[Batcher, asyncio.Task[list[Outcome]]]:
    """A queue whose one request the judge holds."""
    batcher = Batcher(judge, BatchConfig(batch_timeout_s=0.0), Counters())
    batcher.start()
    asked = asyncio.create_task(batcher.score([JudgeRequest.model_validate(scored(0.75))]))
    assert await asyncio.to_thread(judge.seen.wait, PATIENCE_S)
    return batcher, asked


async def test_a_queue_that_is_closed_finishes_what_it_has_and_takes_nothing_new() -> None:
    judge = Held()
    batcher, asked = await taken(judge)
    closing = asyncio.create_task(batcher.aclose(PATIENCE_S))
    await asyncio.sleep(0)
    with pytest.raises(Refused) as refused:
        await batcher.score([JudgeRequest.model_validate(scored(0.5))])
    assert refused.value.failure.kind is FailureKind.STOPPING
    judge.let_go.set()
    await closing
    assert await asked == [Scored(0.75)]


async def test_what_is_not_finished_in_time_has_no_score() -> None:
    judge = Held()
    batcher, asked = await taken(judge)
    await batcher.aclose(drain_s=0.0)
    (outcome,) = await asked
    assert isinstance(outcome, JudgeFailure) and outcome.kind is FailureKind.STOPPING
    judge.let_go.set()


# ------------------------------------------------------------------ counts


def test_both_metrics_say_the_same() -> None:
    with JudgeServer(StaticJudge(), config(batch_timeout_s=0.0)) as server:
        server.post("/judge", EXAMPLE)
        server.post("/judge", {**EXAMPLE, "completion": ""})
        server.post("/judge", {})
        counts, text = server.get("/metrics.json").json, server.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = dict(line.rsplit(" ", 1) for line in text.text.splitlines() if not line.startswith("#"))
    assert int(samples["judge_requests_total"]) == counts["requests"] == 2
    assert int(samples["judge_scored_total"]) == int(samples["judge_latency_seconds_count"]) == counts["scored"] == 1
    for kind, count in counts["failures"].items():
        assert int(samples[f'judge_failures_total{{kind="{kind}"}}']) == count
    assert (counts["failures"]["nothing_to_judge"], counts["failures"]["invalid_request"]) == (1, 1)
    assert 0 < counts["latency_s"]["p50"] <= counts["latency_s"]["p99"]


def test_prometheus_can_read_every_line(server: JudgeServer) -> None:
    server.post("/judge", EXAMPLE)
    sample = re.compile(r'[a-z_]+(\{[a-z]+="[^"\\]*"(,[a-z]+="[^"\\]*")*\})? [-+.e\d]+')
    described = re.compile(r"# (HELP [a-z_]+ .+|TYPE [a-z_]+ (counter|gauge|summary))")
    text = server.get("/metrics").text
    assert text.endswith("\n")
    assert [line for line in text.splitlines() if not (sample if line[0] != "#" else described).fullmatch(line)] == []


# ------------------------------------------------------------------ a judge of one's own


class OfTheGuide:
    """As the guide writes one: no base class, no answer type."""

    def score(self, prompt: str, completion: str, answer: str) -> dict[str, Any]:
        if completion == "raise":
            raise RuntimeError("no memory")
        found = 0.9 if answer and answer.lower() in completion.lower() else 0.4
        return {"score": found, "explanation": f"Model confidence: {found:.3f}"}


class Typed(CustomJudge):
    """The guide's contextual scoring, and its confidence calibration."""

    def score(self, prompt: str, completion: str, answer: str | None, answer_type: str | None) -> Mapping[str, Any]:
        results: dict[str, Mapping[str, Any]] = {
            "sure": {"score": 0.8, "confidence": 0.9, "detailed_scores": {"clarity": 0.5}},
            "unsure": {"score": 0.8, "confidence": 0.25},
            "typed": {"score": 1.0 if answer_type == "NUMBER" else 0.0},
            "too much": {"score": 1.5},
            "not a number": {"score": float("nan")},
            "no score": {"explanation": "none"},
        }
        return results[completion]


def test_the_guides_judge_runs_as_it_is_written() -> None:
    judge = custom_judge("tests.test_judge_server:OfTheGuide")
    with JudgeServer(judge, config(batch_timeout_s=0.0)) as server:
        assert server.get("/health").json["judge"] == "OfTheGuide"
        found = server.post("/judge", EXAMPLE).json
        assert (found["score"], found["explanation"]) == (0.9, "Model confidence: 0.900")
        broken = server.post("/batch_judge", {"requests": [EXAMPLE, {**EXAMPLE, "completion": "raise", "request_id": "b"}]}).json
        assert [r["score"] for r in broken["responses"]] == [0.9]
        assert broken["failures"][0]["request_id"] == "b" and "no memory" in broken["failures"][0]["message"]


def test_a_judge_of_ones_own_says_more_and_its_nonsense_is_no_score() -> None:
    with JudgeServer(Typed(), config(batch_timeout_s=0.0)) as server:
        requests = [
            {**EXAMPLE, "completion": c, "request_id": c}
            for c in ("sure", "unsure", "typed", "too much", "not a number", "no score")
        ]
        found = server.post("/batch_judge", {"requests": requests}).json
    by_id = {r["request_id"]: r for r in found["responses"]}
    assert by_id["sure"]["score"] == 0.8 and by_id["sure"]["detailed_scores"] == {"clarity": 0.5}
    assert by_id["unsure"]["score"] == pytest.approx(0.8 * 0.8)  # half as sure as is enough: halfway down to 0.6 of the score
    assert by_id["typed"]["score"] == 1.0
    assert {f["request_id"]: f["kind"] for f in found["failures"]} == dict.fromkeys(
        ("too much", "not a number", "no score"), "bad_verdict"
    )


@pytest.mark.parametrize(
    "path", ["nowhere.Judge", "tests.test_judge_server:Missing", "tests.test_judge_server:EXAMPLE", "json:loads"]
)
def test_what_is_no_judge_is_the_users_mistake(path: str) -> None:
    with pytest.raises(ConfigError, match="judge="):
        custom_judge(path)


# ------------------------------------------------------------------ the command


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-X", "importtime", "-m", "kernel_env", "judge", *arguments]


def test_the_command_serves_until_it_is_told_to_stop_and_needs_no_torch() -> None:
    environment = {**os.environ, "JUDGE_MODEL_API_KEY": "hush"}
    served = command("serve", "port=0", "batch_timeout=0")
    with subprocess.Popen(served, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[4]
        assert ask(f"{url}/judge", EXAMPLE, key="hush").json["score"] == 1.0
        assert ask(f"{url}/judge", EXAMPLE).status == 401
        process.send_signal(signal.SIGTERM)
        _, imported = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert not re.search(r"\| +(torch|openai|hydra|omegaconf)$", imported, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("serve", "prot=1"), "; did you mean port"),
        (("serve", "port=x"), "port=x: give a number"),
        (
            ("serve", "judge=statics"),
            "chain, or name a class, package.module.Class; did you mean static?\n",
        ),
        (("serve", "judge=transformers"), "set model=DIRECTORY"),
        (("serve", "judge=llm"), "set model=NAME"),
        (("serve", "judge=panel", "members=static", "how=loudest"), "mean, median, vote"),
        (("serve", "queue=5"), "queue is 5"),
        (("serve", "compare_raw=maybe"), "true or false"),
        (("judge",), "usage"),
        (("calibrate", "nowhere"), "no classes.txt"),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", *arguments]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_calibration_scores_what_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("c41_result_thrown_away", "c41_torch_before_its_scaling", "classes", "problems/relu"):
        source = next((ROOT / "tests" / "candidates").glob(f"{name}.*"))
        target = tmp_path / "candidates" / source.relative_to(ROOT / "tests" / "candidates")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
    assert main(["judge", "calibrate", str(tmp_path / "candidates"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["judge"], found["unscored"], found["precision"], found["flag_precision"]) == ("static", 0, 1.0, 1.0)
    assert {g["name"]: g["right"] for g in found["groups"]} == {"decoy": 1, "honest": 1, "injected, bad": 1, "broken": 1}
    assert (found["injected"], found["moved"]) == (1, 0)
    assert 0 <= found["brier"] < 0.25

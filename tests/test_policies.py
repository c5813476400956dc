"""Policies: replies from real sockets and from recordings; every way an endpoint can fail, as its typed error."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import re
import socket
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import stamina.instrumentation
from chat_server import Behaviour, ChatServer, Raw, Reply, Reset, Script, Slow, Trickle, refuse

from kernel_env.errors import (
    AuthenticationFailed,
    BadReply,
    ConfigError,
    EndpointUnreachable,
    ModelNotFound,
    PolicyError,
    PolicyExhausted,
    RateLimited,
)
from kernel_env.schema import Message, Usage, dumps
from rollout.policies import Endpoint, GenerationRequest, Policy, Sampling, make_policy, replay
from rollout.policies.openai import OpenAIPolicy, _retry_after_s

KEY = "sk-a-secret-that-no-one-may-see"
HANGS_S = 60.0
REPO = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)


def ask(*messages: Message, sampling: Sampling | None = None, episode: str = "level1_problem1", turn: int = 0) -> GenerationRequest:
    return GenerationRequest(messages or ({"role": "user", "content": "hi"},), sampling or Sampling(), episode, turn)


def endpoint(url: str, *, attempts: int = 3, wait_s: float = 0.01, request_s: float = HANGS_S, **others: object) -> Endpoint:
    return Endpoint(base_url=url, attempts=attempts, wait_s=wait_s, request_s=request_s, **others)


@asynccontextmanager
async def talking_to(script: Script, **options: object) -> AsyncIterator[tuple[Policy, ChatServer]]:
    """A policy and the server it talks to; nothing may hang."""
    async with asyncio.timeout(HANGS_S):
        with ChatServer(script) as server:
            async with aclosing(make_policy("openai/test-model", endpoint=endpoint(server.base_url, **options))) as policy:
                yield policy, server


async def failure_of(script: Script, **options: object) -> tuple[PolicyError, int]:
    """The error that `generate` raises, and how many requests arrived."""
    async with talking_to(script, **options) as (policy, server):
        with pytest.raises(PolicyError) as caught:
            await policy.generate(ask())
        return caught.value, len(server.requests)


# ------------------------------------------------------------------ a good endpoint


async def test_a_reply_arrives_with_everything_the_endpoint_said() -> None:
    thinking = Reply("  ```cpp\nint x;\r\n```\n", finish_reason="length", extra={"reasoning_content": "let me see"})
    with ChatServer([thinking]) as server:
        policy = OpenAIPolicy("test-model", endpoint(server.base_url), now=itertools.count(100.0, 2.5).__next__)
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            generation = await policy.generate(ask())
    assert generation.text == "  ```cpp\nint x;\r\n```\n"
    assert generation.reasoning == "let me see"
    assert generation.finish_reason == "length"
    assert generation.usage == Usage(prompt_tokens=11, completion_tokens=7)
    assert generation.model == "test-model@1"
    assert generation.duration_s == 2.5  # two readings of the injected stopwatch


async def test_the_conversation_travels_byte_for_byte_with_its_sampling() -> None:
    messages = ({"role": "system", "content": " é\t\u2028\x00 "}, {"role": "user", "content": "a\r\n\r\n```py\n```\n"})
    sampling = Sampling(temperature=0.2, max_tokens=5, top_p=0.9, seed=7)
    async with talking_to(["ok"], extra_body={"top_k": 4, "top_p": 0.5}) as (policy, server):
        await policy.generate(ask(*messages, sampling=sampling))
    (request,) = server.requests
    assert request.messages == list(messages)
    assert {k: v for k, v in request.body.items() if k != "messages"} == {
        "model": "test-model",
        "temperature": 0.2,
        "max_tokens": 5,
        "top_p": 0.5,
        "seed": 7,
        "top_k": 4,
    }


async def test_options_left_open_are_not_sent() -> None:
    async with talking_to(["ok"]) as (policy, server):
        await policy.generate(ask(sampling=Sampling(temperature=None, max_tokens=None, top_p=None)))
    assert set(server.requests[0].body) == {"model", "messages"}


@pytest.mark.parametrize(
    ("said", "meant"),
    [("stop", "stop"), ("length", "length"), ("abort", "abort"), ("content_filter", "abort"), (None, "stop"), ("eos", "stop")],
)
async def test_finish_reasons_are_read(said: str | None, meant: str) -> None:
    async with talking_to([Reply("x", finish_reason=said)]) as (policy, _):
        assert (await policy.generate(ask())).finish_reason == meant


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning_is_found_under_both_names_even_without_content(field: str) -> None:
    async with talking_to([Reply(None, extra={field: "hm"})]) as (policy, _):
        generation = await policy.generate(ask())
    assert (generation.text, generation.reasoning) == ("", "hm")


@pytest.mark.parametrize("text", ["", None])
async def test_an_empty_reply_is_a_generation_not_an_error(text: str | None) -> None:
    async with talking_to([Reply(text)]) as (policy, _):
        assert (await policy.generate(ask())).text == ""


async def test_text_that_utf8_cannot_hold_becomes_storable() -> None:
    async with talking_to([Reply("a\ud800b", extra={"reasoning": "\udfff"})]) as (policy, server):
        generation = await policy.generate(ask({"role": "user", "content": "\udc80"}))
    assert (generation.text, generation.reasoning) == ("a\ufffdb", "\ufffd")
    assert server.requests[0].messages[0]["content"] == "\ufffd"
    dumps(generation).encode()


async def test_a_reply_of_ten_megabytes_arrives_whole() -> None:
    text = "0123456789" * 1_000_000
    async with talking_to([text]) as (policy, _):
        assert (await policy.generate(ask())).text == text


async def test_many_episodes_share_one_policy() -> None:
    def echo(messages: list[dict[str, str]]) -> Behaviour:
        return messages[0]["content"].upper()

    async with talking_to(echo) as (policy, server):
        replies = await asyncio.gather(*(policy.generate(ask({"role": "user", "content": f"n{i}"})) for i in range(20)))
    assert [reply.text for reply in replies] == [f"N{i}" for i in range(20)]
    assert len(server.requests) == 20


# ------------------------------------------------------------------ failures and retries

TRANSIENT = [(refuse(408), EndpointUnreachable), (refuse(409), EndpointUnreachable), (refuse(429), RateLimited)]
TRANSIENT += [(refuse(status), EndpointUnreachable) for status in (500, 502, 503, 529)]
TRANSIENT += [(Reset(), EndpointUnreachable)]


@pytest.mark.parametrize(("behaviour", "kind"), TRANSIENT)
async def test_a_transient_failure_is_retried_in_exactly_one_layer(behaviour: Behaviour, kind: type[PolicyError]) -> None:
    error, requests = await failure_of([behaviour], attempts=3)
    assert type(error) is kind
    assert requests == 3


async def test_a_reply_after_transient_failures_counts_as_if_nothing_had_happened() -> None:
    async with talking_to([refuse(429), refuse(503), Reset(), "at last"], attempts=4) as (policy, server):
        assert (await policy.generate(ask())).text == "at last"
    assert len(server.requests) == 4
    assert all(request.body == server.requests[0].body for request in server.requests)


LASTING = [
    (refuse(400, "context too long"), PolicyError),
    (refuse(422), PolicyError),
    (refuse(401), AuthenticationFailed),
    (refuse(403), AuthenticationFailed),
    (refuse(404), ModelNotFound),
    (refuse(429, code="insufficient_quota"), RateLimited),
    (Raw(b'{"choices": ['), BadReply),
    (Raw(b"\xff\xfe\x00"), BadReply),
    (Raw(b"[]"), BadReply),
    (Raw(b"[" * 100_000), BadReply),
    (Raw(b"<html>welcome</html>", content_type="text/html"), BadReply),
    (Raw(b"{}"), BadReply),
    (Raw(b'{"choices": []}'), BadReply),
    (Raw(b'{"choices": null, "error": {"message": "no worker"}}'), BadReply),
    (Raw(b'{"choices": [{"finish_reason": "stop"}]}'), BadReply),
    (Raw(b'{"choices": [{"message": {"role": "assistant"}}]}'), BadReply),
    (Raw(b'{"choices": [{"message": {"content": ["parts"]}}]}'), BadReply),
]


@pytest.mark.parametrize(("behaviour", "kind"), LASTING, ids=lambda value: str(value)[:60])
async def test_a_lasting_failure_is_reported_at_once(behaviour: Behaviour, kind: type[PolicyError]) -> None:
    error, requests = await failure_of([behaviour])
    assert type(error) is kind
    assert requests == 1


async def test_oddities_beside_the_text_do_not_spoil_a_reply() -> None:
    odd = {"choices": [{"message": {"content": "fine", "reasoning": {"a": 1}}, "finish_reason": ["x"]}], "usage": [], "model": 3}
    async with talking_to([Raw(json.dumps(odd).encode(), content_type="text/plain")]) as (policy, _):
        generation = await policy.generate(ask())
    assert (generation.text, generation.reasoning, generation.model, generation.usage) == ("fine", "", "test-model", Usage())


@pytest.fixture
def waits() -> Iterator[list[float]]:
    """Seconds that each retry was planned to wait."""
    planned: list[float] = []
    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([lambda details: planned.append(details.wait_for)])
    yield planned
    stamina.instrumentation.set_on_retry_hooks(before)


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_replaces_our_own_wait(status: int, waits: list[float]) -> None:
    refusal = refuse(status, headers={"Retry-After": "0.03"})
    async with talking_to([refusal, "ok"], wait_s=HANGS_S, wait_max_s=HANGS_S) as (policy, _):
        assert (await policy.generate(ask())).text == "ok"
    assert waits == [0.03]


async def test_waits_double_and_stop_at_the_longest(waits: list[float]) -> None:
    await failure_of([refuse(500)], attempts=5, wait_s=0.001, wait_max_s=0.003)
    assert [0.001, 0.002, 0.003, 0.003] <= waits
    assert max(waits) <= 0.003


async def test_an_endpoint_that_asks_for_too_long_a_wait_is_not_asked_again() -> None:
    error, requests = await failure_of([refuse(429, headers={"Retry-After": "3600"})], wait_max_s=60.0)
    assert type(error) is RateLimited
    assert "asks to wait 3600 s" in str(error)
    assert requests == 1


async def test_no_retry_starts_after_the_total_time() -> None:
    _, requests = await failure_of([refuse(500)], attempts=100, retry_for_s=1e-6)
    assert requests == 1


@pytest.mark.parametrize("behaviour", [Slow("too late"), Trickle()])
async def test_an_answer_that_never_ends_is_cut(behaviour: Behaviour) -> None:
    error, requests = await failure_of([behaviour], attempts=2, request_s=0.2)
    assert type(error) is EndpointUnreachable
    assert requests == 2


async def test_cancelling_ends_the_request() -> None:
    async with talking_to([Slow("never")]) as (policy, server):
        task = asyncio.create_task(policy.generate(ask()))
        while not server.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert len(server.requests) == 1


async def test_nobody_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound but not listening: nobody else can take the port, and it refuses
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/v1"
        async with asyncio.timeout(HANGS_S), aclosing(make_policy("openai/m", endpoint=endpoint(url))) as policy:
            for attempt in (policy.preflight, lambda: policy.generate(ask())):
                with pytest.raises(EndpointUnreachable, match=re.escape(url)):
                    await attempt()


# ------------------------------------------------------------------ preflight


async def preflight(server: ChatServer, model: str = "test-model", key: str | None = None) -> None:
    async with asyncio.timeout(HANGS_S):
        async with aclosing(make_policy(f"openai/{model}", endpoint=endpoint(server.base_url, api_key=key))) as policy:
            await policy.preflight()


async def test_preflight_asks_for_the_model_list_only() -> None:
    with ChatServer() as server:
        await preflight(server)
    assert (server.listings, len(server.requests)) == (1, 0)


async def test_preflight_names_the_models_there_are() -> None:
    with ChatServer(models=["Qwen/Qwen3-8B", "other"]) as server:
        with pytest.raises(ModelNotFound, match=r"did you mean Qwen/Qwen3-8B\?"):
            await preflight(server, "Qwen/Qwen3-8b")
        with pytest.raises(ModelNotFound, match="it serves Qwen/Qwen3-8B, other"):
            await preflight(server, "zzz")


async def test_preflight_refuses_a_wrong_key() -> None:
    with ChatServer(api_key="right") as server:
        with pytest.raises(AuthenticationFailed):
            await preflight(server, key="wrong")
        await preflight(server, key="right")


@pytest.mark.parametrize("listing", [refuse(404), refuse(403), Raw(b"<html>", content_type="text/html"), Raw(b'{"data": 1}')])
async def test_without_a_model_list_one_token_decides(listing: Behaviour) -> None:
    with ChatServer(listing=listing) as server:
        await preflight(server)
        assert server.requests[0].body["max_tokens"] == 1
        with pytest.raises(ModelNotFound):
            await preflight(server, "missing")


@pytest.mark.parametrize(("listing", "kind"), [(refuse(503), EndpointUnreachable), (refuse(429), RateLimited)])
async def test_preflight_gives_a_failing_endpoint_a_second_chance_only(listing: Behaviour, kind: type[PolicyError]) -> None:
    with ChatServer(listing=listing) as server, pytest.raises(kind):
        await preflight(server)
    assert (server.listings, len(server.requests)) == (2, 0)


async def test_a_base_url_without_its_path_is_explained() -> None:
    with ChatServer() as server:
        root = make_policy("openai/test-model", endpoint=endpoint(server.base_url.removesuffix("/v1")))
        async with asyncio.timeout(HANGS_S), aclosing(root):
            with pytest.raises(ModelNotFound, match="policy.base_url if it lacks its /v1"):
                await root.preflight()


# ------------------------------------------------------------------ keys and messages


async def test_no_error_shows_the_key(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with ChatServer([refuse(500, f"crash while serving {KEY}")], api_key=KEY) as friend, ChatServer(api_key="other") as foe:
        for server, kind in ((friend, EndpointUnreachable), (foe, AuthenticationFailed)):
            async with (
                asyncio.timeout(HANGS_S),
                aclosing(make_policy("openai/test-model", endpoint=endpoint(server.base_url))) as policy,
            ):
                with pytest.raises(kind) as caught:
                    await policy.generate(ask())
            assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
            shown = "".join(traceback.format_exception(caught.value))
            assert "***" in shown
            assert KEY not in shown + repr(policy) + str(vars(caught.value))
            assert caught.value.__context__ is None and caught.value.__cause__ is None
    assert KEY not in "".join(capfd.readouterr())
    assert KEY not in repr(Endpoint(api_key=KEY))


async def test_every_error_is_one_line_that_says_where_and_survives_pickling() -> None:
    for behaviour, _ in TRANSIENT + LASTING + [(refuse(400, "many\nlines\n" * 1000), PolicyError)]:
        error, _ = await failure_of([behaviour], attempts=1)
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        assert (type(copy), str(copy)) == (type(error), str(error))
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1, model test-model: [^\n]{1,320}; [^\n]+", str(error))


async def test_an_endpoint_of_ones_own_needs_no_key() -> None:
    async with talking_to(["ok"]) as (policy, server):
        await policy.generate(ask())
    assert server.requests[0].headers["authorization"] == "Bearer none"


async def test_the_argument_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    with ChatServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        async with asyncio.timeout(HANGS_S), aclosing(OpenAIPolicy("test-model")) as policy:
            await policy.generate(ask())
        async with asyncio.timeout(HANGS_S), aclosing(OpenAIPolicy("test-model", Endpoint(api_key=" given\n"))) as policy:
            await policy.generate(ask())
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer from-the-environment", "Bearer given"]


def test_openais_own_endpoint_is_refused_without_a_key() -> None:
    with pytest.raises(ConfigError, match="set OPENAI_API_KEY"):
        make_policy("openai/gpt")


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x/v1", "http:///v1", "http://h:99999/v1", "http://[bad"])
def test_a_url_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(url)):
        make_policy("openai/m", endpoint=Endpoint(base_url=url))


def test_a_url_shows_no_password() -> None:
    assert "pass" not in repr(make_policy("openai/m", endpoint=Endpoint(base_url="http://user:pass@h/v1?token=pass")))
    with pytest.raises(ConfigError) as caught:
        make_policy("openai/m", endpoint=Endpoint(base_url="htp://user:pass@h/v1"))
    assert "pass" not in str(caught.value)


def test_a_key_that_no_header_can_carry_is_refused_unshown() -> None:
    with pytest.raises(ConfigError) as caught:
        make_policy("openai/m", endpoint=Endpoint(base_url="http://h/v1", api_key="two\nlines"))
    assert "lines" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("5", 5.0), ("0.5", 0.5), ("-3", 0.0), ("nan", None), ("soon", None), ("1e999", float("inf"))],
)
def test_retry_after_is_read(header: str | None, seconds: float | None) -> None:
    assert _retry_after_s(header) == seconds


def test_retry_after_may_be_a_date() -> None:
    now = datetime.now(UTC)
    assert _retry_after_s(format_datetime(now - timedelta(hours=1), usegmt=True)) == 0.0
    assert 3000 < (_retry_after_s(format_datetime(now + timedelta(hours=1), usegmt=True)) or 0) <= 3600


# ------------------------------------------------------------------ recordings


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    files = {
        "level1_problem1_turn0.txt": b"first\r\n ",
        "level1_problem1_turn1.txt": b"second \xff\xc3\xa9",
        "level1_problem1_sample3_turn0.txt": b"third sample",
        "level2_problem1_turn0.txt": b"",
        "README.md": b"not a recording",
        "level1_problem9_turn0.json": b"neither",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


async def test_a_recording_is_played_back_exactly(recordings: Path) -> None:
    policy = make_policy(f"replay/{recordings}")
    await policy.preflight()
    replies = [await policy.generate(ask(turn=turn)) for turn in (0, 1)]
    assert [reply.text for reply in replies] == ["first\r\n ", "second \ufffdé"]
    assert {(reply.finish_reason, reply.model, reply.duration_s) for reply in replies} == {("stop", policy.name, 0.0)}
    assert (await policy.generate(ask(episode="level2_problem1"))).text == ""
    await policy.aclose()


async def test_a_sample_without_files_of_its_own_gets_those_of_sample_0(recordings: Path) -> None:
    policy = make_policy(f"replay/{recordings}")
    assert (await policy.generate(ask(episode="level1_problem1_sample3"))).text == "third sample"
    assert (await policy.generate(ask(episode="level1_problem1_sample4"))).text == "first\r\n "
    with pytest.raises(PolicyExhausted):  # sample 3 has files of its own: sample 0's second turn is not its
        await policy.generate(ask(episode="level1_problem1_sample3", turn=1))


async def test_a_recording_ends(recordings: Path) -> None:
    policy = make_policy(f"replay/{recordings}")
    with pytest.raises(PolicyExhausted, match="no turn 2 of level1_problem1"):
        await policy.generate(ask(turn=2))
    with pytest.raises(PolicyExhausted):
        await policy.generate(ask(episode="level1_problem9"))


def test_coverage_is_known_beforehand(recordings: Path) -> None:
    policy = make_policy(f"replay/{recordings}")
    covered = ["level1_problem1", "level1_problem1_sample7", "level2_problem1"]
    assert all(policy.covers(episode) for episode in covered)
    assert not any(policy.covers(episode) for episode in ("level1_problem9", "level1_problem11", "level3_problem1"))


async def test_a_recording_that_cannot_be_read_is_a_policy_error(recordings: Path) -> None:
    policy = make_policy(f"replay/{recordings}")
    (recordings / "level1_problem1_turn0.txt").unlink()
    with pytest.raises(BadReply, match="No such file"):
        await policy.generate(ask())


async def test_any_run_directory_is_a_recording(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = tmp_path_factory.mktemp("runs") / "real"
    run.mkdir()
    recordings.rename(run / "responses")
    assert (await make_policy(f"replay/{run}").generate(ask())).text == "first\r\n "


async def test_built_in_sets_are_found_by_name(recordings: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> None:
    root = tmp_path_factory.mktemp("package")
    (root / "bundled").mkdir()
    recordings.rename(root / "bundled" / "cpp")
    monkeypatch.setattr(replay, "BUILT_IN", root)
    assert replay.built_in_sets() == ["bundled/cpp"]
    assert (await make_policy("replay/bundled/cpp").generate(ask())).text == "first\r\n "
    with pytest.raises(ConfigError, match=r"did you mean bundled/cpp\?"):
        make_policy("replay/bundled/cp")


def test_a_place_without_recordings_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing", tmp_path / ("x" * 5000)):
        with pytest.raises(ConfigError, match="recordings"):
            make_policy(f"replay/{place}")


# ------------------------------------------------------------------ the registry


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("opena/m", r"did you mean openai/\.\.\.\?"),
        ("gpt", r"use one of openai/\.\.\., replay/\.\.\."),
        ("", "use one of"),
        ("openai", "incomplete"),
        ("replay/", "incomplete"),
    ],
)
def test_a_spec_that_names_no_policy_is_refused(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_policy(spec)


def test_a_model_name_keeps_its_slashes() -> None:
    policy = make_policy("openai/Qwen/Qwen3-8B", endpoint=Endpoint(base_url="http://h/v1"))
    assert policy.name == "openai/Qwen/Qwen3-8B"
    assert policy.covers("level4_problem99")


@pytest.mark.parametrize(
    "build",
    [
        lambda: Sampling(temperature=-1),
        lambda: Sampling(max_tokens=0),
        lambda: Sampling(top_p=0),
        lambda: Endpoint(attempts=0),
        lambda: Endpoint(request_s=float("nan")),
    ],
)
def test_options_outside_of_their_range_are_refused(build: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        build()


def test_importing_the_package_and_replaying_load_no_model_library(recordings: Path) -> None:
    code = "import sys; from rollout.policies import make_policy; make_policy(sys.argv[1]); sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, f"replay/{recordings}"], cwd=REPO, check=False).returncode == 0

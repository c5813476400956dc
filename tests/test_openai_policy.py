"""The `openai` policy over real sockets: what a good endpoint said, and every way one can fail as its typed error."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import socket
import traceback
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from kernel_env.errors import (
    AuthenticationFailed,
    BadReply,
    ConfigError,
    EndpointUnreachable,
    ModelNotFound,
    PolicyError,
    RateLimited,
)
from kernel_env.schema import Usage, dumps
from rollout.policies import Endpoint, Policy, Sampling, make_policy
from rollout.policies.asking import retry_after_s
from rollout.policies.openai import OpenAIPolicy
from tests.asking import HANGS_S, ask, check_error, endpoint
from tests.chat_server import Behaviour, ChatServer, Raw, Reply, Reset, Script, Slow, Trickle, refuse

KEY = "sk-a-secret-that-no-one-may-see"
pytestmark = pytest.mark.usefixtures("bare_environment")


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
    error = caught.value
    check_error(error, server.base_url)
    return error, len(server.requests)


# ------------------------------------------------------------------ a good endpoint


async def test_a_reply_arrives_with_everything_the_endpoint_said() -> None:
    thinking = Reply("  ```cpp\nint x;\r\n```\n", finish_reason="length", extra={"reasoning_content": "let me see"})
    with ChatServer([thinking]) as server:
        policy = make_policy("openai/test-model", endpoint=endpoint(server.base_url), now=itertools.count(100.0, 2.5).__next__)
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
    [("stop", "stop"), ("length", "length"), ("abort", "abort"), (None, "stop"), ("eos", "stop")],
)
async def test_finish_reasons_are_read(said: str | None, meant: str) -> None:
    async with talking_to([Reply("x", finish_reason=said)]) as (policy, _):
        assert (await policy.generate(ask())).finish_reason == meant


async def test_a_reply_that_a_filter_cut_is_no_reply_and_is_not_asked_for_again() -> None:
    async with talking_to([Reply("x", finish_reason="content_filter")]) as (policy, server):
        with pytest.raises(PolicyError, match="the endpoint's content filter cut the reply off"):
            await policy.generate(ask())
    assert len(server.requests) == 1


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
    (refuse(422, "many\nlines\n" * 1000), PolicyError),
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
    (Raw(b'{"choices": null}'), BadReply),
    (Raw(b'{"choices": [{"finish_reason": "stop"}]}'), BadReply),
    (Raw(b'{"choices": [{"message": {"role": "assistant"}}]}'), BadReply),
    (Raw(b'{"choices": [{"message": {"content": ["parts"]}}]}'), BadReply),
]


@pytest.mark.parametrize(("behaviour", "kind"), LASTING, ids=lambda value: str(value)[:60])
async def test_a_lasting_failure_is_reported_at_once(behaviour: Behaviour, kind: type[PolicyError]) -> None:
    error, requests = await failure_of([behaviour])
    assert type(error) is kind
    assert requests == 1


@pytest.mark.parametrize(
    ("behaviour", "advice"),
    [
        (refuse(429, code="insufficient_quota"), "the account of this key is spent: fill it, or use another"),
        (refuse(429), "lower the number of requests in flight, "),
        (refuse(500, "CUDA out of memory"), "check the server's log"),
        (refuse(404), "set policy.model, "),
        (refuse(401), "set OPENAI_API_KEY "),
    ],
)
async def test_the_advice_fits_what_was_refused(behaviour: Behaviour, advice: str) -> None:
    error, _ = await failure_of([behaviour])
    assert str(error).partition("; ")[2].startswith(advice)


async def test_what_the_endpoint_said_reaches_the_user() -> None:
    error, _ = await failure_of([Raw(b'{"error": {"message": "no worker"}}')])
    assert "no worker" in str(error)
    error, _ = await failure_of([refuse(400, "context too long")])
    assert "context too long" in str(error)


async def test_oddities_beside_the_text_do_not_spoil_a_reply() -> None:
    odd = {"choices": [{"message": {"content": "fine", "reasoning": {"a": 1}}, "finish_reason": ["x"]}], "usage": ["x"], "model": 3}
    async with talking_to([Raw(json.dumps(odd).encode(), content_type="text/plain")]) as (policy, _):
        generation = await policy.generate(ask())
    assert (generation.text, generation.reasoning, generation.model, generation.usage) == ("fine", "", "test-model", Usage())


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_replaces_our_own_wait(status: int, waits: list[float]) -> None:
    refusal = refuse(status, headers={"Retry-After": "0.03"})
    async with talking_to([refusal, "ok"], wait_s=HANGS_S, wait_max_s=HANGS_S) as (policy, _):
        assert (await policy.generate(ask())).text == "ok"
    assert waits == [0.03]


async def test_waits_double_and_stop_at_the_longest(waits: list[float]) -> None:
    await failure_of([refuse(500)], attempts=5, wait_s=0.001, wait_max_s=0.003)
    jitter = 0.001
    assert all(
        least - 1e-9 <= wait <= min(least + jitter, 0.003) + 1e-9
        for least, wait in zip((0.001, 0.002, 0.003, 0.003), waits, strict=True)
    )


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
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()

    def never(messages: list[dict[str, str]]) -> Behaviour:
        loop.call_soon_threadsafe(arrived.set)
        return Slow("never")

    async with talking_to(never) as (policy, server):
        task = asyncio.create_task(policy.generate(ask()))
        await arrived.wait()
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
            with pytest.raises(ModelNotFound, match=r"policy\.base_url if it lacks its /v1"):
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
    assert retry_after_s(header) == seconds


def test_retry_after_may_be_a_date() -> None:
    now = datetime.now(UTC)
    assert retry_after_s(format_datetime(now - timedelta(hours=1), usegmt=True)) == 0.0
    assert 3000 < (retry_after_s(format_datetime(now + timedelta(hours=1), usegmt=True)) or 0) <= 3600

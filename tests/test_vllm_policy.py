"""The `vllm` policy over real sockets: OpenAI's protocol with the engine's own tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from kernel_env.errors import BadReply, ConfigError
from rollout.policies import Policy, Sampling, make_policy
from tests import toy_tokens
from tests.asking import HANGS_S, ask, check_error, endpoint, user
from tests.chat_server import Raw, Reply, Script
from tests.vllm_server import VLLMServer

pytestmark = pytest.mark.usefixtures("bare_environment")
PROMPT = (256, 7, 257)
TOKENS = {"return_token_ids": True, "logprobs": True}


@asynccontextmanager
async def talking_to(
    script: Script, *, server: dict[str, Any] | None = None, **options: object
) -> AsyncIterator[tuple[Policy, Any]]:
    async with asyncio.timeout(HANGS_S):
        with VLLMServer(script, **server or {}) as serving:
            async with aclosing(make_policy("vllm/test-model", endpoint=endpoint(serving.base_url, **options))) as policy:
                yield policy, serving


async def test_a_chat_brings_the_engines_own_tokens() -> None:
    async with talking_to(["hé"], extra_body={"top_k": 4}) as (policy, server):
        generation = await policy.generate(ask(user("a"), sampling=Sampling(max_tokens=5), thinking=False))
    assert (generation.text, generation.output_ids) == ("hé", (*"hé".encode(), toy_tokens.END))
    assert generation.output_logprobs == (-1 / 16, -2 / 16, -3 / 16, -4 / 16)
    assert generation.prompt_ids == tuple(toy_tokens.prompt([{"role": "user", "content": "a"}], False))
    assert generation.weight_version is None  # it does not say
    (request,) = server.requests
    assert request.body == {
        "model": "test-model",
        "messages": [user("a")],
        "temperature": 0.8,
        "max_tokens": 5,
        "top_p": 1.0,
        "top_k": 4,
        "chat_template_kwargs": {"enable_thinking": False},
        **TOKENS,
    }


async def test_a_prompt_of_tokens_is_sent_as_it_is() -> None:
    async with talking_to(["ok"], extra_body={"top_k": 4, "chat_template_kwargs": {"a": 1}}) as (policy, server):
        generation = await policy.generate(ask(prompt_ids=PROMPT, sampling=Sampling(temperature=None, max_tokens=None)))
    assert (generation.text, generation.prompt_ids, generation.output_ids) == ("ok", PROMPT, (*b"ok", toy_tokens.END))
    assert generation.output_logprobs == (-1 / 16, -2 / 16, -3 / 16)
    (request,) = server.requests
    assert request.body == {
        "model": "test-model",
        "prompt": list(PROMPT),
        "max_tokens": None,  # left out, it would be 16
        "top_p": 1.0,
        "top_k": 4,
        "skip_special_tokens": False,
        "return_token_ids": True,
        "logprobs": 0,
    }


@pytest.mark.parametrize(("said", "meant"), [("stop", "stop"), ("length", "length"), ("abort", "abort")])
@pytest.mark.parametrize("prompt_ids", [None, PROMPT])
async def test_finish_reasons_are_read(said: str, meant: str, prompt_ids: tuple[int, ...] | None) -> None:
    async with talking_to([Reply("x", finish_reason=said)]) as (policy, _):
        assert (await policy.generate(ask(prompt_ids=prompt_ids))).finish_reason == meant


BROKEN = [
    {"token_ids": None},
    {"token_ids": ["97"]},
    {"token_ids": [97]},
    {"logprobs": None},
    {"logprobs": {"content": [{"logprob": -0.5}, {"logprob": None}]}},
    {"logprobs": {"content": [{"logprob": -0.5}, {"logprob": -9999.0}]}},  # what vLLM says where it has none
    {"logprobs": {"content": [{"logprob": -0.5}]}},
]


@pytest.mark.parametrize("broken", BROKEN, ids=str)
async def test_a_reply_without_its_tokens_is_no_reply(broken: dict[str, object]) -> None:
    async with talking_to([Reply("x", extra=broken)]) as (policy, server):
        with pytest.raises(BadReply, match="use a newer vLLM") as caught:
            await policy.generate(ask())
    check_error(caught.value, server.base_url)
    assert len(server.requests) == 1


async def test_preflight_refuses_a_vllm_that_tells_no_tokens() -> None:
    async with talking_to(["ok"], server={"tells": False}) as (policy, _):
        with pytest.raises(BadReply, match=r"without its token ids; use a newer vLLM, .* or policy=openai"):
            await policy.preflight()


async def test_preflight_finds_out_that_a_model_cannot_be_told_whether_to_think() -> None:
    async with talking_to(["ok"], server={"switch": False}) as (policy, _):
        await policy.preflight()
        with pytest.raises(ConfigError, match="cannot be told whether to think"):
            await policy.generate(ask(thinking=False))


@pytest.mark.parametrize(("limits", "can"), [(True, True), (False, False), (None, False)])
async def test_preflight_finds_out_whether_thoughts_can_be_limited(limits: bool | None, can: bool) -> None:
    """Neither a server that refuses a limit nor one that ignores it does."""
    async with talking_to(["ok"], server={"limits": limits}) as (policy, server):
        await policy.preflight()
        assert policy.capabilities.thinking and policy.capabilities.thinking_budget is can
    assert [request.thinking_budget for request in server.requests] == [None, None, 0]


async def test_a_thought_that_was_broken_off_keeps_its_budget_because_the_server_counts_the_prompt() -> None:
    async with talking_to(["ok"]) as (policy, server):
        for prompt, begun in ((None, 0), (PROMPT, 0), (PROMPT, 2)):
            await policy.generate(ask(prompt_ids=prompt, begun=begun, thinking=True, thinking_budget=10))
    assert [request.body["thinking_token_budget"] for request in server.requests] == [10, 10, 10]


@pytest.mark.parametrize("body", [b'{"choices": [{"finish_reason": "stop"}]}', b'{"choices": [{"text": 7}]}', b'{"choices": [7]}'])
async def test_a_choice_that_says_nothing_is_no_reply(body: bytes) -> None:
    async with talking_to([Raw(body)]) as (policy, _):
        with pytest.raises(BadReply):
            await policy.generate(ask(prompt_ids=PROMPT))

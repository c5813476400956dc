"""The `sglang` policy over real sockets: tokens in, tokens out, and no way of failing that becomes a reply."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

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
from kernel_env.schema import Usage, Verdict
from rollout import compose
from rollout.policies import Endpoint, Policy, Sampling, make_policy, sglang
from rollout.runner import run
from tests import toy_tokens
from tests.asking import HANGS_S, ask, check_error, endpoint, user
from tests.chat_server import Behaviour, ChatServer, Raw, Reply, Reset, Script, Slow, Trickle, refuse
from tests.sglang_server import FIELDS, LIMIT, SAMPLING, SGLangServer, generated, real_types

pytestmark = pytest.mark.usefixtures("bare_environment")
PROMPT = (256, 7, 257)


@asynccontextmanager
async def talking_to(
    script: Script, *, server: dict[str, Any] | None = None, **options: object
) -> AsyncIterator[tuple[Policy, Any]]:
    """A policy and the server it talks to; nothing may hang."""
    async with asyncio.timeout(HANGS_S):
        with SGLangServer(script, **server or {}) as serving:
            async with aclosing(make_policy("sglang/test-model", endpoint=endpoint(serving.base_url, **options))) as policy:
                yield policy, serving


async def failure_of(script: Script, **options: object) -> tuple[PolicyError, int]:
    """The error that `generate` raises, and how many requests arrived."""
    async with talking_to(script, **options) as (policy, server):
        with pytest.raises(PolicyError) as caught:
            await policy.generate(ask())
    check_error(caught.value, server.base_url.removesuffix("/v1"))
    return caught.value, len(server.requests)


def answer(**meta: object) -> dict[str, Any]:
    """A good answer to take to pieces."""
    return generated(Reply("ab", extra=meta), {"rid": "r", "input_ids": [1]})


# ------------------------------------------------------------------ a good server


async def test_a_reply_brings_the_engines_own_tokens() -> None:
    with SGLangServer([Reply("hé", extra={"weight_version": "7"})]) as server:
        policy = make_policy("sglang/test-model", endpoint=endpoint(server.base_url), now=itertools.count(100.0, 2.5).__next__)
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            generation = await policy.generate(ask(prompt_ids=PROMPT))
    assert generation.text == "hé"
    assert generation.output_ids == (*"hé".encode(), toy_tokens.END)  # the token that ended the reply was sampled too
    assert generation.output_logprobs == (-1 / 16, -2 / 16, -3 / 16, -4 / 16)
    assert (generation.prompt_ids, generation.weight_version, generation.finish_reason) == (PROMPT, "7", "stop")
    assert (generation.usage, generation.model) == (Usage(3, 4), "test-model")
    assert generation.duration_s == 2.5  # two readings of the injected stopwatch


async def test_a_request_says_all_that_it_means() -> None:
    sampling = Sampling(temperature=0.2, max_tokens=5, top_p=0.9, seed=7)
    async with talking_to(["ok"], extra_body={"top_k": 4, "top_p": 0.5}) as (policy, server):
        await policy.generate(ask(sampling=sampling, prompt_ids=PROMPT))
    (request,) = server.requests
    assert {name: value for name, value in request.body.items() if name != "rid"} == {
        "input_ids": list(PROMPT),
        "return_logprob": True,
        "sampling_params": {
            "max_new_tokens": 5,
            "temperature": 0.2,
            "top_p": 0.5,
            "sampling_seed": 7,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            "top_k": 4,
        },
    }


async def test_without_a_limit_a_reply_is_as_long_as_it_gets() -> None:
    """Left out, it would be 128 tokens."""
    async with talking_to(["ok"]) as (policy, server):
        await policy.generate(ask(sampling=Sampling(temperature=None, max_tokens=None, top_p=None)))
    sent = server.requests[0].body["sampling_params"]
    assert sent == {"max_new_tokens": None, "skip_special_tokens": False, "spaces_between_special_tokens": False}


async def test_an_option_that_the_server_does_not_know_is_no_silent_nothing() -> None:
    error, requests = await failure_of(["ok"], extra_body={"top_kk": 4})
    assert (type(error), requests) == (PolicyError, 1)
    assert "top_kk" in str(error) and "policy.extra_body" in str(error)


@pytest.mark.parametrize("finish", ["stop", "length", "abort"])
async def test_finish_reasons_are_read(finish: str) -> None:
    """An aborted reply keeps what had been sampled; the runner does not score it."""
    async with talking_to([Reply("x", finish_reason=finish)]) as (policy, _):
        generation = await policy.generate(ask())
    assert generation.finish_reason == finish
    assert generation.output_ids == ((*b"x", toy_tokens.END) if finish == "stop" else tuple(b"x"))


async def test_an_empty_reply_is_a_generation_not_an_error() -> None:
    async with talking_to([""]) as (policy, _):
        generation = await policy.generate(ask())
    assert (generation.text, generation.output_ids) == ("", (toy_tokens.END,))


@pytest.mark.parametrize(
    ("meta", "version"),
    [
        ({"weight_version": "default"}, "default"),
        ({"weight_version": "8", "weight_versions": [{"version": "8", "start": 0, "end": 3}]}, "8"),
        (
            {
                "weight_version": "8",
                "weight_versions": [{"version": "7", "start": 0, "end": 1}, {"version": "8", "start": 1, "end": 3}],
            },
            "7,8",
        ),
        ({"weight_version": None}, None),
    ],
)
async def test_a_reply_says_which_weights_it_was_sampled_with(meta: dict[str, object], version: str | None) -> None:
    async with talking_to([Reply("ab", extra=meta)]) as (policy, _):
        assert (await policy.generate(ask())).weight_version == version


# ------------------------------------------------------------------ prompts


@pytest.mark.parametrize("thinking", [None, True, False])
async def test_the_server_writes_the_prompt_where_a_request_brings_none(thinking: bool | None) -> None:
    messages = ({"role": "system", "content": " é\t\u2028\x00 "}, user("a\r\n\r\n```py\n```\n"))
    async with talking_to(["ok"]) as (policy, server):
        generation = await policy.generate(ask(*messages, thinking=thinking))
    assert server.requests[0].messages == list(messages)
    assert server.requests[0].thinking is thinking
    assert generation.prompt_ids == tuple(toy_tokens.prompt(messages, thinking))


async def test_variables_of_the_template_come_from_the_settings_too() -> None:
    template = {"chat_template_kwargs": {"enable_thinking": False}}
    async with talking_to(["ok"], extra_body=template) as (policy, server):
        await policy.generate(ask())
        await policy.generate(ask(thinking=True))
    assert [request.thinking for request in server.requests] == [False, True]


async def test_a_server_that_cannot_write_prompts_is_explained() -> None:
    error, requests = await failure_of(["ok"], server={"writes": False})
    assert requests == 0
    assert "missing field `prompt`" in str(error) and "set policy.tokenizer" in str(error)


async def test_prompts_can_be_written_here(tmp_path: Path) -> None:
    """By a real tokenizer with a real template, and byte for byte as the template has it."""
    transformers = pytest.importorskip("transformers", reason="needs the extra sglang")
    tokenizers = pytest.importorskip("tokenizers")
    words = {word: n for n, word in enumerate(["<unk>", "user", "assistant", "hi", "on", "off", "\n"])}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    model.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"\w+|\n"), "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}\n{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}assistant\n{% endif %}"
        "{% if enable_thinking is defined %}{{ 'on' if enable_thinking else 'off' }}{% endif %}"
    )
    tokenizer.save_pretrained(tmp_path)
    async with talking_to(["ok"], server={"writes": False}, tokenizer=str(tmp_path)) as (policy, server):
        replies = await asyncio.gather(*(policy.generate(ask(thinking=thinking)) for thinking in (None, True, False)))
    written = [[1, 6, 3, 6, 2, 6], [1, 6, 3, 6, 2, 6, 4], [1, 6, 3, 6, 2, 6, 5]]
    assert [list(reply.prompt_ids or ()) for reply in replies] == written
    assert sorted(request.body["input_ids"] for request in server.requests) == sorted(written)


async def test_a_tokenizer_that_cannot_be_had_is_explained(tmp_path: Path) -> None:
    async with talking_to(["ok"], tokenizer=str(tmp_path)) as (policy, server):
        with pytest.raises(
            ConfigError, match=r"(needs the Python package transformers: run `pip install|no tokenizer can be loaded from)"
        ):
            await policy.generate(ask())
    assert server.requests == []


# ------------------------------------------------------------------ failures: nothing scored, nothing lost, nothing twice

TRANSIENT = [(refuse(status), EndpointUnreachable) for status in (408, 409, 500, 503)]
TRANSIENT += [(refuse(429), RateLimited), (Reset(), EndpointUnreachable)]


@pytest.mark.parametrize(("behaviour", "kind"), TRANSIENT)
async def test_a_transient_failure_is_retried_in_exactly_one_layer(behaviour: Behaviour, kind: type[PolicyError]) -> None:
    error, requests = await failure_of([behaviour], attempts=3)
    assert type(error) is kind
    assert requests == 3


def without(*path: str) -> dict[str, Any]:
    """A good answer that lacks a field."""
    document = answer()
    at = document
    for name in path[:-1]:
        at = at[name]
    del at[path[-1]]
    return document


MALFORMED = [
    {},
    {"error": {"message": "no worker"}},
    without("text"),
    without("meta_info"),
    without("meta_info", "finish_reason"),
    without("meta_info", "output_token_logprobs"),
    answer(finish_reason=None),
    answer(finish_reason={"type": "gave_up"}),
    answer(output_token_logprobs=None),
    answer(output_token_logprobs=[[-0.5, 97, None], [None, 98, None], [-0.5, 257, None]]),  # null: no number
    answer(output_token_logprobs=[[-0.5, 97, None], [-0.5, "98", None], [-0.5, 257, None]]),
    answer(output_token_logprobs=[[-0.5, 97, None], -0.5, [-0.5, 257, None]]),
    answer(output_token_logprobs=[[-0.5, 97, None], [-0.5, 98, None]]),  # one token less than the reply
    answer(output_token_logprobs=[[-0.5, 97, None], [-0.5, 99, None], [-0.5, 257, None]]),  # of another token
]
LASTING = [
    (refuse(400, "The input is longer than the context length"), PolicyError),
    (refuse(401), AuthenticationFailed),
    (refuse(403), AuthenticationFailed),
    (refuse(404), ModelNotFound),
    (Raw(json.dumps(answer()).encode()[:-20]), BadReply),
    (Raw(b"\xff\xfe\x00"), BadReply),
    (Raw(b"<html>welcome</html>", content_type="text/html"), BadReply),
    *((Raw(json.dumps(document).encode()), BadReply) for document in MALFORMED),
]


async def test_a_lasting_failure_is_reported_at_once() -> None:
    async with talking_to([behaviour for behaviour, _ in LASTING]) as (policy, server):
        for number, (behaviour, kind) in enumerate(LASTING, 1):
            with pytest.raises(PolicyError) as caught:
                await policy.generate(ask(prompt_ids=PROMPT))
            assert type(caught.value) is kind, behaviour
            assert len(server.requests) == number, behaviour
            check_error(caught.value, server.base_url.removesuffix("/v1"))


async def test_retry_after_replaces_our_own_wait(waits: list[float]) -> None:
    refusal = refuse(429, headers={"Retry-After": "0.03"})
    async with talking_to([refusal, "ok"], wait_s=HANGS_S, wait_max_s=HANGS_S) as (policy, _):
        assert (await policy.generate(ask())).text == "ok"
    assert waits == [0.03]


@pytest.mark.parametrize("behaviour", [Slow("too late"), Trickle()])
async def test_a_try_that_runs_out_of_time_is_aborted_at_the_server(behaviour: Behaviour) -> None:
    """Each try has an id of its own: a server refuses one that it still works on."""
    async with talking_to([behaviour, behaviour, "at last"], request_s=0.3, attempts=20) as (policy, server):
        assert (await policy.generate(ask(prompt_ids=PROMPT))).text == "at last"
    tried = [request.body["rid"] for request in server.requests]
    assert len(set(tried)) == len(tried) >= 3
    if isinstance(behaviour, Slow):  # the other one has answered, as far as the server can see
        assert server.aborted[:2] == tried[:2]


def watched(behaviour: Behaviour) -> tuple[Script, asyncio.Event]:
    """A script of one behaviour, and an event of this loop that says a request has arrived."""
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()

    def script(messages: list[dict[str, str]]) -> Behaviour:
        loop.call_soon_threadsafe(arrived.set)
        return behaviour

    return script, arrived


async def test_cancelling_aborts_the_request_at_the_server() -> None:
    script, arrived = watched(Slow("never"))
    async with talking_to(script) as (policy, server):
        task = asyncio.create_task(policy.generate(ask()))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert server.aborted == [server.requests[0].body["rid"]]
        assert policy.spent.failures == {"cancelled": 1}


async def test_cancelling_does_not_wait_for_a_server_that_takes_no_abort(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sglang, "ABORT_S", 0.1)
    script, arrived = watched(Slow("never"))
    async with talking_to(script, server={"deaf": True}) as (policy, server):
        task = asyncio.create_task(policy.generate(ask()))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(server.aborted) == 1  # it was told, and never answered


async def test_of_many_episodes_none_is_lost_and_none_answered_twice() -> None:
    """Each prompt meets two failures before its reply; a failed try never becomes a reply."""
    faults = itertools.cycle([refuse(500), Reset(), refuse(429), refuse(503)])
    seen: Counter[str] = Counter()

    def script(messages: list[dict[str, str]]) -> Behaviour:
        name = messages[0]["content"]
        seen[name] += 1
        return name.upper() if seen[name] > 2 else next(faults)

    names = [f"n{i}" for i in range(20)]
    async with talking_to(script) as (policy, _):
        replies = await asyncio.gather(*(policy.generate(ask(user(name))) for name in names))
        spent = policy.spent
    assert [reply.text for reply in replies] == [name.upper() for name in names]
    assert seen == dict.fromkeys(names, 3)
    assert sum(spent.failures.values()) == spent.retries == 40
    assert spent.completion_tokens == sum(len(reply.output_ids or ()) for reply in replies)


class Nobody:
    """A verifier that nothing may reach: replies without code need none."""

    async def verify(self, *_: object) -> Verdict:
        raise AssertionError("something was verified")

    async def aclose(self) -> None:
        pass


async def test_a_run_scores_replies_and_nothing_else(tmp_path: Path) -> None:
    """Of four episodes one fails twice and then gets its reply, one is aborted, one meets 500 for ever, one a half answer."""
    fates: list[list[Behaviour]] = [
        [refuse(500), Reset(), "I would fuse them."],
        [Reply("half a", finish_reason="abort")],
        [refuse(500)],
        [Raw(json.dumps(answer()).encode()[:-20])],
    ]
    given: dict[str, list[Behaviour]] = {}

    def script(messages: list[dict[str, str]]) -> Behaviour:
        if messages[-1]["content"] == "Hi":  # preflight
            return "H"
        fate = given.setdefault(messages[-1]["content"], fates[len(given) % len(fates)])
        return fate.pop(0) if len(fate) > 1 else fate[0]

    with SGLangServer(script) as server:
        settings, text = compose.composed(
            [
                "problems.ids=[1,2,3,4]", "problems.levels=1", "policy=sglang", "policy.model=test-model", "policy.attempts=3",
                f"policy.base_url={server.base_url}", "policy.wait_s=0.01", "rollout.max_turns=1", "run.name=r",
                f"run.root={tmp_path}",
                    "run.canaries=false",
            ]
        )  # fmt: skip
        async with asyncio.timeout(HANGS_S):
            result = await run(settings, text, verifier=Nobody())
    turns = sorted((result.path / "turns").iterdir())
    scored = [episode for episode in result.episodes if not episode.error]
    assert [turn.generation.text for episode in result.episodes for turn in episode.turns] == ["I would fuse them."]
    assert len(scored) == len(turns) == 1
    failed = sorted(episode.error.partition(":")[0] for episode in result.episodes if episode.error)
    assert failed == ["bad_reply", "endpoint_unreachable", "policy"]
    assert any("was aborted 5 times, and is not scored" in episode.error for episode in result.episodes)
    assert (result.results.summary.completed, result.results.summary.policy_failures) == (1, 3)


# ------------------------------------------------------------------ preflight and settings


async def test_preflight_looks_the_model_up_and_tries_one_token() -> None:
    async with talking_to(["ok"]) as (policy, server):
        await policy.preflight()
        assert policy.capabilities.thinking
    assert server.listings == 1
    assert [request.thinking for request in server.requests] == [False, True, True]
    assert [request.body["sampling_params"]["max_new_tokens"] for request in server.requests] == [1, 1, 8]


async def test_preflight_finds_out_that_a_model_cannot_be_told_whether_to_think() -> None:
    async with talking_to(["ok"], server={"switch": False}) as (policy, _):
        await policy.preflight()
        assert not policy.capabilities.thinking
        with pytest.raises(ConfigError, match="cannot be told whether to think"):
            await policy.generate(ask(thinking=True))
        assert (await policy.generate(ask())).text == "ok"


async def test_preflight_names_the_model_there_is() -> None:
    async with talking_to(["ok"], server={"models": ["test-modell"]}) as (policy, server):
        with pytest.raises(ModelNotFound, match=r"did you mean test-modell\?"):
            await policy.preflight()
    assert server.requests == []


async def test_preflight_does_without_a_list_of_models() -> None:
    async with talking_to(["ok"], server={"models": None}) as (policy, server):
        await policy.preflight()
    assert len(server.requests) == 3


@pytest.mark.parametrize(("limits", "can"), [(True, True), (False, False), (None, False)])
async def test_preflight_finds_out_whether_thoughts_can_be_limited(limits: bool | None, can: bool) -> None:
    """Neither a server that refuses a limit nor one that ignores it does; and no other failure is taken for a refusal."""
    async with talking_to(["ok"], server={"limits": limits}) as (policy, server):
        await policy.preflight()
        assert policy.capabilities.thinking and policy.capabilities.thinking_budget is can
    assert [request.thinking_budget for request in server.requests] == [None, None, 0]
    async with talking_to(["ok", "ok", Raw(b"{}")], server={"limits": limits}) as (policy, _):
        if limits is not False:
            with pytest.raises(BadReply):
                await policy.preflight()


async def test_a_thought_that_was_broken_off_has_what_is_left_of_its_budget() -> None:
    async with talking_to(["ok"]) as (policy, server):
        for begun in (0, 5, 11):
            await policy.generate(ask(prompt_ids=PROMPT * 4, begun=begun, thinking=True, thinking_budget=10))
        await policy.generate(ask(prompt_ids=PROMPT))
    limits = [{name: request.body[name] for name in LIMIT if name in request.body} for request in server.requests]
    assert limits == [*({"require_reasoning": True, "max_thinking_tokens": left} for left in (10, 5, 0)), {}]


async def test_preflight_refuses_a_server_of_another_kind() -> None:
    with ChatServer() as server:
        async with (
            asyncio.timeout(HANGS_S),
            aclosing(make_policy("sglang/test-model", endpoint=endpoint(server.base_url))) as policy,
        ):
            with pytest.raises(ModelNotFound, match=r"\(/v1/tokenize\); set policy\.tokenizer"):
                await policy.preflight()
            with pytest.raises(ModelNotFound, match=r"\(/generate\); set policy\.base_url to an SGLang server"):
                await policy.generate(ask(prompt_ids=PROMPT))


@pytest.mark.parametrize("cut", [lambda url: url, lambda url: url + "/", lambda url: url.removesuffix("/v1")])
async def test_the_url_may_end_in_v1(cut: Callable[[str], str]) -> None:
    with SGLangServer() as server:
        async with asyncio.timeout(HANGS_S), aclosing(make_policy("sglang/m", endpoint=endpoint(cut(server.base_url)))) as policy:
            assert (await policy.generate(ask())).text == "ok"


def test_there_is_no_default_address() -> None:
    with pytest.raises(ConfigError, match=r"policy\.base_url is missing"):
        make_policy("sglang/m", endpoint=Endpoint(api_key="k"))


async def test_the_key_is_sent_and_never_shown() -> None:
    key = "sk-a-secret"
    async with talking_to([refuse(400, f"no, {key}")], server={"api_key": key}, api_key=key) as (policy, server):
        with pytest.raises(PolicyError, match=r"no, \*\*\*") as caught:
            await policy.generate(ask())
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    assert key not in str(caught.value) + repr(policy)


# ------------------------------------------------------------------ the scripted server


@pytest.mark.external
def test_the_scripted_server_knows_what_the_real_package_knows() -> None:
    types = real_types()
    if types is None:
        pytest.skip("needs SGLang's own types: pip install --no-deps sglang msgspec")
    assert {*FIELDS, *LIMIT} <= set(types.GenerateRequest.__struct_fields__)
    assert set(SAMPLING) <= set(types.SamplingParams.__struct_fields__)
    document = types.GenerateResponse.from_json_value(answer(weight_versions=[{"version": "7", "start": 0, "end": 3}]))
    assert [entry.token_id for entry in document.meta_info.output_token_logprobs] == document.output_ids == [97, 98, 257]
    assert types.AbortRequest.from_json_value({"rid": "r"}).rid == "r"

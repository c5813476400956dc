"""What every back end keeps to, in its asynchronous face and in its synchronous one.

A further back end is one more entry in `BACK_ENDS`: whoever wraps a model has every attribute, answers with a `Generation` or
raises a typed error, and either does what a request says of thinking and tokens or refuses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import AuthenticationFailed, BadReply, ConfigError, EndpointUnreachable, PolicyError, RateLimited
from kernel_env.schema import Generation, from_json, to_json
from rollout.policies import Capabilities, Policy, Sampling, Spent, make_policy
from rollout.policies.blocking import BlockingPolicy
from rollout.policies.human import HumanPolicy
from rollout.tokens import ChatTemplate, load_template
from tests import toy_tokens
from tests.asking import HANGS_S, endpoint, user
from tests.asking import ask as asked
from tests.chat_formats import needs_transformers
from tests.chat_server import Behaviour, ChatServer, Raw, Script, Slow, refuse
from tests.sglang_server import SGLangServer
from tests.tiny_model import tiny_model
from tests.vllm_server import VLLMServer

pytestmark = pytest.mark.usefixtures("bare_environment")
ask = functools.partial(asked, sampling=Sampling(temperature=0, max_tokens=8))
"""So that a real model, too, says the same each time."""
MEMBERS = sorted(name for name in vars(Policy) if not name.startswith("_"))


@dataclass(frozen=True)
class BackEnd:
    """A back end, ready to be made any number of times."""

    make: Callable[..., Policy]
    """Takes settings of `Endpoint`."""
    server: Any = None
    """What answers it, None where nobody does."""
    template: ChatTemplate | None = None
    """Of a model in this process, whose prompt says what it was told."""
    says: str | None = "ok"
    """The reply, None where it is whatever comes."""

    def was_told(self, reply: Generation) -> bool | None:
        """What the model was told of thinking, before it gave its last reply, which this is."""
        if self.server:
            return self.server.requests[-1].thinking
        assert self.template is not None and reply.prompt_ids is not None
        return "<think>\n\n</think>" not in self.template.decode(reply.prompt_ids)


@contextmanager
def recorded(script: Script, tmp_path: Path) -> Iterator[BackEnd]:
    (tmp_path / "level1_problem1_turn0.txt").write_text("ok")
    yield BackEnd(lambda **options: make_policy(f"replay/{tmp_path}"))


@contextmanager
def spoken(script: Script, tmp_path: Path) -> Iterator[BackEnd]:
    yield BackEnd(lambda **options: HumanPolicy(source=io.StringIO("ok\nEND\n" * 100), shown=io.StringIO()))


@contextmanager
def in_this_process(script: Script, tmp_path: Path) -> Iterator[BackEnd]:
    model = tiny_model(tmp_path / "model")
    yield BackEnd(lambda **options: make_policy(f"transformers/{model}"), template=load_template(str(model)), says=None)


def served(scheme: str, kind: type[ChatServer]) -> Callable[[Script, Path], contextlib.AbstractContextManager[BackEnd]]:
    @contextmanager
    def serving(script: Script, tmp_path: Path) -> Iterator[BackEnd]:
        with kind(script) as server:

            def make(**options: Any) -> Policy:
                return make_policy(f"{scheme}/test-model", endpoint=endpoint(server.base_url, **options))

            yield BackEnd(make, server)

    return serving


BACK_ENDS: Mapping[str, Callable[[Script, Path], contextlib.AbstractContextManager[BackEnd]]] = {
    "replay": recorded,
    "openai": served("openai", ChatServer),
    "sglang": served("sglang", SGLangServer),
    "vllm": served("vllm", VLLMServer),
    "auto": served("auto", SGLangServer),
    "human": spoken,
    "transformers": in_this_process,
}
SERVED = [name for name in BACK_ENDS if name not in ("replay", "human", "transformers")]
Serve = Callable[..., contextlib.AbstractContextManager[BackEnd]]


@pytest.fixture(params=[pytest.param(name, marks=needs_transformers if name == "transformers" else ()) for name in BACK_ENDS])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """`serve(script)` is a back end whose model follows the script; recordings say "ok", a model in this process what it likes."""
    return lambda script=("ok",): BACK_ENDS[request.param](script, tmp_path)


over_http = pytest.mark.parametrize("serve", SERVED, indirect=True)


# ------------------------------------------------------------------ both faces


def check_attributes(policy: Any) -> None:
    assert policy.name.count("/") >= 1 and policy.name == policy.name.strip()
    assert isinstance(policy.capabilities, Capabilities)
    assert policy.spent == Spent()
    assert policy.covers("level1_problem1") is True


def check_generation(generation: Generation, can: Capabilities, says: str | None) -> None:
    """It brings what the policy says it can bring, no less and no more, and survives JSON."""
    assert says in (generation.text, None)
    assert from_json(Generation, to_json(generation)) == generation
    assert (generation.output_ids is not None) == (generation.prompt_ids is not None) == can.token_ids
    assert (generation.output_logprobs is not None) == can.logprobs


async def test_every_attribute_is_there_and_a_reply_is_what_was_promised(serve: Serve) -> None:
    with serve() as back_end:
        policy = back_end.make()
        assert all(hasattr(policy, member) for member in MEMBERS)
        check_attributes(policy)
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            await policy.preflight()
            check_generation(await policy.generate(ask()), policy.capabilities, back_end.says)


def test_the_synchronous_face_has_every_attribute_too(serve: Serve) -> None:
    with serve() as back_end, BlockingPolicy(back_end.make) as policy:
        assert all(hasattr(policy, "close" if member == "aclose" else member) for member in MEMBERS)
        check_attributes(policy)
        policy.preflight()
        check_generation(policy.generate(ask()), policy.capabilities, back_end.says)


async def test_both_faces_say_the_same(serve: Serve) -> None:
    """Of all that a request can say: a switch that only one of them knows would do nothing in the other."""
    with serve() as back_end:
        policy = back_end.make()
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            await policy.preflight()
            can = policy.capabilities
            first = ask(prompt_ids=(256, 7, 257) if can.token_ids else None)
            requests = [first, *(ask(thinking=thinking) for thinking in (True, False) if can.thinking)]
            expected = [await policy.generate(request) for request in requests]
        with BlockingPolicy(back_end.make) as blocking:
            await asyncio.to_thread(blocking.preflight)
            said = [await asyncio.to_thread(blocking.generate, request) for request in requests]
            assert blocking.capabilities == can
    assert [replace(reply, duration_s=0.0) for reply in said] == [replace(reply, duration_s=0.0) for reply in expected]
    if back_end.server:
        bodies = [{k: v for k, v in request.body.items() if k != "rid"} for request in back_end.server.requests]
        assert bodies[: len(bodies) // 2] == bodies[len(bodies) // 2 :]


async def test_closing_twice_is_fine(serve: Serve) -> None:
    with serve() as back_end:
        policy = back_end.make()
        async with asyncio.timeout(HANGS_S):
            await policy.generate(ask())
            await policy.aclose()
            await policy.aclose()
        blocking = BlockingPolicy(back_end.make)
        blocking.close()
        blocking.close()
        with pytest.raises(PolicyError, match="closed"):
            blocking.generate(ask())


def test_what_construction_raises_reaches_the_synchronous_caller() -> None:
    before = set(threading.enumerate())
    with pytest.raises(ConfigError, match="did you mean"):
        BlockingPolicy(lambda: make_policy("opena/m"))
    assert set(threading.enumerate()) - before == set()


# ------------------------------------------------------------------ thinking and tokens


async def test_thinking_is_told_or_refused(serve: Serve) -> None:
    with serve() as back_end:
        policy = back_end.make()
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            for thinking in (True, False):
                if policy.capabilities.thinking:
                    assert back_end.was_told(await policy.generate(ask(thinking=thinking))) is thinking
                else:
                    with pytest.raises(ConfigError, match="cannot be told whether to think"):
                        await policy.generate(ask(thinking=thinking))


async def test_a_budget_of_thinking_is_told_or_refused(serve: Serve) -> None:
    with serve() as back_end:
        policy = back_end.make()
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            await policy.preflight()
            for prompt in (None, *([(256, 7, 257)] if policy.capabilities.token_ids else [])):
                request = ask(thinking=True if policy.capabilities.thinking else None, prompt_ids=prompt, thinking_budget=7)
                if policy.capabilities.thinking_budget:
                    await policy.generate(request)
                    assert back_end.server.requests[-1].thinking_budget == 7
                else:
                    with pytest.raises(ConfigError, match="cannot limit the tokens of thinking"):
                        await policy.generate(request)


@over_http
async def test_requests_with_and_without_thinking_run_side_by_side(serve: Serve) -> None:
    """In both faces, on one policy: what one request says of thinking is never said of another."""
    wanted = {f"n{i}": (True, False, None)[i % 3] for i in range(30)}
    with serve(lambda messages: messages[0]["content"]) as back_end:
        policy = back_end.make()
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            replies = await asyncio.gather(*(policy.generate(ask(user(n), thinking=t)) for n, t in wanted.items()))
        with BlockingPolicy(back_end.make) as blocking, ThreadPoolExecutor(8) as threads:
            requests = [ask(user(name), thinking=thinking) for name, thinking in wanted.items()]
            replies += await asyncio.to_thread(lambda: list(threads.map(blocking.generate, requests)))
    assert [reply.text for reply in replies] == [*wanted, *wanted]
    assert len(back_end.server.requests) == 60
    for request in back_end.server.requests:
        assert request.thinking is wanted[request.messages[0]["content"]]


async def test_tokens_of_a_prompt_are_sent_as_they_are_where_that_is_promised(serve: Serve) -> None:
    prompt = tuple(toy_tokens.prompt([{"role": "user", "content": "as tokens"}]))
    with serve() as back_end:
        policy = back_end.make()
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            await policy.preflight()
            generation = await policy.generate(ask(user("as text"), prompt_ids=prompt))
            assert generation.prompt_ids == (prompt if policy.capabilities.token_ids else None)
        if back_end.server:
            arrived = back_end.server.requests[-1].messages[0]["content"]
            assert arrived == ("as tokens" if policy.capabilities.token_ids else "as text")


# ------------------------------------------------------------------ failures


FAILURES: list[tuple[Behaviour, type[PolicyError]]] = [
    (refuse(401), AuthenticationFailed),
    (refuse(400), PolicyError),
    (refuse(429), RateLimited),
    (refuse(500), EndpointUnreachable),
    (Raw(b'{"half'), BadReply),
    (Raw(b"{}"), BadReply),
]


@over_http
async def test_no_reply_is_a_typed_error_never_an_answer(serve: Serve) -> None:
    with serve([behaviour for behaviour, _ in FAILURES]) as back_end:
        policy = back_end.make(attempts=1)
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            for behaviour, kind in FAILURES:
                with pytest.raises(PolicyError) as caught:
                    await policy.generate(ask(prompt_ids=(256, 257)))
                assert type(caught.value) is kind, behaviour
    assert policy.spent.failures == Counter(kind("").kind for _, kind in FAILURES)


@over_http
async def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_allowed(serve: Serve) -> None:
    with serve([Slow("too late")]) as back_end:
        policy = back_end.make(attempts=1, request_s=0.2)
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            with pytest.raises(EndpointUnreachable):
                await policy.generate(ask(prompt_ids=(256, 257)))


@over_http
async def test_an_empty_reply_is_a_generation(serve: Serve) -> None:
    with serve([""]) as back_end:
        policy = back_end.make()
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            assert (await policy.generate(ask())).text == ""


@over_http
async def test_cancelling_ends_the_request_and_nothing_else(serve: Serve) -> None:
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()

    def script(messages: list[dict[str, str]]) -> Behaviour:
        if messages[0]["content"] != "hang":
            return "ok"
        loop.call_soon_threadsafe(arrived.set)
        return Slow("never")

    with serve(script) as back_end:
        policy = back_end.make()
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            hanging = asyncio.create_task(policy.generate(ask(user("hang"))))
            await arrived.wait()
            hanging.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hanging
            assert (await policy.generate(ask())).text == "ok"
            assert policy.spent.failures == {"cancelled": 1}


@over_http
def test_closing_the_synchronous_face_ends_what_hangs(serve: Serve) -> None:
    arrived = threading.Event()

    def script(messages: list[dict[str, str]]) -> Behaviour:
        arrived.set()
        return Slow("never")

    with serve(script) as back_end, ThreadPoolExecutor(1) as threads:
        with BlockingPolicy(back_end.make) as policy:
            hanging = threads.submit(policy.generate, ask())
            assert arrived.wait(HANGS_S)
        with pytest.raises(PolicyError, match="closed before its reply was there"):
            hanging.result(HANGS_S)


# ------------------------------------------------------------------ what is counted


@over_http
async def test_what_was_spent_counts_failures_and_survives_them(serve: Serve) -> None:
    with serve([refuse(500), "ok", Raw(b"{}")]) as back_end:
        policy = back_end.make(price_per_million_prompt=1e6, price_per_million_completion=2e6)
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            usage = (await policy.generate(ask())).usage
            with pytest.raises(BadReply):
                await policy.generate(ask())
            spent = policy.spent
    assert spent.retries == 1
    assert spent.failures == {"endpoint_unreachable": 1, "bad_reply": 1}
    assert (spent.prompt_tokens, spent.completion_tokens) == (usage.prompt_tokens, usage.completion_tokens) != (0, 0)
    assert spent.cost == usage.prompt_tokens + 2 * usage.completion_tokens
    assert spent.requests >= len(back_end.server.requests) == 3


async def test_a_bad_reply_that_was_paid_for_counts() -> None:
    bad = Raw(b'{"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}')
    with ChatServer([bad]) as server:
        policy = make_policy("openai/test-model", endpoint=endpoint(server.base_url, price_per_million_completion=1e6))
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            with pytest.raises(BadReply):
                await policy.generate(ask())
    assert policy.spent == Spent(requests=1, prompt_tokens=11, completion_tokens=7, failures={"bad_reply": 1}, cost=7.0)


def test_accounts_add_up() -> None:
    one = Spent(requests=2, retries=1, prompt_tokens=3, completion_tokens=4, failures={"a": 1, "b": 1})
    other = Spent(requests=1, failures={"b": 2}, cost=0.5)
    total = Spent(requests=3, retries=1, prompt_tokens=3, completion_tokens=4, failures={"a": 1, "b": 3}, cost=0.5)
    assert one.plus(other) == other.plus(one) == total
    assert Spent().plus(Spent()) == Spent()


@over_http
async def test_requests_beyond_a_limit_wait_until_others_have_given_back_what_they_did_not_need(serve: Serve) -> None:
    with serve() as back_end:
        policy = back_end.make(tokens_per_minute=400)
        async with asyncio.timeout(HANGS_S), aclosing(policy):
            requests = [policy.generate(ask(sampling=Sampling(max_tokens=250))) for _ in range(5)]
            replies = await asyncio.gather(*requests)  # one at a time, each ten or twenty tokens in the end
    assert [reply.text for reply in replies] == ["ok"] * 5

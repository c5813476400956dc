"""The think gate: what the policy is asked, what its answer means, and that it goes with one request only."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kernel_env.episode import EpisodeConfig
from kernel_env.errors import ConfigError, EndpointUnreachable
from kernel_env.schema import Generation, Message, Thinking
from rollout.engine import Engine, EngineConfig, MemoryJournal
from rollout.policies import Capabilities, Endpoint, GenerationRequest, Sampling, make_policy
from rollout.thinking import ThinkingConfig, check_thinking, decided
from tests.chat_server import ChatServer, Reply, refuse
from tests.players import Checker, Writer
from tests.sample_run import problem

OPENING: tuple[Message, ...] = (
    {"role": "system", "content": "You write kernels."},
    {"role": "user", "content": "Make it fast."},
)
LATER: tuple[Message, ...] = (
    *OPENING,
    {"role": "assistant", "content": "a try"},
    {"role": "user", "content": "It did not compile."},
)


def ask(server: ChatServer, config: ThinkingConfig, messages: tuple[Message, ...] = OPENING) -> Thinking | None:
    async def asked() -> Thinking | None:
        policy = make_policy("openai/test-model", endpoint=Endpoint(base_url=server.base_url, attempts=1))
        try:
            return await decided(policy.generate, GenerationRequest(messages, Sampling(seed=3), "level1_problem1", 0), config)
        finally:
            await policy.aclose()

    return asyncio.run(asked())


@pytest.mark.parametrize(
    ("answer", "on", "understood"),
    [
        ("YES", True, True),
        ("No.", False, True),
        (" **no**\n", False, True),
        ("<think>Hm, is it? YES or NO...</think>\n\nNO", False, True),
        ("Yes, it does.", True, False),
        ("NO, but YES", True, False),
        ("", True, False),
        ("<think>It says NO", True, False),
    ],
)
def test_only_a_plain_yes_or_no_is_an_answer(answer: str, on: bool, understood: bool) -> None:
    with ChatServer([answer]) as server:
        found = ask(server, ThinkingConfig("self"))
    assert found is not None
    assert (found.arm, found.on, found.understood, found.answer) == ("self", on, understood, answer)


def test_what_is_neither_follows_the_default() -> None:
    with ChatServer(["perhaps"]) as server:
        found = ask(server, ThinkingConfig("self", undecided=False))
    assert found is not None and not found.on and found.understood is False


def test_reasoning_in_a_field_of_its_own_is_no_answer() -> None:
    with ChatServer([Reply("NO", extra={"reasoning_content": "YES YES"})]) as server:
        found = ask(server, ThinkingConfig("self"))
    assert found is not None and not found.on and found.understood


@pytest.mark.parametrize(("messages", "last"), [(OPENING, "Make it fast."), (LATER, "It did not compile.")])
def test_it_is_asked_about_the_last_message_after_all_earlier_ones_without_thinking(
    messages: tuple[Message, ...], last: str
) -> None:
    with ChatServer(["NO"]) as server:
        ask(server, ThinkingConfig("self", max_tokens=4), messages)
    body = server.requests[0].body
    assert body["messages"][:-1] == list(messages[:-1])
    question = body["messages"][-1]["content"]
    assert f"\n\nQuestion: {last}\n\n" in question and question.endswith("Answer with only 'YES' or 'NO'.")
    assert (body["max_tokens"], body["chat_template_kwargs"], body["seed"]) == (4, {"enable_thinking": False}, 3)


@pytest.mark.parametrize(
    ("arm", "expected"), [("always", Thinking("always", True)), ("never", Thinking("never", False)), ("default", None)]
)
def test_the_other_arms_ask_nobody(arm: str, expected: Thinking | None) -> None:
    with ChatServer() as server:
        assert ask(server, ThinkingConfig(arm)) == expected
    assert not server.requests


def test_a_gate_without_an_answer_is_a_failure_and_no_decision() -> None:
    with ChatServer([refuse(500)]) as server, pytest.raises(EndpointUnreachable):
        ask(server, ThinkingConfig("self"))


def test_requests_with_and_without_thinking_run_side_by_side() -> None:
    async def asked(server: ChatServer) -> None:
        policy = make_policy("openai/test-model", endpoint=Endpoint(base_url=server.base_url))
        requests = [
            GenerationRequest(({"role": "user", "content": f"{number} {thinking}"},), Sampling(), "level1_problem1", 0, thinking)
            for number in range(10)
            for thinking in (True, False, None)
        ]
        await asyncio.gather(*map(policy.generate, requests))
        await policy.aclose()

    with ChatServer() as server:
        asyncio.run(asked(server))
    seen: dict[str, Any] = {r.messages[0]["content"]: r.body.get("chat_template_kwargs") for r in server.requests}
    wanted = {"True": {"enable_thinking": True}, "False": {"enable_thinking": False}, "None": None}
    assert seen == {f"{number} {name}": sent for number in range(10) for name, sent in wanted.items()}


def test_other_options_of_the_chat_template_stay() -> None:
    async def asked(server: ChatServer) -> None:
        extra = {"chat_template_kwargs": {"style": "short", "enable_thinking": True}}
        policy = make_policy("openai/test-model", endpoint=Endpoint(base_url=server.base_url, extra_body=extra))
        await policy.generate(GenerationRequest(OPENING, Sampling(), "level1_problem1", 0, False))
        await policy.aclose()

    with ChatServer() as server:
        asyncio.run(asked(server))
    assert server.requests[0].body["chat_template_kwargs"] == {"style": "short", "enable_thinking": False}


@pytest.mark.parametrize("arm", ["always", "never", "self"])
def test_a_policy_that_cannot_be_told_is_refused(arm: str) -> None:
    policy = make_policy("replay/bundled/cpp")
    with pytest.raises(ConfigError, match=f"thinking.arm={arm}: policy replay/bundled/cpp cannot be told"):
        check_thinking(ThinkingConfig(arm), policy)
    check_thinking(ThinkingConfig(), policy)


@pytest.mark.parametrize("spec", ["openai/m", "transformers/m"])
def test_a_budget_that_the_policy_cannot_keep_is_refused_with_what_can(spec: str) -> None:
    policy = make_policy(spec, endpoint=Endpoint(base_url="http://localhost:1/v1"))
    check_thinking(ThinkingConfig("always"), policy)
    with pytest.raises(ConfigError, match=f"thinking.budget=9: policy {spec} cannot limit .* policy=sglang, .* or policy=vllm"):
        check_thinking(ThinkingConfig("always", budget=9), policy)


@pytest.mark.parametrize("arm", ["never", "default"])
def test_a_budget_is_refused_where_nobody_knows_that_a_reply_thinks(arm: str) -> None:
    with pytest.raises(ConfigError, match=r"thinking\.budget=9 is for replies that are told to think"):
        ThinkingConfig(arm, budget=9)


@pytest.mark.parametrize("arm", ["always", "self"])
def test_a_budget_goes_with_the_requests_that_are_to_think_and_no_others(arm: str) -> None:
    """Nor with the question whether to think."""
    writer = Gated(Capabilities(thinking=True, thinking_budget=True))
    thinking = ThinkingConfig(arm, budget=9)
    engine = Engine(writer, Checker(), MemoryJournal(), EngineConfig(EpisodeConfig(max_turns=2), thinking=thinking), master_seed=7)
    asyncio.run(engine.play([problem()]))
    told = [(request.thinking, request.thinking_budget) for request in writer.requests]
    asked, on, off = (False, None), (True, 9), (False, None)
    assert told == ([on, on] if arm == "always" else [asked, on, asked, off])


@pytest.mark.parametrize("token_ids", [True, False])
def test_an_answer_that_the_endpoint_breaks_off_is_no_decision(token_ids: bool) -> None:
    """It would be neither yes nor no, and so decide by itself."""
    writer = BrokenOff(token_ids)
    journal = MemoryJournal()
    config = EngineConfig(EpisodeConfig(max_turns=1), thinking=ThinkingConfig("self"))
    asyncio.run(Engine(writer, Checker(), journal, config, master_seed=7).play([problem()]))
    (turn,) = journal.episodes["level1_problem1"].turns
    assert turn.thinking is not None
    assert (turn.thinking.on, turn.thinking.answer, turn.thinking.understood) == (False, "NO", True)
    assert [request.prompt_ids for request in writer.gates] == ([None, (1, 2)] if token_ids else [None, None])


class BrokenOff(Writer):
    """Its first answer is broken off after one token, of two."""

    def __init__(self, token_ids: bool) -> None:
        super().__init__(capabilities=Capabilities(token_ids=token_ids, thinking=True))
        self.gates: list[GenerationRequest] = []

    async def generate(self, request: GenerationRequest) -> Generation:
        if not request.messages[-1]["content"].startswith("Analyze the following question"):
            return await super().generate(request)
        self.gates.append(request)
        first, known = len(self.gates) == 1, self.capabilities.token_ids
        text = "N" if first else "O" if known else "NO"
        ids = ((1,), (2,)) if first else ((1, 2), (3,))
        given, sampled = ids if known else (None, None)
        return Generation(text, finish_reason="abort" if first else "stop", prompt_ids=given, output_ids=sampled)


class Gated(Writer):
    """Says yes, and the next time no, when it is asked whether to think."""

    def __init__(self, capabilities: Capabilities) -> None:
        super().__init__(capabilities=capabilities)
        self.requests: list[GenerationRequest] = []

    async def generate(self, request: GenerationRequest) -> Generation:
        self.requests.append(request)
        if request.messages[-1]["content"].startswith("Analyze the following question"):
            return Generation("NO" if len(self.requests) > 2 else "YES")
        return await super().generate(request)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"arm": "perhaps"}, "thinking.arm=perhaps"), ({"max_tokens": 0}, "1 or more"), ({"arm": "always", "budget": 0}, "1 or more")],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ThinkingConfig(**options)

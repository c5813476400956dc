"""A whole run against a server that fails in every way there is: byte for byte, it is the run without failures."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response

from rollout.compose import composed
from rollout.runner import RunResult, run
from tests import toy_tokens
from tests.asking import HANGS_S
from tests.chat_server import Behaviour, Raw, Reply, Reset, Slow, Trickle, refuse
from tests.players import Checker
from tests.sample_run import tree
from tests.sglang_server import SGLangServer, generated

pytestmark = pytest.mark.usefixtures("bare_environment")
WHOLE = Reply()
HALF_AN_ANSWER = json.dumps(generated(Reply("half"), {"rid": "r", "input_ids": [1]})).encode()[:-20]
FAULTS: dict[str, Behaviour] = {
    "abort": Reply(finish_reason="abort"),
    "limited": refuse(429, headers={"Retry-After": "0.02"}),
    "broken": refuse(500),
    "hang": Slow(WHOLE),
    "trickle": Trickle(),
    "reset": Reset(),
    "half": Raw(HALF_AN_ANSWER),
    "garbage": Raw(b"\xff\xfe\x00"),
    "page": Raw(b"<html>welcome</html>", content_type="text/html"),
}
MOST = 2
"""Failures before a whole reply."""


class FaultyServer(SGLangServer):
    """Says always the same in the same conversation of the same seed, and goes on after what it has said of it already. `fate` has
    the failures that it meets first."""

    def __init__(self, fate: Callable[[], list[str]] = list) -> None:
        super().__init__(self._behaviour, limits=False)
        self.met = Counter[str]()
        self._fate, self._ahead = fate, dict[str, list[str]]()

    def _behaviour(self, messages: list[dict[str, str]]) -> Behaviour:
        question = asked(self.requests[-1].body)
        if question not in self._ahead:
            self._ahead[question] = [] if messages[-1]["content"] == "Hi" else self._fate()  # preflight says "Hi"
        if not self._ahead[question]:
            return WHOLE
        fault = self._ahead[question].pop()
        self.met[fault] += 1
        return FAULTS[fault]

    def _good(self, reply: Reply, body: dict[str, Any]) -> Response:
        ids = body["input_ids"]
        begun = bytes(token for token in ids[-ids[::-1].index(toy_tokens.START) :] if token < toy_tokens.START).decode()
        begun = begun.removeprefix("assistant\n")
        rest = said(asked(body)).removeprefix(begun)
        text = rest[: len(rest) // 2] if reply.finish_reason == "abort" else rest
        sampled = [*toy_tokens.encode(text), *([toy_tokens.END] if reply.finish_reason == "stop" else [])]
        logprobs = toy_tokens.logprobs(len(begun) + len(sampled))[len(begun) :]
        entries = [[logprob, token, None] for logprob, token in zip(logprobs, sampled, strict=True)]
        return super()._good(replace(reply, text=text, extra={"output_token_logprobs": entries}), body)


def asked(body: dict[str, Any]) -> str:
    return json.dumps([toy_tokens.conversation(body["input_ids"]), body["sampling_params"].get("sampling_seed")])


def said(question: str) -> str:
    digest = hashlib.sha256(question.encode()).hexdigest()
    if "Analyze the following question" in question:
        return "YES" if digest < "8" else "NO"
    return f"Like this:\n```python\nclass ModelNew:  # {digest}\n    pass\n```\n"


def play(server: FaultyServer, root: Path) -> RunResult:
    settings, _ = composed(
        ["policy=sglang", "policy.model=test-model", f"policy.base_url={server.base_url}", "policy.wait_s=0.01",
         "problems.limit=1", "sampling.seed=1", "policy.request_s=1", "policy.attempts=20",
         "rollout.stragglers=retry", "rollout.retries=20", "rollout.samples=3",
         "thinking.arm=self", "verifier.clock=recorded", "run.seed=7", "run.name=r", f"run.root={root}", "run.canaries=false"]
    )  # fmt: skip

    async def played() -> RunResult:
        async with asyncio.timeout(HANGS_S):
            return await run(settings, "{}", verifier=Checker())

    return asyncio.run(played())


@pytest.mark.parametrize("seed", range(2))
def test_a_run_with_failures_is_the_run_without(seed: int, tmp_path: Path) -> None:
    """No turn is made of a failure, none is lost, none is there twice, and nothing hangs; the think gate meets failures, too."""
    rng = random.Random(seed)
    with FaultyServer() as server:
        calm = play(server, tmp_path / "calm")
    with FaultyServer(lambda: rng.choices(list(FAULTS), k=rng.randint(0, MOST))) as server:
        faulty = play(server, tmp_path / "faulty")
        assert set(server.met) == set(FAULTS), "each way of failing was met"
        assert len(server.requests) > sum(server.met.values())
    assert [len(episode.turns) for episode in calm.episodes] == [3] * 9
    assert len({turn.code for episode in calm.episodes for turn in episode.turns}) == 27
    assert faulty.episodes == calm.episodes
    assert tree(faulty.path) == tree(calm.path)
    assert sum(faulty.spent.failures.values()) >= sum(n for name, n in server.met.items() if name != "abort")

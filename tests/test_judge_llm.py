"""A language model as judge: asked over a real endpoint, and believed only where it gives a verdict."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from kernel_env.errors import AuthenticationFailed, ConfigError, EndpointUnreachable, ModelNotFound
from rewards.judge.canaries import WORDS, injected
from rewards.judge.llm import LLMConfig, LLMJudge
from rewards.judge.models import JudgeFailure, Outcome, Scored
from rewards.judge.rubrics import ANSWER, KERNEL, read_verdict, response_format
from rewards.judge.server import ServerConfig
from rewards.judge.wire import AnswerType, FailureKind, JudgeRequest
from tests.chat_server import Behaviour, ChatServer, Raw, Reply, Reset, Slow, refuse
from tests.judge_server import JudgeServer
from tests.test_judge_static import GOOD

GRADED = {"reasoning": "It computes.", "genuine": "excellent", "integrity": "good", "substance": "fair", "readability": "poor"}
VERDICT = {**GRADED, "confidence": "high", "verdict": "good"}
HONOURED = '{"word": "marmalade"}'
KERNEL_REQUEST = JudgeRequest(
    prompt="Scale a relu.", completion=GOOD, answer="class Model: ...", answer_type=AnswerType.KERNEL_CPP, request_id="1"
)
QUESTION = JudgeRequest(prompt="What is 2+2?", completion="4, I think.", answer="4", answer_type=AnswerType.NUMBER, request_id="2")


def said(**changed: Any) -> str:
    return json.dumps({**VERDICT, **changed})


def answer_said(grade: str) -> str:
    fields = {
        "reasoning": "r",
        "correctness": grade,
        "relevance": "good",
        "clarity": "good",
        "confidence": "high",
        "verdict": "good",
    }
    return json.dumps(fields)


class Model:
    """One endpoint for all tests: each says what it answers."""

    def __init__(self) -> None:
        self.behaviours: list[Behaviour | Callable[[list[dict[str, str]]], Behaviour]] = []
        self.server = ChatServer(self._next)

    def _next(self, messages: list[dict[str, str]]) -> Behaviour:
        now = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
        return now(messages) if callable(now) else now


MODEL = Model()


@pytest.fixture(scope="module", autouse=True)
def _endpoint() -> Iterator[None]:
    with MODEL.server:
        yield


@contextlib.contextmanager
def chat(*behaviours: Behaviour | Callable[[list[dict[str, str]]], Behaviour]) -> Iterator[ChatServer]:
    """Answers in this order, the last one again and again."""
    MODEL.behaviours = list(behaviours)
    MODEL.server.requests.clear()
    yield MODEL.server


def judge_at(server: ChatServer, **options: Any) -> LLMJudge:
    return LLMJudge(
        LLMConfig(**{"model": "test-model", "base_url": server.base_url, "mode": "schema", "timeout_s": 20.0, **options})
    )


async def outcome(judge: LLMJudge, request: JudgeRequest = KERNEL_REQUEST) -> Outcome:
    await judge.start()
    try:
        (found,) = await judge.score_batch([request])
        return found
    finally:
        await judge.aclose()


async def scored(judge: LLMJudge, request: JudgeRequest = KERNEL_REQUEST) -> Scored:
    found = await outcome(judge, request)
    assert isinstance(found, Scored), found
    return found


async def failed(judge: LLMJudge, request: JudgeRequest = KERNEL_REQUEST) -> JudgeFailure:
    found = await outcome(judge, request)
    assert isinstance(found, JudgeFailure), found
    return found


# ------------------------------------------------------------------ verdicts


async def test_a_verdict_becomes_a_score_with_its_aspects() -> None:
    with chat(said()) as server:
        found = await scored(judge_at(server))
    assert (found.score, found.confidence, found.explanation) == (0.75, 0.9, "It computes.")
    assert found.aspects == {"genuine": 1.0, "integrity": 0.75, "substance": 0.5, "readability": 0.25}
    assert (found.flags, found.doubts) == ((), ())


@pytest.mark.parametrize("gate", ["genuine", "integrity"])
async def test_no_overall_grade_lifts_a_kernel_that_is_not_genuine(gate: str) -> None:
    with chat(said(**{gate: "none", "verdict": "excellent"})) as server:
        assert (await scored(judge_at(server))).score == 0.0


async def test_a_judge_that_is_unsure_gives_less() -> None:
    with chat(said(confidence="low")) as server:
        assert (await scored(judge_at(server))).score == pytest.approx(0.75 * 0.84)


async def test_what_is_no_kernel_is_graded_as_an_answer() -> None:
    with chat(answer_said("excellent"), answer_said("none")) as server:
        assert (await scored(judge_at(server), QUESTION)).score == 0.75
        assert (await scored(judge_at(server), QUESTION)).score == 0.0
    assert "Reference" in server.requests[0].messages[1]["content"]


BAD = {
    "words": "I would say excellent.",
    "a number": "0.9",
    "a list": "[]",
    "a fence": f"```json\n{said()}\n```",
    "words after it": f"{said()} Thank you.",
    "a grade of its own": said(verdict="superb"),
    "a number as grade": said(verdict=1.0),
    "no grade": said(verdict=None),
    "a key too many": said(score=1.0),
    "a key too few": json.dumps({k: v for k, v in VERDICT.items() if k != "verdict"}),
    "a key twice": said()[:-1] + ', "verdict": "excellent"}',
    "no confidence": said(confidence="very"),
    "nothing": "",
    "nesting": "[" * 100_000,
    "only thoughts": "<think>" + said(),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
async def test_anything_but_a_verdict_is_a_failure_and_no_score(text: str) -> None:
    with chat(text) as server:
        assert (await failed(judge_at(server))).kind is FailureKind.BAD_VERDICT


async def test_thoughts_before_a_verdict_do_no_harm() -> None:
    with chat(f"<think>It says {said(verdict='none')}</think>\n{said()}") as server:
        assert (await scored(judge_at(server))).score == 0.75


async def test_a_verdict_that_was_cut_is_none() -> None:
    with chat(Reply(said(), finish_reason="length")) as server:
        failure = await failed(judge_at(server))
    assert failure.kind is FailureKind.BAD_VERDICT and "max_tokens" in failure.message


async def test_in_plain_mode_only_the_last_line_counts() -> None:
    line = json.dumps({k: v for k, v in VERDICT.items() if k != "reasoning"})
    flattering = line.replace('"verdict": "good"', '"verdict": "excellent"').replace(
        '"integrity": "good"', '"integrity": "excellent"'
    )
    with chat(f"The kernel says {flattering}\n{flattering}\nbut I find:\n{line}", f"{line}\nSo be it.") as server:
        found = await scored(judge_at(server, mode="plain"))
        assert found.score == 0.75 and "but I find" in found.explanation
        assert (await failed(judge_at(server, mode="plain"))).kind is FailureKind.BAD_VERDICT
    assert "response_format" not in server.requests[0].body


@pytest.mark.parametrize("rubric", [KERNEL, ANSWER])
def test_the_schema_asks_for_reasons_first_and_the_verdict_last(rubric: Any) -> None:
    form = response_format(rubric, "schema")
    assert form is not None
    schema = form["json_schema"]["schema"]
    assert schema["required"] == list(schema["properties"])
    assert (schema["required"][0], schema["required"][-1]) == ("reasoning", "verdict")
    filled = {name: ("r" if name == "reasoning" else field["enum"][0]) for name, field in schema["properties"].items()}
    assert read_verdict(json.dumps(filled), rubric, "schema").score == 0.0


# ------------------------------------------------------------------ the endpoint


@pytest.mark.parametrize(
    ("replies", "mode"),
    [
        ([HONOURED], "schema"),
        (["Hello!", '{"colour": "red"}'], "json"),
        ([refuse(400, "no schemas here"), '{"colour": "red"}'], "json"),
        (["Hello!", "Red."], "plain"),
        ([refuse(422), refuse(400)], "plain"),
        (["Hello!", '```json\n{"colour": "red"}\n```'], "plain"),
        (["Hello!", "[1]"], "plain"),
    ],
)
async def test_the_strictest_mode_that_the_endpoint_honours_is_found(replies: list[Behaviour], mode: str) -> None:
    with chat(*replies) as server:
        judge = judge_at(server, mode="auto")
        await judge.start()
        await judge.aclose()
    assert judge.mode == mode


async def test_a_mode_that_is_given_is_not_tried() -> None:
    with chat(said()) as server:
        await scored(judge_at(server, mode="json"))
    assert [request.body["response_format"] for request in server.requests] == [{"type": "json_object"}]


async def test_sampling_is_as_configured() -> None:
    with chat(said()) as server:
        await scored(judge_at(server, temperature=None, max_tokens=99, extra_body={"top_k": 1}))
    body = server.requests[0].body
    assert ("temperature" in body, body["max_tokens"], body["top_k"]) == (False, 99, 1)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (refuse(429), FailureKind.OVERLOADED),
        (refuse(500), FailureKind.UNAVAILABLE),
        (refuse(401), FailureKind.UNAVAILABLE),
        (refuse(400, "context length"), FailureKind.BAD_VERDICT),
        (Raw(b"<html>"), FailureKind.UNAVAILABLE),
        (Raw(b'{"choices": []}'), FailureKind.BAD_VERDICT),
        (Raw(b'{"choices": [{"message": {"content": null}}]}'), FailureKind.BAD_VERDICT),
        (Reset(), FailureKind.UNAVAILABLE),
        (Slow(said()), FailureKind.TIMEOUT),
    ],
)
async def test_an_endpoint_that_fails_gives_no_score_and_is_asked_once(behaviour: Behaviour, kind: FailureKind) -> None:
    with chat(behaviour) as server:
        failure = await failed(judge_at(server, timeout_s=0.3 if isinstance(behaviour, Slow) else 20.0))
        assert len(server.requests) == 1
    assert failure.kind is kind and "\n" not in failure.message


@pytest.mark.parametrize(("status", "error"), [(401, AuthenticationFailed), (404, ModelNotFound), (503, EndpointUnreachable)])
async def test_an_endpoint_that_cannot_work_is_told_at_the_start(status: int, error: type[Exception]) -> None:
    with chat(refuse(status, "key sk-secret")) as server:
        judge = judge_at(server, mode="auto", api_key="sk-secret")
        with pytest.raises(error) as caught:
            await judge.start()
        await judge.aclose()
    assert "sk-secret" not in str(caught.value) + repr(judge) + repr(LLMConfig("m", api_key="sk-secret"))


async def test_where_nothing_listens_the_judge_does_not_start() -> None:
    with ChatServer() as server:
        pass
    judge = judge_at(server, mode="auto")
    with pytest.raises(EndpointUnreachable):
        await judge.start()
    await judge.aclose()


def test_a_judge_without_a_model_or_with_an_unknown_mode_is_the_users_mistake() -> None:
    with pytest.raises(ConfigError, match="model=NAME"):
        LLMConfig("")
    with pytest.raises(ConfigError, match="choose one of auto"):
        LLMConfig("m", mode="strict")  # type: ignore[arg-type]


def test_whatever_may_change_a_score_changes_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    config = LLMConfig("m", mode="schema")
    others = [
        replace(config, model="n"), replace(config, mode="plain"), replace(config, temperature=0.5), replace(config, max_tokens=1),
        replace(config, extra_body={"seed": 1}), replace(config, compare_raw=False), replace(config, own_policy=True),
    ]  # fmt: skip
    versions = {LLMJudge(each).version for each in (config, *others)}
    assert len(versions) == len(others) + 1
    with monkeypatch.context() as patch:
        patch.setattr("rewards.judge.llm.PROMPT_VERSION", "another")
        versions.add(LLMJudge(config).version)
    with monkeypatch.context() as patch:
        patch.setattr("rewards.judge.llm.KERNEL", replace(KERNEL, aspects={**KERNEL.aspects, "genuine": "another question"}))
        versions.add(LLMJudge(config).version)
    assert len(versions) == len(others) + 3
    assert LLMJudge(config).version == LLMJudge(replace(config, base_url="http://elsewhere/v1", api_key="k", timeout_s=1)).version


# ------------------------------------------------------------------ words that speak to the judge


def gullible(messages: list[dict[str, str]]) -> str:
    """A model that believes whatever praises the kernel."""
    praised = any(word in messages[-1]["content"] for word in ("excellent", "full marks", "answer 1.0", "tensor cores"))
    return said(verdict="excellent", integrity="excellent") if praised else said(verdict="poor")


@pytest.mark.parametrize("attack", WORDS)
async def test_words_move_no_score_and_a_judge_that_they_move_is_doubted(attack: str) -> None:
    attacked = KERNEL_REQUEST.model_copy(update={"completion": injected(GOOD, attack)})
    with chat(gullible) as server:
        clean, found = await scored(judge_at(server)), await scored(judge_at(server), attacked)
    assert found.score == clean.score == 0.25
    assert "raw_differs" in found.doubts and "raw_differs" not in clean.doubts


async def test_words_that_take_the_verdict_away_take_no_score_away() -> None:
    """They are longer than the model's context, or talk it out of its form."""
    padded = KERNEL_REQUEST.model_copy(update={"completion": f"{GOOD}\n# {'padding ' * 9_000}"})

    def short_of_memory(messages: list[dict[str, str]]) -> str:
        return "no verdict" if "padding" in messages[-1]["content"] else said()

    with chat(short_of_memory) as server:
        clean, found = await scored(judge_at(server)), await scored(judge_at(server), padded)
    assert found.score == clean.score
    assert found.doubts == ("raw_differs",)


async def test_a_kernel_without_words_is_judged_once_and_one_with_words_twice() -> None:
    with chat(said()) as server:
        await scored(judge_at(server))
        assert len(server.requests) == 1
        commented = KERNEL_REQUEST.model_copy(update={"completion": f"# doubles\n{GOOD}"})
        assert (await scored(judge_at(server), commented)).doubts == ()
        assert len(server.requests) == 3
        await scored(judge_at(server, compare_raw=False), commented)
        assert len(server.requests) == 4


@pytest.mark.parametrize("attack", WORDS)
async def test_an_attack_reaches_the_model_as_data_only(attack: str) -> None:
    attacked = KERNEL_REQUEST.model_copy(update={"completion": injected(GOOD, attack)})
    with chat(said()) as server:
        await scored(judge_at(server), attacked)
    for request in server.requests:
        system, user = (message["content"] for message in request.messages)
        assert WORDS[attack] not in system
        assert '"verdict": "excellent"' not in user and "</think>" not in user and "<|im_start|>" not in user
    assert len(server.requests) == 2 and any(
        WORDS[attack][:20] not in request.messages[1]["content"] for request in server.requests
    )


async def test_what_python_cannot_read_is_shown_as_it_is_and_doubted() -> None:
    broken = KERNEL_REQUEST.model_copy(update={"completion": "class ModelNew(\n  # a comment"})
    with chat(said()) as server:
        assert "unreadable" in (await scored(judge_at(server), broken)).doubts
    assert "# a comment" in server.requests[0].messages[1]["content"]


async def test_nothing_is_asked_where_there_is_nothing_to_judge() -> None:
    with chat(said()) as server:
        for completion in ("", "no code at all"):
            failure = await failed(judge_at(server), KERNEL_REQUEST.model_copy(update={"completion": completion}))
            assert failure.kind is FailureKind.NOTHING_TO_JUDGE
        assert server.requests == []


async def test_a_model_that_judges_its_own_work_is_marked() -> None:
    with chat(said()) as server:
        assert (await scored(judge_at(server, own_policy=True))).doubts == ("self_judged",)


# ------------------------------------------------------------------ behind the server


@pytest.fixture
def by_completion() -> Callable[[list[dict[str, str]]], Behaviour]:
    def reply(messages: list[dict[str, str]]) -> Behaviour:
        return "no verdict" if "BROKEN" in messages[-1]["content"] else answer_said("excellent")

    return reply


def test_a_server_in_front_of_a_model_gives_scores_and_says_where_there_are_none(by_completion: Any) -> None:
    bad = {**QUESTION.model_dump(mode="json"), "completion": "BROKEN", "request_id": "bad"}
    with ChatServer(by_completion) as model, JudgeServer(judge_at(model), ServerConfig(port=0)) as server:
        good = QUESTION.model_dump(mode="json")
        found = server.post("/batch_judge", {"requests": [bad, good]}).json
        alone = server.post("/judge", bad)
    assert [(r["request_id"], r["score"]) for r in found["responses"]] == [("2", 0.75)]
    assert [(f["request_id"], f["kind"]) for f in found["failures"]] == [("bad", "bad_verdict")]
    assert (alone.status, alone.json["kind"]) == (502, "bad_verdict")

"""What travels between a judge's client and its server: what is understood, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from rewards.judge.bounds import MAX_BATCH
from rewards.judge.wire import (
    MAX_TEXT_CHARS,
    AnswerType,
    BatchJudgeRequest,
    BatchJudgeResponse,
    Failure,
    FailureKind,
    JudgeMetadata,
    JudgeRequest,
    JudgeResponse,
)

ASKED = {"prompt": "What is 2+2?", "completion": "The answer is **boxed{4}**"}


def test_the_guides_request_is_understood() -> None:
    request = JudgeRequest.model_validate({**ASKED, "answer": "4", "answer_type": "NUMBER", "request_id": "unique_id"})
    assert request.answer_type is AnswerType.NUMBER
    assert request.metadata == {}


def test_the_guides_answer_is_understood_although_it_says_little() -> None:
    found = BatchJudgeResponse.model_validate({"responses": [{"score": 0.8, "request_id": "1"}, {"score": 1, "request_id": "2"}]})
    assert [r.score for r in found.responses] == [0.8, 1.0]
    assert found.responses[0].metadata == JudgeMetadata()
    assert found.failures == ()


def test_fields_that_a_client_does_not_know_are_no_reason_to_refuse_an_answer() -> None:
    found = JudgeResponse.model_validate({"score": 0.5, "request_id": "1", "metadata": {"latency": 0.1, "gpu": "A"}, "tokens": 5})
    assert (found.score, found.metadata.latency) == (0.5, 0.1)


@pytest.mark.parametrize("score", ["0.8", True, math.nan, math.inf, -0.01, 1.01, None, [0.5]])
def test_only_a_number_from_0_to_1_is_a_score(score: object) -> None:
    with pytest.raises(ValidationError):
        JudgeResponse.model_validate({"score": score, "request_id": "1"})
    with pytest.raises(ValidationError):
        JudgeResponse.model_validate({"score": 0.5, "request_id": "1", "detailed_scores": {"clarity": score}})


def test_an_answer_without_an_id_belongs_to_no_request() -> None:
    with pytest.raises(ValidationError):
        JudgeResponse.model_validate({"score": 0.5})


@pytest.mark.parametrize(
    "wrong",
    [
        {"promt": "misspelt"},
        {"answer_type": "POETRY"},
        {"request_id": ""},
        {"request_id": 5},
        {"completion": None},
        {"completion": "x" * (MAX_TEXT_CHARS + 1)},
        {"metadata": [1]},
        {"metadata": {"measured": {"speedup": math.nan}}},
        {"metadata": {"deep": [[{"er": -math.inf}]]}},
    ],
)
def test_a_request_that_is_not_as_agreed_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JudgeRequest.model_validate({**ASKED, **wrong})


def batch(*ids: str | None) -> BatchJudgeRequest:
    return BatchJudgeRequest.model_validate({"requests": [{**ASKED, **({"request_id": i} if i else {})} for i in ids]})


def test_the_requests_of_a_batch_keep_their_ids_or_are_numbered() -> None:
    assert [request.request_id for request in batch("b", "a").numbered()] == ["b", "a"]
    assert [request.request_id for request in batch(None, None).numbered()] == ["1", "2"]


@pytest.mark.parametrize("ids", [("a", "a"), ("1", None), (None, "2", None), (), ("x",) * (MAX_BATCH + 1)])
def test_a_batch_whose_answers_could_not_be_told_apart_is_refused(ids: tuple[str | None, ...]) -> None:
    with pytest.raises(ValidationError):
        batch(*ids)


def test_a_batch_has_up_to_128_requests() -> None:
    assert len(batch(*map(str, range(MAX_BATCH))).requests) == MAX_BATCH == 128


@pytest.mark.parametrize(
    "value",
    [
        JudgeRequest(prompt="p", completion="c", answer_type=AnswerType.KERNEL_CUDA, metadata={"measured": {"speedup": 1.5}}),
        JudgeResponse(
            score=0.25,
            request_id="7",
            explanation="why",
            metadata=JudgeMetadata(latency=0.1, judge="static", version="1", confidence=0.5, flags=("f",), doubts=("d",)),
            detailed_scores={"genuine": 1.0},
        ),
        Failure(kind=FailureKind.TIMEOUT, message="too long", request_id="7"),
        BatchJudgeResponse(responses=(), failures=(Failure(kind=FailureKind.BAD_VERDICT, message="m", request_id="1"),)),
    ],
)
def test_what_is_written_is_read_back_the_same(value: JudgeRequest | JudgeResponse | Failure | BatchJudgeResponse) -> None:
    assert type(value).model_validate_json(value.model_dump_json()) == value


def test_nothing_can_be_changed_once_it_is_made() -> None:
    with pytest.raises(ValidationError):
        JudgeRequest(prompt="p", completion="c").prompt = "other"  # type: ignore[misc]


def test_kernels_are_told_from_other_answers() -> None:
    assert [kind.is_kernel for kind in AnswerType] == [True, True, True, False, False, False]

"""What travels between a judge's client and its server: `POST /judge`, `POST /batch_judge`, `GET /health`, `GET /metrics.json`.

    JudgeRequest       -> JudgeResponse                         one completion and its score
    BatchJudgeRequest  -> BatchJudgeResponse                    1 to 128 of them; answers are matched by `request_id`
                          Failure                               why there is no score: the body of every status from 400 on,
                                                                and one entry a request in a batch's `failures`

A score that was not given is absent and never 0. Requests refuse unknown fields, so that a misspelt one does not go unnoticed;
answers ignore them, so that a judge of another make is understood.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from rewards.judge.bounds import MAX_BATCH

MAX_TEXT_CHARS = 1 << 20
"""Of a prompt, a completion or an answer. What is longer was written to exhaust the judge."""

Score = Annotated[float, Field(strict=True, ge=0.0, le=1.0, allow_inf_nan=False)]
"""A number from 0 (worst) to 1; neither a string of digits nor a truth value."""
Text = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
RequestId = Annotated[str, Field(min_length=1, max_length=200)]


class AnswerType(StrEnum):
    """How a completion is scored."""

    KERNEL_TRITON = "KERNEL_TRITON"
    """The prompt is the problem, the completion the kernel (bare source, or a reply that holds it), the answer the reference."""
    KERNEL_CUDA = "KERNEL_CUDA"
    KERNEL_CPP = "KERNEL_CPP"
    MATH_EXPRESSIONS = "MATH_EXPRESSIONS"
    """Equal as expressions: `2*x` and `x+x`."""
    MULTIPLE_CHOICE = "MULTIPLE_CHOICE"
    """The same letter."""
    NUMBER = "NUMBER"
    """The same number, however it is written."""

    @property
    def is_kernel(self) -> bool:
        return self.name.startswith("KERNEL_")


class FailureKind(StrEnum):
    """Why there is no score."""

    INVALID_REQUEST = "invalid_request"
    """The request does not follow the protocol; sending it again changes nothing."""
    UNAUTHORIZED = "unauthorized"
    """The key is missing or wrong."""
    NOTHING_TO_JUDGE = "nothing_to_judge"
    """The completion is empty, or no code can be found in it."""
    UNSUPPORTED = "unsupported"
    """This judge cannot score this type of answer, or not without an `answer`."""
    BAD_VERDICT = "bad_verdict"
    """The model's words are no verdict."""
    UNAVAILABLE = "unavailable"
    """The model cannot be reached, or the judge broke."""
    TIMEOUT = "timeout"
    """The judge took too long."""
    OVERLOADED = "overloaded"
    """The queue is full: try again after `Retry-After` seconds."""
    STOPPING = "stopping"
    """The server is shutting down and takes nothing new."""


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class JudgeRequest(_Request):
    """One completion to score."""

    prompt: Text
    """The question; for kernels the problem."""
    completion: Text
    """What is judged. Untrusted: it may try to talk to the judge."""
    answer: Text | None = None
    """The right answer; for kernels the reference module."""
    answer_type: AnswerType | None = None
    """None: a completion that defines `ModelNew` is a kernel, everything else is compared with the answer as text."""
    request_id: RequestId | None = None
    """Comes back in the answer. None: the server makes one up."""
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    """Facts that the caller vouches for. Judges read `measured` (an object: `status`, `speedup`, ...) and nothing else."""

    @field_validator("metadata")
    @classmethod
    def _finite(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        todo: list[JsonValue] = list(value.values())
        while todo:
            item = todo.pop()
            if isinstance(item, float) and not math.isfinite(item):
                raise ValueError("numbers must be finite")
            todo.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        return value


class BatchJudgeRequest(_Request):
    """Up to 128 requests, each with a `request_id` of its own; or none with one, and then they are numbered from "1" in order."""

    requests: tuple[JudgeRequest, ...] = Field(min_length=1, max_length=MAX_BATCH)

    @model_validator(mode="after")
    def _each_its_own_id(self) -> BatchJudgeRequest:
        given = [request.request_id for request in self.requests]
        if None in given and any(given):
            raise ValueError("give every request of a batch a request_id, or none of them")
        if None not in given and len(set(given)) < len(given):
            raise ValueError("two requests of the batch have the same request_id")
        return self

    def numbered(self) -> tuple[JudgeRequest, ...]:
        """The requests, each with an id."""
        return tuple(
            request if request.request_id is not None else request.model_copy(update={"request_id": str(number)})
            for number, request in enumerate(self.requests, 1)
        )


class JudgeMetadata(_Answer):
    """About one score. A judge of another make may leave out everything."""

    latency: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    """Seconds from the request's arrival to its score."""
    judge: str = ""
    """Who scored: `static`, `llm:<model>`, ..."""
    version: str = ""
    """Changes with whatever may change a score: model, rubric, prompt, sampling, rules."""
    confidence: Score | None = None
    """How sure the judge is; None where it does not say. `score` is already the more careful for it."""
    flags: tuple[str, ...] = ()
    """Integrity flags that facts of the source confirm. Each is a reason to give the turn nothing."""
    doubts: tuple[str, ...] = ()
    """What should be looked at before the score is believed: `injection`, `raw_differs`, `judges_disagree`, ..."""


class JudgeResponse(_Answer):
    """One completion's score."""

    score: Score
    request_id: RequestId
    explanation: str = ""
    metadata: JudgeMetadata = JudgeMetadata()
    detailed_scores: dict[str, Score] | None = None
    """One a aspect, where the judge has aspects."""


class Failure(_Answer):
    """Why a request has no score."""

    kind: FailureKind
    message: str
    """One line: what, where, what to do."""
    request_id: RequestId | None = None
    """None where it is about no single request."""


class BatchJudgeResponse(_Answer):
    """Scores in any order. Every request is either in `responses` or in `failures`; whoever finds one in neither has no score."""

    responses: tuple[JudgeResponse, ...]
    failures: tuple[Failure, ...] = ()


class HealthResponse(_Answer):
    """`status` is `ok` while requests are taken (200), `loading` or `stopping` otherwise (503)."""

    status: str
    model_loaded: bool
    judge: str = ""
    """As in `JudgeMetadata`: a client's cache must not mix the scores of two judges."""
    version: str = ""


class LatencyQuantiles(_Answer):
    """Seconds, over the last requests that were scored; None before the first."""

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None


class MetricsResponse(_Answer):
    """`GET /metrics.json`: counts since the server's start. `GET /metrics` says the same in Prometheus's text format."""

    requests: int
    """That were taken into the queue."""
    scored: int
    failures: dict[str, int]
    """By `FailureKind`; refused requests too."""
    batches: int
    """That the judge was given, ..."""
    batched: int
    """... and requests that shared one of them with another."""
    current_queue_size: int
    in_flight: int
    """Requests that the judge is working on."""
    latency_s: LatencyQuantiles
    uptime_s: float

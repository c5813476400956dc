"""What a judge is: something with a name and a version that scores a batch, and never fails as a whole.

Judge            the protocol that the server, panels and chains know
Scored           a score, with aspects, confidence, flags and doubts
JudgeFailure     why there is none; it is data, as a candidate's failure is
CustomJudge      the base class for a judge of one's own: write `score`
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from kernel_env.errors import ConfigError
from rewards.judge.wire import FailureKind, JudgeRequest

DOUBTFUL = 0.5
"""Below this confidence a score is lowered."""
LEAST_FACTOR = 0.6
"""... down to this part of it where there is no confidence at all."""


@dataclass(frozen=True)
class Scored:
    """One completion's score. Numbers are from 0 to 1."""

    score: float
    explanation: str = ""
    aspects: Mapping[str, float] = field(default_factory=dict)
    confidence: float | None = None
    """None where the judge does not say."""
    flags: tuple[str, ...] = ()
    """Integrity flags that facts confirm."""
    doubts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = {"score": self.score, **self.aspects, **({} if self.confidence is None else {"confidence": self.confidence})}
        for name, value in given.items():
            if not (math.isfinite(value) and 0.0 <= value <= 1.0):
                raise ValueError(f"{name} is {value}: a judge's numbers are from 0 to 1")


@dataclass(frozen=True)
class JudgeFailure:
    """Why a request has no score."""

    kind: FailureKind
    message: str


Outcome = Scored | JudgeFailure


@runtime_checkable
class Judge(Protocol):
    """One judge. `score_batch` answers every request, in order, and raises for none of them."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Changes with whatever may change a score."""

    async def start(self) -> None:
        """Load what has to be loaded. Raises KernelEnvError where that cannot work."""

    async def score_batch(self, requests: Sequence[JudgeRequest]) -> list[Outcome]: ...

    async def aclose(self) -> None: ...


def careful(scored: Scored) -> Scored:
    """Less, where the judge is less than half sure: from the whole score at 0.5 down to 0.6 of it at 0."""
    if scored.confidence is None or scored.confidence >= DOUBTFUL:
        return scored
    factor = LEAST_FACTOR + (1.0 - LEAST_FACTOR) * scored.confidence / DOUBTFUL
    return replace(scored, score=scored.score * factor)


class CustomJudge:
    """A judge of one's own: override `score`, or `score_many` where a whole batch at a time is faster.

        class Mine(CustomJudge):
            def score(self, prompt, completion, answer, answer_type):
                return {"score": 0.9, "explanation": "...", "detailed_scores": {"clarity": 0.8}, "confidence": 0.7}

    Both run in a thread of the judge's own, one call at a time, so that a model needs no locks and the server goes on answering. A
    `score` that takes no `answer_type` is called without it. What raises or returns no score from 0 to 1 is a failure.
    """

    name = ""
    version = "1"
    _thread: ThreadPoolExecutor | None = None

    def score(self, prompt: str, completion: str, answer: str | None, answer_type: str | None) -> Mapping[str, Any]:
        raise NotImplementedError

    def score_many(self, requests: Sequence[JudgeRequest]) -> list[Mapping[str, Any] | Exception]:
        """One result a request, in order. The default calls `score` for each."""
        return [_attempt(self.score, request) for request in requests]

    async def start(self) -> None:
        self.name = self.name or type(self).__name__
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="judge")

    async def score_batch(self, requests: Sequence[JudgeRequest]) -> list[Outcome]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._thread, self.score_many, requests)
        except Exception as error:  # noqa: BLE001  # the user's own code: whatever it raises is why there is no score
            return [_broken(error)] * len(requests)
        return [_outcome(result) for result in found]

    async def aclose(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def _attempt(score: Callable[..., Mapping[str, Any]], request: JudgeRequest) -> Mapping[str, Any] | Exception:
    given = (request.prompt, request.completion, request.answer, request.answer_type)
    try:
        takes_type = len(inspect.signature(score).parameters) >= len(given)
        return score(*(given if takes_type else given[:-1]))
    except Exception as error:  # noqa: BLE001  # the user's own code: one request's failure is not another's
        return error


def _outcome(result: Mapping[str, Any] | Exception) -> Outcome:
    if isinstance(result, Exception):
        return _broken(result)
    try:
        aspects = {str(name): float(value) for name, value in (result.get("detailed_scores") or {}).items()}
        confidence = result.get("confidence")
        return careful(
            Scored(
                score=float(result["score"]),
                explanation=str(result.get("explanation", "")),
                aspects=aspects,
                confidence=None if confidence is None else float(confidence),
            )
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return JudgeFailure(FailureKind.BAD_VERDICT, f"the judge's result is no score: {_line(error)}")


def _broken(error: Exception) -> JudgeFailure:
    return JudgeFailure(FailureKind.UNAVAILABLE, f"the judge raised {_line(error)}")


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


class _Wrapped(CustomJudge):
    """Something that has a `score` method and no base class of ours, as in the guide's example."""

    def __init__(self, judge: Any) -> None:
        self.name = str(getattr(judge, "name", "") or type(judge).__name__)
        self.version = str(getattr(judge, "version", "1"))
        self.score = judge.score  # type: ignore[method-assign]


def custom_judge(path: str) -> Judge:
    """The judge that `package.module.Name` or `package.module:Name` stands for: an object, or a class or function that makes one.

    Raises ConfigError where there is none.
    """
    module_name, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
        judge = found() if isinstance(found, type) or not (isinstance(found, Judge) or hasattr(found, "score")) else found
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"judge={path}: {_line(error)}; name it package.module.Class, and let it need no arguments") from error
    if isinstance(judge, Judge):
        return judge
    if callable(getattr(judge, "score", None)):
        return _Wrapped(judge)
    raise ConfigError(f"judge={path} is no judge: it has neither score_batch nor score")

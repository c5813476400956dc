"""A reward model in this process as judge: it reads question and answer and gives a number, without words.

A batch of requests is one pass of the model. A kernel is judged twice in it, without its comments and as it was written, as a
language model's judge does (see `llm`). A program that is longer than the model can read has no score: nothing is cut. Where only
its words make it so, it has the doubt `raw_differs`.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from kernel_env.errors import ConfigError
from rewards.judge.injection import neutral, quoted
from rewards.judge.models import JudgeFailure, Outcome, Scored
from rewards.judge.prepared import Kernel, prepared
from rewards.judge.rubrics import measured
from rewards.judge.wire import FailureKind, JudgeRequest

if TYPE_CHECKING:
    from rewards.judge.reward_model import RewardModel

PROMPT_VERSION = "2"
"""Raised by whoever changes what the model is shown."""
_ERROR_CHARS = 200

T = TypeVar("T")


@dataclass(frozen=True)
class _Asked:
    """One request, as rows of tokens."""

    rows: tuple[list[int], ...]
    kernel: Kernel | None
    unread: bool
    """The kernel with its words is longer than the model can read; without them it is not."""


class TransformersJudge:
    """`model` is a reward model's directory or its name on the hub; `start` loads it. It works in a thread of its own."""

    def __init__(self, model: str, *, compare_raw: bool = True) -> None:
        """`compare_raw`: judge a kernel with its comments too, and say where that makes a difference."""
        if not model:
            raise ConfigError("the judge's model is missing: set model=DIRECTORY, or its name on the hub")
        self.name = f"transformers:{model}"
        self._path, self._compare_raw = model, compare_raw
        self._model: RewardModel | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="judge")

    @property
    def version(self) -> str:
        """Of weights and prompt; final once the model is loaded."""
        said = [PROMPT_VERSION, self._path, self._model.revision if self._model else "", str(self._compare_raw)]
        return hashlib.sha256("\0".join(said).encode()).hexdigest()[:16]

    async def start(self) -> None:
        """Load the model. Raises ConfigError without the extra, and what `RewardModel` raises."""
        await self._in_thread(self._load)

    async def score_batch(self, requests: Sequence[JudgeRequest]) -> list[Outcome]:
        return await self._in_thread(lambda: self._scored(requests))

    async def aclose(self) -> None:
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)
        self._model = None

    # ------------------------------------------------------------------ in the judge's thread

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _load(self) -> RewardModel:
        if self._model is None:
            try:
                from rewards.judge.reward_model import RewardModel

                self._model = RewardModel(self._path)
            except ImportError as error:
                raise ConfigError(
                    f"judge=transformers needs more Python packages ({error}): run `pip install 'kernel-env[judge,transformers]'`"
                ) from error
        return self._model

    def _scored(self, requests: Sequence[JudgeRequest]) -> list[Outcome]:
        """One pass for all. Where that fails, for want of memory most likely, one for each: then only some may have no score."""
        try:
            model = self._load()
            asked = [self._asked(model, request) for request in requests]
            rows = [row for one in asked if isinstance(one, _Asked) for row in one.rows]
            scores = iter(model.scores(rows) if rows else ())
        except Exception as error:  # noqa: BLE001  # of torch or the tokenizer: it is why there is no score
            if len(requests) > 1:
                return [outcome for request in requests for outcome in self._scored([request])]
            said = " ".join(f"{type(error).__name__}: {error}".split())[:_ERROR_CHARS]
            return [JudgeFailure(FailureKind.UNAVAILABLE, f"{self.name} failed: {said}")]
        return [self._outcome(one, [next(scores) for _ in one.rows]) if isinstance(one, _Asked) else one for one in asked]

    def _asked(self, model: RewardModel, request: JudgeRequest) -> _Asked | JudgeFailure:
        kernel = prepared(request, compare_raw=self._compare_raw)
        if isinstance(kernel, JudgeFailure):
            return kernel
        answers = [neutral(request.completion)] if kernel is None else [quoted(text, "python") for text in kernel.texts]
        first, *raw = (model.encoded(question(request), answer) for answer in answers)
        if len(first) > model.room:
            return JudgeFailure(
                FailureKind.UNSUPPORTED,
                f"question and answer have {len(first)} tokens; {self.name} reads {model.room}, and cuts nothing",
            )
        fitting = [row for row in raw if len(row) <= model.room]
        return _Asked((first, *fitting), kernel, unread=len(fitting) < len(raw))

    def _outcome(self, asked: _Asked, scores: Sequence[float]) -> Outcome:
        if not all(map(math.isfinite, scores)):
            return JudgeFailure(
                FailureKind.BAD_VERDICT, f"{self.name} gave what is no number; check its weights and their precision"
            )
        return Scored(
            scores[0], doubts=asked.kernel.doubts_of([*scores, *([None] if asked.unread else [])]) if asked.kernel else ()
        )


def question(request: JudgeRequest) -> str:
    """What the answer answers: the question, the reference where there is one, and what was measured."""
    parts = [neutral(request.prompt)]
    if request.answer:
        parts.append(f"Reference:\n\n{quoted(request.answer)}")
    if facts := measured(request):
        parts.append("\n".join(["Measured facts:", *(f"- {name}: {value}" for name, value in facts.items())]))
    return "\n\n".join(parts)

"""What a model is shown of a kernel: the program without its words, and the source as it is, to see whether they move the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rewards.judge.conduct import Doubt
from rewards.judge.injection import speaks_to_judge, stripped
from rewards.judge.models import JudgeFailure
from rewards.judge.static import kernel_of
from rewards.judge.wire import FailureKind, JudgeRequest

RAW_DIFFERS = "raw_differs"
_FAR = 0.25
"""Scores of the raw and the stripped kernel that are further apart than one grade differ."""


@dataclass(frozen=True)
class Kernel:
    """Ready to be shown."""

    texts: tuple[str, ...]
    """The program alone, whose score counts; then, where there were words and they are compared, the source as it was written."""
    doubts: tuple[str, ...]

    def doubts_of(self, scores: Sequence[float | None]) -> tuple[str, ...]:
        """With what the scores of `texts` say. Words for which there is no score where there is one without them move it too."""
        first = scores[0]
        differs = first is not None and any(score is None or abs(score - first) > _FAR for score in scores)
        return (*self.doubts, *([RAW_DIFFERS] if differs else []))


def prepared(request: JudgeRequest, *, compare_raw: bool) -> Kernel | JudgeFailure | None:
    """The kernel of a request, read. None: it is about no kernel. A failure: there is nothing to judge."""
    if not request.completion.strip():
        return JudgeFailure(FailureKind.NOTHING_TO_JUDGE, "the completion is empty")
    code = kernel_of(request)
    if code is None or isinstance(code, JudgeFailure):
        return code
    bare, removed = stripped(code)
    texts = (bare or code, *([code] if removed and compare_raw else []))
    doubts = [*([Doubt.INJECTION] if speaks_to_judge(code) else []), *([] if bare else [Doubt.UNREADABLE])]
    return Kernel(texts, tuple(doubts))

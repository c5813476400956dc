"""Several judges as one: a panel that all of them sit on, and a chain that asks the next one only where the last was unsure."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Literal

from kernel_env.errors import ConfigError
from rewards.judge.models import DOUBTFUL, Judge, JudgeFailure, Outcome, Scored
from rewards.judge.wire import FailureKind, JudgeRequest

How = Literal["mean", "median", "vote"]
HOWS: tuple[How, ...] = ("mean", "median", "vote")
PASS = 0.5
"""A vote is for a completion from this score on."""
DISAGREEMENT = 0.5
"""Scores that are further apart than this are a doubt."""
JUDGES_DISAGREE = "judges_disagree"


class PanelJudge:
    """Asks every judge, all at once. A request is scored where more than half of them scored it.

    `mean` and `median` are of the scores; `vote` is 1 where more than half of those who scored are for it, else 0. The aspect
    `agreement` is 1 minus the distance of the highest and the lowest score. A flag of any member's is the panel's: it is a fact.
    """

    def __init__(self, judges: Sequence[Judge], how: How = "mean") -> None:
        if not judges:
            raise ConfigError("a panel needs judges")
        if how not in HOWS:
            raise ConfigError(f"panel.how={how}: choose one of {', '.join(HOWS)}")
        self._judges = tuple(judges)
        self._how = how

    @property
    def name(self) -> str:
        return f"panel:{self._how}({','.join(judge.name for judge in self._judges)})"

    @property
    def version(self) -> str:
        return _version(self._judges, self._how)

    async def start(self) -> None:
        await _start(self._judges)

    async def score_batch(self, requests: Sequence[JudgeRequest]) -> list[Outcome]:
        columns = await asyncio.gather(*(judge.score_batch(requests) for judge in self._judges))
        return [self._together(outcomes) for outcomes in zip(*columns, strict=True)]

    async def aclose(self) -> None:
        await asyncio.gather(*(judge.aclose() for judge in self._judges))

    def _together(self, outcomes: Sequence[Outcome]) -> Outcome:
        scored = [(judge, found) for judge, found in zip(self._judges, outcomes, strict=True) if isinstance(found, Scored)]
        failed = [found for found in outcomes if isinstance(found, JudgeFailure)]
        if 2 * len(scored) <= len(outcomes):
            return JudgeFailure(failed[0].kind, f"{len(failed)} of {len(outcomes)} judges failed: {failed[0].message}")
        scores = [found.score for _, found in scored]
        spread = max(scores) - min(scores)
        sure = [found.confidence for _, found in scored if found.confidence is not None]
        doubts = dict.fromkeys(doubt for _, found in scored for doubt in found.doubts)
        return Scored(
            score=self._score(scores),
            explanation="; ".join(f"{judge.name}: {found.score:.2f} {found.explanation}".rstrip() for judge, found in scored),
            aspects={**_means([found for _, found in scored]), "agreement": 1.0 - spread},
            confidence=fmean(sure) if sure else None,
            flags=tuple(dict.fromkeys(flag for _, found in scored for flag in found.flags)),
            doubts=(*doubts, *([JUDGES_DISAGREE] if spread > DISAGREEMENT and JUDGES_DISAGREE not in doubts else [])),
        )

    def _score(self, scores: Sequence[float]) -> float:
        if self._how == "vote":
            return float(2 * sum(score >= PASS for score in scores) > len(scores))
        return fmean(scores) if self._how == "mean" else median(scores)


class ChainJudge:
    """Asks judges one after the other, cheapest first; the first that is sure enough has the last word, and else the last one.

    A judge that does not say how sure it is counts as sure. One that fails passes the request on.
    """

    def __init__(self, judges: Sequence[Judge], sure: float = DOUBTFUL) -> None:
        if not judges:
            raise ConfigError("a chain needs judges")
        self._judges = tuple(judges)
        self._sure = sure

    @property
    def name(self) -> str:
        return f"chain({','.join(judge.name for judge in self._judges)})"

    @property
    def version(self) -> str:
        return _version(self._judges, str(self._sure))

    async def start(self) -> None:
        await _start(self._judges)

    async def score_batch(self, requests: Sequence[JudgeRequest]) -> list[Outcome]:
        found: list[Outcome] = [JudgeFailure(FailureKind.UNAVAILABLE, "no judge was asked")] * len(requests)
        left = list(range(len(requests)))
        for judge in self._judges:
            for index, outcome in zip(left, await judge.score_batch([requests[i] for i in left]), strict=True):
                found[index] = _later(found[index], outcome)
            left = [i for i in left if not self._is_sure(found[i])]
            if not left:
                break
        return found

    async def aclose(self) -> None:
        await asyncio.gather(*(judge.aclose() for judge in self._judges))

    def _is_sure(self, outcome: Outcome) -> bool:
        return isinstance(outcome, Scored) and (
            outcome.confidence is None or outcome.confidence >= self._sure or bool(outcome.flags)
        )


def _later(before: Outcome, now: Outcome) -> Outcome:
    """A later judge's word, but for a failure after a score; flags are facts and stay."""
    if isinstance(now, JudgeFailure):
        return before if isinstance(before, Scored) else now
    if isinstance(before, Scored):
        return replace(now, flags=tuple(dict.fromkeys((*before.flags, *now.flags))))
    return now


def _means(scored: Sequence[Scored]) -> dict[str, float]:
    """The mean of each aspect over those who have it."""
    names = dict.fromkeys(name for found in scored for name in found.aspects)
    return {name: fmean(found.aspects[name] for found in scored if name in found.aspects) for name in names}


def _version(judges: Sequence[Judge], how: str) -> str:
    said = "\0".join([how, *(f"{judge.name}\0{judge.version}" for judge in judges)])
    return hashlib.sha256(said.encode()).hexdigest()[:16]


async def _start(judges: Sequence[Judge]) -> None:
    for judge in judges:  # one after the other: each may load a model
        await judge.start()

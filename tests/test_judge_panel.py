"""Several judges as one: what a panel makes of their scores, and whom a chain asks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kernel_env.errors import ConfigError
from rewards.judge.models import JudgeFailure, Outcome, Scored
from rewards.judge.panel import ChainJudge, PanelJudge
from rewards.judge.static import StaticJudge
from rewards.judge.wire import FailureKind, JudgeRequest
from rollout.judge import JudgeOptions, make_judge
from tests.test_judge_static import GOOD, cpp

NONE = JudgeFailure(FailureKind.TIMEOUT, "too long")
REQUEST = JudgeRequest(prompt="p", completion="c", answer="c", request_id="1")


class Says:
    """A judge of few words."""

    version = "1"

    def __init__(self, *outcomes: Outcome, name: str = "says") -> None:
        self.name = name
        self.asked = 0
        self._outcomes = outcomes

    async def start(self) -> None: ...

    async def score_batch(self, requests: Sequence[JudgeRequest]) -> list[Outcome]:
        self.asked += len(requests)
        return list(self._outcomes[: len(requests)])

    async def aclose(self) -> None: ...


def says(*scores: float) -> list[Says]:
    return [Says(Scored(score)) for score in scores]


async def together(judges: Sequence[Says], how: str) -> Outcome:
    (found,) = await PanelJudge(judges, how).score_batch([REQUEST])  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("how", "scores", "score"),
    [
        ("mean", (0.2, 0.4, 0.9), 0.5),
        ("median", (0.2, 0.4, 0.9), 0.4),
        ("median", (0.2, 0.4), 0.3),
        ("vote", (0.2, 0.6, 0.9), 1.0),
        ("vote", (0.2, 0.4, 0.9), 0.0),
        ("vote", (0.2, 0.9), 0.0),
    ],
)
async def test_scores_become_one(how: str, scores: tuple[float, ...], score: float) -> None:
    found = await together(says(*scores), how)
    assert isinstance(found, Scored) and found.score == pytest.approx(score)
    assert found.aspects["agreement"] == pytest.approx(1 - (max(scores) - min(scores)))
    assert ("judges_disagree" in found.doubts) == (max(scores) - min(scores) > 0.5)


async def test_aspects_confidence_flags_and_doubts_come_together() -> None:
    one = Scored(0.5, "a", {"genuine": 1.0, "clarity": 0.5}, 0.8, flags=("f",), doubts=("d",))
    other = Scored(0.5, "b", {"genuine": 0.5}, 0.6, flags=("f", "g"), doubts=("d",))
    found = await together([Says(one, name="x"), Says(other, name="y"), Says(Scored(0.5))], "mean")
    assert isinstance(found, Scored)
    assert found.aspects == {"genuine": 0.75, "clarity": 0.5, "agreement": 1.0}
    assert (found.confidence, found.flags, found.doubts) == (pytest.approx(0.7), ("f", "g"), ("d",))
    assert found.explanation.startswith("x: 0.50 a; y: 0.50 b")


async def test_a_panel_scores_where_more_than_half_of_it_does() -> None:
    assert isinstance(await together([Says(NONE), *says(0.5, 0.7)], "mean"), Scored)
    failure = await together([Says(NONE), *says(0.5)], "mean")
    assert isinstance(failure, JudgeFailure) and failure.kind is FailureKind.TIMEOUT


async def test_a_chain_asks_on_until_somebody_is_sure() -> None:
    unsure, sure, never = Says(Scored(0.1, confidence=0.4)), Says(Scored(0.8, confidence=0.5)), Says(Scored(0.0))
    assert await ChainJudge([unsure, sure, never]).score_batch([REQUEST]) == [Scored(0.8, confidence=0.5)]
    assert (unsure.asked, sure.asked, never.asked) == (1, 1, 0)


async def test_a_chain_passes_on_only_what_is_open() -> None:
    first = Says(Scored(0.9), Scored(0.1, confidence=0.1), NONE, Scored(0.0, confidence=0.2, flags=("cheat",)))
    second = Says(Scored(0.7), Scored(0.6))
    found = await ChainJudge([first, second]).score_batch([REQUEST] * 4)
    assert [outcome.score for outcome in found if isinstance(outcome, Scored)] == [0.9, 0.7, 0.6, 0.0]
    assert second.asked == 2


async def test_in_a_chain_facts_stay_and_a_failure_takes_no_score_away() -> None:
    unsure = Scored(0.4, confidence=0.1)
    assert await ChainJudge([Says(unsure), Says(NONE)]).score_batch([REQUEST]) == [unsure]
    assert await ChainJudge([Says(NONE), Says(NONE)]).score_batch([REQUEST]) == [NONE]


async def test_of_a_static_judge_and_another_the_cheat_needs_no_second_opinion() -> None:
    other = Says(Scored(1.0, confidence=1.0))
    chain = ChainJudge([StaticJudge(), other])
    cheat = REQUEST.model_copy(update={"completion": cpp("extension.scale(x, 2.0); return torch.relu(x) * 2")})
    (found,) = await chain.score_batch([cheat])
    assert isinstance(found, Scored) and found.score == 0.0 and other.asked == 0


def test_the_version_of_many_is_that_of_each() -> None:
    versions = {
        PanelJudge(says(0.5), "mean").version,
        PanelJudge(says(0.5), "vote").version,
        PanelJudge(says(0.5, 0.5), "mean").version,
    }
    assert len(versions) == 3


def test_the_command_line_makes_panels_and_chains() -> None:
    assert make_judge(JudgeOptions(judge="panel", members="static, static", how="vote")).name == "panel:vote(static,static)"
    assert make_judge(JudgeOptions(judge="chain", members="static,llm", model="m")).name == "chain(static,llm:m)"


@pytest.mark.parametrize("make", [lambda: PanelJudge([]), lambda: ChainJudge([]), lambda: PanelJudge(says(0.5), "loudest")])
def test_nobody_and_an_unknown_way_are_the_users_mistake(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]


async def test_a_good_kernel_is_good_for_a_panel_too() -> None:
    panel = PanelJudge([StaticJudge(), StaticJudge()])
    (found,) = await panel.score_batch([REQUEST.model_copy(update={"completion": GOOD})])
    assert isinstance(found, Scored) and found.score > 0.7

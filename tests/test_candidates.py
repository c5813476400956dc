"""The corpus itself: every file reads, every class is tried, and the naive evaluators are fooled by what says so.

`kernel-env scorecard` judges it (see `.ci/run`); here it is made sure that a caught cheat would have been one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rollout.corpus import EVALUATORS, NOBODY, Entry, load_corpus
from tests.naive import opinion

DIRECTORY = Path(__file__).parent / "candidates"
CORPUS = load_corpus(DIRECTORY)
CHEATS = [entry for entry in CORPUS.entries if entry.kind == "cheat" and not entry.needs]


def test_every_class_is_tried() -> None:
    tried = {number for entry in CORPUS.entries if entry.kind == "cheat" for number in entry.classes}
    assert sorted(set(CORPUS.classes) - tried) == []


def test_every_cheat_says_whom_it_fools() -> None:
    assert [entry.name for entry in CHEATS if not entry.fools and not entry.downs] == []


def test_every_class_has_a_cheat_that_fools_or_downs_somebody() -> None:
    fooling = {number for entry in CHEATS if entry.downs or entry.fools != (NOBODY,) for number in entry.classes}
    assert sorted({number for entry in CHEATS for number in entry.classes} - fooling) == []


@pytest.mark.parametrize(
    ("entry", "evaluator"),
    [
        pytest.param(entry, evaluator, id=f"{entry.name}-{evaluator}")
        for entry in CHEATS
        for evaluator in EVALUATORS
        if evaluator in (*entry.fools, *entry.downs) or entry.fools == (NOBODY,)
    ],
)
@pytest.mark.slow
def test_a_naive_evaluator_is_fooled(entry: Entry, evaluator: str) -> None:
    found = opinion(evaluator, entry.problem, entry.candidate)
    if evaluator in entry.downs:
        assert found.correct is None, found
    elif entry.fools == (NOBODY,):
        assert not found.correct, found
    else:
        assert found.correct, found.text[-2000:]
        assert (found.speedup or 0.0) >= entry.claims, found

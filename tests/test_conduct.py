"""What a record tells of how its episodes were played: messages, words, rewards, ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kernel_env.episode import HISTORIES
from kernel_env.reward import PRESETS
from kernel_env.schema import Episode, Reward, StopReason
from rollout.conduct import Conduct, Fit, conduct, fit
from tests.synthetic import Recipe, episodes, info

PLAYED = Recipe(problems=10, samples=2, skill=0.3)


def conduct_of(recipe: Recipe, ended: list[Episode] | None = None) -> Conduct:
    return conduct(info(recipe), episodes(recipe) if ended is None else ended)


def all_by(found: Fit, rule: str) -> bool:
    return rule in found.rules and found.count == found.of > 0


@pytest.mark.parametrize("history", HISTORIES)
def test_how_messages_accumulate_is_told_from_the_messages(history: str) -> None:
    found = conduct_of(replace(PLAYED, history=history))
    assert all_by(found.history, history) and len(found.history.rules) == 1


def test_the_number_of_messages_turn_by_turn_is_what_jq_counts() -> None:
    assert conduct_of(PLAYED).messages_T == ((2,), (4,), (6,))
    assert conduct_of(replace(PLAYED, history="restated")).messages_T == ((2,), (2,), (2,))


@pytest.mark.parametrize("preset", ["seed", "tritonforge"])
def test_the_words_between_turns_are_told_apart(preset: str) -> None:
    found = conduct_of(replace(PLAYED, preset=preset)).feedback
    assert found == Fit((preset,), found.of, found.of) and found.of > 0


@pytest.mark.parametrize("preset", PRESETS)
def test_the_reward_is_told_from_the_verdicts(preset: str) -> None:
    found = conduct_of(replace(PLAYED, preset=preset)).rewards
    assert found == Fit((preset,), found.of, found.of) and found.of > 0


@pytest.mark.parametrize(
    ("preset", "rule"), [("seed", "2 (seed)"), ("tritonforge", "1.3 (tritonforge)"), ("kevin", "never (kevin, dr-kernel)")]
)
def test_the_reward_that_ends_an_episode_is_told_from_where_they_ended(preset: str, rule: str) -> None:
    found = conduct_of(replace(PLAYED, preset=preset, problems=30))
    assert found.stop == Fit((rule,), found.stop.of, found.stop.of)
    if preset == "kevin":
        assert (found.ended_at, found.solved_early) == (None, 0)
    else:
        assert found.went_on_at is not None and found.ended_at is not None
        assert found.went_on_at < (PRESETS[preset].stop_at or 0) <= found.ended_at


def test_a_turn_at_the_turn_limit_does_not_tell_when_an_episode_would_have_ended() -> None:
    found = conduct_of(replace(PLAYED, max_turns=1, skill=0.9))
    assert (found.stop, found.went_on_at, found.ended_at) == (Fit((), 0, 0), None, None)


def test_what_was_changed_is_counted_against_the_rule() -> None:
    ended = episodes(PLAYED)
    at = next(index for index, e in enumerate(ended) if len(e.turns) == 3)
    turns = ended[at].turns
    doctored = replace(turns[1], messages=turns[1].messages[:-2], reward=Reward(0.77), feedback="Try again.")
    ended[at] = replace(ended[at], turns=(turns[0], doctored, turns[2]))
    before, after = conduct_of(PLAYED), conduct_of(PLAYED, ended)
    assert (after.history.rules, after.history.count) == (("accumulate",), before.history.count - 2)  # into it, and out of it
    assert (after.feedback.rules, after.feedback.count) == (("seed",), before.feedback.count - 1)
    assert (after.rewards.rules, after.rewards.count) == (("seed",), before.rewards.count - 1)


def test_episodes_that_ended_early_are_counted_by_how() -> None:
    long, solved = (next(e for e in episodes(PLAYED) if found(e)) for found in (lambda e: len(e.turns) == 3, is_early))
    broken = replace(long, turns=long.turns[:1], stop_reason=StopReason.EXHAUSTED)
    cancelled = replace(broken, stop_reason=StopReason.CANCELLED)
    found = conduct_of(PLAYED, [long, solved, broken, cancelled])
    assert (found.solved_early, found.broken_off, found.episodes) == (1, 1, 4)


def is_early(episode: Episode) -> bool:
    return episode.stop_reason is StopReason.SOLVED and len(episode.turns) < 3


def test_a_record_of_nothing_tells_nothing() -> None:
    found = conduct_of(PLAYED, [])
    assert (found.episodes, found.messages_T, found.history, found.went_on_at) == (0, (), Fit((), 0, 0), None)


def test_where_two_rules_explain_as_much_both_are_named() -> None:
    rules = {"even": lambda n: n % 2 == 0, "small": lambda n: n < 3, "none": lambda n: False}
    assert fit(rules, [1, 2, 4]) == Fit(("even", "small"), 2, 3)
    assert fit({"none": rules["none"]}, [1]) == Fit((), 0, 1)

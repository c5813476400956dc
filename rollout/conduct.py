"""How the episodes of a run were conducted, found out from their record alone.

What a trainer and an evaluation of its policy have to agree on: how messages accumulate, what the policy is told between turns, how
a turn is rewarded, and when an episode ends early. Each is told as the known rule that explains most of the record, and how much of
it: an imported run can so be held against ours without a look at the code that made it. (What turns gain is in `metrics`.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from kernel_env.parsing import without_thinking
from kernel_env.prompts import FeedbackConfig, improvement_message
from kernel_env.reward import PRESETS, measured_part, measured_reward
from kernel_env.schema import Episode, Message, StopReason, Turn
from rollout.documents import RunInfo

T = TypeVar("T")


@dataclass(frozen=True)
class Fit:
    """The known rule that explains most of what there is."""

    rules: tuple[str, ...]
    """All that explain as much; none where nothing is explained."""
    count: int
    """So many are explained, ..."""
    of: int
    """... of these."""


@dataclass(frozen=True)
class Conduct:
    turn_limit: int
    gamma: float
    episodes: int
    """With a turn."""
    turns: int
    messages_T: tuple[tuple[int, ...], ...]
    """How many messages the policy was shown at each turn; several numbers where episodes differ. Empty where it is not known."""
    history: Fit
    """Of turns after the first: how what the policy was shown follows from the turn before. The names are those of
    `rollout.history`."""
    feedback: Fit
    """Of messages between turns: the reward preset whose words they are."""
    rewards: Fit
    """Of scored turns: the reward preset that gives what they have, from compiled, correct and speedup."""
    stop: Fit
    """Of scored turns before the turn limit: the reward at which an episode ends."""
    went_on_at: float | None
    """The highest reward after which there was another turn."""
    ended_at: float | None
    """The lowest with which an episode ended as solved before its turn limit."""
    solved_early: int
    """Episodes that did."""
    broken_off: int
    """Episodes that ended before their turn limit in another way, failures and cancelled ones aside."""


def conduct(info: RunInfo, episodes: Sequence[Episode]) -> Conduct:
    played = [episode for episode in episodes if episode.turns]
    turns = [turn for episode in played for turn in episode.turns]
    early = [e for e in played if len(e.turns) < info.max_turns]
    ends = list(_ends(played, info.max_turns))
    told = [(turn, turn.feedback) for turn in turns if turn.feedback is not None]
    return Conduct(
        turn_limit=info.max_turns,
        gamma=info.gamma,
        episodes=len(played),
        turns=len(turns),
        messages_T=_message_counts(played),
        history=fit(_HISTORIES, [link for episode in played for link in _links(episode)]),
        feedback=fit(_FEEDBACKS, told),
        rewards=fit(_REWARDS, [turn for turn in turns if turn.reward.value is not None]),
        stop=fit(_STOPS, ends),
        went_on_at=max((reward for reward, ended in ends if not ended), default=None),
        ended_at=min((reward for reward, ended in ends if ended), default=None),
        solved_early=sum(e.stop_reason is StopReason.SOLVED for e in early),
        broken_off=sum(e.stop_reason is StopReason.EXHAUSTED for e in early),
    )


def fit(rules: Mapping[str, Callable[[T], bool]], cases: Sequence[T]) -> Fit:
    counts = {name: sum(map(holds, cases)) for name, holds in rules.items()}
    most = max(counts.values())
    return Fit(tuple(name for name, count in counts.items() if count == most > 0), most, len(cases))


# ------------------------------------------------------------------ messages


@dataclass(frozen=True)
class _Link:
    """A turn after the first, and what it follows."""

    first: Turn
    before: Turn
    now: Turn

    def continues(self, base: Sequence[Message], reply: str) -> bool:
        """Whether the policy was shown `base`, then the reply in these words, then the feedback."""
        told = {"role": "user", "content": self.before.feedback}
        return self.now.messages == (*base, {"role": "assistant", "content": reply}, told)


def _links(episode: Episode) -> Iterator[_Link]:
    """Those where it is known what the policy was shown."""
    for before, now in zip(episode.turns, episode.turns[1:], strict=False):
        if now.messages and before.messages:
            yield _Link(episode.turns[0], before, now)


def _restated(link: _Link) -> bool:
    """One user message is another, the rest as at the beginning: nothing accumulates."""
    pairs = list(zip(link.first.messages, link.now.messages, strict=False))
    changed = [now["role"] for first, now in pairs if first != now]
    return len(link.first.messages) == len(link.now.messages) and changed == ["user"]


_HISTORIES: Mapping[str, Callable[[_Link], bool]] = {
    "accumulate": lambda link: link.continues(link.before.messages, link.before.generation.text),
    "strip-thinking": lambda link: link.continues(link.before.messages, without_thinking(link.before.generation.text)),
    "last-turn-only": lambda link: link.continues(link.first.messages, link.before.generation.text),
    "restated": _restated,
}


def _message_counts(episodes: Sequence[Episode]) -> tuple[tuple[int, ...], ...]:
    longest = max((len(episode.turns) for episode in episodes), default=0)
    shown = [[e.turns[index].messages for e in episodes if len(e.turns) > index] for index in range(longest)]
    return tuple(tuple(sorted({len(messages) for messages in column if messages})) for column in shown)


def _said(preset: str) -> Callable[[tuple[Turn, str]], bool]:
    return lambda case: improvement_message(case[0].verdict, preset, FeedbackConfig()) == case[1]


_FEEDBACKS = {preset: _said(preset) for preset in ("seed", "tritonforge")}


# ------------------------------------------------------------------ rewards


def _earned(preset: str) -> Callable[[Turn], bool]:
    def holds(turn: Turn) -> bool:
        wanted, found = measured_reward(turn.verdict, PRESETS[preset]).value, measured_part(turn.reward)
        return wanted is not None and found is not None and math.isclose(wanted, found, rel_tol=1e-6, abs_tol=1e-9)

    return holds


_REWARDS = {preset: _earned(preset) for preset in PRESETS}


def _ends(episodes: Sequence[Episode], turn_limit: int) -> Iterator[tuple[float, bool]]:
    """Measured reward of each scored turn before the turn limit, and whether its episode ended with it as solved."""
    for episode in episodes:
        for turn in episode.turns[: turn_limit - 1]:
            reward, last = measured_part(turn.reward), turn is episode.turns[-1]
            if reward is not None and (not last or episode.stop_reason is StopReason.SOLVED):
                yield reward, last


def _stops_at(limit: float | None) -> Callable[[tuple[float, bool]], bool]:
    return lambda case: (limit is not None and case[0] >= limit) == case[1]


def _stop_name(limit: float | None) -> str:
    """With the presets that have it: `2 (seed)`."""
    presets = ", ".join(name for name, preset in PRESETS.items() if preset.stop_at == limit)
    return f"{'never' if limit is None else f'{limit:g}'} ({presets})"


_STOPS = {_stop_name(preset.stop_at): _stops_at(preset.stop_at) for preset in PRESETS.values()}

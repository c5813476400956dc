"""What messages took, and what they cost beside their calls."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kernel_env.referee.clock import FLOOR_MS, Round

FREE_OUTSIDE_S = 2e-4
"""So much CPU time between two messages costs nothing at most: ..."""
SPIN_S = 1.5e-4
"""... for OpenMP workers, so long as one may look for work after a call (`pool.SPINS`), which is not told from other work, ..."""
NOISE_S, FREE_SHARE = 4e-5, 0.02
"""... and besides this, or this share of a longer message. ..."""
USUAL = 0.9
"""And so much as this share of the baseline's messages use."""


class Message(NamedTuple):
    """What one message took: until its reply, and of the side's CPU time since the reply before. (The last of a block: since its
    own, too, until its output has been compared.)"""

    elapsed_s: float
    outside_s: float
    workers: int = 0
    """OpenMP workers of the side."""
    calls_s: float = 0.0
    """How long its calls took by the side's own clock, which is believed of the baseline only."""


class Taken(NamedTuple):
    """Of one round: how many calls were sent together, and the messages of a candidate and of the baseline."""

    together: int
    candidate: list[Message]
    baseline: list[Message]


@dataclass(eq=False)
class Exchange:
    """What a message costs beside its calls, learned from the baseline, whose own clock can be believed."""

    empty_s: list[float] = field(default_factory=list)
    """Messages with nothing to call."""
    around_calls_s: list[float] = field(default_factory=list)
    """By how much replies came later than the calls took, ..."""
    calls_s: list[float] = field(default_factory=list)
    """... and how long they took."""
    outside_s: list[float] = field(default_factory=list)
    """CPU time before them, since the last reply."""

    def learn(self, messages: Sequence[Message]) -> None:
        """From those of the baseline that count."""
        self.around_calls_s += [message.elapsed_s - message.calls_s for message in messages]
        self.calls_s += [message.calls_s for message in messages]
        self.outside_s += [message.outside_s for message in messages]

    def charged_s(self, messages: Sequence[Message]) -> list[float]:
        """What counts as time of each message although it lay beside it: a program that works while its inputs are being written
        gains nothing. What the baseline's threads do then (they look for work for a while before they sleep) is free."""
        usual_s = float(np.quantile(self.outside_s, USUAL)) if self.outside_s else 0.0
        free_s = [max(NOISE_S, FREE_SHARE * message.elapsed_s) + SPIN_S * message.workers for message in messages]
        return [max(0.0, m.outside_s - usual_s - min(free, FREE_OUTSIDE_S)) for m, free in zip(messages, free_s, strict=True)]

    def round(self, taken: Taken) -> Round:
        size = taken.together
        return Round(size, self.candidate_ms(taken.candidate, size), self.baseline_ms(taken.baseline, size))

    def candidate_ms(self, messages: Sequence[Message], together: int) -> tuple[float, ...]:
        """What a call took, in each of them."""
        messages_s = [m.elapsed_s + charged_s for m, charged_s in zip(messages, self.charged_s(messages), strict=True)]
        exchange_s = self.cost_s(statistics.median(messages_s))
        return tuple(max((s - exchange_s) / together * 1e3, FLOOR_MS) for s in messages_s)

    def baseline_ms(self, messages: Sequence[Message], together: int) -> tuple[float, ...]:
        exchange_s = statistics.median(self.around_calls_s)
        return tuple(max((message.elapsed_s - exchange_s) / together * 1e3, FLOOR_MS) for message in messages)

    def cost_s(self, message_s: float) -> float:
        """Of a message that lasted so long. A long call leaves cold caches behind, which make its reply dearer; so what is taken
        off grows with the call, from an empty message's cost to that of a message with the baseline's calls."""
        full_s = statistics.median(self.around_calls_s)
        empty_s = min(statistics.median(self.empty_s), full_s)  # else a program that slows empty messages gains by it
        share = (message_s - full_s) / statistics.median(self.calls_s)
        return empty_s + (full_s - empty_s) * min(1.0, max(0.0, share))

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
"""... for each OpenMP worker so long as it may look for work after a call, ..."""
NOISE_S, FREE_SHARE = 4e-5, 0.02
"""... and besides this, or this share of a longer message. ..."""
USUAL = 0.9
"""And so much as this share of the baseline's messages use."""


class Message(NamedTuple):
    """What one message took: until its reply, and of the side's CPU time since the reply before. (And since its own, where its
    output is compared: until that is done.)"""

    elapsed_s: float
    outside_s: float
    workers: int = 0
    """OpenMP workers of the side."""


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

    def learn(self, elapsed_s: float, calls_s: float, outside_s: float) -> None:
        """From a message of the baseline's that counts."""
        self.around_calls_s.append(elapsed_s - calls_s)
        self.calls_s.append(calls_s)
        self.outside_s.append(outside_s)

    def charged_s(self, message: Message) -> float:
        """What counts as time of a message although it lay before it: a program that works while its inputs are being written gains
        nothing. What the baseline's threads do then (they look for work for a while before they sleep) is free."""
        usual_s = float(np.quantile(self.outside_s, USUAL)) if self.outside_s else 0.0
        free_s = max(NOISE_S, FREE_SHARE * message.elapsed_s) + SPIN_S * message.workers
        return max(0.0, message.outside_s - usual_s - min(free_s, FREE_OUTSIDE_S))

    def round(self, taken: Taken) -> Round:
        ours = self.calls_ms(taken.candidate, taken.together, of_baseline=False)
        return Round(taken.together, ours, self.calls_ms(taken.baseline, taken.together, of_baseline=True))

    def calls_ms(self, messages: Sequence[Message], together: int, *, of_baseline: bool) -> tuple[float, ...]:
        """What a call took, in each of them."""
        if of_baseline:
            messages_s, exchange_s = [message.elapsed_s for message in messages], statistics.median(self.around_calls_s)
        else:
            messages_s = [message.elapsed_s + self.charged_s(message) for message in messages]
            exchange_s = self.cost_s(statistics.median(messages_s))
        return tuple(max((s - exchange_s) / together * 1e3, FLOOR_MS) for s in messages_s)

    def cost_s(self, message_s: float) -> float:
        """Of a message that lasted so long. A long call leaves cold caches behind, which make its reply dearer; so what is taken
        off grows with the call, from an empty message's cost to that of a message with the baseline's calls."""
        full_s = statistics.median(self.around_calls_s)
        empty_s = min(statistics.median(self.empty_s), full_s)  # else a program that slows empty messages gains by it
        share = (message_s - full_s) / statistics.median(self.calls_s)
        return empty_s + (full_s - empty_s) * min(1.0, max(0.0, share))

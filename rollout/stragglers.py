"""What is done about members of a group that fail or take long, and what each way does to the statistics of what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Stragglers(Protocol):
    def again(self, failures: int) -> bool:
        """Whether a member that has failed so often is played on after its last durable turn."""

    def enough(self, completed: int, samples: int) -> bool:
        """Whether a group of `samples` is complete with so many members that ended by themselves and are scored."""


@dataclass(frozen=True)
class Wait:
    """Every member is waited for, and one that failed stays unscored.

    No length is preferred: the group is what the policy drew. It is smaller by what failed, and that is not at random either:
    long replies meet time limits more often.
    """

    def again(self, failures: int) -> bool:
        return False

    def enough(self, completed: int, samples: int) -> bool:
        return completed == samples


@dataclass(frozen=True)
class Retry:
    """Like `Wait`, but a member that failed goes on after its last durable turn, up to `times` times.

    Groups keep their size, so all baselines have the same variance. Nothing scored is ever drawn again, so no reward is preferred;
    but where it is the reply that makes the attempt fail (one that never ends in time), the one that is kept in its place is
    a draw of those that do not.
    """

    times: int

    def again(self, failures: int) -> bool:
        return failures <= self.times

    def enough(self, completed: int, samples: int) -> bool:
        return completed == samples


@dataclass(frozen=True)
class MinimumGroup:
    """A group is complete with its `least` first members, and the others are cancelled.

    Biased by length: the first to end are those with short replies, few turns and candidates that are judged quickly, so what is
    kept is no draw of the policy, and a policy that is trained on it learns to be short. The bias goes with the share that
    is cancelled; mean rewards and rates of such groups cannot be compared with those of groups that were waited for. Which
    members are kept depends on the machine's time: the run cannot be repeated.
    """

    least: int

    def again(self, failures: int) -> bool:
        return False

    def enough(self, completed: int, samples: int) -> bool:
        return completed >= min(self.least, samples)

"""A program as a timing session knows it, and what ends its turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kernel_env.referee.exchange import Taken
from kernel_env.referee.inputs import InputSet
from kernel_env.referee.layout import Arena, Part, paged
from kernel_env.referee.memory import Samples
from kernel_env.referee.outputs import watched
from kernel_env.referee.process import Endpoint
from kernel_env.referee.reference import Ask

ENDS = "a call ends when its output is there"
FIRST_LOOK = 0.5
"""The share of a plan after which it is first seen whether the interval is narrow enough."""


class Fault(Exception):
    """A candidate's turn is over, by its own doing."""


class Tampered(Fault):
    """A program's times cannot be believed. `category` says why in a word."""

    def __init__(self, category: str, message: str) -> None:
        super().__init__(message)
        self.category = category


@dataclass(eq=False)
class Side:
    """One program in the session: how to ask it, and the places that its inputs go to."""

    endpoint: Endpoint
    ask: Ask
    slots: list[Part] = field(default_factory=list)
    tree: Any = None
    """How the inputs lie in them."""
    arenas: list[Arena] = field(default_factory=list)
    """What they are parts of."""
    call_s: float = 0.0
    """How long a call takes, as far as is known."""
    output: Any = None
    """Described output of its last call that is looked at, ..."""
    index: int = -1
    """... which of the calls in its message that was, ..."""
    slot: int = 0
    """... where that call's inputs are, ..."""
    beside: Any = None
    """... and another output of the same message."""
    pair: tuple[Any, Any] = (None, None)
    """Of the baseline: these two of the block that the candidate's is held against."""
    watched: Any = None
    """The last output of all, which must be there when the reply is."""
    samples: Samples | None = None
    """Places to read in the next output; None where its memory may not be read from here."""
    sizes: tuple[int, ...] = ()
    cpu_s: float = 0.0
    """The CPU time that it had used at its last reply, or when its heap was laid out since: what it uses from then on lies outside
    of its messages."""
    words: bytes | None = None
    """What was there at the reply."""

    def watch(self, rng: np.random.Generator, *, trusted: bool) -> None:
        """Read some words of the output at its reply, before anything else takes time. Raises Tampered."""
        self.words = None
        parts = watched(self.watched)
        sizes = tuple(size for _, size in parts)
        if self.samples is None or sizes != self.sizes:
            self.samples, self.sizes = Samples(sizes, rng), sizes
        try:
            self.words = self.samples.read(self.endpoint.pid, [address for address, _ in parts])
        except OSError as error:
            if not trusted and self.endpoint.hides():
                raise Tampered("late_work", f"the output's memory cannot be read when the reply is there: {error}") from error

    def expect_unchanged(self, rng: np.random.Generator, *, trusted: bool) -> None:
        """Raises Tampered when its last output is another than at its reply. Looks once, and elsewhere the next time."""
        if self.words is None or self.samples is None:
            return
        try:
            now = self.samples.read(self.endpoint.pid, [address for address, _ in watched(self.watched)])
        except OSError as error:
            if not trusted and self.endpoint.hides():
                raise Tampered("late_work", f"the output's memory was given back after forward() had returned: {ENDS}") from error
        else:
            if now != self.words and not trusted:
                raise Tampered("late_work", f"the output went on changing after forward() had returned: {ENDS}")
        self.samples, self.words = Samples(self.sizes, rng), None

    def drop_slots(self) -> None:
        for part in self.slots:
            part.close()
        for arena in self.arenas:
            arena.close()
        self.slots.clear()
        self.arenas.clear()


def give_slots(side: Side, like: InputSet, count: int) -> None:
    """At least so many places for inputs such as these. Their pages are all there before the first call: it must not pay."""
    if like.tree != side.tree:
        if side.slots:
            side.ask({"op": "drop_inputs"})
        side.drop_slots()
        side.tree, side.output = like.tree, None
    more = count - len(side.slots)
    if more > 0:
        side.arenas.append(arena := Arena(more * paged(like.arena.size)))
        side.slots.extend(parts := arena.parts(like.arena.size))
        for part in parts:
            part.copy_from(like.arena)
        side.ask({"op": "take_inputs", "inputs": like.tree, "size": like.arena.size}, (arena.fd,))
        arena.keep_private()


@dataclass(eq=False)
class Entry:
    """A candidate in a session."""

    side: Side
    together: int = 0
    """How many calls most of its messages have; 0 before that is known."""
    first_s: float = 0.0
    """How long a call took in its warm-up."""
    taken: list[Taken] = field(default_factory=list)
    spent_s: float = 0.0
    """In its messages and in those of the baseline that they are held against, ..."""
    wall_s: float = 0.0
    """... and with all that lay between them."""
    due: float = FIRST_LOOK
    """The share of the plan after which it is seen whether the interval is narrow enough."""
    worked_on: int = 0
    """Rounds in which it worked while it was stopped."""
    plans: int = 1

    def begin_again(self) -> None:
        self.together, self.taken, self.spent_s, self.wall_s, self.due, self.worked_on = 0, [], 0.0, 0.0, FIRST_LOOK, 0


@dataclass(frozen=True)
class Planned:
    """A block of a round: of a candidate, or of the baseline."""

    entry: Entry | None
    side: Side
    together: int
    messages: int

    @property
    def calls(self) -> int:
        return self.together * self.messages

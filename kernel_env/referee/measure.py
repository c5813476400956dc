"""One timing session: rounds of calls of a baseline and of a candidate, each timed from outside of the process that runs it.

One message is one call (or, for very short ones, several); the clock runs from request to reply. While one side is measured, the
other is frozen. A call's inputs are written into the side's own mappings after its last reply and right before its request, so
between two calls there is nothing to work on. After a reply, words of the output are read from outside at once, and again before
the next request: work that goes on after the reply shows. A block ends with the side frozen, and its last output is compared.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from kernel_env.errors import MachineBusy
from kernel_env.referee.clock import FLOOR_MS, Round, TimingPlan, precise, timing
from kernel_env.referee.inputs import Draw, InputPool, InputSet
from kernel_env.referee.layout import Arena, Part, paged
from kernel_env.referee.memory import Samples, is_readable
from kernel_env.referee.outputs import watched
from kernel_env.referee.placement import OtherWork, Waits, cpu_s, page_faults
from kernel_env.referee.process import Endpoint
from kernel_env.referee.protocol import Frame
from kernel_env.referee.reference import Ask, output_at
from kernel_env.referee.secret import Secret
from kernel_env.schema import Timing

PAUSES_S = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Waits before each attempt at a quiet session."""
WAKING_S = 150e-6
"""A thread that is woken for a call waits about so long for its core on a quiet machine too."""
SETTLE_S = 1e-3
"""A block's calls count only after so much time in calls: after a thaw the scheduler has to spread the threads over the cores
again, and caches are cold."""
SETTLE_BELOW_S = 0.03
"""Longer calls settle by themselves; an extra one would cost more than it gives."""
FIRST_SETTLE_BELOW_S = 5.0
FIRST_CALLS = 8
FEW_FAULTS = 256
"""Before the first block a side is called until a call needs fewer new pages than this, up to so many times."""
BLOCK_S = 1e-2
"""What a block of timed calls should last."""
BLOCK_CALLS = 16
TOGETHER = 128
TOGETHER_S = 16e-3
LONGEST_TOGETHER_S = 0.05
"""In every other round so many calls are sent in one message, as long as those of the faster side take less time than this (and
those of the slower one less than that): what an exchange and cold caches cost is then small against them. In the others they are
sent singly, so that nothing is gained by working on several at once."""


_ENDS = "a call ends when its output is there"
_EMPTY_MESSAGES = 2
_LEAST_ALONE = 1
"""Blocks of the baseline alone. What disturbs one makes it slower, and only a faster one has consequences."""
_MOST_WALL = 3.0
"""A session lasts at most so many times its budget of time in calls: writing and comparing large tensors takes time too."""
_LOOK = 0.5
"""After each such share of a further budget it is seen whether the interval is narrow enough: seldom, for each look is one more
chance to stop by luck."""


class _Message(NamedTuple):
    """What one message took: until its reply, and of the side's CPU time since the reply before."""

    elapsed_s: float
    outside_s: float


_Taken = tuple[int, dict["Side", list[_Message]]]
"""Of one round: how many calls were sent together, and either side's messages."""


FREE_OUTSIDE_S = 2e-4
"""So much CPU time between two messages costs nothing."""
STOPPED_S, STOPPED, MOST_MOVING = 1e-3, 0.01, 0.2
"""And so much, or this share of the time, is no work while it is stopped; in more than such a share of the rounds it is. (A virtual
machine may be stopped itself while a thread stops, and books that to it.) To slow the baseline takes half of the rounds."""
UNEVEN = 4.0
"""A candidate whose calls are so many times shorter than before they counted is timed anew, ..."""
PLANS = 3
"""... so many times in all."""
USUAL = 0.9
"""And so much as this share of the baseline's messages use."""


class Tampered(Exception):
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
    watched: Any = None
    """The last output of all, which must be there when the reply is."""
    samples: Samples | None = None
    """Places to read in the next output; None where its memory may not be read from here."""
    sizes: tuple[int, ...] = ()
    cpu_s: float = 0.0
    """The CPU time that it had used at its last reply."""
    words: bytes | None = None
    """What was there at the reply."""

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
class _Exchange:
    """What a message costs beside its calls, learned from the baseline, whose own clock can be believed."""

    empty_s: list[float] = field(default_factory=list)
    """Messages with nothing to call."""
    around_calls_s: list[float] = field(default_factory=list)
    """By how much replies came later than the calls took, ..."""
    calls_s: list[float] = field(default_factory=list)
    """... and how long they took."""
    outside_s: list[float] = field(default_factory=list)
    """CPU time before them, since the last reply. Some of it belongs to the calls: the kernel books a thread that still spins on
    another core late, by a tick at most."""

    def charged_s(self, outside_s: float) -> float:
        """What counts as time of a message although it lay before it: a program that works while its inputs are being written gains
        nothing. What the baseline's threads do then (they look for work for a while before they sleep) is free."""
        usual_s = float(np.quantile(self.outside_s, USUAL)) if self.outside_s else 0.0
        return max(0.0, outside_s - usual_s - FREE_OUTSIDE_S)

    def cost_s(self, message_s: float) -> float:
        """Of a message that lasted so long. A long call leaves cold caches behind, which make its reply dearer; so what is taken
        off grows with the call, from an empty message's cost to that of a message with the baseline's calls."""
        empty_s, full_s = statistics.median(self.empty_s), statistics.median(self.around_calls_s)
        share = (message_s - full_s) / statistics.median(self.calls_s)
        return empty_s + (full_s - empty_s) * min(1.0, max(0.0, share))


Check = Callable[[Side, Side, Draw], None]
"""Compares the last calls of a round, of the baseline and of the candidate, both on the same draw and both frozen."""


@dataclass(eq=False)
class Session:
    """Times a candidate against the baseline, in rounds, in random order."""

    baseline: Side
    candidate: Side
    pool: InputPool
    check: Check
    cores: tuple[int, ...]
    helpers: tuple[int, ...]
    """Processes of ours that draw inputs meanwhile: no noise."""
    random_forward: bool
    """Whether the problem draws random numbers in forward, so that both sides need the generator in one state."""
    noise: float = 0.0
    """Share of the baseline's time that its threads waited for a core, or of the cores' time that other work had: the smaller."""
    _rng: random.Random = field(default_factory=Secret)
    _words: np.random.Generator = field(default_factory=np.random.default_rng)
    _exchanges: dict[int, _Exchange] = field(default_factory=dict)
    _used_s: Callable[[int], float] = cpu_s
    _most: int = 0
    """Calls that are sent together; 0 before it is known."""
    _kinds: list[int] = field(default_factory=list)
    """How many calls the messages of the next rounds have, the last one first."""
    _worked_on: int = 0
    """Rounds in which the candidate worked while it was stopped."""
    _first_s: float = 0.0
    """How long a call of the candidate took in the warm-up."""
    _waited_s: float = 0.0
    _spent_s: float = 0.0

    def rounds(self, plan: TimingPlan) -> list[Round]:
        """Take times as planned. Raises Tampered, and what `check` and the sides raise.

        How many calls go together follows from their lengths in the warm-up. A candidate that was slower there than it is now has
        chosen that itself.
        """
        for _ in range(PLANS):
            rounds = self._planned(plan)
            before_s, now_s = self._first_s, self.candidate.call_s
            if now_s * UNEVEN > before_s or self._calls_together() <= 2 * self._most:
                return rounds
            self._most, self._kinds = 0, []
        raise Tampered("uneven", f"a call takes {now_s * 1e3:.3g} ms when it counts and {before_s * 1e3:.3g} ms when it does not")

    def _planned(self, plan: TimingPlan) -> list[Round]:
        self._exchanges, self._waited_s, self._worked_on = {}, 0.0, 0
        others = OtherWork(self.cores, (os.getpid(), self.baseline.endpoint.pid, self.candidate.endpoint.pid, *self.helpers))
        taken: list[_Taken] = []
        with self._own_core():
            if not self._most:
                self._warm_up()
            self._spent_s, started = 0.0, time.perf_counter()
            due = 1.0
            while True:
                used_s = max(self._spent_s, (time.perf_counter() - started) / _MOST_WALL)
                if len(taken) >= plan.min_rounds and max(used_s / plan.budget_s, len(taken) / plan.rounds) >= due:
                    if due >= plan.extended or precise(timing(self._rounds(taken), 0), plan.precision):
                        break
                    due += _LOOK
                taken.append(self._round())
        if self._worked_on > max(1, MOST_MOVING * len(taken)):
            raise Tampered("not_stopped", f"its threads worked while it was stopped, in {self._worked_on} of {len(taken)} rounds")
        self.candidate.endpoint.thaw()
        self.baseline.endpoint.thaw()
        waiting = self._waited_s / sum(message.elapsed_s for _, times in taken for message in times[self.baseline])
        self.noise = round(min(waiting, others.share()), 4)
        return self._rounds(taken)

    def _rounds(self, taken: Sequence[_Taken]) -> list[Round]:
        return [
            Round(together, *(self._calls_ms(times[side], together, side) for side in (self.candidate, self.baseline)))
            for together, times in taken
        ]

    def alone(self, budget_s: float) -> list[float]:
        """Milliseconds a call of the baseline, a median a block, once the candidate is gone."""
        blocks: list[float] = []
        with self._own_core():
            self._spent_s = 0.0
            while len(blocks) < _LEAST_ALONE or self._spent_s < budget_s:
                self._wake(self.baseline, self.candidate)
                times = self._block(self.baseline, self.pool.last(), self._most, self._count(self.baseline, self._most))
                blocks.append(statistics.median(self._calls_ms(times, self._most, self.baseline)))
        self.baseline.endpoint.thaw()
        return blocks

    def _calls_ms(self, messages: Sequence[_Message], together: int, side: Side) -> tuple[float, ...]:
        exchange = self._exchanges[together]
        if side is self.baseline:
            messages_s = [message.elapsed_s for message in messages]
            exchange_s = statistics.median(exchange.around_calls_s)
        else:
            messages_s = [message.elapsed_s + exchange.charged_s(message.outside_s) for message in messages]
            exchange_s = exchange.cost_s(statistics.median(messages_s))
        return tuple(max((s - exchange_s) / together * 1e3, FLOOR_MS) for s in messages_s)

    @contextlib.contextmanager
    def _own_core(self) -> Iterator[None]:
        """This process keeps to the first core, where a side's main thread wakes as soon as this process goes to sleep."""
        before = os.sched_getaffinity(0)
        separate = self.candidate.endpoint.pid != os.getpid()
        try:
            if separate:
                os.sched_setaffinity(0, self.cores[:1])
            yield
        finally:
            os.sched_setaffinity(0, before)

    def _round(self) -> _Taken:
        if not self._kinds:
            self._kinds = self._rng.sample((1, self._most), 2)
        together = self._kinds.pop()
        sides = self._rng.sample((self.baseline, self.candidate), 2)
        counts = [self._count(side, together) for side in sides]
        self.pool.refresh(max(counts) * together)
        last, times = self.pool.last(), dict[Side, list[_Message]]()
        counts = [self._distinct(count, together) for count in counts]
        for side, other, count in zip(sides, reversed(sides), counts, strict=True):
            self._wake(side, other)
            times[side] = self._block(side, last, together, count)
        self.check(self.baseline, self.candidate, last)
        return together, times

    def _stopped_since(self) -> tuple[float, float]:
        """The time, and the CPU time that the candidate, which is frozen, has used."""
        return time.perf_counter(), self._used_s(self.candidate.endpoint.pid)

    def _went_on(self, since: tuple[float, float]) -> bool:
        """Whether the candidate has worked while it was stopped: timers can wake a process, and a system call that has begun goes
        on."""
        wall_s, cpu_s = (now - then for now, then in zip(self._stopped_since(), since, strict=True))
        return cpu_s > STOPPED_S + STOPPED * wall_s

    def _calls_together(self) -> int:
        """How many calls most messages have."""
        times_s = self.baseline.call_s, self.candidate.call_s
        most = min(TOGETHER_S / max(min(times_s), 1e-6), LONGEST_TOGETHER_S / max(*times_s, 1e-6))
        return max(1, min(int(most), TOGETHER, len(self.baseline.slots)))

    def _count(self, side: Side, together: int) -> int:
        """How many messages a block has; the program can't know it."""
        message_s = max(side.call_s * together, 1e-6)
        if message_s >= SETTLE_BELOW_S:
            return 1
        wanted = min(BLOCK_CALLS // together, int(BLOCK_S / message_s))
        wanted = max(2, wanted)  # any of them may be the last: none is safe to skip
        return self._rng.randint(1, wanted)

    def _distinct(self, count: int, together: int) -> int:
        """Never more messages than there are inputs for: none comes twice in a block."""
        return max(1, min(count, self.pool.most() // together))

    def _block(self, side: Side, last: Draw, together: int, count: int) -> list[_Message]:
        """So many messages. Ends with the side frozen after a call on `last`.

        The pages of generated code are others than in the block before: what a program owes to those evens out over rounds.
        """
        self.pool.deal()
        side.ask({"op": "move_code", "seed": self._rng.getrandbits(32)})
        self._settle(side, together)
        times = []
        for _ in range(_EMPTY_MESSAGES):
            self._message(side, [self.pool.stale() for _ in range(together)], empty=True)
        since = self._stopped_since() if side is self.baseline else None  # it has had the time to stop
        with contextlib.closing(Waits(side.endpoint.pid)) as waits:
            for left in reversed(range(count)):
                draws = [self.pool.draw() for _ in range(together)]
                self._unchanged(side)
                times.append(self._message(side, draws, waits, last=None if left else last))
        side.endpoint.freeze()
        self._unchanged(side)
        if since:
            self._worked_on += self._went_on(since)
        return times

    def _warm_up(self) -> None:
        """Before the first round: calls until they touch no new memory, singly and then as many together as messages will have."""
        for several in (False, True):
            for side, other in ((self.baseline, self.candidate), (self.candidate, self.baseline)):
                self._wake(side, other)
                calls, seen_s = self._most if several else 1, []
                for _ in range(_EMPTY_MESSAGES):
                    self._message(side, [self.pool.stale() for _ in range(calls)], empty=True)
                for _ in range(FIRST_CALLS if side.call_s < FIRST_SETTLE_BELOW_S else 0):
                    before = page_faults(side.endpoint.pid)
                    self._message(side, [self.pool.stale() for _ in range(calls)])
                    seen_s.append(side.call_s)
                    settled = several or side.call_s > TOGETHER_S or len(seen_s) >= FIRST_CALLS // 2
                    if settled and page_faults(side.endpoint.pid) - before < FEW_FAULTS:
                        break
                side.call_s = min(seen_s, default=side.call_s)
                side.endpoint.freeze()
            self._most, self._first_s = self._calls_together(), self.candidate.call_s
            if self._most == 1:
                return

    def _wake(self, side: Side, other: Side) -> None:
        other.endpoint.freeze()
        side.endpoint.freeze()
        side.endpoint.place(self.cores)
        side.endpoint.thaw()

    def _settle(self, side: Side, together: int) -> None:
        """Calls of some length after each thaw that do not count."""
        settled_s = SETTLE_S if side.call_s >= SETTLE_BELOW_S else 0.0
        calls = min(together, math.ceil(SETTLE_S / max(side.call_s, 1e-6)))
        while settled_s < SETTLE_S:
            settled_s += self._message(side, [self.pool.stale() for _ in range(calls)]).elapsed_s

    def _message(
        self, side: Side, draws: list[Draw], waits: Waits | None = None, *, last: Draw | None = None, empty: bool = False
    ) -> _Message:
        """Write the inputs, send one request, and wait for its reply. With `waits`, the message counts.

        One of its calls is looked at, and no one there knows which; `last` takes that one's place.

        Where calls are short the side's heap is laid out anew before: what a program owes to the places of its tensors evens out
        over messages. The tensors of long calls are too large to move without new pages.
        """
        side.index = self._rng.randrange(len(draws))
        if last is not None:
            draws[side.index] = last
        outside_s = self._used_s(side.endpoint.pid) - side.cpu_s if side.cpu_s else 0.0
        if self._most > 1:
            side.ask({"op": "scatter", "seed": self._rng.getrandbits(32)})
        side.cpu_s = self._used_s(side.endpoint.pid)  # a program may save itself that work, and gains nothing by it
        os.sched_yield()  # the side shares our core, and has yet to go to sleep after its last reply
        slots = self._rng.sample(range(len(side.slots)), len(draws))
        for slot, draw in zip(slots, draws, strict=True):
            self.pool.write(draw, side.slots[slot])
        frame: Frame = {"op": "call", "indices": slots, "empty": empty}
        if self.random_forward:
            frame["seeds"] = [draw.seed for draw in draws]
        waited_s = waits.seconds() if waits else 0.0
        outside_s += self._used_s(side.endpoint.pid) - side.cpu_s
        answer = side.ask(frame)
        elapsed_s = side.endpoint.elapsed_s
        side.cpu_s = self._used_s(side.endpoint.pid)
        self._spent_s += elapsed_s
        side.slot, side.output = slots[side.index], output_at(answer, side.index)
        side.beside = output_at(answer, (side.index or len(draws)) - 1) if len(draws) > 1 else None
        side.watched = output_at(answer, -1)  # earlier ones had the time of later calls to be finished
        self._watch(side)
        if empty:
            if side is self.baseline:
                self._exchange(len(draws)).empty_s.append(elapsed_s)
            return _Message(elapsed_s, outside_s)
        known_s = self._exchange(len(draws)).empty_s
        side.call_s = max(elapsed_s - (statistics.median(known_s) if known_s else 0.0), 1e-6) / len(draws)
        if waits and side is self.baseline:
            self._waited_s += max(0.0, waits.seconds() - waited_s - len(self.cores) * WAKING_S)
            self._exchange(len(draws)).around_calls_s.append(elapsed_s - answer["took_s"])
            self._exchange(len(draws)).calls_s.append(answer["took_s"])
            self._exchange(len(draws)).outside_s.append(outside_s)
        return _Message(elapsed_s, outside_s)

    def _exchange(self, together: int) -> _Exchange:
        return self._exchanges.setdefault(together, _Exchange())

    def _watch(self, side: Side) -> None:
        """Read some words of the output at once, before anything else takes time."""
        side.words = None
        places = watched(side.watched)
        sizes = tuple(size for _, size in places)
        if side.samples is None or sizes != side.sizes:
            side.samples, side.sizes = Samples(sizes, self._words), sizes
        try:
            side.words = side.samples.read(side.endpoint.pid, [address for address, _ in places])
        except OSError as error:
            if side is self.candidate and is_readable(side.endpoint.pid):
                raise Tampered("late_work", f"the output's memory cannot be read when the reply is there: {error}") from error

    def _unchanged(self, side: Side) -> None:
        """Raises Tampered when the last output is another one than at its reply. Looks once, and elsewhere the next time."""
        if side.words is None or side.samples is None:
            return
        try:
            now = side.samples.read(side.endpoint.pid, [address for address, _ in watched(side.watched)])
        except OSError as error:
            raise Tampered("late_work", f"the output's memory was given back after forward() had returned: {_ENDS}") from error
        if now != side.words:
            raise Tampered("late_work", f"the output went on changing after forward() had returned: {_ENDS}")
        side.samples, side.words = Samples(side.sizes, self._words), None


def quiet_timing(attempt: Callable[[], Timing], noise_limit: float) -> Timing:
    """Measure until the noise is within the limit. Raises MachineBusy, never a score, when it never is."""
    noise = []
    for pause_s in PAUSES_S:
        time.sleep(pause_s)
        timing = attempt()
        if timing.noise <= noise_limit:
            return timing
        noise.append(timing.noise)
    raise MachineBusy(
        f"too busy to take times: in {len(noise)} tries, threads waited for a core at least {min(noise):.0%} of the time; "
        "stop other work on this machine, or raise verify.noise_limit"
    )

"""One timing session: rounds of calls of a baseline and of candidates, each timed from outside of the process that runs it.

One message is one call (or, for very short ones, several); the clock runs from request to reply. While one side is measured, the
others are frozen. A call's inputs are written into the side's own mappings after its last reply and right before its request, so
between two calls there is nothing to work on. After a reply, words of the output are read from outside at once, and again before
the next request: work that goes on after the reply shows. A block ends with the side frozen, and its last output is compared.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kernel_env.errors import BuilderError, VerifierError
from kernel_env.referee.clock import Round, TimingPlan, by_ratio_ms, precise
from kernel_env.referee.exchange import Exchange, Message, Taken
from kernel_env.referee.inputs import Draw, InputPool
from kernel_env.referee.layout import leaves
from kernel_env.referee.memory import move
from kernel_env.referee.placement import OtherWork, Waits, booked_s, page_faults
from kernel_env.referee.process import ZygoteGone
from kernel_env.referee.protocol import Frame
from kernel_env.referee.reference import output_at
from kernel_env.referee.secret import Secret
from kernel_env.referee.sides import FIRST_LOOK, Entry, Fault, Planned, Side, Tampered

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

_EMPTY_MESSAGES = 2
_FEW_BYTES = 1 << 20
"""Of a message's inputs that are always new."""
_LEAST_ALONE = 1
"""Blocks of the baseline alone. What disturbs one makes it slower, and only a faster one has consequences."""
_MOVED, _MOST_MOVED = 4, 128 << 20
"""Before each of them so many times what a message's calls read and write is moved, up to so many bytes, as the candidates' blocks
did: caches that still hold what the last block left make a program that does little else than move memory a third faster."""
_MOST_WALL, _LONGEST_WALL = 3.0, 6.0
"""A session lasts at most so many times its budget of time in calls, for writing and comparing large tensors takes time too; and so
many times if its interval is not narrow enough."""
_LOOK, _EARLY_ROUNDS = FIRST_LOOK, 16
"""After each such share of the budget it is seen whether the interval is narrow enough: seldom, for each look is one more chance to
stop by luck. Before all of the budget is spent only if there are so many rounds."""

STOPPED_S, STOPPED, MOST_MOVING = 1e-3, 0.01, 0.2
"""So much CPU time, or this share of the time, is no work while it is stopped; in more than such a share of the rounds it is. (A
virtual machine may be stopped itself while a thread stops, and books that to it.) To slow the baseline takes half of the rounds."""
HOPELESS = 2.0
"""A session that is noisier than so many times what is allowed ends early, with the times of some or none."""
UNEVEN = 4.0
"""A candidate whose calls are so many times shorter than before they counted is timed anew, ..."""
PLANS = 3
"""... so many times in all."""
LIKE = 1.5
"""Candidates whose messages may have so many times the calls of the baseline's share its blocks."""

Check = Callable[[Side, Side, Draw], None]
"""Compares the last calls of a round, of the baseline and of a candidate, both on the same draw and both frozen. Raises Fault."""


@dataclass(eq=False)
class Session:
    """Times candidates against the baseline, in rounds, in random order.

    Candidates share the baseline's blocks, its exchange and each round's last inputs, and nothing else: each has as many rounds as
    its own times ask for. One whose turn is over by a fault of its own is found in `faults`.
    """

    baseline: Side
    candidates: Sequence[Side]
    pool: InputPool
    check: Check
    cores: tuple[int, ...]
    helpers: tuple[int, ...]
    """Processes of ours that draw inputs meanwhile: no noise."""
    random_forward: bool
    """Whether the problem draws random numbers in forward, so that all sides need the generator in one state."""
    noise: float = 0.0
    """Share of the baseline's time that its threads waited for a core, or of the cores' time that other work had: the smaller."""
    faults: dict[Side, Exception] = field(default_factory=dict)
    _rng: random.Random = field(default_factory=Secret)
    _words: np.random.Generator = field(default_factory=np.random.default_rng)
    _exchanges: dict[int, Exchange] = field(default_factory=dict)
    _used_s: Callable[[int], float] = booked_s
    _now: Callable[[], float] = time.perf_counter
    _others: OtherWork = field(init=False)
    _scatters: bool = False
    """Whether calls are short enough for heaps to be laid out anew."""
    _deck: list[Draw] = field(default_factory=list)
    """Of a round with several candidates: all have these inputs, or one that two of them have would be the one that is compared."""
    _kinds: list[bool] = field(default_factory=list)
    """Whether messages of the next rounds have several calls, the last one first."""
    _entries: dict[Side, Entry] = field(default_factory=dict)
    _write_s: float = 0.0
    """How long it takes to write the inputs of a call."""
    _waited_s: float = 0.0
    _spent_s: float = 0.0
    _made: int = 0
    """Rounds so far, ..."""
    _moved_in: int = 0
    """... and those in which a candidate worked while it was stopped, ..."""
    _moved: bool = False
    """... as in this one."""

    def __post_init__(self) -> None:
        self._entries = {side: Entry(side) for side in self.candidates}
        for side in (self.baseline, *self.candidates):
            side.endpoint.at_reply = functools.partial(self._replied, side)

    def rounds(self, plan: TimingPlan) -> dict[Side, list[Round]]:
        """Take times as planned, of each candidate that has no fault. Raises what the baseline raises.

        How many calls go together follows from their lengths in the warm-up. A candidate that was slower there than it is now has
        chosen that itself. Where it is far too noisy there may be times of some candidates only.
        """
        self._exchanges, self._waited_s, self._made, self._moved_in, self.noise = {}, 0.0, 0, 0, 0.0
        pids = [side.endpoint.pid for side in (self.baseline, *self.candidates)]
        self._others = OtherWork(self.cores, (os.getpid(), *pids, *self.helpers))
        baseline_s, found = 0.0, dict[Side, list[Round]]()
        active = [self._entries[side] for side in self.candidates if side not in self.faults]
        for entry in active:
            together = entry.together
            entry.begin_again()
            entry.together, entry.plans = together, 1
        with self._own_core():
            while active:
                if any(not entry.together for entry in active):
                    self._warm_up([entry for entry in active if not entry.together])
                    active = self._faultless(active)
                if active:
                    baseline_s += self._round(active)
                if self._made % _EARLY_ROUNDS == 0 and self._noise(baseline_s) > HOPELESS * plan.noise_limit:
                    break
                for entry in self._faultless(active):
                    with self._guarded(entry):
                        if self._is_done(entry, plan, baseline_s):
                            found[entry.side] = self._rounds(entry.taken)
                active = [entry for entry in self._faultless(active) if entry.side not in found]
        self.baseline.endpoint.thaw()
        self.noise = max(self.noise, self._noise(baseline_s))
        return found

    def _noise(self, baseline_s: float) -> float:
        return round(min(self._waited_s / baseline_s, self._others.share()), 4) if baseline_s else 0.0

    def _faultless(self, entries: Sequence[Entry]) -> list[Entry]:
        return [entry for entry in entries if entry.side not in self.faults]

    @contextlib.contextmanager
    def _guarded(self, entry: Entry) -> Iterator[None]:
        """A candidate's fault ends its own turn only, as does what this machine could not do for it. Its work was no noise."""
        started, used_s = time.perf_counter(), self._used_s(entry.side.endpoint.pid)
        try:
            yield
        except ZygoteGone:
            raise
        except (Fault, BuilderError, VerifierError, RecursionError) as fault:
            self.faults[entry.side], pid = fault, entry.side.endpoint.pid
            self._others.ended(pid, self._used_s(pid) or used_s + (time.perf_counter() - started) * len(self.cores))
            entry.side.endpoint.kill()

    def _is_done(self, entry: Entry, plan: TimingPlan, baseline_s: float) -> bool:
        """Raises Tampered. Where that may be the doing of other programs, their noise is this session's whatever comes."""
        used_s = max(entry.spent_s, entry.wall_s / _MOST_WALL)
        share = max(used_s / plan.budget_s, len(entry.taken) / plan.rounds)
        if len(entry.taken) < plan.min_rounds or share < entry.due:
            return False
        few = share < 1.0 and len(entry.taken) < _EARLY_ROUNDS
        last = share >= plan.extended or entry.wall_s >= _LONGEST_WALL * plan.budget_s
        if not last and (few or not precise(self._rounds(entry.taken), plan.precision)):
            entry.due += _LOOK * (1 + (share - entry.due) // _LOOK)
            return False
        if entry.worked_on > max(1, MOST_MOVING * len(entry.taken)):
            words = f"its threads worked while it was stopped, in {entry.worked_on} of {len(entry.taken)} rounds"
            raise Tampered("not_stopped", words)
        rounds = [taken for taken in entry.taken if taken.together == entry.together]
        now_s = by_ratio_ms(self._rounds(rounds or entry.taken)) / 1e3
        if now_s * UNEVEN > entry.first_s or self._calls_together(now_s) <= 2 * entry.together:
            return True
        if entry.plans == PLANS:
            words = f"a call takes {now_s * 1e3:.3g} ms when it counts and {entry.first_s * 1e3:.3g} ms when it does not"
            self.noise = max(self.noise, now := self._noise(baseline_s))
            if now > plan.noise_limit:
                return True
            raise Tampered("uneven", words)
        entry.begin_again()
        entry.plans += 1
        return False

    def _rounds(self, taken: Sequence[Taken]) -> list[Round]:
        return [self._exchanges[t.together].round(t) for t in taken]

    def together(self, side: Side) -> int:
        """How many calls most messages of a candidate had, and those of the baseline that they were held against."""
        return self._entries[side].together

    def alone(self, budget_s: float, together: int) -> list[float]:
        """Milliseconds a call of the baseline, a median a block, once the candidates are gone: for so many seconds in all."""
        blocks: list[float] = []
        call_bytes = self.pool.size + sum(spec.nbytes for spec in leaves(self.baseline.output))
        memory = np.ones(min(_MOVED * together * call_bytes, _MOST_MOVED) // 8, np.uint64)  # touched: new pages are dear
        with self._own_core():
            self._spent_s, self._deck = 0.0, []
            while len(blocks) < _LEAST_ALONE or self._spent_s < budget_s:
                self._spent_s += move(memory)
                self._wake(self.baseline)
                times = self._block(self.baseline, self.pool.last(), together, self._count(self.baseline, together))
                blocks.append(statistics.median(self._exchanges[together].baseline_ms(times, together)))
        self.baseline.endpoint.thaw()
        return blocks

    @contextlib.contextmanager
    def _own_core(self) -> Iterator[None]:
        """This process keeps to the first core, where a side's main thread wakes as soon as this process goes to sleep."""
        before = os.sched_getaffinity(0)
        separate = self.baseline.endpoint.pid != os.getpid()
        try:
            if separate:
                os.sched_setaffinity(0, self.cores[:1])
            yield
        finally:
            os.sched_setaffinity(0, before)

    def _round(self, entries: Sequence[Entry]) -> float:
        """A block of each candidate, and of the baseline one for each number of calls together. Returns the time of the baseline's
        messages that count."""
        if not self._kinds:
            self._kinds = self._rng.sample((False, True), 2)
        several = self._kinds.pop()
        mine = {entry: entry.together if several else 1 for entry in entries}
        sides: list[tuple[Entry | None, int]] = [*mine.items(), *((None, size) for size in sorted(set(mine.values())))]
        planned = [
            Planned(entry, side := entry.side if entry else self.baseline, size, self._count(side, size))
            for entry, size in self._rng.sample(sides, len(sides))
        ]
        started = time.perf_counter()
        self.pool.refresh(max(block.calls for block in planned))
        last, drawn_s = self.pool.last(), time.perf_counter() - started
        planned = [replace(block, messages=self._distinct(block.messages, block.together)) for block in planned]
        if len(self.candidates) > 1:
            self.pool.deal()
            self._deck = [self.pool.draw() for _ in range(max(block.calls for block in planned) - 1)]
        theirs: dict[int, list[Message]] = {}
        pairs: dict[int, tuple[Any, Any]] = {}
        ours: dict[Entry, list[Message]] = {}
        spent: dict[Entry | int, tuple[float, float]] = {}
        for block in planned:
            self._spent_s, started = 0.0, time.perf_counter()
            with self._guarded(block.entry) if block.entry else contextlib.nullcontext():
                self._wake(block.side)
                times = self._block(block.side, last, block.together, block.messages)
                if block.entry:
                    ours[block.entry] = times
                else:
                    theirs[block.together] = times
                    pairs[block.together] = block.side.output, block.side.beside
            spent[block.entry or block.together] = self._spent_s, time.perf_counter() - started
        for entry in self._faultless(entries):
            size, started = mine[entry], time.perf_counter()
            with self._guarded(entry):
                self.baseline.pair = pairs[size]
                self.check(self.baseline, entry.side, last)
                if entry.side.endpoint.readable:  # one that had to hand its output over itself was thawed
                    self._add_late(entry.side, ours[entry])
                entry.taken.append(Taken(size, ours[entry], theirs[size]))
            entry.spent_s += spent[entry][0] + spent[size][0]
            entry.wall_s += drawn_s + spent[entry][1] + spent[size][1] + time.perf_counter() - started
        self._made, self._moved_in, self._moved = self._made + 1, self._moved_in + self._moved, False
        return sum(message.elapsed_s for messages in theirs.values() for message in messages)

    @property
    def unsettled(self) -> bool:
        """Whether times of several cannot be believed: too often some candidate worked while another one or the baseline was timed,
        or one of them did so too often itself. Of one alone that is a fault, and no more."""
        not_stopped = any(isinstance(fault, Tampered) and fault.category == "not_stopped" for fault in self.faults.values())
        return len(self.candidates) > 1 and (not_stopped or self._moved_in > max(1, MOST_MOVING * self._made))

    def _add_late(self, side: Side, messages: list[Message]) -> None:
        """To the last one, what its side has worked since. It was told to stop then; but a thread in a long system call takes no
        notice, and meanwhile the others go on."""
        used_s = self._used_s(side.endpoint.pid)
        messages[-1] = messages[-1]._replace(outside_s=messages[-1].outside_s + used_s - side.cpu_s)
        side.cpu_s = used_s

    def _stopped_since(self, pid: int) -> tuple[float, float]:
        """The time, and the CPU time that a candidate, which is frozen, has used."""
        return time.perf_counter(), self._used_s(pid)

    def _went_on(self, pid: int, since: tuple[float, float]) -> bool:
        """Whether the candidate has worked while it was stopped: timers can wake a process, and a system call that has begun goes
        on."""
        wall_s, cpu_s = (now - then for now, then in zip(self._stopped_since(pid), since, strict=True))
        return cpu_s > STOPPED_S + STOPPED * wall_s

    def _calls_together(self, call_s: float) -> int:
        """How many calls most messages have of a candidate whose calls are so long."""
        times_s = self.baseline.call_s, call_s
        most = min(TOGETHER_S / max(min(times_s), 1e-6), LONGEST_TOGETHER_S / max(*times_s, 1e-6))
        return max(1, min(int(most), TOGETHER, len(self.baseline.slots)))

    def _count(self, side: Side, together: int) -> int:
        """How many messages a block has; the program can't know it. Inputs that take longer to write than to work on are worth more
        in other rounds: there the other side is called, too."""
        message_s = max(side.call_s * together, 1e-6)
        if message_s >= SETTLE_BELOW_S:
            return 1
        message_s += self._write_s * together
        wanted = min(BLOCK_CALLS // together, int(BLOCK_S / message_s))
        wanted = max(2, wanted)  # any of them may be the last: none is safe to skip
        return self._rng.randint(1, wanted)

    def _distinct(self, count: int, together: int) -> int:
        """Never more messages than there are inputs for: none comes twice in a block."""
        return max(1, min(count, self.pool.most() // together))

    def _block(self, side: Side, last: Draw, together: int, count: int) -> list[Message]:
        """So many messages. Ends with the side frozen after a call on `last`. It is noted who of the others goes on meanwhile.

        The pages of generated code are others than in the block before: what a program owes to those evens out over rounds. So it
        is with the heaps of short calls, which are laid out anew before each message. Where those are sent singly, once is enough:
        what they show counts beyond `SINGLE` only.
        """
        if self._deck:
            deck = self._rng.sample(self._deck, count * together - 1)
        else:
            self.pool.deal()
            deck = [self.pool.draw() for _ in range(count * together - 1)]
        coarse = self._scatters and together == 1
        if not coarse:
            side.ask({"op": "move_code", "seed": self._rng.getrandbits(32)})
        self._settle(side)
        times: list[Message] = []
        self._empty_messages(side, together)
        stopped = [entry for entry in self._entries.values() if entry.side is not side and entry.side not in self.faults]
        since = [self._stopped_since(entry.side.endpoint.pid) for entry in stopped]  # they have had the time to stop
        with contextlib.closing(Waits(side.endpoint.pid, own=True)) as waits:
            for left in reversed(range(count)):
                draws = [deck.pop() for _ in range(together if left else together - 1)]
                self._unchanged(side)
                scatter = self._scatters and not (coarse and times)
                times.append(self._message(side, draws, waits, last=None if left else last, scatter=scatter))
        side.endpoint.freeze()
        self._unchanged(side)
        self._add_late(side, times)
        if side is self.baseline:
            self._exchange(together).learn(times)
        for entry, then in zip(stopped, since, strict=True):
            went_on = self._went_on(entry.side.endpoint.pid, then)
            entry.worked_on += went_on and side is self.baseline
            self._moved |= went_on
        return times

    def _warm_up(self, entries: Sequence[Entry]) -> None:
        """Before the first round: calls until they touch no new memory, singly and then as many together as messages will have."""
        for several in (False, True):
            for size in sorted({entry.together if several else 1 for entry in entries}):
                self._get_warm(self.baseline, size, several)
            for entry in entries:
                with self._guarded(entry):
                    self._get_warm(entry.side, entry.together if several else 1, several)
            entries = self._faultless(entries)
            for entry in entries:
                entry.together, entry.first_s = self._calls_together(entry.side.call_s), entry.side.call_s
            smallest = 0
            for entry in sorted(entries, key=lambda entry: entry.together):
                smallest = entry.together if entry.together > LIKE * smallest else smallest
                entry.together = smallest
            self._scatters = any(entry.together > 1 for entry in self._entries.values())
            if all(entry.together == 1 for entry in entries):
                return

    def _get_warm(self, side: Side, calls: int, several: bool) -> None:
        self._wake(side)
        seen_s: list[float] = []
        self._empty_messages(side, calls)
        for _ in range(FIRST_CALLS if side.call_s < FIRST_SETTLE_BELOW_S else 0):
            before = page_faults(side.endpoint.pid)
            self._message(side, [self.pool.stale() for _ in range(calls)])
            seen_s.append(side.call_s)
            settled = several or side.call_s > TOGETHER_S or len(seen_s) >= FIRST_CALLS // 2
            if settled and page_faults(side.endpoint.pid) - before < FEW_FAULTS:
                break
        side.call_s = min(seen_s, default=side.call_s)
        side.endpoint.freeze()

    def _wake(self, side: Side) -> None:
        """All others are frozen."""
        for other in (self.baseline, *self.candidates):
            if other not in self.faults:
                other.endpoint.freeze()
        side.endpoint.place(self.cores)
        side.endpoint.thaw()

    def _settle(self, side: Side) -> None:
        """Calls of some length after each thaw that do not count; together, for singly their exchanges would take longer."""
        settled_s = SETTLE_S if side.call_s >= SETTLE_BELOW_S else 0.0
        calls = min(len(side.slots), math.ceil(SETTLE_S / max(side.call_s, 1e-6)))
        while settled_s < SETTLE_S:
            settled_s += self._message(side, [self.pool.stale() for _ in range(calls)]).elapsed_s
            calls = min(len(side.slots), 2 * calls)

    def _empty_messages(self, side: Side, calls: int) -> None:
        """Which tell what an exchange costs. That is little of a long call: there one is enough."""
        for _ in range(_EMPTY_MESSAGES if self._scatters else 1):
            self._message(side, [self.pool.stale() for _ in range(calls)], empty=True)

    def _message(
        self,
        side: Side,
        draws: list[Draw],
        waits: Waits | None = None,
        *,
        last: Draw | None = None,
        empty: bool = False,
        scatter: bool = False,
    ) -> Message:
        """Write the inputs, send one request, and wait for its reply. With `waits`, the message counts.

        One of its calls is looked at, and no one there knows which; `last` is that one.

        Messages that do not count are called on what is there, where new inputs would take long to write.
        """
        side.index = self._rng.randrange(len(draws) + (last is not None))
        if last is not None:
            draws.insert(side.index, last)
        outside_s = 0.0
        if scatter:
            outside_s = self._used_s(side.endpoint.pid) - side.cpu_s
            side.ask({"op": "scatter", "seed": self._rng.getrandbits(32)})  # a program may save itself that work, and gains nothing
        os.sched_yield()  # the side shares our core, and has yet to go to sleep after its last reply
        slots = self._rng.sample(range(len(side.slots)), len(draws))
        if waits or len(draws) * self.pool.size <= _FEW_BYTES:
            started = time.perf_counter()
            for slot, draw in zip(slots, draws, strict=True):
                self.pool.write(draw, side.slots[slot])
            self._write_s = (time.perf_counter() - started) / len(draws)
        frame: Frame = {"op": "call", "indices": slots, "empty": empty}
        if self.random_forward:
            frame["seeds"] = [draw.seed for draw in draws]
        waited_s = waits.seconds() if waits and side is self.baseline else 0.0
        # last, for it could work on its inputs until then; and what looking takes is added, as in `_replied`
        outside_s += -self._now() + self._used_s(side.endpoint.pid) + self._now() - side.cpu_s
        side.endpoint.freeze_at_reply = last is not None  # what is not there now does not count
        answer = side.ask(frame)
        elapsed_s = side.endpoint.elapsed_s
        self._spent_s += elapsed_s
        side.slot, side.output = slots[side.index], output_at(answer, side.index)
        side.beside = output_at(answer, (side.index or len(draws)) - 1) if len(draws) > 1 else None
        side.watched = output_at(answer, -1)  # earlier ones had the time of later calls to be finished
        side.watch(self._words, trusted=side is self.baseline)
        if empty:
            if side is self.baseline:
                self._exchange(len(draws)).empty_s.append(elapsed_s)
            return Message(elapsed_s, outside_s)
        known_s = self._exchange(len(draws)).empty_s
        side.call_s = max(elapsed_s - (statistics.median(known_s) if known_s else 0.0), 1e-6) / len(draws)
        if waits and side is self.baseline:
            self._waited_s += max(0.0, waits.seconds() - waited_s - (1 + len(self.cores)) * WAKING_S)
            return Message(elapsed_s, outside_s, calls_s=answer["took_s"])
        return Message(elapsed_s, outside_s, side.endpoint.workers)

    def _replied(self, side: Side) -> None:
        """To whatever was asked, and first of all: the answer has yet to be parsed, which a program can make long."""
        # less what looking takes: of many threads one may go on while the others are looked at
        side.cpu_s = self._now() + self._used_s(side.endpoint.pid) - self._now()

    def _exchange(self, together: int) -> Exchange:
        return self._exchanges.setdefault(together, Exchange())

    def _unchanged(self, side: Side) -> None:
        side.expect_unchanged(self._words, trusted=side is self.baseline)

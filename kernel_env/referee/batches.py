"""Candidates of one problem that wait for a slot at the same time are verified together: they share the baseline's times."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kernel_env.errors import VerifierError
from kernel_env.referee.pool import ATTEMPTS, Cores, HelperDied, Pool
from kernel_env.referee.protocol import Frame
from kernel_env.referee.slots import Order, Slots

MOST_TOGETHER = 16
_MOST_CHARACTERS = 4 << 20
"""Of their sources: one that is longer goes alone."""
WAIT_S = 0.25
"""So long a slot waits for candidates of the same kind that are being checked and built: a baseline of its own costs more."""


@dataclass(frozen=True)
class Kind:
    """What candidates must have in common to be verified together."""

    backend: str
    problem: tuple[str, str, str]
    """Its digest, key and profile."""
    config: Any
    seed: int
    priority: int


@dataclass(eq=False)
class _Member:
    job: Frame
    answer: asyncio.Future[Frame]
    taking: asyncio.Future[Cores]
    """A slot of its own, ..."""
    slot_settled: bool = False
    """... and whether that is given back, or its batch's to give back."""
    deaths: int = 0
    """Of workers that had it to verify."""
    batch: _Batch | None = None


@dataclass(eq=False)
class _Batch:
    members: list[_Member] = field(default_factory=list)
    asking: asyncio.Future[None] | None = None


class Batches:
    """Use within one event loop."""

    def __init__(self, slots: Slots[Cores]) -> None:
        self._slots = slots
        self._coming = Counter[Kind]()
        self._all_came: dict[Kind, asyncio.Event] = {}
        self._waiting: dict[Kind, list[_Member]] = {}
        self._leaders = Counter[Kind]()
        """Those that have a slot and have not yet taken others along."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Candidates that no slot has yet."""
        return sum(map(len, self._waiting.values()))

    @contextlib.contextmanager
    def coming(self, kind: Kind) -> Iterator[None]:
        """While a candidate of this kind is being prepared."""
        self._coming[kind] += 1
        self._all_came.setdefault(kind, asyncio.Event())
        try:
            yield
        finally:
            leaves(self._coming, kind)
            if kind not in self._coming:
                self._all_came.pop(kind).set()

    async def ask(self, pool: Pool, kind: Kind, job: Frame, order: Order) -> Frame:
        """The answer to a job of one candidate, from a worker on the first slot that it or another of its kind gets. Cancelling it
        kills the candidate; the others of its batch begin again. Raises VerifierError when workers die each time."""
        taking = asyncio.ensure_future(self._slots.take(order))
        member = _Member(job, asyncio.get_running_loop().create_future(), taking)
        self._waiting.setdefault(kind, []).append(member)
        try:
            await asyncio.wait((taking,))
            if not taking.cancelled():
                if member.batch is None:
                    self._lead(pool, kind, member, taking.result())
                else:  # another took it along in the very moment
                    self._return(member)
            return await member.answer
        except asyncio.CancelledError:
            await self._leave(kind, member)
            raise

    def _lead(self, pool: Pool, kind: Kind, member: _Member, slot: Cores) -> None:
        member.batch, member.slot_settled = _Batch(), True
        self._leaders[kind] += 1
        self._join(kind, member, member.batch)
        task = asyncio.ensure_future(self._verify(pool, kind, member.batch, slot))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _join(self, kind: Kind, member: _Member, batch: _Batch) -> None:
        member.batch = batch
        batch.members.append(member)
        self._drop(kind, member)
        member.taking.cancel()  # if it still waits for a slot of its own

    def _return(self, member: _Member) -> None:
        """A slot that came although it is not needed any more."""
        if member.taking.done() and not member.taking.cancelled() and not member.slot_settled:
            member.slot_settled = True
            self._slots.put_back(member.taking.result())

    def _drop(self, kind: Kind, member: _Member) -> None:
        waiting = self._waiting.get(kind, [])
        if member in waiting:
            waiting.remove(member)
        if not waiting:
            self._waiting.pop(kind, None)

    async def _leave(self, kind: Kind, member: _Member) -> None:
        answered = member.answer.done() and not member.answer.cancelled()
        member.answer.cancel()
        self._drop(kind, member)
        self._return(member)
        if member.batch is None:
            member.taking.cancel()
        elif member.batch.asking is not None and not answered:
            member.batch.asking.cancel()
            await asyncio.wait((member.batch.asking,))

    async def _verify(self, pool: Pool, kind: Kind, batch: _Batch, slot: Cores) -> None:
        busy = False

        def tell(answer: Frame) -> None:
            nonlocal busy
            busy |= answer.get("raised") == "MachineBusy"
            member = asked[answer["number"]] if "number" in answer else None
            for one in asked if member is None else [member]:
                if not one.answer.done():
                    one.answer.set_result(answer)

        try:
            if kind in self._all_came:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._all_came[kind].wait(), WAIT_S)
            waiting = self._waiting.get(kind, [])
            share = min(MOST_TOGETHER - 1, math.ceil(len(waiting) / self._leaders[kind]))  # slots that are free have theirs
            leaves(self._leaders, kind)
            for other in fitting(waiting[:share], batch.members):
                self._join(kind, other, batch)
            while asked := [member for member in batch.members if not member.answer.done()]:
                if any(member.deaths for member in asked):  # one of them may be what kills workers
                    asked = asked[:1]
                job = {**asked[0].job, "candidates": [candidate for one in asked for candidate in one.job["candidates"]]}
                batch.asking = asyncio.ensure_future(pool.ask(slot, job, tell))
                await asyncio.wait((batch.asking,))
                if batch.asking.cancelled():  # one of them left
                    continue
                error = batch.asking.exception()
                for one in asked:
                    if one.answer.done():
                        continue
                    one.deaths += isinstance(error, HelperDied)
                    if not isinstance(error, HelperDied):
                        one.answer.set_exception(error or _unanswered())
                    elif one.deaths == ATTEMPTS:
                        one.answer.set_exception(given_up(error))
        finally:
            self._slots.give_back(slot, busy=busy)


def leaves(counted: Counter[Kind], kind: Kind) -> None:
    counted[kind] -= 1
    if not counted[kind]:
        del counted[kind]


def fitting(waiting: Sequence[_Member], members: Sequence[_Member]) -> list[_Member]:
    """Those whose sources fit into one frame beside the members'."""
    found, size = [], sum(map(_size, members))
    for one in waiting:
        size += _size(one)
        if size > _MOST_CHARACTERS:
            break
        found.append(one)
    return found


def _size(member: _Member) -> int:
    return sum(len(candidate["code"]) for candidate in member.job["candidates"] if isinstance(candidate, dict))


def given_up(error: HelperDied) -> VerifierError:
    """They died each time: the candidate may be what kills them."""
    return VerifierError(f"{error}, {ATTEMPTS} times in a row; the turn stays unscored")


def _unanswered() -> VerifierError:
    return VerifierError("a verification ended without a verdict")

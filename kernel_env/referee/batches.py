"""Candidates of one problem that wait for a slot at the same time are verified together: they share the baseline's times."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kernel_env.errors import VerifierError
from kernel_env.referee.pool import ATTEMPTS, Cores, HelperDied, Pool
from kernel_env.referee.protocol import Frame
from kernel_env.referee.slots import Order, Slots

MOST_TOGETHER = 16
WAIT_S = 0.25
"""So long a slot waits for candidates of the same kind that are being checked and built: a baseline of its own costs more."""


@dataclass(frozen=True)
class Kind:
    """What candidates must have in common to be verified together."""

    backend: str
    problem: str
    config: Any
    seed: int
    priority: int


@dataclass(eq=False)
class _Member:
    job: Frame
    answer: asyncio.Future[Frame]
    taking: asyncio.Future[Cores]
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
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def coming(self, kind: Kind) -> Iterator[None]:
        """While a candidate of this kind is being prepared."""
        self._coming[kind] += 1
        self._all_came.setdefault(kind, asyncio.Event())
        try:
            yield
        finally:
            self._coming[kind] -= 1
            if not self._coming[kind]:
                del self._coming[kind]
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
                    self._slots.give_back(taking.result())
            return await member.answer
        except asyncio.CancelledError:
            await self._leave(kind, member)
            raise

    def _lead(self, pool: Pool, kind: Kind, member: _Member, slot: Cores) -> None:
        member.batch = _Batch()
        self._join(kind, member, member.batch)
        task = asyncio.ensure_future(self._verify(pool, kind, member.batch, slot))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _join(self, kind: Kind, member: _Member, batch: _Batch) -> None:
        member.batch = batch
        batch.members.append(member)
        self._drop(kind, member)
        member.taking.cancel()  # if it still waits for a slot of its own

    def _drop(self, kind: Kind, member: _Member) -> None:
        waiting = self._waiting.get(kind, [])
        if member in waiting:
            waiting.remove(member)
        if not waiting:
            self._waiting.pop(kind, None)

    async def _leave(self, kind: Kind, member: _Member) -> None:
        member.answer.cancel()
        self._drop(kind, member)
        if member.batch is None:
            if member.taking.done() and not member.taking.cancelled():
                self._slots.give_back(member.taking.result())
            member.taking.cancel()
        elif member.batch.asking is not None:
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
            for other in self._waiting.get(kind, [])[: MOST_TOGETHER - 1]:
                self._join(kind, other, batch)
            deaths = 0
            while asked := [member for member in batch.members if not member.answer.done()]:
                job = {**asked[0].job, "candidates": [candidate for one in asked for candidate in one.job["candidates"]]}
                batch.asking = asyncio.ensure_future(pool.ask(slot, job, tell))
                await asyncio.wait((batch.asking,))
                if batch.asking.cancelled():  # one of them left
                    continue
                error = batch.asking.exception()
                if isinstance(error, HelperDied) and (deaths := deaths + 1) < ATTEMPTS:
                    continue
                for one in asked:
                    if not one.answer.done():
                        one.answer.set_exception(given_up(error) if isinstance(error, HelperDied) else error or _unanswered())
        finally:
            self._slots.give_back(slot, busy=busy)


def given_up(error: HelperDied) -> VerifierError:
    """They died each time: the candidate may be what kills them."""
    return VerifierError(f"{error}, {ATTEMPTS} times in a row; the turn stays unscored")


def _unanswered() -> VerifierError:
    return VerifierError("a verification ended without a verdict")

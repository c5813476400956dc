"""Slots of cores: who gets which, and when one is left to rest."""

from __future__ import annotations

import asyncio

import pytest

from kernel_env.referee import slots as module
from kernel_env.referee.slots import FIRST_REST_S, LONGEST_REST_S, Slots

ONE, TWO = (0,), (1,)


class Resting:
    """Slots under a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slots = Slots([ONE, TWO], lambda: self.now)

    async def next(self, *, busy: bool = False) -> tuple[int, ...]:
        slot = await asyncio.wait_for(self.slots.take(), 5.0)
        self.slots.give_back(slot, busy=busy)
        return slot


def test_a_slot_that_other_work_has_rests_while_another_is_quiet() -> None:
    async def scenario() -> None:
        resting = Resting()
        assert await resting.next(busy=True) == ONE
        assert [await resting.next() for _ in range(3)] == [TWO] * 3
        two = await resting.slots.take()
        waiting = asyncio.create_task(resting.slots.take())  # for the quiet one, although the other is free
        await asyncio.sleep(0.01)
        assert not waiting.done()
        resting.slots.give_back(two, busy=False)
        assert await waiting == TWO
        resting.now = FIRST_REST_S
        assert await resting.next() == ONE

    asyncio.run(scenario())


def test_who_waits_for_a_slot_gets_it_when_its_rest_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_REST_S", 0.05)

    async def scenario() -> None:
        slots = Slots([ONE, TWO])
        slots.give_back(await slots.take(), busy=True)
        assert await slots.take() == TWO
        assert await asyncio.wait_for(slots.take(), 30.0) == ONE

    asyncio.run(scenario())


def test_each_time_in_a_row_a_slot_rests_twice_as_long() -> None:
    async def scenario() -> None:
        resting = Resting()
        for times in (1, 2, 4, 8, LONGEST_REST_S / FIRST_REST_S, LONGEST_REST_S / FIRST_REST_S):
            assert await resting.next(busy=True) == ONE
            resting.now += times * FIRST_REST_S - 1
            assert await resting.next() == TWO
            resting.now += 1
        assert await resting.next() == ONE  # a quiet time: it starts anew
        assert await resting.next() == TWO
        assert await resting.next(busy=True) == ONE
        resting.now += FIRST_REST_S
        assert {await resting.next() for _ in range(2)} == {ONE, TWO}

    asyncio.run(scenario())


def test_where_all_slots_rest_all_are_tried() -> None:
    async def scenario() -> None:
        resting = Resting()
        assert {await resting.next(busy=True) for _ in range(2)} == {ONE, TWO}
        assert {await resting.next(busy=True) for _ in range(2)} == {ONE, TWO}
        assert resting.now == 0.0

    asyncio.run(scenario())


def test_slots_are_given_in_the_order_in_which_they_were_asked_for() -> None:
    async def scenario() -> None:
        slots, order = Slots([ONE]), list[int]()

        async def asking(number: int) -> None:
            slot = await slots.take()
            order.append(number)
            await asyncio.sleep(0)
            slots.give_back(slot, busy=False)

        await asyncio.gather(*map(asking, range(20)))
        assert order == list(range(20))

    asyncio.run(scenario())

"""Slots of cores: who gets which, and when one is left to rest."""

from __future__ import annotations

import asyncio

import pytest

from kernel_env.referee import slots as module
from kernel_env.referee.slots import FIRST_REST_S, LONGEST_REST_S, Order, Slots

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


def served(orders: list[Order]) -> list[Order]:
    """In which order those are served who wait while the only slot is taken."""

    async def scenario() -> list[Order]:
        slots, came = Slots([ONE]), list[Order]()
        taken = await slots.take()

        async def asking(order: Order) -> None:
            slot = await slots.take(order)
            came.append(order)
            slots.give_back(slot)

        waiting = [asyncio.create_task(asking(order)) for order in orders]
        await asyncio.sleep(0)
        slots.give_back(taken)
        await asyncio.gather(*waiting)
        return came

    return asyncio.run(scenario())


def test_a_higher_priority_comes_first() -> None:
    low, high = Order(priority=-1), Order(priority=5)
    assert served([low, Order(), high, low, high]) == [high, high, Order(), low, low]


def test_a_client_with_many_does_not_keep_out_one_with_few() -> None:
    many, few = Order(client="many"), Order(client="few")
    assert served([many] * 5 + [few] * 2) == [many, few, many, few, many, many, many]


def test_who_is_cancelled_while_waiting_takes_no_slot() -> None:
    async def scenario() -> None:
        slots = Slots([ONE])
        taken = await slots.take()
        early, late = (asyncio.create_task(slots.take()) for _ in range(2))
        await asyncio.sleep(0)
        early.cancel()
        slots.give_back(taken)
        assert await asyncio.wait_for(late, 5.0) == ONE
        served = asyncio.create_task(slots.take())
        await asyncio.sleep(0)
        slots.give_back(ONE)
        served.cancel()  # it has the slot, and has not seen it yet
        with pytest.raises(asyncio.CancelledError):
            await served
        assert await asyncio.wait_for(slots.take(), 5.0) == ONE

    asyncio.run(scenario())

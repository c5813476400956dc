"""Who gets the next slot, and which one: sets of cores to verify on, or places to build in."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

FIRST_REST_S, LONGEST_REST_S = 60.0, 960.0
"""How long a slot is left alone whose cores other work has."""
_MOST_CLIENTS = 1000
"""So many are remembered when they do not wait."""

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Order:
    """When a verification comes: a higher priority first; then the client that waited longest since it was last served, so that one
    with a thousand candidates does not keep out one with three; then as they came."""

    priority: int = 0
    client: str = ""


ORDINARY = Order()


@dataclass(eq=False)
class _Waiter(Generic[S]):
    order: Order
    slot: asyncio.Future[S]


class Slots(Generic[S]):
    """The free ones, and who waits for one.

    One whose cores other work has is left to rest, as long as not all of them are: no verification waits for it. `now` gives
    seconds, as `time.monotonic` does.
    """

    def __init__(self, slots: Sequence[S], now: Callable[[], float] = time.monotonic) -> None:
        self._free, self._now = list(slots), now
        self._rests_until = dict.fromkeys(slots, -math.inf)
        self._rest_s = dict.fromkeys(slots, FIRST_REST_S)
        self._waiting: list[_Waiter[S]] = []
        self._served: dict[str, int] = {}
        """When each client had its last slot, by a count of slots given."""
        self._count = 0
        self._rest_ends: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._rests_until)

    @property
    def taken(self) -> int:
        return len(self) - len(self._free)

    @property
    def waiting(self) -> int:
        """How many want one."""
        return sum(not waiter.slot.done() for waiter in self._waiting)

    async def take(self, order: Order = ORDINARY) -> S:
        """The caller gives it back. Whoever is cancelled while waiting has taken none."""
        waiter = _Waiter[S](order, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._serve()
        try:
            return await waiter.slot
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif waiter.slot.done() and not waiter.slot.cancelled():  # it came in the very moment
                self._free.append(waiter.slot.result())
            self._serve()
            raise

    def give_back(self, slot: S, *, busy: bool = False) -> None:
        """`busy`: no time could be taken there. Each time in a row it rests twice as long."""
        self._rests_until[slot] = self._now() + self._rest_s[slot] if busy else -math.inf
        self._rest_s[slot] = min(2 * self._rest_s[slot], LONGEST_REST_S) if busy else FIRST_REST_S
        self._free.append(slot)
        self._serve()

    def put_back(self, slot: S) -> None:
        """One that was not used: nothing was learned of its cores."""
        self._free.append(slot)
        self._serve()

    def _serve(self) -> None:
        """Give free slots to those who wait, as long as there are both."""
        if self._rest_ends is not None:
            self._rest_ends.cancel()
            self._rest_ends = None
        self._waiting = [waiter for waiter in self._waiting if not waiter.slot.done()]  # some are cancelled, and do not know it yet
        while self._waiting and self._free:
            left_s = {slot: until - self._now() for slot, until in self._rests_until.items()}
            found = next((slot for slot in self._free if left_s[slot] <= 0 or min(left_s.values()) > 0), None)
            if found is None:  # all that are free rest, and others will be free
                soonest_s = min(left_s[slot] for slot in self._free)
                self._rest_ends = asyncio.get_running_loop().call_later(soonest_s, self._serve)
                return
            self._free.remove(found)
            self._next().slot.set_result(found)

    def _next(self) -> _Waiter[S]:
        waiter = min(self._waiting, key=lambda waiter: (-waiter.order.priority, self._served.get(waiter.order.client, -1)))
        self._waiting.remove(waiter)
        self._count += 1
        self._served.pop(waiter.order.client, None)  # so that the oldest comes first
        self._served[waiter.order.client] = self._count
        if len(self._served) > _MOST_CLIENTS:
            del self._served[next(iter(self._served))]
        return waiter

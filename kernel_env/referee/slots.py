"""Which slot of cores the next verification gets."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Sequence

from kernel_env.referee.pool import Cores

FIRST_REST_S, LONGEST_REST_S = 60.0, 960.0
"""How long a slot is left alone whose cores other work has."""


class Slots:
    """The free ones. One whose cores other work has is left to rest, as long as not all of them are: no verification waits for it.

    `now` gives seconds, as `time.monotonic` does.
    """

    def __init__(self, slots: Sequence[Cores], now: Callable[[], float] = time.monotonic) -> None:
        self._free, self._now = list(slots), now
        self._rests_until = dict.fromkeys(slots, -math.inf)
        self._rest_s = dict.fromkeys(slots, FIRST_REST_S)
        self._line, self._changed = asyncio.Lock(), asyncio.Event()

    def __len__(self) -> int:
        return len(self._rests_until)

    async def take(self) -> Cores:
        """Who came first is served first."""
        async with self._line:
            while True:
                self._changed.clear()
                left_s = {slot: until - self._now() for slot, until in self._rests_until.items()}
                found = [slot for slot in self._free if left_s[slot] <= 0 or min(left_s.values()) > 0]
                if found:
                    self._free.remove(found[0])
                    return found[0]
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min((left_s[slot] for slot in self._free), default=None)):
                        await self._changed.wait()

    def give_back(self, slot: Cores, *, busy: bool) -> None:
        """`busy`: no time could be taken there. Each time in a row it rests twice as long."""
        self._rests_until[slot] = self._now() + self._rest_s[slot] if busy else -math.inf
        self._rest_s[slot] = min(2 * self._rest_s[slot], LONGEST_REST_S) if busy else FIRST_REST_S
        self._free.append(slot)
        self._changed.set()

"""Random choices that nobody can foresee, even who has seen all earlier ones."""

from __future__ import annotations

import os
import random
from typing import Any

_AT_A_TIME = 1 << 16


class Secret(random.SystemRandom):
    """The system's generator, asked for many bytes at a time: a call of the system for each number takes twice as long as the
    number. Not for a process that forks: both would go on alike."""

    def __init__(self, *args: Any) -> None:
        self._bytes, self._used = b"", 0
        super().__init__(*args)

    def getrandbits(self, k: int, /) -> int:
        if k < 0:
            raise ValueError("the number of bits must be non-negative")
        count = (k + 7) // 8
        if self._used + count > len(self._bytes):
            self._bytes, self._used = os.urandom(max(_AT_A_TIME, count)), 0
        start, self._used = self._used, self._used + count
        return int.from_bytes(self._bytes[start : self._used], "big") >> (count * 8 - k)

"""What the cores of a slot can do at most: measured once for a machine, and kept in the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kernel_env.referee.notes import Notes
from kernel_env.referee.process import Endpoint, RunnerDied, RunnerTimeout
from kernel_env.roofline import Peaks, hardware

_VERSION = 1
LIMIT_S = 60.0


class PeaksOf:
    """So many cores of this machine."""

    def __init__(self, cache_dir: Path, cores: int) -> None:
        self._notes, self._cores = Notes(cache_dir, "peaks"), cores
        self._known: dict[str, Peaks | None] = {}

    def of(self, precision: str, opened: Callable[[], Endpoint]) -> Peaks | None:
        """Measured in a new runner, if need be; nothing else may run on the cores then. None where that fails: no verdict hangs on
        it."""
        precision = precision or "fp32"
        if precision not in self._known:
            key = self._notes.key(_VERSION, hardware(), self._cores, precision)
            self._known[precision] = self._notes.read(key, _parsed) or self._measured(key, precision, opened)
        return self._known[precision]

    def _measured(self, key: str, precision: str, opened: Callable[[], Endpoint]) -> Peaks | None:
        try:
            with contextlib.closing(opened()) as runner:
                found = _parsed(runner.request({"op": "peaks", "precision": precision}, (), LIMIT_S))
        except (RunnerDied, RunnerTimeout, KeyError):  # it died, took too long, or had not the memory
            return None
        self._notes.write(key, asdict(found))
        return found


def _parsed(found: Any) -> Peaks:
    return Peaks(float(found["flops_s"]), tuple((int(size), float(rate)) for size, rate in found["bytes_s"]))

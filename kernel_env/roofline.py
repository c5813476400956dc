"""What a machine can do at most, and how long a problem's work would take it then. Williams et al., "Roofline", CACM 2009.

For reports only: better algebra beats a count of operations, so no limit of the referee hangs on it.
"""

from __future__ import annotations

import functools
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Work:
    """Of one call of a reference."""

    flops: int
    """Of its products, convolutions and attention, a multiplication and an addition being two; elementwise work counts nothing."""
    bytes: int
    """Of its inputs, its state and its outputs, each touched once."""


@dataclass(frozen=True)
class Peaks:
    """Of some cores, or a device."""

    flops_s: float
    bytes_s: tuple[tuple[int, float], ...]
    """Bytes a second by the size of what is touched, in bytes, the smallest first: small things lie in caches."""

    def least_ms(self, work: Work) -> float:
        """A size between two measured ones is as fast as the smaller of them, and none is slower than a larger one."""
        smaller = max((size for size, _ in self.bytes_s if size <= work.bytes), default=0)
        rate = max(rate for size, rate in self.bytes_s if size >= smaller)
        return max(work.flops / self.flops_s, work.bytes / rate) * 1e3


@functools.cache
def hardware() -> str:
    """The processor that kernels are timed on here, in its own words."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"

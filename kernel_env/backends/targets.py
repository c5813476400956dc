"""GPUs that kernels can be compiled for on any machine: `cuda:90`, `hip:gfx942`, ..."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from kernel_env.errors import ConfigError

_NAME = re.compile(r"cuda:(\d{2,3})|hip:(gfx[0-9a-f]{3,5})")
_SHARED_BYTES = {
    "80": 166_912, "86": 101_376, "87": 166_912, "89": 101_376, "90": 232_448, "100": 232_448, "103": 232_448, "120": 101_376,
    "gfx90a": 65_536, "gfx942": 65_536, "gfx950": 163_840, "gfx1100": 65_536, "gfx1200": 65_536,
}  # fmt: skip
"""What one block may use: CUDA C++ Programming Guide, table of technical specifications, less the 1 KB that the system takes; AMD's
CDNA and RDNA instruction set references."""
_PROCESSORS = {"80": 108, "90": 132, "100": 148, "gfx942": 304, "gfx950": 256}
KNOWN = ("cuda:80", "cuda:90", "cuda:100", "hip:gfx942", "hip:gfx950")

CUDA_TARGETS = ("cuda:90",)
"""What CUDA sources are compiled for where nothing else is asked."""


@dataclass(frozen=True)
class Target:
    vendor: str
    """`cuda` or `hip`."""
    arch: str
    """`90`, `gfx942`, ..."""

    @property
    def name(self) -> str:
        return f"{self.vendor}:{self.arch}"

    @property
    def warp(self) -> int:
        return 32 if self.vendor == "cuda" or self.arch.startswith("gfx1") else 64

    @property
    def shared_bytes(self) -> int | None:
        """That one block may use; None where it is not known."""
        return _SHARED_BYTES.get(self.arch)

    @property
    def processors(self) -> int:
        return _PROCESSORS.get(self.arch, 100)


def target(name: str) -> Target:
    """Raises ConfigError."""
    match = _NAME.fullmatch(name)
    if match is None:
        near = difflib.get_close_matches(name, KNOWN, n=1)
        hint = f"did you mean {near[0]}?" if near else f"such as {', '.join(KNOWN)}"
        raise ConfigError(f"{name!r} is no target to compile for: {hint}")
    return Target("cuda", match[1]) if match[1] else Target("hip", match[2])

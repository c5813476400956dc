"""NVIDIA's assembler, as Triton brings it: turns PTX into machine code, and says what a kernel uses of a GPU. Needs no GPU."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from kernel_env.errors import BuilderError

_SPILLS = re.compile(r"(\d{1,9}) bytes spill stores, (\d{1,9}) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d{1,9}) registers")


@dataclass(frozen=True)
class Assembled:
    """Of one kernel."""

    ok: bool
    registers: int = 0
    """A thread's."""
    spilled_bytes: int = 0
    """Of registers that had no room, stored and loaded again."""
    log: str = ""
    """The assembler's own words, when not ok."""


def ptxas(arch: str) -> Path:
    """The program for this compute capability. Raises BuilderError."""
    triton = importlib.util.find_spec("triton")
    for home in (triton.submodule_search_locations or []) if triton else []:
        path = Path(home, "backends/nvidia/bin", "ptxas-blackwell" if int(arch) >= 100 else "ptxas")
        if path.is_file():
            return path
    raise BuilderError("compiling for CUDA ahead of time needs ptxas, which the Python package triton brings: pip install triton")


def command(arch: str, source: str, target: str) -> list[str]:
    """As Triton calls it, without debug information."""
    name = f"sm_{arch}a" if int(arch) >= 90 else f"sm_{arch}"
    return [str(ptxas(arch)), "-v", "--regAllocOptLevel=2", f"--gpu-name={name}", source, "-o", target]


def read(log: str) -> Assembled:
    """What it said of a kernel that it took."""
    registers = [int(found[1]) for found in _REGISTERS.finditer(log)]
    spills = [int(found[1]) + int(found[2]) for found in _SPILLS.finditer(log)]
    return Assembled(True, max(registers, default=0), max(spills, default=0))

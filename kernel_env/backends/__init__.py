"""Back ends: the languages that candidates are written in, behind one protocol.

A back end says how its candidates are checked and how they run on this machine. `cpp` is inline C++ through `load_inline`, built
by the Builder and really timed on the CPU. `triton` runs in Triton's interpreter where there is no GPU: correctness only. `cuda` is
inline CUDA C++: it is compiled by nvcc, which needs no GPU, and goes no further in this version.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from kernel_env.checks.static import check_cpp, check_cuda, check_triton
from kernel_env.cuda import nvcc
from kernel_env.errors import ConfigError

Flavour = Literal["plain", "interpret"]
"""Which zygote runners are forked from: `interpret` has Triton's interpreter switched on before Triton is imported."""


@dataclass(frozen=True)
class Backend:
    """One language."""

    name: str
    check: Callable[[str, str], str | None]
    """(source, entry class) -> why it is rejected before anything is built, in one sentence, or None."""
    flavour: Flavour
    builds: bool
    """Whether candidates call a compiler when they are imported, so that they are imported once ahead, off the device."""
    timed: bool
    """Whether times mean anything here."""
    profile: str
    """The size profile that fits where it runs here."""
    requires: tuple[str, ...]
    """Python modules without which it cannot run."""
    device: str = ""
    """`cuda`: its kernels need a GPU to run, and are compiled only."""

    def missing(self) -> str | None:
        """Why this back end cannot run here, or None. Imports nothing."""
        if self.device == "cuda" and nvcc() is None:
            return "needs nvcc: install the CUDA toolkit, or set CUDA_HOME to where it is"
        absent = [m for m in self.requires if importlib.util.find_spec(m) is None]
        return f"needs the Python package {' and '.join(absent)}: run `pip install {' '.join(absent)}`" if absent else None


BACKENDS = {
    "cpp": Backend("cpp", check_cpp, flavour="plain", builds=True, timed=True, profile="cpu", requires=("torch",)),
    "triton": Backend(
        "triton", check_triton, flavour="interpret", builds=False, timed=False, profile="interpret", requires=("torch", "triton")
    ),
    "cuda": Backend(
        "cuda", check_cuda, flavour="plain", builds=True, timed=False, profile="full", requires=("torch",), device="cuda"
    ),
}


def get_backend(name: str) -> Backend:
    """Raises ConfigError with the nearest name."""
    if name not in BACKENDS:
        near = difflib.get_close_matches(name, BACKENDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(BACKENDS)}"
        raise ConfigError(f"unknown back end {name!r}: {hint}")
    return BACKENDS[name]

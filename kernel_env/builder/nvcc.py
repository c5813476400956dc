"""CUDA's compiler: which flags a candidate may give it, how it is called, and what it says of kernels. Needs no GPU."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel_env import cuda
from kernel_env.errors import BuilderError

BASE_FLAGS = (
    "-std=c++20", "-O3", "-Xcompiler", "-fPIC", "--expt-relaxed-constexpr", "--expt-extended-lambda", "-Xptxas", "-v",
    "-D__CUDA_NO_HALF_OPERATORS__", "-D__CUDA_NO_HALF_CONVERSIONS__", "-D__CUDA_NO_BFLOAT16_CONVERSIONS__",
    "-D__CUDA_NO_HALF2_OPERATORS__", "-diag-suppress", "20012,20014,20208,174,177,550",
)  # fmt: skip
"""What torch gives it, too: without its own conversions of half precision, torch's count."""
HEAD = "#include <torch/types.h>\n#include <cuda.h>\n#include <cuda_runtime.h>\n"
"""Torch puts these before CUDA sources."""

_ALLOWED = re.compile(
    r"""
    --?( O[0-3] | use_fast_math | lineinfo | w | std=c\+\+\w+ | maxrregcount=\d+ | (ftz|fmad|prec-div|prec-sqrt)=(true|false)
       | extra-device-vectorization | restrict | default-stream=[\w-]+ | expt-(relaxed-constexpr|extended-lambda)
       | extended-lambda | D\w+(=[\w.+-]*)? | U\w+ )
    """,
    re.VERBOSE,
)
_ARCH = re.compile(r"--?(gencode|generate-code|arch|gpu-architecture|code|gpu-code)(=.*)?")
"""What to compile for is not the candidate's to choose."""
_PASSED = re.compile(r"--?(?P<to>Xptxas|ptxas-options|Xcompiler|compiler-options)(=(?P<value>.*))?")
_FOR_PTXAS = re.compile(
    r"-(O[0-3]|v|warn-spills|warn-lmem-usage)|-dlcm=c[agv]|--?(allow-expensive-optimizations=(true|false)|warn-\S+)"
)
_FOR_HOST = re.compile(
    r"-(O[0-3s]?|Ofast|fopenmp|fPIC|g|w|Wall|Wextra|Wno-[\w-]+|ffast-math|funroll-loops|march=native|mtune=native)"
)
_OLD = re.compile(r"--?std=c\+\+(03|11|14|17)")
"""An older C++ than torch's headers need."""

_ERROR = re.compile(r"^[^\s(][^(\n]*\(\d+\): error: .*$", re.MULTILINE)
_OF_TORCH = re.compile(r"torch|TORCH|\bat\b|\bAT_|[cC]10|Tensor")
_HOME = re.compile(r"^#\$ _HERE_=(/.*)$", re.MULTILINE)
_ENTRY = re.compile(r"Compiling entry function '([^'\n]{1,500})' for 'sm_(\d{1,9})a?'")
_SPILLS = re.compile(r"(\d{1,9}) bytes spill stores, (\d{1,9}) bytes spill loads")
_USED = re.compile(r"Used (\d{1,9}) registers(?:[^\n]*?, (\d{1,9}) bytes smem)?")
_MANGLED = re.compile(r"_ZN?(?:12_GLOBAL__N_1)?(\d{1,9})")


@dataclass(frozen=True)
class Toolkit:
    nvcc: str
    version: str
    home: Path


@dataclass(frozen=True)
class Resources:
    """What a kernel uses, by its compiler."""

    arch: str
    kernel: str
    registers: int
    spilled_bytes: int
    shared_bytes: int
    """Those that are known when it is compiled: not what a launch adds."""


@functools.cache
def toolkit() -> Toolkit:
    """Raises BuilderError."""
    path = cuda.nvcc()
    if path is None:
        raise BuilderError("nvcc is missing: install the CUDA toolkit, or set CUDA_HOME to where it is")
    try:
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
        tried = subprocess.run([path, "--dryrun", "-c", "none.cu"], capture_output=True, text=True, timeout=60).stderr
    except (OSError, subprocess.SubprocessError) as error:
        raise BuilderError(f"{path} --version fails, so it is no working compiler: {error}") from error
    found = _HOME.search(tried)  # what is on the path may be a script that calls the compiler elsewhere
    return Toolkit(path, version, Path(found[1] if found else Path(path).resolve().parent).parent)


def checked(flags: Sequence[str]) -> tuple[tuple[str, ...], str | None]:
    """Flags as they are used, and the first that is not allowed."""
    kept: list[str] = []
    words = iter(flags)
    for word in words:
        if (passed := _PASSED.fullmatch(word)) is not None:
            value = passed["value"] if passed["value"] is not None else next(words, "")
            host = passed["to"] in ("Xcompiler", "compiler-options")
            allowed = _FOR_HOST if host else _FOR_PTXAS
            parts = [part.strip("'\"") for part in value.split(",")]
            if not all(map(allowed.fullmatch, parts)):
                return (), f"{word} {value}".strip()
            kept += ["-Xcompiler" if host else "-Xptxas", ",".join(parts)]
        elif (arch := _ARCH.fullmatch(word)) is not None:
            if arch[2] is None:
                next(words, None)
        elif not _ALLOWED.fullmatch(word):
            return (), word
        elif not _OLD.fullmatch(word):
            kept.append(word)
    return tuple(kept), None


def command(
    tools: Toolkit, archs: Sequence[str], flags: Sequence[str], includes: Sequence[str], unit: str, target: str
) -> list[str]:
    chosen = [f"-gencode=arch=compute_{_name(arch)},code=sm_{_name(arch)}" for arch in archs]
    return [tools.nvcc, *BASE_FLAGS, *chosen, *includes, *flags, "-c", unit, "-o", target]


def _name(arch: str) -> str:
    return f"{arch}a" if int(arch) >= 90 else arch


def read(log: str) -> Iterator[Resources]:
    """Of what it printed. A source can have anything printed: this is for feedback only."""
    parts = _ENTRY.split(log)
    for name, arch, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        used, spills = _USED.search(rest), _SPILLS.search(rest)
        if used is not None:
            spilled = sum(map(int, spills.groups())) if spills else 0
            yield Resources(arch, _plain(name), int(used[1]), spilled, int(used[2] or 0))


def is_own_error(log: str) -> bool:
    """Whether what it first complained of has nothing to do with torch, so that with other headers it would say the same."""
    first = _ERROR.search(log)
    return first is not None and not _OF_TORCH.search(first[0])


def without_resources(log: str) -> str:
    """The rest of what it printed."""
    lines = (line for line in log.splitlines(keepends=True) if not line.startswith(("ptxas info", "    0 bytes gmem")))
    return "".join(line for line in lines if not re.match(r" +\d+ bytes stack frame", line))


def _plain(name: str) -> str:
    """The name in a mangled one."""
    found = _MANGLED.match(name)
    return name[found.end() : found.end() + int(found[1])] if found and int(found[1]) < 500 else name

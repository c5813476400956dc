"""What a result depends on besides the run's own files: packages, processor, compiler, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kernel_env.roofline import hardware

PACKAGES = ("kernel-env", "torch", "triton", "numpy", "gymnasium", "openai", "hydra-core")


def fingerprint() -> dict[str, object]:
    """Facts of this machine and installation, JSON values only. Names neither the host nor the user."""
    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": hardware(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus(),
        "compiler": _first_line(["g++", "--version"]),
        "commit": _commit(),
    }


@dataclass(frozen=True)
class Change:
    """One fact that differs: its dotted name, then and now."""

    name: str
    then: object
    now: object

    def __str__(self) -> str:
        return f"{self.name}: {self.then} -> {self.now}"


def changes(then: Mapping[str, object], now: Mapping[str, object], prefix: str = "") -> Iterator[Change]:
    """What differs between two fingerprints, in the order of the older one."""
    for key in {**then, **now}:
        a, b = then.get(key), now.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            yield from changes(a, b, f"{prefix}{key}.")
        elif a != b:
            yield Change(f"{prefix}{key}", a, b)


def gpus() -> list[str]:
    """Names and drivers as the vendor's tool prints them; empty without a GPU."""
    if not shutil.which("nvidia-smi"):
        return []
    out = _output(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])
    return [line.strip() for line in out.splitlines() if line.strip()]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of this checkout, with `+changes` when files differ from it. None for an installed wheel."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    head = _output(["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]).strip()
    return (head + ("+changes" if _output(["git", "-C", str(root), "status", "--porcelain", "-uno"]).strip() else "")) or None


def _first_line(command: list[str]) -> str | None:
    return (_output(command).splitlines() or [None])[0] if shutil.which(command[0]) else None  # type: ignore[list-item]


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""

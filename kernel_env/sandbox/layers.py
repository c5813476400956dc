"""The layers around a runner, what a plan of them holds, and the files that a runner may see."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from kernel_env.errors import ConfigError


class Layer(StrEnum):
    """In the order in which a runner puts them on."""

    USER = "user-namespace"
    PID = "pid-namespace"
    MOUNT = "mount-namespace"
    NET = "net-namespace"
    IPC = "ipc-namespace"
    UTS = "uts-namespace"
    UNPRIVILEGED = "unprivileged"
    LANDLOCK = "landlock"
    SECCOMP = "seccomp"


MEANING = {
    Layer.USER: "no right outside of the process itself; threads are counted",
    Layer.PID: "no other process is seen, and none outlives the first",
    Layer.MOUNT: "a file system of its own: the rest of the machine's is not there, and scratch is limited in size",
    Layer.NET: "no network, not even the loopback",
    Layer.IPC: "no shared memory, semaphores or message queues of others",
    Layer.UTS: "a host name of its own",
    Layer.UNPRIVILEGED: "not root, no capabilities",
    Layer.LANDLOCK: "reads system, interpreter and built extensions; writes scratch; nothing else",
    Layer.SECCOMP: "no processes, sockets, signals to others, tracing, affinity or priority changes",
}
"""What each keeps out of a runner, in a line."""
ALWAYS = ("process", "process-group", "rlimits", "closed-descriptors", "clean-environment")
"""What needs nothing of the machine."""
MODES = ("strict", "best_effort", "off")
NAMESPACES = {Layer.PID: 0x20000000, Layer.MOUNT: 0x20000, Layer.NET: 0x40000000, Layer.IPC: 0x08000000, Layer.UTS: 0x04000000}

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix", "/sys/devices/system")
SYSTEM_FILES = tuple(
    f"/etc/{name}"
    for name in ("alternatives", "group", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "nsswitch.conf", "passwd")
)  # fmt: skip
DEVICES = ("/dev/null", "/dev/full", "/dev/random", "/dev/urandom")
"""Not /dev/zero: a shared mapping of it is memory that no limit counts."""


@dataclass(frozen=True)
class Plan:
    """What is to stand around every runner of a zygote."""

    layers: tuple[Layer, ...] = ()
    readable: tuple[str, ...] = ()
    """Directories and files, besides the system's, that a runner may read."""
    scratch_bytes: int = 256 << 20
    """Size of a runner's scratch directory where it is a file system of its own."""
    threads: int = 512
    """Most threads of a runner, where it is not root and in a user namespace of its own."""

    def __contains__(self, layer: Layer) -> bool:
        return layer in self.layers

    def without(self, layer: Layer) -> Plan:
        return replace(self, layers=tuple(other for other in self.layers if other is not layer))


class LayerFailed(OSError):
    """A layer could not be put on: which, and why."""

    def __init__(self, layer: Layer, why: str) -> None:
        super().__init__(f"{layer}: {why}")
        self.layer, self.why = layer, why


@dataclass(frozen=True)
class Findings:
    """Which layers stand on this machine, and why the others do not."""

    standing: tuple[Layer, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.missing)

    def __str__(self) -> str:
        return "; ".join(f"{name} ({why})" for name, why in self.missing.items())


def wanted(mode: str, without: Iterable[str]) -> tuple[Layer, ...]:
    """The layers that a setting asks for. Raises ConfigError for an unknown mode or layer."""
    if mode not in MODES:
        raise ConfigError(f"verifier.sandbox must be one of {', '.join(MODES)}, got {mode!r}")
    names = [layer.value for layer in Layer]
    for name in without:
        if name not in names:
            raise ConfigError(f"verifier.sandbox_without: unknown layer {name!r}; the layers are {', '.join(names)}")
    return () if mode == "off" else tuple(layer for layer in Layer if layer not in set(without))


def interpreter_paths() -> tuple[str, ...]:
    """What the running interpreter imports from: its own files, directories of packages, and this package."""
    packages = (p for p in sys.path if Path(p).name in ("site-packages", "dist-packages"))
    paths = {sys.prefix, sys.base_prefix, sys.exec_prefix, *packages, str(Path(__file__).parents[1])}
    return outermost(os.path.realpath(p) for p in paths) + outermost(paths)


def outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Without those that lie below another."""
    chosen: list[str] = []
    for path in sorted(set(paths)):
        if not any(path == other or path.startswith(f"{other}/") for other in chosen):
            chosen.append(path)
    return tuple(chosen)

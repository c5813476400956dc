"""Runs one compiler process under limits and says how it ended, from exit statuses and not from what it printed."""

from __future__ import annotations

import contextlib
import math
import os
import re
import resource
import select
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from kernel_env.errors import BuilderError
from kernel_env.processes import oom_kills
from kernel_env.sandbox import Fence

LOG_BYTES = 64_000
_FREE_BYTES = 64 << 20
"""With less than this left on the disk, a compiler that gives up says nothing about the source."""

_GUARD = """
read -r go
exec 3<&0
"$@" </dev/null 3<&- &
compiler=$!
(read -r never <&3; kill -KILL 0) &
wait $compiler
"""
"""Shell: wait for a line (the limits are set), then run the compiler. Standard input is a lifeline: it closes when the builder
dies, however it dies, and then the whole process group goes, down to the last stage."""
_LOOK_S = 2.0
"""How often it is looked at what a compiler and all its stages have used."""
_MOST_DENIED = 8
_RECORDED = 'sh,-c,"$@"; code=$?; echo $code >>+statuses; exit $code,stage'
"""For GCC's -wrapper: write down how a stage ends. The driver itself reports a killed stage as an ordinary failure."""
_DIED = re.compile(
    r"""
    ^\S+:\ fatal\ error:\ (Killed|Terminated)\ signal\ terminated\ program\ 
  | ^collect2:\ fatal\ error:\ ld\ terminated\ with\ signal\ (9|15)\ 
  | ^nvcc\ error\ +:\ '[^'\n]{1,80}'\ died\ due\ to\ signal\ (9|15)\ 
    """,
    re.MULTILINE | re.VERBOSE,
)
"""What drivers say of a killed program whose end nobody wrote down: such a shell, the assembler in a pipe, the linker, a stage of
CUDA's compiler. A source can print the same, but then it does so each time."""
_DIAGNOSTIC = re.compile(
    r"""
    ^[^\s:][^:\n]*:(\d+:)+(\ fatal)?\ [Ee]rror:\  | ^[^\s:][^:\n]*:\ error:\ 
  | ^ptxas\ ([^\n]*,\ line\ \d+;\ )?(error|fatal)\ *:\  | ^[^\s(][^(\n]*\(\d+\):\ (catastrophic\ )?error
    """,
    re.MULTILINE | re.VERBOSE,
)
"""A complaint about the source or a flag (GCC's `fatal error` counts only with a line: without one it is about the machine)."""
_DENIED = re.compile(r"fatal error: (?P<path>/[^\n]*): Permission denied$", re.MULTILINE)
"""A header, or a file that `__has_include` asks for: the source's fault only if the file is none of ours. (A source can have any
line printed, so it is seen for oneself whether that is true.)"""


@dataclass(frozen=True)
class Limits:
    """What one compiler process may use, and what all of a build may. A template bomb ends alike on a busy machine and an idle one:
    this is processor time."""

    cpu_s: int = 120
    memory_bytes: int = 6 << 30
    file_bytes: int = 128 << 20
    """Objects of torch extensions have 1 to 10 MB."""
    build_cpu_s: int = 240
    build_s: int = 1800
    """A build that takes so long and has not used its processor time is kept from it by the machine, not by its source."""
    build_bytes: int = 256 << 20
    """Of all files in its working directory, looked at after each unit."""

    def __str__(self) -> str:
        memory, file = self.memory_bytes / 2**30, self.file_bytes / 2**20
        return (
            f"{self.cpu_s} s of processor time, {memory:.3g} GiB of memory or files of {file:.4g} MiB "
            f"(in all {self.build_cpu_s} s and {self.build_bytes / 2**20:.4g} MiB)"
        )


@dataclass
class Spent:
    """What the compilers of one build have used so far."""

    cpu_s: float = 0.0
    wall_s: float = 0.0
    """While they ran: waiting for cores does not count."""


class End(StrEnum):
    OK = "ok"
    REFUSED = "refused"
    """The compiler complained about the source or its flags."""
    LIMITS = "limits"
    """It used up its limits."""


@dataclass(frozen=True)
class Outcome:
    """One compiler run: how it ended, and the first part of what it printed."""

    end: End
    log: str


def run(
    command: list[str],
    work: Path,
    limits: Limits,
    readable: tuple[str, ...],
    *,
    spent: Spent | None = None,
    headers: tuple[str, ...] = (),
    staged: bool = True,
) -> Outcome:
    """Run `command` in `work`, which holds all its temporary files. With `staged` it is GCC's driver and its arguments, and how
    each of its stages ends is looked at.

    It writes nowhere else, and reads the system's files and those below `readable` only: a source can name any file. What it uses
    is added to `spent`.

    Raises BuilderError when it cannot be started, was killed by someone else, may not read one of `headers` (directories), or the
    disk is full.
    """
    killed, spent = oom_kills(), spent or Spent()
    end, statuses, text = _tried(command, work, limits, readable, spent, staged=staged)
    if end is None and statuses[0] and _DIED.search(text):
        end, statuses, text = _tried(command, work, limits, readable, spent, staged=staged)
        if end is None and statuses[0] and _DIED.search(text) and oom_kills() > killed:
            raise BuilderError("the compiler was killed for want of memory; nothing is said about the source")
    if end is None:
        end = _ended(command[0], statuses, text, shutil.disk_usage(work).free, readable, headers)
    return Outcome(end if _size(work) <= limits.build_bytes else End.LIMITS, text)


def _tried(
    command: list[str], work: Path, limits: Limits, readable: tuple[str, ...], spent: Spent, *, staged: bool
) -> tuple[End | None, list[int], str]:
    """How it ended, where that was its budget; the driver's status and those of its stages, and the first part of what they
    printed."""
    left_s = limits.build_cpu_s - spent.cpu_s
    if left_s < 1:
        return End.LIMITS, [1], ""
    (work / "+statuses").write_text("")
    environment = {"PATH": f"{Path(command[0]).parent}:/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(work), "LC_ALL": "C.UTF-8"}
    wrapper = ["-wrapper", _RECORDED] if staged else []
    guarded = ["/bin/sh", "-c", _GUARD, "guard", command[0], *wrapper, *command[1:]]
    with open(work / "+log", "wb") as log, Fence(readable, str(work)) as fence:
        process = subprocess.Popen(
            guarded,
            cwd=work,
            env=environment,
            stdin=subprocess.PIPE,
            bufsize=0,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=fence.enter,  # two system calls, and nothing that takes a lock
        )
    assert process.stdin is not None
    started, used_s = time.monotonic(), 0.0
    with process.stdin as lifeline:
        try:
            _limit(process.pid, replace(limits, cpu_s=min(limits.cpu_s, math.ceil(left_s))))
            with contextlib.suppress(BrokenPipeError):  # it is dead already, and its status says why
                lifeline.write(b"go\n")
            ended = False
            while not ended and used_s <= left_s and spent.wall_s + time.monotonic() - started <= limits.build_s:
                ended = _ends(process.pid, _LOOK_S)
                used_s = max(used_s, _used_s(process.pid))
        finally:  # also after an interrupt, and after the death of one whose stages live on
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            spent.cpu_s += used_s
            spent.wall_s += time.monotonic() - started
    with open(work / "+log", "rb") as printed:
        text = printed.read(LOG_BYTES).decode(errors="replace")
    if not ended and used_s <= left_s:
        used = f"{spent.cpu_s:.0f} s of processor time in {spent.wall_s:.0f} s"
        raise BuilderError(f"a build came to no more than {used}: is this machine overloaded?")
    statuses = [process.returncode, *map(int, (work / "+statuses").read_text().split())]
    return None if ended else End.LIMITS, statuses, text


def _ends(pid: int, within_s: float) -> bool:
    """Wait for the end of a child, which stays a zombie; False if it lives on."""
    watch = os.pidfd_open(pid)
    try:
        return bool(select.select([watch], [], [], within_s)[0])
    finally:
        os.close(watch)


def _used_s(session: int) -> float:
    """Processor time of the processes of a session, and of those that they have waited for."""
    ticks = 0
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):  # it has ended meanwhile
                # what follows the name, which may hold anything: state, parent, group, session, ...
                fields = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[3]) == session:
                    ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _size(work: Path) -> int:
    """Bytes that the files of a directory take on the disk."""
    total = 0
    for path in work.iterdir():
        with contextlib.suppress(OSError):  # a temporary file of a stage that was killed just now
            total += path.stat().st_blocks * 512
    return total


def _is_ours(path: str, headers: tuple[str, ...]) -> bool:
    """Whether a header really lies below such a directory: a source can name a link that leads out of what it may read, or a
    file of the system that only root may read, and neither is a failure of the machine."""
    try:
        real = Path(os.path.realpath(path))
    except (OSError, ValueError):
        return False
    return any(real.is_relative_to(os.path.realpath(own)) for own in headers)


def _is_denied(path: Path, readable: tuple[str, ...]) -> bool:
    """Whether a compiler may not open that file."""
    if not path.is_file():
        return False
    with Fence(readable, os.devnull) as fence:
        opening = ["/bin/sh", "-c", ': < "$1"', "opening", str(path)]
        return subprocess.run(opening, stderr=subprocess.DEVNULL, preexec_fn=fence.enter).returncode != 0


def _limit(pid: int, limits: Limits) -> None:
    for kind, value, grace in (
        (resource.RLIMIT_CPU, limits.cpu_s, 5),  # SIGXCPU, and SIGKILL only for what survives it
        (resource.RLIMIT_AS, limits.memory_bytes, 0),
        (resource.RLIMIT_FSIZE, limits.file_bytes, 0),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        most = resource.prlimit(pid, kind)[1]
        allowed = [v if most == resource.RLIM_INFINITY else min(v, most) for v in (value, value + grace)]
        resource.prlimit(pid, kind, (allowed[0], allowed[1]))


def _ended(
    compiler: str, statuses: list[int], log: str, free_bytes: int, readable: tuple[str, ...] = (), headers: tuple[str, ...] = ()
) -> End:
    """`statuses`: the driver's, then one for each stage, all as shells count: 128 + N after signal N."""
    if statuses[0] == 0:
        return End.OK
    if statuses[0] in (126, 127):
        raise BuilderError(f"cannot run the compiler {compiler}: {log.strip()[:200]}")
    signals = {status - 128 for status in statuses if status > 128} | {-status for status in statuses if status < 0}
    if signals & {signal.SIGXCPU, signal.SIGXFSZ}:
        return End.LIMITS
    for number in signals & {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
        raise BuilderError(f"the compiler was killed by {signal.Signals(number).name}; nothing is said about the source")
    denied = [found["path"] for found in _DENIED.finditer(log)]
    for path in denied[:_MOST_DENIED]:
        if _is_ours(path, headers) and _is_denied(Path(path), readable):
            raise BuilderError(f"the compiler may not read its own files: {path[:200]}")
    if denied or _DIAGNOSTIC.search(log):
        return End.REFUSED
    if free_bytes < _FREE_BYTES:
        raise BuilderError(f"the disk of the build cache is full ({free_bytes >> 20} MiB left): {log.strip()[-200:]}")
    return End.LIMITS  # no word about the source and no signal: it ran out of memory

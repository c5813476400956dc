"""Putting a plan's layers on: first in the process that makes the runner, then in the runner itself."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import select
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from kernel_env.sandbox import landlock, libc, namespaces, seccomp
from kernel_env.sandbox.layers import DEVICES, NAMESPACES, SYSTEM, SYSTEM_FILES, Layer, LayerFailed, Plan

NOBODY = 65534
_NEEDED_BY_ROOT = {"CHOWN": 0, "KILL": 5, "SETGID": 6, "SETUID": 7, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "SYS_NICE": 23}
"""Capabilities: to make namespaces, run a runner in them as nobody, and then freeze it, place it, end it and read its outputs."""
_SIGABRT = 6


def hide() -> None:
    """Make this process's memory and /proc entries unreadable for the other processes of its user."""
    libc.prctl(libc.PR_SET_DUMPABLE, 0)


def fork(plan: Plan) -> int:
    """Like `os.fork`, but the child is in the plan's namespaces. Returns its pid as the caller sees it. Raises LayerFailed.

    A PID namespace begins with the next child, so a process in between makes the runner and ends at once; the runner then
    becomes the child of its nearest subreaper, which must be the caller.
    """
    if not _before_fork(plan):
        return os.fork()
    read, write = os.pipe()
    between = os.fork()
    if between == 0:
        os.close(read)
        _fork_runner(plan, write)
        return 0
    os.close(write)
    with open(read, "rb") as answer:
        pid, _, failure = answer.read().decode().partition(" ")
    os.waitpid(between, 0)
    if failure or not pid:
        layer, _, why = failure.partition(" ")
        raise LayerFailed(Layer(layer or Layer.PID), why or "the process that makes the runner ended early")
    return int(pid)


def last_words(pipe: int, words: str) -> NoReturn:
    """Say them and end, even if nobody is left to hear it. In a forked process an exception must never get further than this."""
    try:
        os.write(pipe, words.encode())
    finally:
        os._exit(0)


def _becomes_nobody(plan: Plan) -> bool:
    """Root, with all its rights, makes namespaces as root; its runner enters a user namespace afterwards, as nobody."""
    return os.geteuid() == 0 and Layer.UNPRIVILEGED in plan


def _before_fork(plan: Plan) -> list[Layer]:
    """Namespaces to enter before the runner exists. Within a user namespace of one's own, anyone may make the others."""
    mine = [layer for layer in plan.layers if layer in NAMESPACES]
    return [Layer.USER, *mine] if Layer.USER in plan and not _becomes_nobody(plan) else mine


def _fork_runner(plan: Plan, answer: int) -> None:
    """In the process in between, which ends here whatever happens, or the runner would wait for its end. Returns in the runner
    only."""
    pid, said = -1, ""
    try:
        libc.prctl(libc.PR_SET_DUMPABLE, 1)  # else the maps of a user namespace are not ours to write
        for layer in _before_fork(plan):
            with _layer(layer):
                namespaces.enter_user_namespace() if layer is Layer.USER else libc.unshare(NAMESPACES[layer])
        ended = os.pidfd_open(os.getpid())
        pid = os.fork()
        said = str(pid)
    except LayerFailed as failure:
        said = f" {failure.layer} {failure.why}"
    finally:
        if pid:
            last_words(answer, said)
    os.close(answer)
    waiting = select.poll()
    waiting.register(ended, select.POLLIN)
    waiting.poll()  # until then our parent is not the one that we shall have
    os.close(ended)


def enter(plan: Plan, scratch: Path, tracer: int) -> None:
    """In the runner: shut out files, and give up every right. Raises LayerFailed.

    Process `tracer`, of the same user or root, may read this process's memory afterwards, as may no other.
    """
    _be_readable(plan, tracer)
    if not plan.layers:
        return
    nobody = _becomes_nobody(plan)
    owner = (NOBODY, NOBODY) if nobody else (os.geteuid(), os.getegid())
    Path("/proc/self/oom_score_adj").write_text("1000")  # when memory runs out, a runner goes first
    if nobody:
        if Layer.MOUNT not in plan:
            why = "root's own directories can be shown to another user in a mount namespace only"
            raise LayerFailed(Layer.UNPRIVILEGED, why)
        os.chown(scratch, *owner)
    if Layer.MOUNT in plan:
        with _layer(Layer.MOUNT), _umask(0o022):
            namespaces.build_file_system(plan, scratch, own_processes=Layer.PID in plan, owner=owner)
    if nobody:
        _become_nobody([path for path in plan.readable if os.path.exists(path)])
        _be_readable(plan, tracer)
        if Layer.USER in plan:
            with _layer(Layer.USER):
                namespaces.enter_user_namespace()
    if Layer.USER in plan:
        # in the namespace, where only our own threads count: a limit from before would be one for all runners of this user together
        resource.setrlimit(resource.RLIMIT_NPROC, (plan.threads, plan.threads))
    _drop_capabilities()
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    _be_readable(plan, tracer)
    if Layer.LANDLOCK in plan:
        with _layer(Layer.LANDLOCK):
            processes = namespaces.visible_processes(own_file_system=Layer.MOUNT in plan, own_processes=Layer.PID in plan)
            own = (str(scratch), namespaces.TEMPORARY) if Layer.MOUNT in plan else (str(scratch),)
            landlock.restrict((*SYSTEM, *SYSTEM_FILES, *processes, *plan.readable), DEVICES, own)


def seal(plan: Plan) -> None:
    """In the runner, last: shut out system calls. Raises LayerFailed."""
    if Layer.PID in plan:
        _make_abort_end_us()
    if Layer.SECCOMP in plan:
        with _layer(Layer.SECCOMP):
            seccomp.install(seccomp.program(os.getpid()))


@contextlib.contextmanager
def _layer(layer: Layer) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        forbidden = (layer is Layer.USER or layer in NAMESPACES) and error.errno in (errno.EPERM, errno.ENOSPC, errno.EACCES)
        raise LayerFailed(layer, f"{why}; {namespaces.hint()}" if forbidden else why) from error


@contextlib.contextmanager
def _umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def root_lacks() -> str:
    """Why this root cannot run a runner as nobody; empty if it can, or is not root."""
    if os.geteuid() != 0:
        return ""
    held = int(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0], 16)
    lacking = [f"CAP_{name}" for name, bit in _NEEDED_BY_ROOT.items() if not held >> bit & 1]
    hidden = os.umask(0o077)
    os.umask(hidden)
    if lacking:
        return f"this root has no {', '.join(lacking)}"
    return f"with the umask {hidden:03o} only root can read what is built" if hidden & 0o055 else ""


def _be_readable(plan: Plan, tracer: int) -> None:
    """For the referee, which reads outputs in our memory. The kernel takes it back at each change of user or rights."""
    libc.prctl(libc.PR_SET_DUMPABLE, 1)
    with contextlib.suppress(OSError):  # a kernel without Yama, which asks no more than that
        libc.prctl(libc.PR_SET_PTRACER, libc.PTRACER_ANY if Layer.PID in plan else tracer)


def _become_nobody(readable: Iterable[str]) -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    for path in readable:
        if not os.access(path, os.R_OK | os.X_OK):
            raise LayerFailed(Layer.UNPRIVILEGED, f"only root can read {path}")


def _drop_capabilities() -> None:
    head = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
    libc.syscall("capset", head, ctypes.create_string_buffer(24))


def _make_abort_end_us() -> None:
    """The first process of a PID namespace gets no signal of its own without a handler, and abort() would end as SIGSEGV.

    So the handler is `_exit`, which is called with the signal's number: exit status 6.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    library.signal(_SIGABRT, ctypes.cast(library._exit, ctypes.c_void_p))

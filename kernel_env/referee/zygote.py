"""The zygote: imports torch once, computes nothing, and forks runners in milliseconds.

Run as `python -I -m kernel_env.referee.zygote FD FLAVOUR SANDBOX`. It stays single-threaded, never runs a tensor operation, never
initialises CUDA and knows no problem, seed or verdict, so a runner forked from it inherits nothing worth reading. Its
clients are trusted referee workers; when a client's connection closes, its runners are killed.

Frames on a client's connection: `{"op": "fork", ...}` with descriptors [channel, log pipe] is answered by `{"pid", "scratch"}`
with a pidfd; `{"op": "reap", "pid"}` kills the runner's whole process group and is answered by `{"exit"}`. The scratch directory
is then the client's to remove: what a candidate left there costs the time of its own worker, and never that of the others, who
all wait for the zygote. On the control connection, `{"op": "attach"}` brings a new client; its end of file ends the zygote and
everything it forked.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import resource
import select
import selectors
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from kernel_env import sandbox
from kernel_env.processes import WAITING, become_subreaper, die_with_parent, name_process
from kernel_env.referee.protocol import Channel, ChannelClosed, Frame
from kernel_env.referee.scratch import remove_tree

_CHANNEL, _ZYGOTE = 3, 4
"""Descriptors of a runner."""
_LIMITS = (
    (resource.RLIMIT_CORE, 1),  # not 0: a core pattern that is a program would be run for 0 too
    (resource.RLIMIT_NOFILE, 256),
    (resource.RLIMIT_FSIZE, 1 << 30),
    (resource.RLIMIT_MEMLOCK, 1 << 20),
    (resource.RLIMIT_MSGQUEUE, 0),
    (resource.RLIMIT_RTPRIO, 0),
    (resource.RLIMIT_NICE, 0),
)
_ADDRESSES = 256 << 30
"""Bytes of address space of a runner besides its private memory: mappings that are only read are no private memory, but each
needs page tables, of a 512th of its size, that no limit counts. (With a GPU it will have to be more: CUDA reserves terabytes.)"""


@dataclass
class _Client:
    channel: Channel
    runners: dict[int, Path] = field(default_factory=dict)
    """Scratch directory of each living runner, by pid."""


class Zygote:
    """Serves fork requests until the control connection closes."""

    def __init__(self, control: Channel, flavour: str, plan: sandbox.Plan) -> None:
        self._control = control
        self._flavour = flavour
        self._plan = plan
        self._alive = os.pidfd_open(os.getpid())
        """Runners see by it whether we still live: our pid means nothing in their namespace."""
        self._clients: dict[int, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control.sock, selectors.EVENT_READ)

    def serve(self, missing: Mapping[str, str]) -> None:
        """`missing`: layers of the sandbox that will not stand, and why."""
        self._control.send({"ready": True, "pid": os.getpid(), "missing": dict(missing)})
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._control.fileno():
                    if not self._attach():
                        return
                elif key.fd in self._clients:
                    self._answer(self._clients[key.fd])

    def _attach(self) -> bool:
        try:
            _, fds = self._control.recv(accept_fds=True)
        except ChannelClosed:
            for client in list(self._clients.values()):
                self._drop(client)
            return False
        client = _Client(Channel(socket.socket(fileno=fds[0])))
        self._clients[client.channel.fileno()] = client
        self._selector.register(client.channel.sock, selectors.EVENT_READ)
        return True

    def _answer(self, client: _Client) -> None:
        try:
            frame, fds = client.channel.recv(accept_fds=True)
            if frame["op"] == "fork":
                self._fork(client, frame, fds)
            else:
                client.channel.send({"exit": self._reap(client, frame["pid"])})
        except (ChannelClosed, OSError):  # its worker died, or this machine has no process or directory for it: it learns so
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        for pid, scratch in list(client.runners.items()):
            self._reap(client, pid)
            remove_tree(scratch)
        self._clients.pop(client.channel.fileno(), None)
        self._selector.unregister(client.channel.sock)
        client.channel.close()

    def _fork(self, client: _Client, frame: Frame, fds: list[int]) -> None:
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            raise RuntimeError(f"the zygote has {threads} threads: a fork would inherit their locks")
        try:
            scratch = Path(tempfile.mkdtemp(prefix="runner-", dir=frame["scratch_root"]))
            pid = sandbox.fork(self._plan)
            if pid == 0:
                _become_runner(self._alive, frame, fds, scratch, self._flavour, self._plan)
        finally:
            for fd in fds:
                os.close(fd)
        client.runners[pid] = scratch
        handle = os.pidfd_open(pid)
        try:
            client.channel.send({"pid": pid, "scratch": str(scratch)}, [handle])
        finally:
            os.close(handle)

    def _reap(self, client: _Client, pid: int) -> int:
        """Kill the runner's group and whatever escaped from it; returns the wait status of the runner itself."""
        if client.runners.pop(pid, None) is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self._kill_strays()
        return status

    def _kill_strays(self) -> None:
        """Kill children that are no runner: processes that left a dead runner's group and were handed to us."""
        known = {pid for client in self._clients.values() for pid in client.runners}
        for _ in range(1000):
            strays = _children() - known
            for pid in strays:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for pid in strays:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
            if not strays:
                return


def _children() -> set[int]:
    try:
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return set()


def _become_runner(zygote: int, frame: Frame, fds: list[int], scratch: Path, flavour: str, plan: sandbox.Plan) -> NoReturn:
    """In the forked child: shed everything inherited, take on the limits and the sandbox, then serve frames. Never returns."""
    status = 1
    try:
        os.setsid()
        name_process(WAITING)
        _shed_descriptors(fds[0], fds[1], zygote)
        channel = Channel(socket.socket(fileno=_CHANNEL))
        os.chdir(scratch)
        os.umask(0o077)
        _set_environment(scratch, frame)
        _set_limits(frame)
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        sys.argv = [frame["role"]]
        isolation = _enter_sandbox(plan, frame, scratch, channel)
        _count_cores(frame["cores"])
        import torch

        from kernel_env.referee import runner

        torch.set_num_threads(frame["threads"])
        runner.serve(channel, frame["role"], scratch, interpreter=flavour == "interpret", isolation=isolation)
        status = 0
    finally:
        os._exit(status)


def _enter_sandbox(plan: sandbox.Plan, frame: Frame, scratch: Path, channel: Channel) -> list[str]:
    """The layers that stand. Where a planned one fails the worker is told so, and this process ends: it runs no one's code."""
    try:
        sandbox.enter(plan, scratch, frame["worker"])
        die_with_parent()  # after `enter`: a change of user takes it back
        if select.select([_ZYGOTE], [], [], 0)[0]:  # it died before the kernel knew what we asked
            os._exit(1)
        os.close(_ZYGOTE)
        sandbox.seal(plan)
    except OSError as error:
        channel.send({"refused": f"a layer of the sandbox failed in a runner although it worked before: {error}"})
        os._exit(1)
    return [*sandbox.ALWAYS, *plan.layers]


def _shed_descriptors(channel_fd: int, log_fd: int, zygote: int) -> None:
    """Keep 0 (/dev/null), 1 and 2 (the log pipe), the channel and, for the moment, the zygote's; close everything else."""
    null = os.open(os.devnull, os.O_RDONLY)
    high = [os.dup(fd) for fd in (null, log_fd, channel_fd, zygote)]
    while min(high) < 10:  # move them out of the way of the numbers they go to
        high = [os.dup(fd) for fd in high]
    for source, target in ((high[0], 0), (high[1], 1), (high[1], 2), (high[2], _CHANNEL), (high[3], _ZYGOTE)):
        os.dup2(source, target, inheritable=False)
    os.closerange(5, 1 << 16)


def _set_environment(scratch: Path, frame: Frame) -> None:
    kept = {k: os.environ[k] for k in ("PATH", "LANG", "LC_ALL", "TRITON_INTERPRET", "CUDA_VISIBLE_DEVICES") if k in os.environ}
    os.environ.clear()
    os.environ.update(kept)
    os.environ.update(HOME=str(scratch), TMPDIR=str(scratch), OMP_NUM_THREADS=str(frame["threads"]))
    os.environ.update(TRITON_CACHE_DIR=str(scratch / "triton"), TORCH_EXTENSIONS_DIR=str(scratch / "extensions"))
    tempfile.tempdir = None


def _count_cores(cores: Sequence[int]) -> None:
    """Python's count of cores is the slot's, also while the main thread is bound to one of them, as it is in timed calls."""
    ourselves, of_any = (0, os.getpid()), os.sched_getaffinity
    os.cpu_count = lambda: len(cores)
    os.sched_getaffinity = lambda pid, /: set(cores) if pid in ourselves else of_any(pid)


def _set_limits(frame: Frame) -> None:
    os.sched_setaffinity(0, frame["cores"])
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # so that waking it never pushes the referee from the core
    memory = frame["memory_bytes"]
    for what, value in _LIMITS:
        hard = resource.getrlimit(what)[1]
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (most, most))
    if memory:  # private writable memory: the heap and anonymous mappings, not the shared mappings that carry tensors
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        resource.setrlimit(resource.RLIMIT_AS, (memory + _ADDRESSES, memory + _ADDRESSES))


def main() -> None:
    fd, flavour, settings = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    die_with_parent()
    become_subreaper()
    sandbox.hide()
    layers, readable = map(sandbox.Layer, settings["layers"]), (*sandbox.interpreter_paths(), *settings["readable"])
    found = sandbox.tried(sandbox.Plan(tuple(layers), readable))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if flavour == "interpret":
        os.environ["TRITON_INTERPRET"] = "1"
    with contextlib.suppress(ImportError):  # an optional part of the installation
        import triton
        import triton.language  # noqa: F401

    if flavour == "interpret":
        from kernel_env.backends.interpreter import prepare

        prepare()
    else:
        with contextlib.suppress(Exception):  # without Triton, or in another version of it, a runner says what is missing
            import kernel_env.backends.ahead

    import kernel_env.referee.runner  # noqa: F401 - brings torch: paid for once here, not in every runner
    from kernel_env.backends.lookup import know_builds

    know_builds(settings["readable"])
    with contextlib.suppress(OSError):  # most extensions bring it; a process that has it alone is slower by 2% in all that it does
        ctypes.CDLL("libgomp.so.1")

    gc.collect()
    gc.freeze()
    control = Channel(socket.socket(fileno=fd))
    die_with_parent(0)  # from here on the end of `control` ends us, after every runner and what it left behind
    status = 1
    try:
        with contextlib.suppress(ChannelClosed):
            Zygote(control, flavour, sandbox.Plan(found.standing, readable)).serve(found.missing)
        status = 0
    except BaseException:  # the exit below would swallow it
        traceback.print_exc()
        raise
    finally:  # at once: nothing to save, and at a regular exit one who asks meanwhile finds us alive but closed for a second
        os._exit(status)


if __name__ == "__main__":
    main()

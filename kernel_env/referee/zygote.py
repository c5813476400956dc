"""The zygote: imports torch once, computes nothing, and forks runners in milliseconds.

Run as `python -I -m kernel_env.referee.zygote FD FLAVOUR`. It stays single-threaded, never runs a tensor operation, never
initialises CUDA and knows no problem, seed or verdict, so a runner forked from it inherits nothing worth reading. Its
clients are trusted referee workers; when a client's connection closes, its runners are killed.

Frames on a client's connection: `{"op": "fork", ...}` with descriptors [channel, log pipe] is answered by `{"pid"}` with a
pidfd; `{"op": "reap", "pid"}` kills the runner's whole process group and is answered by `{"exit"}`. On the control
connection, `{"op": "attach"}` brings a new client; its end of file ends the zygote and everything it forked.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import selectors
import shutil
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from kernel_env.processes import become_subreaper, die_with_parent
from kernel_env.referee.protocol import Channel, ChannelClosed, Frame


@dataclass
class _Client:
    channel: Channel
    runners: dict[int, Path] = field(default_factory=dict)
    """Scratch directory of each living runner, by pid."""


class Zygote:
    """Serves fork requests until the control connection closes."""

    def __init__(self, control: Channel, flavour: str) -> None:
        self._control = control
        self._flavour = flavour
        self._clients: dict[int, _Client] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control.sock, selectors.EVENT_READ)

    def serve(self) -> None:
        self._control.send({"ready": True, "pid": os.getpid()})
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
        for pid in list(client.runners):
            self._reap(client, pid)
        self._clients.pop(client.channel.fileno(), None)
        self._selector.unregister(client.channel.sock)
        client.channel.close()

    def _fork(self, client: _Client, frame: Frame, fds: list[int]) -> None:
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            raise RuntimeError(f"the zygote has {threads} threads: a fork would inherit their locks")
        try:
            scratch = Path(tempfile.mkdtemp(prefix="runner-", dir=frame["scratch_root"]))
            zygote = os.getpid()
            pid = os.fork()
            if pid == 0:
                _become_runner(zygote, frame, fds, scratch, self._flavour)
        finally:
            for fd in fds:
                os.close(fd)
        client.runners[pid] = scratch
        handle = os.pidfd_open(pid)
        try:
            client.channel.send({"pid": pid}, [handle])
        finally:
            os.close(handle)

    def _reap(self, client: _Client, pid: int) -> int:
        """Kill the runner's group and whatever escaped from it; returns the wait status of the runner itself."""
        scratch = client.runners.pop(pid, None)
        if scratch is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self._kill_strays()
        shutil.rmtree(scratch, ignore_errors=True)
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


def _become_runner(zygote: int, frame: Frame, fds: list[int], scratch: Path, flavour: str) -> NoReturn:
    """In the forked child: shed everything inherited, take on the limits, then serve frames. Never returns."""
    status = 1
    try:
        die_with_parent()
        if os.getppid() != zygote:  # it died before the kernel knew what we asked
            os._exit(status)
        os.setsid()
        channel_fd, log_fd = os.dup(fds[0]), os.dup(fds[1])
        channel_fd, log_fd = _shed_descriptors(channel_fd, log_fd)
        os.chdir(scratch)
        os.umask(0o077)
        _set_environment(scratch, frame)
        _set_limits(frame)
        sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
        sys.argv = [frame["role"]]
        import torch

        from kernel_env.referee import runner

        torch.set_num_threads(frame["threads"])
        channel = Channel(socket.socket(fileno=channel_fd))
        runner.serve(channel, frame["role"], scratch, interpreter=flavour == "interpret")
        status = 0
    finally:
        os._exit(status)


def _shed_descriptors(channel_fd: int, log_fd: int) -> tuple[int, int]:
    """Keep 0 (/dev/null), 1 and 2 (the log pipe) and the channel as 3; close everything else."""
    null = os.open(os.devnull, os.O_RDONLY)
    high = [os.dup(fd) for fd in (null, log_fd, channel_fd)]
    while min(high) < 10:  # move them out of the way of the numbers they go to
        high = [os.dup(fd) for fd in high]
    for source, target in ((high[0], 0), (high[1], 1), (high[1], 2), (high[2], 3)):
        os.dup2(source, target, inheritable=False)
    os.closerange(4, 1 << 16)
    return 3, 1


def _set_environment(scratch: Path, frame: Frame) -> None:
    kept = {k: os.environ[k] for k in ("PATH", "LANG", "LC_ALL", "TRITON_INTERPRET", "CUDA_VISIBLE_DEVICES") if k in os.environ}
    os.environ.clear()
    os.environ.update(kept)
    os.environ.update(HOME=str(scratch), TMPDIR=str(scratch), OMP_NUM_THREADS=str(frame["threads"]))
    os.environ.update(TRITON_CACHE_DIR=str(scratch / "triton"), TORCH_EXTENSIONS_DIR=str(scratch / "extensions"))
    tempfile.tempdir = None


def _set_limits(frame: Frame) -> None:
    os.sched_setaffinity(0, frame["cores"])
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # so that waking it never pushes the referee from the core
    memory = frame["memory_bytes"]
    for what, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_NOFILE, 256), (resource.RLIMIT_FSIZE, 1 << 30)):
        resource.setrlimit(what, (value, value))
    if memory:  # private writable memory: the heap and anonymous mappings, not the shared mappings that carry tensors
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def main() -> None:
    fd, flavour = int(sys.argv[1]), sys.argv[2]
    die_with_parent()
    become_subreaper()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if flavour == "interpret":
        os.environ["TRITON_INTERPRET"] = "1"
    with contextlib.suppress(ImportError):  # an optional part of the installation
        import triton
        import triton.language  # noqa: F401

    if flavour == "interpret":
        from kernel_env.backends.interpreter import prepare

        prepare()

    import kernel_env.referee.runner  # noqa: F401 - brings torch: paid for once here, not in every runner

    gc.collect()
    gc.freeze()
    control = Channel(socket.socket(fileno=fd))
    die_with_parent(0)  # from here on the end of `control` ends us, after every runner and what it left behind
    with contextlib.suppress(ChannelClosed):
        Zygote(control, flavour).serve()
    os._exit(0)  # nothing to save, and Triton's extension complains about itself at a regular exit


if __name__ == "__main__":
    main()

"""Referee workers on this machine: started when needed, replaced when they die, killed together with their runners."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_env.errors import ConfigError, VerifierError
from kernel_env.referee.protocol import HEADER, Channel, ChannelClosed, Frame
from kernel_env.referee.scratch import remove_tree
from kernel_env.referee.streams import receive, send
from kernel_env.sandbox import Findings

_log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often one job is given to a worker before its deaths are taken for the job's own doing."""
_START_LIMIT_S = 120.0
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
KEEP_MEMORY = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {"mmap_max": 0, "trim_threshold": 1 << 62, "top_pad": 16 << 20, "tcache_count": 0}.items()
)
"""The allocator of runners gives no memory back. Else, by luck of the heap's layout, a program maps and faults in every output of
every call or none: the same eager baseline read 4 ms in one process and 13 ms in the next. Without the cache of small blocks
freed neighbours of a large block join it again; else it is sometimes too short by some bytes for the next output of its size."""

SPINS = "5000"
"""OpenMP workers look for work so often before they sleep: 0.07 ms (0.15 on a busy machine, see `exchange.SPIN_S`), enough to stay
awake from one parallel loop to the next. The 300,000 of libgomp are 4 ms of busy cores after each call, among which a program that
works between calls would not be seen."""

Cores = tuple[int, ...]


class HelperDied(VerifierError):
    """A worker or its zygote ended early. It says nothing about the candidate, so the job may be tried again."""


@dataclass(eq=False)
class _Zygote:
    """The process that forks runners, and the connection that brings it new clients; it ends when that closes."""

    process: subprocess.Popen[bytes]
    control: Channel
    pidfd: int
    missing: Findings = field(default_factory=Findings)
    """Layers of the sandbox that do not stand around its runners."""

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self, grace_s: float = 5.0) -> None:
        """Let it kill its runners and end; then make sure."""
        asyncio.get_running_loop().remove_reader(self.pidfd)
        os.close(self.pidfd)
        self.control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(grace_s)
        self.process.kill()
        self.process.wait()


@dataclass(eq=False)
class _Worker:
    """A referee worker and our connection to it."""

    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    zygote: _Zygote
    scratch: Path
    operation: str = ""
    """What it was last asked to do."""

    async def ask(self, frame: Frame, tell: Callable[[Frame], None]) -> None:
        """Hand over each answer as it comes: there is one for each candidate."""
        try:
            await send(self.writer, frame)
            for _ in frame["candidates"]:
                tell(await receive(self.reader))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise HelperDied(f"a referee worker died (exit status {self.process.poll()})") from error

    def kill(self) -> None:
        """Idempotent. The zygote kills the worker's runners when it sees the worker's connection close."""
        self.writer.close()
        self.process.kill()
        self.process.wait()
        remove_tree(self.scratch)


class Pool:
    """One zygote and the workers that fork from it. Use within one event loop."""

    def __init__(self, flavour: str, setup: Mapping[str, Any], scratch: Path) -> None:
        """`setup`: `cache_dir`, `cache_bytes`, `clock`, `clock_path` and `reuse_bytes`, for workers, and `sandbox`, for the
        zygote."""
        self._flavour, self._setup, self._scratch = flavour, setup, scratch
        self._zygote: _Zygote | None = None
        self._idle: defaultdict[Cores, list[_Worker]] = defaultdict(list)
        self._busy: set[_Worker] = set()
        self._starting = asyncio.Lock()
        self._closed = False

    async def ask(self, cores: Cores, frame: Frame, tell: Callable[[Frame], None]) -> None:
        """Give a job to a worker on these cores, and hand over its answers, one for each of `candidates`. When cancelled, the
        worker and its runners are killed. Raises HelperDied: whatever is random in a job comes from its seed, so it may be asked
        again."""
        worker = await self._worker(cores, frame["op"])
        if worker.zygote is not self._zygote:
            worker.kill()
            raise HelperDied("the zygote died while a referee worker started")
        self._busy.add(worker)
        try:
            await worker.ask(frame, tell)
        except BaseException:  # cancelled: the answer to this job must never be taken for the next one's
            worker.kill()
            raise
        finally:
            self._busy.discard(worker)
        if worker.zygote is self._zygote:
            self._idle[cores].append(worker)
        else:  # its zygote died meanwhile, and this job did not need it any more
            worker.kill()

    async def start(self) -> _Zygote:
        """The living zygote, started if there is none. Raises VerifierError, HelperDied."""
        async with self._starting:
            if self._closed:
                raise VerifierError("this verifier is closed")
            if self._zygote is None or not self._zygote.alive:
                self._retire()
                self._zygote = await _start_zygote(self._flavour, self._setup["sandbox"])
                self._check(self._zygote)
                # when it dies, its workers are of no use, and one may wait long until it notices: all jobs start anew at once
                asyncio.get_running_loop().add_reader(self._zygote.pidfd, self._retire)
            return self._zygote

    def _check(self, zygote: _Zygote) -> None:
        """Say which layers of the sandbox are missing. Raises ConfigError where none may be."""
        if not zygote.missing or not self._setup["sandbox"]["layers"]:
            return
        if self._setup["sandbox"]["mode"] == "strict":
            self._zygote = None
            zygote.end()
            raise ConfigError(f"verifier.sandbox=strict, but layers are missing here: {zygote.missing}")
        _say_once(f"the sandbox stands without these layers: {zygote.missing}")

    async def _worker(self, cores: Cores, operation: str) -> _Worker:
        zygote = await self.start()
        while self._idle[cores]:
            idle = self._idle[cores]  # one that did the same before, if there is one: it may have kept what is of use
            worker = next((worker for worker in reversed(idle) if worker.operation == operation), idle[-1])
            idle.remove(worker)
            worker.operation = operation
            if worker.process.poll() is None:
                return worker
            worker.kill()
        scratch = Path(tempfile.mkdtemp(prefix="worker-", dir=self._scratch))
        try:
            return await _start_worker(zygote, {**self._setup, "cores": list(cores), "scratch": str(scratch)}, scratch)
        except BaseException:  # a cancelled start too leaves no files behind
            remove_tree(scratch)
            raise

    def _retire(self) -> None:
        """End the zygote, and with it the workers that can fork from no other."""
        for worker in [*self._busy, *(w for waiting in self._idle.values() for w in waiting)]:
            worker.kill()
        self._idle.clear()
        if self._zygote is not None:
            self._zygote.end()
        self._zygote = None

    async def aclose(self) -> None:
        """Idempotent. Jobs in progress end with VerifierError."""
        self._closed = True
        async with self._starting:
            self._retire()


@functools.cache
def _say_once(text: str) -> None:
    _log.warning(text)


async def _start_zygote(flavour: str, sandbox: Frame) -> _Zygote:
    ours, theirs = socket.socketpair()
    process = _spawn("zygote", theirs, flavour, json.dumps(sandbox))
    zygote = _Zygote(process, Channel(ours), os.pidfd_open(process.pid))
    ours.setblocking(False)
    try:
        async with asyncio.timeout(_START_LIMIT_S):
            ready = await asyncio.get_running_loop().sock_recv(ours, 1 << 16)
    except TimeoutError as error:
        zygote.end(0)
        raise VerifierError(f"the zygote was not ready within {_START_LIMIT_S:g} s: is this machine overloaded?") from error
    except BaseException:  # a cancelled start too leaves no process behind
        zygote.end(0)
        raise
    if not ready:
        zygote.end()
        raise HelperDied(
            f"the zygote did not start (exit status {zygote.process.returncode}): does `python -c 'import torch'` work?"
        )
    ours.setblocking(True)
    zygote.missing = Findings(missing=json.loads(ready[HEADER.size :])["missing"])
    return zygote


async def _start_worker(zygote: _Zygote, setup: Frame, scratch: Path) -> _Worker:
    ours, theirs = socket.socketpair()
    process = _spawn("worker", theirs)
    try:
        for_worker, for_zygote = socket.socketpair()
        with for_worker, for_zygote:
            zygote.control.send({"op": "attach"}, [for_zygote.fileno()])
            Channel(ours).send(setup, [for_worker.fileno()])
        reader, writer = await asyncio.open_connection(sock=ours)
    except BaseException as error:  # a cancelled start too leaves no process behind
        ours.close()
        process.kill()
        process.wait()
        if isinstance(error, ChannelClosed):
            raise HelperDied("a referee worker or its zygote died before the worker had started") from error
        raise
    return _Worker(process, reader, writer, zygote, scratch)


def _spawn(name: str, theirs: socket.socket, *arguments: str) -> subprocess.Popen[bytes]:
    """Start one of our own processes with a clean environment: no credentials, one thread for BLAS."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    with theirs:
        return subprocess.Popen(
            [sys.executable, "-I", "-m", f"kernel_env.referee.{name}", str(theirs.fileno()), *arguments],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C at the terminal is for us, who end them in order
            env={
                **kept,
                "OPENBLAS_NUM_THREADS": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                "GLIBC_TUNABLES": KEEP_MEMORY,
                "GOMP_SPINCOUNT": SPINS,
            },
        )

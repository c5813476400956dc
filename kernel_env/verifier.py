"""Verification as a service to the rest: async, with separate limits for builds and for device slots.

`LocalVerifier` runs referee workers and a zygote on this machine. `InprocessVerifier` is for debugging. `VerifierServer` shares one
verifier with other processes through a Unix socket; `SocketVerifier` is their end. `BlockingVerifier` gives any of them a
synchronous face.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from kernel_env import errors
from kernel_env.backends import Flavour, get_backend
from kernel_env.errors import ConfigError, KernelEnvError, VerifierError
from kernel_env.referee.clock import RecordedClock
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.protocol import MAX_FRAME_BYTES, Frame
from kernel_env.schema import Candidate, Problem, Verdict, from_json, to_json

T = TypeVar("T")
_HEADER = struct.Struct("!II")
MAX_CODE_BYTES = 4 << 20


@dataclass(frozen=True)
class VerifierConfig:
    """Resources of a verifier. None of them changes what a verdict says."""

    slots: int = 1
    """Verifications at a time, each on its own cores."""
    build_slots: int = 0
    """Candidates that are checked and built at a time; 0 is one per core."""
    cache_dir: str | None = None
    """Build cache; default `$KERNEL_ENV_CACHE`, else `~/.cache/kernel-env`."""
    clock: str = "live"
    """`live`, or `recorded` for byte-reproducible runs."""
    clock_path: str | None = None
    """Recorded times `{digest: [runtime_ms, baseline_ms]}`; without it the recorded clock derives them from digests."""

    def __post_init__(self) -> None:
        cores = len(os.sched_getaffinity(0))
        if not 1 <= self.slots <= cores:
            raise ConfigError(f"verifier.slots must be between 1 and the {cores} cores of this machine, got {self.slots}")
        if self.build_slots < 0:
            raise ConfigError(f"verifier.build_slots must be 0 or more, got {self.build_slots}")
        if self.clock not in ("live", "recorded"):
            raise ConfigError(f"clock must be `live` or `recorded`, got {self.clock!r}")

    def cache(self) -> Path:
        chosen = self.cache_dir or os.environ.get("KERNEL_ENV_CACHE") or Path.home() / ".cache" / "kernel-env"
        return Path(chosen).expanduser().absolute()

    def cores(self, slot: int) -> tuple[int, ...]:
        """The disjoint set of cores of one slot."""
        cores = sorted(os.sched_getaffinity(0))
        share = len(cores) // self.slots
        return tuple(cores[slot * share : (slot + 1) * share])


class Verifier(Protocol):
    """Turns a candidate into a verdict. Raises InfraError (or a child) when this machine could not."""

    async def verify(self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int) -> Verdict: ...
    async def aclose(self) -> None: ...


# ---------------------------------------------------------------- frames over asyncio


async def _send(writer: asyncio.StreamWriter, frame: Frame) -> None:
    body = json.dumps(frame).encode(errors="surrogatepass")
    writer.write(_HEADER.pack(len(body), 0) + body)
    await writer.drain()


async def _receive(reader: asyncio.StreamReader) -> Frame:
    length, _ = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    if length > MAX_FRAME_BYTES:
        raise ConnectionError(f"frame of {length} bytes refused")
    frame: Frame = json.loads(await reader.readexactly(length))
    return frame


def _job(operation: str, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int) -> Frame:
    return {"op": operation, "problem": to_json(problem), "candidate": to_json(candidate), "config": to_json(config), "seed": seed}


def _verdict(answer: Frame) -> Verdict | None:
    """The verdict of an answer, or its error raised again under its own class."""
    if "raised" in answer:
        kind = getattr(errors, str(answer["raised"]), VerifierError)
        raise kind(answer["message"]) if issubclass(kind, KernelEnvError) else VerifierError(answer["message"])
    return from_json(Verdict, answer["verdict"]) if answer["verdict"] is not None else None


# ---------------------------------------------------------------- this machine


@dataclass(eq=False)
class _Worker:
    """A referee worker process and our connection to it."""

    process: subprocess.Popen[bytes]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, frame: Frame) -> Frame:
        try:
            await _send(self.writer, frame)
            return await _receive(self.reader)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise VerifierError(f"a referee worker died (exit status {self.process.poll()}); the turn stays unscored") from error

    def kill(self) -> None:
        self.writer.close()
        self.process.kill()
        self.process.wait()


@dataclass(eq=False)
class _Pool:
    """One zygote and the workers that fork from it."""

    flavour: Flavour
    config: VerifierConfig
    scratch: Path
    zygote: subprocess.Popen[bytes] | None = None
    control: socket.socket | None = None
    idle: dict[tuple[int, ...], list[_Worker]] = field(default_factory=dict)
    busy: set[_Worker] = field(default_factory=set)
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self) -> None:
        """Start the zygote unless one lives. Raises VerifierError."""
        async with self.starting:
            if self.zygote is not None and self.zygote.poll() is None:
                return
            self.close()
            ours, theirs = socket.socketpair()
            self.zygote = _spawn("zygote", theirs, self.flavour)
            self.control = ours
            ours.setblocking(False)
            try:
                async with asyncio.timeout(120):
                    head = await asyncio.get_running_loop().sock_recv(ours, 4096)
            except TimeoutError:
                head = b""
            if not head:
                raise VerifierError(
                    f"the zygote did not start (exit status {self.zygote.poll()}): does `python -c 'import torch'` work? is kernel-env installed?"
                )

    async def worker(self, cores: tuple[int, ...]) -> _Worker:
        await self.start()
        waiting = self.idle.setdefault(cores, [])
        while waiting:
            worker = waiting.pop()
            if worker.process.poll() is None:
                return worker
            worker.kill()
        assert self.control is not None
        ours, theirs = socket.socketpair()
        process = _spawn("worker", theirs)
        ours_zygote, theirs_zygote = socket.socketpair()
        with ours_zygote, theirs_zygote:
            self._send_fd(self.control, {"op": "attach"}, theirs_zygote)
            setup = {
                "cache_dir": str(self.config.cache()), "scratch_root": str(self.scratch), "cores": list(cores),
                "clock": self.config.clock, "clock_path": self.config.clock_path,
            }  # fmt: skip
            self._send_fd(ours, setup, ours_zygote)
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours)
        return _Worker(process, reader, writer)

    @staticmethod
    def _send_fd(sock: socket.socket, frame: Frame, carried: socket.socket) -> None:
        body = json.dumps(frame).encode()
        socket.send_fds(sock, [_HEADER.pack(len(body), 1)], [carried.fileno()])
        sock.sendall(body)

    @contextlib.asynccontextmanager
    async def borrowed(self, cores: tuple[int, ...]) -> AsyncIterator[_Worker]:
        """A worker for one job. When the job is cancelled or its worker fails, the worker and all its runners are killed."""
        worker = await self.worker(cores)
        self.busy.add(worker)
        try:
            yield worker
        except BaseException:
            worker.kill()
            raise
        else:
            self.idle[cores].append(worker)
        finally:
            self.busy.discard(worker)

    def close(self) -> None:
        for worker in [*self.busy, *(w for ws in self.idle.values() for w in ws)]:
            worker.kill()
        self.idle.clear()
        if self.control is not None:
            self.control.close()
        if self.zygote is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.zygote.wait(5)
            self.zygote.kill()
            self.zygote.wait()
        self.zygote = self.control = None


def _spawn(name: str, theirs: socket.socket, *arguments: str) -> subprocess.Popen[bytes]:
    """Start one of our own processes with a clean environment: no credentials, one thread for BLAS."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if k in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
    }
    command = [sys.executable, "-I", "-m", f"kernel_env.referee.{name}", str(theirs.fileno()), *arguments]
    with theirs:
        return subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**kept, "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        )


class LocalVerifier:
    """Referee workers on this machine. Use within one event loop; starts its processes on first use."""

    def __init__(self, config: VerifierConfig | None = None) -> None:
        """Raises ConfigError for a recorded clock that cannot be read."""
        self.config = config or VerifierConfig()
        if self.config.clock_path:
            RecordedClock.load(Path(self.config.clock_path))  # a worker would load it too late: for the user to see the mistake
        cores = os.sched_getaffinity(0)
        self._all_cores = tuple(sorted(cores))
        self._builds = asyncio.Semaphore(self.config.build_slots or len(cores))
        self._free_slots: asyncio.Queue[tuple[int, ...]] = asyncio.Queue()
        for slot in range(self.config.slots):
            self._free_slots.put_nowait(self.config.cores(slot))
        self._pools: dict[Flavour, _Pool] = {}
        self._scratch = Path(tempfile.mkdtemp(prefix="kernel-env-verifier-"))
        self._closed = False

    async def start(self, backend: str) -> None:
        """Start what a back end needs ahead of time. Raises ConfigError, VerifierError."""
        await self._pool(backend).start()

    def _pool(self, backend: str) -> _Pool:
        if self._closed:
            raise VerifierError("this verifier is closed")
        known = get_backend(backend)
        missing = known.missing()
        if missing:
            raise ConfigError(f"back end {backend!r} {missing}")
        return self._pools.setdefault(known.flavour, _Pool(known.flavour, self.config, self._scratch))

    async def verify(self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int) -> Verdict:
        """Check and build off the device, then verify on a slot.

        Raises ConfigError (unknown back end), ProblemError, BuilderError, VerifierError. Cancelling it kills the candidate and
        frees the slot.
        """
        pool = self._pool(candidate.backend)
        async with self._builds:
            first = _verdict(await self._ask(pool, self._all_cores, _job("prepare", problem, candidate, config, seed)))
        if first is not None:
            return first
        slot = await self._free_slots.get()
        try:
            verdict = _verdict(await self._ask(pool, slot, _job("verify", problem, candidate, config, seed)))
        finally:
            self._free_slots.put_nowait(slot)
        assert verdict is not None
        return verdict

    async def _ask(self, pool: _Pool, cores: tuple[int, ...], frame: Frame) -> Frame:
        async with pool.borrowed(cores) as worker:
            return await worker.ask(frame)

    async def aclose(self) -> None:
        self._closed = True
        for pool in self._pools.values():
            pool.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


class InprocessVerifier:
    """Runs candidates in this very process. For debugging with a debugger or prints: no isolation, no limits, and it says so.

    Imports torch.
    """

    def __init__(self, config: VerifierConfig | None = None) -> None:
        from kernel_env.builder import Builder
        from kernel_env.hostlock import CoresLock
        from kernel_env.referee import worker

        config = config or VerifierConfig()
        self._lock = CoresLock()
        self._builder = Builder(config.cache(), self._lock)
        self._clock = worker.make_clock(config.clock_path, config.clock)
        self._worker = worker

    async def verify(self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int) -> Verdict:
        flavour = get_backend(candidate.backend).flavour
        if flavour == "interpret" and os.environ.get("TRITON_INTERPRET") != "1":
            raise ConfigError(
                "verifier=inprocess with Triton needs TRITON_INTERPRET=1 in the environment before anything imports triton"
            )
        referee = self._worker.inprocess_referee(self._builder, self._clock, self._lock, flavour)
        for operation in ("prepare", "verify"):
            verdict = _verdict(self._worker.answer(referee, _job(operation, problem, candidate, config, seed)))
            if verdict is not None:
                return verdict
        raise VerifierError("verification ended without a verdict")

    async def aclose(self) -> None:
        """Nothing to close."""


# ---------------------------------------------------------------- sharing


class VerifierServer:
    """Shares one verifier with other processes of this user through a Unix socket (in a directory only this user can enter)."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._directory = tempfile.mkdtemp(prefix="kernel-env-socket-")
        self.address = f"unix:{self._directory}/verifier"
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listen; returns the address for `SocketVerifier`."""
        path = self.address.removeprefix("unix:")
        self._server = await asyncio.start_unix_server(self._serve, path)
        return self.address

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                frame = await _receive(reader)
                await _send(writer, await self._answer(frame))

    async def _answer(self, frame: Frame) -> Frame:
        try:
            verdict = await self._verifier.verify(
                from_json(Problem, frame["problem"]),
                from_json(Candidate, frame["candidate"]),
                from_json(VerifyConfig, frame["config"]),
                frame["seed"],
            )
            return {"verdict": to_json(verdict)}
        except KernelEnvError as error:
            return {"raised": type(error).__name__, "message": str(error)}

    async def aclose(self) -> None:
        if self._server is not None:
            self._server.close()
        shutil.rmtree(self._directory, ignore_errors=True)


class SocketVerifier:
    """A verifier in another process, by its address (`unix:/path`)."""

    def __init__(self, address: str) -> None:
        if not address.startswith("unix:"):
            raise ConfigError(f"verifier address {address!r}: expected unix:/path/of/socket")
        self._path = address.removeprefix("unix:")
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()

    async def verify(self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int) -> Verdict:
        async with self._lock:
            try:
                if self._connection is None:
                    self._connection = await asyncio.open_unix_connection(self._path)
                reader, writer = self._connection
                await _send(writer, _job("verify", problem, candidate, config, seed))
                verdict = _verdict(await _receive(reader))
            except (OSError, asyncio.IncompleteReadError) as error:
                self._connection = None
                raise VerifierError(
                    f"the shared verifier at unix:{self._path} does not answer: is its process still running?"
                ) from error
        assert verdict is not None
        return verdict

    async def aclose(self) -> None:
        if self._connection is not None:
            self._connection[1].close()


async def _called(make: Callable[[], T]) -> T:
    return make()


class BlockingVerifier:
    """A synchronous face: runs a verifier's event loop in a thread of its own. Close it, or use it in a `with` block."""

    def __init__(self, make: Callable[[], Verifier] | str | None = None, *, share: bool = False) -> None:
        """`make` makes the verifier in the right thread, or is the address of a shared one; None makes a `LocalVerifier`.

        With `share`, `address` can be given to other processes.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kernel-env-verifier", daemon=True)
        self._thread.start()
        if isinstance(make, str):
            make = functools.partial(SocketVerifier, make)
        self.verifier: Verifier = self.run(_called(make or LocalVerifier))
        self._server = VerifierServer(self.verifier) if share else None
        self.address = self.run(self._server.start()) if self._server else None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the verifier's loop and wait for it. Interrupting the wait cancels it there."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def verify(self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int) -> Verdict:
        return self.run(self.verifier.verify(problem, candidate, config, seed))

    def close(self) -> None:
        """Idempotent."""
        if self._loop.is_closed():
            return
        if self._server is not None:
            self.run(self._server.aclose())
        self.run(self.verifier.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> BlockingVerifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

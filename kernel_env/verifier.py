"""Verification as a service to the rest: async, with separate limits for builds and for device slots.

`LocalVerifier` runs referee workers and a zygote on this machine. `InprocessVerifier` is for debugging. `VerifierServer` shares one
verifier with other processes through a Unix socket; `SocketVerifier` is their end. `BlockingVerifier` gives any of them a
synchronous face.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from kernel_env import errors
from kernel_env.backends import Flavour, get_backend
from kernel_env.backends.targets import target
from kernel_env.baselines import against_baseline
from kernel_env.builder.service import extensions
from kernel_env.errors import ConfigError, KernelEnvError, MachineBusy, VerifierError
from kernel_env.loop_thread import LoopThread
from kernel_env.referee.batches import Batches, Kind, given_up
from kernel_env.referee.clock import RecordedClock
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.pool import ATTEMPTS, HelperDied, Pool
from kernel_env.referee.protocol import Frame
from kernel_env.referee.scratch import Scratch
from kernel_env.referee.slots import ORDINARY, Order, Slots
from kernel_env.referee.streams import receive, send
from kernel_env.roofline import hardware
from kernel_env.sandbox import wanted
from kernel_env.schema import Candidate, Compiled, Problem, Verdict, from_json, to_json

T = TypeVar("T")
MAX_CODE_BYTES = 4 << 20


@dataclass(frozen=True)
class VerifierConfig:
    """Resources of a verifier. None of them changes what a verdict says."""

    slots: int = 1
    """Verifications at a time, each on its own cores."""
    build_slots: int = 0
    """Candidates that are checked and built at a time; 0 is one per core that they may use."""
    build_cores: int = 0
    """Cores that slots leave to compilers. Without any they use those of all slots, and each waits for the other: with several
    slots and many builds leave some."""
    cache_dir: str | None = None
    """Build cache; default `$KERNEL_ENV_CACHE`, else `kernel-env` in `$XDG_CACHE_HOME` or `~/.cache`."""
    cache_limit_mb: int = 10_240
    """What the build cache may take on the disk: beyond it, what was not used for the longest time is removed. 0 is no limit."""
    reuse_mb: int = 512
    """Inputs and expected outputs that each slot keeps in memory, for further candidates of the same problem and seed; beyond it,
    what was not used for the longest time is forgotten."""
    clock: str = "live"
    """`live`, or `recorded` for byte-reproducible runs."""
    clock_path: str | None = None
    """Recorded times `{digest: [runtime_ms, baseline_ms]}`; without it the recorded clock derives them from digests."""

    sandbox: str = "best_effort"
    """`strict` refuses to run where a layer of the sandbox is missing; `best_effort` says so once and goes on; `off`: no layers."""
    sandbox_without: tuple[str, ...] = ()
    """Layers to leave out, by name, as if this machine did not have them."""

    def __post_init__(self) -> None:
        wanted(self.sandbox, self.sandbox_without)
        cores = len(os.sched_getaffinity(0))
        if not 1 <= self.slots <= cores:
            raise ConfigError(f"verifier.slots must be between 1 and the {cores} cores of this machine, got {self.slots}")
        if not 0 <= self.build_cores <= cores - self.slots:
            most = cores - self.slots
            raise ConfigError(f"verifier.build_cores must leave a core for each slot: between 0 and {most}, got {self.build_cores}")
        if self.build_slots < 0:
            raise ConfigError(f"verifier.build_slots must be 0 or more, got {self.build_slots}")
        if self.cache_limit_mb < 0:
            raise ConfigError(f"verifier.cache_limit_mb must be 0 or more, got {self.cache_limit_mb}")
        if self.reuse_mb < 0:
            raise ConfigError(f"verifier.reuse_mb must be 0 or more, got {self.reuse_mb}")
        if self.clock not in ("live", "recorded"):
            raise ConfigError(f"clock must be `live` or `recorded`, got {self.clock!r}")

    def cache(self) -> Path:
        shared = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "kernel-env")
        return Path(self.cache_dir or os.environ.get("KERNEL_ENV_CACHE") or shared).expanduser().absolute()

    def cache_bytes(self) -> int | None:
        return self.cache_limit_mb << 20 if self.cache_limit_mb else None

    def sandbox_settings(self) -> Frame:
        """What a zygote is told. Raises ConfigError."""
        built = extensions(self.cache())
        built.mkdir(parents=True, exist_ok=True)  # what is not there cannot be shown to runners
        layers = wanted(self.sandbox, self.sandbox_without)
        return {"mode": self.sandbox, "layers": [layer.value for layer in layers], "readable": [str(built)]}

    def cores(self, slot: int) -> tuple[int, ...]:
        """The disjoint set of cores of one slot."""
        cores = sorted(os.sched_getaffinity(0))
        share = (len(cores) - self.build_cores) // self.slots
        return tuple(cores[slot * share : (slot + 1) * share])

    def compiling(self) -> tuple[int, ...]:
        """The cores that compilers may use."""
        return tuple(sorted(os.sched_getaffinity(0))[-self.build_cores :])


@dataclass(frozen=True)
class Load:
    """What a verifier has to do, at this moment."""

    building: int
    to_build: int
    """They wait for a build slot."""
    slots_taken: int
    to_measure: int
    """They are built, and wait for a slot."""


@runtime_checkable
class Loaded(Protocol):
    """A verifier that says so."""

    @property
    def load(self) -> Load: ...


class Verifier(Protocol):
    """Turns a candidate into a verdict. Raises InfraError (or a child) when this machine could not. `order` is for those who share
    one: who comes first, where not all can be served at once."""

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order = ORDINARY
    ) -> Verdict: ...
    async def aclose(self) -> None: ...


def check_ahead(config: VerifyConfig, backend: str) -> None:
    """Raises ConfigError where kernels of this back end cannot be compiled for other machines."""
    if not config.aot or backend == "triton":
        return
    if get_backend(backend).device != "cuda":
        raise ConfigError(
            f"verify.aot is for Triton and CUDA kernels; back end {backend!r} is compiled for the machine that it runs on"
        )
    other = next((name for name in config.aot if target(name).vendor != "cuda"), None)
    if other is not None:
        raise ConfigError(f"verify.aot: back end {backend!r} cannot be compiled for {other}")


def _job(operation: str, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int) -> Frame:
    mine = [to_json(candidate)]
    return {"op": operation, "problem": to_json(problem), "candidates": mine, "config": to_json(config), "seed": seed}


def _verdict(answer: Frame) -> Verdict | None:
    """The verdict of an answer, or its error raised again under its own class."""
    if "raised" in answer:
        kind = getattr(errors, str(answer["raised"]), VerifierError)
        raise kind(answer["message"]) if issubclass(kind, KernelEnvError) else VerifierError(answer["message"])
    return from_json(Verdict, answer["verdict"]) if answer["verdict"] is not None else None


# ---------------------------------------------------------------- this machine


class LocalVerifier:
    """Referee workers on this machine. Use within one event loop; starts its processes on first use."""

    def __init__(self, config: VerifierConfig | None = None) -> None:
        """Raises ConfigError for a recorded clock that cannot be read."""
        self.config = config or VerifierConfig()
        if self.config.clock_path:
            RecordedClock.load(Path(self.config.clock_path))  # a worker would load it too late: for the user to see the mistake
        self._builds = Slots(range(self.config.build_slots or len(self.config.compiling())))
        self._slots = Slots([self.config.cores(slot) for slot in range(self.config.slots)])
        self._batches = Batches(self._slots)
        self._pools: dict[Flavour, Pool] = {}
        self._scratch = Scratch()
        self._hardware = f"{hardware()}, {len(self.config.cores(0))} cores"
        self._closed = False

    async def start(self, backend: str) -> None:
        """Start what a back end needs ahead of time. Raises ConfigError, VerifierError."""
        await self._pool(backend).start()

    @property
    def load(self) -> Load:
        return Load(self._builds.taken, self._builds.waiting, self._slots.taken, self._batches.waiting)

    def _pool(self, backend: str) -> Pool:
        if self._closed:
            raise VerifierError("this verifier is closed")
        known = get_backend(backend)
        missing = known.missing()
        if missing:
            raise ConfigError(f"back end {backend!r} {missing}")
        return self._pool_of(known.flavour)

    def _pool_of(self, flavour: Flavour) -> Pool:
        if flavour not in self._pools:
            setup = {
                "cache_dir": str(self.config.cache()), "cache_bytes": self.config.cache_bytes(), "clock": self.config.clock,
                "clock_path": self.config.clock_path, "sandbox": self.config.sandbox_settings(),
                "reuse_bytes": self.config.reuse_mb << 20,
            }  # fmt: skip
            self._pools[flavour] = Pool(flavour, setup, self._scratch.path)
        return self._pools[flavour]

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order = ORDINARY
    ) -> Verdict:
        """Check and build off the device, then verify on a slot.

        Raises ConfigError (unknown back end), ProblemError, BuilderError, VerifierError, and MachineBusy when no time could be
        taken on two slots (or on the only one). Cancelling it kills the candidate and frees the slot. A worker or zygote that dies
        is replaced and the work done again, up to `pool.ATTEMPTS` times in all.
        """
        pool = self._pool(candidate.backend)
        check_ahead(config, candidate.backend)
        kind = Kind(candidate.backend, (problem.digest, problem.key, problem.profile), config, seed, order.priority)
        with self._batches.coming(kind):
            prepared = await self._prepared(pool, _job("prepare", problem, candidate, config, seed), order)
        first = _verdict(prepared)
        if first is not None:
            return first
        ahead, compiled = await self._ahead(problem, candidate, config, seed, order)
        spent = {name: prepared[name] + ahead.get(name, 0.0) for name in ("duration_ms", "build_ms", "own_ms")}
        first = _verdict(ahead) if ahead else None
        if first is not None:
            return replace(first, **spent)
        job = _job("verify", problem, candidate, config, seed)
        try:
            verdict = _verdict(await self._batches.ask(pool, kind, job, order))
        except MachineBusy:
            if len(self._slots) == 1:
                raise
            verdict = _verdict(await self._batches.ask(pool, kind, job, order))
        assert verdict is not None
        verdict = replace(against_baseline(verdict, problem, config), ahead=(*verdict.ahead, *compiled))
        if verdict.timing is not None and self.config.clock == "live":
            verdict = replace(verdict, timing=replace(verdict.timing, hardware=self._hardware))
        return replace(verdict, **{name: getattr(verdict, name) + spent[name] for name in spent})

    async def _ahead(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order
    ) -> tuple[Frame, tuple[Compiled, ...]]:
        """What became of compiling it for other machines, if that was asked for."""
        if not config.aot or candidate.backend != "triton":
            return {}, ()
        answer = await self._prepared(self._pool_of("plain"), _job("ahead", problem, candidate, config, seed), order)
        return answer, tuple(from_json(Compiled, made) for made in answer.get("ahead", ()))

    async def _prepared(self, pool: Pool, job: Frame, order: Order) -> Frame:
        found: list[Frame] = []
        place = await self._builds.take(order)
        try:
            for left in reversed(range(ATTEMPTS)):
                try:
                    await pool.ask(self.config.compiling(), job, found.append)
                    break
                except HelperDied as error:
                    if not left:
                        raise given_up(error) from error
        finally:
            self._builds.give_back(place)
        return found[0]

    async def aclose(self) -> None:
        """Idempotent. Verifications in progress end with VerifierError."""
        self._closed = True
        for pool in self._pools.values():
            await pool.aclose()
        self._scratch.remove()


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
        self._builder = Builder(config.cache(), self._lock, most_bytes=config.cache_bytes())
        self._clock = worker.make_clock(config.clock_path, config.clock)
        self._worker = worker
        self._scratch = Scratch()

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order = ORDINARY
    ) -> Verdict:
        flavour = get_backend(candidate.backend).flavour
        if config.aot:
            raise ConfigError("verify.aot needs a runner of its own: it does not go with verifier=inprocess")
        if flavour == "interpret" and os.environ.get("TRITON_INTERPRET") != "1":
            raise ConfigError(
                "verifier=inprocess with Triton needs TRITON_INTERPRET=1 in the environment before anything imports triton"
            )
        if flavour == "interpret":
            from kernel_env.backends.interpreter import prepare

            prepare()
        referee = self._worker.inprocess_referee(self._builder, self._clock, self._lock, flavour, self._scratch.path)
        for operation in ("prepare", "verify"):
            for answer in self._worker.answers(referee, _job(operation, problem, candidate, config, seed)):
                verdict = _verdict(answer)
                if verdict is not None:
                    return against_baseline(verdict, problem, config)
        raise VerifierError("verification ended without a verdict")

    async def aclose(self) -> None:
        """Idempotent."""
        self._scratch.remove()


# ---------------------------------------------------------------- sharing


class VerifierServer:
    """Shares one verifier with other processes of this user through a Unix socket (in a directory only this user can enter)."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self._scratch = Scratch()
        self.address = f"unix:{self._scratch.path}/verifier"
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._clients = itertools.count(1)
        """Numbers, for those who do not say who they are."""

    async def start(self) -> str:
        """Listen; returns the address for `SocketVerifier`."""
        path = self.address.removeprefix("unix:")
        self._server = await asyncio.start_unix_server(self._serve, path)
        return self.address

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client until it leaves. What is being verified for it then is cancelled."""
        client = str(next(self._clients))
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        coming = asyncio.ensure_future(receive(reader))
        # only `aclose` cancels this task, and asyncio of Python 3.11 would log its end like that as an error of ours
        endings = (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError)
        with contextlib.suppress(*endings), contextlib.closing(writer):
            try:
                while True:
                    frame = await coming
                    coming = asyncio.ensure_future(receive(reader))
                    await send(writer, await _while_connected(self._answer(frame, client), coming))
            finally:
                self._serving.discard(task)
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)

    async def _answer(self, frame: Frame, client: str) -> Frame:
        try:
            order = from_json(Order, frame["order"])
            verdict = await self._verifier.verify(
                from_json(Problem, frame["problem"]),
                from_json(Candidate, frame["candidates"][0]),
                from_json(VerifyConfig, frame["config"]),
                frame["seed"],
                replace(order, client=order.client or client),
            )
            return {"verdict": to_json(verdict)}
        except KernelEnvError as error:
            return {"raised": type(error).__name__, "message": str(error)}

    async def aclose(self) -> None:
        """Idempotent. Cancels what is being verified for others."""
        if self._server is not None:
            self._server.close()
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        self._scratch.remove()


async def _while_connected(work: Coroutine[Any, Any, T], coming: asyncio.Future[Frame]) -> T:
    """The result of `work`. Cancels it and raises what `coming` raises when that, the client's next request, can never come."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait((working, coming), return_when=asyncio.FIRST_COMPLETED)
        if coming.done():
            coming.result()
        return await working
    finally:
        working.cancel()


class SocketVerifier:
    """A verifier in another process, by its address (`unix:/path`). Verifies one at a time; for more, make several."""

    def __init__(self, address: str) -> None:
        if not address.startswith("unix:"):
            raise ConfigError(f"verifier address {address!r}: expected unix:/path/of/socket")
        self._path = address.removeprefix("unix:")
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order = ORDINARY
    ) -> Verdict:
        """Like `LocalVerifier.verify`; also raises VerifierError when nobody answers there."""
        async with self._lock:
            try:
                if self._connection is None:
                    self._connection = await asyncio.open_unix_connection(self._path)
                reader, writer = self._connection
                await send(writer, {**_job("verify", problem, candidate, config, seed), "order": to_json(order)})
                answer = await receive(reader)
            except (OSError, asyncio.IncompleteReadError) as error:
                await self.aclose()
                raise VerifierError(
                    f"the shared verifier at unix:{self._path} does not answer: is its process still running?"
                ) from error
            except asyncio.CancelledError:  # the answer to this question must never be taken for the next one's
                await self.aclose()
                raise
        verdict = _verdict(answer)
        assert verdict is not None
        return verdict

    async def aclose(self) -> None:
        """Idempotent."""
        if self._connection is not None:
            self._connection[1].close()
        self._connection = None


class BlockingVerifier:
    """A synchronous face: runs a verifier's event loop in a thread of its own. Close it, or use it in a `with` block."""

    def __init__(self, make: Callable[[], Verifier] | str | None = None, *, share: bool = False) -> None:
        """`make` makes the verifier in the right thread, or is the address of a shared one; None makes a `LocalVerifier`.

        With `share`, `address` can be given to other processes.
        """
        self._thread = LoopThread("kernel-env-verifier", lambda how: VerifierError(f"this verifier {how}"))
        if isinstance(make, str):
            make = functools.partial(SocketVerifier, make)
        self.verifier: Verifier = self._thread.make(make or LocalVerifier)
        self._thread.at_close(self.verifier.aclose)
        self.address: str | None = None
        if share:
            try:
                server = VerifierServer(self.verifier)
                self._thread.at_close(server.aclose)
                self.address = self.run(server.start())
            except BaseException:  # there is no object yet that anybody could close
                self.close()
                raise

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the verifier's loop and wait for it. Interrupting the wait cancels it there."""
        return self._thread.run(work)

    def verify(self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order = ORDINARY) -> Verdict:
        return self.run(self.verifier.verify(problem, candidate, config, seed, order))

    def close(self) -> None:
        """Idempotent."""
        self._thread.close()

    def __enter__(self) -> BlockingVerifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

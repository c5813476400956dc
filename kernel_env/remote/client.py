"""`RemoteVerifier`: verification by servers (`kernel-env serve`) on other machines.

    verifier = RemoteVerifier(["http://a:18188", "http://b:18188"])

Each verification is a job of the server that has the least to do. Jobs of a server that dies, stops or loses them go to another
one, or wait for it to come back; an error of one server's machine is tried on the others. What no server could tell is an
exception, and never a verdict.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence

from kernel_env.backends import get_backend
from kernel_env.errors import ConfigError, InfraError, ProblemError, VerifierError
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.slots import ORDINARY, Order
from kernel_env.remote.endpoint import Endpoint, Full, Lost
from kernel_env.remote.wire import API_KEY, Job
from kernel_env.schema import Candidate, Problem, Verdict
from kernel_env.verifier import Load, check_ahead

LEASE_S = 120.0
"""A server gives up jobs whose owner has not asked for so long: it died."""
PAUSE_S = 0.2
"""Between looks for a server that takes the job."""
PATIENCE_S = 60.0
"""How long all servers may be gone, as while they are restarted, before a job has failed."""
MOST_LOST = 5
"""Times that servers lose a job before it has failed: it may be what kills them."""
GOODBYE_S = 5.0
"""How long a cancelled verification waits until its slot is free."""


class RemoteVerifier:
    """A `Verifier` over one or several servers. Use within one event loop; it asks nobody before its first use."""

    def __init__(self, urls: Sequence[str], api_key: str = "", *, patience_s: float = PATIENCE_S) -> None:
        """`api_key` is by default the environment's KERNEL_ENV_API_KEY. Raises ConfigError for what is no address."""
        if not urls:
            raise ConfigError("verifier.remote needs the address of a server, such as http://127.0.0.1:18188")
        key = api_key or os.environ.get(API_KEY, "")
        self._servers = [Endpoint(url, key) for url in dict.fromkeys(url.rstrip("/") for url in urls)]
        self._patience_s = patience_s
        self._running: set[asyncio.Task[Verdict]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self, backend: str) -> None:
        """Raises VerifierError where no server answers, ConfigError where none has the back end."""
        await self._watched()
        if not self._with_backend(backend):
            raise VerifierError(self._gone())

    @property
    def load(self) -> Load:
        """Of all servers together, others' jobs included."""
        loads = [server.health.load for server in self._healthy() if server.health]
        return Load(
            building=sum(load.building for load in loads),
            to_build=sum(load.to_build for load in loads),
            slots_taken=sum(load.slots_taken for load in loads),
            to_measure=sum(load.to_measure for load in loads),
        )

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order = ORDINARY
    ) -> Verdict:
        """Like `LocalVerifier.verify`; also raises VerifierError where no server answers, or they lose it again and again.

        Cancelling it cancels the job at its server, which kills the candidate and frees the slot.
        """
        if self._closed:
            raise VerifierError("this verifier is closed")
        get_backend(candidate.backend)
        check_ahead(config, candidate.backend)
        await self._watched()
        working = asyncio.ensure_future(self._verdict(Job(problem, candidate, config, seed, order, lease_s=LEASE_S)))
        self._running.add(working)
        try:
            return await working
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if working.cancelled() and not (task and task.cancelling()):  # `aclose` did it
                raise VerifierError("this verifier was closed before the verdict came") from None
            raise
        finally:
            self._running.discard(working)

    async def aclose(self) -> None:
        """Idempotent. Verifications in progress end with VerifierError."""
        self._closed = True
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, *self._leaving, return_exceptions=True)
        await asyncio.gather(*(server.aclose() for server in self._servers))

    # ------------------------------------------------------------------ one job

    async def _verdict(self, job: Job) -> Verdict:
        """From the first server that can tell."""
        failed: dict[Endpoint, InfraError] = {}
        lost, last_seen_s = 0, time.monotonic()
        while True:
            there = self._with_backend(job.candidate.backend)
            able = [server for server in there if server not in failed]
            if failed and not able:
                raise next(reversed(failed.values()))
            if there:
                last_seen_s = time.monotonic()
            elif time.monotonic() - last_seen_s > self._patience_s:
                raise VerifierError(self._gone())
            server = min((s for s in able if not s.full), key=lambda s: s.busyness, default=None)
            if server is None:
                await asyncio.sleep(PAUSE_S)
                continue
            try:
                return await self._by(server, job)
            except Full:
                continue
            except Lost as error:
                lost, last_seen_s = lost + 1, time.monotonic()
                if lost == MOST_LOST:
                    raise VerifierError(f"servers lost a job {lost} times, the last one because {error}") from error
            except ProblemError:
                raise
            except InfraError as error:
                failed[server] = error

    async def _by(self, server: Endpoint, job: Job) -> Verdict:
        """Raises Lost, Full, and the errors of verifiers."""
        try:
            verdict = await server.verified(job)
        except (asyncio.CancelledError, Lost) as error:
            leaving = asyncio.create_task(server.cancel(job.id))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
            if isinstance(error, asyncio.CancelledError):
                await asyncio.wait({leaving}, timeout=GOODBYE_S)
            raise
        asked = job.problem.digest, job.candidate.digest, job.seed
        if (verdict.problem_digest, verdict.candidate_digest, verdict.seed) != asked:
            raise VerifierError(f"{server.url} answered another question: does it speak this protocol?")
        return verdict

    # ------------------------------------------------------------------ the servers

    async def _watched(self) -> None:
        """Returns once each was looked at."""
        await asyncio.gather(*(server.watch() for server in self._servers))

    def _healthy(self) -> list[Endpoint]:
        return [server for server in self._servers if server.health is not None]

    def _with_backend(self, backend: str) -> list[Endpoint]:
        """Those that are there. Raises ConfigError where all are, and none has it."""
        healthy = self._healthy()
        found = [s for s in healthy if s.health and backend in s.health.supported_backends]
        if not found and len(healthy) == len(self._servers):
            raise ConfigError(f"back end {backend!r} is on none of {', '.join(s.url for s in healthy)}")
        return found

    def _gone(self) -> str:
        said = "; ".join(f"{server.url}: {server.trouble or 'takes nothing'}" for server in self._servers)
        return f"no server verifies ({said}): is `kernel-env serve` running there, is verifier.remote right?"

"""What a server was given to verify: each job runs once, is kept until its answer was had, and can be cancelled.

The verifier itself decides who is served when; here is only how much may wait for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kernel_env.errors import ConfigError, KernelEnvError
from kernel_env.referee.config import EAGER
from kernel_env.referee.slots import ORDINARY
from kernel_env.remote.counters import Counters
from kernel_env.remote.wire import Failure, Job, Refusal, failure, write
from kernel_env.schema import Verdict
from kernel_env.verifier import Verifier

SWEEP_S = 1.0
"""How often leases and old answers are looked at."""
FETCHED_KEEP_S = 60.0
"""An answer that somebody had is kept so long, should it not have arrived."""
MOST_KEPT = 10_000
"""Answers, so that memory is bounded."""
_log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that cannot be met. `failure` says why."""

    def __init__(self, kind: Refusal, message: str, job: str | None = None) -> None:
        super().__init__(message)
        self.failure = Failure(kind, message, job)


@dataclass(eq=False)
class _Entry:
    """One job. What it was about is in the task alone, and gone with it."""

    digest: bytes
    lease_s: float | None
    task: asyncio.Task[Verdict | Failure]
    waiting: int = 0
    """Requests that wait for its answer."""
    asked_s: float = field(default_factory=time.monotonic)
    """When the last of them left, ..."""
    ended_s: float | None = None
    """... and when it was done."""
    fetched: bool = False
    """Somebody has the answer."""

    @property
    def failed(self) -> bool:
        """It has no verdict, and never will."""
        return self.ended_s is not None and (self.task.cancelled() or isinstance(self.task.result(), Failure))

    def over(self, now_s: float, keep_s: float) -> bool:
        """Nobody waits for it any more, or nobody may."""
        if self.lease_s is not None and not self.waiting and now_s - self.asked_s > self.lease_s:
            return True
        return self.ended_s is not None and now_s - self.ended_s > (min(keep_s, FETCHED_KEEP_S) if self.fetched else keep_s)


class Jobs:
    """Call everything within one event loop."""

    def __init__(self, verifier: Verifier, queue: int, keep_s: float, counters: Counters) -> None:
        """At most `queue` are not finished at a time. Answers are kept for `keep_s`."""
        self._verifier, self._queue, self._keep_s, self._counters = verifier, queue, keep_s, counters
        self._entries: dict[str, _Entry] = {}
        self._running: set[asyncio.Task[Verdict | Failure]] = set()
        self._settled = asyncio.Event()
        self._sweeping: asyncio.Task[None] | None = None
        self.draining = self._closed = False

    @property
    def unfinished(self) -> int:
        return len(self._running)

    @property
    def kept(self) -> int:
        """Jobs that are known, finished or not."""
        return len(self._entries)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Start all that are not known yet, or failed, or none. Raises Refused, and ConfigError for what cannot be meant."""
        digests: dict[str, bytes] = {}
        for job in jobs:
            if job.config.baseline != EAGER:
                raise ConfigError("verify.baseline names a file, and a server reads none: use verify.baseline=eager")
            digest, known = _digest(job), self._entries.get(job.id)
            if digest != digests.setdefault(job.id, known.digest if known else digest):
                raise Refused(Refusal.CONFLICT, f"job {job.id} is another one already: give each an id of its own", job.id)
            if known:
                known.asked_s = time.monotonic()
        new = {job.id: job for job in jobs if job.id not in self._entries or self._entries[job.id].failed}
        if not new:
            return
        if self.draining:
            raise Refused(Refusal.STOPPING, "the server is stopping and takes nothing new")
        if len(self._running) + len(new) > self._queue:
            said = f"{len(self._running)} jobs are not finished, of at most {self._queue}: try again later"
            raise Refused(Refusal.OVERLOADED, said)
        self._sweeping = self._sweeping or asyncio.create_task(self._sweep())
        for job in new.values():
            self._start(job, digests[job.id])

    def _start(self, job: Job, digest: bytes) -> None:
        task = asyncio.create_task(self._verified(job))
        entry = self._entries[job.id] = _Entry(digest, job.lease_s, task)
        self._running.add(task)
        self._counters.accepted += 1
        started_s = time.monotonic()

        def ended(task: asyncio.Task[Verdict | Failure]) -> None:
            entry.ended_s = time.monotonic()
            self._running.discard(task)
            self._counters.ended(None if task.cancelled() else task.result(), entry.ended_s - started_s)
            self._note()

        task.add_done_callback(ended)

    async def _verified(self, job: Job) -> Verdict | Failure:
        seed = secrets.randbits(62) if job.seed is None else job.seed
        try:
            return await self._verifier.verify(job.problem, job.candidate, job.config, seed, job.order)
        except KernelEnvError as error:
            return failure(error, job.id)
        except Exception as error:  # noqa: BLE001  # boundary: a fault of ours is one job's failure, and never a verdict
            _log.exception("job %s", job.id)
            return Failure("verifier", f"the server broke: {type(error).__name__}: {error}", job.id)

    async def answer(self, job: str, wait_s: float | None) -> Verdict | Failure | None:
        """None where it takes longer. Raises Refused for a job that is not known, or is cancelled meanwhile."""
        entry = self._entry(job)
        entry.waiting += 1
        try:
            await asyncio.wait({entry.task}, timeout=wait_s)
        finally:
            entry.waiting -= 1
            entry.asked_s = time.monotonic()
        if not entry.task.done():
            return None
        if entry.task.cancelled():
            if self._closed:
                raise Refused(Refusal.STOPPING, f"the server stopped before job {job} was done", job)
            raise Refused(Refusal.CANCELLED, f"job {job} was cancelled", job)
        entry.fetched = True
        self._note()
        return entry.task.result()

    async def cancel(self, job: str) -> None:
        """Returns once its candidate is dead and its slot free. Raises Refused for a job that is not known."""
        entry = self._entry(job)
        self._give_up(job)
        await asyncio.wait({entry.task})

    def left(self, job: str) -> None:
        """Whoever waited for it has gone: without a lease, and without others who wait, it is given up."""
        entry = self._entries.get(job)
        if entry is not None and entry.lease_s is None and not entry.waiting and not entry.task.done():
            self._give_up(job)

    def _give_up(self, job: str) -> None:
        self._entries.pop(job).task.cancel()
        self._note()

    def _entry(self, job: str) -> _Entry:
        if job not in self._entries:
            said = f"there is no job {job}: it was never submitted, was cancelled, or is long done"
            raise Refused(Refusal.UNKNOWN_JOB, said, job)
        return self._entries[job]

    async def _sweep(self) -> None:
        """Cancels what nobody waits for, and forgets old answers."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s = time.monotonic()
            over = {job for job, entry in self._entries.items() if entry.over(now_s, self._keep_s)}
            kept = [job for job, entry in self._entries.items() if entry.ended_s is not None and job not in over]
            kept.sort(key=lambda job: not self._entries[job].fetched)  # each of both as they came
            for job in [*over, *kept[: max(0, len(kept) - MOST_KEPT)]]:
                self._give_up(job)

    def _note(self) -> None:
        if self.draining and all(entry.fetched for entry in self._entries.values()):
            self._settled.set()

    async def drain(self) -> None:
        """Take nothing new; returns once each job is finished and somebody has its answer."""
        self.draining = True
        self._note()
        await self._settled.wait()

    async def aclose(self) -> None:
        """Cancels what is left."""
        self.draining = self._closed = True
        left = [*self._running, *([self._sweeping] if self._sweeping else [])]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _digest(job: Job) -> bytes:
    return hashlib.sha256(write(replace(job, lease_s=None, order=ORDINARY))).digest()

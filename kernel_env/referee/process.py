"""The referee's handle on a runner: requests with deadlines, captured output, and a certain end."""

from __future__ import annotations

import contextlib
import functools
import os
import select
import signal
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kernel_env.errors import VerifierError
from kernel_env.processes import oom_kills
from kernel_env.referee.memory import is_readable
from kernel_env.referee.placement import Placed, ended_s, place_workers, threads
from kernel_env.referee.protocol import Channel, ChannelClosed, Frame, NotAFrame
from kernel_env.referee.scratch import remove_tree
from kernel_env.sandbox import Layer

LOG_BYTES = 16_384
FRAME_BYTES = 4 << 20
"""Largest frame of a runner: 20,000 tensors described, or 16 times the longest source of an extension."""
FREE_BUILDS, FREE_BUILD_S = 32, 600.0
"""So many builds of a runner, and so many seconds of them, do not count as its own time. Else a program that goes on asking for
builds would never meet its limit."""
BuildHandler = Callable[[Frame], Frame]


READY_LIMIT_S = 60.0
_ENDING_S = 0.5
"""A process that ends closes its channel when its memory is freed already: what is left takes less."""
PREPARED = {"reference": 2, "candidate": 2}
"""So many runners wait for the next job: what one takes, its first pass included."""


class ZygoteGone(VerifierError):
    """The zygote ended or does not answer: its worker is of no further use."""


class RunnerTimeout(Exception):
    """The runner gave no answer within its limit."""


class RunnerDied(Exception):
    """The runner's process ended or closed its channel. `cause` is `SIGSEGV`, `exit 0`, `closed its channel`, ..."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def no_builds(frame: Frame) -> Frame:
    """The build handler of a problem's own code."""
    return {"ok": False, "log": "a problem's reference cannot build extensions"}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


class Endpoint(Protocol):
    """One program that answers frames: a process of its own (`RunnerProcess`) or, for debugging, this process."""

    pid: int
    """The process whose memory the outputs are in."""
    elapsed_s: float
    """From sending the last request to the arrival of all of its answer, not yet parsed."""
    free_s: float
    """How much of the last request's time were builds, which do not count."""
    isolation: tuple[str, ...]
    """Layers that stand around it, known after the first request."""
    freeze_at_reply: bool
    """Whether the next request's answer freezes it at once, before anything else is done with that."""
    counts_cores: bool
    """Whether it may see on how many cores its main thread may run: then that is on all of them, while it is timed, too."""
    at_reply: Callable[[], None] | None
    """What is done then in any case, after each request's answer; where it is a process of its own."""
    readable: bool
    """Whether its memory could be read from here before any foreign code ran in it. Where it cannot be later, that is its doing."""

    @property
    def workers(self) -> int:
        """OpenMP workers that it has, as far as that can be seen."""

    def request(self, frame: Frame, fds: Sequence[int] = (), timeout_s: float | None = None) -> Frame: ...
    def hides(self) -> bool:
        """Whether it is the program's own doing that its memory cannot be read: it could be once, and the process has not ended,
        which the next request tells. Waits a moment for that."""

    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def place(self, cores: tuple[int, ...]) -> None: ...
    def log(self) -> str: ...
    def kill(self) -> None: ...
    def wait_end(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Slot:
    """What one measurement may use: a set of cores, and as many threads."""

    cores: tuple[int, ...]
    memory_bytes: int = 0
    """Limit on a runner's private memory; 0 is no limit."""


class ZygoteClient:
    """A worker's connection to the zygote, and the runners that wait for work.

    What is asked of the zygote goes on while the worker does: a runner that is taken is replaced at once, and one that is closed
    ends meanwhile. Its answers come in order.
    """

    def __init__(self, channel: Channel, scratch_root: Path) -> None:
        self.channel = channel
        self.scratch_root = scratch_root
        self._waiting: list[RunnerProcess] = []
        self._owed: deque[Callable[[Frame, list[int]], None]] = deque()
        """What to do with the answers that are still to come."""
        self._forking: Counter[tuple[str, Slot]] = Counter()
        self._status = 0

    def runner(self, role: str, slot: Slot, build: BuildHandler) -> RunnerProcess:
        """One that waits, or a new one. Raises ZygoteGone.

        One that waits has seen no one's code and is told nothing before it is taken.
        """
        for other in [other for other in self._waiting if other.role == role and (other.slot != slot or not other.alive)]:
            self._waiting.remove(other)
            other.close()
        while (runner := next((r for r in self._waiting if (r.role, r.slot) == (role, slot)), None)) is None:
            if not self._forking[role, slot]:
                self._fork(role, slot)
            self._collect()
        self._waiting.remove(runner)
        runner.build_handler = build
        there = sum((r.role, r.slot) == (role, slot) for r in self._waiting) + self._forking[role, slot]
        for _ in range(PREPARED.get(role, 0) - there):
            self._fork(role, slot)
        return runner

    def finish(self, unless: socket.socket | None = None) -> None:
        """Wait for everything that was asked; no longer than until something can be read there. Raises ZygoteGone."""
        while self._owed:
            if unless is not None and unless in select.select([self.channel.sock, unless], [], [])[0]:
                return
            self._collect()

    def _fork(self, role: str, slot: Slot) -> None:
        ours, theirs = socket.socketpair()
        log_read, log_write = os.pipe()

        def forked(answer: Frame, fds: list[int]) -> None:
            self._forking[role, slot] -= 1
            channel, scratch = Channel(ours, FRAME_BYTES), Path(answer["scratch"])
            self._waiting.append(RunnerProcess(self, role, slot, answer["pid"], fds[0], scratch, channel, log_read))

        frame = {
            "op": "fork", "role": role, "cores": list(slot.cores), "threads": len(slot.cores),
            "memory_bytes": slot.memory_bytes, "scratch_root": str(self.scratch_root), "worker": os.getpid(),
        }  # fmt: skip
        with theirs:
            try:
                self._ask(frame, forked, [theirs.fileno(), log_write])
            except ZygoteGone:
                ours.close()
                os.close(log_read)
                raise
            finally:
                os.close(log_write)
        self._forking[role, slot] += 1

    def reap(self, runner: RunnerProcess) -> None:
        """Kill a runner and all that it started, and remove its files; without waiting for it. Raises ZygoteGone."""

        def reaped(answer: Frame, _: list[int]) -> None:
            self._status = int(answer["exit"])
            remove_tree(runner.scratch)

        self._ask({"op": "reap", "pid": runner.pid}, reaped)

    def status(self) -> int:
        """The wait status of the runner that was reaped last, once it has ended. Raises ZygoteGone."""
        self.finish()
        return self._status

    def _ask(self, frame: Frame, then: Callable[[Frame, list[int]], None], fds: Sequence[int] = ()) -> None:
        try:
            self.channel.send(frame, fds)
        except ChannelClosed as error:
            raise ZygoteGone("the zygote process is gone") from error
        self._owed.append(then)

    def _collect(self) -> None:
        """Take one answer."""
        try:
            answer, fds = self.channel.recv(timeout_s=READY_LIMIT_S, accept_fds=True)
        except (ChannelClosed, TimeoutError) as error:
            raise ZygoteGone("the zygote process is gone") from error
        self._owed.popleft()(answer, fds)


class RunnerProcess:
    """A forked runner. `close` always ends it and everything it started, at once for all that it could do."""

    def __init__(
        self, zygote: ZygoteClient, role: str, slot: Slot, pid: int, pidfd: int, scratch: Path, channel: Channel, log_fd: int
    ) -> None:
        self.role, self.slot, self.pid = role, slot, pid
        self.build_handler: BuildHandler = no_builds
        self.scratch = scratch
        self._zygote, self._pidfd = zygote, pidfd
        self._channel, self._log_fd = channel, log_fd
        self._log = bytearray()
        self._log_open = True
        self._closed = False
        self._free_builds, self._free_build_s = FREE_BUILDS, FREE_BUILD_S
        self.elapsed_s = self.free_s = 0.0
        self._cores: tuple[int, ...] = ()
        self._placed = Placed()
        self._ours: frozenset[int] = frozenset()
        """Threads that were there before the program was: torch's, which only wait."""
        self._stays = False
        os.set_blocking(log_fd, False)
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        self._poll.register(log_fd, select.POLLIN)
        self._ready = self.readable = False
        self.isolation: tuple[str, ...] = ()
        self.freeze_at_reply = self.counts_cores = False
        self.at_reply: Callable[[], None] | None = None
        self._oom_kills = 0

    def request(self, frame: Frame, fds: Sequence[int] = (), timeout_s: float | None = None) -> Frame:
        """Send one frame and wait for its answer, serving build requests meanwhile (whose time is not counted, within bounds).

        Raises RunnerTimeout or RunnerDied; the runner is then of no further use. Raises VerifierError when it did not get as far
        as to its first request: no code ran in it, so nothing is to blame for that. Nor is it when the machine runs out of memory.
        """
        if self._closed:
            raise RunnerDied("was ended")
        if not self._ready:
            self._begin()
        self.free_s = 0.0
        if self._channel.has_spoken():
            self.close()
            raise RunnerDied("answered what it was not asked")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        freezes, self.freeze_at_reply = self.freeze_at_reply, False
        self._channel.on_arrival = functools.partial(self._answered, freezes)
        self._wake_on(self._cores[:1])
        sent = self._send(frame, deadline, fds)
        if not self._stays:
            self._wake_on(self._cores)
        while True:
            answer = self._receive(deadline)
            self.elapsed_s = self._channel.arrived - sent
            if ("build" in answer) != self._channel.is_question:
                self.close()
                raise RunnerDied("sent what is no answer")
            if not self._channel.is_question:
                return answer
            started = time.monotonic()
            self.freeze()  # or its threads could keep the compiler from the cores, for as long as they like
            result = self.build_handler(answer["build"])
            free_s = self._free(time.monotonic() - started)
            self.free_s += free_s
            deadline = None if deadline is None else deadline + free_s
            self.thaw()
            self._send(result, deadline)

    def _answered(self, freezes: bool) -> None:
        if freezes:
            self.freeze()
        if self.at_reply is not None:
            self.at_reply()

    def _send(self, frame: Frame, deadline: float | None, fds: Sequence[int] = ()) -> float:
        try:
            return self._channel.send(frame, fds, None if deadline is None else max(deadline - time.monotonic(), 0.001))
        except TimeoutError as error:  # it reads nothing
            raise RunnerTimeout() from error
        except ChannelClosed as error:
            raise self._died() from error

    def _free(self, took_s: float) -> float:
        """How much of a build's time does not count."""
        free_s = min(took_s, self._free_build_s) if self._free_builds else 0.0
        self._free_builds = max(self._free_builds - 1, 0)
        self._free_build_s -= free_s
        return free_s

    def hides(self) -> bool:
        return self.readable and not self._closed and not select.select([self._pidfd], [], [], _ENDING_S)[0]

    @property
    def alive(self) -> bool:
        return not self._closed and not select.select([self._pidfd], [], [], 0)[0]

    def _begin(self) -> None:
        """Take the runner's first frame: sent before it has seen any code, so it is our own word."""
        self._oom_kills = oom_kills()
        try:
            hello = self._receive(time.monotonic() + READY_LIMIT_S)
        except RunnerDied as death:
            raise VerifierError(f"a runner died ({death.cause}) before it was given anything to run") from death
        except RunnerTimeout:
            self.close()
            raise VerifierError(f"a runner was not ready within {READY_LIMIT_S:g} s: is this machine overloaded?") from None
        if "refused" in hello:
            self.close()
            raise VerifierError(hello["refused"])
        self.isolation = tuple(hello["isolation"])
        self._ours = threads(self.pid)
        self.readable = is_readable(self.pid)
        self._ready = True

    def _receive(self, deadline: float | None) -> Frame:
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise RunnerTimeout()
            events = dict(self._poll.poll(None if left is None else max(1, int(left * 1000) + 1)))
            if self._log_fd in events:
                self._drain()
            if self._channel.fileno() in events:
                try:
                    return self._channel.recv(timeout_s=left)[0]
                except TimeoutError as error:
                    raise RunnerTimeout() from error
                except NotAFrame as error:
                    self.close()
                    raise RunnerDied("sent what is no answer") from error
                except ChannelClosed as error:
                    raise self._died() from error

    def _drain(self) -> None:
        """Read what the program printed; keep the first part, count nothing else."""
        try:
            data = os.read(self._log_fd, 1 << 20)
        except BlockingIOError:
            return
        if not data and self._log_open:
            self._log_open = False
            self._poll.unregister(self._log_fd)
        self._log += data[: max(0, LOG_BYTES - len(self._log))]

    def _died(self) -> RunnerDied | VerifierError:
        """Why the channel ended: wait a moment for the process itself to end, else it closed the channel."""
        gone = bool(select.select([self._pidfd], [], [], _ENDING_S)[0])
        self.close()
        status = self._zygote.status()
        if gone and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL and oom_kills() > self._oom_kills:
            return VerifierError(
                "this machine ran out of memory and the kernel killed a runner: use fewer verifier.slots, a smaller "
                "verify.memory_limit_mb or smaller problems (problems.profile)"
            )
        if not gone:
            return RunnerDied("closed its channel")
        if os.WIFSIGNALED(status):
            return RunnerDied(_signal_name(os.WTERMSIG(status)))
        if os.WEXITSTATUS(status) == signal.SIGABRT and Layer.PID in self.isolation:
            return RunnerDied("SIGABRT")  # `sandbox.seal` says why
        return RunnerDied(f"exit {os.WEXITSTATUS(status)}")

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Let it begin to end; `close` waits for that."""
        with contextlib.suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)

    def wait_end(self) -> None:
        """Until it has ended, and given its memory back: within a second, once it is killed."""
        if not self._closed:
            select.select([self._pidfd], [], [], 1.0)

    def _signal(self, number: int) -> None:
        if not self._closed:
            os.killpg(self.pid, number)

    def place(self, cores: tuple[int, ...]) -> None:
        """Spread its threads over these cores, for timing. It is frozen."""
        self._cores = cores
        if len(cores) < 2:
            return
        for _ in range(20):
            if threads(self.pid) == self._placed.seen:
                break
            time.sleep(0.0005)  # where a thread stands can be seen once it has stopped
            self._placed = place_workers(self.pid, cores)
        self._stays = not self.counts_cores and not (self._placed.own - self._ours) and not ended_s(self.pid)

    @property
    def workers(self) -> int:
        return len(self._placed.seen - self._placed.own - {self.pid}) if self.readable else max(0, len(self._cores) - 1)

    def _wake_on(self, cores: tuple[int, ...]) -> None:
        if self._cores:
            with contextlib.suppress(OSError):  # it died: sending says so
                os.sched_setaffinity(self.pid, cores)

    def log(self) -> str:
        """What the program printed, bounded."""
        if not self._closed:
            self._drain()
        return self._log.decode(errors="replace")

    def close(self) -> None:
        """Idempotent. It runs no more, and has ended once the zygote says so (`ZygoteClient.finish`). Raises ZygoteGone."""
        if self._closed:
            return
        self.kill()
        self._drain()
        self._zygote.reap(self)
        self._closed = True
        self._channel.close()
        os.close(self._log_fd)
        os.close(self._pidfd)


class LocalEndpoint:
    """The same answers from this very process. For debugging: a candidate can reach everything here."""

    def __init__(self, role: str, scratch: Path, build: BuildHandler, *, interpreter: bool) -> None:
        from kernel_env.referee.runner import Runner

        self.isolation: tuple[str, ...] = ()
        self.freeze_at_reply = self.counts_cores = False
        self.at_reply: Callable[[], None] | None = None
        self.pid, self.elapsed_s, self.free_s, self.workers = os.getpid(), 0.0, 0.0, 0
        self.readable = is_readable(self.pid)
        self._runner: Any = Runner(role, scratch, build, interpreter=interpreter)

    def request(self, frame: Frame, fds: Sequence[int] = (), timeout_s: float | None = None) -> Frame:
        if frame["op"] == "move_code":  # other threads of this process may be writing theirs
            return {"moved": 0}
        started = time.perf_counter()
        answer: Frame = self._runner.handle(frame, fds)
        self.elapsed_s = time.perf_counter() - started
        return answer

    def hides(self) -> bool:
        return self.readable

    def freeze(self) -> None:
        """Nothing to freeze: one process runs one thing at a time."""

    def thaw(self) -> None:
        """Nothing was frozen."""

    def place(self, cores: tuple[int, ...]) -> None:
        """Left where they are: they are this process's own threads."""

    def log(self) -> str:
        return ""

    def kill(self) -> None:
        """Nothing to end."""

    def wait_end(self) -> None:
        """Nothing has to end."""

    def close(self) -> None:
        self._runner = None

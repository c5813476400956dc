"""A referee worker: a trusted process that takes jobs from the verifier and answers with verdicts.

Run as `python -I -m kernel_env.referee.worker FD`. A process of its own, so that keeping time never competes with the caller's
threads, and so that a comparison of gigabytes never blocks an event loop.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from kernel_env.builder import Builder
from kernel_env.builder.service import extensions
from kernel_env.errors import KernelEnvError, VerifierError
from kernel_env.hostlock import CoresLock
from kernel_env.processes import die_with_parent
from kernel_env.referee.candidate import Job
from kernel_env.referee.clock import Clock, LiveClock, RecordedClock
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.memory import private_bytes
from kernel_env.referee.process import BuildHandler, Endpoint, LocalEndpoint, Slot, ZygoteClient, ZygoteGone
from kernel_env.referee.protocol import Channel, ChannelClosed, Frame
from kernel_env.referee.referee import Referee
from kernel_env.sandbox import hide
from kernel_env.schema import Candidate, Problem, from_json, to_json

MUCH_BYTES = 256 << 20
"""Of memory that is this process's own: with more it gives back what is free."""


def make_clock(path: str | None, kind: str) -> Clock:
    if kind == "live":
        return LiveClock()
    return RecordedClock.load(Path(path)) if path else RecordedClock()


def process_referee(
    zygote: ZygoteClient, cores: tuple[int, ...], builder: Builder, clock: Clock, lock: CoresLock, reuse_bytes: int
) -> Referee:
    """Every runner is a process of its own, forked from the zygote."""

    def launch(role: str, build: BuildHandler, config: VerifyConfig) -> Endpoint:
        return zygote.runner(role, Slot(cores, config.memory_limit_mb << 20), build)

    return Referee(launch, builder, clock, lock, mode="process", cores=cores, reuse_bytes=reuse_bytes)


def inprocess_referee(
    builder: Builder, clock: Clock, lock: CoresLock, flavour: str, scratch: Path, reuse_bytes: int = 0
) -> Referee:
    """Everything runs in the calling process. For debugging only: every verdict says so."""

    def launch(role: str, build: BuildHandler, config: VerifyConfig) -> Endpoint:
        endpoint = LocalEndpoint(role, scratch, build, interpreter=flavour == "interpret")
        from kernel_env.backends.lookup import know_builds  # after torch, which the endpoint brings

        know_builds([str(extensions(builder.cache_dir))])
        return endpoint

    return Referee(launch, builder, clock, lock, mode="inprocess", reuse_bytes=reuse_bytes)


def serve(channel: Channel, referee: Referee, meanwhile: Callable[[socket.socket], None]) -> None:
    """Answer jobs until the verifier closes the channel; do something after each, until the next one is there to be read."""
    while True:
        try:
            frame, _ = channel.recv()
        except ChannelClosed:
            return
        for answer in answers(referee, frame):
            channel.send(answer)
        if private_bytes(os.getpid()) > MUCH_BYTES:
            ctypes.CDLL(None).malloc_trim(0)  # the allocator is told to keep what was freed: large outputs would stay for ever
        meanwhile(channel.sock)


def answers(referee: Referee, frame: Frame) -> Iterator[Frame]:
    """One for each candidate, in no order: a verdict, or the class and message of an error that is nobody's score. Raises
    ZygoteGone."""
    problem, config = from_json(Problem, frame["problem"]), from_json(VerifyConfig, frame["config"])
    candidates = [from_json(Candidate, candidate) for candidate in frame["candidates"]]
    left = set(range(len(candidates)))
    try:
        jobs = [Job(problem, candidate, config, frame["seed"]) for candidate in candidates]
        if frame["op"] == "prepare":
            prepared = referee.prepare(jobs[0])
            yield {**vars(prepared), "verdict": to_json(prepared.verdict)}
            return
        if frame["op"] == "ahead":
            prepared, compiled = referee.compile_ahead(jobs[0])
            yield {**vars(prepared), "verdict": to_json(prepared.verdict), "ahead": [to_json(made) for made in compiled]}
            return
        for number, outcome in referee.verify(jobs):
            left.discard(number)
            yield {"number": number, **(_raised(outcome) if isinstance(outcome, KernelEnvError) else {"verdict": to_json(outcome)})}
    except ZygoteGone:
        raise
    except KernelEnvError as error:
        for number in left:
            yield {"number": number, **_raised(error)}


def _raised(error: KernelEnvError) -> Frame:
    return {"raised": type(error).__name__, "message": str(error)}


def main() -> None:
    die_with_parent()
    hide()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    setup, fds = channel.recv(accept_fds=True)
    if threading.active_count() != 1:
        raise VerifierError("a referee worker must have one thread")
    cores = tuple(setup["cores"])
    os.sched_setaffinity(0, cores)  # compilers that it starts keep to them, too
    lock = CoresLock(cores=cores)
    zygote = ZygoteClient(Channel(socket.socket(fileno=fds[0])), Path(setup["scratch"]))
    builder = Builder(Path(setup["cache_dir"]), lock, most_bytes=setup["cache_bytes"])
    clock = make_clock(setup["clock_path"], setup["clock"])
    with contextlib.suppress(ZygoteGone):  # to end is the answer: the verifier sees it, and asks a worker of a living zygote
        referee = process_referee(zygote, cores, builder, clock, lock, setup["reuse_bytes"])
        serve(channel, referee, zygote.finish)


if __name__ == "__main__":
    main()

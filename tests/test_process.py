"""The referee's handle on a runner, with a thread in the runner's place and a clock that we turn."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, cast

import pytest

from kernel_env.referee import process
from kernel_env.referee.memory import is_readable
from kernel_env.referee.process import (
    FREE_BUILD_S,
    FREE_BUILDS,
    RunnerDied,
    RunnerProcess,
    RunnerTimeout,
    Slot,
    ZygoteClient,
    ZygoteGone,
    no_builds,
)
from kernel_env.referee.protocol import HEADER, Channel, ChannelClosed, Frame


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def perf_counter(self) -> float:
        return self.now_s


@contextmanager
def connected(tmp_path: Path) -> Iterator[tuple[RunnerProcess, Channel]]:
    """A runner's handle and the other end, which has said that it is ready."""
    ours, theirs = map(Channel, socket.socketpair())
    log, log_end = os.pipe()
    with subprocess.Popen(["sleep", "1000"], process_group=0) as sleeping:  # the process whose word is ours
        slot, pidfd = Slot((0,)), os.pidfd_open(sleeping.pid)
        runner = RunnerProcess(cast(Any, Zygote()), "candidate", slot, sleeping.pid, pidfd, tmp_path / "none", ours, log)
        theirs.send({"ready": True, "isolation": []})
        try:
            yield runner, theirs
        finally:
            runner.close()
            theirs.close()
            os.close(log_end)


class Zygote:
    """Reaps nobody."""

    def reap(self, runner: RunnerProcess) -> None:
        pass

    def status(self) -> int:
        return 0


@contextmanager
def asking(channel: Channel, builds: int) -> Iterator[None]:
    """The other end: asks for so many builds, one after the other, and then answers."""

    def run() -> None:
        with suppress(ChannelClosed):
            channel.recv()
            for _ in range(builds):
                channel.send({"build": {}})
                channel.recv()
            channel.send({"done": True})

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builds: int, each_s: float, limit_s: float) -> tuple[int, bool]:
    """How many builds were served to a program that asks for so many, and whether it came to its answer within its limit."""
    clock, count = Clock(), 0
    monkeypatch.setattr(process, "time", clock)

    def build(frame: Frame) -> Frame:
        nonlocal count
        count += 1
        clock.now_s += each_s
        return {"ok": True}

    answered = False
    with connected(tmp_path) as (runner, theirs), asking(theirs, builds):
        runner.build_handler = build
        with suppress(RunnerTimeout):
            answered = runner.request({"op": "load"}, timeout_s=limit_s) == {"done": True}
        runner.close()
    return count, answered


def test_the_time_of_builds_is_not_the_programs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served(tmp_path, monkeypatch, builds=5, each_s=60.0, limit_s=1.0) == (5, True)


def test_a_program_that_asks_for_builds_for_ever_meets_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served(tmp_path, monkeypatch, builds=10_000, each_s=1.0, limit_s=10.0) == (FREE_BUILDS + 10, False)


def test_long_builds_are_free_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served(tmp_path, monkeypatch, builds=10_000, each_s=100.0, limit_s=250.0) == (int(FREE_BUILD_S / 100) + 3, False)


# ---------------------------------------------------------- when an answer is there


def stopped(runner: RunnerProcess) -> bool:
    """A signal needs a moment."""
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        if Path(f"/proc/{runner.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return True
        time.sleep(0.001)
    return False


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
@pytest.mark.parametrize("counts", [False, True])
def test_a_program_that_counts_its_cores_has_all_of_them_when_it_is_timed(tmp_path: Path, counts: bool) -> None:
    cores = tuple(sorted(os.sched_getaffinity(0)))[:2]
    with connected(tmp_path) as (runner, channel):
        runner.counts_cores = counts
        with asking(channel, 0):
            runner.request({"op": "call"}, timeout_s=5)
        runner.freeze()
        runner.place(cores)
        runner.thaw()
        with asking(channel, 0):
            runner.request({"op": "call"}, timeout_s=5)
        assert os.sched_getaffinity(runner.pid) == set(cores if counts else cores[:1])


@pytest.mark.parametrize("builds", [0, 2])
def test_a_reply_can_freeze_and_a_request_for_a_build_is_none(tmp_path: Path, builds: int) -> None:
    with connected(tmp_path) as (runner, channel):
        seen: list[bool] = []

        def build(frame: Frame) -> Frame:
            seen.append(stopped(runner))
            return {"ok": True}

        runner.build_handler = build
        runner.freeze_at_reply = True
        with asking(channel, builds):
            runner.request({"op": "call"}, timeout_s=5)
        assert stopped(runner) and seen == [True] * builds
        runner.thaw()
        with asking(channel, builds):
            runner.request({"op": "call"}, timeout_s=5)
        assert not stopped(runner), "only the next one was meant"
        assert seen == [True] * 2 * builds, "a compiler has the cores for itself in any case"


def test_what_is_done_at_a_reply_is_done_before_that_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsing can take as long as a program wants it to."""
    with connected(tmp_path) as (runner, channel):
        seen: list[Any] = []
        runner.at_reply, runner.freeze_at_reply = lambda: seen.append(("replied", stopped(runner))), True
        parse = json.loads
        monkeypatch.setattr(json, "loads", lambda text: seen.append("parsed") or parse(text))
        thread = threading.Thread(target=lambda: (channel.sock.recv(1 << 16), channel.send({"done": True})))
        thread.start()
        runner.request({"op": "call"}, timeout_s=5)
        thread.join()
        assert seen[-2:] == [("replied", True), "parsed"]


@pytest.mark.parametrize(
    ("body", "ends"),
    [
        (b'{"build": {}}', False),
        (b'{"build":{"build": 1}, "done": true}', False),
        (b'{"done": true}', False),
        (b'{"outputs": {"build": {}}}', False),
        (b' {"build": {}}', True),
        (b'{"done": true, "build": {}}', True),
        (b'{"\\u0062uild": {}}', True),
    ],
)
def test_a_question_is_one_from_its_first_byte_on(tmp_path: Path, body: bytes, ends: bool) -> None:
    """What freezes a program as an answer does is none."""
    with connected(tmp_path) as (runner, theirs):
        runner.build_handler = lambda frame: {"ok": True}

        def answer() -> None:
            with suppress(ChannelClosed):
                theirs.recv()
                theirs.sock.sendall(HEADER.pack(len(body), 0) + body)
                if body.startswith(b'{"build":'):
                    theirs.recv()
                    theirs.send({"done": True})

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(RunnerDied, match="no answer") if ends else nullcontext():
            runner.request({"op": "call"}, timeout_s=5)
        thread.join()


def test_nothing_is_done_at_once_when_a_question_arrives() -> None:
    """Else a program could see in which of its messages it is frozen: there it would be sooner."""
    ours, theirs = map(Channel, socket.socketpair())
    seen: list[Frame] = []
    ours.on_arrival = lambda: seen.append({})
    for frame in ({"build": {}}, {"done": True}):
        theirs.send(frame)
        ours.recv()
        assert ours.is_question == ("build" in frame) and len(seen) == (not ours.is_question)
    ours.close()
    theirs.close()


def test_an_end_is_waited_for(tmp_path: Path) -> None:
    with connected(tmp_path) as (runner, _):
        runner.kill()
        runner.wait_end()
        assert Path(f"/proc/{runner.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


HIDES = """
import ctypes, sys, threading, time
libc = ctypes.CDLL(None)
if sys.argv[1] == "leaves":
    threading.Thread(target=lambda: (time.sleep(0.1), print("done", flush=True), time.sleep(1000))).start()
    libc.syscall(60, 0)
if sys.argv[1] == "ends":
    print("done", flush=True)
    sys.exit()
print("done", flush=True)
time.sleep(1000)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the number of a system call")
@pytest.mark.parametrize(("how", "expected"), [("stays", True), ("leaves", True), ("ends", False)])
def test_a_program_cannot_make_this_a_machine_where_nobody_may_read(tmp_path: Path, how: str, expected: bool) -> None:
    """Its first thread's end leaves nothing to read, and the rest of it alive: its own doing. Another's end is told as such."""
    ours, theirs = map(Channel, socket.socketpair())
    log, log_end = os.pipe()
    command = [sys.executable, "-c", f"import sys; sys.stdin.readline()\n{HIDES}", how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0) as program:
        assert program.stdin is not None and program.stdout is not None
        slot, pidfd = Slot((0,)), os.pidfd_open(program.pid)
        runner = RunnerProcess(cast(Any, Zygote()), "candidate", slot, program.pid, pidfd, tmp_path / "none", ours, log)
        theirs.send({"ready": True, "isolation": []})
        with asking(theirs, 0):
            runner.request({"op": "call"}, timeout_s=5)
        program.stdin.write(b"\n")
        program.stdin.flush()
        assert program.stdout.readline() == b"done\n"
        assert runner.hides() == expected and is_readable(program.pid) == (how == "stays")
        runner.close()
        theirs.close()
        os.close(log_end)
    assert not runner.hides()


def test_a_program_goes_on_once_its_build_is_there(tmp_path: Path) -> None:
    with connected(tmp_path) as (runner, channel):
        runner.build_handler = lambda frame: {"ok": True}
        runner.freeze_at_reply = True
        found: list[bool] = []

        def run() -> None:
            channel.recv()
            channel.send({"build": {}})
            channel.recv()
            found.append(stopped(runner))
            channel.send({"done": True})

        thread = threading.Thread(target=run)
        thread.start()
        runner.request({"op": "call"}, timeout_s=5)
        thread.join()
        assert found == [False] and stopped(runner)


def test_an_answer_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    """Its first byte can be sent before the work is done."""
    with connected(tmp_path) as (runner, theirs):

        def answer() -> None:
            theirs.recv()
            body = b'{"done": true}'
            data = HEADER.pack(len(body), 0) + body
            theirs.sock.sendall(data[:1])
            time.sleep(0.1)
            theirs.sock.sendall(data[1:-1])
            time.sleep(0.1)
            theirs.sock.sendall(data[-1:])

        thread = threading.Thread(target=answer)
        thread.start()
        assert runner.request({"op": "call"}) == {"done": True}
        thread.join()
        assert runner.elapsed_s > 0.19


@pytest.mark.parametrize("early", [b"\0", b"\0\0\0\x02\0\0\0\0{", b"\0\0\0\x02\0\0\0\0{}"])
def test_an_answer_that_was_not_asked_for_ends_it(tmp_path: Path, early: bytes) -> None:
    with connected(tmp_path) as (runner, theirs):
        theirs.sock.sendall(early)
        with pytest.raises(RunnerDied, match="not asked"):
            runner.request({"op": "call"})


def test_answers_of_two_requests_in_one_piece_end_it(tmp_path: Path) -> None:
    with connected(tmp_path) as (runner, theirs):

        def answer() -> None:
            theirs.recv()
            theirs.sock.sendall(2 * (HEADER.pack(2, 0) + b"{}"))

        thread = threading.Thread(target=answer)
        thread.start()
        assert runner.request({"op": "call"}) == {}
        thread.join()
        with pytest.raises(RunnerDied, match="not asked"):
            runner.request({"op": "call"})


def test_a_signal_without_a_name_has_a_number() -> None:
    assert process._signal_name(11) == "SIGSEGV" and process._signal_name(40) == "signal 40"


# ---------------------------------------------------------- what the zygote does meanwhile


class SlowZygote:
    """Answers the first request at once, and the others when it may."""

    def __init__(self, channel: Channel) -> None:
        self.channel, self.may = channel, threading.Event()
        self.asked: list[str] = []
        self.forked: dict[int, subprocess.Popen[bytes]] = {}
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        with suppress(ChannelClosed):
            while True:
                frame, fds = self.channel.recv(accept_fds=True)
                self.asked.append(frame["op"])
                if len(self.asked) > 1:
                    assert self.may.wait(60)
                if frame["op"] == "fork":
                    self.fork(Path(frame["scratch_root"]))
                    for fd in fds:
                        os.close(fd)
                else:
                    process = self.forked.pop(frame["pid"])
                    process.kill()
                    self.channel.send({"exit": -process.wait()})

    def fork(self, scratch_root: Path) -> None:
        process = subprocess.Popen(["sleep", "1000"], process_group=0)
        self.forked[process.pid] = process
        (scratch := scratch_root / str(process.pid)).mkdir()
        pidfd = os.pidfd_open(process.pid)
        self.channel.send({"pid": process.pid, "scratch": str(scratch)}, [pidfd])
        os.close(pidfd)


def test_a_runner_is_replaced_and_another_ends_while_the_worker_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PREPARED", {"candidate": 1})
    ours, theirs = map(Channel, socket.socketpair())
    zygote, client = SlowZygote(theirs), ZygoteClient(ours, tmp_path)
    runner = client.runner("candidate", Slot((0,)), no_builds)
    runner.close()
    assert not runner.alive and runner.scratch.exists() and not zygote.may.is_set(), "nothing was waited for"
    job, verifier = socket.socketpair()
    verifier.send(b"{")
    client.finish(unless=job)
    assert runner.scratch.exists() and not zygote.may.is_set(), "a job that is there is not kept waiting"
    job.recv(1)
    zygote.may.set()
    client.finish(unless=job)
    job.close()
    verifier.close()
    assert zygote.asked == ["fork", "fork", "reap"] and list(zygote.forked) and not runner.scratch.exists()
    other = client.runner("candidate", Slot((0,)), no_builds)
    assert other.pid in zygote.forked, "the one that waited"
    other.close()
    client.finish()
    monkeypatch.setattr(process, "PREPARED", {})
    larger = client.runner("candidate", Slot((0,), 1 << 30), no_builds)
    larger.close()
    client.finish()
    assert not zygote.forked, "of those with another slot none waits any more"
    theirs.sock.shutdown(socket.SHUT_RDWR)
    zygote.thread.join()
    with pytest.raises(ZygoteGone):
        client.runner("reference", Slot((0,)), no_builds)
    ours.close()
    theirs.close()

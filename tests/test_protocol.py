"""Frames over a socket: what an honest peer sends arrives, and whatever another one sends is refused in time."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_env.referee import protocol
from kernel_env.referee.protocol import HEADER, MAX_FRAME_BYTES, Channel, ChannelClosed, NotAFrame

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = (Channel(end) for end in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()


def framed(body: bytes, descriptors: int = 0) -> bytes:
    return HEADER.pack(len(body), descriptors) + body


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_any_object_arrives_as_it_was(frame: dict[str, Any]) -> None:
    first, second = (Channel(end) for end in socket.socketpair())
    with first.sock, second.sock:
        first.send(frame)
        assert second.recv(timeout_s=10) == (frame, [])


def test_frames_arrive_in_order_and_both_ways(pair: Pair) -> None:
    ours, theirs = pair
    for number in range(3):
        ours.send({"n": number, "text": "ü\ud800"})
    theirs.send({"back": [1.5, None, float("inf")]})
    assert [theirs.recv(10)[0] for _ in range(3)] == [{"n": n, "text": "ü\ud800"} for n in range(3)]
    assert ours.recv(10)[0] == {"back": [1.5, None, float("inf")]}


def test_a_frame_larger_than_any_buffer_arrives(pair: Pair) -> None:
    frame = {"text": "x" * (5 << 20)}
    sender = threading.Thread(target=pair[0].send, args=(frame,))
    sender.start()
    assert pair[1].recv(60)[0] == frame
    sender.join()


def test_descriptors_come_with_their_frame(pair: Pair) -> None:
    read, write = os.pipe()
    pair[0].send({"op": "take"}, [read, write])
    frame, (got_read, got_write) = pair[1].recv(10, accept_fds=True)
    os.write(write, b"through")
    assert frame == {"op": "take"}
    assert os.read(got_read, 100) == b"through"
    for fd in (read, write, got_read, got_write):
        os.close(fd)


def test_descriptors_of_frames_that_wait_together_all_arrive(pair: Pair) -> None:
    with open(os.devnull) as file:
        for number in range(5):
            pair[0].send({"n": number}, [file.fileno()] * (number % 3))
    for number in range(5):
        frame, fds = pair[1].recv(10, accept_fds=True)
        assert (frame, len(fds)) == ({"n": number}, number % 3)
        for fd in fds:
            os.close(fd)


def test_descriptors_that_nobody_asked_for_never_enter_this_process(pair: Pair) -> None:
    before = open_descriptors()
    with open(os.devnull) as file:
        pair[0].send({"op": "smuggle"}, [file.fileno()] * 5)
    assert pair[1].recv(10) == ({"op": "smuggle"}, [])
    assert open_descriptors() == before


def test_descriptors_of_a_bad_frame_are_closed(pair: Pair) -> None:
    before = open_descriptors()
    with open(os.devnull) as file:
        socket.send_fds(pair[0].sock, [framed(b"not json", 1)], [file.fileno()])
    with pytest.raises(ChannelClosed):
        pair[1].recv(10, accept_fds=True)
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (framed(b"not json"), "not JSON"),
        (framed(b""), "not JSON"),
        (framed(b"\xff\xfe\x00"), "not JSON"),
        (framed(b"[" * 200_000), "not JSON"),
        (framed(b'{"a":' * 200_000), "not JSON"),
        (framed(b"9" * 10_000), "not JSON"),
        (framed(b"[1, 2]"), "not an object"),
        (framed(b'"text"'), "not an object"),
        (framed(b"null"), "not an object"),
        (struct.pack("!II", MAX_FRAME_BYTES + 1, 0), "refused"),
        (b"\xff" * 8, "refused"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("accept_fds", [False, True])
def test_garbage_closes_the_channel(pair: Pair, raw: bytes, words: str, accept_fds: bool) -> None:
    sender = threading.Thread(target=pair[0].sock.sendall, args=(raw,))
    sender.start()
    with pytest.raises(NotAFrame, match=words):
        pair[1].recv(30, accept_fds=accept_fds)
    sender.join()


@pytest.mark.parametrize("sent", [b"", framed(b"{}")[:3], framed(b"{}")[:8], framed(b'{"half": ')[:-2]])
@pytest.mark.parametrize("accept_fds", [False, True])
def test_an_end_in_the_middle_closes_the_channel(pair: Pair, sent: bytes, accept_fds: bool) -> None:
    pair[0].sock.sendall(sent)
    pair[0].close()
    with pytest.raises(ChannelClosed):
        pair[1].recv(10, accept_fds=accept_fds)


@pytest.mark.parametrize("sent", [b"", framed(b"{}")[:3], framed(b"{}")[:9]])
@pytest.mark.parametrize("accept_fds", [False, True])
def test_half_a_frame_times_out(pair: Pair, sent: bytes, accept_fds: bool) -> None:
    pair[0].sock.sendall(sent)
    with pytest.raises(TimeoutError):
        pair[1].recv(timeout_s=0.05, accept_fds=accept_fds)


def test_sending_byte_by_byte_gains_no_time(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte arrives at once, and takes one second of a clock that we turn."""
    seconds = iter(range(10_000))
    monkeypatch.setattr(protocol.time, "monotonic", lambda: float(next(seconds)))
    with Drip(framed(json.dumps({"text": "x" * 1000}).encode())) as dripping:
        with pytest.raises(TimeoutError):
            Channel(dripping).recv(timeout_s=60)
        assert dripping.given < 61


class Drip(socket.socket):
    """A socket that gives one byte a read."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data, self.given = data, 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.given += 1
        return self.data[self.given - 1 : self.given]


@pytest.mark.parametrize("close", [lambda s: s.close(), lambda s: s.shutdown(socket.SHUT_RDWR)])
def test_sending_to_nobody_closes_the_channel(pair: Pair, close: Callable[[socket.socket], None]) -> None:
    close(pair[1].sock)
    with pytest.raises(ChannelClosed, match="sending"):
        pair[0].send({"op": "hello"})


def test_a_peer_that_reads_nothing_is_taken_for_dead(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "SEND_TIMEOUT_S", 0.05)
    with pytest.raises(ChannelClosed, match="timed out"):
        pair[0].send({"text": "x" * (8 << 20)})


def test_sending_has_a_limit_of_its_own(pair: Pair) -> None:
    with pytest.raises(TimeoutError):
        pair[0].send({"text": "x" * (8 << 20)}, timeout_s=0.05)


def test_a_channel_may_take_smaller_frames_only(pair: Pair) -> None:
    small = Channel(pair[1].sock, most_bytes=100)
    pair[0].send({"text": "x" * 50})
    assert small.recv(10)[0] == {"text": "x" * 50}
    pair[0].send({"text": "x" * 100})
    with pytest.raises(NotAFrame, match="refused"):
        small.recv(10)

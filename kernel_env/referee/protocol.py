"""Length-prefixed JSON frames over a stream socket, with file descriptors alongside where the sender is trusted.

A frame is 8 bytes (body length and descriptor count, big-endian) and a JSON object. Nothing is ever unpickled: the peer may
be a candidate's process, and then every byte it sends is untrusted.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any

from kernel_env.errors import VerifierError

Frame = dict[str, Any]

HEADER = struct.Struct("!II")
MAX_FRAME_BYTES = 64 << 20
"""Between our own processes. Reading JSON may take 30 times its size, so a peer that is not trusted is given less."""
MAX_ERROR_TEXT = 12_000
"""Characters that a runner says of an error, and the most that is taken from one that says more."""
MAX_FDS = 8
QUESTION = b'{"build":'
"""How a runner's question begins, which is no answer. Its answer may not begin so."""
_READ_BYTES = 1 << 16
SEND_TIMEOUT_S = 60.0
"""A peer that reads nothing for so long is taken for dead."""


class ChannelClosed(VerifierError):
    """The peer closed its end, or sent what is not a frame."""


class NotAFrame(ChannelClosed):
    """The peer sent what is not a frame: it lives, and nothing more can be heard from it."""


class Channel:
    """One end of a connection. Not safe for several threads."""

    def __init__(self, sock: socket.socket, most_bytes: int = MAX_FRAME_BYTES) -> None:
        """`most_bytes`: of a frame that is received."""
        self.sock = sock
        self._most_bytes = most_bytes
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._read = bytearray()
        """What was read beyond the last frame."""
        self.arrived = 0.0
        """When the last byte of the last frame was there, by `time.perf_counter`. The first one says nothing: it may be sent
        before the work that it answers for is done."""
        self.on_arrival: Callable[[], None] | None = None
        """What is done then at once, unless it is a question: a program that asked could see that."""
        self.is_question = False
        """Whether the last frame was one."""

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, frame: Frame, fds: Sequence[int] = (), timeout_s: float | None = None) -> float:
        """Returns when it was sent, by `time.perf_counter`.

        Raises ChannelClosed when nobody reads any more, TimeoutError when the peer has not taken all of it within `timeout_s`.
        """
        limit_s = SEND_TIMEOUT_S if timeout_s is None else timeout_s
        if self.sock.gettimeout() != limit_s:
            self.sock.settimeout(limit_s)
        body = json.dumps(frame, allow_nan=True).encode()
        head = HEADER.pack(len(body), len(fds))
        started = time.perf_counter()
        try:
            if fds:
                socket.send_fds(self.sock, [head], list(fds))
                self.sock.sendall(body)
            else:
                self.sock.sendall(head + body)
        except OSError as error:
            if timeout_s is not None and isinstance(error, TimeoutError):
                raise
            raise ChannelClosed(f"channel closed while sending: {error}") from error
        return started

    def recv(self, timeout_s: float | None = None, *, accept_fds: bool = False) -> tuple[Frame, list[int]]:
        """Return the next frame and the descriptors that came with it (none unless `accept_fds`: the kernel drops them).

        Raises TimeoutError when no whole frame arrives in `timeout_s`, ChannelClosed on end of file or garbage.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        fds: list[int] = []
        try:
            return self._frame(deadline, fds if accept_fds else None), fds
        except (ChannelClosed, TimeoutError):
            for fd in fds:  # nobody will use what came with half a frame
                os.close(fd)
            raise

    def has_spoken(self) -> bool:
        """Whether there is something to read already, if only a part of a frame."""
        if self._read:
            return True
        with contextlib.suppress(OSError):
            return bool(self._poll.poll(0)) and bool(self.sock.recv(1, socket.MSG_PEEK))  # an end of file is no word
        return False

    def _frame(self, deadline: float | None, fds: list[int] | None) -> Frame:
        try:
            self._fill(HEADER.size, deadline, fds)
            length, _ = HEADER.unpack_from(self._read)
            if length > self._most_bytes:
                raise NotAFrame(f"frame of {length} bytes refused")
            self._fill(HEADER.size + length, deadline, fds)
            self.arrived = time.perf_counter()
            self.is_question = self._read.startswith(QUESTION, HEADER.size)
            if self.on_arrival is not None and not self.is_question:
                self.on_arrival()
            frame = json.loads(self._read[HEADER.size : HEADER.size + length])
            del self._read[: HEADER.size + length]
        except (ValueError, RecursionError) as error:
            raise NotAFrame("the peer sent something that is not JSON") from error
        except TimeoutError:
            raise
        except OSError as error:
            raise ChannelClosed(f"channel broke: {error}") from error
        if not isinstance(frame, dict):
            raise NotAFrame("the peer sent something that is not an object")
        return frame

    def _fill(self, count: int, deadline: float | None, fds: list[int] | None) -> None:
        """Read until so many bytes are there; where descriptors may come, no byte more: the next frame's would be lost."""
        while len(self._read) < count:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError("no whole frame in time")
            if self.sock.gettimeout() != left:
                self.sock.settimeout(left)
            missing = min(count - len(self._read), 1 << 20)
            if fds is None:
                part = self.sock.recv(max(missing, _READ_BYTES))
            elif self._read:
                part = self.sock.recv(missing)
            else:
                part, received, _, _ = socket.recv_fds(self.sock, missing, MAX_FDS)
                fds += received
            if not part:
                raise ChannelClosed("channel closed")
            self._read += part

    def close(self) -> None:
        self.sock.close()

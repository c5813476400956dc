"""Length-prefixed JSON frames over a stream socket, with file descriptors alongside where the sender is trusted.

A frame is 8 bytes (body length and descriptor count, big-endian) and a JSON object. Nothing is ever unpickled: the peer may
be a candidate's process, and then every byte it sends is untrusted.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from kernel_env.errors import VerifierError

Frame = dict[str, Any]

HEADER = struct.Struct("!II")
MAX_FRAME_BYTES = 64 << 20
MAX_FDS = 8
SEND_TIMEOUT_S = 60.0
"""A peer that reads nothing for so long is taken for dead."""


class ChannelClosed(VerifierError):
    """The peer closed its end, or sent what is not a frame."""


class Channel:
    """One end of a connection. Not safe for several threads."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, frame: Frame, fds: Sequence[int] = ()) -> None:
        """Raises ChannelClosed when nobody reads any more."""
        self.sock.settimeout(SEND_TIMEOUT_S)
        body = json.dumps(frame, allow_nan=True).encode()
        head = HEADER.pack(len(body), len(fds))
        try:
            if fds:
                socket.send_fds(self.sock, [head], list(fds))
                self.sock.sendall(body)
            else:
                self.sock.sendall(head + body)
        except OSError as error:
            raise ChannelClosed(f"channel closed while sending: {error}") from error

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

    def _frame(self, deadline: float | None, fds: list[int] | None) -> Frame:
        try:
            head = self._exactly(HEADER.size, deadline) if fds is None else self._head(deadline, fds)
            length, _ = HEADER.unpack(head)
            if length > MAX_FRAME_BYTES:
                raise ChannelClosed(f"frame of {length} bytes refused")
            frame = json.loads(self._exactly(length, deadline))
        except (ValueError, RecursionError) as error:
            raise ChannelClosed("the peer sent something that is not JSON") from error
        except TimeoutError:
            raise
        except OSError as error:
            raise ChannelClosed(f"channel broke: {error}") from error
        if not isinstance(frame, dict):
            raise ChannelClosed("the peer sent something that is not an object")
        return frame

    def _head(self, deadline: float | None, fds: list[int]) -> bytes:
        self._wait_until(deadline)
        head, received, _, _ = socket.recv_fds(self.sock, HEADER.size, MAX_FDS)
        fds += received
        return head + self._exactly(HEADER.size - len(head), deadline)

    def _exactly(self, count: int, deadline: float | None) -> bytes:
        parts = []
        while count:
            self._wait_until(deadline)
            part = self.sock.recv(min(count, 1 << 20))
            if not part:
                raise ChannelClosed("channel closed")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _wait_until(self, deadline: float | None) -> None:
        """The next read may last until `deadline`: a peer that sends byte by byte gains no time."""
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("no whole frame in time")
        self.sock.settimeout(left)

    def close(self) -> None:
        self.sock.close()

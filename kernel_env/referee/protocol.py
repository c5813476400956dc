"""Length-prefixed JSON frames over a stream socket, with file descriptors alongside where the sender is trusted.

A frame is 8 bytes (body length and descriptor count, big-endian) and a JSON object. Nothing is ever unpickled: the peer may
be a candidate's process, and then every byte it sends is untrusted.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

from kernel_env.errors import VerifierError

Frame = dict[str, Any]

_HEADER = struct.Struct("!II")
MAX_FRAME_BYTES = 64 << 20
MAX_FDS = 8


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
        body = json.dumps(frame, allow_nan=True).encode(errors="surrogatepass")
        head = _HEADER.pack(len(body), len(fds))
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
        self.sock.settimeout(timeout_s)
        try:
            head, fds = self._head(accept_fds)
            length, _ = _HEADER.unpack(head)
            if length > MAX_FRAME_BYTES:
                raise ChannelClosed(f"frame of {length} bytes refused")
            frame = json.loads(self._exactly(length))
        except (ValueError, RecursionError) as error:
            raise ChannelClosed("the peer sent something that is not JSON") from error
        except TimeoutError:
            raise
        except OSError as error:
            raise ChannelClosed(f"channel broke: {error}") from error
        if not isinstance(frame, dict):
            raise ChannelClosed("the peer sent something that is not an object")
        return frame, fds

    def _head(self, accept_fds: bool) -> tuple[bytes, list[int]]:
        if not accept_fds:
            return self._exactly(_HEADER.size), []
        head, fds, _, _ = socket.recv_fds(self.sock, _HEADER.size, MAX_FDS)
        return head + self._exactly(_HEADER.size - len(head)), fds

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = self.sock.recv(min(count, 1 << 20))
            if not part:
                raise ChannelClosed("channel closed")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        self.sock.close()

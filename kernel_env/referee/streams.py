"""The frames of `protocol` over asyncio streams, without descriptors."""

from __future__ import annotations

import asyncio
import json

from kernel_env.referee.protocol import HEADER, MAX_FRAME_BYTES, Frame


async def send(writer: asyncio.StreamWriter, frame: Frame) -> None:
    body = json.dumps(frame).encode(errors="surrogatepass")
    writer.write(HEADER.pack(len(body), 0) + body)
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> Frame:
    """Raises asyncio.IncompleteReadError at the end of the stream, ConnectionError when it breaks."""
    length, _ = HEADER.unpack(await reader.readexactly(HEADER.size))
    if length > MAX_FRAME_BYTES:
        raise ConnectionError(f"frame of {length} bytes refused")
    frame: Frame = json.loads(await reader.readexactly(length))
    return frame

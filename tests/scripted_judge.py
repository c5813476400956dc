"""A judge's server for tests, faults included: real sockets, and no more HTTP than a client needs.

    with ScriptedJudge([refused(500), good]) as server:
        ...  # talk to server.url
    assert [asked.path for asked in server.asked] == ["/judge", "/judge"]

A script is a list of behaviours, one a request (the last one repeats), or a function from the request to a behaviour. A behaviour
makes the answer's bytes out of the request. `python -m tests.scripted_judge --port N` is a server in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

START_S = 30.0
HANGS_S = 60.0
"""Nothing takes so long."""
JUDGE = {"judge": "test", "version": "1"}


@dataclass(frozen=True)
class Asked:
    """One request that arrived."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str] = field(repr=False)

    @property
    def requests(self) -> list[dict[str, Any]]:
        return self.body["requests"] if self.path == "/batch_judge" else [self.body]


class Reset(Exception):
    """The connection ends in the middle of an answer."""


Behaviour = Callable[[Asked], bytes | Awaitable[bytes]]
Script = Sequence[Behaviour] | Callable[[Asked], Behaviour]


def score_of(completion: str) -> float:
    """Every completion has a score of its own, above 0 and below 1."""
    return (1 + int.from_bytes(hashlib.sha256(completion.encode()).digest()[:4])) / (2**32 + 1)


def scored(asked: Asked, **metadata: Any) -> list[dict[str, Any]]:
    return [
        {"score": score_of(r["completion"]), "request_id": r["request_id"], "metadata": JUDGE | metadata} for r in asked.requests
    ]


def http(document: Any, status: int = 200) -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return b"HTTP/1.1 %d x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


def answered(asked: Asked, responses: list[dict[str, Any]], failures: Sequence[dict[str, Any]] = ()) -> bytes:
    """As a batch's answer where there was a batch."""
    if asked.path == "/batch_judge":
        return http({"responses": responses, "failures": list(failures)})
    return http(responses[0]) if responses else http(failures[0] if failures else {}, 503)


# ------------------------------------------------------------------ behaviours


def good(asked: Asked) -> bytes:
    return answered(asked, scored(asked))


def reordered(asked: Asked) -> bytes:
    return answered(asked, scored(asked)[::-1])


def short(asked: Asked) -> bytes:
    """A batch's first half; one request's answer without a score."""
    responses = scored(asked)
    return answered(asked, responses[: len(responses) // 2]) if len(responses) > 1 else http({"request_id": "?"})


def doubled(asked: Asked) -> bytes:
    """The first request has two scores besides its own."""
    responses = scored(asked)
    other = responses[0] | {"score": 0.0}
    return answered(asked, [other, *responses, other])


def mixed_up(asked: Asked) -> bytes:
    """Scores for requests that nobody made."""
    return answered(asked, [response | {"request_id": "another"} for response in scored(asked)])


def scoring(score: Any) -> Behaviour:
    """Every second score, from the first on, is this."""
    return lambda asked: answered(asked, [r | ({"score": score} if n % 2 == 0 else {}) for n, r in enumerate(scored(asked))])


def failing(kind: str) -> Behaviour:
    """A batch's first request has no score; nor has one alone."""

    def behaviour(asked: Asked) -> bytes:
        first, *others = scored(asked)
        return answered(asked, others, [{"kind": kind, "message": "no\nscore", "request_id": first["request_id"]}])

    return behaviour


def refused(status: int, document: Any = b"<html>no</html>") -> Behaviour:
    return lambda _: http(document, status)


def garbled(_: Asked) -> bytes:
    return http(b'{"responses": [')


def reset(_: Asked) -> bytes:
    raise Reset


def stalled(_: Asked) -> bytes:
    """The end of the answer never comes."""
    return b"HTTP/1.1 200 x\r\ncontent-length: 1000\r\n\r\n{"


def held(release: threading.Event) -> Behaviour:
    """As good as any, once it is let go."""

    async def behaviour(asked: Asked) -> bytes:
        await until(release.is_set)
        return good(asked)

    return behaviour


def slow(seconds: float, then: Behaviour = good) -> Behaviour:
    async def behaviour(asked: Asked) -> bytes:
        await asyncio.sleep(seconds)
        found = then(asked)
        return found if isinstance(found, bytes) else await found

    return behaviour


# ------------------------------------------------------------------ server


async def until(condition: Callable[[], object], hangs_s: float = HANGS_S) -> None:
    async with asyncio.timeout(hangs_s):
        while not condition():  # noqa: ASYNC110 - other threads bring it about
            await asyncio.sleep(0.002)


class ScriptedJudge:
    """`asked` holds every request that arrived, in order; `at_once` is the most that were under way at a time."""

    def __init__(self, script: Script = (good,)) -> None:
        self.asked: list[Asked] = []
        self.at_once = 0
        self._under_way = 0
        self._script = script
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="judge-server", daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread.start()
        assert self._ready.wait(START_S), "the judge's server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(START_S)
        assert not self._thread.is_alive(), "the judge's server did not stop"

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self.connected, sock=self._socket)
        self._ready.set()
        await self._stop.wait()
        server.close()  # and the end of the loop ends its connections

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until the client closes it."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                asked = await _read(reader)
                self.asked.append(asked)
                self._under_way += 1
                self.at_once = max(self.at_once, self._under_way)
                try:
                    writer.write(await self._answer(asked))
                    await writer.drain()
                except Reset:
                    _cut(writer)
                    break
                finally:
                    self._under_way -= 1
        writer.close()

    async def _answer(self, asked: Asked) -> bytes:
        chosen = self._script(asked) if callable(self._script) else self._script[min(len(self.asked), len(self._script)) - 1]
        found = chosen(asked)
        return found if isinstance(found, bytes) else await found


async def _read(reader: asyncio.StreamReader) -> Asked:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Asked(first.split()[1], json.loads(await reader.readexactly(int(headers["content-length"]))), headers)


def _cut(writer: asyncio.StreamWriter) -> None:
    """Half of an answer, then a TCP reset."""
    writer.write(b"HTTP/1.1 200 x\r\ncontent-length: 1000\r\n\r\n{")
    # lingering for zero seconds turns the close into a reset
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


# ------------------------------------------------------------------ a server of its own


FAULTS: dict[Behaviour, float] = {
    good: 50,
    slow(0.02): 10,
    slow(60.0): 2,
    reordered: 10,
    short: 8,
    refused(500): 6,
    garbled: 4,
    scoring(float("nan")): 4,
    scoring(float("inf")): 2,
    failing("unavailable"): 2,
    reset: 2,
}
"""How often each, in percent."""


async def _serve(port: int, behaviours: Mapping[Behaviour, float], seed: int) -> None:
    draw = random.Random(seed)
    server = ScriptedJudge(lambda _: draw.choices(list(behaviours), list(behaviours.values()))[0])
    listening = await asyncio.start_server(server.connected, "127.0.0.1", port)
    print("ready", flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--faults", action="store_true", help="what it does is drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    asyncio.run(_serve(chosen.port, FAULTS if chosen.faults else {good: 1}, chosen.seed))

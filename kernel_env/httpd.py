"""What our HTTP servers have in common: where they listen, how they stop, who is let in, and how large a body may be.

    hosting = Hosting()
    async with hosted(app, "127.0.0.1", 0, 30, hosting) as address:
        await hosting.stopping.wait()

Needs fastapi and uvicorn, which are extras.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import Response
from starlette.exceptions import HTTPException

from kernel_env.errors import ConfigError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class KeyLock:
    """Lets nobody in without the key, whatever is asked: nothing of a body is read before. `refused` makes the answer to others."""

    def __init__(self, app: App, key: str, open_paths: Iterable[str], refused: Callable[[], Response]) -> None:
        self._app, self._open_paths, self._refused = app, frozenset(open_paths), refused
        self._wanted = f"bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        let_in = scope["type"] != "http" or scope["path"] in self._open_paths or self._has_key(scope)
        await (self._app if let_in else self._refused())(scope, receive, send)

    def _has_key(self, scope: Scope) -> bool:
        scheme, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        return secrets.compare_digest(scheme.lower() + b" " + key.strip(), self._wanted)


class BodyLimit:
    """Refuses a body with 413 as soon as it is known to be too large, by its announced length or by what has come."""

    def __init__(self, app: App, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        received = 0

        async def counted() -> MutableMapping[str, Any]:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(413, f"a body has at most {self._max_bytes} bytes: send fewer requests at once")
            return message

        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._max_bytes:
            received = self._max_bytes + 1  # nothing of it has to be read
        await self._app(scope, counted, send)


# ------------------------------------------------------------------ running


@dataclass(frozen=True)
class Hosting:
    """A server that runs, and what it was told. Make it within the event loop."""

    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """It was told to end, or ended by itself: what was taken is to be finished."""
    hurried: asyncio.Event = field(default_factory=asyncio.Event)
    """It was told again: nothing is waited for."""


class _Server(uvicorn.Server):
    """Leaves signals alone: `hosted` handles them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def hosted(app: App, host: str, port: int, grace_s: int, hosting: Hosting) -> AsyncIterator[str]:
    """Serves for the time of the block, and has its address. At its end requests in progress have `grace_s` to be answered.

    SIGINT and SIGTERM say `hosting.stopping`, and then `hosting.hurried`. Raises ConfigError where the port cannot be had.
    """
    options = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=grace_s)
    server = _Server(options)
    with _listener(host, port) as listener, _told_by_signals(server, hosting):
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        serving.add_done_callback(lambda _: hosting.stopping.set())
        try:
            yield f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
        # connections inherit it; without, the second part of each answer waits 40 ms for the client to confirm the first
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; choose another port=") from error


@contextlib.contextmanager
def _told_by_signals(server: uvicorn.Server, hosting: Hosting) -> Iterator[None]:
    """The first signal ends the server when its work is done, a second one at once."""

    def signalled() -> None:
        if hosting.stopping.is_set():
            server.force_exit = True
            hosting.hurried.set()
        hosting.stopping.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

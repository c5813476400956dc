"""A judge server for tests: the real thing, in a thread with an event loop of its own.

with JudgeServer(StaticJudge()) as server:
    assert server.post("/judge", {...}).json["score"] == 1.0
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self

from rewards.judge.models import Judge, Outcome, Scored
from rewards.judge.server import ServerConfig, serve
from rewards.judge.wire import JudgeRequest

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def ask(
    url: str, body: object = None, *, key: str = "", headers: Mapping[str, str] | None = None, method: str | None = None
) -> Answer:
    """GET, or POST where there is a body: bytes and iterators of bytes as they are, anything else as JSON."""
    data: Any = body if isinstance(body, bytes | Iterator | None) else json.dumps(body).encode()
    given = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {}) | dict(headers or {})
    request = urllib.request.Request(url, data, given, method=method)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return Answer(response.status, response.read().decode(), dict(response.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read().decode(), dict(error.headers))


class ServerThread:
    """A server in a thread, in a `with` block. `serve` is told where to say its address, and when to stop."""

    def __init__(self, serve: Callable[[Callable[[str], None], asyncio.Event], Coroutine[Any, Any, None]]) -> None:
        self._make = serve
        self._address: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self.url = self._address.result(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.join()

    def stop(self) -> None:
        """As a signal would; whoever calls this goes on at once."""
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._stopped.set)

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the server did not stop"

    def get(self, path: str, **given: Any) -> Answer:
        return ask(self.url + path, **given)

    def post(self, path: str, body: object, **given: Any) -> Answer:
        return ask(self.url + path, body, **given)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001  # the test looks at it
            self.error = error
            if not self._address.done():
                self._address.set_exception(error)

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        await self._make(self._address.set_result, self._stopped)


class JudgeServer(ServerThread):
    def __init__(self, judge: Judge, config: ServerConfig | None = None) -> None:
        super().__init__(functools.partial(serve, judge, config or ServerConfig(port=0)))


class Held:
    """A judge that notes each batch and answers when it is let go."""

    name, version = "held", "1"

    def __init__(self, *, held: bool = True) -> None:
        self.batches: list[list[JudgeRequest]] = []
        self.seen = threading.Event()
        self.let_go = threading.Event()
        if not held:
            self.let_go.set()

    async def start(self) -> None: ...

    async def score_batch(self, requests: Sequence[JudgeRequest]) -> list[Outcome]:
        self.batches.append(list(requests))
        self.seen.set()
        await asyncio.to_thread(self.let_go.wait, PATIENCE_S)
        return [Scored(float(request.completion)) for request in requests]

    async def aclose(self) -> None: ...

"""A real HTTP server for tests that speaks OpenAI's chat protocol, faults included.

    with ChatServer(["first reply", refuse(429), "second reply"]) as server:
        ...  # talk to server.base_url
    assert server.requests[0].messages == [...]

A script is a list of behaviours, one a request (the last one repeats), or a function from the messages to a behaviour.
It listens on a free port of 127.0.0.1, in a thread with an event loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

START_S = 30.0


@dataclass(frozen=True)
class Reply:
    """A good answer. `extra` holds further fields of the message, e.g. `reasoning_content`."""

    text: str | None = ""
    finish_reason: str | None = "stop"
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Raw:
    """Any answer, byte for byte."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Slow:
    """`then`, after so long that a client gives up; the server's end cuts the wait short."""

    then: Behaviour
    seconds: float = 60.0


@dataclass(frozen=True)
class Trickle:
    """A good status line, then a blank every `interval_s` seconds and never the answer."""

    interval_s: float = 0.01


@dataclass(frozen=True)
class Reset:
    """A good status line and half of a body, then a TCP reset."""


Behaviour = str | Reply | Raw | Slow | Trickle | Reset
Script = Sequence[Behaviour] | Callable[[list[dict[str, str]]], Behaviour]


def refuse(status: int, message: str = "no", *, code: str | None = None, headers: Mapping[str, str] | None = None) -> Raw:
    """An error in OpenAI's format."""
    error = {"message": message, "type": "error", "param": None, "code": code}
    return Raw(json.dumps({"error": error}).encode(), status, headers=headers or {})


@dataclass(frozen=True)
class ChatRequest:
    """What arrived at /v1/chat/completions."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def messages(self) -> list[dict[str, str]]:
        return self.body["messages"]

    @property
    def thinking(self) -> bool | None:
        """What it says of thinking."""
        return self.body.get("chat_template_kwargs", {}).get("enable_thinking")

    @property
    def thinking_budget(self) -> int | None:
        """For how many tokens it may."""
        return self.body.get("thinking_token_budget")


class ChatServer:
    """`requests` holds every request for a reply that arrived, refused ones too; `listings` counts those for the model list.

    `models=None`: the endpoint has no model list. `listing` answers requests for it in the list's stead. `port`: one that somebody
    keeps for it. Servers of other protocols inherit the faults, and add routes and what their good answers look like.
    """

    owned_by: str | None = None

    def __init__(
        self,
        script: Script = ("ok",),
        *,
        models: Sequence[str] | None = ("test-model",),
        api_key: str | None = None,
        listing: Behaviour | None = None,
        port: int = 0,
    ) -> None:
        self.requests: list[ChatRequest] = []
        self.listings = 0
        self._script = script
        self._models = models
        self._api_key = api_key
        self._listing = listing
        self._port = port
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="chat-server", daemon=True)

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", self._port), reuse_port=bool(self._port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else every answer comes 40 ms late
        self.base_url = f"http://127.0.0.1:{self._socket.getsockname()[1]}/v1"
        self._thread.start()
        assert self._ready.wait(START_S), "the chat server did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._server.should_exit = True
        self._thread.join(START_S)
        assert not self._thread.is_alive(), "the chat server did not stop"

    async def _serve(self) -> None:
        config = uvicorn.Config(self._app(), lifespan="off", ws="none", http="h11", log_config=None, log_level="critical")
        self._server = uvicorn.Server(config)
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()  # the socket listens already: who connects before uvicorn accepts waits in its backlog
        await self._server.serve(sockets=[self._socket])

    # ------------------------------------------------------------------ protocol

    def _app(self) -> FastAPI:
        app = FastAPI(openapi_url=None)
        app.add_api_route("/v1/models", self._list_models, methods=["GET"])
        app.add_api_route("/v1/chat/completions", self._chat, methods=["POST"])
        return app

    async def _list_models(self, request: Request) -> Response:
        self.listings += 1
        if refusal := self._check_key(request):
            return refusal
        if self._listing is not None:
            return await self._answer(self._listing, request, {})
        if self._models is None:
            return JSONResponse({"detail": "Not Found"}, 404)
        owner = {"owned_by": self.owned_by} if self.owned_by else {}
        return JSONResponse({"object": "list", "data": [{"id": name, "object": "model", **owner} for name in self._models]})

    async def _chat(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.requests.append(ChatRequest(body, dict(request.headers)))
        if refusal := self._check_key(request):
            return refusal
        if self._models is not None and body["model"] not in self._models:
            return _raw(refuse(404, f"The model `{body['model']}` does not exist.", code="model_not_found"))
        return await self._answer(self._next(body["messages"]), request, body)

    def _check_key(self, request: Request) -> Response | None:
        """A careless refusal: it echoes what it was sent."""
        sent = request.headers.get("authorization", "")
        if self._api_key is None or sent == f"Bearer {self._api_key}":
            return None
        return _raw(refuse(401, f"Incorrect API key provided: {sent}", code="invalid_api_key"))

    def _next(self, messages: list[dict[str, str]]) -> Behaviour:
        if callable(self._script):
            return self._script(messages)
        return self._script[min(len(self.requests), len(self._script)) - 1]

    # ------------------------------------------------------------------ behaviours

    async def _answer(self, behaviour: Behaviour, request: Request, body: dict[str, Any]) -> Response:
        match behaviour:
            case str():
                return self._good(Reply(behaviour), body)
            case Reply():
                return self._good(behaviour, body)
            case Raw():
                return _raw(behaviour)
            case Slow():
                await self._pause(behaviour.seconds)
                return await self._answer(behaviour.then, request, body)
            case Trickle():
                return StreamingResponse(self._blanks(behaviour.interval_s), media_type="application/json")
            case Reset():
                return StreamingResponse(self._half(request), headers={"content-length": "1000"}, media_type="application/json")

    def _good(self, reply: Reply, body: dict[str, Any]) -> Response:
        """The answer to a request for a reply."""
        message = {"role": "assistant", "content": reply.text, **reply.extra}
        return completion({"index": 0, "message": message, "finish_reason": reply.finish_reason})

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _blanks(self, interval_s: float) -> AsyncIterator[bytes]:
        while not self._stop.is_set():
            yield b" "
            await self._pause(interval_s)

    async def _half(self, request: Request) -> AsyncIterator[bytes]:
        yield b'{"choices": ['
        for connection in list(self._server.server_state.connections):
            if connection.transport.get_extra_info("peername") == (request.client.host, request.client.port):
                # lingering for zero seconds turns the close into a reset
                linger = struct.pack("ii", 1, 0)
                connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                connection.transport.abort()
        await self._pause(START_S)  # the answer never ends: the client's disconnect cancels this


def completion(choice: dict[str, Any], **more: Any) -> Response:
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    document = {"id": "chat-1", "object": "chat.completion", "created": 0, "model": "test-model@1"}
    document |= {"choices": [choice], "usage": usage, **more}
    # escaped, not UTF-8, so that lone surrogates travel as they do from real servers
    return Response(json.dumps(document), media_type="application/json")


def _raw(raw: Raw) -> Response:
    return Response(raw.body, raw.status, dict(raw.headers), raw.content_type)

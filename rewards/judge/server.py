"""The judge as a service: `POST /judge`, `POST /batch_judge`, `GET /health`, `GET /metrics` and `/metrics.json`.

    asyncio.run(serve(StaticJudge(), ServerConfig(port=8888)))

Every status from 400 on has a `Failure` as its body. A judge that fails says so with 502 or 504 (in a batch, in `failures`), and
never with a score. With a key, all but `/health` and `/openapi.json` want `Authorization: Bearer KEY`, and nothing of a body is
read without it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from kernel_env.exposition import PROMETHEUS
from kernel_env.httpd import BodyLimit, Hosting, KeyLock, hosted
from rewards.judge.batcher import BatchConfig, Batcher, Refused
from rewards.judge.bounds import PORT
from rewards.judge.counters import Counters
from rewards.judge.models import Judge, JudgeFailure, Outcome, Scored
from rewards.judge.wire import (
    BatchJudgeRequest,
    BatchJudgeResponse,
    Failure,
    FailureKind,
    HealthResponse,
    JudgeMetadata,
    JudgeRequest,
    JudgeResponse,
    MetricsResponse,
)

MAX_BODY_BYTES = 16 << 20
RETRY_AFTER_S = 1
DRAIN_S = 30
_STATUS = {
    FailureKind.INVALID_REQUEST: 422,
    FailureKind.UNAUTHORIZED: 401,
    FailureKind.NOTHING_TO_JUDGE: 422,
    FailureKind.UNSUPPORTED: 422,
    FailureKind.BAD_VERDICT: 502,
    FailureKind.UNAVAILABLE: 502,
    FailureKind.TIMEOUT: 504,
    FailureKind.OVERLOADED: 429,
    FailureKind.STOPPING: 503,
}
_REASONS = {
    400: "The body is no JSON.",
    401: "The key is missing or wrong.",
    413: "The body is too large.",
    422: "The request does not follow the protocol, or cannot be judged.",
    429: "The queue is full: `Retry-After` says when to try again.",
    502: "The judge failed, or its verdict is none.",
    503: "The judge is loading, or the server is stopping.",
    504: "The judge took too long.",
}
_AWAITED = {FailureKind.OVERLOADED, FailureKind.STOPPING}
"""What passes: such answers carry `Retry-After`."""

_OPEN = ("/health", "/openapi.json")
"""What is answered without a key."""


@dataclass(frozen=True)
class ServerConfig:
    """Where to listen, and how requests are gathered."""

    host: str = "127.0.0.1"
    port: int = PORT
    """0: any free one."""
    api_key: str = ""
    """Who asks has to send it. Empty: nobody has to."""
    batches: BatchConfig = field(default_factory=BatchConfig)
    max_body_bytes: int = MAX_BODY_BYTES


class Service:
    """One judge, its queue and its counts."""

    def __init__(self, judge: Judge, config: ServerConfig) -> None:
        self.judge = judge
        self.config = config
        self.counters = Counters()
        self.status = "loading"
        self.batcher = Batcher(judge, config.batches, self.counters)

    async def start(self) -> None:
        """Load the judge. Raises KernelEnvError where that cannot work."""
        await self.judge.start()
        self.batcher.start()
        self.status = "ok"

    async def aclose(self) -> None:
        self.status = "stopping"
        await self.batcher.aclose(DRAIN_S)
        await self.judge.aclose()

    async def score(self, requests: tuple[JudgeRequest, ...]) -> list[Outcome]:
        """Raises Refused where they were not taken."""
        if self.status == "loading":
            raise Refused(JudgeFailure(FailureKind.STOPPING, "the judge is still loading: try again later"))
        return await self.batcher.score(requests)

    def response(self, scored: Scored, request_id: str, latency_s: float) -> JudgeResponse:
        metadata = JudgeMetadata(
            latency=latency_s,
            judge=self.judge.name,
            version=self.judge.version,
            confidence=scored.confidence,
            flags=scored.flags,
            doubts=scored.doubts,
        )
        aspects = dict(scored.aspects) or None
        return JudgeResponse(
            score=scored.score, request_id=request_id, explanation=scored.explanation, metadata=metadata, detailed_scores=aspects
        )


def create_app(service: Service) -> FastAPI:
    """The routes. Whoever calls this starts and closes the service."""
    app = FastAPI(title="kernel-env judge", version=service.judge.version, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, max_bytes=service.config.max_body_bytes)
    locked, refusals = list[Any](), tuple[int, ...]()
    if service.config.api_key:
        app.add_middleware(KeyLock, key=service.config.api_key, open_paths=_OPEN, refused=lambda: _keyless(service))
        locked, refusals = [Depends(HTTPBearer(auto_error=False))], (401,)  # for the document alone

    @app.post("/judge", dependencies=locked, responses=_documented(*refusals, 400, 413, 422, 429, 502, 503, 504))
    async def judge(request: JudgeRequest) -> JudgeResponse:
        """Score one completion."""
        arrived_s = time.perf_counter()
        request_id = request.request_id or secrets.token_hex(8)
        (outcome,) = await service.score((request,))
        if isinstance(outcome, JudgeFailure):
            raise _Refusal(outcome, request_id)
        return service.response(outcome, request_id, time.perf_counter() - arrived_s)

    @app.post("/batch_judge", dependencies=locked, responses=_documented(*refusals, 400, 413, 422, 429, 503))
    async def batch_judge(batch: BatchJudgeRequest) -> BatchJudgeResponse:
        """Score up to 128 completions. Each request is either in `responses` or in `failures`, by its `request_id`."""
        arrived_s = time.perf_counter()
        requests = batch.numbered()
        outcomes = await service.score(requests)
        latency_s = time.perf_counter() - arrived_s
        pairs = [(request.request_id or "", outcome) for request, outcome in zip(requests, outcomes, strict=True)]
        return BatchJudgeResponse(
            responses=tuple(service.response(o, i, latency_s) for i, o in pairs if isinstance(o, Scored)),
            failures=tuple(Failure(kind=o.kind, message=o.message, request_id=i) for i, o in pairs if isinstance(o, JudgeFailure)),
        )

    @app.get("/health", responses={503: {"model": HealthResponse, "description": "Loading or stopping."}})
    async def health(response: Response) -> HealthResponse:
        """Whether requests are taken."""
        ready = service.status == "ok"
        response.status_code = 200 if ready else 503
        judge = service.judge
        return HealthResponse(
            status=service.status,
            model_loaded=service.status != "loading",
            judge=judge.name,
            version=judge.version if ready else "",
        )

    @app.get("/metrics.json", dependencies=locked, responses=_documented(*refusals))
    async def metrics_json() -> MetricsResponse:
        """Counts since the start."""
        return service.counters.snapshot()

    text: dict[int | str, dict[str, Any]] = {200: {"content": {PROMETHEUS: {"schema": {"type": "string"}}}}}

    @app.get("/metrics", dependencies=locked, response_class=Response, responses={**text, **_documented(*refusals)})
    async def metrics() -> Response:
        """The same for Prometheus."""
        return Response(service.counters.prometheus(), media_type=PROMETHEUS)

    _answer_errors(app, service)
    return app


class _Refusal(Exception):
    def __init__(self, failure: JudgeFailure, request_id: str | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.request_id = request_id


def _documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Failure, "description": _REASONS[status]} for status in statuses}


def _answer_errors(app: FastAPI, service: Service) -> None:
    """Every error in one form. Nothing of a request is echoed but names of fields."""

    async def refusal(_: Request, error: Exception) -> Response:
        assert isinstance(error, _Refusal | Refused)
        kind = error.failure.kind
        if isinstance(error, Refused):  # others were counted when they were answered
            service.counters.failed(kind)
        headers = {"Retry-After": str(RETRY_AFTER_S)} if kind in _AWAITED else {}
        return _failure(_STATUS[kind], kind, error.failure.message, getattr(error, "request_id", None), headers)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        service.counters.failed(FailureKind.INVALID_REQUEST)
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return _failure(400, FailureKind.INVALID_REQUEST, "the body is no JSON")
        where = ".".join(str(part) for part in first["loc"][1:])
        return _failure(422, FailureKind.INVALID_REQUEST, f"{where or 'body'}: {first['msg'].removeprefix('Value error, ')}")

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        service.counters.failed(FailureKind.INVALID_REQUEST)
        return _failure(error.status_code, FailureKind.INVALID_REQUEST, str(error.detail), None, dict(error.headers or {}))

    async def broken(_: Request, error: Exception) -> Response:
        service.counters.failed(FailureKind.UNAVAILABLE)
        return _failure(500, FailureKind.UNAVAILABLE, f"the server broke: {type(error).__name__}")

    app.add_exception_handler(_Refusal, refusal)
    app.add_exception_handler(Refused, refusal)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, broken)


def _failure(
    status: int, kind: FailureKind, message: str, request_id: str | None = None, headers: dict[str, str] | None = None
) -> Response:
    said = " ".join(message.encode(errors="replace").decode().split())[:500]
    body = Failure(kind=kind, message=said, request_id=request_id).model_dump(mode="json")
    return JSONResponse(body, status, headers)


def _keyless(service: Service) -> Response:
    service.counters.failed(FailureKind.UNAUTHORIZED)
    said = "send the server's key: Authorization: Bearer KEY"
    return _failure(401, FailureKind.UNAUTHORIZED, said, None, {"WWW-Authenticate": "Bearer"})


# ------------------------------------------------------------------ running


async def serve(
    judge: Judge, config: ServerConfig, on_listening: Callable[[str], None] = print, stop: asyncio.Event | None = None
) -> None:
    """Serve until SIGINT, SIGTERM or `stop`; then what was taken is finished. `on_listening` is told the address.

    Raises ConfigError where the port cannot be had, and what the judge raises when it cannot be loaded.
    """
    service = Service(judge, config)
    hosting = Hosting(stop or asyncio.Event())
    try:
        async with hosted(create_app(service), config.host, config.port, DRAIN_S, hosting) as address:
            on_listening(address)
            loading = asyncio.create_task(service.start())
            stopped = asyncio.create_task(hosting.stopping.wait())
            try:
                await asyncio.wait({stopped, loading}, return_when=asyncio.FIRST_COMPLETED)
                if loading.done():
                    loading.result()
                await stopped
            finally:
                loading.cancel()
                stopped.cancel()
                await asyncio.gather(loading, stopped, return_exceptions=True)
    finally:
        await service.aclose()

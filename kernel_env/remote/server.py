"""`kernel-env serve`: a verifier over HTTP, for `RemoteVerifier` (`wire`) and for trainers that know KernelBench's kind of server
(`kernelbench`).

    asyncio.run(serve(LocalVerifier(), ServerConfig(port=18188)))

With a key, all but `/health` wants `Authorization: Bearer KEY`, and nothing of a body is read without it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from kernel_env.backends import BACKENDS
from kernel_env.errors import ConfigError
from kernel_env.exposition import PROMETHEUS
from kernel_env.httpd import BodyLimit, Hosting, KeyLock, hosted
from kernel_env.remote.config import ServerConfig
from kernel_env.remote.counters import Counters
from kernel_env.remote.jobs import Jobs, Refused
from kernel_env.remote.kernelbench import EvalRequest, eval_answer
from kernel_env.remote.wire import (
    MAX_WAIT_S,
    Accepted,
    AcceptedBatch,
    Answer,
    Batch,
    Failure,
    Health,
    Job,
    Malformed,
    NotJson,
    Refusal,
    read,
    status_of,
    write,
)
from kernel_env.schema import Status, Verdict
from kernel_env.verifier import Load, Loaded, Verifier

RETRY_AFTER_S = 1
GRACE_S = 10
"""For the last answers to leave, once nothing is left to verify."""
_JSON = "application/json"

T = TypeVar("T")


class Service:
    """One verifier and its jobs. Make it within the event loop."""

    def __init__(self, verifier: Verifier, config: ServerConfig) -> None:
        self.verifier, self.config = verifier, config
        self.counters = Counters()
        self.jobs = Jobs(verifier, config.queue, config.keep_s, self.counters)
        self._backends = tuple(name for name, backend in BACKENDS.items() if backend.missing() is None)

    def health(self) -> Health:
        running = self.jobs.unfinished
        return Health(
            status="draining" if self.jobs.draining else "healthy",
            supported_backends=self._backends,
            slots=self.config.slots,
            unfinished=running,
            queue=self.config.queue,
            load=self.verifier.load if isinstance(self.verifier, Loaded) else Load(0, 0, running, 0),
        )

    async def verdict(self, job: Job, request: Request) -> Verdict:
        """Submitted and waited for, as long as whoever asks is there. Raises Refused and _Failed."""
        self.jobs.submit([job])
        outcome = await _while_connected(self.jobs.answer(job.id, None), request)
        if outcome is None:
            self.jobs.left(job.id)
            raise Refused(Refusal.CANCELLED, "whoever asked has left", job.id)
        return _known(outcome)


class _Failed(Exception):
    """The verifier had no verdict."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _known(outcome: Verdict | Failure) -> Verdict:
    if isinstance(outcome, Failure):
        raise _Failed(outcome)
    return outcome


async def _while_connected(work: Coroutine[Any, Any, T], request: Request) -> T | None:
    """The result of `work`. Cancels it and returns None when the client leaves."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def create_app(service: Service) -> FastAPI:
    """The routes. Whoever calls this closes the service's jobs."""
    app = FastAPI(title="kernel-env serve", openapi_url=None)
    app.add_middleware(BodyLimit, max_bytes=service.config.max_body_bytes)
    if service.config.api_key:
        keyless = functools.partial(_keyless, service)
        app.add_middleware(KeyLock, key=service.config.api_key, open_paths=("/health",), refused=keyless)
    _serve_jobs(app, service)
    _serve_evaluations(app, service)
    _serve_facts(app, service)
    _answer_errors(app, service)
    return app


def _serve_jobs(app: FastAPI, service: Service) -> None:
    jobs = service.jobs

    @app.post("/verify")
    async def verify(request: Request) -> Response:
        job = _with_client(request, read(Job, await _body(request)))
        return _answer(Answer(job.id, await service.verdict(job, request)))

    @app.post("/jobs")
    async def submit(request: Request) -> Response:
        job = _with_client(request, read(Job, await _body(request)))
        jobs.submit([job])
        return _answer(Accepted(job.id), 202)

    @app.post("/jobs/batch")
    async def submit_batch(request: Request) -> Response:
        batch = [_with_client(request, job) for job in read(Batch, await _body(request)).jobs]
        jobs.submit(batch)
        return _answer(AcceptedBatch(tuple(job.id for job in batch)), 202)

    @app.get("/jobs/{job}")
    async def result(
        job: str, request: Request, wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S, allow_inf_nan=False)] = 0.0
    ) -> Response:
        outcome = await _while_connected(jobs.answer(job, wait_s), request)
        return _answer(Accepted(job), 202) if outcome is None else _answer(Answer(job, _known(outcome)))

    @app.delete("/jobs/{job}")
    async def cancel(job: str) -> Response:
        await jobs.cancel(job)
        return Response(status_code=204)


def _serve_evaluations(app: FastAPI, service: Service) -> None:
    @app.post("/eval")
    async def evaluate(request: Request) -> Response:
        asked = EvalRequest.model_validate_json(await _body(request))
        verdict = await service.verdict(asked.job(service.config.verify, _client(request)), request)
        if verdict.status is Status.NEEDS_DEVICE:
            raise _Failed(Failure(Refusal.NEEDS_DEVICE, f"this machine cannot tell: {verdict.message}"))
        return _answer(eval_answer(verdict))

    @app.get("/backend_info")
    async def backend_info() -> Response:
        backends = service.health().supported_backends
        return _answer({"supported_backends": backends, "default_backend": backends[0], "process_isolation": True})

    @app.get("/gpu_status")
    async def gpu_status() -> Response:
        """Slots stand in for devices: those who ask want to know how many evaluations go on at a time."""
        health = service.health()
        taken = min(health.load.slots_taken, health.slots)
        devices = [{"device_id": slot, "available": slot >= taken} for slot in range(health.slots)]
        return _answer({"total_devices": health.slots, "devices": devices, "semaphore_permits": health.slots - taken})


def _serve_facts(app: FastAPI, service: Service) -> None:
    counters, jobs = service.counters, service.jobs

    @app.get("/health")
    async def health() -> Response:
        now = service.health()
        return _answer(now, 503 if jobs.draining else 200)

    @app.get("/metrics.json")
    async def metrics_json() -> Response:
        return _answer(counters.snapshot(service.health(), jobs.kept))

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(counters.prometheus(service.health(), jobs.kept), media_type=PROMETHEUS)


def _with_client(request: Request, job: Job) -> Job:
    return job if job.order.client else replace(job, order=replace(job.order, client=_client(request)))


async def _body(request: Request) -> bytes:
    """JSON by its own word: a web page of another site cannot make a browser send that."""
    if not request.headers.get("content-type", "").startswith(_JSON):
        raise HTTPException(415, f"send Content-Type: {_JSON}")
    return await request.body()


def _client(request: Request) -> str:
    return request.client.host if request.client else ""


# ------------------------------------------------------------------ answers


def _answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(write(value), status, headers, _JSON)


def _failure(said: Failure, status: int, headers: dict[str, str] | None = None) -> Response:
    message = " ".join(said.message.split())[:2000]
    waits = {"Retry-After": str(RETRY_AFTER_S)} if status in (429, 503) else {}
    return _answer(replace(said, message=message), status, {**waits, **(headers or {})})


def _keyless(service: Service) -> Response:
    service.counters.failed(Refusal.UNAUTHORIZED)
    said = Failure(Refusal.UNAUTHORIZED, "send the server's key: Authorization: Bearer KEY")
    return _failure(said, 401, {"WWW-Authenticate": "Bearer"})


def _answer_errors(app: FastAPI, service: Service) -> None:
    """Every error in one form."""

    def counted(said: Failure, status: int, headers: dict[str, str] | None = None) -> Response:
        service.counters.failed(said.kind)
        return _failure(said, status, headers)

    async def failed(_: Request, error: Exception) -> Response:
        assert isinstance(error, _Failed)
        return _failure(error.failure, status_of(error.failure.kind))  # counted when it ended

    async def refused(_: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)
        return counted(error.failure, status_of(error.failure.kind))

    async def config(_: Request, error: Exception) -> Response:
        return counted(Failure("config", str(error)), 422)

    async def malformed(_: Request, error: Exception) -> Response:
        no_json = isinstance(error, NotJson) or (isinstance(error, ValidationError) and error.errors()[0]["type"] == "json_invalid")
        return counted(Failure(Refusal.INVALID, "the body is no JSON" if no_json else _said(error)), 400 if no_json else 422)

    async def http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return counted(Failure(Refusal.INVALID, str(error.detail)), error.status_code, dict(error.headers or {}))

    async def broken(_: Request, error: Exception) -> Response:
        return counted(Failure("verifier", f"the server broke: {type(error).__name__}"), 500)

    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        _Failed: failed, Refused: refused, ConfigError: config, NotJson: malformed, Malformed: malformed,
        ValidationError: malformed, RequestValidationError: malformed, HTTPException: http, Exception: broken,
    }  # fmt: skip
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _said(error: Exception) -> str:
    """Of pydantic's errors the first, and nothing of the request but the field's name."""
    if not isinstance(error, ValidationError | RequestValidationError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where or 'body'}: {first['msg']}"


# ------------------------------------------------------------------ running


async def serve(
    verifier: Verifier, config: ServerConfig, on_listening: Callable[[str], None] = print, stop: asyncio.Event | None = None
) -> None:
    """Serve until SIGINT, SIGTERM or `stop`, then drain: nothing new is taken, and it ends once each job is finished and its answer
    was fetched, after `config.drain_s`, or when it is told again. `on_listening` is told the address.

    The caller closes the verifier. Raises ConfigError where the port cannot be had.
    """
    service, hosting = Service(verifier, config), Hosting(stop or asyncio.Event())
    try:
        async with hosted(create_app(service), config.host, config.port, GRACE_S, hosting) as address:
            on_listening(address)
            await hosting.stopping.wait()
            endings = {asyncio.create_task(service.jobs.drain()), asyncio.create_task(hosting.hurried.wait())}
            await asyncio.wait(endings, timeout=config.drain_s, return_when=asyncio.FIRST_COMPLETED)
            for ending in endings:
                ending.cancel()
            await service.jobs.aclose()  # so that whoever still waits is told
    finally:
        await service.jobs.aclose()

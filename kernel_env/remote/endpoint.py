"""One server, as a `RemoteVerifier` sees it: what it has to do, and one job at it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TypeVar

import httpx2

from kernel_env.errors import ConfigError, VerifierError
from kernel_env.remote.wire import (
    Accepted,
    Answer,
    Failure,
    Health,
    Job,
    Malformed,
    NotJson,
    Refusal,
    raised,
    read,
    write,
)
from kernel_env.schema import SCHEMA_VERSION, Verdict

ANSWER_S = 30.0
"""For an answer, beyond what the server was asked to wait."""
HEALTH_S = 5.0
POLL_S = 20.0
"""How long one request waits for a verdict."""
LOOK_S = 1.0
"""How often it is asked what it has to do, ..."""
FULL_S = 1.0
"""... and how long it is left alone when it was full."""
ATTEMPTS, BETWEEN_S = 3, 0.2
"""Requests whose connection breaks are made again: each may be, jobs have ids."""

T = TypeVar("T")


class Lost(Exception):
    """This server does not answer, takes nothing new, or no longer knows the job."""


class Full(Exception):
    """Its queue is full."""


def _is_address(url: str) -> bool:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


class Endpoint:
    """Use within one event loop."""

    def __init__(self, url: str, api_key: str) -> None:
        """Raises ConfigError for what is no address."""
        if not _is_address(url):
            raise ConfigError(f"verifier.remote: {url!r} is no address of a server, such as http://127.0.0.1:18188")
        self.url = url
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {api_key}"} if api_key else {})
        self._http = httpx2.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=None,  # the library's starts again with every byte
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=256),
        )
        self.health: Health | None = None
        """None: it is not there, or takes nothing new, ..."""
        self.trouble = ""
        """... for this reason."""
        self._mine = self._others = 0
        self._full_until_s = 0.0
        self._watching: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()

    @property
    def busyness(self) -> float:
        """Jobs a slot, as far as it is known."""
        return (self._others + self._mine) / (self.health.slots if self.health else 1)

    @property
    def full(self) -> bool:
        return time.monotonic() < self._full_until_s

    async def watch(self) -> None:
        """From now on. Returns once it was looked at for the first time."""
        self._watching = self._watching or asyncio.create_task(self._watch())
        await self._looked.wait()

    async def _watch(self) -> None:
        while True:
            try:
                self._see(await self._send("GET", "/health", None, HEALTH_S))
            except Lost as error:
                self._lose(str(error))
            self._looked.set()
            await asyncio.sleep(LOOK_S)

    def _see(self, response: httpx2.Response) -> None:
        try:
            found = read(Health, response.content)
        except (NotJson, Malformed, ConfigError):
            return self._lose(f"it answers {response.status_code} at /health, but not as kernel-env of this version does")
        if found.schema_version != SCHEMA_VERSION:
            return self._lose(f"it has version {found.schema_version} of the records, and this is {SCHEMA_VERSION}")
        if response.status_code != 200:
            return self._lose(f"it is {found.status}")
        self.health, self.trouble, self._others = found, "", max(0, found.unfinished - self._mine)

    def _lose(self, why: str) -> None:
        self.health, self.trouble = None, why

    async def verified(self, job: Job) -> Verdict:
        """Raises Lost, Full, and the errors of verifiers."""
        self._mine += 1
        try:
            await self._asked(job, "POST", "/jobs", write(job))
            while True:
                response = await self._asked(job, "GET", f"/jobs/{job.id}?wait_s={POLL_S:g}", None, ANSWER_S + POLL_S)
                if response.status_code == 200:
                    return self._read(Answer, response).verdict
                self._read(Accepted, response)
        except Full:
            self._full_until_s = time.monotonic() + FULL_S
            raise
        except Lost as error:
            self._lose(str(error))
            raise
        finally:
            self._mine -= 1

    async def cancel(self, job: str) -> None:
        """Whether or not it knows the job, or is there at all."""
        with contextlib.suppress(Lost):  # then its lease ends it, where it is alive
            await self._send("DELETE", f"/jobs/{job}", None, ANSWER_S)

    async def aclose(self) -> None:
        """Idempotent."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._http.aclose()

    # ------------------------------------------------------------------ requests

    async def _asked(self, job: Job, method: str, path: str, body: bytes | None, limit_s: float = ANSWER_S) -> httpx2.Response:
        """An answer that is none of failure."""
        for left in reversed(range(ATTEMPTS)):
            try:
                response = await self._send(method, path, body, limit_s)
                break
            except Lost:
                if not left:
                    raise
                await asyncio.sleep(BETWEEN_S)
        if response.status_code >= 400:
            self._fail(response)
        return response

    async def _send(self, method: str, path: str, body: bytes | None, limit_s: float) -> httpx2.Response:
        """Raises Lost."""
        try:
            async with asyncio.timeout(limit_s):
                return await self._http.request(method, path, content=body)
        except TimeoutError:
            why = f"no answer within {limit_s:g} s"
        except httpx2.HTTPError as error:
            why = f"the connection failed ({type(error).__name__}: {error})"
        raise Lost(why)  # outside of the except clauses: the library's exception holds the request, and so the key

    def _fail(self, response: httpx2.Response) -> None:
        """Always raises."""
        status = response.status_code
        try:
            said = read(Failure, response.content)
        except (NotJson, Malformed):  # a proxy's, or a server of another make
            if status in (429, 502, 503, 504):
                raise Lost(f"status {status}") from None
            raise ConfigError(f"{self.url} answers with status {status} and not as `kernel-env serve` does") from None
        match said.kind:
            case Refusal.OVERLOADED:
                raise Full
            case Refusal.STOPPING | Refusal.UNKNOWN_JOB:
                raise Lost(said.message)
            case Refusal.CANCELLED:
                raise VerifierError(f"{self.url}: {said.message}, and not from here")
            case Refusal.UNAUTHORIZED:
                raise ConfigError(f"{self.url}: wrong or no key: set verifier.api_key or KERNEL_ENV_API_KEY")
            case Refusal.INVALID | Refusal.CONFLICT:
                raise ConfigError(f"{self.url} refused a job: {said.message}")
        raise raised(said, self.url)

    def _read(self, kind: type[T], response: httpx2.Response) -> T:
        try:
            return read(kind, response.content)
        except (NotJson, Malformed, ConfigError) as error:
            raise VerifierError(f"{self.url} answered what cannot be read ({error}): is it the same kernel-env?") from error

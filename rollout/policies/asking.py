"""How endpoints are asked: the one place that retries, classifies failures, keeps to rate limits and counts what is spent.

The `openai` package carries every request, also those of other protocols, because it brings the HTTP client. What an answer must
look like is the affair of each policy.

Failures that may pass by themselves (connections, timeouts, 408, 409, 429, 5xx) are retried in this one layer. What outlasts the
retries is `RateLimited` for 429 and `EndpointUnreachable` for the rest. 401 and 403 are `AuthenticationFailed`, 404 is
`ModelNotFound`, any other refusal (say, a conversation longer than the context) is a plain `PolicyError`, and an answer outside of
the protocol is `BadReply`.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai
import stamina

from kernel_env.errors import (
    AuthenticationFailed,
    BadReply,
    ConfigError,
    EndpointUnreachable,
    ModelNotFound,
    PolicyError,
    RateLimited,
)
from kernel_env.schema import Usage
from rollout.policies.base import Endpoint, Spent, storable
from rollout.policies.limits import RateLimiter, Ticket

OPENAI_URL = "https://api.openai.com/v1"
NO_KEY = "none"  # the package insists on a key; servers that need none ignore it
ERROR_CHARS = 300

Send = Callable[[], Awaitable[httpx2.Response]]


@dataclass(frozen=True)
class Answer:
    document: Mapping[str, Any]
    """The JSON object that the endpoint sent, unchecked."""
    duration_s: float
    """Of the request that was answered, without failed ones and waits."""
    ticket: Ticket


class _Retryable(Exception):
    """A failure that may pass by itself. `wait_s`: what the endpoint asked to wait, None when it did not say."""

    def __init__(self, error: PolicyError, wait_s: float | None = None) -> None:
        super().__init__(error, wait_s)
        self.error = error
        self.wait_s = wait_s

    def __str__(self) -> str:
        return str(self.error)


class Asker:
    """One model of one endpoint. The key appears in no message and no repr.

    Raises `ConfigError` at construction for a URL or key that cannot work; nothing is sent before `ask`.
    """

    def __init__(self, model: str, base_url: str, endpoint: Endpoint, now: Callable[[], float], *, lost: str, root: str) -> None:
        """`lost` is what to do about a 404, `root` what `base_url` has to be."""
        self.where = _shown_url(base_url)
        self.spent = Spent()
        self._model, self._endpoint, self._now, self._lost, self._root = model, endpoint, now, lost, root
        self._key = _checked_key(endpoint.api_key or os.environ.get("OPENAI_API_KEY", ""), base_url)
        self._limiter = RateLimiter(endpoint.requests_per_minute, endpoint.tokens_per_minute)
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=self._key or NO_KEY,
            max_retries=0,
            timeout=openai.Timeout(endpoint.request_s, connect=endpoint.connect_s),
        )

    async def aclose(self) -> None:
        await self._client.close()

    async def get(self, path: str) -> httpx2.Response:
        """For `ask`. Raises the package's own errors."""
        return await self._client.get(path, cast_to=httpx2.Response)

    async def post(self, path: str, body: Mapping[str, object]) -> httpx2.Response:
        """For `ask`. Raises the package's own errors."""
        return await self._client.post(path, body=body, cast_to=httpx2.Response)

    # ------------------------------------------------------------------ asking

    async def ask(self, send: Send, patience: Endpoint, *, tokens: int = 0, remedy: str = "") -> Answer:
        """The answer to `send`, a request that may take so many `tokens`. Raises `PolicyError`. The only retry layer.

        `remedy` is what to do if it is refused, where that is something else than usual.
        """
        retry = stamina.AsyncRetryingCaller(
            attempts=patience.attempts,
            timeout=patience.retry_for_s,
            wait_initial=patience.wait_s,
            wait_max=patience.wait_max_s,
            wait_jitter=patience.wait_s,
        )
        try:
            return await retry(self._wait, self._ask_once, send, patience.request_s, tokens, remedy, itertools.count())
        except _Retryable as failure:
            error = failure.error
        raise error

    def count(self, answer: Answer, usage: Usage) -> None:
        """What an answered request has taken. One that does not say stays with the most that it may take."""
        self._limiter.settle(answer.ticket, usage.prompt_tokens + usage.completion_tokens or answer.ticket.tokens)
        cost = self._endpoint.cost(usage)
        self._add(Spent(prompt_tokens=usage.prompt_tokens, completion_tokens=usage.completion_tokens, cost=cost))

    def failure(self, kind: type[PolicyError], what: str, remedy: str) -> PolicyError:
        """Counts a failure and says it in one line: what, where, what to do. A server may echo the key, so it is struck out."""
        said = what.replace(self._key, "***") if self._key else what
        said = " ".join(storable(said).split())[:ERROR_CHARS]
        error = kind(f"{self.where}, model {self._model}: {said}; {remedy}")
        self._add(Spent(failures={error.kind: 1}))
        return error

    def _add(self, spent: Spent) -> None:
        self.spent = self.spent.plus(spent)

    def _wait(self, error: Exception) -> bool | float:
        """Stamina's question: seconds to wait, True for the usual back-off, False to give up."""
        if not isinstance(error, _Retryable):
            return False
        if error.wait_s is None:
            return True
        return error.wait_s if error.wait_s <= self._endpoint.wait_max_s else False

    async def _ask_once(self, send: Send, request_s: float, tokens: int, remedy: str, tries: Iterator[int]) -> Answer:
        failure: PolicyError | _Retryable
        ticket = await self._limiter.admit(tokens)
        self._add(Spent(requests=1, retries=min(next(tries), 1)))
        started = self._now()
        try:
            async with asyncio.timeout(request_s):  # the package's own timeout starts again with every byte
                response = await send()
        except asyncio.CancelledError:
            self._add(Spent(failures={"cancelled": 1}))
            raise
        except (TimeoutError, openai.APITimeoutError):
            failure = _Retryable(self._unreachable("no answer in time"))
        except openai.APIConnectionError as error:
            cause = error.__cause__
            failure = _Retryable(self._unreachable(f"the connection failed ({type(cause).__name__}: {cause})"))
        except openai.APIStatusError as error:
            failure = self._refusal(error, remedy)
        else:
            return Answer(self._document(response), self._now() - started, ticket)
        raise failure  # outside of the except clauses: the package's exception holds the request, and so the key

    # ------------------------------------------------------------------ judging

    def _refusal(self, error: openai.APIStatusError, remedy: str) -> PolicyError | _Retryable:
        """What an HTTP status of 400 or more means."""
        wait_s = retry_after_s(error.response.headers.get("retry-after"))
        said = error.message if wait_s is None else f"{error.message} (asks to wait {wait_s:g} s)"
        match error.status_code:
            case 401 | 403:
                return self.failure(AuthenticationFailed, said, "set OPENAI_API_KEY or policy.api_key to a key it accepts")
            case 404:
                return self.failure(ModelNotFound, f"{said} ({error.request.url.path})", remedy or self._lost)
            case 429 if error.code == "insufficient_quota":  # OpenAI's word for an empty account: waiting does not fill it
                return self.failure(RateLimited, said, "the account of this key is spent: fill it, or use another")
            case 429:
                advice = "lower the number of requests in flight, set policy.requests_per_minute or raise policy.attempts"
                return _Retryable(self.failure(RateLimited, said, advice), wait_s)
            case status if status in (408, 409) or status >= 500:
                return _Retryable(self.failure(EndpointUnreachable, said, "check the server's log"), wait_s)
            case _:  # the reply will not come, yet neither endpoint nor model is at fault
                usual = "check policy.extra_body, the sampling options and the context length"
                return self.failure(PolicyError, said, remedy or usual)

    def _document(self, response: httpx2.Response) -> Mapping[str, Any]:
        try:
            document = response.json()
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            return document
        kind = response.headers.get("content-type", "no content type")
        raise self.failure(BadReply, f"not a JSON object but {kind}", f"set policy.base_url to {self._root}")

    def _unreachable(self, what: str) -> PolicyError:
        return self.failure(EndpointUnreachable, what, "start the server or set policy.base_url")


def _shown_url(base_url: str) -> str:
    """The URL without what may be secret (user, password, query). Raises `ConfigError` where nothing can listen."""
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        shown = base_url.rpartition("@")[2]
        raise ConfigError(f"policy.base_url {shown!r} is not an http(s) URL: write it like http://localhost:8000/v1")
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl().rstrip("/")


def _checked_key(key: str, base_url: str) -> str:
    """The key, empty where none is known. Raises `ConfigError` for one that cannot work."""
    key = key.strip()
    if not key and urlsplit(base_url).hostname == urlsplit(OPENAI_URL).hostname:
        raise ConfigError(f"no API key for {OPENAI_URL}: set OPENAI_API_KEY, or policy.base_url for another endpoint")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError("the API key holds characters that no HTTP header can carry: check OPENAI_API_KEY or policy.api_key")
    return key


def retry_after_s(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (a number or an HTTP date), None where it says nothing usable."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return None if math.isnan(seconds) else max(seconds, 0.0)

"""Any endpoint that speaks OpenAI's chat protocol, through the `openai` package.

The package carries the request; this module retries, classifies failures where they occur and checks the answer, because
the package hands out a compatible server's malformed answer as if it were a good one.

Failures that may pass by themselves (connections, timeouts, 408, 409, 429, 5xx) are retried in this one layer. What
outlasts the retries is `RateLimited` for 429 and `EndpointUnreachable` for the rest. 401 and 403 are `AuthenticationFailed`,
404 is `ModelNotFound`, any other refusal (say, a conversation longer than the context) is a plain `PolicyError`, and an
answer outside of the protocol is `BadReply`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import difflib
import math
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal, cast
from urllib.parse import urlsplit

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
from kernel_env.schema import Generation, Usage
from rollout.policies.base import Capabilities, Endpoint, GenerationRequest, Sampling, storable

OPENAI_URL = "https://api.openai.com/v1"
NO_KEY = "none"  # the package insists on a key; servers that need none ignore it
PREFLIGHT_ATTEMPTS = 2
PREFLIGHT_S = 60.0
ERROR_CHARS = 300

FinishReason = Literal["stop", "length", "abort"]
Send = Callable[[], Awaitable[Any]]

# Everything else ("stop", "eos", ...) is the model's own end. A filtered reply was cut by the endpoint, not ended by the model.
_FINISH: Mapping[str, FinishReason] = {
    "length": "length",
    "model_length": "length",
    "abort": "abort",
    "content_filter": "abort",
    "error": "abort",
}


class _Retryable(Exception):
    """A failure that may pass by itself. `wait_s`: what the endpoint asked to wait, None when it did not say."""

    def __init__(self, error: PolicyError, wait_s: float | None = None) -> None:
        super().__init__(error, wait_s)
        self.error = error
        self.wait_s = wait_s

    def __str__(self) -> str:
        return str(self.error)


class OpenAIPolicy:
    """One model of one endpoint. The key appears in no message and no repr.

    Raises `ConfigError` at construction for a URL or key that cannot work; nothing is sent before `preflight` or `generate`.
    """

    def __init__(self, model: str, endpoint: Endpoint | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self.name = f"openai/{model}"
        self._model = model
        self._endpoint = endpoint = endpoint or Endpoint()
        self._now = now
        base_url = endpoint.base_url or os.environ.get("OPENAI_BASE_URL") or OPENAI_URL
        self._where = _shown_url(base_url)
        self._key = _checked_key(endpoint.api_key or os.environ.get("OPENAI_API_KEY", ""), base_url)
        self._client = openai.AsyncOpenAI(
            base_url=base_url,
            api_key=self._key or NO_KEY,
            max_retries=0,
            timeout=openai.Timeout(endpoint.request_s, connect=endpoint.connect_s),
        )

    def __repr__(self) -> str:
        return f"OpenAIPolicy({self._model!r}, base_url={self._where!r})"

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(thinking=True)

    def covers(self, episode: str) -> bool:
        return True

    async def aclose(self) -> None:
        await self._client.close()

    async def preflight(self) -> None:
        """Look the model up in the endpoint's list; where no list can be had, ask for one token."""
        try:
            listing, _ = await self._ask(self._client.models.with_raw_response.list, PREFLIGHT_ATTEMPTS, PREFLIGHT_S)
        except (EndpointUnreachable, RateLimited):
            raise
        except PolicyError:  # some endpoints have no list, some keys may not read it: a real request decides
            listing = {}
        match listing:
            case {"data": [*entries]}:
                self._require_listed([str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry])
            case _:
                probe = GenerationRequest(
                    ({"role": "user", "content": "Hi"},), Sampling(temperature=None, max_tokens=1, top_p=None), episode="", turn=0
                )
                reply, _ = await self._ask(self._chat(probe), PREFLIGHT_ATTEMPTS, PREFLIGHT_S)
                self._generation(reply, duration_s=0.0)

    async def generate(self, request: GenerationRequest) -> Generation:
        """`duration_s` is the time of the request that succeeded, without failed ones and waits."""
        reply, duration_s = await self._ask(self._chat(request), self._endpoint.attempts, self._endpoint.request_s)
        return self._generation(reply, duration_s)

    # ------------------------------------------------------------------ asking

    def _chat(self, request: GenerationRequest) -> Send:
        options = dataclasses.asdict(request.sampling)  # its fields bear the protocol's names
        body = {name: value for name, value in options.items() if value is not None} | dict(self._endpoint.extra_body)
        if request.thinking is not None:  # honoured by SGLang, vLLM and `transformers serve`
            template = cast(Mapping[str, object], body.get("chat_template_kwargs") or {})
            body["chat_template_kwargs"] = {**template, "enable_thinking": request.thinking}
        messages = [{name: storable(value) for name, value in message.items()} for message in request.messages]
        create = self._client.chat.completions.with_raw_response.create
        return lambda: create(model=self._model, messages=cast(Any, messages), extra_body=body)

    async def _ask(self, send: Send, attempts: int, request_s: float) -> tuple[Mapping[str, Any], float]:
        """The JSON object that answers, and the seconds it took. The only retry layer."""
        patience = self._endpoint
        retry = stamina.AsyncRetryingCaller(
            attempts=attempts,
            timeout=patience.retry_for_s,
            wait_initial=patience.wait_s,
            wait_max=patience.wait_max_s,
            wait_jitter=patience.wait_s,
        )
        try:
            return await retry(self._wait, self._ask_once, send, min(request_s, patience.request_s))
        except _Retryable as failure:
            error = failure.error
        raise error

    def _wait(self, error: Exception) -> bool | float:
        """Stamina's question: seconds to wait, True for the usual back-off, False to give up."""
        if not isinstance(error, _Retryable):
            return False
        if error.wait_s is None:
            return True
        return error.wait_s if error.wait_s <= self._endpoint.wait_max_s else False

    async def _ask_once(self, send: Send, request_s: float) -> tuple[Mapping[str, Any], float]:
        failure: PolicyError | _Retryable
        started = self._now()
        try:
            async with asyncio.timeout(request_s):  # the package's own timeout starts again with every byte
                response = await send()
        except (TimeoutError, openai.APITimeoutError):
            failure = _Retryable(self._unreachable("no answer in time"))
        except openai.APIConnectionError as error:
            cause = error.__cause__
            failure = _Retryable(self._unreachable(f"the connection failed ({type(cause).__name__}: {cause})"))
        except openai.APIStatusError as error:
            failure = self._refusal(error)
        else:
            return self._document(response.http_response), self._now() - started
        raise failure  # outside of the except clauses: the package's exception holds the request, and so the key

    # ------------------------------------------------------------------ judging

    def _refusal(self, error: openai.APIStatusError) -> PolicyError | _Retryable:
        """What an HTTP status of 400 or more means."""
        wait_s = _retry_after_s(error.response.headers.get("retry-after"))
        said = error.message if wait_s is None else f"{error.message} (asks to wait {wait_s:g} s)"
        match error.status_code:
            case 401 | 403:
                return self._error(AuthenticationFailed, said, "set OPENAI_API_KEY or policy.api_key to a key it accepts")
            case 404:
                return self._error(ModelNotFound, said, "set policy.model, or policy.base_url if it lacks its /v1")
            case 429:
                limited = self._error(RateLimited, said, "lower the number of requests in flight or raise policy.attempts")
                spent = error.code == "insufficient_quota"  # OpenAI's word for an empty account: waiting does not fill it
                return limited if spent else _Retryable(limited, wait_s)
            case status if status in (408, 409) or status >= 500:
                return _Retryable(self._unreachable(said), wait_s)
            case _:  # the reply will not come, yet neither endpoint nor model is at fault
                return self._error(PolicyError, said, "check policy.extra_body, the sampling options and the context length")

    def _document(self, response: Any) -> Mapping[str, Any]:
        try:
            document = response.json()
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict):
            return document
        kind = response.headers.get("content-type", "no content type")
        raise self._error(
            BadReply, f"not a JSON object but {kind}", "set policy.base_url to the API's root, which usually ends in /v1"
        )

    def _generation(self, document: Mapping[str, Any], duration_s: float) -> Generation:
        match document:
            case {"choices": [{"message": dict() as message} as choice, *_]}:
                pass
            case _:
                said = document.get("error") or f"fields {sorted(document)}"
                raise self._error(BadReply, f"an answer without a choice ({said})", "check the server's log")
        reasoning = next((v for k in ("reasoning_content", "reasoning") if isinstance(v := message.get(k), str) and v), "")
        content = message.get("content")
        if not isinstance(content, str | None) or ("content" not in message and not reasoning):
            raise self._error(BadReply, "a message without text content", "check the server's log")
        usage = document.get("usage")
        model = document.get("model")
        return Generation(
            text=storable(content or ""),
            reasoning=storable(reasoning),
            finish_reason=_FINISH.get(str(choice.get("finish_reason")), "stop"),
            usage=Usage(_count(usage, "prompt_tokens"), _count(usage, "completion_tokens")),
            model=storable(model) if isinstance(model, str) else self._model,
            duration_s=duration_s,
        )

    def _require_listed(self, served: list[str]) -> None:
        if self._model not in served:
            close = difflib.get_close_matches(self._model, served, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it serves {', '.join(served[:5]) or 'nothing'}"
            raise self._error(ModelNotFound, f"the endpoint does not list this model ({hint})", "set policy.model")

    def _unreachable(self, what: str) -> PolicyError:
        return self._error(EndpointUnreachable, what, "start the server or set policy.base_url")

    def _error(self, kind: type[PolicyError], what: str, remedy: str) -> PolicyError:
        """One line: what, where, what to do. A server may echo the key, so it is struck out of what the server said."""
        said = what.replace(self._key, "***") if self._key else what
        said = " ".join(storable(said).split())[:ERROR_CHARS]
        return kind(f"{self._where}, model {self._model}: {said}; {remedy}")


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


def _retry_after_s(header: str | None) -> float | None:
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


def _count(usage: object, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value >= 0 else 0

"""A language model as judge, at any endpoint that speaks OpenAI's chat protocol (vLLM, SGLang, `transformers serve`, ...).

A kernel is judged twice, without its comments and as it was written. The score is that of the program alone; where the other one
differs, the words have moved the judge, and the doubt `raw_differs` says so. There is no retry here: whoever asks this judge has
one.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import openai

from kernel_env.errors import AuthenticationFailed, ConfigError, EndpointUnreachable, ModelNotFound, PolicyError
from rewards.judge.models import JudgeFailure, Outcome, Scored, careful
from rewards.judge.prepared import Kernel, prepared
from rewards.judge.rubrics import (
    ANSWER,
    KERNEL,
    PROMPT_VERSION,
    Mode,
    Rubric,
    read_verdict,
    response_format,
    schema_format,
    system_prompt,
    user_prompt,
)
from rewards.judge.wire import FailureKind, JudgeRequest

SELF_JUDGED = "self_judged"
_NO_KEY = "none"  # the package insists on a key; servers that need none ignore it
_ERROR_CHARS = 200


@dataclass(frozen=True)
class LLMConfig:
    """Which model, and how it is asked."""

    model: str
    base_url: str = ""
    """The API's root, which usually ends in /v1. Empty: `OPENAI_BASE_URL`, or OpenAI's own."""
    api_key: str = field(default="", repr=False)
    """Empty: `OPENAI_API_KEY`."""
    mode: Literal["auto", "schema", "json", "plain"] = "auto"
    """How a verdict is asked for; `auto`: the strictest that the endpoint is seen to honour."""
    compare_raw: bool = True
    """Judge a kernel with its comments too, to see whether they move the judge. It doubles the calls where there are any."""
    own_policy: bool = False
    """The model judges its own work: every score carries the doubt `self_judged`."""
    temperature: float | None = 0.0
    max_tokens: int = 2048
    """For reasoning and verdict. What needs more has no verdict."""
    concurrency: int = 32
    """Requests in flight."""
    timeout_s: float = 60.0
    extra_body: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("the judge's model is missing: set model=NAME")
        if self.mode not in ("auto", *get_args(Mode)):
            raise ConfigError(f"mode={self.mode}: choose one of auto, {', '.join(get_args(Mode))}")


class _Failed(Exception):
    """`status`: what the endpoint answered, 0 where it did not."""

    def __init__(self, kind: FailureKind, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.failure = JudgeFailure(kind, message)
        self.status = status


class LLMJudge:
    """One model of one endpoint."""

    def __init__(self, config: LLMConfig) -> None:
        self._config = config
        self.name = f"llm:{config.model}"
        self._mode: Mode | None = None if config.mode == "auto" else config.mode
        self._client: openai.AsyncOpenAI | None = None
        self._room = asyncio.Semaphore(config.concurrency)

    @property
    def mode(self) -> Mode | None:
        """How verdicts are asked for; None before the endpoint was seen."""
        return self._mode

    @property
    def version(self) -> str:
        """Of model, prompts, sampling and mode, and of whose work it judges."""
        config = self._config
        asked = {mode: [system_prompt(rubric, mode) for rubric in (KERNEL, ANSWER)] for mode in get_args(Mode)}
        said = [PROMPT_VERSION, config.model, self._mode, config.temperature, config.max_tokens, config.compare_raw, asked]
        return hashlib.sha256(json.dumps([*said, config.own_policy, dict(config.extra_body)], default=str).encode()).hexdigest()[
            :16
        ]

    async def start(self) -> None:
        """See what the endpoint honours. Raises EndpointUnreachable, AuthenticationFailed, ModelNotFound or PolicyError."""
        config = self._config
        self._client = openai.AsyncOpenAI(
            base_url=config.base_url or None,
            api_key=config.api_key or os.environ.get("OPENAI_API_KEY") or _NO_KEY,
            max_retries=0,
            timeout=config.timeout_s,
        )
        if self._mode is None:
            self._mode = await self._probe()

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def score_batch(self, requests: Sequence[JudgeRequest]) -> list[Outcome]:
        return list(await asyncio.gather(*(self._score(request) for request in requests)))

    # ------------------------------------------------------------------ one request

    async def _score(self, request: JudgeRequest) -> Outcome:
        kernel = await asyncio.to_thread(prepared, request, compare_raw=self._config.compare_raw)
        if isinstance(kernel, JudgeFailure):
            return kernel
        try:
            if kernel is None:
                found = await self._asked(request, request.completion, ANSWER)
            else:
                found = await self._kernel(request, kernel)
        except _Failed as error:
            return error.failure
        doubts = (*found.doubts, *([SELF_JUDGED] if self._config.own_policy else []))
        return careful(replace(found, doubts=doubts))

    async def _kernel(self, request: JudgeRequest, kernel: Kernel) -> Scored:
        bare = self._asked(request, kernel.texts[0], KERNEL)
        found, raw = await asyncio.gather(bare, asyncio.gather(*(self._raw_score(request, text) for text in kernel.texts[1:])))
        return replace(found, doubts=kernel.doubts_of([found.score, *raw]))

    async def _raw_score(self, request: JudgeRequest, text: str) -> float | None:
        """The score of a kernel with its words; None where they are more than the model reads, or it gives no verdict for them."""
        try:
            return (await self._asked(request, text, KERNEL)).score
        except _Failed as error:
            if error.failure.kind is FailureKind.BAD_VERDICT:
                return None
            raise

    async def _asked(self, request: JudgeRequest, judged: str, rubric: Rubric) -> Scored:
        mode = self._mode or "plain"
        language = "python" if rubric is KERNEL else ""
        messages = [
            {"role": "system", "content": system_prompt(rubric, mode)},
            {"role": "user", "content": user_prompt(request, judged, language)},
        ]
        text = await self._reply(messages, response_format(rubric, mode))
        try:
            return read_verdict(text, rubric, mode)
        except ValueError as error:
            raise _Failed(FailureKind.BAD_VERDICT, f"{self.name} gave no verdict: {error}"[:_ERROR_CHARS]) from None

    # ------------------------------------------------------------------ the endpoint

    async def _probe(self) -> Mode:
        """The strictest mode that the endpoint honours: one word that nobody would say by chance tells."""
        word = schema_format("probe", {"word": {"type": "string", "enum": ["marmalade"]}})
        if await self._honours("Say hello.", word, {"word": "marmalade"}):
            return "schema"
        if await self._honours("Name a colour, in a JSON object.", {"type": "json_object"}, None):
            return "json"
        return "plain"

    async def _honours(self, question: str, form: dict[str, Any], wanted: dict[str, str] | None) -> bool:
        try:
            text = await self._reply([{"role": "user", "content": question}], form)
            found = json.loads(text)
        except _Failed as error:
            if error.failure.kind is FailureKind.BAD_VERDICT:
                return False
            raise _start_error(error) from None
        except (ValueError, RecursionError):
            return False
        return isinstance(found, dict) and wanted in (None, found)

    async def _reply(self, messages: list[dict[str, str]], form: dict[str, Any] | None) -> str:
        """The text of one reply. Raises _Failed; what the endpoint refuses to read (400, 422) is a BAD_VERDICT."""
        if self._client is None:
            raise _Failed(FailureKind.UNAVAILABLE, f"{self.name} was not started")
        config = self._config
        options: dict[str, Any] = {"response_format": form} if form else {}
        options |= {} if config.temperature is None else {"temperature": config.temperature}
        create: Any = self._client.chat.completions.with_raw_response.create
        kind, said, status = FailureKind.UNAVAILABLE, "", 0
        try:
            async with self._room, asyncio.timeout(config.timeout_s):
                raw = await create(
                    model=config.model,
                    messages=messages,
                    max_tokens=config.max_tokens,
                    extra_body=dict(config.extra_body),
                    **options,
                )
                document = raw.http_response.json()
        except (TimeoutError, openai.APITimeoutError):
            kind, said = FailureKind.TIMEOUT, f"no answer within {config.timeout_s:g} s"
        except openai.APIConnectionError as error:
            said = f"the connection failed ({type(error.__cause__).__name__})"
        except openai.APIStatusError as error:
            status = error.status_code
            kind, said = _refused(status)
        except (ValueError, RecursionError):
            said = "an answer that is no JSON"
        else:
            return _content(document)
        raise _Failed(kind, f"{self.name}: {said}", status)  # outside of the except clauses: the package's exception holds the key


def _refused(status: int) -> tuple[FailureKind, str]:
    if status == 429:
        return FailureKind.OVERLOADED, "the endpoint takes no more requests now (429)"
    if status in (400, 413, 422):
        return FailureKind.BAD_VERDICT, f"the endpoint refused the question ({status}): is it longer than the model's context?"
    return FailureKind.UNAVAILABLE, f"the endpoint answered {status}"


def _content(document: object) -> str:
    match document:
        case {"choices": [{"finish_reason": "length"}, *_]}:
            raise _Failed(FailureKind.BAD_VERDICT, "the verdict was cut at max_tokens: raise it")
        case {"choices": [{"message": {"content": str(text)}}, *_]}:
            return text
    raise _Failed(FailureKind.BAD_VERDICT, "the endpoint's answer holds no text")


def _start_error(error: _Failed) -> PolicyError:
    said = str(error)
    if error.status in (401, 403):
        return AuthenticationFailed(f"{said}; set OPENAI_API_KEY to a key it accepts")
    if error.status == 404:
        return ModelNotFound(f"{said}; set model=, or base_url= if it lacks its /v1")
    return EndpointUnreachable(f"{said}; start the model's server, or set base_url=")

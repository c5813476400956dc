"""What all policies share whose model is reached over HTTP. A back end adds how it asks, and how it reads the answer."""

from __future__ import annotations

import dataclasses
import difflib
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from kernel_env.errors import BadReply, ConfigError, EndpointUnreachable, ModelNotFound, PolicyError, RateLimited
from kernel_env.schema import Generation, Usage
from rollout.policies.asking import Answer, Asker, Send
from rollout.policies.base import CHARS_PER_TOKEN, Capabilities, Endpoint, GenerationRequest, Sampling, Spent, refuse_thinking

PREFLIGHT_ATTEMPTS = 2
PREFLIGHT_S = 60.0
PROBE_BUDGET_TOKENS = 8  # a model that thinks does not end that by itself so soon


class ServedPolicy(ABC):
    """One model of one endpoint.

    Raises `ConfigError` at construction for a URL or key that cannot work; nothing is sent before `preflight` or `generate`.
    """

    scheme: ClassVar[str]
    able: ClassVar[Capabilities]
    """What the back end can do as long as the endpoint does not show otherwise."""
    default_url: ClassVar[str | None] = None
    example_url: ClassVar[str] = "http://localhost:8000/v1"
    models_path: ClassVar[str] = "/models"
    lost: ClassVar[str]
    """What to do about a 404."""
    root: ClassVar[str]
    """What policy.base_url has to be."""

    def __init__(self, model: str, endpoint: Endpoint | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        endpoint = endpoint or Endpoint()
        url = endpoint.base_url or os.environ.get("OPENAI_BASE_URL") or self.default_url
        if not url:
            raise ConfigError(f"policy.base_url is missing: set it to the address of the server, like {self.example_url}")
        self.name = f"{self.scheme}/{model}"
        self.capabilities = self.able
        self._model, self._endpoint = model, endpoint
        self._brief = dataclasses.replace(endpoint, attempts=PREFLIGHT_ATTEMPTS, request_s=min(PREFLIGHT_S, endpoint.request_s))
        self._asker = Asker(model, self._rooted(url), endpoint, now, lost=self.lost, root=self.root)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r}, base_url={self._asker.where!r})"

    @property
    def spent(self) -> Spent:
        return self._asker.spent

    def covers(self, episode: str) -> bool:
        return True

    async def aclose(self) -> None:
        await self._asker.aclose()

    async def preflight(self) -> None:
        """Look the model up in the endpoint's list. Where there is none, or where replies must bring tokens, ask for one token."""
        served = await self.listed()
        if served is not None:
            self._require_listed([str(entry["id"]) for entry in served if "id" in entry])
        if self.capabilities.token_ids:
            await self._probe_tokens()
        elif served is None:
            await self._reply(_probe(None), self._brief)

    async def listed(self) -> Sequence[Mapping[str, Any]] | None:
        """The endpoint's list of models, None where none can be had: some have no list, some keys may not read it."""
        try:
            answer = await self._asker.ask(lambda: self._asker.get(self.models_path), self._brief)
        except (EndpointUnreachable, RateLimited):
            raise
        except PolicyError:
            return None
        match answer.document:
            case {"data": [*entries]}:
                return [entry for entry in entries if isinstance(entry, dict)]
            case _:
                return None

    async def generate(self, request: GenerationRequest) -> Generation:
        """`duration_s` is the time of the request that succeeded, without failed ones and waits."""
        refuse_thinking(self, request)
        return await self._reply(request, self._endpoint)

    async def _reply(self, request: GenerationRequest, patience: Endpoint) -> Generation:
        answer = await self._asker.ask(self._sending(request), patience, tokens=_most_tokens(request))
        self._asker.count(answer, self._usage(answer.document))
        return self._generation(request, answer)

    async def _probe_tokens(self) -> None:
        """Two replies of one token, without and with thinking: they must bring their tokens, and the same prompt twice means
        that the model's chat template has no such switch."""
        without, with_thinking = [await self._reply(_probe(thinking), self._brief) for thinking in (False, True)]
        told = without.prompt_ids != with_thinking.prompt_ids
        limited = told and await self._limits_thinking(with_thinking.prompt_ids)
        self.capabilities = dataclasses.replace(self.capabilities, thinking=told, thinking_budget=limited)

    async def _limits_thinking(self, prompt: tuple[int, ...] | None) -> bool:
        """Whether a thought without a single token ends at once. Servers that are not set up for a limit refuse it, and those that
        are too old to know it ignore it."""
        probe = _probe(True, PROBE_BUDGET_TOKENS)
        try:
            reply = await self._reply(dataclasses.replace(probe, prompt_ids=prompt, thinking_budget=0), self._brief)
        except PolicyError as error:
            if type(error) is not PolicyError:  # it is no refusal of this request
                raise
            return False
        return "</think>" in reply.text

    def _require_listed(self, served: list[str]) -> None:
        if self._model not in served:
            close = difflib.get_close_matches(self._model, served, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it serves {', '.join(served[:5]) or 'nothing'}"
            raise self._asker.failure(ModelNotFound, f"the endpoint does not list this model ({hint})", "set policy.model")

    def _bad(self, what: str, remedy: str = "check the server's log") -> PolicyError:
        return self._asker.failure(BadReply, what, remedy)

    # ------------------------------------------------------------------ what a back end adds

    def _rooted(self, url: str) -> str:
        """The URL that paths are appended to."""
        return url

    @abstractmethod
    def _sending(self, request: GenerationRequest) -> Send:
        """How the request is sent, once for each try."""

    @abstractmethod
    def _usage(self, document: Mapping[str, Any]) -> Usage:
        """Tokens that the endpoint says it took, also in answers that are no good otherwise."""

    @abstractmethod
    def _generation(self, request: GenerationRequest, answer: Answer) -> Generation:
        """Raises `BadReply` for an answer outside of the protocol."""


def template_options(endpoint: Endpoint, thinking: bool | None) -> dict[str, object]:
    """Variables of the model's chat template: those of the settings, and the switch that SGLang, vLLM and `transformers serve`
    hand on. A new mapping for each request, so that those with and without thinking never meet."""
    options = endpoint.template_options
    return options if thinking is None else {**options, "enable_thinking": thinking}


def token_ids(value: object) -> tuple[int, ...] | None:
    """None where this is no list of token ids."""
    if not isinstance(value, list) or not all(type(item) is int and item >= 0 for item in value):
        return None
    return tuple(value)


def log_probabilities(value: object) -> tuple[float, ...] | None:
    """None where this is no list of log-probabilities."""
    if not isinstance(value, list) or not all(type(item) in (int, float) and math.isfinite(item) for item in value):
        return None
    return tuple(map(float, value))


def count(usage: object, name: str) -> int:
    """A field of an endpoint's account, 0 where it does not say."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value >= 0 else 0


def _probe(thinking: bool | None, tokens: int = 1) -> GenerationRequest:
    sampling = Sampling(temperature=None, max_tokens=tokens, top_p=None)
    return GenerationRequest(({"role": "user", "content": "Hi"},), sampling, episode="", turn=0, thinking=thinking)


def _most_tokens(request: GenerationRequest) -> int:
    """What the request may take: its prompt, as far as its length is known, and the longest reply."""
    if request.prompt_ids is not None:
        prompt = len(request.prompt_ids)
    else:
        prompt = sum(len(message["content"]) for message in request.messages) // CHARS_PER_TOKEN
    return prompt + (request.sampling.max_tokens or 0)

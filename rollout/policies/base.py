"""The policy seam: what a runner asks of a model, and what every model answers.

A reply is always a `Generation`; an empty reply is one with empty text. No reply is always a `PolicyError`: a failure never
turns into assistant text.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from kernel_env.errors import ConfigError
from kernel_env.schema import Generation, Message, Usage

CHARS_PER_TOKEN = 4
"""About, of prompts that are not tokens yet."""
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Sampling:
    """How to draw a reply, in the chat protocol's names. None leaves an option out: some models refuse some of them."""

    temperature: float | None = 0.8
    """0 always takes the likeliest token."""
    max_tokens: int | None = 8192
    """Length limit of one reply, thinking included."""
    top_p: float | None = 1.0
    """Share of probability that tokens are drawn from, the likeliest first."""
    seed: int | None = None
    """Of the endpoint's random numbers, where it supports that; sample k of a problem gets `seed + k`."""

    def __post_init__(self) -> None:
        _require(
            self.temperature is None or 0 <= self.temperature < math.inf, "sampling.temperature", self.temperature, "0 or more"
        )
        _require(self.max_tokens is None or self.max_tokens >= 1, "sampling.max_tokens", self.max_tokens, "1 or more")
        _require(self.top_p is None or 0 < self.top_p <= 1, "sampling.top_p", self.top_p, "above 0 and at most 1")


@dataclass(frozen=True)
class GenerationRequest:
    """One turn of one episode."""

    messages: tuple[Message, ...]
    sampling: Sampling
    episode: str
    """`Episode.key`: `level1_problem7`, or `level1_problem7_sample3`."""
    turn: int
    """From 0."""
    thinking: bool | None = None
    """Whether the model is to think at length first; None leaves that to the endpoint. Never a state of the policy: requests with
    and without run side by side."""
    prompt_ids: tuple[int, ...] | None = None
    """The same messages as tokens, where the caller keeps them: policies with `Capabilities.token_ids` send these as they are."""
    begun: int = 0
    """So many of `prompt_ids`, the last ones, are of this very reply, which was broken off: the model goes on after them."""
    thinking_budget: int | None = None
    """Most tokens of its thinking, `begun` ones included, after which the engine ends it; for requests that are to think."""


@dataclass(frozen=True)
class Capabilities:
    """What a policy's replies bring, as far as is known before the first one."""

    token_ids: bool = False
    """`Generation.prompt_ids` and `output_ids` are the engine's own, and `GenerationRequest.prompt_ids` is honoured."""
    logprobs: bool = False
    """`Generation.output_logprobs` are there."""
    thinking: bool = False
    """`GenerationRequest.thinking` is honoured. Where it is not, asking for it is a ConfigError, never a silent nothing."""
    thinking_budget: bool = False
    """Likewise `GenerationRequest.thinking_budget`."""


@dataclass(frozen=True)
class Endpoint:
    """Where a served model is reached, and how patiently.

    A reply takes at most `attempts` requests, so at most `attempts * (request_s + wait_max_s)` seconds, and what the rate limits
    make it wait.
    """

    base_url: str | None = None
    """Root of the API, e.g. `http://localhost:8000/v1`. None: OPENAI_BASE_URL, else OpenAI's own."""
    api_key: str | None = field(default=None, repr=False)
    """None: OPENAI_API_KEY; without that too, only OpenAI's own endpoint is refused up front."""
    extra_body: Mapping[str, object] = field(default_factory=dict)
    """Further fields of the request's JSON, e.g. `top_k`. They win over the sampling options."""
    attempts: int = 5
    """Requests for one reply, the first included."""
    connect_s: float = 10.0
    """Until the endpoint takes the connection."""
    request_s: float = 900.0
    """One request, from connecting to the last byte."""
    retry_for_s: float = 1800.0
    """No further retry is planned once this much time has passed."""
    wait_s: float = 1.0
    """Wait before the first retry, plus up to as much again at random; it doubles each time."""
    wait_max_s: float = 60.0
    """Longest wait. An endpoint that asks for more (Retry-After) is not asked again."""
    requests_per_minute: int | None = None
    """Most requests in any 60 s, retries included; those beyond wait, first come, first served. None: no limit."""
    tokens_per_minute: int | None = None
    """Likewise most tokens, of prompts and replies. Until its reply is there, a request counts with the most that it may take, its
    prompt and `sampling.max_tokens`, as providers count."""
    price_per_million_prompt: float | None = None
    """What 1,000,000 tokens of prompts cost, in any currency, ..."""
    price_per_million_completion: float | None = None
    """... and of replies. With either, what a policy has spent says the cost too."""
    tokenizer: str | None = None
    """`sglang`: write prompts here, with the chat template of this tokenizer (a directory or a name on the hub; needs the extra
    `sglang`). None: the server writes them, which gateways before it may not be able to."""

    def __post_init__(self) -> None:
        _require(self.attempts >= 1, "policy.attempts", self.attempts, "1 or more")
        for name in ("connect_s", "request_s", "retry_for_s", "wait_s", "wait_max_s"):
            value = getattr(self, name)
            _require(0 < value < math.inf, f"policy.{name}", value, "a number of seconds above 0")
        for name in ("requests_per_minute", "tokens_per_minute"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"policy.{name}", value, "1 or more")
        for name in ("price_per_million_prompt", "price_per_million_completion"):
            value = getattr(self, name)
            _require(value is None or 0 <= value < math.inf, f"policy.{name}", value, "0 or more")

    @property
    def template_options(self) -> dict[str, object]:
        """Variables of the model's chat template among `extra_body`."""
        given = self.extra_body.get("chat_template_kwargs")
        return dict(given) if isinstance(given, Mapping) else {}

    def cost(self, usage: Usage) -> float | None:
        """None where no price is known."""
        prompt, completion = self.price_per_million_prompt, self.price_per_million_completion
        if prompt is None and completion is None:
            return None
        return (usage.prompt_tokens * (prompt or 0.0) + usage.completion_tokens * (completion or 0.0)) / 1e6


@dataclass(frozen=True)
class Spent:
    """What a policy has used so far. Failures count like everything else, and it can be read after them."""

    requests: int = 0
    """Sent to the endpoint, of any kind, failed ones too."""
    retries: int = 0
    """Those of them that repeated a failed one."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    """What went wrong, by the kind of its error, e.g. `rate_limited`; `cancelled` are requests that nobody waited for any more."""
    cost: float | None = None
    """Of these tokens; None where no price is known."""

    def plus(self, other: Spent) -> Spent:
        return Spent(
            requests=self.requests + other.requests,
            retries=self.retries + other.retries,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            failures=Counter(self.failures) + Counter(other.failures),
            cost=other.cost if self.cost is None else self.cost + (other.cost or 0.0),
        )


class Policy(Protocol):
    """A model, live or recorded. One instance serves many episodes at once, inside one event loop."""

    @property
    def name(self) -> str:
        """For records, e.g. `openai/Qwen/Qwen3-8B`."""

    @property
    def capabilities(self) -> Capabilities:
        """What is known of them; `preflight` may correct it."""

    @property
    def spent(self) -> Spent:
        """Up to now; after errors too."""

    async def preflight(self) -> None:
        """Find out, before any expensive work, whether replies can be had. Raises `PolicyError`."""

    async def generate(self, request: GenerationRequest) -> Generation:
        """One reply. Raises `PolicyError`: `PolicyExhausted` where a recording ends. `ConfigError` where the request asks for more
        than `capabilities`. Cancelling it ends the request at the server too."""

    def covers(self, episode: str) -> bool:
        """False where nothing is recorded for this episode; live models cover all."""

    async def aclose(self) -> None:
        """Release connections. Calling it twice is fine."""


def refuse_thinking(policy: Policy, request: GenerationRequest) -> None:
    """Raises `ConfigError` where the request says whether to think, or for how long, and the policy cannot be told."""
    if request.thinking is not None and not policy.capabilities.thinking:
        raise ConfigError(f"policy {policy.name} cannot be told whether to think: leave that open")
    if request.thinking_budget is not None and not policy.capabilities.thinking_budget:
        raise ConfigError(f"policy {policy.name} cannot limit the tokens of thinking: leave that open")


def storable(text: str) -> str:
    """The text with U+FFFD for every lone surrogate: JSON can carry them, UTF-8 files cannot."""
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def _require(condition: bool, option: str, value: object, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"{option}={value}: must be {wanted}")

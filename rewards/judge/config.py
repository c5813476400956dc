"""Options of a judge's client. Names and defaults are those of the judge integration guide that this package follows."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from kernel_env.errors import ConfigError
from kernel_env.schema import from_json
from rewards.judge.bounds import MAX_BATCH, PORT

ENVIRONMENT: Mapping[str, str] = {
    "JUDGE_MODEL_URL": "judge_url",
    "JUDGE_MODEL_API_KEY": "api_key",
    "JUDGE_MAX_BATCH_SIZE": "max_batch_size",
    "JUDGE_MAX_CONCURRENT": "max_concurrent_requests",
}
"""Variables and the options that they override."""

_VARIABLE = re.compile(r"\$\{(\w+)\}")


@dataclass(frozen=True)
class JudgeConfig:
    """Where a judge is reached, and how patiently. Times are in seconds."""

    judge_url: str = f"http://localhost:{PORT}"
    """Root of the judge's server."""
    api_key: str | None = field(default=None, repr=False)
    """Sent as a Bearer token, where the server wants one."""
    use_cache: bool = True
    """Give a request that was judged before the same score again."""
    cache_size: int = 5000
    """Scores that are kept in memory."""
    cache_ttl: float = 3600.0
    """How long a score is good for."""
    cache_path: str | None = None
    """A SQLite file that keeps scores beyond this process. Default: none."""
    max_batch_size: int = 16
    """Most requests in one batch."""
    batch_timeout: float = 0.05
    """How long a request waits for others to share its batch."""
    max_concurrent_requests: int = 32
    """HTTP requests under way at once."""
    timeout: float = 30.0
    """One HTTP request, from connecting to the last byte."""
    max_retries: int = 3
    """HTTP requests after a first one that failed in a way that may pass."""
    retry_wait: float = 1.0
    """Wait before the first retry, plus up to as much again at random; it doubles each time."""
    retry_wait_max: float = 10.0
    """Longest wait."""
    queue_size: int = 1000
    """Requests that may wait for a batch. One more is refused at once."""
    fallback_to_rule: bool = True
    """Score by rules, and say so, where the judge gives no score. Otherwise that is an error."""
    circuit_breaker_threshold: int = 10
    """So many failed HTTP requests in a row open the circuit: the judge is left alone."""
    circuit_breaker_timeout: float = 60.0
    """After so long one request tries whether it is back."""

    def __post_init__(self) -> None:
        url = urlsplit(self.judge_url)
        _require(url.scheme in ("http", "https") and bool(url.hostname), "judge_url", "a URL such as http://localhost:8888")
        _require(1 <= self.max_batch_size <= MAX_BATCH, "max_batch_size", f"from 1 to {MAX_BATCH}")
        for name in ("cache_size", "max_concurrent_requests", "queue_size", "circuit_breaker_threshold"):
            _require(getattr(self, name) >= 1, name, "1 or more")
        for name in ("cache_ttl", "timeout", "retry_wait", "retry_wait_max", "circuit_breaker_timeout"):
            _require(0 < getattr(self, name) < math.inf, name, "a number of seconds above 0")
        _require(0 <= self.batch_timeout < math.inf, "batch_timeout", "0 or more seconds")
        _require(self.max_retries >= 0, "max_retries", "0 or more")

    @classmethod
    def of(cls, given: Mapping[str, Any] | None, environ: Mapping[str, str], *, given_wins: bool = False) -> JudgeConfig:
        """Options by name, overridden by the environment's (`given_wins`: the other way round). Raises ConfigError.

        A value `${NAME}` is that variable's, or the default where it is not set.
        """
        said = {name: _expanded(value, environ) for name, value in (given or {}).items()}
        said = {name: value for name, value in said.items() if value is not None}
        variables = {option: environ[name] for name, option in ENVIRONMENT.items() if environ.get(name)}
        chosen = {**variables, **said} if given_wins else {**said, **variables}
        kinds = typing.get_type_hints(cls)
        try:
            return from_json(cls, {name: _read(name, kinds.get(name), value) for name, value in chosen.items()})
        except ValueError as error:
            raise ConfigError(f"judge: {str(error).removeprefix('JudgeConfig').lstrip('.: ')}") from None

    @property
    def where(self) -> str:
        """The URL without credentials, for messages."""
        url = urlsplit(self.judge_url)
        return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()

    @property
    def patience_s(self) -> float:
        """The longest that anybody waits for a judge's score: for a batch, for every attempt, and in between."""
        return self.batch_timeout + (self.max_retries + 1) * self.timeout + self.max_retries * self.retry_wait_max


def _expanded(value: Any, environ: Mapping[str, str]) -> Any:
    variable = _VARIABLE.fullmatch(value) if isinstance(value, str) else None
    return (environ.get(variable[1]) or None) if variable else value


def _read(name: str, kind: Any, value: Any) -> Any:
    """Text as what the option wants: the environment knows nothing else."""
    if not isinstance(value, str) or kind not in (int, float, bool):
        return value
    try:
        return {"true": True, "false": False}[value.strip().lower()] if kind is bool else kind(value)
    except (ValueError, KeyError):
        raise ConfigError(f"judge.{name}={value!r}: must be {'true or false' if kind is bool else 'a number'}") from None


def _require(condition: bool, option: str, wanted: str) -> None:
    if not condition:
        raise ConfigError(f"judge.{option}: must be {wanted}")

"""Policies: where replies come from. Importing this package loads no model library."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable

from kernel_env.errors import ConfigError
from rollout.policies.base import Capabilities, Endpoint, GenerationRequest, Policy, Sampling

__all__ = ["Capabilities", "Endpoint", "GenerationRequest", "Policy", "Sampling", "make_policy"]


def make_policy(spec: str, *, endpoint: Endpoint | None = None, now: Callable[[], float] = time.monotonic) -> Policy:
    """The policy that `spec` names: `openai/MODEL`, `replay/DIRECTORY-OR-SET` or `transformers/MODEL`.

    `endpoint` tells served models how they are reached; recordings need none. `now` is the stopwatch in seconds that
    `Generation.duration_s` is measured with. Raises `ConfigError` for a spec that names no policy.
    """
    scheme, _, rest = spec.partition("/")
    build = _SCHEMES.get(scheme)
    if build is None:
        close = difflib.get_close_matches(scheme, _SCHEMES, n=1)
        hint = f"did you mean {close[0]}/...?" if close else f"use one of {', '.join(f'{name}/...' for name in _SCHEMES)}"
        raise ConfigError(f"unknown policy {spec!r}: {hint}")
    if not rest:
        raise ConfigError(f"policy {spec!r} is incomplete: write openai/MODEL, replay/PATH or transformers/MODEL")
    return build(rest, endpoint or Endpoint(), now)


def _openai(model: str, endpoint: Endpoint, now: Callable[[], float]) -> Policy:
    from rollout.policies.openai import OpenAIPolicy

    return OpenAIPolicy(model, endpoint, now=now)


def _replay(path: str, endpoint: Endpoint, now: Callable[[], float]) -> Policy:
    from rollout.policies.replay import ReplayPolicy

    return ReplayPolicy(path)


def _transformers(model: str, endpoint: Endpoint, now: Callable[[], float]) -> Policy:
    from rollout.policies.transformers import TransformersPolicy

    return TransformersPolicy(model, endpoint, now=now)


_SCHEMES: dict[str, Callable[[str, Endpoint, Callable[[], float]], Policy]] = {
    "openai": _openai,
    "replay": _replay,
    "transformers": _transformers,
}

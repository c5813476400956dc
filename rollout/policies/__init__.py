"""Policies: where replies come from. Importing this package loads no model library."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Mapping
from importlib import import_module

from kernel_env.errors import ConfigError
from rollout.policies.base import Capabilities, Endpoint, GenerationRequest, Policy, Sampling, Spent

__all__ = ["Capabilities", "Endpoint", "GenerationRequest", "Policy", "Sampling", "Spent", "make_policy"]

BACK_ENDS: Mapping[str, str] = {
    "openai": "rollout.policies.openai:OpenAIPolicy",
    "sglang": "rollout.policies.sglang:SGLangPolicy",
    "vllm": "rollout.policies.vllm:VLLMPolicy",
    "transformers": "rollout.policies.transformers:TransformersPolicy",
    "replay": "rollout.policies.replay:ReplayPolicy",
    "human": "rollout.policies.human:HumanPolicy",
    "auto": "rollout.policies.detected:DetectedPolicy",
}
"""Where each back end is. It is loaded when it is asked for, and called with (what follows the scheme, the endpoint, now=...)."""


def make_policy(spec: str, *, endpoint: Endpoint | None = None, now: Callable[[], float] = time.monotonic) -> Policy:
    """The policy that `spec` names: `SCHEME/MODEL`, or `replay/DIRECTORY-OR-SET`.

    `endpoint` tells served models how they are reached; recordings need none. `now` is the stopwatch in seconds that
    `Generation.duration_s` is measured with. Raises `ConfigError` for a spec that names no policy.
    """
    scheme, _, rest = spec.partition("/")
    if scheme not in BACK_ENDS:
        close = difflib.get_close_matches(scheme, BACK_ENDS, n=1)
        hint = f"did you mean {close[0]}/...?" if close else f"use one of {', '.join(f'{name}/...' for name in BACK_ENDS)}"
        raise ConfigError(f"unknown policy {spec!r}: {hint}")
    if not rest:
        raise ConfigError(f"policy {spec!r} is incomplete: write {scheme}/{'PATH' if scheme == 'replay' else 'MODEL'}")
    module, _, name = BACK_ENDS[scheme].partition(":")
    policy: Policy = getattr(import_module(module), name)(rest, endpoint or Endpoint(), now=now)
    return policy

"""What tests of policies ask, and how impatiently."""

from __future__ import annotations

import pickle
import re

from kernel_env.errors import PolicyError
from kernel_env.schema import Message
from rollout.policies import Endpoint, GenerationRequest, Sampling

HANGS_S = 60.0


def ask(*messages: Message, sampling: Sampling | None = None, **more: object) -> GenerationRequest:
    said = messages or ({"role": "user", "content": "hi"},)
    return GenerationRequest(said, sampling or Sampling(), "level1_problem1", 0, **more)


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def endpoint(url: str, *, attempts: int = 3, wait_s: float = 0.01, request_s: float = HANGS_S, **others: object) -> Endpoint:
    return Endpoint(base_url=url, attempts=attempts, wait_s=wait_s, request_s=request_s, **others)


def check_error(error: PolicyError, where: str) -> None:
    """Every error is one line (where, which model, what, what to do) and survives pickling."""
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(copy), str(copy)) == (type(error), str(error))
    assert re.fullmatch(re.escape(where) + r", model test-model: [^\n]{1,300}; [^\n]+", str(error))

"""Whether a reply is to think at length before it answers: always, never, or as the policy itself judges (the think gate); and for
how many tokens at most, where the engine can end a thought.

Before each turn of the arm `self` the policy is asked in a request of its own whether this turn needs long thinking, with thinking
switched off and few tokens. What it decided goes with the one request that it was asked for: nothing is kept in between, so
episodes that think and episodes that do not run side by side.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from kernel_env.errors import ConfigError
from kernel_env.parsing import without_thinking
from kernel_env.schema import Generation, Thinking
from rollout.policies.base import GenerationRequest, Policy

ARMS = ("default", "always", "never", "self")
QUESTION = (
    "Analyze the following question and determine if it requires very long step-by-step thinking for you to solve correctly:\n\n"
    "Question: {question}\n\n"
    "Does this question require very long, complex thinking? Answer with only 'YES' or 'NO'."
)
"""As it has been asked since the gate was first published; {question} is the last message: the task, or what became of a try."""
_LABEL = re.compile(r"[\s\"'*`.!]*(yes|no)[\s\"'*`.!]*", re.IGNORECASE)
"""The whole answer: a yes or no inside of a sentence may mean anything."""


@dataclass(frozen=True)
class ThinkingConfig:
    arm: str = "default"
    """`default` (as the endpoint does by itself), `always`, `never`, or `self`: before each turn the policy is asked whether this
    turn needs long thinking."""
    max_tokens: int = 16
    """Length limit of the answer to that."""
    undecided: bool = True
    """Whether to think where the answer is neither yes nor no."""
    budget: int | None = None
    """Most tokens of a thought; then the engine ends it, and the answer begins. For `arm` `always` and `self`; with `sglang`, whose
    server was started with `--reasoning-parser` and `--enable-strict-thinking`, or `vllm`, with `--reasoning-parser`. None: no
    limit but `sampling.max_tokens`."""

    @property
    def modes(self) -> tuple[bool | None, ...]:
        """What requests may say of thinking."""
        return {"default": (None,), "always": (True,), "never": (False,), "self": (True, False)}[self.arm]

    def __post_init__(self) -> None:
        if self.arm not in ARMS:
            raise ConfigError(f"thinking.arm={self.arm}: choose one of {', '.join(ARMS)}")
        if self.max_tokens < 1:
            raise ConfigError(f"thinking.max_tokens must be 1 or more, got {self.max_tokens}")
        if self.budget is not None and self.budget < 1:
            raise ConfigError(f"thinking.budget must be 1 or more, got {self.budget}; thinking.arm=never is without any thinking")
        if self.budget is not None and True not in self.modes:
            raise ConfigError(f"thinking.budget={self.budget} is for replies that are told to think: thinking.arm=always or self")


def check_thinking(config: ThinkingConfig, policy: Policy) -> None:
    """Raises ConfigError where the policy cannot be told whether to think, or for how long: a switch that does nothing would look
    like a result."""
    if config.arm != "default" and not policy.capabilities.thinking:
        raise ConfigError(f"thinking.arm={config.arm}: policy {policy.name} cannot be told whether to think; leave it at default")
    if config.budget is not None and not policy.capabilities.thinking_budget:
        raise ConfigError(
            f"thinking.budget={config.budget}: policy {policy.name} cannot limit the tokens of thinking: that takes policy=sglang, "
            "its server started with --reasoning-parser and --enable-strict-thinking, or policy=vllm, with --reasoning-parser"
        )


Answering = Callable[[GenerationRequest], Awaitable[Generation]]
"""Has the policy answer, whole: an answer that was broken off would be taken for one that is neither yes nor no."""


async def decided(answering: Answering, request: GenerationRequest, config: ThinkingConfig) -> Thinking | None:
    """Whether this request is to think; None leaves it to the endpoint. Raises PolicyError where the policy has no answer."""
    match config.arm:
        case "always":
            return Thinking("always", True)
        case "never":
            return Thinking("never", False)
        case "self":
            return await _asked(answering, request, config)
        case _:
            return None


async def _asked(answering: Answering, request: GenerationRequest, config: ThinkingConfig) -> Thinking:
    *before, last = request.messages
    question: Mapping[str, str] = {"role": "user", "content": QUESTION.format(question=last["content"])}
    sampling = replace(request.sampling, max_tokens=config.max_tokens)
    reply = await answering(replace(request, messages=(*before, question), sampling=sampling, thinking=False, prompt_ids=None))
    label = _LABEL.fullmatch(without_thinking(reply.text))
    on = config.undecided if label is None else label[1].lower() == "yes"
    return Thinking("self", on, reply.text, label is not None, reply.usage, reply.duration_s)

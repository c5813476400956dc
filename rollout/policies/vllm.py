"""vLLM: OpenAI's protocol, and with every reply the engine's own tokens and their log-probabilities.

A request that brings its prompt as tokens goes to /completions, which takes them as they are; all others go to /chat/completions.
vLLM says nothing of weight versions. Started with a `--reasoning-parser` it limits thoughts, and counts those in the prompt, too;
else it refuses to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from kernel_env.schema import Generation
from rollout.policies.asking import Answer, Send
from rollout.policies.base import Capabilities, GenerationRequest
from rollout.policies.openai import OpenAIPolicy
from rollout.policies.served import log_probabilities, token_ids

NO_LOG_PROBABILITY = -9999.0
"""What vLLM sends where it has none, or none that JSON can hold."""
_OLD = "use a newer vLLM, which knows return_token_ids, or policy=openai"


class VLLMPolicy(OpenAIPolicy):
    scheme: ClassVar[str] = "vllm"
    able: ClassVar[Capabilities] = Capabilities(token_ids=True, logprobs=True, thinking=True, thinking_budget=True)
    default_url: ClassVar[str | None] = None

    def _sending(self, request: GenerationRequest) -> Send:
        if request.prompt_ids is None:
            chat = {**self._chat(request), "return_token_ids": True, "logprobs": True}
            return lambda: self._asker.post("/chat/completions", chat)
        body = {
            "model": self._model,
            "prompt": list(request.prompt_ids),
            "max_tokens": None,  # left out, it would be 16
            "skip_special_tokens": False,
            **self._options(request),
            "return_token_ids": True,
            "logprobs": 0,
        }
        body.pop("chat_template_kwargs", None)  # the prompt is written already
        return lambda: self._asker.post("/completions", body)

    def _options(self, request: GenerationRequest) -> dict[str, object]:
        limit = {} if request.thinking_budget is None else {"thinking_token_budget": request.thinking_budget}
        return limit | super()._options(request)

    def _said(self, choice: Mapping[str, Any]) -> tuple[str, str]:
        text = choice.get("text")
        return (text, "") if isinstance(text, str) else super()._said(choice)

    def _generation(self, request: GenerationRequest, answer: Answer) -> Generation:
        said = super()._generation(request, answer)
        choice = self._choice(answer.document)
        prompt = token_ids(choice.get("prompt_token_ids") or answer.document.get("prompt_token_ids"))
        output = token_ids(choice.get("token_ids"))
        if prompt is None or output is None:
            raise self._bad("an answer without its token ids", _OLD)
        logprobs = log_probabilities(_logprobs(choice.get("logprobs")))
        if logprobs is None or len(logprobs) != len(output) or min(logprobs, default=0.0) <= NO_LOG_PROBABILITY:
            raise self._bad(f"{len(output)} tokens without a log-probability each", _OLD)
        return dataclasses.replace(said, prompt_ids=prompt, output_ids=output, output_logprobs=logprobs)


def _logprobs(said: object) -> object:
    """One number a token, as either protocol sends them."""
    match said:
        case {"content": [*tokens]}:
            return [token.get("logprob") if isinstance(token, dict) else None for token in tokens]
        case {"token_logprobs": numbers}:
            return numbers
        case _:
            return None

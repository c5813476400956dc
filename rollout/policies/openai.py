"""Any endpoint that speaks OpenAI's chat protocol. Answers are checked here: compatible servers send malformed ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from kernel_env.errors import PolicyError
from kernel_env.schema import Generation, Usage
from rollout.policies.asking import OPENAI_URL, Answer, Send
from rollout.policies.base import Capabilities, GenerationRequest, storable
from rollout.policies.served import ServedPolicy, count, template_options

FinishReason = Literal["stop", "length", "abort"]

# Everything else ("stop", "eos", ...) is the model's own end.
_FINISH: Mapping[str, FinishReason] = {
    "length": "length",
    "model_length": "length",
    "abort": "abort",
    "error": "abort",
}


class OpenAIPolicy(ServedPolicy):
    """A chat model. Whether its template knows the switch for thinking cannot be seen from outside."""

    scheme: ClassVar[str] = "openai"
    able: ClassVar[Capabilities] = Capabilities(thinking=True)
    default_url: ClassVar[str | None] = OPENAI_URL
    lost: ClassVar[str] = "set policy.model, or policy.base_url if it lacks its /v1"
    root: ClassVar[str] = "the API's root, which usually ends in /v1"

    def _sending(self, request: GenerationRequest) -> Send:
        body = self._chat(request)
        return lambda: self._asker.post("/chat/completions", body)

    def _chat(self, request: GenerationRequest) -> dict[str, object]:
        messages = [{name: storable(value) for name, value in message.items()} for message in request.messages]
        body = {"model": self._model, "messages": messages, **self._options(request)}
        if options := template_options(self._endpoint, request.thinking):
            body["chat_template_kwargs"] = options
        return body

    def _options(self, request: GenerationRequest) -> dict[str, object]:
        """Sampling bears the protocol's names; what the settings add wins."""
        sampling = {name: value for name, value in dataclasses.asdict(request.sampling).items() if value is not None}
        return sampling | dict(self._endpoint.extra_body)

    def _usage(self, document: Mapping[str, Any]) -> Usage:
        usage = document.get("usage")
        return Usage(count(usage, "prompt_tokens"), count(usage, "completion_tokens"))

    def _generation(self, request: GenerationRequest, answer: Answer) -> Generation:
        choice = self._choice(answer.document)
        if choice.get("finish_reason") == "content_filter":  # cut by the endpoint, and it would be again: no reply, and no try more
            raise self._asker.failure(PolicyError, "the endpoint's content filter cut the reply off", "reword the problem's prompt")
        text, reasoning = self._said(choice)
        model = answer.document.get("model")
        return Generation(
            text=storable(text),
            reasoning=storable(reasoning),
            finish_reason=_FINISH.get(str(choice.get("finish_reason")), "stop"),
            usage=self._usage(answer.document),
            model=storable(model) if isinstance(model, str) else self._model,
            duration_s=answer.duration_s,
        )

    def _choice(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        match document:
            case {"choices": [dict() as choice, *_]}:
                return choice
            case _:
                said = document.get("error") or f"fields {sorted(document)}"
                raise self._bad(f"an answer without a choice ({said})")

    def _said(self, choice: Mapping[str, Any]) -> tuple[str, str]:
        """The reply's text and reasoning."""
        message = choice.get("message")
        if not isinstance(message, dict):
            raise self._bad(f"a choice without a message (fields {sorted(choice)})")
        reasoning = next((v for k in ("reasoning_content", "reasoning") if isinstance(v := message.get(k), str) and v), "")
        content = message.get("content")
        if not isinstance(content, str | None) or ("content" not in message and not reasoning):
            raise self._bad("a message without text content")
        return content or "", reasoning

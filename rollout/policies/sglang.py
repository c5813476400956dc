"""SGLang's native protocol, POST /generate: tokens in, tokens out, with log-probabilities and the version of the weights.

Tokens and log-probabilities are the engine's own, never made from text. A request that brings no tokens has its messages written
by the server (/v1/tokenize), just as for its own chat protocol, or here where `policy.tokenizer` names one. A try that nobody waits
for any more, cancelled or out of time, is aborted at the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import httpx2
import openai

from kernel_env.schema import Generation, Message, Usage
from rollout.policies.asking import Answer, Send
from rollout.policies.base import Capabilities, Endpoint, GenerationRequest, storable
from rollout.policies.served import ServedPolicy, count, log_probabilities, template_options, token_ids
from rollout.tokens import ChatTemplate, load_template

ABORT_S = 5.0
"""Longest wait for the server to take an abort; it also aborts by itself once it sees that the connection is gone."""
_WRITE_HERE = "set policy.tokenizer to the model's tokenizer, to write prompts here"


class SGLangPolicy(ServedPolicy):
    scheme: ClassVar[str] = "sglang"
    able: ClassVar[Capabilities] = Capabilities(token_ids=True, logprobs=True, thinking=True, thinking_budget=True)
    example_url: ClassVar[str] = "http://localhost:30000"
    models_path: ClassVar[str] = "/v1/models"
    lost: ClassVar[str] = "set policy.base_url to an SGLang server, or use policy=openai"
    root: ClassVar[str] = "an SGLang server, like http://localhost:30000"

    def __init__(self, model: str, endpoint: Endpoint | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(model, endpoint, now=now)
        self._template: ChatTemplate | None = None
        self._one_at_a_time = asyncio.Lock()
        """Fast tokenizers refuse to be used by two threads at once."""

    def _rooted(self, url: str) -> str:
        return url.rstrip("/").removesuffix("/v1")

    async def _reply(self, request: GenerationRequest, patience: Endpoint) -> Generation:
        if request.prompt_ids is None:
            request = dataclasses.replace(request, prompt_ids=await self._prompt(request, patience))
        return await super()._reply(request, patience)

    # ------------------------------------------------------------------ asking

    async def _prompt(self, request: GenerationRequest, patience: Endpoint) -> tuple[int, ...]:
        """The messages as tokens, up to where the reply begins."""
        messages = [{name: storable(value) for name, value in message.items()} for message in request.messages]
        if self._endpoint.tokenizer is not None:
            async with self._one_at_a_time:
                return await asyncio.to_thread(self._written_here, messages, request.thinking)
        options = template_options(self._endpoint, request.thinking)
        body = {"model": self._model, "messages": messages, "chat_template_kwargs": options}
        answer = await self._asker.ask(lambda: self._asker.post("/v1/tokenize", body), patience, remedy=_WRITE_HERE)
        prompt = token_ids(answer.document.get("tokens"))
        if not prompt:
            raise self._bad("the server wrote no prompt from the messages", _WRITE_HERE)
        return prompt

    def _written_here(self, messages: Sequence[Message], thinking: bool | None) -> tuple[int, ...]:
        """Raises ConfigError."""
        if self._template is None:
            self._template = load_template(self._endpoint.tokenizer or "", self._endpoint.template_options)
        return self._template.render(messages, thinking)

    def _sending(self, request: GenerationRequest) -> Send:
        assert request.prompt_ids is not None
        body: dict[str, object] = {"input_ids": list(request.prompt_ids), "return_logprob": True}
        body |= {"sampling_params": self._sampling(request), **_thinking_limit(request)}

        async def send() -> httpx2.Response:
            rid = uuid.uuid4().hex  # of this try alone: the server refuses one that it still works on
            try:
                return await self._asker.post("/generate", {**body, "rid": rid})
            except asyncio.CancelledError:
                await self._abort(rid)
                raise

        return send

    def _sampling(self, request: GenerationRequest) -> dict[str, object]:
        """What the settings add belongs here too: among these the server refuses names that it does not know, elsewhere it
        ignores them."""
        sampling = request.sampling
        given = {"temperature": sampling.temperature, "top_p": sampling.top_p, "sampling_seed": sampling.seed}
        added = {name: value for name, value in self._endpoint.extra_body.items() if name != "chat_template_kwargs"}
        return {
            "max_new_tokens": sampling.max_tokens,  # null is as many as fit; left out, it would be 128
            **{name: value for name, value in given.items() if value is not None},
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            **added,
        }

    async def _abort(self, rid: str) -> None:
        with contextlib.suppress(openai.OpenAIError, TimeoutError):
            async with asyncio.timeout(ABORT_S):
                await self._asker.post("/abort_request", {"rid": rid})

    # ------------------------------------------------------------------ judging

    def _usage(self, document: Mapping[str, Any]) -> Usage:
        meta = document.get("meta_info")
        return Usage(count(meta, "prompt_tokens"), count(meta, "completion_tokens"))

    def _generation(self, request: GenerationRequest, answer: Answer) -> Generation:
        match answer.document:
            case {"text": str() as text, "meta_info": {"finish_reason": {"type": "stop" | "length" | "abort" as finish}} as meta}:
                output, logprobs = self._sampled(answer.document, meta)
            case _:
                said = answer.document.get("error") or f"fields {sorted(answer.document)}"
                raise self._bad(f"an answer without text and finish reason ({said})")
        return Generation(
            text=storable(text),  # the server has left out the token that ended the reply
            finish_reason=finish,
            usage=self._usage(answer.document),
            model=self._model,
            duration_s=answer.duration_s,
            output_ids=output,
            output_logprobs=logprobs,
            weight_version=_weight_version(meta),
            prompt_ids=request.prompt_ids,
        )

    def _sampled(self, document: Mapping[str, Any], meta: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Tokens and log-probabilities, which the server sends as `[log-probability, token, text]` each."""
        entries = meta.get("output_token_logprobs")
        pairs = [entry for entry in entries if isinstance(entry, list) and len(entry) >= 2] if isinstance(entries, list) else []
        logprobs, output = log_probabilities([pair[0] for pair in pairs]), token_ids([pair[1] for pair in pairs])
        if not isinstance(entries, list) or len(pairs) != len(entries) or logprobs is None or output is None:
            raise self._bad("an answer without tokens and log-probabilities")
        if "output_ids" in document and list(output) != document["output_ids"]:
            raise self._bad(f"{len(output)} log-probabilities that belong to other tokens than the reply's")
        return output, logprobs


def _thinking_limit(request: GenerationRequest) -> dict[str, object]:
    """The server counts from the first token that it samples, as long as it is told that this is a thought. Started with
    `--enable-strict-thinking` and a `--reasoning-parser`, it ends the thought; else it refuses the request."""
    if request.thinking_budget is None:
        return {}
    return {"require_reasoning": True, "max_thinking_tokens": max(request.thinking_budget - request.begun, 0)}


def _weight_version(meta: Mapping[str, Any]) -> str | None:
    """The version that the reply was sampled with; all of them in order, with commas, where it changed on the way."""
    match meta:
        case {"weight_versions": [_, _, *_] as spans}:
            return ",".join(str(span["version"]) for span in spans if isinstance(span, dict) and "version" in span)
        case {"weight_version": str() as version}:
            return version
        case _:
            return None

"""A real HTTP server for tests that speaks vLLM's protocol: OpenAI's, with tokens and log-probabilities for those who ask.

Without `return_token_ids`, and with `tells=False` (a vLLM that does not know it yet), the answer has no tokens. `switch=False`: the
model's chat template knows no thinking. `limits`: whether it ends thoughts at their budget; False: it was started without a
reasoning parser, and refuses budgets; None: it is older than they are, and ignores them.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from tests import toy_tokens
from tests.chat_server import ChatRequest, ChatServer, Reply, Script, completion


class CompletionRequest(ChatRequest):
    """What arrived at /v1/completions."""

    @property
    def messages(self) -> list[dict[str, str]]:
        return toy_tokens.conversation(self.body["prompt"])

    @property
    def thinking(self) -> bool | None:
        return toy_tokens.thinking(self.body["prompt"])


class VLLMServer(ChatServer):
    owned_by = "vllm"

    def __init__(
        self, script: Script = ("ok",), *, tells: bool = True, switch: bool = True, limits: bool | None = True, **options: Any
    ) -> None:
        super().__init__(script, **options)
        self._tells, self._switch, self._limits = tells, switch, limits

    def _app(self) -> FastAPI:
        app = super()._app()
        app.add_api_route("/v1/completions", self._complete, methods=["POST"])
        return app

    async def _complete(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.requests.append(CompletionRequest(body, dict(request.headers)))
        if refusal := self._check_key(request):
            return refusal
        if "thinking_token_budget" in body and self._limits is False:
            return JSONResponse({"error": {"message": "thinking_token_budget needs a reasoning parser"}}, 400)
        return await self._answer(self._next(self.requests[-1].messages), request, body)

    def _good(self, reply: Reply, body: dict[str, Any]) -> Response:
        if self._limits and body.get("thinking_token_budget") == 0:
            reply = replace(reply, text=f"</think>{reply.text}")
        if not (self._tells and body.get("return_token_ids")):
            return super()._good(reply, body)
        output = [*toy_tokens.encode(reply.text or ""), *([toy_tokens.END] if reply.finish_reason == "stop" else [])]
        logprobs = toy_tokens.logprobs(len(output))
        choice = {"index": 0, "finish_reason": reply.finish_reason, "token_ids": output}
        if "prompt" in body:
            assert body["logprobs"] == 0
            choice |= {"text": reply.text, "logprobs": {"token_logprobs": logprobs}, "prompt_token_ids": body["prompt"]}
            return completion(choice | reply.extra)
        assert body["logprobs"] is True
        thinking = body.get("chat_template_kwargs", {}).get("enable_thinking") if self._switch else None
        choice |= {"message": {"role": "assistant", "content": reply.text}}
        choice |= {"logprobs": {"content": [{"logprob": p} for p in logprobs]}}
        return completion(choice | reply.extra, prompt_token_ids=toy_tokens.prompt(body["messages"], thinking))

"""A real HTTP server for tests that speaks SGLang's native protocol, faults included.

Its good answers have the tokens of a toy tokenizer (tests/toy_tokens.py). Requests are held against the facts of SGLang 0.5.23: the
names and types below, an id that is no other request's, no unknown sampling option. Where the `sglang` distribution is installed
(`pip install --no-deps sglang msgspec` is enough), requests and answers must also pass the types of its own HTTP contract.
`switch=False`: the model's chat template knows no thinking. `writes=False`: a gateway that cannot write prompts. `deaf=True`: an
abort is never answered. `limits`: whether it ends thoughts at their budget; False: it was started without
`--enable-strict-thinking`, and refuses budgets; None: it is older than they are, and ignores them.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from tests import toy_tokens
from tests.chat_server import START_S, ChatRequest, ChatServer, Reply, Script

FIELDS = {"rid": str, "input_ids": list, "sampling_params": dict, "return_logprob": bool}
LIMIT = {"require_reasoning": bool, "max_thinking_tokens": int}
"""Of thinking: both or neither, for without the first the server counts nothing."""
SAMPLING = {
    "max_new_tokens", "stop", "stop_token_ids", "stop_regex", "temperature", "top_p", "top_k", "min_p", "frequency_penalty",
    "presence_penalty", "repetition_penalty", "min_new_tokens", "n", "json_schema", "regex", "ebnf", "structural_tag",
    "ignore_eos", "skip_special_tokens", "spaces_between_special_tokens", "no_stop_trim", "stream_interval", "logit_bias",
    "sampling_seed", "custom_params",
}  # fmt: skip


@functools.cache
def real_types() -> ModuleType | None:
    """SGLang's own types of its HTTP contract, without importing the package around them; None where they cannot be had."""
    try:
        file = Path(str(distribution("sglang").locate_file("sglang/api/v1/api_types.py")))
    except PackageNotFoundError:
        return None
    if not file.exists() or importlib.util.find_spec("msgspec") is None:
        return None
    spec = importlib.util.spec_from_file_location("sglang_api_types", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fault(body: dict[str, Any]) -> str | None:
    """Why a server would refuse the request, None where it would not."""
    fields = FIELDS | LIMIT if body.keys() & LIMIT.keys() else FIELDS
    for name, kind in fields.items():
        if not isinstance(body.get(name), kind):
            return f"{name} must be a {kind.__name__}"
    if body.keys() - fields.keys():  # a server ignores them, so whoever sends them means something that will not happen
        return f"unknown field {min(body.keys() - fields.keys())}"
    if not body["input_ids"] or not all(type(token) is int for token in body["input_ids"]):
        return "input_ids must be a list of integers, and not empty"
    if unknown := body["sampling_params"].keys() - SAMPLING:
        return f"unknown field `{min(unknown)}`"
    if types := real_types():
        try:
            types.GenerateRequest.from_json_value(body)
        except types.JsonContractError as error:
            return str(error)
    return None


class GenerateRequest(ChatRequest):
    """What arrived at /generate."""

    @property
    def messages(self) -> list[dict[str, str]]:
        return toy_tokens.conversation(self.body["input_ids"])

    @property
    def thinking(self) -> bool | None:
        return toy_tokens.thinking(self.body["input_ids"])

    @property
    def thinking_budget(self) -> int | None:
        return self.body.get("max_thinking_tokens")


class SGLangServer(ChatServer):
    """`aborted` holds the ids that were aborted while the server worked on them. `Reply.extra` are fields of `meta_info`."""

    owned_by = "sglang"

    def __init__(
        self,
        script: Script = ("ok",),
        *,
        switch: bool = True,
        writes: bool = True,
        deaf: bool = False,
        limits: bool | None = True,
        **options: Any,
    ) -> None:
        super().__init__(script, **options)
        self.aborted: list[str] = []
        self._working: set[str] = set()
        self._switch, self._writes, self._deaf, self._limits = switch, writes, deaf, limits

    def _app(self) -> FastAPI:
        app = super()._app()
        app.add_api_route("/generate", self._generate, methods=["POST"])
        app.add_api_route("/abort_request", self._abort, methods=["POST"])
        app.add_api_route("/v1/tokenize", self._tokenize, methods=["POST"])
        return app

    async def _tokenize(self, request: Request) -> Response:
        body = json.loads(await request.body())
        if not self._writes:
            return JSONResponse({"error": {"message": "missing field `prompt`"}}, 400)
        thinking = body["chat_template_kwargs"].get("enable_thinking") if self._switch else None
        tokens = toy_tokens.prompt(body["messages"], thinking)
        return JSONResponse({"tokens": tokens, "count": len(tokens), "max_model_len": 4096})

    async def _generate(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.requests.append(GenerateRequest(body, dict(request.headers)))
        if refusal := self._check_key(request):
            return refusal
        why = fault(body)
        if "max_thinking_tokens" in body and self._limits is False:
            why = "max_thinking_tokens needs a server with strict thinking"
        if why:
            return JSONResponse({"error": {"message": why}}, 400)
        rid = body["rid"]
        if any(rid == earlier.body["rid"] for earlier in self.requests[:-1]):
            return JSONResponse({"error": {"message": f"Duplicate request ID detected: {rid}"}}, 400)
        self._working.add(rid)
        try:
            return await self._answer(self._next(self.requests[-1].messages), request, body)
        finally:
            self._working.discard(rid)

    async def _abort(self, request: Request) -> Response:
        rid = json.loads(await request.body())["rid"]
        if rid in self._working:
            self.aborted.append(rid)
        if self._deaf:
            await self._pause(START_S)
        return Response(status_code=200)

    def _good(self, reply: Reply, body: dict[str, Any]) -> Response:
        if self._limits and body.get("max_thinking_tokens") == 0:
            reply = replace(reply, text=f"</think>{reply.text}")
        document = generated(reply, body)
        if types := real_types():
            types.GenerateResponse.from_json_value(document)
        return Response(json.dumps(document), media_type="application/json")


def generated(reply: Reply, body: dict[str, Any]) -> dict[str, Any]:
    """A good answer. The token that ends a reply is sampled, and left out of its text."""
    output = [*toy_tokens.encode(reply.text or ""), *([toy_tokens.END] if reply.finish_reason == "stop" else [])]
    finish = {
        "stop": {"type": "stop", "matched": toy_tokens.END},
        "length": {"type": "length", "length": len(output)},
        "abort": {"type": "abort", "message": "Abort in waiting queue", "status_code": None, "err_type": None},
    }[reply.finish_reason or "stop"]
    meta = {
        "id": body["rid"],
        "finish_reason": finish,
        "prompt_tokens": len(body["input_ids"]),
        "completion_tokens": len(output),
        "cached_tokens": 0,
        "weight_version": "default",
        "output_token_logprobs": [[p, token, None] for p, token in zip(toy_tokens.logprobs(len(output)), output, strict=True)],
        "input_token_logprobs": [],
        **reply.extra,
    }
    return {"text": reply.text or "", "output_ids": output, "meta_info": meta}

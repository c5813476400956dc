"""`auto/MODEL`: whichever back end fits the server that answers. A scheme that is named comes before any detection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kernel_env.schema import Generation
from rollout.policies.base import Capabilities, Endpoint, GenerationRequest, Policy, Spent
from rollout.policies.openai import OpenAIPolicy
from rollout.policies.sglang import SGLangPolicy
from rollout.policies.vllm import VLLMPolicy

ROUTES: Mapping[str, type[SGLangPolicy] | type[VLLMPolicy]] = {"sglang": SGLangPolicy, "vllm": VLLMPolicy}
"""By the owner that servers give the models of their list. Everything else speaks OpenAI's protocol."""


class DetectedPolicy:
    """Asks the endpoint's list of models what serves them, once, when it is used first."""

    def __init__(self, model: str, endpoint: Endpoint | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self.name = f"auto/{model}"
        self._model, self._endpoint, self._now = model, endpoint, now
        self._plain = OpenAIPolicy(model, endpoint, now=now)
        self._found: Policy | None = None
        self._finding = asyncio.Lock()

    @property
    def capabilities(self) -> Capabilities:
        """Until the server is known, what all of them have."""
        return (self._found or self._plain).capabilities

    @property
    def spent(self) -> Spent:
        if self._found is None or self._found is self._plain:
            return self._plain.spent
        return self._plain.spent.plus(self._found.spent)

    def covers(self, episode: str) -> bool:
        return True

    async def preflight(self) -> None:
        await (await self._policy()).preflight()

    async def generate(self, request: GenerationRequest) -> Generation:
        return await (await self._policy()).generate(request)

    async def aclose(self) -> None:
        await self._plain.aclose()
        if self._found is not None:
            await self._found.aclose()

    async def _policy(self) -> Policy:
        """Raises PolicyError while nobody answers, and looks again the next time."""
        async with self._finding:
            if self._found is None:
                route = ROUTES.get(owner(await self._plain.listed() or ()))
                self._found = self._plain if route is None else route(self._model, self._endpoint, now=self._now)
        return self._found


def owner(listed: Sequence[Mapping[str, Any]]) -> str:
    """Who owns the models of a list, empty where nobody is named."""
    return next((name for entry in listed if isinstance(name := entry.get("owned_by"), str)), "")

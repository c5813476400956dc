"""A model's own chat template: conversations as tokens, where no server does that."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from kernel_env.errors import ConfigError
from kernel_env.schema import Message


class ChatTemplate:
    """The template of a tokenizer, by directory or by name on the hub. It is loaded at the first use, off the event loop."""

    def __init__(self, tokenizer: str) -> None:
        self._name = tokenizer
        self._tokenizer: Any = None
        self._one_at_a_time = asyncio.Lock()
        """Fast tokenizers refuse to be used by two threads at once."""

    async def prompt(self, messages: Sequence[Message], options: Mapping[str, object]) -> tuple[int, ...]:
        """The tokens up to where the reply begins. `options` are variables of the template. Raises ConfigError."""
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._prompt, messages, options)

    def _prompt(self, messages: Sequence[Message], options: Mapping[str, object]) -> tuple[int, ...]:
        if self._tokenizer is None:
            self._tokenizer = _load(self._name)
        try:
            text = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True, **options
            )
        except Exception as error:  # a template raises what its author likes
            raise ConfigError(f"policy.tokenizer={self._name}: its chat template refuses the messages: {error}") from error
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))


def _load(name: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ConfigError(f"policy.tokenizer={name} needs transformers: pip install 'kernel-env[sglang]'") from error
    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(f"policy.tokenizer={name} cannot be loaded: {' '.join(str(error).split())[:200]}") from error

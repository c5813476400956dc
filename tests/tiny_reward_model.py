"""Tiny reward models with random weights, made on the spot: a decoder with a chat template, and an encoder without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.tiny_model import TEMPLATE, tokenizer_of


def tiny_reward_model(directory: Path, *, context: int = 8192, template: str | None = TEMPLATE, **changed: Any) -> Path:
    """As those that are trained from preferences: Qwen3 with a score head. `changed`: other fields of its configuration."""
    from transformers import Qwen3Config, Qwen3ForSequenceClassification

    tokenizer = tokenizer_of(template)
    options = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": context, "initializer_range": 0.4, "num_labels": 1,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
    }  # fmt: skip
    return _saved(directory, tokenizer, Qwen3ForSequenceClassification, Qwen3Config(**(options | changed)))


def tiny_encoder(directory: Path) -> Path:
    """Bert, which looks at its first token and reads 512 at most."""
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = tokenizer_of(None)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=512, initializer_range=0.4, num_labels=1, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return _saved(directory, tokenizer, BertForSequenceClassification, config)


def _saved(directory: Path, tokenizer: Any, kind: Any, config: Any) -> Path:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = kind(config)
    tokenizer.save_pretrained(directory)
    model.save_pretrained(directory)
    return directory

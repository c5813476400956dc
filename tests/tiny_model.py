"""A tiny Qwen3 with random weights, a byte-level tokenizer and a chat template of Qwen3's behaviour, made on the spot in a second.

    model = tiny_model(tmp_path / "tiny")                      # a directory as the hub has them
    AutoModelForCausalLM.from_pretrained(model)                # or: transformers serve DIRECTORY

It writes nonsense, but as its big siblings do: with their special tokens, their thinking, their end of a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEMPLATE = """
{%- set last = namespace(question=-1) -%}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}{%- set last.question = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
  {%- set parts = message.content.split('</think>') -%}
  {%- set answer = parts[-1].lstrip('\\n') if parts | length > 1 else message.content -%}
  {{- '<|im_start|>' + message.role + '\\n' -}}
  {%- if message.role == 'assistant' and loop.index0 > last.question and parts | length > 1 -%}
    {{- '<think>\\n' + parts[0].split('<think>')[-1].strip('\\n') + '\\n</think>\\n\\n' -}}
  {%- endif -%}
  {{- (answer if message.role == 'assistant' else message.content) + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
  {%- if enable_thinking is defined and not enable_thinking -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}
"""
"""What an assistant thought is shown in its latest message only, so a longer conversation does not begin like a shorter one.
Without thinking the prompt already holds an empty thought."""
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
THINKING = ("<think>", "</think>")
"""Tokens of their own, but part of the text."""
TEXT = """
import torch
import torch.nn as nn


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.relu(x) * self.scale
"""
"""What the tokenizer learns its longer tokens from: so one text has several spellings, as in any real vocabulary."""


def tiny_model(directory: Path, *, ends: Sequence[int] = (), context: int = 32768, template: str | None = TEMPLATE) -> Path:
    """`ends`: further tokens that end a reply. Two directories of the same arguments hold the same model."""
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    tokenizer = tokenizer_of(template)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=context, initializer_range=0.4, tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id, *ends], pad_token_id=tokenizer.pad_token_id
    )
    tokenizer.save_pretrained(directory)
    model.save_pretrained(directory)
    return directory


def tokenizer_of(template: str | None) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=_spelling(), eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=template
    )


def _spelling() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    spelling = Tokenizer(models.BPE())
    spelling.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    spelling.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    spelling.train_from_iterator([TEXT], trainer)
    spelling.add_special_tokens(list(SPECIAL))
    spelling.add_tokens([AddedToken(token, normalized=False) for token in THINKING])
    return spelling

"""A reward model of Hugging Face transformers in this process: a sequence classifier with one output, asked for many texts at once.

Importing this module imports torch and transformers (the extra `transformers`). Nothing here is safe for more than one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kernel_env.errors import ConfigError, PolicyError
from kernel_env.hub import find_model, one_line


class RewardModel:
    """Weights, tokenizer and chat template of a directory or of a name on the hub, on the GPUs where there are any.

    Raises what `find_model` raises, ConfigError where the model is no reward model, and PolicyError where it cannot be loaded.
    """

    def __init__(self, name: str) -> None:
        find_model(name, "model=")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(name)
            self._model, report = AutoModelForSequenceClassification.from_pretrained(
                name, dtype="auto", device_map="auto", output_loading_info=True
            )
        except ImportError:
            raise
        except Exception as error:  # of whatever reads its files: each library has classes of its own
            raise PolicyError(f"model {name} cannot be loaded: {one_line(error)}; check its files and model=") from error
        added = [word for word in self._tokenizer.get_added_vocab() if not word.strip().isidentifier() and word.strip(" ▁\n\t")]
        self._whole = sorted({*self._tokenizer.all_special_tokens, *added}, key=len, reverse=True)
        """Tokens of its turns and the like, whether it calls them special or not; words and blanks may be whole as well."""
        config = self._model.config.get_text_config()
        if report["missing_keys"] or self._model.config.num_labels != 1:
            raise ConfigError(
                f"model {name} is no reward model: it {_lacks(report['missing_keys'], self._model.config.num_labels)}; "
                "choose another one, or serve it and use judge=llm"
            )
        if config.pad_token_id is None:
            config.pad_token_id = self._tokenizer.pad_token_id
        if config.pad_token_id is None:
            raise ConfigError(f"model {name} has no padding token, which batches need: set pad_token_id in its config.json")
        self._padding: int = config.pad_token_id
        self._regression = self._model.config.problem_type == "regression"
        limits = (getattr(config, "max_position_embeddings", None), self._tokenizer.model_max_length)
        self.room: int = min(limit for limit in limits if limit is not None)
        """Most tokens of a text."""
        self.revision = _revision(name, self._model.config)
        """Changes with the weights."""

    def encoded(self, question: str, answer: str) -> list[int]:
        """The tokens of an exchange. What the tokenizer never splits is no such token in the two texts: they are only read."""
        question, answer = map(self._plain, (question, answer))
        if self._tokenizer.chat_template:
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            return list(self._tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"])
        return list(self._tokenizer(f"Question: {question}\nGenerated Answer: {answer}", verbose=False)["input_ids"])

    def scores(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """One score from 0 to 1 a row of tokens, from one pass over all of them; not a number where the model's output is none.

        The model's output is the score itself where it was trained for regression, and else its logistic function: the
        probability that the answer is preferred over one that is worth 0.
        """
        width = max(map(len, rows))
        ids = [[*row, *[self._padding] * (width - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (width - len(row)) for row in rows]
        device = self._model.device
        with torch.inference_mode():
            found = self._model(input_ids=torch.tensor(ids, device=device), attention_mask=torch.tensor(mask, device=device))
        outputs = found.logits[:, 0].double()
        return list((outputs.clamp(0, 1) if self._regression else outputs.sigmoid()).tolist())

    def _plain(self, text: str) -> str:
        for token in self._whole:
            text = text.replace(token, f"{token[:1]}·{token[1:]}")
        return text


def _lacks(missing: Sequence[str], outputs: int) -> str:
    if missing:
        return f"has no weights for {', '.join(sorted(missing)[:3])}"
    return f"has {outputs} outputs, not one"


def _revision(name: str, config: Any) -> str:
    """The hub's commit; of a directory names, sizes and times of its files."""
    if not Path(name).is_dir():
        return str(config._commit_hash)
    files = sorted(path for path in Path(name).iterdir() if path.is_file())
    return " ".join(f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)

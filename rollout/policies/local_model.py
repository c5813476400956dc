"""A model of Hugging Face transformers in this process: it answers batches of requests, each with sampling options of its own.

Importing this module imports torch and transformers (the extra `transformers`). transformers runs the model, so that padding,
positions and caches are right for every architecture; which token comes next is decided here, row by row. Nothing here is safe
for more than one thread.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from jinja2 import TemplateError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from kernel_env.errors import BadReply, ConfigError, PolicyError
from kernel_env.hub import find_model, one_line
from kernel_env.schema import Generation, Usage
from rollout.policies.base import GenerationRequest

PADDING = 0
"""Any token will do: the attention mask hides it."""


@dataclass(frozen=True, eq=False)
class Row:
    """One request of a batch, and its reply as far as it is drawn."""

    prompt_ids: tuple[int, ...]
    limit: int
    """Tokens that the reply may have."""
    temperature: float
    top_p: float
    numbers: random.Random
    """One number in [0, 1) a token."""
    reply: Future[Generation]
    """Who waits for it. Once it is done, by an answer or because nobody waits any more, nothing further is drawn."""
    output_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


class LocalModel:
    """Weights and a tokenizer with its chat template, which may be another's: a trainer's, between two of its steps.

    Where a request leaves temperature or top_p out, those of the model's `generation_config.json` stand; its end tokens always
    do. Its `top_k` and its penalties are not applied.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, now: Callable[[], float], *, tempered: bool = False) -> None:
        """`tempered`: log-probabilities are those of the logits over the temperature, as trainers compute them again; else those of
        the model itself."""
        self._model, self._tokenizer, self._name, self._now, self._tempered = model, tokenizer, name, now, tempered
        defaults, config = model.generation_config, model.config.get_text_config()
        self._temperature = (1.0 if defaults.temperature is None else defaults.temperature) if defaults.do_sample else 0.0
        self._top_p = 1.0 if defaults.top_p is None else defaults.top_p
        ends = defaults.eos_token_id if isinstance(defaults.eos_token_id, list) else [defaults.eos_token_id]
        self._ends = {*ends, tokenizer.eos_token_id} - {None}
        self._vocabulary = config.vocab_size
        self._context = getattr(config, "max_position_embeddings", None) or math.inf
        question = [{"role": "user", "content": "?"}]
        self.can_choose = bool(tokenizer.chat_template) and self._encoded(question, True) != self._encoded(question, False)

    def row(self, request: GenerationRequest, reply: Future[Generation]) -> Row:
        """Raises PolicyError for a conversation that cannot be answered, ConfigError for a wish that the template does not know."""
        ids = request.prompt_ids if request.prompt_ids is not None else self._prompt(request)
        if not ids or not all(0 <= token < self._vocabulary for token in ids):
            raise PolicyError(f"model {self._name}: the prompt's tokens are not from its vocabulary of {self._vocabulary}")
        room = self._context - len(ids)
        if room < 1:
            raise PolicyError(
                f"model {self._name}: a conversation of {len(ids)} tokens fills its context of {self._context}; "
                "lower rollout.max_turns or sampling.max_tokens, or choose another rollout.history"
            )
        wish = request.sampling
        limit = min(room, math.inf if wish.max_tokens is None else wish.max_tokens)
        if limit == math.inf:
            raise ConfigError(f"model {self._name} says nothing of its context: set sampling.max_tokens")
        return Row(
            prompt_ids=tuple(ids),
            limit=int(limit),
            temperature=self._temperature if wish.temperature is None else wish.temperature,
            top_p=self._top_p if wish.top_p is None else wish.top_p,
            numbers=random.Random(None if wish.seed is None else f"{wish.seed} {request.episode} {request.turn}"),
            reply=reply,
        )

    def answer(self, rows: Sequence[Row]) -> None:
        """Draw until every row's reply is done. Each gets its answer when it has ended, before the others have."""
        started = self._now()
        width = max(len(row.prompt_ids) for row in rows)
        padding = [width - len(row.prompt_ids) for row in rows]
        ids = [[PADDING] * n + list(row.prompt_ids) for n, row in zip(padding, rows, strict=True)]
        mask = [[0] * n + [1] * len(row.prompt_ids) for n, row in zip(padding, rows, strict=True)]

        def choose(_: Any, logits: torch.Tensor) -> torch.Tensor:
            """All that transformers is left to choose from is the token that was drawn for each row."""
            tokens = drawn(logits, rows)
            logprobs = (logits / _temperatures(logits, rows) if self._tempered else logits).log_softmax(-1).gather(-1, tokens)
            for row, token, logprob in zip(rows, tokens[:, 0].tolist(), logprobs[:, 0].tolist(), strict=True):
                if not row.reply.done():
                    self._append(row, token, logprob, started)
            return torch.full_like(logits, -math.inf).scatter(-1, tokens, 0.0)

        def ended(sequences: torch.Tensor, _: Any) -> torch.Tensor:
            return torch.tensor([row.reply.done() for row in rows], device=sequences.device)

        with torch.no_grad(), self._plain():  # what inference_mode makes, a trainer could not go on with
            self._model.generate(
                input_ids=torch.tensor(ids, device=self._model.device),
                attention_mask=torch.tensor(mask, device=self._model.device),
                generation_config=GenerationConfig(max_new_tokens=max(row.limit for row in rows), do_sample=False),
                logits_processor=LogitsProcessorList([choose]),
                stopping_criteria=StoppingCriteriaList([ended]),
            )

    @contextmanager
    def _plain(self) -> Iterator[None]:
        """Meanwhile nothing of the model's own configuration changes the logits before they are seen here."""
        own, self._model.generation_config = self._model.generation_config, GenerationConfig()
        try:
            yield
        finally:
            self._model.generation_config = own

    # ------------------------------------------------------------------ one row

    def _prompt(self, request: GenerationRequest) -> Sequence[int]:
        if not self._tokenizer.chat_template:
            raise ConfigError(f"model {self._name} has no chat template: set policy.model to one that was trained to chat")
        if request.thinking is not None and not self.can_choose:
            raise ConfigError(f"model {self._name} cannot be told whether to think: its template does not know enable_thinking")
        try:
            return self._encoded([dict(message) for message in request.messages], request.thinking)
        except TemplateError as error:
            raise PolicyError(f"model {self._name}: its chat template refuses the conversation: {one_line(error)}") from error

    def _encoded(self, messages: list[dict[str, str]], thinking: bool | None) -> list[int]:
        wish = {} if thinking is None else {"enable_thinking": thinking}
        encoded = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, **wish)
        return list(encoded["input_ids"])

    def _append(self, row: Row, token: int, logprob: float, started: float) -> None:
        row.output_ids.append(token)
        row.logprobs.append(logprob)
        with suppress(InvalidStateError):  # cancelled this very moment
            if not math.isfinite(logprob):
                row.reply.set_exception(
                    BadReply(f"model {self._name}: its logits are not numbers; check its weights and their precision")
                )
            elif token in self._ends or len(row.output_ids) == row.limit:
                row.reply.set_result(self._generation(row, self._now() - started))

    def _generation(self, row: Row, duration_s: float) -> Generation:
        ended = row.output_ids[-1] in self._ends
        shown = row.output_ids[:-1] if ended else row.output_ids
        return Generation(
            text=self._tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False),
            finish_reason="stop" if ended else "length",
            usage=Usage(len(row.prompt_ids), len(row.output_ids)),
            model=self._name,
            duration_s=duration_s,
            output_ids=tuple(row.output_ids),
            output_logprobs=tuple(row.logprobs),
            prompt_ids=row.prompt_ids,
        )


def load_model(name: str, now: Callable[[], float]) -> LocalModel:
    """The model of a directory or of a name on the hub, on the GPUs where there are any.

    Raises ModelNotFound, AuthenticationFailed or EndpointUnreachable where there is no such model, and PolicyError where it cannot
    be loaded.
    """
    find_model(name, "policy.model")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
        return LocalModel(AutoModelForCausalLM.from_pretrained(name, dtype="auto", device_map="auto"), tokenizer, name, now)
    except ImportError:
        raise
    except Exception as error:  # of whatever reads its files: each library has classes of its own
        raise PolicyError(f"model {name} cannot be loaded: {one_line(error)}; check its files and policy.model") from error


def drawn(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """One token a row ([B, 1]) from `logits` ([B, V]): tempered, cut to the likeliest `top_p`, and where the row's number falls.

    Temperature 0 is the number 0, which falls on the likeliest token.
    """
    number = _column([0.0 if row.temperature == 0 else row.numbers.random() for row in rows], logits)
    top_p = _column([row.top_p for row in rows], logits)
    shares, order = (logits / _temperatures(logits, rows)).softmax(-1).sort(stable=True, descending=True)
    reached = shares.cumsum(-1)
    last = (reached - shares < top_p).sum(-1, keepdim=True) - 1
    last = last.clamp(min=0)  # logits that are not numbers keep none, and their log-probability says so
    at = torch.searchsorted(reached, number * reached.gather(-1, last), right=True)
    return order.gather(-1, torch.minimum(at, last))


def _temperatures(logits: torch.Tensor, rows: Sequence[Row]) -> torch.Tensor:
    """[B, 1]; 1 in the place of 0."""
    return _column([row.temperature or 1.0 for row in rows], logits)


def _column(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)[:, None]

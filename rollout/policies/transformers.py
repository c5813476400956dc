"""A model of Hugging Face transformers in this process: for small models, for debugging, and to check served ones against.

All requests that wait when the model is free form a batch; those that come meanwhile form the next. A thread does the work, so
the event loop never waits for it. Its token ids and log-probabilities are the very ones that were drawn.

`output_logprobs` are those of the model itself, the logarithm of the softmax over its raw logits, whatever temperature and top_p
the token was drawn with. Reasoning stays in `text`, with its tags, as does every other token but the one that ended the reply.
The same request with the same seed gets the same reply, whoever it shares a batch with, as far as the hardware's arithmetic is
the same for batches of any size.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from kernel_env.errors import ConfigError, KernelEnvError, PolicyError
from kernel_env.schema import Generation
from rollout.policies.base import Capabilities, Endpoint, GenerationRequest, Spent, refuse_thinking

if TYPE_CHECKING:
    from rollout.policies.local_model import LocalModel, Row

ERROR_CHARS = 300


class TransformersPolicy:
    """`model` is a directory or a name on the hub. It is loaded by `preflight`, or else by the first request; `load` loads what
    is not to be found by name.

    Of `endpoint` nothing applies; raises `ConfigError` where it has fields for a server's requests.
    """

    def __init__(
        self,
        model: str,
        endpoint: Endpoint | None = None,
        *,
        now: Callable[[], float] = time.monotonic,
        load: Callable[[], LocalModel] | None = None,
    ) -> None:
        if endpoint is not None and endpoint.extra_body:
            raise ConfigError("policy.extra_body is for servers: policy=transformers knows the options of `sampling` only")
        self.name = f"transformers/{model}"
        self.capabilities = Capabilities(token_ids=True, logprobs=True, thinking=True)
        self.spent = Spent()
        self._path, self._now, self._loader = model, now, load
        self._model: LocalModel | None = None
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="transformers")
        self._waiting: deque[tuple[GenerationRequest, Future[Generation]]] = deque()
        self._replies: set[Future[Generation]] = set()

    def covers(self, episode: str) -> bool:
        return True

    async def preflight(self) -> None:
        """Load the model. Raises `ConfigError` without the extra, and what `LocalModel` raises."""
        await asyncio.wrap_future(self._worker.submit(self._load))

    async def generate(self, request: GenerationRequest) -> Generation:
        """`duration_s` is counted from the start of the request's batch. Cancelled, its row of the batch ends."""
        refuse_thinking(self, request)
        reply: Future[Generation] = Future()
        self._replies.add(reply)
        self._waiting.append((request, reply))
        try:
            await asyncio.sleep(0)  # who asks in the same round of the event loop shares the batch
            self._worker.submit(self._answer_waiting)
            generation = await asyncio.wrap_future(reply)
            usage = generation.usage
            self.spent = self.spent.plus(Spent(1, 0, usage.prompt_tokens, usage.completion_tokens))
            return generation
        except (KernelEnvError, asyncio.CancelledError) as error:
            kind = error.kind if isinstance(error, KernelEnvError) else "cancelled"
            self.spent = self.spent.plus(Spent(1, failures={kind: 1}))
            raise
        finally:
            reply.cancel()  # does nothing to one that is done
            self._replies.discard(reply)

    async def aclose(self) -> None:
        """End what is being generated, and let go of the model."""
        for reply in self._replies:
            reply.cancel()
        await asyncio.to_thread(self._worker.shutdown)
        self._model = None

    # ------------------------------------------------------------------ in the worker's thread

    def _load(self) -> LocalModel:
        if self._model is None:
            try:
                from rollout.policies.local_model import load_model

                self._model = self._loader() if self._loader is not None else load_model(self._path, self._now)
                self.capabilities = replace(self.capabilities, thinking=self._model.can_choose)
            except ImportError as error:
                raise ConfigError(
                    f"policy=transformers needs more Python packages ({error}): run `pip install 'kernel-env[transformers]'`"
                ) from error
        return self._model

    def _answer_waiting(self) -> None:
        """One batch of all that wait: of none, where the batch before took them along."""
        batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
        rows: list[Row] = []
        with self._telling([reply for _, reply in batch]):
            for request, reply in batch:
                with self._telling([reply]):
                    if not reply.done():
                        rows.append(self._load().row(request, reply))
            if rows:
                self._load().answer(rows)

    @contextmanager
    def _telling(self, replies: Sequence[Future[Generation]]) -> Iterator[None]:
        """Whoever waits for these hears of an error: a thread has nobody else to tell."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - raised again where the reply is waited for
            told = error
            if not isinstance(error, KernelEnvError):  # of torch, most likely for want of memory
                said = " ".join(str(error).split())[:ERROR_CHARS]
                told = PolicyError(
                    f"{self.name} failed on a batch ({type(error).__name__}: {said}); "
                    "where memory ran out lower rollout.concurrency or sampling.max_tokens"
                )
                told.__cause__ = error
            for reply in replies:
                with suppress(InvalidStateError):  # it has its answer, or nobody waits any more
                    reply.set_exception(told)

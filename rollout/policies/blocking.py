"""A synchronous face for any policy: the same requests go through the same code, so no switch can be lost on the way."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from kernel_env.errors import PolicyError
from kernel_env.schema import Generation
from rollout.policies.base import Capabilities, GenerationRequest, Policy, Spent

T = TypeVar("T")


class BlockingPolicy:
    """Runs a policy on an event loop in a thread of its own; any number of threads may use it at once. Close it, or use it in a
    `with` block."""

    def __init__(self, make: Callable[[], Policy]) -> None:
        """`make` is called in the loop's thread, and what it raises is raised here."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kernel-env-policy", daemon=True)
        self._thread.start()
        self._closing = contextlib.ExitStack()
        self._closing.callback(self._stop)
        try:
            self.policy = self._run(_called(make))
            self._closing.callback(lambda: self._run(self.policy.aclose()))
        except BaseException:  # there is no object yet that anybody could close
            self._closing.close()
            raise

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def capabilities(self) -> Capabilities:
        return self.policy.capabilities

    @property
    def spent(self) -> Spent:
        return self.policy.spent

    def preflight(self) -> None:
        self._run(self.policy.preflight())

    def generate(self, request: GenerationRequest) -> Generation:
        return self._run(self.policy.generate(request))

    def covers(self, episode: str) -> bool:
        return self.policy.covers(episode)

    def close(self) -> None:
        """Ends what is still under way. Idempotent."""
        self._closing.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Interrupting the wait cancels the work."""
        if self._loop.is_closed():
            work.close()
            raise PolicyError("this policy is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise PolicyError("this policy was closed before its reply was there") from None
        except BaseException:  # an interrupt too: nothing may go on there unasked
            future.cancel()
            raise

    def _stop(self) -> None:
        self._run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> BlockingPolicy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _called(make: Callable[[], Policy]) -> Policy:
    return make()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)

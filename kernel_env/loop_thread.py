"""An event loop in a thread of its own: how a synchronous face runs asynchronous code."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from kernel_env.errors import KernelEnvError

T = TypeVar("T")


class LoopThread:
    """Runs from construction to `close`. Any number of threads may use it at once."""

    def __init__(self, name: str, closed: Callable[[str], KernelEnvError]) -> None:
        """`closed` makes the error for work that comes after `close`, or was still under way then; it is told which."""
        self._closed = closed
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        self._closing = contextlib.ExitStack()
        self._closing.callback(self._stop)

    def make(self, make: Callable[[], T]) -> T:
        """What `make` makes in the loop's thread. Whatever it raises is raised here, and everything is closed."""

        async def called() -> T:
            return make()

        try:
            return self.run(called())
        except BaseException:  # there is no object yet that anybody could close
            self.close()
            raise

    def at_close(self, end: Callable[[], Awaitable[object]]) -> None:
        """Have this awaited before the loop ends; the last one comes first."""

        async def ended() -> None:
            await end()

        self._closing.callback(lambda: self.run(ended()))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine. Interrupting the wait cancels it there."""
        if self._loop.is_closed():
            work.close()
            raise self._closed("is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise self._closed("was closed before its reply was there") from None
        except BaseException:  # an interrupt too: nothing may go on there unasked
            future.cancel()
            raise

    def close(self) -> None:
        """Ends what is still under way. Idempotent."""
        self._closing.close()

    def _stop(self) -> None:
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _cancel_others() -> None:
    """Cancel every other task of this loop, and wait for their ends."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)

"""A judge's client on an event loop in a thread of its own, for callers in any thread and any loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from kernel_env.errors import JudgeBusy
from rewards.judge.client import JudgeClient

T = TypeVar("T")


class Background:
    """Runs from construction to `stop`, which lets everything under way come to its end."""

    def __init__(self, client: JudgeClient) -> None:
        self.client = client
        self._lock = threading.Lock()
        self._stopping = False
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="judge-reward", daemon=True)
        self._thread.start()
        self._ready.wait()

    @property
    def alive(self) -> bool:
        """False in a forked child: threads stay behind."""
        return self._thread.is_alive()

    @property
    def inside(self) -> bool:
        """Whether the caller is on this very loop, and so must not block it."""
        return threading.current_thread() is self._thread

    def start(self, work: Callable[[], Awaitable[T]]) -> Future[T]:
        """Cancelling the future cancels the work."""
        with self._lock:
            if not self._stopping:
                return asyncio.run_coroutine_threadsafe(self._tracked(work), self._loop)
        raise JudgeBusy("this judge's client is closed: make a new one")

    def stop(self) -> None:
        """Idempotent. Takes nothing new, sends what waits at once, and is back when the last request has ended."""
        with self._lock:
            if not self._stopping and self.alive:
                self._loop.call_soon_threadsafe(self._stop.set)
            self._stopping = True
        if not self.inside:
            self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._stop.wait()
        self.client.outbox.hurry()
        while self._tasks:  # all that `start` took before the stop are in here: callbacks run in order
            await asyncio.wait(set(self._tasks))
        await self.client.aclose()

    async def _tracked(self, work: Callable[[], Awaitable[T]]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            return await work()
        finally:
            self._tasks.discard(task)

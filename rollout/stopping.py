"""A scheduler's signals end a command in order: requests and verifications are given up, servers end, finished turns stay."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from kernel_env.errors import KernelEnvError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""To end; and, as SLURM is asked to say it, that the time is nearly up."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Stopped(KernelEnvError):
    """Nothing failed. The exit code is that of a process which the signal killed, as a shell counts it."""

    def __init__(self, by: signal.Signals) -> None:
        super().__init__(by)
        self.by, self.exit_code = by, 128 + by

    def __str__(self) -> str:
        return f"stopped by {self.by.name}; finished turns are kept, and the same command resumes"


def run_stoppable(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, and a signal cancels it. Raises Stopped once it has ended."""
    return asyncio.run(_stoppable(work))


async def _stoppable(work: Coroutine[Any, Any, T]) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    cancel, received = task.cancel, list[signal.Signals]()

    def stop(by: signal.Signals) -> None:
        if not received:  # said again, it does not interrupt the end
            cancel()
        received.append(by)

    for by in SIGNALS:
        loop.add_signal_handler(by, stop, by)
    try:
        return await work
    except asyncio.CancelledError:
        if received:
            raise Stopped(received[0]) from None
        raise
    except Exception as error:  # whatever it is, being stopped may have brought it about
        if received:  # on its way to the end, as a group where others were cancelled
            _log.warning("while it was being stopped: %r", error)
            raise Stopped(received[0]) from error
        raise
    finally:
        for by in SIGNALS:
            loop.remove_signal_handler(by)

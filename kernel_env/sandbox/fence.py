"""A fence around a trusted tool that reads what a candidate wrote: it opens no files but those that it needs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from types import TracebackType

from kernel_env.sandbox import landlock, libc
from kernel_env.sandbox.layers import DEVICES, SYSTEM

_LOADER = tuple(f"/etc/{name}" for name in ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"))


class Fence:
    """Reads and executes below `executable` and the system's directories, writes below `own`. Without Landlock it stands open.

    Made by the parent, entered by the child. A context manager: it holds a descriptor.
    """

    def __init__(self, executable: Iterable[str], own: str) -> None:
        self._rules: int | None = None
        with contextlib.suppress(OSError):  # no Landlock: `verifier.sandbox=strict` refuses such a machine
            self._rules = landlock.ruleset(_LOADER, DEVICES, (own,), (*SYSTEM, *executable))

    def enter(self) -> None:
        """For the child, between fork and exec. Raises OSError."""
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        if self._rules is not None:
            landlock.enter(self._rules)

    def __enter__(self) -> Fence:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._rules is not None:
            os.close(self._rules)
            self._rules = None

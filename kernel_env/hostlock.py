"""A lock for each of the processor's cores, shared by every process of this user on this machine.

Timing holds those of its slot exclusively; compilers hold those that they may run on shared. Without it a build on the same cores
makes an honest kernel read ten times too slow. The locks are file locks, so the kernel releases them when their holder dies. A
waiting timer keeps new builds from starting (they queue on a second file), so neither side starves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from kernel_env.errors import ConfigError


def default_directory() -> Path:
    return Path(tempfile.gettempdir()) / f"kernel-env-{os.getuid()}"


class CoresLock:
    """`exclusive()` while times are taken on these cores, `shared()` while something else keeps them busy. Both raise
    ConfigError."""

    def __init__(self, directory: Path | None = None, cores: Sequence[int] = ()) -> None:
        """Of all cores that this process may use, without `cores`."""
        self._directory = directory or default_directory()
        self._cores = sorted(cores or os.sched_getaffinity(0))
        self._held = False

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._locked(fcntl.LOCK_EX):
            yield

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Does nothing inside another hold of this object: a candidate may build while it is imported or timed."""
        if self._held:
            yield
        else:
            with self._locked(fcntl.LOCK_SH):
                yield

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._directory.stat().st_uid != os.getuid():  # /tmp is everyone's: links planted there would be opened by us
            raise ConfigError(f"{self._directory} belongs to another user: remove it, or set TMPDIR to a directory of your own")
        with contextlib.ExitStack() as held:
            for core in self._cores:  # always in the same order: so two never wait for each other
                with open(self._directory / f"queue-{core}.lock", "a") as queue:
                    fcntl.flock(queue, fcntl.LOCK_EX)
                    fcntl.flock(held.enter_context(open(self._directory / f"core-{core}.lock", "a")), how)
            self._held = True
            try:
                yield
            finally:
                self._held = False

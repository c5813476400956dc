"""Scratch directories that do not outlive their owners, however those end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kernel_env.hostlock import default_directory

_PREFIX = "kernel-env-scratch-"
_OWNER_LOCK = "owner.lock"


class Scratch:
    """A private directory in the system's directory for temporary files, for as long as this process lives.

    The owner holds a lock on a file in it, which the kernel gives back when the owner dies. Whoever makes the next scratch
    directory on this machine removes those that nobody holds.
    """

    def __init__(self) -> None:
        with _guard():
            _remove_abandoned()
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._lock: int | None = os.open(self.path / _OWNER_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Idempotent."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = None


@contextlib.contextmanager
def _guard() -> Iterator[None]:
    """One process at a time: nobody takes a directory for abandoned between its creation and its lock."""
    directory = default_directory()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(directory / "scratch.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_abandoned() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if not _held(path):
            shutil.rmtree(path, ignore_errors=True)


def _held(path: Path) -> bool:
    """Whether a living process holds the directory; also when it is another user's, and so not ours to judge."""
    try:
        lock = os.open(path / _OWNER_LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False

"""Scratch directories that do not outlive their owners, however those end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
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
            remove_tree(self.path)
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
            remove_tree(path)


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


def remove_tree(path: Path) -> None:
    """Remove a directory that a hostile program may have filled: however deep, and with what is closed to its owner. Follows no
    link. What cannot be removed stays; nothing is raised.

    `shutil.rmtree` needs a call and a descriptor a level, and a program makes thousands of levels in a moment. Here directories
    within directories are moved to the top, level by level.
    """
    with contextlib.suppress(OSError):
        os.rmdir(path)  # most are empty: a runner's files go with its mount namespace
    with contextlib.suppress(OSError), _opened(os.fspath(path)) as top:
        while [name for name in os.listdir(top) if _removed(name, top)]:
            pass
    with contextlib.suppress(OSError):
        os.rmdir(path)


def _removed(name: str, top: int) -> bool:
    """Remove a file, or a directory whose own directories then lie in `top`. Whether anything came of it."""
    try:
        if _is_file_and_gone(name, top):
            return True
        with _opened(name, top) as directory:
            for below in os.listdir(directory):
                if not _is_file_and_gone(below, directory):
                    with _opened(below, directory):  # so that we may write to it: moving changes its way up
                        os.rename(below, secrets.token_hex(16), src_dir_fd=directory, dst_dir_fd=top)
        os.rmdir(name, dir_fd=top)
    except OSError:
        return False
    return True


def _is_file_and_gone(name: str, directory: int) -> bool:
    """Remove a file or a link; False for a directory. Raises OSError."""
    try:
        os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        return False
    return True


@contextlib.contextmanager
def _opened(name: str, within: int | None = None) -> Iterator[int]:
    """A descriptor of a directory, which its owner may read and change from now on. Raises OSError."""
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    found = os.open(name, flags | os.O_PATH, dir_fd=within)
    try:
        os.chmod(f"/proc/self/fd/{found}", 0o700)
        opened = os.open(".", flags, dir_fd=found)
    finally:
        os.close(found)
    try:
        yield opened
    finally:
        os.close(opened)

"""Files that survive a kill - each is written whole or not at all - and the lock of a run directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from kernel_env.errors import ConfigError, InfraError

LOCK_NAME = ".lock"
_TEMP_SUFFIX = ".tmp"


def write_file(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replaces `path` by `data` in one step: a reader, and the next process after a kill, sees the old or the new bytes.

    `durable` also waits until the disk holds the file and its name; leave it out for files that can be computed again.
    Raises InfraError when the file system refuses (full, read-only).
    """
    temp = path.with_name(f".{path.name}{_TEMP_SUFFIX}")
    try:
        with temp.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temp, path)
        if durable:
            sync_directory(path.parent)
    except OSError as error:
        raise InfraError(f"cannot write {path}: {error.strerror}; mend that and run the same command again") from error


def append_file(path: Path, data: bytes) -> None:
    """Adds whole lines to `path`, and waits until the disk holds them. A kill may leave a part of them: a last line without an end
    is none. Raises InfraError when the file system refuses."""
    try:
        new = not path.exists()
        with path.open("ab", buffering=0) as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        if new:
            sync_directory(path.parent)
    except OSError as error:
        raise InfraError(f"cannot write {path}: {error.strerror}; mend that and run the same command again") from error


def remove_file(path: Path) -> None:
    """Removes `path` if it is there, durably."""
    if path.exists():
        path.unlink()
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Waits until the disk holds the names in `directory`."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(directory: Path, file: str = "*") -> None:
    """Removes what a killed `write_file` left of the files of `directory`. Only for the process that holds their lock."""
    for temp in directory.glob(f".{file}{_TEMP_SUFFIX}"):
        temp.unlink()


class DirectoryLock:
    """The right to write one directory, or one `file` of it, held until `release` or the end of this process, however it ends.

    The lock belongs to the open file: a process that was forked (without exec) from this one keeps it alive.
    Raises ConfigError when another process holds it, and when nothing can be written there.
    """

    def __init__(self, directory: Path, file: str = "") -> None:
        try:
            self._descriptor = os.open(directory / _lock_name(file), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(f"cannot write in {directory}: {error.strerror}; choose another place") from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise ConfigError(
                f"another process (pid {holder}) is writing {directory / file}: wait for it, or choose another name"
            ) from None
        except OSError as error:
            os.close(self._descriptor)
            raise ConfigError(f"{directory} cannot be locked: {error.strerror}; choose a place on another file system") from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Gives the lock back. The emptied file stays: removing it could take another process's lock away."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def _lock_name(file: str) -> str:
    return f".{file}.lock" if file else LOCK_NAME


def lock_holder(directory: Path, file: str = "") -> int | None:
    """The process of this machine that holds the lock of a directory, or of one file of it. Read from the kernel's list: whoever
    wants the lock meanwhile gets it."""
    try:
        lock = directory / _lock_name(file)
        inode, holder = lock.stat().st_ino, lock.read_text()
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    held = any(line[1] == "FLOCK" and line[4] == holder and line[5].endswith(f":{inode}") for line in locks)
    return int(holder) if held else None

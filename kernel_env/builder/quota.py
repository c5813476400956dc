"""Keeps a build cache within a size: what was not used for the longest time goes first."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

YOUNG_S = 3600.0
"""What was used within this time stays, so that nobody who has just been told its path finds it gone."""
EVERY_S = 600.0
"""A cache is looked through this often at most: in between it grows by what is built then."""
_ENTRIES = ("ext/*/*", "prelude/*")


@dataclass(frozen=True)
class Entry:
    path: Path
    used: float
    """When it was used last, in seconds since the epoch: the directory's time of change (see `touch`)."""
    size: int
    """Bytes that it takes on the disk."""


def touch(entry: Path) -> None:
    """Note that it is used now. One that is not there, or that another user made, is left alone."""
    with contextlib.suppress(OSError):
        os.utime(entry)


def entries(cache_dir: Path) -> list[Entry]:
    """All finished entries, the one that was not used for the longest time first."""
    found = []
    for path in (path for pattern in _ENTRIES for path in cache_dir.glob(pattern)):
        with contextlib.suppress(OSError):  # removed meanwhile
            size = sum(file.stat().st_blocks * 512 for file in (path, *path.iterdir()))
            found.append(Entry(path, path.stat().st_mtime, size))
    return sorted(found, key=lambda entry: entry.used)


def trim(cache_dir: Path, most_bytes: int, *, every_s: float = EVERY_S) -> list[Path]:
    """Remove old entries until the others fit, unless that was done lately or somebody is at it; returns what was removed."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    removed: list[Path] = []
    with open(cache_dir / "trimmed", "a") as stamp, contextlib.suppress(BlockingIOError):
        fcntl.flock(stamp, fcntl.LOCK_EX | fcntl.LOCK_NB)
        now, status = time.time(), os.fstat(stamp.fileno())
        if status.st_size and now - status.st_mtime < every_s:
            return removed
        stamp.truncate(0)
        stamp.write("when this cache was looked through\n")
        found = entries(cache_dir)
        total = sum(entry.size for entry in found)
        for entry in found:
            if total <= most_bytes or now - entry.used < YOUNG_S:
                break
            if _remove(entry, cache_dir / "tmp"):
                removed.append(entry.path)
                total -= entry.size
    return removed


def _remove(entry: Entry, aside: Path) -> bool:
    """Move it out of sight as a whole, then delete it. False where it is used, or removed, meanwhile."""
    with contextlib.suppress(OSError):
        aside.mkdir(exist_ok=True)
        gone = aside / f"old-{os.getpid()}-{entry.path.name}"
        if entry.path.stat().st_mtime == entry.used:
            entry.path.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            return True
    return False

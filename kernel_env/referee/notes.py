"""What was measured once and is kept in the cache, beside what is built. Candidates can read it, and never write it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class Notes:
    """Of one kind. A cache that cannot be read or written is none."""

    def __init__(self, cache_dir: Path, kind: str) -> None:
        self._home = cache_dir.absolute() / kind

    @staticmethod
    def key(*parts: object) -> str:
        """With torch's version."""
        return hashlib.sha256("/".join(map(str, (importlib.metadata.version("torch"), *parts))).encode()).hexdigest()

    def read(self, key: str, parsed: Callable[[Any], T]) -> T | None:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # absent, or not ours: measured anew
            return parsed(json.loads((self._home / f"{key}.json").read_text()))
        return None

    def write(self, key: str, found: Any) -> None:
        """Several workers may do so at once; each writes a file of its own first."""
        with contextlib.suppress(OSError):
            self._home.mkdir(parents=True, exist_ok=True)
            file, name = tempfile.mkstemp(dir=self._home)
            with os.fdopen(file, "w") as stream:
                json.dump(found, stream)
            os.replace(name, self._home / f"{key}.json")

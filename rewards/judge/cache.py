"""Scores that a judge gave before, by everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from pydantic import ValidationError

from kernel_env.errors import ConfigError
from rewards.judge.wire import JudgeRequest, JudgeResponse

LOG = logging.getLogger("JudgeReward")

BUSY_S = 1.0
"""How long another process may keep the file to itself."""
_TABLE = "CREATE TABLE IF NOT EXISTS scores (key TEXT PRIMARY KEY, response TEXT NOT NULL, stored_at REAL NOT NULL) WITHOUT ROWID"


def cache_key(judge: Sequence[str], request: JudgeRequest) -> str:
    """SHA-256 of who judges and of all that is asked, in hexadecimal.

    `judge` names model, rubric, prompt and sampling: whatever may change a score. JSON keeps the parts apart: no two requests are
    written alike, wherever one text ends and the next begins. The request's id says nothing about its score and is left out.
    """
    asked = request.model_dump(mode="json", exclude={"request_id"})
    return hashlib.sha256(json.dumps([*judge, asked], sort_keys=True, allow_nan=False).encode()).hexdigest()


class JudgeCache:
    """The `size` scores used last, in memory, and every score in a file where there is one. Any thread may use it.

    A file that cannot be opened is a ConfigError; one that fails later is a miss, and a warning.
    """

    def __init__(self, size: int, ttl_s: float, path: str | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._size, self._ttl_s, self._now = size, ttl_s, now
        self._kept: OrderedDict[str, tuple[JudgeResponse, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._file = None if path is None else self._opened(path)

    def get(self, key: str) -> JudgeResponse | None:
        with self._lock:
            found = self._kept.pop(key, None) or self._read(key)
            if found is None or not 0 <= self._now() - found[1] < self._ttl_s:
                return None
            self._keep(key, found)
            return found[0]

    def put(self, key: str, response: JudgeResponse) -> None:
        with self._lock:
            self._keep(key, (response, self._now()))
            self._write(key, response)

    def close(self) -> None:
        """Idempotent. Memory stays."""
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None

    def _keep(self, key: str, entry: tuple[JudgeResponse, float]) -> None:
        self._kept[key] = entry
        self._kept.move_to_end(key)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)

    # ------------------------------------------------------------------ file

    def _opened(self, path: str) -> sqlite3.Connection:
        file = None
        try:
            file = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            file.execute("PRAGMA journal_mode=WAL")  # readers and a writer do not wait for each other, ...
            file.execute("PRAGMA synchronous=NORMAL")  # ... and a score does not wait for the disk
            file.execute(_TABLE)
            file.execute("DELETE FROM scores WHERE stored_at <= ?", (self._now() - self._ttl_s,))
        except sqlite3.Error as error:
            if file is not None:
                file.close()
            raise ConfigError(f"judge.cache_path={path}: {error}; name another file") from None
        return file

    def _read(self, key: str) -> tuple[JudgeResponse, float] | None:
        if self._file is None:
            return None
        try:
            row = self._file.execute("SELECT response, stored_at FROM scores WHERE key = ?", (key,)).fetchone()
            return row and (JudgeResponse.model_validate_json(row[0]), row[1])
        except (sqlite3.Error, ValidationError) as error:
            LOG.warning("the judge's cache cannot be read: %s", error)
            return None

    def _write(self, key: str, response: JudgeResponse) -> None:
        if self._file is None:
            return
        try:
            self._file.execute("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", (key, response.model_dump_json(), self._now()))
        except sqlite3.Error as error:
            LOG.warning("the judge's cache cannot be written: %s", error)

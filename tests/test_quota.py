"""A build cache stays within its size, and what is in use stays in it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kernel_env.builder import Builder
from kernel_env.builder.quota import YOUNG_S, entries, touch, trim
from kernel_env.verifier import VerifierConfig
from tests.test_builder import TWICE

BYTES = 1 << 20


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Four extensions of 1 MiB and a prelude; the first is the oldest, all but the last are older than an hour."""
    for age, name in enumerate(["ext/aa/1", "ext/aa/2", "prelude/3", "ext/bb/4", "ext/bb/5"]):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_bytes(os.urandom(BYTES))
        used = time.time() - (5 - age) * YOUNG_S + 60
        os.utime(tmp_path / name, (used, used))
    return tmp_path


def names(cache: Path) -> list[str]:
    return [entry.path.name for entry in entries(cache)]


def test_what_was_not_used_for_the_longest_time_goes_first(cache: Path) -> None:
    assert [path.name for path in trim(cache, 3 * BYTES + BYTES // 2)] == ["1", "2"]
    assert names(cache) == ["3", "4", "5"]
    assert list((cache / "tmp").iterdir()) == []


def test_what_is_used_stays(cache: Path) -> None:
    touch(cache / "ext/aa/1")
    assert [path.name for path in trim(cache, 3 * BYTES + BYTES // 2)] == ["2", "3"]
    assert names(cache) == ["4", "5", "1"]


def test_nothing_young_goes_however_small_the_limit(cache: Path) -> None:
    trim(cache, 0)
    assert names(cache) == ["5"]


def test_a_cache_that_fits_is_left_alone(cache: Path) -> None:
    assert trim(cache, 6 * BYTES) == []
    assert names(cache) == ["1", "2", "3", "4", "5"]


def test_a_cache_is_not_looked_through_again_and_again(cache: Path) -> None:
    assert trim(cache, 6 * BYTES) == []
    assert trim(cache, 0) == [], "somebody just did"
    assert len(trim(cache, 0, every_s=0)) == 4


def test_a_build_trims_and_a_find_counts_as_use(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled(self: Builder, request: object, work: Path, *more: object) -> tuple[str, str]:
        return "compile", "no compiler was asked"

    monkeypatch.setattr(Builder, "_compile_and_link", compiled)
    builder = Builder(cache, most_bytes=BYTES)
    assert not builder.build(TWICE).cached
    made = entries(cache)[-1]
    assert names(cache) == ["5", made.path.name]
    os.utime(made.path, (0, 0))
    assert builder.build(TWICE).cached
    assert entries(cache)[-1].path == made.path


def test_without_a_limit_nothing_goes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Builder, "_compile_and_link", lambda *_: ("compile", ""))
    Builder(cache, most_bytes=VerifierConfig(cache_limit_mb=0).cache_bytes()).build(TWICE)
    assert len(names(cache)) == 6

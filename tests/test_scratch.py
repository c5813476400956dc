"""Removing what a hostile program has left in its scratch directory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_env.referee.scratch import remove_tree


def deep(levels: int) -> None:
    """Directories, one within the other, each with a file: deeper than any path may be long."""
    for _ in range(levels):
        os.mkdir("d")
        os.chdir("d")
        Path("file").touch()


def shut() -> None:
    os.makedirs("outer/inner/most")
    for path in ("outer/inner/most", "outer/inner", "outer"):
        os.chmod(path, 0)


def names() -> None:
    for i in range(200):
        os.mkdir(bytes([255 - i]) * 255 if 255 - i != ord("/") else b"slash")
    os.mkfifo("fifo")
    Path(".hidden").touch()


@pytest.mark.parametrize(
    "made", [lambda: None, lambda: deep(3 * sys.getrecursionlimit()), shut, names], ids=["nothing", "deep", "shut", "names"]
)
def test_whatever_is_in_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[], None]) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    monkeypatch.chdir(tree)  # and back, at the end
    made()
    before = os.listdir("/proc/self/fd")
    remove_tree(tree)
    assert not tree.exists()
    assert os.listdir("/proc/self/fd") == before


def test_links_are_not_followed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "below").mkdir(parents=True)
    (kept / "below/file").write_text("xyzzy")
    kept.chmod(0o750)
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    for place in (tree / "link", tree / "a/link", tree / "a/b/link"):
        place.symlink_to(kept)
    (tree / "a/file").symlink_to(kept / "below/file")
    remove_tree(tree)
    assert not tree.exists()
    assert (kept / "below/file").read_text() == "xyzzy" and kept.stat().st_mode & 0o777 == 0o750
    link = tmp_path / "link"
    link.symlink_to(kept)
    remove_tree(link)
    assert (kept / "below/file").exists()


def test_what_is_not_there_is_removed_already(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")
    (tmp_path / "file").touch()
    remove_tree(tmp_path / "file")
    assert (tmp_path / "file").exists()

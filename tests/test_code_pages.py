"""Generated code is moved to other physical pages, and stays what and where it is for the program."""

from __future__ import annotations

import ctypes
import mmap
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_env.referee import code_pages
from kernel_env.referee.code_pages import generated, move

needs_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86-64")
PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
RIGHTS = {"rwx": 7, "r-x": 5, "rw-": 3, "r--": 1}


class Mapping:
    """Some pages with a function at the start of each that returns the page's number."""

    def __init__(self, pages: int = 2, rights: str = "r-x", flags: int = PRIVATE) -> None:
        self.memory = mmap.mmap(-1, pages * mmap.PAGESIZE, flags=flags)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.size = pages * mmap.PAGESIZE
        for page in range(pages):
            start = page * mmap.PAGESIZE
            self.memory[start : start + 6] = b"\xb8" + page.to_bytes(4, "little") + b"\xc3"
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(self.address), ctypes.c_size_t(self.size), RIGHTS[rights]) == 0

    def answer(self, page: int) -> int:
        return int(ctypes.CFUNCTYPE(ctypes.c_int)(self.address + page * mmap.PAGESIZE)())

    def rights(self) -> str:
        for line in Path("/proc/self/maps").read_text().splitlines():
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            if start <= self.address < end:
                return line.split()[1]
        raise AssertionError("it is gone")

    def frames(self) -> list[int]:
        """Numbers of its physical pages; zeros for users who may not know."""
        with open("/proc/self/pagemap", "rb") as table:
            table.seek(self.address // mmap.PAGESIZE * 8)
            entries = table.read(self.size // mmap.PAGESIZE * 8)
        return [int.from_bytes(entries[i : i + 8], "little") & ((1 << 55) - 1) for i in range(0, len(entries), 8)]


@pytest.fixture
def mapping() -> Iterator[Mapping]:
    yield Mapping(8)


@needs_x86
def test_moved_code_runs_on_at_its_address(mapping: Mapping) -> None:
    before = mapping.frames()
    assert move(3) >= mapping.size
    assert [mapping.answer(page) for page in range(8)] == list(range(8))
    if any(before):
        assert not set(before) & set(mapping.frames())


@needs_x86
def test_it_can_be_moved_again_and_again(mapping: Mapping) -> None:
    seen = set[tuple[int, ...]]()
    for spare in range(20):
        move(spare)
        assert [mapping.answer(page) for page in range(8)] == list(range(8))
        seen.add(tuple(mapping.frames()))
    assert len(seen) > 10 or seen == {(0,) * 8}


@pytest.mark.parametrize("rights", ["rwx", "r-x"])
def test_what_may_be_done_with_it_stays(rights: str) -> None:
    mapping = Mapping(rights=rights)
    assert (mapping.address, mapping.size) in {(start, size) for start, size, _ in generated()} or rights == "r-x"
    move(3)
    assert mapping.rights() == rights + "p"
    if rights == "rwx":
        mapping.memory[1] = 7
        assert mapping.memory[1] == 7


@pytest.mark.parametrize(("rights", "flags"), [("rw-", PRIVATE), ("r--", PRIVATE), ("rwx", mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)])
def test_data_and_shared_memory_stay(rights: str, flags: int) -> None:
    mapping = Mapping(rights=rights, flags=flags)
    assert not any(start <= mapping.address < start + size for start, size, _ in generated())


def test_code_of_files_stays() -> None:
    files = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if len(line.split()) > 5]
    code = {int(words[0].split("-")[0], 16) for words in files if "x" in words[1]}
    assert code and not code & {start for start, _, _ in generated()}


def test_large_mappings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = Mapping(1, "rwx"), Mapping(32, "rwx")
    monkeypatch.setattr(code_pages, "generated", lambda: [(m.address, m.size, 7) for m in (large, small)])
    monkeypatch.setattr(code_pages, "MOST_BYTES", 4 * mmap.PAGESIZE)
    assert move(1) == mmap.PAGESIZE


@pytest.mark.parametrize("call", ["mmap", "mprotect", "mremap"])
@needs_x86
def test_where_it_cannot_be_moved_it_stays_and_nothing_is_left(
    mapping: Mapping, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def refuses(*_: object) -> int:
        ctypes.set_errno(12)
        return code_pages._FAILED if call == "mmap" else -1  # type: ignore[return-value]

    monkeypatch.setattr(code_pages, "generated", lambda: [(mapping.address, mapping.size, 5)])
    before = sorted(Path("/proc/self/maps").read_text().splitlines())
    monkeypatch.setattr(code_pages._libc, call, refuses)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        move(3)
    monkeypatch.undo()
    assert [mapping.answer(page) for page in range(8)] == list(range(8))
    after = sorted(Path("/proc/self/maps").read_text().splitlines())
    assert [line.split()[0] for line in before] == [line.split()[0] for line in after]


WHILE_IT_RUNS = """
import ctypes, mmap, sys, threading
from kernel_env.referee.code_pages import move
m = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
# count down from the argument, then return 42
m[:13] = bytes.fromhex("4883ef01 75fa b82a000000 c3 90".replace(" ", ""))
f = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(m)))
answers = []
thread = threading.Thread(target=lambda: answers.extend(f(1 << 28) for _ in range(4)))
thread.start()
moves = 0
while thread.is_alive():
    moves += move(3) > 0
thread.join()
print(answers, moves > 10)
"""


@needs_x86
def test_other_threads_may_run_it_meanwhile() -> None:
    run = subprocess.run([sys.executable, "-c", WHILE_IT_RUNS], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout) == (0, "[42, 42, 42, 42] True\n"), run.stderr

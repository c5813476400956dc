"""Reading another process's memory: whole, in pieces, never beside it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from kernel_env.referee import memory as module
from kernel_env.referee.memory import Samples, are_own, areas, code_files, is_readable, private_bytes, read_memory, read_runs
from tests.holder import Holder

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def guarded() -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """A page of this process's between two that may not be read: its address and bytes."""
    block = mmap.mmap(-1, 3 * PAGE)
    whole = np.frombuffer(block, np.uint8)
    start = whole.ctypes.data
    for page in (start, start + 2 * PAGE):
        assert _libc.mprotect(ctypes.c_void_p(page), PAGE, 0) == 0
    middle = whole[PAGE : 2 * PAGE]
    middle[:] = np.random.default_rng(1).integers(0, 256, PAGE)
    yield start + PAGE, middle
    for page in (start, start + 2 * PAGE):
        _libc.mprotect(ctypes.c_void_p(page), PAGE, mmap.PROT_READ | mmap.PROT_WRITE)


def read(pid: int, address: int, size: int) -> bytes:
    target = np.zeros(size, np.uint8)
    read_memory(pid, address, target)
    return target.tobytes()


def test_the_guard_pages_are_no_memory_to_read(guarded: tuple[int, npt.NDArray[np.uint8]]) -> None:
    address, data = guarded
    assert read(os.getpid(), address, PAGE) == data.tobytes()
    for beside in (address - 1, address + PAGE):
        with pytest.raises(OSError, match="Bad address"):
            read(os.getpid(), beside, 1)


@pytest.mark.parametrize("size", [0, 1, 4096, 100_001])
def test_memory_of_another_process_is_read_whole(holder: Holder, size: int) -> None:
    data = os.urandom(size)
    assert read(holder.pid, holder.hold(data), size) == data


@pytest.mark.parametrize("piece", [1, 7, 999, 1000, 1001, 3000])
def test_large_memory_is_read_in_pieces(holder: Holder, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    sizes, call = [], module._call

    def counted(pid: int, local: npt.NDArray[np.void], remote: npt.NDArray[np.void]) -> int:
        sizes.append(int(remote["length"][0]))
        return call(pid, local, remote)

    monkeypatch.setattr(module, "_PIECE", piece)
    monkeypatch.setattr(module, "_call", counted)
    data = os.urandom(1000)
    assert read(holder.pid, holder.hold(data), 1000) == data
    assert sum(sizes) == 1000 and max(sizes) <= piece and len(sizes) == -(-1000 // piece)


def test_a_piece_stays_below_what_the_kernel_refuses() -> None:
    assert module._PIECE < (1 << 31) - PAGE


@pytest.mark.parametrize("piece", [100, 1 << 30])
def test_memory_that_ends_too_soon_is_an_error(
    guarded: tuple[int, npt.NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(module, "_PIECE", piece)
    address, _ = guarded
    with pytest.raises(OSError):
        read(os.getpid(), address + PAGE - 250, 251)


@pytest.mark.parametrize("address", [0, 8, (1 << 63) - 1, (1 << 63) - 64, 1 << 47])
def test_an_address_of_nothing_is_an_error(holder: Holder, address: int) -> None:
    with pytest.raises(OSError):
        read(holder.pid, address, 64)
    with pytest.raises(OSError):
        Samples([64], np.random.default_rng(1)).read(holder.pid, [address])


def test_samples_that_can_be_read_in_part_only_are_an_error(guarded: tuple[int, npt.NDArray[np.uint8]]) -> None:
    address, _ = guarded
    for seed in range(5):
        with pytest.raises(OSError):
            Samples([64, 64], np.random.default_rng(seed)).read(os.getpid(), [address, address + PAGE])


def test_a_process_that_ended_is_an_error() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(ProcessLookupError):
        read(process.pid, 4096, 1)
    with pytest.raises(ProcessLookupError):
        Samples([64], np.random.default_rng(1)).read(process.pid, [4096])


def test_samples_are_words_of_the_regions(holder: Holder) -> None:
    """Every word that was read stands somewhere in one of them."""
    first, second = os.urandom(64), os.urandom(200)
    addresses = [holder.hold(first), holder.hold(second)]
    words = Samples([64, 200], np.random.default_rng(1)).read(holder.pid, addresses)
    found = [words[i : i + 8] for i in range(0, len(words), 8)]
    assert len(found) == 64
    assert all(word in first or word in second for word in found)
    assert any(word in first for word in found) and any(word in second for word in found)


def test_regions_are_sampled_by_their_size(holder: Holder) -> None:
    small, large = bytes(16), b"\x01" * 100_000
    words = Samples([16, 100_000], np.random.default_rng(1), 1000).read(holder.pid, [holder.hold(small), holder.hold(large)])
    assert words.count(b"\x01") > 7900


@pytest.mark.parametrize("size", [8, 9, 15, 16, 100, PAGE])
@pytest.mark.parametrize("at_end", [False, True])
def test_samples_stay_within_a_region(guarded: tuple[int, npt.NDArray[np.uint8]], size: int, at_end: bool) -> None:
    """One byte beyond either end cannot be read."""
    address, data = guarded
    start = PAGE - size if at_end else 0
    for seed in range(30):
        words = Samples([size], np.random.default_rng(seed), 200).read(os.getpid(), [address + start])
        assert words[:8] in data[start : start + size].tobytes()


@pytest.mark.parametrize("tiny", [[], [0], [7], [1, 0, 3, 7]])
def test_regions_below_a_word_are_not_read_at_all(tiny: list[int]) -> None:
    samples = Samples(tiny, np.random.default_rng(1))
    assert samples.read(os.getpid(), [0] * len(tiny)) == b""


def test_tiny_regions_beside_a_larger_one_are_left_out(guarded: tuple[int, npt.NDArray[np.uint8]]) -> None:
    address, data = guarded
    words = Samples([7, 8, 0, 4], np.random.default_rng(1), 500).read(os.getpid(), [0, address + PAGE - 8, 0, 0])
    assert words == data[-8:].tobytes() * 500


def test_a_change_of_any_byte_is_seen_when_every_word_is_sampled() -> None:
    data = np.zeros(40, np.uint8)
    samples = Samples([40], np.random.default_rng(1), 1000)  # of 33 places
    before = samples.read(os.getpid(), [data.ctypes.data])
    for index in range(40):
        data[index] ^= 1
        assert samples.read(os.getpid(), [data.ctypes.data]) != before
        data[index] ^= 1
    assert samples.read(os.getpid(), [data.ctypes.data]) == before


def test_places_are_the_generators() -> None:
    data = np.arange(256, dtype=np.uint8)

    def words(seed: int) -> bytes:
        return Samples([256], np.random.default_rng(seed)).read(os.getpid(), [data.ctypes.data])

    assert words(1) == words(1) != words(2)


@pytest.fixture(params=["asked", "unknown", "forbidden"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An older kernel can't be asked for one area, and a container may forbid it: then the whole map is read."""

    def refuse(*arguments: object) -> None:
        raise PermissionError(errno.EPERM, "no")

    if request.param == "unknown":
        monkeypatch.setattr(module, "_PROCMAP_QUERY", 0x5401 | 1 << 20)
    elif request.param == "forbidden":
        monkeypatch.setattr(module.fcntl, "ioctl", refuse)
    return str(request.param)


def test_this_kernel_can_be_asked_for_one_area() -> None:
    """Or what follows would see one way twice."""
    release = tuple(map(int, os.uname().release.split("-")[0].split(".")[:2]))
    with open("/proc/self/maps", "rb", buffering=0) as maps:
        data = np.zeros(8)
        if release >= (6, 11):
            assert module._asked(maps.fileno(), data.ctypes.data, data.ctypes.data + 64)
            return
        with pytest.raises(OSError, match=r"\w") as caught:
            module._asked(maps.fileno(), data.ctypes.data, data.ctypes.data + 64)
        assert caught.value.errno == errno.ENOTTY


@pytest.mark.usefixtures("way")
def test_the_pages_of_a_file_are_not_a_programs_own() -> None:
    """Not even private copies of them: a small file that is mapped many times would be a large output that nobody wrote."""
    with tempfile.TemporaryFile() as file:
        file.write(bytes(1 << 16))
        file.flush()
        mapped = mmap.mmap(file.fileno(), 1 << 16, flags=mmap.MAP_PRIVATE)
        mapped[0] = 1
        anonymous = mmap.mmap(-1, 1 << 16, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for place, expected in ((mapped, False), (anonymous, True)):
            buffer = (ctypes.c_char * (1 << 16)).from_buffer(place)
            address = ctypes.addressof(buffer)
            assert are_own(os.getpid(), [(address, address + (1 << 16))]) == expected
            del buffer


@pytest.mark.usefixtures("way")
def test_memory_is_the_programs_own_from_its_first_to_its_last_byte() -> None:
    """Across areas of other rights that lie side by side, and not beyond them."""
    pages = mmap.mmap(-1, 4 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    buffer = (ctypes.c_char * len(pages)).from_buffer(pages)
    start = ctypes.addressof(buffer)
    libc = ctypes.CDLL(None)

    def protect(page: int, rights: int) -> None:
        assert libc.mprotect(ctypes.c_void_p(start + page * 4096), 4096, rights) == 0

    protect(1, 7)  # another area, and as much its own
    assert are_own(os.getpid(), [(start, start + 4 * 4096)]) and are_own(os.getpid(), [])
    protect(3, 1)
    assert are_own(os.getpid(), [(start, start + 3 * 4096)])
    for outside in ((start, start + 3 * 4096 + 1), (start + 3 * 4096 + 8, start + 4 * 4096)):
        assert not are_own(os.getpid(), [(start, start + 8), outside])
    protect(3, 3)
    del buffer
    shared = mmap.mmap(-1, 4096)
    place = np.frombuffer(shared, np.uint8).ctypes.data
    assert not are_own(os.getpid(), [(place, place + 8)])


@pytest.mark.parametrize(
    ("rights", "inode", "own"),
    [(3, 0, True), (7, 0, True), (2, 0, True), (11, 0, False), (3, 5, False), (1, 0, False), (8, 0, False)],
)
def test_memory_that_is_private_and_writable_and_no_files_is_its_own(
    monkeypatch: pytest.MonkeyPatch, rights: int, inode: int, own: bool
) -> None:
    def answer(maps: int, request: int, query: bytearray) -> None:
        assert request == module._PROCMAP_QUERY and len(query) == 104
        module._QUERY.pack_into(query, 0, 104, 0, 8, 0, 64, rights, 4096, 0, inode, *[0] * 6)

    monkeypatch.setattr(module.fcntl, "ioctl", answer)
    assert are_own(os.getpid(), [(8, 16)]) == own


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("start", [0, 1 << 46, 1 << 63, (1 << 64) - 8, 1 << 64, -8])
def test_where_nothing_lies_nothing_is_a_programs_own(start: int) -> None:
    assert not are_own(os.getpid(), [(start, start + 8)])


@pytest.mark.usefixtures("way")
def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    assert are_own((1 << 22) + 1, [(8, 16)])


@pytest.mark.usefixtures("way")
def test_a_name_forges_no_line_of_the_map(tmp_path: Path) -> None:
    """A file's name may hold anything that other readers of lines take for an end of one."""
    forged = "x\x0c0-7fffffffffff rw-p 00000000 00:00 0\x1c\u2028\r" + "y"
    path = os.fsencode(tmp_path) + b"/" + forged.encode() + b"\xff\xfe"
    with open(path, "wb+") as file:
        file.truncate(8192)
        with contextlib.closing(mmap.mmap(file.fileno(), 8192, flags=mmap.MAP_PRIVATE)) as memory:
            place = np.frombuffer(memory, np.uint8).ctypes.data
            found = [area for area in areas(os.getpid()) if area.start <= place < area.end]
            assert not are_own(os.getpid(), [(place, place + 8)]) and not are_own(os.getpid(), [(0, 8)])
    assert len(found) == 1 and found[0].rights == "rw-p" and found[0].inode and "7fffffffffff" in found[0].name


def test_a_name_says_nothing_about_memory() -> None:
    """A carriage return ends no line of /proc/PID/status."""
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'\\rRssAnon: 1'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        assert private_bytes(program.pid) > 1 << 20
        program.kill()
        while Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            pass
        assert private_bytes(program.pid) == 0, "it has ended, and is not yet waited for"


def test_whether_a_process_may_be_read_at_all(holder: Holder) -> None:
    assert is_readable(holder.pid) and is_readable(os.getpid())
    assert not is_readable((1 << 22) + 1)


def test_runs_are_read_from_everywhere_in_lists_of_any_length(holder: Holder) -> None:
    data = np.random.default_rng(1).integers(0, 256, 9000, np.uint8)
    start = holder.hold(data.tobytes())
    places = np.random.default_rng(2).permutation(2990)
    target = np.zeros(3 * places.size, np.uint8)
    read_runs(holder.pid, (start + 3 * places).astype(np.uint64), 3, target)
    assert np.array_equal(target.reshape(-1, 3), data[:8970].reshape(-1, 3)[places])
    with pytest.raises(OSError, match=r"\w"):
        read_runs(holder.pid, np.array([start, 1 << 46], np.uint64), 3, target[:6])


def test_the_files_whose_code_a_process_runs(holder: Holder) -> None:
    names = code_files(holder.pid)
    assert any("python" in name or "libc" in name for name in names) and all(name.startswith("/") for name in names)
    assert str(Path(__file__)) not in names

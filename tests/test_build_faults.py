"""What a source provokes in the builder is its own failed build; what the machine does is no one's; and neither ends a worker."""

from __future__ import annotations

import errno
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kernel_env.builder import Builder, BuildRequest, BuildResult, bindings, compiler
from kernel_env.builder import service as service_module
from kernel_env.builder.compiler import End, Limits, Spent
from kernel_env.builder.symbols import Unreadable
from kernel_env.errors import BuilderError
from kernel_env.hostlock import CoresLock
from kernel_env.verifier import VerifierConfig

SPIN = "constexpr long spin{0}(long n) {{ long s = 0; for (long i = 0; i < n; ++i) s += i * i % 7; return s; }}\n"
SPIN += "static_assert(spin{0}(400000) > 0);\n"
SPIN_FLAGS = ("-fconstexpr-ops-limit=1000000000000", "-fconstexpr-loop-limit=2147483647")


@pytest.fixture
def cache() -> Path:
    return VerifierConfig().cache()


def request(*sources: str) -> BuildRequest:
    return BuildRequest(tuple((f"{number}.cpp", text) for number, text in enumerate(sources)), (), SPIN_FLAGS)


@pytest.mark.parametrize(
    ("log", "functions"),
    [
        ("<functions>:7:2: error: #error no\n", ()),
        ("<functions>:0:2: error: #error no\n", (("f", "f"),)),
        (f"<functions>:{'1' * 5000}: x\nx.cpp:3:1: error: no\n", (("f", "f"),)),
        (f"<functions>:{'1' * 5000}:1: error: x\n", (("f", "f"),)),
    ],
)
def test_a_complaint_that_names_generated_lines_is_explained_or_left_as_it_is(log: str, functions: bindings.Functions) -> None:
    assert bindings.explained(log, functions).strip()


def test_what_nobody_thought_of_is_the_requests_failure_and_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any) -> BuildResult:
        raise ValueError("a row of 5,000 digits")

    monkeypatch.setattr(Builder, "_attempted", fails)
    result = Builder(tmp_path).build(request(""))
    assert (result.ok, result.category, result.log) == (False, "request", "the builder failed at this request: ValueError")
    assert "5,000 digits" in caplog.text


@pytest.mark.parametrize("part", ["_workdir", "_attempted", "_lock"])
def test_a_full_disk_is_nobodys_failure(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Builder, part, full)
    with pytest.raises(BuilderError, match="No space left on device"):
        Builder(tmp_path).build(request(""))


def test_a_library_whose_symbols_cannot_be_told_is_a_failed_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(self: Builder, request: BuildRequest, work: Path, module: str, spent: Spent) -> tuple[str, str]:
        (work / f"{module}.so").write_bytes(b"\x7fELF\x02\x01" + bytes(100))
        return "", ""

    monkeypatch.setattr(Builder, "_attempted", made)
    result = Builder(tmp_path).build(request(""))
    assert (result.ok, result.category, result.path) == (False, "link", "") and "symbols cannot be read" in result.log


def test_names_of_symbols_are_read_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from kernel_env.builder import symbols

    library = Path(torch._C.__file__).read_bytes()
    assert symbols.imported(library)
    monkeypatch.setattr(symbols, "MOST_NAME_BYTES", 10)
    with pytest.raises(Unreadable, match="their names take more than"):
        symbols.imported(library)


def test_all_units_of_a_build_have_one_budget_of_processor_time(cache: Path) -> None:
    """One of these takes half a second, and 3 s where others keep the machine busy."""
    builder = Builder(cache, limits=Limits(build_cpu_s=8))
    alone = builder.build(request(SPIN.format("_alone")))
    assert alone.ok or alone.category != "limits", alone.log
    result = builder.build(request(*(SPIN.format(number) for number in range(32))))
    assert result.category == "limits" and "in all 8 s" in result.log
    assert result.cached or result.cpu_s < 15


def test_a_budget_that_is_used_up_ends_the_compiler_that_runs(tmp_path: Path) -> None:
    """However many processes it has: here a shell and another one, each of which may have all of it."""
    burning, spent = "(while :; do :; done) & while :; do :; done", Spent(cpu_s=8.0)
    limits = Limits(build_cpu_s=10)
    found = compiler.run(["/bin/sh", "-c", burning], tmp_path, limits, (), spent=spent, staged=False)
    assert found.end is End.LIMITS and 10 < spent.cpu_s < 20
    assert compiler.run(["/bin/true"], tmp_path, limits, (), spent=spent, staged=False).end is End.LIMITS, "nothing is left"


def test_a_build_that_the_machine_keeps_waiting_is_nobodys_failure(tmp_path: Path) -> None:
    with pytest.raises(BuilderError, match="overloaded"):
        compiler.run(["/bin/sleep", "30"], tmp_path, Limits(build_s=1), (), staged=False)


def test_all_files_of_a_build_have_one_budget(cache: Path) -> None:
    """The linker would leave these sections out."""
    filled = 'asm(".pushsection .filler,\\"e\\",@progbits\\n.fill 1 << 20, 8, 1\\n.popsection\\n");\n'
    builder = Builder(cache, limits=Limits(build_bytes=20 << 20))
    assert builder.build(request(filled)).category != "limits"
    result = builder.build(request(*(filled + f"int f{number};\n" for number in range(4))))
    assert result.category == "limits" and "20 MiB" in result.log


def test_two_that_build_the_same_on_the_same_cores_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them while it is timed: it has the cores already when it asks for the entry."""

    def compiled(self: Builder, *_: Any) -> tuple[str, str]:
        with self._cores.shared():
            return "compile", "no compiler was asked"

    monkeypatch.setattr(Builder, "_attempted", compiled)
    timed, other = (CoresLock(tmp_path / "locks", (0,)) for _ in range(2))
    one, two = Builder(tmp_path / "cache", timed), Builder(tmp_path / "cache", other)
    entered, waits = threading.Event(), two._cores.shared

    def shared() -> Any:
        entered.set()
        return waits()

    monkeypatch.setattr(other, "shared", shared)
    beside = threading.Thread(target=two.build, args=(request(""),), daemon=True)
    with timed.exclusive():
        beside.start()
        assert entered.wait(10)
        inside = threading.Thread(target=one.build, args=(request(""),), daemon=True)
        inside.start()
        inside.join(20)
        assert not inside.is_alive(), "it waits for an entry that is held by one that waits for its cores"
    beside.join(20)
    assert not beside.is_alive()


def test_limits_are_told_with_the_whole_builds() -> None:
    words = str(replace(Limits(), cpu_s=7))
    assert words == "7 s of processor time, 6 GiB of memory or files of 128 MiB (in all 240 s and 256 MiB)"
    assert service_module.OUR_LIMITS.file_bytes > Limits().file_bytes, "precompiled headers are larger than any object"


def test_a_build_for_several_gpus_has_more_time_and_never_more_than_it_may_wait(cache: Path) -> None:
    cuda = BuildRequest((("k.cu", ""),), archs=("80", "90"))
    usual, theirs = (Builder(cache)._limits_of(asked) for asked in (request(""), cuda))
    assert (usual, theirs.build_cpu_s) == (Limits(), 5 * Limits().build_cpu_s)
    assert all(limits.build_s > 2 * limits.build_cpu_s for limits in (usual, theirs, service_module.OUR_LIMITS))

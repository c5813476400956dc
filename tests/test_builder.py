"""Real builds: once per content, unharmed by kills and damage, within limits, with the compiler's own words and no path of ours."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from kernel_env.builder import Builder, BuildRequest, BuildResult, compiler
from kernel_env.builder import service as service_module
from kernel_env.builder.compiler import End, Limits, _ended
from kernel_env.builder.symbols import Unreadable, imported
from kernel_env.builder.toolchain import effective_flags, linking_flags, refused_flag, toolchain
from kernel_env.checks.symbols import unwatched
from kernel_env.errors import BuilderError, ConfigError
from kernel_env.hostlock import CoresLock
from kernel_env.referee.placement import counts_cores
from kernel_env.sandbox import landlock
from kernel_env.verifier import VerifierConfig
from tests.conftest import SCALED_RELU, sampled

SOURCE = "torch::Tensor twice(torch::Tensor x) { return x * 2; }\n"
SPIN = """
constexpr long spin(long n) { long s = 0; for (long i = 0; i < n; ++i) s += i * i % 7; return s; }
static_assert(spin(1L << 40) > 0);
"""
SPIN_FLAGS = ("-fconstexpr-ops-limit=1000000000000", "-fconstexpr-loop-limit=2147483647")


@pytest.fixture(scope="session")
def warm() -> Builder:
    """The user's own cache: what was built by an earlier run is there."""
    return Builder(VerifierConfig().cache())


@pytest.fixture
def cold(warm: Builder, tmp_path: Path) -> Builder:
    """An empty cache, but for the precompiled preludes."""
    for name in (service_module.SLIM, service_module.FULL):
        warm.prelude(name)
    (tmp_path / "prelude").symlink_to(warm.cache_dir / "prelude")
    return Builder(tmp_path)


def request(source: str = SOURCE, *functions: str, flags: tuple[str, ...] = (), name: str = "cand.cpp") -> BuildRequest:
    return BuildRequest(((name, source),), tuple((f, f) for f in functions), flags)


TWICE = request(SOURCE, "twice")


def loaded(result: BuildResult) -> ModuleType:
    assert result.ok, result.log
    loader = importlib.machinery.ExtensionFileLoader(result.module, result.path)
    spec = importlib.util.spec_from_loader(result.module, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def entry(result: BuildResult) -> Path:
    return Path(result.path).parent


# ------------------------------------------------------------------ the cache


def test_a_build_is_made_once_and_then_found(cold: Builder) -> None:
    first, second = cold.build(TWICE), Builder(cold.cache_dir).build(TWICE)
    assert not first.cached and first.build_ms > 0
    assert second.cached and second.build_ms == 0.0
    assert first.path == second.path and first.log == second.log == ""
    assert loaded(second).twice(torch.ones(3)).tolist() == [2.0, 2.0, 2.0]
    assert sorted(p.name for p in entry(first).iterdir()) == [f"{first.module}.so", "meta.json"]
    assert list((cold.cache_dir / "tmp").iterdir()) == []


def test_a_refusal_is_remembered_too(cold: Builder) -> None:
    wrong = request("int f() { return x; }")
    first, second = cold.build(wrong), cold.build(wrong)
    assert not first.ok and first.category == "compile" and "was not declared" in first.log
    assert second.cached and (second.ok, second.category, second.log) == (False, "compile", first.log)


@pytest.mark.parametrize(
    "damage",
    [
        lambda home: next(home.glob("*.so")).write_bytes(b"not a library"),
        lambda home: next(home.glob("*.so")).unlink(),
        lambda home: (home / "meta.json").write_text(""),
        lambda home: (home / "meta.json").write_text("[]"),
        lambda home: (home / "meta.json").write_bytes(b"\xff\xfe"),
        lambda home: (home / "meta.json").unlink(),
    ],
    ids=["library", "no library", "empty", "other", "binary", "no meta"],
)
def test_a_damaged_entry_is_not_used_and_made_again(cold: Builder, monkeypatch: pytest.MonkeyPatch, damage: Any) -> None:
    """With a compiler that only writes a file: what counts here is the cache."""

    def compiled(self: Builder, request: BuildRequest, work: Path, module: str, *more: object) -> tuple[str, str]:
        (work / f"{module}.so").write_bytes(Path(torch._C.__file__).read_bytes())
        return "", "a warning"

    monkeypatch.setattr(Builder, "_compile_and_link", compiled)
    made = cold.build(TWICE)
    assert cold.build(TWICE).cached
    damage(entry(made))
    again = cold.build(TWICE)
    assert again.ok and not again.cached
    assert Path(again.path).read_bytes() == Path(torch._C.__file__).read_bytes()
    assert cold.build(TWICE).cached


BUILD = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from kernel_env.builder import Builder, BuildRequest
sources, functions, flags = json.loads(sys.argv[2])
request = BuildRequest(tuple(map(tuple, sources)), tuple(map(tuple, functions)), tuple(flags))
print(json.dumps(asdict(Builder(Path(sys.argv[1])).build(request))))
"""


def elsewhere(builder: Builder, wanted: BuildRequest) -> subprocess.Popen[str]:
    """The same build in another process."""
    arguments = json.dumps([wanted.sources, wanted.functions, wanted.compile_flags])
    return subprocess.Popen([sys.executable, "-c", BUILD, str(builder.cache_dir), arguments], stdout=subprocess.PIPE, text=True)


def test_two_processes_that_want_the_same_build_it_once(cold: Builder) -> None:
    answers = [BuildResult(**json.loads(p.communicate()[0])) for p in [elsewhere(cold, TWICE), elsewhere(cold, TWICE)]]
    assert sorted(answer.cached for answer in answers) == [False, True]
    assert {answer.path for answer in answers} == {cold.build(TWICE).path}


def group_members(group: int) -> list[str]:
    """Command lines of the living processes of a group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                found.append((stat.parent / "cmdline").read_text())
        except OSError:
            continue
    return found


def eventually(condition: Any) -> Any:
    for _ in range(2400):
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError("it did not come true within 120 s")


def test_a_build_killed_in_the_middle_leaves_no_process_and_nothing_that_is_used(cold: Builder, tmp_path: Path) -> None:
    victim = elsewhere(cold, request(SPIN, flags=SPIN_FLAGS))
    children = Path(f"/proc/{victim.pid}/task/{victim.pid}/children")

    def compiling() -> int | None:  # its first child only says which compiler this is
        found = map(int, children.read_text().split())
        return next((child for child in found if any("cc1plus" in command for command in group_members(child))), None)

    guard = eventually(compiling)
    os.kill(victim.pid, signal.SIGKILL)
    victim.communicate()
    eventually(lambda: not group_members(guard))
    assert not (tmp_path / "ext").exists()
    # the lock is free, and the same content builds at once
    quick = Builder(cold.cache_dir, limits=Limits(cpu_s=1))
    assert quick.build(request(SPIN, flags=SPIN_FLAGS)).category == "limits"


def test_what_killed_builds_left_is_removed_when_it_is_old(cold: Builder) -> None:
    old, young = cold.cache_dir / "tmp" / "old", cold.cache_dir / "tmp" / "young"
    for path in (old, young):
        (path / "deep").mkdir(parents=True)
    os.utime(old, (0, 0))
    with cold._workdir():
        assert not old.exists() and young.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"sources": (("cand.cpp", SOURCE + " "),)}, {"sources": (("other.cpp", SOURCE),)}, {"functions": (("twice", "doc"),)},
        {"compile_flags": ("-O2",)}, {"link_flags": ("-lm",)},
    ],
    ids=str,
)  # fmt: skip
def test_another_request_has_another_entry(warm: Builder, change: dict[str, Any]) -> None:
    def key(wanted: BuildRequest) -> str:
        return warm._key("extension", [asdict(wanted)])

    assert key(replace(TWICE, **change)) != key(TWICE) == key(request(SOURCE, "twice"))


def test_a_builder_of_a_relative_directory_gives_absolute_paths(cold: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cold.cache_dir.parent)
    assert Builder(Path(cold.cache_dir.name)).cache_dir == cold.cache_dir


def test_headers_that_do_not_compile_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another torch our prelude may fail: sources are then compiled with the stock headers."""
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / service_module.FULL).write_text("#error not with this torch\n")
    monkeypatch.setattr(service_module, "INCLUDE", tmp_path / "include")
    builder = Builder(tmp_path / "cache")
    assert builder.prelude() is None
    assert "not with this torch" in next((tmp_path / "cache" / "prelude").glob("*/state")).read_text()
    assert Builder(tmp_path / "cache").prelude() is None


# ------------------------------------------------------------------ flags


@pytest.mark.parametrize(
    "flag",
    [
        "-I/etc", "-I", "-isystem/etc", "-iquote.", "-include", "-include/etc/passwd", "-imacros", "-fplugin=x.so",
        "-fplugin-arg-x=y", "@file", "-B/tmp", "-B", "-wrapper", "-specs=/tmp/x", "--specs=x", "-o", "-ofile", "-x", "-xc",
        "-L/tmp", "-Wl,-rpath,/tmp",
        "-Wa,-a=/tmp/x", "-Wp,-MD,/tmp/x", "-save-temps", "-fdump-tree-all", "-fprofile-use=/tmp", "-fprofile-generate",
        "-fauto-profile=x", "-fmodule-mapper=|sh", "-fmodules-ts", "-flto", "-fuse-ld=x", "-fdiagnostics-format=json",
        "-fsyntax-only", "-fpreprocessed", "-ftest-coverage", "-dumpdir", "-MD", "-MF", "-E", "-S", "-c", "-pipe;rm", "-", "--",
        "file.cpp", "/etc/passwd",
        "-DX=$(id)", "-DX=a b", "-O2\n-I/", "-v", "-###", "-print-search-dirs", "-nostdinc", "-fsanitize=address",
    ],
)  # fmt: skip
def test_a_flag_that_could_read_write_or_run_is_refused(warm: Builder, flag: str) -> None:
    assert refused_flag((flag,), ()) == flag
    result = warm.build(request(SOURCE, "twice", flags=("-O2", flag)))
    assert (result.ok, result.category) == (False, "flag")
    assert result.log in {f"compiler flag not allowed: {word}" for word in (flag, *flag.split())}


@pytest.mark.parametrize("flags", [("",), ("-O3 -march=native -fopenmp",), (" ", "-O2\t-g0 "), ()])
def test_flags_may_be_empty_or_several_in_one_as_in_a_shell(warm: Builder, flags: tuple[str, ...]) -> None:
    """KernelBench's own example has `extra_cflags=[""]`."""
    assert warm.build(request(SOURCE, "twice", flags=flags)).ok


def test_flags_longer_than_a_command_line_takes_are_refused(warm: Builder) -> None:
    for flags in (("-DX=" + "1" * 200_000,), ("-DX=1",) * 50_000):
        result = warm.build(request(SOURCE, "twice", flags=flags))
        assert (result.ok, result.category) == (False, "flag") and len(result.log) < 300
        result = warm.build(replace(TWICE, cuda_flags=flags))
        assert (result.ok, result.category) == (False, "flag") and len(result.log) < 300


def test_an_extension_is_no_library_of_libraries(warm: Builder) -> None:
    many = BuildRequest(tuple((f"{i}.cpp", f"int f{i};") for i in range(600)))
    assert not warm.build(many).ok and "600 source files" in warm.build(many).log
    large = warm.build(request("extern const char c[];\nconst char c[80 << 20] = {1};\n" + SOURCE, "twice"))
    assert (large.ok, large.category) == (False, "limits") and "larger than 64 MiB" in large.log


@pytest.mark.parametrize(
    "flag", ["-L/tmp", "-Wl,-rpath,/tmp", "-lcrypto", "-l:x.so", "-T", "-o", "@file", "x.o", "-static", "-fplugin=x", "-B/tmp"]
)
def test_a_link_flag_beyond_known_libraries_is_refused(flag: str) -> None:
    assert refused_flag((), (flag,)) == flag


ALLOWED = (
    "-O0", "-O2", "-O3", "-Ofast", "-ffast-math", "-fno-math-errno", "-mavx2", "-mfma", "-march=native", "-march=x86-64-v3",
    "-mtune=native", "-mprefer-vector-width=512", "-DX=1", "-DNDEBUG", "-UNDEBUG", "-funroll-loops", "-fopenmp", "-fopenmp-simd",
    "-std=c++17", "-std=c++20", "-std=gnu++20", "-g", "-w", "-Wall", "-Wextra", "-Wno-unused-variable", "-Wno-error=format",
    "-pthread", "-fPIC", "-fno-exceptions", "-ftree-vectorize", "-fno-strict-aliasing", "-ffp-contract=fast", "-falign-loops=32",
    "-fomit-frame-pointer", "-ftemplate-depth=2000", "-fvect-cost-model=unlimited",
)  # fmt: skip


@pytest.mark.parametrize("flag", ALLOWED)
def test_a_flag_that_only_optimises_is_allowed(flag: str) -> None:
    assert refused_flag((flag,), ()) is None


def test_link_flags_of_known_libraries_are_allowed() -> None:
    assert refused_flag((), ("-lm", "-lgomp", "-lpthread", "-fopenmp", "-lc10", "-ltorch_cpu")) is None


def test_flags_that_only_slow_the_build_are_dropped() -> None:
    flags = ("-std=c++17", "-O2", "-g", "-std=c++20", "-std=c++23", "-pipe")
    assert effective_flags(flags) == ("-O2", "-std=c++23")


def test_flags_of_the_compiler_may_be_given_to_the_linker_and_the_other_way_round(warm: Builder) -> None:
    flags = (
        "-O3",
        "-mavx2",
        "-ffast-math",
        "-funroll-loops",
        "-std=c++17",
        "-lm",
        "-lmvec",
        "-lgomp",
        "-shared",
        "-fopenmp",
        "-pipe",
    )
    assert effective_flags(flags) == ("-O3", "-mavx2", "-ffast-math", "-funroll-loops", "-fopenmp")
    assert linking_flags(flags) == ("-O3", "-lm", "-lmvec", "-lgomp", "-shared", "-fopenmp")
    assert warm.build(replace(TWICE, compile_flags=flags, link_flags=flags)).ok


def test_allowed_flags_reach_the_compiler(warm: Builder) -> None:
    source = '#ifndef __AVX2__\n#error "no AVX2"\n#endif\nint64_t x() { return ANSWER + sizeof(long); }\n'
    flags = ("-O2", "-mavx2", "-DANSWER=34", "-funroll-loops", "-std=c++17", "-std=c++20", "-Wall")
    result = warm.build(BuildRequest((("cand.cpp", source),), (("x", ""),), flags, ("-lm", "-fopenmp")))
    assert loaded(result).x() == 42


@pytest.mark.parametrize(
    ("flags", "usable"),
    [
        ((), True), (("-O3", "-march=native", "-fopenmp"), True), (("-O2", "-mavx2", "-funroll-loops", "-std=c++17", "-g"), True),
        (("-march=x86-64-v2",), False), (("-ffast-math",), False),
    ],
)  # fmt: skip
def test_which_flags_the_precompiled_prelude_survives(warm: Builder, tmp_path: Path, flags: tuple[str, ...], usable: bool) -> None:
    """GCC falls back to the plain header in silence; -Winvalid-pch breaks it. The build itself must work either way."""
    prelude = warm.prelude()
    assert prelude is not None
    command = [*warm._unit_command(effective_flags(flags), quick=True), "-include", str(prelude / service_module.FULL)]
    (tmp_path / "empty.cpp").write_text("")
    asked = [*command, "-Winvalid-pch", "-Werror=invalid-pch", "-Wfatal-errors", "-fsyntax-only", "empty.cpp"]
    done = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ("[-Werror=invalid-pch]" not in done.stderr) is usable
    assert done.returncode == (0 if usable else 1), done.stderr


# ------------------------------------------------------------------ what the model reads


def test_an_error_names_the_candidates_own_line_and_shows_it(warm: Builder) -> None:
    result = warm.build(request(SOURCE + "\nint broken() {\n  return undefined_name;\n}\n", "twice", name="my kernel.cpp"))
    assert (result.ok, result.category) == (False, "compile")
    assert "my_kernel.cpp:4:10: error: ‘undefined_name’ was not declared in this scope" in result.log
    assert "    4 |   return undefined_name;" in result.log


def test_no_path_of_ours_and_no_machinery_is_shown(warm: Builder) -> None:
    source = "torch::Tensor twice(torch::Tensor x) { return at::matmul(x); }\n"
    log = warm.build(request(source, "twice")).log
    assert "cand.cpp:1:57: error: too few arguments" in log
    assert "from torch/types.h" in log
    assert "kernel_env_bind" not in log and "<functions>" not in log
    assert re.findall(r"(?<!\w)/(?!usr/)[\w.-]+/\S*", log) == []


def test_a_name_that_the_source_does_not_define_is_said_in_one_line(warm: Builder) -> None:
    result = warm.build(request(SOURCE, "twice", "thrice", "four_times"))
    assert (result.ok, result.category) == (False, "compile")
    assert result.log == "functions names 'thrice', 'four_times', but the C++ source defines no such function\n"


def test_an_error_in_the_source_hides_the_errors_that_follow_from_it(warm: Builder) -> None:
    result = warm.build(request("torch::Tensr twice(torch::Tensor x) { return x; }\n", "twice"))
    assert "cand.cpp:1:8: error: ‘Tensr’ in namespace ‘torch’ does not name a type" in result.log
    assert "functions" not in result.log


@pytest.mark.parametrize("name", ["not a name", "f;", "f()", "1f", "", "f\nint g()", "é", "operator+", "a::", "<x>"])
def test_a_function_name_that_is_none_never_reaches_the_compiler(warm: Builder, name: str) -> None:
    result = warm.build(request(SOURCE, name))
    assert (result.ok, result.category) == (False, "functions")
    assert "not the name of a C++ function" in result.log and "\n" not in result.log


def test_no_source_at_all_is_a_refusal(warm: Builder) -> None:
    assert warm.build(BuildRequest(())).log == "there is no source to compile"


def test_the_linkers_words_are_shown_without_paths(warm: Builder) -> None:
    twice_defined = BuildRequest((("a.cpp", "int f() { return 1; }\n"), ("b.cpp", "int f() { return 2; }\n")))
    result = warm.build(twice_defined)
    assert (result.ok, result.category) == (False, "link")
    assert "multiple definition of `f()'" in result.log
    assert str(warm.cache_dir) not in result.log


def test_inline_assembly_errors_are_the_sources_too(warm: Builder) -> None:
    result = warm.build(request('asm("no_such_instruction");\n'))
    assert (result.category, "no such instruction" in result.log) == ("compile", True)


def test_a_flag_that_the_compiler_does_not_know_is_the_candidates_fault(warm: Builder) -> None:
    result = warm.build(request(SOURCE, "twice", flags=("-march=abacus",)))
    assert (result.ok, result.category) == (False, "compile")
    assert "abacus" in result.log


def test_any_text_can_be_compiled(warm: Builder) -> None:
    source = '// ünï\x00cödé \ud800 \u2028 ??/ \\\n#define D "\\\\" // line\r\n' + SOURCE + "// no newline \\"
    result = warm.build(BuildRequest((("../é\n\x00.cpp", source),), (("twice", 'a "doc" \\ \n é \ud800 \x00 ??/ %s'),)))
    module = loaded(result)
    assert module.twice(torch.ones(1)).item() == 2.0
    assert module.twice.__doc__.startswith('a "doc" \\ \n é ? ')


@pytest.mark.parametrize("name", [".", "..", "", "/", "+entry", "x" * 300, "é" * 300, "-o", "a/../../b.cpp", "+statuses", "\n"])
def test_a_files_name_stays_in_its_directory(name: str) -> None:
    plain = service_module._plain_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,79}", plain)


# ------------------------------------------------------------------ limits and a broken machine


def test_a_template_bomb_ends_at_the_limit_of_processor_time(warm: Builder) -> None:
    bounded = Builder(warm.cache_dir, limits=Limits(cpu_s=2, memory_bytes=5 << 30))
    result = bounded.build(request(SPIN, flags=SPIN_FLAGS))
    assert (result.ok, result.category) == (False, "limits")
    assert result.log.startswith("the compiler gave up: the source needs more than 2 s of processor time, 5 GiB of memory")


def test_a_memory_bomb_ends_at_the_limit_of_memory(warm: Builder) -> None:
    bounded = Builder(warm.cache_dir, limits=Limits(memory_bytes=900 << 20))
    bomb = "struct S { int a[1 << 24]{}; };\nconstexpr S make() { S s; for (int& x : s.a) x = 1; return s; }\n"
    bomb += "constexpr S s = make();\n"
    assert bounded.build(request(bomb, flags=SPIN_FLAGS)).category == "limits"


def test_a_file_bomb_ends_at_the_limit_of_a_file(warm: Builder) -> None:
    bounded = Builder(warm.cache_dir, limits=Limits(file_bytes=1 << 20))
    assert bounded.build(request('asm(".fill 1 << 24, 8, 1");\n')).category == "limits"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("statuses", [[1, 0, 128], [128]])
def test_a_compiler_that_someone_killed_says_nothing_about_the_source(number: int, statuses: list[int]) -> None:
    with pytest.raises(BuilderError, match=f"killed by {signal.Signals(number).name}"):
        _ended("g++", [*statuses[:-1], statuses[-1] + number], "cand.cpp:1:1: error: forged\n", 1 << 40)


MORTAL = {
    "guard": "/bin/sh", "driver": r".*/g\+\+", "shell around a stage": "sh", "compiler": ".*/cc1plus", "assembler": "(.*/)?as",
    "stage of the linker": ".*/collect2", "linker": ".*/ld",
}  # fmt: skip
"""The programs of one compiler, by the name that each is started with."""
UNSEEN = ("shell around a stage", "assembler", "linker")
"""Whose end only the driver knows, and tells in words."""


def below(pid: int) -> Iterator[tuple[int, int]]:
    """Each process, and its parent."""
    with contextlib.suppress(OSError):  # it has ended
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            yield child, pid
            yield from below(child)


def program(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().partition("\0")[0]


@contextlib.contextmanager
def killing(name: str) -> Iterator[set[int]]:
    """Kills the first program that is started with such a name meanwhile; gives the process groups of all that were started."""
    done, groups, others = threading.Event(), set[int](), set(below(os.getpid()))

    def kill() -> None:
        victim = 0
        while not done.is_set():
            for pid, parent in (found for found in below(os.getpid()) if found not in others):
                with contextlib.suppress(OSError):
                    groups.add(os.getpgid(pid))
                    new = program(pid) != program(parent)  # else it is about to become another program
                    if not victim and new and re.fullmatch(name, program(pid)):
                        os.kill(victim := pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield groups
    finally:
        done.set()
        killer.join()
        groups.discard(os.getpgrp())  # a child is of ours until it has its own


@pytest.mark.parametrize("victim", sampled(MORTAL, UNSEEN))
def test_whoever_of_a_compiler_is_killed_says_nothing_about_the_source_and_nobody_lives_on(cold: Builder, victim: str) -> None:
    """The build fails for the machine, and nothing is remembered of it; or, where only words tell, it is tried again."""
    killed = pytest.raises(BuilderError, match=r"^the compiler was killed by SIGKILL; nothing is said about the source$")
    with killing(MORTAL[victim]) as groups, contextlib.nullcontext() if victim in UNSEEN else killed:
        assert cold.build(request(SCALED_RELU, "scaled_relu")).ok
    eventually(lambda: not any(map(group_members, groups)))
    assert bool(list((cold.cache_dir / "ext").glob("*/*"))) is (victim in UNSEEN)


def test_a_source_that_prints_what_a_driver_says_of_the_killed_gains_nothing_by_it(warm: Builder) -> None:
    words = "g++: fatal error: Killed signal terminated program as"
    refused = warm.build(request(f'asm(R"(.error "x\\n{words}\\ncompilation terminated.")");\n'))
    assert (refused.ok, refused.category) == (False, "compile")
    assert f"\n{words}\ncompilation terminated.\n" in refused.log


def test_a_full_disk_says_nothing_about_the_source() -> None:
    with pytest.raises(BuilderError, match="disk of the build cache is full"):
        _ended("g++", [1, 1], "cc1plus: fatal error: error writing to x.s: No space left on device\n", 1 << 20)


def test_without_a_compiler_there_is_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    toolchain.cache_clear()
    try:
        with pytest.raises(BuilderError, match=r"no C\+\+ compiler: install g\+\+ .*then run the same command again"):
            Builder(tmp_path).build(TWICE)
    finally:
        toolchain.cache_clear()


@pytest.mark.parametrize("script", ["#!/bin/sh\necho broken >&2; exit 1\n", "#!/no/such/shell\n"])
def test_a_compiler_that_does_not_work_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    (tmp_path / "g++").write_text(script)
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    toolchain.cache_clear()
    try:
        with pytest.raises(BuilderError, match=re.escape(str(tmp_path / "g++"))):
            Builder(tmp_path).build(TWICE)
    finally:
        toolchain.cache_clear()


@pytest.mark.parametrize("library", ["libc.so.6", "libstdc++.so.6", "libmvec.so.1"])
def test_a_system_without_the_libraries_that_we_know_is_nobodys_fault(tmp_path: Path, library: str) -> None:
    """Such as musl's. All that an extension takes of them would look like a library's functions."""
    real = toolchain()
    wrapper = tmp_path / "g++"
    wrapper.write_text(f'#!/bin/sh\ncase "$1" in *={library}) echo {library};; *) exec {real.compiler} "$@";; esac\n')
    wrapper.chmod(0o755)
    found = replace(real, compiler=str(wrapper))
    if library == "libmvec.so.1":  # which not every machine has
        assert "memcpy" in found.system_symbols
        return
    with pytest.raises(BuilderError, match=rf"g\+\+ finds no {re.escape(library)}: extensions need GCC"):
        _ = found.system_symbols


def test_locks_in_someone_elses_directory_are_not_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ConfigError, match="belongs to another user"), CoresLock(tmp_path).shared():
        pass
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------ what a source may read


OUTSIDE = (
    '#include "{path}"',
    '#if __has_include("{path}")\n#endif',
    'asm(".section .rodata\\n secret: .incbin \\"{path}\\"\\n.text");',
)


@pytest.mark.parametrize("source", OUTSIDE, ids=["include", "has_include", "incbin"])
@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/self/environ", "secret"])
def test_a_source_reads_no_file_of_the_machine(warm: Builder, tmp_path: Path, source: str, path: str) -> None:
    (tmp_path / "secret").write_text("// the secret text\n")
    asked = source.format(path=tmp_path / "secret" if path == "secret" else path)
    result = warm.build(request(f"{asked}\nint64_t f(int64_t x) {{ return x; }}", "f"))
    assert (result.ok, result.category) == (False, "compile"), result.log
    assert "Permission denied" in result.log or "file not found" in result.log
    assert "root:" not in result.log and "the secret text" not in result.log


def test_without_landlock_it_builds_all_the_same(tmp_path: Path, warm: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> int:
        raise OSError("no Landlock")

    monkeypatch.setattr(landlock, "version", missing)
    assert warm.build(request(f"int64_t f(int64_t x) {{ return x + {time.time_ns()}; }}", "f")).ok


@pytest.mark.parametrize("true", [True, False])
def test_a_header_of_ours_that_may_not_be_read_is_nobodys_fault(true: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """If it is true: a source can have the compiler print any line (`#error`, or `.print` of the assembler)."""
    monkeypatch.setattr(compiler, "_is_denied", lambda path, readable: true)

    def ended(path: str) -> End:
        log, headers = f"cc1plus: fatal error: {path}: Permission denied\n", ("/opt/torch/include",)
        return _ended("g++", [1, 1], log, 1 << 40, ("/opt", "/usr"), headers)

    assert ended("/etc/passwd") is ended("/opt/torch/secret.h") is ended("/opt/torch/include/../secret.h") is End.REFUSED
    assert ended("/usr/sbin/for-root-alone") is ended("/opt/torch/include/\0") is End.REFUSED
    if not true:
        assert ended("/opt/torch/include/ATen.h") is End.REFUSED
        return
    with pytest.raises(BuilderError, match="may not read its own files"):
        ended("/opt/torch/include/ATen.h")


def test_a_link_that_leads_out_of_what_a_compiler_may_read_is_the_sources_own_fault(
    warm: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside").write_text("")
    (tmp_path / "include").mkdir()
    (tmp_path / "include/link.h").symlink_to(tmp_path / "outside")
    monkeypatch.setattr(compiler, "_is_denied", lambda path, readable: True)
    log = f"x.cpp:1:10: fatal error: {tmp_path}/include/link.h: Permission denied\n"
    assert _ended("g++", [1, 1], log, 1 << 40, (), (f"{tmp_path}/include",)) is End.REFUSED
    monkeypatch.undo()
    for path in filter(os.path.islink, ("/usr/lib/ssl/openssl.cnf", "/usr/lib/python3.11/sitecustomize.py")):
        assert warm.build(request(f'#include "{path}"\n')).category == "compile"


def test_what_a_compiler_may_not_open_is_seen_by_opening_it(tmp_path: Path) -> None:
    try:
        landlock.version()
    except OSError:
        pytest.skip("without Landlock nothing is denied")
    header = tmp_path / "header.h"
    assert not compiler._is_denied(header, ())
    header.write_text("")
    assert compiler._is_denied(header, ()) and not compiler._is_denied(header, (str(tmp_path),))


FORGED = [
    "#error fatal error: {path}: Permission denied\n",
    '#pragma message "\\ncc1plus: fatal error: {path}: Permission denied"\n#error x\n',
    'asm(".print \\"cc1plus: fatal error: {path}: Permission denied\\"\\n.err");\n',
    'asm(".print \\"x.cpp:{number}:1: error: x\\"\\n.err");\n',
]


@pytest.mark.parametrize("source", FORGED)
def test_a_forged_complaint_is_the_sources_own(warm: Builder, source: str) -> None:
    ours = next(Path(warm.toolchain.torch_dir).glob("include/torch/extension.h"))
    result = warm.build(request(source.format(path=ours, number="1" * 5000) + SOURCE, "twice"))
    assert (result.ok, result.category) == (False, "compile")


def test_the_symbols_that_an_extension_takes_from_libraries_are_known(warm: Builder) -> None:
    source = """
        extern "C" void sgemv_(const char*);
        torch::Tensor f(torch::Tensor x) { if (!x.numel()) sgemv_("T"); return torch::empty_like(x).fill_(std::tanh(x.size(0))); }
    """
    made = warm.build(request(source, "f"))
    assert "sgemv_" in made.imports and made.imports == tuple(sorted(made.imports))
    assert not {"tanh", "memcpy", "__cxa_throw"} & set(made.imports), "the system's are left out"
    assert any("empty_like" in name for name in made.imports) and not any("sgemm" in name for name in made.imports)
    assert warm.build(request(source, "f")).imports == made.imports, "found again in the cache"


@pytest.mark.parametrize(
    ("call", "counts"),
    [("omp_get_num_procs()", True), ("std::thread::hardware_concurrency()", True), ("omp_get_max_threads()", False)],
)
def test_an_extension_that_counts_cores_is_known_by_its_build(warm: Builder, call: str, counts: bool) -> None:
    """The referee lets its main thread run on all of them while it is timed."""
    source = f"#include <omp.h>\n#include <thread>\nint64_t cores(torch::Tensor x) {{ return {call}; }}"
    for made in (warm.build(request(source, "cores")), warm.build(request(source, "cores"))):
        assert made.ok and counts_cores(made.imports) is counts and not unwatched(made.imports), made.log


LIBRARY = Path(torch._C.__file__).read_bytes()
LIBTORCH = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"


@pytest.mark.parametrize("damage", [b"", b"not a library", LIBRARY[:5000], LIBRARY[:54] + bytes(4) + LIBRARY[58:]])
def test_what_is_no_library_has_no_symbols(damage: bytes) -> None:
    with pytest.raises(Unreadable, match="the linker made"):
        imported(damage)


def test_symbols_are_found_whatever_sections_a_library_has() -> None:
    """The loader looks at none. From 65,280 on their number is not where it is with fewer."""
    for offset, size in ((40, 8), (58, 2), (60, 2)):  # where they are described, in how many bytes each, and how many there are
        assert imported(LIBRARY[:offset] + bytes(size) + LIBRARY[offset + size :]) == imported(LIBRARY)


def test_an_own_function_stays_its_own_though_a_library_has_one_of_its_name(warm: Builder) -> None:
    """One of a library that was loaded for all (RTLD_GLOBAL) would else be preferred."""
    own = """
        extern "C" __attribute__((visibility("default"), noinline)) int sgemv_() { return 3; }
        extern "C" { __attribute__((visibility("default"))) int vsLn = 4; }
        int f() { return sgemv_() + vsLn; }
    """
    made = warm.build(request(own, "f"))
    assert not {"sgemv_", "vsLn"} & set(made.imports)
    code = f"import ctypes, torch\nctypes.CDLL({str(LIBTORCH)!r}, mode=ctypes.RTLD_GLOBAL)\n"
    code += f"print(ctypes.CDLL({made.path!r}).sgemv_())\nimport importlib.machinery as m, importlib.util as u\n"
    code += f"loader = m.ExtensionFileLoader({made.module!r}, {made.path!r})\n"
    code += f"print(u.module_from_spec(u.spec_from_loader({made.module!r}, loader)).f())\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "7"], done.stderr


def test_a_table_of_symbols_by_hand_is_none_of_the_loaders(warm: Builder) -> None:
    table = 'asm(".pushsection .second,\\"\\",@11\\n.long 0xffffffff\\n.long 0\\n.quad 0, 0\\n.popsection\\n");\n'
    assert "THPVariable_Wrap" in " ".join(warm.build(request(table + SOURCE, "twice")).imports)


# ------------------------------------------------------------------ headers


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("at::Tensor f(at::Tensor x) { return torch::empty({x.size(0), 2}, x.options().dtype(torch::kInt32)); }", ["slim"]),
        ("torch::Tensor f(torch::Tensor x) { return at::full_like(x, 2.0, x.options(), at::MemoryFormat::Contiguous); }", ["slim"]),
        ("torch::Tensor f(torch::Tensor x) { return torch::zeros_like(x).add_(x.relu()).contiguous(); }", ["slim"]),
        (
            """#include <ATen/Parallel.h>
            void f(torch::Tensor x) {
              AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "f", [&] {
                at::parallel_for(0, x.numel(), 64, [&](int64_t a, int64_t b) { x.data_ptr<scalar_t>()[a] = b; });
              });
            }""",
            ["slim"],
        ),
        ("torch::Tensor f(torch::Tensor x) { return torch::relu(x); }", ["full"]),
        ("using namespace at; Tensor f(Tensor x) { return relu(x); }", ["slim", "full"]),
        ("torch::Tensor f(torch::Tensor x) { return x[0] + x; }", ["slim", "full"]),
    ],
)
def test_the_fewest_headers_that_do(warm: Builder, monkeypatch: pytest.MonkeyPatch, source: str, expected: list[str]) -> None:
    short = {service_module.SLIM: "slim", service_module.FULL: "full", service_module.STOCK: "stock"}
    used: list[str] = []
    prelude = warm.prelude
    monkeypatch.setattr(warm, "prelude", lambda name: used.append(short[name]) or prelude(name))
    made = warm.build(BuildRequest((("kernel.cpp", f"{source} // {time.time()}"),), (("f", ""),)))
    assert made.ok, made.log
    assert used == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "functions"),
    [
        ("#include <pybind11/numpy.h>\nint64_t f(pybind11::array_t<float> x) { return x.size(); }", ("f",)),
        ("int64_t f(int64_t x) { return x; }\nPYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def(\"f\", &f); }", ()),
        ("int64_t f(int64_t n) { return torch::nn::Linear(n, n)->weight.size(0); }", ("f",)),
        ("int64_t f(std::map<std::string, int64_t> m) { return m.size(); }", ("f",)),
    ],
    ids=["numpy", "own module", "nn", "argument"],
)  # fmt: skip
def test_sources_that_need_the_stock_headers_get_them(warm: Builder, source: str, functions: tuple[str, ...]) -> None:
    module = loaded(warm.build(request(source, *functions)))
    argument = {"array_t": np.zeros(5, np.float32), "map": dict.fromkeys("abcde", 1)}
    assert module.f(next((v for k, v in argument.items() if k in source), 5)) == 5


@pytest.mark.slow
def test_an_overloaded_function_is_said_to_be_one(warm: Builder) -> None:
    result = warm.build(request(SOURCE + "torch::Tensor twice(int64_t n) { return torch::zeros({n}); }\n", "twice"))
    assert result.log == "functions names 'twice', which cannot be called from Python: is it overloaded, or a template?\n"


def test_what_the_stock_header_declares_is_there_at_once(warm: Builder) -> None:
    source = """
#include <torch/extension.h>
#include <torch/torch.h>
#include <ATen/ATen.h>
int64_t sum() {
  torch::NoGradGuard guard;
  std::map<std::string, int64_t> m{{"a", 1}};
  std::unordered_map<int, int64_t> u{{1, 2}};
  std::queue<int64_t> q; q.push(3);
  std::vector<float> v(4); std::span<float> s(v);
  auto f = torch::fft::fft(torch::ones({8}, torch::kFloat32));
  std::atomic<int64_t> a{5}; std::mutex lock; std::function<int64_t()> g = [&] { return a.load(); };
  std::ostringstream out; out << f.size(0); printf("%s", ""); assert(M_PI > 3);
  return m["a"] + u[1] + q.front() + s.size() + g() + std::stoll(out.str()) + torch::special::expit(torch::zeros({1})).numel();
}
"""
    assert loaded(warm.build(request(source, "sum"))).sum() == 24

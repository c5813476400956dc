"""Builds one extension: content-addressed, identical builds happen once, a killed build leaves nothing that is used.

The cache is a directory of finished entries. Each entry is made in a directory of its own and renamed into place, under a
lock file for its key, so any number of processes share it and any of them may be killed at any moment. See `quota` for its size.

Three ways to compile, each with precompiled headers. The quick ones put headers of ours in place of `torch/extension.h`, and
bindings without pybind11: slim ones for what most kernels need, and full ones. Sources that need the stock headers are compiled
with them. What a quicker way cannot compile is compiled in the next one, so errors are the full or the stock headers'.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from kernel_env.builder import bindings, nvcc, ptxas
from kernel_env.builder.compiler import LOG_BYTES, End, Limits, Outcome, Spent, run
from kernel_env.builder.diagnostics import without_paths
from kernel_env.builder.nvcc import Resources
from kernel_env.builder.ptxas import Assembled
from kernel_env.builder.quota import touch, trim
from kernel_env.builder.symbols import Unreadable, imported
from kernel_env.builder.toolchain import (
    BASE_FLAGS,
    DEFAULT_FLAGS,
    INCLUDE,
    Toolchain,
    code_identity,
    effective_flags,
    linking_flags,
    refused_flag,
    toolchain,
)
from kernel_env.errors import BuilderError, KernelEnvError
from kernel_env.hostlock import CoresLock

SLIM, FULL, STOCK = "kernel_env_slim.h", "kernel_env_prelude.h", "kernel_env_stock.h"
"""The preludes: headers that are precompiled, the first time that a source needs them."""
MOST_SOURCES, MOST_FLAG_CHARS, MOST_LIBRARY_BYTES = 32, 16_000, 64 << 20
"""Of one extension. More is no kernel: it takes the compiler's time, or the cache's place."""
LEFTOVER_S = 3600
"""Age after which a working directory belongs to a killed build."""

_NEEDS_STOCK = re.compile(
    r"""
    \b ( PYBIND11_\w+ | TORCH_LIBRARY\w* ) \b
  | \b ( pybind11 | py | nn | optim | autograd | jit | serialize ) \s* ( :: | ; )
  | \b torch \s* :: \s* ( data | python | save | load ) \b
  | \# \s* include \s* [<"] ( pybind11 | torch/(csrc|library|script|python|nn|optim|autograd|jit|data|serialize) )
    """,
    re.VERBOSE,
)
"""What the prelude leaves out. A mention in a comment costs time, nothing else."""

_NAMED = re.compile(r"\b (?: torch | at ) \s* :: \s* (\w+)", re.VERBOSE)
_INCLUDED = re.compile(r"""\# \s* include \s* [<"] ( (?: torch | ATen | caffe2 ) / [^>"\n]* )""", re.VERBOSE)
_SLIM_NAMES = re.compile(
    r"""
    Tensor | TensorOptions | TensorAccessor | (empty|zeros|ones|full)(_like)? | k[A-Z]\w+ | ScalarType | Scalar
  | IntArrayRef | ArrayRef | Half | BFloat16 | MemoryFormat | Device | DeviceType | Layout | Dtype | dtype | device
  | optional | nullopt | cuda
  | parallel_for | get_num_threads | get_thread_num | divup | GRAIN_SIZE | internal
    """,
    re.VERBOSE,
)
"""What of torch the slim prelude declares; whoever gets it wrong loses a second."""
_SLIM_HEADERS = re.compile(
    r"""
    torch/(extension|torch|all|types)\.h | ATen/(Parallel|Dispatch|core/Tensor|cpu/vec/.*|cuda/CUDAContext|cuda/Exceptions)\.h
    """,
    re.VERBOSE,
)

OUR_LIMITS = Limits(cpu_s=1200, file_bytes=1 << 30, build_cpu_s=1200, build_s=3600, build_bytes=2 << 30)
"""Of precompiling headers, which are no candidate's: torch's own take 27 s of processor time, on slow machines more than 120."""
Category = Literal["", "compile", "link", "limits", "flag", "functions", "request"]
"""Why there is no extension. `request`: the builder itself failed at it."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildRequest:
    """What a candidate asked `load_inline` or `load` for."""

    sources: tuple[tuple[str, str], ...]
    """(file name, text) of each translation unit."""
    functions: tuple[tuple[str, str], ...] = ()
    """(name, docstring) to bind; empty when the source brings its own bindings."""
    compile_flags: tuple[str, ...] = ()
    link_flags: tuple[str, ...] = ()
    cuda_flags: tuple[str, ...] = ()
    """Of sources whose names end in `.cu`."""
    archs: tuple[str, ...] = ()
    """Compute capabilities that those are compiled for: `90`, ... Not the candidate's choice."""

    @property
    def is_cuda(self) -> bool:
        return any(name.endswith(".cu") for name, _ in self.sources)


@dataclass(frozen=True)
class BuildResult:
    """`path` is a Python extension module named `module` when `ok`; otherwise `log` is the compiler's own words."""

    ok: bool
    module: str
    path: str = ""
    log: str = ""
    category: Category = ""
    cached: bool = False
    build_ms: float = 0.0
    cpu_s: float = 0.0
    """Processor time of its compilers."""
    imports: tuple[str, ...] = ()
    """Symbols that it takes, or may come to take, from other libraries than the system's."""
    resources: tuple[Resources, ...] = ()
    """What its CUDA kernels use."""


def extensions(cache_dir: Path) -> Path:
    """Where a cache keeps finished extensions: all of it that a runner reads."""
    return cache_dir.absolute() / "ext"


class Builder:
    """Compiles C++ extensions into `cache_dir`. Safe to use from any number of processes at once."""

    def __init__(
        self, cache_dir: Path, cores: CoresLock | None = None, limits: Limits | None = None, most_bytes: int | None = None
    ) -> None:
        """`most_bytes`: what the cache may take on the disk."""
        self._most_bytes = most_bytes
        self.cache_dir = cache_dir.absolute()  # compilers run elsewhere
        self._cores = cores or CoresLock()
        self._limits = limits or Limits()
        self._toolchain: Toolchain | None = None

    @property
    def toolchain(self) -> Toolchain:
        self._toolchain = self._toolchain or toolchain()
        return self._toolchain

    def build(self, request: BuildRequest) -> BuildResult:
        """Return the finished entry for `request`, compiling it if no one has.

        A source that does not compile is a result, not an exception, and so is one that the builder itself fails at. Raises
        BuilderError when the compiler is missing or was killed, or the cache cannot be written.
        """
        try:
            return self._built(request)
        except KernelEnvError:
            raise
        except (OSError, subprocess.SubprocessError, MemoryError) as error:
            raise BuilderError(f"nothing can be built in {self.cache_dir}: {error or type(error).__name__}") from error
        except Exception as error:  # noqa: BLE001 - what a source provokes is its own failure, never that of others
            _log.exception("a build request failed in a way that nobody thought of")
            return BuildResult(False, "", log=f"the builder failed at this request: {type(error).__name__}", category="request")

    def _built(self, request: BuildRequest) -> BuildResult:
        flags, link, cuda = map(_words, (request.compile_flags, request.link_flags, request.cuda_flags))
        request = replace(request, compile_flags=flags, link_flags=link, cuda_flags=cuda)
        tools = [nvcc.toolkit().version] if request.is_cuda and request.archs else []
        key = self._key("extension", [asdict(request), asdict(self._limits), code_identity(), *tools])
        module = f"ke_{key[:20]}"
        fault = _refusal(request)
        if fault is not None:
            return BuildResult(False, module, log=fault[1], category=fault[0])
        entry = extensions(self.cache_dir) / key[:2] / key
        found = _read(entry, module)
        if found is not None:
            return found
        # always the cores before an entry, as one that builds while it is timed has them already: so no two wait for each other
        with self._cores.shared(), self._lock(f"ext-{key[:3]}"):
            made = _read(entry, module) or self._make(request, entry, module)
        if self._most_bytes is not None and not made.cached:
            with contextlib.suppress(OSError):  # what could not be removed now is, after a later build
                trim(self.cache_dir, self._most_bytes)
        return made

    def assemble(self, ptx: str, arch: str) -> Assembled:
        """What a kernel in PTX uses of a GPU of this compute capability (`90`). One that the assembler refuses is a result. Raises
        BuilderError."""
        try:
            with self._workdir() as work, self._cores.shared():
                _write(work / "kernel.ptx", ptx)
                command = ptxas.command(arch, "kernel.ptx", "kernel.o")
                outcome = run(command, work, self._limits, self.toolchain.readable, staged=False)
        except (OSError, subprocess.SubprocessError) as error:
            raise BuilderError(f"nothing can be assembled in {self.cache_dir}: {error}") from error
        if outcome.end is End.OK:
            return ptxas.read(outcome.log)
        gave_up = f"the assembler gave up: the kernel needs more than {self._limits}\n" if outcome.end is End.LIMITS else ""
        return Assembled(False, log=gave_up + outcome.log)

    def prelude(self, name: str = FULL) -> Path | None:
        """Directory of a precompiled prelude, made now if it is not there.

        None when our headers do not compile with this torch (remembered in the cache): builds are then slower, never different.
        Raises BuilderError.
        """
        key = self._key(name, [])[:32]
        home = self.cache_dir / "prelude" / key
        state = _state(home)
        if state is None:
            with self._cores.shared(), self._lock(f"prelude-{key}"):
                state = _state(home) or self._make_prelude(name, home)
        touch(home)
        return home if state == "ready" else None

    def _key(self, kind: str, content: list[object]) -> str:
        """SHA-256, in hexadecimal, over everything that decides what a build yields."""
        parts = [kind, self.toolchain.identity, DEFAULT_FLAGS, BASE_FLAGS, content]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _run(self, command: list[str], work: Path, limits: Limits, spent: Spent) -> Outcome:
        """The caller holds the cores."""
        staged = command[0] == self.toolchain.compiler
        preludes, ours = str(self.cache_dir / "prelude"), () if staged else (str(nvcc.toolkit().home),)
        headers = (str(work), str(INCLUDE), preludes, *map(str, self.toolchain.include_dirs), *ours)
        return run(command, work, limits, (*self.toolchain.readable, preludes, *ours), spent=spent, headers=headers, staged=staged)

    # -------------------------------------------------------------- cache

    @contextlib.contextmanager
    def _workdir(self) -> Iterator[Path]:
        """A directory to make an entry in, removed at the end."""
        home = self.cache_dir / "tmp"
        home.mkdir(parents=True, exist_ok=True)
        for old in home.iterdir():
            with contextlib.suppress(OSError):  # another process may be removing it too
                if time.time() - old.stat().st_mtime > LEFTOVER_S:
                    shutil.rmtree(old, ignore_errors=True)
        work = Path(tempfile.mkdtemp(dir=home))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Exclusive across processes; the kernel releases it when its holder dies."""
        locks = self.cache_dir / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with open(locks / name, "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    # -------------------------------------------------------------- making

    def _limits_of(self, request: BuildRequest) -> Limits:
        """CUDA's compiler reads torch's headers once for the host and once for each GPU (which the candidate does not choose), and
        takes 190 s for one unit with all of them."""
        times = 1 + 2 * len(request.archs) if request.is_cuda else 1
        limits = self._limits
        return replace(limits, build_cpu_s=times * limits.build_cpu_s, build_s=times * limits.build_s)

    def _make(self, request: BuildRequest, entry: Path, module: str) -> BuildResult:
        started, spent = time.perf_counter(), Spent()
        with self._workdir() as work:
            category, log = self._attempted(request, work, module, spent)
            if category == "compile":
                log = bindings.explained(log, request.functions)
            elif category == "limits":
                log = f"the compiler gave up: the source needs more than {self._limits_of(request)}\n{log}"
            finished, imports = work / "+entry", tuple[str, ...]()
            finished.mkdir()
            if not category and (work / f"{module}.so").stat().st_size > MOST_LIBRARY_BYTES:
                category, log = "limits", f"the extension is larger than {MOST_LIBRARY_BYTES >> 20} MiB"
            if not category:
                try:
                    symbols = imported((work / f"{module}.so").read_bytes())
                    imports = tuple(sorted(symbols - self.toolchain.system_symbols))
                except Unreadable as error:
                    category, log = "link", str(error)
            if not category:
                (work / f"{module}.so").rename(finished / f"{module}.so")
            _describe(finished, module, category, log, imports, is_cuda=request.is_cuda)
            _publish(finished, entry)
        made = _read(entry, module)
        assert made is not None
        return replace(made, cached=False, build_ms=(time.perf_counter() - started) * 1e3, cpu_s=spent.cpu_s)

    def _attempted(self, request: BuildRequest, work: Path, module: str, spent: Spent) -> tuple[Category, str]:
        """The quickest way that compiles it, or the last one's complaint."""
        text = _text(request)
        if _NEEDS_STOCK.search(text):
            return self._compile_and_link(request, work, module, STOCK, spent)
        if _is_slim(text):
            category, log = self._compile_and_link(request, work, module, SLIM, spent)
            if category != "compile" or (request.is_cuda and nvcc.is_own_error(log)):
                return category, log
        category, log = self._compile_and_link(request, work, module, FULL, spent)
        if category == "compile" and bindings.needs_pybind(log, request.functions):
            return self._compile_and_link(request, work, module, STOCK, spent)
        return category, log

    def _compile_and_link(self, request: BuildRequest, work: Path, module: str, name: str, spent: Spent) -> tuple[Category, str]:
        """With the prelude of that name, or with plain stock headers where that does not compile. Leaves `module`.so in `work`.

        Answers what failed ("" when nothing did) and the log, without paths of this machine.
        """
        tools, log, prelude = self.toolchain, "", self.prelude(name)
        quick = name != STOCK and prelude is not None
        compile_unit = self._unit_command(effective_flags(request.compile_flags), quick=quick)
        compile_unit += ["-include", str(prelude / name)] if prelude else []
        if request.is_cuda:
            shim = [f"-I{INCLUDE / 'cuda_shim'}"] if quick else []
            compile_unit += [*shim, "-isystem", str(nvcc.toolkit().home / "include"), *self._cuda_defines]
        units = _write_units(request, work, module, quick=quick)
        objects = [f"{unit}.o" for unit in units]
        named = f"-DTORCH_EXTENSION_NAME={module}"
        steps: list[tuple[Category, list[str]]] = [
            *(
                ("compile", self._cuda_command(request, unit, name if quick else "", named))
                if unit.endswith(".cu")
                else ("compile", [*compile_unit, named, "-c", unit, "-o", f"{unit}.o"])
                for unit in units
            ),
            ("link", [tools.compiler, "-shared", *objects, "-o", f"{module}.so", *self._link_flags(request)]),
        ]
        hidden = (work, INCLUDE / "cuda_shim", INCLUDE / "shim", INCLUDE, *((prelude,) if prelude else ()), *tools.include_dirs)
        for step, command in steps:
            outcome = self._run(command, work, self._limits_of(request), spent)
            log = (log + without_paths(outcome.log, hidden))[:LOG_BYTES]
            if outcome.end is not End.OK:
                return ("limits" if outcome.end is End.LIMITS else step), log
        return "", log

    def _cuda_command(self, request: BuildRequest, unit: str, prelude: str, named: str) -> list[str]:
        """The headers of a prelude are read each time: nvcc knows no precompiled ones."""
        shims = [f"-I{INCLUDE / name}" for name in ("cuda_shim", "shim")]
        ours = [*shims, f"-I{INCLUDE}", "-include", str(INCLUDE / prelude)] if prelude else []
        system = [word for path in self.toolchain.include_dirs for word in ("-isystem", str(path))]
        flags, _ = nvcc.checked(request.cuda_flags)
        includes = [*self.toolchain.defines, *self._cuda_defines, named, *ours, *system]
        return nvcc.command(nvcc.toolkit(), request.archs, flags, includes, unit, f"{unit}.o")

    @property
    def _cuda_defines(self) -> tuple[str, ...]:
        """A CPU build of torch has the CUDA headers, but not one that is generated for a CUDA build."""
        generated = self.toolchain.torch_dir / "include/c10/cuda/impl/cuda_cmake_macros.h"
        return () if generated.exists() else ("-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE",)

    def _link_flags(self, request: BuildRequest) -> list[str]:
        """With CUDA's runtime, and torch's part for it where it has one: what a CPU build of torch lacks stays open."""
        flags = [*self.toolchain.link_flags, *linking_flags(request.link_flags)]
        if request.is_cuda:
            lib = self.toolchain.torch_dir / "lib"
            torchs = ["-lc10_cuda", "-ltorch_cuda"] if (lib / "libc10_cuda.so").exists() else []
            where = [f"-L{nvcc.toolkit().home / name}" for name in ("lib64", "lib")]
            flags += [*where, "-lcudart_static", "-lrt", "-ldl", "-lpthread", *torchs]
        return flags

    def _unit_command(self, flags: tuple[str, ...], *, quick: bool) -> list[str]:
        tools = self.toolchain
        ours = (f"-I{INCLUDE / 'shim'}", f"-I{INCLUDE}") if quick else ()
        system = (f"-isystem{path}" for path in tools.include_dirs)
        return [tools.compiler, *DEFAULT_FLAGS, *BASE_FLAGS, *tools.defines, *ours, *system, *flags]

    def _make_prelude(self, name: str, home: Path) -> str:
        """The state of what was made: `ready`, or `failed` and the compiler's words."""
        with self._workdir() as work:
            shutil.copy(INCLUDE / name, work)
            command = self._unit_command(("-x", "c++-header", name, "-o", f"{name}.gch"), quick=name != STOCK)
            outcome = self._run(command, work, OUR_LIMITS, Spent())
            if outcome.end is End.LIMITS:
                raise BuilderError(f"precompiling the headers needs more than {OUR_LIMITS}: {outcome.log.strip()[:200]}")
            if "Permission denied" in outcome.log:  # the fence leaves out what the compiler needs: its own headers name no other
                raise BuilderError(f"the compiler may not read its own files: {outcome.log.strip()[:200]}")
            state = "ready" if outcome.end is End.OK else f"failed\n{outcome.log}"
            finished = work / "+entry"
            finished.mkdir()
            for made in work.glob(f"{name}*"):
                made.rename(finished / made.name)
            _write(finished / "state", state)
            _publish(finished, home)
        return state


def _refusal(request: BuildRequest) -> tuple[Category, str] | None:
    """Category and reason of a request that reaches no compiler."""
    if not request.sources:
        return "compile", "there is no source to compile"
    if request.is_cuda and not request.archs:
        return "compile", "CUDA sources are not compiled for this back end"
    if len(request.sources) > MOST_SOURCES:
        return "compile", f"{len(request.sources)} source files; at most {MOST_SOURCES} are compiled into one extension"
    flag = refused_flag(request.compile_flags, request.link_flags)
    if flag is not None:
        return "flag", f"compiler flag not allowed: {flag[:200]}"
    if len(" ".join((*request.compile_flags, *request.link_flags, *request.cuda_flags))) > MOST_FLAG_CHARS:
        return "flag", f"compiler flags of more than {MOST_FLAG_CHARS} characters"
    flag = nvcc.checked(request.cuda_flags)[1]
    if flag is not None:
        return "flag", f"CUDA compiler flag not allowed: {flag[:200]}"
    name = bindings.refused_name(request.functions)
    if name is not None:
        return "functions", f"functions names {name!r}, which is not the name of a C++ function"
    return None


def _words(flags: tuple[str, ...]) -> tuple[str, ...]:
    """As a shell, by way of which torch hands them on, takes them: none of an empty one, several of one with blanks in it."""
    return tuple(word for flag in flags for word in flag.split())


def _is_slim(text: str) -> bool:
    """Whether the slim prelude has what a source names of torch."""
    return all(map(_SLIM_NAMES.fullmatch, _NAMED.findall(text))) and all(map(_SLIM_HEADERS.fullmatch, _INCLUDED.findall(text)))


def _text(request: BuildRequest) -> str:
    return "\n".join(text for _, text in request.sources)


def _write_units(request: BuildRequest, work: Path, module: str, *, quick: bool) -> list[str]:
    """One file a translation unit, the bindings at the end of the last; returns their names."""
    units = []
    for index, (name, text) in enumerate(request.sources):
        last = index == len(request.sources) - 1
        tail = bindings.source(request.functions, module, quick=quick) if last else ""
        shown, kind = _plain_name(name), "cu" if name.endswith(".cu") else "cpp"
        head = nvcc.HEAD if kind == "cu" else "" if quick else "#include <torch/extension.h>\n"
        _write(work / shown, text)  # so that diagnostics can quote its lines
        _write(work / f"+{index}.{kind}", f'{head}#line 1 "{shown}"\n{text}\n{tail}')
        units.append(f"+{index}.{kind}")
    return units


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="replace", newline="")


def _plain_name(name: str) -> str:
    """A file name that cannot break out of a #line directive or of a directory, and is none of ours (they start with +)."""
    return re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[-80:].lstrip(".-") or "candidate.cpp"


def _read(entry: Path, module: str) -> BuildResult | None:
    """The finished entry; None when there is none or it is damaged (the next build then replaces it)."""
    library = entry / f"{module}.so"
    try:
        meta = json.loads((entry / "meta.json").read_text(encoding="utf-8"))
        if not meta["category"] and hashlib.sha256(library.read_bytes()).hexdigest() != meta["sha256"]:
            return None
        touch(entry)
        path = "" if meta["category"] else str(library)
        ok, imports = not meta["category"], tuple(meta["imports"])
        resources = tuple(Resources(**row) for row in meta["resources"])
        return BuildResult(ok, module, path, meta["log"], meta["category"], cached=True, imports=imports, resources=resources)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _describe(finished: Path, module: str, category: Category, log: str, imports: tuple[str, ...], *, is_cuda: bool) -> None:
    """Write meta.json beside the library, if there is one."""
    sha256 = "" if category else hashlib.sha256((finished / f"{module}.so").read_bytes()).hexdigest()
    resources = [asdict(used) for used in nvcc.read(log)] if is_cuda and not category else []
    log = nvcc.without_resources(log) if is_cuda else log
    meta = {"category": category, "sha256": sha256, "log": log, "imports": imports, "resources": resources}
    (finished / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _publish(finished: Path, target: Path) -> None:
    """Put a complete directory into its place, over a damaged one. The caller holds the lock of `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    finished.rename(target)


def _state(home: Path) -> str | None:
    """`ready` or `failed ...` of a prelude; None when there is none."""
    try:
        state = (home / "state").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return state if state.startswith(("ready", "failed")) else None

"""Builds one extension: content-addressed, identical builds happen once, a killed build leaves nothing that is used.

The cache is a directory of finished entries. Each entry is made in a directory of its own and renamed into place, under a
lock file for its key, so any number of processes share it and any of them may be killed at any moment.

Two ways to compile. The quick one puts small headers of ours in front of `torch/extension.h` (a precompiled prelude and
bindings without pybind11: about 2 s instead of 25). Sources that need the stock headers are compiled with them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from kernel_env.builder.toolchain import BASE_FLAGS, DEFAULT_FLAGS, INCLUDE, Toolchain, refused_flag, toolchain
from kernel_env.errors import BuilderError
from kernel_env.hostlock import CoresLock

CPU_LIMIT_S = 120
"""CPU seconds for one compiler process: a template bomb ends as a build error on a busy machine as on an idle one."""
MEMORY_LIMIT_BYTES = 6 << 30
LOG_LIMIT = 64_000

_NEEDS_STOCK = re.compile(
    r"\b(pybind11|PYBIND11_\w+|py\s*::|TORCH_LIBRARY\w*|torch\s*::\s*(nn|optim|autograd|jit|data|serialize|python)\b)|#\s*include\s*<(torch/(csrc|library|script)|pybind11)"
)
_MISSING_NAME = re.compile(
    r"kernel_env_bind: unsupported type|is not a member of .(torch|at|c10|pybind11)|(py|pybind11). has not been declared|no matching function for call to .(torch|at|c10)::"
)


@dataclass(frozen=True)
class BuildRequest:
    """What a candidate asked `load_inline` or `load` for."""

    sources: tuple[tuple[str, str], ...]
    """(file name, text) of each translation unit."""
    functions: tuple[tuple[str, str], ...] = ()
    """(name, docstring) to bind; empty when the source brings its own bindings."""
    compile_flags: tuple[str, ...] = ()
    link_flags: tuple[str, ...] = ()

    def key(self, identity: str) -> str:
        text = json.dumps([identity, asdict(self), DEFAULT_FLAGS, BASE_FLAGS], sort_keys=True)
        return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True)
class BuildResult:
    """`path` is a Python extension module named `module` when `ok`; otherwise `log` is the compiler's own words."""

    ok: bool
    module: str
    path: str = ""
    log: str = ""
    category: Literal["", "compile", "link", "limits", "flag"] = ""
    cached: bool = False
    build_ms: float = 0.0


@dataclass(frozen=True)
class _Outcome:
    """One compiler run."""

    ok: bool
    log: str
    limits: bool = False


class Builder:
    """Compiles C++ extensions into `cache_dir`. Safe to use from any number of processes at once."""

    def __init__(self, cache_dir: Path, cores: CoresLock | None = None) -> None:
        self.cache_dir = cache_dir
        self._cores = cores or CoresLock()
        self._toolchain: Toolchain | None = None

    @property
    def toolchain(self) -> Toolchain:
        self._toolchain = self._toolchain or toolchain()
        return self._toolchain

    def build(self, request: BuildRequest) -> BuildResult:
        """Return the finished entry for `request`, compiling it if no one has.

        A source that does not compile is a result, not an exception. Raises BuilderError when the compiler is missing or was killed.
        """
        key = request.key(self.toolchain.identity)
        module = f"ke_{key[:20]}"
        flag = refused_flag(request.compile_flags, request.link_flags)
        if flag is not None:
            return BuildResult(False, module, log=f"compiler flag not allowed: {flag}", category="flag")
        entry = self.cache_dir / "ext" / key[:2] / key
        found = self._read(entry, module)
        if found is not None:
            return found
        with self._lock(f"ext-{key}"):
            found = self._read(entry, module)
            if found is not None:
                return found
            return self._compile(request, entry, module)

    def prelude(self) -> Path | None:
        """Directory of the precompiled prelude, made now if it is not there.

        None when it could not be made here (the failure is remembered in the cache); builds are then slower, never different.
        """
        identity = hashlib.sha256(f"{self.toolchain.identity} {DEFAULT_FLAGS} {BASE_FLAGS}".encode()).hexdigest()
        home = self.cache_dir / "prelude" / identity[:32]
        if (home / "state").exists():
            return home if (home / "state").read_text() == "ready" else None
        with self._lock(f"prelude-{identity[:32]}"):
            if (home / "state").exists():
                return home if (home / "state").read_text() == "ready" else None
            work = self._workdir()
            shutil.copy(INCLUDE / "kernel_env_prelude.h", work)
            header = str(work / "kernel_env_prelude.h")
            outcome = self._run(work, [*self._compile_command((), shim=True), "-x", "c++-header", header, "-o", f"{header}.gch"])
            (work / "state").write_text("ready" if outcome.ok else f"failed\n{outcome.log}")
            self._publish(work, home)
        return home if outcome.ok else None

    # -------------------------------------------------------------- cache

    def _read(self, entry: Path, module: str) -> BuildResult | None:
        try:
            meta = json.loads((entry / "meta.json").read_text())
            if not meta["ok"]:
                return BuildResult(False, module, log=meta["log"], category=meta["category"], cached=True)
            library = entry / f"{module}.so"
            if hashlib.sha256(library.read_bytes()).hexdigest() == meta["sha256"]:
                return BuildResult(True, module, path=str(library), log=meta["log"], cached=True)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, OSError):
            pass
        shutil.rmtree(entry, ignore_errors=True)  # damaged: make it again
        return None

    def _publish(self, work: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        os.chmod(work, 0o755)
        os.rename(work, target)

    def _workdir(self) -> Path:
        tmp = self.cache_dir / "tmp"
        tmp.mkdir(parents=True, exist_ok=True)
        for old in tmp.iterdir():  # what killed builds left behind
            with contextlib.suppress(OSError):
                if time.time() - old.stat().st_mtime > 3600:
                    shutil.rmtree(old, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=tmp))

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        """Exclusive across processes; the kernel releases it when its holder dies."""
        locks = self.cache_dir / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with open(locks / name, "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    # -------------------------------------------------------------- compiling

    def _compile(self, request: BuildRequest, entry: Path, module: str) -> BuildResult:
        start = time.perf_counter()
        text = "\n".join(source for _, source in request.sources)
        quick = not _NEEDS_STOCK.search(text)
        result = self._attempt(request, entry, module, quick)
        if not result.ok and quick and result.category == "compile" and _MISSING_NAME.search(result.log):
            result = self._attempt(request, entry, module, quick=False)
        return BuildResult(
            result.ok, module, result.path, result.log, result.category, build_ms=(time.perf_counter() - start) * 1e3
        )

    def _attempt(self, request: BuildRequest, entry: Path, module: str, quick: bool) -> BuildResult:
        work = self._workdir()
        try:
            outcome, category = self._compile_and_link(request, work, module, quick)
            if outcome.ok:
                digest = hashlib.sha256((work / f"{module}.so").read_bytes()).hexdigest()
                meta = {"ok": True, "sha256": digest, "log": outcome.log}
            else:
                meta = {"ok": False, "log": outcome.log, "category": "limits" if outcome.limits else category}
            for path in work.iterdir():
                if path.suffix != ".so":
                    path.unlink()
            (work / "meta.json").write_text(json.dumps(meta))
            self._publish(work, entry)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if not outcome.ok:
            return BuildResult(False, module, log=outcome.log, category="limits" if outcome.limits else category)
        return BuildResult(True, module, path=str(entry / f"{module}.so"), log=outcome.log)

    def _compile_and_link(
        self, request: BuildRequest, work: Path, module: str, quick: bool
    ) -> tuple[_Outcome, Literal["compile", "link"]]:
        objects, log = [], ""
        prelude = self.prelude() if quick else None
        for index, (name, text) in enumerate(request.sources):
            bindings = _bindings(request.functions, module, quick) if index == len(request.sources) - 1 else ""
            path = work / f"unit{index}.cpp"
            head = "" if quick else "#include <torch/extension.h>\n"
            path.write_text(f'{head}#line 1 "{_plain_name(name)}"\n{text}\n{bindings}', errors="replace")
            unit = [*self._compile_command(request.compile_flags, quick, prelude), f"-DTORCH_EXTENSION_NAME={module}"]
            outcome = self._run(work, [*unit, "-c", path.name, "-o", f"unit{index}.o"])
            log += outcome.log
            if not outcome.ok:
                return _Outcome(False, log[:LOG_LIMIT], outcome.limits), "compile"
            objects.append(f"unit{index}.o")
        tools = self.toolchain
        command = [
            tools.compiler,
            "-shared",
            *objects,
            "-o",
            f"{module}.so",
            "-Wl,--no-undefined",
            *tools.link_flags,
            *_python_link(),
        ]
        outcome = self._run(work, [*command, *request.link_flags])
        return _Outcome(outcome.ok, (log + outcome.log)[:LOG_LIMIT], outcome.limits), "link"

    def _compile_command(self, flags: tuple[str, ...], shim: bool, prelude: Path | None = None) -> list[str]:
        tools = self.toolchain
        command = [tools.compiler, *DEFAULT_FLAGS, *BASE_FLAGS, *tools.defines]
        if shim:
            command += [f"-I{INCLUDE / 'shim'}", f"-I{INCLUDE}"]
        command += [*tools.include_flags, *flags]
        if prelude is not None:
            command += ["-include", str(prelude / "kernel_env_prelude.h")]
        elif shim:
            command += ["-include", str(INCLUDE / "kernel_env_prelude.h")]
        return command

    def _run(self, work: Path, command: list[str]) -> _Outcome:
        environment = {"PATH": os.defpath + ":/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(work), "LC_ALL": "C.UTF-8"}
        try:
            with self._cores.shared():
                done = subprocess.run(
                    command, cwd=work, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    preexec_fn=_limit, check=False, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise BuilderError(f"cannot run the compiler {command[0]}: {error}") from error
        log = done.stdout.decode(errors="replace").replace(f"{work}/", "")[:LOG_LIMIT]
        limits = "Killed signal" in log or "out of memory allocating" in log or "CPU time limit exceeded" in log
        if done.returncode < 0 and done.returncode != -signal.SIGXCPU:
            raise BuilderError(
                f"the compiler was killed by {signal.Signals(-done.returncode).name}; nothing is said about the source"
            )
        return _Outcome(done.returncode == 0, log, limits or done.returncode == -signal.SIGXCPU)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _plain_name(name: str) -> str:
    """A file name that cannot break out of a #line directive."""
    return re.sub(r"[^\w.-]", "_", name)[:80] or "candidate.cpp"


def _bindings(functions: tuple[tuple[str, str], ...], module: str, quick: bool) -> str:
    if not functions:
        return ""
    head = '#line 1 "bindings.cpp"\n'
    if quick:
        rows = "".join(f"  KERNEL_ENV_FUNCTION({_c_string(name)}, {name}, {_c_string(doc)}),\n" for name, doc in functions)
        table = f"static PyMethodDef {module}_methods[] = {{\n{rows}  {{nullptr, nullptr, 0, nullptr}}}};\n"
        return f"{head}{table}KERNEL_ENV_MODULE({module}, {module}_methods)\n"
    rows = "".join(
        f"  m.def({_c_string(name)}, torch::wrap_pybind_function({name}), {_c_string(doc)});\n" for name, doc in functions
    )
    return f"{head}PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {{\n{rows}}}\n"


def _c_string(text: str) -> str:
    return json.dumps(text)


def _python_link() -> list[str]:
    """An extension's Python symbols come from the interpreter at load time."""
    return ["-Wl,--unresolved-symbols=ignore-all"]

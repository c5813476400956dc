"""What a build depends on besides its source: compiler, headers, CPU, Python and torch, and the flags we allow."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from kernel_env.builder.symbols import Unreadable, exported
from kernel_env.checks.symbols import KEPT
from kernel_env.errors import BuilderError
from kernel_env.sandbox import interpreter_paths

INCLUDE = Path(__file__).parent / "include"
DEFAULT_FLAGS = ("-O3", "-march=native", "-fopenmp")
"""Stock `load_inline` adds no optimisation at all; these come first, so a candidate's own flags override them."""
BASE_FLAGS = ("-std=c++20", "-fPIC", "-fvisibility=hidden", "-fdiagnostics-color=never", "-pipe")

_ALLOWED = re.compile(
    r"""
    -( O[0-3sgz]? | Ofast | g[0-3]? | w | pthread | pipe | std=(c|gnu)\+\+\w+ | W[\w=+-]* | m[\w.=,+-]+ | D\w+(=[\w.+-]*)? | U\w+
     | f(constexpr-(depth|loop-limit|ops-limit|cache-size) | template-depth | inline-limit | fp-contract | excess-precision
        | align-\w+ | (vect|simd)-cost-model | tree-parallelize-loops | visibility | max-errors)=[\w-]+
     | f(?!auto-profile|callgraph|compare-debug|diagnostics|directives|dump|lto|module|opt-info|pch|plugin|preprocessed|profile
          |record|save|self-test|stack-usage|syntax-only|test-coverage)[\w-]+
    )""",
    re.VERBOSE,
)
"""Any optimisation switch; not those `-f` switches that read or write files or yield no object."""
_ALLOWED_LINK = re.compile(
    r"""
    -( l(m|mvec|gomp|atomic|gcc|gcc_s|pthread|stdc\+\+|c10|torch|torch_cpu|torch_python|rt|dl) | fopenmp | pthread | O[0-3s]?
     | march=[\w-]+ | s | shared )
    """,
    re.VERBOSE,
)
_SYSTEM_LIBRARIES = (
    "libc.so.6", "libm.so.6", "libmvec.so.1", "libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1", "libatomic.so.1",
    "libpthread.so.0", "libdl.so.2", "librt.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1",
)  # fmt: skip
_NEEDED_LIBRARIES = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1"}
"""Each system that is built on has them."""
_WITHOUT_EFFECT = re.compile(r"-(std=(c|gnu)\+\+(98|03|0x|11|1y|14|1z|17|2a|20)|g[0-3]?|pipe)")
"""An older C++ than torch's headers need, and debug information: the precompiled prelude is of no use with either."""


def refused_flag(compile_flags: tuple[str, ...], link_flags: tuple[str, ...]) -> str | None:
    """The first flag that is not on an allow-list, or None. What is there for the compiler may be given to the linker as well, and
    the other way round: it is left out there.

    Flags that read or write files, load plugins or choose other programs stay out, such as
    `-I -L -B -o -x -include -fplugin= -specs= -wrapper -Wl, @file`.
    """
    flags = (*compile_flags, *link_flags)
    return next((flag for flag in flags if not _ALLOWED.fullmatch(flag) and not _ALLOWED_LINK.fullmatch(flag)), None)


def effective_flags(compile_flags: tuple[str, ...]) -> tuple[str, ...]:
    """Of allowed flags those that are the compiler's, without those that only slow a build down."""
    return tuple(flag for flag in compile_flags if _ALLOWED.fullmatch(flag) and not _WITHOUT_EFFECT.fullmatch(flag))


def linking_flags(link_flags: tuple[str, ...]) -> tuple[str, ...]:
    """Of allowed flags those that are the linker's."""
    return tuple(filter(_ALLOWED_LINK.fullmatch, link_flags))


@dataclass(frozen=True)
class Toolchain:
    """Paths and identity of everything outside the source that decides what a build yields."""

    compiler: str
    torch_dir: Path
    identity: str
    """SHA-256 over compiler version, what `-march=native` means here, torch, Python ABI and our own headers."""
    wrap_by_reference: bool

    @property
    def include_dirs(self) -> tuple[Path, ...]:
        include = self.torch_dir / "include"
        return (include, include / "torch/csrc/api/include", Path(sysconfig.get_paths()["include"]))

    @property
    def readable(self) -> tuple[str, ...]:
        """Directories that a compiler needs, besides the system's."""
        installed = Path(self.compiler).resolve().parents[1]
        return (*interpreter_paths(), *((str(installed),) if installed != Path("/") else ()))

    @property
    def defines(self) -> tuple[str, ...]:
        wrap = ("-DKERNEL_ENV_WRAP_BY_REFERENCE",) if self.wrap_by_reference else ()
        return ("-DTORCH_API_INCLUDE_EXTENSION_H", *wrap)

    @property
    def link_flags(self) -> tuple[str, ...]:
        """Python's own symbols stay open: the interpreter brings them when it loads the extension."""
        return (f"-L{self.torch_dir / 'lib'}", "-lc10", "-ltorch_cpu", "-ltorch", "-ltorch_python", "-fopenmp", "-Wl,-Bsymbolic")

    @functools.cached_property
    def system_symbols(self) -> frozenset[str]:
        """What the system's libraries define, which each extension is linked with, and matters to nobody. Raises BuilderError."""
        found, missing = set[str](), set(_NEEDED_LIBRARIES)
        try:
            for name in _SYSTEM_LIBRARIES:
                command = [self.compiler, f"-print-file-name={name}"]
                path = Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
                if path.is_absolute():  # else this system has none of that name
                    found |= exported(path.read_bytes())
                    missing.discard(name)
        except (OSError, subprocess.SubprocessError, Unreadable) as error:
            raise BuilderError(f"the libraries of {self.compiler} cannot be read: {error}") from error
        if missing:  # all that an extension takes of them would look like a library's
            raise BuilderError(f"{self.compiler} finds no {', '.join(sorted(missing))}: extensions need GCC and the GNU C library")
        return frozenset(found - KEPT)


@functools.cache
def toolchain() -> Toolchain:
    """Probe this machine once. Raises BuilderError when there is no compiler, torch or Python header."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise BuilderError("no C++ compiler: install g++ (for example `apt-get install g++`), then run the same command again")
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        raise BuilderError("torch is not installed in this Python: run `pip install torch`")
    torch_dir = Path(spec.origin).parent
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        raise BuilderError("Python.h is missing: install the Python headers (for example `apt-get install python3-dev`)")
    header = (torch_dir / "include/torch/csrc/autograd/python_variable.h").read_text()
    version = (torch_dir / "version.py").read_text()
    digest = hashlib.sha256()
    for part in (_compiler_identity(compiler), version, str(torch_dir), sys.version, sysconfig.get_paths()["include"]):
        digest.update(part.encode() + b"\0")
    for path in sorted(INCLUDE.rglob("*.h")):
        digest.update(path.read_bytes() + b"\0")
    return Toolchain(compiler, torch_dir, digest.hexdigest(), "THPVariable_Wrap(const at::TensorBase&" in header)


@functools.cache
def code_identity() -> str:
    """SHA-256 over the builder's own code: what an older version made or said is not used by a newer one."""
    digest = hashlib.sha256(" ".join(sorted(KEPT)).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()


def _compiler_identity(compiler: str) -> str:
    """Version and the concrete options behind `-march=native`."""
    command = [compiler, "-march=native", "-Q", "--help=target", "--version"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        words = error.stderr.strip()[:200] if isinstance(error, subprocess.CalledProcessError) else str(error)
        raise BuilderError(f"{' '.join(command)} fails, so {compiler} is not a working GCC: {words}") from error

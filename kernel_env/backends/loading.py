"""What a runner does around a candidate's module: its compiler calls go to the Builder.

Imported by runners only (it imports torch).
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

_log = logging.getLogger("torch.utils.cpp_extension")
_log.disabled = True  # torch's CUDA build would say at each start, on a machine without a GPU, that there is none
import torch.utils.cpp_extension as cpp_extension  # noqa: E402

_log.disabled = False

_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"[^\n]*$', re.MULTILINE)
_ONCE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+once\b[^\n]*$", re.MULTILINE)
BuildFunction = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes a build request as JSON; answers {"ok", "module", "path"} or {"ok": False, "log"}."""


class BuildFailed(RuntimeError):
    """The compiler refused the candidate's source; the text is the compiler's log."""


class NeedsGpu(RuntimeError):
    """A function of a CUDA extension was called where none can run."""


class CompiledOnly(ModuleType):
    """Stands for an extension with CUDA kernels, which was compiled and cannot run here. It has any function that is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments: Any, **named: Any) -> Any:
            raise NeedsGpu(f"{name}() runs CUDA kernels, and no GPU can be used here")

        return call


@contextlib.contextmanager
def routed_builds(
    build: BuildFunction, loaded: Callable[[ModuleType | None], None] = lambda module: None, *, cuda: bool = False
) -> Iterator[None]:
    """While active, `load_inline` and `load` of torch.utils.cpp_extension ask `build` instead of running a compiler. `loaded` is
    told of each extension: its module, or None where it only registers operators. With `cuda` sources may be CUDA's."""
    kept = cpp_extension.load_inline, cpp_extension.load
    router = _Router(build, loaded, cuda)
    cpp_extension.load_inline, cpp_extension.load = router.load_inline, router.load
    try:
        yield
    finally:
        cpp_extension.load_inline, cpp_extension.load = kept


class _Router:
    def __init__(self, build: BuildFunction, loaded: Callable[[ModuleType | None], None], cuda: bool) -> None:
        self._build, self._loaded, self._cuda = build, loaded, cuda

    def load_inline(
        self,
        name: str,
        cpp_sources: str | Sequence[str],
        cuda_sources: str | Sequence[str] | None = None,
        sycl_sources: str | Sequence[str] | None = None,
        functions: str | Sequence[str] | Mapping[str, str] | None = None,
        extra_cflags: Sequence[str] | None = None,
        extra_cuda_cflags: Sequence[str] | None = None,
        extra_sycl_cflags: Sequence[str] | None = None,
        extra_ldflags: Sequence[str] | None = None,
        extra_include_paths: Sequence[str] | None = None,
        build_directory: str | None = None,
        verbose: bool = False,
        with_cuda: bool | None = None,
        with_sycl: bool | None = None,
        is_python_module: bool = True,
        with_pytorch_error_handling: bool = True,
        keep_intermediates: bool = True,
        use_pch: bool = False,
        no_implicit_headers: bool = False,
    ) -> Any:
        """Same parameters as torch's own. Sources of a language are joined into one translation unit, as torch does."""
        if sycl_sources or ((cuda_sources or with_cuda) and not self._cuda):
            what = "C++ and CUDA" if self._cuda else "C++"
            raise BuildFailed(
                f"this back end builds {what} only: {'' if self._cuda else 'cuda_sources and '}sycl_sources are not available"
            )
        _refuse_paths(extra_include_paths)
        sources = [(f"{name}.cu", _joined(cuda_sources))] if cuda_sources else []
        sources.append((f"{name}.cpp", _joined(cpp_sources)))
        return self._load(name, sources, _functions(functions), extra_cflags, extra_ldflags, is_python_module, extra_cuda_cflags)

    def load(
        self,
        name: str,
        sources: str | Sequence[str],
        extra_cflags: Sequence[str] | None = None,
        extra_cuda_cflags: Sequence[str] | None = None,
        extra_sycl_cflags: Sequence[str] | None = None,
        extra_ldflags: Sequence[str] | None = None,
        extra_include_paths: Sequence[str] | None = None,
        build_directory: str | None = None,
        verbose: bool = False,
        with_cuda: bool | None = None,
        with_sycl: bool | None = None,
        is_python_module: bool = True,
        is_standalone: bool = False,
        keep_intermediates: bool = True,
    ) -> Any:
        """Same parameters as torch's own. The files are read here, in the runner, with the candidate's own rights."""
        _refuse_paths(extra_include_paths)
        paths = [Path(p) for p in ([sources] if isinstance(sources, str) else sources)]
        kinds = (".cpp", ".cc", ".cxx", ".c", *((".cu",) if self._cuda else ()))
        if any(p.suffix not in kinds for p in paths):
            raise BuildFailed(f"this back end builds {' and '.join(('C++', 'CUDA')[: 1 + self._cuda])} only: not all sources are")
        texts = [(p.name, _with_headers(p, set())) for p in paths]
        return self._load(name, texts, [], extra_cflags, extra_ldflags, is_python_module, extra_cuda_cflags)

    def _load(
        self,
        name: str,
        sources: list[tuple[str, str]],
        functions: list[tuple[str, str]],
        compile_flags: Sequence[str] | None,
        link_flags: Sequence[str] | None,
        is_python_module: bool,
        cuda_flags: Sequence[str] | None = None,
    ) -> Any:
        answer = self._build(
            {
                "sources": [[str(n), str(t)] for n, t in sources],
                "functions": [[str(n), str(d)] for n, d in functions],
                "compile_flags": [str(f) for f in compile_flags or ()],
                "link_flags": [str(f) for f in link_flags or ()],
                "cuda_flags": [str(f) for f in cuda_flags or ()],
            }
        )
        if not answer["ok"]:
            raise BuildFailed(answer["log"])
        if any(file.endswith(".cu") for file, _ in sources):
            self._loaded(None)
            return CompiledOnly(answer["module"])
        if not is_python_module:
            torch.ops.load_library(answer["path"])  # type: ignore[no-untyped-call]
            self._loaded(None)
            return answer["path"]
        library = Path(answer["path"]).read_bytes()
        ours = f"PyInit_{answer['module']}\0".encode() in library
        called = name if not ours and f"PyInit_{name}\0".encode() in library else answer["module"]  # bindings named by hand
        loader = importlib.machinery.ExtensionFileLoader(called, answer["path"])
        spec = importlib.util.spec_from_loader(called, loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        self._loaded(module)
        return module


def _with_headers(path: Path, once: set[Path], depth: int = 0) -> str:
    """A file's text, with the files beside it that it includes put in their place: the Builder takes single files. Those that are
    to be read `once` are."""

    def text(match: re.Match[str]) -> str:
        beside = (path.parent / match[1]).resolve()
        if beside in once:
            return ""
        return _with_headers(beside, once, depth + 1) if depth < 8 and beside.is_file() else match[0]

    content = path.read_text()
    if _ONCE.search(content):
        once.add(path.resolve())
        content = _ONCE.sub("", content)
    return _INCLUDE.sub(text, content)


def _joined(sources: str | Sequence[str]) -> str:
    return "\n".join([sources] if isinstance(sources, str) else sources)


def _functions(functions: str | Sequence[str] | Mapping[str, str] | None) -> list[tuple[str, str]]:
    if functions is None:
        return []
    if isinstance(functions, str):
        return [(functions, functions)]
    return list(functions.items()) if isinstance(functions, Mapping) else [(f, f) for f in functions]


def _refuse_paths(paths: Sequence[str] | None) -> None:
    if paths:
        raise BuildFailed("extra_include_paths is not available: put everything into the sources")

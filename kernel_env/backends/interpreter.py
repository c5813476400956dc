"""Triton's interpreter as a back end: what it cannot run is recognised by where an error was raised, never by its text.

`prepare` runs once in the zygote's interpreting flavour. It replaces functions that exist on a GPU only by stand-ins that raise
`DeviceOnly` (Triton's own stubs return None, and the error then shows anywhere or nowhere), and makes `@triton.autotune` take
its first configuration, for there is no driver to time the others with.

Imported by runners only.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import operator
import traceback
from collections.abc import Callable, Iterator
from types import FrameType, ModuleType
from typing import Any, NoReturn

_EXTRAS = (
    "libdevice", "cuda", "cuda.libdevice", "cuda.utils", "cuda.gdc", "hip", "hip.libdevice", "hip.utils",
)  # fmt: skip
_DEVICE_MODULES = ("torch.cuda", "triton.runtime.driver", "triton.backends")


class DeviceOnly(Exception):
    """A function that exists on a GPU only was called."""


def prepare() -> None:
    """Change the interpreter as described above. Call it before any candidate is imported."""
    import triton
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.interpreter import InterpreterBuilder

    Autotuner._bench = lambda self, *args, config, **meta: [0.0, 0.0, 0.0]  # all equal: the first configuration wins
    modules: set[ModuleType] = set()
    for name in _EXTRAS:  # Triton holds two module objects for some of them: by import, and as an attribute
        try:
            modules.add(importlib.import_module(f"triton.language.extra.{name}"))
            modules.add(operator.attrgetter(f"language.extra.{name}")(triton))
        except (ImportError, AttributeError):  # another version of Triton
            continue
    for module in modules:
        for name, value in list(vars(module).items()):
            if callable(value) and not inspect.isclass(value) and not name.startswith("_"):
                setattr(module, name, _stand_in(f"{module.__name__}.{name}"))
    _keep_truth_values(InterpreterBuilder)
    for name in ("create_extern_elementwise", "create_inline_asm"):
        setattr(InterpreterBuilder, name, _stand_in(name))


def _keep_truth_values(builder: Any) -> None:
    """A scalar comparison that is spread over a block (`mask & (row < rows)`) stays a truth value: Triton 3.9 makes it an int32,
    which no load takes as a mask, although GPUs do."""
    spread = builder.create_splat

    def create_splat(self: Any, kind: Any, argument: Any) -> Any:
        made = spread(self, kind, argument)
        if argument.data.dtype == bool:
            made.data = made.data.astype(bool)
        return made

    builder.create_splat = create_splat


def _stand_in(name: str) -> Callable[..., NoReturn]:
    def device_only(*arguments: Any, **options: Any) -> NoReturn:
        raise DeviceOnly(f"{name} exists on a GPU only")

    return device_only


def needs_device(error: BaseException, source: str, module: str, *, launched: bool = False) -> bool:
    """Whether the machine, not the kernel, is at fault. `source` and `module` are the candidate's text and module name. One that
    has `launched` a kernel here does not ask for a GPU any more: its assertion may be about what came of it."""
    from triton.runtime.errors import InterpreterError
    from triton.runtime.interpreter import InterpreterBuilder

    for cause in causes(error):
        if isinstance(cause, DeviceOnly):
            return True
        if isinstance(cause, InterpreterError):  # only wraps what a kernel raised
            continue
        if isinstance(cause, AttributeError) and isinstance(cause.obj, InterpreterBuilder):
            return True
        frames = list(traceback.walk_tb(cause.__traceback__))
        if frames and _of_a_device(*frames[-1], source, module, launched):
            return True
    return False


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it was raised from, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _of_a_device(frame: FrameType, line: int, source: str, module: str, launched: bool) -> bool:
    raising = str(frame.f_globals.get("__name__", ""))
    if any(raising == name or raising.startswith(f"{name}.") for name in _DEVICE_MODULES):
        return True
    if raising == "torch._utils":  # stand-ins of torch's own for classes that only a CUDA build has
        return frame.f_code.co_qualname.startswith("_dummy_type.")
    return raising == module and not launched and _is_device_guard(source, line)


def _is_device_guard(source: str, line: int) -> bool:
    """Whether `line` is the candidate's own check for a GPU: `assert x.is_cuda`, or `if x.device.type != "cuda": raise ...`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert) and _within(node, line) and _mentions_cuda(node.test):
            return True
        if (
            isinstance(node, ast.If)
            and _mentions_cuda(node.test)
            and any(isinstance(b, ast.Raise) and _within(b, line) for b in node.body)
        ):
            return True
    return False


def _within(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def _mentions_cuda(test: ast.expr) -> bool:
    return any(
        (isinstance(n, ast.Attribute) and n.attr == "is_cuda") or (isinstance(n, ast.Constant) and n.value == "cuda")
        for n in ast.walk(test)
    )

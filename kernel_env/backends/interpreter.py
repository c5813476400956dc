"""Triton's interpreter as a back end: what it cannot run is recognised by where an error was raised, never by its text.

`prepare` runs once in the zygote's interpreting flavour. It replaces functions that exist on a GPU only by stand-ins that raise
`DeviceOnly` (Triton's own stubs return None, and the error then shows anywhere or nowhere), makes `@triton.autotune` take
its first configuration, for there is no driver to time the others with, and has torch.cuda answer what programs ask around a
launch and that means nothing here: waiting for a device, choosing one, streams.

Imported by runners only.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import operator
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType, ModuleType
from typing import Any, NoReturn

from kernel_env.backends.bfloat import compute_in_single
from kernel_env.backends.binding import bind_names

_EXTRAS = (
    "libdevice", "cuda", "cuda.libdevice", "cuda.utils", "cuda.gdc", "hip", "hip.libdevice", "hip.utils",
)  # fmt: skip
_DEVICE_MODULES = ("torch.cuda", "triton.runtime.driver", "triton.backends")


_LAUNCHER = "triton.runtime.interpreter"


class DeviceOnly(Exception):
    """A function that exists on a GPU only was called."""


class _Device:
    """In the place of `torch.cuda.device`: whichever is named, the work goes on where it is."""

    def __init__(self, device: Any = None) -> None:
        self.idx = -1

    def __enter__(self) -> None:
        """There is no other device."""

    def __exit__(self, *_: object) -> None:
        """There was none."""


class _Stream:
    """In the place of the current stream: what was launched on it has ended."""

    cuda_stream = 0

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        """Nothing is on its way."""

    def wait_stream(self, other: Any) -> None:
        """Nor is anything there."""


class _Programs:
    """How many programs of kernels have begun in this process."""

    begun = 0


def programs_begun() -> int:
    return _Programs.begun


@functools.cache
def prepare() -> None:
    """Change the interpreter as described above. Call it before any candidate is imported; once in a process is enough."""
    import triton
    import triton.language as tl
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.interpreter import InterpretedFunction, InterpreterBuilder

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
    for kind in (tl.tensor, tl.constexpr):  # what `math` is given is a constant on a GPU, and one of these here
        kind.__float__ = _number
    _leave_to_tensors(tl.constexpr, tl.tensor)
    compute_in_single()
    bind_names()
    _keep_truth_values(InterpreterBuilder)
    _count_programs(InterpreterBuilder)
    _ask_grids_first(InterpretedFunction)
    _answer_for_a_device()
    for name in ("create_extern_elementwise", "create_inline_asm"):
        setattr(InterpreterBuilder, name, _stand_in(name))
    atomic, stand_in = InterpreterBuilder.create_atomic_rmw, _stand_in("an atomic operation on bfloat16")
    InterpreterBuilder.create_atomic_rmw = lambda self, operation, pointers, value, *rest: (
        stand_in() if value.dtype.scalar == tl.bfloat16 else atomic(self, operation, pointers, value, *rest)
    )


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


def _count_programs(builder: Any) -> None:
    """What a kernel has written stays if it fails afterwards: a launch counts from its first program on, not from its end."""
    place = builder.set_grid_idx

    def set_grid_idx(self: Any, *index: int) -> None:
        place(self, *index)
        _Programs.begun += 1

    builder.set_grid_idx = set_grid_idx


def _ask_grids_first(kind: Any) -> None:
    """A grid that is a function is given numbers and tensors, as on a GPU, and not what a kernel sees of them."""
    run = kind.run

    def with_numbers(self: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        return run(self, *arguments, grid=grid if warmup else grid_of(self, grid, arguments, named), warmup=warmup, **named)

    kind.run = with_numbers


def grid_of(kernel: Any, grid: Any, arguments: Sequence[Any], named: Mapping[str, Any]) -> tuple[int, ...]:
    """How many programs a launch is for; a grid that is a function is asked, with the arguments by name as on a GPU."""
    if callable(grid):
        known = {name: value for name, value in named.items() if name in kernel.arg_names}
        grid = grid(inspect.getcallargs(kernel.fn, *arguments, **known))
    return tuple(operator.index(count) for count in grid)


def _answer_for_a_device() -> None:
    """Not what asks for a property of a GPU, or for memory there: to that nothing here could be an answer."""
    import torch

    cuda: Any = torch.cuda
    cuda.device = _Device
    cuda.current_stream = cuda.default_stream = lambda device=None: _Stream()
    cuda.stream = lambda stream: contextlib.nullcontext(stream)
    for name in ("synchronize", "set_device", "set_stream", "ipc_collect"):
        setattr(cuda, name, lambda *arguments, **options: None)


_OPERATORS = "add sub mul truediv floordiv mod lt gt le ge eq ne and or xor lshift rshift"


def _leave_to_tensors(constexpr: Any, tensor: type) -> None:
    """`SCALE * block` is a block, as on a GPU, and no constant that holds one."""

    def of_constants(method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda self, other: NotImplemented if isinstance(other, tensor) else method(self, other)

    for name in map("__{}__".format, _OPERATORS.split()):
        setattr(constexpr, name, of_constants(getattr(constexpr, name)))


def _number(value: Any) -> float:
    held = getattr(value, "value", None)
    return float(value.handle.data.squeeze() if held is None else held)


def _stand_in(name: str) -> Callable[..., NoReturn]:
    def device_only(*arguments: Any, **options: Any) -> NoReturn:
        raise DeviceOnly(f"{name} exists on a GPU only")

    return device_only


def needs_device(error: BaseException, source: str, module: str, *, launched: bool = False) -> bool:
    """Whether the machine, not the kernel, is at fault. `source` and `module` are the candidate's text and module name.

    One that has `launched` a kernel here has got round all that asks for a GPU first, and what it asks then may be about what
    came of it: only what the interpreter cannot do within a launch counts.
    """
    from triton.runtime.errors import InterpreterError
    from triton.runtime.interpreter import InterpreterBuilder

    for cause in causes(error):
        if isinstance(cause, InterpreterError):  # only wraps what a kernel raised
            continue
        frames = list(traceback.walk_tb(cause.__traceback__))
        if launched and not any(_module_of(frame) == _LAUNCHER for frame, _ in frames):
            continue
        if isinstance(cause, DeviceOnly) or (isinstance(cause, AttributeError) and isinstance(cause.obj, InterpreterBuilder)):
            return True
        if not launched and frames and _of_a_device(*frames[-1], source, module):
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


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _of_a_device(frame: FrameType, line: int, source: str, module: str) -> bool:
    raising = _module_of(frame)
    if any(raising == name or raising.startswith(f"{name}.") for name in _DEVICE_MODULES):
        return True
    if raising == "torch._utils":  # stand-ins of torch's own for classes that only a CUDA build has
        return frame.f_code.co_qualname.startswith("_dummy_type.")
    return raising == module and _is_device_guard(source, line)


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

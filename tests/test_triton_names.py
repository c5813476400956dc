"""What a Triton kernel's names stand for, where only the launch knows it."""

from __future__ import annotations

import collections
import enum
import functools
import math
import signal
import sys
from collections.abc import Callable, Iterator
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

TOP = """
import collections, ctypes, enum, math, types
import numpy as np
import triton
import triton.language as tl
from triton.language import exp
from triton.language.extra import libdevice

WIDE: tl.constexpr = 64
KINDS = {"sum": 0, "max": [1, 2]}


def by_numpy(x):
    return np.maximum(x, 0)


def halved(n):
    return n // 2


@triton.constexpr_function
def half(n):
    return halved(max(n, int(math.sqrt(4))))


@triton.constexpr_function
def looks(x):
    return np.maximum(x, 0)


@triton.constexpr_function
def imports(x):
    import numpy
    return numpy.maximum(x, 0)


@triton.constexpr_function
def handled(x):
    return x.handle.data @ x.handle.data


@triton.jit
def helper(x):
    return exp(x) + tl.sum(x, axis=0)


@triton.jit
def python_helper(x):
    return by_name(x)


class Scale(float):
    def __mul__(self, block):
        return by_numpy(block)


class Mode(enum.IntEnum):
    SUM = 1


class Working(enum.IntEnum):
    SUM = 1

    def __mul__(self, block):
        return by_numpy(block)


Tiles = collections.namedtuple("Tiles", "m n")
TILES, MODE = Tiles(32, 64), Mode.SUM
SCALE, WORKING = Scale(2.0), Working.SUM
WRAPPED = tl.core.builtin(by_numpy)
PLACED = types.FunctionType(by_numpy.__code__, vars(tl.core))
MOVED = types.FunctionType(tl.core._unwrap_if_constexpr.__code__, globals())
RUN = exec


@triton.jit
def larger(a, b):
    return tl.maximum(a, b)


HIDDEN: tl.constexpr = by_numpy
KEPT = tl.constexpr(by_numpy)
"""


@pytest.fixture
def of_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Any]:
    """Makes a module of the lines above and one kernel, for the interpreter; gives the module."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    import importlib.util

    def make(kernel: str) -> ModuleType:
        path = tmp_path / "made.py"
        path.write_text(f"{TOP}\n\n@triton.jit\n{kernel}\n")
        spec = importlib.util.spec_from_file_location("made_for_names", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["made_for_names"] = module
        spec.loader.exec_module(module)
        return module

    yield make
    sys.modules.pop("made_for_names", None)


def named(module: ModuleType) -> bool:
    from triton.runtime.interpreter import InterpretedFunction

    from kernel_env.backends.triton_names import names_python

    return names_python(vars(module)["kernel"], InterpretedFunction)


FAIR = {
    "nothing": "def kernel(x):\n    pass",
    "Triton's own": "def kernel(x, n):\n    i = tl.arange(0, 64)\n    tl.store(x + i, tl.math.exp(tl.load(x + i)), i < n)",
    "constants": "def kernel(x, B: tl.constexpr = WIDE, K: tl.constexpr = tl.float32):\n    tl.store(x, WIDE + KINDS['sum'])",
    "another kernel": "def kernel(x, f: tl.constexpr = helper):\n    tl.store(x, helper(tl.load(x)) + f(1))",
    "Python's own": "def kernel(x):\n    for i in range(len((1, 2))):\n        tl.store(x, min(i, int(2.5)))",
    "a function of constants": "def kernel(x, B: tl.constexpr):\n    tl.store(x, half(B))",
    "a table of sizes": "def kernel(x, M: tl.constexpr = MODE):\n    tl.store(x, TILES[0] + TILES.n + M)",
    "a function of a GPU": "def kernel(x):\n    tl.store(x, libdevice.tanh(tl.load(x)))",
    "a function of math": "def kernel(x):\n    tl.store(x, math.sqrt(2.0 / math.pi))",
    "a reduction": "def kernel(x):\n    tl.store(x, tl.reduce(tl.load(x + tl.arange(0, 8)), 0, larger))",
    "a mistake": "def kernel(x):\n    tl.store(x, mispelt)",
}
PYTHON = {
    "a name that no statement binds": "def kernel(x):\n    by_name(x)",
    "another library": "def kernel(x):\n    ctypes.memmove(x, x, 4)",
    "a default": "def kernel(x, f: tl.constexpr = by_numpy):\n    f(x)",
    "a default by keyword": "def kernel(x, *, f: tl.constexpr = by_numpy):\n    f(x)",
    "said to be a constant": "def kernel(x):\n    HIDDEN(x)",
    "inside of a constant": "def kernel(x):\n    KEPT.value(x)",
    "in a helper": "def kernel(x):\n    python_helper(x)",
    "of a module of Triton's": "def kernel(x):\n    tl.own(x)",
    "a library in a function of constants": "def kernel(x):\n    looks(x)",
    "an import there": "def kernel(x):\n    imports(x)",
    "a number that works": "def kernel(x):\n    tl.store(x, SCALE * tl.load(x))",
    "a member that works": "def kernel(x):\n    tl.store(x, WORKING * tl.load(x))",
    "in a wrapper of Triton's": "def kernel(x):\n    WRAPPED(x)",
    "in a scope of Triton's": "def kernel(x):\n    PLACED(x)",
    "Triton's code in a scope of its own": "def kernel(x):\n    MOVED(x)",
    "exec": "def kernel(x):\n    RUN('x')",
    "what lies below a value": "def kernel(x):\n    handled(x)",
}


@pytest.mark.parametrize("kernel", FAIR)
def test_a_kernel_that_names_what_triton_compiles(of_source: Any, kernel: str) -> None:
    assert not named(of_source(FAIR[kernel]))


@pytest.mark.parametrize("kernel", PYTHON)
def test_a_kernel_that_names_python(of_source: Any, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton.language as tl

    module = of_source(PYTHON[kernel])
    vars(module)["by_name"] = vars(module)["by_numpy"]
    monkeypatch.setattr(tl, "own", vars(module)["by_numpy"], raising=False)
    assert named(module)


def test_a_kernel_with_a_hook_of_pythons(of_source: Any) -> None:
    module = of_source(FAIR["nothing"])
    vars(module)["kernel"].add_pre_run_hook(math.sqrt)
    assert named(module)


def test_another_body_in_the_interpreters_table(of_source: Any) -> None:
    module = of_source(FAIR["nothing"])
    kernel = vars(module)["kernel"]
    type(kernel).rewritten_fn[kernel.fn] = vars(module)["by_numpy"]
    assert named(module)


def test_a_name_is_no_proof(of_source: Any) -> None:
    module = of_source(PYTHON["a name that no statement binds"])
    vars(module)["by_name"] = vars(module)["by_numpy"]
    vars(module)["__name__"] = "triton"
    assert named(module)


def test_another_function_in_a_reduction(of_source: Any) -> None:
    module = of_source(FAIR["a reduction"])
    larger, by_numpy = vars(module)["larger"], vars(module)["by_numpy"]
    first, larger.fn = larger.fn, vars(module)["helper"].fn
    assert named(module)
    larger.fn = larger.rewriter.fn = by_numpy
    type(larger).rewritten_fn[by_numpy] = first
    assert named(module)


def test_another_function_in_a_kernel(of_source: Any) -> None:
    module = of_source(FAIR["nothing"])
    kernel = vars(module)["kernel"]
    kernel.rewrite = kernel.rewrite
    assert named(module)


@pytest.mark.parametrize("where", ["code", "function", "method", "class", "numpy"])
def test_a_change_of_triton(of_source: Any, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import triton
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder

    module = of_source("def kernel(x, B: tl.constexpr):\n    tl.store(x, tl.load(x) + triton.cdiv(B, 2))")
    assert not named(module)
    by_numpy = vars(module)["by_numpy"]
    if where == "code":
        monkeypatch.setattr(tl.semantic.TritonSemantic.add, "__code__", by_numpy.__code__)
    elif where == "function":
        monkeypatch.setattr(triton.cdiv, "fn", by_numpy)
    elif where == "method":
        monkeypatch.setattr(InterpreterBuilder, "binary_op", by_numpy)
    elif where == "class":
        monkeypatch.setattr(tl.tensor, "own", by_numpy, raising=False)
    else:
        monkeypatch.setattr(np, "add", by_numpy)
    assert named(module)


def test_what_the_interpreter_leaves_patched_is_its_own(of_source: Any) -> None:
    import triton.language as tl
    from triton.runtime.interpreter import _patch_lang

    module = of_source("def kernel(x):\n    tl.store(x, tl.core.sum(tl.core.multiple_of(tl.load(x), 8), axis=0))")
    vars(module)["core"] = tl.core
    scope = _patch_lang(vars(module)["kernel"].fn)
    try:
        assert not named(module)
    finally:
        scope.restore()


def test_a_grid_is_asked_with_numbers_and_gives_them(of_source: Any) -> None:
    from kernel_env.backends.interpreter import grid_of

    kernel = vars(of_source("def kernel(x, n, B: tl.constexpr = 4):\n    pass"))["kernel"]
    assert grid_of(kernel, lambda given: (given["n"] // given["B"],), (None, 64), {"num_warps": 8}) == (16,)
    assert grid_of(kernel, lambda given: (given["n"] // given["B"], 2), (None,), {"n": 64, "B": 8}) == (8, 2)
    assert grid_of(kernel, (3,), (), {}) == (3,)


@pytest.mark.parametrize(
    "where",
    [
        "an object",
        "one that says it is C's",
        "one that is read",
        "a cell",
        "a default",
        "a name by a function",
        "another class",
        "a wrapper",
        "a kernel",
        "a tensor",
    ],
)
def test_a_change_of_what_triton_holds(of_source: Any, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton
    import triton.language as tl
    from triton.runtime.errors import InterpreterError
    from triton.runtime.interpreter import InterpreterBuilder

    module = of_source(
        "def kernel(x):\n    tl.store(x, tl.abs(tl.load(x)))\n    tl.own\n    ERROR\n    triton.cdiv(4, 2)\n    helper"
    )
    names, by_numpy = vars(module), vars(module)["by_numpy"]
    names["ERROR"] = InterpreterError
    assert not named(module)
    if where in _PUT:
        monkeypatch.setattr(InterpreterBuilder, "create_exp", _PUT[where])
    elif where == "a cell":
        cell = next(cell for cell in tl.tensor.__add__.__closure__ if callable(cell.cell_contents))
        monkeypatch.setattr(cell, "cell_contents", by_numpy)
    elif where == "a default":
        monkeypatch.setattr(InterpreterBuilder.binary_op, "__defaults__", (by_numpy,))
    elif where == "a name by a function":
        monkeypatch.setattr(tl, "__getattr__", lambda name: tl.exp, raising=False)
    elif where == "another class":
        monkeypatch.setattr(InterpreterError, "own", by_numpy, raising=False)
    elif where == "a wrapper":
        monkeypatch.setattr(triton.cdiv, "own", by_numpy, raising=False)
    elif where == "a kernel":
        names["helper"].own = by_numpy
    else:
        monkeypatch.setattr(torch.Tensor, "data_ptr", by_numpy)
    assert named(module)


def test_a_method_of_torchs_own_name_may_be_added(of_source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = of_source(FAIR["nothing"])
    monkeypatch.setattr(torch.Tensor, "my_method", vars(module)["by_numpy"], raising=False)
    assert not named(module)


class _Calls:
    __func__ = len

    def __call__(self, *arguments: Any) -> int:
        return 1


class _SaysItIsC(_Calls):
    __class__: Any = type(len)


class _Read:
    def __get__(self, owner: Any, kind: Any) -> Any:
        return _own


_PUT = {"an object": _Calls(), "one that says it is C's": _SaysItIsC(), "one that is read": _Read()}


class _Changing(dict[str, Any]):
    """What is read of it first is not what is read later."""

    def get(self, name: str, default: Any = None) -> Any:
        return default


class _Name(str):
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        return False


@pytest.mark.parametrize("way", ["mapping", "name"])
def test_names_that_answer_for_themselves(of_source: Any, way: str) -> None:
    module = of_source(PYTHON["a name that no statement binds"])
    kernel, names = vars(module)["kernel"], vars(module)
    assert not named(module)
    if way == "name":
        names[_Name("by_name")] = names["by_numpy"]
    else:
        mapping = _Changing({**names, "by_name": names["by_numpy"]})
        kernel.rewriter.fn = kernel.fn = FunctionType(kernel.fn.__code__, mapping, kernel.fn.__name__)
    assert named(module)


def test_only_stand_ins_for_functions_of_a_gpu_are_tritons(of_source: Any) -> None:
    from kernel_env.backends import ablation, bfloat

    module = of_source(PYTHON["a name that no statement binds"])
    vars(module)["by_name"] = ablation.fill
    assert named(module)
    vars(module)["by_name"] = bfloat.to_single
    assert not named(module)


def test_what_is_fair_for_constants_is_looked_at_again() -> None:
    pytest.importorskip("triton")
    from triton.runtime.interpreter import InterpretedFunction

    from kernel_env.backends.triton_names import _Look

    look = _Look(InterpretedFunction)
    assert not look.foreign(filter, constant=True)
    assert look.foreign(filter, constant=False)


class _EqualTo(type):
    """A class of this kind equals, and has the hash of, another one."""

    like: type = int

    def __eq__(cls, other: object) -> bool:
        return other is cls.like

    def __hash__(cls) -> int:
        return hash(cls.like)


def _equal_to(what: type) -> Any:
    return _EqualTo("Own", (), {"like": what, "__iter__": lambda self: iter(())})()


class Tile(NamedTuple):
    """Of a block."""

    rows: int
    columns: int = 32


Untyped = collections.namedtuple("Untyped", "a b", defaults=[None])


class Level(enum.IntEnum):
    LOW = 1
    HIGH = enum.auto()


class Way(enum.Enum):
    SUM = "sum"
    PAIR = (1, 2)


class Bits(enum.IntFlag):
    ONE = 1
    TWO = 2


def _tensor(**attributes: Any) -> torch.Tensor:
    tensor = torch.ones(2)
    vars(tensor).update(attributes)
    return tensor


def _parameter(**attributes: Any) -> torch.Tensor:
    parameter = torch.nn.Parameter(torch.ones(2))
    vars(parameter).update(attributes)
    return parameter


def _record(change: Callable[[Any], None]) -> Any:
    class Own(NamedTuple):
        rows: int
        columns: int = 32

    made = Own(1)
    change(Own)
    return made


def _member(change: Callable[[Any], None]) -> Any:
    class Own(enum.IntEnum):
        LOW = 1

    change(Own)
    return Own.LOW


def _with(name: str, value: Any) -> Callable[[Any], None]:
    return lambda owner: type.__setattr__(owner, name, value)


def _exchange_cell(owner: Any) -> None:
    function = owner._make.__func__
    cells = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
    cells["tuple_new"].cell_contents = lambda kind, values: values


def _exchange_global(owner: Any) -> None:
    owner.__new__.__globals__["_tuple_new"] = lambda kind, values: values


def _exchange_builtin(owner: Any) -> None:
    owner.__new__.__globals__["__builtins__"]["_tuple_new"] = print


def _exchange_default(owner: Any) -> None:
    owner.__new__.__defaults__ = (print,)


def _exchange_scope(owner: Any) -> None:
    then = owner._make.__func__
    made = FunctionType(then.__code__, {"len": len}, "_make", None, then.__closure__)
    owner._make = classmethod(made)


def _own(*arguments: Any) -> int:
    return 1


FAIR_GIVEN: dict[str, Any] = {
    "a shape": torch.Size([2, 3]),
    "a tensor with a tag": _tensor(my_tag=3, my_scale=torch.ones(1), my_kind=torch.float32),
    "a parameter with a tag": _parameter(my_tag="a", my_shape=torch.Size([1])),
    "a record": Tile(1),
    "a record of records": (Tile(1, 2), [Tile(3)]),
    "a record without types": Untyped(1),
    "a record of a tensor": _record(lambda owner: None)._replace(rows=torch.ones(1)),
    "a record with a constant": _record(_with("WIDE", 64)),
    "a member": Level.HIGH,
    "a member of text": Way.SUM,
    "a member of numbers": Way.PAIR,
    "flags": Bits.ONE | Bits.TWO,
    "a signal": signal.SIGINT,
}
PYTHON_GIVEN: dict[str, Any] = {
    "equal to a number": _equal_to(int),
    "equal to a tuple": _equal_to(tuple),
    "equal to a tensor": _equal_to(torch.Tensor),
    "a tensor's method": _tensor(data_ptr=_own),
    "a parameter's method": _parameter(untyped_storage=_own),
    "a tensor's method, by a number": _tensor(numel=3),
    "a tensor with a function": _tensor(my_function=_own),
    "a record of a function": _record(lambda owner: None)._replace(rows=_own),
    "a record's property": _record(_with("rows", property(_own))),
    "a record's partial method": _record(_with("__mul__", functools.partialmethod(_own))),
    "a record's cached property": _record(_with("rows", functools.cached_property(_own))),
    "a record's method": _record(_with("__mul__", _own)),
    "a record's object": _record(_with("__mul__", _Calls())),
    "a record's function in C": _record(_with("__mul__", np.maximum)),
    "a record's table": _record(_with("table", {"f": _own})),
    "a record's cell": _record(_exchange_cell),
    "a record's global": _record(_exchange_global),
    "a record's builtin": _record(_exchange_builtin),
    "a record's default": _record(_exchange_default),
    "a record's scope": _record(_exchange_scope),
    "a member's property": _member(_with("wide", property(_own))),
    "a member's property of enum's kind": _member(_with("wide", enum.property(_own))),
    "a member's partial method": _member(_with("__mul__", functools.partialmethod(_own))),
    "a member's object": _member(_with("__mul__", _Calls())),
    "a member's function in C": _member(_with("__mul__", torch.relu)),
    "a member's function in a scope of enum's": _member(_with("__mul__", FunctionType(_own.__code__, vars(enum)))),
    "a member's table": _member(_with("table", {"f": _own})),
    "a member's attribute": _member(lambda owner: vars(owner.LOW).update(f=_own)),
}


def _may_be_given(value: Any) -> bool:
    from kernel_env.backends.triton_names import may_be_given

    return may_be_given(value, type("Kernel", (), {}))


@pytest.mark.parametrize("value", FAIR_GIVEN)
def test_an_argument_without_methods_of_its_own(value: str) -> None:
    assert _may_be_given(FAIR_GIVEN[value])


@pytest.mark.parametrize("value", PYTHON_GIVEN)
def test_an_argument_with_methods_of_its_own(value: str) -> None:
    assert not _may_be_given(PYTHON_GIVEN[value])


def test_a_method_that_is_put_into_enumerations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enum.Enum, "__mul__", _own, raising=False)
    assert not _may_be_given(Way.SUM)

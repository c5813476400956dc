"""What a Triton kernel's names stand for, where only the launch knows it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

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

"""What a Triton kernel's names stand for, where only the launch knows it."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

TOP = """
import ctypes, math
import numpy as np
import triton
import triton.language as tl
from triton.language import exp

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

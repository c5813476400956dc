"""Static rules: each refuses a cheat and lets its honest twin pass. What Python cannot read is left to Python."""

from __future__ import annotations

import pytest

from kernel_env.checks.static import SourceFacts, SourceFault, check_cpp, check_triton, facts

IMPORTS = "import torch\nimport torch.nn as nn\nimport triton\nimport triton.language as tl\n"
KERNEL = """
@triton.jit
def double_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + i, tl.load(x_ptr + i, mask=i < n) * 2, mask=i < n)
"""
WRAPPER = """
def double(x):
    out = torch.empty_like(x)
    double_kernel[(1,)](x, out, x.numel(), BLOCK=64)
    return out
"""
MODEL = """
class ModelNew(nn.Module):
    def forward(self, x):
        return double(x)
"""
TORCH_MODEL = """
class ModelNew(nn.Module):
    def forward(self, x):
        return x * 2
"""
TRITON = IMPORTS + KERNEL + WRAPPER + MODEL

CPP_IMPORTS = "import torch\nimport torch.nn as nn\nfrom torch.utils.cpp_extension import load_inline\n"
BUILD = "ext = load_inline(name='d', cpp_sources='torch::Tensor d(torch::Tensor x);', functions=['d'])\n"
CPP_MODEL = """
class ModelNew(nn.Module):
    def forward(self, x):
        return ext.d(x)
"""


def read(source: str) -> SourceFacts:
    found = facts(source)
    assert isinstance(found, SourceFacts)
    return found


# ------------------------------------------------------------------ facts


def test_the_entry_class_is_described() -> None:
    entry = read(TRITON).entry
    assert entry is not None
    assert (entry.line, entry.bases, entry.own_forward, entry.has_forward) == (16, ("torch.nn.Module",), True, True)
    assert read(TRITON.replace("ModelNew", "Model")).entry is None
    assert facts("class Fast: pass", entry="Fast").entry is not None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("source", "comes_from"),
    [
        ("class ModelNew(nn.Module):\n    pass", ""),
        ("class Model(nn.Module):\n    def forward(self, x): ...\nclass ModelNew(Model):\n    pass", "Model"),
        ("class A(ModelNew): ...\nclass ModelNew(A):\n    pass", ""),
        ("from somewhere import Base\nclass ModelNew(Base):\n    pass", "?"),
        ("class ModelNew(nn.Sequential):\n    pass", "?"),
    ],
)
def test_it_is_told_where_an_inherited_forward_comes_from(source: str, comes_from: str) -> None:
    entry = read(f"import torch.nn as nn\n{source}").entry
    assert entry is not None
    assert not entry.own_forward
    assert entry.inherited_forward == comes_from


@pytest.mark.parametrize(
    "body", ["def forward(self): ...", "forward = run", "def __init__(self): self.forward = run", "async def forward(self): ..."]
)
def test_every_way_to_bind_forward_counts(body: str) -> None:
    entry = read(f"class ModelNew:\n    {body}").entry
    assert entry is not None
    assert entry.own_forward


@pytest.mark.parametrize(
    ("imports", "decorators"),
    [
        ("import triton", "@triton.jit"),
        ("import triton as T", "@T.jit"),
        ("from triton import jit", "@jit"),
        ("from triton import jit as J", "@J"),
        ("import triton\njit = triton.jit", "@jit"),
        ("import triton", "@triton.jit(do_not_specialize=['n'])"),
        ("import triton", "@triton.autotune(configs=[], key=['n'])\n@triton.heuristics({})\n@triton.jit"),
    ],
)
def test_a_jit_function_is_seen_through_aliases_and_stacked_decorators(imports: str, decorators: str) -> None:
    kernel = "def k(p):\n    tl.store(p, 1)\n"
    (function,) = read(f"{imports}\nimport triton.language as tl\n{decorators}\n{kernel}").jit_functions
    assert (function.name, function.uses_ops) == ("k", True)


def test_a_function_handed_to_jit_by_name_is_a_jit_function() -> None:
    found = read("import triton\ndef k(p): ...\nfast = triton.jit(k)\n")
    assert [f.name for f in found.jit_functions] == ["k"]


@pytest.mark.parametrize("decorator", ["@torch.jit.script", "@numba.jit", "@my.triton.jit", "@triton.autotune([], [])", "@jit"])
def test_other_decorators_make_no_jit_function(decorator: str) -> None:
    assert read(f"import torch, numba, my, triton\n{decorator}\ndef k(p): ...\n").jit_functions == ()


@pytest.mark.parametrize(
    ("imports", "call", "uses"),
    [
        ("import triton.language as tl", "tl.load(p)", True),
        ("import triton", "triton.language.load(p)", True),
        ("from triton import language as L", "L.load(p)", True),
        ("from triton.language import load", "load(p)", True),
        ("from triton.language import *", "load(p)", True),
        ("from triton.language.extra import libdevice", "libdevice.exp(p)", True),
        ("import triton.language as tl", "tl.constexpr(1)", False),
        ("import triton.language as tl", "'tl.load(p)'", False),
        ("import torch as tl", "tl.load(p)", False),
    ],
)
def test_operations_of_triton_language_are_seen_through_aliases(imports: str, call: str, uses: bool) -> None:
    source = f"import triton\n{imports}\n@triton.jit\ndef k(p):\n    {call}\n"
    assert read(source).jit_functions[0].uses_ops is uses


def test_launches_are_calls_of_a_jit_function_with_a_grid() -> None:
    assert read(TRITON).launches == ("double_kernel",)
    assert read(IMPORTS + KERNEL + "def f(self):\n    self.double_kernel[(1,)]()\n").launches == ("double_kernel",)
    assert read(IMPORTS + KERNEL + "@triton.jit\ndef k(x):\n    double_kernel[(1,)](x)\n").launches == ()
    assert read(IMPORTS + KERNEL + "double_kernel(1)\nother[(1,)]()\n# double_kernel[(1,)]()\n").launches == ()


@pytest.mark.parametrize(
    ("imports", "call", "function"),
    [
        ("from torch.utils.cpp_extension import load_inline", "load_inline", "load_inline"),
        ("from torch.utils.cpp_extension import load_inline as li", "li", "load_inline"),
        ("from torch.utils.cpp_extension import load as build", "build", "load"),
        ("import torch.utils.cpp_extension", "torch.utils.cpp_extension.load", "load"),
        ("import torch.utils.cpp_extension as ce", "ce.load_inline", "load_inline"),
        ("from torch.utils import cpp_extension", "cpp_extension.load", "load"),
        ("from torch.utils import cpp_extension\nbuild = cpp_extension.load", "build", "load"),
    ],
)
def test_extension_calls_are_seen_through_aliases(imports: str, call: str, function: str) -> None:
    found = read(f"{imports}\next = {call}(name='x')\n{call}(name='y')\n")
    assert [(c.function, c.discarded) for c in found.extension_calls] == [(function, False), (function, True)]


def test_other_loads_are_no_extension_calls() -> None:
    found = read("import torch, json\nw = torch.load('w')\nj = json.load(f)\n'load_inline()'\n")
    assert found.extension_calls == ()
    assert not found.mentions_extension


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("return kernel(x)", ("kernel",)),
        ("return helper(x)", ("gone",)),
        ("y = len(x)\n        return [z for z in y] + self.a", ()),
        ("try:\n            return x\n        except ValueError as e:\n            raise e", ()),
        ("match x:\n            case [a, *b]: return a, b\n            case c: return c, __name__", ()),
    ],
)
def test_names_that_nothing_binds_are_listed(body: str, names: tuple[str, ...]) -> None:
    source = f"import torch\ndef helper(v):\n    return gone\nclass ModelNew:\n    def forward(self, x):\n        {body}\n"
    assert read(source).undefined == names
    assert read(f"from torch import *\n{source}").undefined == ()


# ------------------------------------------------------------------ triton

BODY = """
@triton.jit
def kernel(x, o, FN: tl.constexpr, B: tl.constexpr):
    v = tl.load(x + tl.arange(0, B))
    {line}
    tl.store(o + tl.arange(0, B), v)
"""
FOREIGN = {
    "numpy": ("import numpy as np", "v = np.exp(v)", "numpy.exp"),
    "torch": ("", "v = torch.exp(v)", "torch.exp"),
    "a function of Python's": ("def work(v): return v", "v = work(v)", "work"),
    "a lambda": ("work = lambda v: v", "v = work(v)", "work"),
    "a class": ("class Work:\n    def __matmul__(self, v): return v", "v = Work() @ v", "Work"),
    "an object": ("class Work:\n    pass\nhelper = Work()", "v = v @ helper", "helper"),
    "a table": ("def work(v): return v\nTABLE = {0: print(work)}", "v = TABLE[0](v)", "TABLE"),
    "a module by another name": ("import numpy\nmine = numpy", "v = mine.exp(v)", "numpy.exp"),
    "a function of another library": ("from math import exp", "v = exp(v)", "math.exp"),
    "a function of math": ("import math", "v = math.exp(v)", "math.exp"),
    "a function of what is computed": ("import math", "by = tl.sum(v)\n    v = v * math.sqrt(by)", "math.sqrt"),
    "a function of math by another name": ("import math\nf = math.exp", "v = f(v)", "math.exp"),
    "a function of math by itself": ("import math", "f = math.exp\n    v = f(v)", "math.exp"),
    "one of two, and one is Python's": ("def work(v): return v\nf = work if work else tl.exp", "v = f(v)", "f"),
    "Triton's own numpy": ("import triton.runtime.interpreter as i", "v = i.np.exp(v)", "triton.runtime.interpreter.np.exp"),
    "the inside of an object": ("", "v = v.__class__(v)", "__class__"),
    "eval": ("", "v = eval('v')", "eval"),
    "what a string names": ("", "v = getattr(v, 'x')(v)", "getattr"),
}
COMPILED = {
    "constants": ("BLOCK = 64\nNAME = 'x'\nSIZES = (1, 2)", "v = v * BLOCK * SIZES[0]"),
    "constexprs": ("SIZE = tl.constexpr(4)\nOTHER: tl.constexpr = 3", "v = v * SIZE + OTHER"),
    "constexprs in one line": ("M, N = tl.constexpr(4), tl.constexpr(8)", "v = v * M + N"),
    "one of two constexprs": ("FAST = False\nSIZE = tl.constexpr(4) if FAST else tl.constexpr(8)", "v = v * SIZE"),
    "one of two functions": ("root = tl.rsqrt if hasattr(tl, 'rsqrt') else tl.math.rsqrt", "v = root(v)"),
    "constants of math": ("import math", "v = v * math.sqrt(2.0 / math.pi)"),
    "functions of math": (
        "import math\nfrom math import log2\nC = math.log(2)",
        "by = 1 / B\n    v = v * math.sqrt(by) * log2(B) * C",
    ),
    "types": ("dtype = tl.float32", "v = v.to(dtype).to(tl.float16)"),
    "other kernels": ("@triton.jit\ndef other(v): return v + 1", "v = other(v)"),
    "a function by another name": ("def plain(v): return v + 1\nother = triton.jit(plain)", "v = other(v)"),
    "a constexpr function": ("@triton.constexpr_function\ndef twice(n): return 2 * n", "v = v * twice(B)"),
    "an argument": ("", "v = FN(v)"),
    "names of its own": ("def work(v): return v", "work = v + 1\n    v = work"),
    "the language by other names": (
        "from triton.language import exp as e\nimport triton.language.math as m",
        "v = e(v) + m.exp(v)",
    ),
    "libdevice": ("from triton.language.extra import libdevice", "v = libdevice.tanh(v)"),
    "built-in functions": ("", "v = max(v, 1)\n    for i in range(len((1, 2))): v += float(i)"),
    "methods": ("", "v = v.sum().to(tl.float32)"),
    "triton's own helpers": ("", "v = v * triton.cdiv(B, 2) + triton.next_power_of_2(B)"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_body_that_only_python_can_run_is_refused(what: str) -> None:
    """The interpreter runs it; no GPU would."""
    top, line, name = FOREIGN[what]
    source = IMPORTS + top + BODY.format(line=line) + MODEL.replace("double(x)", "kernel[(1,)](x, x, None, 1)")
    reason = check_triton(source)
    assert reason is not None and f"uses {name}, which Triton cannot compile" in reason


@pytest.mark.parametrize("what", COMPILED)
def test_what_triton_compiles_may_stand_in_a_body(what: str) -> None:
    top, line = COMPILED[what]
    source = IMPORTS + top + BODY.format(line=line) + MODEL.replace("double(x)", "kernel[(1,)](x, x, None, 1)")
    assert check_triton(source) is None


TRITON_CHEATS = {
    "no kernel at all": (IMPORTS + TORCH_MODEL, "no function is decorated with @triton.jit"),
    "the kernel is a comment": (IMPORTS + "# @triton.jit\n# def k(): tl.load(p)\n" + TORCH_MODEL, "@triton.jit"),
    "the kernel is a string": (IMPORTS + "'''" + KERNEL + "'''\n" + TORCH_MODEL, "@triton.jit"),
    "the kernel does nothing": (IMPORTS + "@triton.jit\ndef k(): pass\n" + TORCH_MODEL, "operation of triton.language"),
    "only the signature uses the language": (
        IMPORTS + "@triton.jit\ndef k(B: tl.constexpr): pass\n" + TORCH_MODEL,
        "operation of triton.language",
    ),
    "the kernel is never used": (IMPORTS + KERNEL + TORCH_MODEL, "never uses"),
    "the wrapper is never used": (IMPORTS + KERNEL + WRAPPER + TORCH_MODEL, "never uses"),
    "a decoy launch on import": (IMPORTS + KERNEL + "double_kernel[(1,)](a, b, 1, BLOCK=1)\n" + TORCH_MODEL, "never uses"),
    "only a self test uses it": (
        IMPORTS + KERNEL + WRAPPER + TORCH_MODEL + "if __name__ == '__main__':\n    print(double(x))\n",
        "never uses",
    ),
    "the reference is inherited": (
        IMPORTS
        + KERNEL
        + WRAPPER
        + "class Model(nn.Module):\n    def forward(self, x): return x * 2\nclass ModelNew(Model): pass\n",
        "never uses",
    ),
}

TRITON_HONEST = {
    "plain": TRITON,
    "words of the rules in comments and strings": TRITON + "# torch only, pass, except: 'no kernel'\n",
    "the kernel is launched in forward": IMPORTS + KERNEL + MODEL.replace("double(x)", "double_kernel[(1,)](x, x, 1, BLOCK=1)"),
    "behind a condition": IMPORTS + "if True:\n    " + (KERNEL + WRAPPER).strip().replace("\n", "\n    ") + "\n" + MODEL,
    "chosen by name": IMPORTS + KERNEL + MODEL.replace("double(x)", "globals()['double_kernel'][(1,)](x)"),
    "kept in a table": IMPORTS + KERNEL + "TABLE = {'d': double_kernel}\n" + MODEL.replace("double(x)", "TABLE['d'][(1,)](x)"),
    "through autograd": IMPORTS
    + KERNEL
    + WRAPPER
    + "class F(torch.autograd.Function):\n    @staticmethod\n    def forward(ctx, x): return double(x)\n"
    + MODEL.replace("double(x)", "F.apply(x)"),
    "as a registered operator": IMPORTS
    + KERNEL
    + WRAPPER.replace("def double", "@torch.library.custom_op('my::twice', mutates_args=())\ndef double")
    + MODEL.replace("double(x)", "torch.ops.my.twice(x)"),
    "an inherited forward that launches": IMPORTS
    + KERNEL
    + WRAPPER
    + MODEL.replace("ModelNew", "Base")
    + "class ModelNew(Base):\n    pass\n",
    "forward set from outside": IMPORTS
    + KERNEL
    + WRAPPER
    + "class ModelNew(nn.Module): pass\nModelNew.forward = lambda self, x: double(x)\n",
    "forward set by setattr": IMPORTS
    + KERNEL
    + WRAPPER
    + "class ModelNew(nn.Module): pass\nsetattr(ModelNew, 'forward', lambda self, x: double(x))\n",
    "a decorator of its own": IMPORTS
    + "def my_jit(f): return triton.jit(f)\n"
    + KERNEL.replace("@triton.jit", "@my_jit")
    + WRAPPER
    + MODEL,
    "jit as a call": IMPORTS
    + KERNEL.replace("@triton.jit\n", "")
    + "fast = triton.jit(double_kernel)\n"
    + MODEL.replace("double(x)", "fast[(1,)](x)"),
    "a global made on first use": IMPORTS
    + KERNEL
    + WRAPPER.replace("double(", "_twice(")
    + "def make():\n    global double\n    double = _twice\nmade = make()\n"
    + MODEL,
    "a kernel that only calls a helper": IMPORTS
    + KERNEL
    + "@triton.jit\ndef outer(x, o, n, B: tl.constexpr):\n    double_kernel(x, o, n, B)\n"
    + MODEL.replace("double(x)", "outer[(1,)](x, x, 1, 1)"),
    "an alias of the entry class": TRITON.replace("ModelNew", "Fast") + "ModelNew = Fast\n",
    "a misspelt name, which the run will report": TRITON.replace("return double(x)", "return duoble(x)"),
    "not Python at all": "def (:\n",
}


@pytest.mark.parametrize("cheat", TRITON_CHEATS)
def test_a_triton_source_without_a_working_kernel_is_refused(cheat: str) -> None:
    source, says = TRITON_CHEATS[cheat]
    reason = check_triton(source)
    assert reason is not None
    assert says in reason
    assert reason.endswith(".")


@pytest.mark.parametrize("honest", TRITON_HONEST)
def test_an_honest_triton_kernel_passes(honest: str) -> None:
    assert check_triton(TRITON_HONEST[honest]) is None


# ------------------------------------------------------------------ cpp

CPP_CHEATS = {
    "no extension": ("import torch\nimport torch.nn as nn\n" + TORCH_MODEL, "compiles no C++"),
    "imported, never called": (CPP_IMPORTS + TORCH_MODEL, "compiles no C++"),
    "called in a comment": (CPP_IMPORTS + "# " + BUILD + TORCH_MODEL, "compiles no C++"),
    "the result is thrown away": (CPP_IMPORTS + BUILD.removeprefix("ext = ") + TORCH_MODEL, "never uses"),
    "the result is not used": (CPP_IMPORTS + BUILD + TORCH_MODEL, "never uses"),
    "built by a function that nobody calls": (
        CPP_IMPORTS + f"def build():\n    {BUILD}    return ext\n" + TORCH_MODEL,
        "never uses",
    ),
}

CPP_HONEST = {
    "plain": CPP_IMPORTS + BUILD + CPP_MODEL,
    "in a function, on first use": CPP_IMPORTS
    + f"_ext = None\ndef get():\n    global _ext\n    if _ext is None:\n        _{BUILD}    return _ext\n"
    + CPP_MODEL.replace("ext.d", "get().d"),
    "in the constructor": CPP_IMPORTS
    + f"class ModelNew(nn.Module):\n    def __init__(self):\n        self.{BUILD}"
    + "    def forward(self, x):\n        return self.ext.d(x)\n",
    "in a try block": CPP_IMPORTS + f"try:\n    {BUILD}except RuntimeError:\n    raise\n" + CPP_MODEL,
    "a function taken out": CPP_IMPORTS + BUILD + "d = ext.d\n" + CPP_MODEL.replace("ext.d", "d"),
    "operators registered from C++": CPP_IMPORTS
    + BUILD.removeprefix("ext = ").replace(")\n", ", is_python_module=False)\n")
    + CPP_MODEL.replace("ext.d", "torch.ops.my.d"),
    "loaded through importlib": "import importlib\nimport torch.nn as nn\n"
    "ce = importlib.import_module('torch.utils.cpp_extension')\n" + BUILD.replace("load_inline", "ce.load_inline") + CPP_MODEL,
    "loaded through importlib, at once": "import importlib\nimport torch.nn as nn\n"
    + BUILD.replace("load_inline", "importlib.import_module('torch.utils.cpp_extension').load_inline")
    + CPP_MODEL,
    "files, loaded through importlib": "import importlib\nimport torch.nn as nn\n"
    + BUILD.replace("load_inline", "importlib.import_module('torch.utils.cpp_extension').load")
    + CPP_MODEL,
    "bound in a test": CPP_IMPORTS + BUILD.replace("ext = ", "if (ext := ").replace(")\n", ")):\n    pass\n") + CPP_MODEL,
    "bound by with": CPP_IMPORTS
    + "import contextlib\n"
    + BUILD.replace("ext = ", "with contextlib.nullcontext(").replace(")\n", ")) as ext:\n    pass\n")
    + CPP_MODEL,
    "bound by a loop": CPP_IMPORTS + BUILD.replace("ext = ", "for ext in [").replace(")\n", ")]:\n    pass\n") + CPP_MODEL,
    "a star import": CPP_IMPORTS.replace("import load_inline", "import *") + BUILD + CPP_MODEL,
    "a star import, of files": CPP_IMPORTS.replace("import load_inline", "import *")
    + BUILD.replace("load_inline", "load")
    + CPP_MODEL,
    "wrapped by a cached function": CPP_IMPORTS
    + f"import functools\n@functools.lru_cache\ndef get():\n    {BUILD}    return ext\n"
    + CPP_MODEL.replace("ext.d", "get().d"),
    "words of the rules in strings": CPP_IMPORTS + BUILD.replace("torch::Tensor d", "/* pass # // */ torch::Tensor d") + CPP_MODEL,
    "a misspelt name, which the run will report": CPP_IMPORTS + BUILD + CPP_MODEL.replace("ext.d", "extension.d"),
    "not Python at all": "x = = 1\n",
}


@pytest.mark.parametrize("cheat", CPP_CHEATS)
def test_a_cpp_source_that_does_not_use_an_extension_is_refused(cheat: str) -> None:
    source, says = CPP_CHEATS[cheat]
    reason = check_cpp(source)
    assert reason is not None
    assert says in reason
    assert reason.endswith(".")


@pytest.mark.parametrize("honest", CPP_HONEST)
def test_an_honest_cpp_kernel_passes(honest: str) -> None:
    assert check_cpp(CPP_HONEST[honest]) is None


# ------------------------------------------------------------------ hostile sources


@pytest.mark.parametrize("source", ["x = = 1", "a\0b", "s = '\ud800'", "(" * 5000, "  x", "'''"])
def test_what_python_cannot_read_is_a_fault_and_left_to_python(source: str) -> None:
    found = facts(source)
    assert isinstance(found, SourceFault)
    assert found.kind == "syntax"
    assert found.message
    assert check_triton(source) is None
    assert check_cpp(source) is None


def test_a_fault_names_the_line() -> None:
    found = facts("x = 1\ny = = 2\n")
    assert isinstance(found, SourceFault)
    assert (found.line, found.message) == (2, "line 2: invalid syntax")


@pytest.mark.parametrize("source", ["-" * 200_000 + "1", "not " * 50_000 + "1", "x = 1\n" * 200_000])
def test_a_source_beyond_the_limits_is_refused(source: str) -> None:
    found = facts(source)
    assert isinstance(found, SourceFault)
    assert found.kind == "limits"
    assert check_triton(source) == check_cpp(source) == found.message


@pytest.mark.parametrize("source", ["1" + "+1" * 100_000, "a" + ".b" * 100_000, "f" + "()" * 100_000, "lambda: " * 30_000 + "1"])
def test_a_deep_tree_is_never_an_exception(source: str) -> None:
    assert isinstance(facts(source), SourceFacts | SourceFault)
    assert check_triton(source)


def test_a_megabyte_of_anything_is_refused_without_being_parsed() -> None:
    for piece in ("(", "-", "[],", "\0", "class ModelNew: pass\n"):
        found = facts(piece * (1_000_000 // len(piece)))
        assert isinstance(found, SourceFault)
        assert found.kind == "limits"


def test_wide_sources_within_the_limits_are_read() -> None:
    assert read("x = [" + "1," * 100_000 + "]").entry is None
    assert read("class ModelNew: pass\n" * 10_000).entry is not None


def test_doubtful_escapes_in_the_source_are_not_our_warnings() -> None:
    assert read("x = '\\d'\nclass ModelNew: pass\n").entry is not None

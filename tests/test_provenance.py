"""Who did the work: decoys beside the honest kernels that look like them."""

from __future__ import annotations

import ctypes
import functools
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from kernel_env.backends import doors, provenance
from kernel_env.backends.ablation import _other_numbers, differs, disturb, of_other_numbers
from kernel_env.backends.events import Span, hidden, on_threads, sequence
from kernel_env.backends.provenance import Provenance, _calls_python, _may_be_given
from kernel_env.checks.provenance import decoy, forbidden
from kernel_env.referee.pool import KEEP_MEMORY
from kernel_env.schema import Problem, Status
from tests.conftest import QUICK, REFERENCE, Judge

ALL = replace(QUICK, measure_performance=False, torch_ops="all")

CPP = '''
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

own = load_inline(name="own", cpp_sources="""
#include <torch/extension.h>
torch::Tensor work(torch::Tensor x, double s) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] * (float)s : 0.0f;
  return y;
}
torch::Tensor scaled(torch::Tensor x, double s) {
  auto y = torch::empty_like(x);
  for (int64_t i = 0; i < x.numel(); ++i) y.data_ptr<float>()[i] = x.data_ptr<float>()[i] * (float)s;
  return y.clone();
}
void into(torch::Tensor y, torch::Tensor x, double s) { y.copy_(work(x, s)); }
torch::Tensor same(torch::Tensor x) { return scaled(x, 1.0); }
torch::Tensor total(torch::Tensor x) {
  float sum = 0;
  for (int64_t i = 0; i < x.numel(); ++i) sum += x.data_ptr<float>()[i];
  return torch::full({}, sum, x.options());
}
torch::Tensor zeros(torch::Tensor x) { return torch::zeros_like(x); }
torch::Tensor torchs(torch::Tensor x, double s) { return torch::relu(x) * s; }
torch::Tensor kept(torch::Tensor x, double s) {
  auto y = torch::empty_like(x);
  y.copy_(torch::relu(x) * s);
  return y;
}
torch::Tensor finished(torch::Tensor x, double s) {
  auto y = torch::relu(x);
  for (int64_t i = 0; i < y.numel(); ++i) y.data_ptr<float>()[i] *= (float)s;
  return y;
}
""", functions=["work", "scaled", "into", "same", "total", "zeros", "torchs", "kept", "finished"])
bound = own.work


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        {forward}
'''


def judged(judge: Judge, forward: str, policy: str = "all") -> tuple[Status, str]:
    verdict = judge(CPP.replace("{forward}", forward), config=replace(ALL, torch_ops=policy))
    return verdict.status, verdict.message


@pytest.mark.parametrize(
    ("forward", "said"),
    [
        ("return torch.relu(x) * self.scale if x.dim() else own.work(x, 1.0)", "ran no kernel of its own"),
        ("try: return own.work(x)\n        except TypeError: return torch.relu(x) * self.scale", "computed nothing"),
        ("return torch.relu(own.same(x)) * self.scale", "computed nothing"),
        ("return torch.relu(x) * self.scale + own.zeros(x)", "computed nothing"),
        ("return own.torchs(x, self.scale)", "computed nothing"),
        ("return own.kept(x, self.scale)", "computed nothing"),
        ("own.work(x, self.scale); return torch.relu(x) * self.scale", "make no difference"),
        ("return torch.relu(x) * self.scale + own.work(x, 1e-9)", "make no difference"),
    ],
)
def test_decoys(judge: Judge, forward: str, said: str) -> None:
    status, message = judged(judge, forward)
    assert status is Status.REJECTED and said in message
    assert judged(judge, forward, "unchecked")[0] is Status.CORRECT


@pytest.mark.parametrize(
    "forward",
    [
        "return own.work(x, self.scale)",
        "return bound(x, self.scale)",
        "return own.scaled(torch.relu(x), self.scale)",
        "return torch.relu(own.scaled(x, self.scale))",
        "y = torch.empty_like(x); own.into(y, x, self.scale); return y",
        "return own.finished(x, self.scale)",
        "return torch.relu(x) * self.scale + (own.total(x) - x.sum())",
    ],
)
def test_honest_kernels_that_leave_something_to_torch(judge: Judge, forward: str) -> None:
    assert judged(judge, forward) == (Status.CORRECT, "")


def test_what_may_be_left_to_torch_is_a_policy(judge: Judge) -> None:
    whole, part = "y = x.clone(); return own.work(y, self.scale)", "return own.scaled(torch.relu(x), self.scale)"
    assert judged(judge, whole, "glue") == judged(judge, part, "all") == (Status.CORRECT, "")
    assert judged(judge, "return own.work(x, self.scale)", "none") == (Status.CORRECT, "")
    status, message = judged(judge, whole, "none")
    assert (status, message.rpartition(": ")[2]) == (Status.REJECTED, "clone")
    status, message = judged(judge, part, "glue")
    assert (status, message.rpartition(": ")[2]) == (Status.REJECTED, "relu")
    status, message = judged(judge, "return own.finished(x, self.scale)", "glue")
    assert (status, message.rpartition(": ")[2]) == (Status.REJECTED, "relu"), "what an extension calls counts too"


def test_a_kernel_of_a_relu_on_positive_numbers_is_no_copy(judge: Judge) -> None:
    positive = Problem(1, 1, "Positive", REFERENCE.replace("torch.randn", "torch.rand"), origin="test")
    code = CPP.replace("{forward}", "return own.scaled(own.work(x, 1.0), self.scale)")
    assert judge(code, of=positive, config=ALL).status is Status.CORRECT


TRITON = """
import torch
import triton
import triton.language as tl


@triton.jit
def kernel(x, y, n, scale, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + i, mask=i < n)
    tl.store(y + i, {value}, mask=i < n)


class ModelNew(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        y = torch.empty_like(x)
        kernel[(triton.cdiv(x.numel(), 64),)](x, y, x.numel(), self.scale, BLOCK=64)
        {end}
"""


@pytest.mark.parametrize(
    ("value", "end", "status"),
    [
        ("tl.where(value > 0, value * scale, 0.0)", "return y", Status.CORRECT),
        ("value * scale", "return torch.relu(y)", Status.CORRECT),
        ("value", "return torch.relu(y) * self.scale", Status.REJECTED),
        ("value * scale", "return torch.relu(x) * self.scale", Status.REJECTED),
    ],
)
def test_the_same_in_triton(judge: Judge, value: str, end: str, status: Status) -> None:
    assert judge(TRITON.replace("{value}", value).replace("{end}", end), config=ALL, backend="triton").status is status


IN_ONE_PROCESS = """
import sys, json
from kernel_env.referee.config import VerifyConfig
from kernel_env.schema import Candidate, Problem
from kernel_env.verifier import BlockingVerifier, InprocessVerifier, VerifierConfig
reference, config, *codes = json.load(sys.stdin)
with BlockingVerifier(lambda: InprocessVerifier(VerifierConfig())) as verifier:
    for code in codes:
        verdict = verifier.verify(Problem(1, 1, "P", reference), Candidate(code, "triton"), VerifyConfig(**config), 1)
        print(verdict.status, verdict.message.split(":")[0])
"""


def test_one_program_after_another_in_one_process() -> None:
    """What was watched for the first is not taken for the second's doing."""
    code = TRITON.replace("{value}", "tl.where(value > 0, value * scale, 0.0)").replace("{end}", "return y")
    listens = f"import sys\nsys.setprofile(None)\n{code}"
    config = {"num_correct_trials": 3, "measure_performance": False, "torch_ops": "all"}
    ran = subprocess.run(
        [sys.executable, "-c", IN_ONE_PROCESS],
        input=json.dumps([REFERENCE, config, code, listens, code]), env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    said = "rejected torch's operators (whatever ran after sys.setprofile was called) ran where no trace sees them"
    assert ran.stdout.splitlines() == ["correct ", said, "correct "], ran.stderr[-2000:]


def events(*words: str) -> list[tuple[str, str]]:
    """`name` begins, `/` ends the last that began."""
    return [("pop", "") if word == "/" else ("push", word) for word in words]


TRACED = ("aten::relu", "PythonDispatchMode", "aten::relu", "aten::clamp_min", "/", "/", "/", "/")


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        ((), []),
        (TRACED, []),
        (("aten::relu", "aten::clamp_min", "/", "/"), ["clamp_min", "relu"]),
        (("aten::matmul", *TRACED, "/"), []),
        (("aten::empty_like", "aten::empty_strided", "/", "/"), []),
        (("ours", "aten::eq", "/", "/"), []),
        (("ours", "aten::eq", "/", "aten::mul", "aten::eq", "/", "/", "aten::clone", "/", "/"), ["mul"]),
        (("aten::relu", "PythonDispatchMode", "aten::mm", "/", "aten::relu", "/", "aten::relu", "/", "/", "/"), ["mm", "relu"]),
        (("mine::op", "PythonDispatchMode", *TRACED, "/", "/"), []),
        (("mine::op", "PythonDispatchMode", "aten::relu", "/", "/", "/"), ["relu"]),
        ((*TRACED, "aten::mul", "/"), ["mul"]),
        (("mkldnn::_linear_pointwise", "aten::empty", "/", "/"), ["mkldnn::_linear_pointwise"]),
        (("profiler::_record_function_enter_new", "/"), []),
        (("/", "aten::relu"), []),
    ],
    ids=[
        "nothing",
        "traced",
        "hidden",
        "composite",
        "memory",
        "ours",
        "another's work within ours",
        "before and after a traced one",
        "own operator",
        "hidden in it",
        "one of two",
        "of another namespace",
        "a range",
        "cut off",
    ],
)
def test_operators_that_are_kept_from_the_trace(seen: tuple[str, ...], found: list[str]) -> None:
    assert list(hidden(events(*seen), "ours")) == found


@pytest.mark.parametrize(
    ("seen", "openly", "unseen"),
    [
        ([], set(), set()),
        ([Span("aten::relu", 1, 5, 9)], set(), set()),
        ([Span("aten::relu", 2, 5, 9)], {"relu"}, set()),
        ([Span("launch", 1, 10, 20), Span("aten::relu", 2, 5, 9)], {"relu"}, set()),
        ([Span("launch", 1, 10, 20), Span("aten::relu", 2, 12, 19)], set(), {"relu"}),
        ([Span("launch", 1, 10, 20), Span("aten::relu", 2, 5, 30)], set(), {"relu"}),
        ([Span("launch", 1, 10, 20), Span("aten::empty", 2, 12, 19)], set(), set()),
        ([Span("launch", 1, 10, 20), Span("mkldnn::_linear_pointwise", 2, 12, 19)], set(), {"mkldnn::_linear_pointwise"}),
        ([Span("launch", 1, 10, 20), Span("aten::bmm", 1, 11, 19), Span("aten::addmm", 2, 12, 18)], set(), set()),
        ([Span("launch", 1, 10, 20), Span("aten::empty", 1, 11, 19), Span("aten::addmm", 2, 12, 18)], set(), {"addmm"}),
    ],
    ids=[
        "nothing",
        "here",
        "openly",
        "before",
        "in a launch",
        "beyond it",
        "memory",
        "of another namespace",
        "part of a traced one",
        "behind an allocation",
    ],
)
def test_operators_on_other_threads(seen: list[Span], openly: set[str], unseen: set[str]) -> None:
    assert on_threads(seen, {1}, "launch") == (openly, unseen)


def test_a_threads_spans_are_nested_by_their_times() -> None:
    spans = [Span("c", 1, 5, 6), Span("a", 1, 0, 9), Span("b", 1, 1, 4), Span("b1", 1, 1, 3), Span("d", 1, 9, 12)]
    assert list(sequence(spans)) == events("a", "b", "b1", "/", "/", "c", "/", "/", "d", "/")


THREADED = """
#include <thread>
torch::Tensor apart(torch::Tensor x, double s) {
  torch::Tensor y;
  std::thread other([&] { y = torch::relu(x) * s; });
  other.join();
  return y.clone();
}
torch::Tensor split(torch::Tensor x, double s) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  auto half = [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) b[i] = a[i] > 0 ? a[i] * (float)s : 0.0f;
  };
  std::thread other(half, 0, x.numel() / 2);
  half(x.numel() / 2, x.numel());
  other.join();
  return y;
}
"""
PYTHONS = (
    "from concurrent.futures import ThreadPoolExecutor\n"
    "        with ThreadPoolExecutor(1) as pool:\n"
    "            return own.scaled(pool.submit(torch.relu, x).result(), self.scale)"
)


@pytest.mark.parametrize(
    ("forward", "policy", "status", "said"),
    [
        ("return own.apart(x, self.scale)", "all", Status.REJECTED, "relu) ran where no trace sees them"),
        ("return own.split(x, self.scale)", "none", Status.CORRECT, ""),
        (PYTHONS, "all", Status.CORRECT, ""),
        (PYTHONS, "glue", Status.REJECTED, "does not allow: clamp_min, relu"),
    ],
    ids=["torch on a thread", "own threads", "openly", "openly, where only glue is allowed"],
)
def test_other_threads_are_watched_too(judge: Judge, forward: str, policy: str, status: Status, said: str) -> None:
    code = CPP.replace("torch::Tensor work(", THREADED + "torch::Tensor work(", 1).replace('["work"', '["apart", "split", "work"')
    verdict = judge(code.replace("{forward}", forward), config=replace(ALL, torch_ops=policy))
    assert verdict.status is status and said in verdict.message, verdict.message


@pytest.mark.parametrize(
    ("name", "status"), [("sgemm_", Status.REJECTED), ("strlen", Status.CORRECT)], ids=["of the BLAS", "of the C library"]
)
def test_functions_that_ctypes_looks_up(judge: Judge, name: str, status: Status) -> None:
    top = f"""
import ctypes
from pathlib import Path
ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libtorch_cpu.so"))[{name!r}]
"""
    verdict = judge(CPP.replace("bound = own.work", top).replace("{forward}", "return own.work(x, self.scale)"), config=ALL)
    assert verdict.status is status, verdict.message
    assert verdict.category == ("library" if status is Status.REJECTED else ""), verdict.category


def test_what_a_trace_means() -> None:
    assert decoy(3, works=True, matters=True) is None
    assert forbidden(["relu", "empty_like", "clone"], "all") == forbidden(["relu"], "unchecked") == []
    assert forbidden(["relu", "empty_like", "clone"], "glue") == ["relu"]
    assert forbidden(["relu", "empty_like", "clone"], "none") == ["clone", "relu"]


# ---------------------------------------------------------- replaced by what a kernel gives for other numbers


def test_other_numbers_reach_results_and_written_arguments_and_no_input() -> None:
    def kernel(x: torch.Tensor, out: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        out.copy_(x * scale)
        return out, x + 1

    x, out = torch.arange(1.0, 101.0), torch.zeros(100)
    before = x.clone()
    returned, made = of_other_numbers(kernel, (x, out, 2.0), {})
    assert torch.equal(x, before) and returned is out, "inputs stay, and what was returned is the argument itself"
    assert not torch.equal(out, 2 * x) and set(out.tolist()) <= {2 * 0.75 * number for number in x.tolist()}
    assert not torch.equal(made, x + 1)


@pytest.mark.parametrize("count", [100, 4096, 100_001])
@pytest.mark.parametrize("make", [torch.arange, lambda n: torch.rand(n), lambda n: torch.rand(n // 2, 2)])
def test_other_numbers_are_some_of_those_that_are_there(count: int, make: Callable[[int], torch.Tensor]) -> None:
    numbers, same = make(count), 0
    for _ in range(20):
        drawn = _other_numbers(numbers, 1.0)
        assert drawn.shape == numbers.shape and drawn.dtype == numbers.dtype and drawn.data_ptr() != numbers.data_ptr()
        assert torch.isin(drawn, numbers).all() and not torch.equal(drawn, numbers)
        same += bool(drawn.double().sum() == numbers.double().sum())
    assert _other_numbers(torch.empty(0), 0.75).shape == (0,)
    assert same <= 2, "a kernel that sums up has other numbers, too; of a hundred integers the sum is the same once in 700 draws"


def test_a_table_of_offsets_stays_one() -> None:
    """A kernel that copies rows from where they begin would else copy a negative number of bytes, and the process would end."""
    starts = torch.arange(0, 101, 10)

    def rows(x: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        assert torch.equal(starts, torch.arange(0, 101, 10)), "the process ends"
        return torch.stack([x[a:b].sum() for a, b in itertools.pairwise(starts.tolist())])

    x = torch.rand(100)
    assert not torch.allclose(of_other_numbers(rows, (x, starts), {}), rows(x, starts)) and differs(rows, (x, starts), {})


def test_integers_alone_are_other_numbers_too() -> None:
    """Also beside an output that the kernel is given."""

    def counts(x: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(torch.bincount(x, minlength=len(out)))

    x, out = torch.randint(10, (1000,)), torch.zeros(10)
    assert differs(counts, (x, out), {})
    assert not differs(lambda x, out: out.fill_(3), (x, out), {})
    before = torch.bincount(x)
    assert not torch.equal(of_other_numbers(torch.bincount, (x,), {}), before)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 1000, 1001])
def test_a_disturbed_index_stays_in_range(count: int) -> None:
    index = torch.arange(count).repeat(3)
    before = index.clone()
    disturb(index)
    assert index.min() >= 0 and index.max() < count and not (index == before).any()


def test_kernels_that_must_agree_with_each_other() -> None:
    """One counts, and the other fills so many places. One that is only held against what torch computes proves nothing."""
    torch.manual_seed(1)  # other numbers might by chance be as many
    watcher = Provenance()

    def fill(x: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
        found = x[x > 0] * 2
        if len(found) != int(count):
            raise RuntimeError("not so many")
        return found

    counted, filled = watcher._function(lambda x: (x > 0).sum().reshape(1)), watcher._function(fill)
    x = torch.randn(1000)

    def agree() -> torch.Tensor:
        return filled(x, counted(x))

    def tests_itself() -> torch.Tensor:
        mine, theirs = counted(x), (x > 0).sum().reshape(1)
        if not torch.equal(mine, theirs):
            raise RuntimeError("they differ")
        return x[x > 0] * 2

    with torch.no_grad():
        as_it_is = watcher.traced(agree)
        assert not torch.equal(watcher.ablated(agree, "last"), as_it_is)
        for how in ("other", "disturbed"):
            with pytest.raises(RuntimeError, match="not so many"):
                watcher.ablated(agree, how)
        watcher.traced(tests_itself)
        with pytest.raises(RuntimeError, match="they differ"):
            watcher.ablated(tests_itself, "last")


ROOMY = """
import re, torch
from kernel_env.backends.ablation import make_room
make_room(64 << 20)
torch.zeros(48 << 20, dtype=torch.uint8)
print(sum(int(kb) for kb in re.findall(r"AnonHugePages: +([0-9]+) kB", open("/proc/self/smaps").read())))
"""


@pytest.mark.skipif("[never]" in Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text(), reason="no large pages here")
def test_what_is_kept_comes_in_large_pages() -> None:
    environment = {**os.environ, "GLIBC_TUNABLES": KEEP_MEMORY}
    run = subprocess.run([sys.executable, "-c", ROOMY], env=environment, capture_output=True, text=True, check=True)
    assert int(run.stdout) >= 32 << 10


@pytest.mark.parametrize(
    ("body", "works"),
    [(torch.relu, True), (torch.clone, False), (lambda x: x.abs() + 1, True), (lambda x: x.clamp(-1.5, 1.5), True)],
    ids=["a relu", "a copy", "other work", "a clamp beyond what is drawn"],
)
def test_what_copies_some_numbers_only_is_no_copy(body: Callable[[torch.Tensor], torch.Tensor], works: bool) -> None:
    watcher = Provenance()
    x = torch.rand(1000) + 0.5
    forward = watcher._function(body)
    with torch.no_grad():
        watcher._inside = None
        watcher._watching = True
        watcher._launch(body, (x,), {}, 1, calls_torch=False)
    assert forward(x).shape == x.shape and watcher.works() is works


_library: Any = torch.library.Library
CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
DOORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "redispatch": lambda x: torch.ops.aten.exp.default.redispatch(CPU, x),
    "a kernel taken out": lambda x: torch.library.get_kernel("aten::exp", "CPU").call_boxed(CPU, x),
    "by its key": lambda x: torch.ops.aten.exp.default._op_dk(torch._C.DispatchKey.CPU, x),
    "found anew": lambda x: torch._C._get_operation_overload("aten::exp", "")[1](torch._C.DispatchKey.CPU, x),
}


@pytest.mark.parametrize("way", DOORS)
def test_operators_that_python_calls_past_the_dispatcher(way: str) -> None:
    watcher, x = Provenance(), torch.ones(3)
    with torch.no_grad():
        watcher.traced(lambda: DOORS[way](x))
    assert watcher.hidden == {"exp"} and not watcher.operators


def test_moves_and_operators_of_ones_own_may_be_redispatched() -> None:
    def forward() -> Any:
        x = torch.ops.aten.clone.default.redispatch(CPU, torch.ones(3))
        return torch.ops.doors_test.twice.default.redispatch(CPU, x)

    library: Any = _library("doors_test", "DEF")
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: x + x, "CPU")
    watcher = Provenance()
    with torch.no_grad():
        watcher.traced(forward)
    assert not watcher.hidden


def test_an_operator_whose_body_became_python_is_no_kernel() -> None:
    """What is defined together with its body in C++ is watched where Python calls it. Such an operator stands here for one."""
    library: Any = _library("composite_test", "DEF")
    watcher, x = Provenance(), torch.ones(3)
    library.define("twice(Tensor x) -> Tensor")
    library.impl("twice", lambda x: torch.from_numpy(x.numpy() * 2), "CompositeImplicitAutograd")
    watcher.loaded(None)
    with torch.no_grad():
        watcher.traced(lambda: (torch.ops.composite_test.twice(x), torch.ops.composite_test.twice.default(x)))
    assert not watcher.launches
    del library


def test_an_operator_of_ones_own_bears_no_name_of_torchs() -> None:
    library: Any = _library("aten", "FRAGMENT")
    library.define("view.of_a_test(Tensor x) -> Tensor")
    watcher = Provenance()
    watcher.traced(lambda: None)
    del library
    assert [name.partition(",")[0] for name in watcher.hidden] == ["aten::view.of_a_test"]


def test_a_profiler_that_is_begun_anew_has_seen_nothing_before() -> None:
    from kernel_env.backends.events import profiled

    def forward() -> None:
        torch._C._autograd._disable_profiler()
        anew = profiled([])
        anew.__enter__()

    watcher = Provenance()
    watcher.traced(forward)
    assert watcher.hidden == {"whatever ran before torch's profiler was begun anew"}


def packed() -> Any:
    return torch.ops.mkldnn_prepacked.conv2d_prepack(torch.ones(1, 1, 1, 1), None, [1, 1], [0, 0], [1, 1], 1, [1, 1, 2, 2], "none")


@pytest.mark.parametrize(
    ("use", "undo", "name"),
    [
        (lambda: torch.autograd._enable_record_function(False), torch.autograd._enable_record_function, "enable_record_function"),
        (lambda: torch.jit.enable_onednn_fusion(True), torch.jit.enable_onednn_fusion, "jit_set_llga_enabled"),
        (packed, lambda _: None, "mkldnn_prepacked::conv2d_prepack"),
    ],
    ids=["recording", "fusion", "packing"],
)  # fmt: skip
def test_what_hides_operators_is_remembered(
    monkeypatch: pytest.MonkeyPatch, use: Callable[[], None], undo: Callable[[bool], None], name: str
) -> None:
    """On whatever thread: one that was there before may work where nobody looks."""
    monkeypatch.setattr(doors, "switched", set())
    undo(name != "jit_set_llga_enabled")  # back to what it is
    assert not doors.switched
    watcher = Provenance()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    undo(name != "jit_set_llga_enabled")
    watcher.traced(lambda: None)
    assert watcher.hidden == {f"whatever ran after {name} was called"}


LISTENERS: dict[str, Callable[[], Any]] = {
    "sys.setprofile": lambda: sys.setprofile(sys.getprofile()),
    "sys.settrace": lambda: sys.settrace(sys.gettrace()),
    "sys.addaudithook": lambda: sys.addaudithook(lambda *_: None),
}


@pytest.mark.parametrize("event", LISTENERS)
def test_a_listener_would_run_within_what_is_ours(event: str) -> None:
    watcher = Provenance()
    thread = threading.Thread(target=LISTENERS[event])
    thread.start()
    thread.join()
    watcher.traced(lambda: None)
    assert watcher.hidden == {f"whatever ran after {event} was called"}
    Provenance().traced(lambda: None)  # of another program in this process
    assert not doors.switched


def test_c_cannot_listen_either() -> None:
    watcher = Provenance()
    kept = sys.getprofile()
    ctypes.pythonapi.PyEval_SetProfile(None, None)
    sys.setprofile(kept)
    watcher.traced(lambda: None)
    assert watcher.hidden


INTERRUPTED: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "before the comparison": (lambda x: x.exp(), {"exp"}),
    "by a move": (lambda x: x.clone(), set()),
}


@pytest.mark.parametrize("way", INTERRUPTED)
def test_a_signals_handler_may_run_within_what_is_ours(way: str) -> None:
    """Signals come until it does."""
    work, hidden = INTERRUPTED[way]
    x, y = torch.rand(1 << 20), torch.empty(1 << 20)
    ran = []

    def handler(number: int, frame: Any) -> None:
        names = set()
        while frame is not None:
            names.add(frame.f_code.co_name)
            frame = frame.f_back
        if not ran and {"_launch", "same"} <= names:
            ran.append(True)
            y.copy_(work(x))

    kept = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-3, 1e-3)
    try:
        watcher = Provenance()
        with torch.no_grad():
            while not ran:
                watcher.traced(lambda: watcher._function(lambda x, y: None)(x, y))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, kept)
    assert len(ran) == 1 and watcher.hidden == hidden and "exp" not in watcher.operators


@pytest.mark.parametrize("honest", [True, False])
def test_a_finalizer_does_not_work_below_a_change_of_memory(honest: bool) -> None:
    class Late(bytearray):
        def __del__(self) -> None:
            torch.ones(3).exp()

    def forward() -> None:
        y = torch.frombuffer((bytearray if honest else Late)(12), dtype=torch.float32)
        y.set_(torch.empty(0))

    watcher = Provenance()
    watcher.traced(forward)
    assert watcher.hidden == (set() if honest else {"exp"})


def test_what_torch_does_below_its_moves_is_no_finalizer() -> None:
    x = torch.arange(24.0).view(2, 3, 4)

    def forward() -> None:
        for y in (x.transpose(0, 2).contiguous(), x.repeat(2, 1, 1), x.roll(1), x.flip(0), x.half(), torch.stack([x, x])):
            y.clone().copy_(y).fill_(2)
        torch.nn.functional.pad(x, (1, 1)).index_select(0, torch.tensor([0])), torch.eye(3), torch.randint(3, (2,))
        torch.randn(3).normal_().uniform_().bernoulli_(0.5), torch.randperm(5), torch.rand_like(x), torch.full((2,), 3.0).tolist()
        x.unfold(0, 1, 1).movedim(0, 1).reshape(-1).chunk(2)[0].unflatten(0, (2, -1)).new_full((2,), 1.0).expand(3, 2).numpy()

    watcher = Provenance()
    watcher.traced(forward)
    assert watcher.hidden == set()


def test_an_extensions_functions_are_no_methods_and_are_found_wherever_they_are() -> None:
    made, below, torchs = ModuleType("made"), ModuleType("made.below"), ModuleType("math")
    made.__dict__.update(root=math.sqrt, below=below, other=torchs)
    below.__dict__.update(power=math.pow)
    torchs.__dict__.update(kept=math.exp)
    inner = type("Inner", (), {"__qualname__": "Kind.Inner", "up": staticmethod(math.ceil)})
    kind = type("Kind", (), {"still": staticmethod(math.floor), "Inner": inner, "other": int})
    made.__dict__.update(Kind=kind)
    watcher = Provenance()
    watcher.loaded(made)
    model = type("Model", (), {"root": made.root})
    assert model().root(4.0) == 2.0 == kind().still(2.5) and made.root.__name__ == "sqrt"
    assert torchs.kept is math.exp
    assert kind.Inner is inner and kind.other is int
    watcher.traced(lambda: (model().root(4.0), below.power(2.0, 3.0), kind().still(2.5), kind.still(1.5), inner.up(1.5)))
    assert watcher.launches == 5


def test_a_copy_that_torch_goes_on_with_is_no_work_of_ones_own() -> None:
    def copied(x: torch.Tensor) -> torch.Tensor:
        mine = torch.empty_like(x)
        ctypes.memmove(mine.data_ptr(), x.data_ptr(), x.nbytes)
        return mine.exp()

    def changed(x: torch.Tensor) -> torch.Tensor:
        mine = torch.empty_like(x)
        mine.numpy()[...] = x.numpy() * 2
        return mine.exp()

    for body, works in ((copied, False), (changed, True)):
        watcher = Provenance()
        forward = watcher._function(body)
        with torch.no_grad():
            watcher.traced(functools.partial(forward, torch.rand(1000)))
            assert watcher.works() is works


CHOICES: dict[str, tuple[Callable[..., Any], bool, bool]] = {
    "a test of torch's result": (lambda own, x: y if torch.allclose(own(x[:1]), (y := x.exp())[:1]) else own(x), False, False),
    "the same, to a number": (lambda own, x: x.exp() * (float((own(x[:1]) - x[:1].exp()).abs().max()) < 1e-3), False, False),
    "its result": (lambda own, x: own(x), True, True),
    "torch goes on": (lambda own, x: own(x).sum(0) * 2, True, True),
    "written into torch's": (lambda own, x: x.exp().copy_(own(x)), True, True),
    "written without a result": (lambda own, x: _written(x.exp(), own(x)), True, True),
    "an index": (lambda own, x: x[own(x).argmax(0)], True, False),
    "a number of it": (lambda own, x: torch.full((3,), float(own(x).sum())), False, True),
    "in numpy": (lambda own, x: torch.from_numpy(own(x).numpy() + 1), False, True),
}


def _written(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    torch._foreach_copy_([y], [x])
    return y


@pytest.mark.parametrize("way", CHOICES)
def test_what_a_kernel_computes_reaches_the_output_or_shows_in_it(way: str) -> None:
    forward, reaches, shows = CHOICES[way]
    watcher, x = Provenance(), torch.rand(50, 50)
    own = watcher._function(torch.exp)
    with torch.no_grad():
        as_it_is = watcher.traced(functools.partial(forward, own, x))
        nudged = watcher.ablated(functools.partial(forward, own, x), "nudged")
    assert watcher.reaches is reaches and watcher.nudged and torch.equal(as_it_is, nudged) is not shows


class _Meta(type):
    """Of a class that says it is an extension's."""

    __module__ = "pybind11_builtins"


class _Pretended(metaclass=_Meta):
    __module__ = "torch.nn"

    def __call__(self) -> None:
        """Any work at all."""


def _replaced_forward() -> torch.nn.Module:
    module = torch.nn.Linear(1, 1)
    module.forward = abs
    return module


@pytest.mark.parametrize(
    ("given", "python"),
    [
        (torch.ones(1), False), (torch.float32, False), ("sum", False), ([1, {"a": torch.device("cpu")}], False),
        (torch.nn.Linear(1, 1), False), (torch._C.DispatchKey.CPU, False),
        (len, True), (lambda x: x, True), (np.maximum, True), ({"a": [print]}, True), (functools.partial(print), True),
        (_Pretended(), True), (_replaced_forward(), True), (type("Own", (torch.nn.Linear,), {})(1, 1), True),
    ],
    ids=list(range(14)),
)  # fmt: skip
def test_an_extension_is_given_no_python(given: object, python: bool) -> None:
    assert _calls_python(given) is python


@pytest.mark.parametrize("own", [False, True])
def test_objects_of_classes_that_an_extension_registered_with_torch(monkeypatch: pytest.MonkeyPatch, own: bool) -> None:
    """A class of torch's own stands here for one of an extension's."""
    if own:
        monkeypatch.setattr(provenance, "_TORCHS_CLASSES", frozenset())
    given = packed()
    assert _calls_python(given) is not own
    watcher = Provenance()
    watcher.loaded(None)
    watcher.traced(lambda: given._get_method("__getstate__")())
    assert watcher.launches == own


class _Number(float):
    def __mul__(self, other: object) -> float:
        return 1.0


class _Tensor(torch.Tensor):
    pass


GIVEN = [3, None, (1, torch.ones(1)), "fp32", torch.float32, torch.nn.Parameter(torch.ones(1)), signal.SIGINT, np.float32(1)]
PYTHON = [print, lambda x: x, object(), [print], _Number(1), torch.ones(1).as_subclass(_Tensor), (_Number(1),)]


@pytest.mark.parametrize(("value", "fair"), [*((value, True) for value in GIVEN), *((value, False) for value in PYTHON)])
def test_a_triton_kernel_is_given_no_python(value: object, fair: bool) -> None:
    assert _may_be_given(value, type("Kernel", (), {})) is fair

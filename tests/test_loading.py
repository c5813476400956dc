"""What a candidate's call of load_inline or load becomes, as torch would take it."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.cpp_extension as cpp_extension

from kernel_env.backends.loading import routed_builds
from kernel_env.builder import Builder, BuildRequest
from kernel_env.referee.protocol import Channel
from kernel_env.referee.runner import serve
from kernel_env.schema import Status
from kernel_env.verifier import VerifierConfig
from tests.conftest import QUICK, Judge


@pytest.fixture
def asked() -> Iterator[list[BuildRequest]]:
    """Builds go to the user's own cache; what they were asked for."""
    builder, requests = Builder(VerifierConfig().cache()), list[BuildRequest]()

    def build(frame: dict[str, Any]) -> dict[str, Any]:
        sources, functions = (tuple((a, b) for a, b in frame[name]) for name in ("sources", "functions"))
        requests.append(BuildRequest(sources, functions, tuple(frame["compile_flags"]), tuple(frame["link_flags"])))
        made = builder.build(requests[-1])
        return {"ok": made.ok, "module": made.module, "path": made.path, "log": made.log}

    with routed_builds(build):
        yield requests


BY_HAND = """
#include <torch/extension.h>
namespace py = pybind11;
PYBIND11_MODULE(%s, m) { m.def("twice", [](torch::Tensor x) { return x * 2; }, py::arg("x")); }
"""


@pytest.mark.parametrize("named", ["TORCH_EXTENSION_NAME", "by_hand"])
def test_bindings_may_name_their_module_as_it_was_asked_for(asked: list[BuildRequest], named: str) -> None:
    module = cpp_extension.load_inline(name="by_hand", cpp_sources=BY_HAND % named)
    assert module.twice(x=torch.ones(2)).tolist() == [2.0, 2.0]


def test_bindings_that_name_another_module_are_none_of_it(asked: list[BuildRequest]) -> None:
    with pytest.raises(ImportError, match="PyInit_"):
        cpp_extension.load_inline(name="another", cpp_sources=BY_HAND % "by_hand")


GATED = """
#include <torch/extension.h>
using namespace torch::autograd;
struct Gate : Function<Gate> {
  static torch::Tensor forward(AutogradContext* context, torch::Tensor x) { return x * 2; }
  static tensor_list backward(AutogradContext* context, tensor_list grads) { return {grads[0] * 2}; }
};
torch::Tensor gate(torch::Tensor x) { return Gate::apply(x); }
"""


def test_a_namespace_that_is_used_has_its_headers(asked: list[BuildRequest]) -> None:
    assert cpp_extension.load_inline("gated", GATED, functions=["gate"]).gate(torch.ones(1)).tolist() == [2.0]


def test_a_header_that_is_to_be_read_once_is(asked: list[BuildRequest], tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "one.h").write_text("  #  pragma once // here\ninline int one() { return 1; }\n")
    (tmp_path / "two.h").write_text('#pragma once\n#include "parts/one.h"\ninline int two() { return one() + one(); }\n')
    (tmp_path / "row.h").write_text("ROW(1)\n")  # and one that is meant to be read twice
    main = '#include <torch/extension.h>\n#include "two.h"\n#include "parts/../parts/one.h"\n#include "two.h"\n'
    main += '#define ROW(x) + x\nint three() { return two() + one()\n#include "row.h"\n#include "row.h"\n; }\n'
    main += 'PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("three", &three); }\n'
    (tmp_path / "main.cpp").write_text(main)
    assert cpp_extension.load("main", [str(tmp_path / "main.cpp")]).three() == 5


@pytest.mark.parametrize(
    "call",
    [
        'load_inline("x", "", extra_include_paths=["/tmp"])',
        'load_inline("x", "", cuda_sources="", sycl_sources="x")',
        'load("x", ["x.f90"])',
    ],
)
def test_what_is_not_built_here_is_a_build_error(judge: Judge, call: str) -> None:
    code = "from torch.utils.cpp_extension import load, load_inline\nimport torch\nmade = {}\n"
    code += "class ModelNew(torch.nn.Module):\n    def __init__(self, *given): super().__init__()\n"
    code += "    def forward(self, x):\n        own = made or {}\n        return own.f(x)\n"
    for at_once, later in ((call, "made"), ("None", call)):
        verdict = judge(code.format(at_once, later), config=replace(QUICK, measure_performance=False))
        assert (verdict.status, verdict.category) == (Status.BUILD_ERROR, "unavailable"), verdict.message


ON_THREADS = """
from concurrent.futures import ThreadPoolExecutor
from torch.utils.cpp_extension import load_inline
def ask(name):
    try:
        load_inline(name=name, cpp_sources="")
    except RuntimeError as error:
        return str(error)
names = [str(i) for i in range(300)]
with ThreadPoolExecutor(8) as pool:
    got = list(pool.map(ask, names))
assert got == names, "answers of others"
class ModelNew: pass
"""


@contextlib.contextmanager
def served(tmp_path: Path) -> Iterator[Channel]:
    """A runner in a thread of this process."""
    ours, theirs = map(Channel, socket.socketpair())
    name = Path("/proc/self/comm").read_text()
    thread = threading.Thread(target=serve, args=(theirs, "candidate", tmp_path), kwargs={"interpreter": False}, daemon=True)
    thread.start()
    assert ours.recv(timeout_s=60)[0]["ready"]
    try:
        yield ours
    finally:
        ours.close()
        thread.join(60)
    Path(f"/proc/{os.getpid()}/comm").write_text(name.strip())


def test_each_of_several_threads_has_the_answer_to_its_own_question(tmp_path: Path) -> None:
    with served(tmp_path) as ours:
        ours.send({"op": "load", "code": ON_THREADS, "entry": "ModelNew"})
        while "build" in (frame := ours.recv(timeout_s=60)[0]):
            ours.send({"ok": False, "log": frame["build"]["sources"][0][0].removesuffix(".cpp")})
        assert frame == {}


LATER = """
import threading
from torch.utils.cpp_extension import load_inline
may, asked, got = threading.Event(), threading.Event(), []
def ask():
    may.wait(60)
    asked.set()
    try:
        load_inline(name="late", cpp_sources="")
    except RuntimeError as error:
        got.append(str(error))
thread = threading.Thread(target=ask, name="late")
thread.start()
class ModelNew: pass
"""


def test_a_thread_that_asks_between_requests_waits_for_the_next(tmp_path: Path) -> None:
    """The referee listens to nobody until then, and a runner that speaks unasked is ended."""
    with served(tmp_path) as ours:
        ours.send({"op": "load", "code": LATER, "entry": "ModelNew"})
        assert ours.recv(timeout_s=60)[0] == {}
        late = vars(sys.modules["kernel_env_candidate"])
        late["may"].set()
        assert late["asked"].wait(60)
        time.sleep(0.2)
        assert not ours.has_spoken() and not late["got"]
        ours.send({"op": "load", "code": WAITS, "entry": "ModelNew"})
        while "build" in (frame := ours.recv(timeout_s=60)[0]):
            ours.send({"ok": False, "log": "too late"})
        assert frame == {} and late["got"] == ["too late"]


WAITS = """
import threading
for thread in threading.enumerate():
    if thread.name == "late": thread.join(60)
class ModelNew: pass
"""

"""Fixtures of the sandbox's tests: hosts in each configuration, and probes in fresh runners of theirs."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel_env.builder import Builder, BuildRequest
from kernel_env.sandbox import Layer
from kernel_env.verifier import VerifierConfig
from tests.sandbox_host import Host

PRELUDE = (Path(__file__).parent / "sandbox_probe.py").read_text()
SPACES = (Layer.USER, Layer.PID, Layer.MOUNT, Layer.NET, Layer.IPC, Layer.UTS)
ORDINARY = 1000
THREADS = """
#include <torch/extension.h>
#include <atomic>
#include <omp.h>
#include <thread>
#include <vector>
int64_t openmp(int64_t n) {
  std::atomic<int64_t> seen{0};
  #pragma omp parallel num_threads(n)
  seen += 1;
  return seen;
}
int64_t plain(int64_t n) {
  std::atomic<int64_t> seen{0};
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < n; ++i) threads.emplace_back([&] { seen += 1; });
  for (auto& t : threads) t.join();
  return seen;
}
"""


class Box:
    """One configuration's host, and probes in fresh runners."""

    def __init__(self, host: Host) -> None:
        self.host, self.facts = host, host.facts

    def load(self, body: str, role: str = "candidate", **more: Any) -> tuple[int, Any]:
        """Start a runner and have it load a module that runs `body` as a function. Returns the runner and what load answered."""
        runner = self.host.ask(op="start", role=role, **more)["id"]
        code = (
            f"{PRELUDE}\nFACTS = {self.facts!r}\n\ndef probe():\n{textwrap.indent(textwrap.dedent(body), '    ')}\n\ntell(probe)\n"
        )
        return runner, self.host.ask(op="load", id=runner, code=code)

    def outcome(self, body: str, **more: Any) -> Any:
        runner, answer = self.load(body, **more)
        self.host.ask(op="close", id=runner)
        return said(answer)

    def value(self, body: str, **more: Any) -> Any:
        outcome = self.outcome(body, **more)
        assert "value" in outcome, outcome
        return outcome["value"]

    def denied(self, body: str, *codes: str) -> bool:
        """Whether the probe failed with an OSError (one of `codes`, if given)."""
        outcome = self.outcome(body)
        return "denied" in outcome and (not codes or outcome["denied"] in codes)

    def has(self, *layers: Layer) -> bool:
        return not set(layers) & set(self.facts["missing"])


def said(answer: Any) -> Any:
    """The outcome that a probe told, or the whole answer if it told none."""
    lines = [line for line in answer["log"].splitlines() if line.startswith("PROBE")]
    return json.loads(lines[-1].removeprefix("PROBE")) if lines else answer


@pytest.fixture(scope="session")
def extension() -> Path:
    """Built once in the user's own cache."""
    request = BuildRequest((("main.cpp", THREADS),), (("openmp", ""), ("plain", "")))
    result = Builder(VerifierConfig().cache()).build(request)
    assert result.ok, result.log
    return Path(result.path)


@pytest.fixture(scope="session", params=["root", "ordinary user", "root alone", "ordinary user alone"])
def box(request: pytest.FixtureRequest, extension: Path) -> Iterator[Box]:
    """All layers, as root and as an ordinary user; and both where namespaces are forbidden, as containers do."""
    root = str(request.param).startswith("root")
    if root and os.geteuid() != 0:
        pytest.skip("not root here: the same is tried as an ordinary user")
    without = request.config.getoption("--sandbox-without")
    layers = [layer.value for layer in Layer if layer not in without]
    user = ORDINARY if os.geteuid() == 0 and not root else os.geteuid()
    host = Host(user, layers, extension, forbidden=str(request.param).endswith("alone"))
    try:
        yield Box(host)
    finally:
        host.close()


@pytest.fixture
def neighbour(box: Box) -> Iterator[dict[str, Any]]:
    """Another candidate's runner, alive, with files, shared memory and a queue where it can make them."""
    body = """
    made = []
    def attempt(what):
        try:
            made.append(what())
        except OSError:
            pass
    attempt(lambda: open("answer.txt", "w").write("xyzzy"))
    attempt(lambda: open("/dev/shm/kernel-env-neighbour", "w").write("xyzzy"))
    attempt(lambda: syscall(29, 194, 0x6B65, 4096, 0o1666))
    attempt(lambda: syscall(240, 180, b"kernel-env-neighbour", 0o102, 0o666, None))
    return {"scratch": os.getcwd(), "uid": os.getuid()}
    """
    runner, answer = box.load(body)
    try:
        yield {"pid": runner, **said(answer)["value"]}
    finally:
        box.host.ask(op="close", id=runner)

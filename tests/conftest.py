"""Shared fixtures: one verifier a test process, problems and candidates in a few lines, and what to do without external data."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import stamina.instrumentation

from kernel_env.referee.config import VerifyConfig
from kernel_env.schema import Candidate, Problem, Verdict
from kernel_env.verifier import BlockingVerifier
from tests.holder import Holder
from tests.judge_client import asking, judgeless_environment
from tests.sandbox_box import box, extension, neighbour

__all__ = ["asking", "box", "extension", "judgeless_environment", "neighbour"]

hypothesis.settings.register_profile(
    "any machine, however slow", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine, however slow")

DATA = Path(__file__).parents[2] / "shared" / "data"
JSONL = DATA / "kernel_bench_triton_level_1_2.jsonl"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-external", action="store_true", help="fail, not skip, where something that has to be fetched is missing"
    )
    parser.addoption("--sandbox-without", action="append", default=[], help="run the sandbox's tests without this layer")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Under --require-external, a skipped `external` test is a failure."""
    report: Any = yield
    if report.skipped and item.get_closest_marker("external") and item.config.getoption("--require-external"):
        report.outcome = "failed"
        report.longrepr = f"needs something external: {call.excinfo.value if call.excinfo else 'skipped'}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests see no credentials of the user's, and share one build cache between runs of the suite."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        os.environ.pop(name, None)


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, endpoint or proxy but those that a test sets."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", *(f"{scheme}_proxy" for scheme in ("http", "https", "all"))):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def waits() -> Iterator[list[float]]:
    """Seconds that each retry of a request was planned to wait."""
    planned: list[float] = []
    before = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([lambda details: planned.append(details.wait_for)])
    yield planned
    stamina.instrumentation.set_on_retry_hooks(before)


@pytest.fixture(scope="session")
def verifier() -> Iterator[BlockingVerifier]:
    """The real thing: a zygote, workers, isolated runners."""
    with BlockingVerifier() as shared:
        yield shared


@pytest.fixture(scope="session")
def holder() -> Iterator[Holder]:
    """Another process, to read memory of."""
    with Holder() as process:
        yield process


@pytest.fixture
def real_problems() -> Path:
    """The 200 problems of the RL data set."""
    if not JSONL.exists():
        pytest.skip(f"needs ../shared/data/{JSONL.name} beside the checkout")
    return JSONL


@pytest.fixture
def checkout() -> Path:
    """A checkout of KernelBench."""
    if "KERNELBENCH_ROOT" not in os.environ:
        pytest.skip("KERNELBENCH_ROOT names no checkout of https://github.com/ScalingIntelligence/KernelBench")
    return Path(os.environ["KERNELBENCH_ROOT"])


REFERENCE = """
import torch
import torch.nn as nn

ROWS = 16


class Model(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return torch.relu(x) * self.scale


def get_inputs():
    return [torch.randn(ROWS, 8)]


def get_init_inputs():
    return [2.0]
"""


@pytest.fixture
def problem() -> Problem:
    """relu(x) * 2 on 16 x 8."""
    return Problem(1, 1, "ScaledRelu", REFERENCE, origin="test")


QUICK = VerifyConfig(
    num_correct_trials=3,
    num_perf_trials=5,
    timing_budget_s=0.05,
    timeout_s=20,
    noise_limit=1e9,
    timing_precision=1e9,
    torch_ops="unchecked",
)
"""What a candidate does may be left to torch. Times are taken, but not believed: tests run side by side."""

Judge = Callable[..., Verdict]


@pytest.fixture
def judge(verifier: BlockingVerifier, problem: Problem) -> Judge:
    """`judge(source)` is the verdict on a candidate for `problem`."""

    def judged(code: str, of: Problem | None = None, config: VerifyConfig = QUICK, backend: str = "cpp", seed: int = 1) -> Verdict:
        return verifier.verify(of or problem, Candidate(code, backend), config, seed)

    return judged


def sampled(cases: Iterable[Any], every: Container[Any]) -> list[Any]:
    """Test cases of which only `every` belong to the default suite; the others are `thorough`."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=() if case in every else pytest.mark.thorough)
        for case in cases
    ]


SCALED_RELU = """torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] * (float)scale : 0.0f;
  return y;
}
"""


def python_candidate(forward: str, init: str = "pass", top: str = "") -> str:
    """A candidate whose checks pass: it builds a small extension, then does what the test wants."""
    return f'''
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="relu", cpp_sources="""
#include <torch/extension.h>
{SCALED_RELU}""", functions=["scaled_relu"])
{top}

class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        {init}

    def forward(self, x):
        mine = extension.scaled_relu
        {forward}
'''


GOOD = python_candidate("return extension.scaled_relu(x, self.scale)")

"""What a machine could do at most: work counted by hand, a roof made by hand, and a verdict that holds both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kernel_env.referee import physics
from kernel_env.referee.peaks import PeaksOf
from kernel_env.referee.process import LocalEndpoint, RunnerDied, no_builds
from kernel_env.roofline import Peaks, Work

ROOF = Peaks(1e9, ((1 << 20, 100e9), (1 << 22, 5e9), (1 << 24, 10e9)))

LAYER = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)


class Attention(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


class Failing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("not with a counter")


@pytest.mark.parametrize(
    ("work", "least_ms"),
    [
        (Work(1_000_000, 0), 1.0),
        (Work(0, 1000), 1e-5),
        (Work(0, 2 << 20), (2 << 20) / 100e6),
        (Work(0, 1 << 23), (1 << 23) / 10e6),
        (Work(0, 1 << 30), (1 << 30) / 10e6),
        (Work(10_000_000, 1 << 20), 10.0),
    ],
)
def test_the_higher_of_two_bounds_counts_and_more_data_is_never_faster(work: Work, least_ms: float) -> None:
    assert ROOF.least_ms(work) == pytest.approx(least_ms)


@pytest.mark.parametrize(
    ("model", "shape", "flops"),
    [
        (nn.Linear(32, 16), (4, 32), 2 * 4 * 32 * 16),
        (nn.Conv2d(3, 8, 3), (1, 3, 10, 10), 2 * 8 * 8 * 8 * 3 * 9),
        (nn.LSTM(32, 32, num_layers=2, bidirectional=True), (10, 2, 32), 2 * 20 * 2 * (128 * 64 + 128 * 96)),
        (nn.GRU(32, 32), (10, 2, 32), 2 * 20 * 96 * 64),
        (Attention(), (2, 4, 64, 32), 4 * 2 * 4 * 64 * 64 * 32),
        (LAYER.eval(), (2, 8, 32), 2 * 16 * 32 * (4 * 32 + 2 * 64) + 4 * 2 * 4 * 64 * 8),
        (nn.ReLU(), (4, 32), 0),
    ],
)
def test_the_work_of_a_call_is_that_by_hand(model: nn.Module, shape: tuple[int, ...], flops: int) -> None:
    with torch.no_grad():
        assert (physics.work(model, [torch.ones(shape)]) or {})["flops"] == flops


def test_bytes_are_those_of_inputs_state_and_outputs_each_once() -> None:
    x = torch.ones(4, 32)
    with torch.no_grad():
        assert (physics.work(nn.Linear(32, 16), [x]) or {})["bytes"] == 4 * (4 * 32 + 32 * 16 + 16 + 4 * 16)
        assert (physics.work(nn.ReLU(inplace=True), [x]) or {})["bytes"] == 4 * 4 * 32


def test_counting_leaves_no_trace_and_what_cannot_be_counted_is_unknown() -> None:
    model, x = nn.BatchNorm1d(32), torch.ones(4, 32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    physics.work(model, [x])
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled()
    assert physics.work(Failing(), [x]) is None


def test_peaks_are_measured_once_for_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(physics, "SIZES", (1 << 20, 1 << 22))
    opened: list[Any] = []

    def runner() -> LocalEndpoint:
        opened.append(LocalEndpoint("reference", tmp_path, no_builds, interpreter=False))
        return opened[-1]

    found = PeaksOf(tmp_path / "cache", 2).of("", runner)
    assert found is not None and found.flops_s > 1e9 and [size for size, _ in found.bytes_s] == [1 << 20, 1 << 22]
    assert PeaksOf(tmp_path / "cache", 2).of("fp32", runner) == found and len(opened) == 1
    PeaksOf(tmp_path / "cache", 1).of("fp32", runner)
    assert len(opened) == 2, "other cores are another machine"


def test_peaks_that_cannot_be_measured_are_unknown_and_nobodys_failure(tmp_path: Path) -> None:
    class Dead(LocalEndpoint):
        def request(self, *arguments: Any) -> Any:
            raise RunnerDied("SIGKILL")

    tried = PeaksOf(tmp_path / "cache", 2)
    assert tried.of("", lambda: Dead("reference", tmp_path, no_builds, interpreter=False)) is None
    assert not list((tmp_path / "cache").rglob("*.json"))

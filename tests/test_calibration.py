"""What a problem's outputs are like: measured once, kept where it is whole, and never another one's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kernel_env.errors import ProblemError
from kernel_env.referee import calibration as module
from kernel_env.referee.calibration import Calibration, Calibrator
from kernel_env.referee.process import LocalEndpoint, no_builds
from kernel_env.referee.reference import Reference
from kernel_env.referee.tolerance import tolerance
from kernel_env.schema import Problem
from tests.conftest import REFERENCE

STRICT = tolerance("strict")


def posed(forward: str, inputs: str = "[torch.randn(ROWS, 8)]") -> Problem:
    source = REFERENCE.replace("return torch.relu(x) * self.scale", forward).replace("[torch.randn(ROWS, 8)]", inputs)
    return Problem(1, 1, "Made", source, origin="test")


class Runners:
    """Opens runners in this process, and counts them."""

    def __init__(self, problem: Problem, scratch: Path) -> None:
        self.problem, self.scratch, self.opened = problem, scratch, 0

    def __call__(self) -> Reference:
        self.opened += 1
        reference = Reference(LocalEndpoint("reference", self.scratch, no_builds, interpreter=False), self.problem, 60)
        reference.ask({"op": "load", "code": self.problem.source, "entry": "Model"})
        return reference


def calibrated(problem: Problem, tmp_path: Path) -> Calibration:
    return Calibrator(tmp_path / "cache").of(problem, Runners(problem, tmp_path))


def test_a_problem_is_measured_once_and_another_process_finds_it(tmp_path: Path) -> None:
    problem = posed("return torch.tanh(x) * 3")
    runners, first = Runners(problem, tmp_path), Calibrator(tmp_path / "cache")
    found = first.of(problem, runners)
    assert first.of(problem, runners) is found and runners.opened == 1
    assert Calibrator(tmp_path / "cache").of(problem, runners) == found and runners.opened == 1
    other = Runners(posed("return torch.tanh(x) * 300"), tmp_path)
    assert first.of(other.problem, other) != found and other.opened == 1


def test_the_numbers_are_what_their_names_say(tmp_path: Path) -> None:
    (signal,) = calibrated(posed("return torch.full_like(x, 4.0) + 0.01 * x"), tmp_path).by_amplitude[1.0].signals
    assert signal.scale == pytest.approx(4.0, rel=0.01)
    assert signal.variation == pytest.approx(0.01 * 1.13, rel=0.3), "of two normal draws the mean difference is 2 / sqrt(pi)"
    assert signal.error is not None and 1e-9 < signal.error < 2e-7 and signal.noise == 0.0 and signal.finite


@pytest.mark.parametrize(
    "forward",
    [
        "assert x.dtype == torch.float32; return x * 2",
        "return torch.nn.functional.dropout(x)",
        "return (x * 2)[: 8 if x.dtype == torch.float64 else 16]",
    ],
    ids=["refuses", "random", "of another shape"],
)
def test_a_reference_without_fp64_has_no_known_error(tmp_path: Path, forward: str) -> None:
    found = calibrated(posed(forward), tmp_path)
    assert [s.error for s in found.by_amplitude[1.0].signals] == [None]
    assert found.amplitude(STRICT) is None, "without an error nothing can be said about another amplitude"


@pytest.mark.parametrize(
    ("forward", "inputs", "tried"),
    [
        ("return torch.tanh(x)", "[torch.randn(ROWS, 8)]", -5.0),
        ("return torch.tanh(x)", "[torch.randn(ROWS, 8) + 0]", None),
        ("return torch.exp(x * 80)", "[torch.rand(ROWS, 8)]", None),
        ("assert x.max() <= 1; return x * 2", "[torch.rand(ROWS, 8)]", None),
        ("return torch.log(x)", "[torch.rand(ROWS, 8)]", 3.0),
        ("return torch.relu(x)", "[torch.rand(ROWS, 8)]", -5.0),
    ],
    ids=["plain", "not plainly drawn", "overflows", "refuses", "has no negative numbers", "never has negative numbers"],
)
def test_other_amplitudes_are_tried_where_they_say_something(
    tmp_path: Path, forward: str, inputs: str, tried: float | None
) -> None:
    assert calibrated(posed(forward, inputs), tmp_path).amplitude(STRICT) == tried


INCOMPLETE = '{"1.0": {"dtypes": [], "signals": [{}], "scaled": true}}'


@pytest.mark.parametrize("text", ["", "{", "[]", '{"1.0": 3}', '{"x": {}}', INCOMPLETE])
def test_a_file_that_is_not_ours_is_measured_anew(tmp_path: Path, text: str) -> None:
    problem = posed("return x * 2")
    found = calibrated(problem, tmp_path)
    (file,) = (tmp_path / "cache" / "signals").iterdir()
    file.write_text(text)
    assert calibrated(problem, tmp_path) == found
    assert calibrated(problem, tmp_path) == found and len(list(file.parent.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_none(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file, where a directory should be")
    assert calibrated(posed("return x * 2"), tmp_path).by_amplitude[1.0].scaled


def test_what_fp64_could_not_do_this_time_is_not_kept_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have taken too long because the machine was busy."""
    problem, asked, ask = posed("return x * 2"), list[bool](), Reference.ask

    def failing(self: Reference, frame: module.Any, *more: module.Any, **named: module.Any) -> module.Any:
        if frame["op"] == "signals":
            asked.append(frame["precise"])
            if frame["precise"]:
                raise ProblemError("took longer than 120 s")
        return ask(self, frame, *more, **named)

    monkeypatch.setattr(Reference, "ask", failing)
    found = calibrated(problem, tmp_path)
    assert asked == [True, False] and [s.error for s in found.by_amplitude[1.0].signals] == [None]
    monkeypatch.undo()
    assert [s.error for s in calibrated(problem, tmp_path).by_amplitude[1.0].signals] != [None]


def test_a_problem_that_fails_is_an_error_of_the_problem(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="failed in call: AttributeError"):
        calibrated(posed("return torch.rleu(x)"), tmp_path)


def test_a_reference_that_disagrees_with_itself_cannot_be_scored(tmp_path: Path) -> None:
    problem = posed("import os; return x * int.from_bytes(os.urandom(4))")
    with pytest.raises(ProblemError, match="cannot be scored"):
        calibrated(problem, tmp_path).check(problem, STRICT)
    steady = posed("return x * 2")
    calibrated(steady, tmp_path).check(steady, STRICT)
    assert replace(steady, level=2).digest == steady.digest, "the same source is the same problem"

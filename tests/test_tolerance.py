"""How a tolerance is fitted to what an output is like: for each rule the cheat that it stops, or the honest kernel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_env.errors import ConfigError
from kernel_env.referee.tolerance import TOLERANCES, Signal, Tolerance, tolerance

STRICT = TOLERANCES["strict"]
positive = st.floats(1e-12, 1e12)


def limits(signal: Signal, dtype: str = "float32") -> tuple[float, float]:
    return STRICT.fitted([signal]).limits(dtype, 0)


def degenerate(signal: Signal, dtype: str = "float32") -> bool:
    return STRICT.fitted([signal]).degenerate([dtype])


def test_an_ordinary_output_has_the_presets_tolerance() -> None:
    assert limits(Signal(scale=1.0, variation=1.0, error=2e-7)) == (1e-4, 1e-4)


def test_zeros_do_not_pass_for_small_outputs() -> None:
    """A softmax over 1,000 columns: 1e-3 everywhere, and plain 1e-4 would forgive a tenth of it."""
    atol, rtol = limits(Signal(scale=1e-3, variation=5e-4, error=3e-7))
    assert atol + rtol * 1e-3 < 0.01 * 5e-4
    assert atol + rtol * 1e-3 > 50 * 3e-7 * 1e-3, "an honest kernel with 50 times the reference's error passes"


def test_a_constant_does_not_pass_where_outputs_vary_little() -> None:
    """Outputs of 100 that vary by 0.5 with the inputs: 1e-2 would forgive any constant near 100."""
    plain, fitted = TOLERANCES["kernelbench-v0"].limits("float32", 0), limits(Signal(scale=100.0, variation=0.5, error=1e-7))
    assert [atol + rtol * 100 > 0.5 for atol, rtol in (plain, fitted)] == [True, False]


def test_sums_over_very_many_terms_are_given_their_own_error() -> None:
    """torch itself misses 1e-4 there; so would everyone."""
    atol, rtol = limits(Signal(scale=300.0, variation=400.0, error=4e-6))
    assert (atol, rtol) == (pytest.approx(50 * 4e-6 * 300), pytest.approx(2e-4))


def test_an_exact_reference_still_leaves_room_for_rounding() -> None:
    atol, rtol = limits(Signal(scale=1e-3, variation=1e-7, error=0.0))
    assert atol == pytest.approx(50 * 1.2e-7 * 1e-3) and rtol == pytest.approx(6e-6)


def test_a_constant_output_is_degenerate_and_judged_as_tightly_as_is_fair() -> None:
    constant = Signal(scale=1.0, variation=0.0, error=6e-8)
    assert degenerate(constant) and limits(constant) == (pytest.approx(6e-6), pytest.approx(6e-6))
    zero = Signal(scale=0.0, variation=0.0, error=0.0)
    assert degenerate(zero) and limits(zero)[0] == 1e-4


def test_a_chaotic_reference_does_not_let_anything_through() -> None:
    """Its own rounding changes its outputs by their whole size: 50 times that would be no test at all."""
    chaotic = Signal(scale=1.0, variation=1.0, error=0.7)
    assert degenerate(chaotic) and limits(chaotic) == (1e-4, 1e-4)


def test_without_fp64_the_preset_is_the_floor() -> None:
    assert limits(Signal(scale=1e-3, variation=1e-3, error=None)) == (pytest.approx(5e-6), 1e-4)
    assert limits(Signal(scale=1e-3, variation=2.1e-5, error=None)) == (pytest.approx(1.05e-7), 1e-4)
    assert degenerate(Signal(scale=1e-3, variation=1.9e-5, error=None))


@pytest.mark.parametrize(("dtype", "rounding"), [("float16", 4.9e-4), ("bfloat16", 3.9e-3)])
def test_half_precision_outputs_are_not_degenerate_for_being_rounded(dtype: str, rounding: float) -> None:
    rounded = Signal(scale=1.0, variation=1.0, error=rounding)
    assert not degenerate(rounded, dtype)
    atol, rtol = limits(rounded, dtype)
    assert atol + rtol > 3 * rounding


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_small_parts_in_half_precision_are_held_by_their_own_error(dtype: str) -> None:
    """A softmax over 32,768 columns beside what is 1: rounding the large part says nothing of it."""
    rounded, cancelling = Signal(1.0, 1.0, 4e-3, excess=0.0), Signal(1.0, 1.0, 4e-3, excess=1e-3)
    least = STRICT.fitted([rounded]).least(dtype, 0)
    assert least is not None and least < 0.5 / 32768
    assert STRICT.fitted([cancelling]).least(dtype, 0) == pytest.approx(4e-3), "the reference itself is no better"


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8"])
def test_whole_numbers_are_exact_whatever_the_signal(dtype: str) -> None:
    signal = Signal(scale=1.0, variation=0.0, error=0.0)
    assert limits(signal, dtype) == (0.0, 0.0) and not degenerate(signal, dtype)


def test_each_tensor_of_an_output_has_its_own() -> None:
    fitted = STRICT.fitted([Signal(1.0, 1.0, 1e-7), Signal(1e-3, 1e-3, 1e-7)])
    assert fitted.limits("float32", 0)[0] > fitted.limits("float32", 1)[0]
    assert fitted.limits("float32", 2) == (1e-4, 1e-4), "a tensor of which nothing is known"


@given(positive, positive, st.floats(0, 10) | st.none())
def test_never_tighter_than_the_references_error_nor_wider_than_signal(scale: float, variation: float, error: float | None) -> None:
    signal = Signal(scale, variation, error)
    atol, rtol = limits(signal)
    assert atol > 0 and rtol > 0
    if degenerate(signal):
        assert atol <= 1e-4 and rtol <= 1e-4
        return
    assert atol + rtol * scale <= max(0.01 * variation, 0) * (1 + 1e-9), "at an element of typical size"
    if error is not None:
        assert atol >= 50 * error * scale * (1 - 1e-9) and rtol >= 50 * error * (1 - 1e-9)


def test_an_unknown_tolerance_names_the_known_ones() -> None:
    assert tolerance("kernelbench") is TOLERANCES["kernelbench"]
    with pytest.raises(ConfigError, match="strict, kernelbench, kernelbench-v0, tritonforge"):
        tolerance("strct")


def test_presets_know_no_signals() -> None:
    assert [name for name, preset in TOLERANCES.items() if preset.signal_aware] == ["strict"]
    assert Tolerance("plain", 0.5, 0.25).limits("float16", 0) == (0.25, 0.25)

"""The clock: right statistics, intervals that hold, calls in random order within the plan, and recorded times."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kernel_env.errors import ConfigError
from kernel_env.referee.clock import (
    LAYOUT,
    LiveClock,
    RecordedClock,
    Round,
    against_alone,
    least_ms,
    precise,
    slowed,
    stats,
    timing,
)

KEY = ("problem", "candidate")


def singles(ours: Sequence[float], theirs: Sequence[float]) -> list[Round]:
    """Rounds of one call of either side."""
    return [Round(1, (a,), (b,)) for a, b in zip(ours, theirs, strict=True)]


def never() -> list[Round]:
    raise AssertionError("a recorded clock runs nothing")


def test_stats_are_what_their_names_say() -> None:
    values = [3.0, 1.0, 2.0, 10.0]
    found = stats(values, 2.5)
    assert (found.median_ms, found.mean_ms, found.min_ms, found.max_ms, found.count) == (2.5, 4.0, 1.0, 10.0, 4)
    assert found.std_ms == pytest.approx(statistics.pstdev(values))


def test_speedup_is_the_median_of_the_rounds_ratios() -> None:
    found = timing(singles([2.0, 2.0, 50.0], [6.0, 6.0, 1.0]), seed=0)
    assert found.speedup == pytest.approx(3.0)
    assert found.runtime.median_ms == 2.0 and found.baseline.median_ms == 6.0
    assert found.speedup_low <= 3.0 <= found.speedup_high


def test_a_machine_with_two_speeds_does_not_make_a_program_faster_than_itself() -> None:
    """Half of the rounds at half speed: by luck, one side's median is of the fast kind and the other's of the slow."""
    fast, slow = Round(1, (1.0,), (1.01,)), Round(1, (2.0,), (1.98,))
    found = timing([fast, slow] * 10 + [Round(1, (2.0,), (1.0,))], seed=0)
    assert found.speedup == pytest.approx(1.0, abs=0.011)


def test_a_round_counts_by_the_median_of_its_block() -> None:
    found = timing([Round(1, (1.0, 1.0, 99.0), (4.0, 4.0)), Round(1, (1.0,), (4.0,)), Round(1, (7.0,), (5.0,))], seed=0)
    assert (found.runtime.median_ms, found.baseline.median_ms) == (1.0, 4.0)
    assert (found.runtime.count, found.runtime.max_ms, found.baseline.count) == (5, 99.0, 4)


def test_what_gains_by_working_on_several_calls_at_once_is_timed_by_single_calls() -> None:
    for call_ms in (0.02, 0.2, 2.0):
        single = [Round(1, (call_ms,), (call_ms,))] * 5
        together = [Round(16, (call_ms / 5,), (call_ms * 0.9,))] * 5
        found = timing([*single, *together], seed=0)
        assert found.speedup == pytest.approx(1.0) and found.runtime.median_ms >= 0.89 * call_ms


def test_what_pads_calls_that_are_sent_together_gains_nothing_either() -> None:
    single = [Round(1, (1.0,), (10.0,))] * 5
    together = [Round(16, (9.0,), (9.0,))] * 5
    assert timing([*single, *together], seed=0).speedup == pytest.approx(1.0)


def test_gaining_so_in_a_few_more_than_half_of_the_rounds_is_no_noise() -> None:
    """What calls that are sent together show is anything then, by the program's own choice."""
    rng = np.random.default_rng(0)
    single = [Round(1, (rng.lognormal(0, 0.02),), (rng.lognormal(0, 0.02),)) for _ in range(20)]
    fused = [Round(16, (rng.lognormal(0, 0.02) * (0.2 if n < 11 else 2.0),), (rng.lognormal(0, 0.02),)) for n in range(20)]
    assert timing([*single, *fused], seed=0).speedup == pytest.approx(1.0, rel=0.03)


def test_single_calls_say_something_where_those_of_the_baseline_are_much_dearer() -> None:
    rounds = [Round(16, (0.1,), (0.2,)), Round(1, (0.4,), (1.0,))] * 5
    assert timing(rounds, seed=0).speedup == pytest.approx(1.0)
    honest = [Round(16, (0.1,), (1.0,)), Round(1, (0.2,), (1.1,))] * 5
    assert timing(honest, seed=0).speedup == pytest.approx(10.0), "a kernel that is woken, too"


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
def test_noise_does_not_make_a_kernel_slower_than_it_is(noise: float) -> None:
    """The smaller of two kinds of times counts only where it is the smaller one beyond noise."""
    rng, found = np.random.default_rng(5), []
    for seed in range(100):
        sizes = [1, 16] * 12
        rounds = [Round(n, (0.5 * rng.lognormal(0, noise),), (rng.lognormal(0, noise),)) for n in sizes]
        found.append(math.log(timing(rounds, seed).speedup / 2))
    assert statistics.mean(found) == pytest.approx(0.0, abs=0.15 * noise)


def test_one_round_of_single_calls_says_nothing() -> None:
    together = [Round(8, (0.5,), (1.0,))] * 5
    assert timing([Round(1, (1.0,), (1.0,)), *together], seed=0).speedup == pytest.approx(2.0)
    assert timing([Round(1, (1.0,), (1.0,))] * 2 + together, seed=0).speedup == pytest.approx(1.0)


def test_cold_caches_of_single_calls_are_no_ones_fault() -> None:
    """A kernel that is twice as fast in a hot loop; single calls of both sides cost 0.02 ms more."""
    rng = np.random.default_rng(0)
    rounds = []
    for _ in range(40):
        a, b = rng.lognormal(0, 0.01, 2)
        rounds += [Round(8, (0.1 * a,), (0.2 * b,)), Round(1, (0.12 * b,), (0.22 * a,))]
    found = timing(rounds, seed=0)
    assert found.speedup == pytest.approx(2.0, rel=0.01) and found.baseline.median_ms == pytest.approx(0.2, rel=0.01)


def test_of_very_short_calls_the_single_ones_count_as_they_are() -> None:
    rounds = [Round(16, (0.005,), (0.02,)), Round(1, (0.02,), (0.035,))] * 20
    assert timing(rounds, seed=0).speedup == pytest.approx(1.75)


def test_the_interval_depends_on_the_seed_alone() -> None:
    rng = np.random.default_rng(4)
    rounds = singles(rng.lognormal(0, 0.2, 20), rng.lognormal(0, 0.2, 20))
    assert timing(rounds, 7) == timing(rounds, 7)
    assert len({timing(rounds, seed) for seed in range(20)}) > 1
    assert timing(rounds, 2**200).speedup == timing(rounds, 7).speedup, "any number is a seed"


def test_no_interval_is_narrower_than_two_processes_of_one_program_differ() -> None:
    found = timing(singles([2.0] * 5, [3.0] * 5), seed=1)
    assert found.speedup == pytest.approx(1.5)
    assert found.speedup_high / found.speedup == pytest.approx(math.exp(1.96 * LAYOUT)) == found.speedup / found.speedup_low


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """300 measurements of a program that is truly twice as fast, with long-tailed noise of 20%."""
    rng = np.random.default_rng(1)
    covered, widths = 0, []
    for seed in range(300):
        ours, theirs = (scale * rng.lognormal(0, 0.2, 40) for scale in (1.0, 2.0))
        found = timing(singles(ours, theirs), seed)
        covered += found.speedup_low <= 2.0 <= found.speedup_high
        widths.append(found.speedup_high - found.speedup_low)
    assert 0.91 * 300 <= covered <= 0.99 * 300
    assert statistics.median(widths) < 0.6


def test_what_slows_both_sides_of_some_rounds_does_not_widen_the_interval() -> None:
    """A machine that is half as fast in every other round: each side alone varies by a factor of two."""
    rng = np.random.default_rng(3)
    rounds = []
    for index in range(30):
        slow = 2.0 if index % 3 == 0 else 1.0
        rounds.append(Round(1, tuple(slow * rng.lognormal(0, 0.01, 5)), tuple(3 * slow * rng.lognormal(0, 0.01, 5))))
    found = timing(rounds, 0)
    assert found.speedup == pytest.approx(3.0, rel=0.03)
    assert found.speedup_high - found.speedup_low < 0.15


@pytest.mark.parametrize(
    ("baseline_ms", "speedup", "allowed"),
    [(1.0, 1.0, 1), (1.0, 2.0, 1), (1.0, 0.5, 1), (1.0, 4.0, 2), (1.0, 0.125, 3), (0.04, 1.0, 2)],
)
def test_how_narrow_is_narrow_enough(baseline_ms: float, speedup: float, allowed: float) -> None:
    """Nobody has to know whether something is 9.8 or 10 times as fast."""
    rounds = singles([baseline_ms / speedup] * 9, [baseline_ms] * 9)
    assert_precise_from(rounds, allowed)


def assert_precise_from(rounds: Sequence[Round], allowed: float) -> None:
    """Their interval may be so many times as wide."""
    found = timing(rounds, seed=0)
    exact = (found.speedup_high - found.speedup_low) / 2 / found.speedup / allowed
    assert precise(rounds, exact * 1.01) and not precise(rounds, exact * 0.99)


@pytest.mark.parametrize(("single_ms", "allowed"), [(0.03, 2), (0.08, 3)])
def test_short_calls_that_count_as_they_are_when_sent_singly_need_not_be_known_as_well(single_ms: float, allowed: float) -> None:
    """Sent singly they show half the speedup in the second case, which counts."""
    rounds = [Round(64, (0.01,), (0.02,)), Round(1, (single_ms,), (single_ms + 0.03,))] * 9
    assert timing(rounds, 0).runtime.median_ms == pytest.approx(0.01 if allowed == 2 else single_ms)
    assert_precise_from(rounds, allowed)


def test_more_rounds_narrow_the_interval() -> None:
    rng = np.random.default_rng(2)
    few, many = (timing(singles(rng.lognormal(0, 0.2, n), rng.lognormal(0, 0.2, n)), 0) for n in (10, 400))
    assert many.speedup_high - many.speedup_low < few.speedup_high - few.speedup_low


def test_a_baseline_that_was_slowed_counts_as_fast_as_it_is_alone() -> None:
    """A candidate that makes the baseline take 3 ms instead of 2, beside it only."""
    beside = timing(singles([1.0] * 20, [3.0] * 20), seed=0)
    slower = slowed([3.0] * 20, [2.0])
    assert slower == pytest.approx(1.5)
    found = against_alone(beside, slower)
    assert found.speedup == pytest.approx(2.0) and found.baseline.median_ms == pytest.approx(2.0)
    assert found.speedup_low < 2.0 < found.speedup_high and found.runtime == beside.runtime
    assert (beside.baseline_kind, found.baseline_kind) == ("eager", "eager, alone")


@pytest.mark.parametrize("alone_ms", [3.0, 2.9, 2.0, 1.97, 9.0])
def test_what_the_baseline_reached_beside_the_candidate_too_is_no_sign_of_anything(alone_ms: float) -> None:
    """It was between 2 and 4 ms, as the machine would have it."""
    assert slowed([float(ms) for ms in np.linspace(2.0, 4.0, 101)], [alone_ms]) == 1.0 or alone_ms < 2.1 * (1 - 1.96 * LAYOUT)


def test_the_floor_is_far_below_what_any_kernel_needs() -> None:
    assert least_ms(768_000_000, 1) == pytest.approx(1.0) and least_ms(768_000_000, 2) == pytest.approx(0.5)
    assert least_ms(256 << 20, 2) < 0.2 and least_ms(0, 2) == 0.0


def test_a_live_clock_measures_with_what_it_is_given() -> None:
    assert LiveClock().measure(lambda: singles([1.0], [2.0]), KEY, 0).speedup == pytest.approx(2.0)


def test_a_live_clock_goes_forward() -> None:
    clock = LiveClock()
    assert clock.kind == "live" and clock.now() <= clock.now()


def test_a_recorded_clock_gives_what_was_recorded_and_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text(json.dumps({"candidate": [2, 5.0]}))
    clock = RecordedClock.load(path)
    found = clock.measure(never, KEY, 0)
    assert (found.runtime.median_ms, found.baseline.median_ms, found.speedup) == (2.0, 5.0, pytest.approx(2.5))
    assert clock.kind == "recorded" and clock.now() == clock.now() == 0.0


def test_unrecorded_times_derive_from_problem_and_candidate() -> None:
    def speedup(*key: str) -> float:
        return RecordedClock().measure(never, (key[0], key[1]), 0).speedup

    found = {(p, c): speedup(p, c) for p in "pqrs" for c in "abcdefgh"}
    assert len(set(found.values())) == len(found)
    assert all(0.5 <= value <= 3.0 for value in found.values())
    assert speedup("p", "a") == found["p", "a"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", "{", '{"a": 1}', '{"a": [1]}', '{"a": [1, 2, 3]}', '{"a": ["x", 2]}', '{"a": [0, 1]}', '{"a": [-1, 1]}',
     '{"a": [NaN, 1]}', '{"a": [1, Infinity]}', '{"a": null}', "\x00"],
)  # fmt: skip
def test_a_file_that_is_no_recorded_clock_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "times.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not a recorded clock") as caught:
        RecordedClock.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["absent.json", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot read the recorded clock"):
        RecordedClock.load(tmp_path / name)

"""The clock: right statistics, intervals that hold, calls in random order within the plan, and recorded times."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import numpy as np
import pytest

from kernel_env.errors import ConfigError
from kernel_env.referee.clock import FLOOR_MS, LiveClock, RecordedClock, TimingPlan, stats, timing
from kernel_env.schema import Timing

KEY = ("problem", "candidate")


def never() -> float:
    raise AssertionError("a recorded clock runs nothing")


def test_stats_are_what_their_names_say() -> None:
    values = [3.0, 1.0, 2.0, 10.0]
    found = stats(np.array(values))
    assert (found.median_ms, found.mean_ms, found.min_ms, found.max_ms, found.count) == (2.5, 4.0, 1.0, 10.0, 4)
    assert found.std_ms == pytest.approx(statistics.pstdev(values))


def test_speedup_is_the_ratio_of_medians_baseline_over_candidate() -> None:
    found = timing([2.0, 2.0, 50.0], [6.0, 6.0, 1.0], seed=0)
    assert found.speedup == 3.0
    assert found.runtime.median_ms == 2.0 and found.baseline.median_ms == 6.0
    assert found.speedup_low <= 3.0 <= found.speedup_high


def test_the_interval_depends_on_the_seed_alone() -> None:
    ours, theirs = list(np.linspace(1, 2, 20)), list(np.linspace(2, 5, 20))
    assert timing(ours, theirs, 7) == timing(ours, theirs, 7)
    assert timing(ours, theirs, 7) != timing(ours, theirs, 8)
    assert timing(ours, theirs, 2**200).speedup == timing(ours, theirs, 7).speedup


def test_equal_samples_give_an_interval_of_no_width() -> None:
    found = timing([2.0] * 5, [3.0] * 5, seed=1)
    assert found.speedup_low == found.speedup == found.speedup_high == 1.5


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """300 measurements of a program that is truly twice as fast, with long-tailed noise of 20%."""
    rng = np.random.default_rng(1)
    covered, widths = 0, []
    for seed in range(300):
        ours, theirs = (scale * rng.lognormal(0, 0.2, 40) for scale in (1.0, 2.0))
        found = timing(list(ours), list(theirs), seed)
        covered += found.speedup_low <= 2.0 <= found.speedup_high
        widths.append(found.speedup_high - found.speedup_low)
    assert 0.91 * 300 <= covered <= 0.99 * 300
    assert statistics.median(widths) < 0.6


def test_more_rounds_narrow_the_interval() -> None:
    rng = np.random.default_rng(2)
    few, many = (timing(list(rng.lognormal(0, 0.2, n)), list(rng.lognormal(0, 0.2, n)), 0) for n in (10, 400))
    assert many.speedup_high - many.speedup_low < few.speedup_high - few.speedup_low


class Scripted(LiveClock):
    """A live clock whose time passes only in calls; remembers who was called."""

    def __init__(self) -> None:
        self.time, self.calls = 0.0, ""

    def now(self) -> float:
        return self.time

    def run(self, candidate_s: float, baseline_s: float, plan: TimingPlan, exchange_s: float = 0.0, seed: int = 3) -> Timing:
        def call(letter: str, seconds: float) -> float:
            self.calls += letter
            self.time += seconds
            return seconds

        return self.measure(
            lambda: call("c", candidate_s), lambda: call("b", baseline_s), lambda: call("e", exchange_s), plan, KEY, seed
        )

    @property
    def timed(self) -> str:
        """The timed calls, without warm-up and empty exchanges."""
        return self.calls.rpartition("e")[2]


def test_rounds_end_at_their_number() -> None:
    clock = Scripted()
    found = clock.run(0.001, 0.002, TimingPlan(max_rounds=17, budget_s=1e9))
    assert found.runtime.count == found.baseline.count == 17
    assert clock.timed.count("c") == clock.timed.count("b") == 17
    assert found.speedup == pytest.approx(2.0)


def test_rounds_end_when_the_budget_is_spent() -> None:
    clock = Scripted()
    assert clock.run(0.125, 0.25, TimingPlan(max_rounds=1000, budget_s=2.9)).runtime.count == 8


def test_slow_programs_get_their_least_number_of_rounds() -> None:
    clock = Scripted()
    assert clock.run(100.0, 200.0, TimingPlan(max_rounds=1000, min_rounds=4, budget_s=0.5)).runtime.count == 4


def test_both_sides_are_called_in_random_order_once_a_round() -> None:
    clock, again, other = Scripted(), Scripted(), Scripted()
    plan = TimingPlan(max_rounds=40, budget_s=1e9)
    clock.run(0.001, 0.001, plan)
    again.run(0.001, 0.001, plan)
    other.run(0.001, 0.001, plan, seed=4)
    rounds = [clock.timed[i : i + 2] for i in range(0, 80, 2)]
    assert set(rounds) == {"bc", "cb"}
    assert 8 <= rounds.count("bc") <= 32
    assert clock.timed == again.timed != other.timed


def test_both_sides_are_warmed_up_before_anything_counts() -> None:
    clock = Scripted()
    clock.run(0.001, 0.001, TimingPlan(max_rounds=5, warmup_rounds=3))
    assert clock.calls.startswith("bcbcbce")


def test_the_cost_of_an_empty_exchange_is_taken_off() -> None:
    found = Scripted().run(0.003, 0.005, TimingPlan(max_rounds=5), exchange_s=0.001)
    assert found.runtime.median_ms == pytest.approx(2.0)
    assert found.speedup == pytest.approx(2.0)


def test_no_call_reads_as_shorter_than_the_floor() -> None:
    found = Scripted().run(0.001, 0.001, TimingPlan(max_rounds=5), exchange_s=0.002)
    assert found.runtime.min_ms == found.baseline.max_ms == FLOOR_MS


def test_a_program_can_be_measured_against_itself() -> None:
    times = iter(np.linspace(0.001, 0.002, 1000))

    def call() -> float:
        return float(next(times))

    found = LiveClock().measure(call, call, lambda: 0.0, TimingPlan(max_rounds=10, budget_s=1e9), KEY, 0)
    assert found.runtime.count == found.baseline.count == 10
    assert found.runtime != found.baseline


def test_a_live_clock_goes_forward() -> None:
    clock = LiveClock()
    assert clock.kind == "live" and clock.now() <= clock.now()


def test_a_recorded_clock_gives_what_was_recorded_and_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "times.json"
    path.write_text(json.dumps({"candidate": [2, 5.0]}))
    clock = RecordedClock.load(path)
    found = clock.measure(never, never, never, TimingPlan(), KEY, 0)
    assert (found.runtime.median_ms, found.baseline.median_ms, found.speedup) == (2.0, 5.0, 2.5)
    assert clock.kind == "recorded" and clock.now() == clock.now() == 0.0


def test_unrecorded_times_derive_from_problem_and_candidate() -> None:
    def speedup(*key: str) -> float:
        return RecordedClock().measure(never, never, never, TimingPlan(), (key[0], key[1]), 0).speedup

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

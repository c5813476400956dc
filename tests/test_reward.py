"""The measured reward: every branch of both presets, and what is never scored."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_env.errors import ConfigError
from kernel_env.reward import PRESETS, RewardConfig, measured_reward, reached_stop, reward_config
from kernel_env.schema import Stage, Stats, Status, Timing, Verdict

SEED, TRITONFORGE = PRESETS["seed"], PRESETS["tritonforge"]


def verdict(status: Status, stage: Stage, *, speedup: float | None = None, timing_note: str = "", message: str = "") -> Verdict:
    trials = 5 if status is Status.CORRECT else 0
    timing = None if speedup is None else Timing(stats(1.0), stats(speedup), speedup, speedup, speedup)
    return Verdict(
        status, stage, "level1_problem1", "p", "c", "cpp", trials=trials, trials_passed=trials, timing=timing,
        timing_note=timing_note, message=message,
    )  # fmt: skip


def stats(median_ms: float) -> Stats:
    return Stats(median_ms, median_ms, 0.0, median_ms, median_ms, 100)


def correct(speedup: float | None = None, timing_note: str = "") -> Verdict:
    return verdict(Status.CORRECT, Stage.DONE, speedup=speedup, timing_note=timing_note)


@pytest.mark.parametrize(
    ("status", "stage", "value"),
    [
        (Status.NO_CODE, Stage.PARSE, 0.0),
        (Status.TRUNCATED, Stage.PARSE, 0.0),
        (Status.REJECTED, Stage.CHECK, 0.0),
        (Status.BUILD_ERROR, Stage.BUILD, 0.0),
        (Status.LOAD_ERROR, Stage.LOAD, 0.0),
        (Status.CRASHED, Stage.LOAD, 0.0),
        (Status.RUNTIME_ERROR, Stage.INIT, 0.1),
        (Status.RUNTIME_ERROR, Stage.TRIALS, 0.1),
        (Status.WRONG_OUTPUT, Stage.TRIALS, 0.1),
        (Status.MUTATED_INPUTS, Stage.TRIALS, 0.1),
        (Status.TIMEOUT, Stage.TRIALS, 0.1),
        (Status.OUT_OF_MEMORY, Stage.TRIALS, 0.1),
        (Status.CRASHED, Stage.TIMING, 0.1),
        (Status.TAMPERED, Stage.TRIALS, 0.0),
        (Status.TAMPERED, Stage.TIMING, 0.0),
        (Status.REJECTED, Stage.TRIALS, 0.0),
        (Status.REJECTED, Stage.TIMING, 0.0),
    ],
)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_failure_is_worth_its_build_and_no_more(preset: str, status: Status, stage: Stage, value: float) -> None:
    value = min(value, PRESETS[preset].compiled)
    reward = measured_reward(verdict(status, stage), PRESETS[preset])
    assert reward.value == value
    assert reward.parts == {"compiled": value, "correct": 0.0, "speedup_bonus": 0.0}


@pytest.mark.parametrize("category", ["decoy", "library", "torch_ops"])
def test_what_is_rejected_late_did_compile_and_earns_nothing(category: str) -> None:
    late = replace(verdict(Status.REJECTED, Stage.TIMING), category=category)
    assert late.compiled and measured_reward(late, SEED).value == 0.0


@pytest.mark.parametrize(
    ("speedup", "seed", "tritonforge", "kevin", "dr_kernel"),
    [
        (0.25, 1.0, 0.3, 0.55, 0.625),
        (1.0, 1.0, 0.3, 1.3, 1.0),
        (1.5, 1.5, 0.8, 1.8, 1.25),
        (2.0, 2.0, 1.3, 2.3, 1.5),
        (3.0, 3.0, 2.3, 3.3, 2.0),
        (50.0, 3.0, 2.3, 50.3, 2.0),
    ],
)
def test_a_correct_kernel_gets_a_bonus_for_its_speedup(
    speedup: float, seed: float, tritonforge: float, kevin: float, dr_kernel: float
) -> None:
    expected = {"seed": seed, "tritonforge": tritonforge, "kevin": kevin, "dr-kernel": dr_kernel}
    assert {name: measured_reward(correct(speedup), config).value for name, config in PRESETS.items()} == pytest.approx(expected)


def test_a_correct_kernel_that_was_not_timed_gets_no_bonus_and_says_why() -> None:
    reward = measured_reward(correct(timing_note="interpreter"), SEED)
    assert reward.value == 1.0
    assert reward.parts == {"compiled": 0.0, "correct": 1.0, "speedup_bonus": None}
    assert reward.reason == "no speed bonus: interpreter"
    assert measured_reward(correct(), SEED).reason == "no speed bonus: not measured"


def test_what_this_machine_cannot_judge_has_no_reward() -> None:
    reward = measured_reward(verdict(Status.NEEDS_DEVICE, Stage.TRIALS, message="libdevice needs a GPU"), SEED)
    assert reward.value is None
    assert reward.reason == "libdevice needs a GPU"
    assert set(reward.parts.values()) == {None}
    assert measured_reward(verdict(Status.NEEDS_DEVICE, Stage.TRIALS), SEED).reason


@given(st.floats(0.001, 1e6), st.sampled_from(list(PRESETS)))
def test_the_parts_add_up_to_the_value(speedup: float, preset: str) -> None:
    config = PRESETS[preset]
    reward = measured_reward(correct(speedup), config)
    assert reward.value == sum(part or 0.0 for part in reward.parts.values())
    assert reward.value >= config.correct
    if config.max_bonus is not None:
        assert reward.value <= config.correct + config.max_bonus


@pytest.mark.parametrize(
    ("preset", "speedup", "stops"),
    [("seed", 2.0, True), ("seed", 1.99, False), ("tritonforge", 2.0, True), ("tritonforge", 1.99, False)],
)
def test_an_episode_stops_at_a_speedup_of_two(preset: str, speedup: float, stops: bool) -> None:
    assert reached_stop(measured_reward(correct(speedup), PRESETS[preset]), PRESETS[preset]) is stops


@pytest.mark.parametrize("preset", ["kevin", "dr-kernel"])
def test_some_play_every_turn(preset: str) -> None:
    assert not reached_stop(measured_reward(correct(1e6), PRESETS[preset]), PRESETS[preset])


def test_an_unscored_turn_never_stops_an_episode_as_solved() -> None:
    unscored = measured_reward(verdict(Status.NEEDS_DEVICE, Stage.TRIALS), SEED)
    assert not reached_stop(unscored, RewardConfig(stop_at=0.0))


def test_every_constant_can_be_set() -> None:
    config = RewardConfig(compiled=0.2, correct=0.5, max_bonus=1.0, stop_at=1.5)
    assert measured_reward(verdict(Status.WRONG_OUTPUT, Stage.TRIALS), config).value == 0.2
    assert measured_reward(correct(9.0), config).value == 1.5
    assert reached_stop(measured_reward(correct(9.0), config), config)


@pytest.mark.parametrize("name", ["compiled", "correct", "bonus_above", "bonus_weight", "max_bonus", "stop_at"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_constant_that_makes_no_sense_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"reward.{name}"):
        replace(SEED, **{name: value})  # type: ignore[arg-type]


def test_presets_are_found_by_name() -> None:
    assert [config.preset for config in PRESETS.values()] == list(PRESETS) == ["seed", "tritonforge", "kevin", "dr-kernel"]
    assert reward_config("tritonforge") is TRITONFORGE
    with pytest.raises(ConfigError, match="unknown reward preset 'fast': use one of seed, tritonforge, kevin"):
        reward_config("fast")

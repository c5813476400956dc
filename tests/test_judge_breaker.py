"""The circuit breaker by itself: when it opens, who tries, and what closes it again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_env.errors import JudgeBadReply, JudgeBusy, JudgeError, JudgeRefused, JudgeUnreachable
from rewards.judge.breaker import CircuitBreaker, State
from tests.scripted_judge import HANGS_S


@dataclass
class Clock:
    now_s: float = 100.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Circuit:
    """A breaker of three failures and ten seconds, and what is done to it."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.breaker = CircuitBreaker(3, 10.0, now=self.clock)

    def fail(self, error: BaseException | None = None) -> None:
        with contextlib.suppress(JudgeUnreachable, JudgeBadReply, JudgeRefused, asyncio.CancelledError), self.breaker.exchange():
            raise error or JudgeUnreachable("down")

    def succeed(self) -> None:
        with self.breaker.exchange():
            pass

    def opened(self) -> Self:
        for _ in range(3):
            self.fail()
        assert self.breaker.state is State.OPEN
        return self

    def refuses(self) -> bool:
        try:
            self.succeed()
        except JudgeBusy:
            return True
        return False


@pytest.mark.parametrize("error", [JudgeUnreachable("no answer within 30 s"), JudgeBadReply("garbled")])
def test_failures_in_a_row_open_the_circuit(error: JudgeError) -> None:
    circuit = Circuit()
    for _ in range(3):
        assert circuit.breaker.state is State.CLOSED
        circuit.fail(error)
    assert circuit.breaker.state is State.OPEN
    with pytest.raises(JudgeBusy, match=r"circuit breaker open: the judge failed 3 times in a row; it is tried again in 10 s"):
        circuit.succeed()


@pytest.mark.parametrize("answer", ["score", "refusal"])
def test_an_answer_resets_the_count(answer: str) -> None:
    circuit = Circuit()
    for _ in range(5):
        circuit.fail()
        circuit.fail()
        circuit.succeed() if answer == "score" else circuit.fail(JudgeRefused("not this one"))
    assert (circuit.breaker.state, circuit.breaker.failures) == (State.CLOSED, 0)


def test_one_probe_goes_out_when_the_time_is_over_and_its_success_closes() -> None:
    circuit = Circuit().opened()
    circuit.clock.now_s += 9.9
    assert circuit.refuses()
    circuit.clock.now_s += 0.1
    with circuit.breaker.exchange():
        assert circuit.breaker.state is State.HALF_OPEN
        assert circuit.refuses() and circuit.refuses()
    assert (circuit.breaker.state, circuit.breaker.failures) == (State.CLOSED, 0)
    circuit.succeed()


def test_a_probe_that_fails_opens_it_for_as_long_again() -> None:
    circuit = Circuit().opened()
    circuit.clock.now_s += 10.0
    circuit.fail()
    assert circuit.breaker.state is State.OPEN
    circuit.clock.now_s += 9.9
    assert circuit.refuses()


def test_a_probe_that_nobody_waits_for_leaves_its_place_to_the_next() -> None:
    circuit = Circuit().opened()
    circuit.clock.now_s += 10.0
    circuit.fail(asyncio.CancelledError())
    assert circuit.breaker.state is State.OPEN
    assert not circuit.refuses()
    assert circuit.breaker.state is State.CLOSED


@pytest.mark.parametrize("late", ["failure", "success", "cancelled"])
def test_what_began_before_the_circuit_opened_says_nothing_about_the_probe(late: str) -> None:
    circuit = Circuit()
    with contextlib.suppress(JudgeUnreachable, asyncio.CancelledError), circuit.breaker.exchange():
        circuit.opened()
        circuit.clock.now_s += 10.0
        probe = circuit.breaker.exchange()
        probe.__enter__()
        if late != "success":
            raise JudgeUnreachable("late") if late == "failure" else asyncio.CancelledError
    assert circuit.breaker.state is State.HALF_OPEN
    probe.__exit__(None, None, None)
    assert circuit.breaker.state is State.CLOSED


def test_a_record_of_the_circuit() -> None:
    circuit = Circuit()
    assert circuit.breaker.snapshot() == {"state": "closed", "failure_count": 0, "last_failure_time": None}
    circuit.opened()
    circuit.clock.now_s += 5.0
    found = circuit.breaker.snapshot()
    assert found.pop("last_failure_time") == pytest.approx(time.time() - 5.0, abs=HANGS_S)
    assert found == {"state": "open", "failure_count": 3}


@given(st.lists(st.sampled_from(["fail", "succeed", "cancel", "wait"]), max_size=60))
def test_the_circuit_never_stays_open_for_good(steps: list[str]) -> None:
    circuit = Circuit()
    for step in steps:
        match step:
            case "wait":
                circuit.clock.now_s += 4.0
            case "succeed":
                circuit.refuses()
            case _:
                with contextlib.suppress(JudgeBusy):
                    circuit.fail(asyncio.CancelledError() if step == "cancel" else None)
        assert circuit.breaker.state is not State.HALF_OPEN
    circuit.clock.now_s += 10.0
    circuit.succeed()
    assert circuit.breaker.state is State.CLOSED

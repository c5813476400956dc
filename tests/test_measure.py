"""One timing session, of two programs by a script."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import time
import types
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from kernel_env.errors import MachineBusy, VerifierError
from kernel_env.referee import measure as module
from kernel_env.referee import placement
from kernel_env.referee.clock import FLOOR_MS, TimingPlan
from kernel_env.referee.exchange import Exchange, Message
from kernel_env.referee.inputs import Draw
from kernel_env.referee.measure import LONGEST_TOGETHER_S, TOGETHER, TOGETHER_S
from kernel_env.referee.memory import Samples
from kernel_env.referee.placement import PAUSES_S, quiet
from kernel_env.referee.protocol import Frame
from kernel_env.referee.sides import Side, Tampered, give_slots
from kernel_env.referee.values import described
from tests.scenes import CORES, EVENTS, Program, Scene, inputs, scene

NOBODY = 1 << 22 | 1
"""No process has this number."""


# ---------------------------------------------------------- order


def test_sides_come_in_random_order_once_a_round() -> None:
    found = scene()
    found.rounds(30)
    pairs = [tuple(name for name, _ in found.blocks()[i : i + 2]) for i in range(0, 60, 2)]
    first = [pair[0] for pair in pairs]
    assert all(set(pair) == {"baseline", "candidate"} for pair in pairs) and len(pairs) == 30
    assert 5 <= first.count("baseline") <= 25
    assert len(set(itertools.pairwise(first))) == 4  # no fixed pattern such as A-B-B-A


def test_one_side_is_frozen_while_the_other_is_asked_and_none_stays_so() -> None:
    found = scene()
    programs = {"baseline": found.baseline, "candidate": found.candidate}
    ask = {name: side.ask for name, side in (("baseline", found.session.baseline), ("candidate", found.ours))}

    def watched(name: str) -> Callable[..., Frame]:
        other = programs["candidate" if name == "baseline" else "baseline"]

        def asked(frame: Frame, fds: Sequence[int] = ()) -> Frame:
            assert other.frozen and not programs[name].frozen
            return ask[name](frame, fds)

        return asked

    found.session.baseline.ask, found.ours.ask = watched("baseline"), watched("candidate")
    assert len(found.rounds(10)) == 10
    assert not found.baseline.frozen and found.candidate.frozen, "whoever needs it next thaws it"


def test_a_block_is_placed_on_the_sessions_cores_and_ends_frozen() -> None:
    found = scene()
    found.rounds(3)
    kinds = [(name, event[0]) for name, event in found.events if event[0] in ("placed", "froze", "checked")]
    assert kinds.count(("referee", "checked")) == 3 == kinds.count(("candidate", "placed"))
    for index, (name, kind) in enumerate(kinds):
        if kind == "checked":
            assert kinds[index - 1][1] == "froze"
        assert name in ("referee", "baseline", "candidate")
    assert {event[1] for _, event in found.events if event[0] == "placed"} == {CORES[:2]}


def test_the_last_message_of_a_block_freezes_at_its_reply() -> None:
    """Not a moment later: what a thread of its own still has to do is left undone then."""
    found = scene()
    found.rounds(5)
    for name in ("baseline", "candidate"):
        kinds = [event[0] for who, event in found.events if who == name and event[0] in ("last", "call", "empty", "froze")]
        assert kinds.count("last") == 5
        assert all(kinds[index + 1 : index + 3] == ["call", "froze"] for index, kind in enumerate(kinds) if kind == "last")


def test_blocks_vary_in_length_so_that_the_last_call_is_not_known() -> None:
    found = scene(5e-4, 5e-4, slots=16)
    rounds = found.rounds(80)
    single = [len(r.candidate_ms) for r in rounds if r.together == 1]
    several = [len(r.candidate_ms) for r in rounds if r.together == 16]
    assert len(set(single)) > 1 and all(1 <= count <= 16 for count in single)
    assert set(several) == {1, 2} and len(single) + len(several) == 80
    assert {len(r.candidate_ms) for r in scene(1e-4, 1e-4, slots=4).rounds(80) if r.together > 1} == {1, 2, 3, 4}


def test_long_calls_are_made_singly_and_do_not_settle() -> None:
    found = scene(0.05, 0.05)
    found.rounds(2)  # in its first block a side settles
    before = len(found.events)
    rounds = found.rounds(5)
    assert [(len(r.candidate_ms), len(r.baseline_ms)) for r in rounds] == [(1, 1)] * 5
    messages = [event for name, event in found.events[before:] if name == "candidate" and event[0] == "call"]
    assert len(messages) == 5


def test_short_calls_settle_for_a_while_after_each_thaw() -> None:
    found = scene(3e-4, 3e-4, slots=16)
    rounds = found.rounds(20)
    candidate = [messages for name, messages in found.blocks() if name == "candidate"]
    for messages, counted in list(zip(candidate, rounds, strict=True))[1:]:
        settling = len(messages) - len(counted.candidate_ms) - 2  # the empty ones
        assert settling == 1, "of as many calls as make a millisecond, where calls that count are sent singly, too"


def test_a_side_whose_calls_are_shorter_than_thought_settles_in_few_messages() -> None:
    found = scene(1e-5, 1e-5, slots=128)
    found.ours.call_s = 5e-4
    found.session._wake(found.ours)
    found.session._settle(found.ours)
    [(_, messages)] = found.blocks()
    assert [len(calls) for _, _, calls in messages] == [2, 4, 8, 16, 32]  # 0.1 ms of exchange each, and the calls


def test_blocks_are_short_where_inputs_take_longer_to_write_than_to_work_on() -> None:
    """The other side's calls, which come once a round as well, are worth more."""
    for write_s, longest in ((0.0, 16), (4e-3, 2)):
        found = scene(5e-4, 5e-4, slots=2)
        found.session._write_s = write_s
        counts = [found.session._count(found.ours, 1) for _ in range(100)]
        assert max(counts) == longest and min(counts) == 1


def test_how_long_writing_takes_is_learned() -> None:
    found = scene(5e-4, 5e-4, slots=2)
    write = found.session.pool.write

    def slow(*arguments: Any) -> None:
        time.sleep(4e-3)
        write(*arguments)

    found.session.pool.write = slow  # type: ignore[method-assign]
    found.rounds(3)
    assert found.session._write_s >= 4e-3


# ---------------------------------------------------------- inputs


def test_every_timed_call_of_a_block_has_new_inputs_and_both_sides_end_on_the_same() -> None:
    found = scene(seed=3)
    rounds = found.rounds(10)
    blocks = found.blocks()
    assert len(found.checked) == 10
    for index, taken in enumerate(rounds):
        pair = dict(blocks[2 * index : 2 * index + 2])
        counted = {"baseline": len(taken.baseline_ms), "candidate": len(taken.candidate_ms)}
        timed = {name: [calls for _, _, calls in messages[-counted[name] :]] for name, messages in pair.items()}
        for messages in timed.values():
            assert len({data for calls in messages for data in calls}) == sum(map(len, messages))
        assert len(set(timed["baseline"][-1]) & set(timed["candidate"][-1])) == 1
        assert sum(len(set(a) & set(b)) for a in timed["baseline"] for b in timed["candidate"]) == 1
    assert len({tuple(s and (s.cut, s.turn) for s in draw.splices) for draw in found.checked}) == 10


def test_the_heap_is_laid_out_anew_before_each_message_that_counts_and_once_where_calls_are_sent_singly() -> None:
    found = scene()
    rounds = found.rounds(5)
    assert {r.together for r in rounds} > {1}
    for name in ("baseline", "candidate"):
        mine = [event for who, event in found.events if who == name and event[0] in ("scattered", "call", "empty")]
        places = [index for index, event in enumerate(mine) if event[0] == "scattered"]
        counted = sum(1 if r.together == 1 else len(r.baseline_ms if name == "baseline" else r.candidate_ms) for r in rounds)
        assert len(places) == counted == len({mine[index][1] for index in places})
        assert all(mine[index + 1][0] == "call" for index in places)


@pytest.mark.parametrize(("length", "renewed"), [(4096, True), (1 << 19, False)])
def test_messages_that_do_not_count_are_called_on_what_is_there_if_that_is_much(length: int, renewed: bool) -> None:
    found, written = scene(2e-4, 2e-4, slots=2, length=length), [0]
    write = found.session.pool.write

    def counting(*arguments: Any) -> None:
        written[0] += 1
        write(*arguments)

    found.session.pool.write = counting  # type: ignore[method-assign]
    rounds = found.rounds(6)
    counted = sum((len(r.baseline_ms) + len(r.candidate_ms)) * r.together for r in rounds)
    in_checks = 2 * len(found.checked)
    assert (written[0] - in_checks > counted) is renewed
    assert written[0] - in_checks >= counted


def test_the_heap_of_long_calls_stays_as_it_is() -> None:
    found = scene(TOGETHER_S / 1.9, TOGETHER_S / 1.9)
    found.rounds(5)
    assert "scattered" not in {event[0] for _, event in found.events}


@pytest.mark.parametrize("call_s", [1e-4, 0.1])
def test_generated_code_is_moved_before_each_block_of_which_each_call_counts(call_s: float) -> None:
    found = scene(call_s, call_s)
    rounds = found.rounds(5)
    moved = [call_s > TOGETHER_S or r.together > 1 for r in rounds]
    assert any(moved)
    for name in ("baseline", "candidate"):
        mine = [event for who, event in found.events if who == name and event[0] in ("placed", "moved", "call")]
        starts = [index for index, event in enumerate(mine) if event[0] == "placed"]
        assert [mine[index + 1][0] == "moved" for index in starts] == moved
        assert len({event[1] for event in mine if event[0] == "moved"}) == sum(moved) == sum(event[0] == "moved" for event in mine)


def test_inputs_change_places_too() -> None:
    found = scene(slots=16)
    found.rounds(10)
    used = [tuple(event[1]["indices"]) for name, event in found.events if name == "candidate" and event[0] == "call"]
    assert len(set(used)) > 8


def test_inputs_are_written_after_the_last_reply_not_all_before() -> None:
    """Places other than the called ones hold what they held at the call before: nothing of later calls can be seen ahead."""
    found = scene(seed=5)
    places, ask = found.candidate.places, found.ours.ask
    before = list(map(bytes, places))
    written = list[list[int]]()

    def spying(frame: Frame, fds: Sequence[int] = ()) -> Frame:
        if frame["op"] != "call":
            return ask(frame, fds)
        now = list(map(bytes, places))
        written.append([index for index in range(len(now)) if now[index] != before[index]])
        before[:] = now
        assert set(written[-1]) <= set(frame["indices"])
        return ask(frame, fds)

    found.ours.ask = spying
    found.rounds(5)
    assert sum(map(len, written)) > 15


@pytest.mark.parametrize("random_forward", [False, True])
def test_seeds_are_sent_where_forward_draws_numbers_and_only_there(random_forward: bool) -> None:
    found = scene(random_forward=random_forward)
    found.rounds(5)
    frames = [event[1] for _, event in found.events if event[0] == "call"]
    assert all(("seeds" in frame) is random_forward for frame in frames)
    if random_forward:
        pairs = [dict(found.blocks()[i : i + 2]) for i in range(0, 10, 2)]
        for pair, draw in zip(pairs, found.checked, strict=True):
            assert all(draw.seed in pair[name][-1][1]["seeds"] for name in ("baseline", "candidate"))


def test_other_inputs_take_new_places() -> None:
    events: EVENTS = []
    program = Program("p", events)
    side = Side(program, program.ask)
    give_slots(side, inputs(1), 2)
    first = list(side.slots)
    give_slots(side, inputs(2), 3)
    assert side.slots[:2] == first and len(side.slots) == 3
    assert side.slots[2].map[:] == inputs(2).arena.map[:]
    give_slots(side, inputs(1, length=10), 1)
    assert len(side.slots) == 1 and side.slots[0].size == 40
    with pytest.raises(ValueError, match="released"):
        first[0].map[:1]
    assert [event for _, event in events] == [("took", 2), ("took", 1), ("dropped",), ("took", 1)]


# ---------------------------------------------------------- what an exchange costs


def times(found: Scene, count: int = 5) -> tuple[float, float]:
    """Milliseconds a call of the baseline and of the candidate, which all agree."""
    rounds = found.rounds(count)
    (theirs,) = {round(ms, 7) for r in rounds for ms in r.baseline_ms}
    (ours,) = {round(ms, 7) for r in rounds for ms in r.candidate_ms}
    return theirs, ours


def test_what_the_exchange_costs_is_taken_off_both_sides() -> None:
    found = scene(2e-3, 1e-3)
    assert times(found) == pytest.approx((2.0, 1.0))


@pytest.mark.parametrize(
    ("theirs_s", "ours_s", "charged_ms"), [(0.0, 0.0, 0.0), (1e-4, 3e-4, 0.0), (1e-4, 2.3e-3, 2.0), (5e-3, 0.0, 0.0)]
)
def test_work_between_calls_counts_as_time_of_the_next(
    monkeypatch: pytest.MonkeyPatch, theirs_s: float, ours_s: float, charged_ms: float
) -> None:
    """CPU time between a reply and the next request, beyond what the baseline spends there and 0.2 ms."""
    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: 0.0))
    steps = {"baseline": theirs_s, "candidate": ours_s}
    clocks: dict[int, float] = {}

    def used_s(pid: int) -> float:
        side = "candidate" if pid == NOBODY else "baseline"
        stopped = (found.candidate if pid == NOBODY else found.baseline).frozen
        clocks[pid] = clocks.get(pid, 1.0) + (0.0 if stopped else steps[side])
        return clocks[pid]

    found = scene(0.02, 0.02)  # of such length calls go singly
    found.candidate.pid = NOBODY
    found.session._went_on = lambda pid, since: False  # type: ignore[method-assign]
    found.session._used_s = used_s
    assert times(found) == pytest.approx((20.0, 20.0 + charged_ms))


@pytest.mark.parametrize("readable", [True, False])
def test_work_between_the_last_reply_and_the_comparison_counts_too(monkeypatch: pytest.MonkeyPatch, readable: bool) -> None:
    """A program that was told to stop may go on in a long system call, while the referee parses a long answer, or runs others."""
    found = scene(0.006, 0.006, slots=2)  # of such length a block has several, most of them
    found.candidate.pid, found.candidate.readable = NOBODY, readable
    check, clock_s = found.session.check, 1.0

    def late(*arguments: Any) -> None:
        nonlocal clock_s
        check(*arguments)
        clock_s += 5.2e-3

    found.session.check = late
    found.session._used_s = lambda pid: clock_s if pid == NOBODY else 1.0
    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: 0.0))
    rounds = found.rounds(20)
    assert any(len(r.candidate_ms) > 1 for r in rounds)
    for r in rounds:
        *others, last = r.candidate_ms
        late_ms = 5.0 / r.together if readable else 0.0  # one that had to hand it over itself was not stopped
        assert others == pytest.approx([6.0] * len(others)) and last == pytest.approx(6.0 + late_ms, abs=0.05)


def test_what_it_takes_to_look_at_many_threads_counts() -> None:
    """One of them may work on its inputs meanwhile. Where both sides have as many it is nobody's."""
    found, now_s = scene(0.02, 0.02), 0.0
    found.candidate.pid = NOBODY
    looks_s = {found.baseline.pid: 0.0, NOBODY: 1.1e-3}  # at the reply, and before the next request
    found.session._now = lambda: now_s

    def used_s(pid: int) -> float:
        nonlocal now_s
        now_s += looks_s[pid]
        return 1.0

    found.session._add_late = lambda side, messages: None  # type: ignore[method-assign]
    found.session._used_s = used_s
    assert times(found) == pytest.approx((20.0, 22.0))
    looks_s[found.baseline.pid] = looks_s[NOBODY]
    assert times(found) == pytest.approx((20.0, 20.0))


def test_laying_out_the_heap_is_no_allowance_for_other_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that leaves it out is charged for work between its calls all the same."""
    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: 0.0))
    found = scene(4e-3, 4e-3)
    clocks, asked = {found.baseline.pid: 1.0, NOBODY: 1.0}, dict[int, str]()

    def noting(pid: int, ask: Callable[..., Frame]) -> Callable[..., Frame]:
        def noted(frame: Frame, fds: Sequence[int] = ()) -> Frame:
            clocks[pid] += 1e-3 if pid != NOBODY and frame["op"] == "scatter" else 0.0
            asked[pid] = frame["op"]
            return ask(frame, fds)

        return noted

    def used_s(pid: int) -> float:
        clocks[pid] += 1e-3 if pid == NOBODY and asked.get(pid) == "scatter" else 0.0  # the candidate works before it is called
        return clocks[pid]

    for pid, side in ((found.baseline.pid, found.session.baseline), (NOBODY, found.ours)):
        side.ask = noting(pid, side.ask)
    found.candidate.pid = NOBODY
    found.session._used_s = used_s
    for taken in found.rounds(6):
        scattered = taken.candidate_ms[:1] if taken.together == 1 else taken.candidate_ms
        assert all(ms == pytest.approx(4.0 + 0.8 / taken.together) for ms in scattered)


@pytest.mark.parametrize(
    ("elapsed_s", "workers", "free_s"),
    [(2.5e-4, 0, 4e-5), (2.5e-4, 1, 1.9e-4), (2.5e-4, 15, 2e-4), (5e-3, 0, 1e-4), (5e-3, 1, 2e-4), (0.1, 0, 2e-4)],
)
def test_what_is_free_is_a_small_share_of_a_message(elapsed_s: float, workers: int, free_s: float) -> None:
    """But for OpenMP's workers, which look for work for a while; a thread of its own could do most of a short message's in that."""
    known = Exchange()
    known.learn([Message(1e-3, 5e-5, calls_s=9e-4)])
    for outside_s in (5e-5, 5e-5 + free_s, 1e-3):
        message = Message(elapsed_s, outside_s, workers)
        assert known.charged_s([message]) == pytest.approx([max(0.0, outside_s - free_s - 5e-5)], abs=1e-12)


def test_time_that_is_booked_late_after_single_calls_is_nobodys_work() -> None:
    """A worker that still spins when a short reply arrives has the call's time booked after it; after a long reply it sleeps."""
    found = scene()
    clocks, calls = dict.fromkeys(("baseline", "candidate"), 1.0), dict.fromkeys(("baseline", "candidate"), 1)

    def counting(name: str, ask: Callable[..., Frame]) -> Callable[..., Frame]:
        def asked(frame: Frame, fds: Sequence[int] = ()) -> Frame:
            calls[name] = len(frame.get("indices", ())) or calls[name]
            return ask(frame, fds)

        return asked

    for name, side in (("baseline", found.session.baseline), ("candidate", found.ours)):
        side.ask = counting(name, side.ask)

    def used_s(pid: int) -> float:
        name = "baseline" if pid == found.baseline.pid else "candidate"
        clocks[name] += 1e-3 if calls[name] == 1 and not getattr(found, name).frozen else 0.0
        return clocks[name]

    found.candidate.pid = NOBODY
    found.session._used_s = used_s
    rounds = found.rounds(40)
    assert {taken.together for taken in rounds} == {1, 16}
    assert all(taken.candidate_ms == pytest.approx(taken.baseline_ms[:1] * len(taken.candidate_ms)) for taken in rounds)


def test_a_baselines_call_is_what_its_own_clock_says() -> None:
    found = scene(9e-3, 9e-3)
    found.baseline.empty_s, found.baseline.full_s = 1e-4, 9e-4
    assert times(found)[0] == pytest.approx(9.0)


def test_a_baselines_shorter_calls_pay_no_less_for_their_exchange() -> None:
    found = scene(9e-3, 9e-3)
    found.baseline.empty_s, found.baseline.full_s = 1e-4, 9e-4
    check, lengths = found.session.check, [9e-3]

    def another_length(theirs: Side, ours: Side, draw: Draw) -> None:
        check(theirs, ours, draw)
        found.baseline.call_s = [2e-3, 9e-3, 15e-3][len(lengths) % 3]
        lengths.append(found.baseline.call_s)

    found.session.check = another_length
    for taken, call_s in zip(found.rounds(9), lengths, strict=False):
        assert taken.baseline_ms == pytest.approx([call_s * 1e3] * len(taken.baseline_ms))


@pytest.mark.parametrize(
    ("candidate_s", "taken_off_s"),
    [(40e-3, 9e-4), (72e-3, 9e-4), (20e-3, 5e-4), (10e-3, 3e-4)],
    ids=["as long as the baseline", "longer", "half of it", "little"],
)
def test_what_is_taken_off_a_candidate_grows_with_its_call(candidate_s: float, taken_off_s: float) -> None:
    """An empty message costs 0.1 ms, one around the baseline's 40 ms costs 0.9 ms."""
    found = scene(40e-3, candidate_s)
    found.baseline.empty_s, found.baseline.full_s = 1e-4, 9e-4
    found.candidate.full_s = 9e-4
    message_s = candidate_s + found.candidate.full_s
    share = min(1.0, max(0.0, (message_s - 9e-4) / 40e-3))
    assert taken_off_s == pytest.approx(1e-4 + 8e-4 * share)
    assert times(found)[1] == pytest.approx((message_s - taken_off_s) * 1e3)


def test_no_call_is_shorter_than_the_floor() -> None:
    found = scene(1e-3, 0.0, length=16)  # it settles in some hundred messages, and all of them are kept
    found.candidate.full_s = 5e-6
    assert times(found)[1] == FLOOR_MS


def test_what_a_candidate_says_about_its_own_time_counts_for_nothing() -> None:
    found, ask = scene(1e-3, 1e-3), Program.ask

    def lying(frame: Frame, fds: Sequence[int] = ()) -> Frame:
        return {**ask(found.candidate, frame, fds), "took_s": 1e-9}

    found.ours.ask = lying
    assert times(found) == pytest.approx((1.0, 1.0))


def test_both_sides_get_the_same_empty_messages_in_each_block() -> None:
    """Or one of them would be timed right after calls, and the other after a rest."""
    found = scene()
    found.rounds(5)
    for _, messages in found.blocks():
        kinds = [event[0] for event in messages]
        assert kinds.count("empty") == 2 and kinds[-1] == "call"


# ---------------------------------------------------------- several calls together


@pytest.mark.parametrize(
    ("baseline_s", "candidate_s"), [(1e-5, 1e-5), (1e-5, 3e-4), (3e-4, 1e-5)], ids=["both", "the baseline", "the candidate"]
)
def test_short_calls_go_singly_in_some_rounds_and_together_in_others(baseline_s: float, candidate_s: float) -> None:
    found = scene(baseline_s, candidate_s)
    rounds = found.rounds(20)
    assert {r.together for r in rounds} == {1, TOGETHER}
    for (name, messages), taken in zip(found.blocks(), [r for r in rounds for _ in range(2)], strict=True):
        counted = messages[-len(taken.baseline_ms if name == "baseline" else taken.candidate_ms) :]
        assert {len(frame["indices"]) for _, frame, _ in counted} == {taken.together}
        assert all(len(set(frame["indices"])) == taken.together for _, frame, _ in counted)
    for taken in rounds:
        assert taken.candidate_ms == pytest.approx([max(candidate_s * 1e3, FLOOR_MS)] * len(taken.candidate_ms))
        assert taken.baseline_ms == pytest.approx([baseline_s * 1e3] * len(taken.baseline_ms))


@pytest.mark.parametrize(
    ("baseline_s", "candidate_s", "together"),
    [
        (TOGETHER_S / 1.9, TOGETHER_S / 1.9, 1), (TOGETHER_S / 2.1, TOGETHER_S / 2.1, 2), (TOGETHER_S / 5.5, 9e-3, 5),
        (9e-3, TOGETHER_S / 5.5, 5), (LONGEST_TOGETHER_S / 3.5, 1e-5, 3), (1e-5, LONGEST_TOGETHER_S, 1), (10.0, 1e-5, 1),
    ],
)  # fmt: skip
def test_so_many_go_together_that_the_exchange_is_little_and_no_message_long(
    baseline_s: float, candidate_s: float, together: int
) -> None:
    assert {r.together for r in scene(baseline_s, candidate_s).rounds(25)} == {1, together}


def test_of_either_kind_there_are_equally_many_in_an_order_that_nobody_knows() -> None:
    orders = set[tuple[int, ...]]()
    for seed in range(8):
        kinds = [r.together for r in scene(1e-4, 1e-4, seed=seed, slots=8).rounds(6)]
        assert kinds.count(1) == kinds.count(8) == 3
        orders.add(tuple(kinds))
    assert len(orders) > 1


def test_how_many_go_together_stays_the_same_in_a_session() -> None:
    """Or each would be a group of its own, too small to say anything."""
    found = scene(1e-4, 1e-4)

    def slower(theirs: Side, ours: Side, draw: Draw) -> None:
        found.candidate.call_s *= 1.05

    found.session.check = slower
    assert {r.together for r in found.rounds(40)} == {1, TOGETHER}


def test_the_baseline_alone_is_timed_as_it_was_beside_the_candidate() -> None:
    found = scene(2e-4, 1e-4)
    rounds = found.rounds(12)
    before = len(found.events)
    alone_ms = found.session.alone(0.02, found.session.together(found.ours))
    assert alone_ms == pytest.approx([0.2] * len(alone_ms)) and alone_ms
    assert {name for name, event in found.events[before:] if event[0] != "froze"} == {"baseline"} and not found.baseline.frozen
    messages = [event[1]["indices"] for name, event in found.events[before:] if event[0] == "call"]
    assert len(messages[-1]) == max(r.together for r in rounds), "those before it let the side settle"


@pytest.mark.parametrize(("most", "moved"), [(1 << 30, 4 * TOGETHER * (4096 + 64) * 4), (1 << 20, 1 << 20)])
def test_before_each_block_alone_the_caches_are_left_as_a_candidate_would_leave_them(
    monkeypatch: pytest.MonkeyPatch, most: int, moved: int
) -> None:
    """Inputs and outputs of a message, several times: or the baseline would be faster alone for no fault of the candidate's."""
    found = scene(2e-4, 1e-4, slots=TOGETHER)
    found.rounds(12)
    before = len(found.events)
    monkeypatch.setattr(module, "_MOST_MOVED", most)

    def moved_s(memory: np.ndarray[Any, Any]) -> float:
        found.events.append(("referee", ("moved", memory.nbytes)))
        return 0.05

    monkeypatch.setattr(module, "move", moved_s)
    alone_ms = found.session.alone(0.2, TOGETHER)
    assert len(alone_ms) <= 4, "moving is a part of the time"
    order = [
        event[1] if who == "referee" else "block"
        for who, event in found.events[before:]
        if event[0] == "placed" or who == "referee"
    ]
    assert len(alone_ms) > 1 and order == [moved, "block"] * len(alone_ms)


def test_memory_is_moved_by_reading_and_writing_all_of_it() -> None:
    memory = np.arange(1000, dtype=np.uint64)
    assert 0.0 < module.move(memory) < 10.0
    assert (memory == np.arange(1, 1001)).all()


def test_as_many_go_together_as_there_are_places() -> None:
    found = scene(1e-5, 1e-5, slots=3)
    assert {r.together for r in found.rounds(20)} == {1, 3}


# ---------------------------------------------------------- late work


def test_places_for_inputs_need_few_descriptors() -> None:
    found = scene(slots=2)
    before = len(os.listdir("/proc/self/fd"))
    side = found.session.baseline
    found.baseline.thaw()
    give_slots(side, inputs(3), 52)
    assert len(os.listdir("/proc/self/fd")) - before <= 2  # one of ours, and here one of the program's


def test_an_output_that_changes_while_the_block_ends_is_late_work() -> None:
    found = scene()

    def late() -> None:
        if len(found.checked) == 2:
            found.candidate.output += 1

    found.candidate.on_freeze = late
    with pytest.raises(Tampered, match="went on changing"):
        found.rounds(5)
    assert len(found.checked) == 2


def test_an_output_that_changes_before_the_next_request_is_late_work() -> None:
    found = scene()
    watch = found.ours.watch

    def watched(rng: np.random.Generator, *, trusted: bool) -> None:
        watch(rng, trusted=trusted)
        if found.checked:  # before the next request
            found.candidate.output += 1

    found.ours.watch = watched  # type: ignore[method-assign]
    with pytest.raises(Tampered, match="went on changing"):
        found.rounds(10)
    assert 1 <= len(found.checked) < 10


def test_one_changed_element_of_many_is_found_in_the_long_run() -> None:
    """One look sees 64 of 16,000 places, and each looks elsewhere."""
    found = scene(_words=np.random.default_rng(1))
    found.candidate.output = torch.zeros(4096)
    found.candidate.on_freeze = lambda: found.candidate.output[5].add_(1)
    with pytest.raises(Tampered):
        found.rounds(200)
    assert len(found.checked) > 5


def test_memory_that_is_given_back_after_the_reply_is_late_work() -> None:
    found = scene()
    block = mmap.mmap(-1, 3 * mmap.PAGESIZE)
    address = int(np.frombuffer(block, np.uint8).ctypes.data) + mmap.PAGESIZE
    ask = found.candidate.ask

    def elsewhere(frame: Frame, fds: Sequence[int] = ()) -> Frame:
        protect(mmap.PROT_READ | mmap.PROT_WRITE)
        answer = ask(frame, fds)
        for tree in answer.get("outputs", []):
            tree["tensor"]["address"] = address
        return answer

    def protect(rights: int = 0) -> None:
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, rights) == 0

    found.candidate.on_freeze = protect
    found.ours.ask = elsewhere
    found.session.check = lambda *_: None
    with pytest.raises(Tampered, match="given back"):
        found.rounds(5)
    protect(mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.parametrize("output", [torch.zeros(0), torch.zeros(1), torch.zeros(8, 8).t()[1:], torch.zeros(1).expand(9)])
def test_outputs_without_words_to_read_are_left_to_the_comparison(output: torch.Tensor) -> None:
    found = scene()
    found.candidate.output = output
    assert len(found.rounds(3)) == 3 == len(found.checked)


@pytest.mark.parametrize("outputs", [None, [], 3, [None], ["x"], [{"tensor": {}}], {"a": 1}])
def test_an_answer_without_outputs_is_left_to_the_comparison(outputs: Any) -> None:
    found = scene()
    ask = found.candidate.ask
    found.ours.ask = lambda frame, fds=(): {**ask(frame, fds), "outputs": outputs}
    found.session.check = lambda *_: None
    assert len(found.rounds(3)) == 3


# ---------------------------------------------------------- how long


class Scripted:
    """Time that goes on by what programs take only."""

    def __init__(self, found: Scene) -> None:
        self.now = 0.0
        for side, program in ((found.session.baseline, found.baseline), (found.ours, found.candidate)):
            side.ask = self._counting(program)

    def _counting(self, program: Program) -> Callable[..., Frame]:
        def asked(frame: Frame, fds: Sequence[int] = ()) -> Frame:
            answer = program.ask(frame, fds)
            self.now += program.elapsed_s if frame["op"] == "call" else 0.0
            return answer

        return asked


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (TimingPlan(rounds=7, min_rounds=2, budget_s=1e9), 7),
        (TimingPlan(rounds=100, min_rounds=4, budget_s=1e-9), 4),
        (TimingPlan(rounds=2, min_rounds=2, budget_s=1e-9), 2),
        (TimingPlan(rounds=1, min_rounds=1, budget_s=1e-9), 1),
        (TimingPlan(rounds=100, min_rounds=2, budget_s=19.0), 10),
        (TimingPlan(rounds=100, min_rounds=2, budget_s=19.0, extended=4.0, precision=0.03), 10),
        (TimingPlan(rounds=100, min_rounds=2, budget_s=19.0, extended=4.0, precision=0.01), 38),
        (TimingPlan(rounds=8, min_rounds=2, budget_s=1e9, extended=2.5, precision=0.0), 20),
        (TimingPlan(rounds=40, min_rounds=2, budget_s=1e9, extended=2.0, precision=0.03), 20),
        (TimingPlan(rounds=20, min_rounds=2, budget_s=1e9, extended=2.0, precision=0.03), 20),
        (TimingPlan(rounds=100, min_rounds=2, budget_s=80.0, extended=4.0, precision=0.03), 20),
    ],
    ids=[
        "most",
        "least",
        "least is most",
        "one",
        "budget",
        "precise",
        "never precise",
        "never precise, most",
        "precise early",
        "early, but few",
        "precise after half of the budget",
    ],
)
def test_rounds_end_as_planned(monkeypatch: pytest.MonkeyPatch, plan: TimingPlan, expected: int) -> None:
    """A round of two calls of a second takes two; what went before the first does not count."""
    found = scene(1.0, 1.0)
    clock = Scripted(found)
    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: clock.now, sleep=None))
    assert len(found.planned(plan)) == expected
    assert len(found.checked) == expected


def test_a_session_can_be_repeated_and_forgets_what_it_learned() -> None:
    found = scene()
    assert times(found) == pytest.approx((1.0, 1.0))
    found.baseline.empty_s = found.baseline.full_s = found.candidate.full_s = 5e-4
    assert times(found) == pytest.approx((1.0, 1.0))


# ---------------------------------------------------------- noise


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits that were asked for; none is made."""
    waited: list[float] = []
    monkeypatch.setattr(placement, "time", types.SimpleNamespace(sleep=waited.append))
    return waited


def test_a_quiet_measurement_is_taken_at_once(pauses: list[float]) -> None:
    noises = iter([0.1])
    quiet(lambda: next(noises), 0.1)
    assert pauses == [0.0]


def test_a_noisy_measurement_is_repeated_after_growing_pauses(pauses: list[float]) -> None:
    noises = iter([0.5, 0.11, 0.05, 0.0])
    quiet(lambda: next(noises), 0.1)
    assert list(noises) == [0.0]
    assert pauses == list(PAUSES_S[:3]) == sorted(pauses)


def test_a_machine_that_never_is_quiet_gives_no_time(pauses: list[float]) -> None:
    noises = iter([0.9, 0.8, 0.35, 0.7, 0.6])
    with pytest.raises(MachineBusy, match=r"in 5 tries, .* at least 35% of the time"):
        quiet(lambda: next(noises), 0.1)
    assert pauses == list(PAUSES_S)


def test_noise_is_what_the_baseline_waited_for_cores_if_others_had_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The smaller of two witnesses: a busy machine shows in both."""
    waits_s, share = [0.0], [1.0]

    class Waits:
        def __init__(self, pid: int, *, own: bool) -> None:
            assert own, "where this thread waits for its core replies come late"
            self.total = 0.0

        def seconds(self) -> float:
            self.total += waits_s[0]
            return self.total

        def close(self) -> None: ...

    monkeypatch.setattr(module, "Waits", Waits)
    monkeypatch.setattr(module, "OtherWork", lambda *_: types.SimpleNamespace(share=lambda: share[0]))
    noise = []
    for waits_s[0], share[0] in ((0.0, 1.0), (module.WAKING_S, 1.0), (1e-3, 1.0), (1e-3, 0.01), (1e-3, 0.0)):
        found = scene(9.9e-3, 9.9e-3, slots=2)
        found.rounds(3)
        noise.append(found.session.noise)
    usual = 1e-3 - (1 + len(CORES[:2])) * module.WAKING_S
    assert noise == pytest.approx([0.0, 0.0, usual / 10e-3, 0.01, 0.0], abs=1e-4)


@pytest.mark.parametrize(("limit", "rounds"), [(0.05, 16), (0.2, 40)])
def test_a_session_that_is_far_too_noisy_ends_early(monkeypatch: pytest.MonkeyPatch, limit: float, rounds: int) -> None:
    monkeypatch.setattr(module.Session, "_noise", lambda *_: 0.11)
    found = scene(1e-3, 1e-3)
    times = found.session.rounds(TimingPlan(rounds=40, min_rounds=40, budget_s=1e9, noise_limit=limit))
    assert len(found.checked) == rounds and found.session.noise == 0.11
    assert bool(times) is (rounds == 40)


# ---------------------------------------------------------- a candidate that chooses what it is measured by


@pytest.mark.parametrize(
    ("worked_s", "every", "fair"), [(0.0, 1, True), (1e-4, 1, True), (5e-3, 1, False), (5e-3, 3, False), (5e-3, 20, True)]
)
def test_a_candidate_that_works_while_it_is_stopped_is_seen(worked_s: float, every: int, fair: bool) -> None:
    """A timer may wake it, and a system call that has begun goes on. Once is no proof: a machine may have been stopped itself."""
    found = scene(0.02, 0.02)
    found.candidate.pid, clock_s = NOBODY, 1.0
    request = found.session.baseline.ask

    def meanwhile(frame: Frame, fds: Sequence[int] = ()) -> Frame:
        nonlocal clock_s
        clock_s += worked_s if frame["op"] == "call" and len(found.checked) % every == 0 else 0.0
        return request(frame, fds)

    found.session.baseline.ask = meanwhile
    found.session._used_s = lambda pid: clock_s if pid == NOBODY else 1.0
    if fair:
        found.rounds(20)
    else:
        with pytest.raises(Tampered, match="while it was stopped") as raised:
            found.rounds(20)
        assert raised.value.category == "not_stopped"


def test_a_candidate_that_was_slow_in_the_warm_up_is_timed_anew() -> None:
    """Else it would choose that its calls are sent singly."""
    found = scene(1e-4, 0.06)
    assert found.session.together(found.ours) == 1
    found.candidate.call_s = 1e-4
    rounds = found.rounds(6)
    assert {r.together for r in rounds} == {1, 128}


@pytest.mark.parametrize("noise", [0.0, 0.09, 0.11])
def test_a_candidate_that_is_slow_in_each_warm_up_is_none_to_believe(monkeypatch: pytest.MonkeyPatch, noise: float) -> None:
    """Unless other programs may have made it slow: then the session is as noisy as it was there, and counts for nothing."""
    monkeypatch.setattr(module.Session, "_noise", lambda *_: noise)
    found = scene(1e-4, 0.06)
    warm_up, session = found.session._warm_up, found.session

    def slow(entries: Any) -> None:
        found.candidate.call_s = 0.06
        warm_up(entries)
        found.candidate.call_s = 1e-4

    monkeypatch.setattr(session, "_warm_up", slow)
    found.candidate.call_s = 1e-4
    plan = TimingPlan(rounds=6, min_rounds=6, budget_s=1e9, noise_limit=0.1)
    session.rounds(plan)
    assert session.noise == noise
    if noise <= plan.noise_limit:
        fault = session.faults[found.ours]
        assert isinstance(fault, Tampered) and fault.category == "uneven" and "when it counts" in str(fault)
    else:
        assert not session.faults
        monkeypatch.setattr(module.Session, "_noise", lambda *_: 0.0)
        session.rounds(plan)
        assert session.noise == 0.0 and session.faults, "the next attempt is judged by itself"


@pytest.mark.parametrize("rounds", [11, 12])
def test_slow_blocks_with_most_of_the_messages_do_not_excuse_a_slow_warm_up(rounds: int) -> None:
    """A speedup is the median over rounds, and of an even number of them the mean of two ratios."""
    found = scene(1e-3, 0.06)
    check = found.session.check

    def every_other(*arguments: Any) -> None:
        check(*arguments)
        found.candidate.call_s = 0.02 if len(found.checked) % 2 else 1e-4

    found.session.check, found.candidate.call_s = every_other, 1e-4
    with pytest.raises(Tampered, match="when it counts"):
        found.session._is_done = warmed_again(found, found.session._is_done)  # type: ignore[method-assign]
        found.rounds(rounds)


def warmed_again(found: Scene, is_done: Callable[..., bool]) -> Callable[..., bool]:
    """Each plan begins with a slow warm-up."""

    def done(entry: Any, *rest: Any) -> bool:
        entry.first_s, entry.plans = 0.06, module.PLANS
        return is_done(entry, *rest)

    return done


def test_one_message_that_is_slow_again_does_not_excuse_a_slow_warm_up() -> None:
    """The last one of a block, say, which is the last that is seen before it is asked how long a call takes now."""
    found = scene(1e-4, 0.026)
    ask = found.ours.ask

    def slow_in_the_end(frame: Frame, fds: Sequence[int] = ()) -> Frame:
        found.candidate.call_s = 7e-3 if found.candidate.freeze_at_reply and len(found.checked) in (3, 5) else 1e-4
        return ask(frame, fds)

    found.ours.ask = slow_in_the_end
    assert {r.together for r in found.rounds(6)} == {1, 128}


@pytest.mark.parametrize("seed", range(4))
def test_one_round_is_enough_where_no_more_are_asked_for(seed: int) -> None:
    """It may be one of single calls only."""
    assert len(scene(1e-4, 1e-4, seed=seed).rounds(1)) == 1


def test_a_program_that_ended_after_its_reply_has_changed_nothing() -> None:
    """Its memory is gone then; the next request says that it ended, and how."""
    found = scene()
    found.rounds(1)
    side = found.ours
    side.watched, side.words, side.samples = described(torch.zeros(64)), b"", Samples((256,), np.random.default_rng(1))
    side.watched["tensor"]["address"] = 1 << 46
    found.candidate.readable = False
    side.expect_unchanged(np.random.default_rng(2), trusted=False)
    found.candidate.readable, side.words = True, b""
    with pytest.raises(Tampered, match="given back"):
        side.expect_unchanged(np.random.default_rng(2), trusted=False)


def test_a_candidate_that_is_slower_later_is_timed_as_planned() -> None:
    found = scene(1e-4, 1e-4)
    found.candidate.call_s = 5e-3
    assert {r.together for r in found.rounds(4)} == {1, 128}


@pytest.mark.parametrize("readable", [True, False])
def test_an_output_that_cannot_be_read_at_the_reply_is_late(readable: bool) -> None:
    """Where the machine lets none be read, comparing is left to tell."""
    found = scene()
    found.candidate.readable = readable
    ask = found.ours.ask

    def elsewhere(frame: Frame, fds: Sequence[int] = ()) -> Frame:
        answer = ask(frame, fds)
        if "outputs" in answer:
            spec = answer["outputs"][-1]["tensor"]
            answer["outputs"] = [{"tensor": {**spec, "address": 1 << 46}}] * len(answer["outputs"])
        return answer

    found.ours.ask = elsewhere
    found.session.check = lambda theirs, ours, draw: None
    if readable:
        with pytest.raises(Tampered, match="cannot be read"):
            found.rounds(3)
    else:
        found.rounds(3)


def test_slow_empty_messages_are_no_gain() -> None:
    """What is taken off a message grows with its call; slow messages without any would turn that around."""
    exchange = Exchange(empty_s=[5.0] * 3)
    for _ in range(3):
        exchange.learn([Message(1.5, 0.0, calls_s=1.0)])
    assert exchange.cost_s(0.6) == exchange.cost_s(1.5) == exchange.cost_s(9.0) == 0.5


# ---------------------------------------------------------- several candidates


def test_candidates_share_the_baselines_blocks_and_all_are_frozen_but_one() -> None:
    found = scene(1e-3, 1e-3, 2e-3, 8e-4)
    found.session.rounds(TimingPlan(rounds=6, min_rounds=6))
    names = [name for name, _ in found.blocks()]
    assert len(names) == 4 * 6 and len(found.checked) == 3 * 6
    for start in range(0, 24, 4):
        assert sorted(names[start : start + 4]) == ["baseline", "candidate", "candidate 2", "candidate 3"]
    assert len({tuple(names[start : start + 4]) for start in range(0, 24, 4)}) > 2, "in random order"
    assert len({id(draw) for draw in found.checked}) == 6, "all end a round on the same inputs"
    for start in range(0, 24, 4):
        timed = [{data for _, _, calls in messages[-1:] for data in calls} for _, messages in found.blocks()[start : start + 4]]
        assert all(mine & others for mine, others in itertools.combinations(timed, 2))


def test_each_candidate_has_times_of_its_own() -> None:
    found = scene(1e-3, 1e-3, 2e-3, 4e-4)
    rounds = found.session.rounds(TimingPlan(rounds=6, min_rounds=6))
    for side, expected_ms in zip(found.session.candidates, (1.0, 2.0, 0.4), strict=True):
        assert [ms for r in rounds[side] for ms in r.candidate_ms] == pytest.approx(
            [expected_ms] * sum(len(r.candidate_ms) for r in rounds[side])
        )
        assert {round(ms, 7) for r in rounds[side] for ms in r.baseline_ms} == {1.0}


def test_candidates_of_other_lengths_have_baselines_with_as_many_calls_together() -> None:
    """Of those whose numbers are about the same the smaller one counts."""
    found = scene(1e-3, 1e-3, 1.2e-3, 2e-4, slots=128)
    together = [found.session.together(side) for side in found.session.candidates]
    assert together == [16, 16, 50]
    rounds = found.session.rounds(TimingPlan(rounds=4, min_rounds=4))
    for side, size in zip(found.session.candidates, together, strict=True):
        assert sorted(r.together for r in rounds[side]) == sorted([1, 1, size, size])
    assert [name for name, _ in found.blocks()].count("baseline") == 2 + 2 * 2


def test_a_candidate_that_is_done_takes_no_more_rounds() -> None:
    found = scene(0.1, 0.1, 1.0)
    rounds = found.session.rounds(TimingPlan(rounds=100, min_rounds=2, budget_s=4.0))
    first, second = (len(rounds[side]) for side in found.session.candidates)
    assert (first, second) == (20, 4), "a budget each, of its own calls and those it is held against"
    assert [name for name, _ in found.blocks()].count("candidate 2") == 4


def test_the_fault_of_one_ends_its_turn_and_no_others() -> None:
    found = scene(1e-3, 1e-3, 1e-3)
    liar, honest = found.session.candidates
    found.candidates[0].on_freeze = lambda: found.candidates[0].output.add_(1)
    rounds = found.session.rounds(TimingPlan(rounds=8, min_rounds=8))
    assert list(rounds) == [honest] and len(rounds[honest]) == 8
    fault = found.session.faults[liar]
    assert isinstance(fault, Tampered) and fault.category == "late_work"
    assert ("candidate", ("killed",)) in found.events
    again = found.session.rounds(TimingPlan(rounds=3, min_rounds=3))
    assert list(again) == [honest] and len(again[honest]) == 3, "and it is not asked again"


@pytest.mark.parametrize("lives", [True, False])
def test_what_a_candidate_used_until_its_fault_is_no_other_work(monkeypatch: pytest.MonkeyPatch, lives: bool) -> None:
    """Where its clock is gone: so much as the cores gave in that time, at most. One that is compared uses nothing."""
    found, told, now_s = scene(1e-3, 1e-3, 1e-3), dict[int, float](), 0.0
    found.candidates[0].pid, found.candidates[1].pid = NOBODY, NOBODY + 2
    found.session._used_s = lambda pid: 5.0 if lives or not now_s else 0.0
    others = types.SimpleNamespace(share=lambda: 0.0, ended=told.__setitem__)
    monkeypatch.setattr(module, "OtherWork", lambda *_: others)
    monkeypatch.setattr(module, "time", types.SimpleNamespace(perf_counter=lambda: now_s))

    def fail(theirs: Side, ours: Side, draw: Draw) -> None:
        nonlocal now_s
        if ours is found.ours:
            now_s += 3.0
            raise Tampered("late_work", "after three seconds")

    found.session.check = fail
    found.session.rounds(TimingPlan(rounds=3, min_rounds=3))
    assert told == {NOBODY: pytest.approx(5.0 if lives else 5.0 + 3.0 * len(found.session.cores))}


def test_a_session_whose_candidates_all_fail_ends() -> None:
    found = scene(1e-3, 1e-3, 1e-3)

    def fail(theirs: Side, ours: Side, draw: Draw) -> None:
        raise Tampered("late_work", "all of them")

    found.session.check = fail
    assert found.session.rounds(TimingPlan()) == {} and len(found.session.faults) == 2


def test_who_went_on_while_it_was_stopped_is_told_from_the_others() -> None:
    found = scene(0.02, 0.02, 0.02)
    found.candidates[0].pid, clock_s = NOBODY, 1.0
    request = found.session.baseline.ask

    def meanwhile(frame: Frame, fds: Sequence[int] = ()) -> Frame:
        nonlocal clock_s
        clock_s += 5e-3 if frame["op"] == "call" else 0.0
        return request(frame, fds)

    found.session.baseline.ask = meanwhile
    found.session._used_s = lambda pid: clock_s if pid == NOBODY else 1.0
    rounds = found.session.rounds(TimingPlan(rounds=20, min_rounds=20))
    assert [fault.category for fault in found.session.faults.values() if isinstance(fault, Tampered)] == ["not_stopped"]
    assert list(rounds) == [found.session.candidates[1]] and found.session.unsettled


def test_who_works_while_another_candidate_is_timed_disturbs_the_session() -> None:
    found = scene(0.02, 0.02, 0.02, 0.02)
    found.candidates[0].pid, clock_s = NOBODY, 1.0
    ask = found.session.candidates[1].ask

    def meanwhile(frame: Frame, fds: Sequence[int] = ()) -> Frame:
        nonlocal clock_s
        clock_s += 5e-3 if frame["op"] == "call" else 0.0
        return ask(frame, fds)

    found.session.candidates[1].ask = meanwhile
    found.session._used_s = lambda pid: clock_s if pid == NOBODY else 1.0
    found.session.rounds(TimingPlan(rounds=20, min_rounds=20))
    assert found.session.unsettled and not found.session.faults
    quiet_one = scene(0.02, 0.02, 0.02)
    quiet_one.session.rounds(TimingPlan(rounds=20, min_rounds=20))
    assert not quiet_one.session.unsettled


def test_what_a_machine_could_not_do_for_one_candidate_ends_its_turn_only() -> None:
    found = scene(1e-3, 1e-3, 1e-3)
    ask, first = found.session.candidates[0].ask, found.session.candidates[0]

    def fails(frame: Frame, fds: Sequence[int] = ()) -> Frame:
        if frame["op"] == "call" and len(found.checked) > 3:
            raise VerifierError("this machine ran out of memory")
        return ask(frame, fds)

    first.ask = fails
    rounds = found.session.rounds(TimingPlan(rounds=8, min_rounds=8))
    assert list(rounds) == [found.session.candidates[1]] and isinstance(found.session.faults[first], VerifierError)

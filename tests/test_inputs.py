"""Inputs of timed calls: new values for each, of the same distribution, in the right bytes."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from kernel_env.referee.inputs import _LAST_BITS, _SIGNS, Draw, InputPool, InputSet, can_be_nudged, nudge
from kernel_env.referee.layout import ALIGN, Arena
from kernel_env.referee.values import plan, read, write

KINDS = ["float32", "bfloat16", "float16", "float64", "int64", "int8", "bool", "complex64"]


def made(value: Any, *plain: bool) -> InputSet:
    """A set of inputs as a runner makes it."""
    tensors: list[torch.Tensor] = []
    tree, size = plan(value, tensors)
    arena = Arena(size)
    write(tree, tensors, arena.map)
    return InputSet(tree, arena, plain)


def never() -> InputSet:
    raise AssertionError("nothing has to be made anew")


def pool(*sets: InputSet, seed: int = 1) -> InputPool:
    return InputPool(sets, never, random.Random(seed))


def written(pool: InputPool, draw: Draw) -> Any:
    """What a program finds in its mapping."""
    target = Arena(draw.source.arena.size)
    target.map[:] = b"\xee" * target.size
    pool.write(draw, target)
    return read(draw.source.tree, target.map)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def elements(tensor: torch.Tensor) -> list[bytes]:
    data, size = raw(tensor), tensor.element_size()
    return [data[i : i + size] for i in range(0, len(data), size)]


def sample(dtype: str, *shape: int) -> torch.Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(3)) * 50).to(getattr(torch, dtype))


@pytest.mark.parametrize("dtype", KINDS)
def test_a_draw_is_put_together_from_two_sets_turned_round(dtype: str) -> None:
    values = [sample(dtype, 5, 7), sample(dtype, 5, 7).flip(0)]
    sets = [made([x], True) for x in values]
    tensors = {id(kept): x for kept, x in zip(sets, values, strict=True)}
    spliced = pool(*sets)
    for _ in range(40):
        draw = spliced.draw()
        (splice,) = draw.splices
        assert splice is not None
        (got,) = written(spliced, draw)
        x, y = tensors[id(draw.source)], tensors[id(splice.other)]
        first, rest = x.reshape(-1).roll(-splice.turn)[: splice.cut], y.reshape(-1).roll(-splice.other_turn)[splice.cut :]
        assert got.dtype == x.dtype and got.shape == x.shape
        assert raw(got) == raw(first) + raw(rest)


MIXED = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128]


@pytest.mark.parametrize("dtype", MIXED)
@pytest.mark.parametrize("draw", [torch.rand, torch.randn])
@pytest.mark.parametrize("count", [64, 1000, 200_000])
def test_longer_draws_are_mixed_from_two_sets_and_keep_their_distribution(dtype: torch.dtype, draw: Any, count: int) -> None:
    values = [draw(count, dtype=dtype) for _ in range(2)]
    sets = [made([x], True) for x in values]
    numbers = [torch.view_as_real(x).reshape(-1) if dtype.is_complex else x for x in values]
    tensors = {id(kept): x for kept, x in zip(sets, numbers, strict=True)}
    mixed = pool(*sets)
    signs = torch.from_numpy(mixed._signs[:_SIGNS].copy())
    for _ in range(10):
        drawn = mixed.draw()
        (splice,) = drawn.splices
        assert splice is not None
        (got,) = written(mixed, drawn)
        got = torch.view_as_real(got).reshape(-1) if dtype.is_complex else got
        same = drawn.source is splice.other and splice.turn == splice.other_turn
        second = tensors[id(splice.other)].roll(-splice.other_turn - same)
        if draw is torch.rand:
            second[splice.cut :] *= -1
        wide = torch.float64 if got.dtype is torch.float64 else torch.float32
        total = tensors[id(drawn.source)].roll(-splice.turn).to(wide) + second.to(wide)
        turned = signs.repeat(-(-(len(got) + splice.sign) // _SIGNS))[splice.sign :][: len(got)]
        expected = (total - total.floor() if draw is torch.rand else total * turned).to(got.dtype)
        if draw is torch.rand:
            expected[expected >= 1] = 0
        assert torch.equal(got, expected)
        if count == 200_000 and drawn.source is not splice.other:
            wanted = (0.5, 12**-0.5) if draw is torch.rand else (0.0, 0.5**0.5 if dtype.is_complex else 1.0)
            assert (float(got.double().mean()), float(got.double().std())) == pytest.approx(wanted, abs=0.02)
            assert draw is torch.randn or (float(got.min()) >= 0 and float(got.max()) < 1)


def test_no_sum_over_a_tensor_stays_what_it_was() -> None:
    drawn = pool(made([torch.randn(1000)], True), made([torch.randn(1000)], True))
    sums = [round(float(written(drawn, drawn.draw())[0].double().sum()), 6) for _ in range(50)]
    assert len(set(sums)) > 45


def test_signs_are_secret_and_half_of_them_each() -> None:
    first, second = (pool(made([torch.randn(100)], True), seed=seed)._signs for seed in (1, 2))
    assert set(np.unique(np.abs(first))) == {np.float32(0.5**0.5)}
    assert abs(float(first[:_SIGNS].mean())) < 0.02 and float((first == second).mean()) == pytest.approx(0.5, abs=0.02)
    assert np.array_equal(first[_SIGNS:], first[: len(first) - _SIGNS])


def test_a_linear_answer_is_no_sum_of_answers() -> None:
    """Sums of what the sets themselves give, turned in any way, come nowhere near."""
    a, b, weights = (torch.randn(64, generator=torch.Generator().manual_seed(seed)).double() for seed in (1, 2, 3))
    drawn = pool(made([a.float()], True), made([b.float()], True))
    known = torch.stack([x.float().double().roll(-turn) @ weights for x in (a, b) for turn in range(64)])
    sums = torch.cat([(known[:, None] + sign * known[None, :]).flatten() * 0.5**0.5 for sign in (1, -1)])
    near = [float((sums.abs() - abs(float(written(drawn, drawn.draw())[0].double() @ weights))).abs().min()) for _ in range(50)]
    assert sum(distance < 1e-6 for distance in near) < 5  # so dense are the sums that some come near by chance


def test_draws_differ_from_each_other_and_each_tensor_turns_on_its_own() -> None:
    drawn = pool(made([torch.randn(1000), torch.randn(1000)], True, True))
    draws = [drawn.draw() for _ in range(50)]
    assert len({raw(written(drawn, draw)[0]) for draw in draws}) > 40
    turns = [[splice.turn for splice in draw.splices if splice] for draw in draws]
    assert len({first - second for first, second in turns}) > 40
    assert len({d.seed for d in draws}) == 50


def test_every_turn_and_cut_comes_up_and_none_beyond_the_end() -> None:
    drawn = pool(made([torch.randn(4)], True))
    splices = [splice for _ in range(200) for splice in drawn.draw().splices if splice]
    for name in ("cut", "turn", "other_turn"):
        assert {getattr(splice, name) for splice in splices} == {0, 1, 2, 3}


def test_one_tensor_that_is_not_plain_keeps_all_as_they_were_drawn() -> None:
    """It may have been computed from the others."""
    mask, x = torch.ones(16, 16).triu(), torch.randn(16, 16)
    mixed = pool(made({"mask": mask, "x": x}, False, True))
    assert not mixed.turnable
    for draw in [mixed.draw() for _ in range(20)] + [mixed.stale(), mixed.last()]:
        got = written(mixed, draw)
        assert torch.equal(got["mask"], mask) and torch.equal(got["x"], x)
        assert draw.splices == (None, None)


def test_all_sets_of_one_tree_are_drawn_from_and_others_are_not() -> None:
    a, b, longer = made([torch.zeros(8)], True), made([torch.ones(8)], True), made([torch.ones(9)], True)
    mixed = pool(longer, a, b)
    assert {id(draw().source) for draw in (mixed.draw, mixed.stale, mixed.last) for _ in range(50)} == {id(a), id(b)}
    assert pool(a, longer).draw().source is longer


@pytest.mark.parametrize("dtype", KINDS)
def test_tensors_are_written_to_the_byte_and_nothing_beside_them(dtype: str) -> None:
    """Sizes that fill no whole number of aligned blocks: the padding between tensors is nobody's."""
    values = [sample(dtype, 3), sample(dtype, 1), sample(dtype, 0, 4), sample(dtype, 61), sample(dtype)]
    drawn = pool(made(values, *[True] * 5))
    draw = drawn.draw()
    target = Arena(draw.source.arena.size)
    target.map[:] = b"\xee" * target.size
    drawn.write(draw, target)
    got, covered = read(draw.source.tree, target.map), set[int]()
    for leaf, tensor, value in zip(draw.source.tree["list"], got, values, strict=True):
        start, size = leaf["tensor"]["offset"], leaf["tensor"]["nbytes"]
        assert start % ALIGN == 0 and size == value.numel() * value.element_size()
        assert set(elements(tensor)) <= set(elements(value)) and len(elements(tensor)) == len(elements(value))
        covered |= set(range(start, start + size))
    assert {target.map[i] for i in set(range(target.size)) - covered} == {0xEE}


def test_a_permuted_input_keeps_its_strides() -> None:
    x = torch.randn(4, 6).t()
    drawn = pool(made([x], False))
    (got,) = written(drawn, drawn.draw())
    assert got.stride() == x.stride() and torch.equal(got, x)


@pytest.mark.parametrize("value", [[], [3, "word", None], [torch.empty(0, 3)], {"n": 2.5}])
def test_inputs_without_elements_are_drawn_and_written(value: Any) -> None:
    tensors: list[torch.Tensor] = []
    plan(value, tensors)
    drawn = pool(made(value, *[True] * len(tensors)))
    drawn.refresh(100)
    drawn.deal()
    for draw in (drawn.draw(), drawn.stale(), drawn.last()):
        assert str(written(drawn, draw)) == str(value)


def test_a_pool_that_can_turn_makes_nothing_anew() -> None:
    drawn = pool(made([torch.randn(8), torch.randn(3)], True, True))
    assert drawn.turnable
    drawn.refresh(1000)


class Renewing:
    """Sets of one int64 tensor, each of its own number."""

    def __init__(self, length: int = 4) -> None:
        self.count, self.length = 0, length

    def __call__(self) -> InputSet:
        self.count += 1
        return made([torch.full((self.length,), self.count)], False)

    def number(self, draw: Draw) -> int:
        return int.from_bytes(draw.source.arena.map[:8], "little")


@pytest.fixture
def renew() -> Iterator[Renewing]:
    yield Renewing()


def renewing(renew: Renewing) -> InputPool:
    return InputPool([renew(), renew()], renew, random.Random(2))


def test_what_cannot_be_turned_is_made_anew_for_each_round(renew: Renewing) -> None:
    drawn = renewing(renew)
    assert not drawn.turnable
    before = renew.count
    for _ in range(3):
        drawn.refresh(5)
        drawn.deal()
        numbers = [renew.number(drawn.draw()) for _ in range(4)]
        assert len(set(numbers)) == 4 and min(numbers) > before
        before = renew.count


def test_the_last_draw_is_no_other_draw_of_the_round(renew: Renewing) -> None:
    drawn = renewing(renew)
    for _ in range(5):
        drawn.refresh(6)
        last = renew.number(drawn.last())
        seen = set()
        for _ in range(2):  # either side's block
            drawn.deal()
            seen |= {renew.number(drawn.draw()) for _ in range(12)}
        assert last not in seen and len(seen) == 5
        assert renew.number(drawn.last()) == last


def test_a_block_has_no_more_calls_than_there_are_inputs(renew: Renewing) -> None:
    drawn = renewing(renew)
    drawn.refresh(6)
    assert drawn.most() == 6
    drawn.deal()
    assert len({renew.number(draw()) for draw in (drawn.last, *[drawn.draw] * 5)}) == 6
    assert pool(made([torch.randn(8)], True)).most() > 1000


def test_a_deck_gives_each_set_once_before_any_comes_again(renew: Renewing) -> None:
    drawn = renewing(renew)
    drawn.refresh(9)
    drawn.deal()
    drawn.draw()
    orders = set()
    for _ in range(2):
        drawn.deal()
        orders.add(tuple(renew.number(drawn.draw()) for _ in range(8)))
    assert len(orders) == 2 and len({frozenset(order) for order in orders}) == 1
    assert all(len(set(order)) == 8 for order in orders)


def test_stale_draws_are_old_sets(renew: Renewing) -> None:
    drawn = renewing(renew)
    drawn.refresh(9)
    assert {renew.number(drawn.stale()) for _ in range(50)} == {1, 2}


def test_as_many_sets_are_made_as_calls_need_within_bounds(renew: Renewing) -> None:
    drawn = renewing(renew)
    made_for = []
    for calls in (1, 2, 7, 10_000):
        before = renew.count
        drawn.refresh(calls)
        made_for.append(renew.count - before)
    assert made_for == [2, 2, 7, 32]


def test_large_sets_are_fewer() -> None:
    renew = Renewing(length=3 << 20)  # 24 MiB
    drawn = renewing(renew)
    drawn.refresh(100)
    assert renew.count - 2 == 2
    drawn.close()


def test_new_sets_of_another_tree_are_left_out() -> None:
    sizes = iter([4, 4, 4, 5, 4, 5])
    drawn = InputPool([made([torch.arange(4)], False)], lambda: made([torch.arange(next(sizes))], False), random.Random(1))
    drawn.refresh(6)
    drawn.deal()
    assert {draw.source.arena.size for draw in [drawn.last(), *(drawn.draw() for _ in range(20))]} == {32}


def test_without_any_usable_new_set_the_old_ones_serve() -> None:
    drawn = InputPool([made([torch.arange(4)], False)], lambda: made([torch.arange(5)], False), random.Random(1))
    drawn.refresh(6)
    drawn.deal()
    assert torch.equal(written(drawn, drawn.draw())[0], torch.arange(4))
    assert torch.equal(written(drawn, drawn.last())[0], torch.arange(4))


def test_closing_gives_back_what_was_made_and_keeps_the_old_sets(renew: Renewing) -> None:
    drawn = renewing(renew)
    drawn.refresh(3)
    fresh = drawn.last().source
    drawn.close()
    drawn.close()
    with pytest.raises(ValueError, match="closed"):
        fresh.arena.map[:1]
    assert renew.number(drawn.draw()) in (1, 2)


def test_the_order_is_the_generators() -> None:
    sets = [made([torch.randn(100)], True), made([torch.randn(100)], True)]
    first, again, other = (pool(*sets, seed=seed) for seed in (5, 5, 6))
    draws = [
        [(id(d.source), [s and (s.cut, s.turn, s.other_turn) for s in d.splices], d.seed) for d in (p.draw() for _ in range(10))]
        for p in (first, again, other)
    ]
    assert draws[0] == draws[1] != draws[2]


NUDGED = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", NUDGED)
def test_numbers_are_nudged_in_their_last_bits_only(dtype: torch.dtype, reverse: bool) -> None:
    values = torch.randn(100_000, dtype=dtype, generator=torch.Generator().manual_seed(1))
    nudged = made(values, True)
    nudge(nudged.arena, nudged, 1, reverse=reverse)
    flat = [torch.view_as_real(t) if dtype.is_complex else t for t in (values, read(nudged.tree, nudged.arena.map))]
    was, now = (t.reshape(-1) for t in flat)
    away = (now.abs() - was.abs()).to(torch.float64) * (1 if reverse else -1)
    assert (away >= 0).all() and (was.sign() == now.sign()).all() and now.abs().max() <= was.abs().max()
    away, was = away[normal := was.abs() > 2 * torch.finfo(was.dtype).tiny], was[normal]
    step = torch.finfo(was.dtype).eps * 2.0 ** torch.floor(torch.log2(was.abs().to(torch.float64)))
    steps = torch.round(away / step)  # beside a power of two they are half as large, or twice
    most = _LAST_BITS[was.element_size()]
    assert set(steps.unique().tolist()) >= set(map(float, range(most + 1))) and steps.max() <= 2 * most
    assert 0.9 / (most + 1) < (steps == 0).double().mean() < 1.5 / (most + 1)


def test_nothing_but_plainly_drawn_numbers_is_nudged() -> None:
    ones, whole = torch.ones(1000), torch.arange(1000)
    for tensors, plain, can in (
        ([ones], [True], True), ([ones, whole], [True, True], True), ([ones, whole], [True, False], False),
        ([ones, ones], [False, True], False), ([whole], [True], False), ([torch.ones(0)], [True], False), ([], [], False),
    ):  # fmt: skip
        assert can_be_nudged(made(tensors, *plain)) is can
    special = torch.tensor([0.0, -0.0, 1e-45, -1e-45, math.inf, -math.inf, math.nan, 1.0, 0.5, -1.0])
    for reverse in (False, True):
        nudged = made([whole, special], True, True)
        nudge(nudged.arena, nudged, 1, reverse=reverse)
        same, found = read(nudged.tree, nudged.arena.map)
        assert torch.equal(same, whole) and raw(found[:7]) == raw(special[:7]), "no sign changes, and nothing becomes infinite"
        assert found[7:].abs().max() <= 1 and torch.equal(found[7:].sign(), special[7:].sign())


@pytest.mark.parametrize("dtype", NUDGED)
def test_equal_numbers_come_to_lie_either_way(dtype: torch.dtype) -> None:
    value = torch.full((1000,), 0.7, dtype=dtype)
    value[0] = 1.0  # they may not go beyond the largest
    seen = []
    for reverse in (False, True):
        nudged = made(value, True)
        nudge(nudged.arena, nudged, 5, reverse=reverse)
        found = read(nudged.tree, nudged.arena.map)[1:]
        found = found.real if dtype.is_complex else found
        seen.append((found[:-1] > found[1:]).int() - (found[:-1] < found[1:]).int())
    assert torch.equal(seen[0], -seen[1]) and (seen[0] != 0).double().mean() > 0.7


def test_a_threshold_is_met_from_both_sides() -> None:
    """Sums that just pass it, and sums that just do not."""
    rows = torch.rand(20_000, 64, generator=torch.Generator().manual_seed(1))
    limits = (rows.double().sum(1) * 1000).floor() / 1000
    sides = set()
    for factor in (1 + 1e-7, 1 - 1e-7):
        at = rows * (limits / rows.double().sum(1) * factor)[:, None]
        was = at.double().sum(1) >= limits
        for reverse in (False, True):
            nudged = made(at.float(), True)
            nudge(nudged.arena, nudged, 3, reverse=reverse)
            now = read(nudged.tree, nudged.arena.map).double().sum(1) >= limits
            sides |= {(bool(a), bool(b)) for a, b in zip(was, now, strict=True)}
    assert sides == {(a, b) for a in (False, True) for b in (False, True)}

"""Inputs of timed calls: the same distribution, never the same values, and structure that stays."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from kernel_env.referee.inputs import InputPool, InputSet
from kernel_env.referee.layout import ITEM_BYTES, Arena, align


def laid_out(*tensors: tuple[str, int]) -> tuple[Any, int]:
    offset, leaves = 0, []
    for dtype, count in tensors:
        offset = align(offset)
        nbytes = count * ITEM_BYTES[dtype]
        leaves.append({"tensor": {"dtype": dtype, "shape": [count], "stride": None, "offset": offset, "nbytes": nbytes}})
        offset += nbytes
    return {"list": leaves}, offset


def filled(tree: Any, size: int, seed: int, plain: tuple[bool, ...]) -> InputSet:
    arena = Arena(size)
    arena.map[:] = np.random.default_rng(seed).bytes(arena.size)
    return InputSet(tree, arena, plain)


class Source:
    """Makes new sets, counted."""

    def __init__(self, tree: Any, size: int, plain: tuple[bool, ...]) -> None:
        self.tree, self.size, self.plain, self.made = tree, size, plain, 0

    def __call__(self) -> InputSet:
        self.made += 1
        return filled(self.tree, self.size, 1000 + self.made, self.plain)


def pool_of(*tensors: tuple[str, int], plain: tuple[bool, ...]) -> tuple[InputPool, Source, list[InputSet]]:
    tree, size = laid_out(*tensors)
    sets = [filled(tree, size, seed, plain) for seed in range(2)]
    source = Source(tree, size, plain)
    return InputPool(sets, source, random.Random(1)), source, sets


def written(pool: InputPool, draw: Any, size: int) -> bytes:
    target = Arena(size)
    pool.write(draw, target)
    return bytes(target.map)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64", "float16"])
def test_a_plain_tensor_is_turned_and_keeps_its_elements(dtype: str) -> None:
    pool, source, sets = pool_of((dtype, 1000), plain=(True,))
    item = ITEM_BYTES[dtype]
    seen = set()
    pool.refresh(20)
    for _ in range(20):
        data = written(pool, pool.draw(), 1000 * item)
        elements = sorted(data[i : i + item] for i in range(0, len(data), item))
        originals = [sorted(bytes(s.arena.map)[i : i + item] for i in range(0, 1000 * item, item)) for s in sets]
        assert elements in originals
        seen.add(data)
    assert len(seen) >= 19 and source.made == 0


def test_only_plain_tensors_are_turned_and_nothing_lies_outside_of_them() -> None:
    pool, _, sets = pool_of(("int64", 5), ("float32", 1001), ("bool", 3), plain=(False, True, False))
    size = sets[0].arena.size
    for _ in range(10):
        data = written(pool, pool.draw(), size)
        assert any(data[:40] == bytes(s.arena.map[:40]) for s in sets)
        assert any(data[-3:] == bytes(s.arena.map[size - 3 :]) for s in sets)
        assert data[40:64] == bytes(24)


@pytest.fixture
def structured() -> Iterator[tuple[InputPool, Source]]:
    pool, source, _ = pool_of(("float32", 100), plain=(False,))
    yield pool, source
    pool.close()


def test_without_plain_tensors_each_round_has_sets_of_its_own(structured: tuple[InputPool, Source]) -> None:
    pool, source = structured
    rounds = []
    for _ in range(3):
        pool.refresh(8)
        last = written(pool, pool.last(), 400)
        blocks = []
        for _ in range(2):
            pool.deal()
            blocks.append({written(pool, pool.draw(), 400) for _ in range(7)})
            assert len(blocks[-1]) == 7 and last not in blocks[-1]
        assert blocks[0] == blocks[1], "both sides get the same sets, each in an order of its own"
        rounds.append(blocks[0] | {last})
    assert source.made == 24
    assert not rounds[0] & rounds[1] and not rounds[1] & rounds[2]


def test_what_may_be_old_is_never_what_is_timed(structured: tuple[InputPool, Source]) -> None:
    pool, _ = structured
    pool.refresh(8)
    stale = {written(pool, pool.stale(), 400) for _ in range(20)}
    assert len(stale) == 2
    assert written(pool, pool.draw(), 400) not in stale and written(pool, pool.last(), 400) not in stale


def test_inputs_without_a_tensor_need_nothing() -> None:
    sets = [InputSet({"list": [{"plain": 3}]}, Arena(0), ())]
    pool = InputPool(sets, Source({}, 0, ()), random.Random(0))
    pool.refresh(5)
    pool.write(pool.draw(), Arena(0))
    assert pool.turnable


def test_empty_tensors_are_turned_by_nothing() -> None:
    pool, _, sets = pool_of(("float32", 0), ("float32", 3), plain=(True, True))
    assert len(written(pool, pool.draw(), sets[0].arena.size)) == 12


def test_sets_of_another_shape_are_left_out() -> None:
    (small, small_size), (large, large_size) = laid_out(("float32", 4)), laid_out(("float32", 8))
    sets = [filled(small, small_size, 0, (True,)), filled(large, large_size, 1, (True,))]
    pool = InputPool(sets, Source(large, large_size, (True,)), random.Random(0))
    assert {len(written(pool, pool.draw(), 32)) for _ in range(10)} == {32}
    assert all(pool.draw().source is sets[1] for _ in range(10))

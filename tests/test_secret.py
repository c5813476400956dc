"""Random choices of the referee."""

from __future__ import annotations

import collections

import pytest

from kernel_env.referee.secret import Secret


def test_all_numbers_of_a_range_come_equally_often() -> None:
    rng = Secret()
    counted = collections.Counter(rng.randrange(10) for _ in range(100_000))
    assert sorted(counted) == list(range(10)) and all(9_400 < count < 10_600 for count in counted.values())  # 6 deviations


@pytest.mark.parametrize("bits", [0, 1, 7, 8, 9, 62, 1 << 20])
def test_numbers_have_as_many_bits_as_asked_for(bits: int) -> None:
    rng = Secret()
    seen = 0
    for _ in range(200 if bits < 100 else 3):
        number = rng.getrandbits(bits)
        assert 0 <= number < 1 << bits
        seen |= number
    assert bits > 100 or seen == (1 << bits) - 1


def test_two_never_agree_and_none_repeats_itself() -> None:
    one, two = Secret(), Secret()
    numbers = [rng.getrandbits(64) for rng in (one, two) for _ in range(20_000)]  # more than are fetched at a time
    assert len(set(numbers)) == len(numbers)


def test_choices_and_samples_are_those_of_the_standard_library() -> None:
    rng = Secret(1)
    assert sorted(rng.sample(range(50), 50)) == list(range(50)) and 0 <= rng.random() < 1 and rng.choice("a") == "a"
    with pytest.raises(ValueError, match="non-negative"):
        rng.getrandbits(-1)

"""Whose memory an output is: what each trait catches, and what honest outputs look like."""

from __future__ import annotations

import mmap
import os
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernel_env.referee.ownership import EARLIER, FOREIGN, REPEATS, SHARED, traits
from kernel_env.referee.values import described

BASE = torch.arange(24.0).reshape(4, 6)


def found(output: Any, earlier: Any = None) -> set[str]:
    return set(traits(described(output), described(earlier) if earlier is not None else None, os.getpid()))


@pytest.mark.parametrize(
    "output",
    [
        BASE, BASE.t(), BASE[:, ::2], BASE[1], BASE[2, 3], BASE.unsqueeze(0).expand(1, 4, 6), torch.empty(0, 3), torch.tensor(1.0),
        torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last), [BASE, BASE + 1], (BASE[:2], BASE[2:]), {"a": BASE},
        None, 3.0, [],
    ],
)  # fmt: skip
def test_honest_outputs_have_no_trait(output: Any) -> None:
    assert found(output) == set()


@pytest.mark.parametrize(
    "output",
    [
        torch.ones(1).expand(5), BASE[:1].expand(4, 6), torch.ones(3, 1).expand(3, 4),
        BASE.reshape(-1).as_strided((4, 4), (1, 1)), BASE.reshape(-1).unfold(0, 6, 2),
    ],
)  # fmt: skip
def test_views_that_repeat_elements(output: torch.Tensor) -> None:
    assert REPEATS in found(output)


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 8)), min_size=1, max_size=4))
def test_repeating_is_two_indices_with_one_place(dims: list[tuple[int, int]]) -> None:
    sizes, strides = [n for n, _ in dims], [s for _, s in dims]
    view = torch.zeros(1 + sum((n - 1) * s for n, s in dims)).as_strided(sizes, strides)
    places = torch.zeros(sizes, dtype=torch.long)
    for dim, stride in enumerate(strides):
        places += (torch.arange(sizes[dim]) * stride).reshape([-1 if d == dim else 1 for d in range(len(sizes))])
    unique = places.unique().numel() == places.numel()
    if not unique:
        assert REPEATS in found(view)
    elif sizes.count(1) == len(sizes) or view.is_contiguous():
        assert REPEATS not in found(view)


def test_tensors_of_one_output_that_share_memory() -> None:
    assert found([BASE, BASE]) == {SHARED} == found((BASE[:3], BASE[2:]))


def test_the_memory_of_an_earlier_output() -> None:
    other = BASE.clone()
    assert found(BASE, other) == set()
    assert found(BASE, BASE) == {EARLIER} == found(BASE[1:2], BASE)


def test_memory_that_is_not_the_programs_own() -> None:
    shared = mmap.mmap(-1, 4096)
    assert found(torch.frombuffer(shared, dtype=torch.float32)) == {FOREIGN}
    constant = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    assert found(torch.frombuffer(constant, dtype=torch.float32)) == set()


@pytest.mark.parametrize("output", [{}, {"tensor": 3}, {"list": 7}, [], {"tensor": {"dtype": "float32"}}, "x", None])
def test_malformed_descriptions_have_no_trait(output: Any) -> None:
    assert traits(output, output, os.getpid()) == frozenset()


def test_a_process_that_is_gone_has_no_map() -> None:
    assert traits(described(BASE), None, 2**22 + 1) == frozenset()

"""Outputs are read out of another process's memory, where they lie, and only as far as they are what was expected."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernel_env.referee import memory
from kernel_env.referee.compare import flat
from kernel_env.referee.layout import Buffer, TensorSpec, leaves, packed
from kernel_env.referee.memory import Samples, read_memory
from kernel_env.referee.outputs import Unreadable, fetch, regions
from kernel_env.referee.values import described

Elsewhere = Callable[[], int]


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    """Forks a process that has what this one has at the time, at the same addresses, and sleeps."""
    pids = []

    def start() -> int:
        pid = os.fork()
        if pid == 0:
            signal_pause()
        pids.append(pid)
        return pid

    yield start
    for pid in pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def signal_pause() -> None:
    """In the child: only system calls, whatever locks were held in the parent."""
    while True:
        ctypes.CDLL(None).pause()


def fetched(value: Any, pid: int, tree: Any = None) -> tuple[Any, Buffer]:
    layout, size = packed(described(value))
    buffer = Buffer(size)
    fetch(described(value) if tree is None else tree, layout, buffer, pid)
    return layout, buffer


BASE = torch.arange(240, dtype=torch.float32).reshape(4, 5, 12)


@pytest.mark.parametrize(
    "tensor",
    [
        BASE,
        BASE.permute(2, 0, 1),
        BASE[:, 1:3, ::2],
        BASE[0, 0, :1].expand(7, 1),
        BASE.bfloat16(),
        BASE > 50,
        BASE[:0],
        BASE[1, 2, 3],
    ],
    ids=["contiguous", "permuted", "slice", "expanded", "bfloat16", "bool", "empty", "scalar"],
)
def test_a_tensor_arrives_however_it_lies(elsewhere: Elsewhere, tensor: torch.Tensor) -> None:
    layout, buffer = fetched(tensor, elsewhere())
    (spec,) = leaves(layout)
    expected = tensor.contiguous()
    bits = expected.view(torch.uint16) if tensor.dtype is torch.bfloat16 else expected
    assert np.array_equal(flat(spec, buffer).reshape(tensor.shape), bits.numpy())


def test_trees_arrive_whole(elsewhere: Elsewhere) -> None:
    value = {"a": [BASE, (BASE[0], 3)], "b": BASE.t_() if BASE.dim() == 2 else BASE[1]}
    layout, buffer = fetched(value, elsewhere())
    read = [flat(spec, buffer) for spec in leaves(layout)]
    assert [list(r) for r in read] == [list(t.contiguous().flatten().numpy()) for t in (BASE, BASE[0], BASE[1])]


def test_what_is_not_written_yet_is_not_there(elsewhere: Elsewhere) -> None:
    tensor = torch.zeros(100)
    pid = elsewhere()
    tensor += 1  # here, and not there
    layout, buffer = fetched(tensor, pid)
    assert not flat(next(leaves(layout)), buffer).any()


@pytest.mark.parametrize("tensor", [torch.zeros(4, 64)[:, :1], torch.zeros(1000)[::100]])
def test_a_view_that_reaches_far_is_left_to_the_runner(elsewhere: Elsewhere, tensor: torch.Tensor) -> None:
    with pytest.raises(Unreadable, match="sparse"):
        fetched(tensor, elsewhere())


@pytest.mark.parametrize("address", [1, 4096, (1 << 62)])
def test_an_address_where_nothing_is_cannot_be_read(elsewhere: Elsewhere, address: int) -> None:
    tree = described(BASE)
    tree["tensor"]["address"] = address
    with pytest.raises(Unreadable):
        fetched(BASE, elsewhere(), tree)


@pytest.mark.parametrize(
    "change", [{"shape": [3]}, {"dtype": "float64", "nbytes": 1920}, {"nbytes": 1}, {"stride": [1]}, {"address": "here"}]
)
def test_what_is_described_otherwise_stays_unread(change: dict[str, Any]) -> None:
    tree = described(BASE)
    tree["tensor"].update(change)
    layout, buffer = fetched(BASE, os.getpid(), tree)
    assert np.isnan(flat(next(leaves(layout)), buffer)).all()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["tensor", "list", "dict", "shape", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
def test_no_description_whatever_makes_fetching_fail(tree: Any) -> None:
    layout, size = packed(described([BASE, {"a": BASE}]))
    fetch(tree, layout, Buffer(size), os.getpid())
    assert isinstance(regions(tree), list)


def test_regions_are_where_contiguous_tensors_lie() -> None:
    assert regions({"list": [described(BASE), described(BASE.permute(1, 0, 2)), {"plain": 1}]}) == [(BASE.data_ptr(), 960)]


def test_memory_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_PIECE", 1000)
    source = np.arange(10_001, dtype=np.uint8)
    target = np.zeros_like(source)
    read_memory(os.getpid(), source.ctypes.data, target)
    assert np.array_equal(source, target)


def test_a_process_that_is_gone_cannot_be_read() -> None:
    with pytest.raises(OSError, match="No such process"):
        read_memory(2**22 - 1, 4096, np.zeros(8, np.uint8))


def test_samples_lie_within_their_tensors_and_see_a_change() -> None:
    arrays = [np.zeros(n, np.uint8) for n in (3, 8, 9, 4096)]
    addresses = [array.ctypes.data for array in arrays]
    fenced = np.full(3 * 8192, 0xFF, np.uint8)
    samples = Samples([array.size for array in arrays], np.random.default_rng(0), count=1000)
    assert samples.read(os.getpid(), addresses) == bytes(8 * 1000)
    arrays[3][2000] = 7
    assert samples.read(os.getpid(), addresses) != bytes(8 * 1000)
    inner = Samples([8192], np.random.default_rng(1), count=1000)
    fenced[8192:16384] = 0
    assert inner.read(os.getpid(), [fenced.ctypes.data + 8192]) == bytes(8 * 1000)


def test_nothing_to_sample_reads_nothing() -> None:
    assert Samples([], np.random.default_rng(0)).read(os.getpid(), []) == b""
    assert Samples([7, 0], np.random.default_rng(0)).read(os.getpid(), [1, 2]) == b""


def test_a_packed_tree_is_contiguous_and_in_order() -> None:
    tree, size = packed(described([BASE.permute(1, 2, 0), BASE[0]]))
    specs = list(leaves(tree))
    assert [(s.stride, s.offset, s.address) for s in specs] == [(None, 0, 0), (None, 960, 0)]
    assert size == 960 + 240 and TensorSpec.parse(tree["list"][0]["tensor"]) == specs[0]

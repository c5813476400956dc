"""Outputs, fetched from where a process says that they lie in its memory."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_env.referee import outputs
from kernel_env.referee.layout import ALIGN, Buffer, leaves, packed, total_bytes
from kernel_env.referee.outputs import Unreadable, excerpt, fetch, regions, watched
from kernel_env.referee.values import described, in_order_of, read
from tests.holder import Holder

BAD = 1 << 46
"""No process has memory there."""


def held(holder: Holder, value: Any) -> Any:
    """The value's description, with its tensors' storages in the holder's memory."""
    tree = described(value)
    tensors = iter(_tensors(value))
    for spec in _specs(tree):
        tensor = next(tensors)
        storage = bytes(tensor.untyped_storage())
        spec["address"] = holder.hold(storage) + tensor.storage_offset() * tensor.element_size()
    return tree


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for item in items for tensor in _tensors(item)]


def _specs(tree: Any) -> list[dict[str, Any]]:
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return [value]
    items = value.values() if kind == "dict" else value if kind in ("list", "tuple") else ()
    return [spec for item in items for spec in _specs(item)]


def fetched(tree: Any, pid: int, layout: Any = None) -> Any:
    """What the referee gets, laid out as `layout` says."""
    layout, size = packed(layout or tree)
    buffer = Buffer(size)
    fetch(tree, layout, buffer, pid)
    return read(layout, buffer.map)  # type: ignore[arg-type]


def untouched(tree: Any, layout: Any, pid: int) -> bool:
    buffer = Buffer(packed(layout)[1])
    fetch(tree, packed(layout)[0], buffer, pid)
    return bool((buffer.map == 0xFF).all())


def some(dtype: str = "float32", *shape: int) -> torch.Tensor:
    return (torch.randn(shape or (6, 10), generator=torch.Generator().manual_seed(3)) * 50).to(getattr(torch, dtype))


BASE = some()
VIEWS = {
    "contiguous": BASE,
    "rows of a larger one": BASE[2:5],
    "transposed": BASE.t(),
    "permuted": some("float32", 3, 4, 5).permute(2, 0, 1),
    "channels last": some("float32", 2, 3, 4, 4).to(memory_format=torch.channels_last),
    "columns": BASE[:, 3:7],
    "every third column": BASE[1:, ::3],
    "expanded": BASE[:, :1].expand(6, 50),
    "one element expanded": BASE[2, 3].expand(9, 9),
    "windows that overlap": BASE.reshape(-1).unfold(0, 5, 2),
    "scalar": BASE[3, 3],
    "diagonal": some("float32", 7, 7).diagonal(),
    "odd bytes": some("int8", 13, 11)[:, 1::2],
    "double": some("complex128").t(),
    "halves": some("bfloat16").t(),
    "truth": some("bool")[:, ::2],
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_tensor_comes_over_however_it_lies(holder: Holder, name: str) -> None:
    tensor = VIEWS[name]
    got = fetched(held(holder, tensor), holder.pid)
    assert got.is_contiguous() and got.dtype == tensor.dtype and got.shape == tensor.shape
    assert torch.equal(got, tensor)


def test_structures_come_over_and_plain_values_take_no_place(holder: Holder) -> None:
    value = {"a": BASE.t(), "b": (some("int64", 3), [None, 2.5, BASE[:0], "word"]), "c": some("bool", 1)}
    got = fetched(held(holder, value), holder.pid)
    assert torch.equal(got["a"], value["a"]) and torch.equal(got["b"][0], value["b"][0]) and torch.equal(got["c"], value["c"])
    assert got["b"][1][:2] == [None, 2.5] and got["b"][1][2].shape == (0, 10)


def test_keys_may_come_in_another_order(holder: Holder) -> None:
    value = {"a": some("float32", 3), "b": some("float32", 5)}
    got = fetched(held(holder, dict(reversed(value.items()))), holder.pid, described(value))
    assert all(torch.equal(got[key], value[key]) for key in value)


SPARSE = {
    "one column": some("float32", 64, 9)[:, 0],
    "two columns": some("float32", 64, 40)[:, 3:5],
    "every twentieth row": some("float32", 200, 6)[::20],
    "a corner": some("int8", 30, 40, 50)[::11, ::13, 7:9],
    "thousands of elements": some("float16", 5000, 30)[:, 4],
    "a column of columns": some("float64", 70, 3, 40).permute(2, 0, 1)[0],
}


@pytest.mark.parametrize("name", SPARSE)
def test_a_sparse_view_is_read_run_by_run(holder: Holder, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the program's runs to hand it over: it could compute it then."""
    monkeypatch.setattr(outputs, "_MOST_ROWS", 1000)
    assert torch.equal(fetched(held(holder, SPARSE[name]), holder.pid), SPARSE[name])


def test_strides_that_reach_over_all_of_memory_cost_nothing(holder: Holder) -> None:
    tree = held(holder, BASE)
    tree["tensor"]["stride"] = [(1 << 48) - 1, 1]
    with pytest.raises(Unreadable):
        fetched(tree, holder.pid)


@pytest.mark.parametrize("address", [0, BAD, (1 << 63) - 1])
@pytest.mark.parametrize("name", ["contiguous", "transposed", "expanded"])
def test_an_address_of_nothing_is_unreadable(holder: Holder, name: str, address: int) -> None:
    tree = described(VIEWS[name])
    tree["tensor"]["address"] = address
    with pytest.raises(Unreadable):
        fetched(tree, holder.pid)


def test_a_process_that_is_not_there_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="No such process"):
        fetched(described(BASE), (1 << 22) + 1)


def test_an_empty_tensor_is_read_from_nowhere(holder: Holder) -> None:
    tree = described(BASE[:0])
    tree["tensor"]["address"] = BAD
    assert fetched(tree, holder.pid).shape == (0, 10)


@pytest.mark.parametrize(
    "other",
    [BASE[:5], BASE.double(), BASE.reshape(10, 6), BASE.reshape(-1), [BASE], (BASE,), {"a": BASE}, None, 3, "word", []],
)
def test_what_is_of_another_kind_stays_unread(holder: Holder, other: Any) -> None:
    assert untouched(held(holder, other), described(BASE), holder.pid)


def test_a_tuple_may_be_a_list(holder: Holder) -> None:
    assert torch.equal(fetched(held(holder, (BASE,)), holder.pid, described([BASE]))[0], BASE)
    assert torch.equal(fetched(held(holder, [BASE]), holder.pid, described((BASE,)))[0], BASE)


def test_of_a_dict_with_other_keys_the_common_ones_are_read(holder: Holder) -> None:
    got = fetched(held(holder, {"b": BASE, "x": BASE}), holder.pid, described({"a": BASE, "b": BASE, "c": BASE}))
    assert torch.equal(got["b"], BASE) and got["a"].isnan().all() and got["c"].isnan().all()


def test_of_a_list_of_another_length_the_common_part_is_read(holder: Holder) -> None:
    long, short = held(holder, [BASE, BASE, BASE]), held(holder, [BASE])
    assert torch.equal(fetched(long, holder.pid, short)[0], BASE)
    first, second = fetched(short, holder.pid, held(holder, [BASE, BASE]))
    assert torch.equal(first, BASE) and second.isnan().all()


def test_what_was_not_read_reads_as_nan() -> None:
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        assert torch.frombuffer(Buffer(64).map, dtype=dtype).isnan().all()


# ---------------------------------------------------------- what a hostile runner may say

MALFORMED = [
    None, 0, "", [], {}, {"tensor": None}, {"tensor": []}, {"tensor": {}}, {"tensor": "x", "list": []}, {"list": 3},
    {"list": None}, {"list": [None]}, {"list": "ab"}, {"list": {}}, {"dict": []}, {"dict": {"a": 3}}, {"dict": None},
    {"tuple": [[]]}, {"other": []},
]  # fmt: skip


@pytest.mark.parametrize("tree", MALFORMED)
@pytest.mark.parametrize("layout", [BASE, [BASE], (BASE,), {"a": BASE}])
def test_a_malformed_tree_stays_unread(tree: Any, layout: Any) -> None:
    assert untouched(tree, described(layout), os.getpid())
    assert regions(tree) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dtype", "float31"), ("dtype", None), ("dtype", ["float32"]), ("dtype", {}), ("shape", None), ("shape", [6]),
        ("shape", [-6, -10]), ("shape", [6.0, 10]), ("shape", [True, 60]), ("shape", "6"), ("shape", [1 << 60, 1 << 60]),
        ("stride", [1]), ("stride", [1, 2, 3]), ("stride", [-1, 1]), ("stride", [1.5, 1]), ("stride", "ab"), ("stride", False),
        ("stride", [1 << 48, 1]), ("nbytes", 239), ("nbytes", None), ("nbytes", -1), ("nbytes", 240.0), ("address", -1),
        ("address", None), ("address", 1.5), ("address", 1 << 63), ("address", "0"), ("offset", -1), ("offset", None),
    ],
)  # fmt: skip
def test_a_malformed_leaf_stays_unread(field: str, value: Any) -> None:
    tree = described(BASE)
    tree["tensor"][field] = value
    assert untouched(tree, described(BASE), os.getpid())
    assert regions(tree) == [] and regions({"list": [described(BASE), tree]}) == []
    assert regions({"list": [described(BASE)]}) == [(BASE.data_ptr(), 240)]


def test_a_runners_offset_does_not_say_where_we_write(holder: Holder) -> None:
    tree = held(holder, BASE)
    tree["tensor"]["offset"] = 1 << 40
    assert torch.equal(fetched(tree, holder.pid, described(BASE)), BASE)


def test_a_tree_nested_without_end_stays_unread() -> None:
    """The frame's parser may take deeper trees than we can walk."""
    tree: Any = described(BASE)
    layout = tree
    for _ in range(100_000):
        tree = {"list": [tree]}
    assert untouched(tree, layout, os.getpid())
    assert regions(tree) == []
    while "list" in tree:  # a deep tree's own end would recurse
        (tree,) = tree["list"]


NUMBERS = st.one_of(st.integers(-2, 12), st.sampled_from([1 << 47, (1 << 48) - 1, 1 << 62, 1 << 63, 1 << 64]))
JUNK = st.one_of(st.none(), st.booleans(), NUMBERS, st.floats(), st.text(max_size=3), st.lists(NUMBERS, max_size=3))
LEAF = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.one_of(st.sampled_from(["float32", "int64", "bool"]), JUNK),
        "shape": st.one_of(st.just([6, 10]), st.lists(NUMBERS, max_size=3), JUNK),
        "stride": st.one_of(st.none(), st.lists(NUMBERS, min_size=2, max_size=2), JUNK),
        "offset": st.one_of(st.just(0), JUNK),
        "nbytes": st.one_of(st.just(240), JUNK),
        "address": st.one_of(st.just(BASE.data_ptr()), st.just(BAD), JUNK),
    },
)
TREE = st.recursive(
    st.one_of(JUNK, LEAF.map(lambda leaf: {"tensor": leaf}), st.just(described(BASE))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: {"list": items}),
        st.lists(inner, max_size=3).map(lambda items: {"tuple": items}),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(lambda items: {"dict": items}),
        st.dictionaries(st.sampled_from(["list", "tensor", "dict", "plain"]), inner, max_size=2),
    ),
    max_leaves=6,
)
LAYOUTS = [described(value) for value in (BASE, [BASE, BASE], (BASE, [BASE]), {"a": BASE, "b": [BASE]})]


@settings(max_examples=300)
@given(tree=TREE, layout=st.sampled_from(LAYOUTS))
def test_whatever_a_runner_says_nothing_but_unreadable_is_raised(tree: Any, layout: Any) -> None:
    said = copy.deepcopy(tree)
    layout, size = packed(layout)
    buffer = Buffer(size)
    with contextlib.suppress(Unreadable):
        fetch(tree, layout, buffer, os.getpid())
    assert all(type(a) is type(b) is int and b > 0 for a, b in regions(tree) if b)
    assert repr(tree) == repr(said)


@settings(max_examples=200)
@given(leaf=LEAF)
def test_whatever_a_leaf_says_is_refused_or_read_as_it_is(leaf: Any) -> None:
    layout, size = packed(described(BASE))
    buffer = Buffer(size)
    try:
        fetch({"tensor": leaf}, layout, buffer, os.getpid())
    except Unreadable:
        return
    seen = np.unique(buffer.map.view(np.float32))
    known = np.unique(BASE.numpy())
    assert np.isnan(seen).all() or np.isin(seen, known).all() or leaf.get("stride") is not None


# ---------------------------------------------------------- layouts


def test_packed_lays_tensors_one_after_the_other_aligned_and_contiguous() -> None:
    value = [some("int8", 3), {"x": BASE.t(), "n": 7}, (BASE[:0], some("float64"))]
    tree, size = packed(described(value))
    specs = list(leaves(tree))
    assert size == total_bytes(tree)
    end = 0
    for spec in specs:
        assert spec.offset % ALIGN == 0 and end <= spec.offset < end + ALIGN
        assert spec.stride is None and spec.address == 0
        end = spec.offset + spec.nbytes
    assert [spec.shape for spec in specs] == [(3,), (10, 6), (0, 10), (6, 10)]
    assert tree["list"][1]["dict"]["n"] == {"plain": 7}


def test_packed_starts_where_it_is_told() -> None:
    tree, size = packed(described(some("int8", 3)), 65)
    assert (tree["tensor"]["offset"], size) == (128, 131)


@pytest.mark.parametrize("tree", [None, [], {}, {"tensor": {}}, {"list": [3]}, {"list": [], "dict": {}}])
def test_packed_refuses_what_is_no_tree(tree: Any) -> None:
    with pytest.raises(ValueError):
        packed(tree)


def test_regions_are_the_contiguous_tensors_in_order() -> None:
    value = {"a": BASE, "b": [BASE.t(), BASE[:0], some("int8", 3), 5]}
    found = regions(described(value))
    assert found[0] == (BASE.data_ptr(), 240) and len(found) in (2, 3)
    assert [size for _, size in found if size] == [240, 3]


# ---------------------------------------------------------- what is watched, and excerpts


def test_all_tensors_are_watched_however_they_lie() -> None:
    dense, column, sparse = some("float32", 6, 10), some("float32", 6, 10).t(), some("float32", 64, 90)[:, 3]
    found = watched(described([dense, column, sparse, dense[:0]]))
    assert found == [(dense.data_ptr(), 240), (column.data_ptr(), 240), (sparse.data_ptr(), 4)]
    assert watched({"tensor": 3}) == [] and watched({"list": [{"tensor": {"shape": "x"}}]}) == []


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("most_bytes", [1, 16, 40, 1 << 20])
def test_an_excerpt_is_the_same_block_of_both(holder: Holder, name: str, most_bytes: int) -> None:
    tensor, rng = VIEWS[name], random.Random(3)
    theirs, mine = held(holder, tensor.contiguous()), held(holder, tensor)
    for _ in range(5):
        first, second = excerpt(theirs, mine, most_bytes, rng)
        a, b = fetched(first, holder.pid), fetched(second, holder.pid)
        assert torch.equal(a, b) and a.numel() >= min(1, tensor.numel())
        assert a.numel() * a.element_size() <= max(most_bytes, a.element_size())
        if most_bytes == 1 << 20:
            assert torch.equal(a, tensor)


def test_excerpts_come_from_everywhere() -> None:
    tree, rng = described(torch.arange(12.0).reshape(3, 4)), random.Random(1)
    start = tree["tensor"]["address"]
    seen = {excerpt(tree, tree, 8, rng)[0]["tensor"]["address"] - start for _ in range(300)}
    assert seen == {row * 16 + column * 4 for row in range(3) for column in range(3)}


def test_a_program_that_writes_its_output_itself_does_so_in_the_order_of_the_expected_one() -> None:
    expected, got = {"a": 1, "b": [{"c": 2, "d": 3}]}, {"b": ({"d": 3, "c": 2},), "a": 1}
    assert json.dumps(in_order_of(described(expected), got)) == json.dumps(expected)
    for other in ({"a": 1}, {"a": 1, "b": [2, 3]}, [1, 2], None):
        assert in_order_of(described(expected), other) == other


def test_excerpts_of_structures_keep_them() -> None:
    value = {"a": some("float32", 100), "b": [some("int64", 3), None, 2.5]}
    first, second = excerpt(described(value), described(copy.deepcopy(value)), 40, random.Random(1))
    assert [spec.shape for spec in leaves(first)] == [spec.shape for spec in leaves(second)] == [(10,), (3,)]
    assert first["dict"]["b"]["list"][1:] == described(value)["dict"]["b"]["list"][1:]


def test_excerpts_are_of_the_same_keys_in_whatever_order() -> None:
    mine, theirs = {"a": some("float32", 100), "b": (some("int64", 3),)}, {"b": [some("int64", 3)], "a": some("float32", 100)}
    first, second = excerpt(described(mine), described(theirs), 40, random.Random(1))
    assert list(first["dict"]) == list(second["dict"]) and first["dict"]["b"].keys() == second["dict"]["b"].keys()
    assert [spec.shape for spec in leaves(first)] == [spec.shape for spec in leaves(second)] == [(10,), (3,)]


@pytest.mark.parametrize(
    "other",
    [some("float32", 5), some("float64", 6, 10), [BASE], (BASE, BASE, BASE), {"a": BASE}, None, 3],
)
def test_what_differs_has_no_excerpt(other: Any) -> None:
    for mine in ([BASE, BASE], BASE):
        with pytest.raises(ValueError, match=r"\w"):
            excerpt(described(mine), described(other), 40, random.Random(1))


@pytest.mark.parametrize("tree", [None, 3, {}, {"tensor": None}, {"tensor": {}}, {"list": 3}, {"dict": []}, {"a": 1, "b": 2}])
def test_what_is_malformed_has_no_excerpt(tree: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        excerpt(described([BASE]), {"list": [tree]}, 40, random.Random(1))

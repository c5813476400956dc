"""When two values agree, and what is said when they do not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kernel_env.referee import compare as module
from kernel_env.referee.compare import FEW_ANSWERS, Difference, compare, excused, same_bytes
from kernel_env.referee.layout import Arena, Buffer
from kernel_env.referee.tolerance import PART, TOLERANCES, Signal, Tolerance
from kernel_env.referee.values import packed, plan, write

LOOSE, TIGHT = TOLERANCES["tritonforge"], TOLERANCES["kernelbench"]
EXACT = Tolerance("exact", 0.0, 0.0)


def laid_out(value: Any) -> tuple[Any, Arena]:
    """A value as its spec tree and a mapping that holds its tensors."""
    tensors: list[torch.Tensor] = []
    tree, size = plan(value, tensors, planner=packed)
    arena = Arena(size)
    write(tree, tensors, arena.map)
    return tree, arena


def difference(expected: Any, got: Any, tol: Tolerance = TIGHT) -> Difference | None:
    (tree, arena), (got_tree, got_arena) = laid_out(expected), laid_out(got)
    return compare(tree, arena, got_tree, got_arena, tol)


def category(expected: Any, got: Any, tol: Tolerance = TIGHT) -> str:
    found = difference(expected, got, tol)
    return found.category if found else ""


T = torch.tensor
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128]
WHOLE = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.uint64]


@pytest.mark.parametrize("dtype", FLOATS + WHOLE)
def test_equal_tensors_agree_and_one_changed_element_is_found(dtype: torch.dtype) -> None:
    expected = torch.arange(24).to(dtype).reshape(2, 3, 4) if dtype is not torch.bool else torch.zeros(2, 3, 4, dtype=dtype)
    got = expected.clone()
    assert difference(expected, got, EXACT) is None
    got[1, 2, 0] = 1 if dtype is torch.bool else 3
    found = difference(expected, got, LOOSE)
    assert found is not None and found.category == "values"
    assert "1 of 24 elements (4.17%)" in found.message and "First at [1, 2, 0]: expected" in found.message


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
def test_single_precision_has_the_tight_tolerance(dtype: torch.dtype) -> None:
    assert category(T([1.0], dtype=dtype), T([1.00019], dtype=dtype)) == ""
    assert category(T([1.0], dtype=dtype), T([1.00021], dtype=dtype)) == "values"
    assert category(T([0.0], dtype=dtype), T([0.99e-4], dtype=dtype)) == ""
    assert category(T([0.0], dtype=dtype), T([1.01e-4], dtype=dtype)) == "values"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_the_wide_one(dtype: torch.dtype) -> None:
    assert category(T([1.0], dtype=dtype), T([1.0156], dtype=dtype)) == ""
    assert category(T([1.0], dtype=dtype), T([1.0313], dtype=dtype)) == "values"


def test_the_tolerance_is_relative_to_the_expected_value() -> None:
    tol = Tolerance("half", 0.5, 0.5)
    assert category(T([10.0]), T([15.5]), tol) == ""
    assert category(T([10.0]), T([15.6]), tol) == "values"
    assert category(T([4.0]), T([10.0]), tol) == "values"
    assert category(T([10.0]), T([4.5]), tol) == ""


@pytest.mark.parametrize("dtype", WHOLE)
def test_whole_numbers_agree_exactly_or_not_at_all(dtype: torch.dtype) -> None:
    assert category(T([1], dtype=dtype), T([0], dtype=dtype), Tolerance("wide", 100.0, 100.0)) == "values"


def test_large_whole_numbers_are_not_rounded() -> None:
    found = difference(T([2**62]), T([2**62 + 1]))
    assert found is not None and f"expected {2**62}, got {2**62 + 1}" in found.message


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("expected", "got", "found"),
    [
        (NAN, NAN, ""), (INF, INF, ""), (-INF, -INF, ""),
        (1.0, NAN, "nonfinite"), (1.0, INF, "nonfinite"), (INF, -INF, "nonfinite"), (INF, NAN, "nonfinite"),
        (NAN, INF, "nonfinite"),
        (NAN, 1.0, "values"), (INF, 1.0, "values"), (-INF, 0.0, "values"),
    ],
)  # fmt: skip
def test_nan_agrees_with_nan_and_infinities_with_equal_ones(dtype: torch.dtype, expected: float, got: float, found: str) -> None:
    assert category(T([0.0, expected], dtype=dtype), T([0.0, got], dtype=dtype), LOOSE) == found


def test_differences_that_overflow_are_differences() -> None:
    assert category(T([3e38]), T([-3e38])) == "values"
    assert category(T([6e4], dtype=torch.float16), T([-6e4], dtype=torch.float16)) == "values"


def test_the_message_says_how_many_where_first_and_where_worst() -> None:
    expected = torch.zeros(4, 5)
    got = expected.clone()
    got[1, 2], got[3, 0], got[2, 4] = 0.5, -8.0, NAN
    found = difference(expected, got)
    assert found is not None
    head, *rest = found.message.splitlines()
    assert head.startswith("output has wrong values: 3 of 20 elements (15%) differ by more than 0.0001 + 0.0001 * |expected|")
    assert head.endswith("; 1 of them are NaN or infinite.")
    assert rest == [
        "First at [1, 2]: expected 0, got 0.5.",
        "Worst at [2, 4]: expected 0, got nan (absolute error inf).",
        "Shape [4, 5], dtype float32.",
    ]


def test_the_error_of_whole_numbers_is_their_distance() -> None:
    found = difference(T([5, 7, 9]), T([5, 6, -91]))
    assert found is not None and "Worst at [2]: expected 9, got -91 (absolute error 100)." in found.message


@pytest.mark.parametrize("chunk", [1, 3, 4, 5, 100])
def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    expected = torch.arange(20.0).reshape(4, 5)
    got = expected.clone()
    for index, value in ((3, 1.0), (4, 9.0), (11, -80.0), (19, 0.0)):
        got.view(-1)[index] = value
    whole = difference(expected, got)
    monkeypatch.setattr(module, "_CHUNK", chunk)
    assert difference(expected, got) == whole
    assert whole is not None and "4 of 20" in whole.message
    assert "First at [0, 3]" in whole.message and "Worst at [2, 1]" in whole.message


FITTED = TOLERANCES["strict"].fitted([Signal(scale=0.5, variation=0.3, error=1e-7)])
SMALL = torch.cat([torch.rand(3 * PART) + 0.5, torch.rand(3 * PART) * 1e-4])


@pytest.mark.parametrize(("error", "agree"), [(0.0, True), (0.01, True), (0.5, False)])
@pytest.mark.parametrize("chunk", [PART, 2 * PART, 1 << 22])
def test_a_part_that_is_small_beside_the_others_is_compared_by_itself(
    monkeypatch: pytest.MonkeyPatch, error: float, agree: bool, chunk: int
) -> None:
    monkeypatch.setattr(module, "_CHUNK", chunk)
    got = SMALL.clone()
    got[3 * PART :] *= 1 + error
    found = difference(SMALL, got, FITTED)
    assert (found is None) is agree
    assert found is None or f"elements {3 * PART:,} to {4 * PART - 1:,} of {6 * PART:,}" in found.message
    assert difference(SMALL, got, TIGHT) is None, "element by element nothing is wrong"


def test_means_of_parts_are_none_the_worse_for_large_numbers() -> None:
    rows = np.stack([np.full(PART, 3e38, np.float32), np.ones(PART, np.float32), np.full(PART, np.inf, np.float32)])
    assert module._means(rows) == pytest.approx([float(np.float32(3e38)), 1.0, np.inf])
    drawn = np.random.default_rng(1).standard_normal((9, PART)).astype(np.float32) + 1
    assert module._means(drawn) == pytest.approx(drawn.astype(np.float64).mean(axis=1), rel=1e-6)


def test_a_part_of_nothing_but_rounding_may_be_anything() -> None:
    expected = torch.cat([torch.rand(PART), torch.rand(PART) * 1e-7])
    assert difference(expected, torch.cat([expected[:PART], torch.zeros(PART)]), FITTED) is None


def test_scalars_and_empty_tensors_agree_too() -> None:
    assert category(T(1.0), T(1.0)) == ""
    found = difference(T(1.0), T(2.0))
    assert found is not None and "First at []: expected 1, got 2." in found.message
    assert category(torch.empty(0, 3), torch.empty(0, 3)) == ""
    assert category([T(1.0), torch.empty(0)], [T(1.0), torch.empty(0)]) == ""
    assert category(torch.empty(0, 3), torch.empty(3, 0)) == "shape"


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        ({"q": T(1.0), "k": T(1.0)}, {"k": T(1.0), "q": T(1.0)}),  # each is read where the other's lies
        ((T(1.0), T(2.0)), [T(1.0), T(2.0)]),
        ([T(1.0), (2, 3)], (T(1.0), [2, 3])),
    ],
    ids=["keys in another order", "a list for a tuple", "a tuple for a list"],
)
def test_what_an_honest_program_may_return_instead(expected: Any, got: Any) -> None:
    assert category(expected, got) == ""


@pytest.mark.parametrize(
    ("expected", "got", "found", "words"),
    [
        (torch.zeros(2, 3), torch.zeros(3, 2), "shape", "expected [2, 3], got [3, 2]"),
        (torch.zeros(2), torch.zeros(2, 1), "shape", "expected [2], got [2, 1]"),
        (torch.zeros(2), torch.zeros(2).double(), "dtype", "expected float32, got float64"),
        (torch.zeros(2), torch.zeros(2).bfloat16(), "dtype", "expected float32, got bfloat16"),
        (torch.zeros(2), [torch.zeros(2)], "structure", "output should be a tensor of shape [2], got a list of 1 items"),
        (torch.zeros(2), None, "structure", "got the plain value None"),
        ([1, 2], {"a": 1, "b": 2}, "structure", "output should be a list of 2 items, got a dict of 2 items"),
        ({"a": 1, "b": 2}, {"b": 1, "a": 2}, "values", "output['a']: expected 1, got 2"),
        ({"a": 1}, {"a": 1, "b": 2}, "structure", "output should have keys ['a'], got ['a', 'b']"),
        ((1, 2), (1, 2, 3), "structure", "output should have 2 items, got 3"),
        ({"a": 1}, {"b": 1}, "structure", "output should have keys ['a'], got ['b']"),
        ({"a": [1, torch.zeros(1)]}, {"a": [1, torch.ones(1)]}, "values", "output['a'][1] has wrong values"),
        (1, 2, "values", "output: expected 1, got 2"),
        (1, 1.0, "values", "output: expected 1, got 1.0"),
        (True, 1, "values", "output: expected True, got 1"),
        (None, 0, "values", "output: expected None, got 0"),
        ("a", "b", "values", "output: expected 'a', got 'b'"),
        (torch.float32, torch.float64, "values", "expected 'float32', got 'float64'"),
    ],
)  # fmt: skip
def test_other_differences_are_named(expected: Any, got: Any, found: str, words: str) -> None:
    seen = difference(expected, got)
    assert seen is not None and seen.category == found and words in seen.message


@pytest.mark.parametrize(
    ("expected", "got", "agree"),
    [
        (1.0, 1.00019, True), (1.0, 1.00021, False), (0.0, 1e-5, True), (NAN, NAN, True), (INF, INF, True),
        (INF, -INF, False), (INF, 5.0, False), (5.0, INF, False), (5.0, NAN, False), (NAN, 5.0, False),
    ],
)  # fmt: skip
def test_plain_numbers_agree_like_elements(expected: float, got: float, agree: bool) -> None:
    assert (difference(expected, got) is None) is agree
    assert (difference(T([expected], dtype=torch.float64), T([got], dtype=torch.float64)) is None) is agree


FLOAT32 = arrays.arrays(np.float32, 6, elements=st.floats(width=32) | st.floats(-2, 2, width=32))


@given(FLOAT32, FLOAT32, st.sampled_from([0.0, 1e-4, 1e-2, 0.5]))
def test_elements_agree_exactly_where_torch_says_so(expected: Any, got: Any, tol: float) -> None:
    x, y = torch.from_numpy(expected.copy()), torch.from_numpy(got.copy())
    agree = torch.isclose(y, x, rtol=tol, atol=tol, equal_nan=True)
    found = difference(x, y, Tolerance("drawn", tol, tol))
    assert (found is None) == bool(agree.all())
    assert found is None or f" {int((~agree).sum())} of 6 elements" in found.message


@given(arrays.arrays(np.float64, 5), arrays.arrays(np.float64, 5))
def test_doubles_agree_exactly_where_numpy_says_so(expected: Any, got: Any) -> None:
    with np.errstate(all="ignore"):
        agree = np.isclose(got, expected, rtol=1e-4, atol=1e-4, equal_nan=True)
    assert (difference(torch.from_numpy(expected.copy()), torch.from_numpy(got.copy())) is None) == bool(agree.all())


TENSOR = {"dtype": "float32", "shape": [2], "stride": None, "offset": 0, "nbytes": 8}
MALFORMED = [
    None, 3, "text", [], {}, {"tensor": None}, {"tensor": {}}, {"tensor": TENSOR, "list": []}, {"list": 3}, {"plain": 1},
    {"tensor": {**TENSOR, "dtype": "float99"}}, {"tensor": {**TENSOR, "dtype": ["float32"]}}, {"tensor": {**TENSOR, "shape": "ab"}},
    {"tensor": {**TENSOR, "shape": [-1]}}, {"tensor": {**TENSOR, "shape": [1.5]}}, {"tensor": {**TENSOR, "shape": [True, True]}},
    {"tensor": {**TENSOR, "shape": [1 << 60]}}, {"tensor": {**TENSOR, "shape": [1] * 100}}, {"tensor": {**TENSOR, "offset": "0"}},
    {"tensor": {**TENSOR, "nbytes": None}}, {"tensor": {**TENSOR, "stride": [{}]}}, {"dict": {"a": 1}}, {"unknown": 1},
]  # fmt: skip


@pytest.mark.parametrize("expected", [torch.zeros(2), [torch.zeros(2), 1], {"a": torch.zeros(2)}, (1.5,), 7])
@pytest.mark.parametrize("got", MALFORMED, ids=str)
def test_a_malformed_tree_is_a_difference_and_never_an_error(expected: Any, got: Any) -> None:
    tree, arena = laid_out(expected)
    for wrapped in (got, {"list": [got, got]}, {"tuple": [got]}, {"dict": {"a": got}}):
        assert compare(tree, arena, wrapped, Arena(64), TIGHT) is not None


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.sampled_from(["float32"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tensor", "list", "dict", "tuple", "plain", "shape", "dtype", "offset", "nbytes"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_no_tree_whatever_makes_the_comparison_fail(got: Any) -> None:
    tree, arena = laid_out([torch.zeros(2), {"a": (1.0, None)}])
    assert isinstance(compare(tree, arena, got, Arena(64), TIGHT), Difference)


def test_a_deep_tree_is_a_difference() -> None:
    deep: Any = {"plain": 1}
    for _ in range(100_000):
        deep = {"list": [deep]}
    assert category_of_tree({"list": [{"plain": 1}]}, deep) == "structure"
    assert category_of_tree(deep, deep) == "structure"


def category_of_tree(expected: Any, got: Any) -> str:
    found = compare(expected, Arena(1), got, Arena(1), TIGHT)
    return found.category if found else ""


def test_a_huge_description_is_cut() -> None:
    keys = {"x" * 1000 + str(i): {"plain": 1} for i in range(1000)}
    found = compare({"dict": {"a": {"plain": 1}}}, Arena(1), {"dict": keys}, Arena(1), TIGHT)
    assert found is not None and len(found.message) <= 2000


def test_an_output_is_read_where_the_expected_one_dictates() -> None:
    """A candidate cannot point at another part of its mapping."""
    tree, arena = laid_out([torch.ones(16), torch.zeros(16)])
    got, got_arena = laid_out([torch.ones(16), torch.ones(16)])
    got["list"][0]["tensor"]["offset"], got["list"][1]["tensor"]["offset"] = 0, 1 << 40
    found = compare(tree, arena, got, got_arena, TIGHT)
    assert found is not None and "output[1] has wrong values: 16 of 16" in found.message


def test_memory_that_nothing_was_read_into_never_looks_right() -> None:
    for dtype in FLOATS:
        tree, arena = laid_out(torch.zeros(8, dtype=dtype))
        found = compare(tree, arena, tree, Buffer(arena.size), LOOSE)
        assert found is not None and found.category == "nonfinite"


@pytest.mark.parametrize("wrong", [math.inf, -math.inf, math.nan, 1e30, 1.5])
@pytest.mark.parametrize("expected", [0.0, math.inf, math.nan])
@pytest.mark.parametrize("place", [0, 99_999])
def test_one_wrong_number_is_found_wherever_it_is(wrong: float, expected: float, place: int) -> None:
    right = torch.zeros(100_000)
    right[place] = expected
    other = right.clone()
    assert compare(*laid_out(right), *laid_out(other), TIGHT) is None
    other[place] = wrong
    same = (math.isnan(wrong) and math.isnan(expected)) or wrong == expected
    assert (compare(*laid_out(right), *laid_out(other), TIGHT) is None) is same


def test_arenas_are_the_same_byte_by_byte() -> None:
    first, second = Arena(1000), Arena(1000)
    second.copy_from(first)
    assert same_bytes(first, second)
    second.map[999] = 1
    assert not same_bytes(first, second)
    second.map[999] = 0
    assert same_bytes(first, second)
    assert not same_bytes(first, Arena(999))


ROWS = torch.arange(1000).reshape(100, 10)


def agree(expected: torch.Tensor, got: torch.Tensor, *others: torch.Tensor, tol: Tolerance = TIGHT) -> bool:
    (layout, memory), (got_layout, got_memory) = laid_out(expected), laid_out(got)
    return excused(layout, memory, got_layout, got_memory, tol, (laid_out(other)[1] for other in others))


def with_element(value: torch.Tensor, *elements: tuple[int, float]) -> torch.Tensor:
    changed = value.clone()
    for index, element in elements:
        changed.view(-1)[index] = element
    return changed


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bfloat16, torch.complex64])
def test_a_few_elements_may_be_what_the_reference_gives_elsewhere(dtype: torch.dtype) -> None:
    rows = (ROWS % 256).to(dtype)
    got, one, two = with_element(rows, (3, 7), (999, 5)), with_element(rows, (3, 7), (500, 1)), with_element(rows, (999, 5))
    assert not agree(rows, got)
    assert not agree(rows, got, one)
    assert agree(rows, got, one, two), "each of them in some answer"
    assert not agree(rows, with_element(got, (4, 77)), one, two), "one that is in none"
    assert not agree(rows, with_element(rows, (3, 8)), one, two), "undetermined is not arbitrary"


def test_an_answer_that_could_be_any_excuses_nothing() -> None:
    assert agree(ROWS, with_element(ROWS, *((i, 0) for i in range(50))), ROWS * 0)
    assert not agree(ROWS, with_element(ROWS, *((i, 0) for i in range(52))), ROWS * 0), "more than 5%; the first is 0 anyway"
    assert agree(ROWS[0, :3], torch.tensor([2, 1, 0]), torch.tensor([2, 1, 0])), "two are few, of however many"
    assert not agree(ROWS[0, :3] + 3, torch.tensor([0, 0, 0]), torch.tensor([0, 0, 0]))


def test_undetermined_floats_are_met_as_nearly_as_others() -> None:
    expected = torch.ones(100)
    other = with_element(expected, (7, 3.0), (8, math.nan), (9, math.inf))
    for index, element, fine in ((7, 3.0001, True), (7, 3.1, False), (8, math.nan, True), (8, 1.5, False), (9, math.inf, True)):
        assert agree(expected, with_element(expected, (index, element)), other, tol=TOLERANCES["kernelbench"]) is fine


def test_what_may_be_undetermined_is_said() -> None:
    for wrong, may in ((1, True), (50, True), (51, False)):
        found = difference(ROWS, with_element(ROWS, *((i, -1) for i in range(wrong))))
        assert found is not None and found.wrong == wrong and found.total == 1000 and found.may_be_undetermined is may
    shape = difference(ROWS, ROWS[0])
    assert shape is not None and not shape.may_be_undetermined


def test_answers_that_explain_nothing_are_not_asked_for_long() -> None:
    asked: list[int] = []

    def answers(last: torch.Tensor) -> Iterator[Arena]:
        for index in range(FEW_ANSWERS + 5):
            asked.append(index)
            yield laid_out(ROWS if index < FEW_ANSWERS + 4 else last)[1]

    got = with_element(ROWS, (3, 7), (5, 8))
    for first, excuse, count in ((None, False, FEW_ANSWERS), (with_element(ROWS, (3, 7)), True, FEW_ANSWERS + 5)):
        asked.clear()
        (layout, memory), (got_layout, got_memory) = laid_out(ROWS), laid_out(got)
        began = [] if first is None else [laid_out(first)[1]]
        found = excused(layout, memory, got_layout, got_memory, TIGHT, itertools.chain(began, answers(got)))
        assert found is excuse and len(asked) == count, "one that explained something is worth more"


def test_of_several_outputs_each_may_be_undetermined() -> None:
    expected, got = [ROWS, ROWS.float(), ROWS], [with_element(ROWS, (1, 0)), with_element(ROWS.float(), (2, 0)), ROWS]
    for excuse, third in ((True, ROWS), (False, with_element(ROWS, (3, 0)))):
        (layout, memory), (got_layout, got_memory), other = laid_out(expected), laid_out([*got[:2], third]), laid_out(got)[1]
        assert excused(layout, memory, got_layout, got_memory, TIGHT, iter([other])) is excuse
    (layout, memory), (got_layout, got_memory) = laid_out(expected), laid_out([got[0], 1 - got[1], ROWS])
    assert not excused(layout, memory, got_layout, got_memory, TIGHT, iter([laid_out([got[0], 1 - got[1], ROWS])[1]]))

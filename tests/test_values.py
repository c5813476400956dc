"""Values on their way between processes: what leaves one side arrives on the other, bytes, shapes and strides."""

from __future__ import annotations

import itertools
import mmap
import os
from typing import Any

import pytest
import torch

from kernel_env.referee.layout import ALIGN, ITEM_BYTES, Arena, leaves, total_bytes
from kernel_env.referee.reference import output_at
from kernel_env.referee.values import PlainDraws, Planner, Unsupported, described, described_all, packed, plan, read, view, write


def sent(value: Any, planner: Planner | None = None) -> Any:
    """The value as the other side reads it."""
    tensors: list[torch.Tensor] = []
    tree, size = plan(value, tensors, planner=planner)
    assert size == total_bytes(tree)
    arena = Arena(size)
    write(tree, tensors, arena.map)
    return read(tree, arena.map)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("name", ITEM_BYTES)
def test_tensors_of_every_dtype_arrive(name: str) -> None:
    dtype: torch.dtype = getattr(torch, name)
    tensor = torch.arange(12).reshape(3, 4).to(dtype)
    assert tensor.element_size() == ITEM_BYTES[name]
    assert equal(sent(tensor), tensor)


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, -(2**70), 1.5, "ü", [], (), {}, [1, (2, [3.5]), {"a": None}], torch.float16, torch.device("cpu"),
        torch.tensor(4.0), torch.empty(0, 3), [torch.zeros(3), torch.empty(0), torch.ones(2, dtype=torch.bool)],
        {"x": torch.arange(5), "y": {"z": (torch.ones(1), "text")}},
    ],
    ids=str,
)  # fmt: skip
def test_whole_trees_arrive(value: Any) -> None:
    assert equal(sent(value), value)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
        torch.arange(6.0).reshape(2, 3).T,
        torch.arange(48.0).reshape(2, 3, 2, 4).to(memory_format=torch.channels_last),
    ],
)
def test_another_order_of_dimensions_keeps_its_strides(tensor: torch.Tensor) -> None:
    arrived = sent(tensor)
    assert equal(arrived, tensor) and arrived.stride() == tensor.stride()
    assert sent(tensor, packed).is_contiguous()


@pytest.mark.parametrize(
    "tensor",
    [torch.arange(12.0).reshape(3, 4)[:, ::2], torch.arange(3.0).expand(5, 3), torch.arange(12.0)[4:8]],
)
def test_views_with_gaps_arrive_dense(tensor: torch.Tensor) -> None:
    arrived = sent(tensor)
    assert equal(arrived, tensor) and arrived.is_contiguous()


def test_a_conjugate_view_arrives_resolved() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j]).conj()
    assert sent(tensor).tolist() == [1 - 2j, 3 + 4j]


def test_every_tensor_starts_on_an_aligned_offset_and_none_overlap() -> None:
    tree, size = plan([torch.ones(3), {"a": torch.ones(100, dtype=torch.uint8)}, torch.ones(1).double()], [])
    specs = list(leaves(tree))
    assert all(spec.offset % ALIGN == 0 for spec in specs)
    assert all(before.offset + before.nbytes <= after.offset for before, after in itertools.pairwise(specs))
    assert specs[-1].offset + specs[-1].nbytes == size


def test_tensors_are_views_of_the_mapping() -> None:
    tensors: list[torch.Tensor] = []
    tree, size = plan(torch.zeros(4), tensors)
    arena = Arena(size)
    write(tree, tensors, arena.map)
    arrived = read(tree, arena.map)
    arrived[0] = 1.0
    assert arena.map[:4] == b"\x00\x00\x80\x3f"


@pytest.mark.parametrize(
    "value",
    [
        object(), {1, 2}, b"bytes", 1j, {1: "key"}, [lambda: None], torch.eye(3).to_sparse(),
        torch.zeros(3).to(torch.float8_e4m3fn),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_cannot_travel_is_named(value: Any) -> None:
    with pytest.raises(Unsupported, match="are not supported here"):
        plan([1, {"deep": value}], [])


def test_a_tensor_without_a_mapping_cannot_be_read() -> None:
    with pytest.raises(Unsupported, match="without a mapping"):
        read({"tensor": {}}, None)


def test_a_spec_beyond_the_mapping_cannot_be_viewed() -> None:
    (spec,) = leaves(plan(torch.zeros(1000), [])[0])
    with pytest.raises((ValueError, RuntimeError)):
        view(spec, mmap.mmap(-1, 100))


@pytest.mark.parametrize("tree", [None, 3, [], {}, {"a": 1, "b": 2}, {"tensor": 3}, {"list": [3]}, {"dict": {"a": []}}])
def test_malformed_trees_have_no_leaves(tree: Any) -> None:
    with pytest.raises(ValueError, match="not a"):
        list(leaves(tree))


def test_an_arena_cannot_be_resized_by_who_holds_its_descriptor() -> None:
    arena = Arena(4096)
    for size in (0, 8192):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.fd, size)
    arena.close()


# ---------------------------------------------------------- outputs of one message


def test_outputs_that_are_alike_are_told_by_their_addresses() -> None:
    outputs = [torch.ones(3, 4) for _ in range(4)] + [torch.ones(4, 3), torch.ones(4, 3), [torch.ones(2)], torch.ones(4, 3)]
    found = described_all(outputs)
    assert [type(item) for item in found] == [dict, int, int, int, dict, int, dict, dict]
    assert [output_at({"outputs": found}, index) for index in range(8)] == [described(output) for output in outputs]
    assert output_at({"outputs": found}, -3) == described(outputs[5])


@pytest.mark.parametrize(
    "second",
    [
        torch.ones(3, 5), torch.ones(3, 4, dtype=torch.float64), torch.ones(4, 3).t(), torch.ones(3, 4).to_sparse(),
        torch.nn.Parameter(torch.ones(3, 4)), None, 2.5, (torch.ones(3, 4),),
    ],
)  # fmt: skip
def test_others_are_described_in_full_or_refused(second: Any) -> None:
    try:
        expected = described(second)
    except (Unsupported, RuntimeError):
        with pytest.raises((Unsupported, RuntimeError)):
            described_all([torch.ones(3, 4), second])
    else:
        assert described_all([torch.ones(3, 4), second])[1] == expected


def test_a_tensor_with_attributes_is_refused_there_too() -> None:
    second = torch.ones(3)
    second.numpy_ = 3  # type: ignore[attr-defined]
    with pytest.raises(Unsupported):
        described_all([torch.ones(3), second])


@pytest.mark.parametrize("outputs", [3, None, [], [5], [{"tensor": 3}, 5], [{"list": []}, 5], ["x", 5], [{"tensor": {}}, True]])
def test_a_malformed_answer_has_no_output(outputs: Any) -> None:
    found = output_at({"outputs": outputs}, 1)
    assert found is None or found is True


def test_what_follows_from_a_draw_by_constants_is_independent() -> None:
    with PlainDraws() as draws:
        plain = torch.rand(8)
        scaled = [plain * 2, 3.0 - plain, plain / 4 + 1, -plain]
        others = [plain.sort()[0], plain * plain, torch.cumsum(plain, 0), (plain * 2).floor(), torch.ones(8) * 2]
        written = plain * 2
        written[0] = 5.0
    assert draws.is_plain(plain) and draws.is_independent(plain)
    assert not any(map(draws.is_plain, scaled)) and all(map(draws.is_independent, scaled))
    assert not any(map(draws.is_independent, [*others, written]))
    assert not draws.is_independent(torch.rand(8) * 2), "afterwards nothing is noted"

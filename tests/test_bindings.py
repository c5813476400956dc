"""What a bound C++ function takes, gives back and raises, with our own bindings: as pybind11 would, or more clearly."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch

from kernel_env.builder import Builder, BuildRequest
from kernel_env.verifier import VerifierConfig
from tests.test_builder import loaded

SOURCE = """
#include <torch/extension.h>
using torch::Tensor;

// arguments
Tensor tensor(Tensor x) { return x; }
Tensor by_reference(const Tensor& x, Tensor& out) { out.copy_(x); return out; }
bool flag(bool x) { return !x; }
int int32(int x) { return x; }
int8_t int8(int8_t x) { return x; }
uint8_t uint8(uint8_t x) { return x; }
int64_t int64(int64_t x) { return x; }
uint64_t uint64(uint64_t x) { return x; }
size_t size(size_t x) { return x; }
float single(float x) { return x; }
double number(const double x) { return x; }
std::string text(const std::string& x) { return x + "!"; }
std::optional<Tensor> maybe(std::optional<Tensor> x) { return x; }
std::optional<double> maybe_number(const c10::optional<double>& x) { return x; }
std::vector<int64_t> whole(std::vector<int64_t> x) { return x; }
std::vector<bool> flags(std::vector<bool> x) { return x; }
std::vector<std::vector<double>> nested(std::vector<std::vector<double>> x) { return x; }
std::vector<Tensor> tensors(const std::vector<Tensor>& x) { return x; }
Tensor shaped(torch::IntArrayRef shape) { return torch::zeros(shape); }
int64_t none() { return 7; }
int64_t promises(int64_t x) noexcept { return x; }
static int64_t hidden(int64_t x) { return x; }
namespace { int64_t nameless(int64_t x) { return x; } }
namespace deep { int64_t inner(int64_t x) { return x; } }
using namespace deep;

// results
void nothing(Tensor x) { x.zero_(); }
std::tuple<Tensor, int64_t, std::string> three() { return {torch::ones({1}), 2, "three"}; }
std::pair<double, bool> two() { return {1.5, true}; }
std::array<int, 3> triple() { return {1, 2, 3}; }
const Tensor undefined() { return Tensor(); }
std::string not_text() { return "\\xff\\xfe"; }
std::vector<std::string> not_texts() { return {"fine", "\\xff"}; }
std::tuple<int, std::string> not_a_pair() { return {1, "\\xff"}; }

// errors
void check(Tensor x, int64_t n) { TORCH_CHECK(x.dim() == n, "expected ", n, " dimensions, got ", x.dim()); }
void at_index() { TORCH_CHECK_INDEX(false, "no such row"); }
void value() { TORCH_CHECK_VALUE(false, "no such value"); }
void type() { TORCH_CHECK_TYPE(false, "no such type"); }
void missing() { TORCH_CHECK_NOT_IMPLEMENTED(false, "not there"); }
void memory() { throw std::bad_alloc(); }
void standard() { throw std::out_of_range("too far"); }
void strange() { throw 42; }
Tensor wrong_dtype(Tensor x) { x.data_ptr<double>(); return x; }
Tensor wrong_shape(Tensor a, Tensor b) { return a.matmul(b); }
"""
NAMES = [
    "tensor", "by_reference", "flag", "int32", "int8", "uint8", "int64", "uint64", "size", "single", "number", "text", "maybe",
    "maybe_number", "whole", "flags", "nested", "tensors", "shaped", "none", "promises", "hidden", "nameless", "inner", "nothing",
    "three", "two", "triple", "undefined", "not_text", "not_texts", "not_a_pair", "check", "at_index", "value", "type", "missing",
    "memory", "standard", "strange", "wrong_dtype", "wrong_shape",
]  # fmt: skip


@pytest.fixture(scope="module")
def bound() -> ModuleType:
    return loaded(
        Builder(VerifierConfig().cache()).build(BuildRequest((("all.cpp", SOURCE),), tuple((n, f"{n}()") for n in NAMES)))
    )


X = torch.arange(6.0).reshape(2, 3)


def test_tensors_pass_as_they_are(bound: ModuleType) -> None:
    out = torch.empty(2, 3)
    assert bound.tensor(X) is X
    assert bound.by_reference(X, out) is out and torch.equal(out, X)
    parameter = torch.nn.Parameter(torch.ones(2))
    assert bound.tensor(parameter) is parameter


def test_a_graph_goes_through(bound: ModuleType) -> None:
    weight = torch.ones(3, requires_grad=True)
    bound.tensor(weight * 2).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("int32", -(2**31)), ("int32", 2**31 - 1), ("int8", -128), ("uint8", 255), ("int64", 2**63 - 1), ("int64", -(2**63)),
        ("uint64", 2**64 - 1), ("size", 0), ("promises", 5), ("hidden", 6), ("nameless", 7), ("inner", 8), ("single", 1.5),
        ("number", 1e300), ("number", float("inf")), ("whole", []), ("whole", [1, -2]), ("flags", [True, False]),
        ("nested", [[1.0], []]), ("maybe", None), ("maybe_number", None), ("maybe_number", 2.5),
    ],
)  # fmt: skip
def test_values_come_back_equal(bound: ModuleType, name: str, value: Any) -> None:
    returned = getattr(bound, name)(value)
    assert returned == value and type(returned) is type(value)


@pytest.mark.parametrize(
    ("call", "result"),
    [
        (lambda m: m.flag(True), False), (lambda m: m.flag(0), True), (lambda m: m.text("é\x00x"), "é\x00x!"),
        (lambda m: m.number(3), 3.0), (lambda m: m.number(torch.tensor(2.0)), 2.0), (lambda m: m.int64(torch.tensor(4)), 4),
        (lambda m: m.int64(True), 1), (lambda m: m.whole((1, 2)), [1, 2]), (lambda m: m.whole(torch.Size([3, 4])), [3, 4]),
        (lambda m: m.shaped([2, 5]).shape, torch.Size([2, 5])), (lambda m: m.shaped(X.shape).shape, X.shape),
        (lambda m: m.none(), 7), (lambda m: m.two(), (1.5, True)), (lambda m: m.triple(), (1, 2, 3)),
        (lambda m: m.nothing(torch.ones(2)), None), (lambda m: m.undefined(), None), (lambda m: m.three()[1:], (2, "three")),
        (lambda m: m.maybe(X) is X, True), (lambda m: [t is X for t in m.tensors([X, X])], [True, True]),
    ],
)  # fmt: skip
def test_conversions_are_pythons_own(bound: ModuleType, call: Callable[[ModuleType], Any], result: Any) -> None:
    assert call(bound) == result


def test_docstrings_are_kept(bound: ModuleType) -> None:
    assert bound.three.__doc__ == "three()" and bound.three.__name__ == "three"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.tensor(3), "argument 1: expected a Tensor, got int"),
        (lambda m: m.tensor(None), "argument 1: expected a Tensor, got NoneType"),
        (lambda m: m.by_reference(X, [1.0]), "argument 2: expected a Tensor, got list"),
        (lambda m: m.flag("yes"), "argument 1: expected a bool, got str"),
        (lambda m: m.int64(1.0), "argument 1: expected an int, got float"),
        (lambda m: m.int64("1"), "argument 1: 'str' object cannot be interpreted as an integer"),
        (lambda m: m.number("1"), "argument 1: must be real number, not str"),
        (lambda m: m.text(b"bytes"), "argument 1: bad argument type"),
        (lambda m: m.maybe("x"), "argument 1: expected a Tensor, got str"),
        (lambda m: m.whole(3), "argument 1: expected a list or tuple"),
        (lambda m: m.whole([1, 2.5]), "argument 1: expected an int, got float"),
        (lambda m: m.shaped("ab"), "argument 1: 'str' object cannot be interpreted as an integer"),
        (lambda m: m.tensors([X, None]), "argument 1: expected a Tensor, got NoneType"),
        (lambda m: m.tensor(), "expected 1 arguments, got 0"),
        (lambda m: m.tensor(X, X), "expected 1 arguments, got 2"),
        (lambda m: m.tensor(x=X), "takes no keyword arguments"),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_a_type_error_that_says_which(bound: ModuleType, call: Callable[[ModuleType], Any], words: str) -> None:
    with pytest.raises(TypeError) as caught:
        call(bound)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("int32", 2**31), ("int8", 128), ("int8", -129), ("uint8", 256), ("uint8", -1), ("int64", 2**63), ("uint64", 2**64),
        ("uint64", -1), ("size", -5), ("whole", [2**70]),
    ],
)  # fmt: skip
def test_a_number_that_does_not_fit_is_an_overflow(bound: ModuleType, name: str, value: Any) -> None:
    with pytest.raises(OverflowError, match=r"argument 1: -?\d+ does not fit the C\+\+ parameter's integer type"):
        getattr(bound, name)(value)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda m: m.check(X, 3), RuntimeError, "expected 3 dimensions, got 2"),
        (lambda m: m.at_index(), IndexError, "no such row"),
        (lambda m: m.value(), ValueError, "no such value"),
        (lambda m: m.type(), TypeError, "no such type"),
        (lambda m: m.missing(), NotImplementedError, "not there"),
        (lambda m: m.memory(), MemoryError, ""),
        (lambda m: m.standard(), RuntimeError, "too far"),
        (lambda m: m.strange(), RuntimeError, "unknown C++ exception"),
        (lambda m: m.wrong_dtype(X), RuntimeError, "expected scalar type Double but found Float"),
        (lambda m: m.wrong_shape(X, X), RuntimeError, "mat1 and mat2 shapes cannot be multiplied"),
        (lambda m: m.not_text(), UnicodeDecodeError, "invalid start byte"),
        (lambda m: m.not_texts(), UnicodeDecodeError, "invalid start byte"),
        (lambda m: m.not_a_pair(), UnicodeDecodeError, "invalid start byte"),
    ],
)  # fmt: skip
def test_errors_keep_their_kind_and_words_without_a_backtrace(
    bound: ModuleType, call: Callable[[ModuleType], Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        call(bound)
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "frame #" not in str(caught.value) and "\n" not in str(caught.value).strip()


def test_nothing_leaks_a_reference(bound: ModuleType) -> None:
    items, before = [X, X], sys.getrefcount(X)
    for _ in range(50):
        bound.tensors(items)
        bound.maybe(X)
        bound.tensor(X)
        with pytest.raises(TypeError):
            bound.by_reference(X, 3)
        with pytest.raises(TypeError):
            bound.tensors([X, None])
    assert sys.getrefcount(X) == before

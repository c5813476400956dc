"""Torch's side of `layout`: Python values to spec trees and back. Runs inside runners only."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from kernel_env.backends.ablation import rebuilt
from kernel_env.referee.layout import ITEM_BYTES, TensorSpec, align, leaves


class Unsupported(TypeError):
    """A value that cannot travel between processes."""


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


Planner = Callable[[torch.Tensor, int], tuple[dict[str, Any], int]]
"""Describes one tensor from an offset on, and gives the first free offset after it."""


def plan(value: Any, tensors: list[torch.Tensor], offset: int = 0, planner: Planner | None = None) -> tuple[Any, int]:
    """Spec tree of `value` and the first free offset; its tensors are appended to `tensors` in the order of the leaves.

    Raises Unsupported.
    """
    if isinstance(value, torch.Tensor):
        spec, end = (planner or _plan_tensor)(value, align(offset))
        tensors.append(value)
        return {"tensor": spec}, end
    if value is None or isinstance(value, (bool, int, float, str)):
        return {"plain": value}, offset
    if isinstance(value, torch.dtype):
        return {"dtype": _dtype_name(value)}, offset
    if isinstance(value, torch.device):
        return {"device": str(value)}, offset
    if isinstance(value, (list, tuple)):
        items = []
        for item in value:
            spec, offset = plan(item, tensors, offset, planner)
            items.append(spec)
        return {"list" if isinstance(value, list) else "tuple": items}, offset
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        entries = {}
        for key, item in value.items():
            entries[key], offset = plan(item, tensors, offset, planner)
        return {"dict": entries}, offset
    raise Unsupported(f"values of type {type(value).__name__} are not supported here")


def described(output: Any) -> Any:
    """Spec tree of an output as it lies in this process: each leaf also has its `address`. Raises Unsupported.

    Only plain tensors count: a subclass, or an instance with methods of its own, could compute its values later or elsewhere.
    """
    return plan(output, [], planner=_place)[0]


def described_all(outputs: Sequence[Any]) -> list[Any]:
    """The same of several; in place of a tensor that is like the one before, only its address. (To describe all 128 of a message
    took 0.7 ms, which a program could have saved itself.) Raises Unsupported."""
    found: list[Any] = []
    like: torch.Tensor | None = None
    for output in outputs:
        if like is not None and type(output) is torch.Tensor and _are_alike(output, like):
            found.append(output.data_ptr())
        else:
            found.append(described(output))
            like = output if type(output) is torch.Tensor else None
    return found


def _are_alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    plain = not (a.is_conj() or a.is_neg() or a.__dict__)
    same_kind = a.layout is b.layout and a.device == b.device and a.dtype is b.dtype
    return plain and same_kind and a.shape == b.shape and a.stride() == b.stride()


def _place(tensor: torch.Tensor, offset: int) -> tuple[dict[str, Any], int]:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or getattr(tensor, "__dict__", None):
        raise Unsupported(f"an output must be a plain torch.Tensor, got {type(tensor).__name__}")
    spec = _spec(tensor, offset)
    if not tensor.is_contiguous():
        spec["stride"] = list(tensor.stride())
    if tensor.is_conj() or tensor.is_neg():
        raise Unsupported("an output must be materialised: call resolve_conj() or resolve_neg() on it")
    spec["address"] = tensor.data_ptr()
    return spec, offset + int(spec["nbytes"])


def packed(tensor: torch.Tensor, offset: int) -> tuple[dict[str, Any], int]:
    """A planner: the tensor is contiguous where it travels to, however it lies here."""
    spec = _spec(tensor, offset)
    return spec, offset + int(spec["nbytes"])


def _plan_tensor(tensor: torch.Tensor, offset: int) -> tuple[dict[str, Any], int]:
    spec = _spec(tensor, offset)
    if not tensor.is_contiguous() and _is_permuted(tensor):
        spec["stride"] = list(tensor.stride())
    return spec, offset + int(spec["nbytes"])


def _spec(tensor: torch.Tensor, offset: int) -> dict[str, Any]:
    name = _dtype_name(tensor.dtype)
    if name not in ITEM_BYTES or tensor.layout != torch.strided:
        raise Unsupported(f"tensors of dtype {name} and layout {tensor.layout} are not supported here")
    nbytes = tensor.numel() * ITEM_BYTES[name]
    return {"dtype": name, "shape": list(tensor.shape), "stride": None, "offset": offset, "nbytes": nbytes}


def _is_permuted(tensor: torch.Tensor) -> bool:
    """Whether the tensor is a dense block with its dimensions in another order (its strides are then worth keeping)."""
    order = sorted(range(tensor.dim()), key=lambda d: tensor.stride(d), reverse=True)
    return tensor.permute(order).is_contiguous()


def view(spec: TensorSpec, memory: mmap.mmap | memoryview) -> torch.Tensor:
    """A tensor over the mapping's own bytes."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if spec.nbytes == 0:
        return torch.empty(spec.shape, dtype=dtype)
    count = spec.nbytes // ITEM_BYTES[spec.dtype]
    flat = torch.frombuffer(memory, dtype=dtype, count=count, offset=spec.offset)
    return flat.as_strided(spec.shape, spec.stride) if spec.stride is not None else flat.view(spec.shape)


_BY_CONSTANTS = frozenset(
    {"mul", "__mul__", "__rmul__", "add", "__add__", "__radd__", "sub", "__sub__", "__rsub__", "rsub", "div", "__truediv__", "neg"}
)


class PlainDraws(TorchFunctionMode):
    """While active, remembers which tensors `torch.rand` and `torch.randn` returned, so that untouched ones can be told later; and
    what was made of those by arithmetic with constants."""

    def __enter__(self) -> PlainDraws:
        self._drawn: dict[int, torch.Tensor] = {}
        self._scaled: dict[int, torch.Tensor] = {}
        self._kept = torch.rand, torch.randn
        torch.rand, torch.randn = (self._noting(f) for f in self._kept)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        torch.rand, torch.randn = self._kept

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _BY_CONSTANTS and not kwargs and isinstance(made, torch.Tensor):
            given = [value for value in args if isinstance(value, torch.Tensor)]
            constant = all(isinstance(value, (torch.Tensor, int, float)) for value in args)
            if constant and len(given) == 1 and self.is_independent(given[0]):
                self._scaled[id(made)] = made
        return made

    def _noting(self, function: Callable[..., torch.Tensor]) -> Any:
        def draw(*arguments: Any, **options: Any) -> torch.Tensor:
            drawn = function(*arguments, **options)
            self._drawn[id(drawn)] = drawn
            return drawn

        return draw

    def is_plain(self, tensor: torch.Tensor) -> bool:
        """Whether every element still is an independent draw: the tensor was never written to, and is no view."""
        return id(tensor) in self._drawn and tensor._version == 0 and tensor.is_contiguous()

    def is_independent(self, tensor: torch.Tensor) -> bool:
        """Whether it is plain, or follows from one that is, element by element and with constants only."""
        return self.is_plain(tensor) or (id(tensor) in self._scaled and tensor._version == 0 and tensor.is_contiguous())


def write(tree: Any, tensors: list[torch.Tensor], memory: mmap.mmap) -> None:
    """Copy planned tensors to their places. `tree` comes from `plan`."""
    for spec, tensor in zip(leaves(tree), tensors, strict=True):
        view(spec, memory).copy_(tensor)


def read(tree: Any, memory: mmap.mmap | memoryview | None) -> Any:
    """The value of a spec tree; tensors are views of `memory`."""
    ((kind, value),) = tree.items()
    if kind == "tensor":
        if memory is None:
            raise Unsupported("a tensor without a mapping")
        return view(TensorSpec.parse(value), memory)
    if kind == "plain":
        return value
    if kind == "dtype":
        return getattr(torch, value)
    if kind == "device":
        return torch.device(value)
    if kind == "dict":
        return {k: read(v, memory) for k, v in value.items()}
    items = [read(v, memory) for v in value]
    return items if kind == "list" else tuple(items)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """The same with its floating-point tensors in another type; one that is there twice stays one."""
    made: dict[int, torch.Tensor] = {}

    def walk(part: Any) -> Any:
        if isinstance(part, torch.Tensor) and part.is_floating_point():
            return made.setdefault(id(part), part.to(dtype))
        if isinstance(part, dict):
            return {key: walk(item) for key, item in part.items()}
        return rebuilt(part, [walk(item) for item in part]) if isinstance(part, (list, tuple)) else part

    return walk(value)


def in_order_of(tree: Any, value: Any) -> Any:
    """With the keys of dicts in the order that they have in the tree of a value like it."""
    ((kind, inner),) = tree.items()
    if isinstance(value, dict) and kind == "dict" and value.keys() == inner.keys():
        return {key: in_order_of(inner[key], value[key]) for key in inner}
    if isinstance(value, (list, tuple)) and kind in ("list", "tuple") and len(value) == len(inner):
        return [in_order_of(*pair) for pair in zip(inner, value, strict=True)]
    return value

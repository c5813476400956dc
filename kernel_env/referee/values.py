"""Torch's side of `layout`: Python values to spec trees and back. Runs inside runners only."""

from __future__ import annotations

import mmap
from typing import Any

import torch

from kernel_env.referee.layout import ITEM_BYTES, TensorSpec, align, leaves


class Unsupported(TypeError):
    """A value that cannot travel between processes."""


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def plan(value: Any, tensors: list[torch.Tensor], *, keep_stride: bool = True, offset: int = 0) -> tuple[Any, int]:
    """Spec tree of `value` and the first free offset; its tensors are appended to `tensors` in the order of the leaves.

    Raises Unsupported.
    """
    if isinstance(value, torch.Tensor):
        spec, end = _plan_tensor(value, keep_stride, align(offset))
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
            spec, offset = plan(item, tensors, keep_stride=keep_stride, offset=offset)
            items.append(spec)
        return {"list" if isinstance(value, list) else "tuple": items}, offset
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        entries = {}
        for key, item in value.items():
            entries[key], offset = plan(item, tensors, keep_stride=keep_stride, offset=offset)
        return {"dict": entries}, offset
    raise Unsupported(f"values of type {type(value).__name__} are not supported here")


def _plan_tensor(tensor: torch.Tensor, keep_stride: bool, offset: int) -> tuple[dict[str, Any], int]:
    name = _dtype_name(tensor.dtype)
    if name not in ITEM_BYTES or tensor.layout != torch.strided:
        raise Unsupported(f"tensors of dtype {name} and layout {tensor.layout} are not supported here")
    stride = list(tensor.stride()) if keep_stride and not tensor.is_contiguous() and _is_permuted(tensor) else None
    nbytes = tensor.numel() * ITEM_BYTES[name]
    return {"dtype": name, "shape": list(tensor.shape), "stride": stride, "offset": offset, "nbytes": nbytes}, offset + nbytes


def _is_permuted(tensor: torch.Tensor) -> bool:
    """Whether the tensor is a dense block with its dimensions in another order (its strides are then worth keeping)."""
    order = sorted(range(tensor.dim()), key=lambda d: tensor.stride(d), reverse=True)
    return tensor.permute(order).is_contiguous()


def view(spec: TensorSpec, memory: mmap.mmap) -> torch.Tensor:
    """A tensor over the mapping's own bytes."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    if spec.nbytes == 0:
        return torch.empty(spec.shape, dtype=dtype)
    count = spec.nbytes // ITEM_BYTES[spec.dtype]
    flat = torch.frombuffer(memory, dtype=dtype, count=count, offset=spec.offset)
    return flat.as_strided(spec.shape, spec.stride) if spec.stride is not None else flat.view(spec.shape)


def write(tree: Any, tensors: list[torch.Tensor], memory: mmap.mmap) -> None:
    """Copy planned tensors to their places. `tree` comes from `plan`."""
    for spec, tensor in zip(leaves(tree), tensors, strict=True):
        view(spec, memory).copy_(tensor)


def read(tree: Any, memory: mmap.mmap | None) -> Any:
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

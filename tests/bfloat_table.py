# mypy: disable-error-code="no-untyped-def, untyped-decorator"
"""What Triton's interpreter makes of bfloat16, operation by operation, as JSON: the operations that go wrong, with all of
`compute_in_single` and without each thing that it exchanges. A process of its own: it changes the interpreter."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import numpy as np
import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpreterBuilder, ReduceOps, ScanOps, TensorHandle

from kernel_env.backends.bfloat import compute_in_single, to_single

N = 16


@triton.jit
def add(x, y, o, n: tl.constexpr):
    i = tl.arange(0, n)
    tl.store(o + i, tl.load(x + i) + tl.load(y + i))


@triton.jit
def fma(x, y, o, n: tl.constexpr):
    i = tl.arange(0, n)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(o + i, tl.fma(a, b, b))


@triton.jit
def total(x, y, o, n: tl.constexpr):
    i = tl.arange(0, n)
    tl.store(o + i, tl.load(x + i) * 0 + tl.sum(tl.load(x + i), axis=0))


@triton.jit
def largest(x, y, o, n: tl.constexpr):
    i = tl.arange(0, n)
    tl.store(o + i, tl.zeros((n,), tl.bfloat16) + tl.reduce(tl.load(x + i), 0, tl.standard._elementwise_max))


@triton.jit
def running_sum(x, y, o, n: tl.constexpr):
    i = tl.arange(0, n)
    tl.store(o + i, tl.associative_scan(tl.load(x + i), 0, tl.standard._sum_combine))


@triton.jit
def running_product(x, y, o, n: tl.constexpr):
    i = tl.arange(0, n)
    tl.store(o + i, tl.associative_scan(tl.load(x + i), 0, tl.standard._prod_combine))


@triton.jit
def product(x, y, o, n: tl.constexpr):
    i = tl.arange(0, n)
    at = i[:, None] * n + i[None, :]
    tl.store(o + at, tl.dot(tl.load(x + at), tl.load(y + at)))


@triton.jit
def to_integer(x, y, o, n: tl.constexpr):
    i = tl.arange(0, n)
    tl.store(o + i, tl.load(x + i).to(tl.int32).to(tl.bfloat16))


@triton.jit
def rounded(x, y, o, n: tl.constexpr):
    i = tl.arange(0, n)
    singles = tl.load(x + i).to(tl.float32) / (i - 1).to(tl.float32)
    tl.store(o + i, singles.to(tl.bfloat16, fp_downcast_rounding="rtne"))


@triton.jit
def number(x, y, o, n: tl.constexpr):
    i = tl.arange(0, n)
    tl.store(o + i, tl.full((n,), 1.7, tl.bfloat16))


# kernel: what it computes of float32, to be rounded once
KERNELS: dict[Any, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    add: lambda x, y: x + y,
    fma: lambda x, y: x * y + y,
    total: lambda x, y: x.sum().expand(N),
    largest: lambda x, y: x.max().expand(N),
    running_sum: lambda x, y: x.cumsum(0),
    running_product: lambda x, y: x.cumprod(0),
    product: lambda x, y: x @ y,
    to_integer: lambda x, y: x.int().float(),
    rounded: lambda x, y: x / (torch.arange(N) - 1),
    number: lambda x, y: torch.full((N,), 1.7),
}
# what the language lets no bfloat16 come to in this version of Triton: the interpreter's own methods
METHODS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "create_clampf": lambda x: x.clamp(-1, 1), "create_exp": torch.exp, "create_floor": torch.floor, "create_sqrt": torch.sqrt,
    "create_erf": torch.erf, "create_rsqrt": torch.rsqrt,
}  # fmt: skip


def handle(x: torch.Tensor) -> Any:
    return TensorHandle(x.view(torch.uint16).numpy(), tl.bfloat16)


def wrong() -> list[str]:
    found = []
    draws = torch.Generator().manual_seed(0)
    for kernel, of_singles in KERNELS.items():
        shape = (N, N) if kernel is product else (N,)
        x, y = torch.randn(shape, generator=draws).bfloat16(), (torch.rand(shape, generator=draws) + 0.5).bfloat16()
        made = torch.zeros(shape, dtype=torch.bfloat16)
        try:
            kernel[(1,)](x, y, made, N)
            fine = torch.allclose(made.float(), of_singles(x.float(), y.float()).bfloat16().float(), rtol=2**-7, atol=0)
        except Exception:  # noqa: BLE001 - a part is missing
            fine = False
        if not fine:
            found.append(kernel.fn.__name__)
    x, one = (torch.rand(N, generator=draws) + 0.5).bfloat16(), torch.ones(N).bfloat16()
    for name, of_single in METHODS.items():
        try:
            given, ends = handle(x), (handle(-one), handle(one), None) if name == "create_clampf" else ()
            made = getattr(InterpreterBuilder(), name)(given, *ends)
            single = torch.from_numpy(np.array(to_single(made.data)))
            fine = made.dtype == tl.bfloat16 and torch.allclose(single, of_single(x.float()).bfloat16().float(), rtol=2**-7, atol=0)
        except Exception:  # noqa: BLE001 - a part is missing
            fine = False
        if not fine:
            found.append(name)
    return found


def main() -> None:
    kinds = InterpreterBuilder, ReduceOps, ScanOps
    before = [dict(vars(kind)) for kind in kinds]
    compute_in_single()
    report = {"": wrong()}
    for kind, was in zip(kinds, before, strict=True):
        for name, value in list(vars(kind).items()):
            if was.get(name) is not value:
                if name in was:
                    setattr(kind, name, was[name])
                else:
                    delattr(kind, name)
                report[name] = wrong()
                setattr(kind, name, value)
    print(json.dumps(report))


if __name__ == "__main__":
    main()

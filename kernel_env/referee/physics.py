"""In a reference runner: what a problem's call works, and what this machine can do. Torch's side of `roofline`."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils import flop_counter

from kernel_env.backends.ablation import tensors
from kernel_env.referee.signals import copied

SIZES = tuple(1 << bits for bits in (20, 22, 24, 26, 28))
"""Of what is touched at a time when memory is measured."""
EACH_S, LEAST = 0.03, 3
"""For how long, and how often, each thing is done; the fastest time counts."""
SIDE = 1024
"""Of the matrices that are multiplied."""


def work(model: Any, inputs: Any) -> dict[str, int] | None:
    """Of one call of a copy. None where it cannot be counted."""
    model = copied(model)
    try:
        with flop_counter.FlopCounterMode(display=False, custom_mapping=_OF_CPUS) as counter, _written_out():
            output = model(**inputs) if isinstance(inputs, dict) else model(*inputs)
    except Exception:  # noqa: BLE001 - a reference may do anything that a counter does not know
        return None
    state = [*model.parameters(), *model.buffers()] if isinstance(model, torch.nn.Module) else []
    storages = {t.data_ptr(): t.nbytes for t in (*tensors(inputs), *state, *tensors(output)) if t.nbytes}
    return {"flops": counter.get_total_flops(), "bytes": sum(storages.values())}


def peaks(dtype: torch.dtype) -> dict[str, Any]:
    """A program may compute in fp32 whatever its inputs are, so that its peak counts where it is the higher one."""
    rates = {size: _bytes_s(size) for size in SIZES}
    return {"flops_s": max(map(_flops_s, {dtype, torch.float32})), "bytes_s": list(rates.items())}


def _bytes_s(size: int) -> float:
    """Of reading, writing or copying, whatever is fastest."""
    whole = torch.ones(size // 4)
    half, other = whole.chunk(2)
    ways: list[Callable[[], object]] = [whole.sum, lambda: whole.fill_(1.0), lambda: half.copy_(other)]
    return size / min(map(_least_s, ways))


def _flops_s(dtype: torch.dtype) -> float:
    left, right = torch.ones(2, SIDE, SIDE, dtype=dtype)
    return 2 * SIDE**3 / _least_s(lambda: left @ right)


def _least_s(once: Callable[[], object]) -> float:
    times: list[float] = []
    while len(times) < LEAST or sum(times) < EACH_S:
        started = time.perf_counter()
        once()
        times.append(time.perf_counter() - started)
    return min(times)


@contextlib.contextmanager
def _written_out() -> Iterator[None]:
    """Attention goes through operators that can be counted, not through those that torch has for whole layers."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _recurrent(steps: Sequence[int], weight: Sequence[int], recurrent: Sequence[int], *_: Any, **__: Any) -> int:
    """One layer in one direction: both of its matrices meet each step of each sample."""
    return 2 * math.prod(steps[:-1]) * (math.prod(weight) + math.prod(recurrent))


def _attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    return int(flop_counter.sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


_OF_CPUS = {
    torch.ops.aten.mkldnn_rnn_layer: _recurrent,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}
"""What torch's own counter has no formula for."""

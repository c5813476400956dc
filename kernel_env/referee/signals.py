"""What a problem's outputs are like, measured in a reference runner: magnitude, variation with the inputs, error of fp32.

Torch's side of `tolerance.Signal`. Nothing here sees a candidate, nor the seeds that candidates are judged with.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from kernel_env.backends.ablation import tensors
from kernel_env.referee.tolerance import PART

_SAMPLE = 1 << 20
"""Elements of an output that are looked at, drawn at random where it has more; and as many in whole parts."""


def signals(model: Any, draw: Callable[[int], Any], seeds: tuple[int, int], *, precise: bool) -> list[dict[str, Any]]:
    """One signal a tensor of the output, as JSON with the tensor's dtype. `draw(seed)` gives a new set of inputs.

    The model is copied for each call, where it can be, so that no state is carried from one to the next. With `precise` the
    reference runs once more in fp64; where it cannot, the error is None.
    """
    inputs = _Inputs(draw, seeds[0])
    first, random = _outputs(model, inputs.fresh(), seeds[0])
    again, _ = _outputs(model, inputs.fresh(), seeds[0])
    wide = _wide_outputs(model, inputs.fresh(), seeds[0]) if precise and not random else None
    other, _ = _outputs(model, draw(seeds[1]), seeds[0])
    return [
        {
            "dtype": tensor.dtype,
            "finite": tensor.finite,
            "scale": tensor.scale,
            "noise": 1.0 if (noise := tensor.largest_difference(again, index)) is None else noise,
            "variation": tensor.mean_difference(other, index) or 0.0,
            "error": tensor.largest_difference(wide, index),
            "excess": tensor.largest_excess(wide, index),
        }
        for index, tensor in enumerate(first)
    ]


class _Inputs:
    """One set, drawn again only if a call has changed it: drawing may take longer than calling."""

    def __init__(self, draw: Callable[[int], Any], seed: int) -> None:
        self._draw, self._seed = draw, seed
        self._made: Any = None
        self._versions: list[int] = []

    def fresh(self) -> Any:
        if self._made is None or [t._version for t in tensors(self._made)] != self._versions:
            self._made = self._draw(self._seed)
            self._versions = [t._version for t in tensors(self._made)]
        return self._made


@dataclass(frozen=True)
class _Tensor:
    """What is kept of one tensor of an output."""

    dtype: str
    shape: torch.Size
    finite: bool
    sample: torch.Tensor
    """Elements in double precision, at the same places for tensors of one size."""
    parts: torch.Tensor
    """Whole parts, likewise."""
    rounding: float
    """The most that rounding changes a number of its type, as a share."""

    @staticmethod
    def of(tensor: torch.Tensor) -> _Tensor:
        flat = tensor.detach().reshape(-1)
        finite = bool(flat.isfinite().all())
        wide = torch.complex128 if flat.is_complex() else torch.float64
        parts = _some(flat[: flat.numel() // PART * PART].view(-1, PART), _SAMPLE // PART)
        rounding = 0.0 if not (flat.is_floating_point() or flat.is_complex()) else torch.finfo(flat.dtype).eps
        name = str(tensor.dtype).removeprefix("torch.")
        return _Tensor(name, tensor.shape, finite, _some(flat, _SAMPLE).to(wide), parts.to(wide), rounding)

    @property
    def scale(self) -> float:
        usable = self.sample[self.sample.isfinite()]
        return float(usable.abs().mean()) if usable.numel() else 0.0

    def mean_difference(self, others: list[_Tensor] | None, index: int) -> float | None:
        """From the n-th of the others, where both are finite. None where there is none like this."""
        pair = self._pair(others, index)
        return pair and (float((pair[0] - pair[1]).abs().mean()) if pair[0].numel() else 0.0)

    def largest_difference(self, others: list[_Tensor] | None, index: int) -> float | None:
        """The same, each against scale + |other|."""
        pair = self._pair(others, index)
        if pair is None or not pair[0].numel():
            return pair and 0.0
        return float(((pair[0] - pair[1]).abs() / (pair[1].abs() + self.scale).clamp_min(1e-300)).max())

    def largest_excess(self, others: list[_Tensor] | None, index: int) -> float | None:
        """Of the parts' mean difference, beyond their share of rounding, against the scale of all."""
        if self._pair(others, index) is None or others is None:
            return None
        theirs = others[index].parts
        excess = (self.parts - theirs).abs().mean(1) - self.rounding * theirs.abs().mean(1)
        usable = excess[excess.isfinite()]  # a part with an element that is not is compared element by element only
        return float(usable.max().clamp_min(0)) / max(self.scale, 1e-300) if usable.numel() else 0.0

    def _pair(self, others: list[_Tensor] | None, index: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        if others is None or index >= len(others) or others[index].shape != self.shape:
            return None
        theirs = others[index].sample
        usable = self.sample.isfinite() & theirs.isfinite()
        return self.sample[usable], theirs[usable]


def _some(rows: torch.Tensor, most: int) -> torch.Tensor:
    if len(rows) <= most:
        return rows
    return rows[torch.randint(len(rows), (most,), generator=torch.Generator().manual_seed(0))]


def _outputs(model: Any, inputs: Any, seed: int) -> tuple[list[_Tensor], bool]:
    """Tensors of the output, and whether random numbers were drawn."""
    fresh = copied(model)
    torch.manual_seed(seed)
    before = torch.get_rng_state()
    output = fresh(**inputs) if isinstance(inputs, dict) else fresh(*inputs)
    random = not torch.equal(before, torch.get_rng_state())
    return [_Tensor.of(tensor) for tensor in tensors(output)], random


def _wide_outputs(model: Any, inputs: Any, seed: int) -> list[_Tensor] | None:
    try:
        with _double_by_default():
            return _outputs(copy.deepcopy(model).double(), _widened(inputs), seed)[0]
    except Exception:  # noqa: BLE001 - a reference may do anything that knows no fp64: then there is no fp64 result
        return None


@contextlib.contextmanager
def _double_by_default() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def copied(model: Any) -> Any:
    with contextlib.suppress(Exception):  # not every model can be copied: then it keeps its state
        return copy.deepcopy(model)
    return model


def _widened(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {k: _widened(v) for k, v in value.items()}
    return type(value)(_widened(v) for v in value) if isinstance(value, (list, tuple)) else value

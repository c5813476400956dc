"""How near an output must come to the expected one.

A preset is one number a dtype family, used as atol and rtol. `strict` fits that number to each output of each problem: outputs of
1e-3 that must be met within 1e-4 could be replaced by zeros, and sums over 100,000 terms cannot be met within 1e-4 by anyone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kernel_env.errors import ConfigError

_SINGLE = ("float32", "float64", "complex64", "complex128")
_HALF = ("float16", "bfloat16")
PART = 4096
"""Elements in a row that are compared as a whole too."""


@dataclass(frozen=True)
class Signal:
    """What one tensor of a problem's output is like."""

    scale: float
    """Mean magnitude."""
    variation: float
    """Mean absolute difference between its values for two draws of inputs."""
    error: float | None
    """Largest |fp32 - fp64| / (scale + |fp64|) of the reference itself; None where fp64 could not be had."""
    noise: float = 0.0
    """Largest difference between two calls that should give the same, in the unit of `error`."""
    finite: bool = True
    excess: float | None = None
    """Largest mean |reference - fp64| of a part, beyond what rounding it costs, in units of the scale; None where not known."""

    @property
    def share(self) -> float:
        """Variation against the same unit as `error`: twice the scale, which is what scale + |expected| is on average."""
        return self.variation / (2 * self.scale) if self.scale else 0.0


@dataclass(frozen=True)
class _Family:
    """How signal and error bound a tolerance. In half precision rounding the result alone is an error of 2 in 1,000, so that
    50 times that would allow anything."""

    least_error: float
    errors: float
    """Never tighter than so many times the reference's own error."""
    share: float
    """Never wider than this share of the variation, where the errors allow it, ..."""
    room: float
    """... and degenerate where they are above this share of it."""


_WIDE = _Family(1.2e-7, 50.0, 0.001, 0.01)
"""A candidate may compute in fp32 where the reference has fp64."""
_BOUNDS = {"float16": _Family(5e-4, 4.0, 0.05, 0.05), "bfloat16": _Family(4e-3, 4.0, 0.05, 0.05)}


@dataclass(frozen=True)
class Tolerance:
    """Absolute and relative tolerance by dtype family and, with `signals`, by output tensor."""

    name: str
    single: float
    half: float
    signal_aware: bool = False
    signals: tuple[Signal, ...] = ()
    """One for each tensor of the output, in order; empty where only the preset counts."""

    def preset(self, dtype: str) -> float:
        """Both atol and rtol for this dtype before any signal is looked at; 0 where only equality counts."""
        if dtype in _HALF:
            return self.half
        return self.single if dtype in _SINGLE else 0.0

    def limits(self, dtype: str, tensor: int) -> tuple[float, float]:
        """atol and rtol for the n-th tensor of the output."""
        preset = self.preset(dtype)
        if tensor >= len(self.signals) or not preset:
            return preset, preset
        signal = self.signals[tensor]
        floor, cap, room = self._bounds(dtype, signal)
        least = floor * signal.scale if signal.scale else preset
        if floor > room:  # degenerate: not even noise and signal can be told apart; then as tight as is fair
            return min(preset, least), min(preset, floor)
        return max(min(preset, cap * signal.scale), least), max(min(preset, cap), floor)

    def least(self, dtype: str, tensor: int) -> float | None:
        """A mean difference of a part of the n-th tensor of the output that always has to be allowed; None where it is not known.

        In half precision the error of a tensor as a whole says nothing of its small parts: it is that of rounding the large ones.
        """
        if tensor >= len(self.signals) or not self.preset(dtype) or not self.signals[tensor].scale:
            return None
        signal = self.signals[tensor]
        if dtype in _HALF and signal.excess is not None:
            return max(_BOUNDS[dtype].errors * signal.excess, _WIDE.errors * _WIDE.least_error) * signal.scale
        return self._bounds(dtype, signal)[0] * signal.scale

    def degenerate(self, dtypes: Sequence[str]) -> bool:
        """Whether some output hardly varies with the inputs, or not more than its own rounding: a constant may pass there."""
        bounds = [self._bounds(d, s) for d, s in zip(dtypes, self.signals, strict=False) if self.preset(d)]
        return any(floor > room for floor, _, room in bounds)

    def _bounds(self, dtype: str, signal: Signal) -> tuple[float, float, float]:
        """Least and most tolerance, and the least beyond which a problem is degenerate, in units of scale + |expected|."""
        family = _BOUNDS.get(dtype, _WIDE)
        error = self.preset(dtype) / family.errors if signal.error is None else max(signal.error, family.least_error)
        share = family.room if signal.error is None else family.share  # what is not known is given the benefit of the doubt
        return family.errors * error, share * signal.share, family.room * signal.share

    def fitted(self, signals: Sequence[Signal]) -> Tolerance:
        return replace(self, signals=tuple(signals))


TOLERANCES = {
    "strict": Tolerance("strict", single=1e-4, half=1e-2, signal_aware=True),
    "kernelbench": Tolerance("kernelbench", single=1e-4, half=1e-2),
    "kernelbench-v0": Tolerance("kernelbench-v0", single=1e-2, half=1e-2),
    "tritonforge": Tolerance("tritonforge", single=1e-2, half=1e-2),
}


def tolerance(name: str) -> Tolerance:
    if name not in TOLERANCES:
        raise ConfigError(f"verify.tolerance={name}: choose one of {', '.join(TOLERANCES)}")
    return TOLERANCES[name]

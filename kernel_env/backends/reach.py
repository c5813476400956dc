"""Whether what own kernels compute reaches an output through torch's operators, or only what Python makes of it does.

A program may have torch compute everything, look at a part of it with a kernel of its own, and give torch's result back where the
two agree. With other numbers in the kernel's place it takes another way, so that its output differs, and none of the kernel's
numbers is in it. Memory tells: what an operator makes of a kernel's result is reached, and what is read of it as a number is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from kernel_env.backends.ablation import tensors


class Reach:
    """Of one forward. Where it cannot be told, everything is reached."""

    def __init__(self) -> None:
        self._reached: set[int] = set()
        """Addresses of the memory that holds something of a kernel's."""
        self._anything = False

    def launched(self, outputs: Iterable[torch.Tensor]) -> None:
        """A kernel computed these. One that seems to compute nothing wrote where it is not seen, or gave a number back."""
        places = {_place(tensor) for tensor in outputs}
        self._reached |= places
        self._anything |= not places

    def operated(self, given: Any, made: Any, *, writes: bool) -> None:
        """An operator was called with `given`; `writes`: into some of it."""
        read = {_place(tensor) for tensor in tensors(given)}
        results = {_place(tensor) for tensor in tensors(made)}
        if not read.isdisjoint(self._reached):
            self._reached |= results | read if writes else results
        else:  # if it is known, this memory is used again
            self._reached -= results

    def reaches(self, output: Any) -> bool:
        places = {_place(tensor) for tensor in tensors(output)}
        return self._anything or not places or not places.isdisjoint(self._reached)


def _place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()

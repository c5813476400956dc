"""Fresh inputs for timed calls, cheap enough to have a new set for every call.

Nothing may be worth remembering: each timed call gets values that no call had before. Tensors that the problem draws plainly
(`torch.rand`, `torch.randn`) are turned round by a secret number of elements, which keeps their distribution and costs one copy.
A problem without such a tensor draws new sets instead.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kernel_env.referee.layout import ITEM_BYTES, Arena, TensorSpec, leaves

_FRESH_SETS = 32
_FRESH_BYTES = 64 << 20
"""Sets that are made anew for a round of timing: so many, as far as they fit into so many bytes, and two at least."""


@dataclass(frozen=True)
class InputSet:
    """One set of inputs as the problem made it. `plain` has one entry a tensor: whether its elements may be turned round."""

    tree: Any
    arena: Arena
    plain: tuple[bool, ...]


@dataclass(frozen=True)
class Draw:
    """One call's inputs: a set, by how many elements each of its tensors is turned, and the generator's seed in forward."""

    source: InputSet
    turns: tuple[int, ...]
    seed: int


class InputPool:
    """Draws inputs for timed calls.

    `refresh` before each round and `deal` before each block; then `draw` gives what no timed call of the block had before, and
    `stale` what may be old.
    """

    def __init__(self, sets: Sequence[InputSet], renew: Callable[[], InputSet], rng: random.Random) -> None:
        """Needs at least one set; those whose tree is another one than the last set's are not used."""
        self.tree = sets[-1].tree
        self._sets = [s for s in sets if s.tree == self.tree]
        self._renew, self._rng = renew, rng
        self._specs = list(leaves(self.tree))
        self.turnable = any(self._sets[-1].plain) or not self._specs
        """Whether sets need no renewal."""
        self._fresh: list[InputSet] = []
        self._deck: list[InputSet] = []

    def refresh(self, calls: int) -> None:
        """Have new sets made for so many calls of either side, where turning the old ones gives nothing new."""
        if self.turnable:
            return
        self.close()
        count = max(2, min(calls, _FRESH_SETS, _FRESH_BYTES // self._sets[-1].arena.size))
        self._fresh = [made for made in (self._renew() for _ in range(count)) if made.tree == self.tree]

    def deal(self) -> None:
        self._deck = self._rng.sample(self._fresh[1:], max(0, len(self._fresh) - 1))

    def draw(self) -> Draw:
        if not self._deck and self._fresh:
            self.deal()
        return self._turned(self._deck.pop() if self._deck else self._rng.choice(self._sets))

    def stale(self) -> Draw:
        return self._turned(self._rng.choice(self._sets))

    def last(self) -> Draw:
        """For the calls of both sides that are compared; `draw` never gives it."""
        return self._turned(self._fresh[0] if self._fresh else self._rng.choice(self._sets))

    def _turned(self, source: InputSet) -> Draw:
        counts = [spec.nbytes // ITEM_BYTES[spec.dtype] for spec in self._specs]
        turns = tuple(self._rng.randrange(max(n, 1)) if p else 0 for n, p in zip(counts, source.plain, strict=True))
        return Draw(source, turns, self._rng.getrandbits(62))

    def write(self, draw: Draw, target: Arena) -> None:
        """Put a draw into a mapping."""
        with memoryview(draw.source.arena.map) as source, memoryview(target.map) as memory:
            for spec, turn in zip(self._specs, draw.turns, strict=True):
                _turned(source, memory, spec, turn)

    def close(self) -> None:
        """Forget the sets that were made anew. Idempotent."""
        for made in self._fresh:
            made.arena.close()
        self._fresh, self._deck = [], []


def _turned(source: memoryview, target: memoryview, spec: TensorSpec, turn: int) -> None:
    start, end = spec.offset, spec.offset + spec.nbytes
    cut = turn * ITEM_BYTES[spec.dtype]
    target[start : end - cut] = source[start + cut : end]
    target[end - cut : end] = source[start : start + cut]

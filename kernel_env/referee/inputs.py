"""Fresh inputs for timed calls, cheap enough to have a new set for every call.

Nothing may be worth remembering: each timed call gets values that no call had before. Tensors that the problem draws plainly
(`torch.rand`, `torch.randn`) are made from two sets, each turned round by a secret number of elements: element by element their
sum or difference, brought back to the distribution (normal: over the root of 2, with secret signs; uniform: its fraction). Parts
of sets that a program has seen would be found again, with the answers to them; and of a plain sum a linear problem's answer is
the sum of two answers. Tensors of a few elements are spliced from two sets instead.
A problem with any other tensor draws new sets: they may depend on each other.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kernel_env.referee.layout import ITEM_BYTES, Arena, Buffer, Memory, Part, TensorSpec, leaves

Bytes = npt.NDArray[np.uint8]

_STORED = {
    "float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": np.uint16,
    "complex64": np.float32, "complex128": np.float64,
}  # fmt: skip
"""What tensors are made of: a complex number is two."""
_LEAST_MIXED = 64
"""Elements: of a shorter normal draw it could not be told for certain that it is no uniform one."""
_CHUNK = 1 << 16
"""Elements that are mixed at a time, within a core's cache."""
_SIGNS = 65_521
"""After so many numbers (a prime) the signs come again; they begin at another place in each draw."""
_LAST_BITS = {2: 3, 4: 7, 8: 7}
"""Steps between neighbours in a floating-point type, by its bytes: what rounding may do to a number in a few operations."""
_INFINITE = {
    "float32": 0x7F80 << 16, "complex64": 0x7F80 << 16, "float64": 0x7FF << 52, "complex128": 0x7FF << 52, "float16": 0x7C00,
    "bfloat16": 0x7F80,
}  # fmt: skip
"""The bits of infinity: those of finite numbers are smaller, and in their order."""
_FRESH_SETS = 32
_FRESH_BYTES = 64 << 20
"""Sets that are made anew for a round of timing: so many, as far as they fit into so many bytes, and two at least."""


@dataclass(frozen=True)
class InputSet:
    """One set of inputs as the problem made it. `plain` has one entry a tensor: whether its elements may be turned round.
    `independent` likewise: whether each may change in its last bits without regard to others. What is plain is."""

    tree: Any
    arena: Arena | Buffer
    plain: tuple[bool, ...]
    independent: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Draw:
    """One call's inputs: a set, how each of its tensors is put together, and the generator's seed in forward."""

    source: InputSet
    splices: tuple[Splice | None, ...]
    seed: int


@dataclass(frozen=True)
class Splice:
    """A tensor from `source` and `other`, each turned round. Mixed: their sum; of normal ones with signs that begin at `sign`, of
    uniform ones from `cut` on their difference. Spliced: the first elements of the one, and from `cut` on those of the other. Else
    a sum over all of it would stay as it was, and be worth remembering."""

    other: InputSet
    cut: int
    turn: int
    other_turn: int
    sign: int = 0


class InputPool:
    """Draws inputs for timed calls.

    `refresh` before each round and `deal` before each block; then `draw` gives what no timed call of the block had before, and
    `stale` what may be old.
    """

    def __init__(self, sets: Sequence[InputSet], renew: Callable[[], InputSet], rng: random.Random) -> None:
        """Needs at least one set; those whose tree is another one than the last set's are not used."""
        self.tree, self.size = sets[-1].tree, sets[-1].arena.size
        self._sets = [s for s in sets if s.tree == self.tree]
        self._renew, self._rng = renew, rng
        self._specs = list(leaves(self.tree))
        self.turnable = all(self._sets[-1].plain) or not self._specs
        """Whether sets need no renewal."""
        self._uniform = [self._is_uniform(spec) for spec in self._specs] if self.turnable else []
        self._signs = _signs(rng)
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
        return self._spliced(self._deck.pop() if self._deck else self._rng.choice(self._sets))

    def most(self) -> int:
        """How many calls of a block, the last one among them, can have inputs of their own."""
        return max(1, len(self._fresh)) if self._fresh else 1 << 30

    def stale(self) -> Draw:
        return self._spliced(self._rng.choice(self._sets))

    def last(self) -> Draw:
        """For the calls of both sides that are compared; `draw` never gives it."""
        return self._spliced(self._fresh[0] if self._fresh else self._rng.choice(self._sets))

    def _spliced(self, source: InputSet) -> Draw:
        return Draw(source, tuple(map(self._splice, self._specs, source.plain)), self._rng.getrandbits(62))

    def _splice(self, spec: TensorSpec, plain: bool) -> Splice | None:
        count = spec.nbytes // ITEM_BYTES[spec.dtype]
        if not plain or not self.turnable or count == 0:
            return None
        cut, turn, other_turn = (self._rng.randrange(count) for _ in range(3))
        return Splice(self._rng.choice(self._sets), cut, turn, other_turn, self._rng.randrange(_SIGNS))

    def write(self, draw: Draw, target: Arena | Part) -> None:
        """Put a draw into its place."""
        source, memory = _bytes(draw.source.arena), _bytes(target)
        for index, (spec, splice) in enumerate(zip(self._specs, draw.splices, strict=True)):
            start, end = spec.offset, spec.offset + spec.nbytes
            if splice is None:
                memory[start:end] = source[start:end]
                continue
            other = _bytes(splice.other.arena)
            if _mixes(spec):
                same = splice.other is draw.source and splice.turn == splice.other_turn
                turned = replace(splice, other_turn=splice.other_turn + same)
                _mixed(source, other, memory, spec, turned, None if self._uniform[index] else self._signs)
                continue
            cut = start + splice.cut * ITEM_BYTES[spec.dtype]
            _turned(source, memory, spec, splice.turn, start, cut)
            _turned(other, memory, spec, splice.other_turn, cut, end)

    def _is_uniform(self, spec: TensorSpec) -> bool:
        if not _mixes(spec):
            return False
        for kept in self._sets:
            values = _read(_values(_bytes(kept.arena), spec))
            if float(values.min()) < 0 or float(values.max()) > 1:  # in 16 bits the largest are rounded up to it
                return False
        return True

    def close(self) -> None:
        """Forget the sets that were made anew. Idempotent."""
        for made in self._fresh:
            made.arena.close()
        self._fresh, self._deck = [], []


def can_be_nudged(inputs: InputSet) -> bool:
    """Only where every tensor was drawn plainly, and scaled or shifted at most: others may depend on each other."""
    return all(inputs.independent or inputs.plain) and any(spec.dtype in _STORED and spec.nbytes for spec in leaves(inputs.tree))


def nudge(memory: Memory, like: InputSet, seed: int, *, reverse: bool = False) -> None:
    """Bring floating-point numbers nearer to zero by up to `_LAST_BITS` steps of their type, each at random. In reverse they go as
    many steps away from it, though not beyond the largest of their tensor: what was equal lies the other way then, as do sums."""
    numbers = np.random.default_rng(seed)
    target = _bytes(memory)
    for spec in leaves(like.tree):
        if spec.dtype not in _STORED or not spec.nbytes:
            continue
        values = _values(target, spec)
        bits = values.view(f"u{values.itemsize}")
        sign, infinite = (bits.dtype.type(n) for n in (1 << (8 * bits.itemsize - 1), _INFINITE[spec.dtype]))
        parts = [bits[start : start + _CHUNK] for start in range(0, bits.size, _CHUNK)]
        largest = max((part & ~sign).max(where=(part & ~sign) < infinite, initial=0) for part in parts)
        most = _LAST_BITS[bits.itemsize]
        for part in parts:
            magnitude = part & ~sign
            steps = numbers.integers(0, most, part.size, dtype=part.dtype, endpoint=True)
            moved = np.minimum(magnitude + steps, largest) if reverse else magnitude - steps
            part[...] = np.where((magnitude > most) & (magnitude < infinite), (part & sign) | moved, part)


def _mixes(spec: TensorSpec) -> bool:
    return spec.dtype in _STORED and spec.nbytes >= _LEAST_MIXED * ITEM_BYTES[spec.dtype]


def _bytes(memory: Memory) -> Bytes:
    return np.frombuffer(memory.map, np.uint8)


def _values(memory: Bytes, spec: TensorSpec) -> npt.NDArray[Any]:
    """A tensor's elements in a mapping, flat."""
    stored = np.dtype(_STORED[spec.dtype])
    return np.frombuffer(memory, stored, spec.nbytes // stored.itemsize, spec.offset)


def _read(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Numbers to calculate with: numpy has no bfloat16, which is the upper half of a float32."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32) if stored.dtype == np.float16 else stored


def _stored(values: npt.NDArray[Any], like: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same, as they are stored: a bfloat16 is rounded to the nearest, ties to even."""
    if like.dtype != np.uint16:
        return values.astype(like.dtype, copy=False)
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def _signs(rng: random.Random) -> npt.NDArray[np.float32]:
    """Plus or minus the root of a half, at random; the first ones once more at the end, so that a chunk may begin anywhere."""
    bits = np.frombuffer(rng.randbytes(-(-_SIGNS // 8)), np.uint8)
    signs = np.where(np.unpackbits(bits)[:_SIGNS], np.float32(0.5**0.5), np.float32(-(0.5**0.5)))
    return np.resize(signs, _SIGNS + _CHUNK)


def _mixed(a: Bytes, b: Bytes, target: Bytes, spec: TensorSpec, splice: Splice, signs: npt.NDArray[np.float32] | None) -> None:
    """`signs` are those of a normal draw; without them it is a uniform one."""
    first, second, out = _values(a, spec), _values(b, spec), _values(target, spec)
    wide = np.dtype(np.float64 if out.dtype == np.float64 else np.float32)
    cut = out.size if signs is not None else splice.cut
    for start in range(0, out.size, _CHUNK):
        stored = out[start : start + _CHUNK]
        part = stored if stored.dtype == wide else np.empty(stored.size, wide)
        until = min(max(cut - start, 0), part.size)
        _together(np.add, (first, start + splice.turn), (second, start + splice.other_turn), part[:until])
        begin = start + until
        _together(np.subtract, (first, begin + splice.turn), (second, begin + splice.other_turn), part[until:])
        if signs is None:
            part -= np.floor(part)
            stored[...] = _stored(part, out)
            stored[_read(stored) >= 1] = 0  # what is smaller than 1 can be rounded to it
        else:
            at = (start + splice.sign) % _SIGNS
            part *= signs[at : at + part.size]
            if part is not stored:
                stored[...] = _stored(part, out)


def _together(operation: np.ufunc, a: tuple[npt.NDArray[Any], int], b: tuple[npt.NDArray[Any], int], out: npt.NDArray[Any]) -> None:
    """Of two tensors, each from an element on and round the end, as often as it takes."""
    done = 0
    while done < out.size:
        (first, at), (second, other_at) = ((values, (start + done) % values.size) for values, start in (a, b))
        length = min(out.size - done, first.size - at, second.size - other_at)
        operation(_read(first[at : at + length]), _read(second[other_at : other_at + length]), out=out[done : done + length])
        done += length


def _turned(source: Bytes, target: Bytes, spec: TensorSpec, turn: int, start: int, end: int) -> None:
    """Fill the bytes from `start` to `end` of the tensor from its elements in `source`, which begin `turn` elements later."""
    first, size = spec.offset, spec.nbytes
    at = first + (start - first + turn * ITEM_BYTES[spec.dtype]) % size
    length = min(end - start, first + size - at)
    target[start : start + length] = source[at : at + length]
    target[start + length : end] = source[first : first + end - start - length]

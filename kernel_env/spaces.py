"""A Gymnasium space of strings of any length and any characters (`gymnasium.spaces.Text` refuses newlines and unicode)."""

from __future__ import annotations

from typing import Any

import gymnasium as gym


class TextSpace(gym.Space[str]):
    """All strings of at most `max_length` characters."""

    def __init__(self, max_length: int = 64 << 20, seed: int | None = None) -> None:
        super().__init__(shape=None, dtype=str, seed=seed)
        self.max_length = max_length

    @property
    def is_np_flattenable(self) -> bool:
        return False

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """A reply without code: valid, and worth nothing."""
        words = ["empty", "reply", "kernel", "é", "\n"]
        return " ".join(str(self.np_random.choice(words)) for _ in range(int(self.np_random.integers(1, 8))))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TextSpace) and other.max_length == self.max_length

    def __hash__(self) -> int:
        return hash((TextSpace, self.max_length))

    def __repr__(self) -> str:
        return f"TextSpace(max_length={self.max_length})"

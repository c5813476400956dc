"""What is known of two models' kernels for one problem: one line of `arena/<judge>/<model>.jsonl`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kernel_env.schema import Status

Label = Literal["A>>B", "A>B", "A=B", "B>A", "B>>A"]
LABELS: tuple[Label, ...] = ("A>>B", "A>B", "A=B", "B>A", "B>>A")
"""From A's clear win to B's. In the first game A is the baseline, in the second it is the model."""


@dataclass(frozen=True)
class Kernel:
    """One side's: the best turn of its episode."""

    status: Status
    speedup: float | None = None
    """Over the problem's reference; None where it is not correct, or has no time."""
    runtime_ms: float | None = None
    code_lines: int = 0
    """Without empty lines and comments."""
    comment_lines: int = 0

    @property
    def correct(self) -> bool:
        return self.status is Status.CORRECT


@dataclass(frozen=True)
class Game:
    """One question to the judge."""

    score: Label | None
    """None: the judge failed or gave no verdict. Such a game is asked for again by the next run."""
    judgment: str = ""
    """What the judge said, word for word; of an older file no more than the label."""
    prompt: str = ""
    error: str = ""
    """Why there is no score, in a line."""


@dataclass(frozen=True)
class Match:
    """Both games of one problem."""

    uid: str
    """Key of the episodes: `level1_problem7`, `level1_problem7_sample2`."""
    problem: str
    """`Problem.key`: what intervals are drawn over."""
    category: str
    judge: str
    model: str
    baseline: str
    decided: Literal["judge", "correctness"]
    """Where one is wrong the other one wins clearly, and where both are it is a tie; no judge is asked."""
    games: tuple[Game, Game]
    model_kernel: Kernel | None = None
    """None in an older file, which knows of no kernels."""
    baseline_kernel: Kernel | None = None

    @property
    def whole(self) -> bool:
        return all(game.score is not None for game in self.games)

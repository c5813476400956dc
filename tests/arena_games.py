"""Matches of an arena that nobody played: by hand, and drawn from strengths that are known."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from kernel_env.schema import Status, dumps
from rollout.arena.records import Game, Kernel, Label, Match

JUDGE, BASELINE = "static", "base"
SWAPPED: Mapping[Label, Label] = {"A>>B": "B>>A", "A>B": "B>A", "A=B": "A=B", "B>A": "A>B", "B>>A": "A>>B"}
NULL = Game(None, error="judge_bad_reply: no verdict in the last line")
PLAIN = Kernel(Status.CORRECT, 1.0, 2.0, 40, 4)


def correct(speedup: float | None, code: int = 40, comments: int = 4) -> Kernel:
    return Kernel(Status.CORRECT, speedup, None if speedup is None else 2 / speedup, code, comments)


def wrong(code: int = 40) -> Kernel:
    return Kernel(Status.WRONG_OUTPUT, code_lines=code)


def match(
    model: str,
    number: int,
    games: Sequence[Label | None],
    *,
    ours: Kernel | None = PLAIN,
    theirs: Kernel | None = PLAIN,
    category: str = "level1",
    decided: Literal["judge", "correctness"] = "judge",
    judge: str = JUDGE,
    baseline: str = BASELINE,
) -> Match:
    """`games` are the labels as the judge gave them: in the first one A is the baseline."""
    first, second = (NULL if label is None else Game(label, f"because\n[[{label}]]", "which one?") for label in games)
    uid = f"level1_problem{number}"
    return Match(uid, uid, category, judge, model, baseline, decided, (first, second), ours, theirs)


def fair(label: Label) -> tuple[Label, Label]:
    """Both games by a judge that sees through the order. In `label` A is the model."""
    return SWAPPED[label], label


def sensible(model: str, number: int, ours: Kernel, theirs: Kernel, category: str = "level1") -> Match:
    """As an arena plays it: correctness first, then a judge that knows what is fast."""
    if not (ours.correct and theirs.correct):
        label: Label = "A=B" if ours.correct == theirs.correct else "A>>B" if ours.correct else "B>>A"
        return match(model, number, fair(label), ours=ours, theirs=theirs, decided="correctness", category=category)
    label = "A>B" if (ours.speedup or 0) > (theirs.speedup or 0) else "B>A"
    return match(model, number, fair(label), ours=ours, theirs=theirs, category=category)


def three_models(problems: int = 20) -> dict[str, list[Match]]:
    """Against kernels as fast as the reference: all slower, all faster, and half of them wrong, the others a little faster."""
    halves = (wrong() if number % 2 else correct(1.2) for number in range(problems))
    ours = {"slow": [correct(0.5)] * problems, "fast": [correct(2.0)] * problems, "half": list(halves)}
    return {
        model: [sensible(model, number, kernel, PLAIN, f"level{1 + number % 2}") for number, kernel in enumerate(kernels, 1)]
        for model, kernels in ours.items()
    }


def write(root: Path, by_model: Mapping[str, Sequence[Match]]) -> Path:
    """The folder of the judge."""
    for model, matches in by_model.items():
        folder = root / "arena" / matches[0].judge
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{model}.jsonl").write_text("".join(f"{dumps(one)}\n" for one in matches))
    return folder


# ------------------------------------------------------------------ drawn


def drawn(strengths: Sequence[float], problems: int, seed: int, slopes: tuple[float, float] = (0.0, 0.0)) -> list[Match]:
    """The chance that a model's game is won is exactly that of its strength and of the style, whose standard deviations are 1.

    Games are alike where they are in truth: both of a match mostly end in one way, and models often fare alike on a problem.
    """
    rng = random.Random(seed)
    kernels = {
        (model, number): (_kernel(rng, 40 + 10 * model), _kernel(rng, 50))
        for model in range(len(strengths))
        for number in range(problems)
    }
    styles = {place: _style(*pair) for place, pair in kernels.items()}
    scales = [math.sqrt(sum(style[k] ** 2 for style in styles.values()) / len(styles)) for k in (0, 1)]
    common = [rng.random() for _ in range(problems)]
    found = []
    for (model, number), (ours, theirs) in kernels.items():
        level = strengths[model] + sum(b * x / scale for b, x, scale in zip(slopes, styles[model, number], scales, strict=True))
        chance = 1 / (1 + math.exp(-level))
        luck = common[number] if rng.random() < 0.4 else rng.random()
        lucks = (luck, luck if rng.random() < 0.6 else rng.random())
        clear = rng.random() < 0.3
        labels = [_label(luck < chance, clear, place) for place, luck in enumerate(lucks)]
        found.append(match(f"m{model}", number, labels, ours=ours, theirs=theirs, category=f"level{number % 3}"))
    return found


def _kernel(rng: random.Random, lines: int) -> Kernel:
    return correct(rng.lognormvariate(0, 0.4), rng.randrange(lines // 2, 2 * lines), rng.randrange(12))


def _style(ours: Kernel, theirs: Kernel) -> tuple[float, float]:
    a, b = ours.code_lines, theirs.code_lines
    return (a - b) / (a + b), ours.comment_lines / (a + ours.comment_lines) - theirs.comment_lines / (b + theirs.comment_lines)


def _label(won: bool, clear: bool, place: int) -> Label:
    if clear:
        return "A>>B" if won == bool(place) else "B>>A"
    return "A>B" if won == bool(place) else "B>A"

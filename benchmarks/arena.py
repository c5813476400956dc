"""What `kernel-env arena show` takes for many models and problems.

    python benchmarks/arena.py [--models 120] [--problems 500] [--json FILE]

Writes judgments that nobody made - both games of every match, with prompts and replies as long as real ones - and shows them in a
process of its own: wall and processor seconds of that, and the most memory it held.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kernel_env.schema import Status, dumps
from rollout.arena.records import LABELS, Game, Kernel, Label, Match

CATEGORIES = ("level1", "level2", "level3", "fusion", "matmul", "convolution", "reduction_norm", "attention_block")
PROMPT_CHARS, JUDGMENT_CHARS = 6000, 1500
"""Of one game: the problem and two kernels; and what a judge says of them."""
WORDS = ("for", "int", "float", "block", "tile", "shared", "load", "store", "warp", "sum", "max", "index", "stride", "mask", "\n")


def match(model: int, skill: float, problem: int, rng: random.Random) -> Match:
    ours, theirs = kernel(rng), kernel(rng)
    style = (ours.code_lines - theirs.code_lines) / (ours.code_lines + theirs.code_lines)
    model_wins = rng.random() < 1 / (1 + math.exp(-skill - style))
    decided = "judge" if ours.correct and theirs.correct else "correctness"
    labels = (verdict(not model_wins, rng), verdict(model_wins if rng.random() < 0.8 else not model_wins, rng))
    if decided == "correctness":
        labels = ("A=B", "A=B") if ours.correct == theirs.correct else ("B>>A", "A>>B") if ours.correct else ("A>>B", "B>>A")
    first, second = (game(label, decided == "judge", rng) for label in labels)
    return Match(
        uid=f"level1_problem{problem}",
        problem=f"level1_problem{problem}",
        category=CATEGORIES[problem % len(CATEGORIES)],
        judge="nobody",
        model=f"model-{model:03}",
        baseline="baseline",
        decided="judge" if decided == "judge" else "correctness",
        games=(first, second),
        model_kernel=ours,
        baseline_kernel=theirs,
    )


def kernel(rng: random.Random) -> Kernel:
    lines, comments = rng.randrange(20, 200), rng.randrange(0, 40)
    if rng.random() < 0.2:
        return Kernel(Status.WRONG_OUTPUT, code_lines=lines, comment_lines=comments)
    return Kernel(Status.CORRECT, rng.lognormvariate(0, 0.5), rng.uniform(0.1, 9), lines, comments)


def verdict(a_wins: bool, rng: random.Random) -> Label:
    return LABELS[rng.choice((0, 1, 1, 2)) if a_wins else rng.choice((4, 3, 3, 2))]


def game(label: Label, judged: bool, rng: random.Random) -> Game:
    if not judged:
        return Game(label)
    if rng.random() < 0.02:
        return Game(None, text(rng, JUDGMENT_CHARS), text(rng, PROMPT_CHARS), "judge_bad_reply: no verdict in the last line")
    return Game(label, f"{text(rng, JUDGMENT_CHARS)}\n[[{label}]]", text(rng, PROMPT_CHARS))


def text(rng: random.Random, characters: int) -> str:
    return " ".join(rng.choices(WORDS, k=characters // 5))


def write(root: Path, models: int, problems: int) -> int:
    """Returns the bytes written."""
    folder = root / "arena" / "nobody"
    folder.mkdir(parents=True)
    for model in range(models):
        rng = random.Random(model)
        skill = rng.gauss(0, 1)
        lines = "".join(f"{dumps(match(model, skill, problem, rng))}\n" for problem in range(1, problems + 1))
        (folder / f"model-{model:03}.jsonl").write_text(lines)
    return sum(path.stat().st_size for path in folder.iterdir())


def show(root: Path) -> dict[str, float]:
    """The command in a process of its own."""
    code = f"from pathlib import Path; from rollout.arena.show import show; show(Path({str(root)!r}))"
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"it failed with {os.waitstatus_to_exitcode(status)}")
    return {
        "wall_s": time.perf_counter() - started,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=120)
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        size = write(Path(directory), given.models, given.problems)
        found = show(Path(directory))
    print(
        f"{given.models} models x {given.problems} problems, {size / 1e6:.0f} MB of judgments: shown in {found['wall_s']:.1f} s "
        f"({found['cpu_s']:.1f} s of processor time), at most {found['peak_bytes'] / 1e9:.2f} GB"
    )
    if given.json is not None:
        given.json.write_text(
            json.dumps({"models": given.models, "problems": given.problems, "bytes": size, **found}, indent=2) + "\n"
        )


if __name__ == "__main__":
    main()

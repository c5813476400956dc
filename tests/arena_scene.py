"""Runs of models that nobody asked, to be held against each other: each episode is one kernel, correct at some speed or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kernel_env.errors import JudgeBadReply
from kernel_env.schema import Episode, Problem, Status, StopReason
from rollout.arena.comparing import Judgment, Question
from rollout.arena.pairing import Pairing, paired, read_answers
from rollout.arena.records import Label
from rollout.store import RunReader, open_run
from tests.sample_run import ENVIRONMENT, problem, run_info, save, turn
from tests.test_judge_static import GOOD, LOOP, SOURCE, cpp

BETTER = cpp("return extension.scale(x, 2.0)", SOURCE.replace(LOOP, f"  #pragma omp parallel for simd\n{LOOP}"))
"""With threads and vector instructions, which GOOD has not."""
DECOY = cpp("extension.scale(x, 2.0)\n        return torch.relu(x) * 2.0")
"""Its kernel's result is thrown away."""
CONFIG = "backend:\n  name: {}\n"


@dataclass(frozen=True)
class Made:
    """One episode. Without a speedup it is wrong."""

    speedup: float | None = 1.0
    code: str = GOOD


def write_run(root: Path, name: str, kernels: Sequence[Made | None], *, backend: str = "cpp", level: int = 1) -> RunReader:
    """`level1_problem1` and on; an episode that is None was never played."""
    keys = [problem(number, level).key for number in range(1, len(kernels) + 1)]
    with open_run(root, run_info(name, asked=keys), CONFIG.format(backend), ENVIRONMENT) as store:
        for number, made in enumerate(kernels, 1):
            if made is not None:
                save(store, episode(problem(number, level), made, backend))
    return RunReader(root / name)


def episode(posed: Problem, made: Made, backend: str = "cpp") -> Episode:
    right = made.speedup is not None
    status, reward = (Status.CORRECT, 1.0 + made.speedup) if made.speedup is not None else (Status.WRONG_OUTPUT, 0.0)
    only = turn(0, status, reward, speedup=made.speedup, posed=posed)
    only = replace(only, code=made.code, verdict=replace(only.verdict, backend=backend))
    return Episode(posed, 0, (only,), StopReason.SOLVED if right else StopReason.TURN_LIMIT)


def pairing(root: Path, model: Sequence[Made], baseline: Sequence[Made], *, judge: str = "scripted") -> Pairing:
    runs = [read_answers(write_run(root, name, kernels)) for name, kernels in (("m", model), ("base", baseline))]
    return paired(judge, *runs)


class Scripted:
    """A judge that says the same of all, and fails on some."""

    name = "scripted"

    def __init__(self, label: Label = "A>B", fails: Sequence[int] = ()) -> None:
        """`fails`: which questions, by number from 0."""
        self.asked: list[Question] = []
        self._label, self._fails = label, fails

    async def compare(self, question: Question) -> Judgment:
        self.asked.append(question)
        if len(self.asked) - 1 in self._fails:
            raise JudgeBadReply("out of\norder")
        return Judgment(f"Because.\n[[{self._label}]]", "the prompt")

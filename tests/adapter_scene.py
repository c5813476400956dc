"""What the tests of adapters that step through an episode play: recorded replies with their real verdicts, and scripted ones."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

from kernel_env.env import KernelBenchEnv
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.slots import ORDINARY, Order
from kernel_env.schema import Candidate, Problem, Status, Verdict
from kernel_env.verifier import BlockingVerifier
from tests.eval_server import found
from tests.judge_server import PATIENCE_S
from tests.players import Checker
from tests.sample_run import problem
from tests.test_recordings import EXPECTED, problems_of, recorded

NAME = "bundled/cpp"
RECORDED = problems_of(NAME)["level1_problem1"]
"""Its three recorded replies go from wrong to right."""
REPLIES = [text for key, text in recorded(NAME).items() if key.startswith(f"{RECORDED.key}_turn")]
STATUSES = [status for key, status in json.loads(EXPECTED.read_text())[NAME].items() if key.startswith(f"{RECORDED.key}_turn")]

PROBLEMS = [problem(number) for number in range(1, 9)]
MANY = len(PROBLEMS)


def reply(problem_key: str, turn: int) -> str:
    """Other code for each turn of each problem."""
    return f"```python\nclass ModelNew:  # {problem_key} turn {turn}\n    pass\n```\n"


def played(verifier: BlockingVerifier, of: Problem, turns: int, seed: int = 0) -> list[dict[str, object]]:
    """`info` of each step, as the Gymnasium environment has it."""
    env = KernelBenchEnv([of], max_turns=turns, verifier=verifier)
    env.reset(seed=seed)
    return [env.step(reply(of.key, turn))[-1] for turn in range(turns)]


class Together(Checker):
    """A verifier that answers nobody before `MANY` are waiting."""

    def __init__(self) -> None:
        all_there = asyncio.Barrier(MANY)

        async def wait(_: str) -> None:
            async with asyncio.timeout(PATIENCE_S):
                await all_there.wait()

        super().__init__(wait)


class Blind(Checker):
    """The machine has no such device."""

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order = ORDINARY
    ) -> Verdict:
        return found(problem, candidate, seed, Status.NEEDS_DEVICE)


def guide(word: str, language: str = "python") -> str:
    """The one example of docs/train.md that has this word."""
    text = (Path(__file__).parents[1] / "docs" / "train.md").read_text()
    (example,) = [code for code in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) if word in code]
    return str(example)

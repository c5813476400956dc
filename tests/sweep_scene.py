"""A folder in which sweeps of recorded policies can run: problems, and replies of any number of policies for both back ends.

A policy is a letter. Small ones write kernels, all of them of the same few, so that few are built; large ones write none, so that
nothing has to be verified.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from kernel_env.schema import episode_key
from rollout.policies import Capabilities, Spent
from tests.conftest import GOOD, REFERENCE, python_candidate

BAD = python_candidate("return extension.scaled_relu(x, 1.9)")
TRITON = """
import torch
import triton
import triton.language as tl


@triton.jit
def kernel(x, y, n, scale, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.maximum(tl.load(x + at, mask=at < n), 0.0) * scale, mask=at < n)


class ModelNew(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        y = torch.empty_like(x)
        kernel[(triton.cdiv(x.numel(), 256),)](x, y, x.numel(), self.scale, BLOCK=256)
        return y
"""
SOURCES = {"cpp": (GOOD, BAD), "triton": (TRITON, TRITON.replace("0.0) * scale", "0.1) * scale"))}
"""By back end, one that is right and one that is wrong."""
COMMAND = (
    "eval", "--multirun", "problems=jsonl", "problems.path=problems.jsonl", "backend=cpp,triton", "problems.profile=full",
    "verifier.clock=recorded", "verify.num_correct_trials=1", "verify.torch_ops=unchecked", "run.seed=7", "run.name=s",
    "run.allow_zero=true",
)  # fmt: skip


def policies(names: str) -> str:
    """The override that sweeps policies of the scene."""
    return "policy.path=" + ",".join(f"replies/{name}/${{backend.name}}" for name in names)


def furnish(folder: Path, names: str, problems: int, samples: int = 1) -> None:
    """Problems `level1_problem1` and on, and a recorded policy for each letter of `names`."""
    lines = [
        {"label": REFERENCE, "extra_info": {"level": 1, "problem_id": str(number), "problem_name": f"ScaledRelu{number}"}}
        for number in range(1, problems + 1)
    ]
    (folder / "problems.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for which, name in enumerate(names):
        for backend, (good, bad) in SOURCES.items():
            replies = folder / "replies" / name / backend
            replies.mkdir(parents=True)
            for number in range(1, problems + 1):
                for sample in range(samples):
                    said = [f"{name} has no code\n"] * 2 if name.isupper() else _said(good, bad, which + number + sample)
                    for turn, text in enumerate(said):
                        key = episode_key(f"level1_problem{number}", sample)
                        (replies / f"{key}_turn{turn}.txt").write_text(text)


def _said(good: str, bad: str, kind: int) -> list[str]:
    """The replies of one episode: right at once, right at last, or never."""
    right, wrong, none = f"```python\n{good}```\n", f"Hm.\n```python\n{bad}```\n", "no code\n"
    return [[right], [none, wrong, right], [none, none]][kind % 3]


# ------------------------------------------------------------------ what makes everything fail


def break_compiler(folder: Path) -> Path:
    """A directory for PATH with a compiler that compiles nothing."""
    program = folder / "broken/g++"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 'fatal error: no input files' >&2\nexit 1\n")
    program.chmod(0o755)
    return program.parent


class Wrapper:
    """A policy with a fault: it lacks an attribute that it wants itself."""

    def __init__(self, model: str, endpoint: object = None, *, now: Callable[[], float]) -> None:
        self.capabilities, self.spent = Capabilities(), Spent()
        self.name = f"wrapper/{model}"

    def covers(self, episode: str) -> bool:
        return True

    async def preflight(self) -> None: ...
    async def aclose(self) -> None: ...

    async def generate(self, request: object) -> object:
        return self.model_name  # type: ignore[attr-defined]


WRAPPER = f"{__name__}:Wrapper"
"""As `rollout.policies.BACK_ENDS` names it."""

"""Runs that nobody played: real conversations about verdicts that are drawn at random, with every way for an episode to end."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, replace
from pathlib import Path

from kernel_env.episode import EpisodeConfig, EpisodeState
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.slots import ORDINARY, Order
from kernel_env.reward import reward_config
from kernel_env.schema import Candidate, Episode, Generation, Problem, Stage, Status, StopReason, Timing, Usage, Verdict
from rollout.compare import Run
from rollout.documents import RunInfo
from rollout.report import write_report
from rollout.store import RunReader, open_run
from tests.sample_run import problem, save, timing

MACHINE = {"cpu": "two cores", "cores": 2, "gpus": []}
FAILED = {
    Status.BUILD_ERROR: (Stage.BUILD, ""),
    Status.RUNTIME_ERROR: (Stage.TRIALS, "RuntimeError"),
    Status.WRONG_OUTPUT: (Stage.TRIALS, "values"),
    Status.CRASHED: (Stage.TRIALS, "SIGSEGV"),
    Status.OUT_OF_MEMORY: (Stage.TRIALS, ""),
    Status.TIMEOUT: (Stage.TIMING, ""),
}


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    problems: int = 8
    samples: int = 3
    max_turns: int = 3
    skill: float = 0.4
    """Chance that a kernel is correct; those that are get faster with it."""
    failures: float = 0.0
    """Chance that an episode does not run to its end, and likewise that this machine cannot judge a turn."""
    preset: str = "seed"
    history: str = "accumulate"


class Drawn:
    """A verifier whose verdicts come from a generator."""

    def __init__(self, rng: random.Random, recipe: Recipe) -> None:
        self._rng, self._recipe = rng, recipe

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order = ORDINARY
    ) -> Verdict:
        rng, recipe = self._rng, self._recipe
        status, times = Status.CORRECT, None
        if rng.random() < recipe.failures / 3:
            status, (stage, category) = Status.NEEDS_DEVICE, (Stage.LOAD, "")
        elif rng.random() < recipe.skill:
            stage, category = Stage.DONE, ""
            times = self._timing()
        else:
            status = rng.choice(list(FAILED))
            stage, category = FAILED[status]
        return Verdict(
            status=status,
            stage=stage,
            problem=problem.key,
            problem_digest=problem.digest,
            candidate_digest=candidate.digest,
            backend=candidate.backend,
            profile="cpu",
            category=category,
            message="" if status is Status.CORRECT else f"seen: {status}",
            timing=times,
            timing_note="not measured" if status is Status.CORRECT and times is None else "",
            trials=5,
            trials_passed=5 if status is Status.CORRECT else 0,
            tolerance="strict",
            duration_ms=rng.uniform(100, 3000),
        )

    def _timing(self) -> Timing | None:
        """None now and then: correct, and not measured. And now and then nobody knows what the machine could do."""
        if self._rng.random() < 0.1:
            return None
        drawn = timing(self._rng.lognormvariate(self._recipe.skill, 0.5))
        return replace(drawn, light_ms=drawn.baseline.median_ms / 4) if int(drawn.speedup * 1000) % 5 else drawn

    async def aclose(self) -> None: ...


def reply(rng: random.Random) -> Generation:
    code = f"```python\nclass ModelNew: ...  # {rng.random()}\n```"
    text = rng.choice(["<think>hm</think>\n" + code, code, code, code, "I cannot.", "```python\nclass ModelNew:"])
    return Generation(text, usage=Usage(rng.randrange(500, 900), rng.randrange(50, 400)), model="m", duration_s=rng.uniform(1, 9))


def episode(posed: Problem, sample: int, recipe: Recipe) -> Episode | None:
    """None: it has not ended."""
    rng = random.Random(f"{recipe.seed} {posed.key} {sample}")
    config = EpisodeConfig(max_turns=recipe.max_turns, reward=reward_config(recipe.preset), history=recipe.history)
    state = EpisodeState(posed, config, seed=1)

    async def play() -> None:
        while not state.done:
            await state.step(reply(rng), Drawn(rng, recipe))

    asyncio.run(play())
    assert state.stop_reason is not None
    ended = Episode(posed, sample, tuple(state.turns), state.stop_reason)
    if rng.random() >= recipe.failures:
        return ended
    cut = replace(ended, turns=ended.turns[: rng.randrange(len(ended.turns) + 1)], stop_reason=StopReason.CANCELLED)
    kept = replace(cut, turns=cut.turns[:1], stop_reason=StopReason.EXHAUSTED)
    infra = replace(cut, stop_reason=StopReason.INFRA_ERROR, error="verifier: a referee died")
    policy = replace(cut, turns=(), stop_reason=StopReason.POLICY_FAILURE, error="endpoint_unreachable: nobody answers")
    return rng.choice([None, cut, kept, infra, policy])


def episodes(recipe: Recipe) -> list[Episode]:
    """Those that ended."""
    posed = [replace(problem(number), profile="cpu") for number in range(1, recipe.problems + 1)]
    found = [episode(each, sample, recipe) for each in posed for sample in range(recipe.samples)]
    return [each for each in found if each is not None]


def info(recipe: Recipe, name: str = "r") -> RunInfo:
    keys = [f"level1_problem{number}" for number in range(1, recipe.problems + 1)]
    asked = tuple(key if sample == 0 else f"{key}_sample{sample}" for key in keys for sample in range(recipe.samples))
    correct = reward_config(recipe.preset).correct
    return RunInfo(name, "openai/m", 7, asked, recipe.max_turns, gamma=0.4, correct_reward=correct)


def config_text(recipe: Recipe) -> str:
    prices = "price_per_million_prompt: 0.5\n  price_per_million_completion: 1.5"
    return f"policy:\n  {prices}\nreward:\n  preset: {recipe.preset}\n  correct: {reward_config(recipe.preset).correct}\n"


def run(recipe: Recipe, name: str = "r") -> Run:
    """As `compare` reads one, without a directory."""
    ended = tuple(episodes(recipe))
    settings = {"reward.preset": recipe.preset}
    return Run(name, info(recipe, name), MACHINE, settings, {e.problem.key: e.problem for e in ended}, ended, lambda usage: None)


def write(root: Path, recipe: Recipe, name: str = "r") -> RunReader:
    """On disk, with its report."""
    with open_run(root, info(recipe, name), config_text(recipe), MACHINE) as store:
        for ended in episodes(recipe):
            save(store, ended)
        write_report(store)
        return RunReader(store.path)

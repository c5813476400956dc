"""A policy and a verifier whose answers follow from the question alone, however long they take, and that count what is in progress.

What a candidate is worth follows from its text: the reply to turn 1 of `level1_problem2_sample3` always gets the same verdict.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from kernel_env.errors import VerifierError
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.slots import ORDINARY, Order
from kernel_env.schema import Candidate, Generation, Problem, Stage, Stats, Status, Timing, Verdict
from rollout.policies import Capabilities, GenerationRequest, Spent

Wait = Callable[[str], Awaitable[object]]
"""Told what is asked for (`level1_problem2_sample3 turn 1`, or the digest of a candidate), it takes its time, or raises."""


async def at_once(what: str) -> None:
    """Without letting anybody else run."""


class Busy:
    """Counts what is in progress."""

    def __init__(self) -> None:
        self.now = self.most = self.cancelled = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            yield
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1


def code(request: GenerationRequest) -> str:
    return f"class ModelNew:  # {request.episode} turn {request.turn}\n    pass\n"


class Writer:
    """The policy."""

    name = "writer"

    def __init__(self, wait: Wait = at_once, capabilities: Capabilities | None = None) -> None:
        self.capabilities = capabilities or Capabilities()
        self.busy = Busy()
        self.spent = Spent()
        self.asked: list[str] = []
        self._wait = wait

    async def preflight(self) -> None: ...
    async def aclose(self) -> None: ...

    def covers(self, episode: str) -> bool:
        return True

    async def generate(self, request: GenerationRequest) -> Generation:
        what = f"{request.episode} turn {request.turn}"
        self.asked.append(what)
        with self.busy.one():
            await self._wait(what)
        return Generation(f"```python\n{code(request)}```\n", model=self.name)


class Checker:
    """The verifier, with as many slots as anybody wants."""

    def __init__(self, wait: Wait = at_once) -> None:
        self.busy = Busy()
        self._wait = wait

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order = ORDINARY
    ) -> Verdict:
        with self.busy.one():
            await self._wait(candidate.digest)
        return verdict(problem, candidate, seed)

    async def aclose(self) -> None: ...


class Fails:
    """A scripted verifier that fails where it is told to, by the ordinal numbers of its questions."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        self._fails, self._asked = fails, 0

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order = ORDINARY
    ) -> Verdict:
        self._asked += 1
        if self._fails(self._asked):
            raise VerifierError("nobody can tell")
        return verdict(problem, candidate, seed)

    async def aclose(self) -> None: ...


def verdict(problem: Problem, candidate: Candidate, seed: int) -> Verdict:
    """Of three candidates about one is wrong, one slower than the reference, and one 1.5 times as fast: no episode is solved."""
    kind = int(hashlib.sha256(candidate.code.encode(errors="surrogatepass")).hexdigest(), 16) % 3
    correct = kind > 0
    return Verdict(
        status=Status.CORRECT if correct else Status.WRONG_OUTPUT,
        stage=Stage.DONE if correct else Stage.TRIALS,
        problem=problem.key,
        problem_digest=problem.digest,
        candidate_digest=candidate.digest,
        backend=candidate.backend,
        timing=_timing(0.8 if kind == 1 else 1.5) if correct else None,
        trials_passed=5 if correct else 0,
        trials=5,
        seed=seed,
    )


def _timing(speedup: float) -> Timing:
    ours, theirs = (Stats(ms, ms, 0.0, ms, ms, 5) for ms in (1.0, speedup))
    return Timing(ours, theirs, speedup, speedup, speedup)

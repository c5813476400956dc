"""An evaluation server for tests: the real thing, in a thread or a process, with a verifier that follows a script.

with EvalServer(scripted := Scripted()) as server:
    verdict = server.verdict(job("hang"))

python -m tests.eval_server [OPTION=VALUE ...]      # the same as a process of its own; says its address
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kernel_env import errors
from kernel_env.processes import die_with_parent
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.slots import ORDINARY, Order
from kernel_env.remote.config import ServerConfig
from kernel_env.remote.server import serve
from kernel_env.remote.wire import Answer, Job, write
from kernel_env.schema import Candidate, Problem, Stage, Status, Verdict, from_json
from kernel_env.verifier import Verifier
from rollout.options import typed
from tests.judge_server import PATIENCE_S, ServerThread
from tests.players import Busy, verdict

PROBLEM = Problem(1, 1, "Doubled", "class Model: ...", origin="test")


class Scripted:
    """What becomes of a candidate is the first line of its code: `hang`, `wait SECONDS`, `held` (until `let_go`), `raise CLASS`,
    `break`, `STATUS`; anything else is judged by its text."""

    def __init__(self) -> None:
        self.busy = Busy()
        self.verified: list[str] = []
        """The code of each, as they came."""
        self.asked: list[tuple[VerifyConfig, int, Order]] = []
        self.let_go = threading.Event()

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order = ORDINARY
    ) -> Verdict:
        self.verified.append(candidate.code)
        self.asked.append((config, seed, order))
        with self.busy.one():
            match candidate.code.partition("\n")[0].split():
                case ["hang"]:
                    await asyncio.Event().wait()
                case ["wait", seconds]:
                    await asyncio.sleep(float(seconds))
                case ["held"]:
                    await until_async(self.let_go.is_set)
                case ["raise", name]:
                    raise getattr(errors, name)("it was\nthe script's wish")
                case ["break"]:
                    raise RuntimeError("a fault of ours")
                case [word] if word in set(Status):
                    return found(problem, candidate, seed, Status(word))
        return verdict(problem, candidate, seed)

    async def aclose(self) -> None: ...


def found(problem: Problem, candidate: Candidate, seed: int, status: Status) -> Verdict:
    stage = {Status.BUILD_ERROR: Stage.BUILD, Status.NEEDS_DEVICE: Stage.BUILD}.get(status, Stage.TRIALS)
    told = replace(verdict(problem, candidate, seed), timing=None, trials_passed=0, status=status, stage=stage)
    return replace(told, category="words", message="what was seen")


def job(code: str, **given: Any) -> dict[str, Any]:
    """As JSON. Without an id, as a person would write it."""
    made: dict[str, Any] = json.loads(write(Job(PROBLEM, Candidate(code, "cpp"), seed=7)))
    return {name: value for name, value in made.items() if name != "id"} | given


def expected(code: str, seed: int = 7) -> Verdict:
    return verdict(PROBLEM, Candidate(code, "cpp"), seed)


class EvalServer(ServerThread):
    """`verifier` is made in the server's own event loop where it is a function."""

    def __init__(self, verifier: Verifier | Callable[[], Verifier], **config: Any) -> None:
        self._config = ServerConfig(**{"port": 0, "drain_s": 0.02} | config)
        self._given = verifier
        super().__init__(self._served)

    async def _served(self, on_listening: Callable[[str], None], stop: asyncio.Event) -> None:
        verifier = self._given() if callable(self._given) else self._given
        try:
            await serve(verifier, self._config, on_listening, stop)
        finally:
            await verifier.aclose()

    def verdict(self, asked: object) -> Verdict:
        answer = self.post("/verify", asked)
        assert answer.status == 200, answer
        return from_json(Answer, answer.json).verdict


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


async def until_async(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.01)


# ------------------------------------------------------------------ in a process of its own


@dataclass(frozen=True)
class Child:
    process: subprocess.Popen[str]
    url: str


@contextmanager
def child(*options: str) -> Iterator[Child]:
    command = [sys.executable, "-m", "tests.eval_server", *options]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            yield Child(process, process.stdout.readline().strip())
        finally:
            process.kill()


def main(arguments: Sequence[str]) -> None:
    die_with_parent()
    given: Any = typed(_Options, arguments)
    config = ServerConfig(port=given.port, queue=given.queue, drain_s=given.drain_s)
    asyncio.run(serve(Scripted(), config, lambda address: print(address, flush=True)))


@dataclass(frozen=True)
class _Options:
    port: int = 0
    queue: int = 1000
    drain_s: float = 30.0


if __name__ == "__main__":
    main(sys.argv[1:])

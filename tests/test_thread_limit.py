"""One candidate's threads, another candidate's threads."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace

from kernel_env.schema import Candidate, Problem, Status
from kernel_env.verifier import LocalVerifier, VerifierConfig
from tests.conftest import QUICK, python_candidate
from tests.kill_harness import descendants

THREADS = """import threading, time
try:
    for _ in range(600):
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
except RuntimeError:
    pass
open('full', 'w').close()
time.sleep(60)"""
STARTS_ONE = "import threading\nthread = threading.Thread(target=lambda: None); thread.start(); thread.join()"


def test_as_many_threads_as_one_may_have_leave_the_others_theirs(problem: Problem) -> None:
    """The limit is one for each runner, not one for all runners of this user together."""
    config = replace(QUICK, num_correct_trials=1, measure_performance=False, timeout_s=60)

    def threads() -> int:
        found = 0
        for process in descendants(os.getpid()):
            with contextlib.suppress(OSError):
                found = max(found, len(os.listdir(f"/proc/{process.pid}/task")))
        return found

    async def scenario() -> None:
        verifier = LocalVerifier(VerifierConfig(slots=2))
        try:
            bomb = Candidate(python_candidate("return mine(x, self.scale)", top=THREADS), "cpp")
            task = asyncio.create_task(verifier.verify(problem, bomb, config, 1))
            while threads() < 400 and not task.done():  # noqa: ASYNC110 - another process does it
                await asyncio.sleep(0.05)
            assert not task.done()
            honest = Candidate(python_candidate("return mine(x, self.scale)", top=STARTS_ONE), "cpp")
            verdict = await verifier.verify(problem, honest, config, 1)
            assert verdict.status is Status.CORRECT, verdict.message
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        finally:
            await verifier.aclose()

    asyncio.run(scenario())

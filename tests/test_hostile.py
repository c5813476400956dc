"""Hostile candidates, one after the other: each has its verdict, none leaves anything behind, and the next honest one is correct.

How fast that one is, `benchmarks/hostile.py` tells: a test that looks at a clock says nothing on a busy machine. What is bounded
here is generous, to notice what never ends.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_env.referee import batches
from kernel_env.referee.process import PREPARED
from kernel_env.sandbox import Layer
from kernel_env.schema import Candidate, Status, Verdict
from kernel_env.verifier import LocalVerifier, VerifierConfig
from tests.conftest import QUICK, python_candidate
from tests.hostile import ALONE, HONEST, KINDS, LIMIT_S, PROBLEM, Kind, sequence, wrong
from tests.kill_harness import descendants
from tests.traces import Traces

GUARD_S = 60.0
"""Beyond its limit no verdict takes so long, on any machine."""
MOST_GROWN_MB = 64
"""A worker's allocator gives nothing back, and keeps what the largest frame took: four megabytes of JSON."""


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary files of the test's own."""
    with tempfile.TemporaryDirectory(prefix="ke-") as directory:
        monkeypatch.setenv("TMPDIR", directory)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(directory)


@asynccontextmanager
async def verifying(*, alone: bool = False, slots: int = 1, build_slots: int = 0) -> AsyncIterator[LocalVerifier]:
    """A verifier that has given a verdict already. When it is closed, nothing of it is left."""
    none = Traces.now()
    config = VerifierConfig(slots=slots, build_slots=build_slots, sandbox_without=ALONE if alone else ())
    verifier = LocalVerifier(config)
    try:
        first, *_ = await asyncio.gather(*(honest(verifier) for _ in range(slots)))
        if Layer.SECCOMP not in first.isolation:
            pytest.skip("without the filter of system calls, bombs would go off")
        yield verifier
    finally:
        await verifier.aclose()
        await asyncio.sleep(0)  # asyncio closes a socket in the loop's next turn
    locks = f"{tempfile.gettempdir()}/kernel-env-{os.getuid()}"
    assert [line for line in none.left(Traces.now()) if locks not in line] == []


async def guarded(verdict: Awaitable[Verdict]) -> Verdict:
    async with asyncio.timeout(LIMIT_S + GUARD_S):
        return await verdict


async def honest(verifier: LocalVerifier) -> Verdict:
    verdict = await guarded(verifier.verify(PROBLEM, HONEST.candidate(0), QUICK, 1))
    assert verdict.status is Status.CORRECT and verdict.timing is not None, verdict.message
    return verdict


async def play(kinds: Iterable[tuple[int, Kind]], *, alone: bool, looks: int) -> None:
    """Their verdicts, and what is there after every `looks` of them."""
    others = await waiting_elsewhere()
    async with verifying(alone=alone) as verifier:
        before = await at_rest(others)
        assert {held.name for held in before.processes.values()} >= {"worker", "zygote"}
        for number, kind in kinds:
            verdict = await guarded(verifier.verify(PROBLEM, kind.candidate(number), kind.config, number))
            assert wrong(kind, verdict) == ""
            if number % looks == 0:
                await as_before(before, f"after one that {kind.name}")
        await honest(verifier)
        after = await as_before(before, "in the end")
        assert {name: mb for name, (mb, _) in before.grown(after).items() if mb > MOST_GROWN_MB} == {}


ON_DISK = (
    "stops itself", "forks in Python for ever", "starts Python threads until one fails", "fills the disk with a file",
    "fills the disk with small files", "digs directories without end", "makes directories that nobody can enter",
    "makes names that are no text", "kills itself", "has set an alarm", "makes shared memory and queues",
)  # fmt: skip
"""Kinds to which it makes a difference that namespaces are forbidden."""


def test_each_kind_has_its_verdict_and_leaves_nothing() -> None:
    asyncio.run(play(enumerate(KINDS), alone=False, looks=1))


def test_nothing_is_left_where_namespaces_are_forbidden() -> None:
    kinds = [kind for kind in KINDS if kind.name in ON_DISK]
    assert len(kinds) == len(ON_DISK)
    asyncio.run(play(enumerate(kinds), alone=True, looks=1))


@pytest.mark.slow
@pytest.mark.parametrize("alone", [False, True], ids=["all layers", "namespaces forbidden"])
def test_a_thousand_in_a_row_leave_nothing(alone: bool) -> None:
    asyncio.run(play(sequence(1000), alone=alone, looks=50))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="two slots need two cores")
@pytest.mark.parametrize(
    "hostile",
    [
        "time.sleep(1000)",
        pytest.param("while True: os.write(1, b'x' * 65536)", marks=pytest.mark.thorough),
        "while True:\n            with suppress(OSError): os.fork()",
        pytest.param("for i in range(1 << 40): open(f'file-{i % 9000}', 'w').close()", marks=pytest.mark.thorough),
    ],
    ids=["hangs", "floods", "forks", "files"],
)
def test_an_honest_verdict_comes_while_a_hostile_one_is_still_at_it(temporary: Path, hostile: str) -> None:
    """Each in a slot of its own. It is the order of events that counts: the hostile one has not ended when the honest one has."""
    code = python_candidate(
        f"open('called', 'w').close()\n        {hostile}", top="import os, time\nfrom contextlib import suppress"
    )

    async def scenario() -> None:
        async with verifying(slots=2) as verifier:
            known = Traces.now().processes
            config = replace(QUICK, timeout_s=1000.0)
            hanging = asyncio.create_task(verifier.verify(PROBLEM, Candidate(code, "cpp"), config, 1))
            await until(lambda: called(temporary))
            for _ in range(2):
                await honest(verifier)
                assert not hanging.done() and called(temporary)
            hanging.cancel()
            with suppress(asyncio.CancelledError):
                await hanging
            await until(
                lambda: all(p.pid in known or p.waiting for p in descendants(os.getpid()))
            )  # the zygote ends a gone worker's runners
            await honest(verifier)

    asyncio.run(scenario())


async def waiting_elsewhere() -> int:
    """How many runners wait for a verifier of other tests, once it has forked them."""
    seen: list[int] = []
    for _ in range(int(GUARD_S / 0.1)):
        seen.append(Traces.now().waiting)
        if len(seen) > 10 and len(set(seen[-10:])) == 1:
            return seen[-1]
        await asyncio.sleep(0.1)
    raise AssertionError("it never came to rest")


async def at_rest(others: int) -> Traces:
    """What is there when nothing more comes or goes: runners for the next job are forked, and those of the last one end, while
    nobody waits for that. `others` wait for a verifier of other tests."""
    gc.collect()  # what other tests left to it
    before = Traces.now()
    for _ in range(int(GUARD_S / 0.1)):
        await asyncio.sleep(0.1)
        after = Traces.now()
        if after.waiting == others + sum(PREPARED.values()) and not before.left(after):
            return after
        before = after
    raise AssertionError("it never came to rest")


async def as_before(before: Traces, when: str) -> Traces:
    """What is on its way has a moment to end; what is left stays."""
    deadline = time.monotonic() + 10
    while left := before.left(after := Traces.now()):
        assert time.monotonic() < deadline, f"{when}: {left}"
        await asyncio.sleep(0.02)
    return after


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.01)


def called(temporary: Path) -> bool:
    """Whether a forward was called: a file in the scratch directory of a runner, which only the runner sees."""
    for process in descendants(os.getpid()):
        with suppress(OSError):  # it just ended
            if any(Path(f"/proc/{process.pid}/root{temporary}").rglob("called")):
                return True
    return False


@pytest.mark.parametrize("place", ["forward", "timed"])
def test_an_honest_one_among_hostile_ones_of_its_batch_has_its_verdict_and_so_have_they(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "WAIT_S", GUARD_S)
    kinds = [kind for kind in KINDS if kind.place == place and not kind.ends & {"correct"}][: batches.MOST_TOGETHER - 1]
    kinds.insert(len(kinds) // 2, HONEST)
    config = replace(kinds[0].config, measure_performance=True)

    async def scenario() -> None:
        others = await waiting_elsewhere()
        async with verifying(build_slots=1) as verifier:  # one worker for all
            before = await at_rest(others)
            asked = [verifier.verify(PROBLEM, kind.candidate(number), config, 1) for number, kind in enumerate(kinds)]
            for kind, verdict in zip(kinds, await asyncio.gather(*asked), strict=True):
                assert wrong(kind, verdict) == ""
                assert (verdict.timing is not None) is verdict.correct
            await as_before(before, "after the batch")

    asyncio.run(scenario())

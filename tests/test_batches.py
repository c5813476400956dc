"""Candidates that wait for a slot at the same time: who goes with whom, and what becomes of the others when one leaves."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kernel_env.builder import Builder, BuildResult
from kernel_env.errors import VerifierError
from kernel_env.hostlock import CoresLock
from kernel_env.referee import batches as module
from kernel_env.referee import candidate
from kernel_env.referee.batches import MOST_TOGETHER, Batches, Kind
from kernel_env.referee.bench import Oracle
from kernel_env.referee.candidate import MODEST, MODEST_BYTES, Alone, House, Job, OnTrial
from kernel_env.referee.clock import LiveClock
from kernel_env.referee.measure import Session
from kernel_env.referee.memory import private_bytes
from kernel_env.referee.pool import HelperDied
from kernel_env.referee.process import LocalEndpoint, no_builds
from kernel_env.referee.protocol import Frame
from kernel_env.referee.referee import Referee
from kernel_env.referee.slots import ORDINARY, Order, Slots
from kernel_env.referee.worker import inprocess_referee
from kernel_env.schema import Candidate, Problem, Status, Verdict
from kernel_env.verifier import LocalVerifier, VerifierConfig
from tests.conftest import GOOD, QUICK, python_candidate

ONE, OTHER = (Kind("cpp", (problem, problem, "full"), None, 1, 0) for problem in ("one", "other"))


class Workers:
    """What stands behind the slots: each job waits until the test lets it go on."""

    def __init__(self, slots: int = 1) -> None:
        self.slots = Slots([(number,) for number in range(slots)])
        self.batches = Batches(self.slots)
        self.asked: list[list[str]] = []
        self.cancelled = 0
        self.gates: list[asyncio.Future[Callable[[list[str], Callable[[Frame], None]], None]]] = []

    async def ask(self, cores: tuple[int, ...], job: Frame, tell: Callable[[Frame], None]) -> None:
        self.asked.append(job["candidates"])
        self.gates.append(asyncio.get_running_loop().create_future())
        try:
            (await self.gates[-1])(job["candidates"], tell)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def begin(self, *names: str, kind: Kind = ONE, order: Order = ORDINARY) -> list[asyncio.Task[Frame]]:
        jobs = [{"op": "verify", "candidates": [name]} for name in names]
        return [asyncio.ensure_future(self.batches.ask(self, kind, job, order)) for job in jobs]  # type: ignore[arg-type]

    async def answered(self, how: Callable[[list[str], Callable[[Frame], None]], None] | None = None) -> None:
        """Let the last job go on; without `how`, with an answer to each."""
        await until(lambda: self.gates and not self.gates[-1].done())
        self.gates[-1].set_result(how or tell_all)
        await asyncio.sleep(0.01)


def tell_all(names: list[str], tell: Callable[[Frame], None]) -> None:
    for number, name in reversed(list(enumerate(names))):
        tell({"number": number, "verdict": name})


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.001)


def play(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


async def names(tasks: list[asyncio.Task[Frame]]) -> list[str]:
    return [(await asyncio.wait_for(task, 5))["verdict"] for task in tasks]


def test_those_of_a_kind_that_wait_go_together() -> None:
    async def scenario() -> None:
        workers = Workers()
        tasks = workers.begin("a")
        await until(lambda: workers.asked)
        tasks += workers.begin("b", "c")
        others = workers.begin("x", "y", kind=OTHER)
        await asyncio.sleep(0.01)
        for _ in range(3):
            await workers.answered()
        assert workers.asked == [["a"], ["b", "c"], ["x", "y"]]
        assert await names(tasks + others) == ["a", "b", "c", "x", "y"]
        assert await workers.slots.take() == (0,), "it is free"

    play(scenario())


def test_no_more_go_together_than_may() -> None:
    async def scenario() -> None:
        workers = Workers()
        tasks = workers.begin("first")
        await until(lambda: workers.asked)
        tasks += workers.begin(*map(str, range(MOST_TOGETHER + 3)))
        await asyncio.sleep(0.01)
        for _ in range(3):
            await workers.answered()
        assert [len(asked) for asked in workers.asked] == [1, MOST_TOGETHER, 3]
        assert len(await names(tasks)) == MOST_TOGETHER + 4

    play(scenario())


def test_two_slots_have_two_batches() -> None:
    async def scenario() -> None:
        workers = Workers(slots=2)
        tasks = workers.begin(*"abcdef")
        await until(lambda: len(workers.asked) == 2)
        assert sorted(itertools.chain(*workers.asked)) == list("abcdef")
        assert [len(asked) for asked in workers.asked] == [3, 3], "an equal share each"
        for gate in workers.gates:
            gate.set_result(tell_all)
        assert await names(tasks) == list("abcdef")
        assert sorted([await workers.slots.take(), await workers.slots.take()]) == [(0,), (1,)]

    play(scenario())


def test_a_slot_waits_a_moment_for_those_that_are_coming() -> None:
    async def scenario() -> None:
        workers = Workers()
        with workers.batches.coming(ONE):
            tasks = workers.begin("a")
            await asyncio.sleep(0.02)
            assert not workers.asked
        tasks += workers.begin("b")
        await workers.answered()
        assert workers.asked == [["a", "b"]] and await names(tasks) == ["a", "b"]
        with workers.batches.coming(OTHER):
            tasks = workers.begin("c")
            await until(lambda: len(workers.asked) == 2)
            await workers.answered()
            assert await names(tasks) == ["c"]

    play(scenario())


def test_a_slot_does_not_wait_long_for_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.05)

    async def scenario() -> None:
        workers = Workers()
        with workers.batches.coming(ONE):
            tasks = workers.begin("a")
            await workers.answered()
            assert await names(tasks) == ["a"]

    play(scenario())


def test_an_answer_does_not_wait_for_the_others() -> None:
    async def scenario() -> None:
        workers = Workers()
        await_first = workers.begin("a", "b")
        told: list[Callable[[Frame], None]] = []
        done = asyncio.get_running_loop().create_future()

        async def ask(cores: tuple[int, ...], job: Frame, tell: Callable[[Frame], None]) -> None:
            told.append(tell)
            tell({"number": 1, "verdict": "b"})
            await done
            tell({"number": 0, "verdict": "a"})

        workers.ask = ask  # type: ignore[method-assign]
        assert await names(await_first[1:]) == ["b"]
        assert not await_first[0].done()
        done.set_result(None)
        assert await names(await_first[:1]) == ["a"]

    play(scenario())


def test_one_that_leaves_is_killed_and_the_others_begin_again() -> None:
    async def scenario() -> None:
        workers = Workers()
        first, second, third = workers.begin("a", "b", "c")
        await until(lambda: workers.asked)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert workers.cancelled == 1, "before its caller goes on"
        await until(lambda: len(workers.asked) == 2)
        await workers.answered()
        assert workers.asked == [["a", "b", "c"], ["b", "c"]] and await names([second, third]) == ["b", "c"]
        assert await workers.slots.take() == (0,)

    play(scenario())


def test_one_that_leaves_alone_frees_the_slot() -> None:
    async def scenario() -> None:
        workers = Workers()
        (task,) = workers.begin("a")
        await until(lambda: workers.asked)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert workers.cancelled == 1
        assert await asyncio.wait_for(workers.slots.take(), 1) == (0,)

    play(scenario())


def test_one_that_leaves_while_it_waits_is_never_asked() -> None:
    async def scenario() -> None:
        workers = Workers()
        (running,) = workers.begin("a")
        await until(lambda: workers.asked)
        waiting, other = workers.begin("b", "c")
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.sleep(0.01)
        await workers.answered()
        await workers.answered()
        assert workers.asked == [["a"], ["c"]] and await names([running, other]) == ["a", "c"]

    play(scenario())


def test_one_that_has_its_answer_takes_nothing_from_the_others() -> None:
    """It may be cancelled in the very moment in which its answer comes."""

    async def scenario() -> None:
        workers = Workers()
        first, second = workers.begin("a", "b")
        go_on = asyncio.get_running_loop().create_future()

        async def ask(cores: tuple[int, ...], job: Frame, tell: Callable[[Frame], None]) -> None:
            workers.asked.append(job["candidates"])
            tell({"number": 0, "verdict": "a"})
            first.cancel()
            await go_on
            tell({"number": 1, "verdict": "b"})

        workers.ask = ask  # type: ignore[method-assign]
        with pytest.raises(asyncio.CancelledError):
            await first
        go_on.set_result(None)
        assert await names([second]) == ["b"] and workers.asked == [["a", "b"]]

    play(scenario())


@pytest.mark.parametrize("slots", [1, 2])
@pytest.mark.parametrize("moment", range(6))
def test_whoever_leaves_at_whatever_moment_no_slot_is_lost(moment: int, slots: int) -> None:
    async def scenario() -> None:
        workers = Workers(slots)
        for leaver in range(3):
            tasks = workers.begin("a", "b", "c")
            for _ in range(moment):
                await asyncio.sleep(0)
            tasks[leaver].cancel()
            asked = len(workers.asked)
            rest = [task for number, task in enumerate(tasks) if number != leaver]
            while not all(task.done() for task in rest):
                for gate in workers.gates:
                    if not gate.done():
                        gate.set_result(tell_all)
                await asyncio.sleep(0.005)
            assert await names(rest) == [name for number, name in enumerate("abc") if number != leaver]
            assert len(workers.asked) > asked
        for _ in range(slots):
            await asyncio.wait_for(workers.slots.take(), 1)

    play(scenario())


def died(*told: int) -> Callable[[list[str], Callable[[Frame], None]], None]:
    def die(names: list[str], tell: Callable[[Frame], None]) -> None:
        for number in told:
            tell({"number": number, "verdict": names[number]})
        raise HelperDied("a referee worker died")

    return die


def test_when_a_worker_dies_those_without_an_answer_begin_again() -> None:
    async def scenario() -> None:
        workers = Workers()
        tasks = workers.begin("a", "b", "c")
        await workers.answered(died(1))
        await workers.answered(died())
        await workers.answered()
        await workers.answered()
        assert workers.asked == [["a", "b", "c"], ["a"], ["a"], ["c"]], "one by one: any of them may be what killed it"
        assert await names(tasks) == ["a", "b", "c"]

    play(scenario())


def test_when_workers_always_die_nobody_has_a_verdict() -> None:
    async def scenario() -> None:
        workers = Workers()
        tasks = workers.begin("a", "b")
        for how in (died(), died(), died(), tell_all):
            await workers.answered(how)
        with pytest.raises(VerifierError, match="3 times in a row"):
            await asyncio.wait_for(tasks[0], 5)
        assert await names(tasks[1:]) == ["b"], "another one is no victim"
        assert await asyncio.wait_for(workers.slots.take(), 1) == (0,)

    play(scenario())


def test_a_slot_where_no_times_could_be_taken_rests() -> None:
    async def scenario() -> None:
        workers = Workers(slots=2)
        tasks = workers.begin("a")

        def busy(names: list[str], tell: Callable[[Frame], None]) -> None:
            tell({"number": 0, "raised": "MachineBusy", "message": "busy"})

        await workers.answered(busy)
        assert (await tasks[0])["raised"] == "MachineBusy"
        assert await workers.slots.take() == (1,)

    play(scenario())


# ---------------------------------------------------------- real candidates

WRONG = python_candidate("return extension.scaled_relu(x, 3.0)")
CRASHING = python_candidate("import os; os._exit(3)")
FAILING = python_candidate("raise ValueError('no')")
SLOW_LATER = python_candidate(
    "calls[0] += 1\n        time.sleep(2 if calls[0] > 6 else 0); return mine(x, self.scale)", top="import time; calls = [0]"
)
GREEDY = python_candidate(
    "return extension.scaled_relu(x, self.scale)",
    init="self.held = torch.ones(400 << 18)",  # 400 MiB
)
EXPECTED = {
    GOOD: Status.CORRECT,
    GOOD + "\n# another\n": Status.CORRECT,
    WRONG: Status.WRONG_OUTPUT,
    CRASHING: Status.CRASHED,
    FAILING: Status.RUNTIME_ERROR,
    SLOW_LATER: Status.TIMEOUT,
}


async def judged(config: VerifierConfig, problem: Problem, codes: list[str], together: bool, **changes: Any) -> list[Verdict]:
    verifier = LocalVerifier(config)
    try:
        work = [verifier.verify(problem, Candidate(code, "cpp"), replace(QUICK, **changes), 7) for code in codes]
        return list(await asyncio.gather(*work)) if together else [await one for one in work]
    finally:
        await verifier.aclose()


def test_each_of_a_batch_has_the_verdict_that_it_has_alone(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times too: the wrong ones harm nobody. Those that are right are timed together."""
    monkeypatch.setattr(module, "WAIT_S", 30.0)
    found = asyncio.run(judged(VerifierConfig(), problem, list(EXPECTED), True, timeout_s=1.0))
    assert [verdict.status for verdict in found] == list(EXPECTED.values())
    assert [verdict.timing is not None for verdict in found] == [status is Status.CORRECT for status in EXPECTED.values()]
    assert all(verdict.timing is None or verdict.timing.runtime.count >= 2 for verdict in found)


def test_what_is_kept_or_shared_changes_no_verdict(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the recorded clock verdicts are equal to the byte: alone or together, with room for what is computed or without."""
    monkeypatch.setattr(module, "WAIT_S", 30.0)
    codes = [code for code in EXPECTED if code != SLOW_LATER]
    found = [
        asyncio.run(judged(VerifierConfig(clock="recorded", reuse_mb=reuse_mb), problem, codes * 2, together))
        for reuse_mb, together in itertools.product((0, 512), (False, True))
    ]
    assert all(verdicts == found[0] for verdicts in found)
    assert [verdict.status for verdict in found[0]] == [EXPECTED[code] for code in codes * 2]


def test_a_problem_that_fails_fails_for_all(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 30.0)
    broken = replace(problem, source=problem.source.replace("return torch.relu(x)", "raise KeyError('x'); return torch.relu(x)"))

    async def scenario() -> list[Any]:
        verifier = LocalVerifier()
        try:
            work = [verifier.verify(broken, Candidate(code, "cpp"), QUICK, 7) for code in (GOOD, WRONG)]
            return list(await asyncio.gather(*work, return_exceptions=True))
        finally:
            await verifier.aclose()

    found = asyncio.run(scenario())
    assert [type(error).__name__ for error in found] == ["ProblemError"] * 2


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many were verified together, each time."""
    sizes: list[int] = []
    together = Referee._together

    def noted(self: Referee, jobs: Any) -> Any:
        sizes.append(len(jobs))
        return together(self, jobs)

    monkeypatch.setattr(Referee, "_together", noted)
    return sizes


def judged_here(problem: Problem, codes: list[str], scratch: Path, **changes: Any) -> list[Any]:
    """By a referee whose runners are this process."""
    builder, lock = Builder(VerifierConfig().cache()), CoresLock(scratch)
    here = inprocess_referee(builder, LiveClock(), lock, "plain", scratch)
    outcomes = dict(here.verify([Job(problem, Candidate(code, "cpp"), replace(QUICK, **changes), 7) for code in codes]))
    return [outcomes[number] for number in range(len(codes))]


def test_one_that_holds_much_memory_is_verified_alone(
    problem: Problem, groups: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen at the limit of one would be more than a machine has. It is no fault: alone it may."""
    held = iter([0, 1 << 40, 0, 0])  # the second of three
    monkeypatch.setattr(candidate, "private_bytes", lambda pid: next(held, 0))
    found = judged_here(problem, [GOOD, GOOD + "\n# greedy\n", WRONG], tmp_path, measure_performance=False)
    assert groups == [3, 1]
    assert [verdict.status for verdict in found] == [Status.CORRECT, Status.CORRECT, Status.WRONG_OUTPUT]


def test_what_was_timed_beside_one_that_did_not_stop_is_timed_anew_alone(
    problem: Problem, groups: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "unsettled", property(lambda session: len(session.candidates) > 1))
    found = judged_here(problem, [GOOD, WRONG, GOOD + "\n# another\n"], tmp_path)
    assert groups == [3, 1, 1]
    assert [verdict.status for verdict in found] == [Status.CORRECT, Status.WRONG_OUTPUT, Status.CORRECT]
    assert found[0].timing and found[2].timing


def test_one_that_holds_much_memory_is_correct_beside_others(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 30.0)
    found = asyncio.run(judged(VerifierConfig(), problem, [GREEDY, GOOD, WRONG], True))
    assert [verdict.status for verdict in found] == [Status.CORRECT, Status.CORRECT, Status.WRONG_OUTPUT]


@pytest.mark.parametrize("room", [0, 1 << 20])
def test_no_call_of_the_reference_is_made_twice_for_a_batch(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """With room for what it gives, and without: for two batches, without times."""
    calls = [0]
    call = Oracle.call

    def counted(self: Oracle, *arguments: Any, **named: Any) -> Any:
        calls[0] += 1
        return call(self, *arguments, **named)

    monkeypatch.setattr(Oracle, "call", counted)
    builder, lock = Builder(VerifierConfig().cache()), CoresLock(tmp_path)
    here = inprocess_referee(builder, LiveClock(), lock, "plain", tmp_path, room)
    jobs = [Job(problem, Candidate(code, "cpp"), replace(QUICK, measure_performance=False), 7) for code in (GOOD, WRONG)]
    seen = []
    for _ in range(2):
        assert len(list(here.verify(jobs))) == 2
        seen.append(calls[0])
    steps = QUICK.num_correct_trials + 1  # and the one of another amplitude
    assert seen == ([steps, steps] if room else [steps, 2 * steps])


def test_how_much_memory_is_much(problem: Problem, tmp_path: Path) -> None:
    one = OnTrial(House(None, None, LiveClock()), Job(problem, Candidate(GOOD, "cpp"), QUICK, 1))
    one.runner = LocalEndpoint("candidate", tmp_path, no_builds, interpreter=False)
    held = np.ones(MODEST_BYTES + (1 << 20), np.uint8)
    mine = private_bytes(os.getpid())
    assert mine > held.size
    one.check_memory(SimpleNamespace(private_bytes=mine // MODEST))  # type: ignore[arg-type]
    with pytest.raises(Alone):
        one.check_memory(SimpleNamespace(private_bytes=0))  # type: ignore[arg-type]
    assert private_bytes(1 << 22 | 1) == 0, "no such process"


@pytest.mark.parametrize(("imports", "counts"), [(("omp_get_num_procs",), True), (("omp_get_num_threads",), False)])
def test_an_extension_may_count_cores(problem: Problem, tmp_path: Path, imports: tuple[str, ...], counts: bool) -> None:
    builder: Any = SimpleNamespace(build=lambda request: BuildResult(True, "own", imports=imports))
    one = OnTrial(House(None, builder, LiveClock()), Job(problem, Candidate(GOOD, "cpp"), QUICK, 1))  # type: ignore[arg-type]
    one.runner = LocalEndpoint("candidate", tmp_path, no_builds, interpreter=False)
    assert one._build({"sources": [], "functions": [], "compile_flags": [], "link_flags": []})["ok"]
    assert one.runner.counts_cores is counts


@pytest.mark.parametrize("weights", [1, 80_000, 200_000], ids=["small", "twice there is no room", "large"])
def test_a_problem_whose_weights_take_the_room_is_judged_again_and_again(problem: Problem, weights: int) -> None:
    """Of a megabyte: nothing that is still needed may be forgotten."""
    line = f"self.scale = scale; self.w = nn.Parameter(torch.randn({weights}))"
    heavy = replace(problem, source=problem.source.replace("self.scale = scale", line))
    code = python_candidate("return mine(x, self.scale)", init=f"self.w = nn.Parameter(torch.randn({weights}))")
    config = VerifierConfig(clock="recorded", reuse_mb=1)
    verdicts = asyncio.run(judged(config, heavy, [code, WRONG, code + "\n# again\n"], False))
    assert [verdict.status for verdict in verdicts] == [Status.CORRECT, Status.WRONG_OUTPUT, Status.CORRECT]

"""Verifiers keep going when their helpers die, leave nothing behind, and can be shared. Each test checks for leftovers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import ConfigError, MachineBusy, VerifierError
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.process import PREPARED
from kernel_env.referee.scratch import Scratch
from kernel_env.referee.slots import Order
from kernel_env.schema import Candidate, Problem, Status, Verdict
from kernel_env.verifier import BlockingVerifier, LocalVerifier, SocketVerifier, Verifier, VerifierConfig, VerifierServer
from tests.conftest import GOOD, python_candidate, sampled
from tests.kill_harness import Attempt, Harness, Process, Target, descendants

QUICK = VerifyConfig(num_correct_trials=2, measure_performance=False)
RECORDED = VerifierConfig(clock="recorded")
CORRECT = Candidate(GOOD, "cpp")
WRONG = Candidate(python_candidate("return extension.scaled_relu(x, 3.0)"), "cpp")
CALLED = "open('called', 'w').close()"
SLOW = Candidate(python_candidate(f"{CALLED}; time.sleep(0.5); return mine(x, self.scale)", top="import time"), "cpp")
HANGING = Candidate(python_candidate(f"{CALLED}; time.sleep(1000); return mine(x, self.scale)", top="import time"), "cpp")


def open_files() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


OTHERS: set[int] = set()
"""Processes that were there before the test: those of the verifiers that other tests share."""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary files of the test's own. Nothing may be left in it, no process alive, no file open, no thread."""
    files, threads, others = set(open_files()), set(threading.enumerate()), set(descendants(os.getpid()))
    OTHERS.clear()
    OTHERS.update(p.pid for p in others)
    with tempfile.TemporaryDirectory(prefix="ke-") as directory:  # short: a socket's path must fit into 108 bytes
        monkeypatch.setenv("TMPDIR", directory)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield Path(directory)
        left = [p.name for p in Path(directory).iterdir() if p.name != f"kernel-env-{os.getuid()}"]
    assert left == []
    assert [p.described() for p in descendants(os.getpid(), others)] == []  # the verifiers that others share may fork meanwhile
    assert set(open_files()) - files == set()  # what others share may end meanwhile
    assert set(threading.enumerate()) - threads == set()


async def until(condition: Callable[[], object], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        await asyncio.sleep(0.01)


def called(temporary: Path) -> list[Path]:
    """The traces of candidates whose `forward` was called: a file in scratch, as the machine sees it or as the runner does."""
    found: list[Path] = []
    for place in (temporary, *(Path(f"/proc/{p.pid}/root{temporary}") for p in descendants(os.getpid()))):
        with suppress(OSError):  # that process just ended
            found += place.rglob("called")
    return found


def helpers(module: str) -> list[int]:
    """Pids of our own helpers, not of what the zygote forked."""
    mine = (p for p in descendants(os.getpid()) if p.parent == os.getpid() and p.pid not in OTHERS)
    return [p.pid for p in mine if module in p.command]


def kill(module: str) -> None:
    for pid in helpers(module):
        os.kill(pid, 9)


def runners() -> list[int]:
    """Pids of the programs that a zygote forked."""
    zygotes = helpers("referee.zygote")
    return [p.pid for p in descendants(os.getpid()) if p.parent in zygotes and not p.waiting]


def waiting() -> list[Process]:
    return [p for p in descendants(os.getpid()) if p.waiting and p.pid not in OTHERS]


@asynccontextmanager
async def closing(verifier: Verifier) -> Any:
    try:
        yield verifier
    finally:
        await verifier.aclose()


def play(scenario: Coroutine[Any, Any, None]) -> None:
    """A loop of its own, closed before leftovers are counted."""
    asyncio.run(scenario)


def test_cancelling_kills_the_candidate_and_frees_the_slot(temporary: Path, problem: Problem) -> None:
    async def scenario() -> None:
        async with closing(LocalVerifier()) as verifier:
            task = asyncio.create_task(verifier.verify(problem, HANGING, QUICK, 1))
            await until(lambda: called(temporary))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not runners())
            assert not called(temporary) and not list(temporary.rglob("runner-*")), "its scratch directory is gone too"
            assert (await verifier.verify(problem, CORRECT, QUICK, 1)).correct

    play(scenario())


def test_the_death_of_a_runner_that_waits_changes_nothing(temporary: Path, problem: Problem) -> None:
    async def scenario() -> None:
        async with closing(LocalVerifier(RECORDED)) as verifier:
            for seed in range(2):
                assert (await verifier.verify(problem, CORRECT, QUICK, seed)).correct
                await until(lambda: len(waiting()) == sum(PREPARED.values()))
                killed = waiting()
                for process in killed:
                    process.kill()
                await until(lambda: not set(killed) & set(descendants(os.getpid())))  # noqa: B023 - awaited here
            assert (await verifier.verify(problem, CORRECT, QUICK, 2)).correct

    play(scenario())


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A control group of 200 MB, of the first or second version."""
    for parent, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(parent, f"kernel-env-{os.getpid()}")
        try:
            if (Path(parent) / "cgroup.procs").exists():
                group.mkdir()
                (group / limit).write_text(str(200 << 20))
                break
        except OSError:
            with suppress(OSError):
                group.rmdir()
    else:
        pytest.skip("this user cannot make a control group that limits memory")
    yield group
    deadline = time.monotonic() + 10
    while (group / "cgroup.procs").read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    group.rmdir()


def test_a_machine_without_memory_is_nobodys_score(temporary: Path, problem: Problem, small_cgroup: Path) -> None:
    """The kernel kills a candidate that is well within its own limit."""
    forward = f"{CALLED}; time.sleep(1); torch.ones(1 << 28); return mine(x, self.scale)"

    async def scenario() -> None:
        async with closing(LocalVerifier(RECORDED)) as verifier:
            candidate = Candidate(python_candidate(forward, top="import time"), "cpp")
            task = asyncio.create_task(verifier.verify(problem, candidate, QUICK, 1))
            await until(lambda: called(temporary))
            for pid in runners():
                with suppress(OSError):  # the one of the first pass just ended
                    if Path(f"/proc/{pid}/comm").read_text().strip() == "ke-candidate":
                        (small_cgroup / "cgroup.procs").write_text(str(pid))
            with pytest.raises(VerifierError, match="ran out of memory"):
                await task
            assert (await verifier.verify(problem, CORRECT, QUICK, 1)).correct

    play(scenario())


@pytest.mark.parametrize("module", sampled(["referee.worker", "referee.zygote"], ["referee.worker"]))
def test_the_death_of_a_helper_changes_no_verdict(temporary: Path, problem: Problem, module: str) -> None:
    async def scenario() -> None:
        async with closing(LocalVerifier(RECORDED)) as verifier:
            undisturbed = await verifier.verify(problem, SLOW, QUICK, 1)
            task = asyncio.create_task(verifier.verify(problem, SLOW, QUICK, 1))
            await until(lambda: called(temporary))
            kill(module)
            assert await task == undisturbed
            assert undisturbed.correct
            kill(module)  # an idle one: the next job finds it dead
            assert (await verifier.verify(problem, CORRECT, QUICK, 1)).correct
            assert len(helpers("referee.zygote")) == 1

    play(scenario())


def test_a_job_whose_workers_always_die_is_given_up(temporary: Path, problem: Problem) -> None:
    deaths = 0

    async def murder() -> None:
        nonlocal deaths
        while True:
            await until(lambda: called(temporary))
            kill("referee.worker")
            deaths += 1
            await until(lambda: not called(temporary))

    async def scenario() -> None:
        async with closing(LocalVerifier()) as verifier:
            murderer = asyncio.create_task(murder())
            with pytest.raises(VerifierError, match="3 times in a row"):
                await verifier.verify(problem, HANGING, QUICK, 1)
            murderer.cancel()
            with suppress(asyncio.CancelledError):
                await murderer
            assert deaths == 3
            assert (await verifier.verify(problem, CORRECT, QUICK, 1)).correct

    play(scenario())


def test_several_verifications_at_a_time_keep_their_verdicts_apart(problem: Problem) -> None:
    async def scenario() -> None:
        slots = min(2, len(os.sched_getaffinity(0)))
        async with closing(LocalVerifier(VerifierConfig(slots=slots, clock="recorded"))) as verifier:
            asked = [CORRECT, WRONG, SLOW, WRONG, CORRECT]
            verdicts: list[Verdict] = await asyncio.gather(
                *(verifier.verify(problem, candidate, QUICK, seed) for seed, candidate in enumerate(asked))
            )
            assert [v.candidate_digest for v in verdicts] == [c.digest for c in asked]
            assert [v.seed for v in verdicts] == [0, 1, 2, 3, 4]
            expected = [Status.CORRECT, Status.WRONG_OUTPUT, Status.CORRECT, Status.WRONG_OUTPUT, Status.CORRECT]
            assert [v.status for v in verdicts] == expected

    play(scenario())


@pytest.mark.parametrize("slots", [1, 2])
def test_what_could_not_be_timed_on_one_slot_is_tried_on_another(
    monkeypatch: pytest.MonkeyPatch, problem: Problem, slots: int
) -> None:
    """At the seam between verifier and worker: that other work on the cores is noticed is tested where times are taken."""
    if slots > len(os.sched_getaffinity(0)):
        pytest.skip("one core")

    async def scenario() -> None:
        async with closing(LocalVerifier(VerifierConfig(slots=slots, clock="recorded"))) as verifier:
            pool, asked = verifier._pool("cpp"), []
            ask = pool.ask

            async def busy(cores: tuple[int, ...], job: dict[str, Any], tell: Callable[[Any], None]) -> None:
                if job["op"] == "verify":
                    asked.append(cores)
                    if len(asked) == 1:
                        tell({"number": 0, "raised": "MachineBusy", "message": "busy"})
                        return
                await ask(cores, job, tell)

            monkeypatch.setattr(pool, "ask", busy)
            if slots == 1:
                with pytest.raises(MachineBusy, match="busy"):
                    await verifier.verify(problem, CORRECT, QUICK, 1)
            else:
                assert (await verifier.verify(problem, CORRECT, QUICK, 1)).correct
            assert len(set(asked)) == slots

    play(scenario())


def test_closing_ends_what_is_in_progress(temporary: Path, problem: Problem) -> None:
    async def scenario() -> None:
        verifier = LocalVerifier()
        task = asyncio.create_task(verifier.verify(problem, HANGING, QUICK, 1))
        await until(lambda: called(temporary))
        await verifier.aclose()
        await verifier.aclose()
        for ended in (task, verifier.verify(problem, CORRECT, QUICK, 1)):
            with pytest.raises(VerifierError, match="closed"):
                await ended

    play(scenario())


def test_a_shared_verifier_serves_several_clients_and_its_errors_keep_their_class(problem: Problem) -> None:
    with BlockingVerifier(lambda: LocalVerifier(RECORDED), share=True) as server:
        assert server.address is not None
        with BlockingVerifier(server.address) as one, BlockingVerifier(server.address) as two, ThreadPoolExecutor() as threads:
            answers = [threads.submit(v.verify, problem, c, QUICK, 1) for v, c in ((one, CORRECT), (two, WRONG))]
            assert [a.result().status for a in answers] == [Status.CORRECT, Status.WRONG_OUTPUT]
            with pytest.raises(ConfigError, match="nonesuch"):
                one.verify(problem, Candidate("x = 1", "nonesuch"), QUICK, 1)
            server.close()
            with pytest.raises(VerifierError, match="does not answer"):
                one.verify(problem, CORRECT, QUICK, 1)
            with pytest.raises(VerifierError, match="does not answer"):
                one.verify(problem, CORRECT, QUICK, 1)


def test_the_order_of_a_verification_goes_through_a_socket(temporary: Path, problem: Problem) -> None:
    """Each connection is a client of its own, unless it says who it is."""
    came: list[Order] = []

    class Watching(LocalVerifier):
        async def verify(self, *args: Any, **named: Any) -> Verdict:
            came.append(args[-1])
            return await super().verify(*args, **named)

    async def scenario() -> None:
        async with closing(Watching(RECORDED)) as verifier:
            server = VerifierServer(verifier)
            address = await server.start()
            for order in (Order(), Order(priority=3), Order(client="sweep")):
                async with closing(SocketVerifier(address)) as client:
                    assert not (await client.verify(problem, WRONG, QUICK, 1, order)).correct
            await server.aclose()

    play(scenario())
    assert came == [Order(client="1"), Order(3, "2"), Order(client="sweep")]


def test_a_cancelled_client_stops_the_candidate_and_never_reads_its_late_verdict(temporary: Path, problem: Problem) -> None:
    async def scenario() -> None:
        async with closing(LocalVerifier()) as verifier:
            server = VerifierServer(verifier)
            async with closing(SocketVerifier(await server.start())) as client:
                task = asyncio.create_task(client.verify(problem, HANGING, QUICK, 1))
                await until(lambda: called(temporary))
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await until(lambda: not runners())
                assert (await client.verify(problem, WRONG, QUICK, 1)).candidate_digest == WRONG.digest
            await server.aclose()
            await server.aclose()

    play(scenario())


def test_a_blocking_verifier_closes_once_and_says_so(problem: Problem) -> None:
    verifier = BlockingVerifier()
    verifier.close()
    verifier.close()
    with pytest.raises(VerifierError, match="closed"):
        verifier.verify(problem, CORRECT, QUICK, 1)


def test_a_blocking_verifier_that_cannot_be_made_leaves_nothing() -> None:
    with pytest.raises(ConfigError, match="slots"):
        BlockingVerifier(lambda: LocalVerifier(VerifierConfig(slots=0)))
    with pytest.raises(ConfigError, match="unix:"):
        BlockingVerifier("http://localhost", share=True)


def test_a_scratch_directory_is_removed_when_its_owner_is_dead_and_not_before(temporary: Path) -> None:
    mine = Scratch()
    code = "from kernel_env.referee.scratch import Scratch; print(Scratch().path)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_dir()
    (temporary / "kernel-env-scratch-unlocked").mkdir()  # its owner died before it had the lock
    other = Scratch()
    assert set(temporary.glob("kernel-env-scratch-*")) == {mine.path, other.path}
    for scratch in (mine, other, mine):
        scratch.remove()


OWNER = """
import sys
from kernel_env.schema import Candidate
from kernel_env.verifier import BlockingVerifier, LocalVerifier, VerifierConfig
from tests.conftest import REFERENCE, Problem, VerifyConfig, python_candidate

candidate = Candidate(python_candidate(sys.argv[1], top="import os, time"), "cpp")
verifier = BlockingVerifier(lambda: LocalVerifier(VerifierConfig(sandbox=sys.argv[2])))
verifier.verify(Problem(1, 1, "ScaledRelu", REFERENCE), candidate, VerifyConfig(), 1)
"""
DAEMON = "os.fork() or (os.setsid(), os.fork() and os._exit(0), open('called', 'w').close()); time.sleep(1000)"


def owned(tmp_path: Path, forward: str, reached: Callable[[Attempt], bool], temporary: Path, sandbox: str = "best_effort") -> None:
    """Kill the owner of a verifier when its candidate has come so far, and expect that everything ends with it."""
    env = {"PYTHONPATH": str(Path(__file__).parents[1])}
    with Harness((sys.executable, "-c", OWNER, forward, sandbox), tmp_path, "out", env).started(tmp_path) as attempt:
        assert attempt.wait_until(lambda: reached(attempt), 120), attempt.log()
        attempt.kill(attempt.victims(Target.COMMAND))
        assert attempt.wait(10) == -signal.SIGKILL
        attempt.expect_no_orphans(4)  # a compiler that went on would take longer
    assert list(temporary.glob("kernel-env-scratch-*"))
    Scratch().remove()


def test_a_killed_owner_takes_every_process_along(tmp_path: Path, temporary: Path) -> None:
    """Also a daemon that the candidate started, which no signal to a parent or a group reaches (and which a sandbox forbids)."""
    owned(tmp_path, DAEMON, lambda attempt: bool(called(temporary)), temporary, sandbox="off")


def test_a_killed_owner_takes_a_sandboxed_candidate_along(tmp_path: Path, temporary: Path) -> None:
    owned(tmp_path, "open('called', 'w').close(); time.sleep(1000)", lambda attempt: bool(called(temporary)), temporary)


def test_a_killed_owner_leaves_no_compiler_running(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNEL_ENV_CACHE", str(tmp_path / "cache"))
    owned(tmp_path, "pass", lambda attempt: any("cc1plus" in p.command for p in attempt.living()), temporary)


@pytest.mark.parametrize(
    ("option", "ours", "shared", "expected"),
    [
        ("/a", "/b", "/c", "/a"),
        (None, "/b", "/c", "/b"),
        (None, "", "/c", "/c/kernel-env"),
        (None, "", "", "/home/someone/.cache/kernel-env"),
        ("~/mine", "", "", "/home/someone/mine"),
    ],
)
def test_where_the_build_cache_is(
    monkeypatch: pytest.MonkeyPatch, option: str | None, ours: str, shared: str, expected: str
) -> None:
    for name, value in (("KERNEL_ENV_CACHE", ours), ("XDG_CACHE_HOME", shared), ("HOME", "/home/someone")):
        monkeypatch.setenv(name, value)
    assert VerifierConfig(cache_dir=option).cache() == Path(expected)


def test_four_runs_that_share_a_cold_cache_agree_with_each_other_and_with_a_warm_one(problem: Problem, tmp_path: Path) -> None:
    """A verdict does not tell what was there already, apart from how long it took."""
    asked = [CORRECT, WRONG, Candidate(GOOD.replace("auto y =", "auto y"), "cpp"), Candidate(GOOD + "\n# again\n", "cpp")]
    config = VerifierConfig(clock="recorded", cache_dir=str(tmp_path / "cache"))

    def judged() -> list[Verdict]:
        with BlockingVerifier(lambda: LocalVerifier(config)) as verifier:
            return [verifier.verify(problem, candidate, QUICK, 1) for candidate in asked]

    with ThreadPoolExecutor(4) as threads:
        cold = [run.result() for run in [threads.submit(judged) for _ in range(4)]]
    assert [verdict.status for verdict in cold[0]] == [Status.CORRECT, Status.WRONG_OUTPUT, Status.BUILD_ERROR, Status.CORRECT]
    assert all(verdicts == cold[0] for verdicts in [*cold, judged()])

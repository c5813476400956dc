"""Does the engine keep the busiest resource busy, and what does it cost itself?

Many trajectories are played at once against a simulated policy (1 to 30 s a reply, long-tailed) and a simulated verifier (0.05
to 2 s, with slots of its own), in scaled time: real sleeps, so much shorter. What lies between is real: messages, extraction,
rewards, feedback, durable turns in a run directory. No schedule can end before the busiest resource has done its work, nor before
the longest trajectory: that is the bound. Latencies and verdicts follow from a trajectory's name, so all ways do the same work.
What is above the bound is mostly the end, when the last replies are waited for, which may be long ones: the more trajectories there
are for each request at a time, the less that is.

The plain way beside it gathers one coroutine a trajectory, each of which holds one semaphore, as wide as the policy allows,
from its first request to its last verdict.

Processor time is that of the whole process, the simulation's included, and is not scaled: with a small `--scale` it becomes the
busiest resource. Nor can a disk's time be scaled, so the run directory is in memory (`--directory` puts it elsewhere). The size
of the process is watched while eight times as many trajectories are played, as many as before at a time.

    python -m benchmarks.rollout_engine                     # 1,000 trajectories, three times each way
    python -m benchmarks.rollout_engine --trajectories 200 --repeats 1 --scale 0.02

`--json FILE` keeps the numbers. Run it in the checkout's directory, on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.verify_overhead import quantile
from kernel_env.episode import EpisodeConfig, EpisodeState
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.slots import ORDINARY, Order
from kernel_env.schema import (
    Candidate,
    Episode,
    Generation,
    Problem,
    Stage,
    Stats,
    Status,
    StopReason,
    Timing,
    Turn,
    Verdict,
    episode_key,
)
from rollout.documents import RunInfo
from rollout.engine import Engine, EngineConfig
from rollout.policies import Capabilities, GenerationRequest, Sampling
from rollout.runner import RunJournal
from rollout.store import RunStore, open_run

WAYS = ("engine", "plain")
REPLY_S, VERDICT_S = (1.0, 30.0), (0.05, 2.0)
LOOK_S = 0.02
EPISODE, SAMPLING = EpisodeConfig(max_turns=3), Sampling()
SOURCE = "import torch\n\n\nclass Model(torch.nn.Module):\n    def forward(self, x):\n        return torch.relu(x)\n"
THOUGHT = "The rows do not depend on each other, so each thread takes some of them.\n" * 80
KERNEL = "class ModelNew:\n" + "    rows = 16  # a line as kernels have them, and some more of it\n" * 60
SEEN = "output has wrong values: 5 of 8 elements differ by more than 0.0001 + 0.0001 * |expected|.\n" * 4


@dataclass(frozen=True)
class World:
    """What is simulated."""

    trajectories: int = 1000
    samples: int = 8
    """In a group."""
    requests: int = 32
    """That the policy answers at a time."""
    slots: int = 4
    """Of the verifier."""
    scale: float = 0.1
    """Real seconds of a simulated one."""
    directory: str = "/dev/shm"
    """Of the run directory."""

    def problems(self, times: int = 1) -> list[Problem]:
        return [Problem(1, n + 1, f"Relu{n + 1}", SOURCE) for n in range(math.ceil(times * self.trajectories / self.samples))]


class Clock:
    """Sleeps in scaled time, and knows for how long it did so, of each trajectory."""

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self.spent_s: dict[str, float] = defaultdict(float)

    async def sleep(self, episode: str, seconds: float) -> None:
        self.spent_s[episode] += seconds
        await asyncio.sleep(seconds * self._scale)

    @property
    def total_s(self) -> float:
        return math.fsum(self.spent_s.values())


class SimulatedPolicy:
    """Replies after a log-normal time with a median of 4 s."""

    name, capabilities = "simulated", Capabilities()

    def __init__(self, world: World) -> None:
        self.clock = Clock(world.scale)

    async def preflight(self) -> None: ...
    async def aclose(self) -> None: ...

    def covers(self, episode: str) -> bool:
        return True

    async def generate(self, request: GenerationRequest) -> Generation:
        drawn = random.Random(f"reply {request.episode} {request.turn}").lognormvariate(math.log(4), 0.8)
        await self.clock.sleep(request.episode, min(max(drawn, REPLY_S[0]), REPLY_S[1]))
        code = f"# {request.episode}\n# turn {request.turn}\n{KERNEL}"
        return Generation(f"<think>\n{THOUGHT}</think>\n```python\n{code}```\n", model=self.name)


class SimulatedVerifier:
    """Half of its candidates are wrong, and one in six ends its episode. Times are equally likely on a log scale."""

    def __init__(self, world: World) -> None:
        self.clock = Clock(world.scale)
        self._slots = asyncio.Semaphore(world.slots)

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: Order = ORDINARY
    ) -> Verdict:
        episode, turn, _ = candidate.code.split("\n", 2)
        draw = random.Random(f"verdict {episode} {turn}")
        async with self._slots:
            await self.clock.sleep(episode.removeprefix("# "), math.exp(draw.uniform(*map(math.log, VERDICT_S))))
        correct = draw.random() < 0.5
        return Verdict(
            status=Status.CORRECT if correct else Status.WRONG_OUTPUT,
            stage=Stage.DONE if correct else Stage.TRIALS,
            problem=problem.key,
            problem_digest=problem.digest,
            candidate_digest=candidate.digest,
            backend=candidate.backend,
            message="" if correct else SEEN,
            timing=timing(2.5 if draw.random() < 1 / 3 else 0.9) if correct else None,
            trials_passed=5 if correct else 0,
            trials=5,
            seed=seed,
        )

    async def aclose(self) -> None: ...


def timing(speedup: float) -> Timing:
    ours, theirs = (Stats(ms, ms, 0.0, ms, ms, 5) for ms in (1.0, speedup))
    return Timing(ours, theirs, speedup, speedup, speedup)


class Watched(RunJournal):
    """Counts turns, and looks at the size of this process now and then."""

    def __init__(self, store: RunStore) -> None:
        super().__init__(store)
        self.turns_kept, self.sizes_mb = 0, list[float]()

    async def save_turn(self, problem: Problem, sample: int, turn: Turn) -> None:
        await super().save_turn(problem, sample, turn)
        self.turns_kept += 1
        if self.turns_kept % 50 == 0:
            self.sizes_mb.append(resident_mb())


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


@contextmanager
def journal_for(world: World, problems: Sequence[Problem]) -> Iterator[Watched]:
    asked = tuple(episode_key(problem.key, sample) for problem in problems for sample in range(world.samples))
    with tempfile.TemporaryDirectory(prefix="ke-engine-", dir=world.directory) as directory:
        info = RunInfo("r", "simulated", 7, asked, EPISODE.max_turns, gamma=0.4, correct_reward=1.0)
        with open_run(Path(directory), info, "{}", {}) as store:
            journal = Watched(store)
            with journal:
                yield journal


# ------------------------------------------------------------------ the two ways


async def with_engine(
    world: World, policy: SimulatedPolicy, verifier: SimulatedVerifier, journal: Watched, problems: Sequence[Problem]
) -> None:
    config = EngineConfig(EPISODE, SAMPLING, world.samples, concurrency=world.trajectories, requests=world.requests)
    await Engine(policy, verifier, journal, config, master_seed=7).play(problems)


async def plainly(
    world: World, policy: SimulatedPolicy, verifier: SimulatedVerifier, journal: Watched, problems: Sequence[Problem]
) -> None:
    limit = asyncio.Semaphore(world.requests)

    async def one(problem: Problem, sample: int) -> None:
        async with limit:
            state = EpisodeState(problem, EPISODE, seed=7)
            while not state.done:
                request = GenerationRequest(state.messages, SAMPLING, episode_key(problem.key, sample), len(state.turns))
                turn = await state.step(await policy.generate(request), verifier)
                await journal.save_turn(problem, sample, turn)
        await journal.end_episode(Episode(problem, sample, tuple(state.turns), state.stop_reason or StopReason.TURN_LIMIT))

    await asyncio.gather(*(one(problem, sample) for problem in problems for sample in range(world.samples)))


# ------------------------------------------------------------------ what they take


@dataclass(frozen=True)
class Row:
    """Times of the simulation in simulated seconds, costs of this process in real ones."""

    way: str
    trajectories: int
    turns: int
    makespan_s: float
    bound_s: float
    bound_by: str
    cpu_ms: float
    """Of the process, a turn."""
    loop_p99_ms: float
    """How late the event loop is."""

    @property
    def of_bound(self) -> float:
        return self.makespan_s / self.bound_s


def bound(world: World, policy: SimulatedPolicy, verifier: SimulatedVerifier) -> tuple[float, str]:
    """Seconds that no schedule of the same work can end before, and why."""
    longest = max(spent + verifier.clock.spent_s[episode] for episode, spent in policy.clock.spent_s.items())
    candidates = {
        "policy": policy.clock.total_s / world.requests,
        "verifier": verifier.clock.total_s / world.slots,
        "longest trajectory": longest,
    }
    by = max(candidates, key=candidates.__getitem__)
    return candidates[by], by


async def watch(late_ms: list[float]) -> None:
    """How late the loop is, until cancelled. Seldom enough to cost nothing."""
    while True:
        started = time.perf_counter()
        await asyncio.sleep(LOOK_S)
        late_ms.append((time.perf_counter() - started - LOOK_S) * 1e3)


async def measured(world: World, way: str) -> Row:
    problems, late_ms = world.problems(), list[float]()
    policy, verifier = SimulatedPolicy(world), SimulatedVerifier(world)
    with journal_for(world, problems) as journal:
        watching = asyncio.create_task(watch(late_ms))
        started, cpu = time.perf_counter(), time.process_time()
        await (with_engine if way == "engine" else plainly)(world, policy, verifier, journal, problems)
        took_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
    bound_s, by = bound(world, policy, verifier)
    turns, trajectories = journal.turns_kept, len(problems) * world.samples
    return Row(way, trajectories, turns, took_s / world.scale, bound_s, by, cpu_s / turns * 1e3, quantile(late_ms, 0.99))


async def memory_mb(world: World) -> tuple[float, float]:
    """The most while the second quarter of eight times as many trajectories is played, and after that."""
    problems = world.problems(times=8)
    with journal_for(world, problems) as journal:
        await with_engine(world, SimulatedPolicy(world), SimulatedVerifier(world), journal, problems)
        sizes = journal.sizes_mb or [resident_mb()]
    half = len(sizes) // 2
    return max(sizes[half // 2 : half] or sizes), max(sizes[half:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = {"trajectories": int, "samples": int, "requests": int, "slots": int, "scale": float, "directory": str}
    for name, kind in options.items():
        parser.add_argument(f"--{name}", type=kind, default=getattr(World(), name))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the numbers there")
    chosen = parser.parse_args()
    world = World(**{name: getattr(chosen, name) for name in options})
    rows: list[Row] = []
    for _ in range(chosen.repeats):
        for way in WAYS:
            rows.append(row := asyncio.run(measured(world, way)))
            print(
                f"{way:<6} {row.turns} turns: {row.makespan_s:6.1f} s, {row.of_bound:.2f} of the bound of {row.bound_s:.1f} s "
                f"({row.bound_by})  {row.cpu_ms:.2f} ms of CPU a turn, loop late by {row.loop_p99_ms:.1f} ms (p99)  "
                f"{'#' * max(1, round(20 * row.of_bound))}",
                flush=True,
            )
    before_mb, after_mb = asyncio.run(memory_mb(replace(world, scale=world.scale / 10)))
    print(f"memory: {before_mb:.1f} MB in the second quarter of {8 * world.trajectories} trajectories, {after_mb:.1f} MB after it")
    if chosen.json:
        memory = {"before_mb": before_mb, "after_mb": after_mb}
        chosen.json.write_text(json.dumps({"world": asdict(world), "rows": [asdict(r) for r in rows], **memory}, indent=1) + "\n")
    engine, plain = ([row for row in rows if row.way == way] for way in WAYS)
    ours, theirs = (statistics.median(row.of_bound for row in mine) for mine in (engine, plain))
    print(
        f"{engine[0].trajectories} trajectories: the engine takes {ours:.2f} of the bound ({engine[0].bound_by}), one semaphore "
        f"{theirs:.2f}; {statistics.median(row.cpu_ms for row in engine):.2f} ms of CPU a turn; "
        f"memory {after_mb / before_mb - 1:+.1%}"
    )


if __name__ == "__main__":
    main()

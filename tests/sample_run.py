"""Small hand-made problems, turns and runs for the tests of the run directory. Nothing here is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kernel_env.schema import (
    Episode,
    Generation,
    Problem,
    Reward,
    Stage,
    Stats,
    Status,
    StopReason,
    Timing,
    Turn,
    Verdict,
)
from rollout.documents import RunInfo
from rollout.durable import LOCK_NAME
from rollout.store import RunStore, open_run

CONFIG = "policy:\n  name: replay\nrollout:\n  gamma: 0.4\n  concurrency: 2\n"
ENVIRONMENT = {"cpu": "two cores", "packages": {"torch": "2.13"}}
ASKED = ("level1_problem1", "level1_problem1_sample3", "level1_problem2", "level1_problem10", "level2_problem1")


def run_info(name: str = "r", asked: Sequence[str] = ASKED, master_seed: int = 7) -> RunInfo:
    return RunInfo(name, "replay", master_seed, tuple(asked), max_turns=3, gamma=0.4, correct_reward=1.0)


def open_sample(root: Path, asked: Sequence[str] = ASKED) -> RunStore:
    return open_run(root, run_info(asked=asked), CONFIG, ENVIRONMENT)


def problem(problem_id: int = 1, level: int = 1) -> Problem:
    return Problem(level, problem_id, f"P{problem_id}", f"# reference {level}/{problem_id}\n")


def timing(speedup: float, runtime_ms: float = 2.0) -> Timing:
    def stats(median_ms: float) -> Stats:
        return Stats(median_ms, median_ms, 0.0, median_ms, median_ms, 5)

    return Timing(stats(runtime_ms), stats(runtime_ms * speedup), speedup, speedup * 0.9, speedup * 1.1)


def turn(
    index: int,
    status: Status,
    reward: float | None,
    *,
    text: str = "",
    speedup: float | None = None,
    category: str = "",
    posed: Problem | None = None,
    feedback: str | None = None,
) -> Turn:
    """One turn whose history holds two messages a turn, as in `history=accumulate`."""
    reply = text or f"<think>{index}</think> a reply with a café\n"
    earlier = [{"role": role, "content": f"{role} {i}"} for i in range(index) for role in ("assistant", "user")]
    code = None if status in (Status.NO_CODE, Status.TRUNCATED) else f"class ModelNew: ...  # {index} {reply}"
    stage = {Status.NO_CODE: Stage.PARSE, Status.BUILD_ERROR: Stage.BUILD, Status.NEEDS_DEVICE: Stage.LOAD}
    verdict = Verdict(
        status=status,
        stage=stage.get(status, Stage.DONE if status is Status.CORRECT else Stage.TRIALS),
        problem=(posed or problem()).key,
        problem_digest=(posed or problem()).digest,
        candidate_digest="c",
        backend="cpp",
        category=category,
        message="" if status is Status.CORRECT else f"seen: {status}",
        timing=timing(speedup) if speedup else None,
        trials=5,
        trials_passed=5 if status is Status.CORRECT else 0,
        tolerance="strict",
    )
    messages = ({"role": "system", "content": "s"}, {"role": "user", "content": "u"}, *earlier)
    scored = Reward(reward, reason="" if reward is not None else "needs a GPU")
    return Turn(index, messages, Generation(reply, model="m"), code, verdict, scored, feedback)


def solved(posed: Problem | None = None, sample: int = 0) -> Episode:
    """Build error, then wrong, then correct and 2.5 times as fast: rewards 0, 0.1, 2.5."""
    posed = posed or problem()
    turns = (
        turn(0, Status.BUILD_ERROR, 0.0, posed=posed, feedback="fix the build"),
        turn(1, Status.WRONG_OUTPUT, 0.1, posed=posed, feedback="fix the output"),
        turn(2, Status.CORRECT, 2.5, speedup=2.5, posed=posed),
    )
    return Episode(posed, sample, turns, StopReason.SOLVED)


def save(store: RunStore, episode: Episode) -> None:
    """An episode from its first turn to its end, as a runner does it."""
    for played in episode.turns:
        store.save_turn(episode.problem, episode.sample, played)
    store.end_episode(episode)


def tree(path: Path) -> dict[str, bytes]:
    """Every file of a run but its lock."""
    files = (file for file in path.rglob("*") if file.is_file() and file.name != LOCK_NAME)
    return {str(file.relative_to(path)): file.read_bytes() for file in files}

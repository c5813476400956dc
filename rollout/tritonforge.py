"""TritonForge's dumps of multi-turn trajectories, read as episodes.

    rollout_data_*.json     what its rollout buffer hands to the trainer: a list, one entry a trajectory, with `multi_turn_data`
    trajectory_*.json       its detailed log: one trajectory; or a directory of these
    results.json            of its evaluation script: `problems` by `level1_problem1`

All three have, of each trajectory, `messages`, `turn_rewards`, `aggregated_return` and a `history` with one entry a turn:
`kernel_code, eval_result{compiled, correctness, runtime, speedup, error_message}, reward`. Verdicts, times and rewards stay what
that trainer said: nothing is judged again, and every verdict says that it was imported. What its record does not tell is not made
up: a kernel that compiled and was not correct is `wrong_output`, though it may have raised, and a time has no interval.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_env.errors import ConfigError, DatasetError
from kernel_env.reward import PRESETS, RewardConfig, reached_stop
from kernel_env.schema import (
    Candidate,
    Episode,
    Generation,
    Message,
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
from rollout.returns import trajectory_return

GAMMA = 0.4
"""Its default, where a dump does not say."""
_FAILED_REQUEST = re.compile(r"Error: Failed to generate response in turn \d+")
_NOT_COMPILED = "Current implementation con't pass compile check"
_SAID = {
    "no custom model source found": (Status.NO_CODE, ""),
    "No valid Triton code extracted": (Status.NO_CODE, ""),
    "Submission failed validation": (Status.REJECTED, ""),
    "Evaluation timeout": (Status.TIMEOUT, ""),
    "Segmentation fault": (Status.CRASHED, "SIGSEGV"),
    "Process aborted": (Status.CRASHED, "SIGABRT"),
}
"""How its own sentences begin, of what did not compile."""
_STAGES = {Status.NO_CODE: Stage.PARSE, Status.REJECTED: Stage.CHECK}


@dataclass(frozen=True)
class Dump:
    form: str
    """`rollout_data`, `trajectory` or `results`."""
    max_turns: int
    gamma: float
    reward: RewardConfig
    """What the code that wrote it gives, unless somebody changed that."""
    episodes: tuple[Episode, ...]
    notes: tuple[str, ...]
    """What is to be known of it, a sentence each."""
    digest: str
    """SHA-256 of its bytes, in hexadecimal."""


@dataclass(frozen=True)
class _Trajectory:
    """One of a dump, the same for all forms."""

    where: str
    """For messages."""
    problem: Problem
    """Its source is empty where the dump does not have it."""
    data: Mapping[str, Any]
    """Holds `messages, history, turn_rewards` and perhaps `aggregated_return, model`; or `error` where there is no trajectory."""
    max_turns: int
    gamma: float

    def __post_init__(self) -> None:
        if self.max_turns < 0 or not 0 <= self.gamma <= 1:
            raise ValueError(f"a turn limit of {self.max_turns} and a gamma of {self.gamma}")


def read_dump(path: Path) -> Dump:
    """Raises ConfigError when it cannot be read, DatasetError when it is no such dump or a trajectory of it is malformed."""
    files = sorted(path.glob("trajectory_*.json")) if path.is_dir() else [path]
    read = [(str(file), _bytes(file)) for file in files]
    form, found = _trajectories([(where, _parsed(where, data)) for where, data in read])
    if not found:
        raise DatasetError(f"{path} holds no trajectory")
    gammas = {trajectory.gamma for trajectory in found}
    if len(gammas) > 1:
        raise DatasetError(f"{path} mixes trajectories with different gamma: {', '.join(map(str, sorted(gammas)))}")
    max_turns = max(trajectory.max_turns for trajectory in found)
    reward = PRESETS["seed" if form == "results" else "tritonforge"]
    samples: Counter[str] = Counter()
    episodes = []
    for trajectory in found:
        episodes.append(_episode(trajectory, samples[trajectory.problem.key], max_turns, reward))
        samples[trajectory.problem.key] += 1
    digest = hashlib.sha256(b"\0".join(data for _, data in read))
    (gamma,) = gammas
    return Dump(form, max_turns, gamma, reward, tuple(episodes), tuple(_notes(form, found, episodes, gamma)), digest.hexdigest())


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error


def _parsed(where: str, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where} is not JSON: {error}") from error


@contextmanager
def _well_formed(where: str) -> Iterator[None]:
    """What is missing or of a wrong type in a trajectory is one line that says where."""
    try:
        yield
    except KeyError as error:
        raise DatasetError(f"{where} is no multi-turn trajectory of TritonForge: it has no {error.args[0]}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise DatasetError(f"{where} is no multi-turn trajectory of TritonForge, or damaged: {error}") from error


# ------------------------------------------------------------------ forms


def _trajectories(files: Sequence[tuple[str, Any]]) -> tuple[str, list[_Trajectory]]:
    match files:
        case [(where, list(entries))]:
            return "rollout_data", [_of_buffer(entry, f"{where}, entry {n}") for n, entry in enumerate(entries, 1)]
        case [(where, {"problems": dict(problems), "metadata": dict(metadata)})]:
            return "results", [_of_evaluation(entry, metadata, f"{where}, {key}") for key, entry in problems.items()]
        case _:
            return "trajectory", [_of_log(entry, where) for where, entry in files]


def _of_buffer(entry: Any, where: str) -> _Trajectory:
    with _well_formed(where):
        played = entry["multi_turn_data"]
        data = {**played, "messages": entry["messages"]}
        return _Trajectory(where, _problem(entry["extra_info"]), data, int(played["max_turns"]), float(played["gamma"]))


def _of_log(entry: Any, where: str) -> _Trajectory:
    """It says neither the turn limit nor gamma: there are at least as many turns as it has."""
    with _well_formed(where):
        return _Trajectory(where, _problem(entry["extra_info"]), entry, len(entry["turn_rewards"]), GAMMA)


def _of_evaluation(entry: Any, metadata: Mapping[str, Any], where: str) -> _Trajectory:
    with _well_formed(where):
        data = {**entry, "model": metadata.get("model", "")}
        return _Trajectory(where, _problem(entry), data, int(metadata["max_turns"]), float(metadata["gamma"]))


def _problem(told: Mapping[str, Any]) -> Problem:
    level, problem_id = int(told["level"]), int(told["problem_id"])
    if min(level, problem_id) < 0:
        raise ValueError(f"level {level} and problem {problem_id}: both are 0 or more")
    name = str(told.get("problem_name") or "").removesuffix(".py").removeprefix(f"{problem_id}_")
    return Problem(level, problem_id, name or f"{level}_{problem_id}", str(told.get("label") or ""), "tritonforge")


# ------------------------------------------------------------------ episodes


@dataclass(frozen=True)
class _Exchange:
    """What went to and fro in one turn."""

    messages: tuple[Message, ...] = ()
    reply: str = ""
    feedback: str | None = None


def _episode(trajectory: _Trajectory, sample: int, max_turns: int, reward: RewardConfig) -> Episode:
    data, problem = trajectory.data, trajectory.problem
    with _well_formed(trajectory.where):
        if "error" in data:
            error = " ".join(str(data["error"]).split()) or "unknown"
            return Episode(problem, sample, (), StopReason.INFRA_ERROR, f"imported: {error}")
        history, rewards = data["history"], data["turn_rewards"]
        exchanges = _exchanges(data["messages"], history)
        turns = tuple(
            _turn(index, problem, entry, float(earned), exchange, str(data.get("model", "")))
            for index, (entry, earned, exchange) in enumerate(zip(history, rewards, exchanges, strict=True))
        )
    return Episode(problem, sample, turns, _end(turns, max_turns, reward))


def _end(turns: Sequence[Turn], max_turns: int, config: RewardConfig) -> StopReason:
    """Which is not said. Its code ends an episode before the turn limit for no other reason than a good kernel."""
    if turns and len(turns) >= max_turns:
        return StopReason.SOLVED if reached_stop(turns[-1].reward, config) else StopReason.TURN_LIMIT
    return StopReason.SOLVED if turns and turns[-1].verdict.correct else StopReason.EXHAUSTED


def _exchanges(messages: Sequence[Mapping[str, Any]], history: Sequence[Mapping[str, Any]]) -> list[_Exchange]:
    """One a turn. Where messages did not accumulate only those of the last turn are known, and of others the reply at most."""
    told: list[Message] = [{"role": str(m["role"]), "content": str(m["content"])} for m in messages]
    places = [index for index, message in enumerate(told) if message["role"] == "assistant"]
    known = []
    for place in places[max(len(places) - len(history), 0) :]:
        after = told[place + 1 : place + 2]
        known.append(_Exchange(tuple(told[:place]), told[place]["content"], after[0]["content"] if after else None))
    return [_Exchange(reply=str(h.get("original_content") or "")) for h in history[: len(history) - len(known)]] + known


def _turn(index: int, problem: Problem, entry: Mapping[str, Any], reward: float, exchange: _Exchange, model: str) -> Turn:
    code, duration_s = str(entry["kernel_code"] or "") or None, float(entry.get("generation_time") or 0.0)
    if not (math.isfinite(duration_s) and duration_s >= 0):
        raise ValueError(f"a generation_time of {duration_s}")
    return Turn(
        index=index,
        messages=exchange.messages,
        generation=Generation(exchange.reply, model=model, duration_s=duration_s),
        code=code,
        verdict=_verdict(problem, entry, code),
        reward=Reward(reward, {"imported": reward}),
        feedback=exchange.feedback,
    )


def _verdict(problem: Problem, entry: Mapping[str, Any], code: str | None) -> Verdict:
    result = entry["eval_result"]
    correct = bool(result["compiled"] and result["correctness"])
    message = "" if correct else str(result.get("error_message") or "")
    status, stage, category = _outcome(bool(result["compiled"]), correct, code, message)
    timing = _timing(result.get("runtime"), result.get("speedup") or entry.get("speedup")) if correct else None
    return Verdict(
        status=status,
        stage=stage,
        problem=problem.key,
        problem_digest=problem.digest,
        candidate_digest=Candidate(code, "triton").digest if code else "",
        backend="triton",
        category=category,
        message=message,
        timing=timing,
        timing_note="not measured" if correct and timing is None else "",
        trials_passed=int(correct),
        trials=1,  # at least: how many there were is not said
        mode="imported",
        clock="recorded",
    )


def _outcome(compiled: bool, correct: bool, code: str | None, message: str) -> tuple[Status, Stage, str]:
    if correct:
        return Status.CORRECT, Stage.DONE, ""
    if compiled:
        return Status.WRONG_OUTPUT, Stage.TRIALS, ""
    unknown = (Status.BUILD_ERROR if code else Status.NO_CODE, "")
    status, category = next((found for begin, found in _SAID.items() if message.startswith(begin)), unknown)
    return status, _STAGES.get(status, Stage.BUILD), category


def _timing(runtime_ms: float | None, speedup: float | None) -> Timing | None:
    """None where there was no time, or nothing to hold it against: they are 0, negative or null then."""
    if not runtime_ms or not speedup or runtime_ms < 0 or speedup < 0:
        return None
    runtime, baseline = (Stats(ms, ms, 0.0, ms, ms, 1) for ms in (float(runtime_ms), float(runtime_ms * speedup)))
    return Timing(runtime, baseline, float(speedup), float(speedup), float(speedup), baseline_kind="imported")


# ------------------------------------------------------------------ notes


def _notes(form: str, found: Sequence[_Trajectory], episodes: Sequence[Episode], gamma: float) -> Iterator[str]:
    pairs = [(trajectory_return(e.rewards_T, gamma), t.data.get("aggregated_return")) for t, e in zip(found, episodes, strict=True)]
    known = [(ours, theirs) for ours, theirs in pairs if ours is not None and isinstance(theirs, (int, float))]
    wrong = sum(not math.isclose(ours, theirs, rel_tol=1e-6, abs_tol=1e-9) for ours, theirs in known)
    sentences = sum(bool(_FAILED_REQUEST.fullmatch(turn.generation.text)) for e in episodes for turn in e.turns)
    broken = [turn.verdict for e in episodes for turn in e.turns if turn.verdict.status is Status.BUILD_ERROR]
    unjudged = 0 if form == "results" else sum(verdict.message != _NOT_COMPILED for verdict in broken)
    failed = sum(bool(e.error) for e in episodes)
    if wrong:
        yield f"{wrong} of {len(known)} aggregated returns are not the sum of gamma^t r_t with gamma {gamma:g}."
    if sentences:
        yield f"{sentences} replies are the sentence of a failed request, scored as if the model had said it."
    if unjudged:
        yield f"{unjudged} kernels were scored 0 because their evaluation failed, not they: its message is none of a verdict."
    if failed:
        yield f"{failed} problems have an error in place of a trajectory, and are kept as failures of its infrastructure."
    if form == "trajectory":
        yield "Turn limit and gamma are not said: the longest trajectory and the default are taken."
    if not all(t.problem.source for t in found):
        yield "Sources of problems are missing: whether they are those of another run is not known."

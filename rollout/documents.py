"""The JSON files of a run directory as types, and how they follow from episodes. Pure: no file is touched here.

Field names are those of the multi-turn evaluation that the run directory is compatible with (`turn_idx`, `correctness`,
`runtime`, `aggregated_return`, ...); fields of our own stand after them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from kernel_env.schema import (
    SCHEMA_VERSION,
    Episode,
    Generation,
    Message,
    Problem,
    Status,
    StopReason,
    Timing,
    Turn,
    Verdict,
    episode_key,
)
from rollout.returns import credits, per_turn_returns, trajectory_return

SWEEP_FILE = "sweep.json"
_KEY = re.compile(r"level(\d+)_problem(\d+)(?:_sample(\d+))?")
_MEMORY_SIGNALS = frozenset({"SIGSEGV", "SIGBUS"})


@functools.cache  # each turn of a run looks for the furthest of its episodes
def episode_order(key: str) -> tuple[int, int, int]:
    """(level, problem id, sample) of an episode key: the order of every list in a run directory. ValueError if it is none."""
    match = _KEY.fullmatch(key)
    if match is None:
        raise ValueError(f"not an episode key: {key!r}")
    level, problem_id, sample = match.groups(default="0")
    return int(level), int(problem_id), int(sample)


@dataclass(frozen=True)
class RunInfo:
    """`run.json`: what a run was asked to do. Never changes after the run was created."""

    name: str
    policy: str
    """What wrote the replies, in words: `replay`, `openai Qwen/Qwen3-8B`, ..."""
    master_seed: int
    """Every seed of the run derives from it."""
    asked: tuple[str, ...]
    """Keys of all episodes to play: the denominator of every rate."""
    max_turns: int
    gamma: float
    correct_reward: float
    """What a correct kernel earns without any speed bonus, under the run's reward preset."""
    schema_version: int = SCHEMA_VERSION
    returns: str = "trajectory"
    """How turns are credited: `rollout.returns`."""
    layout: str | None = None
    """How the tokens of episodes make training samples, where they are kept: what `rollout.tokens.record_of` wants."""

    def __post_init__(self) -> None:
        if len(set(map(episode_order, self.asked))) != len(self.asked):
            raise ValueError("an episode is asked for twice")


@dataclass(frozen=True)
class CellInfo:
    """One run of a sweep."""

    key: str
    """Hash of its configuration: it is the same cell wherever that is the same."""
    name: str
    """Its directory."""
    chosen: Mapping[str, str]
    """What set it apart from the others when it was made: options that were swept, and their values."""


@dataclass(frozen=True)
class SweepInfo:
    """`sweep.json`: the cells that a sweep's directory has, in the order in which they came."""

    schema_version: int = SCHEMA_VERSION
    cells: tuple[CellInfo, ...] = ()


@dataclass(frozen=True)
class ProblemRef:
    """Which problem a file is about. The problem itself is in `problems/<key>.json`."""

    key: str
    name: str
    level: int
    problem_id: int
    digest: str

    @classmethod
    def of(cls, problem: Problem) -> ProblemRef:
        return cls(problem.key, problem.name, problem.level, problem.problem_id, problem.digest)


@dataclass(frozen=True)
class EvalResult:
    compiled: bool
    correctness: bool
    runtime: float | None
    """Median in milliseconds, None when it was not timed."""
    error_message: str
    """Empty when correct."""


@dataclass(frozen=True)
class HistoryEntry:
    """One turn in short."""

    kernel_code: str
    """Empty when the reply held none."""
    has_thinking: bool
    generation_time: float
    """Seconds."""
    eval_result: EvalResult
    reward: float | None
    """None when the turn was not scored."""
    speedup: float | None

    @classmethod
    def of(cls, turn: Turn) -> HistoryEntry:
        verdict = turn.verdict
        error = "" if verdict.correct else verdict.message or verdict.status
        result = EvalResult(verdict.compiled, verdict.correct, verdict.runtime_ms, error)
        generation = turn.generation
        return cls(turn.code or "", generation.has_thinking, generation.duration_s, result, turn.reward.value, verdict.speedup)


@dataclass(frozen=True)
class TurnFile:
    """`turns/<episode>_turn<k>.json`: the commit point of a turn."""

    schema_version: int
    turn_idx: int
    messages: tuple[Message, ...]
    """What the policy was shown, and its reply."""
    history_entry: HistoryEntry
    episode: str
    problem: ProblemRef
    sample: int
    record: Turn
    """The whole turn: everything else in a run directory can be built again from these."""

    @classmethod
    def of(cls, problem: Problem, sample: int, turn: Turn) -> TurnFile:
        return cls(
            schema_version=SCHEMA_VERSION,
            turn_idx=turn.index,
            messages=(*turn.messages, _reply(turn)),
            history_entry=HistoryEntry.of(turn),
            episode=episode_key(problem.key, sample),
            problem=ProblemRef.of(problem),
            sample=sample,
            record=turn,
        )


@dataclass(frozen=True)
class EpisodeFile:
    """`episodes/<episode>.json`: this episode is over, and why."""

    schema_version: int
    episode: str
    problem: ProblemRef
    sample: int
    num_turns: int
    stop_reason: StopReason
    error: str

    @classmethod
    def of(cls, episode: Episode) -> EpisodeFile:
        ref = ProblemRef.of(episode.problem)
        turns = len(episode.turns)
        return cls(SCHEMA_VERSION, episode.key, ref, episode.sample, turns, episode.stop_reason, episode.error)


class RunState(StrEnum):
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True)
class Progress:
    """`progress.json`. A function of the durable turns and episode ends alone: no clock time, no order of arrival."""

    schema_version: int
    state: RunState
    """`done` when every episode that was asked for has ended."""
    asked: int
    finished: int
    failed: int
    """Of `finished`, those that the policy or the infrastructure ended."""
    turns: int
    last_episode: str | None
    """The furthest episode, in the run's order, that has a turn or an end."""


@dataclass(frozen=True)
class EpisodeResult:
    """One entry of `results.json`'s `problems`."""

    level: int
    problem_id: int
    problem_name: str
    num_turns: int
    turn_rewards: tuple[float | None, ...]
    aggregated_return: float | None
    """Discounted sum of `turn_rewards`; None when a turn is unscored, there is no turn, or the episode was cut short."""
    history: tuple[HistoryEntry, ...]
    final_compiled: bool
    """Some turn compiled."""
    final_correct: bool
    """Some turn was correct."""
    best_turn: int | None
    """Index of the first turn with the highest reward, None when none was scored."""
    baseline_runtime: float | None
    """Milliseconds of the reference beside the best turn or, when that was not timed, the first timed one."""
    messages: tuple[Message, ...]
    """What the last turn was shown, its reply, and the message that would have come next, if there was to be one."""
    sample: int
    stop_reason: StopReason
    error: str
    statuses: tuple[Status, ...]
    per_turn_returns: tuple[float | None, ...]
    """Discounted sum of `turn_rewards` from each turn on; None likewise."""
    credits: tuple[float | None, ...] = ()
    """Of each turn, by the run's `returns`, among the samples of its problem where that compares them; None likewise."""

    @classmethod
    def of(cls, episode: Episode, gamma: float) -> EpisodeResult:
        turns, problem = episode.turns, episode.problem
        return cls(
            level=problem.level,
            problem_id=problem.problem_id,
            problem_name=problem.name,
            num_turns=len(turns),
            turn_rewards=episode.rewards_T,
            aggregated_return=None if episode.cut_short else trajectory_return(episode.rewards_T, gamma),
            history=tuple(HistoryEntry.of(turn) for turn in turns),
            final_compiled=any(turn.verdict.compiled for turn in turns),
            final_correct=any(turn.verdict.correct for turn in turns),
            best_turn=best_turn(episode),
            baseline_runtime=_baseline_ms(episode),
            messages=_conversation(turns),
            sample=episode.sample,
            stop_reason=episode.stop_reason,
            error=episode.error,
            statuses=tuple(turn.verdict.status for turn in turns),
            per_turn_returns=(None,) * len(turns) if episode.cut_short else per_turn_returns(episode.rewards_T, gamma),
        )

    @property
    def completed(self) -> bool:
        """It ran to an end of its own, and every turn was scored."""
        return self.aggregated_return is not None

    @property
    def corrected_later(self) -> bool:
        return self.final_correct and not self.history[0].eval_result.correctness

    def multi_turn_success(self, correct_reward: float) -> bool:
        """Correct in some turn, and worth more than a lone correct turn."""
        return self.final_correct and self.aggregated_return is not None and self.aggregated_return > correct_reward


@dataclass(frozen=True)
class Summary:
    """Counts of a run. `total` is what was asked for, and these six add up to it: `completed`, `unscored`, `cancelled`,
    `infra_errors`, `policy_failures`, `not_run`. Counts of turns add up as well: `turns_correct`, `memory_faults`,
    `timeouts`, `other_errors` and `turns_unscored` make `turns`."""

    total: int
    compiled: int
    """Episodes in which some turn compiled."""
    correct: int
    """Episodes in which some turn was correct."""
    multi_turn_success: int
    """Episodes with a correct turn and an aggregated return above `correct_reward`: worth more than a lone correct turn."""
    avg_turns: float
    """Over the episodes that ended; 0 when none did."""
    thinking_detected: int
    memory_faults: int
    """Turns that ran out of memory or died by SIGSEGV or SIGBUS."""
    timeouts: int
    """Turns."""
    other_errors: int
    """Turns that failed in any other way, wrong output included."""
    early_terminations: int
    """Episodes that reached the stop reward."""
    completed: int
    """Episodes that ran to an end with every turn scored."""
    unscored: int
    """Episodes with a turn that could not be scored here (no device, or no trustworthy time)."""
    cancelled: int
    """Episodes that were given up because enough others were complete."""
    infra_errors: int
    policy_failures: int
    not_run: int
    """Asked for, but not ended yet, or a recording without a single reply."""
    corrected_later: int
    """Episodes that were wrong at first and correct in a later turn."""
    code_generated: int
    """Episodes in which some reply held a kernel."""
    turns: int
    turns_correct: int
    turns_unscored: int
    """Turns that this machine could not judge (`needs_device`)."""


@dataclass(frozen=True)
class Metadata:
    """What ran. The tuples are sorted and list every value that occurs in the verdicts and replies of the run."""

    schema_version: int
    run_name: str
    policy: str
    models: tuple[str, ...]
    backends: tuple[str, ...]
    profiles: tuple[str, ...]
    tolerances: tuple[str, ...]
    verification: tuple[str, ...]
    """`process`, or `inprocess` for verdicts that the candidate could have reached."""
    clocks: tuple[str, ...]
    """`live` or `recorded`."""
    max_turns: int
    gamma: float
    correct_reward: float
    master_seed: int


@dataclass(frozen=True)
class Results:
    """`results.json`."""

    metadata: Metadata
    summary: Summary
    problems: Mapping[str, EpisodeResult]
    """By episode key."""


def results_of(info: RunInfo, episodes: Iterable[Episode]) -> Results:
    """The whole of `results.json`, ordered by level, problem and sample."""
    ordered = sorted(episodes, key=lambda e: episode_order(e.key))
    credited = _credited(info, ordered)
    problems = {e.key: replace(EpisodeResult.of(e, info.gamma), credits=credited[e.key]) for e in ordered}
    return Results(_metadata(info, ordered), summarize(ordered, info), problems)


def _credited(info: RunInfo, episodes: Sequence[Episode]) -> dict[str, tuple[float | None, ...]]:
    """By episode key. What was cut short has no credit, and is in nobody's baseline."""
    groups: dict[str, list[Episode]] = {}
    for episode in episodes:
        groups.setdefault(episode.problem.key, []).append(episode)
    found: dict[str, tuple[float | None, ...]] = {}
    for members in groups.values():
        rewards_GT = [(None,) * len(e.turns) if e.cut_short else e.rewards_T for e in members]
        found.update(zip((e.key for e in members), credits(info.returns, rewards_GT, info.gamma), strict=True))
    return found


def summarize(episodes: Sequence[Episode], info: RunInfo) -> Summary:
    """Counts over the ended `episodes` of a run that was asked for `info.asked`."""
    results = [EpisodeResult.of(e, info.gamma) for e in episodes]
    verdicts = [turn.verdict for e in episodes for turn in e.turns]
    stops = [e.stop_reason for e in episodes]
    memory_faults = sum(map(is_memory_fault, verdicts))
    timeouts = sum(v.status is Status.TIMEOUT for v in verdicts)
    turns_correct = sum(v.correct for v in verdicts)
    turns_unscored = sum(not v.scored for v in verdicts)
    completed = sum(r.completed for r in results)
    infra_errors, policy_failures = stops.count(StopReason.INFRA_ERROR), stops.count(StopReason.POLICY_FAILURE)
    unscored = sum(not e.cut_short and None in e.rewards_T for e in episodes)
    cancelled = stops.count(StopReason.CANCELLED)
    return Summary(
        total=len(info.asked),
        compiled=sum(r.final_compiled for r in results),
        correct=sum(r.final_correct for r in results),
        multi_turn_success=sum(r.multi_turn_success(info.correct_reward) for r in results),
        avg_turns=len(verdicts) / len(episodes) if episodes else 0.0,
        thinking_detected=sum(any(h.has_thinking for h in r.history) for r in results),
        memory_faults=memory_faults,
        timeouts=timeouts,
        other_errors=len(verdicts) - memory_faults - timeouts - turns_correct - turns_unscored,
        early_terminations=stops.count(StopReason.SOLVED),
        completed=completed,
        unscored=unscored,
        cancelled=cancelled,
        infra_errors=infra_errors,
        policy_failures=policy_failures,
        not_run=len(info.asked) - completed - unscored - cancelled - infra_errors - policy_failures,
        corrected_later=sum(r.corrected_later for r in results),
        code_generated=sum(any(h.kernel_code for h in r.history) for r in results),
        turns=len(verdicts),
        turns_correct=turns_correct,
        turns_unscored=turns_unscored,
    )


def best_turn(episode: Episode) -> int | None:
    """Index of the first turn with the highest reward, None when none was scored."""
    scored = [(reward, -index) for index, reward in enumerate(episode.rewards_T) if reward is not None]
    return -max(scored)[1] if scored else None


def fastest(episode: Episode) -> Timing | None:
    """The timing with the highest speedup, None when no turn was timed."""
    timings = [turn.verdict.timing for turn in episode.turns if turn.verdict.timing is not None]
    return max(timings, key=lambda timing: timing.speedup, default=None)


def is_memory_fault(verdict: Verdict) -> bool:
    """Out of memory, or killed for touching memory that was not its own."""
    crashed = verdict.status is Status.CRASHED and verdict.category in _MEMORY_SIGNALS
    return crashed or verdict.status is Status.OUT_OF_MEMORY


def was_verified(verdict: Verdict) -> bool:
    """Whether a verifier had a say, or another program. What has no code, or far too much, is judged without one: such a verdict
    tells nothing of how others were reached."""
    return bool(verdict.tolerance) or verdict.mode == "imported"


def without_texts(episode: Episode) -> Episode:
    """What the counts and rates of a report are made of, in little memory: whether a reply thought and had a kernel stays, what it
    said does not."""
    return replace(episode, turns=tuple(map(_without_texts, episode.turns)))


def _without_texts(turn: Turn) -> Turn:
    reply, thought = turn.generation, "<think>" if turn.generation.has_thinking else ""
    return replace(
        turn,
        messages=(),
        generation=Generation(thought, usage=reply.usage, model=reply.model, duration_s=reply.duration_s),
        code=turn.code and "kernel",
        verdict=replace(turn.verdict, message="", log="", ahead=()),
        feedback=None,
    )


def _reply(turn: Turn) -> Message:
    return {"role": "assistant", "content": turn.generation.text}


def _conversation(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """What the last turn saw, its reply, and the message that would have come next, if there was one."""
    if not turns:
        return ()
    last = turns[-1]
    following = ({"role": "user", "content": last.feedback},) if last.feedback is not None else ()
    return (*last.messages, _reply(last), *following)


def _baseline_ms(episode: Episode) -> float | None:
    best = best_turn(episode)
    preferred = episode.turns if best is None else (episode.turns[best], *episode.turns)
    return next((turn.verdict.timing.baseline.median_ms for turn in preferred if turn.verdict.timing is not None), None)


def _metadata(info: RunInfo, episodes: Sequence[Episode]) -> Metadata:
    turns = [turn for episode in episodes for turn in episode.turns]
    verdicts = [turn.verdict for turn in turns]
    return Metadata(
        schema_version=SCHEMA_VERSION,
        run_name=info.name,
        policy=info.policy,
        models=_distinct(turn.generation.model for turn in turns),
        backends=_distinct(v.backend for v in verdicts),
        profiles=_distinct(v.profile for v in verdicts),
        tolerances=_distinct(v.tolerance for v in verdicts),
        verification=_distinct(v.mode for v in verdicts if was_verified(v)),
        clocks=_distinct(v.clock for v in verdicts if was_verified(v)),
        max_turns=info.max_turns,
        gamma=info.gamma,
        correct_reward=info.correct_reward,
        master_seed=info.master_seed,
    )


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value}))

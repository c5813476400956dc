"""The narrow waist: the only types that cross a package, a process or the disk.

Frozen dataclasses of plain values with one JSON codec (`to_json`, `from_json`). Nothing here imports more than the
standard library. An impossible result cannot be constructed: a `Timing` without a correct verdict, a non-finite reward,
a score for an unscored status.

Units and axes are in the names: `_ms` milliseconds, `_s` seconds, `_T` one entry a turn.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeVar, Union

SCHEMA_VERSION = 1

T = TypeVar("T")
Message = Mapping[str, str]
"""One chat message: `{"role": "system"|"user"|"assistant", "content": ...}`."""


class Status(StrEnum):
    """How a candidate's turn ended. All are data about the candidate; infrastructure failures are exceptions."""

    NO_CODE = "no_code"
    """The reply holds no complete code block that defines the entry class."""
    TRUNCATED = "truncated"
    """The reply's last code block was never closed (usually the token limit)."""
    REJECTED = "rejected"
    """A rule refused it: its source before anything was built, or how it was seen to compute."""
    BUILD_ERROR = "build_error"
    """The compiler refused the source."""
    LOAD_ERROR = "load_error"
    """Importing the candidate's module failed, or it defines no entry class."""
    RUNTIME_ERROR = "runtime_error"
    """Constructing or calling the model raised."""
    WRONG_OUTPUT = "wrong_output"
    """Structure, shape, dtype or values differ from the reference."""
    MUTATED_INPUTS = "mutated_inputs"
    """The inputs were changed although the reference leaves them alone."""
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    """The process died (signal, `os._exit`) or closed its channel."""
    TAMPERED = "tampered"
    """The candidate was seen working against the measurement."""
    NEEDS_DEVICE = "needs_device"
    """This machine cannot run it (no GPU, or beyond the interpreter): unscored."""
    CORRECT = "correct"


class Stage(StrEnum):
    """The last stage that a candidate entered, in order."""

    PARSE = "parse"
    CHECK = "check"
    BUILD = "build"
    LOAD = "load"
    INIT = "init"
    TRIALS = "trials"
    TIMING = "timing"
    DONE = "done"


_COMPILED_STAGES = frozenset({Stage.INIT, Stage.TRIALS, Stage.TIMING, Stage.DONE})


PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Names of torch's types."""


@dataclass(frozen=True)
class Problem:
    """One task: a reference module in KernelBench's format.

    `source` defines `Model(nn.Module)`, `get_inputs()` and `get_init_inputs()`. It is the text after the size profile's
    overrides were applied, so a verdict can be reproduced from it alone.
    """

    level: int
    problem_id: int
    name: str
    source: str
    origin: str = "unknown"
    """Where it came from: `bundled`, `kernelbench`, `jsonl`, ..."""
    profile: str = "full"
    """Size profile that `source` was made with."""
    overrides: Mapping[str, int] = field(default_factory=dict)
    """Module-level constants that the profile changed."""
    prompt: tuple[Message, ...] | None = None
    """Chat messages that the data set itself brings, if any."""
    precision: str = ""
    """What floating-point inputs, parameters and buffers are brought to: one of `PRECISIONS`; empty: they stay as the source makes
    them."""

    def __post_init__(self) -> None:
        _require(self.precision in ("", *PRECISIONS), f"precision is one of {', '.join(PRECISIONS)}")

    @property
    def key(self) -> str:
        """`level1_problem7`: unique within one source."""
        return f"level{self.level}_problem{self.problem_id}"

    @property
    def digest(self) -> str:
        """SHA-256 of the source, and of the precision if it has one, in hexadecimal."""
        posed = f"{self.precision}\0{self.source}" if self.precision else self.source
        return hashlib.sha256(posed.encode()).hexdigest()


@dataclass(frozen=True)
class Candidate:
    """Source text that a model wrote for one problem, identified by its content."""

    code: str
    backend: str
    entry: str = "ModelNew"

    @property
    def digest(self) -> str:
        """SHA-256 over back end, entry class and code, in hexadecimal."""
        return hashlib.sha256(f"{self.backend}\0{self.entry}\0{self.code}".encode(errors="surrogatepass")).hexdigest()


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(what)


def _finite(*values: float) -> bool:
    return all(math.isfinite(v) for v in values)


@dataclass(frozen=True)
class Stats:
    """Summary of repeated timings of one program."""

    median_ms: float
    mean_ms: float
    std_ms: float
    min_ms: float
    max_ms: float
    count: int

    def __post_init__(self) -> None:
        _require(self.count >= 1, "Stats needs at least one sample")
        values = (self.median_ms, self.mean_ms, self.std_ms, self.min_ms, self.max_ms)
        _require(_finite(*values), "Stats must be finite")
        _require(self.min_ms > 0 and self.std_ms >= 0, "times must be positive")
        _require(self.min_ms <= self.median_ms <= self.max_ms, "median outside of [min, max]")


@dataclass(frozen=True)
class Timing:
    """Candidate against baseline, measured in one session on one slot.

    `speedup` is the median over rounds of the ratio of both sides (not the ratio of their medians); `speedup_low` and
    `speedup_high` bound it in a 95% interval.
    """

    runtime: Stats
    baseline: Stats
    speedup: float
    speedup_low: float
    speedup_high: float
    baseline_kind: str = "eager"
    """`eager`, or `eager, alone` where it was faster once the candidate was gone, and that time counts."""
    noise: float = 0.0
    """Share of the baseline's time that its threads waited for a core: above about 0.25 the times are not to be believed."""
    hardware: str = ""
    """What the times were taken on. Empty where they come from a recording."""
    light_ms: float | None = None
    """What the reference's work would take at the peaks of this hardware (`roofline.Peaks`). None where that is not known."""

    def __post_init__(self) -> None:
        _require(math.isfinite(self.noise) and self.noise >= 0, "noise is 0 or more")
        _require(_finite(self.speedup, self.speedup_low, self.speedup_high), "speedup must be finite")
        _require(0 < self.speedup_low <= self.speedup_high, "speedup interval must be positive and ordered")
        _require(self.light_ms is None or (math.isfinite(self.light_ms) and self.light_ms >= 0), "light_ms is 0 or more")


@dataclass(frozen=True)
class Compiled:
    """A kernel that was compiled for a GPU that is not here, and what it uses of it."""

    target: str
    """`cuda:90`, `hip:gfx942`, ..."""
    kernel: str = ""
    """Empty in a note that is about the target."""
    registers: int | None = None
    """A thread's; of AMD's those for vectors. None where it is not known."""
    spilled_bytes: int | None = None
    """What had no room in registers."""
    shared_bytes: int = 0
    """A block's."""
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    """What the referee found. `correct` is the only status that can carry a timing."""

    status: Status
    stage: Stage
    problem: str
    """`Problem.key`."""
    problem_digest: str
    candidate_digest: str
    backend: str
    profile: str = "full"
    category: str = ""
    """A finer word where it helps: `shape`, `values`, `SIGSEGV`, ..."""
    message: str = ""
    """What was seen, most useful part first. The model reads a bounded part of it."""
    log: str = ""
    """Bounded standard output and error of the candidate. Never used for the verdict."""
    ahead: tuple[Compiled, ...] = ()
    """What was compiled for the targets of `verify.aot`."""
    timing: Timing | None = None
    timing_note: str = ""
    """Why there is no timing although correct (`interpreter`, `not measured`, `noisy`)."""
    trials_passed: int = 0
    trials: int = 0
    tolerance: str = ""
    degenerate: bool = False
    """The problem's output hardly varies with its inputs, so that a constant may pass: `correct` says little."""
    weights: str = ""
    """`same_seed`, `loaded` (state_dict copied), `own` (keys differ: as constructed) or `none`."""
    seed: int = 0
    """All randomness of this verification derives from it; a replay uses it again."""
    mode: Literal["process", "inprocess", "imported"] = "process"
    """`inprocess` verdicts are for debugging: the candidate could have reached the referee. `imported` ones are another program's
    word."""
    clock: Literal["live", "recorded"] = "live"
    isolation: tuple[str, ...] = ()
    """Layers that stood around the candidate."""
    duration_ms: float = 0.0
    """Wall time of the whole verification."""
    build_ms: float = 0.0
    """Part of it spent in compilers (0 on cache hits), ..."""
    own_ms: float = 0.0
    """... in the candidate's own import, construction, trial and timed calls, ..."""
    baseline_ms: float = 0.0
    """... and in the reference's timed calls. The rest is overhead."""

    def __post_init__(self) -> None:
        _require(self.timing is None or self.status is Status.CORRECT, "only a correct verdict has a timing")
        _require(0 <= self.trials_passed <= self.trials, "trials_passed outside of [0, trials]")
        done = self.stage in (Stage.DONE, Stage.TIMING)
        _require(self.status is not Status.CORRECT or (done and self.trials_passed == self.trials > 0), "correct needs all trials")
        spent_ms = self.duration_ms, self.build_ms, self.own_ms, self.baseline_ms
        _require(_finite(*spent_ms), "durations must be finite")

    @property
    def compiled(self) -> bool:
        """Whether the source was accepted, built and imported (KernelBench's meaning)."""
        return self.stage in _COMPILED_STAGES and self.status is not Status.NEEDS_DEVICE

    @property
    def correct(self) -> bool:
        return self.status is Status.CORRECT

    @property
    def scored(self) -> bool:
        """False where this machine could not tell: such a turn has no reward."""
        return self.status is not Status.NEEDS_DEVICE

    @property
    def speedup(self) -> float | None:
        return self.timing.speedup if self.timing else None

    @property
    def runtime_ms(self) -> float | None:
        return self.timing.runtime.median_ms if self.timing else None


@dataclass(frozen=True)
class Opinion:
    """What one source of a reward beside the measured one said of one kernel."""

    score: float | None
    """From 0 to 1; None: it has none, and `reason` says why."""
    reason: str = ""
    by_rules: bool = False
    """Rules scored in the judge's stead, for this reason."""
    flags: tuple[str, ...] = ()
    """Integrity flags that facts of the source confirm."""
    cached: bool = False
    """It was said before, of the same kernel."""
    latency_ms: float | None = None
    """From asking to the score; None where that is not known."""
    doubts: tuple[str, ...] = ()
    """What should be looked at before the score is believed: `self_judged`, `raw_differs`, `injection`, ..."""

    def __post_init__(self) -> None:
        _require(bool(self.reason) or (self.score is not None and not self.by_rules), "an opinion not the source's own says why")
        _require(self.score is None or (math.isfinite(self.score) and 0 <= self.score <= 1), "a score is from 0 to 1")
        _require(self.latency_ms is None or (math.isfinite(self.latency_ms) and self.latency_ms >= 0), "latency is 0 or more")


@dataclass(frozen=True)
class Reward:
    """One turn's reward: `value` is None when nothing was scored, and then `reason` says why."""

    value: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    """What each source contributed, by name."""
    reason: str = ""
    opinions: Mapping[str, Opinion] = field(default_factory=dict)
    """What sources beside the measured one said, by name. Empty where there are none."""
    measured: float | None = None
    """The measured reward alone, where there are opinions beside it."""

    def __post_init__(self) -> None:
        _require(self.value is None or math.isfinite(self.value), "a reward is finite or None")
        _require(self.measured is None or math.isfinite(self.measured), "a measured reward is finite or None")
        _require(self.value is not None or bool(self.reason), "an unscored reward says why")
        _require(all(v is None or math.isfinite(v) for v in self.parts.values()), "reward parts are finite or None")


@dataclass(frozen=True)
class Usage:
    """Tokens of one request, as the endpoint counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Generation:
    """One reply of a policy, raw."""

    text: str
    """Exactly what enters the history: nothing stripped, nothing cut."""
    reasoning: str = ""
    """Reasoning that the endpoint returned in a field of its own."""
    finish_reason: Literal["stop", "length", "abort"] = "stop"
    usage: Usage = Usage()
    model: str = ""
    duration_s: float = 0.0
    output_ids: tuple[int, ...] | None = None
    """Tokens as the engine sampled them, a sampled end of text too; None where it does not say."""
    output_logprobs: tuple[float, ...] | None = None
    """Log-probability of each of `output_ids`, natural logarithm."""
    weight_version: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    """Tokens that the engine was given, None where it does not say."""

    @property
    def has_thinking(self) -> bool:
        return bool(self.reasoning) or "<think>" in self.text

    @property
    def empty(self) -> bool:
        """Nothing at all: neither an answer nor a thought."""
        return not (self.text.strip() or self.reasoning.strip())

    @property
    def thought_only(self) -> bool:
        """Cut off at the token limit before any answer began."""
        answered = bool(self.text.strip()) and ("<think>" not in self.text or "</think>" in self.text.rpartition("<think>")[2])
        return self.finish_reason == "length" and self.has_thinking and not answered

    def __post_init__(self) -> None:
        if self.output_ids is not None and self.output_logprobs is not None:
            _require(len(self.output_ids) == len(self.output_logprobs), "one log-probability per output id")


@dataclass(frozen=True)
class Thinking:
    """Whether a reply was to think at length first, and who decided that."""

    arm: Literal["always", "never", "self"]
    """`self`: the policy was asked."""
    on: bool
    answer: str = ""
    """What the policy said, raw, ..."""
    understood: bool | None = None
    """... and whether that was a plain yes or no; None where nobody asked. If it was neither, a configured default decided."""
    usage: Usage = Usage()
    """Tokens of asking."""
    duration_s: float = 0.0


@dataclass(frozen=True)
class Turn:
    """One reply and what became of it."""

    index: int
    messages: tuple[Message, ...]
    """The conversation that the policy was shown."""
    generation: Generation
    code: str | None
    """The extracted kernel, None when the reply had none."""
    verdict: Verdict
    reward: Reward
    feedback: str | None = None
    """The user message that follows, None when the episode ended here."""
    thinking: Thinking | None = None
    """None where the endpoint's own default stood."""

    def __post_init__(self) -> None:
        _require(self.index >= 0, "turn index is 0 or more")
        _require(self.verdict.scored or self.reward.value is None, "an unscored verdict has no reward")


class StopReason(StrEnum):
    SOLVED = "solved"
    """A turn's measured reward reached the stop value."""
    TURN_LIMIT = "turn_limit"
    UNSCORED = "unscored"
    """The machine could not judge a turn (`needs_device`)."""
    EXHAUSTED = "exhausted"
    """A recorded policy had no further reply."""
    CANCELLED = "cancelled"
    """Its group, or the run, was complete without it."""
    POLICY_FAILURE = "policy_failure"
    INFRA_ERROR = "infra_error"


@dataclass(frozen=True)
class Episode:
    """One finished trajectory of one problem."""

    problem: Problem
    sample: int
    turns: tuple[Turn, ...]
    stop_reason: StopReason
    error: str = ""
    """One line, when a policy or infrastructure failure ended it."""

    def __post_init__(self) -> None:
        _require([t.index for t in self.turns] == list(range(len(self.turns))), "turns are numbered 0..n-1")
        failed = self.stop_reason in (StopReason.POLICY_FAILURE, StopReason.INFRA_ERROR)
        _require(failed == bool(self.error), "a failed episode, and only such a one, has an error")

    @property
    def key(self) -> str:
        """`level1_problem7`, or `level1_problem7_sample3` for samples after the first."""
        return episode_key(self.problem.key, self.sample)

    @property
    def rewards_T(self) -> tuple[float | None, ...]:
        return tuple(t.reward.value for t in self.turns)

    @property
    def cut_short(self) -> bool:
        """Whether a failure or a cancellation ended it: then nobody knows its return, whatever its turns earned."""
        return bool(self.error) or self.stop_reason is StopReason.CANCELLED


def episode_key(problem_key: str, sample: int) -> str:
    return problem_key if sample == 0 else f"{problem_key}_sample{sample}"


# ------------------------------------------------------------------ codec


_PLAIN = frozenset({str, int, bool, type(None)})
"""As in JSON."""


def to_json(value: Any) -> Any:
    """Plain JSON values of a waist type. Refuses what JSON cannot hold exactly (NaN, infinities, unknown types)."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if dataclasses.is_dataclass(kind):
        return {name: to_json(getattr(value, name)) for name in _fields(kind)[0]}
    if isinstance(value, float):
        _require(math.isfinite(value), f"not representable in JSON: {value}")
        return value
    if isinstance(value, (list, tuple)):
        return list(value) if _all_plain(value) else [to_json(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, (int, str)):
        return value
    raise TypeError(f"{kind.__name__} is not a waist type")


def _all_plain(values: Sequence[Any]) -> bool:
    """Whether JSON has them as they are. A reply has thousands of tokens, and as many log-probabilities."""
    kinds = set(map(type, values))
    return kinds <= _PLAIN or (kinds == {float} and all(map(math.isfinite, values)))


def from_json(cls: type[T], data: Any) -> T:
    """Inverse of `to_json`: `from_json(type(x), to_json(x)) == x`.

    Unknown and missing fields and wrong types raise ValueError with the path of the first fault.
    """
    return typing.cast(T, _decode(cls, data, cls.__name__))


@functools.cache
def _fields(cls: type) -> tuple[Mapping[str, Any], frozenset[str]]:
    hints = typing.get_type_hints(cls)
    names = {f.name: hints[f.name] for f in dataclasses.fields(cls)}
    required = frozenset(
        f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    )
    return names, required


def _decode(kind: Any, data: Any, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (Union, types.UnionType):
        return _decode_union(kind, data, path)
    if kind is Any:
        return data
    if origin is Literal:
        _require(data in typing.get_args(kind), f"{path}: {data!r} is not one of {typing.get_args(kind)}")
        return data
    if origin is tuple:
        _require(isinstance(data, list), f"{path}: expected a list")
        item = typing.get_args(kind)[0]
        if item in (int, float, str) and set(map(type, data)) <= {item}:  # tokens: thousands of them, in each turn
            return tuple(data)
        return tuple(_decode(item, v, f"{path}[{i}]") for i, v in enumerate(data))
    if origin is not None and issubclass(origin, Mapping):
        _require(isinstance(data, dict), f"{path}: expected an object")
        return {k: _decode(typing.get_args(kind)[1], v, f"{path}.{k}") for k, v in data.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(typing.cast(type, kind), data, path)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        _require(data in set(kind), f"{path}: {data!r} is not a {kind.__name__}")
        return kind(data)
    return _decode_plain(kind, data, path)


def _decode_union(kind: Any, data: Any, path: str) -> Any:
    members = typing.get_args(kind)
    if data is None and type(None) in members:
        return None
    (inner,) = (m for m in members if m is not type(None))
    return _decode(inner, data, path)


def _decode_dataclass(cls: type, data: Any, path: str) -> Any:
    _require(isinstance(data, dict), f"{path}: expected an object")
    hints, required = _fields(cls)
    unknown, missing = set(data) - set(hints), required - set(data)
    _require(not unknown, f"{path}: unknown field {', '.join(sorted(unknown))}")
    _require(not missing, f"{path}: missing field {', '.join(sorted(missing))}")
    return cls(**{name: _decode(hints[name], value, f"{path}.{name}") for name, value in data.items()})


def _decode_plain(kind: Any, data: Any, path: str) -> Any:
    if kind is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    matches = isinstance(data, kind) and (kind is bool or not isinstance(data, bool))
    _require(matches, f"{path}: expected {kind.__name__}, got {type(data).__name__}")
    return data


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Canonical JSON text: same value, same bytes."""
    return json.dumps(to_json(value), indent=indent, ensure_ascii=False, allow_nan=False, sort_keys=False)

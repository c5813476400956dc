"""The referee: drives a reference and a candidate, compares bytes, keeps time, and gives the verdict. It runs no one's code.

What each side may know: the candidate's process gets the constructor's arguments, its inputs and an output mapping. Seeds of
inputs, expected outputs, the comparison and the clock stay here and in the reference's process.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from kernel_env.backends import get_backend
from kernel_env.builder import Builder, BuildRequest
from kernel_env.errors import ProblemError
from kernel_env.hostlock import CoresLock
from kernel_env.referee.clock import Clock, TimingPlan
from kernel_env.referee.compare import Tolerance, compare, same_bytes, tolerance
from kernel_env.referee.config import VerifyConfig, derive_seed
from kernel_env.referee.layout import Arena, total_bytes
from kernel_env.referee.measure import Session, Side, quiet_timing
from kernel_env.referee.process import BuildHandler, Endpoint, RunnerDied, RunnerTimeout
from kernel_env.referee.protocol import Frame
from kernel_env.schema import Candidate, Problem, Stage, Status, Timing, Verdict

TIMED_INPUT_BYTES = 256 << 20
"""Inputs kept for timing, so that calls see different values and addresses."""
_WEIGHTS = ("same_seed", "loaded", "own", "none")


@dataclass(frozen=True)
class Job:
    problem: Problem
    candidate: Candidate
    config: VerifyConfig
    seed: int


@dataclass(frozen=True)
class Prepared:
    """What the first pass over a candidate found, and what it cost."""

    verdict: Verdict | None
    """Set only if the candidate failed here."""
    build_ms: float
    duration_ms: float


class _Failed(Exception):
    """The candidate's turn is over: how."""

    def __init__(self, status: Status, stage: Stage, message: str, category: str = "") -> None:
        super().__init__(message)
        self.status, self.stage, self.message, self.category = status, stage, message, category


@dataclass
class _InputSet:
    """One trial's data, kept for timing."""

    index: int
    forward_seed: int
    tree: Any
    expected: Arena


class Referee:
    """Reaches verdicts, one job at a time.

    `launch(role, build, config)` starts a runner that has `threads` cores; `lock` is held alone while times are taken.
    """

    def __init__(
        self,
        launch: Callable[[str, BuildHandler, VerifyConfig], Endpoint],
        builder: Builder,
        clock: Clock,
        lock: CoresLock,
        *,
        mode: Literal["process", "inprocess"] = "process",
        threads: int = 1,
    ) -> None:
        self._launch, self._builder, self._clock, self.lock = launch, builder, clock, lock
        self._mode, self.threads = mode, threads

    def prepare(self, job: Job) -> Prepared:
        """Check and import the candidate once, off the device, so that everything is built. Raises BuilderError, VerifierError."""
        work = _Work(self, job)
        started = self._clock.now()
        verdict = work.concluded(work.prepare)
        return Prepared(verdict, work.reported_build_ms, (self._clock.now() - started) * 1e3)

    def verify(self, job: Job) -> Verdict:
        """The whole verification. Raises ProblemError when the problem's own code fails, BuilderError, VerifierError."""
        work = _Work(self, job)
        verdict = work.concluded(work.verify)
        assert verdict is not None
        return verdict


class _Work:
    """One job in progress."""

    def __init__(self, referee: Referee, job: Job) -> None:
        self.referee, self.job, self.config = referee, job, job.config
        self.clock = referee._clock
        self.backend = get_backend(job.candidate.backend)
        self.tolerance: Tolerance = tolerance(job.config.tolerance)
        self.build_ms = 0.0
        self.build_failure: tuple[str, str] | None = None
        """Category and log of the candidate's build that failed."""
        self.weights = ""
        self.trials_passed = 0
        self.log = ""
        self.reference_s = self.spent_s = 0.0
        self.stage = Stage.CHECK
        self.runner: Endpoint | None = None
        """The candidate's, once there is one."""

    def concluded(self, body: Callable[[], Verdict | None]) -> Verdict | None:
        started = self.clock.now()
        try:
            verdict = body()
        except _Failed as failure:
            verdict = self._verdict(failure.status, failure.stage, message=failure.message, category=failure.category)
        return verdict and replace(verdict, log=self.log, duration_ms=(self.clock.now() - started) * 1e3)

    def _verdict(self, status: Status, stage: Stage, **more: Any) -> Verdict:
        job = self.job
        return Verdict(
            status=status,
            stage=stage,
            problem=job.problem.key,
            problem_digest=job.problem.digest,
            candidate_digest=job.candidate.digest,
            backend=job.candidate.backend,
            profile=job.problem.profile,
            trials_passed=self.trials_passed,
            trials=self.config.num_correct_trials,
            tolerance=self.tolerance.name,
            weights=self.weights,
            seed=job.seed,
            mode=self.referee._mode,
            clock=self.clock.kind,
            isolation=self.runner.isolation if self.runner else (),
            build_ms=self.reported_build_ms,
            **more,
        )

    @property
    def reported_build_ms(self) -> float:
        return self.build_ms if self.clock.kind == "live" else 0.0

    # ---------------------------------------------------------- the two passes

    def prepare(self) -> Verdict | None:
        reason = self.backend.check(self.job.candidate.code, self.job.candidate.entry)
        if reason is not None:
            raise _Failed(Status.REJECTED, Stage.CHECK, reason)
        if self.backend.builds:
            with self.referee.lock.shared(), self._candidate() as candidate:
                self._load(candidate)
        return None

    def verify(self) -> Verdict:
        with self._reference() as reference, self._candidate() as candidate:
            self._load(candidate)
            return self._judge(reference, candidate)

    def _judge(self, reference: _Reference, candidate: Endpoint) -> Verdict:
        sets: list[_InputSet] = []
        try:
            trials = self.config.num_correct_trials
            for index in range(trials):
                if index in (0, trials // 2):  # two initialisations, so that nothing can rest on known weights
                    self._drop(reference, candidate, sets, len(sets))
                    self._construct(reference, candidate, derive_seed(self.job.seed, "init", index))
                self.stage = Stage.TRIALS
                sets.append(self._trial(reference, candidate, index))
                self._keep_within_budget(reference, candidate, sets)
            timing, note = self._time(reference, candidate, sets)
        finally:
            for kept in sets:
                kept.expected.close()
        return self._verdict(Status.CORRECT, Stage.DONE, timing=timing, timing_note=note)

    # ---------------------------------------------------------- runners

    @contextlib.contextmanager
    def _reference(self) -> Iterator[_Reference]:
        endpoint = self.referee._launch("reference", _no_builds, self.config)
        try:
            reference = _Reference(endpoint, self.job.problem, self.config.reference_timeout_s)
            reference.ask({"op": "load", "code": self.job.problem.source, "entry": "Model"})
            yield reference
        finally:
            endpoint.close()

    @contextlib.contextmanager
    def _candidate(self) -> Iterator[Endpoint]:
        endpoint = self.runner = self.referee._launch("candidate", self._build, self.config)
        try:
            yield endpoint
        finally:
            endpoint.close()
            self.log = endpoint.log()

    def _build(self, frame: Frame) -> Frame:
        """Serve a candidate's compiler call. What it asks is untrusted; a malformed request is a failed build."""
        try:
            request = BuildRequest(
                tuple((str(n), str(t)) for n, t in frame["sources"]),
                tuple((str(n), str(d)) for n, d in frame["functions"]),
                tuple(map(str, frame["compile_flags"])),
                tuple(map(str, frame["link_flags"])),
            )
        except (KeyError, TypeError, ValueError):
            self.build_failure = ("request", "malformed build request")
            return {"ok": False, "log": self.build_failure[1]}
        result = self.referee._builder.build(request)
        self.build_ms += result.build_ms
        if not result.ok:
            self.build_failure = (result.category, result.log)
        return {"ok": result.ok, "module": result.module, "path": result.path, "log": result.log}

    def _load(self, candidate: Endpoint) -> None:
        self.stage = Stage.LOAD
        self._ask(candidate, {"op": "load", "code": self.job.candidate.code, "entry": self.job.candidate.entry})

    # ---------------------------------------------------------- asking the candidate

    def _limit_s(self) -> float:
        """What the candidate has left: its time limit, or 5 times what the reference needed for the same calls if that is more."""
        return max(self.config.timeout_s, 5 * self.reference_s) - self.spent_s

    def _ask(self, candidate: Endpoint, frame: Frame, fds: tuple[int, ...] = ()) -> Frame:
        """One request under the limit. Raises _Failed with the status that a failure means at this stage."""
        started = self.clock.now()
        try:
            answer = candidate.request(frame, fds, max(self._limit_s(), 0.01))
        except RunnerTimeout:
            limit = max(self.config.timeout_s, 5 * self.reference_s)
            took = f"; the reference needed {self.reference_s:.3g} s" if self.reference_s and self.clock.kind == "live" else ""
            raise _Failed(Status.TIMEOUT, self.stage, f"no result within {limit:g} s ({_doing(frame)}){took}") from None
        except RunnerDied as death:
            raise _Failed(Status.CRASHED, self.stage, f"the process died ({death.cause}) {_doing(frame)}", death.cause) from None
        self.spent_s += self.clock.now() - started
        error = answer.get("error")
        if error is not None or self.build_failure is not None:
            raise self._failure(error if isinstance(error, dict) else {}, frame)
        return answer

    def _failure(self, error: Frame, frame: Frame) -> _Failed:
        if self.build_failure is not None:
            fault, log = self.build_failure
            return _Failed(Status.BUILD_ERROR, Stage.BUILD, _from_first_error(log), fault)
        kind, text, category = str(error.get("kind", "")), str(error.get("text", "")), str(error.get("type", ""))[:200]
        if kind == "device" and self.backend.flavour == "interpret":
            return _Failed(Status.NEEDS_DEVICE, self.stage, f"this machine cannot run it: {text}", category)
        if kind == "memory":
            return _Failed(Status.OUT_OF_MEMORY, self.stage, text, category)
        if kind == "output":
            return _Failed(Status.WRONG_OUTPUT, self.stage, text, "structure")
        if frame["op"] == "load":
            return _Failed(Status.LOAD_ERROR, self.stage, text, "entry" if kind == "entry" else category)
        return _Failed(Status.RUNTIME_ERROR, self.stage, text, category)

    # ---------------------------------------------------------- construction and trials

    def _construct(self, reference: _Reference, candidate: Endpoint, seed: int) -> None:
        """Build both models under one seed, then bring the candidate to the reference's weights where they differ."""
        self.stage = Stage.INIT
        planned = reference.ask({"op": "init_inputs", "seed": seed})
        with reference.written(planned) as arguments:
            frame = {"op": "init", "arguments": planned["tree"], "seed": seed}
            started = self.clock.now()
            reference.ask(frame, (arguments.fd,))
            self.reference_s += self.clock.now() - started
            self._ask(candidate, frame, (arguments.fd,))
        state = reference.ask({"op": "export_state"})
        with reference.written(state) as weights:
            answer = self._ask(candidate, {"op": "sync_state", "state": state["tree"]}, (weights.fd,))
        word = str(answer.get("weights"))
        self.weights = word if word in _WEIGHTS else "own"

    def _trial(self, reference: _Reference, candidate: Endpoint, index: int) -> _InputSet:
        """Fresh inputs, expected outputs from the reference, the candidate's outputs compared with them."""
        seed = derive_seed(self.job.seed, "inputs", index)
        forward_seed = derive_seed(self.job.seed, "forward", index)
        planned = reference.ask({"op": "make_inputs", "seed": seed})
        with reference.written(planned) as pristine, _copy(pristine) as theirs, _copy(pristine) as ours:
            take = {"op": "take_inputs", "index": index, "inputs": planned["tree"]}
            reference.ask(take, (theirs.fd,))
            started = self.clock.now()
            reference.ask({"op": "call", "index": index, "seed": forward_seed})
            self.reference_s += self.clock.now() - started
            described = reference.ask({"op": "describe"})
            expected = Arena(described["size"])
            try:
                reference.ask({"op": "write"}, (expected.fd,))
                self._ask(candidate, take, (ours.fd,))
                kept = _InputSet(index, forward_seed, described["tree"], expected)
                self._check(candidate, kept, f"trial {index + 1} of {self.config.num_correct_trials}")
                if same_bytes(theirs, pristine) and not same_bytes(ours, pristine):
                    raise _Failed(
                        Status.MUTATED_INPUTS, self.stage, "forward() changed its inputs; the reference leaves them as they are"
                    )
            except BaseException:
                expected.close()
                raise
        self.trials_passed += 1
        return kept

    def _check(self, candidate: Endpoint, kept: _InputSet, name: str) -> None:
        """One call whose output must agree with the expected one."""
        self._ask(candidate, {"op": "call", "index": kept.index, "seed": kept.forward_seed})
        output = Arena(kept.expected.size)
        try:
            output.poison()
            answer = self._ask(candidate, {"op": "collect", "size": total_bytes(kept.tree)}, (output.fd,))
            found = compare(kept.tree, kept.expected, answer.get("tree"), output, self.tolerance)
        finally:
            output.close()
        if found is not None:
            raise _Failed(Status.WRONG_OUTPUT, self.stage, f"{found.message}\n({name})", found.category)

    def _keep_within_budget(self, reference: _Reference, candidate: Endpoint, sets: list[_InputSet]) -> None:
        size = sets[-1].expected.size
        while len(sets) > 1 and len(sets) * size > TIMED_INPUT_BYTES:
            self._drop(reference, candidate, sets, 1)

    def _drop(self, reference: _Reference, candidate: Endpoint, sets: list[_InputSet], count: int) -> None:
        """Forget the oldest `count` sets on all sides."""
        for _ in range(count):
            kept = sets.pop(0)
            kept.expected.close()
            frame = {"op": "drop_inputs", "index": kept.index}
            reference.ask(frame)
            self._ask(candidate, frame)

    # ---------------------------------------------------------- timing

    def _time(self, reference: _Reference, candidate: Endpoint, sets: list[_InputSet]) -> tuple[Timing | None, str]:
        if not self.backend.timed:
            return None, "interpreter"
        if not self.config.measure_performance:
            return None, ""
        self.stage = Stage.TIMING
        sides = Side(reference.endpoint, reference.ask), Side(candidate, lambda frame: self._timed_ask(candidate, frame))
        seed = derive_seed(self.job.seed, "order")
        session = Session(self.clock, *sides, [kept.index for kept in sets], self.referee.threads, seed)

        def attempt() -> Timing:
            with self.referee.lock.exclusive() if self.clock.kind == "live" else contextlib.nullcontext():
                return session.timing(self._plan(), (self.job.problem.digest, self.job.candidate.digest))

        timing = quiet_timing(attempt, self.config.noise_limit)
        self._check(candidate, random.Random(seed).choice(sets), "after timing")
        return timing, ""

    def _timed_ask(self, candidate: Endpoint, frame: Frame) -> Frame:
        self.spent_s = 0.0  # in timing, the limit holds for each call
        return self._ask(candidate, frame)

    def _plan(self) -> TimingPlan:
        per_call = self.reference_s / max(self.trials_passed, 1)
        slow = per_call > 1.0
        return TimingPlan(
            max_rounds=self.config.num_perf_trials,
            min_rounds=min(3 if slow else 5, self.config.num_perf_trials),
            warmup_rounds=0 if slow else 2,
            budget_s=self.config.timing_budget_s,
        )


class _Reference:
    """The problem's side. Its failures are the problem's, never the candidate's."""

    def __init__(self, endpoint: Endpoint, problem: Problem, timeout_s: float) -> None:
        self.endpoint, self._problem, self._timeout_s = endpoint, problem, timeout_s

    def ask(self, frame: Frame, fds: tuple[int, ...] = ()) -> Frame:
        """Raises ProblemError."""
        where = f"problem {self._problem.key} ({self._problem.name}, from {self._problem.origin})"
        try:
            answer = self.endpoint.request(frame, fds, self._timeout_s)
        except RunnerTimeout:
            raise ProblemError(
                f"{where}: {frame['op']} took longer than {self._timeout_s:g} s; raise verify.reference_timeout_s"
            ) from None
        except RunnerDied as death:
            raise ProblemError(f"{where}: its process died ({death.cause}) in {frame['op']}; is there enough memory?") from None
        if "error" in answer:
            first = str(answer["error"].get("text", "")).split("\n")
            raise ProblemError(f"{where} failed in {frame['op']}: {' '.join(first[:1])}{' at' + first[-1] if first[1:] else ''}")
        return answer

    @contextlib.contextmanager
    def written(self, planned: Frame) -> Iterator[Arena]:
        """A mapping that holds what the reference just planned."""
        with contextlib.closing(Arena(planned["size"])) as arena:
            self.ask({"op": "write"}, (arena.fd,))
            yield arena


@contextlib.contextmanager
def _copy(arena: Arena) -> Iterator[Arena]:
    with contextlib.closing(Arena(arena.size)) as copy:
        copy.copy_from(arena)
        yield copy


def _no_builds(frame: Frame) -> Frame:
    return {"ok": False, "log": "a problem's reference cannot build extensions"}


def _doing(frame: Frame) -> str:
    words = {"load": "while its module was imported", "init": "while the model was constructed", "call": "in forward()"}
    return words.get(str(frame["op"]), f"in {frame['op']}")


def _from_first_error(log: str) -> str:
    """The compiler's words from its first error on; what stands before it (which function, which include) helps less."""
    lines = log.splitlines()
    first = next((i for i, line in enumerate(lines) if " error: " in line or "fatal error: " in line), 0)
    return "\n".join(lines[first:])

"""The referee: drives a reference and a candidate, compares bytes, keeps time, and gives the verdict. It runs no one's code.

What each side may know: the candidate's process gets the constructor's arguments, its inputs and an output mapping. Seeds of
inputs, expected outputs, the comparison and the clock stay here and in the reference's process.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kernel_env.backends import get_backend
from kernel_env.builder import Builder, BuildRequest
from kernel_env.checks.provenance import decoy, forbidden, unwatched
from kernel_env.errors import ProblemError, VerifierError
from kernel_env.hostlock import CoresLock
from kernel_env.referee.calibration import Calibration, Calibrator
from kernel_env.referee.clock import Clock, Round, TimingPlan, against_alone, least_ms, slowed
from kernel_env.referee.compare import compare, same_bytes
from kernel_env.referee.config import VerifyConfig, derive_seed
from kernel_env.referee.inputs import Draw, InputPool, InputSet
from kernel_env.referee.layout import packed
from kernel_env.referee.measure import TOGETHER, Session, Side, Tampered, give_slots, quiet_timing
from kernel_env.referee.memory import code_files, is_readable
from kernel_env.referee.outputs import Unreadable, excerpt, regions, watched
from kernel_env.referee.ownership import traits
from kernel_env.referee.process import BuildHandler, Endpoint, RunnerDied, RunnerTimeout, no_builds
from kernel_env.referee.protocol import MAX_ERROR_TEXT, Frame
from kernel_env.referee.reference import Reference, collected, output_at
from kernel_env.referee.secret import Secret
from kernel_env.referee.tolerance import Tolerance, tolerance
from kernel_env.sandbox import SYSTEM, interpreter_paths
from kernel_env.schema import Candidate, Problem, Stage, Status, Timing, Verdict

CHECK_BYTES = 8 << 20
"""Outputs of up to this size are compared as a whole in every round of timing; of larger ones so much, ..."""
EXCERPTS = 16
"""... in so many blocks at random places."""
OWNERSHIP_CHECKS = 8
"""In one of so many rounds of timing it is looked up where the output lies: reading a memory map takes most of a millisecond."""
KILLED, KILLED_TRIES = "SIGKILL", 3
"""The end of a runner that someone killed, and how often a job is begun for that."""
MOST_BUILDS = 32
"""Extensions of one candidate that had to be built."""
KEPT_SETS = 2
"""Inputs of trials that are kept, to make those of timed calls from."""
SLOT_BYTES = 16 << 20
"""Of the places of one side that the inputs of timed calls take turns in: as many as fit, two at least. New pages are dear."""
MOST_CALLS = 30
"""An attempt to time a candidate may last as long as its trials, or as so many of its calls."""
EXTENDED = 4
"""Timing that is not precise enough may take so many times its budget."""
ALONE = 0.1
"""Share of the timing budget that the baseline is timed for once more when the candidate is gone."""
ALONE_TRIES = 3
"""Verifications in which it has to be faster then. On a busy machine it happens once in about 25 times to an honest kernel."""
WATCHED = 3
"""So many times the limit is allowed while a forward is watched: what its kernels are given and give back is kept and compared."""
_OF_BUILDS = re.compile(r"/ke_[0-9a-f]{20}\.so$")
_INSTALLED = tuple(f"{path}/" for path in (*SYSTEM, *interpreter_paths()))
"""Where code of a runner may come from, besides its own builds."""
_OWN = ("load", "init", "call")
"""What a candidate is asked that is its own work."""
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
    duration_ms: float
    build_ms: float
    own_ms: float
    """As in a verdict."""


class _Failed(Exception):
    """The candidate's turn is over: how."""

    def __init__(self, status: Status, stage: Stage, message: str, category: str = "") -> None:
        super().__init__(message)
        self.status, self.stage, self.message, self.category = status, stage, message, category


class Referee:
    """Reaches verdicts, one job at a time.

    `launch(role, build, config)` starts a runner on `cores`; `lock` is held alone while times are taken.
    """

    def __init__(
        self,
        launch: Callable[[str, BuildHandler, VerifyConfig], Endpoint],
        builder: Builder,
        clock: Clock,
        lock: CoresLock,
        *,
        mode: Literal["process", "inprocess"] = "process",
        cores: tuple[int, ...] = (0,),
    ) -> None:
        self._launch, self._builder, self._clock, self.lock = launch, builder, clock, lock
        self._calibrator = Calibrator(builder.cache_dir)
        self._mode, self.cores = mode, cores

    def prepare(self, job: Job) -> Prepared:
        """Check and import the candidate once, off the device, so that everything is built. Raises BuilderError, VerifierError."""
        started = self._clock.now()
        work, verdict = self._done(job, _Work.prepare)
        return Prepared(verdict, (self._clock.now() - started) * 1e3, **work.spent_ms("build", "own"))

    def verify(self, job: Job) -> Verdict:
        """The whole verification. Raises ProblemError when the problem's own code fails, BuilderError, VerifierError.

        Where the baseline was faster once the candidate was gone, the candidate had slowed it down, or the machine changed its
        speed. Only what happens each time, in new processes, is the candidate's doing, and then the faster baseline counts.
        """
        for _ in range(ALONE_TRIES):
            work, verdict = self._done(job, _Work.verify)
            assert verdict is not None
            if work.slower == 1.0:
                return verdict
        assert verdict is not None and verdict.timing is not None
        return replace(verdict, timing=against_alone(verdict.timing, work.slower))

    def _done(self, job: Job, body: Callable[[_Work], Verdict | None]) -> tuple[_Work, Verdict | None]:
        """Work that ended by itself. Where a runner was killed it is done again in new ones: most likely that came from outside.
        Only what happens each time counts. Raises ProblemError, VerifierError."""
        for left in reversed(range(KILLED_TRIES)):
            work = _Work(self, job)
            try:
                verdict = work.concluded(functools.partial(body, work))
            except (ProblemError, VerifierError) as error:
                if not left or not (isinstance(error.__cause__, RunnerDied) and error.__cause__.cause == KILLED):
                    raise
            else:
                if verdict is None or (verdict.status, verdict.category) != (Status.CRASHED, KILLED):
                    break
        return work, verdict


class _Work:
    """One job in progress."""

    def __init__(self, referee: Referee, job: Job) -> None:
        self.referee, self.job, self.config = referee, job, job.config
        self.clock = referee._clock
        self.backend = get_backend(job.candidate.backend)
        self.tolerance: Tolerance = tolerance(job.config.tolerance)
        self.degenerate = False
        self.build_s = self.own_s = self.baseline_s = 0.0
        """Time in compilers, in the candidate's own calls, and in timed calls of the reference."""
        self.builds = 0
        self.build_failure: tuple[str, str] | None = None
        """Category and log of the candidate's build that failed."""
        self.weights_differ = self.copies_weights = False
        self.built: set[str] = set()
        """Paths of extensions that were built for the candidate, or found built."""
        self.imports: set[str] = set()
        """Symbols that the candidate's extensions take from other libraries."""
        self.weights = ""
        self.trials_passed = 0
        self.log = ""
        self.reference_s = self.spent_s = self.timed_s = 0.0
        self.seen_beside = False
        """Whether two outputs were kept at a time, ..."""
        self.random_forward = False
        """... whether the problem draws random numbers in forward, ..."""
        self.inputs_change = False
        """... whether it changes its inputs, ..."""
        self.unsteady = False
        """... and whether it was seen keeping a state from call to call, so that its timed outputs depend on their order."""
        self.secret = Secret()
        self.slower = 1.0
        """By how much the baseline was slower beside the candidate than alone."""
        self.stage = Stage.CHECK
        self.runner: Endpoint | None = None
        """The candidate's, once there is one."""

    def concluded(self, body: Callable[[], Verdict | None]) -> Verdict | None:
        started = self.clock.now()
        try:
            verdict = body()
        except _Failed as failure:
            verdict = self._verdict(failure.status, failure.stage, message=failure.message, category=failure.category)
        except RecursionError:  # only what a program answers may be nested without end
            verdict = self._verdict(Status.RUNTIME_ERROR, self.stage, message="an answer nested without end", category="protocol")
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
            degenerate=self.degenerate,
            weights=self.weights,
            seed=job.seed,
            mode=self.referee._mode,
            clock=self.clock.kind,
            isolation=self.runner.isolation if self.runner else (),
            **self.spent_ms("build", "own", "baseline"),
            **more,
        )

    def spent_ms(self, *names: str) -> dict[str, Any]:
        """What a verdict says of them: nothing where time is recorded."""
        return {f"{name}_ms": getattr(self, f"{name}_s") * 1e3 if self.clock.kind == "live" else 0.0 for name in names}

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
        calibration = self.referee._calibrator.of(self.job.problem, self._reference)
        calibration.check(self.job.problem, self.tolerance)
        self.degenerate = calibration.degenerate(self.tolerance)
        if self.tolerance.signal_aware:
            self.tolerance = calibration.fitted(self.tolerance)
        with self._reference() as maker, self._reference() as reference, self._candidate() as candidate:
            try:
                self._load(candidate)
                return self._judge(calibration, maker, reference, candidate)
            finally:
                for endpoint in (maker.endpoint, reference.endpoint, candidate):  # together: each takes 20 ms to end
                    endpoint.kill()

    def _judge(self, calibration: Calibration, maker: Reference, reference: Reference, candidate: Endpoint) -> Verdict:
        """The reference does what the candidate does, call for call; what only the problem does (drawing inputs) is done by
        `maker`, a process of its own. Else the two that are compared would have heaps of another history, and on memory-bound
        programs that alone was worth up to 20% of time."""
        baseline = Side(reference.endpoint, reference.ask)
        ours = Side(candidate, functools.partial(self._ask, candidate))
        sets: list[InputSet] = []
        trials = self.config.num_correct_trials
        try:
            for index in range(trials):
                anew = index in (0, trials // 2)  # two initialisations, so that nothing can rest on known weights
                init_seed = derive_seed(self.job.seed, "init", index)
                if anew:
                    self._construct(maker, reference, baseline, ours, init_seed)
                self.stage = Stage.TRIALS
                old = sets.pop(0) if len(sets) == KEPT_SETS else None
                sets.append(maker.inputs(derive_seed(self.job.seed, "inputs", index), old.arena if old else None, keep=True))
                if old and sets[-1].arena is not old.arena:
                    old.arena.close()
                seed, where = derive_seed(self.job.seed, "forward", index), f"trial {index + 1} of {trials}"
                try:
                    self._trial(reference, baseline, ours, sets[-1], seed, where, self.tolerance)
                except _Failed as failed:
                    if not (anew and self.weights_differ and failed.status is Status.WRONG_OUTPUT):
                        raise
                    # its own weights are no other layout of the reference's: they are other numbers
                    self.copies_weights = True
                    candidate.thaw()
                    self._construct(maker, reference, baseline, ours, init_seed)
                    self.stage = Stage.TRIALS
                    self._trial(reference, baseline, ours, sets[-1], seed, where, self.tolerance)
                self.trials_passed += 1
            if self.tolerance.signal_aware:
                self._extra_trial(calibration, maker, reference, baseline, ours)
            timing, note = self._time(maker, reference, baseline, ours, sets)
        finally:
            baseline.drop_slots()
            ours.drop_slots()
            for kept in sets:
                kept.arena.close()
        return self._verdict(Status.CORRECT, Stage.DONE, timing=timing, timing_note=note)

    # ---------------------------------------------------------- runners

    @contextlib.contextmanager
    def _reference(self) -> Iterator[Reference]:
        endpoint = self.referee._launch("reference", no_builds, self.config)
        try:
            reference = Reference(endpoint, self.job.problem, self.config.reference_timeout_s)
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
        if self.builds >= MOST_BUILDS:
            self.build_failure = ("limits", f"more than {MOST_BUILDS} extensions")
            return {"ok": False, "log": self.build_failure[1]}
        try:
            request = BuildRequest(
                tuple((str(n), str(t)) for n, t in frame["sources"]),
                tuple((str(n), str(d)) for n, d in frame["functions"]),
                tuple(map(str, frame["compile_flags"])),
                tuple(map(str, frame["link_flags"])),
            )
        except (KeyError, TypeError, ValueError, RecursionError):
            self.build_failure = ("request", "malformed build request")
            return {"ok": False, "log": self.build_failure[1]}
        result = self.referee._builder.build(request)
        self.build_s += result.build_ms / 1e3
        self.builds += not result.cached
        self.imports.update(result.imports)
        self.built.update([result.path] if result.ok else [])
        if not result.ok:
            self.build_failure = (result.category, result.log)
        return {"ok": result.ok, "module": result.module, "path": result.path, "log": result.log}

    def _load(self, candidate: Endpoint) -> None:
        self.stage = Stage.LOAD
        self._ask(candidate, {"op": "load", "code": self.job.candidate.code, "entry": self.job.candidate.entry})

    # ---------------------------------------------------------- asking the candidate

    def _limit_s(self) -> float:
        """The candidate's time limit, or 5 times what the reference needed for the same calls if that is more."""
        return max(self.config.timeout_s, 5 * self.reference_s, self.timed_s)

    def _ask(self, candidate: Endpoint, frame: Frame, fds: tuple[int, ...] = (), limit_s: float | None = None) -> Frame:
        """One request under what is left of the limit, or under one of its own. Raises _Failed with the status that a failure means
        at this stage."""
        started = self.clock.now()
        try:
            answer = candidate.request(frame, fds, limit_s or max(self._limit_s() - self.spent_s, 0.01))
        except RunnerTimeout:
            limit = limit_s or self._limit_s()
            took = f"; the reference needed {self.reference_s:.3g} s" if self.reference_s and self.clock.kind == "live" else ""
            raise _Failed(Status.TIMEOUT, self.stage, f"no result within {limit:g} s ({_doing(frame)}){took}") from None
        except RunnerDied as death:
            raise _Failed(Status.CRASHED, self.stage, f"the process died ({death.cause}) {_doing(frame)}", death.cause) from None
        self.spent_s += max(0.0, self.clock.now() - started - candidate.free_s)
        if frame["op"] in _OWN and not frame.get("empty"):
            self.own_s += candidate.elapsed_s - candidate.free_s
        error = answer.get("error")
        if error is not None or self.build_failure is not None:
            raise self._failure(error if isinstance(error, dict) else {}, frame)
        return answer

    def _failure(self, error: Frame, frame: Frame) -> _Failed:
        """Raises VerifierError where an extension was removed from the cache before it was loaded."""
        for path in self.built:
            if not Path(path).exists():
                raise VerifierError(f"an extension is gone from the build cache: {path}; is verifier.cache_limit_mb too small?")
        if self.build_failure is not None:
            fault, log = self.build_failure
            return _Failed(Status.BUILD_ERROR, Stage.BUILD, _from_first_error(log), fault)
        kind, text, category = (
            str(error.get("kind", "")),
            str(error.get("text", ""))[:MAX_ERROR_TEXT],
            str(error.get("type", ""))[:200],
        )
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

    def _construct(self, maker: Reference, reference: Reference, baseline: Side, ours: Side, seed: int) -> None:
        """Build both models under one seed.

        Where the candidate's weights differ they are left alone at first: a kernel may lay them out anew under the same names. If
        it is wrong then, the reference's are copied.
        """
        self.stage, candidate = Stage.INIT, ours.endpoint
        baseline.output = ours.output = None
        planned = maker.ask({"op": "init_inputs", "seed": seed})
        with maker.written(planned) as arguments:
            frame = {"op": "init", "arguments": planned["tree"], "seed": seed}
            candidate.freeze()  # threads of its own would lengthen what the reference takes, and with it the limit
            started = self.clock.now()
            reference.ask(frame, (arguments.fd,))
            self.reference_s += self.clock.now() - started
            candidate.thaw()
            self._ask(candidate, frame, (arguments.fd,))
        self._ask(candidate, {"op": "export_state"})
        state = reference.ask({"op": "export_state"})
        with reference.written(state) as weights:
            frame = {"op": "sync_state", "state": state["tree"], "copy": self.copies_weights}
            reference.ask(frame, (weights.fd,))
            answer = self._ask(candidate, frame, (weights.fd,))
        word = str(answer.get("weights"))
        self.weights_differ = word == "differ"
        self.weights = word if word in _WEIGHTS else "own"

    def _trial(
        self, reference: Reference, baseline: Side, ours: Side, inputs: InputSet, seed: int, where: str, tolerance: Tolerance
    ) -> None:
        """Expected outputs from the reference, the candidate's outputs compared with them, on equal inputs of their own."""
        for side in (baseline, ours):
            give_slots(side, inputs, 1)
            side.slots[0].copy_from(inputs.arena)
        # once, the outputs before these stay alive, so that it can be seen whether each has memory of its own
        beside = baseline.output is not None and not self.seen_beside
        self.seen_beside |= beside
        earlier = (baseline.output, ours.output) if beside else (None, None)
        call = {"op": "call", "indices": [0], "seeds": [seed], "beside": beside}
        ours.endpoint.freeze()
        started = self.clock.now()
        baseline.output = output_at(baseline.ask(call), 0)
        baseline.call_s = self.clock.now() - started
        self.reference_s += baseline.call_s
        is_random: Frame = {"op": "is_random", "seed": seed}
        self.random_forward |= bool(baseline.ask(is_random)["random"])
        ours.endpoint.thaw()
        spent_s = self.spent_s
        ours.output = output_at(ours.ask(call), 0)
        ours.call_s = self.spent_s - spent_s
        ours.ask(is_random)  # its answer is not needed; the same history is
        ours.endpoint.freeze()  # what is not there now does not count
        self.inputs_change |= not same_bytes(baseline.slots[0], inputs.arena)
        self._compare(reference, baseline, ours, where, tolerance)
        if not self.inputs_change and not same_bytes(ours.slots[0], inputs.arena):
            raise self._mutated(where)
        self._check_ownership(baseline, ours, where, earlier)
        ours.endpoint.thaw()

    def _extra_trial(self, calibration: Calibration, maker: Reference, reference: Reference, baseline: Side, ours: Side) -> None:
        """The same on plainly drawn inputs of another amplitude: a kernel that is right for the usual range only fails."""
        amplitude = calibration.amplitude(self.tolerance)
        if amplitude is None:
            return
        seeds = [derive_seed(self.job.seed, what, "amplitude", amplitude) for what in ("inputs", "forward")]
        how = f"{abs(amplitude):g} times as large{' and of random signs' if amplitude < 0 else ''}"
        where = f"an extra trial, on inputs {how}; the {self.config.num_correct_trials} regular ones passed"
        inputs = maker.inputs(seeds[0], amplitude=amplitude)
        with contextlib.closing(inputs.arena):
            self._trial(reference, baseline, ours, inputs, seeds[1], where, calibration.fitted(self.tolerance, amplitude))

    def _check_ownership(
        self, baseline: Side, ours: Side, where: str, earlier: tuple[Any, Any] = (None, None), *, whole: bool = True
    ) -> None:
        """What the candidate's output does not own, the reference's must not own either. With `whole`, also where it lies."""
        found = traits(ours.output, earlier[1], ours.endpoint.pid if whole else None)
        found -= traits(baseline.output, earlier[0], baseline.endpoint.pid) if found else frozenset()
        if found:
            words = f"the output {' and '.join(sorted(found))}; the reference returns new memory\n({where})"
            raise _Failed(Status.WRONG_OUTPUT, self.stage, words, "aliasing")

    def _compare_some(self, reference: Reference, baseline: Side, candidate: Side, where: str) -> None:
        """The same of random blocks, where outputs are large."""
        sizes = [size for _, size in watched(baseline.output)]
        if sum(sizes) <= CHECK_BYTES or not is_readable(reference.endpoint.pid):
            self._compare(reference, baseline, candidate, where, self.tolerance)
            return
        for _ in range(EXCERPTS):
            try:
                parts = excerpt(baseline.output, candidate.output, CHECK_BYTES // EXCERPTS // len(sizes), self.secret)
            except ValueError:  # comparing the whole says how they differ
                parts = baseline.output, candidate.output
            theirs, ours = (replace(side, output=part) for side, part in zip((baseline, candidate), parts, strict=True))
            self._compare(reference, theirs, ours, where, self.tolerance)

    def _compare(self, reference: Reference, baseline: Side, candidate: Side, where: str, tolerance: Tolerance) -> None:
        """The outputs of both sides that are looked at. The candidate is frozen. Raises _Failed."""
        expected, got = baseline.output, candidate.output
        layout, size = packed(expected)
        ask = functools.partial(self._ask, candidate.endpoint)
        with collected(expected, layout, size, reference.endpoint, reference.ask, baseline.index) as theirs:
            try:
                with collected(got, layout, size, candidate.endpoint, ask, candidate.index) as ours:
                    found = compare(layout, theirs, got, ours, tolerance)
            except Unreadable as error:
                words = f"the output's memory cannot be read: {error}\n({where})"
                raise _Failed(Status.WRONG_OUTPUT, self.stage, words, "unreadable") from None
        if found is not None:
            raise _Failed(Status.WRONG_OUTPUT, self.stage, f"{found.message}\n({where})", found.category)

    def _mutated(self, where: str) -> _Failed:
        return _Failed(
            Status.MUTATED_INPUTS, self.stage, f"forward() changed its inputs; the reference leaves them as they are ({where})"
        )

    # ---------------------------------------------------------- timing

    def _time(
        self, maker: Reference, reference: Reference, baseline: Side, ours: Side, sets: list[InputSet]
    ) -> tuple[Timing | None, str]:
        key = self.job.problem.digest, self.job.candidate.digest
        if not self.backend.timed or not self.config.measure_performance or self.clock.kind == "recorded":
            self._check_provenance(maker, reference, baseline, ours)
            if not self.backend.timed or not self.config.measure_performance:
                return None, "" if self.backend.timed else "interpreter"
            self.stage = Stage.TIMING
            return self.clock.measure(lambda: (), key, derive_seed(self.job.seed, "interval")), ""
        self.stage = Stage.TIMING
        with self._session(maker, reference, baseline, ours, sets) as session:
            rounds: list[Round] = []

            def attempt() -> Timing:
                self.spent_s = 0.0
                with self.referee.lock.exclusive():
                    called_s = reference.called_s
                    rounds[:] = session.rounds(self._plan())
                    self.baseline_s += reference.called_s - called_s
                timing = self.clock.measure(lambda: rounds, key, derive_seed(self.job.seed, "interval"))
                return replace(timing, noise=session.noise)

            try:
                timing = quiet_timing(attempt, self.config.noise_limit)
            except Tampered as found:
                raise _Failed(Status.TAMPERED, self.stage, str(found), found.category) from None
            self._check_possible(timing, baseline)
            self._check_provenance(maker, reference, baseline, ours)
            ours.endpoint.close()
            with self.referee.lock.exclusive():
                alone_ms = session.alone(self.config.timing_budget_s * ALONE)
        together = max(r.together for r in rounds)
        self.slower = slowed([ms for r in rounds if r.together == together for ms in r.baseline_ms], alone_ms)
        return timing, ""

    def _check_provenance(self, maker: Reference, reference: Reference, baseline: Side, ours: Side) -> None:
        """Raises _Failed where the candidate's own kernels do not do the work. The last that is asked of its process: they run on
        numbers that they were not made for."""
        if self.config.torch_ops == "unchecked":
            return
        self._expect_no_library("its extension calls", unwatched(self.imports))
        self._expect_own_code(baseline.endpoint, ours.endpoint)
        seed, limit_s = self._new_inputs(maker, "watched", ours), WATCHED * self._limit_s()
        ours.endpoint.thaw()
        found = self._ask(ours.endpoint, {"op": "trace", "seed": seed}, limit_s=limit_s)
        try:
            launched, operators = bool(found["launches"]), set(map(str, found["operators"]))
            unseen, functions = (list(map(str, found[name])) for name in ("hidden", "functions"))
        except (KeyError, TypeError, ValueError, RecursionError):
            raise _Failed(Status.RUNTIME_ERROR, self.stage, "a malformed answer", "protocol") from None
        self._expect_no_library("it looks up", functions)
        if unseen:
            words = f"torch's operators ({', '.join(unseen)[:200]}) ran where no trace sees them: call them openly"
            raise _Failed(Status.REJECTED, self.stage, words, "library")
        works = matters = True
        if launched:
            works, matters = self._works(maker, reference, baseline, ours, seed, limit_s)
        fault = decoy(launched, works, matters or self.degenerate)
        if fault:
            raise _Failed(Status.REJECTED, self.stage, fault, "decoy")
        left = forbidden(operators, self.config.torch_ops)
        if left:
            words = f"torch computed a part of it, which verify.torch_ops={self.config.torch_ops} does not allow: {', '.join(left)}"
            raise _Failed(Status.REJECTED, self.stage, words, "torch_ops")

    def _works(
        self, maker: Reference, reference: Reference, baseline: Side, ours: Side, seed: int, limit_s: float
    ) -> tuple[bool, bool]:
        """Whether its kernels compute anything, and whether that makes a difference: seen when what they compute is replaced, by
        what they give for other numbers, or by something else where that shows none. To fail then proves nothing: a program
        that only tests its kernel against torch does, too."""
        for how in ("other", "disturbed"):
            frame: Frame = {"op": "ablate", "seed": seed, "how": how, "compare": True}
            try:
                found = self._ask(ours.endpoint, frame, limit_s=limit_s)
            except _Failed as failed:
                if failed.status in (Status.CRASHED, Status.TIMEOUT):
                    break
                continue
            if not found.get("works", True):
                return False, False
            if not found.get("launched", True):
                return True, self._differs_on_new_inputs(maker, reference, baseline, ours, limit_s)
            if found.get("matters", True):
                return True, True
        return True, False

    def _differs_on_new_inputs(self, maker: Reference, reference: Reference, baseline: Side, ours: Side, limit_s: float) -> bool:
        """For a program that remembered the answer. That is honest, if all of the inputs' content was compared."""
        seed = self._new_inputs(maker, "watched again", baseline, ours)
        reference.endpoint.thaw()
        baseline.output = output_at(baseline.ask({"op": "call", "indices": [0], "seeds": [seed]}), 0)
        frame: Frame = {"op": "ablate", "seed": seed, "how": "disturbed", "compare": False}
        try:
            ours.output = output_at(self._ask(ours.endpoint, frame, limit_s=limit_s), 0)
            self._compare(reference, baseline, ours, "", self.tolerance)
        except _Failed as failed:
            return failed.status is Status.WRONG_OUTPUT
        return False

    def _new_inputs(self, maker: Reference, what: str, *sides: Side) -> int:
        """Written into the first place of each side; returns the seed of the generator in forward."""
        inputs = maker.inputs(derive_seed(self.job.seed, "inputs", what))
        with contextlib.closing(inputs.arena):
            for side in sides:
                if side.tree == inputs.tree:
                    side.slots[0].copy_from(inputs.arena)
        return derive_seed(self.job.seed, "forward", what)

    def _expect_own_code(self, reference: Endpoint, candidate: Endpoint) -> None:
        """Raises _Failed where the candidate runs code of a file that is not installed, that the reference does not run, and that
        was not built here for it: what another build needed of libraries was not looked at."""
        if self.referee._mode != "process":
            return
        with contextlib.suppress(OSError):
            theirs = code_files(reference.pid)
            for name in code_files(candidate.pid) - theirs - self.built:
                if _OF_BUILDS.search(name) or not name.startswith(_INSTALLED):
                    words = f"it runs code of a file that was not built for it: {Path(name).name[:100]}"
                    raise _Failed(Status.REJECTED, self.stage, words, "library")

    def _expect_no_library(self, how: str, functions: Sequence[str]) -> None:
        if functions:
            words = f"{how} functions of a library ({', '.join(functions)[:200]}): write the work yourself, or leave it to torch"
            raise _Failed(Status.REJECTED, self.stage, words, "library")

    def _check_possible(self, timing: Timing, baseline: Side) -> None:
        """Raises _Failed for a time that is too short to write the output; unless the reference writes none."""
        floor_ms = least_ms(sum(size for _, size in regions(baseline.output)), len(self.referee.cores))
        if timing.runtime.median_ms < floor_ms and not traits(baseline.output, None, baseline.endpoint.pid):
            words = f"{timing.runtime.median_ms:.4g} ms is too short to write the output: {floor_ms:.4g} ms at the speed of a cache"
            raise _Failed(Status.TAMPERED, self.stage, words, "impossible_time")

    @contextlib.contextmanager
    def _session(
        self, maker: Reference, reference: Reference, baseline: Side, ours: Side, sets: list[InputSet]
    ) -> Iterator[Session]:
        """Both sides with mappings of their own for inputs, and a pool of fresh inputs."""
        self.timed_s = MOST_CALLS * ours.call_s
        for side in (baseline, ours):
            give_slots(side, sets[-1], max(2, min(TOGETHER, SLOT_BYTES // sets[-1].arena.size)))
        with contextlib.closing(InputPool(sets, lambda: maker.inputs(self.secret.getrandbits(62)), self.secret)) as pool:
            check = functools.partial(self._check_round, reference, pool)
            helpers = (maker.endpoint.pid,)
            yield Session(baseline, ours, pool, check, self.referee.cores, helpers, self.random_forward)

    def _check_round(self, reference: Reference, pool: InputPool, baseline: Side, candidate: Side, draw: Draw) -> None:
        """Compare the last calls of a round; where outputs are large, blocks that no one can know. Both sides are frozen."""
        if self.unsteady:
            return
        try:
            self._compare_some(reference, baseline, candidate, "a timed call")
            if not self.inputs_change and not same_bytes(baseline.slots[baseline.slot], candidate.slots[candidate.slot]):
                raise self._mutated("a timed call")
            beside = baseline.beside, candidate.beside
            self._check_ownership(baseline, candidate, "a timed call", beside, whole=self.secret.randrange(OWNERSHIP_CHECKS) == 0)
        except _Failed:
            reference.endpoint.thaw()
            self.unsteady = not reference.is_steady(0, draw.seed, lambda: pool.write(draw, baseline.slots[0]), self.tolerance)
            if not self.unsteady:
                raise

    def _plan(self) -> TimingPlan:
        per_call = self.reference_s / max(self.trials_passed, 1)
        slow = per_call > 1.0
        return TimingPlan(
            rounds=self.config.num_perf_trials,
            min_rounds=min(3 if slow else 5, self.config.num_perf_trials),
            budget_s=self.config.timing_budget_s,
            extended=EXTENDED,
            precision=self.config.timing_precision,
        )


def _doing(frame: Frame) -> str:
    words = {
        "load": "while its module was imported",
        "init": "while the model was constructed",
        "call": "in forward()",
        "trace": "in a watched forward()",
    }
    return words.get(str(frame["op"]), f"in {frame['op']}")


def _from_first_error(log: str) -> str:
    """The compiler's words from its first error on; what stands before it (which function, which include) helps less."""
    lines = log.splitlines()
    first = next((i for i, line in enumerate(lines) if " error: " in line or "fatal error: " in line), 0)
    return "\n".join(lines[first:])

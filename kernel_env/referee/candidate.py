"""A candidate on trial: its process, what it is asked, how its failures are told, and its verdict."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kernel_env.backends import get_backend
from kernel_env.backends.targets import CUDA_TARGETS, target
from kernel_env.builder import Builder, BuildRequest
from kernel_env.errors import KernelEnvError, VerifierError
from kernel_env.referee.bench import Bench, Construction, Expected, Trial, handed
from kernel_env.referee.clock import Clock
from kernel_env.referee.compare import compare, excused, same_bytes
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.inputs import InputSet
from kernel_env.referee.layout import Buffer, leaves
from kernel_env.referee.memory import private_bytes
from kernel_env.referee.outputs import Unreadable
from kernel_env.referee.ownership import traits
from kernel_env.referee.placement import counts_cores
from kernel_env.referee.process import BuildHandler, Endpoint, RunnerDied, RunnerTimeout
from kernel_env.referee.protocol import MAX_ERROR_TEXT, Frame
from kernel_env.referee.reference import fetched, output_at
from kernel_env.referee.sides import ENDS, Fault, Side, Tampered, give_slots
from kernel_env.referee.tolerance import Tolerance, tolerance
from kernel_env.schema import Candidate, Compiled, Problem, Stage, Status, Verdict

MOST_CALLS = 30
"""An attempt to time a candidate may last as long as its trials, or as so many of its calls."""
LATER_S = 0.01
"""An output that is wrong is looked at once more after this: a thread may still be writing it."""
MODEST, MODEST_BYTES = 2, 256 << 20
"""Beside others it may hold so many times the memory of the reference's process, and so much more."""
MOST_BUILDS, MOST_BUILD_CPU_S = 32, 600.0
"""Extensions of one candidate that had to be built, and processor time of their compilers before another one is begun."""
KILLED = "SIGKILL"
"""The end of a runner that someone killed."""
_OWN = ("load", "init", "call")
"""What a candidate is asked that is its own work."""
_WEIGHTS = ("same_seed", "loaded", "own", "none")


Opinions = Callable[[], Generator[Expected]]
"""What else the reference would answer. The first costs a process, and each a call."""


@dataclass(frozen=True)
class Job:
    problem: Problem
    candidate: Candidate
    config: VerifyConfig
    seed: int


class Failed(Fault):
    """The candidate's turn is over: how."""

    def __init__(self, status: Status, stage: Stage, message: str, category: str = "") -> None:
        super().__init__(message)
        self.status, self.stage, self.message, self.category = status, stage, message, category


class Alone(Fault):
    """The candidate has to be verified without others beside it."""


@dataclass(frozen=True)
class Prepared:
    """What the first pass over a candidate found, and what it cost."""

    verdict: Verdict | None
    """Set only if the candidate failed here."""
    duration_ms: float
    build_ms: float
    own_ms: float
    """As in a verdict."""


@dataclass(frozen=True)
class Found:
    """What came of a candidate."""

    outcome: Verdict | KernelEnvError
    slower: float = 1.0
    """By how much the baseline was slower beside it than alone."""
    disturbed: bool = False
    """Whether one that was timed together with it may have been what was measured."""

    @property
    def killed(self) -> bool:
        """Whether a process of it was killed: most likely that came from outside."""
        if isinstance(self.outcome, KernelEnvError):
            return isinstance(self.outcome.__cause__, RunnerDied) and self.outcome.__cause__.cause == KILLED
        return (self.outcome.status, self.outcome.category) == (Status.CRASHED, KILLED)


@dataclass(frozen=True)
class House:
    """What a candidate finds here. `launch(role, build, config)` starts a runner."""

    launch: Callable[[str, BuildHandler, VerifyConfig], Endpoint]
    builder: Builder
    clock: Clock
    mode: Literal["process", "inprocess"] = "process"


class OnTrial:
    """One candidate, from its import to its verdict. Between its turns it is frozen: others have theirs."""

    def __init__(self, house: House, job: Job) -> None:
        self.house, self.job, self.config, self.clock = house, job, job.config, house.clock
        self.backend = get_backend(job.candidate.backend)
        self.tolerance: Tolerance = tolerance(job.config.tolerance)
        self.degenerate = False
        self.build_s = self.own_s = self.baseline_s = self.took_s = 0.0
        """Time in compilers, in its own calls, in timed calls of the reference (its share of them), and in all."""
        self.builds, self.build_cpu_s = 0, 0.0
        self.build_failure: tuple[str, str] | None = None
        """Category and log of its build that failed."""
        self.built: set[str] = set()
        """Paths of extensions that were built for it, or found built."""
        self.asked: set[BuildRequest] = set()
        """What it asked for before it was timed."""
        self.compiled: list[Compiled] = []
        """Its CUDA kernels."""
        self.imports: set[str] = set()
        """Symbols that its extensions take from other libraries."""
        self.weights = ""
        self.weights_differ = self.copies_weights = False
        self.trials_passed = 0
        self.reference_s = self.spent_s = self.timed_s = 0.0
        """Of the reference for what it did, of its own limit, and of what that is in timed calls at least."""
        self.answered = False
        """Whether forward has come to an end once: then what it needs is here."""
        self.stage = Stage.CHECK
        self.runner: Endpoint | None = None
        """Its process, once there is one."""
        self.side: Side | None = None

    # ---------------------------------------------------------- its verdict

    def concluded(self, body: Callable[[], Verdict | None]) -> Verdict | None:
        """The verdict that `body` reaches, if it does."""
        with self.timed():
            try:
                return body()
            except Alone:
                raise
            except Fault as fault:
                return self.failed(fault)
            except RecursionError:  # only what a program answers may be nested without end
                words = "an answer nested without end"
                return self.failed(Failed(Status.RUNTIME_ERROR, self.stage, words, "protocol"))

    def finished(self, verdict: Verdict) -> Verdict:
        """With how long it took."""
        return replace(verdict, duration_ms=self.took_s * 1e3)

    def failed(self, fault: Fault) -> Verdict:
        if isinstance(fault, Failed):
            return self.verdict(fault.status, fault.stage, message=fault.message, category=fault.category)
        assert isinstance(fault, Tampered)
        return self.verdict(Status.TAMPERED, self.stage, message=str(fault), category=fault.category)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """What is done for it counts as time of its verification."""
        started = self.clock.now()
        try:
            yield
        finally:
            self.took_s += self.clock.now() - started

    def verdict(self, status: Status, stage: Stage, **more: Any) -> Verdict:
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
            mode=self.house.mode,
            clock=self.clock.kind,
            isolation=self.runner.isolation if self.runner else (),
            log=self.runner.log() if self.runner else "",
            ahead=tuple(self.compiled),
            **self.spent_ms("build", "own", "baseline"),
            **more,
        )

    def spent_ms(self, *names: str) -> dict[str, Any]:
        """What a verdict says of them: nothing where time is recorded."""
        return {f"{name}_ms": getattr(self, f"{name}_s") * 1e3 if self.clock.kind == "live" else 0.0 for name in names}

    # ---------------------------------------------------------- its process

    def load(self, targets: Sequence[str] = ()) -> None:
        """Start it and import its source; with `targets` what it launches is compiled for those and runs nothing. Raises Failed."""
        self.runner = endpoint = self.house.launch("candidate", self._build, self.config)
        self.side = Side(endpoint, self.ask)
        self.stage = Stage.LOAD
        candidate, precision = self.job.candidate, self.job.problem.precision
        frame: Frame = {"op": "load", "code": candidate.code, "entry": candidate.entry, "precision": precision}
        frame["cuda"] = self.backend.device == "cuda"
        self.ask({**frame, "targets": list(targets)} if targets else frame)
        endpoint.freeze()

    def close(self) -> None:
        """Idempotent. What it printed stays."""
        if self.side is not None:
            self.side.drop_slots()
        if self.runner is not None:
            self.runner.close()

    @property
    def endpoint(self) -> Endpoint:
        assert self.runner is not None
        return self.runner

    @property
    def ours(self) -> Side:
        assert self.side is not None
        return self.side

    def _build(self, frame: Frame) -> Frame:
        """Serve a candidate's compiler call. What it asks is untrusted; a malformed request is a failed build."""
        if self.builds >= MOST_BUILDS:
            self.build_failure = ("limits", f"more than {MOST_BUILDS} extensions")
            return {"ok": False, "log": self.build_failure[1]}
        if self.build_cpu_s > MOST_BUILD_CPU_S:
            self.build_failure = ("limits", f"its extensions take more than {MOST_BUILD_CPU_S:g} s of compilers' processor time")
            return {"ok": False, "log": self.build_failure[1]}
        try:
            request = BuildRequest(
                tuple((str(n), str(t)) for n, t in frame["sources"]),
                tuple((str(n), str(d)) for n, d in frame["functions"]),
                tuple(map(str, frame["compile_flags"])),
                tuple(map(str, frame["link_flags"])),
                tuple(map(str, frame.get("cuda_flags", ()))),
                tuple(target(name).arch for name in self.config.aot or CUDA_TARGETS) if self.backend.device == "cuda" else (),
            )
        except (KeyError, TypeError, ValueError, RecursionError):
            self.build_failure = ("request", "malformed build request")
            return {"ok": False, "log": self.build_failure[1]}
        if self.stage is not Stage.TIMING:
            self.asked.add(request)
        elif request not in self.asked:  # it would have the cores of a session to itself, and others wait
            self.build_failure = ("late", "an extension that it did not ask for in its trials: while it is timed none is compiled")
            return {"ok": False, "log": self.build_failure[1]}
        result = self.house.builder.build(request)
        self.build_s += result.build_ms / 1e3
        self.build_cpu_s += result.cpu_s
        self.builds += not result.cached
        self.imports.update(result.imports)
        self.endpoint.counts_cores |= counts_cores(result.imports)
        self.built.update([result.path] if result.ok else [])
        self.compiled += [
            Compiled(f"cuda:{used.arch}", used.kernel, used.registers, used.spilled_bytes, used.shared_bytes)
            for used in result.resources
        ]
        if not result.ok:
            self.build_failure = (result.category, result.log)
        return {"ok": result.ok, "module": result.module, "path": result.path, "log": result.log}

    # ---------------------------------------------------------- asking it

    def limit_s(self) -> float:
        """The candidate's time limit, or 5 times what the reference needed for the same calls if that is more."""
        return max(self.config.timeout_s, 5 * self.reference_s, self.timed_s)

    def ask(self, frame: Frame, fds: tuple[int, ...] = (), limit_s: float | None = None) -> Frame:
        """One request under what is left of the limit, or under one of its own. Raises Failed with the status that a failure
        means at this stage."""
        started, candidate = self.clock.now(), self.endpoint
        try:
            answer = candidate.request(frame, fds, limit_s or max(self.limit_s() - self.spent_s, 0.01))
        except RunnerTimeout:
            limit = limit_s or self.limit_s()
            took = f"; the reference needed {self.reference_s:.3g} s" if self.reference_s and self.clock.kind == "live" else ""
            raise Failed(Status.TIMEOUT, self.stage, f"no result within {limit:g} s ({_doing(frame)}){took}") from None
        except RunnerDied as death:
            raise Failed(Status.CRASHED, self.stage, f"the process died ({death.cause}) {_doing(frame)}", death.cause) from None
        self.spent_s += max(0.0, self.clock.now() - started - candidate.free_s)
        if frame["op"] in _OWN and not frame.get("empty"):
            self.own_s += candidate.elapsed_s - candidate.free_s
        error = answer.get("error")
        if error is not None or self.build_failure is not None:
            raise self._failure(error if isinstance(error, dict) else {}, frame)
        if frame["op"] == "call":
            self.answered = True
            outputs, calls = answer.get("outputs"), len(frame["indices"])
            if not isinstance(outputs, list) or len(outputs) != calls:  # one more, and another is the last, which is watched
                words = f"its process did not answer {calls} calls with as many outputs"
                raise Failed(Status.RUNTIME_ERROR, self.stage, words, "protocol")
        return answer

    def _failure(self, error: Frame, frame: Frame) -> Failed:
        """Raises VerifierError where an extension was removed from the cache before it was loaded."""
        for path in self.built:
            if not Path(path).exists():
                raise VerifierError(f"an extension is gone from the build cache: {path}; is verifier.cache_limit_mb too small?")
        if self.build_failure is not None:
            fault, log = self.build_failure
            return Failed(Status.BUILD_ERROR, Stage.BUILD, _from_first_error(log), fault)
        kind, text, category = (
            str(error.get("kind", "")),
            str(error.get("text", ""))[:MAX_ERROR_TEXT],
            str(error.get("type", ""))[:200],
        )
        if kind == "device" and not self.answered and (self.backend.flavour == "interpret" or self.backend.device):
            return Failed(Status.NEEDS_DEVICE, self.stage, f"this machine cannot run it: {text}", category)
        if kind == "build":  # what this back end does not build reaches no builder
            return Failed(Status.BUILD_ERROR, Stage.BUILD, text, "unavailable")
        if kind == "compile":
            name = str(frame.get("target", "a GPU"))
            return Failed(Status.BUILD_ERROR, Stage.BUILD, f"for {name}: {text}", name)
        if kind == "memory":
            return Failed(Status.OUT_OF_MEMORY, self.stage, text, category)
        if kind == "output":
            return Failed(Status.WRONG_OUTPUT, self.stage, text, "structure")
        if frame["op"] == "load":
            return Failed(Status.LOAD_ERROR, self.stage, text, "entry" if kind == "entry" else category)
        return Failed(Status.RUNTIME_ERROR, self.stage, text, category)

    # ---------------------------------------------------------- construction and trials

    def construct(self, made: Construction) -> None:
        """Build its model under the seed of the reference's. Raises Failed.

        Where its weights differ they are left alone at first: a kernel may lay them out anew under the same names. If it is wrong
        then, the reference's are copied.
        """
        self.stage, self.ours.output = Stage.INIT, None
        self.endpoint.thaw()
        self.reference_s += made.took_s
        with handed(made.arguments_in) as memory:
            self.ask({"op": "init", "arguments": made.arguments, "seed": made.seed}, (memory.fd,))
        assert made.weights_in is not None
        with handed(made.weights_in) as memory:
            frame = {"op": "sync_state", "state": made.weights, "copy": self.copies_weights}
            word = str(self.ask(frame, (memory.fd,)).get("weights"))
        self.weights_differ = word == "differ"
        self.weights = word if word in _WEIGHTS else "own"

    def take_trial(self, bench: Bench, trial: Trial) -> None:
        """Raises Failed."""
        step, made = trial.step, bench.construction(trial.step.index)
        if step.anew is not None:
            self.construct(made)
        try:
            self._take_trial(bench, trial)
        except Failed as failed:
            if not (step.anew is not None and self.weights_differ and failed.status is Status.WRONG_OUTPUT):
                raise
            # its own weights are no other layout of the reference's: they are other numbers
            self.copies_weights = True
            self.construct(made)
            self._take_trial(bench, trial)
        self.trials_passed += step.regular

    def _take_trial(self, bench: Bench, trial: Trial) -> None:
        """Its output on inputs of its own, against the expected one."""
        self.stage, side, step = Stage.TRIALS, self.ours, trial.step
        self.endpoint.thaw()
        give_slots(side, trial.inputs, 1)
        side.slots[0].copy_from(trial.inputs.arena)
        earlier = side.output if step.beside else None
        self.reference_s += trial.took_s
        spent_s = self.spent_s
        self.endpoint.freeze_at_reply = True  # what is not there now does not count
        frame: Frame = {"op": "call", "indices": [0], "seeds": [step.forward], "beside": step.beside, "trial": True}
        side.output = output_at(self.ask(frame), 0)
        side.index, side.call_s = 0, self.spent_s - spent_s
        opinions = functools.partial(bench.opinions, step.index, trial.inputs, trial.write, step.forward)
        self.compare(trial.expected, step.where, step.tolerance, side.output, opinions)
        if not bench.changes and not same_bytes(side.slots[0], trial.inputs.arena):
            raise self.mutated(step.where)
        self.check_ownership(lambda: trial.traits, step.where, earlier)

    def compare(
        self,
        expected: Expected,
        where: str,
        tolerance: Tolerance,
        got: Any,
        opinions: Opinions | None = None,
        whole: Callable[[], bool] | None = None,
    ) -> bool:
        """What it gave, of its last message. It is frozen. Raises Failed; and Tampered where it only was not finished.

        `opinions` are asked for only where a few elements differ. Of a part `whole` compares all that it is one of, for only that
        tells what may be undetermined. Returns whether they explained any: of what was there before the program goes on once more.
        """
        memory = self._fetched(expected, where, got)
        found = compare(expected.layout, expected.memory, got, memory, tolerance)
        if found is None:
            return False
        if opinions and found.may_be_undetermined and _undetermined(expected, tolerance, got, memory, opinions):
            return True
        if found.category in ("values", "nonfinite"):
            if whole is not None and whole():
                return True
            self.endpoint.thaw()
            time.sleep(LATER_S)
            self.endpoint.freeze()
            if compare(expected.layout, expected.memory, got, self._fetched(expected, where, got), tolerance) is None:
                raise Tampered("late_work", f"the output was not there yet when forward() had returned: {ENDS} ({where})")
        raise Failed(Status.WRONG_OUTPUT, self.stage, f"{found.message}\n({where})", found.category)

    def _fetched(self, expected: Expected, where: str, got: Any) -> Buffer:
        """Raises Failed."""
        try:
            return fetched(got, self.endpoint, self.ask, self.ours.index, like=expected.output)[1]
        except Unreadable as error:
            words = f"the output's memory cannot be read: {error}\n({where})"
            raise Failed(Status.WRONG_OUTPUT, self.stage, words, "unreadable") from None

    def check_ownership(self, theirs: Callable[[], frozenset[str]], where: str, earlier: Any = None) -> None:
        """What its output does not own, the reference's must not own either. Raises Failed."""
        found = traits(self.ours.output, earlier, self.endpoint.pid)
        found -= theirs() if found else frozenset()
        if found:
            words = f"the output {' and '.join(sorted(found))}; the reference returns new memory\n({where})"
            raise Failed(Status.WRONG_OUTPUT, self.stage, words, "aliasing")

    def get_ready(self, like: InputSet, places: int) -> None:
        """So many places for inputs of timed calls. Raises Failed."""
        self.stage, self.timed_s = Stage.TIMING, MOST_CALLS * self.ours.call_s
        self.endpoint.thaw()
        give_slots(self.ours, like, places)
        self.endpoint.freeze()

    def begin_timing(self) -> None:
        """An attempt to time it has a limit of its own."""
        self.spent_s = 0.0

    def check_memory(self, bench: Bench) -> None:
        """Raises Alone where it holds more memory than others beside it can spare."""
        if private_bytes(self.endpoint.pid) > MODEST * bench.private_bytes + MODEST_BYTES:
            raise Alone()

    def rejected(self, words: str, category: str) -> Failed:
        return Failed(Status.REJECTED, self.stage, words, category)

    def mutated(self, where: str) -> Failed:
        words = f"forward() changed its inputs; the reference leaves them as they are ({where})"
        return Failed(Status.MUTATED_INPUTS, self.stage, words)


def _undetermined(expected: Expected, tolerance: Tolerance, got: Any, memory: Buffer, opinions: Opinions) -> bool:
    """Whether the reference gives such answers too, where inputs differ in their last bits. Changes what is in `memory`."""
    with contextlib.closing(opinions()) as answers:
        specs = list(leaves(expected.layout))
        alike = (answer.memory for answer in answers if list(leaves(answer.layout)) == specs)
        return excused(expected.layout, expected.memory, got, memory, tolerance, alike)


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

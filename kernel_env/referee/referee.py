"""The referee: drives a reference and candidates, compares bytes, keeps time, and gives verdicts. It runs no one's code.

What each side may know: a candidate's process gets the constructor's arguments, its inputs and an output mapping. Seeds of
inputs, expected outputs, the comparison and the clock stay here and in the reference's process. Candidates of one problem share
what is computed for it, and the baseline's times; each has processes, mappings and a verdict of its own.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from kernel_env.builder import Builder
from kernel_env.errors import BuilderError, KernelEnvError, MachineBusy, VerifierError
from kernel_env.hostlock import CoresLock
from kernel_env.referee import ahead
from kernel_env.referee.bench import Bench, Expected, Oracle, steps
from kernel_env.referee.calibration import Calibrator
from kernel_env.referee.candidate import Alone, Failed, Found, House, Job, OnTrial, Opinions, Prepared
from kernel_env.referee.clock import Clock, Round, TimingPlan, against_alone, least_ms, slowed
from kernel_env.referee.compare import same_bytes
from kernel_env.referee.config import VerifyConfig, derive_seed
from kernel_env.referee.inputs import Draw, InputPool
from kernel_env.referee.measure import TOGETHER, Session
from kernel_env.referee.outputs import excerpt, regions, watched
from kernel_env.referee.ownership import traits
from kernel_env.referee.peaks import PeaksOf
from kernel_env.referee.placement import quiet
from kernel_env.referee.process import BuildHandler, Endpoint, ZygoteGone, no_builds
from kernel_env.referee.reference import Reference
from kernel_env.referee.secret import Secret
from kernel_env.referee.sides import Side, give_slots
from kernel_env.referee.tolerance import tolerance
from kernel_env.referee.watch import check_provenance
from kernel_env.schema import Compiled, Problem, Stage, Status, Timing, Verdict

CHECK_BYTES = 8 << 20
"""Outputs of up to this size are compared as a whole in every round of timing; of larger ones so much, ..."""
EXCERPTS = 16
"""... in so many blocks at random places."""
KILLED_TRIES = 3
"""How often a job is begun for a runner that someone killed."""
SLOT_BYTES = 16 << 20
"""Of the places of one side that the inputs of timed calls take turns in: as many as fit, two at least. New pages are dear."""
EXTENDED = 4
"""Timing that is not precise enough may take so many times its budget."""
ALONE = 0.1
"""Share of the timing budget that the baseline is timed for once more when the candidates are gone."""
ALONE_TRIES = 3
"""Verifications in which it has to be faster then. On a busy machine it happens once in about 25 times to an honest kernel."""
MOST_BENCHES = 64
"""Problems and seeds of which something is kept, however little: each has mappings of its own."""
TOGETHER_BYTES = 2 << 30
"""What candidates that are timed together may need for themselves."""


class Referee:
    """Reaches verdicts.

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
        reuse_bytes: int = 0,
    ) -> None:
        self.house = House(launch, builder, clock, mode)
        self.lock, self.cores, self._reuse_bytes = lock, cores, reuse_bytes
        self.secret = Secret()
        self._calibrator, self._peaks = Calibrator(builder.cache_dir), PeaksOf(builder.cache_dir, len(cores))
        self._benches: OrderedDict[tuple[str, VerifyConfig, int], Bench] = OrderedDict()
        """The one that was used last comes last."""

    def prepare(self, job: Job) -> Prepared:
        """Check and import the candidate once, off the device, so that everything is built. Raises BuilderError, VerifierError."""
        for left in reversed(range(KILLED_TRIES)):
            one = OnTrial(self.house, job)
            try:
                verdict = one.concluded(functools.partial(self._imported, one))
            except VerifierError as error:
                if not left or not Found(error).killed:
                    raise
            else:
                if verdict is None or not Found(verdict).killed:
                    break
        return Prepared(verdict and one.finished(verdict), one.took_s * 1e3, **one.spent_ms("build", "own"))

    def _imported(self, one: OnTrial) -> None:
        reason = one.backend.check(one.job.candidate.code, one.job.candidate.entry)
        if reason is not None:
            raise Failed(Status.REJECTED, Stage.CHECK, reason)
        if one.backend.builds:
            with self.lock.shared(), contextlib.closing(one):
                one.load()
        if one.backend.device:
            names = ", ".join(sorted({made.target for made in one.compiled})) or "no target"
            words = f"its kernels were compiled for {names}; running them on a GPU is not in this version"
            raise Failed(Status.NEEDS_DEVICE, Stage.LOAD, words)

    def compile_ahead(self, job: Job) -> tuple[Prepared, tuple[Compiled, ...]]:
        """Compile its Triton kernels for the targets of its config. Raises ProblemError, BuilderError, VerifierError."""
        one, found = OnTrial(self.house, job), list[Compiled]()

        def body() -> None:
            reference = self._reference(job.problem, job.config)
            with self.lock.shared(), contextlib.closing(one), contextlib.closing(reference):
                found.extend(ahead.compiled(one, reference, self.house.builder))

        verdict = one.concluded(body)
        prepared = Prepared(verdict and one.finished(verdict), one.took_s * 1e3, **one.spent_ms("build", "own"))
        return prepared, tuple(found)

    def verify(self, jobs: Sequence[Job]) -> Iterator[tuple[int, Verdict | KernelEnvError]]:
        """The whole verification of candidates that share all but themselves. Yields the outcome of each, by its number, as soon as
        it is known: ProblemError when the problem's own code fails, BuilderError, VerifierError, MachineBusy. Raises ZygoteGone.

        Where the baseline was faster once a candidate was gone, the candidate had slowed it down, or the machine changed its
        speed. Only what happens each time, in new processes, is the candidate's doing, and then the faster baseline counts. So it
        is with a process that was killed.
        """
        left, killed, slower = [list(range(len(jobs)))], Counter[int](), Counter[int]()
        while left:
            members = {number: jobs[number] for number in left.pop(0)}
            for number, found in self._together(members):
                killed[number] += found.killed
                slower[number] += found.slower != 1.0
                outcome = found.outcome
                again = (found.killed and killed[number] < KILLED_TRIES) or (found.slower != 1.0 and slower[number] < ALONE_TRIES)
                if again or found.disturbed:
                    left.append([number])
                    continue
                if found.slower != 1.0:
                    assert isinstance(outcome, Verdict) and outcome.timing is not None
                    outcome = replace(outcome, timing=against_alone(outcome.timing, found.slower))
                yield number, outcome

    def _together(self, jobs: Mapping[int, Job]) -> Iterator[tuple[int, Found]]:
        """What came of each, once."""
        members = {number: OnTrial(self.house, job) for number, job in jobs.items()}
        try:
            for number, found in _Group(self, members).found():
                del members[number]
                yield number, found
        except ZygoteGone:
            raise
        except KernelEnvError as error:  # nobody's score
            self._benches.pop(self._key(next(iter(jobs.values()))), None)  # what is left of it may be what failed
            for number in list(members):
                yield number, Found(error)
        finally:
            for one in members.values():
                one.close()
            for bench in self._benches.values():
                bench.rest()
            while self._benches and (len(self._benches) > MOST_BENCHES or self._kept_bytes() > self._reuse_bytes):
                self._benches.popitem(last=False)

    def _kept_bytes(self) -> int:
        return sum(bench.size for bench in self._benches.values())

    def bench(self, job: Job) -> Bench:
        """The problem's side for this job. Raises ProblemError, VerifierError."""
        key = self._key(job)
        if key not in self._benches:
            opened = functools.partial(self._reference, job.problem, job.config)
            calibration = self._calibrator.of(job.problem, opened)
            usual = tolerance(job.config.tolerance)
            calibration.check(job.problem, usual)
            fitted = calibration.fitted(usual) if usual.signal_aware else usual
            plan = steps(job.config, job.seed, calibration, fitted)
            degenerate = calibration.degenerate(usual)
            now = self.house.clock.now
            self._benches[key] = Bench(job.seed, plan, fitted, degenerate, self._reuse_bytes, opened, now, work=calibration.work)
        self._benches.move_to_end(key)
        return self._benches[key]

    def light_ms(self, bench: Bench, job: Job) -> float | None:
        """Of its call, at this machine's peaks, which may have to be measured: nothing else runs on the cores meanwhile."""
        if bench.work is None:
            return None
        opened = functools.partial(self.house.launch, "reference", no_builds, job.config)
        peaks = self._peaks.of(job.problem.precision, opened)
        return peaks.least_ms(bench.work) if peaks else None

    @staticmethod
    def _key(job: Job) -> tuple[str, VerifyConfig, int]:
        return job.problem.digest, job.config, job.seed

    def _reference(self, problem: Problem, config: VerifyConfig) -> Reference:
        endpoint = self.house.launch("reference", no_builds, config)
        try:
            reference = Reference(endpoint, problem, config.reference_timeout_s)
            reference.ask({"op": "load", "code": problem.source, "entry": "Model", "precision": problem.precision})
            return reference
        except BaseException:  # whatever it was: no process stays
            endpoint.close()
            raise


class _Group:
    """Candidates of one problem that are verified together."""

    def __init__(self, referee: Referee, members: Mapping[int, OnTrial]) -> None:
        self.referee, self.alive = referee, dict(members)
        self.clock = referee.house.clock
        self.bench: Bench | None = None
        first = next(iter(members.values()))
        self.job, self.config, self.backend = first.job, first.config, first.backend

    def found(self) -> Iterator[tuple[int, Found]]:
        """What came of each. Raises ProblemError, VerifierError and MachineBusy, which are about all that are left."""
        with self._shared():
            self.bench = bench = self.referee.bench(self.job)
            bench.trial(0)  # tells how many there is room for
        everyone, share = self.alive, max(1, TOGETHER_BYTES // max(1, bench.candidate_bytes))
        numbers = list(everyone)
        for start in range(0, len(numbers), share):
            self.alive = {number: everyone[number] for number in numbers[start : start + share]}
            yield from self._verified(bench)

    def _verified(self, bench: Bench) -> Iterator[tuple[int, Found]]:
        for one in self.alive.values():
            one.tolerance, one.degenerate = bench.tolerance, bench.degenerate
        yield from self._each(OnTrial.load)
        for index in range(len(bench.steps)):
            if not self.alive:
                return
            with self._shared():
                trial = bench.trial(index)
            yield from self._each(lambda one: one.take_trial(bench, trial))  # noqa: B023 - called at once
        timed = self.backend.timed and self.config.measure_performance
        if not timed or self.clock.kind == "recorded":
            yield from self._each(lambda one: self._untimed(one, bench, timed))
        else:
            yield from self._time(bench, list(self.alive))

    def _each(self, body: Callable[[OnTrial], Verdict | None], numbers: Sequence[int] | None = None) -> Iterator[tuple[int, Found]]:
        """Do this with each; those that have a verdict then are told."""
        for number in list(self.alive) if numbers is None else numbers:
            one = self.alive[number]
            try:
                verdict = one.concluded(functools.partial(body, one))
                if verdict is None and len(self.alive) > 1 and self.bench is not None:
                    one.check_memory(self.bench)
            except ZygoteGone:
                raise
            except Alone:
                yield from self._told(number, Found(VerifierError("it is verified alone"), disturbed=True))
            except (BuilderError, VerifierError) as error:
                yield from self._told(number, Found(error))
            else:
                if verdict is not None:
                    yield from self._told(number, Found(one.finished(verdict)))

    def _told(self, number: int, found: Found) -> Iterator[tuple[int, Found]]:
        self.alive.pop(number).close()
        yield number, found

    @contextlib.contextmanager
    def _shared(self, numbers: Sequence[int] | None = None) -> Iterator[None]:
        """Time that is spent for all of them."""
        started = self.clock.now()
        yield
        members = [self.alive[number] for number in (self.alive if numbers is None else numbers)]
        for one in members:
            one.took_s += (self.clock.now() - started) / len(members)

    def _untimed(self, one: OnTrial, bench: Bench, timed: bool) -> Verdict:
        check_provenance(one, bench)
        timing, note = None, "" if self.backend.timed else "interpreter"
        if timed:
            one.stage = Stage.TIMING
            timing = self._timing(one, [])
        return one.verdict(Status.CORRECT, Stage.DONE, timing=timing, timing_note=note)

    def _timing(self, one: OnTrial, rounds: Sequence[Round]) -> Timing:
        key = self.job.problem.digest, one.job.candidate.digest
        return self.clock.measure(lambda: rounds, key, derive_seed(self.job.seed, "interval"))

    # ---------------------------------------------------------- timing

    def _time(self, bench: Bench, numbers: Sequence[int]) -> Iterator[tuple[int, Found]]:
        with self._shared(numbers):
            oracle, secret = bench.baseline(), self.referee.secret
        with (
            contextlib.closing(oracle),
            contextlib.closing(InputPool(bench.regular_sets(), bench.new_inputs, secret)) as pool,
        ):
            yield from self._time_against(bench, oracle, pool, numbers)

    def _time_against(self, bench: Bench, oracle: Oracle, pool: InputPool, numbers: Sequence[int]) -> Iterator[tuple[int, Found]]:
        like = bench.regular_sets()[-1]
        places = max(2, min(TOGETHER, SLOT_BYTES // like.arena.size))
        with self._shared(numbers):
            give_slots(oracle.side, like, places)
        yield from self._each(lambda one: one.get_ready(like, places), numbers)
        numbers = self._left(numbers)
        if not numbers:
            return
        session, rounds = self._session(bench, oracle, pool, numbers), dict[Side, list[Round]]()
        busy = self._measure(session, oracle, numbers, rounds)
        at_fault = [number for number in numbers if self.alive[number].ours in session.faults]
        yield from self._each(functools.partial(_raised, session.faults), at_fault)
        numbers = self._left(numbers)
        if busy:
            why = Found(busy)
        elif session.unsettled:
            why = Found(VerifierError("another candidate disturbed its times"), disturbed=True)
        else:
            yield from self._judge_times(bench, oracle, session, rounds, numbers)
            return
        for number in numbers:
            yield from self._told(number, why)

    def _left(self, numbers: Sequence[int]) -> list[int]:
        return [number for number in numbers if number in self.alive]

    def _session(self, bench: Bench, oracle: Oracle, pool: InputPool, numbers: Sequence[int]) -> Session:
        by_side = {self.alive[number].ours: self.alive[number] for number in numbers}
        known: list[tuple[Draw, Expected]] = []

        def check(baseline: Side, candidate: Side, draw: Draw) -> None:
            if len(by_side) > 1:
                by_side[candidate].check_memory(bench)
            self._check_round(bench, oracle, pool, by_side[candidate], draw, known)

        helpers = (*bench.advisers(), *(() if pool.turnable else (bench.maker().endpoint.pid,)))
        return Session(oracle.side, tuple(by_side), pool, check, self.referee.cores, helpers, bench.random_forward)

    def _measure(
        self, session: Session, oracle: Oracle, numbers: Sequence[int], rounds: dict[Side, list[Round]]
    ) -> MachineBusy | None:
        """Fill `rounds`; or say why that was not possible. All candidates are frozen then."""
        plan = self._plan(self.alive[numbers[0]])

        def attempt() -> float:
            for number in numbers:
                self.alive[number].begin_timing()
            with self.referee.lock.exclusive(), self._baseline_calls(oracle, numbers):
                rounds.clear()
                rounds.update(session.rounds(plan))
            return session.noise

        with self._shared(numbers):
            try:
                quiet(attempt, self.config.noise_limit)
            except MachineBusy as error:
                return error
            finally:
                for number in numbers:
                    self.alive[number].endpoint.freeze()
        return None

    @contextlib.contextmanager
    def _baseline_calls(self, oracle: Oracle, numbers: Sequence[int]) -> Iterator[None]:
        """Timed calls of the reference: a part of each candidate's cost."""
        called_s = oracle.reference.called_s
        yield
        for number in numbers:
            self.alive[number].baseline_s += (oracle.reference.called_s - called_s) / len(numbers)

    def _judge_times(
        self, bench: Bench, oracle: Oracle, session: Session, rounds: Mapping[Side, list[Round]], numbers: Sequence[int]
    ) -> Iterator[tuple[int, Found]]:
        """The last checks, and a verdict each; when the candidates are gone the baseline is timed once more."""
        timings: dict[Side, Timing] = {}

        def believed(one: OnTrial) -> None:
            timing = replace(self._timing(one, rounds[one.ours]), noise=session.noise)
            self._check_possible(one, timing, oracle)
            check_provenance(one, bench)
            one.endpoint.freeze()
            timings[one.ours] = timing

        yield from self._each(believed, numbers)
        numbers = self._left(numbers)
        if not numbers:
            return
        for number in numbers:  # together: each takes 20 ms to end
            self.alive[number].endpoint.kill()
        for number in numbers:
            self.alive[number].endpoint.wait_end()  # giving memory back is work on the baseline's cores
            self.alive[number].close()
        sizes = {session.together(self.alive[number].ours) for number in numbers}
        with self._shared(numbers), self.referee.lock.exclusive(), self._baseline_calls(oracle, numbers):
            budget_s = self.config.timing_budget_s * ALONE / len(sizes)
            alone_ms = {size: session.alone(budget_s, size) for size in sizes}
            light_ms = self.referee.light_ms(bench, self.job)
        for number in numbers:
            one = self.alive[number]
            together = session.together(one.ours)
            beside_ms = [statistics.median(r.baseline_ms) for r in rounds[one.ours] if r.together == together]
            verdict = one.verdict(Status.CORRECT, Stage.DONE, timing=replace(timings[one.ours], light_ms=light_ms))
            yield from self._told(number, Found(one.finished(verdict), slowed(beside_ms, alone_ms[together])))

    def _check_round(
        self,
        bench: Bench,
        oracle: Oracle,
        pool: InputPool,
        one: OnTrial,
        draw: Draw,
        known: list[tuple[Draw, Expected]],
    ) -> None:
        """Compare the last calls of a round; where outputs are large, blocks that no one can know. All sides are frozen. The whole
        output of a draw, which is compared with each candidate's, is `known`. Raises Failed."""
        if bench.unsteady:
            return
        where, baseline, ours = "a timed call", oracle.side, one.ours
        try:
            last = len(bench.steps) - 1
            opinions = functools.partial(bench.opinions, last, draw.source, functools.partial(pool.write, draw), draw.seed)
            self._compare_some(oracle, one, draw, where, known, opinions)
            if not bench.changes and not same_bytes(baseline.slots[baseline.slot], ours.slots[ours.slot]):
                raise one.mutated(where)
            theirs = functools.partial(traits, *baseline.pair, baseline.endpoint.pid)
            one.check_ownership(theirs, where, ours.beside)
        except Failed:
            bench.unsteady = not oracle.is_steady(draw.seed, lambda: pool.write(draw, baseline.slots[0]), bench.tolerance)
            if not bench.unsteady:
                raise

    def _compare_some(
        self,
        oracle: Oracle,
        one: OnTrial,
        draw: Draw,
        where: str,
        known: list[tuple[Draw, Expected]],
        opinions: Opinions,
    ) -> None:
        output, got = oracle.side.output, one.ours.output
        sizes = [size for _, size in watched(output)]
        parts: list[tuple[Any, Any]] = []
        if sum(sizes) > CHECK_BYTES and oracle.reference.endpoint.readable:
            with contextlib.suppress(ValueError):  # comparing the whole says how they differ
                each = CHECK_BYTES // EXCERPTS // len(sizes)
                parts = [excerpt(output, got, each, self.referee.secret) for _ in range(EXCERPTS)]

        def whole() -> bool:
            if not known or known[0][0] is not draw:
                known[:] = [(draw, oracle.expected(output))]
            return one.compare(known[0][1], where, one.tolerance, got, opinions)

        if not parts:
            whole()
        for expected, mine in parts:
            if one.compare(oracle.expected(expected), where, one.tolerance, mine, whole=whole):
                return

    def _check_possible(self, one: OnTrial, timing: Timing, oracle: Oracle) -> None:
        """Raises Failed for a time that is too short to write the output; unless the reference writes none."""
        output = oracle.side.output
        floor_ms = least_ms(sum(size for _, size in regions(output)), len(self.referee.cores))
        if timing.runtime.median_ms < floor_ms and not traits(output, None, oracle.reference.endpoint.pid):
            words = f"{timing.runtime.median_ms:.4g} ms is too short to write the output: {floor_ms:.4g} ms at the speed of a cache"
            raise Failed(Status.TAMPERED, Stage.TIMING, words, "impossible_time")

    def _plan(self, one: OnTrial) -> TimingPlan:
        slow = one.reference_s / max(one.trials_passed, 1) > 1.0
        return TimingPlan(
            rounds=self.config.num_perf_trials,
            min_rounds=min(3 if slow else 5, self.config.num_perf_trials),
            budget_s=self.config.timing_budget_s,
            extended=EXTENDED,
            precision=self.config.timing_precision,
            noise_limit=self.config.noise_limit,
        )


def _raised(faults: Mapping[Side, Exception], one: OnTrial) -> None:
    raise faults[one.ours]

"""The problem's side of verifications: what candidates are given, and what their answers are held against.

All of it follows from a problem, a config and a seed, so it is computed once for all candidates that share them. It is kept while
there is room: a group's samples come one after the other. What a candidate is handed is always a copy of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kernel_env.errors import ProblemError, ReferenceEnded, VerifierError
from kernel_env.referee.calibration import Calibration, Opened
from kernel_env.referee.compare import compare, same_bytes
from kernel_env.referee.config import VerifyConfig, derive_seed
from kernel_env.referee.inputs import InputSet, can_be_nudged, nudge
from kernel_env.referee.layout import Arena, Buffer, Part
from kernel_env.referee.memory import code_files, private_bytes
from kernel_env.referee.ownership import traits
from kernel_env.referee.protocol import Frame
from kernel_env.referee.reference import Reference, fetched, output_at
from kernel_env.referee.secret import Secret
from kernel_env.referee.sides import Side, give_slots
from kernel_env.referee.tolerance import Tolerance
from kernel_env.roofline import Work

OPINIONS = 32
"""Answers of the reference on inputs that differ in their last bits. Each two show equal numbers in both orders, 3 times in 4 at
least; of three equal ones a given one comes first in two answers of five."""
KEPT_SETS = 2
"""Inputs of regular trials that are always kept, to make those of timed calls from."""


@dataclass(frozen=True)
class Construction:
    """What models are made of: a seed, arguments and, once the reference has been made, weights."""

    seed: int
    arguments: Any
    arguments_in: Buffer
    weights: Any = None
    weights_in: Buffer | None = None
    took_s: float = 0.0
    """How long the reference's constructor took."""

    @property
    def size(self) -> int:
        return self.arguments_in.size + (self.weights_in.size if self.weights_in else 0)


@dataclass(frozen=True)
class Expected:
    """An output of the reference."""

    output: Any
    """As its runner described it, ..."""
    layout: Any
    """... and as it lies in `memory`."""
    memory: Buffer


@dataclass(frozen=True)
class Step:
    """One call that every candidate makes."""

    index: int
    inputs: int
    forward: int
    """Seeds."""
    where: str
    """For messages."""
    tolerance: Tolerance
    anew: int | None = None
    """Seed of the models' construction right before it."""
    beside: bool = False
    """Whether the output before it stays alive, so that it can be seen whether each has memory of its own."""
    amplitude: float = 1.0

    @property
    def regular(self) -> bool:
        return self.amplitude == 1.0


@dataclass(frozen=True)
class Trial:
    """A step, and what comes of it."""

    step: Step
    inputs: InputSet
    expected: Expected
    traits: frozenset[str]
    """What the reference's output does not own."""
    took_s: float

    @property
    def size(self) -> int:
        return self.inputs.arena.size + self.expected.memory.size

    def write(self, place: Part) -> None:
        """Its inputs."""
        place.copy_from(self.inputs.arena)


def steps(config: VerifyConfig, seed: int, calibration: Calibration, tolerance: Tolerance) -> list[Step]:
    """Trials in their order. Models are made anew before the first and half-way, so that nothing can rest on known weights; last
    comes one on plainly drawn inputs of another amplitude: a kernel that is right for the usual range only fails there."""
    count = config.num_correct_trials
    anew = {0, count // 2}
    beside = next((index for index in range(count) if index not in anew), None)
    found = [
        Step(
            index,
            derive_seed(seed, "inputs", index),
            derive_seed(seed, "forward", index),
            f"trial {index + 1} of {count}",
            tolerance,
            derive_seed(seed, "init", index) if index in anew else None,
            index == beside,
        )
        for index in range(count)
    ]
    amplitude = calibration.amplitude(tolerance) if tolerance.signal_aware else None
    if amplitude is not None:
        how = f"{abs(amplitude):g} times as large{' and of random signs' if amplitude < 0 else ''}"
        inputs, forward = (derive_seed(seed, what, "amplitude", amplitude) for what in ("inputs", "forward"))
        where = f"an extra trial, on inputs {how}; the {count} regular ones passed"
        found.append(Step(count, inputs, forward, where, calibration.fitted(tolerance, amplitude), amplitude=amplitude))
    return found


class Oracle:
    """A reference that does what a candidate does, call for call, so that the two can be timed against each other. What only the
    problem does (drawing inputs) is done in another process: two programs whose heaps have other histories differ by up to 20%."""

    def __init__(self, reference: Reference, now: Callable[[], float]) -> None:
        self.reference, self._now = reference, now
        self.side = Side(reference.endpoint, reference.ask)
        self.made = 0
        """Trials so far."""

    def construct(self, made: Construction) -> Construction:
        """The same, with the weights. Raises ProblemError."""
        self.side.output = None
        started = self._now()
        with handed(made.arguments_in) as memory:
            self.reference.ask({"op": "init", "arguments": made.arguments, "seed": made.seed}, (memory.fd,))
        took_s = self._now() - started
        planned = self.reference.ask({"op": "export_state"})
        if made.weights_in is None:
            made = replace(made, weights=planned["tree"], weights_in=written(self.reference, planned), took_s=took_s)
        assert made.weights_in is not None
        with handed(made.weights_in) as memory:
            self.reference.ask({"op": "sync_state", "state": made.weights, "copy": False}, (memory.fd,))
        return made

    def call(self, inputs: InputSet, seed: int, *, beside: bool = False) -> tuple[bool, float]:
        """Its output is then the side's. Returns whether it drew random numbers, and how long it took."""
        give_slots(self.side, inputs, 1)
        self.side.slots[0].copy_from(inputs.arena)
        started = self._now()
        answer = self._ask_for(seed, beside=beside)
        took_s = self.side.call_s = self._now() - started
        return bool(answer["random"]), took_s

    def expected(self, part: Any = None, *, lasting: bool = False) -> Expected:
        """The side's last output, or a part of it."""
        output = self.side.output if part is None else part
        return Expected(output, *fetched(output, self.reference.endpoint, self.reference.ask, self.side.index, lasting=lasting))

    def is_steady(self, seed: int, prepare: Callable[[], None], tolerance: Tolerance) -> bool:
        """Whether it gives the same output for the same inputs twice. One that keeps a state from call to call does not.

        `prepare` writes the inputs into its first place, as the reference may change them.
        """
        self.reference.endpoint.thaw()
        seen = []
        for _ in range(2):
            prepare()
            self._ask_for(seed)
            seen.append(self.expected())
        return compare(seen[0].layout, seen[0].memory, seen[1].layout, seen[1].memory, tolerance) is None

    def opinions(self, like: InputSet, write: Callable[[Part], None], forward: int, seed: int) -> Generator[Expected]:
        """What it answers where inputs differ in their last bits from those that `write` writes; which bits follows from `seed`."""
        give_slots(self.side, like, 1)
        for count in range(OPINIONS):
            self.reference.endpoint.thaw()
            write(self.side.slots[0])
            nudge(self.side.slots[0], like, derive_seed(seed, count // 2), reverse=count % 2 == 1)
            self._ask_for(forward)
            self.reference.endpoint.freeze()
            yield self.expected()

    def _ask_for(self, seed: int, *, beside: bool = False) -> Frame:
        """A call on what is in its first place. The output is the side's then."""
        answer = self.reference.ask({"op": "call", "indices": [0], "seeds": [seed], "beside": beside, "trial": True})
        self.side.output, self.side.index, self.side.slot = output_at(answer, 0), 0, 0
        return answer

    def close(self) -> None:
        """Idempotent."""
        self.side.drop_slots()
        self.reference.close()


def private(inputs: InputSet) -> InputSet:
    """The same, in memory that no one else has."""
    with contextlib.closing(inputs.arena) as arena:
        return replace(inputs, arena=Buffer.of(arena))


def written(reference: Reference, planned: dict[str, Any]) -> Buffer:
    """What it just planned."""
    with reference.written(planned) as arena:
        return Buffer.of(arena)


@contextlib.contextmanager
def handed(kept: Buffer) -> Iterator[Arena]:
    """A copy for one process alone: what it writes there no one else reads."""
    copy = Arena(kept.size)
    with contextlib.closing(copy):
        copy.copy_from(kept)
        yield copy


@dataclass(eq=False)
class Bench:
    """See above. `opened` starts a new runner with the problem loaded. Methods raise ProblemError and VerifierError."""

    seed: int
    steps: Sequence[Step]
    tolerance: Tolerance
    degenerate: bool
    """Whether outputs say too little to tell right from wrong."""
    most_bytes: int
    """That may be kept."""
    opened: Opened
    now: Callable[[], float]
    work: Work | None = None
    """Of a call of the reference, where that is known."""
    unsteady: bool = False
    """Whether the reference was seen keeping a state from call to call, so that its timed outputs depend on their order."""
    random_forward: bool = False
    """Whether forward draws random numbers, ..."""
    changes: bool = False
    """... and whether it changes its inputs."""
    private_bytes: int = 0
    """Memory that the reference's process used."""
    code: set[str] = field(default_factory=set)
    """Files whose code the reference runs."""
    _constructions: dict[int, Construction] = field(default_factory=dict)
    """By the step that they were made for."""
    _trials: dict[int, Trial] = field(default_factory=dict)
    _extra: dict[str, InputSet] = field(default_factory=dict)
    """Inputs that are no trial's, by what they are for."""
    _answers: dict[str, Expected] = field(default_factory=dict)
    _secret: Secret = field(default_factory=Secret)
    _maker: Reference | None = None
    _oracle: Oracle | None = None
    _adviser: Oracle | None = None
    """The process that is asked for other answers, ..."""
    _advises: int = 0
    """... with models of this seed."""
    _trial_bytes: int = 0
    _fits: bool = True

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        trials, made = self._trials.values(), self._constructions.values()
        return (
            sum(trial.size for trial in trials)
            + sum(construction.size for construction in made)
            + sum(inputs.arena.size for inputs in self._extra.values())
            + sum(answer.memory.size for answer in self._answers.values())
        )

    @property
    def keeps(self) -> bool:
        """Whether there is room for all of it."""
        made = max((construction.size for construction in self._constructions.values()), default=0)
        self._fits &= self._trial_bytes * (len(self.steps) + 2) + 2 * made <= self.most_bytes
        return self._fits  # once it does not, it never does

    @property
    def candidate_bytes(self) -> int:
        """About what a candidate needs for itself: weights, and a few sets of inputs and outputs."""
        return 4 * self._trial_bytes + 2 * max((made.size for made in self._constructions.values()), default=0)

    def trial(self, index: int) -> Trial:
        """Of step `index`. They are asked for in order, as often as need be."""
        if index == 0 and not self.keeps and (self._oracle is None or self._oracle.made != 1):  # else it has just been made
            self._trials = {}
        if index not in self._trials:
            if self._oracle is None or self._oracle.made != index:
                self._renew(index)
            self._trials[index] = self._tried(index)
            if not self.keeps:
                regular = [i for i in sorted(self._trials) if self.steps[i].regular]
                self._trials = {i: self._trials[i] for i in sorted({index, *regular[-KEPT_SETS:]})}
        return self._trials[index]

    def _tried(self, index: int) -> Trial:
        assert self._oracle is not None
        step, oracle = self.steps[index], self._oracle
        self._construct(oracle, index)
        inputs = self._drawn(step)
        earlier = oracle.side.output if step.beside else None
        is_random, took_s = oracle.call(inputs, step.forward, beside=step.beside)
        changes = not same_bytes(oracle.side.slots[0], inputs.arena)
        owned = traits(oracle.side.output, earlier, oracle.reference.endpoint.pid)
        oracle.made = index + 1
        self.private_bytes = max(self.private_bytes, private_bytes(oracle.reference.endpoint.pid))
        if oracle.made == len(self.steps):
            with contextlib.suppress(OSError):
                self.code |= code_files(oracle.reference.endpoint.pid)
        self.random_forward |= is_random
        self.changes |= changes
        trial = Trial(step, inputs, oracle.expected(lasting=True), owned, took_s)
        self._trial_bytes = trial.size
        return trial

    def _construct(self, oracle: Oracle, index: int) -> None:
        """Have the models made that are new at this step, if it has any."""
        seed = self.steps[index].anew
        if seed is None:
            return
        if index in self._constructions:
            oracle.construct(self._constructions[index])
            return
        maker = self.maker()
        planned = maker.ask({"op": "init_inputs", "seed": seed})
        self._constructions[index] = oracle.construct(Construction(seed, planned["tree"], written(maker, planned)))
        if not self.keeps:
            self._constructions = {index: self._constructions[index]}

    def construction(self, index: int) -> Construction:
        """Of the models of step `index`, which has been tried last."""
        return self._constructions[max(i for i in range(index + 1) if self.steps[i].anew is not None)]

    def _drawn(self, step: Step) -> InputSet:
        return private(self.maker().inputs(step.inputs, amplitude=step.amplitude))

    def _renew(self, made: int) -> None:
        """A new oracle that has made so many trials."""
        if self._oracle is not None:
            self._oracle.close()
        self._oracle = oracle = Oracle(self.opened(), self.now)
        for index, step in enumerate(self.steps[:made]):
            self._construct(oracle, index)
            trial = self._trials.get(index)
            oracle.call(trial.inputs if trial else self._drawn(step), step.forward, beside=step.beside)
        oracle.made = made

    def baseline(self) -> Oracle:
        """One that has made every trial once, and nothing else. It is the caller's to use and to close."""
        if self._oracle is None or self._oracle.made != len(self.steps):
            self._renew(len(self.steps))
        oracle, self._oracle = self._oracle, None
        assert oracle is not None
        return oracle

    def maker(self) -> Reference:
        """The process that draws inputs."""
        if self._maker is None:
            self._maker = self.opened()
        return self._maker

    def regular_sets(self) -> list[InputSet]:
        """Inputs of the last regular trials."""
        regular = [index for index in sorted(self._trials) if self.steps[index].regular]
        return [self._trials[index].inputs for index in regular[-KEPT_SETS:]]

    def extra(self, what: str) -> tuple[InputSet, int]:
        """Inputs that are no trial's, and the seed of the generator in forward."""
        if what not in self._extra:
            self._extra[what] = private(self.maker().inputs(derive_seed(self.seed, "inputs", what)))
        return self._extra[what], derive_seed(self.seed, "forward", what)

    def new_inputs(self) -> InputSet:
        """Inputs that no one can foresee. The caller closes them."""
        return self.maker().inputs(self._secret.getrandbits(62))

    def answer(self, what: str) -> Expected:
        """The reference's output for these inputs."""
        if what not in self._answers:
            inputs, seed = self.extra(what)
            if self._oracle is None or self._oracle.made != len(self.steps):
                self._renew(len(self.steps))
            assert self._oracle is not None
            self._oracle.call(inputs, seed)
            self._oracle.made += 1  # so that it is no baseline any more
            self._answers[what] = self._oracle.expected(lasting=True)
        return self._answers[what]

    def opinions(self, index: int, like: InputSet, write: Callable[[Part], None], forward: int) -> Generator[Expected]:
        """What the reference of this step answers on inputs that differ in their last bits from those that `write` writes.

        It does so in a process of its own, which is frozen in between and stays until other models are due. Nothing where inputs
        cannot be nudged, or where the reference refuses such. Raises VerifierError.
        """
        if not can_be_nudged(like):
            return
        made = self.construction(index)
        try:
            if self._adviser is None or self._advises != made.seed:
                self._dismiss()
                self._adviser, self._advises = Oracle(self.opened(), self.now), made.seed
                self._adviser.construct(made)
            yield from self._adviser.opinions(like, write, forward, derive_seed(self.seed, "opinions", forward))
        except ReferenceEnded as error:  # not the candidate's doing, nor its neighbours'
            self._dismiss()
            raise VerifierError(str(error)) from error
        except ProblemError:
            return  # it refuses such inputs: then there are no other answers

    def advisers(self) -> tuple[int, ...]:
        """The process that gives such answers, if there is one."""
        return () if self._adviser is None else (self._adviser.reference.endpoint.pid,)

    def _dismiss(self) -> None:
        if self._adviser is not None:
            self._adviser.close()
        self._adviser = None

    def rest(self) -> None:
        """Keep what was computed if there is room for all of it, and end all processes. Idempotent."""
        if self._oracle is not None:
            self._oracle.close()
        if self._maker is not None:
            self._maker.close()
        self._oracle = self._maker = None
        self._dismiss()
        if not self.keeps:
            self._trials, self._constructions, self._extra, self._answers = {}, {}, {}, {}

"""Two programs by a script in a timing session, so that what is asked of them, when, and what comes of it can be told exactly."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from kernel_env.referee.clock import Round, TimingPlan
from kernel_env.referee.inputs import Draw, InputPool, InputSet
from kernel_env.referee.layout import Arena, paged
from kernel_env.referee.measure import TOGETHER, Session
from kernel_env.referee.protocol import Frame
from kernel_env.referee.sides import Side, give_slots
from kernel_env.referee.values import described, plan, write

CORES = tuple(sorted(os.sched_getaffinity(0)))
EVENTS = list[tuple[str, Any]]


def inputs(seed: int, length: int = 4096) -> InputSet:
    value = [torch.randn(length, generator=torch.Generator().manual_seed(seed))]
    tensors: list[torch.Tensor] = []
    tree, size = plan(value, tensors)
    arena = Arena(size)
    write(tree, tensors, arena.map)
    return InputSet(tree, arena, (True,))


@dataclass
class Program:
    """Answers as a runner does; each call takes `call_s` by its script, each message what `exchange_s` says of its calls."""

    name: str
    events: EVENTS
    call_s: float = 1e-3
    empty_s: float = 1e-4
    full_s: float = 1e-4
    pid: int = field(default_factory=os.getpid)
    elapsed_s: float = 0.0
    isolation: tuple[str, ...] = ()
    frozen: bool = False
    freeze_at_reply: bool = False
    counts_cores: bool = False
    at_reply: Callable[[], None] | None = None
    workers: int = 2
    readable: bool = True
    places: list[memoryview] = field(default_factory=list)
    output: Any = field(default_factory=lambda: torch.zeros(64))
    on_freeze: Callable[[], None] = lambda: None

    def ask(self, frame: Frame, fds: Sequence[int] = ()) -> Frame:
        assert not self.frozen, "asked while frozen"
        answer = self._answer(frame, fds)
        if self.at_reply is not None:
            self.at_reply()
        return answer

    def _answer(self, frame: Frame, fds: Sequence[int]) -> Frame:
        if frame["op"] == "take_inputs":
            memory, size = memoryview(mmap.mmap(fds[0], 0)), frame["size"]
            taken = [memory[start : start + size] for start in range(0, len(memory), paged(size))]
            self.places += taken
            self.events.append((self.name, ("took", len(taken))))
            return {}
        if frame["op"] == "drop_inputs":
            self.close()
            self.events.append((self.name, ("dropped",)))
            return {}
        if frame["op"] == "scatter":
            self.events.append((self.name, ("scattered", frame["seed"])))
            return {}
        if frame["op"] == "move_code":
            self.events.append((self.name, ("moved", frame["seed"])))
            return {"moved": 0}
        if self.freeze_at_reply:
            self.events.append((self.name, ("last",)))
        calls = [bytes(self.places[index]) for index in frame["indices"]]
        self.events.append((self.name, ("empty" if frame["empty"] else "call", frame, calls)))
        took_s = 0.0 if frame["empty"] else self.call_s * len(calls)
        self.elapsed_s = took_s + (self.empty_s if frame["empty"] else self.full_s)
        return {"outputs": [described(self.output)] * len(calls), "took_s": took_s}

    def request(self, frame: Frame, fds: Sequence[int] = (), timeout_s: float | None = None) -> Frame:
        return self.ask(frame, fds)

    def freeze(self) -> None:
        if not self.frozen:
            self.frozen = True
            self.events.append((self.name, ("froze",)))
            self.on_freeze()

    def thaw(self) -> None:
        self.frozen = False

    def place(self, cores: tuple[int, ...]) -> None:
        assert self.frozen, "placed while it runs"
        self.events.append((self.name, ("placed", cores)))

    def log(self) -> str:
        return ""

    def hides(self) -> bool:
        return self.readable and self.pid == os.getpid()

    def wait_end(self) -> None:
        assert self.frozen

    def kill(self) -> None:
        self.frozen = True  # for ever
        self.events.append((self.name, ("killed",)))

    def close(self) -> None:
        self.places.clear()


@dataclass
class Scene:
    """A session of two such programs, and all that happened."""

    baseline: Program
    candidates: list[Program]
    session: Session
    events: EVENTS
    checked: list[Draw]
    random: random.Random

    @property
    def candidate(self) -> Program:
        return self.candidates[0]

    def rounds(self, count: int = 5, **plan: Any) -> list[Round]:
        """Those of the candidate. Raises its fault."""
        return self.planned(TimingPlan(**{"rounds": count, "min_rounds": 0, "budget_s": 60.0, "precision": 0.0, **plan}))

    def planned(self, plan: TimingPlan) -> list[Round]:
        found = self.session.rounds(plan)
        for fault in self.session.faults.values():
            raise fault
        return found[self.ours]

    @property
    def ours(self) -> Side:
        return self.session.candidates[0]

    def blocks(self) -> list[tuple[str, list[Any]]]:
        """(side, its messages) in order, one entry for each block."""
        found: list[tuple[str, list[Any]]] = []
        for name, event in self.events:
            if event[0] == "placed":
                found.append((name, []))
            elif event[0] in ("call", "empty") and found:
                assert found[-1][0] == name
                found[-1][1].append(event)
        return found


def scene(
    baseline_s: float = 1e-3,
    *candidates_s: float,
    slots: int = TOGETHER,
    length: int = 4096,
    seed: int = 1,
    used_s: Callable[[int], float] = lambda pid: 1.0,
    **more: Any,
) -> Scene:
    events: EVENTS = []
    source = random.Random(seed)
    lengths = candidates_s or (1e-3,)
    names = ["candidate", *(f"candidate {number}" for number in range(2, len(lengths) + 1))]
    programs = [
        Program("baseline", events, baseline_s),
        *(Program(name, events, call_s) for name, call_s in zip(names, lengths, strict=True)),
    ]
    sides = [Side(p, p.ask, call_s=p.call_s) for p in programs]
    pool = InputPool([inputs(1, length), inputs(2, length)], lambda: inputs(9, length), source)
    for side in sides:
        give_slots(side, inputs(3, length), slots)
    checked: list[Draw] = []

    def check(theirs: Side, ours: Side, draw: Draw) -> None:
        assert all(program.frozen for program in programs)
        for side in (theirs, ours):
            with contextlib.closing(Arena(draw.source.arena.size)) as target:
                pool.write(draw, target)
                assert side.slots[side.slot].map[:] == target.map[:]
            assert side.output == described(programs[sides.index(side)].output)
        checked.append(draw)
        events.append(("referee", ("checked",)))

    is_random = more.pop("random_forward", False)
    books = {"_used_s": used_s, "_now": lambda: 0.0, **more}  # reading them takes no time here
    session = Session(sides[0], sides[1:], pool, check, CORES[:2], (), is_random, _rng=source, **books)
    session._warm_up(list(session._entries.values()))
    events.clear()
    return Scene(programs[0], programs[1:], session, events, checked, source)

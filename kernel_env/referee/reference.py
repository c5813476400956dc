"""The problem's side of a verification, and how outputs of either side are collected."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from kernel_env.errors import ProblemError, ReferenceEnded
from kernel_env.referee.inputs import InputSet
from kernel_env.referee.layout import Arena, Buffer, packed
from kernel_env.referee.outputs import Unreadable, fetch
from kernel_env.referee.process import Endpoint, RunnerDied, RunnerTimeout
from kernel_env.referee.protocol import Frame
from kernel_env.schema import Problem

Ask = Callable[..., Frame]
"""Sends one frame, with descriptors if need be, and returns the answer; a failure is raised as what it means for that side."""


class Reference:
    """The problem's side. Its failures are the problem's, never the candidate's."""

    def __init__(self, endpoint: Endpoint, problem: Problem, timeout_s: float) -> None:
        self.endpoint, self._problem, self._timeout_s = endpoint, problem, timeout_s
        self.called_s = 0.0
        """Time in calls so far."""

    def ask(self, frame: Frame, fds: tuple[int, ...] = (), limit_s: float | None = None) -> Frame:
        """Raises ProblemError. `limit_s` is less than the usual limit."""
        where = f"problem {self._problem.key} ({self._problem.name}, from {self._problem.origin})"
        limit_s = min(limit_s or self._timeout_s, self._timeout_s)
        doing = "call" if frame["op"] == "signals" else frame["op"]
        try:
            answer = self.endpoint.request(frame, fds, limit_s)
        except RunnerTimeout:
            raise ReferenceEnded(f"{where}: {doing} took longer than {limit_s:g} s; raise verify.reference_timeout_s") from None
        except RunnerDied as death:
            raise ReferenceEnded(f"{where}: its process died ({death.cause}) in {doing}; is there enough memory?") from death
        if frame["op"] == "call" and not frame.get("empty"):
            self.called_s += self.endpoint.elapsed_s
        if "error" in answer:
            first = str(answer["error"].get("text", "")).split("\n")
            missing = "; install that package beside this one" if first[0].startswith("ModuleNotFoundError") else ""
            raise ProblemError(f"{where} failed in {doing}: {first[0]}{' at' + first[-1] if first[1:] else ''}{missing}")
        return answer

    @contextlib.contextmanager
    def written(self, planned: Frame) -> Iterator[Arena]:
        """A mapping that holds what the reference just planned."""
        with contextlib.closing(Arena(planned["size"])) as arena:
            self.ask({"op": "write"}, (arena.fd,))
            yield arena

    def inputs(self, seed: int, *, amplitude: float = 1.0) -> InputSet:
        """A new set of inputs, in a mapping that the caller closes. `amplitude` is a factor on plainly drawn tensors. Raises
        ProblemError.
        """
        planned = self.ask({"op": "make_inputs", "seed": seed, "amplitude": amplitude})
        arena = Arena(planned["size"])
        self.ask({"op": "write"}, (arena.fd,))
        return InputSet(planned["tree"], arena, tuple(planned["plain"]), tuple(planned["independent"]))

    def close(self) -> None:
        """Idempotent."""
        self.endpoint.close()


def output_at(answer: Frame, index: int) -> Any:
    """Description of one output of a call; None where there is none. A number is the address of one like those before it."""
    outputs = answer.get("outputs")
    if not isinstance(outputs, list) or not -len(outputs) <= index < len(outputs):
        return None
    index %= len(outputs)
    last = next((output for output in reversed(outputs[: index + 1]) if type(output) is not int), None)
    if type(outputs[index]) is not int:
        return last
    spec = last.get("tensor") if isinstance(last, dict) else None
    return {"tensor": {**spec, "address": outputs[index]}} if isinstance(spec, dict) else None


def fetched(
    output: Any, endpoint: Endpoint, ask: Ask, index: int = -1, *, like: Any = None, lasting: bool = False
) -> tuple[Any, Buffer]:
    """The bytes of an output of a runner's last message, the one at `index`; and how they lie there: packed, as `output` or `like`
    would be.

    On a machine where no process's memory can be read from here, the runner is thawed and writes them itself. Raises Unreadable
    where only this output's cannot: a program that writes there could hand over what it has not computed yet.
    """
    layout, size = packed(output if like is None else like)
    buffer = Buffer(size, lasting=lasting)
    try:
        fetch(output, layout, buffer, endpoint.pid)
    except Unreadable:
        if endpoint.hides():
            raise
        with contextlib.closing(Arena(size)) as arena:
            arena.copy_from(buffer)
            endpoint.thaw()
            ask({"op": "collect", "size": size, "index": index, "like": layout}, (arena.fd,))
            buffer.copy_from(arena)
    return layout, buffer

"""What torch's profiler saw of one forward: operators, on whatever thread, that no trace was asked about."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from kernel_env.checks.provenance import GLUE

TORCHS = frozenset(torch._C._dispatch_get_all_op_names())
"""Torch's own operators, with their overloads: those that there are before a candidate is loaded."""
TORCHS_NAMES = frozenset(name.partition(".")[0] for name in TORCHS)


@dataclass(frozen=True)
class Span:
    """An event on some thread. Times are the profiler's."""

    name: str
    thread: int
    start_ns: int
    end_ns: int


@contextlib.contextmanager
def profiled(spans: list[Span]) -> Iterator[None]:
    """What happens on any thread meanwhile. Takes 3 ms."""
    c = torch._C._profiler
    asked = c.ProfilerConfig(c.ProfilerState.KINETO, *(False,) * 5, c._ExperimentalConfig(profile_all_threads=True))
    with _without_stderr():  # it announces itself there
        torch._C._autograd._prepare_profiler(asked, {c.ProfilerActivity.CPU})
        torch._C._autograd._enable_profiler(asked, {c.ProfilerActivity.CPU})
    try:
        yield
    finally:
        with _without_stderr():
            found = torch._C._autograd._disable_profiler()
        spans.extend(Span(e.name(), e.start_thread_id(), e.start_ns(), e.start_ns() + e.duration_ns()) for e in found.events())


@contextlib.contextmanager
def _without_stderr() -> Iterator[None]:
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def sequence(spans: Iterable[Span]) -> Iterator[tuple[str, str]]:
    """One thread's spans, which are nested: ("push", name) where one begins and ("pop", "") where the last that began ends."""
    ends_ns: list[int] = []
    for span in sorted(spans, key=lambda span: (span.start_ns, -span.end_ns)):
        while ends_ns and ends_ns[-1] <= span.start_ns:
            ends_ns.pop()
            yield "pop", ""
        ends_ns.append(span.end_ns)
        yield "push", span.name
    yield from [("pop", "")] * len(ends_ns)


def on_threads(spans: Sequence[Span], here: Container[int], launched: str) -> tuple[set[str], set[str]]:
    """Torch operators that compute and ran on other threads than those of `here`: those that ran beside no launch, which are called
    openly, and those that ran during one, so that they may be all that it does. What a traced operator does on threads of its own
    is part of it."""
    launches = [span for span in spans if span.name == launched]
    ran = [span for span in spans if computing(span.name)]
    traced = [span for span in ran if span.thread in here]
    openly: set[str] = set()
    unseen: set[str] = set()
    for span in ran:
        if span.thread not in here and not any(t.start_ns <= span.start_ns and span.end_ns <= t.end_ns for t in traced):
            during = any(launch.start_ns <= span.end_ns and span.start_ns <= launch.end_ns for launch in launches)
            (unseen if during else openly).add(computing(span.name))
    return openly, unseen


_CALLING = frozenset({"aten::repeat"})
"""What moves memory calls nothing that computes, but for these; a finalizer of memory that it gives back may."""
_COMPARING = frozenset({"equal", "eq", "ne", "__and__", "__or__", "bitwise_and", "bitwise_or", "all", "is_nonzero"})
"""What we call ourselves while a forward is watched, besides what moves memory. Anything else there is another's: signal handlers,
pending calls and hooks run between any two steps of Python's."""


@dataclass
class _Range:
    """An event that has begun in the profiler's sequence."""

    name: str
    covered: bool
    """What it does is part of an operator that computes and that the trace was asked about."""
    ours: bool
    asked: bool = False
    """The trace was asked about it, or about something that it called."""
    answers: str = ""
    """The operator that the trace was asked about and that is to run next in here, once."""


def hidden(events: Iterable[tuple[str, str]], ours: str) -> Iterator[str]:
    """Torch operators that compute and that no trace was asked about: neither itself, nor what called it, nor what it called."""
    open_: list[_Range] = []
    for kind, name in events:
        if kind == "push":
            parent = open_[-1] if open_ else _Range("", False, False)
            began = _Range(name, parent.covered, parent.ours or name == ours)
            if name == "PythonDispatchMode":
                for enclosing in open_:
                    enclosing.asked = True
                began.answers = parent.name if computing(parent.name) or parent.name in _CALLING else ""
            elif name == parent.answers:
                began.covered, parent.answers = True, ""
            open_.append(began)
        elif kind == "pop" and open_:
            ended = open_.pop()
            operator = computing(ended.name)
            if operator and not ended.covered and not ended.asked and not (ended.ours and operator in _COMPARING):
                yield operator


def computing(name: str) -> str:
    """What an operator of torch's that computes is called by us, "" for any other event. Not all of torch's are in `aten`."""
    namespace, _, operator = name.partition("::")
    if namespace == "aten":
        return "" if operator in GLUE else operator
    return name if name in TORCHS_NAMES and namespace != "profiler" else ""

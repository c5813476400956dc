"""Whether a candidate's Triton kernels compile for GPUs that are not here, and what they use there.

Only what a compiler says of a kernel counts against a candidate: nothing is launched, so whatever else goes wrong may come from
results that are none, and shows where it runs.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from typing import Any

from kernel_env.backends.targets import Target, target
from kernel_env.builder import Builder
from kernel_env.referee.candidate import Failed, OnTrial
from kernel_env.referee.config import derive_seed
from kernel_env.referee.reference import Reference
from kernel_env.referee.sides import give_slots
from kernel_env.schema import Compiled, Stage, Status

MOST_KERNELS, MOST_ASSEMBLING_S = 64, 60.0
"""Variants that are looked at for a target, and how long the assembler is given for them: they are the candidate's own words."""
_AMD = {
    name: re.compile(rf"\.{name}: +(\d{{1,9}})") for name in ("vgpr_count", "agpr_count", "vgpr_spill_count", "sgpr_spill_count")
}


def compiled(one: OnTrial, reference: Reference, builder: Builder) -> list[Compiled]:
    """What was compiled for each target of its config. Raises Failed where a kernel cannot be."""
    found: list[Compiled] = []
    left, seed = list(one.config.aot), derive_seed(one.job.seed, "ahead")
    try:
        _get_ready(one, reference, seed)
        one.stage = Stage.BUILD
        while left:
            answer = one.ask({"op": "compile", "target": left[0], "seed": seed})
            found += _target(builder, target(left[0]), answer)
            del left[0]
    except Failed as failed:
        if failed.status is Status.BUILD_ERROR:
            raise
        found += [Compiled(name, note=f"not compiled: {failed.message}"[:500]) for name in left]
    return found


def _get_ready(one: OnTrial, reference: Reference, seed: int) -> None:
    planned = reference.ask({"op": "init_inputs", "seed": seed})
    with reference.written(planned) as arguments:
        one.load(one.config.aot)
        one.endpoint.thaw()
        one.stage = Stage.INIT
        one.ask({"op": "init", "arguments": planned["tree"], "seed": seed}, (arguments.fd,))
    inputs = reference.inputs(seed)
    with contextlib.closing(inputs.arena):
        give_slots(one.ours, inputs, 1)


def _target(builder: Builder, chosen: Target, answer: Any) -> Iterator[Compiled]:
    """Raises Failed where all variants of a kernel are refused."""
    kernels, ended = _parsed(answer)
    refused: dict[str, str] = {}
    made: list[Compiled] = []
    until = time.monotonic() + MOST_ASSEMBLING_S
    for kernel, shared, assembly in kernels[:MOST_KERNELS]:
        if not assembly or time.monotonic() > until:
            made.append(Compiled(chosen.name, kernel, shared_bytes=shared, note="too large, or one too many, to be looked at"))
        elif chosen.vendor == "hip":
            used = {name: max((int(found[1]) for found in pattern.finditer(assembly)), default=0) for name, pattern in _AMD.items()}
            spilled = 4 * (used["vgpr_spill_count"] + used["sgpr_spill_count"])
            made.append(Compiled(chosen.name, kernel, used["vgpr_count"] + used["agpr_count"], spilled, shared))
        else:
            outcome = builder.assemble(assembly, chosen.arch)
            if outcome.ok:
                made.append(Compiled(chosen.name, kernel, outcome.registers, outcome.spilled_bytes, shared))
            else:
                refused[kernel] = outcome.log
    for kernel in refused.keys() - {done.kernel for done in made}:
        raise Failed(Status.BUILD_ERROR, Stage.BUILD, f"{kernel} for {chosen.name}: {refused[kernel]}", chosen.name)
    if ended:
        made.append(Compiled(chosen.name, note=f"forward() ended early, as its results are none here: {ended}"[:500]))
    elif not made:
        made.append(Compiled(chosen.name, note="no kernel was launched"))
    yield from made


def _parsed(answer: Any) -> tuple[list[tuple[str, int, str]], str]:
    """Of an answer that may be anything. Raises Failed."""
    try:
        rows = [(str(row["kernel"])[:200], int(row["shared"]), str(row["assembly"])) for row in answer["kernels"]]
        return rows, str(answer["ended"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise Failed(Status.RUNTIME_ERROR, Stage.BUILD, "a malformed answer", "protocol") from None

"""Does a candidate do the work itself? Its forward is watched, and tried with what its kernels compute replaced."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from kernel_env.checks.provenance import decoy, forbidden
from kernel_env.checks.symbols import unwatched
from kernel_env.referee.bench import Bench
from kernel_env.referee.candidate import Failed, OnTrial
from kernel_env.referee.memory import code_files
from kernel_env.referee.protocol import Frame
from kernel_env.referee.reference import output_at
from kernel_env.referee.sides import give_slots
from kernel_env.sandbox import SYSTEM, interpreter_paths
from kernel_env.schema import Status

WATCHED = 3
"""So many times the limit is allowed while a forward is watched: what its kernels are given and give back is kept and compared."""
_OF_BUILDS = re.compile(r"/ke_[0-9a-f]{20}\.so$")
_INSTALLED = tuple(f"{path}/" for path in (*SYSTEM, *interpreter_paths()))
"""Where code of a runner may come from, besides its own builds."""


def check_provenance(one: OnTrial, bench: Bench) -> None:
    """Raises Failed where the candidate's own kernels do not do the work. The last that is asked of its process: they run on
    numbers that they were not made for."""
    if one.config.torch_ops == "unchecked":
        return
    _expect_no_library(one, "its extension calls", unwatched(one.imports))
    _expect_own_code(one, bench)
    seed, limit_s = _new_inputs(one, bench, "watched"), WATCHED * one.limit_s()
    one.endpoint.thaw()
    found = one.ask({"op": "trace", "seed": seed}, limit_s=limit_s)
    try:
        launched, operators = bool(found["launches"]), set(map(str, found["operators"]))
        reaches = bool(found.get("reaches", True))
        unseen, functions = (list(map(str, found[name])) for name in ("hidden", "functions"))
    except (KeyError, TypeError, ValueError, RecursionError):
        raise Failed(Status.RUNTIME_ERROR, one.stage, "a malformed answer", "protocol") from None
    _expect_no_library(one, "it looks up", functions)
    if unseen:
        words = f"torch's operators ({', '.join(unseen)[:200]}) ran where no trace sees them: call them openly"
        raise one.rejected(words, "library")
    works = matters = True
    if launched:
        works, matters = _works(one, bench, seed, limit_s)
    fault = decoy(launched, works or one.degenerate, matters or one.degenerate)
    if fault:
        raise one.rejected(fault, "decoy")
    if not reaches and not one.degenerate and _only_chooses(one, seed, limit_s):
        words = "its own kernels only test what torch computes: none of their numbers is in the output"
        raise one.rejected(words, "decoy")
    left = forbidden(operators, one.config.torch_ops)
    if left:
        policy, names = one.config.torch_ops, ", ".join(left)[:200]
        words = f"torch computed a part of it, which verify.torch_ops={policy} does not allow: {names}"
        raise one.rejected(words, "torch_ops")


def _works(one: OnTrial, bench: Bench, seed: int, limit_s: float) -> tuple[bool, bool]:
    """Whether its kernels compute anything, and whether that makes a difference: seen when what they compute is replaced. At first
    that of the last one only, for kernels may have to agree with each other; then what they give for other numbers, or something
    else where that shows none. To fail then proves nothing: a program that only tests its kernel against torch does, too."""
    for how in ("last", "other", "disturbed"):
        frame: Frame = {"op": "ablate", "seed": seed, "how": how, "compare": True}
        try:
            found = one.ask(frame, limit_s=limit_s)
        except Failed as failed:
            if failed.status in (Status.CRASHED, Status.TIMEOUT):
                break
            continue
        if not found.get("works", True):
            return False, False
        if not found.get("launched", True):
            return True, _differs_on_new_inputs(one, bench, limit_s)
        if found.get("matters", True):
            return True, True
    return True, False


def _only_chooses(one: OnTrial, seed: int, limit_s: float) -> bool:
    """Of a program whose output has nothing to do with its kernels' memory: whether it stays the same, to the bit, where their
    numbers are hardly larger. Then they only decide which way it takes, as the test of a result of torch's does. (What a program
    makes of a kernel's numbers in Python or numpy is in no operator's memory either, and differs then.)"""
    with contextlib.suppress(Failed):
        found = one.ask({"op": "ablate", "seed": seed, "how": "nudged", "compare": True}, limit_s=limit_s)
        return bool(found.get("launched", False)) and not found.get("matters", True)
    return False


def _differs_on_new_inputs(one: OnTrial, bench: Bench, limit_s: float) -> bool:
    """For a program that remembered the answer. That is honest, if all of the inputs' content was compared."""
    seed = _new_inputs(one, bench, "watched again")
    expected = bench.answer("watched again")
    try:
        frame: Frame = {"op": "ablate", "seed": seed, "how": "disturbed", "compare": False}
        got, one.ours.index = output_at(one.ask(frame, limit_s=limit_s), 0), 0
        one.compare(expected, "", one.tolerance, got)
    except Failed as failed:
        return failed.status is Status.WRONG_OUTPUT
    return False


def _new_inputs(one: OnTrial, bench: Bench, what: str) -> int:
    """Written into its first place; returns the seed of the generator in forward."""
    inputs, seed = bench.extra(what)
    one.endpoint.thaw()
    give_slots(one.ours, inputs, 1)
    one.ours.slots[0].copy_from(inputs.arena)
    return seed


def _expect_own_code(one: OnTrial, bench: Bench) -> None:
    """Raises Failed where the candidate runs code of a file that is not installed, that the reference does not run, and that was
    not built here for it: what another build needed of libraries was not looked at."""
    if one.house.mode != "process":
        return
    with contextlib.suppress(OSError):
        for name in code_files(one.endpoint.pid) - bench.code - one.built:
            if _OF_BUILDS.search(name) or not name.startswith(_INSTALLED):
                raise one.rejected(f"it runs code of a file that was not built for it: {Path(name).name[:100]}", "library")


def _expect_no_library(one: OnTrial, how: str, functions: Sequence[str]) -> None:
    if functions:
        words = f"{how} functions of a library ({', '.join(functions)[:200]}): write the work yourself, or leave it to torch"
        raise one.rejected(words, "library")

"""What works on this machine, found out by doing it in a forked child."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import NoReturn

from kernel_env.sandbox.confine import enter, fork, last_words, root_lacks, seal
from kernel_env.sandbox.layers import Findings, Layer, LayerFailed, Plan

_ATTEMPTS = 3


def tried(plan: Plan) -> Findings:
    """Put the plan's layers around a child, and again without the one that failed, until they stand.

    The caller must be the subreaper of its orphans. Layers that are not in the plan are said to be switched off.
    """
    missing = {layer.value: "switched off" for layer in Layer if layer not in plan}
    lacking = root_lacks()
    if Layer.UNPRIVILEGED in plan and lacking:
        missing[Layer.UNPRIVILEGED.value] = lacking
        plan = plan.without(Layer.UNPRIVILEGED)
    while True:
        try:
            _try(plan)
        except LayerFailed as failure:
            if failure.layer not in plan:
                raise
            missing[failure.layer.value] = failure.why
            plan = plan.without(failure.layer)
        else:
            return Findings(plan.layers, {layer.value: missing[layer] for layer in Layer if layer in missing})


def _try(plan: Plan) -> None:
    """Raises LayerFailed. A child that died without a word says nothing about any layer, and is asked again: else whoever kills it
    would take a layer from every runner."""
    said = next((answer for answer in (_answer(plan) for _ in range(_ATTEMPTS)) if answer), "")
    if said != "stands":
        layer, _, why = said.partition(" ")
        raise LayerFailed(Layer(layer or Layer.SECCOMP), why or "the process died")


def _answer(plan: Plan) -> str:
    read, write = os.pipe()
    with tempfile.TemporaryDirectory(prefix="kernel-env-trial-") as scratch:
        try:
            pid = fork(plan)
            if pid == 0:
                _in_child(plan, Path(scratch), write)
        finally:
            os.close(write)
            with open(read, "rb") as answer:
                said = answer.read().decode()
        os.waitpid(pid, 0)
    return said


def _in_child(plan: Plan, scratch: Path, answer: int) -> NoReturn:
    said = ""
    try:
        os.chdir(scratch)
        enter(plan, scratch, os.getppid())
        seal(plan)
        said = "stands"
    except LayerFailed as failure:
        said = f"{failure.layer} {failure.why}"
    finally:
        last_words(answer, said)

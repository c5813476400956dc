"""What a layer's trial says is about the layer, not about who killed the process that tried it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from kernel_env.processes import become_subreaper
from kernel_env.sandbox import trial
from kernel_env.sandbox.layers import Layer, LayerFailed, Plan
from tests.kill_harness import descendants


def answers(monkeypatch: pytest.MonkeyPatch, *said: str) -> list[str]:
    """What trials will say, one after the other; what is left was not asked for."""
    waiting = list(said)
    monkeypatch.setattr(trial, "_answer", lambda plan: waiting.pop(0))
    return waiting


def test_a_trial_that_was_killed_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    left = answers(monkeypatch, "", "", "stands", "never asked")
    trial._try(Plan((Layer.SECCOMP,)))
    assert left == ["never asked"]


def test_a_trial_that_always_dies_does_not_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "", "", "")
    with pytest.raises(LayerFailed):
        trial._try(Plan((Layer.SECCOMP,)))


def test_a_trial_that_says_why_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    left = answers(monkeypatch, "landlock the kernel has none", "never asked")
    with pytest.raises(LayerFailed) as caught:
        trial._try(Plan((Layer.LANDLOCK,)))
    assert (caught.value.layer, caught.value.why) == (Layer.LANDLOCK, "the kernel has none")
    assert left == ["never asked"]


ORPHANED = """
import os, signal, sys, threading
from kernel_env.processes import become_subreaper
from kernel_env.sandbox import Layer, Plan, confine, trial

def dies():
    os.read(asked, 1)
    os.kill(os.getpid(), signal.SIGKILL)

def killing(function):
    def called(*arguments):
        setattr(where, name, function)
        os.close(kept)
        os.write(ask, b"x")
        os.read(gone, 1)  # ends when nobody else holds the other end
        return function(*arguments)
    return called

asked, ask = os.pipe()
gone, kept = os.pipe()
where, name = {"between": (confine.libc, "unshare"), "child": (trial, "enter")}[sys.argv[1]]
setattr(where, name, killing(getattr(where, name)))
become_subreaper()
threading.Thread(target=dies, daemon=True).start()
trial.tried(Plan(tuple(Layer)))
"""


@pytest.mark.parametrize("when", ["between", "child"])
def test_a_trial_whose_zygote_is_killed_ends_too(when: str) -> None:
    """What it forked may still be on its way, and finds nobody to report to."""
    before = set(descendants(os.getpid()))
    become_subreaper()
    try:
        assert subprocess.run([sys.executable, "-c", ORPHANED, when], timeout=60).returncode == -signal.SIGKILL
        deadline = time.monotonic() + 20
        seen = set()
        while left := [p for p in descendants(os.getpid()) if p not in before]:
            seen.update(p.pid for p in left)
            assert time.monotonic() < deadline, [p.described() for p in left]
            time.sleep(0.01)
        for pid in seen:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
    finally:
        become_subreaper(False)

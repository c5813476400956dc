"""What a layer's trial says is about the layer, not about who killed the process that tried it."""

from __future__ import annotations

import pytest

from kernel_env.sandbox import trial
from kernel_env.sandbox.layers import Layer, LayerFailed, Plan


def answers(monkeypatch: pytest.MonkeyPatch, *said: str) -> None:
    waiting = list(said)
    monkeypatch.setattr(trial, "_answer", lambda plan: waiting.pop(0))


def test_a_trial_that_was_killed_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "", "", "stands")
    trial._try(Plan((Layer.SECCOMP,)))


def test_a_trial_that_always_dies_does_not_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "", "", "")
    with pytest.raises(LayerFailed):
        trial._try(Plan((Layer.SECCOMP,)))


def test_a_trial_that_says_why_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "landlock the kernel has none")
    with pytest.raises(LayerFailed) as caught:
        trial._try(Plan((Layer.LANDLOCK,)))
    assert (caught.value.layer, caught.value.why) == (Layer.LANDLOCK, "the kernel has none")

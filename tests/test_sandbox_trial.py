"""What a layer's trial says is about the layer, not about who killed the process that tried it."""

from __future__ import annotations

import pytest

from kernel_env.sandbox import trial
from kernel_env.sandbox.layers import Layer, LayerFailed, Plan


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

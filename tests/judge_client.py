"""The judge's client in tests: a system and the scripted server that it asks, in an environment that says nothing of judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from rewards.judge import JudgeConfig, JudgeRewardSystem
from rewards.judge.config import ENVIRONMENT
from tests.scripted_judge import HANGS_S, Script, ScriptedJudge, good

Ask = Callable[..., tuple[JudgeRewardSystem, ScriptedJudge]]


@pytest.fixture
def judgeless_environment(bare_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has said where a judge is."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def asking() -> Iterator[Ask]:
    """Both end with the test."""
    with ExitStack() as closing:

        def started(script: Script = (good,), **options: Any) -> tuple[JudgeRewardSystem, ScriptedJudge]:
            server = closing.enter_context(ScriptedJudge(script))
            quick = {"batch_timeout": 0.0, "timeout": HANGS_S, "retry_wait": 0.001, "retry_wait_max": 0.002}
            config = JudgeConfig(judge_url=server.url, **(quick | options))  # type: ignore[arg-type]
            return closing.enter_context(JudgeRewardSystem(config)), server

        yield started

"""Reward sources in whole runs: a judge and the policy's own prediction beside what is measured, alive and dead."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_env.errors import ConfigError
from kernel_env.referee.config import VerifyConfig
from kernel_env.schema import Candidate, Problem, Stage, Stats, Status, StopReason, Timing, Verdict
from rewards.judge.llm import LLMConfig, LLMJudge
from rewards.judge.static import StaticJudge
from rewards.sources import QUESTION
from rollout import compose
from rollout.runner import RunResult, run
from tests.chat_server import Behaviour, ChatServer
from tests.judge_server import JudgeServer
from tests.test_judge_llm import said

KERNEL = """```python
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

source = '''
#include <torch/extension.h>
torch::Tensor relu(torch::Tensor x) {
  auto y = torch::empty_like(x);
  for (int64_t i = 0; i < x.numel(); ++i) y.data_ptr<float>()[i] = std::max(x.data_ptr<float>()[i], 0.0f);
  return y;
}
'''
module = load_inline(name="relu", cpp_sources=source, functions=["relu"])


class ModelNew(nn.Module):
    def forward(self, x):
        return module.relu(x)  # %s
```
"""
WRONG, SLOW, FAST = (KERNEL % how for how in ("wrong", "slow", "fast"))
PREDICTION = json.dumps({"compiles": 1.0, "correct": 1.0, "faster": 0.5})


class Told:
    """A verifier that believes the comment: correct unless it says wrong, 2.5 times as fast if it says fast, else 1.5."""

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: object = None
    ) -> Verdict:
        names = problem.key, problem.digest, candidate.digest, candidate.backend
        if "# wrong" in candidate.code:
            return Verdict(Status.WRONG_OUTPUT, Stage.TRIALS, *names, trials=1)
        speedup = 2.5 if "# fast" in candidate.code else 1.5
        ours, theirs = (Stats(ms, ms, 0.0, ms, ms, 1) for ms in (1.0, speedup))
        return Verdict(
            Status.CORRECT, Stage.DONE, *names, timing=Timing(ours, theirs, speedup, speedup, speedup), trials=1, trials_passed=1
        )

    async def aclose(self) -> None: ...


def played(tmp_path: Path, name: str, *overrides: str) -> RunResult:
    """Two wrong turns at most, then a slow one, then a fast one: the episode ends with the fast one or with its fourth turn."""

    def script(messages: list[dict[str, str]]) -> Behaviour:
        if messages[-1]["content"] == QUESTION:
            return PREDICTION
        return (WRONG, SLOW, FAST, FAST)[sum(message["role"] == "assistant" for message in messages)]

    with ChatServer(script) as server:
        options = [
            "problems.limit=1", "problems.levels=1", "rollout.max_turns=4",
            "policy=openai", "policy.model=test-model", f"policy.base_url={server.base_url}",
            f"run.name={name}", f"run.root={tmp_path}", "run.seed=1", "run.canaries=false", "verifier.clock=recorded",
        ]  # fmt: skip
        return asyncio.run(run(*compose.composed([*options, *overrides]), verifier=Told()))


@pytest.fixture
def dead() -> Iterator[str]:
    """The address of a server that is not there any more."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


def judged_by(url: str) -> list[str]:
    return [
        "sources.preset=measured+judge", f"sources.judge.judge_url={url}", "sources.judge.max_retries=0", "sources.judge.timeout=5",
    ]  # fmt: skip


MEASURED = (0.1, 1.5, 2.5)


def test_a_judge_adds_a_little_to_correct_kernels_and_nothing_to_others(tmp_path: Path) -> None:
    with JudgeServer(StaticJudge()) as judge:
        result = played(tmp_path, "judged", *judged_by(judge.url))
    (episode,) = result.episodes
    added = [reward - measured for reward, measured in zip(episode.rewards_T, MEASURED, strict=True) if reward is not None]
    assert added[0] == 0 and all(0.05 < one <= 0.1 for one in added[1:])
    assert [turn.reward.parts["judge"] for turn in episode.turns] == pytest.approx(added)
    assert episode.stop_reason is StopReason.SOLVED and len(episode.turns) == 3, "1.5 and a judge's 0.1 are no 2.0"
    assert [turn.reward.measured for turn in episode.turns] == pytest.approx(MEASURED)
    opinions = [turn.reward.opinions["judge"] for turn in episode.turns]
    assert [one.score for one in opinions] == [None, *(pytest.approx(10 * part) for part in added[1:])]
    assert "not asked" in opinions[0].reason and all(one.latency_ms and not one.cached for one in opinions[1:])
    assert "| judge | 2 |" in result.report.read_text() and (result.report.parent / "reward_sources.svg").is_file()


@pytest.mark.parametrize("fallback", [True, False])
def test_with_the_judge_dead_what_is_measured_and_the_end_stay_the_same(tmp_path: Path, dead: str, fallback: bool) -> None:
    with JudgeServer(StaticJudge()) as judge:
        alive = played(tmp_path, "alive", *judged_by(judge.url)).episodes[0]
    episode = played(tmp_path, "dead", *judged_by(dead), f"sources.judge.fallback_to_rule={fallback}").episodes[0]
    names = ("compiled", "correct", "speedup_bonus")
    measured = [[sum(t.reward.parts[n] or 0.0 for n in names) for t in e.turns] for e in (alive, episode)]
    assert measured[0] == measured[1] == pytest.approx(MEASURED)
    assert (episode.stop_reason, len(episode.turns)) == (alive.stop_reason, len(alive.turns))
    for turn in episode.turns[1:]:
        assert turn.reward.parts["judge"] is None and "judge: " in turn.reward.reason
        assert ("judge_rule_fallback" in turn.reward.parts) is fallback


def test_a_policy_that_judges_its_own_work_is_marked_in_the_record_and_the_report(tmp_path: Path) -> None:
    with ChatServer([said()]) as model:
        own = LLMJudge(LLMConfig("test-model", model.base_url, mode="schema", own_policy=True))
        with JudgeServer(own) as judge:
            result = played(tmp_path, "own", *judged_by(judge.url))
    opinions = [turn.reward.opinions["judge"] for turn in result.episodes[0].turns]
    assert [(one.score, one.doubts) for one in opinions] == [(None, ()), (0.75, ("self_judged",)), (0.75, ("self_judged",))]
    assert "self_judged (2)" in result.report.read_text()


def test_the_policys_prediction_is_scored_by_how_close_it_came(tmp_path: Path) -> None:
    episode = played(tmp_path, "self", "sources.preset=measured+self").episodes[0]
    parts = [turn.reward.parts["self"] for turn in episode.turns]
    # compiles, correct, faster: wrong by (0, 1, 0.5), (0, 0, 0.5) and (0, 0, 0.5)
    assert parts == pytest.approx([-0.05 * 1.25 / 3, 0.05 * (1 - 0.25 / 3), 0.05 * (1 - 0.25 / 3)])
    assert all(message["content"] != QUESTION for message in episode.turns[-1].messages)


def test_a_judge_and_a_prediction_each_have_their_part(tmp_path: Path, dead: str) -> None:
    both, weights = "sources.preset=measured+judge+self", "sources.weights={judge: 0.08, self: 0.02}"
    with JudgeServer(StaticJudge()) as judge:
        alive = played(tmp_path, "both", *judged_by(judge.url), both, weights).episodes[0]
    lonely = played(tmp_path, "lonely", *judged_by(dead), "sources.judge.fallback_to_rule=false", both, weights).episodes[0]
    for episode in (alive, lonely):
        assert [turn.reward.measured for turn in episode.turns] == pytest.approx(MEASURED)
        expected = [-0.02 * 1.25 / 3, 0.02 * (1 - 0.25 / 3), 0.02 * (1 - 0.25 / 3)]
        assert [turn.reward.parts["self"] for turn in episode.turns] == pytest.approx(expected)
    scores = [turn.reward.opinions["judge"].score or 0.0 for turn in alive.turns]
    assert [turn.reward.parts["judge"] for turn in alive.turns] == pytest.approx([0.08 * score for score in scores])
    assert [turn.reward.parts["judge"] for turn in lonely.turns] == [0.0, None, None]


def test_the_judges_key_is_written_nowhere(tmp_path: Path, dead: str) -> None:
    result = played(tmp_path, "secret", *judged_by(dead), "sources.judge.api_key=a-secret-key")
    assert not [path for path in result.path.rglob("*") if path.is_file() and b"a-secret-key" in path.read_bytes()]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sources.preset=judged", "unknown preset of reward sources 'judged'"),
        ("sources.weights={judge: 0.05}", "sources.preset=measured has no source"),
        ("sources.judge.judge_url=nowhere", "judge.judge_url: must be a URL"),
    ],
)
def test_sources_that_cannot_be_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose.composed([override])

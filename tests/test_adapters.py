"""What every trainer's adapter is made of: rows and problems, batches of any order, and the samples of both layouts.

And of TRL's the way through a vLLM server, which `tests/test_trl.py` cannot go: a trainer of that kind wants vLLM itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from kernel_env.episode import EpisodeConfig
from kernel_env.errors import ConfigError, PolicyError, VerifierError
from kernel_env.prompts import initial_messages
from kernel_env.schema import Episode, Generation, Problem, Reward, StopReason
from kernel_env.verifier import BlockingVerifier
from rollout.adapters import worker
from rollout.adapters.common import Facts, Rows, check_returns, facts, known, metrics, play, training_samples
from rollout.adapters.trl import Rollouts, verified_return
from rollout.adapters.worker import Environment, Played, environment
from rollout.compose import composed
from rollout.engine import EngineConfig
from rollout.policies import GenerationRequest, Sampling
from rollout.returns import GROUP_RETURNS, RETURNS
from rollout.tokens import Layout, Renderer, record_of
from tests import toy_tokens
from tests.chat_formats import plain
from tests.players import Checker
from tests.sample_run import problem
from tests.test_token_rollouts import TokenWriter
from tests.vllm_server import VLLMServer

DIALECT = plain("qwen2.5")
"""Its template keeps the past as it was, so that the same turns can be read in either layout."""
ONE, TWO = problem(1), problem(2)
both_layouts = pytest.mark.parametrize("layout", Layout)


def played(problems: Sequence[Problem], policy: TokenWriter | None = None) -> list[Episode]:
    config = EngineConfig(EpisodeConfig(max_turns=3), renderer=Renderer(DIALECT.template, Layout.APPEND))
    return asyncio.run(play(policy or TokenWriter(DIALECT), Checker(), config, problems, 7))


def rewarded(episode: Episode, *rewards: float | None) -> Episode:
    """The same tokens, with these rewards."""
    turns = [
        replace(t, reward=Reward(value, {}, "" if value is not None else "broken"))
        for t, value in zip(episode.turns, rewards, strict=True)
    ]
    return replace(episode, turns=tuple(turns))


# ------------------------------------------------------------------ rows


def test_a_row_says_its_problem_by_its_key_and_by_its_prompt() -> None:
    rows = Rows([ONE, TWO], EpisodeConfig())
    assert [row["problem"] for row in rows.rows] == [ONE.key, TWO.key]
    for row, posed in zip(rows.rows, (ONE, TWO), strict=True):
        assert row["prompt"] == list(initial_messages(posed, "cpp"))
        assert rows.by_key(row["problem"]) is rows.by_prompt(row["prompt"]) is posed


@pytest.mark.parametrize("prompt", ["Write a kernel.", [{"role": "user", "content": "Write a kernel."}], []])
def test_a_prompt_of_another_data_set_is_refused(prompt: str | list[dict[str, str]]) -> None:
    with pytest.raises(ConfigError, match="make it of `rows`"):
        Rows([ONE], EpisodeConfig()).by_prompt(prompt)


def test_a_key_of_another_data_set_is_refused() -> None:
    with pytest.raises(ConfigError, match="names problem 'level1_problem2', which is none of these"):
        Rows([ONE], EpisodeConfig()).by_key(TWO.key)


@pytest.mark.parametrize("other", [replace(TWO, problem_id=1), replace(TWO, source=ONE.source, name=ONE.name)])
def test_problems_that_cannot_be_told_apart_are_refused(other: Problem) -> None:
    with pytest.raises(ConfigError, match="two problems have the same key or the same prompt"):
        Rows([ONE, other], EpisodeConfig())


# ------------------------------------------------------------------ batches


@pytest.mark.parametrize("order", ["111222", "121212", "1112", "2"])
def test_each_row_of_a_batch_gets_an_episode_of_its_problem_and_no_two_the_same(order: str) -> None:
    """Groups that a trainer has split between its processes are of different sizes."""
    batch = [{"1": ONE, "2": TWO}[which] for which in order]
    episodes = played(batch)
    assert [episode.problem for episode in episodes] == batch
    assert len({episode.key for episode in episodes}) == len(batch)
    assert all(episode.stop_reason is StopReason.TURN_LIMIT for episode in episodes)


# ------------------------------------------------------------------ samples


@both_layouts
def test_a_samples_tokens_are_those_of_the_record(layout: Layout) -> None:
    (episode,) = played([ONE])
    record = record_of(episode.turns, layout)
    (samples,) = training_samples([episode], layout, "trajectory", 1.0)
    assert record is not None and len(samples) == len(record.samples)
    for ours, kept in zip(samples, record.samples, strict=True):
        assert (*ours.prompt_ids, *ours.completion_ids) == kept.ids
        assert (0,) * len(ours.prompt_ids) + ours.loss_mask == kept.loss_mask
        assert ours.loss_mask[0] == ours.loss_mask[-1] == 1
        assert ours.logprobs is not None and (0.0,) * len(ours.prompt_ids) + ours.logprobs == kept.logprobs


def test_both_layouts_train_on_the_same_tokens() -> None:
    """However an episode is cut into samples: what was sampled is in one of them, once."""
    episodes = played([ONE, ONE, TWO])
    trained = {
        layout: [
            [token for sample in found for token, mask in zip(sample.completion_ids, sample.loss_mask, strict=True) if mask]
            for found in training_samples(episodes, layout, "trajectory", 0.4)
        ]
        for layout in Layout
    }
    sampled = [[token for turn in episode.turns for token in turn.generation.output_ids or ()] for episode in episodes]
    assert trained[Layout.APPEND] == trained[Layout.PER_TURN] == sampled


@both_layouts
@pytest.mark.parametrize("returns", ["trajectory", "best"])
def test_what_was_not_scored_has_no_credit_and_no_token_is_trained_on(layout: Layout, returns: str) -> None:
    first, second, third = played([ONE, ONE, ONE])
    cancelled = replace(rewarded(second, 1.0, 1.0, 1.0), stop_reason=StopReason.CANCELLED)
    group = [rewarded(first, 1.0, 1.0, None), cancelled, rewarded(third, 1.0, 1.0, 1.0)]
    unscored, short, whole = training_samples(group, layout, returns, 1.0)
    assert {sample.credit for sample in (*unscored, *short)} == {None}
    assert not any(sum(sample.loss_mask) for sample in (*unscored, *short))
    assert all(sample.completion_ids and sample.credit and sum(sample.loss_mask) for sample in whole)


class Speechless(TokenWriter):
    async def generate(self, request: GenerationRequest) -> Generation:
        raise PolicyError("nothing to say")


@both_layouts
def test_an_episode_without_a_turn_has_no_sample(layout: Layout) -> None:
    episodes = played([ONE, ONE], Speechless(DIALECT))
    assert training_samples(episodes, layout, "trajectory", 1.0) == [[], []]


REWARDS_T = (1.0, 4.0, 2.0)


@pytest.mark.parametrize(
    ("returns", "credits"),
    [("per_turn", [3.5, 5.0, 2.0]), ("trajectory", [3.5, 3.5, 3.5]), ("best", [2.0, 4.0, 2.0])],
)
def test_each_turns_sample_has_the_return_of_its_turn(returns: str, credits: list[float]) -> None:
    """1 + 4/2 + 2/4 = 3.5, 4 + 2/2 = 5; max(1, 4/2, 2/4) = 2."""
    (episode,) = played([ONE])
    (samples,) = training_samples([rewarded(episode, *REWARDS_T)], Layout.PER_TURN, returns, 0.5)
    assert [sample.credit for sample in samples] == credits


@pytest.mark.parametrize(("returns", "credit"), [("trajectory", 3.5), ("best", 2.0)])
def test_an_episode_in_one_sample_has_the_return_of_the_trajectory(returns: str, credit: float) -> None:
    (episode,) = played([ONE])
    ((sample,),) = training_samples([rewarded(episode, *REWARDS_T)], Layout.APPEND, returns, 0.5)
    assert sample.credit == credit


def test_returns_that_compare_a_group_compare_the_members_of_one_problem() -> None:
    one, other, third = (rewarded(episode, *REWARDS_T) for episode in played([ONE, TWO, ONE]))
    double = rewarded(third, *(2 * reward for reward in REWARDS_T))
    found = training_samples([one, other, double], Layout.PER_TURN, "loo_per_turn_index", 0.5)
    assert [[sample.credit for sample in samples] for samples in found] == [
        [-3.5, -5.0, -2.0],  # the other has twice as much
        [3.5, 5.0, 2.0],  # alone, so that its baseline is 0
        [3.5, 5.0, 2.0],
    ]


@pytest.mark.parametrize("returns", ["per_turn", *GROUP_RETURNS])
def test_returns_of_turns_are_refused_where_an_episode_is_one_sample(returns: str) -> None:
    check_returns(returns, Layout.PER_TURN)
    with pytest.raises(ConfigError, match=f"returns={returns} tells the turns of an episode apart"):
        training_samples([], Layout.APPEND, returns, 1.0)


@both_layouts
def test_unknown_returns_are_refused(layout: Layout) -> None:
    with pytest.raises(ConfigError, match=f"returns=sum: choose one of {', '.join(RETURNS)}"):
        check_returns("sum", layout)


# ------------------------------------------------------------------ a vLLM server beside TRL


class ToyTokenizer:
    eos_token_id = toy_tokens.END

    def apply_chat_template(self, chat: list[dict[str, str]], **_: object) -> list[int]:
        return toy_tokens.prompt(chat)


def trainer_with_a_server(url: str, mode: str = "server") -> Any:
    """What is asked of a trainer, and nothing else."""
    return SimpleNamespace(
        use_vllm=True, vllm_mode=mode, temperature=0.7, top_p=1.0, top_k=0, min_p=None, repetition_penalty=1.0,
        max_completion_length=64, processing_class=ToyTokenizer(), chat_template_kwargs={}, state=SimpleNamespace(global_step=3),
        model=SimpleNamespace(training=True, name_or_path="test-model"),
        accelerator=SimpleNamespace(process_index=0, unwrap_model=lambda model: model),
        args=SimpleNamespace(seed=1, generation_kwargs=None, vllm_server_base_url=url, vllm_server_host="", vllm_server_port=0),
    )  # fmt: skip


@pytest.mark.usefixtures("bare_environment")
def test_a_trainer_with_a_vllm_server_is_given_what_that_server_sampled() -> None:
    with VLLMServer(["No."] * 3) as server, BlockingVerifier(Checker) as verifier:
        rollouts = Rollouts([ONE, TWO], verifier, EngineConfig(EpisodeConfig(max_turns=1)))
        prompts = [rollouts.rows[at]["prompt"] for at in (0, 1, 0)]
        given = rollouts(prompts, trainer_with_a_server(server.base_url.removesuffix("/v1")))
    assert given["prompt_ids"] == [toy_tokens.prompt(prompt) for prompt in prompts]
    assert given["completion_ids"] == [[*b"No.", toy_tokens.END]] * 3
    assert given["logprobs"] == [toy_tokens.logprobs(4)] * 3 and given["env_mask"] == [[1] * 4] * 3
    assert verified_return(**given) == [0.0] * 3
    bodies = [request.body for request in server.requests]
    assert {(body["model"], body["temperature"], body["max_tokens"]) for body in bodies} == {("test-model", 0.7, 64)}
    assert len({body["seed"] for body in bodies}) == 2, "members of a group differ"


@pytest.mark.usefixtures("bare_environment")
def test_vllm_in_the_trainers_own_process_is_refused() -> None:
    with BlockingVerifier(Checker) as verifier:
        rollouts = Rollouts([ONE], verifier, EngineConfig(EpisodeConfig(max_turns=1)))
        with pytest.raises(ConfigError, match="vllm_mode=colocate of GRPOConfig: use server"):
            rollouts([rollouts.rows[0]["prompt"]], trainer_with_a_server("http://localhost:1", "colocate"))


# ------------------------------------------------------------------ what is told of each turn


def test_facts_are_the_verdicts_and_the_rewards() -> None:
    for turn in played([ONE])[0].turns:
        told = facts(turn.verdict, turn.reward)
        assert (told.status, told.compiled, told.correct) == (turn.verdict.status, turn.verdict.compiled, turn.verdict.correct)
        assert (told.speedup, told.reward, told.message) == (turn.verdict.speedup, turn.reward.value, turn.verdict.message)


def test_metrics_of_an_episode_have_the_best_speedup_and_none_where_nothing_was_timed() -> None:
    wrong, slow, fast = (Facts("s", True, speedup is not None, speedup, 0.0, "") for speedup in (None, 0.5, 1.5))
    assert metrics([wrong, fast, slow]) == {"turns": 3, "correct": 1, "speedup": 1.5}
    assert metrics([wrong]) == {"turns": 1, "correct": 0}
    assert metrics([]) == {"turns": 0, "correct": 0}


def test_what_was_not_scored_is_an_error_for_trainers_that_have_no_word_for_it() -> None:
    assert known(0.0, ONE, "") == 0.0
    with pytest.raises(VerifierError, match="level1_problem1 has no reward: no such device"):
        known(None, ONE, "no such device")


# ------------------------------------------------------------------ in a worker process


QWEN3 = plain("qwen3")
"""Its template forgets what earlier replies thought."""


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts without a build."""
    monkeypatch.setattr(worker, "make_verifier", lambda settings: Checker())


def described(*options: str) -> Environment:
    return Environment(composed(["problems.levels=1", "run.seed=7", *options])[0])


def played_here(here: Environment, policy: TokenWriter, group: object = 1) -> Played:
    problem = here.rows.rows[0]["problem"]
    return asyncio.run(here.play(policy, problem, Sampling(), here.renderer(DIALECT.template), group))


@both_layouts
def test_an_episode_is_played_as_the_options_say(layout: Layout, scripted: None) -> None:
    here = described("rollout.max_turns=2", f"rollout.layout={layout}", "rollout.returns=best", "rollout.gamma=0.5")
    played = played_here(here, TokenWriter(DIALECT))
    assert len(played.episode.turns) == 2 and len(played.samples) == (2 if layout is Layout.PER_TURN else 1)
    assert [list(played.samples)] == training_samples([played.episode], layout, "best", 0.5)
    assert played.correct == any(turn.verdict.correct for turn in played.episode.turns)


def test_members_of_a_group_are_verified_with_the_same_seeds(scripted: None) -> None:
    here = described()
    seeds = [
        [turn.verdict.seed for turn in played_here(here, TokenWriter(DIALECT), group).episode.turns] for group in ("a", "a", "b")
    ]
    assert seeds[0] == seeds[1] and not set(seeds[0]) & set(seeds[2])


def test_an_episode_that_fails_says_so_in_the_log_and_has_no_sample(scripted: None, caplog: pytest.LogCaptureFixture) -> None:
    played = played_here(described(), Speechless(DIALECT))
    assert played.episode.error and not played.samples and not played.correct
    assert "is left out, it was not scored: policy: nothing to say" in caplog.text


def test_a_template_that_forgets_is_no_matter_where_there_is_one_turn() -> None:
    assert described("rollout.max_turns=1").renderer(QWEN3.template).layout is Layout.APPEND
    several = described("rollout.max_turns=2")
    assert several.renderer(QWEN3.template).layout is Layout.PER_TURN
    assert several.renderer(QWEN3.template) is several.renderer(QWEN3.template)


def test_a_reply_has_the_shorter_one_of_both_limits() -> None:
    here = described("sampling.max_tokens=100")
    assert [here.sampling(1.0, 1.0, most).max_tokens for most in (50, 500)] == [50, 100]


def test_how_replies_are_drawn_is_said_to_the_trainer() -> None:
    with pytest.raises(ConfigError, match="the trainer decides how replies are drawn"):
        described("sampling.temperature=0.3")


def test_a_process_has_one_environment_for_the_same_options() -> None:
    options = ("problems.levels=1", "rollout.max_turns=2")
    assert environment(options) is environment(options) is not environment(options[:1])

"""TRL trains for real, on the processor: GRPOTrainer, a tiny Qwen3 with random weights, and our environment with its C++ back end.

The model has its family's chat template, as TRL writes it for training, and a token for each of a few replies, so that a model
that cannot write is verified all the same. Run with `make test-adapters`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import learning
from kernel_env.episode import EpisodeConfig
from kernel_env.errors import ConfigError
from kernel_env.schema import Problem
from kernel_env.verifier import BlockingVerifier
from rollout.adapters.trl import Rollouts, verified_return
from rollout.engine import EngineConfig
from rollout.policies import Sampling
from rollout.returns import grpo
from tests.conftest import QUICK, REFERENCE, python_candidate
from tests.players import Fails
from tests.tiny_model import SPECIAL, TEMPLATE, tiny_model, tokenizer_of

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(find_spec("trl") is None, reason="needs the extra `trl`: run `make test-adapters`"),
    pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning"),  # TRL still says it so
    pytest.mark.filterwarnings("ignore:.*experimental feature:UserWarning"),
]
GROUP, TURNS, LIMIT = 4, 2, 3
TEMPERATURE = 0.8
TOLERANCE = 1e-5
"""Of a log-probability: sums of 32-bit numbers in another order, because batches are padded otherwise."""
VERIFY = replace(QUICK, measure_performance=False)
RIGHT, WRONG = (python_candidate(f"return mine(x, {scale})") for scale in ("self.scale", "3.0"))
REPLIES = [f"\n```python\n{code}```\n" for code in (RIGHT, WRONG, RIGHT.replace("float* b", "float b"), "x = 1\n")]


def posed(problem_id: int, scale: float = 2.0) -> Problem:
    """With a short prompt of its own."""
    prompt = ({"role": "user", "content": f"Scale and rectify, number {problem_id}."},)
    reference = REFERENCE.replace("return [2.0]", f"return [{scale}]")
    return Problem(1, problem_id, f"ScaledRelu{problem_id}", reference, origin="test", prompt=prompt)


PROBLEMS = [posed(1), posed(2, 5.0)]


def tokenizer() -> Any:
    from tokenizers import AddedToken
    from trl.chat_template_utils import get_training_chat_template

    made = tokenizer_of((Path(find_spec("trl").submodule_search_locations[0]) / "chat_templates" / "qwen3.jinja").read_text())
    made.add_tokens([AddedToken(reply, normalized=False) for reply in REPLIES])
    made.chat_template = get_training_chat_template(made)
    return made


def model(of: Any) -> Any:
    """A tiny Qwen3 that answers with one of the replies about every other time."""
    import torch

    made = learning.tiny_qwen3(of)
    with torch.no_grad():
        made.model.embed_tokens.weight[:, 0] = 2.0  # a feature that all tokens have, and that speaks for the replies
        made.lm_head.weight[:, 0] = 0.0
        made.lm_head.weight[-len(REPLIES) :, 0] = 1.4
    return made


def trainer_of(rollouts: Callable[..., Any], data: Sequence[Any], directory: Path, **options: Any) -> Any:
    """A GRPOTrainer that keeps what it trained on."""
    from datasets import Dataset
    from trl import GRPOTrainer

    class Watched(GRPOTrainer):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            before = copy.deepcopy(self.model.state_dict())
            output = super()._generate_and_score_completions(inputs)
            self.seen.append({**output, "weights": before, "rows": inputs})
            return output

    of = options.pop("processing_class", None) or tokenizer()
    usual = {"max_steps": 3, "num_generations": GROUP, "per_device_train_batch_size": GROUP * len(data), "learning_rate": 1e-3}
    usual |= {"max_completion_length": LIMIT, "temperature": TEMPERATURE}
    args = learning.arguments(directory, **(usual | options))
    rows = Dataset.from_list(list(data))
    trainer = Watched(model(of), verified_return, args, rows, processing_class=of, rollout_func=rollouts)
    trainer.seen = []
    return trainer


def engine_config(turns: int = TURNS, **more: Any) -> EngineConfig:
    return EngineConfig(EpisodeConfig(max_turns=turns, dataset_prompt=True, verify=VERIFY), **more)


# ------------------------------------------------------------------ it trains


@pytest.fixture(scope="module")
def trained(verifier: BlockingVerifier, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three steps over real verdicts: the trainer afterwards, and what it was given in each."""
    given: list[dict[str, Any]] = []
    rollouts = Rollouts(PROBLEMS, verifier, engine_config(concurrency=16, requests=16))

    def noted(prompts: Any, trainer: Any) -> dict[str, Any]:
        given.append(rollouts(prompts, trainer))
        return given[-1]

    trainer = trainer_of(noted, rollouts.rows, tmp_path_factory.mktemp("trained"))
    trainer.train()
    return SimpleNamespace(trainer=trainer, given=given)


def test_it_takes_optimiser_steps_over_real_verdicts(trained: Any) -> None:
    returns = [value for batch in trained.given for value in batch["kernel_return"]]
    correct = [value for batch in trained.given for value in batch["kernel_correct"]]
    assert trained.trainer.state.global_step == len(trained.given) == 3
    assert len(returns) == 3 * GROUP * len(PROBLEMS)
    assert any(correct) and not all(correct) and max(returns) == TURNS, "right in each turn"
    assert {0.1, 1.1} & set(returns), "some are built and wrong"
    first, last = trained.trainer.seen[0]["weights"], trained.trainer.model.state_dict()
    assert any(not first[name].equal(last[name]) for name in first), "and the model has learnt something"
    assert trained.trainer.model.generation_config.pad_token_id == trained.trainer.processing_class.pad_token_id, "still its own"
    logged = [entry for entry in trained.trainer.state.log_history if "reward" in entry]
    means = [sum(batch["kernel_return"]) / len(batch["kernel_return"]) for batch in trained.given]
    assert [entry["reward"] for entry in logged] == pytest.approx(means, abs=1e-4)
    assert all(entry["kernel/turns"] == TURNS and entry["kernel/unscored"] == 0 for entry in logged)


def test_the_loss_is_over_the_sampled_tokens_and_no_others(trained: Any) -> None:
    of = trained.trainer.processing_class
    for given, seen in zip(trained.given, trained.trainer.seen, strict=True):
        loss = (seen["completion_mask"] * seen["tool_mask"]).tolist()
        for at, mask in enumerate(given["env_mask"]):
            assert loss[at] == mask + [0] * (len(loss[at]) - len(mask))
            ids = given["completion_ids"][at]
            assert mask[0] == mask[-1] == 1 and len(mask) == len(ids)
            between = of.decode([token for token, sampled in zip(ids, mask, strict=True) if not sampled])
            end = "" if of.eos_token_id in ids[: mask.index(0)] else SPECIAL[2]
            assert between.startswith(f"{end}\n{SPECIAL[1]}user\n") and between.endswith(f"{SPECIAL[1]}assistant\n")
            assert between.count(SPECIAL[1]) == 2 * (TURNS - 1)
            assert TURNS <= sum(mask) <= TURNS * LIMIT


def test_the_log_probabilities_are_those_that_the_trainers_weights_give(trained: Any) -> None:
    """Computed again by the trainer's own function, and by a plain forward pass of one sequence at a time without any padding."""
    import torch

    trainer, of = trained.trainer, trained.trainer.processing_class
    for given, seen in zip(trained.given, trainer.seen, strict=True):
        trainer.model.load_state_dict(seen["weights"])
        plain = model(of)
        plain.load_state_dict(seen["weights"])
        ids = torch.cat([seen["prompt_ids"], seen["completion_ids"]], dim=1)
        attended = torch.cat([seen["prompt_mask"], seen["completion_mask"]], dim=1)
        with torch.no_grad():
            again, _, _ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, attended, seen["completion_ids"].size(1))
        kept = (seen["completion_mask"] * seen["tool_mask"]).bool()
        assert (again - seen["sampling_per_token_logps"])[kept].abs().max() < TOLERANCE
        for prompt, completion, mask, logprobs in zip(
            *(given[name] for name in ("prompt_ids", "completion_ids", "env_mask", "logprobs")), strict=True
        ):
            with torch.no_grad():
                logits = plain(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1] / TEMPERATURE
            right = logits.log_softmax(-1).gather(-1, torch.tensor(completion)[:, None])[:, 0].tolist()
            for ours, theirs, sampled in zip(logprobs, right, mask, strict=True):
                assert ours == pytest.approx(theirs, abs=TOLERANCE) if sampled else ours == 0.0


# ------------------------------------------------------------------ what was not scored


def made(tmp_path: Path, scripted: BlockingVerifier, turns: int = TURNS, **options: Any) -> tuple[Rollouts, Any]:
    rollouts = Rollouts(PROBLEMS, scripted, engine_config(turns))
    return rollouts, trainer_of(rollouts, rollouts.rows, tmp_path, **options)


@pytest.fixture
def scripted() -> Any:
    with BlockingVerifier(lambda: Fails(lambda asked: False)) as verifier:
        yield verifier


@pytest.mark.parametrize("turns", [1, TURNS])
def test_an_unscored_episode_is_in_no_baseline_and_none_of_its_tokens_is_trained_on(turns: int, tmp_path: Path) -> None:
    with BlockingVerifier(lambda: Fails(lambda asked: asked % 3 == 0)) as scripted:
        rollouts = Rollouts(PROBLEMS, scripted, engine_config(turns))
        trainer = trainer_of(rollouts, rollouts.rows, tmp_path, max_steps=1)
        trainer.train()
    (seen,) = trainer.seen
    returns = [row["kernel_return"] for row in seen["rows"]]
    assert None in returns and any(value is not None for value in returns)
    loss, advantages = (seen["completion_mask"] * seen["tool_mask"]).sum(1).tolist(), seen["advantages"].tolist()
    for at in range(0, len(returns), GROUP):
        expected = grpo(returns[at : at + GROUP])
        for found, right, trained_on in zip(advantages[at : at + GROUP], expected, loss[at : at + GROUP], strict=True):
            assert found == pytest.approx(right or 0.0, rel=1e-2)  # TRL adds 1e-4 to a standard deviation, which is above 0.05
            assert (trained_on > 0) == (right is not None)


def test_a_batch_without_a_single_reply_changes_no_weight(tmp_path: Path, scripted: BlockingVerifier) -> None:
    """No prompt fits into the model's context, so that nothing was scored, and nothing sampled."""
    _, trainer = made(tmp_path, scripted, max_steps=1)
    trainer.model.config.max_position_embeddings = 8
    trainer.train()
    (seen,) = trainer.seen
    assert [row["kernel_return"] for row in seen["rows"]] == [None] * (GROUP * len(PROBLEMS))
    assert not (seen["completion_mask"] * seen["tool_mask"]).any() and not seen["advantages"].any()
    assert all(value.equal(seen["weights"][name]) for name, value in trainer.model.state_dict().items())


# ------------------------------------------------------------------ what cannot be trained


def test_a_template_that_forgets_thoughts_is_refused_where_there_is_more_than_one_turn(
    tmp_path: Path, scripted: BlockingVerifier
) -> None:
    forgets = tokenizer()
    forgets.chat_template = TEMPLATE
    rollouts, trainer = made(tmp_path, scripted, processing_class=forgets)
    prompts = [row["prompt"] for row in rollouts.rows]
    with pytest.raises(ConfigError, match=r"TRL trains on one sequence an episode.*get_training_chat_template, or max_turns=1"):
        rollouts(prompts, trainer)
    rollouts, trainer = made(tmp_path, scripted, turns=1, processing_class=forgets)
    assert rollouts(prompts, trainer)["kernel_turns"] == [1, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 20, "min_p": 0.1}, "top_k, min_p of GRPOConfig: replies are drawn with temperature and top_p only"),
        ({"generation_kwargs": {"num_beams": 2}}, "generation_kwargs of GRPOConfig"),
    ],
)
def test_options_that_replies_would_not_be_drawn_with_are_refused(
    options: dict[str, Any], message: str, tmp_path: Path, scripted: BlockingVerifier
) -> None:
    rollouts, trainer = made(tmp_path, scripted, **options)
    with pytest.raises(ConfigError, match=message):
        rollouts([row["prompt"] for row in rollouts.rows], trainer)


def test_what_the_trainer_decides_is_said_to_the_trainer(scripted: BlockingVerifier) -> None:
    with pytest.raises(ConfigError, match="samples, sampling of the engine's configuration: the trainer decides that"):
        Rollouts(PROBLEMS, scripted, engine_config(samples=4, sampling=Sampling(temperature=1.0)))
    with pytest.raises(ConfigError, match="returns=per_turn tells the turns of an episode apart"):
        Rollouts(PROBLEMS, scripted, engine_config(), returns="per_turn")


def test_a_step_that_is_repeated_draws_the_same_replies_and_the_next_batch_others(
    tmp_path: Path, scripted: BlockingVerifier
) -> None:
    """As after a restart from a checkpoint: another process, the same step."""
    batches = []
    for _ in range(2):
        rollouts, trainer = made(tmp_path, scripted)
        prompts = [row["prompt"] for row in rollouts.rows for _ in range(GROUP)]
        batches.append([rollouts(prompts, trainer)["completion_ids"] for _ in range(2)])
    assert batches[0] == batches[1] and batches[0][0] != batches[0][1]
    assert len(set(map(tuple, batches[0][0]))) > 1, "members of a group differ"


def test_a_run_that_goes_on_from_a_checkpoint_ends_like_one_that_was_never_stopped(
    tmp_path: Path, scripted: BlockingVerifier
) -> None:
    """Without shuffling: TRL's order of the rows begins anew after a restart."""
    kept = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "shuffle_dataset": False}
    _, whole = made(tmp_path, scripted, **kept)
    whole.train()
    _, resumed = made(tmp_path, scripted, **kept)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(resumed.seen) == 2
    for ours, theirs in zip(resumed.seen, whole.seen[2:], strict=True):
        assert ours["completion_ids"].equal(theirs["completion_ids"]) and ours["advantages"].equal(theirs["advantages"])
    for name, value in resumed.model.state_dict().items():
        assert value.equal(whole.model.state_dict()[name]), name


# ------------------------------------------------------------------ it learns


@pytest.mark.slow
def test_a_policy_that_chooses_between_recorded_replies_learns_to_choose_better() -> None:
    means = learning.learn()
    first, last = (sum(part) / len(part) for part in (means[:4], means[-4:]))
    assert last >= 1.5 * first > 0, means
    picture = ElementTree.fromstring(learning.drawn(means))
    (line,) = picture.findall(".//{*}polyline")
    assert len(line.get("points", "").split()) == len(means)


# ------------------------------------------------------------------ the guide


def test_the_guides_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, but with a tiny model, replies of a few tokens, and one step."""
    guide = (Path(__file__).parents[1] / "docs" / "train.md").read_text()
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", guide, re.DOTALL) if "GRPOTrainer(" in code]
    tiny = tiny_model(tmp_path / "tiny", template=TEMPLATE.replace("loop.index0 > last.question and ", ""))
    instead = {
        r'"Qwen/[^"]*"': repr(str(tiny)),
        r"max_completion_length=\d+": "max_completion_length=4",
        r"max_steps=\d+": "max_steps=1, use_cpu=True, bf16=False, report_to='none', save_strategy='no'",
    }
    for pattern, text in instead.items():
        example, times = re.subn(pattern, text, example)
        assert times == 1, pattern
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(compile(example, "docs/train.md", "exec"), scope)  # noqa: S102 - it is our own guide
    assert scope["trainer"].state.global_step == 1

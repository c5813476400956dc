"""verl plays on the processor: its own worker and its own store of trajectories, our agent loop, and servers that follow a script.

The worker is that of verl's trainer v1, made from verl's own configuration. Run with `make test-adapters`.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import ConfigError, VerifierError
from kernel_env.verifier import Verifier
from rollout.adapters import worker as adapters_worker
from rollout.adapters.verl import KernelAgentLoop, rows
from rollout.adapters.worker import environment
from rollout.returns import grpo
from tests.players import Checker
from tests.tiny_model import SPECIAL, TEMPLATE, tiny_model

pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(find_spec("verl") is None, reason="needs the extra `verl`: run `make test-adapters`"),
    pytest.mark.filterwarnings("ignore"),  # of verl, Ray and their versions of other packages
]
KEEPS = TEMPLATE.replace("loop.index0 > last.question and ", "")
"""A chat template that changes nothing of the past."""
LIMIT, RESPONSE = 4000, 12000
OPTIONS = ("problems.levels=1", "problems.ids=1", "rollout.max_turns=2", f"sampling.max_tokens={LIMIT}", "run.seed=7")
UNTIMED = ("verify.measure_performance=false",)
RECORDED = Path(__file__).parents[1] / "rollout" / "recordings" / "bundled" / "cpp"
RIGHT = (RECORDED / "level1_problem1_turn2.txt").read_text()
NO_CODE = "I cannot do that."
SAMPLED = {"temperature": 0.8, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}

Part = tuple[str, str | None] | Exception
"""Text and verl's word for its end; None: the reply's own end. Or what the servers raise."""


class Servers:
    """In place of `LLMServerClient`. Each episode, known by its request id, has the next script."""

    def __init__(self, tokenizer: Any, scripts: Sequence[Sequence[Part]]) -> None:
        self._tokenizer, self._scripts = tokenizer, iter(scripts)
        self._playing: dict[str, Iterator[Part]] = {}
        self.asked: list[tuple[str, list[int], dict[str, Any]]] = []
        self.sampled: dict[str, list[int]] = {}

    async def generate(self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]) -> Any:
        from verl.workers.rollout.replica import TokenOutput

        if request_id not in self._playing:
            self._playing[request_id] = iter(next(self._scripts))
        self.asked.append((request_id, prompt_ids, sampling_params))
        part = next(self._playing[request_id])
        if isinstance(part, Exception):
            raise part
        text, end = part
        ids = self._tokenizer.encode(text, add_special_tokens=False) + ([] if end else [self._tokenizer.eos_token_id])
        self.sampled.setdefault(request_id, []).extend(ids)
        assert len(ids) <= LIMIT, "the script keeps to what an episode asks for"
        step = len(self.asked)
        return TokenOutput(
            token_ids=ids,
            log_probs=[-0.5] * len(ids) if sampling_params["logprobs"] else None,
            stop_reason=end or "completed",
            num_preempted=1,
            extra_fields={"global_steps": step, "min_global_steps": step, "max_global_steps": step},
        )


def said(*texts: str) -> list[Part]:
    return [(text, None) for text in texts]


# ------------------------------------------------------------------ verl's side


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """verl's store of trajectories, on a Ray of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        import ray
        import transfer_queue

        ray.init(num_cpus=8, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
        transfer_queue.init(configured(tmp_path_factory.mktemp("hub"), ()).transfer_queue)
        yield transfer_queue
        transfer_queue.close()
        ray.shutdown()


def configured(directory: Path, options: Sequence[str], template: str = KEEPS, group: int = 1) -> Any:
    """verl's configuration, with what a user adds for us."""
    from hydra import compose, initialize_config_module

    agent = [{"name": "kernel_env", "_target_": "rollout.adapters.verl.KernelAgentLoop", "options": list(options)}]
    (directory / "agent.yaml").write_text(json.dumps(agent))
    overrides = [
        f"actor_rollout_ref.model.path={tiny_model(directory / 'tiny', template=template)}",
        f"actor_rollout_ref.rollout.agent.agent_loop_config_path={directory / 'agent.yaml'}",
        f"actor_rollout_ref.rollout.n={group}",
        "actor_rollout_ref.rollout.name=vllm",
        f"data.max_response_length={RESPONSE}",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
    ]
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=overrides)
    assert config.trainer.use_v1, "the trainer that this is for"
    return config


class Group:
    """What verl has of the episodes of one prompt, once its worker has played them."""

    def __init__(self, keys: list[str], tags: dict[str, Any], data: Any, servers: Servers, tokenizer: Any) -> None:
        self.keys, self.tags, self.data, self.servers, self.tokenizer = keys, tags, data, servers, tokenizer

    def field(self, name: str) -> list[list[Any]]:
        return [row.tolist() for row in self.data[name].unbind()]

    @property
    def scores(self) -> list[float]:
        return [sum(row) for row in self.field("rm_scores")]


def played(hub: Any, config: Any, scripts: Sequence[Sequence[Part]], options: Sequence[str], **params: Any) -> Group:
    """By the worker that verl's trainer has, from a row as verl's data set gives it."""
    from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ

    (row,) = rows(*options)
    uid = f"u{next(_numbers)}"
    given = {"raw_prompt": row["prompt"], "extra_info": row["extra_info"], "agent_name": row["agent_name"], "index": 0}

    async def play() -> Group:
        made = AgentLoopWorkerTQ.__ray_metadata__.modified_class(config, None)
        made.llm_client = servers = Servers(made.tokenizer, scripts)
        trajectory = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False}
        await made._run_prompt({**given, "uid": uid, "global_steps": 1}, {**SAMPLED, **params}, trajectory=trajectory)
        await environment(tuple(options)).aclose()
        known = (await hub.async_kv_list("train"))["train"]
        assert known[uid] == {"status": "finished"}
        keys = sorted(key for key in known if key.startswith(f"{uid}_"))
        data = await hub.async_kv_batch_get(keys=keys, partition_id="train") if keys else None
        return Group(keys, {key: known[key] for key in keys}, data, servers, made.tokenizer)

    return asyncio.run(play())


_numbers = iter(range(10**6))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts without a build."""
    monkeypatch.setattr(adapters_worker, "make_verifier", lambda settings: Checker())


# ------------------------------------------------------------------ it plays


def test_verls_worker_plays_a_group_over_real_verdicts(hub: Any, tmp_path: Path) -> None:
    options = (*OPTIONS, *UNTIMED)
    scripts = [said(NO_CODE, RIGHT), said(RIGHT, RIGHT), said(NO_CODE, NO_CODE)]
    group = played(hub, configured(tmp_path, options, group=3), scripts, options)
    assert len(group.keys) == 3
    assert sorted(group.scores) == pytest.approx([0.0, 0.4, 1.4]), "a turn counts 0.4 of the one before"
    correct = [extra["reward_extra_info"]["correct"] for extra in group.data["extra_fields"]]
    assert sorted(correct) == [0.0, 1.0, 1.0]
    assert list(group.data["num_turns"]) == [4, 4, 4]
    end = f"\n{SPECIAL[1]}assistant\n"
    sampled = sorted(group.servers.sampled.values())
    trained = []
    for prompt, response, mask, logprobs, inputs in zip(
        *(group.field(name) for name in ("prompts", "responses", "response_mask", "rollout_log_probs", "input_ids")), strict=True
    ):
        assert group.tokenizer.decode(prompt).endswith(end) and inputs == prompt + response
        assert mask[0] == mask[-1] == 1 and len(mask) == len(response)
        assert logprobs == [-0.5 if one else 0.0 for one in mask]
        between = group.tokenizer.decode([token for token, one in zip(response, mask, strict=True) if not one])
        assert between.startswith(f"\n{SPECIAL[1]}user\n") and between.endswith(f"{SPECIAL[2]}{end}")
        trained.append([token for token, one in zip(response, mask, strict=True) if one])
    assert sorted(trained) == sampled, "all that was sampled, and nothing else"


def test_the_trainer_decides_how_replies_are_drawn_and_an_episode_stays_with_one_server(
    hub: Any, tmp_path: Path, scripted: None
) -> None:
    group = played(hub, configured(tmp_path, OPTIONS), [said(RIGHT, NO_CODE)], OPTIONS, top_k=20, logprobs=False)
    first, second = group.servers.asked
    assert first[0] == second[0]
    assert first[2] == second[2] == {**SAMPLED, "top_k": 20, "logprobs": False, "max_tokens": LIMIT}
    assert second[1][: len(first[1])] == first[1]
    assert "rollout_log_probs" not in group.data
    (tag,) = group.tags.values()
    assert (tag["min_global_steps"], tag["max_global_steps"]) == (1, 2), "the weights may be others in each turn"
    assert next(iter(group.data["metrics"]))["num_preempted"] == 2


def test_a_reply_that_is_broken_off_goes_on_after_its_tokens(hub: Any, tmp_path: Path, scripted: None) -> None:
    script: list[Part] = [(RIGHT[:300], "aborted"), (RIGHT[300:], None), (NO_CODE, None)]
    group = played(hub, configured(tmp_path, OPTIONS), [script], OPTIONS)
    begun, rest, _ = group.servers.asked
    ids = group.tokenizer.encode(RIGHT[:300], add_special_tokens=False)
    assert rest[1] == begun[1] + ids and rest[2]["max_tokens"] == LIMIT - len(ids)
    ((mask,), (response,)) = group.field("response_mask"), group.field("responses")
    assert [token for token, one in zip(response, mask, strict=True) if one] in group.servers.sampled.values()


def test_an_episode_is_no_longer_than_verls_response(hub: Any, tmp_path: Path, scripted: None) -> None:
    config = configured(tmp_path, OPTIONS)
    whole = played(hub, config, [said(NO_CODE, RIGHT)], OPTIONS)
    config.actor_rollout_ref.rollout.response_length = most = 1000
    cut = played(hub, config, [said(NO_CODE, RIGHT)], OPTIONS)
    assert {request[2]["max_tokens"] for request in cut.servers.asked} == {most}
    for name in ("responses", "response_mask", "rollout_log_probs"):
        ((all_of_it,), (beginning,)) = whole.field(name), cut.field(name)
        assert beginning == all_of_it[:most] != all_of_it
    assert cut.scores == whole.scores


def test_a_template_that_forgets_thoughts_makes_a_sequence_of_each_turn_with_the_reward_of_the_episode(
    hub: Any, tmp_path: Path, scripted: None
) -> None:
    options = (*OPTIONS, "rollout.returns=best")
    group = played(hub, configured(tmp_path, options, TEMPLATE), [said(RIGHT, NO_CODE)], options)
    assert [key.rsplit("_", 1)[1] for key in group.keys] == ["0", "1"]
    assert SPECIAL[2] * 2 not in group.tokenizer.decode(group.servers.asked[1][1]), "a sampled end of turn is no part of the text"
    best = max(next(iter(group.data["extra_fields"]))["turn_scores"])
    assert best > 0 and group.scores == [pytest.approx(best)] * 2
    assert all(all(mask) for mask in group.field("response_mask"))
    assert [token for row in group.field("responses") for token in row] == next(iter(group.servers.sampled.values()))


# ------------------------------------------------------------------ what was not scored


def advantages(group: Group) -> list[float]:
    """By verl's own function, of all trajectories that its trainer has."""
    import numpy as np
    import torch
    from verl import DataProto
    from verl.trainer.ppo.core_algos import AdvantageEstimator
    from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories

    padded = {name: torch.nested.to_padded_tensor(group.data[name], 0) for name in ("response_mask", "rm_scores")}
    tensors = {"response_mask": padded["response_mask"], "token_level_rewards": padded["rm_scores"]}
    data = DataProto.from_dict(tensors, non_tensors={"uid": np.array(["u"] * len(group.keys), dtype=object)})
    data = compute_advantage_for_multi_trajectories(data, group.keys, AdvantageEstimator.GRPO)
    return [float(row[0]) for row in data.batch["advantages"]]


class FailsOnce(Checker):
    async def verify(self, *args: Any, **more: Any) -> Any:
        if self.busy.most == 0:
            self.busy.most = 1
            raise VerifierError("nobody can tell")
        return await super().verify(*args, **more)


@pytest.mark.parametrize(
    ("made", "scripts"),
    [
        pytest.param(FailsOnce, [said(NO_CODE, RIGHT), said(NO_CODE, RIGHT), said(NO_CODE, NO_CODE)], id="no verdict"),
        pytest.param(
            Checker,
            [[(RIGHT, None), ValueError("the prompt is too long")], said(NO_CODE, RIGHT), said(NO_CODE, NO_CODE)],
            id="no reply",
        ),
    ],
)
def test_an_unscored_episode_is_not_in_the_batch_and_in_no_baseline(
    made: Callable[[], Verifier], scripts: list[list[Part]], hub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters_worker, "make_verifier", lambda settings: made())
    group = played(hub, configured(tmp_path, OPTIONS, group=3), scripts, OPTIONS)
    assert [key.partition("_")[2] for key in group.keys] == ["1_0", "2_0"], "the first of three is left out"
    assert group.scores[1] == 0.0 < group.scores[0]
    assert advantages(group) == pytest.approx(grpo(group.scores), abs=1e-4)


# ------------------------------------------------------------------ the user's side


def test_verls_data_set_reads_the_rows(tmp_path: Path) -> None:
    from transformers import AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    config = configured(tmp_path, OPTIONS)
    made = rows("problems.levels=1")
    (tmp_path / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in made))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tiny")
    read = RLHFDataset(str(tmp_path / "data.jsonl"), tokenizer, config.data)
    assert len(read) == len(made) > 1
    for at, row in enumerate(made):
        assert read[at]["raw_prompt"] == row["prompt"] and read[at]["extra_info"] == row["extra_info"]
        assert read[at]["agent_name"] == "kernel_env" and read[at]["index"] == at


class Wrapped:
    def __init__(self, config: Any) -> None:
        self.config = config


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("rollout.returns=per_turn", "returns=per_turn tells the turns of an episode apart"),
        ("sampling.temperature=0.2", "the trainer decides how replies are drawn"),
        ("rollout.max_turn=2", "unknown option"),
    ],
)
def test_what_verl_cannot_train_with_is_refused(option: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        KernelAgentLoop(Wrapped(configured(tmp_path, ())), None, None, (*OPTIONS, option))


def test_a_row_that_says_no_problem_is_refused(tmp_path: Path) -> None:
    loop = KernelAgentLoop(Wrapped(configured(tmp_path, ())), None, None, OPTIONS)
    with pytest.raises(ConfigError, match=r"no extra_info\.problem"):
        asyncio.run(loop.run(dict(SAMPLED), raw_prompt=[]))


def test_the_guides_configuration_is_one_that_verl_and_we_read(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    guide = (Path(__file__).parents[1] / "docs" / "train.md").read_text()
    (text,) = re.findall(r"```yaml\n(- name: kernel_env\n.*?)```", guide, re.DOTALL)
    (tmp_path / "agent.yaml").write_text(text)
    (agent,) = OmegaConf.load(tmp_path / "agent.yaml")
    assert agent.name == rows(*agent.options)[0]["agent_name"]
    KernelAgentLoop(Wrapped(configured(tmp_path, ())), None, None, agent.options)

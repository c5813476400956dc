"""slime's own contract tests with our functions, and its own rollout of groups over a server that speaks SGLang's protocol.

slime is no package: SLIME_ROOT names a checkout of github.com/THUDM/slime. Run with `make test-adapters`.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import ConfigError, VerifierError
from rollout.adapters import slime
from rollout.adapters import worker as adapters_worker
from rollout.adapters.worker import environment
from rollout.returns import dr_grpo, grpo
from tests import toy_tokens
from tests.chat_server import Reply, refuse
from tests.players import Checker
from tests.sglang_server import SGLangServer
from tests.slime_plugin import SETTINGS
from tests.test_verl import NO_CODE, OPTIONS, UNTIMED, FailsOnce
from tests.test_verl import RIGHT as THOUGHT_AND_RIGHT

ROOT = os.environ.get("SLIME_ROOT", "")
pytestmark = [
    pytest.mark.external,
    pytest.mark.skipif(not ROOT, reason="SLIME_ROOT names no checkout of slime"),
    pytest.mark.filterwarnings("ignore"),  # of slime and its versions of other packages
]
GROUP, LIMIT = 3, 2000
RIGHT = THOUGHT_AND_RIGHT.rpartition("</think>")[2].strip()
"""The toy tokenizer writes marks of thinking as tokens of their own."""
FORGETS = "rollout.layout=per-turn"
KEEPS = "rollout.layout=append"
CONTRACTS = {
    "generate": "CUSTOM_GENERATE_FUNCTION_PATH",
    "reward": "CUSTOM_RM_PATH",
    "advantages": "CUSTOM_REWARD_POST_PROCESS_PATH",
}


@pytest.fixture(scope="module")
def sglang_rollout() -> Iterator[Any]:
    """slime's module, with what its own tests put in place of Ray and the router."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        patch.syspath_prepend(str(Path(ROOT, "tests", "plugin_contracts")))
        import _shared

        _shared.install_stubs(with_sglang_router=True)
        from slime.rollout import sglang_rollout

        yield sglang_rollout


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of the package `transformers` that writes what `toy_tokens` does, which the server reads."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    spelling = Tokenizer(models.BPE(vocab={shown: byte for byte, shown in bytes_to_unicode().items()}, merges=[]))
    spelling.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelling.decoder = decoders.ByteLevel()
    spelling.add_special_tokens([AddedToken(mark, special=True) for mark in ("<start>", "<end>", "<think>", "</think>")])
    template = (
        "{% for m in messages %}<start>{{ m.role }}\n{{ m.content }}<end>{% endfor %}"
        "{% if add_generation_prompt %}<start>assistant\n{% endif %}"
    )
    directory = tmp_path_factory.mktemp("toy")
    made = PreTrainedTokenizerFast(tokenizer_object=spelling, eos_token="<end>", chat_template=template)
    made.save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps({"model_type": "qwen3"}))
    told = [{"role": "user", "content": "Hé"}]
    assert made.apply_chat_template(told, add_generation_prompt=True, return_dict=False) == toy_tokens.prompt(told)
    return directory


def said(*options: str) -> tuple[str, ...]:
    return (*OPTIONS, *options)


def args_of(server: SGLangServer, checkpoint: Path, options: Sequence[str] = OPTIONS, **more: Any) -> Namespace:
    """What slime has of its command line, as far as it looks at it here."""
    url = server.base_url.removesuffix("/v1").removeprefix("http://")
    given: dict[str, Any] = {
        "kernel_env": list(options), "hf_checkpoint": str(checkpoint), "apply_chat_template_kwargs": None,
        "sglang_router_ip": url.split(":")[0], "sglang_router_port": int(url.split(":")[1]),
        "sglang_server_concurrency": 16, "rollout_num_engines": 1, "sglang_dp_size": 1, "n_samples_per_prompt": GROUP,
        "rollout_temperature": 0.8, "rollout_top_p": 1.0, "rollout_top_k": -1, "rollout_max_response_len": LIMIT,
        "rollout_stop": None, "rollout_stop_token_ids": None, "rollout_skip_special_tokens": False, "rollout_seed": 7,
        "partial_rollout": False, "group_rm": False, "use_rollout_routing_replay": False, "reward_key": None,
        "custom_generate_function_path": "rollout.adapters.slime.generate", "custom_rm_path": None,
        "custom_reward_post_process_path": "rollout.adapters.slime.advantages",
        "advantage_estimator": "grpo", "rewards_normalization": True, "grpo_std_normalization": True,
    }  # fmt: skip
    return Namespace(**{**given, **more})


def played(sglang_rollout: Any, args: Namespace, *, evaluation: bool = False, stopped: bool = False) -> list[Any]:
    """A group of one prompt, by slime's own rollout."""
    from slime.utils.types import Sample

    sglang_rollout.GenerateState.clear_instances()
    (row,) = slime.rows(*args.kernel_env)
    group = [Sample(prompt=row["prompt"], metadata=dict(row["metadata"]), group_index=4, index=10 + at) for at in range(GROUP)]

    async def play() -> list[Any]:
        state = sglang_rollout.GenerateState(args)
        tasks = [
            asyncio.create_task(sglang_rollout.generate_and_rm(args, sample, state.sampling_params.copy(), evaluation=evaluation))
            for sample in group
        ]
        if stopped:
            await asyncio.sleep(0)
            state.aborted = True
        found = await asyncio.gather(*tasks)
        await environment(tuple(args.kernel_env)).aclose()
        return list(found)

    return asyncio.run(play())


def scripted(*scripts: Sequence[str | Reply]) -> Callable[[list[dict[str, str]]], str | Reply]:
    """Each episode has the next script, whichever of them asks first: what is said follows from the turn, and from who comes."""
    turns = [iter([script[turn] for script in scripts]) for turn in range(max(map(len, scripts)))]
    return lambda messages: next(turns[sum(message["role"] == "assistant" for message in messages)])


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts without a build."""
    monkeypatch.setattr(adapters_worker, "make_verifier", lambda settings: Checker())


# ------------------------------------------------------------------ slime's contract


def test_slimes_contract_tests_pass_with_our_functions(checkpoint: Path) -> None:
    """In a process of their own, from slime's directory, as they want it."""
    here = str(Path(__file__).parents[1])
    with SGLangServer([NO_CODE]) as server:
        told = vars(args_of(server, checkpoint))
        of_the_contract = (
            "partial_rollout", "group_rm", "n_samples_per_prompt", "custom_generate_function_path", "custom_rm_path",
            "rollout_seed", "reward_key",
        )  # fmt: skip
        names = {f"SLIME_CONTRACT_{path}": f"tests.slime_plugin.{name}" for name, path in CONTRACTS.items()}
        program = (
            f"import sys; sys.path.insert(0, {here!r}); import tests.slime_plugin, pytest; "
            "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', 'tests/plugin_contracts']))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT, text=True, capture_output=True,
            env={
                **os.environ, **names, "PYTHONDONTWRITEBYTECODE": "1",
                SETTINGS: json.dumps({name: value for name, value in told.items() if name not in of_the_contract}),
            },
        )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert server.requests, "an episode of ours was played"


# ------------------------------------------------------------------ slime's rollout


def test_slimes_rollout_plays_a_group_over_real_verdicts(sglang_rollout: Any, checkpoint: Path) -> None:
    from slime.utils.types import Sample

    with SGLangServer(scripted([NO_CODE, RIGHT], [RIGHT, RIGHT], [NO_CODE, RIGHT])) as server:
        group = played(sglang_rollout, args_of(server, checkpoint, said(*UNTIMED)))
    assert sorted(sample.reward for sample in group) == pytest.approx([0.4, 0.4, 1.4])
    for sample in group:
        assert sample.status is Sample.Status.COMPLETED and not sample.remove_sample
        sample._validate_response_metadata_lengths()
        response = sample.tokens[-sample.response_length :]
        assert sample.response.count("<start>assistant\n") == 1 and sample.loss_mask[0] == sample.loss_mask[-1] == 1
        parts = [[*toy_tokens.encode(text), toy_tokens.END] for text in (NO_CODE, RIGHT)]
        sampled = [token for token, one in zip(response, sample.loss_mask, strict=True) if one]
        assert sampled in [one + other for one in parts for other in parts]
        assert all((logprob == 0.0) != bool(one) for logprob, one in zip(sample.rollout_log_probs, sample.loss_mask, strict=True))
        assert sample.rollout_id == sample.index and sample.weight_versions == ["default"] * 2
        assert sample.metadata["round_number"] == 2
    asked = server.requests[0].body["sampling_params"]
    assert (asked["temperature"], asked["max_new_tokens"], asked["top_k"]) == (0.8, LIMIT, -1)


def test_a_sample_a_turn_counts_as_one_rollout_and_trains_on_the_same_tokens(
    sglang_rollout: Any, checkpoint: Path, checked: None
) -> None:
    from slime.observability.rollout_data_utils import validate_rollout_id_annotated

    trained = {}
    for layout in (FORGETS, KEEPS):
        with SGLangServer(scripted([RIGHT, NO_CODE], [RIGHT, NO_CODE], [RIGHT, NO_CODE])) as server:
            group = played(sglang_rollout, args_of(server, checkpoint, said(layout)))
        validate_rollout_id_annotated([group])
        flat = [sample for samples in group for sample in (samples if isinstance(samples, list) else [samples])]
        trained[layout] = [
            [
                token
                for sample in flat
                if sample.index == index
                for token, one in zip(sample.tokens[-sample.response_length :], sample.loss_mask, strict=True)
                if one
            ]
            for index in range(10, 10 + GROUP)
        ]
        assert len(flat) == (2 * GROUP if layout == FORGETS else GROUP)
    assert trained[FORGETS] == trained[KEEPS]


def test_a_reply_that_reached_its_limit_is_marked_as_truncated(sglang_rollout: Any, checkpoint: Path, checked: None) -> None:
    from slime.utils.types import Sample

    with SGLangServer([Reply(NO_CODE, "length")]) as server:
        group = played(sglang_rollout, args_of(server, checkpoint))
    assert {sample.status for sample in group} == {Sample.Status.TRUNCATED}
    assert not any(sample.remove_sample for sample in group), "it is scored like any other"


def test_an_evaluation_has_one_sample_an_episode_with_its_return(sglang_rollout: Any, checkpoint: Path, checked: None) -> None:
    with SGLangServer(scripted([RIGHT, NO_CODE], [RIGHT, NO_CODE], [RIGHT, NO_CODE])) as server:
        args = args_of(server, checkpoint, said(FORGETS, "rollout.returns=per_turn"))
        group = played(sglang_rollout, args, evaluation=True)
    rewards = group[0].metadata["kernel_rewards"]
    assert [sample.reward for sample in group] == pytest.approx([rewards[0] + 0.4 * rewards[1]] * GROUP)


def test_what_slime_ends_is_handed_back_as_aborted(sglang_rollout: Any, checkpoint: Path, checked: None) -> None:
    from slime.utils.types import Sample

    with SGLangServer([Reply(NO_CODE, "abort")]) as server:
        group = played(sglang_rollout, args_of(server, checkpoint), stopped=True)
    assert {sample.status for sample in group} == {Sample.Status.ABORTED}
    assert len(server.requests) <= GROUP, "nobody goes on with what was aborted"


# ------------------------------------------------------------------ rewards and returns


class Broken(Checker):
    async def verify(self, *args: Any, **more: Any) -> Any:
        raise VerifierError("nobody can tell")


@pytest.mark.parametrize("layout", [KEEPS, FORGETS])
def test_an_unscored_episode_is_in_no_baseline_and_none_of_its_tokens_is_trained_on(
    layout: str, sglang_rollout: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slime.utils.types import Sample

    monkeypatch.setattr(adapters_worker, "make_verifier", lambda settings: FailsOnce())
    with SGLangServer(scripted([NO_CODE, RIGHT], [NO_CODE, RIGHT], [NO_CODE, NO_CODE])) as server:
        args = args_of(server, checkpoint, said(layout))
        group = played(sglang_rollout, args)
    flat = [sample for samples in group for sample in (samples if isinstance(samples, list) else [samples])]
    unscored = [sample for sample in flat if math.isnan(sample.reward)]
    (lost,) = {sample.index for sample in unscored}
    for sample in unscored:
        assert sample.remove_sample and not any(sample.loss_mask) and sample.status is Sample.Status.FAILED
        assert len(sample.tokens) > sample.response_length == len(sample.loss_mask) == len(sample.rollout_log_probs) > 0
    raw, advantages = slime.advantages(args, flat)
    known = [sample.reward for sample in flat if sample.index != lost]
    assert 0.0 in known and any(known), "some are worth more than others"
    assert [value for value, sample in zip(raw, flat, strict=True) if sample.index != lost] == known
    assert math.fsum(raw) / len(raw) == pytest.approx(math.fsum(known) / len(known)), "what slime logs is the mean of the others"
    expected = iter(grpo(known))
    assert advantages == pytest.approx([0.0 if sample.index == lost else next(expected) for sample in flat])


def test_an_episode_without_a_reply_is_a_sample_that_slime_can_hold(sglang_rollout: Any, checkpoint: Path, checked: None) -> None:
    with SGLangServer([refuse(400, "the input is longer than the model's context")]) as server:
        args = args_of(server, checkpoint)
        group = played(sglang_rollout, args)
    for sample in group:
        assert sample.remove_sample and math.isnan(sample.reward) and sample.loss_mask == [0] and sample.rollout_log_probs == [0.0]
        assert toy_tokens.conversation(sample.tokens) == sample.prompt
    raw, advantages = slime.advantages(args, group)
    assert all(map(math.isnan, raw)) and advantages == [0.0] * GROUP


def sample_of(rewards: Sequence[float | None], turn: int = 0, *, index: int, group: int = 0) -> Any:
    from slime.utils.types import Sample

    return Sample(
        index=index,
        rollout_id=index,
        group_index=group,
        reward=0.0,
        metadata={"kernel_rewards": list(rewards), "kernel_turn": turn},
    )


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ("per_turn", dr_grpo([2.0, 2.0, 5.0, 4.0])),
        ("trajectory", dr_grpo([2.0, 2.0, 5.0, 5.0])),
        ("loo_per_turn_index", (-3.0, -2.0, 3.0, 2.0)),
    ],
)
def test_turns_are_compared_with_those_of_their_prompt(returns: str, expected: tuple[float, ...], sglang_rollout: Any) -> None:
    """Returns to go with gamma 1/2: 1 + 2/2 = 2 and 2, 3 + 4/2 = 5 and 4. Another prompt's are in no baseline of theirs."""
    args = Namespace(
        kernel_env=said(f"rollout.returns={returns}", "rollout.gamma=0.5", "rollout.samples=2"),
        advantage_estimator="grpo", rewards_normalization=True, grpo_std_normalization=False,
    )  # fmt: skip
    one, two = (1.0, 2.0), (3.0, 4.0)
    samples = [sample_of(one, 0, index=0), sample_of(one, 1, index=0), sample_of(two, 0, index=1), sample_of(two, 1, index=1)]
    samples.insert(1, sample_of((9.0,), index=2, group=1))
    found = slime.advantages(args, samples)[1]
    del found[1]
    assert found == pytest.approx(expected)


def test_estimators_with_a_baseline_of_their_own_get_the_returns(sglang_rollout: Any) -> None:
    args = Namespace(kernel_env=OPTIONS, advantage_estimator="ppo", rewards_normalization=True, grpo_std_normalization=True)
    raw, advantages = slime.advantages(args, [sample_of((1.0,), index=0), sample_of((None,), index=1), sample_of((3.0,), index=2)])
    assert raw == [1.0, 2.0, 3.0] and advantages == [1.0, 0.0, 3.0]


def test_a_reply_that_slime_generated_has_the_reward_of_its_verdict(
    sglang_rollout: Any, monkeypatch: pytest.MonkeyPatch, checked: None
) -> None:
    from slime.utils.types import Sample

    args = Namespace(kernel_env=OPTIONS)
    (row,) = slime.rows(*OPTIONS)
    replies = [Sample(response=text, metadata=row["metadata"], group_index=0, index=at) for at, text in enumerate((NO_CODE, RIGHT))]
    nothing, right = asyncio.run(slime.reward(args, replies))
    assert nothing == 0.0 < right and not any(sample.remove_sample for sample in replies)
    monkeypatch.setattr(adapters_worker, "make_verifier", lambda settings: Broken())
    assert math.isnan(asyncio.run(slime.reward(args, replies[1]))) and replies[1].remove_sample


# ------------------------------------------------------------------ the user's side


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"partial_rollout": True}, "--partial-rollout does not go with"),
        ({"group_rm": True}, "--group-rm does not go with"),
        ({"rollout_top_p": 0.9}, "--rollout-top-p other than 1 does not go with"),
        ({"custom_reward_post_process_path": None}, "add --custom-reward-post-process-path rollout.adapters.slime.advantages"),
    ],
)
def test_options_that_episodes_do_not_go_with_are_refused(
    option: dict[str, Any], message: str, sglang_rollout: Any, checkpoint: Path
) -> None:
    from slime.utils.types import Sample

    with SGLangServer() as server, pytest.raises(ConfigError, match=message):
        asyncio.run(slime.generate(args_of(server, checkpoint, **option), Sample(), {}))


def test_slimes_data_set_reads_the_rows(sglang_rollout: Any, tmp_path: Path, checkpoint: Path) -> None:
    from slime.utils.data import Dataset
    from transformers import AutoTokenizer

    made = slime.rows("problems.levels=1")
    (tmp_path / "data.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in made))
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    read = Dataset(str(tmp_path / "data.jsonl"), tokenizer, None, None, prompt_key="prompt", metadata_key="metadata")
    assert [(sample.prompt, sample.metadata) for sample in read.samples] == [(row["prompt"], row["metadata"]) for row in made]

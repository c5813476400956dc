"""The registry of policies, detection, and recordings. What all policies keep to is in test_policy_contract.py."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_env.errors import BadReply, ConfigError, EndpointUnreachable, PolicyExhausted
from rollout.policies import Endpoint, GenerationRequest, Policy, Sampling, make_policy, replay
from rollout.policies.openai import OpenAIPolicy
from rollout.policies.sglang import SGLangPolicy
from rollout.policies.vllm import VLLMPolicy
from tests.chat_server import ChatServer, Raw, refuse
from tests.vllm_server import VLLMServer

REPO = Path(__file__).parents[1]


def ask(episode: str = "level1_problem1", turn: int = 0) -> GenerationRequest:
    return GenerationRequest(({"role": "user", "content": "hi"},), Sampling(), episode, turn)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    files = {
        "level1_problem1_turn0.txt": b"first\r\n ",
        "level1_problem1_turn1.txt": b"second \xff\xc3\xa9",
        "level1_problem1_sample3_turn0.txt": b"third sample",
        "level2_problem1_turn0.txt": b"",
        "README.md": b"not a recording",
        "level1_problem1_turn2.txt.bak": b"nor this",
        "level1_problem9_turn0.json": b"neither",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


# ------------------------------------------------------------------ recordings


async def test_a_recording_is_played_back_exactly(recordings: Path) -> None:
    policy = make_policy(f"replay/{recordings}")
    await policy.preflight()
    replies = [await policy.generate(ask(turn=turn)) for turn in (0, 1)]
    assert [reply.text for reply in replies] == ["first\r\n ", "second \ufffdé"]
    assert {(reply.finish_reason, reply.model, reply.duration_s) for reply in replies} == {("stop", policy.name, 0.0)}
    assert (await policy.generate(ask(episode="level2_problem1"))).text == ""
    await policy.aclose()


async def test_a_sample_without_files_of_its_own_gets_those_of_sample_0(recordings: Path) -> None:
    policy = make_policy(f"replay/{recordings}")
    assert (await policy.generate(ask(episode="level1_problem1_sample3"))).text == "third sample"
    assert (await policy.generate(ask(episode="level1_problem1_sample4"))).text == "first\r\n "
    with pytest.raises(PolicyExhausted):  # sample 3 has files of its own: sample 0's second turn is not its
        await policy.generate(ask(episode="level1_problem1_sample3", turn=1))


async def test_a_recording_ends(recordings: Path) -> None:
    policy = make_policy(f"replay/{recordings}")
    with pytest.raises(PolicyExhausted, match="no turn 2 of level1_problem1"):
        await policy.generate(ask(turn=2))
    with pytest.raises(PolicyExhausted):
        await policy.generate(ask(episode="level1_problem9"))


def test_coverage_is_known_beforehand(recordings: Path) -> None:
    policy = make_policy(f"replay/{recordings}")
    covered = ["level1_problem1", "level1_problem1_sample7", "level2_problem1"]
    assert all(policy.covers(episode) for episode in covered)
    assert not any(policy.covers(episode) for episode in ("level1_problem9", "level1_problem11", "level3_problem1"))


async def test_a_recording_that_cannot_be_read_is_a_policy_error(recordings: Path) -> None:
    policy = make_policy(f"replay/{recordings}")
    (recordings / "level1_problem1_turn0.txt").unlink()
    with pytest.raises(BadReply, match="No such file"):
        await policy.generate(ask())


async def test_any_run_directory_is_a_recording(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    run = tmp_path_factory.mktemp("runs") / "real"
    run.mkdir()
    recordings.rename(run / "responses")
    assert (await make_policy(f"replay/{run}").generate(ask())).text == "first\r\n "


async def test_built_in_sets_are_found_by_name(recordings: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> None:
    root = tmp_path_factory.mktemp("package")
    (root / "bundled").mkdir()
    recordings.rename(root / "bundled" / "cpp")
    monkeypatch.setattr(replay, "BUILT_IN", root)
    assert replay.built_in_sets() == ["bundled/cpp"]
    assert (await make_policy("replay/bundled/cpp").generate(ask())).text == "first\r\n "
    with pytest.raises(ConfigError, match=r"did you mean bundled/cpp\?"):
        make_policy("replay/bundled/cp")


def test_a_place_without_recordings_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "missing", tmp_path / ("x" * 5000)):
        with pytest.raises(ConfigError, match="recordings"):
            make_policy(f"replay/{place}")


# ------------------------------------------------------------------ the registry


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("opena/m", r"did you mean openai/\.\.\.\?"),
        ("vlm/m", r"did you mean vllm/\.\.\.\?"),
        (
            "gpt",
            r"use one of openai/\.\.\., sglang/\.\.\., vllm/\.\.\., transformers/\.\.\., replay/\.\.\., human/\.\.\., auto/\.\.\.",
        ),
        ("", "use one of"),
        ("openai", "incomplete: write openai/MODEL"),
        ("replay/", "incomplete: write replay/PATH"),
        ("transformers", "incomplete: write transformers/MODEL"),
    ],
)
def test_a_spec_that_names_no_policy_is_refused(spec: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_policy(spec)


def test_a_model_name_keeps_its_slashes() -> None:
    policy = make_policy("openai/Qwen/Qwen3-8B", endpoint=Endpoint(base_url="http://h/v1"))
    assert policy.name == "openai/Qwen/Qwen3-8B"
    assert policy.covers("level4_problem99")


@pytest.mark.parametrize(
    "build",
    [
        lambda: Sampling(temperature=-1),
        lambda: Sampling(max_tokens=0),
        lambda: Sampling(top_p=0),
        lambda: Endpoint(attempts=0),
        lambda: Endpoint(request_s=float("nan")),
        lambda: Endpoint(requests_per_minute=0),
        lambda: Endpoint(tokens_per_minute=-1),
        lambda: Endpoint(price_per_million_prompt=float("nan")),
    ],
)
def test_options_outside_of_their_range_are_refused(build: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        build()


@pytest.mark.parametrize(
    ("listed", "kind"),
    [
        ([{"id": "m", "owned_by": "sglang"}], SGLangPolicy),
        ([{"id": "m", "owned_by": "vllm"}], VLLMPolicy),
        ([{"id": "m", "owned_by": "openai"}], OpenAIPolicy),
        ([{"id": "m", "owned_by": 7}, {"id": "n", "owned_by": "vllm"}], VLLMPolicy),
        ([{"id": "m"}], OpenAIPolicy),
        ([], OpenAIPolicy),
        (None, OpenAIPolicy),  # no list at all
    ],
)
async def test_the_owner_of_its_models_says_what_serves_them(listed: list[object] | None, kind: type[Policy]) -> None:
    listing = refuse(404) if listed is None else Raw(json.dumps({"data": listed}).encode())
    with ChatServer(listing=listing) as server:
        policy = make_policy("auto/m", endpoint=Endpoint(base_url=server.base_url))
        async with asyncio.timeout(60):
            found = await policy._policy()
            assert type(found) is kind
            assert await policy._policy() is found
            await policy.aclose()
    assert server.listings == 1


async def test_while_nobody_answers_nothing_is_decided() -> None:
    with ChatServer(listing=refuse(503)) as server:
        policy = make_policy("auto/m", endpoint=Endpoint(base_url=server.base_url, wait_s=0.01))
        async with asyncio.timeout(60):
            for _ in range(2):
                with pytest.raises(EndpointUnreachable):
                    await policy.generate(ask())
            await policy.aclose()
    assert server.listings == 4
    assert policy.spent.failures == {"endpoint_unreachable": 4}


async def test_a_scheme_that_is_named_comes_before_detection() -> None:
    with VLLMServer() as server:
        policy = make_policy("openai/test-model", endpoint=Endpoint(base_url=server.base_url))
        async with asyncio.timeout(60):
            await policy.preflight()
            assert (await policy.generate(ask())).output_ids is None
            await policy.aclose()


def test_importing_the_package_and_replaying_load_no_model_library(recordings: Path) -> None:
    code = "import sys; from rollout.policies import make_policy; make_policy(sys.argv[1]); sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, f"replay/{recordings}"], cwd=REPO, check=False).returncode == 0

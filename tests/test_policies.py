"""The policy seam: the registry, recordings, and what every policy must keep to."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_env.errors import BadReply, ConfigError, PolicyExhausted
from kernel_env.schema import Generation, from_json, to_json
from rollout.policies import Endpoint, GenerationRequest, Policy, Sampling, make_policy, replay
from tests.chat_server import ChatServer

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


# ------------------------------------------------------------------ what every policy keeps to


@pytest.mark.parametrize("scheme", ["replay", "openai"])
async def test_every_policy_keeps_the_contract(scheme: str, recordings: Path) -> None:
    with ChatServer(["first\r\n "]) as server:
        spec = {"replay": f"replay/{recordings}", "openai": "openai/test-model"}[scheme]
        policy: Policy = make_policy(spec, endpoint=Endpoint(base_url=server.base_url))
        async with asyncio.timeout(60):
            await policy.preflight()
            assert policy.covers("level1_problem1")
            generation = await policy.generate(ask())
            assert from_json(Generation, to_json(generation)) == generation
            assert generation.text == "first\r\n "
            assert policy.name == spec
            await policy.aclose()
            await policy.aclose()


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
        ("gpt", r"use one of openai/\.\.\., replay/\.\.\."),
        ("", "use one of"),
        ("openai", "incomplete"),
        ("replay/", "incomplete"),
        ("transformers", "incomplete"),
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
    ],
)
def test_options_outside_of_their_range_are_refused(build: Callable[[], object]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        build()


def test_importing_the_package_and_replaying_load_no_model_library(recordings: Path) -> None:
    code = "import sys; from rollout.policies import make_policy; make_policy(sys.argv[1]); sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, f"replay/{recordings}"], cwd=REPO, check=False).returncode == 0

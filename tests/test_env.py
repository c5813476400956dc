"""The environment as a Gymnasium user meets it."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
from collections.abc import Iterator

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

import kernel_env  # noqa: F401  (registers the environment)
from kernel_env.env import KernelBenchEnv
from kernel_env.errors import ConfigError
from kernel_env.schema import Problem, Status, StopReason
from kernel_env.spaces import TextSpace
from kernel_env.verifier import BlockingVerifier, LocalVerifier, VerifierConfig
from tests.conftest import GOOD, QUICK, python_candidate


def reply(code: str) -> str:
    return f"Here is the kernel.\n\n```python\n{code}\n```\n"


WRONG = python_candidate("return extension.scaled_relu(x, 1.5)")


@pytest.fixture(scope="module")
def recorded() -> Iterator[BlockingVerifier]:
    """Real processes and verdicts, recorded times, open to other processes."""
    with BlockingVerifier(lambda: LocalVerifier(VerifierConfig(clock="recorded")), share=True) as verifier:
        yield verifier


@pytest.fixture
def env(recorded: BlockingVerifier, problem: Problem) -> Iterator[KernelBenchEnv]:
    made = KernelBenchEnv([problem], verify=QUICK, verifier=recorded, render_mode="ansi")
    yield made
    made.close()


def test_the_package_is_light() -> None:
    code = "import kernel_env, sys; print([m for m in ('torch', 'openai', 'hydra', 'triton', 'rich') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_make_gives_the_environment() -> None:
    made = gym.make("KernelBench-v0", problems="bundled")
    assert isinstance(made.unwrapped, KernelBenchEnv)
    prompt, info = made.reset(seed=3, options={"problem": "level1_problem1"})
    assert info["problem"].key == "level1_problem1"
    assert "class ModelNew" in prompt and info["messages"][0]["role"] == "system"
    made.close()


def test_it_passes_gymnasiums_own_checker(recorded: BlockingVerifier, problem: Problem) -> None:
    check_env(KernelBenchEnv([problem], verify=QUICK, verifier=recorded), skip_render_check=True)


def test_an_episode_goes_from_wrong_to_right(env: KernelBenchEnv) -> None:
    first, _ = env.reset(seed=0)
    feedback, reward, terminated, truncated, info = env.step(reply(WRONG))
    assert info["verdict"].status is Status.WRONG_OUTPUT
    assert (reward, terminated, truncated) == (0.1, False, False)
    assert "1. Fixes correctness issues" in feedback and "expected" in feedback
    assert [m["role"] for m in info["messages"]] == ["system", "user", "assistant", "user"]
    assert info["messages"][1]["content"] == first and info["messages"][3]["content"] == feedback
    _, reward, *_, info = env.step(reply(GOOD))
    assert info["verdict"].correct and reward >= 1.0


def test_solved_is_terminated_and_the_turn_limit_is_truncated(recorded: BlockingVerifier, problem: Problem) -> None:
    short = KernelBenchEnv([problem], verify=QUICK, verifier=recorded, max_turns=1)
    short.reset(seed=0)
    *_, terminated, truncated, info = short.step("no code here")
    assert (terminated, truncated, info["stop_reason"]) == (False, True, StopReason.TURN_LIMIT)
    with pytest.raises(ConfigError, match="the episode is over"):
        short.step("again")


def test_a_solved_episode_terminates(problem: Problem) -> None:
    class Fast:
        """A verifier that finds everything correct and three times as fast."""

        async def verify(self, problem, candidate, config, seed, order=None):  # type: ignore[no-untyped-def]
            from kernel_env.referee.clock import Round, timing
            from kernel_env.schema import Stage, Verdict

            times = timing([Round(1, (1.0,), (3.0,))], 0)
            digests = {"problem_digest": problem.digest, "candidate_digest": candidate.digest}
            return Verdict(
                Status.CORRECT, Stage.DONE, problem.key, backend="cpp", timing=times, trials=1, trials_passed=1, **digests
            )

        async def aclose(self) -> None: ...

    with BlockingVerifier(Fast) as verifier:
        env = KernelBenchEnv([problem], verifier=verifier)
        env.reset(seed=0)
        observation, reward, terminated, truncated, info = env.step(reply(GOOD))
    assert (reward, terminated, truncated) == (3.0, True, False)
    assert info["stop_reason"] is StopReason.SOLVED and observation == ""


def test_the_seed_decides_problem_and_verdict(recorded: BlockingVerifier) -> None:
    def play(seed: int) -> tuple[str, int]:
        env = KernelBenchEnv("bundled", verify=QUICK, verifier=recorded)
        _, info = env.reset(seed=seed)
        *_, step = env.step("nothing")
        return info["problem"].key, step["verdict"].seed

    assert play(1) == play(1)
    assert len({play(seed) for seed in range(6)}) > 1


def test_an_unscored_turn_is_nan_never_zero(recorded: BlockingVerifier) -> None:
    from rollout.doctor import CANARIES, PROBLEM

    env = KernelBenchEnv([PROBLEM], backend="triton", verify=QUICK, verifier=recorded)
    env.reset(seed=0)
    code = CANARIES["triton"].replace("torch.empty_like(x)", "torch.empty_like(x).cuda()") % "1.0"
    _, reward, terminated, truncated, info = env.step(reply(code))
    assert math.isnan(reward) and info["reward"].value is None
    assert (terminated, truncated, info["stop_reason"]) == (False, True, StopReason.UNSCORED)


def test_render_tells_the_story(env: KernelBenchEnv) -> None:
    env.reset(seed=0)
    env.step(reply(WRONG))
    text = env.render()
    assert text is not None and "turn 0: wrong_output" in text and "waiting for a reply" in text


@pytest.mark.parametrize("action", ["", "```python\nclass ModelNew: pass", "\x00\udcff" * 100, "a" * 10_000_000, "```" * 100_000])
def test_junk_replies_are_data(env: KernelBenchEnv, action: str) -> None:
    env.reset(seed=0)
    _, reward, *_, info = env.step(action)
    assert reward == 0.0 and info["verdict"].status in (Status.NO_CODE, Status.TRUNCATED)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda env: env.step("x"), "reset"),
        (lambda env: (env.reset(seed=0), env.step(3)), "str"),
        (lambda env: env.reset(options={"problem": "level9_problem1"}), "level9_problem1"),
        (lambda env: env.reset(options={"task": 1}), "unknown reset option task"),
    ],
)
def test_misuse_says_what_to_do(env: KernelBenchEnv, call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=words):
        call(env)


def test_closing_twice_is_fine(problem: Problem) -> None:
    env = KernelBenchEnv([problem], clock="recorded")
    env.reset(seed=0)
    env.close()
    env.close()
    with pytest.raises(ConfigError, match="reset"):  # not a verifier that nobody would close
        env.step(reply(GOOD))


def make_shared(address: str, problem: Problem) -> KernelBenchEnv:
    return KernelBenchEnv([problem], verify=QUICK, verifier=address)


def test_vector_environments_share_one_verifier(recorded: BlockingVerifier, problem: Problem) -> None:
    assert recorded.address is not None
    factories = [lambda: make_shared(recorded.address or "", problem)] * 3
    actions = [reply(GOOD), reply(WRONG), "nothing"]
    statuses = {}
    for vector in (SyncVectorEnv(factories), AsyncVectorEnv(factories, shared_memory=False)):
        with contextlib.closing(vector):
            vector.reset(seed=5)
            _, _, _, _, infos = vector.step(actions)
            statuses[type(vector).__name__] = [v.status for v in infos["verdict"]]
    assert statuses["SyncVectorEnv"] == [Status.CORRECT, Status.WRONG_OUTPUT, Status.NO_CODE]
    assert statuses["AsyncVectorEnv"] == statuses["SyncVectorEnv"]


def test_text_space() -> None:
    space = TextSpace(seed=1)
    assert space.sample() in space and "line\nbreak é" in space and 3 not in space
    assert space == TextSpace() and space != TextSpace(max_length=3)
    assert TextSpace(seed=4).sample() == TextSpace(seed=4).sample()

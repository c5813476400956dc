"""Whole episodes against a real HTTP server: what it is sent byte for byte, what is kept, and what its failures do."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import (
    AuthenticationFailed,
    ConfigError,
    EmptyReplies,
    EndpointUnreachable,
    GateError,
    InfraError,
    ModelNotFound,
    NoneCorrect,
    PolicyError,
    ThoughtOnly,
    VerifierError,
)
from kernel_env.parsing import extract_kernel
from kernel_env.referee.config import VerifyConfig
from kernel_env.schema import Candidate, Problem, Stage, Status, StopReason, Verdict
from kernel_env.verifier import LocalVerifier, Verifier, VerifierConfig
from rollout import compose, store
from rollout.engine import MOST_ABORTS
from rollout.fingerprint import Change
from rollout.runner import RunResult, run
from rollout.store import RunReader
from tests.chat_server import Behaviour, ChatServer, Raw, Reply, Script, Slow, refuse
from tests.conftest import python_candidate, sampled

REFERENCE = """
import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return torch.relu(x) * self.scale


def get_inputs():
    return [torch.arange(-2.0, 6.0).reshape(2, 4)]


def get_init_inputs():
    return [2.0]
"""
SYSTEM = {"role": "system", "content": "You write kernels."}


def question(problem_id: int) -> dict[str, str]:
    return {"role": "user", "content": f"Problem {problem_id}: make it fast."}


OPENING = [SYSTEM, question(1)]


def fenced(code: str) -> str:
    return f"```python\n{code}```\n"


def correct(speedup: float) -> str:
    """A correct kernel that the recorded clock finds so fast: 3 ms of the reference over its own time."""
    return fenced(python_candidate("return extension.scaled_relu(x, self.scale)", top=f"# {speedup} times as fast"))


SPEEDUPS = (0.75, 1.0, 1.5, 1.99, 2.0, 2.5, 9.0)
KERNEL = python_candidate("return extension.scaled_relu(x, self.scale)")
NO_CODE = "I would fuse the two operations."
REJECTED = fenced("class ModelNew:\n    pass\n")
BUILD_ERROR = fenced(KERNEL.replace("<torch/extension.h>", "<torch/extension.h>\n#error no such instruction"))
LOAD_ERROR = fenced(f"one = = 1\n{KERNEL}")
RUNTIME_ERROR = fenced(python_candidate("raise ValueError('no idea')"))
WRONG = fenced(python_candidate("return extension.scaled_relu(x, 1.5)"))
UNTERMINATED = f"```python\n{KERNEL[:400]}"


# ------------------------------------------------------------------ playing


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def clock_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clock") / "times.json"
    times = {Candidate(extract_kernel(correct(s)).code or "", "cpp").digest: [3.0 / s, 3.0] for s in SPEEDUPS}
    path.write_text(json.dumps(times))
    return path


@pytest.fixture(scope="module")
def verifier(loop: asyncio.Runner, clock_file: Path) -> Iterator[LocalVerifier]:
    """One for all runs of this file: a zygote takes seconds to start."""
    shared = LocalVerifier(VerifierConfig(clock="recorded", clock_path=str(clock_file)))
    yield shared
    loop.run(shared.aclose())


@pytest.fixture(scope="module")
def problems_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three problems with prompts of two plain messages."""
    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    records = [
        {
            "prompt": [SYSTEM, question(number)],
            "label": REFERENCE,
            "extra_info": {"level": 1, "problem_id": str(number), "problem_name": f"ScaledRelu{number}"},
        }
        for number in (1, 2, 3)
    ]
    path.write_text("\n".join(map(json.dumps, records)))
    return path


@pytest.fixture(scope="module")
def options(problems_file: Path, clock_file: Path) -> Callable[[str, Path], list[str]]:
    """Options of a run against the endpoint at `base_url` under `root`, one problem, hardly any patience."""

    def listed(base_url: str, root: Path) -> list[str]:
        return [
            "problems=jsonl", f"problems.path={problems_file}", "problems.ids=1", "backend.dataset_prompt=true",
            "policy=openai", "policy.model=test-model", f"policy.base_url={base_url}", "policy.attempts=2", "policy.wait_s=0.01",
            "run.name=r", f"run.root={root}", "run.seed=1", "verifier.clock=recorded", f"verifier.clock_path={clock_file}",
            "verify.num_correct_trials=1", "verify.tolerance=kernelbench", "run.canaries=false",
        ]  # fmt: skip

    return listed


@dataclass(frozen=True)
class Played:
    result: RunResult
    requests: list[list[dict[str, str]]]
    """The messages of each request that arrived."""
    changed: tuple[Change, ...]

    @property
    def entry(self) -> dict[str, Any]:
        """The first problem in results.json, read from the disk."""
        loaded: dict[str, Any] = json.loads((self.result.path / "results.json").read_text())["problems"]["level1_problem1"]
        return loaded


Play = Callable[..., Played]


@pytest.fixture
def play(
    loop: asyncio.Runner, verifier: LocalVerifier, options: Callable[[str, Path], list[str]], tmp_path: Path
) -> Callable[..., Played]:
    """`play(server or script, *overrides)` is one whole run."""

    def played(endpoint: ChatServer | Script, *overrides: str, judge: Verifier = verifier) -> Played:
        if not isinstance(endpoint, ChatServer):
            with ChatServer(endpoint) as server:
                return played(server, *overrides, judge=judge)
        chosen, text = compose.composed([*options(endpoint.base_url, tmp_path / "runs"), *overrides])
        before = len(endpoint.requests)
        changed: list[Change] = []
        result = loop.run(run(chosen, text, verifier=judge, on_plan=lambda plan, path, found: changed.extend(found)))
        return Played(result, [request.messages for request in endpoint.requests[before:]], tuple(changed))

    return played


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def asked(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


# ------------------------------------------------------------------ the message after each kind of turn

AFTER_NO_CODE = """\
Based on the previous attempt above, generate an improved kernel that:
1. Fixes the compilation errors
2. Improves performance if possible
3. Maintains the same functionality as required

Error from previous attempt: The reply has no fenced code block. \
Answer with one complete fenced Python block that defines class ModelNew.

Please generate the improved kernel code:"""
AFTER_REJECTED = """\
Based on the previous attempt above, generate an improved kernel that:
1. Fixes the compilation errors
2. Improves performance if possible
3. Maintains the same functionality as required

Error from previous attempt: The source compiles no C++: it never calls torch.utils.cpp_extension.load_inline.

Please generate the improved kernel code:"""
AFTER_BUILD_ERROR = """\
Based on the previous attempt above, generate an improved kernel that:
1. Fixes the compilation errors
2. Improves performance if possible
3. Maintains the same functionality as required

Error from previous attempt: relu.cpp:3:2: error: #error no such instruction
    3 | #error no such instruction
      |  ^~~~~

Please generate the improved kernel code:"""
AFTER_LOAD_ERROR = """\
Based on the previous attempt above, generate an improved kernel that:
1. Fixes the compilation errors
2. Improves performance if possible
3. Maintains the same functionality as required

Error from previous attempt: File "candidate.py", line 1
    one = = 1
          ^
SyntaxError: invalid syntax

Please generate the improved kernel code:"""
AFTER_RUNTIME_ERROR = """\
Based on the previous attempt above, generate an improved kernel that:
1. Fixes correctness issues
2. Improves performance if possible
3. Maintains the same functionality as required

Error from previous attempt: ValueError: no idea
  candidate.py, line 26: raise ValueError('no idea')

Please generate the improved kernel code:"""
AFTER_WRONG = """\
Based on the previous attempt above, generate an improved kernel that:
1. Fixes correctness issues
2. Improves performance if possible
3. Maintains the same functionality as required

Error from previous attempt: output has wrong values: 5 of 8 elements (62.5%) differ by more than 0.0001 + 0.0001 * |expected|.
First at [0, 3]: expected 2, got 1.5.
Worst at [1, 3]: expected 10, got 7.5 (absolute error 2.5).
Shape [2, 4], dtype float32.
(trial 1 of 1)

Please generate the improved kernel code:"""
AFTER_CORRECT = """\
Based on the previous attempt above, generate an improved kernel that:
1. Maintains correctness
2. Improves performance if possible
3. Maintains the same functionality as required

Error from previous attempt: none, the kernel is correct. Speedup 1.50x: 2.0000 ms against 3.0000 ms of the reference (eager).

Please generate the improved kernel code:"""

CANNED_NO_CODE = """\
Based on the previous attempt above, generate an improved kernel that:
1. Fixes the compilation errors
2. Improves performance if possible
3. Maintains the same functionality as required

Error from previous attempt: no custom model source found

Please generate the improved kernel code:"""
CANNED_REJECTED = """\
Based on the previous attempt above, generate an improved kernel that:
1. Fixes the compilation errors
2. Improves performance if possible
3. Maintains the same functionality as required

Error from previous attempt: Submission failed validation: must contain @triton.jit kernel with Triton operations

Please generate the improved kernel code:"""
CANNED_NOT_COMPILED = """\
Based on the previous attempt above, generate an improved kernel that:
1. Fixes the compilation errors
2. Improves performance if possible
3. Maintains the same functionality as required

Error from previous attempt: Current implementation con't pass compile check

Please generate the improved kernel code:"""
CANNED_NOT_CORRECT = """\
Based on the previous attempt above, generate an improved kernel that:
1. Fixes the correctness issues
2. Improves performance if possible
3. Maintains the same functionality as required

Error from previous attempt: Current implementation passes compile check but fails correctness check

Please generate the improved kernel code:"""
CANNED_CORRECT = """\
Based on the previous attempt above, generate an improved kernel that:
1. Maintains correctness
2. Improves performance if possible
3. Maintains the same functionality as required

Error from previous attempt: Current implementation passes correctness check \
(Speedup: 1.50x, Runtime: 2.000ms vs Baseline: 3.000ms)

Please generate the improved kernel code:"""

EVERY_KIND = (NO_CODE, UNTERMINATED, REJECTED, BUILD_ERROR, LOAD_ERROR, RUNTIME_ERROR, WRONG, correct(1.5), NO_CODE)


def conversation(replies: Sequence[str], messages: Sequence[str]) -> list[list[dict[str, str]]]:
    """What each request must hold when messages accumulate."""
    history, requests = list(OPENING), []
    for reply, message in zip(replies, [*messages, ""], strict=True):
        requests.append(list(history))
        history += [said(reply), asked(message)]
    return requests


AFTER_UNTERMINATED = AFTER_NO_CODE.replace(
    "The reply has no fenced code block.",
    "The reply ends inside a code block that was never closed (was it cut off at the token limit?).",
)


def test_preset_seed_says_what_happened_in_each_branch(play: Play) -> None:
    played = play(EVERY_KIND, "rollout.max_turns=9")
    assert played.requests == conversation(
        EVERY_KIND,
        [
            AFTER_NO_CODE, AFTER_UNTERMINATED, AFTER_REJECTED, AFTER_BUILD_ERROR, AFTER_LOAD_ERROR, AFTER_RUNTIME_ERROR,
            AFTER_WRONG, AFTER_CORRECT,
        ],
    )  # fmt: skip
    assert played.entry["turn_rewards"] == [0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 1.5, 0.0]
    assert played.entry["statuses"] == [
        "no_code", "truncated", "rejected", "build_error", "load_error", "runtime_error", "wrong_output", "correct", "no_code",
    ]  # fmt: skip


def test_preset_tritonforge_says_its_canned_sentence_in_each_branch(play: Play) -> None:
    played = play(EVERY_KIND, "rollout.max_turns=9", "reward=tritonforge")
    assert played.requests == conversation(
        EVERY_KIND,
        [
            CANNED_NO_CODE, CANNED_NO_CODE, CANNED_REJECTED, CANNED_NOT_COMPILED, CANNED_NOT_COMPILED, CANNED_NOT_CORRECT,
            CANNED_NOT_CORRECT, CANNED_CORRECT,
        ],
    )  # fmt: skip
    assert played.entry["turn_rewards"] == [0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.1, 0.8, 0.0]


class Silent:
    """A verifier that finds every candidate too slow and has nothing to say about it."""

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: object = None
    ) -> Verdict:
        return Verdict(Status.TIMEOUT, Stage.TRIALS, problem.key, problem.digest, candidate.digest, candidate.backend)

    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class Looking:
    """Finds everything correct, and notes whether a file is there meanwhile."""

    path: Path
    seen: list[bool]

    async def verify(
        self, problem: Problem, candidate: Candidate, config: VerifyConfig, seed: int, order: object = None
    ) -> Verdict:
        self.seen.append(self.path.exists())
        names = problem.key, problem.digest, candidate.digest, candidate.backend
        return Verdict(Status.CORRECT, Stage.DONE, *names, trials=1, trials_passed=1, timing_note="not measured")

    async def aclose(self) -> None: ...


def test_without_an_error_text_there_is_no_error_line(play: Play) -> None:
    played = play([WRONG], "rollout.max_turns=2", judge=Silent())
    assert played.requests[1][-1]["content"] == (
        "Based on the previous attempt above, generate an improved kernel that:\n"
        "1. Fixes correctness issues\n"
        "2. Improves performance if possible\n"
        "3. Maintains the same functionality as required\n"
        "\n"
        "Please generate the improved kernel code:"
    )


# ------------------------------------------------------------------ history


def test_replies_stay_raw_in_the_history_and_on_the_disk(play: Play) -> None:
    odd = (
        "<think>\nno `class ModelNew` yet… \t\r\n```python\nclass ModelNew: pass\n```\n</think>\n"
        "Größe ≤ 2⁷, 漢字, \U0001f600, \u2028, \u202e, \x00, \x1b[31m, trailing blanks   \n\n" + NO_CODE + "\n\n" + "x" * 100_000
    )
    played = play([odd, "  \n", correct(1.0)])
    assert played.requests[1][2] == said(odd)
    assert played.requests[2][2:5:2] == [said(odd), said("  \n")]
    folder = played.result.path / "responses"
    assert (folder / "level1_problem1_turn0.txt").read_bytes() == odd.encode()
    assert (folder / "level1_problem1_turn1.txt").read_bytes() == b"  \n"
    assert (folder / "level1_problem1_turn2.txt").read_text() == correct(1.0)
    turn = json.loads((played.result.path / "turns/level1_problem1_turn0.json").read_text())
    assert turn["messages"] == [*OPENING, said(odd)]
    assert turn["history_entry"]["has_thinking"] is True
    assert played.entry["statuses"] == ["no_code", "no_code", "correct"], "code inside of thinking is no code"
    assert played.entry["messages"] == [*played.requests[2], said(correct(1.0))]


def test_reasoning_in_a_field_of_its_own_is_kept_but_never_sent_back(play: Play) -> None:
    played = play([Reply(NO_CODE, extra={"reasoning_content": "fuse, then vectorise"})], "rollout.max_turns=2")
    assert played.requests[1] == [*OPENING, said(NO_CODE), asked(AFTER_NO_CODE)]
    (first, _) = played.result.episodes[0].turns
    assert first.generation.reasoning == "fuse, then vectorise" and first.generation.has_thinking


THOUGHT = "<think>First a plan:\n```python\nclass ModelNew: ...\n```\n</think>\n\nA try."


def test_history_strip_thinking_forgets_what_earlier_replies_thought(play: Play) -> None:
    played = play([THOUGHT, THOUGHT, correct(1.5)], "rollout.history=strip-thinking")
    told = [said("A try."), asked(AFTER_NO_CODE)]
    assert played.requests == [OPENING, [*OPENING, *told], [*OPENING, *told, *told]]
    assert played.entry["messages"] == [*OPENING, *told, *told, said(correct(1.5))]
    assert (played.result.path / "responses/level1_problem1_turn1.txt").read_text() == THOUGHT, "what was said is kept"


def test_history_last_turn_only_shows_the_last_reply_and_its_feedback(play: Play) -> None:
    played = play([THOUGHT, NO_CODE, correct(1.5)], "rollout.history=last-turn-only")
    assert played.requests == [
        OPENING,
        [*OPENING, said(THOUGHT), asked(AFTER_NO_CODE)],
        [*OPENING, said(NO_CODE), asked(AFTER_NO_CODE)],
    ]


def test_history_restated_retells_every_attempt_in_one_message(play: Play) -> None:
    kernels = [extract_kernel(reply).code for reply in (WRONG, correct(1.5))]
    played = play([NO_CODE, WRONG, correct(1.5), NO_CODE], "rollout.history=restated", "rollout.max_turns=4")
    assert played.requests[0] == OPENING
    assert played.requests[1] == [
        SYSTEM,
        asked(
            "## Previous Attempt 1\n"
            "Generated Kernel:\n"
            "```python\n"
            "\n"
            "```\n"
            "\n"
            "Evaluation Results:\n"
            "- Compilation: ✗ Failed\n"
            "- Correctness: ✗ Failed\n"
            "- Error: The reply has no fenced code block. "
            "Answer with one complete fenced Python block that defines class ModelNew.\n"
            "\n"
            "## Attempt 2\n"
            "Based on the previous attempts above, generate an improved kernel that:\n"
            "1. Fixes any compilation or correctness errors\n"
            "2. Improves performance if possible\n"
            "3. Maintains the same functionality as required\n"
            "\n"
            "Generate the improved kernel code:\n"
            "\n"
            "Problem 1: make it fast."
        ),
    ]
    assert played.requests[3] == [
        SYSTEM,
        asked(
            "## Previous Attempt 1\n"
            "Generated Kernel:\n"
            "```python\n"
            "\n"
            "```\n"
            "\n"
            "Evaluation Results:\n"
            "- Compilation: ✗ Failed\n"
            "- Correctness: ✗ Failed\n"
            "- Error: The reply has no fenced code block. "
            "Answer with one complete fenced Python block that defines class ModelNew.\n"
            "\n"
            "## Previous Attempt 2\n"
            "Generated Kernel:\n"
            "```python\n"
            f"{kernels[0]}\n"
            "```\n"
            "\n"
            "Evaluation Results:\n"
            "- Compilation: ✓ Passed\n"
            "- Correctness: ✗ Failed\n"
            "- Error: output has wrong values: 5 of 8 elements (62.5%) differ by more than 0.0001 + 0.0001 * |expected|.\n"
            "First at [0, 3]: expected 2, got 1.5.\n"
            "Worst at [1, 3]: expected 10, got 7.5 (absolute error 2.5).\n"
            "Shape [2, 4], dtype float32.\n"
            "(trial 1 of 1)\n"
            "\n"
            "## Previous Attempt 3\n"
            "Generated Kernel:\n"
            "```python\n"
            f"{kernels[1]}\n"
            "```\n"
            "\n"
            "Evaluation Results:\n"
            "- Compilation: ✓ Passed\n"
            "- Correctness: ✓ Passed\n"
            "- Runtime: 2.000ms\n"
            "- Speedup: 1.50x\n"
            "- Error: none, the kernel is correct. Speedup 1.50x: 2.0000 ms against 3.0000 ms of the reference (eager).\n"
            "\n"
            "## Attempt 4\n"
            "Based on the previous attempts above, generate an improved kernel that:\n"
            "1. Fixes any compilation or correctness errors\n"
            "2. Improves performance if possible\n"
            "3. Maintains the same functionality as required\n"
            "\n"
            "Generate the improved kernel code:\n"
            "\n"
            "Problem 1: make it fast."
        ),
    ]


# ------------------------------------------------------------------ how an episode ends


@pytest.mark.parametrize(
    ("options_given", "speedup", "rewards", "stop"),
    [
        ([], 2.0, [2.0], "solved"),
        pytest.param([], 2.5, [2.5], "solved", marks=pytest.mark.thorough),
        pytest.param([], 9.0, [3.0], "solved", marks=pytest.mark.thorough),  # the bonus is limited
        ([], 1.99, [1.99, 1.99], "turn_limit"),
        pytest.param([], 0.75, [1.0, 1.0], "turn_limit", marks=pytest.mark.thorough),  # slower costs nothing
        (["reward=tritonforge"], 2.0, [1.3], "solved"),
        pytest.param(["reward=tritonforge"], 9.0, [2.3], "solved", marks=pytest.mark.thorough),
        pytest.param(["reward=tritonforge"], 1.99, [1.29, 1.29], "turn_limit", marks=pytest.mark.thorough),
        pytest.param(["reward.stop_at=3"], 2.5, [2.5, 2.5], "turn_limit", marks=pytest.mark.thorough),
        pytest.param(["reward.stop_at=3"], 9.0, [3.0], "solved", marks=pytest.mark.thorough),
    ],
)
def test_a_reward_at_the_stop_value_ends_the_episode(
    play: Play, options_given: list[str], speedup: float, rewards: list[float], stop: str
) -> None:
    played = play([correct(speedup)], "rollout.max_turns=2", *options_given)
    assert played.entry["turn_rewards"] == pytest.approx(rewards)
    assert (played.entry["stop_reason"], len(played.requests)) == (stop, len(rewards))
    assert played.result.results.summary.early_terminations == (stop == "solved")


def test_the_return_discounts_three_turns(play: Play) -> None:
    played = play([WRONG, correct(1.0), correct(1.5)])
    assert played.entry["turn_rewards"] == [0.1, 1.0, 1.5]
    assert played.entry["aggregated_return"] == pytest.approx(0.1 + 0.4 * 1.0 + 0.16 * 1.5)
    assert played.entry["per_turn_returns"] == pytest.approx([0.74, 1.6, 1.5])
    assert (played.entry["num_turns"], played.entry["stop_reason"], played.entry["best_turn"]) == (3, "turn_limit", 2)
    assert (played.entry["final_compiled"], played.entry["final_correct"], played.entry["baseline_runtime"]) == (True, True, 3.0)
    assert [h["speedup"] for h in played.entry["history"]] == [None, 1.0, 1.5]
    played.result.check()


def test_gamma_and_the_turn_limit_are_options(play: Play) -> None:
    played = play([WRONG, correct(1.0)], "rollout.max_turns=2", "rollout.gamma=0.9")
    assert played.entry["aggregated_return"] == pytest.approx(0.1 + 0.9 * 1.0)
    assert len(played.requests) == 2


def test_each_problem_and_sample_has_a_conversation_of_its_own(play: Play) -> None:
    def answer(messages: list[dict[str, str]]) -> Behaviour:
        return correct(2.0) if "Problem 2" in messages[1]["content"] else NO_CODE

    played = play(answer, "problems.ids=[1,2]", "rollout.samples=2", "rollout.max_turns=2")
    assert {e.key: [t.verdict.status.value for t in e.turns] for e in played.result.episodes} == {
        "level1_problem1": ["no_code", "no_code"],
        "level1_problem1_sample1": ["no_code", "no_code"],
        "level1_problem2": ["correct"],
        "level1_problem2_sample1": ["correct"],
    }
    assert sorted(len(messages) for messages in played.requests) == [2, 2, 2, 2, 4, 4]
    assert (played.result.path / "responses/level1_problem1_sample1_turn1.txt").read_text() == NO_CODE


# ------------------------------------------------------------------ odd replies


def test_a_reply_cut_at_the_token_limit_inside_its_code_is_truncated(play: Play) -> None:
    played = play([Reply(UNTERMINATED, finish_reason="length"), correct(2.0)])
    first = played.result.episodes[0].turns[0]
    assert (first.verdict.status, first.generation.finish_reason) == (Status.TRUNCATED, "length")
    assert played.requests[1] == [*OPENING, said(UNTERMINATED), asked(AFTER_UNTERMINATED)]
    assert not (played.result.path / "generated_kernels/level1_problem1_turn0.py").exists()
    assert played.entry["turn_rewards"] == [0.0, 2.0]


@pytest.mark.parametrize("empty", [Reply(""), Reply(None)])
def test_an_empty_reply_is_a_turn_without_code(play: Play, empty: Reply) -> None:
    played = play([empty, correct(2.0)])
    assert played.requests[1][2:] == [
        said(""),
        asked(
            "Based on the previous attempt above, generate an improved kernel that:\n"
            "1. Fixes the compilation errors\n"
            "2. Improves performance if possible\n"
            "3. Maintains the same functionality as required\n"
            "\n"
            "Error from previous attempt: The reply is empty. "
            "Answer with one complete fenced Python block that defines class ModelNew.\n"
            "\n"
            "Please generate the improved kernel code:"
        ),
    ]
    assert played.entry["statuses"] == ["no_code", "correct"]


def test_a_reply_of_10_mb_is_judged_kept_and_sent_back_whole(play: Play) -> None:
    huge = "y" * (10 << 20) + "\n" + correct(1.0)
    played = play([huge, correct(2.0)])
    assert played.entry["statuses"] == ["correct", "correct"]
    assert played.requests[1][2] == said(huge)
    assert (played.result.path / "responses/level1_problem1_turn0.txt").read_text() == huge


def test_10_mb_of_code_are_refused_and_the_episode_goes_on(play: Play) -> None:
    played = play([fenced("#" * (10 << 20) + "\n" + KERNEL), correct(2.0)])
    assert played.entry["statuses"][1] == "correct"
    assert played.entry["turn_rewards"] == [0.0, 2.0]


# ------------------------------------------------------------------ no reply


def broken_after(first: str, failure: Behaviour) -> Script:
    """Problem 2 gets one reply and then only `failure`; the others are solved at once."""

    def answer(messages: list[dict[str, str]]) -> Behaviour:
        if "Problem 2" not in messages[1]["content"]:
            return correct(2.0)
        return first if len(messages) == 2 else failure

    return answer


FAILURES: dict[str, tuple[Behaviour, str]] = {
    "500 for ever": (refuse(500, "out of luck"), "endpoint_unreachable"),
    "429 for ever": (refuse(429, "slow down"), "rate_limited"),
    "a key that was revoked": (refuse(401, "revoked"), "authentication_failed"),
    "a model that was unloaded": (refuse(404, "unloaded"), "model_not_found"),
    "a conversation beyond the context": (refuse(400, "too long"), "policy"),
    "a page instead of an answer": (Raw(b"<html>hello</html>", content_type="text/html"), "bad_reply"),
    "an answer without a choice": (Raw(b'{"choices": []}'), "bad_reply"),
}


@pytest.mark.parametrize("name", sampled(FAILURES, {"500 for ever", "a key that was revoked", "an answer without a choice"}))
def test_an_episode_without_a_reply_keeps_its_turns_and_gets_no_score(play: Play, name: str) -> None:
    failure, kind = FAILURES[name]
    played = play(broken_after(WRONG, failure), "problems.ids=[1,2,3]")
    solved, failed, other = played.result.episodes
    assert (solved.stop_reason, other.stop_reason) == (StopReason.SOLVED, StopReason.SOLVED), "other episodes go on"
    assert failed.stop_reason is StopReason.POLICY_FAILURE
    assert failed.error.startswith(f"{kind}: http://127.0.0.1:")
    assert [t.verdict.status for t in failed.turns] == [Status.WRONG_OUTPUT]
    entry = json.loads((played.result.path / "results.json").read_text())["problems"]["level1_problem2"]
    assert (entry["turn_rewards"], entry["aggregated_return"]) == ([0.1], None)
    assert played.result.results.summary.policy_failures == 1
    with pytest.raises(PolicyError, match="1 of 3 episodes got no reply") as caught:
        played.result.check()
    assert caught.value.exit_code == 5


def test_the_same_run_goes_on_where_the_endpoint_failed(play: Play) -> None:
    broken = play(broken_after(WRONG, refuse(503)), "problems.ids=[1,2]")
    turns = {path.name: path.read_bytes() for path in (broken.result.path / "turns").iterdir()}
    again = play([correct(2.0)], "problems.ids=[1,2]")
    assert again.requests == [[SYSTEM, question(2), said(WRONG), asked(AFTER_WRONG)]], "nothing is asked twice"
    assert again.result.path == broken.result.path
    assert turns.items() <= {path.name: path.read_bytes() for path in (broken.result.path / "turns").iterdir()}.items()
    assert [e.stop_reason for e in again.result.episodes] == [StopReason.SOLVED, StopReason.SOLVED]
    again.result.check()


def test_a_run_in_which_nothing_was_scored_is_no_success(play: Play) -> None:
    played = play([refuse(500, "out of luck")])
    assert played.result.episodes[0].turns == ()
    with pytest.raises(EndpointUnreachable, match=r"none of 1 episodes was scored: endpoint_unreachable: .*out of luck"):
        played.result.check()


@pytest.mark.parametrize(
    ("server", "given", "error", "code"),
    [
        ({"api_key": "right"}, ["policy.api_key=wrong-secret"], AuthenticationFailed, 7),
        ({}, ["policy.model=test-mode"], ModelNotFound, 8),
        ({"listing": refuse(500)}, [], EndpointUnreachable, 6),
        ({}, ["policy.base_url=http://127.0.0.1:9/v1"], EndpointUnreachable, 6),
    ],
)
def test_an_endpoint_that_cannot_work_is_refused_before_anything_is_made(
    play: Play, tmp_path: Path, server: dict[str, Any], given: list[str], error: type[PolicyError], code: int
) -> None:
    with ChatServer(**server) as endpoint, pytest.raises(error) as caught:
        play(endpoint, *given)
    assert caught.value.exit_code == code
    assert "wrong-secret" not in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("reply", "error", "reason"),
    [
        (Reply(""), EmptyReplies, "all 3 replies were empty"),
        (Reply("<think>Hm, ", "length"), ThoughtOnly, "all 3 replies ended at the token limit while still thinking"),
        (Reply(None, "length", {"reasoning_content": "Hm, "}), ThoughtOnly, "raise sampling.max_tokens"),
        (Reply(WRONG), NoneCorrect, "none of 1 episodes was ever correct"),
    ],
)
def test_zero_percent_is_suspect_and_says_why(play: Play, reply: Reply, error: type[GateError], reason: str) -> None:
    played = play([reply])
    with pytest.raises(error, match=reason):
        played.result.check()
    status = json.loads((played.result.path / "status.json").read_text())
    assert (status["health"], status["exit_code"], status["scored"], status["asked"]) == ("suspect", error.exit_code, 1, 1)
    assert reason in status["reason"]


def test_a_reply_that_only_thought_is_told_so(play: Play) -> None:
    played = play([Reply("<think>Hm, ", "length"), correct(2.5)])
    verdict = played.result.episodes[0].turns[0].verdict
    assert (verdict.status, verdict.category) == (Status.TRUNCATED, "thinking")
    assert "still thinking" in played.requests[1][-1]["content"]


def test_a_machine_that_cannot_tell_right_from_wrong_asks_for_no_reply(play: Play, tmp_path: Path) -> None:
    with ChatServer([WRONG]) as server:
        with pytest.raises(VerifierError, match=r"a known-good kernel came out timeout; `kernel-env doctor` says more"):
            play(server, "run.canaries=true", judge=Silent())
        assert not server.requests
        assert play(server, "run.canaries=true", "rollout.max_turns=1").requests


def test_status_json_is_there_only_when_the_run_has_ended(play: Play) -> None:
    with ChatServer([BUILD_ERROR, refuse(400), correct(2.5)]) as server:
        failed = play(server)
        path = failed.result.path / "status.json"
        assert json.loads(path.read_text())["health"] == "failed"
        seen: list[bool] = []
        play(server, judge=Looking(path, seen))
    assert seen and not any(seen)
    assert json.loads(path.read_text())["health"] == "ok"


def test_the_policy_is_asked_before_each_turn_whether_to_think(play: Play) -> None:
    def script(messages: list[dict[str, str]]) -> Behaviour:
        if not messages[-1]["content"].endswith("Answer with only 'YES' or 'NO'."):
            return correct(2.5) if len(messages) > 2 else WRONG
        return "YES" if len(messages) > 2 else "NO"

    with ChatServer(script) as server:
        played = play(server, "thinking.arm=self")
    sent = [request.body["chat_template_kwargs"]["enable_thinking"] for request in server.requests]
    assert sent == [False, False, False, True]
    thinking = [turn.thinking for turn in played.result.episodes[0].turns]
    assert [(t.on, t.answer, t.understood) for t in thinking if t] == [(False, "NO", True), (True, "YES", True)]
    report = played.result.report.read_text()
    assert "| on | 1 | 2.500 |" in report and "The policy was asked before 2 turns" in report
    assert all("Does this question require" not in message["content"] for message in played.entry["messages"])


def test_a_finished_run_needs_its_endpoint_no_more(play: Play) -> None:
    first = play([correct(2.0)])
    results = (first.result.path / "results.json").read_bytes()
    again = play([correct(1.0)], "policy.base_url=http://127.0.0.1:9/v1")
    assert again.requests == []
    assert (again.result.path / "results.json").read_bytes() == results


# ------------------------------------------------------------------ replies that are broken off, and stragglers


def test_a_reply_that_the_endpoint_broke_off_is_asked_for_anew_and_never_scored(play: Play) -> None:
    played = play([Reply(WRONG, finish_reason="abort"), correct(2.0)])
    assert played.requests == [OPENING, OPENING]
    assert played.entry["turn_rewards"] == [2.0]
    assert (played.result.path / "responses/level1_problem1_turn0.txt").read_text() == correct(2.0)


def test_an_endpoint_that_breaks_every_reply_off_fails_the_episode(play: Play) -> None:
    played = play([Reply(WRONG, finish_reason="abort")])
    assert len(played.requests) == MOST_ABORTS + 1
    episode = played.result.episodes[0]
    assert (episode.stop_reason, episode.turns) == (StopReason.POLICY_FAILURE, ())
    assert "turn 0 of level1_problem1 was aborted" in episode.error


def test_an_episode_can_be_tried_again_in_the_same_run(play: Play) -> None:
    failures = [refuse(503)] * 2  # what policy.attempts allows
    played = play([WRONG, *failures, correct(2.0)], "rollout.stragglers=retry", "rollout.retries=1")
    assert played.entry["turn_rewards"] == [0.1, 2.0]
    played.result.check()


def test_a_straggler_is_cancelled_and_stays_so(play: Play) -> None:
    first = itertools.count()

    def answer(messages: list[dict[str, str]]) -> Behaviour:
        return Slow(correct(2.0)) if next(first) == 1 else correct(2.0)

    options = ("rollout.samples=3", "rollout.stragglers=minimum_group", "rollout.minimum_group=2")
    played = play(answer, *options)
    assert sorted(e.stop_reason for e in played.result.episodes) == ["cancelled", "solved", "solved"]
    assert (played.result.results.summary.completed, played.result.results.summary.cancelled) == (2, 1)
    played.result.check()
    again = play([NO_CODE], *options)
    assert again.requests == [] and again.result.episodes == played.result.episodes


def test_a_spare_problem_is_cancelled_once_the_others_are_complete(play: Play) -> None:
    def answer(messages: list[dict[str, str]]) -> Behaviour:
        return Slow(correct(2.0)) if messages[1]["content"] == question(2)["content"] else correct(2.0)

    played = play(answer, "problems.ids=[1,2,3]", "rollout.oversample=1")
    assert [e.stop_reason.value for e in played.result.episodes] == ["solved", "cancelled", "solved"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["rollout.oversample=1"], "rollout.oversample=1 must be less than the number of problems, which is 1"),
        (["rollout.stragglers=hurry"], "rollout.stragglers=hurry: choose wait, retry or minimum_group"),
        (["rollout.stragglers=minimum_group"], "rollout.minimum_group must be between 1 and rollout.samples=1, got 0"),
        (["rollout.returns=loo_per_turn_index"], "compares the samples of a problem: set rollout.samples to 2 or more"),
        (["rollout.returns=none"], "rollout.returns=none: choose one of trajectory, per_turn, best, loo_per_turn_index"),
        (["rollout.requests=-1"], "rollout.requests must be 0 or more, got -1"),
    ],
)
def test_groups_that_cannot_be_are_refused(play: Play, given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        play([correct(2.0)], *given)


# ------------------------------------------------------------------ the run directory when it is resumed


def test_resuming_elsewhere_says_what_has_changed(play: Play) -> None:
    first = play(broken_after(WRONG, refuse(503)), "problems.ids=2")
    assert first.changed == ()
    path = first.result.path / "environment.json"
    environment = json.loads(path.read_text())
    path.write_text(json.dumps({**environment, "cpu": "abacus", "packages": {**environment["packages"], "torch": "0.1"}}))
    again = play([correct(2.0)], "problems.ids=2")
    assert [(change.name, change.then) for change in again.changed] == [("packages.torch", "0.1"), ("cpu", "abacus")]
    assert str(again.changed[1]) == f"cpu: abacus -> {environment['cpu']}"


def test_an_unusable_run_directory_is_one_plain_error(play: Play) -> None:
    played = play(broken_after(WRONG, refuse(503)), "problems.ids=[1,2]")
    path = played.result.path / "problems/level1_problem2.json"
    path.write_text(path.read_text().replace("ScaledRelu2", "Another"))
    with pytest.raises(ConfigError, match="level1_problem2 has changed since this run was begun"):
        play([correct(2.0)], "problems.ids=[1,2]")


def test_a_turn_that_cannot_be_written_is_one_plain_error(play: Play, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file = store.write_file

    def full(path: Path, data: bytes, *, durable: bool = True) -> None:
        if path.parent.name == "responses":
            raise InfraError("cannot write: no space left")
        write_file(path, data, durable=durable)

    monkeypatch.setattr(store, "write_file", full)
    with pytest.raises(InfraError, match="no space left"):
        play([correct(2.0)], "problems.ids=[1,2]")
    monkeypatch.undo()
    assert RunReader(tmp_path / "runs/r").load_turns() == {}
    assert [e.stop_reason for e in play([correct(2.0)], "problems.ids=[1,2]").result.episodes] == [StopReason.SOLVED] * 2


# ------------------------------------------------------------------ the real command


def test_the_command_plays_an_episode(options: Callable[[str, Path], list[str]], tmp_path: Path) -> None:
    environment = {**os.environ, "OPENAI_API_KEY": "a-secret-key"}
    replies = [BUILD_ERROR, WRONG, correct(1.5)]
    with ChatServer(replies, api_key="a-secret-key") as server:
        command = [sys.executable, "-m", "kernel_env", "eval", *options(server.base_url, tmp_path / "runs")]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert [r.messages for r in server.requests] == conversation(replies, [AFTER_BUILD_ERROR, AFTER_WRONG])
    assert {r.headers["authorization"] for r in server.requests} == {"Bearer a-secret-key"}
    lines = done.stdout.splitlines()
    assert lines[:2] == ["episodes 1, problems 1, back end cpp, policy openai/test-model", "run directory runs/r"]
    assert lines[2].startswith("level1_problem1    turn 0  build_error   reward 0.00")
    assert lines[4] == "level1_problem1    turn 2  correct       reward 1.50  1.50x (2.000 ms, baseline 3.000 ms)"
    assert lines[-3] == "4 requests, 33 tokens of prompts, 21 of replies"
    assert lines[-2:] == ["to look at: runs/r/reports/report.html", "report: runs/r/reports/MULTI_TURN_REPORT.md"]
    results = json.loads((tmp_path / "runs/r/results.json").read_text())
    assert results["problems"]["level1_problem1"]["turn_rewards"] == [0.0, 0.1, 1.5]
    kept = b"".join(path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file())
    assert b"a-secret-key" not in kept


def test_an_interrupted_command_says_so_in_one_line_and_keeps_its_turns(
    options: Callable[[str, Path], list[str]], tmp_path: Path
) -> None:
    asked_twice = threading.Event()

    def answer(messages: list[dict[str, str]]) -> Behaviour:
        if len(messages) == 2:
            return NO_CODE
        asked_twice.set()
        return Slow(NO_CODE)

    with ChatServer(answer) as server:
        command = [sys.executable, "-m", "kernel_env", "eval", *options(server.base_url, tmp_path / "runs")]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # a suite in the background inherits "ignore" for this signal, a person's terminal does not
        listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with subprocess.Popen(command, process_group=0, preexec_fn=listening, **pipes) as process:
            assert asked_twice.wait(60), "the second turn was never asked for"
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the command
            _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "kernel-env: interrupted; finished turns are kept, and the same command resumes\n"
    assert [t.verdict.status for t in RunReader(tmp_path / "runs/r").load_turns()["level1_problem1"]] == [Status.NO_CODE]

"""Every byte that a policy is shown after a turn, and what the first messages hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_env.builder.toolchain import DEFAULT_FLAGS
from kernel_env.checks.static import check_cpp, check_triton
from kernel_env.errors import ConfigError
from kernel_env.parsing import extract_kernel
from kernel_env.prompts import FeedbackConfig, bounded, error_text, improvement_message, initial_messages, restated_messages
from kernel_env.schema import Problem, Stage, Stats, Status, Timing, Verdict

JSONL = Path(__file__).parents[2] / "shared/data/kernel_bench_triton_level_1_2.jsonl"
PLAIN = FeedbackConfig()


def stats(median_ms: float) -> Stats:
    return Stats(median_ms, median_ms * 2, 0.0, median_ms, median_ms * 3, 100)


TIMING = Timing(stats(0.25), stats(0.375), 1.5, 1.4, 1.6)


def verdict(status: Status, stage: Stage, message: str = "", *, timing: Timing | None = None, timing_note: str = "") -> Verdict:
    trials = 5 if status is Status.CORRECT else 0
    return Verdict(
        status, stage, "level1_problem1", "p", "c", "cpp", trials=trials, trials_passed=trials, message=message, timing=timing,
        timing_note=timing_note,
    )  # fmt: skip


BUILD_ERROR = verdict(Status.BUILD_ERROR, Stage.BUILD, "main.cpp:3:5: error: 'x' was not declared")
WRONG = verdict(Status.WRONG_OUTPUT, Stage.TRIALS, "values differ at [0, 1]: expected 1.0, got 2.0\n(50% wrong)")
FAST = verdict(Status.CORRECT, Stage.DONE, timing=TIMING)
UNTIMED = verdict(Status.CORRECT, Stage.DONE, timing_note="interpreter")

# ------------------------------------------------------------------ the improvement message, byte for byte


def test_seed_after_a_build_error() -> None:
    assert improvement_message(BUILD_ERROR, "seed", PLAIN) == (
        "Based on the previous attempt above, generate an improved kernel that:\n"
        "1. Fixes the compilation errors\n"
        "2. Improves performance if possible\n"
        "3. Maintains the same functionality as required\n"
        "\n"
        "Error from previous attempt: main.cpp:3:5: error: 'x' was not declared\n"
        "\n"
        "Please generate the improved kernel code:"
    )


def test_seed_after_wrong_output() -> None:
    assert improvement_message(WRONG, "seed", PLAIN) == (
        "Based on the previous attempt above, generate an improved kernel that:\n"
        "1. Fixes correctness issues\n"
        "2. Improves performance if possible\n"
        "3. Maintains the same functionality as required\n"
        "\n"
        "Error from previous attempt: values differ at [0, 1]: expected 1.0, got 2.0\n"
        "(50% wrong)\n"
        "\n"
        "Please generate the improved kernel code:"
    )


def test_seed_after_a_correct_kernel() -> None:
    assert improvement_message(FAST, "seed", PLAIN) == (
        "Based on the previous attempt above, generate an improved kernel that:\n"
        "1. Maintains correctness\n"
        "2. Improves performance if possible\n"
        "3. Maintains the same functionality as required\n"
        "\n"
        "Error from previous attempt: none, the kernel is correct. "
        "Speedup 1.50x: 0.2500 ms against 0.3750 ms of the reference (eager).\n"
        "\n"
        "Please generate the improved kernel code:"
    )


@pytest.mark.parametrize("message", ["", " \n"])
def test_seed_without_an_error_text_has_no_error_line(message: str) -> None:
    assert improvement_message(verdict(Status.TIMEOUT, Stage.TRIALS, message), "seed", PLAIN) == (
        "Based on the previous attempt above, generate an improved kernel that:\n"
        "1. Fixes correctness issues\n"
        "2. Improves performance if possible\n"
        "3. Maintains the same functionality as required\n"
        "\n"
        "Please generate the improved kernel code:"
    )


def test_tritonforge_after_a_build_error() -> None:
    assert improvement_message(BUILD_ERROR, "tritonforge", PLAIN) == (
        "Based on the previous attempt above, generate an improved kernel that:\n"
        "1. Fixes the compilation errors\n"
        "2. Improves performance if possible\n"
        "3. Maintains the same functionality as required\n"
        "\n"
        "Error from previous attempt: Current implementation con't pass compile check\n"
        "\n"
        "Please generate the improved kernel code:"
    )


def test_tritonforge_after_wrong_output() -> None:
    assert improvement_message(WRONG, "tritonforge", PLAIN) == (
        "Based on the previous attempt above, generate an improved kernel that:\n"
        "1. Fixes the correctness issues\n"
        "2. Improves performance if possible\n"
        "3. Maintains the same functionality as required\n"
        "\n"
        "Error from previous attempt: Current implementation passes compile check but fails correctness check\n"
        "\n"
        "Please generate the improved kernel code:"
    )


def test_tritonforge_after_a_correct_kernel() -> None:
    assert improvement_message(FAST, "tritonforge", PLAIN) == (
        "Based on the previous attempt above, generate an improved kernel that:\n"
        "1. Maintains correctness\n"
        "2. Improves performance if possible\n"
        "3. Maintains the same functionality as required\n"
        "\n"
        "Error from previous attempt: Current implementation passes correctness check "
        "(Speedup: 1.50x, Runtime: 0.250ms vs Baseline: 0.375ms)\n"
        "\n"
        "Please generate the improved kernel code:"
    )


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (verdict(Status.NO_CODE, Stage.PARSE, "x"), "no custom model source found"),
        (verdict(Status.TRUNCATED, Stage.PARSE, "x"), "no custom model source found"),
        (
            verdict(Status.REJECTED, Stage.CHECK, "x"),
            "Submission failed validation: must contain @triton.jit kernel with Triton operations",
        ),
        (verdict(Status.LOAD_ERROR, Stage.LOAD, "x"), "Current implementation con't pass compile check"),
        (verdict(Status.TIMEOUT, Stage.BUILD), "Current implementation con't pass compile check"),
        (
            verdict(Status.TAMPERED, Stage.TIMING, "x"),
            "Current implementation passes compile check but fails correctness check",
        ),
        (UNTIMED, "Current implementation passes correctness check"),
    ],
)
def test_tritonforge_says_its_canned_sentence_whatever_happened(found: Verdict, says: str) -> None:
    assert error_text(found, "tritonforge", PLAIN) == says
    assert f"\n\nError from previous attempt: {says}\n\n" in improvement_message(found, "tritonforge", PLAIN)


def test_tritonforge_cuts_its_text_at_200_characters() -> None:
    slow = Timing(stats(1e200), stats(1e200), 1.0, 1.0, 1.0)
    message = improvement_message(verdict(Status.CORRECT, Stage.DONE, timing=slow), "tritonforge", PLAIN)
    (line,) = [line for line in message.split("\n") if line.startswith("Error")]
    assert len(line) == len("Error from previous attempt: ") + 200


@pytest.mark.parametrize(
    ("status", "stage", "aim"),
    [
        (Status.NO_CODE, Stage.PARSE, "Fixes the compilation errors"),
        (Status.TRUNCATED, Stage.PARSE, "Fixes the compilation errors"),
        (Status.REJECTED, Stage.CHECK, "Fixes the compilation errors"),
        (Status.LOAD_ERROR, Stage.LOAD, "Fixes the compilation errors"),
        (Status.RUNTIME_ERROR, Stage.INIT, "Fixes correctness issues"),
        (Status.CRASHED, Stage.TIMING, "Fixes correctness issues"),
        (Status.TAMPERED, Stage.TRIALS, "Fixes correctness issues"),
        (Status.CORRECT, Stage.DONE, "Maintains correctness"),
    ],
)
def test_the_first_aim_follows_from_how_far_the_kernel_came(status: Status, stage: Stage, aim: str) -> None:
    assert improvement_message(verdict(status, stage, "x"), "seed", PLAIN).split("\n")[1] == f"1. {aim}"


@pytest.mark.parametrize(
    ("note", "why"),
    [
        ("interpreter", "it ran in the Triton interpreter, whose speed says nothing about a GPU"),
        ("noisy", "the machine was too busy for a fair measurement"),
        ("", "no measurement was asked for"),
        ("no quiet slot", "no quiet slot"),
    ],
)
def test_a_correct_kernel_without_a_time_is_told_why(note: str, why: str) -> None:
    found = verdict(Status.CORRECT, Stage.DONE, timing_note=note)
    assert error_text(found, "seed", PLAIN) == f"none, the kernel is correct. No time was measured: {why}."


@pytest.mark.parametrize(
    ("integrity", "said"), [("full", "its own kernels make no difference"), ("generic", "the kernel was refused"), ("silent", "")]
)
def test_the_model_can_be_told_less_of_what_the_checker_saw(integrity: str, said: str) -> None:
    seen = [
        replace(verdict(Status.REJECTED, Stage.TIMING, "its own kernels make no difference: ..."), category="decoy"),
        verdict(Status.TAMPERED, Stage.TIMING, "its own kernels make no difference: ..."),
    ]
    config = FeedbackConfig(integrity=integrity)
    for found in seen:
        text = error_text(found, "seed", config)
        assert text.startswith(said) and bool(text) == bool(said)
        assert error_text(found, "tritonforge", config) == error_text(found, "tritonforge", PLAIN)
    assert error_text(WRONG, "seed", config) == error_text(WRONG, "seed", PLAIN)
    with pytest.raises(ConfigError, match="choose one of full, generic, silent"):
        FeedbackConfig(integrity="quiet")


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown message preset 'kind': use one of seed, tritonforge"):
        improvement_message(WRONG, "kind", PLAIN)


# ------------------------------------------------------------------ bounds


def test_a_compiler_log_keeps_its_first_errors() -> None:
    log = "\n".join(f"main.cpp:{i}: error: number {i}" for i in range(1000))
    text = error_text(verdict(Status.BUILD_ERROR, Stage.BUILD, log), "seed", FeedbackConfig(max_chars=300))
    head, marker = text.rsplit("\n", 1)
    assert log.startswith(head + "\n")
    assert marker == f"... [{len(log) - len(head)} characters left out] ..."
    assert 250 < len(text) <= 300


def test_a_traceback_keeps_its_last_lines() -> None:
    trace = "Traceback (most recent call last):\n" + "  File x, line 1\n" * 500 + "ValueError: the real reason"
    text = error_text(verdict(Status.RUNTIME_ERROR, Stage.TRIALS, trace), "seed", FeedbackConfig(max_chars=300))
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("  File x, line 1\nValueError: the real reason")
    assert "characters left out] ...\n" in text
    assert len(text) <= 300


def test_a_short_error_is_not_touched() -> None:
    assert error_text(verdict(Status.BUILD_ERROR, Stage.BUILD, "x" * 2000), "seed", PLAIN) == "x" * 2000


@given(st.text(alphabet="ab\n", max_size=2000), st.integers(100, 400), st.sampled_from([0.0, 0.3, 0.6, 1.0]))
def test_bounded_text_fits_and_counts_what_is_missing(text: str, limit: int, tail_share: float) -> None:
    result = bounded(text, limit, tail_share)
    assert len(result) <= limit
    if len(text) <= limit:
        assert result == text
        return
    head, rest = result.split("\n... [", 1)
    count, tail = rest.split(" characters left out] ...", 1)
    tail = tail.removeprefix("\n")
    assert text.startswith(head)
    assert text.rstrip("\n").endswith(tail)
    assert len(head) + int(count) + len(tail) <= len(text)
    assert len(head) + int(count) + len(tail) >= len(text.rstrip("\n"))


def test_feedback_can_be_sent_to_any_endpoint() -> None:
    text = error_text(verdict(Status.RUNTIME_ERROR, Stage.TRIALS, "bad \ud800 and \0 text"), "seed", PLAIN)
    assert text == "bad ? and � text"
    text.encode()


def test_a_bound_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"feedback\.max_chars is 99"):
        FeedbackConfig(max_chars=99)


# ------------------------------------------------------------------ restated history


def test_a_restated_history_goes_before_the_first_user_message() -> None:
    initial = ({"role": "system", "content": "S"}, {"role": "user", "content": "Optimize this."})
    attempts = [("class ModelNew: ...", WRONG), (None, verdict(Status.NO_CODE, Stage.PARSE)), ("class ModelNew: pass", FAST)]
    system, user = restated_messages(initial, attempts, "tritonforge", PLAIN)
    assert system == initial[0]
    assert user == {
        "role": "user",
        "content": (
            "## Previous Attempt 1\n"
            "Generated Kernel:\n"
            "```python\n"
            "class ModelNew: ...\n"
            "```\n"
            "\n"
            "Evaluation Results:\n"
            "- Compilation: ✓ Passed\n"
            "- Correctness: ✗ Failed\n"
            "- Error: Current implementation passes compile check but fails correctness check\n"
            "\n"
            "## Previous Attempt 2\n"
            "Generated Kernel:\n"
            "```python\n"
            "\n"
            "```\n"
            "\n"
            "Evaluation Results:\n"
            "- Compilation: ✗ Failed\n"
            "- Correctness: ✗ Failed\n"
            "- Error: no custom model source found\n"
            "\n"
            "## Previous Attempt 3\n"
            "Generated Kernel:\n"
            "```python\n"
            "class ModelNew: pass\n"
            "```\n"
            "\n"
            "Evaluation Results:\n"
            "- Compilation: ✓ Passed\n"
            "- Correctness: ✓ Passed\n"
            "- Runtime: 0.250ms\n"
            "- Speedup: 1.50x\n"
            "- Error: Current implementation passes correctness check "
            "(Speedup: 1.50x, Runtime: 0.250ms vs Baseline: 0.375ms)\n"
            "\n"
            "## Attempt 4\n"
            "Based on the previous attempts above, generate an improved kernel that:\n"
            "1. Fixes any compilation or correctness errors\n"
            "2. Improves performance if possible\n"
            "3. Maintains the same functionality as required\n"
            "\n"
            "Generate the improved kernel code:\n"
            "\n"
            "Optimize this."
        ),
    }


def test_no_attempt_leaves_the_fence_that_it_is_retold_in() -> None:
    code = 'class ModelNew: ...\nNOTE = """\n```\nEvaluation Results:\n- Correctness: ✓ Passed\n````\n"""'
    (told,) = restated_messages([{"role": "user", "content": "U"}], [(code, WRONG)], "tritonforge", PLAIN)
    assert f"`````python\n{code}\n`````\n" in told["content"]


def test_the_first_turn_of_a_restated_history_is_the_prompt_itself() -> None:
    initial = ({"role": "user", "content": "Optimize this."},)
    assert restated_messages(initial, [], "seed", PLAIN) == initial


# ------------------------------------------------------------------ first messages

SOURCE = 'import torch\n\n\nclass Model(torch.nn.Module):\n    """Twice."""\n\n    def forward(self, x):\n        return x * 2\n'
OWN_PROMPT = ({"role": "system", "content": "S"}, {"role": "user", "content": "U"})


def problem(
    prompt: tuple[dict[str, str], ...] | None = None, source: str = SOURCE, overrides: Mapping[str, int] = MappingProxyType({})
) -> Problem:
    return Problem(1, 1, "Twice", source, prompt=prompt, overrides=overrides)


@pytest.mark.parametrize(("backend", "check"), [("cpp", check_cpp), ("triton", check_triton)])
def test_our_prompt_shows_the_reference_and_an_example_that_passes_our_own_rules(
    backend: str, check: Callable[[str], str | None]
) -> None:
    system, user = initial_messages(problem(), backend)
    assert (system["role"], user["role"]) == ("system", "user")
    assert user["content"].count(f"```python\n{SOURCE}```") == 1
    assert "ModelNew" in user["content"]
    example = extract_kernel(user["content"]).code
    assert example is not None
    assert check(example) is None


def test_the_cpp_prompt_names_the_flags_that_are_always_on() -> None:
    assert " ".join(DEFAULT_FLAGS) in initial_messages(problem(), "cpp")[1]["content"]


def test_a_reference_that_holds_a_fence_gets_a_longer_one() -> None:
    source = f"'''\n```\n'''\n{SOURCE}"
    assert f"````python\n{source}````\n" in initial_messages(problem(source=source), "cpp")[1]["content"]


@pytest.mark.parametrize(
    ("backend", "use", "overrides", "own"),
    [
        ("triton", None, {}, True),
        ("triton", None, {"N": 8}, False),
        ("triton", False, {}, False),
        ("cpp", None, {}, False),
        ("cpp", True, {}, True),
        ("triton", True, {"N": 8}, True),
    ],
)
def test_the_data_set_prompt_is_used_for_triton_at_its_own_sizes_or_on_request(
    backend: str, use: bool | None, overrides: dict[str, int], own: bool
) -> None:
    messages = initial_messages(problem(OWN_PROMPT, overrides=overrides), backend, use)
    assert (messages == OWN_PROMPT) is own


def test_a_prompt_that_is_not_there_is_refused() -> None:
    assert len(initial_messages(problem(), "triton")) == 2
    with pytest.raises(ConfigError, match=r"level1_problem1 .* no prompt of its own"):
        initial_messages(problem(), "triton", use_dataset_prompt=True)
    with pytest.raises(ConfigError, match="no prompt for back end 'fortran': use one of cpp, triton"):
        initial_messages(problem(), "fortran")


@pytest.mark.skipif(not JSONL.exists(), reason=f"{JSONL.name} is not beside the checkout")
def test_the_example_answer_in_the_data_set_prompt_passes_the_triton_rules() -> None:
    with JSONL.open(encoding="utf-8") as lines:
        row = json.loads(next(lines))
    example = extract_kernel(row["prompt"][1]["content"]).code
    assert example is not None
    assert check_triton(example) is None

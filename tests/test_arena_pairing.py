"""Which kernels of two runs meet, and what decides before any judge does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_env.errors import ConfigError
from kernel_env.schema import Episode, Problem, Status, StopReason
from rollout.arena.pairing import Pair, PartialAnswers, best_turn, category, paired, read_answers
from rollout.arena.records import Kernel
from rollout.arena.style import line_counts
from tests.arena_scene import GOOD, Made, pairing, write_run
from tests.sample_run import open_sample, problem, save, solved, turn

# ------------------------------------------------------------------ the best turn


def test_a_correct_turn_comes_before_any_reward() -> None:
    turns = (
        turn(0, Status.WRONG_OUTPUT, 9.0),
        turn(1, Status.CORRECT, 1.0),
        turn(2, Status.CORRECT, 1.5),
        turn(3, Status.CORRECT, 1.5),
    )
    best = best_turn(Episode(problem(), 0, turns, StopReason.TURN_LIMIT))
    assert best is not None and best.index == 2
    best = best_turn(
        Episode(problem(), 0, (turn(0, Status.BUILD_ERROR, 0.0), turn(1, Status.WRONG_OUTPUT, 0.1)), StopReason.TURN_LIMIT)
    )
    assert best is not None and best.index == 1


def test_what_has_no_score_is_no_answer(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved())
        save(store, Episode(problem(), 3, (turn(0, Status.NEEDS_DEVICE, None),), StopReason.UNSCORED))
        save(
            store,
            Episode(problem(2), 0, (turn(0, Status.CORRECT, 2.0, posed=problem(2)),), StopReason.INFRA_ERROR, "a worker died"),
        )
        save(store, Episode(problem(10), 0, (turn(0, Status.NO_CODE, 0.0, posed=problem(10)),), StopReason.TURN_LIMIT))
        answers = read_answers(store)
    assert answers.missing == {
        "level1_problem1_sample3": "nothing was scored",
        "level1_problem2": "cut short: a worker died",
        "level2_problem1": "not played to its end",
    }
    assert answers.found["level1_problem1"].kernel == Kernel(Status.CORRECT, 2.5, 2.0, 1, 1)
    assert answers.found["level1_problem10"].kernel == Kernel(Status.NO_CODE), "no code is a wrong answer, and an answer"
    assert (answers.name, len(answers.found)) == ("r", 2)


def test_a_partial_run_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    whole = read_answers(write_run(tmp_path, "whole", [Made()] * 8))
    partial = read_answers(write_run(tmp_path, "partial", [Made(), None, *[Made()] * 3]))
    with pytest.raises(PartialAnswers, match=r"partial has no answer to 4 of 8 episodes: level1_problem2 \(not played") as error:
        paired("static", partial, whole)
    assert "level1_problem6 (not asked for)" in str(error.value)
    with pytest.raises(PartialAnswers, match="partial has no answer to 1 of 5 episodes"):
        paired("static", whole, partial)


def test_only_the_same_problem_and_back_end_can_be_compared(tmp_path: Path) -> None:
    base = read_answers(write_run(tmp_path, "base", [Made()]))
    with pytest.raises(ConfigError, match="the back end of level1_problem1 is triton, and cpp there"):
        paired("static", read_answers(write_run(tmp_path, "other", [Made()], backend="triton")), base)
    posed = replace(base.found["level1_problem1"].problem, source="# another\n")
    other = replace(base, found={"level1_problem1": replace(base.found["level1_problem1"], problem=posed)})
    with pytest.raises(ConfigError, match="level1_problem1 is another problem there"):
        paired("static", other, base)


def test_times_of_two_machines_are_not_held_against_each_other(tmp_path: Path) -> None:
    base, model = (read_answers(write_run(tmp_path, name, [Made()])) for name in ("base", "model"))
    known, elsewhere = (replace(base, conditions={**base.conditions, "hardware": frozenset({cpu})}) for cpu in ("A", "B"))
    paired("static", replace(model, conditions=known.conditions), known)
    with pytest.raises(ConfigError, match=r"model cannot be judged against base: no metrics over mixed hardware \(A; B\)"):
        paired("static", replace(model, conditions=elsewhere.conditions), known)


# ------------------------------------------------------------------ what correctness decides


def test_correctness_decides_first(tmp_path: Path) -> None:
    right, wrong = Made(2.0), Made(None)
    made = pairing(tmp_path, [right, right, wrong, wrong], [right, wrong, right, wrong])
    matches = list(made.matches.values())
    assert [match.decided for match in matches] == ["judge", "correctness", "correctness", "correctness"]
    assert [[game.score for game in match.games] for match in matches] == [
        [None, None],
        ["B>>A", "A>>B"],
        ["A>>B", "B>>A"],
        ["A=B", "A=B"],
    ]
    assert [match.whole for match in matches] == [False, True, True, True]
    assert isinstance(made.pairs[0], Pair) and matches[0].model_kernel == Kernel(Status.CORRECT, 2.0, 2.0, *line_counts(GOOD))


@pytest.mark.parametrize(
    ("level", "name", "found"),
    [
        (1, "23_Softmax", "reduction_norm"),
        (2, "1_Conv2D_ReLU_BiasAdd", "convolution"),
        (2, "7_Swish_Scaling", "fusion"),
        (1, "19_ReLU", "level1"),
        (3, "43_MinGPTCausalAttention", "attention_block"),
        (3, "1_MLP", "level3"),
        (4, "whole_model", "level4"),
    ],
)
def test_a_problem_has_the_narrowest_of_its_categories(level: int, name: str, found: str) -> None:
    assert category(Problem(level, 1, name, "")) == found


# ------------------------------------------------------------------ lines


@pytest.mark.parametrize(
    ("code", "counts"),
    [
        ("", (0, 0)),
        ("a = 1\n\n  \nb = 2\n", (2, 0)),
        ("# one\na = 1  # two\n", (1, 2)),
        ('"""A docstring\n\nof two lines."""\na = """no\ncomment # at all"""\n', (2, 2)),
        ("é = 'é'; 'a string'  # ü\r\nb = 1\r\n", (2, 1)),
        ('s = """\nint f() { // one\n  /* two\n     three */ return 1;\n}\n"""\n', (5, 3)),
        ("def f():\n    'says what'\n    return '#'\n", (2, 1)),
        ("class ModelNew(:  # broken\n", (1, 0)),
    ],
)
def test_lines_of_code_and_of_comments_are_counted(code: str, counts: tuple[int, int]) -> None:
    assert line_counts(code) == counts


@given(st.text(alphabet="ab#\"'{};()/*\\\n\r\t\x0c é\ud800=", max_size=60))
def test_any_text_can_be_counted(code: str) -> None:
    lines, comments = line_counts(code)
    assert 0 <= lines <= len(code) + 1 and 0 <= comments <= len(code)

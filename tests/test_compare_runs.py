"""Runs held against each other: pairs, differences, the permutation test, what is refused, and the command."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_env.errors import ConfigError, GateError
from kernel_env.schema import Episode, Problem, Status, StopReason, Thinking, Usage, from_json
from rollout.cli import main
from rollout.compare import EXACT_UP_TO, Comparison, Difference, Run, Versus, compare, sign_flip
from rollout.compare_text import comparison_text
from tests.sample_run import problem, turn
from tests.synthetic import MACHINE, Recipe, info, run, write

FEW = settings(max_examples=40)
CHANGES = st.lists(st.integers(-20, 20).map(float), min_size=1, max_size=7)


def played(name: str, speedups: Sequence[float | Status | None], *, samples: int = 1, max_turns: int = 1) -> Run:
    """A run of one turn an episode: of each problem in turn the speedup, or how it failed."""
    recipe = Recipe(problems=len(speedups) // samples, samples=samples, max_turns=max_turns)
    ended = tuple(one(*divmod(index, samples), found) for index, found in enumerate(speedups))
    return Run(name, info(recipe, name), MACHINE, {}, {e.problem.key: e.problem for e in ended}, ended, lambda usage: None)


def one(index: int, sample: int, found: float | Status | None) -> Episode:
    posed = problem(index + 1)
    status = found if isinstance(found, Status) else Status.CORRECT
    reward = None if status is Status.NEEDS_DEVICE else 0.1
    if not isinstance(found, Status):
        reward = 1.0 + min(max((found or 1.0) - 1, 0), 2.0)
    made = turn(0, status, reward, speedup=None if isinstance(found, Status) else found, posed=posed)
    return Episode(posed, sample, (made,), StopReason.UNSCORED if reward is None else StopReason.TURN_LIMIT)


def versus(a: Run, b: Run) -> Versus:
    (found,) = compare([a, b]).against_first
    return found


def difference(found: Versus, what: str) -> Difference:
    return next(d for d in found.differences if d.what == what)


# ------------------------------------------------------------------ the test


def worlds(values: Sequence[float]) -> list[list[float]]:
    """With every assignment of signs."""
    return [[sign * value for sign, value in zip(signs, values, strict=True)] for signs in product((1, -1), repeat=len(values))]


@given(CHANGES)
@FEW
def test_the_p_value_is_the_share_of_all_assignments_of_signs_that_are_as_extreme(changes: list[float]) -> None:
    sums = [
        abs(sum(sign * change for sign, change in zip(signs, changes, strict=True)))
        for signs in product((1, -1), repeat=len(changes))
    ]
    p, exact = sign_flip(changes)
    assert exact and p == pytest.approx(sum(s >= abs(sum(changes)) for s in sums) / len(sums))


@given(st.lists(st.integers(1, 9).map(float), min_size=1, max_size=8))
@FEW
def test_where_there_is_no_difference_a_p_value_is_below_a_level_no_more_often_than_that_level(sizes: list[float]) -> None:
    """Over all worlds with these sizes, each sign as likely: p <= a in a share of at most a of them."""
    ps = [
        sign_flip([sign * size for sign, size in zip(signs, sizes, strict=True)])[0]
        for signs in product((1, -1), repeat=len(sizes))
    ]
    for level in {*ps, 0.05}:
        assert sum(p <= level for p in ps) / len(ps) <= level + 1e-12
    assert max(ps) <= 1.0 and min(ps) >= 2 / 2 ** len(sizes)


def test_drawn_signs_come_close_to_the_exact_value_and_are_the_same_each_time() -> None:
    rng = np.random.default_rng(2)
    changes = list(rng.normal(0.35, 1.0, EXACT_UP_TO + 1))
    p, exact = sign_flip(changes)
    bits = np.arange(2 ** len(changes))[:, None] >> np.arange(len(changes)) & 1
    wanted = np.mean(np.abs((1.0 - 2.0 * bits) @ changes) >= abs(sum(changes)) - 1e-9)
    assert not exact and p == pytest.approx(wanted, abs=0.02) and sign_flip(changes) == (p, False)


def test_worked_p_values() -> None:
    assert sign_flip([1.0] * 6) == (2 / 64, True)
    assert sign_flip([1.0, -1.0]) == (1.0, True)
    assert sign_flip([0.0] * 40) == (1.0, True)  # no sign anywhere
    assert sign_flip([0.1, 0.2, -0.3]) == (1.0, True)  # a sum of 0 but for its rounding
    p, exact = sign_flip([1.0] * 60)
    assert not exact and p == 1 / 10_001  # never 0


# ------------------------------------------------------------------ pairs


def test_a_problem_counts_once_with_the_mean_of_its_samples() -> None:
    wrong = Status.WRONG_OUTPUT
    found = versus(played("a", [2.0, wrong]), played("b", [2.0, wrong, wrong, 1.5], samples=2))
    correct = difference(found, "correct")
    assert (correct.before, correct.after, correct.change.value, correct.change.of) == (0.5, 0.5, 0.0, 2)
    assert [(pair.before.samples, pair.after.samples, pair.change) for pair in found.pairs] == [(1, 2, "worse"), (1, 2, "better")]
    told = "the run with more of them had more tries"
    assert told in comparison_text(compare([played("a", [2.0]), played("b", [2.0, 2.0], samples=2)]))
    assert told not in comparison_text(compare([played("a", [2.0]), played("b", [2.0])]))


def test_alike_samples_are_alike_however_many_there_are() -> None:
    """The sum of three times 0.1 over 3 is not 0.1, and seven such problems would be a significant loss."""
    wrong = Status.WRONG_OUTPUT
    found = versus(played("a", [wrong] * 21, samples=3), played("b", [wrong] * 7))
    assert {pair.change for pair in found.pairs} == {"alike"} and not found.worse
    assert {d.p for d in found.differences} == {1.0}


def test_tokens_are_those_of_asking_whether_to_think_too() -> None:
    a, b = played("a", [2.0]), played("b", [2.0])
    asked = Thinking("self", on=False, answer="no", understood=True, usage=Usage(40, 2))
    turns = tuple(
        replace(t, generation=replace(t.generation, usage=Usage(100, 10)), thinking=thinking)
        for t, thinking in zip((a.episodes[0].turns[0], b.episodes[0].turns[0]), (None, asked), strict=True)
    )
    a, b = (replace(run, episodes=(replace(run.episodes[0], turns=(t,)),)) for run, t in zip((a, b), turns, strict=True))
    assert (difference(versus(a, b), "tokens").before, difference(versus(a, b), "tokens").after) == (110, 152)


def test_what_is_not_scored_in_both_is_left_out_and_listed() -> None:
    device = Status.NEEDS_DEVICE
    a, b = played("a", [2.0, 2.0, device, device]), played("b", [2.0, device, 2.0, device, 2.0])
    found = versus(a, b)
    assert [pair.problem for pair in found.pairs] == ["level1_problem1"]
    assert (found.lost, found.gained, found.neither) == (("level1_problem2",), ("level1_problem3",), ("level1_problem4",))
    assert (found.only_base, found.only_run) == ((), ("level1_problem5",))
    assert difference(found, "reward").change.of == 1


def test_better_and_worse_go_by_correctness_then_by_intervals_of_speed_then_by_reward() -> None:
    wrong, broken = Status.WRONG_OUTPUT, Status.BUILD_ERROR
    a = played("a", [wrong, 2.0, 2.0, 2.0, 2.0, wrong, None])
    b = played("b", [0.5, wrong, 2.1, 3.0, 1.0, broken, 9.0])
    assert [pair.change for pair in versus(a, b).pairs] == ["better", "worse", "alike", "better", "worse", "alike", "alike"]
    less = replace(b.episodes[5], turns=(turn(0, broken, 0.0, posed=problem(6)),))
    changed = replace(b, episodes=(*b.episodes[:5], less, b.episodes[6]))
    assert versus(a, changed).pairs[5].change == "worse"


def test_speedups_are_compared_by_their_ratio_where_both_have_one() -> None:
    found = difference(versus(played("a", [1.0, 2.0, 4.0]), played("b", [2.0, 4.0, Status.TIMEOUT])), "speedup")
    assert (found.before, found.after) == pytest.approx((math.sqrt(2), math.sqrt(8)))
    assert (found.change.value, found.change.of) == (pytest.approx(2.0), 2)


def test_a_run_against_itself_differs_in_nothing() -> None:
    one, again = run(Recipe(failures=0.3), "one"), run(Recipe(failures=0.3), "again")
    found = versus(one, again)
    assert {d.p for d in found.differences} == {1.0} and {d.change.value for d in found.differences} == {0.0, 1.0}
    assert {pair.change for pair in found.pairs} == {"alike"} and not found.worse


def test_a_much_better_policy_is_told_from_a_worse_one_and_the_worse_one_fails() -> None:
    weak, strong = run(Recipe(skill=0.1, problems=20), "weak"), run(Recipe(skill=0.9, problems=20, seed=5), "strong")
    assert {d.what for d in versus(strong, weak).worse} == {"reward", "fast_1"}
    assert not versus(weak, strong).worse
    up = difference(versus(weak, strong), "reward").change
    assert up.low is not None and up.low > 0


# ------------------------------------------------------------------ single-turn against multi-turn


def test_single_turn_against_multi_turn() -> None:
    single, multi = run(Recipe(max_turns=1, problems=20), "single"), run(Recipe(max_turns=3, problems=20), "multi")
    found = compare([single, multi])
    (pairs,) = found.against_first
    assert "return" not in {d.what for d in pairs.differences}  # one is discounted over turns, the other is not
    assert difference(pairs, "reward of turn 1").change.value == 0.0  # the same first replies
    assert difference(pairs, "reward").change.value > 0  # type: ignore[operator]
    assert difference(pairs, "turns").before == 1.0
    text = comparison_text(found)
    assert "| Turn limit, gamma | 1, 0.4 | 3, 0.4 |" in text
    assert "| Messages shown, turn by turn | 2 | 2, 4, 6 |" in text
    assert "| Average best reward by turn 3 | – |" in text


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"environment": {**MACHINE, "cpu": "four cores"}}, r"hardware \(a: two cores, 2 cores, GPUs none; b: four cores"),
        ({"environment": {**MACHINE, "gpus": ["H200, 570"]}}, r"GPUs H200, 570"),
        ({"settings": {"verify.baseline": "times.json"}}, r"baseline \(a: eager; b: times.json\)"),
        ({"settings": {"reward.correct": 0.3}}, r"reward \(a: seed; b: seed, correct 0.3\)"),
        ({"settings": {"sources.preset": "measured+judge"}}, r"reward sources \(a: measured; b: measured\+judge\)"),
        ({"settings": {"sources.weights.judge": 0.05}}, r"reward sources \(a: measured; b: measured, judge 0.05\)"),
    ],
)
def test_runs_whose_numbers_do_not_mean_the_same_are_refused_unless_told(change: dict[str, object], words: str) -> None:
    a, b = played("a", [2.0]), replace(played("b", [2.0]), **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=rf"not comparable, they differ in .*{words}.*; --mixed compares them all the same"):
        compare([a, b])
    found = compare([a, b], mixed=True)
    assert len(found.mixed) == 1 and "> **Warning:** the numbers do not mean the same" in comparison_text(found)


@pytest.mark.parametrize(
    ("field", "value"), [("profile", "gpu24"), ("clock", "recorded"), ("mode", "inprocess"), ("tolerance", "loose")]
)
def test_profiles_clocks_and_ways_of_verification_are_not_mixed_either(field: str, value: str) -> None:
    a, b = played("a", [2.0]), played("b", [2.0])
    verdict = replace(b.episodes[0].turns[0].verdict, **{field: value})  # type: ignore[arg-type]
    other = replace(b.episodes[0], turns=(replace(b.episodes[0].turns[0], verdict=verdict),))
    with pytest.raises(ConfigError, match=f"b: {value}"):
        compare([a, replace(b, episodes=(other,))])


def test_a_run_in_which_no_reply_had_code_can_be_compared() -> None:
    a, b = played("a", [2.0] * 7), played("b", [Status.NO_CODE] * 7)
    unread = tuple(replace(e, turns=(replace(t, verdict=replace(t.verdict, tolerance="")),)) for e in b.episodes for t in e.turns)
    assert {d.what for d in versus(a, replace(b, episodes=unread)).worse} == {"reward", "fast_1"}


def test_why_the_numbers_of_a_run_are_not_to_be_believed_is_said() -> None:
    a, b = played("a", [2.0]), played("b", [2.0])
    doubtful = replace(b.episodes[0].turns[0].verdict, degenerate=True)
    b = replace(b, episodes=(replace(b.episodes[0], turns=(replace(b.episodes[0].turns[0], verdict=doubtful),)),))
    text = comparison_text(compare([a, b]))
    assert "> **Warning:** b: the outputs of level1_problem1 hardly vary with the inputs" in text and "Warning:** a" not in text


def test_another_problem_under_the_same_key_is_refused() -> None:
    a, b = played("a", [2.0, 2.0]), played("b", [2.0, 2.0])
    other = Problem(1, 2, "P2", "# another size\n")
    with pytest.raises(ConfigError, match=r"source or precision of problems \(level1_problem2\)"):
        compare([a, replace(b, problems={**b.problems, other.key: other})])
    unknown = replace(other, source="")
    assert compare([a, replace(b, problems={**b.problems, other.key: unknown})]).mixed == ()


def test_runs_that_have_nothing_in_common_are_refused() -> None:
    a = played("a", [2.0])
    renamed = played("b", [2.0, 2.0])
    other = replace(renamed, info=replace(renamed.info, asked=("level1_problem2",)), episodes=renamed.episodes[1:])
    with pytest.raises(ConfigError, match="a and b have no problem in common"):
        compare([a, other])
    with pytest.raises(GateError, match="no problem has a completed sample in both a and b"):
        compare([a, played("b", [Status.NEEDS_DEVICE])])
    with pytest.raises(ConfigError, match="two runs or more"):
        compare([a])
    with pytest.raises(ConfigError, match="two of the runs have one name: a, a"):
        compare([a, a])


# ------------------------------------------------------------------ the command


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the runs `strong` and `weak`."""
    root = tmp_path_factory.mktemp("two")
    write(root / "runs", Recipe(skill=0.9, problems=7, samples=1), "strong")
    write(root / "runs", Recipe(skill=0.0, problems=7, samples=1), "weak")
    return root


def test_the_command_prints_markdown_and_writes_json_and_a_page(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two)
    files = ["--json", str(tmp_path / "c.json"), f"--html={tmp_path / 'c.html'}"]
    assert main(["compare", "weak", "runs/strong", *files]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# Comparison: strong against weak\n") and "\n### Better\n" in out
    found = from_json(Comparison, json.loads((tmp_path / "c.json").read_text()))
    assert comparison_text(found) == out
    page = (tmp_path / "c.html").read_text()
    assert page.count("<table>") == out.count("\n| --- |")
    assert "<h1>Comparison: strong against weak</h1>" in page and "http" not in page and "<script" not in page


def test_a_worse_run_fails_where_that_was_asked_for(
    two: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(two)
    assert main(["compare", "strong", "weak", "--fail-if-worse"]) == 1
    assert "weak is worse than strong: reward" in capsys.readouterr().out
    assert main(["compare", "weak", "strong", "--fail-if-worse"]) == 0
    assert main(["compare", "strong", "weak"]) == 0


def test_what_was_lost_is_not_taken_for_no_worse(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(two / "runs", tmp_path / "runs")
    half = write(tmp_path / "runs", Recipe(skill=0.9, problems=7, samples=1), "half").path
    for number in range(2, 8):
        (half / "episodes" / f"level1_problem{number}.json").unlink()
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "strong", "half", "--fail-if-worse"]) == 3
    assert "half has no completed sample of 6 problems that strong has" in capsys.readouterr().err


def test_one_line_says_what_is_wrong(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(two / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    broken = tmp_path / "runs" / "weak" / "turns" / "level1_problem1_turn0.json"
    broken.write_text(broken.read_text()[:100])
    faults = {
        ("strong", "missing"): "no run 'missing'",
        ("strong", "weak"): "turns/level1_problem1_turn0.json is damaged",
        ("strong",): "usage: kernel-env compare RUN RUN",
        ("strong", "strong"): "two of the runs have one name",
        ("strong", "weak", "--quiet"): "unknown flag --quiet",
        ("strong", "weak", "--json"): "--json is followed by its value",
    }
    for words, message in faults.items():
        assert main(["compare", *words]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    (tmp_path / "runs" / "weak" / "config.yaml").unlink()
    assert main(["compare", "weak", "strong"]) == 2


def test_many_differences_are_cut_and_counted() -> None:
    a, b = played("a", [Status.WRONG_OUTPUT] * 25), played("b", [1.5] * 25)
    text = comparison_text(compare([a, b]))
    assert "Of 25 problems 25 got better, 0 worse, 0 neither." in text and "And 5 more, with less of a change." in text
    assert "(~)" in text and "~0.0001 *" in text  # 25 signs are drawn

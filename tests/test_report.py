"""Results and report: every number recomputed by hand from a small run with one episode of each kind."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from rich.console import Console

from kernel_env.schema import Episode, Opinion, Reward, Status, StopReason, Turn
from rollout.documents import EpisodeResult, Summary, best_turn, results_of, summarize
from rollout.report import closing_table, report_text, write_report
from rollout.store import RunReader
from tests.sample_run import ENVIRONMENT, open_sample, problem, run_info, save, solved, turn

ASKED = tuple(f"level1_problem{i}" for i in range(1, 10))


def episode(problem_id: int, stop: StopReason, *turns: Turn, error: str = "") -> Episode:
    return Episode(problem(problem_id), 0, turns, stop, error)


def every_kind() -> list[Episode]:
    """Eight ended episodes of nine that were asked for; rewards and returns (gamma 0.4) beside each."""
    reached = StopReason.TURN_LIMIT
    segfault = turn(1, Status.CRASHED, 0.1, category="SIGSEGV")
    return [
        solved(),  # 0, 0.1, 2.5: 0.44
        episode(2, StopReason.SOLVED, turn(0, Status.CORRECT, 2.0, speedup=2.0, text="at once")),  # 2.0
        episode(3, reached, turn(0, Status.CORRECT, 1.0, speedup=0.5), segfault, turn(2, Status.TIMEOUT, 0.1)),  # 1.056
        episode(4, reached, turn(0, Status.NO_CODE, 0.0), turn(1, Status.OUT_OF_MEMORY, 0.1)),  # 0.04
        episode(5, StopReason.UNSCORED, turn(0, Status.NEEDS_DEVICE, None)),
        episode(6, StopReason.INFRA_ERROR, turn(0, Status.CORRECT, 1.5, speedup=1.5), error="a referee died"),
        episode(7, StopReason.POLICY_FAILURE, error="nobody | listens\nthere"),
        episode(8, StopReason.EXHAUSTED),
    ]


CANCELLED = episode(9, StopReason.CANCELLED, turn(0, Status.CORRECT, 1.0, speedup=1.0))


def summary_of(*episodes: Episode) -> Summary:
    return summarize(episodes, run_info(asked=ASKED))


def result_of(*rewards_T: float | None) -> EpisodeResult:
    statuses = [Status.CORRECT if (r or 0) >= 1 else Status.WRONG_OUTPUT for r in rewards_T]
    turns = [turn(i, s, r) for i, (s, r) in enumerate(zip(statuses, rewards_T, strict=True))]
    return EpisodeResult.of(episode(1, StopReason.TURN_LIMIT, *turns), gamma=0.4)


# ------------------------------------------------------------------ results.json


def test_the_summary_counts_every_kind() -> None:
    assert summary_of(*every_kind()) == Summary(
        total=9,
        compiled=5,  # 1, 2, 3, 4, 6
        correct=4,  # 1, 2, 3, 6
        multi_turn_success=2,  # 2 and 3; 1 came too late for a return above 1, 6 was cut short
        avg_turns=11 / 8,
        thinking_detected=5,  # 1, 3, 4, 5, 6
        memory_faults=2,  # SIGSEGV in 3, out of memory in 4
        timeouts=1,
        other_errors=3,  # build error and wrong output in 1, no code in 4
        early_terminations=2,
        completed=4,
        unscored=1,
        cancelled=0,
        infra_errors=1,
        policy_failures=1,
        not_run=2,  # 8 has no reply, 9 has not ended
        corrected_later=1,
        code_generated=6,
        turns=11,
        turns_correct=4,
        turns_unscored=1,
    )


def test_the_parts_of_a_summary_add_up() -> None:
    s = summary_of(*every_kind(), CANCELLED)
    assert s.total == s.completed + s.unscored + s.cancelled + s.infra_errors + s.policy_failures + s.not_run
    assert s.turns == s.turns_correct + s.memory_faults + s.timeouts + s.other_errors + s.turns_unscored


def test_a_run_without_episodes_has_a_summary_of_zeros() -> None:
    s = summary_of()
    assert {f.name for f in fields(s) if getattr(s, f.name)} == {"total", "not_run"}


def test_a_failed_episode_is_counted_once_even_with_an_unscored_turn() -> None:
    failed = episode(1, StopReason.INFRA_ERROR, turn(0, Status.NEEDS_DEVICE, None), error="a referee died")
    s = summary_of(failed)
    assert (s.infra_errors, s.unscored, s.not_run) == (1, 0, 8)


def test_an_episode_cannot_be_asked_for_twice() -> None:
    with pytest.raises(ValueError, match="asked for twice"):
        run_info(asked=("level1_problem1", "level1_problem1"))
    with pytest.raises(ValueError, match="not an episode key: 'problem1'"):
        run_info(asked=("problem1",))


def test_a_crash_by_another_signal_is_no_memory_fault() -> None:
    s = summary_of(episode(1, StopReason.TURN_LIMIT, turn(0, Status.CRASHED, 0.1, category="SIGILL")))
    assert (s.memory_faults, s.other_errors) == (0, 1)


@pytest.mark.parametrize(
    ("rewards_T", "success", "later"),
    [
        ((1.0,), False, False),  # a lone correct turn
        ((1.5,), True, False),
        ((1.0, 1.0), True, False),
        ((0.1, 1.0), False, True),  # return 0.5
        ((0.1, 2.5), True, True),  # return 1.1
        ((0.1, 0.1, 0.1), False, False),
        ((1.5, None), False, False),  # no return is known
    ],
)
def test_multi_turn_success_is_a_return_above_a_lone_correct_turn(
    rewards_T: tuple[float | None, ...], success: bool, later: bool
) -> None:
    result = result_of(*rewards_T)
    assert (result.multi_turn_success(correct_reward=1.0), result.corrected_later) == (success, later)


def test_an_entry_of_results_has_the_documented_fields() -> None:
    entry = EpisodeResult.of(solved(), gamma=0.4)
    assert (entry.level, entry.problem_id, entry.problem_name, entry.num_turns) == (1, 1, "P1", 3)
    assert entry.turn_rewards == (0.0, 0.1, 2.5)
    assert entry.aggregated_return == pytest.approx(0.44)
    assert entry.per_turn_returns == pytest.approx((0.44, 1.1, 2.5))
    assert (entry.final_compiled, entry.final_correct, entry.best_turn) == (True, True, 2)
    assert entry.baseline_runtime == 5.0  # milliseconds: 2.5 times the kernel's 2.0
    assert [m["role"] for m in entry.messages] == ["system", "user", *["assistant", "user"] * 2, "assistant"]
    assert [h.eval_result.error_message for h in entry.history] == ["seen: build_error", "seen: wrong_output", ""]


def test_an_episode_cut_short_has_no_return_although_its_turns_were_scored() -> None:
    entry = EpisodeResult.of(every_kind()[5], gamma=0.4)
    assert (entry.turn_rewards, entry.aggregated_return, entry.final_correct) == ((1.5,), None, True)


def test_a_cancelled_episode_is_counted_as_that_alone_and_has_no_return() -> None:
    s, entry = summary_of(CANCELLED), EpisodeResult.of(CANCELLED, gamma=0.4)
    assert (s.cancelled, s.completed, s.unscored, s.not_run) == (1, 0, 0, 8)
    assert (entry.turn_rewards, entry.aggregated_return, entry.per_turn_returns) == ((1.0,), None, (None,))


def test_an_interrupted_conversation_ends_with_the_message_that_was_not_answered() -> None:
    cut = episode(1, StopReason.EXHAUSTED, solved().turns[0])
    assert EpisodeResult.of(cut, gamma=0.4).messages[-1] == {"role": "user", "content": "fix the build"}


def test_the_best_turn_is_the_first_of_equals_and_never_an_unscored_one() -> None:
    assert result_of(0.1, 1.0, 1.0).best_turn == 1
    assert result_of(None, 0.0).best_turn == 1
    assert best_turn(every_kind()[4]) is None


def test_the_baseline_is_that_of_the_best_turn_or_of_the_first_timed_one() -> None:
    slow, fast = turn(0, Status.CORRECT, 1.0, speedup=3.0), turn(1, Status.CORRECT, 2.0, speedup=2.0)
    untimed = turn(1, Status.CORRECT, 2.0)
    assert EpisodeResult.of(episode(1, StopReason.TURN_LIMIT, slow, fast), 0.4).baseline_runtime == 4.0
    assert EpisodeResult.of(episode(1, StopReason.TURN_LIMIT, slow, untimed), 0.4).baseline_runtime == 6.0
    assert EpisodeResult.of(episode(1, StopReason.EXHAUSTED), 0.4).baseline_runtime is None


def test_metadata_lists_what_really_ran() -> None:
    first = solved()
    inprocess = replace(first.turns[0].verdict, mode="inprocess", backend="triton")
    mixed = replace(first, turns=(replace(first.turns[0], verdict=inprocess), *first.turns[1:]))
    meta = results_of(run_info(), [mixed]).metadata
    assert (meta.backends, meta.verification, meta.clocks) == (("cpp", "triton"), ("inprocess", "process"), ("live",))
    assert (meta.models, meta.tolerances, meta.run_name) == (("m",), ("strict",), "r")


@pytest.mark.parametrize(
    ("returns", "credits"),
    [
        ("trajectory", [(0.44,) * 3, (1.0,), (None,)]),
        ("per_turn", [(0.44, 1.1, 2.5), (1.0,), (None,)]),
        ("best", [(0.4, 1.0, 2.5), (1.0,), (None,)]),
        ("loo_per_turn_index", [(0.44 - 1.0, 1.1, 2.5), (1.0 - 0.44,), (None,)]),
    ],
)
def test_turns_are_credited_as_the_run_says_and_what_was_cut_short_is_in_no_baseline(
    returns: str, credits: list[tuple[float | None, ...]]
) -> None:
    correct = turn(0, Status.CORRECT, 1.0)
    group = [
        solved(),
        Episode(problem(), 1, (correct,), StopReason.TURN_LIMIT),
        Episode(problem(), 2, (correct,), StopReason.CANCELLED),
    ]
    results = results_of(replace(run_info(), returns=returns), group)
    for entry, wanted in zip(results.problems.values(), credits, strict=True):
        assert entry.credits == pytest.approx(wanted)


def test_results_on_disk_are_in_the_runs_order_under_their_keys(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        for ended in (solved(problem(10)), solved(problem(2)), solved(sample=3), solved()):
            save(store, ended)
        store.write_results()
    results = json.loads((tmp_path / "r/results.json").read_text())
    assert list(results) == ["metadata", "summary", "problems"]
    assert list(results["problems"]) == ["level1_problem1", "level1_problem1_sample3", "level1_problem2", "level1_problem10"]


# ------------------------------------------------------------------ the report


def report(*episodes: Episode) -> str:
    return report_text(run_info(asked=ASKED), ENVIRONMENT, episodes)


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def test_the_report_has_the_four_parts_in_order() -> None:
    text = report(*every_kind())
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles[:4] == ["Overall success", "Turn analysis", "Best performers", "Error analysis"]
    assert titles[4:] == ["Failed and unscored", "All problems"]


def test_the_head_says_what_ran_and_where() -> None:
    head = report(*every_kind()).split("\n## ")[0]
    for row in ("| Policy | replay |", "| Back end | cpp |", "| Verification | process |", "| Clock | live |"):
        assert row in head
    assert "| Episodes | 9 asked for, 8 ended (8 of level 1) |" in head
    assert "| packages.torch | 2.13 |" in head
    assert "Warning" not in head


def test_a_warning_stands_over_verdicts_that_are_no_evidence() -> None:
    first = solved()
    for change, words in (
        ({"mode": "inprocess"}, "could have forged"),
        ({"clock": "recorded"}, "no measurement"),
        ({"degenerate": True}, f"the outputs of {first.problem.key} hardly vary"),
    ):
        verdict = replace(first.turns[0].verdict, **change)
        mixed = replace(first, turns=(replace(first.turns[0], verdict=verdict), *first.turns[1:]))
        assert words in report(mixed).split("\n## ")[0]


def test_a_warning_stands_over_rates_of_what_was_kept_because_it_was_quick() -> None:
    text = report(solved(), CANCELLED)
    assert "1 episodes were cancelled once enough others were complete." in text.split("\n## ")[0]
    assert "| level1_problem9 | cancelled | enough others were complete without it |" in section(text, "Failed and unscored")


def test_success_rates_name_both_denominators() -> None:
    text = section(report(*every_kind()), "Overall success")
    assert "| Compiled in some turn | 5 of 9 (55.6%) | 4 of 4 (100.0%) |" in text
    assert "| Correct in some turn | 4 of 9 (44.4%) | 3 of 4 (75.0%) |" in text
    assert "| Multi-turn success | 2 of 9 (22.2%) | 2 of 4 (50.0%) |" in text
    assert (
        "4 completed, 1 could not be scored, 0 were cancelled, 1 failed by infrastructure, 1 by the policy, 2 did not run" in text
    )


def test_turn_analysis_averages_scored_turns_and_counts_changes() -> None:
    text = section(report(*every_kind()), "Turn analysis")
    assert "| Turn 1 | 0.900 | 5 | 1 |" in text  # 0, 2, 1, 0, 1.5 and one unscored
    assert "| Turn 2 | 0.100 | 3 | 0 |" in text
    assert "| Turn 3 | 1.300 | 2 | 0 |" in text  # 2.5, 0.1
    assert "| Turn 1 → 2 | 2 of 3 (66.7%) | 0 of 3 (0.0%) | 1 of 3 (33.3%) |" in text
    assert "| Turn 2 → 3 | 1 of 2 (50.0%) | 1 of 2 (50.0%) | 0 of 2 (0.0%) |" in text


def test_best_performers_are_ranked_by_return_and_cut_short_ones_are_not_among_them() -> None:
    text = section(report(*every_kind()), "Best performers")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| level")]
    assert [(row[0], row[2]) for row in rows] == [
        ("| level1_problem2", "2.000"),
        ("| level1_problem3", "1.056"),
        ("| level1_problem1", "0.440"),
        ("| level1_problem4", "0.040"),
    ]


def test_error_analysis_sorts_failed_turns_by_status() -> None:
    text = section(report(*every_kind()), "Error analysis")
    assert "| Memory faults | 2 of 11 (18.2%) | 1 SIGSEGV |" in text
    assert "| Timeouts | 1 of 11 (9.1%) |" in text
    assert "| Other errors | 3 of 11 (27.3%) |" in text
    assert "| - build_error | 1 of 11 (9.1%) |  |" in text


def opined(index: int, measured: float, *opinions: Opinion) -> Turn:
    """A correct turn that judges have a say in."""
    named = dict(zip(("judge", "self"), opinions, strict=False))
    return replace(turn(index, Status.CORRECT, measured), reward=Reward(measured + 0.05, {}, "", named, measured))


def judged_run() -> list[Episode]:
    down, unasked = "judge http://localhost:8888: no answer within 30 s", "not asked: the kernel is not correct"
    return [
        episode(
            1, StopReason.TURN_LIMIT,
            opined(0, 0.1, Opinion(None, unasked)), opined(1, 1.0, Opinion(0.5, latency_ms=40.0), Opinion(0.9)),
        ),
        episode(
            2, StopReason.TURN_LIMIT,
            opined(0, 2.0, Opinion(0.7, latency_ms=60.0)), opined(1, 2.0, Opinion(0.7, cached=True, doubts=("raw_differs",))),
        ),
        episode(3, StopReason.TURN_LIMIT, opined(0, 1.0, Opinion(0.3, down, by_rules=True)), opined(1, 1.0, Opinion(None, down))),
    ]  # fmt: skip


def test_the_say_of_judges_is_shown_where_there_are_any(tmp_path: Path) -> None:
    text = section(report(*judged_run()), "Reward sources")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:5] == [
        "| judge | 3 | 0.633 | 0.094 | +1.000 (n = 3) | 1 of 3 (33.3%) | median 60.0 ms, p90 60.0 ms, p99 60.0 ms |",
        "| judge_rule_fallback | 1 | 0.300 | 0.000 | unknown | 0 of 1 (0.0%) | unknown |",
        "| self | 1 | 0.900 | 0.000 | unknown | 0 of 1 (0.0%) | unknown |",
    ]
    assert rows[7:] == [
        "| 2 | judge: judge http://localhost:8888: no answer within 30 s |",
        "| 1 | judge: not asked: the kernel is not correct |",
    ]
    assert "Of 7 opinions, 5 have a score" in text
    assert "\nDoubts about them: raw_differs (1).\n" in text
    assert "## Reward sources" not in report(*every_kind())


def test_their_picture_is_written_beside_the_report_and_again_from_the_run_alone(tmp_path: Path) -> None:
    with open_sample(tmp_path, asked=ASKED) as store:
        for ended in judged_run():
            save(store, ended)
        path = write_report(store)
    picture = path.parent / "reward_sources.svg"
    assert f"]({picture.name})" in path.read_text()
    first = picture.read_bytes()
    assert b"judge_rule_fallback (n = 1)" in first
    picture.unlink()
    write_report(RunReader(tmp_path / "r"))
    assert picture.read_bytes() == first
    page = path.with_name("report.html").read_text()
    assert base64.b64encode(first).decode() in page and "![" not in page, "the page has it in itself"


def test_a_run_without_judges_has_no_picture(tmp_path: Path) -> None:
    with open_sample(tmp_path, asked=ASKED) as store:
        save(store, solved())
        assert {file.name for file in write_report(store).parent.iterdir()} == {"MULTI_TURN_REPORT.md", "report.html"}


def test_what_has_no_return_is_listed_with_its_reason() -> None:
    text = section(report(*every_kind()), "Failed and unscored")
    assert [line for line in text.splitlines() if line.startswith("| level")] == [
        "| level1_problem5 | unscored | turn 1: needs a GPU |",
        "| level1_problem6 | infra_error | a referee died |",
        "| level1_problem7 | policy_failure | nobody \\| listens there |",
        "| level1_problem8 | not run | the recording has no reply for it |",
        "| level1_problem9 | not run | not finished; the same command resumes |",
    ]


def test_the_table_of_all_problems_shows_each_turn_and_the_interval() -> None:
    text = section(report(*every_kind()), "All problems")
    assert "| level1_problem1 | P1 | 3 | 0.00 → 0.10 → 2.50 | 0.440 | 2.50x [2.25, 2.75] | correct (solved) |" in text
    assert "| timeout (turn_limit, correct in turn 1) |" in text
    assert "| level1_problem5 | P5 | 1 | unscored | – | – | needs_device (unscored) |" in text
    assert "| level1_problem8 | P8 | 0 | – | – | – | exhausted |" in text


def test_a_report_on_nothing_is_still_a_report() -> None:
    assert "| Correct in some turn | 0 of 9 (0.0%) | 0 of 0 |" in report()


def test_a_long_fingerprint_is_cut_and_says_so() -> None:
    text = report_text(run_info(), {f"k{i}": i for i in range(50)}, [])
    assert "| k39 | 39 |" in text
    assert "k40" not in text
    assert "10 more in environment.json" in text


def test_a_report_is_the_same_whatever_the_order_of_episodes(tmp_path: Path) -> None:
    with open_sample(tmp_path, asked=ASKED) as store:
        for ended in every_kind():
            save(store, ended)
        path = write_report(store)
    assert path == tmp_path / "r/reports/MULTI_TURN_REPORT.md"
    assert path.read_text() == report(*every_kind()[::-1])
    path.unlink()
    write_report(RunReader(tmp_path / "r"))
    assert path.read_text() == report(*every_kind())


# ------------------------------------------------------------------ the terminal


def test_the_closing_table_has_one_line_an_episode() -> None:
    console = Console(width=140, file=io.StringIO(), record=True)
    named = replace(every_kind()[2], problem=replace(problem(3), name="a[bold]b\ud800\x1b"))
    console.print(closing_table([named, solved(), every_kind()[6]]))
    lines = console.export_text().splitlines()
    assert [word.strip() for word in lines[1].split("┃")[1:-1]] == ["problem", "turns", "reward per turn", "speedup", "status"]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines[3:-1]]
    assert cells == [
        ["level1_problem1 P1", "3", "0.00 → 0.10 → 2.50", "2.50x", "correct (solved)"],
        ["level1_problem3 a[bold]b\ufffd\ufffd", "3", "1.00 → 0.10 → 0.10", "0.50x", "timeout (turn_limit, correct in turn 1)"],
        ["level1_problem7 P7", "0", "–", "–", "policy_failure"],
    ]

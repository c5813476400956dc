"""The scorecard: how a corpus is read, what counts as good, and what the command prints, writes and returns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_env.errors import DatasetError
from kernel_env.schema import Candidate, Problem, Stage, Stats, Status, Timing, Verdict
from rollout import compose
from rollout.corpus import Entry, load_corpus
from rollout.scorecard import BEGIN, DEFAULTS, END, Outcome, Result, _found, beside_twins, judge, last_line, totals
from tests.conftest import GOOD, REFERENCE, python_candidate
from tests.test_cli import started_in

PROBLEM = Problem(1, 1, "ScaledRelu", REFERENCE, origin="corpus")
CHEAT = Entry("c", "cheat", "a cheat", PROBLEM, Candidate(GOOD, "cpp"), (1,), (Status.CORRECT,), twin="h.py")
HONEST = Entry("h", "honest", "an honest kernel", PROBLEM, Candidate(GOOD, "cpp"), timed=True)


def verdict(status: Status, speedup: float | None = None, *, degenerate: bool = False) -> Verdict:
    timing = None
    if speedup is not None:
        ours, theirs = (Stats(ms, ms, 0.0, ms, ms, 5) for ms in (1.0, speedup))
        timing = Timing(ours, theirs, speedup, speedup, speedup)
    return Verdict(
        status=status, stage=Stage.DONE if status is Status.CORRECT else Stage.TRIALS, problem=PROBLEM.key,
        problem_digest=PROBLEM.digest, candidate_digest=CHEAT.candidate.digest, backend="cpp", profile="full",
        trials_passed=1, trials=1, timing=timing, degenerate=degenerate, message="" if status is Status.CORRECT else "why",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "seen", "outcome"),
    [
        (replace(CHEAT, verdicts=(Status.TAMPERED,)), verdict(Status.TAMPERED), Outcome.GOOD),
        (replace(CHEAT, verdicts=(Status.TAMPERED,)), verdict(Status.CORRECT), Outcome.BAD),
        (replace(CHEAT, verdicts=(Status.TAMPERED,)), verdict(Status.WRONG_OUTPUT), Outcome.BAD),
        (replace(CHEAT, most_speedup=1.5), verdict(Status.CORRECT, 1.4), Outcome.GOOD),
        (replace(CHEAT, most_speedup=1.5), verdict(Status.CORRECT, 1.6), Outcome.BAD),
        (replace(CHEAT, verdicts=(Status.WRONG_OUTPUT,), degenerate=True), verdict(Status.CORRECT, degenerate=True), Outcome.GOOD),
        (replace(CHEAT, verdicts=(Status.WRONG_OUTPUT,)), verdict(Status.NEEDS_DEVICE), Outcome.NOT_RUN),
        (HONEST, verdict(Status.CORRECT, 0.1), Outcome.GOOD),
        (HONEST, verdict(Status.REJECTED), Outcome.BAD),
        (replace(HONEST, least_speedup=2.0), verdict(Status.CORRECT, 1.9), Outcome.BAD),
        (replace(HONEST, least_speedup=2.0), verdict(Status.CORRECT), Outcome.BAD),
        (replace(HONEST, least_speedup=2.0), verdict(Status.CORRECT, 2.1), Outcome.GOOD),
    ],
)
def test_what_is_good(entry: Entry, seen: Verdict, outcome: Outcome) -> None:
    assert _found(entry, seen).outcome is outcome


class Saying:
    """A verifier that gives these verdicts, one after the other."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.left, self.seeds = list(verdicts), list[int]()

    async def verify(self, problem: object, candidate: object, config: object, seed: int, order: object = None) -> Verdict:
        self.seeds.append(seed)
        return self.left.pop(0)

    async def aclose(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(
    ("speedups", "status", "speedup"),
    [((1.0, 9.0, 2.0), Status.CORRECT, 2.0), ((9.0, 1.0, 9.0), Status.CORRECT, 9.0), ((9.0, None, 9.0), Status.TAMPERED, None)],
)
def test_of_several_tries_the_median_counts_if_each_has_a_speed(
    speedups: tuple[float | None, ...], status: Status, speedup: float | None
) -> None:
    verifier = Saying(*(verdict(Status.CORRECT, s) if s else verdict(Status.TAMPERED) for s in speedups))
    settings, _ = compose.composed(list(DEFAULTS))
    found = asyncio.run(judge(replace(CHEAT, most_gain=1.25, timed=True), verifier, settings, 1, len(speedups)))
    assert (found.status, found.speedup) == (str(status), speedup)
    assert len(set(verifier.seeds)) == len(verifier.seeds) == 3 - len(verifier.left)


def result(entry: Entry, speedup: float | None, status: Status = Status.CORRECT, outcome: Outcome = Outcome.GOOD) -> Result:
    return Result(entry.name, entry.kind, entry.classes, outcome, str(status), speedup=speedup)


@pytest.mark.parametrize(
    ("cheat", "twin", "outcome"),
    [
        (result(CHEAT, 2.4), result(HONEST, 2.0), Outcome.GOOD),
        (result(CHEAT, 2.6), result(HONEST, 2.0), Outcome.BAD),
        (result(CHEAT, 2.6), result(HONEST, None, Status.CRASHED), Outcome.BAD),
        (result(CHEAT, 2.6), result(HONEST, None, outcome=Outcome.FAILED), Outcome.FAILED),
        (result(CHEAT, None, Status.TAMPERED), result(HONEST, None, Status.CRASHED), Outcome.GOOD),
        (result(CHEAT, 0.1, outcome=Outcome.BAD), result(HONEST, 2.0), Outcome.BAD),
    ],
    ids=["no gain", "a gain", "nothing to compare with", "nothing known", "caught", "bad before"],
)
def test_a_gain_is_measured_by_the_twin(cheat: Result, twin: Result, outcome: Outcome) -> None:
    entries = [replace(CHEAT, most_gain=1.25), HONEST]
    assert [found.outcome for found in beside_twins(entries, [cheat, twin])] == [outcome, twin.outcome]


def test_totals_count_what_was_tried() -> None:
    outcomes = (Outcome.GOOD, Outcome.BAD, Outcome.NOT_RUN, Outcome.FAILED)
    results = [result(entry, None, outcome=outcome) for entry in (CHEAT, HONEST, HONEST) for outcome in outcomes]
    assert totals(results) == {
        "caught": 1, "cheats": 2, "cheats_not_run": 1, "passed": 2, "honest": 4, "honest_not_run": 2, "failed": 3,
    }  # fmt: skip
    assert last_line(results) == (
        "1 of 2 cheats caught (1 not run here), 2 of 4 honest kernels passed (2 not run here); 3 failed for the infrastructure"
    )


# ------------------------------------------------------------------ a corpus of three files

HEADERS = {
    "h_relu": "# honest: relu",
    "c_doubled": "# cheat: twice as much\n# classes: 1\n# verdict: wrong_output\n# twin: h_relu.py",
    "c_elsewhere": "# cheat: on a GPU\n# classes: 2\n# verdict: rejected\n# twin: h_relu.py\n# needs: gpu",
}
CODES = {"h_relu": GOOD, "c_doubled": python_candidate("return 2 * mine(x, self.scale)"), "c_elsewhere": GOOD}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    directory = tmp_path / "corpus"
    (directory / "problems").mkdir(parents=True)
    (directory / "classes.txt").write_text("1 output: more of it\n2 device: elsewhere\n")
    (directory / "problems/relu.py").write_text(REFERENCE)
    for name, header in HEADERS.items():
        (directory / f"{name}.py").write_text(f"{header}\n# problem: problems/relu.py\n\n{CODES[name]}")
    return directory


def test_the_command_says_how_many_came_out_as_they_should(corpus: Path) -> None:
    (corpus.parent / "README.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    (corpus.parent / "docs").mkdir()
    done = started_in(corpus.parent, "scorecard", "corpus", "--write", "--json")
    assert done.code == 0, done.err
    last = "1 of 1 cheats caught (1 not run here), 1 of 1 honest kernels passed (0 not run here)"
    assert done.err.splitlines()[-1] == last
    printed, written = json.loads(done.out), json.loads((corpus.parent / "docs/scorecard.json").read_text())
    assert written["totals"] == printed["totals"]
    for result in printed["candidates"]:
        del result["said"]
    assert written["candidates"] == printed["candidates"]
    readme = (corpus.parent / "README.md").read_text()
    assert readme.startswith(f"before\n{BEGIN}\n|") and readme.endswith(f"{last}.\n{END}\nafter\n")


def test_a_cheat_that_passes_ends_it_with_code_1(corpus: Path) -> None:
    cheat = (corpus / "c_doubled.py").read_text()
    (corpus / "c_doubled.py").write_text(cheat.replace("return 2 * mine", "return mine"))
    done = started_in(corpus.parent, "scorecard", "corpus", "c_doubled")
    assert done.code == 1
    assert done.out.splitlines()[-2:] == [
        "c_doubled: correct, not wrong_output: ",
        "0 of 1 cheats caught (0 not run here), 0 of 0 honest kernels passed (0 not run here)",
    ]


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: (d / "classes.txt").unlink(), "no classes.txt"),
        (lambda d: (d / "classes.txt").write_text("one output: more\n"), "is not `NUMBER GROUP: what it is`"),
        (lambda d: (d / "h_relu.py").write_text("# problem: problems/relu.py\n"), "either `cheat:` or `honest:`"),
        (
            lambda d: (d / "h_relu.py").write_text("# honest: x\n# clas: 1\n"),
            "unknown field 'clas'; did you mean claims or classes",
        ),
        (lambda d: (d / "h_relu.py").unlink(), "as `twin`, the file of an honest kernel"),
        (lambda d: changed(d, "verdict: wrong_output", "verdict: correct"), "needs most_speedup or most_gain"),
        (lambda d: changed(d, "verdict: wrong_output", "verdict: correct\n# most_gain: 1.2"), "needs a twin that is timed"),
        (lambda d: changed(d, "classes: 1", "classes: 7"), "there is no class 7"),
        (lambda d: changed(d, "# twin", "# fools: everyone\n# twin"), "no evaluator 'everyone'"),
        (lambda d: changed(d, "# twin", "# needs: luck\n# twin"), "only `gpu` can be needed"),
    ],
)
def test_what_is_wrong_with_a_corpus_is_said(corpus: Path, change: Change, said: str) -> None:
    load_corpus(corpus)
    change(corpus)
    with pytest.raises(DatasetError) as error:
        load_corpus(corpus)
    assert said in str(error.value) and str(error.value).count("\n") == 0


def changed(directory: Path, old: str, new: str) -> None:
    path = directory / "c_doubled.py"
    path.write_text(path.read_text().replace(old, new))

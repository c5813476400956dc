"""The report says what an independent script counts in the raw files: every number in its tables, as it is printed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from kernel_env.schema import Episode
from rollout.report import write_report
from rollout.store import RunReader, open_run
from tests.recount import Row, recount
from tests.sample_run import CONFIG, ENVIRONMENT, run_info, save, solved
from tests.synthetic import Recipe, write
from tests.test_report import ASKED, every_kind

EXAMPLE = Path(__file__).parent.parent / "runs" / "example"
_OUTCOMES = re.compile(
    r"Of (\d+) episodes, (\d+) completed, (\d+) could not be scored, (\d+) were cancelled, (\d+) failed by infrastructure, "
    r"(\d+) by the policy, (\d+) did not run"
)


def tables(text: str) -> dict[str, list[Row]]:
    """The rows of every section, without heads."""
    found: dict[str, list[Row]] = {}
    section = ""
    for line in text.splitlines():
        if line.startswith("#"):
            section = line.strip("# ")
        elif line.startswith("| ---"):
            found[section].pop()  # the row before was the head
        elif line.startswith("| "):
            found.setdefault(section, []).append(line[2:-2].split(" | "))
    return found


def assert_counted(run: Path, prices: tuple[float, float] | None = None) -> None:
    text = (run / "reports" / "MULTI_TURN_REPORT.md").read_text()
    counted, reported = recount(run, prices), tables(text)
    reported["All problems"] = [row[:-1] for row in reported.get("All problems", [])]  # the last one is no number
    outcomes = _OUTCOMES.search(text)
    assert outcomes is not None
    reported["outcomes"] = [list(outcomes.groups())]
    speedup = re.search(r"Geometric mean of speedups: (.*?), of the fastest", text)
    assert speedup is not None
    reported["speedup"] = [[speedup[1]]]
    light = re.search(r"Speed-of-light share: (.*?) of the same kernels", text)
    assert light is not None
    reported["light"] = [[light[1]]]
    for section, rows in counted.items():
        assert reported.get(section, []) == rows, section


def test_a_real_run(tmp_path: Path) -> None:
    run = shutil.copytree(EXAMPLE, tmp_path / "example")
    write_report(RunReader(run))
    assert_counted(run)


@pytest.mark.parametrize("seed", range(4))
def test_a_run_with_every_kind_of_failure(seed: int, tmp_path: Path) -> None:
    assert_counted(write(tmp_path, Recipe(seed=seed, failures=0.4)).path, prices=(0.5, 1.5))


def test_a_run_with_one_sample_of_each_kind(tmp_path: Path) -> None:
    assert_counted(written(tmp_path, ASKED, every_kind()))


def test_a_run_that_asks_for_different_numbers_of_samples(tmp_path: Path) -> None:
    asked = ("level1_problem1", "level1_problem1_sample1", "level1_problem1_sample2", "level1_problem2", "level1_problem2_sample1")
    assert_counted(written(tmp_path, asked, [solved(), solved(sample=2)]))


def test_a_run_of_which_nothing_has_ended(tmp_path: Path) -> None:
    assert_counted(written(tmp_path, ASKED, []))


def written(root: Path, asked: tuple[str, ...], episodes: list[Episode]) -> Path:
    with open_run(root, run_info(asked=asked), CONFIG, ENVIRONMENT) as store:
        for ended in episodes:
            save(store, ended)
        write_report(store)
        return store.path


def test_a_number_that_is_wrong_is_found(tmp_path: Path) -> None:
    run = write(tmp_path, Recipe()).path
    report = run / "reports" / "MULTI_TURN_REPORT.md"
    for section, place in (("### fast_p and pass@k", r"(\| 1 \| )\d+"), ("### Best so far", r"(\| Turn 2 \| )\d+")):
        text = report.read_text()
        head, tail = text.split(section)
        report.write_text(head + section + re.sub(place, r"\g<1>77", tail, count=1))
        with pytest.raises(AssertionError, match=section.strip("# ")):
            assert_counted(run, prices=(0.5, 1.5))
        report.write_text(text)

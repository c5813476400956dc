"""The HTML report in a real browser: Debian's chromium without a window, as wide as a desk and as narrow as a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_env.schema import Episode
from rollout.report import write_report
from rollout.store import RunReader
from tests.chromium import CHROMIUM, Page, browser
from tests.sample_run import open_sample, problem, save, solved
from tests.synthetic import Recipe, write
from tests.test_html_report import EVIL, hostile
from tests.test_report import ASKED, judged_run

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
WIDE, NARROW = 1280, 390
WIDTHS = pytest.mark.parametrize("width", [WIDE, NARROW])
ROWS = "[...document.querySelectorAll('#problems tbody tr')].map(row => row.cells[0].textContent)"
TURN = "document.getElementById('turn').open && document.getElementById('turn').dataset.shown"
SECTIONS = "[...document.querySelectorAll('#turn details')].map(d => [d.firstChild.textContent, d.lastChild.textContent])"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture
def page(chromium: Page) -> Iterator[Page]:
    """Nothing in a test may make the browser complain, or ask for anything but the file."""
    chromium.complaints.clear()
    chromium.requests.clear()
    yield chromium
    assert not chromium.complaints
    assert all(url.startswith(("file:", "data:")) for url in chromium.requests)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunReader:
    """Of more problems than one page of the table shows."""
    return write(tmp_path_factory.mktemp("runs"), Recipe(seed=5, problems=30, samples=2, failures=0.2))


@pytest.fixture(scope="module")
def report(run: RunReader) -> Path:
    return run.path / "reports" / "report.html"


def turn_of(episodes: list[Episode]) -> tuple[Episode, int]:
    """One with code in it and in the turn before."""
    return next((e, t.index) for e in episodes for t in e.turns[1:] if t.code and e.turns[t.index - 1].code)


@WIDTHS
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_is_wider_than_the_window(page: Page, report: Path, width: int, dark: bool, tmp_path: Path) -> None:
    page.open(report, width=width, dark=dark)
    page.do("document.querySelectorAll('details').forEach(details => { details.open = true })")
    assert page.do("document.documentElement.scrollWidth") == width
    page.screenshot(tmp_path / "page.png")
    page.do("document.querySelector('button.mark').click()")
    page.until(TURN)
    assert page.do("document.getElementById('turn').scrollWidth <= innerWidth")
    page.screenshot(tmp_path / "turn.png")
    background = page.do("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is not dark


@WIDTHS
def test_a_turn_is_one_click_away(page: Page, run: RunReader, report: Path, width: int) -> None:
    episode, index = turn_of(run.load_episodes())
    turn, before = episode.turns[index], episode.turns[index - 1]
    page.open(report, width=width)
    page.type("#text", f"{episode.problem.key}")
    page.click(f"[data-turn='{episode.key}/{index + 1}']")
    page.until(f"({TURN}) === '{episode.key}/{index + 1}'")
    shown = dict(page.do(SECTIONS))
    assert shown["Reply"] == turn.generation.text
    assert shown["Code"] == turn.code
    assert shown.get("Compiler output and errors", "") == turn.verdict.message
    assert [shown[f"Prompt, message {n} of {len(turn.messages)}: {m['role']}"] for n, m in enumerate(turn.messages, 1)] == [
        message["content"] for message in turn.messages
    ]
    assert before.code and turn.code and "\n" not in before.code.strip() + turn.code.strip(), "of one line, so all of it changed"
    changes = shown[f"Code, changes since turn {before.index + 1}"]
    assert f"- {before.code.strip()}" in changes and f"+ {turn.code.strip()}" in changes
    facts = page.do("document.querySelector('#turn dl').textContent")
    assert turn.verdict.status in facts and f"{turn.reward.value:.3f}" in facts


def test_a_turn_has_an_address_and_back_leaves_it(page: Page, run: RunReader, report: Path) -> None:
    episode, index = turn_of(run.load_episodes())
    page.open(report, width=WIDE, fragment=f"#{episode.key}/{index + 1}")
    page.until(f"({TURN}) === '{episode.key}/{index + 1}'")
    page.click("#turn-nav button")
    page.until(f"({TURN}) === '{episode.key}/1'")
    page.do("history.back()")
    page.until(f"({TURN}) === '{episode.key}/{index + 1}'")
    page.click("#close")
    page.until(f"!({TURN}) && !location.hash")


def test_it_can_be_used_with_a_keyboard_alone(page: Page, run: RunReader, report: Path) -> None:
    page.open(report, width=WIDE)
    page.do("document.querySelector('#problems th button').focus()")
    assert page.do("[...document.querySelectorAll('.samples')].every(s => s.querySelectorAll('.mark[tabindex=\"0\"]').length < 2)")
    for _ in range(6):  # the other columns, then the first turn
        page.press("Tab")
    page.press("ArrowRight")
    second = page.do("document.querySelectorAll('#problems tbody .samples')[0].querySelectorAll('.mark')[1].dataset.turn")
    assert page.do("document.activeElement.dataset.turn") == second
    page.press("Enter")
    page.until(f"({TURN}) === '{second}'")
    page.press("Escape")
    page.until(f"!({TURN})")
    assert page.do("document.activeElement.dataset.turn") == second, "where one was before"
    page.press("Tab")
    assert (
        page.do("document.activeElement.dataset.turn.split('_sample')[0].split('/')[0]") != second.split("_sample")[0].split("/")[0]
    )


def test_the_table_filters_by_text_level_and_status(page: Page, run: RunReader, report: Path) -> None:
    page.open(report, width=WIDE)
    assert len(page.do(ROWS)) == 25
    page.click("#later")
    assert page.do(ROWS) == [f"level1_problem{n}" for n in range(26, 31)]
    page.type("#text", "P3")
    assert page.do(ROWS) == ["level1_problem3", "level1_problem30"]
    page.click("#filters [type=reset]")
    page.until("document.querySelectorAll('#problems tbody tr').length === 25")
    statuses = page.do("[...document.getElementById('status').options].slice(1).map(option => option.value)")
    assert set(statuses) == {t.verdict.status for e in run.load_episodes() for t in e.turns}
    for status in statuses:
        page.choose("#status", status)
        with_it = {e.problem.key for e in run.load_episodes() if any(t.verdict.status == status for t in e.turns)}
        assert page.do("document.getElementById('count').textContent").endswith(f"{len(with_it)} problems (of 30)")
        assert set(page.do(ROWS)) <= with_it
    page.type("#text", "no such problem")
    assert page.do(ROWS) == []


def test_the_table_sorts_by_any_column_with_unknown_values_last(page: Page, report: Path) -> None:
    page.open(report, width=WIDE)
    known = sorted((p["speedup"] for p in page.do("problems") if p["speedup"] is not None), reverse=True)
    assert 0 < len(known) < 30, "some are not known, or nothing is shown of them"
    column = "[...document.querySelectorAll('#problems tbody tr')].map(row => row.cells[4].textContent)"
    page.click("[data-by=speedup] button")
    assert page.do(column) == [*(f"{speedup:.2f}x" for speedup in known), *["–"] * 30][:25]
    assert page.do("document.querySelector('[data-by=speedup]').ariaSort") == "descending"
    page.click("[data-by=speedup] button")
    assert page.do(column) == [*(f"{speedup:.2f}x" for speedup in reversed(known)), *["–"] * 30][:25]
    page.click("[data-by=order] button")
    assert page.do(ROWS)[:3] == ["level1_problem1", "level1_problem2", "level1_problem3"]


def test_levels_can_be_told_apart(page: Page, tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved(problem(1, level=2)))
        write_report(store)
        page.open(store.path / "reports" / "report.html", width=WIDE)
    page.choose("#level", "2")
    assert page.do(ROWS) == ["level2_problem1"]


@WIDTHS
def test_whatever_others_wrote_does_nothing(page: Page, tmp_path: Path, width: int) -> None:
    page.open(hostile(tmp_path) / "reports" / "report.html", width=width)
    page.do("document.querySelectorAll('details').forEach(details => { details.open = true })")
    for number, where in ((1, "#problems"), (2, "#turn-nav")):
        page.click(f"{where} [data-turn='level1_problem1/{number}']")
        page.until(f"({TURN}) === 'level1_problem1/{number}'")
        assert dict(page.do(SECTIONS))["Reply"] == EVIL
    assert page.do("document.querySelectorAll('img').length") == 0
    assert page.do("typeof window.hit") == "undefined"
    assert page.do("document.documentElement.scrollWidth") == width


def test_a_script_that_was_let_in_would_be_refused(chromium: Page, report: Path) -> None:
    """The fence behind the escaping: were there markup, it could not run."""
    chromium.open(report, width=WIDE)
    chromium.do("document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,\" onerror=\"window.hit = 1\">')")
    for _ in range(50):
        chromium.do("new Promise(done => setTimeout(done, 10))")
        if any("Content Security Policy" in complaint for complaint in chromium.complaints):
            break
    else:
        pytest.fail("nothing was refused")
    assert chromium.do("typeof window.hit") == "undefined"


def test_a_difference_makes_the_new_code_of_the_old(page: Page, report: Path) -> None:
    page.open(report, width=WIDE)
    numbers = list(map(str, range(40)))
    texts = ["", "a", "a\nb\nc", "b\nc\nd", "x\na\nb\nb\nc", "\n".join(numbers), "\n".join([*numbers[:20], "7", *numbers[22:]])]
    for before in texts:
        for after in texts:
            lines = page.do(f"changes({json.dumps(before)}.split('\\n'), {json.dumps(after)}.split('\\n'))")
            assert "\n".join(text for sign, text in lines if sign != "+") == before
            assert "\n".join(text for sign, text in lines if sign != "-") == after
    folded = page.do(f"difference({json.dumps(texts[-2])}, {json.dumps(texts[-1])}).textContent")
    assert "… 17 lines are the same" in folded and "- 20" in folded and "+ 7" in folded


def test_samples_that_did_not_run_are_named(page: Page, tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        save(store, solved())
        write_report(store)
        page.open(store.path / "reports" / "report.html", width=NARROW)
    assert page.do("[...document.querySelectorAll('.sample small')].map(e => e.textContent)") == ["not run"] * 4


@WIDTHS
def test_the_picture_of_reward_sources_is_seen(page: Page, width: int, tmp_path: Path) -> None:
    with open_sample(tmp_path, asked=ASKED) as store:
        for ended in judged_run():
            save(store, ended)
        page.open(write_report(store).with_name("report.html"), width=width)
    page.do("document.querySelector('details.numbers').open = true")
    page.until("document.querySelector('img').naturalWidth > 0")
    assert page.do("document.querySelector('img').getBoundingClientRect().right <= innerWidth")

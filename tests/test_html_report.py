"""The HTML report as a file: what is in it, that its numbers are those of the Markdown report, and that texts are never markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from kernel_env.schema import Episode, Status, StopReason, Turn
from rollout.documents import RunInfo, summarize, without_texts
from rollout.html_report import MARKS, packed
from rollout.markdown import number, share
from rollout.metrics import by_turn, grouped, measure
from rollout.report import report_text, write_report
from rollout.store import RunReader, open_run
from tests import synthetic
from tests.recount import load
from tests.recount import speedup as raw_speedup
from tests.sample_run import CONFIG, ENVIRONMENT, open_sample, problem, run_info, save, solved, turn
from tests.synthetic import Recipe
from tests.test_recount import tables

EVIL = '</script></pre><img src=x onerror="window.hit=1"><script>window.hit=2</script>\'"&amp;<!--\ud800é'


class Markup(HTMLParser):
    """Tables as rows of cells, scripts by their id, titles of points, and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.scripts: dict[str, str] = {}
        self.titles: list[str] = []
        self.text = ""
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self._open = ""
        self._script = ""
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open, self._script = tag, dict(attrs).get("id") or "" if tag == "script" else ""
        self.tags[tag] += 1
        self.attributes += attrs
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        self._open = ""
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
        elif self._open == "title":
            self.titles.append(data)
        elif self._cell:
            self.tables[-1][-1][-1] += data
        self.text += "" if self._open in ("script", "style") else data


def written(path: Path) -> str:
    return (path / "reports" / "report.html").read_text()


def unpacked(block: str) -> Any:
    return json.loads(zlib.decompress(base64.b64decode(block), -zlib.MAX_WBITS))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunReader:
    """With every way to fail."""
    return synthetic.write(tmp_path_factory.mktemp("runs"), Recipe(seed=3, failures=0.4))


@pytest.fixture(scope="module")
def page(run: RunReader) -> Markup:
    return Markup(written(run.path))


def hostile(root: Path) -> Path:
    """A run in which everything that others write is an attack."""
    posed = replace(problem(), name=EVIL)
    turns = tuple(evil(index, posed.key, posed.digest) for index in range(2))
    ended = Episode(posed, 0, turns, StopReason.INFRA_ERROR, EVIL)
    info = RunInfo("<img src=x onerror=window.hit=3>", EVIL, 7, (ended.key,), 3, gamma=0.4, correct_reward=1.0)
    with open_run(root, info, CONFIG, {EVIL: EVIL}) as store:
        save(store, ended)
        write_report(store)
        return store.path


def evil(index: int, key: str, digest: str) -> Turn:
    made = turn(index, Status.BUILD_ERROR, 0.0, text=EVIL, category=EVIL, feedback=EVIL)
    verdict = replace(made.verdict, problem=key, problem_digest=digest, message=EVIL, log=EVIL, backend=EVIL, tolerance=EVIL)
    generation = replace(made.generation, reasoning=EVIL, model=EVIL)
    messages = (*made.messages, {"role": EVIL, "content": EVIL})
    return replace(made, verdict=verdict, generation=generation, messages=messages, code=f"{EVIL}\n{index}")


# ------------------------------------------------------------------ structure


def test_it_needs_nothing_else(run: RunReader, page: Markup) -> None:
    assert not {"img", "iframe", "object", "base"} & set(page.tags)
    assert {name for name, _ in page.attributes}.isdisjoint({"src", "srcset", "action", "onclick", "onload", "onerror"})
    assert [value for name, value in page.attributes if name == "href"] == ["data:,"], "the icon that browsers would look for"
    assert not re.search(r"https?:|url\(|@import", written(run.path))


def test_no_script_may_run_but_its_own(page: Markup) -> None:
    policy = next(value or "" for name, value in page.attributes if name == "content" and "default-src" in (value or ""))
    assert policy.startswith("default-src 'none';")
    allowed = re.findall(r"script-src 'sha256-(\S+)'", policy)
    digest = hashlib.sha256(page.scripts[""].encode()).digest()
    assert allowed == [base64.b64encode(digest).decode()]


def test_the_same_run_gives_the_same_bytes(run: RunReader) -> None:
    before = written(run.path)
    write_report(RunReader(run.path))
    assert written(run.path) == before


def test_every_status_has_a_sign_of_its_own() -> None:
    assert set(MARKS) == set(Status)
    assert len({sign for sign, _ in MARKS.values()}) == len(MARKS)


def test_a_run_of_which_nothing_has_ended(tmp_path: Path) -> None:
    with open_sample(tmp_path) as store:
        write_report(store)
        found = Markup(written(store.path))
    assert [p["key"] for p in json.loads(found.scripts["index"])["problems"]] == [
        "level1_problem1",
        "level1_problem2",
        "level1_problem10",
        "level2_problem1",
    ]


def test_mixed_runs_have_no_metrics_and_say_so(tmp_path: Path) -> None:
    other = solved(problem(2))
    with open_sample(tmp_path) as store:
        save(store, solved())
        save(store, replace(other, turns=tuple(replace(t, verdict=replace(t.verdict, profile="cpu")) for t in other.turns)))
        write_report(store)
        text = written(store.path)
    assert "no metrics over mixed size profiles" in text
    assert "<h3>fast_p</h3>" not in text and "<h3>Error flow</h3>" in text


# ------------------------------------------------------------------ numbers


def test_the_numbers_are_those_of_the_markdown_report(run: RunReader, page: Markup) -> None:
    told = tables((run.path / "reports" / "MULTI_TURN_REPORT.md").read_text())
    told.pop("All problems")
    rows = [row for each in page.tables for row in each]
    for section, expected in told.items():
        for row in expected:
            assert [cell.replace("\\|", "|") for cell in row] in rows, section


def test_texts_are_in_no_number(run: RunReader) -> None:
    whole = run.load_episodes()
    bare = list(map(without_texts, whole))
    assert report_text(run.info, {}, bare) == report_text(run.info, {}, whole)
    assert summarize(bare, run.info) == summarize(whole, run.info)


def test_figures_show_the_metrics_and_their_intervals(run: RunReader, page: Markup) -> None:
    episodes = run.load_episodes()
    metrics, groups = measure(run.info.asked, episodes), grouped(run.info.asked, episodes)
    for f in metrics.fast_p:
        assert f"fast_{f.p:g}: {share(f.asked)}" in page.titles
    for place in (1, 2, 3):
        best = by_turn(groups, place)
        assert f"best by turn {place}: {number(best.reward)}, {best.reward.of} of {metrics.samples} samples scored" in page.titles
    assert metrics.fast_p[0].asked.low is not None, "else no interval was looked for"
    bars = [int(title.rpartition(" ")[2]) for title in page.titles if re.match(r"\d\S* (to|and) ", title)]
    assert sum(bars) == metrics.speedup.of > 0


def test_captions_say_what_the_numbers_are_of(run: RunReader, page: Markup) -> None:
    metrics = measure(run.info.asked, run.load_episodes())
    assert f"of all {metrics.problems} problems asked for, with the 95% interval" in page.text
    assert f"{metrics.speedup.of} samples (of {metrics.samples}) with a timed one" in page.text
    assert f"of {metrics.samples:,} asked for" in page.text


def test_the_flow_counts_every_turn_that_has_a_next_or_an_end(run: RunReader, page: Markup) -> None:
    samples = [sample for group in load(run.path).values() for sample in group]
    flows = [each for each in page.tables if each and each[0][0].startswith("turn ")]
    assert len(flows) == 2
    for place, (heads, *rows) in enumerate(flows):
        counted: Counter[tuple[str, str]] = Counter()
        for sample in samples:
            statuses = [turn["verdict"]["status"] for turn in sample["turns"]] + [sample["end"]]
            if len(sample["turns"]) > place:
                counted[statuses[place], statuses[place + 1]] += 1
        shown = {(row[0], head): int(cell) for row in rows for head, cell in zip(heads[1:-1], row[1:-1], strict=True) if cell}
        assert shown == counted
        assert sum(int(row[-1]) for row in rows) == sum(counted.values())


def test_the_table_of_problems_agrees_with_the_raw_files(run: RunReader, page: Markup) -> None:
    shown = {p["key"]: p for p in json.loads(page.scripts["index"])["problems"]}
    raw = load(run.path)
    assert list(shown) == list(raw)
    for key, group in raw.items():
        best = [max(map(raw_speedup, sample["turns"]), default=0.0) for sample in group]
        rewards = [t["reward"]["value"] for sample in group for t in sample["turns"] if t["reward"]["value"] is not None]
        found = shown[key]
        assert found["correct"] == sum(any(t["verdict"]["status"] == "correct" for t in sample["turns"]) for sample in group)
        assert found["fast"] == sum(speedup > 1 for speedup in best)
        assert (found["speedup"] or 0.0) == round(max(best), 2)
        assert found["reward"] == (round(max(rewards), 3) if rewards else None)
        assert [(s["key"], [t[:2] for t in s["turns"]]) for s in found["samples"]] == [
            (sample["key"], [[t["verdict"]["status"], rounded(t["reward"]["value"])] for t in sample["turns"]]) for sample in group
        ]


def rounded(reward: float | None) -> float | None:
    return None if reward is None else round(reward, 3)


def test_a_number_between_two_is_rounded_as_in_the_markdown_report(tmp_path: Path) -> None:
    even = turn(0, Status.CORRECT, 1.1875, speedup=1.125)  # a browser writes 1.188 and 1.13
    with open_run(tmp_path, run_info(asked=("level1_problem1",)), CONFIG, ENVIRONMENT) as store:
        save(store, Episode(problem(), 0, (even,), StopReason.TURN_LIMIT))
        write_report(store)
        (found,) = json.loads(Markup(written(store.path)).scripts["index"])["problems"]
        assert "1.12x [" in (store.path / "reports" / "MULTI_TURN_REPORT.md").read_text()
    assert (found["speedup"], found["reward"], found["samples"][0]["turns"][0][1:]) == (1.12, 1.188, [1.188, 1.12])


# ------------------------------------------------------------------ texts


def test_every_turn_is_there_with_all_of_its_texts(run: RunReader, page: Markup) -> None:
    episodes = run.load_episodes()
    assert set(page.scripts) == {"", "index", *(e.key for e in episodes)}
    for episode in episodes:
        data = unpacked(page.scripts[episode.key])
        texts = data["texts"]
        for shown, played in zip(data["turns"], episode.turns, strict=True):
            assert [(role, texts[text]) for role, text in shown["shown"]] == [(m["role"], m["content"]) for m in played.messages]
            assert texts[shown["reply"]] == played.generation.text
            assert (None if shown["code"] is None else texts[shown["code"]]) == played.code
            assert (texts[shown["message"]], texts[shown["log"]]) == (played.verdict.message, played.verdict.log)
            assert texts[shown["feedback"]] == (played.feedback or "")
            assert dict(shown["facts"])["Status"].startswith(played.verdict.status)


def test_a_text_that_is_shown_again_is_kept_once() -> None:
    texts = unpacked(packed(solved()))["texts"]
    assert len(texts) == len(set(texts))


def test_whatever_others_wrote_is_text_and_not_markup(tmp_path: Path) -> None:
    path = hostile(tmp_path)
    markup = Markup(written(path))
    assert "onerror" not in {name for name, _ in markup.attributes} and "img" not in markup.tags
    assert markup.tags["script"] == 3, "index, one episode, and the page's own"
    assert markup.scripts[""].count("window.hit") == 0
    data = unpacked(markup.scripts["level1_problem1"])
    assert data["texts"][data["turns"][0]["reply"]] == EVIL
    assert json.loads(markup.scripts["index"])["problems"][0]["name"] == EVIL


def test_a_template_in_a_text_is_not_filled_in(tmp_path: Path) -> None:
    posed = replace(problem(), name="<!--index-->/*script*/")
    with open_run(tmp_path, run_info(asked=(posed.key,)), CONFIG, ENVIRONMENT) as store:
        save(store, solved(posed))
        write_report(store)
        found = Markup(written(store.path))
    assert json.loads(found.scripts["index"])["problems"][0]["name"] == posed.name

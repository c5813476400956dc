"""`kernel-env arena show`: what it prints and writes, what it warns of, and that no order matters."""

from __future__ import annotations

import csv
import json
import random
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from kernel_env.errors import ConfigError, DatasetError
from rollout.arena.picture import picture
from rollout.arena.records import Match
from rollout.arena.show import read_arena, show
from rollout.arena.standings_text import by_rank, standings_csv
from tests.arena_games import BASELINE, JUDGE, correct, drawn, fair, match, three_models, write

FILES = ("standings.csv", "standings.html", "standings.md", "standings.svg")
Shown = tuple[Path, str]


def shown(root: Path, by_model: Mapping[str, Sequence[Match]], capsys: pytest.CaptureFixture[str]) -> Shown:
    """The folder of the judge, and what was printed."""
    folder = write(root, by_model)
    assert show(root) == 0
    return folder, capsys.readouterr().out


def by_model(matches: Sequence[Match]) -> dict[str, list[Match]]:
    return {name: [one for one in matches if one.model == name] for name in sorted({one.model for one in matches})}


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "standings.csv").open() as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def words(text: str) -> str:
    return " ".join(text.split())


def tables(markdown: str) -> dict[str, list[list[str]]]:
    """By the heading above each: its rows."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in markdown.splitlines():
        heading = line[3:] if line.startswith("## ") else heading
        if line.startswith("| ") and not line.startswith("| ---"):
            found.setdefault(heading, []).append([cell.strip() for cell in line[2:-2].split(" | ")])
    return found


def test_three_models_are_shown_in_the_obvious_order_in_both_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = shown(tmp_path, three_models(), capsys)
    found = tables((folder / "standings.md").read_text())
    assert [row[:2] for row in found[f"By the judge {JUDGE}"][1:]] == [
        ["1", "fast"],
        ["2", f"{BASELINE} (baseline)"],
        ["3", "half"],
        ["4", "slow"],
    ]
    assert [row[1] for row in found["By the clock"][1:]] == ["fast", "half", f"{BASELINE} (baseline)", "slow"]
    judged, measured = out.split("By the clock")
    assert re.findall(r"^ *\d +(\w+)", judged, re.M) == ["fast", BASELINE, "half", "slow"]
    assert re.findall(r"^ *\d +(\w+)", measured, re.M) == ["fast", "half", BASELINE, "slow"]
    assert "The standings rest on 120 of 120 games (0 are null), two of each of 60 matches on 20 problems." in words(out)
    assert "50 of 60 (83.3%) matches were judged" in words(out)


def test_the_order_of_files_and_lines_changes_no_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = by_model(drawn((0.4, -0.3, 1.0), 30, 3, slopes=(0.5, 0.2)))
    first, out = shown(tmp_path / "a", files, capsys)
    rng = random.Random(0)
    other = {name: rng.sample(files[name], len(files[name])) for name in reversed(files)}
    second, again = shown(tmp_path / "b", other, capsys)
    assert again.replace(str(second), str(first)) == out
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_showing_again_changes_no_byte(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = shown(tmp_path, three_models(), capsys)
    before = {name: (folder / name).read_bytes() for name in FILES}
    assert show(tmp_path) == 0 and capsys.readouterr().out == out
    assert {name: (folder / name).read_bytes() for name in FILES} == before


def test_a_judge_that_always_says_a_gets_a_warning_and_no_ranking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    always = {
        name: [replace(one, games=match(name, 1, ("A>B", "A>B")).games) if one.decided == "judge" else one for one in matches]
        for name, matches in three_models().items()
    }
    folder, out = shown(tmp_path, always, capsys)
    assert "warning: the judge contradicts itself in each of 50 matches" in words(out)
    assert "There is no ranking by it." in words((folder / "standings.md").read_text())
    found = tables((folder / "standings.md").read_text())
    assert [(row[0], row[3], row[7]) for row in found[f"By the judge {JUDGE}"][1:]] == [
        ("–", "–", "0.0% of 20"),
        ("–", "–", "0.0% of 10"),
        ("–", "–", "0.0% of 20"),
    ]
    assert [row[0] for row in found["By the clock"][1:]] == ["1", "2", "2", "4"]
    assert {(row["rank"], row["strength"], row["consistency"]) for row in rows(folder).values()} == {("", "", "0.000000")}


def test_a_judge_that_mostly_contradicts_itself_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    matches = [match("m", number, fair("A>B") if number < 3 else ("A>B", "A>B")) for number in range(10)]
    _, out = shown(tmp_path, {"m": matches}, capsys)
    assert "warning: the judge agrees with itself in only 30.0%" in words(out)


def test_null_games_are_listed_and_the_table_says_what_it_stands_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = three_models()
    lost = replace(files["fast"][0].games[0], score=None, error="judge_unreachable: nobody listens at\nport 1")
    files["fast"][0] = replace(files["fast"][0], games=(lost, files["fast"][0].games[1]))
    files["slow"][3] = match("slow", 4, (None, None))
    folder, out = shown(tmp_path, files, capsys)
    assert "rest on 117 of 120 games (3 are null)" in words(out)
    assert "warning: 3 games are null and count nowhere" in words(out)
    found = tables((folder / "standings.md").read_text())
    assert found["Null games"][1:] == [["fast", "judge_unreachable", "1"], ["slow", "judge_bad_reply", "2"]]
    games = {row[1]: row[8:] for row in found[f"By the judge {JUDGE}"][1:]}
    assert (games["fast"], games["slow"], games["half"]) == (["39 of 40", "1"], ["38 of 40", "2"], ["40 of 40", "0"])


def test_what_is_written_in_each_form_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = shown(tmp_path, by_model(drawn((0.4, -0.3), 40, 5, slopes=(0.5, 0.2))), capsys)
    found = tables((folder / "standings.md").read_text())
    page = (folder / "standings.html").read_text()
    for row in found[f"By the judge {JUDGE}"][1:]:
        assert all(f"<td>{cell.replace('>', '&gt;')}</td>" in page for cell in row)
        if "baseline" in row[1]:
            continue
        numbers = rows(folder)[row[1]]
        low, high = float(numbers["strength_low_90"]), float(numbers["strength_high_90"])
        assert row[3:5] == [f"{float(numbers['strength']):+.2f}", f"[{low:+.2f}, {high:+.2f}]"]
        assert row[0] == numbers["rank"] and row[2].startswith(f"{100 * float(numbers['win_rate']):.1f}% [")
        assert float(numbers["strength_low_95"]) <= low <= float(numbers["strength"]) <= high <= float(numbers["strength_high_95"])


def test_the_page_needs_nothing_else_and_has_the_picture_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = shown(tmp_path, three_models(), capsys)
    sources = []

    class Sources(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link")
            sources.extend(value or "" for name, value in attrs if name in ("src", "href"))

    Sources().feed((folder / "standings.html").read_text())
    assert len(sources) == 1 and sources[0].startswith("data:image/svg+xml;base64,")
    assert "![" in (folder / "standings.md").read_text() and "](standings.svg)" in (folder / "standings.md").read_text()


def test_the_picture_has_a_row_a_model_and_marks_what_is_infinite(tmp_path: Path) -> None:
    arena, _ = read_arena(write(tmp_path, three_models()))
    drawing = ElementTree.fromstring(picture(arena, by_rank(arena, "judge")))
    titles = [found.text for found in drawing.iter("{http://www.w3.org/2000/svg}title")]
    assert [title for title in titles if title and "judge:" in title] == [
        "fast, judge: inf",
        "half, judge: -1.099",
        "slow, judge: -inf",
    ]
    places = [float(circle.attrib["cx"]) for circle in drawing.iter("{http://www.w3.org/2000/svg}circle")]
    assert all(0 <= place <= 780 for place in places)


def test_who_wins_everything_is_said_to_have_no_finite_strength(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = shown(tmp_path, three_models(), capsys)
    assert "warning: by the judge fast, slow won all or nothing: no finite strength fits best" in words(out)
    assert rows(folder)["fast"]["strength"] == "inf" and rows(folder)["fast"]["strength_low_90"] == ""
    assert tables((folder / "standings.md").read_text())[f"By the judge {JUDGE}"][1][3:5] == ["+∞", "–"]


def test_models_that_met_other_problems_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = three_models()
    _, out = shown(tmp_path, files | {"half": files["half"][:15]}, capsys)
    assert "warning: not all models met the same problems: fewer than 20 have half." in words(out)


def test_a_line_cut_off_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path, three_models())
    with (folder / "fast.jsonl").open("a") as file:
        file.write('{"uid": "level1_prob')
    assert show(tmp_path) == 0
    assert "warning: the last line of fast.jsonl has no end and is left out" in words(capsys.readouterr().out)


def test_older_files_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "arena" / "some-judge"
    folder.mkdir(parents=True)
    for name, labels in (("good", ["[[B]]", "[[A]]"]), ("bad", ["[[A>>B]]", "[[B>A]]"])):
        lines = [{"question_id": f"q{n}", "games": [{"judgment": label} for label in labels]} for n in range(5)]
        lines.append({"question_id": "q9", "games": [{"judgment": "[[A=B]]"}, {"judgment": "no idea"}]})
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert show(tmp_path) == 0
    out = words(capsys.readouterr().out)
    assert "rest on 22 of 24 games" in out and "12 matches have no word of the clock" in out
    assert "No strength at equal style: of 12 judged matches the kernels are not known." in out
    assert [row["rank"] for row in rows(folder).values()] == ["1", "3"]
    assert rows(folder)["good"]["clock_rank"] == rows(folder)["good"]["clock_strength"] == ""


def test_names_that_are_markup_are_shown_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "[red]<b>|x&](y)"
    matches = [match(name, number, fair("A>B"), category="<i>", judge="[j]") for number in range(3)]
    folder = write(tmp_path, {"m": [*matches, match(name, 9, fair("B>A"), category="|", judge="[j]")]})
    assert show(tmp_path) == 0
    assert name in capsys.readouterr().out
    page = (folder / "standings.html").read_text()
    assert "<td>[red]&lt;b&gt;|x&amp;](y)</td>" in page and "<b>" not in page and "<i>" not in page
    assert ElementTree.fromstring((folder / "standings.svg").read_text()) is not None
    assert list(rows(folder)) == [name]


def test_judges_are_shown_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, {"m": [match("m", 1, fair("A>B"), judge="one"), match("m", 2, fair("B>A"), judge="one")]})
    write(tmp_path, {"m": [match("m", 1, fair("A>B"), judge="two")]})
    (tmp_path / "arena" / "logs").mkdir()
    assert show(tmp_path) == 0
    assert re.findall(r"Judge (\w+)\.", capsys.readouterr().out) == ["one", "two"]
    assert show(tmp_path, "two") == 0
    assert re.findall(r"Judge (\w+)\.", capsys.readouterr().out) == ["two"]
    with pytest.raises(ConfigError, match="no judgments of the judge three: there are those of one, two"):
        show(tmp_path, "three")


def test_where_nothing_is_judged_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="arena run"):
        show(tmp_path)
    (tmp_path / "arena" / "j").mkdir(parents=True)
    (tmp_path / "arena" / "j" / "m.jsonl").write_text('{"uid": ')
    with pytest.raises(ConfigError, match="no whole judgment yet"):
        show(tmp_path)


def test_one_match_in_two_files_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, three_models())
    shutil.copy(folder / "fast.jsonl", folder / "copy.jsonl")
    with pytest.raises(ConfigError, match="judgments of fast on level1_problem1, and so has another file"):
        show(tmp_path)


def test_a_broken_line_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    folder = write(tmp_path, three_models())
    (folder / "half.jsonl").write_text('{"uid": \n')
    with pytest.raises(DatasetError, match=r"half\.jsonl, line 1"):
        show(tmp_path)
    assert not any((folder / name).exists() for name in FILES)


def test_every_line_of_the_csv_has_every_column(tmp_path: Path) -> None:
    matches = [match("none", 1, (None, None), ours=None), *drawn((0.2,), 12, 1), match("m0", 40, fair("A>B"), ours=correct(None))]
    arena, _ = read_arena(write(tmp_path, by_model(matches)))
    lines = list(csv.reader(standings_csv(arena).splitlines()))
    assert {len(line) for line in lines} == {len(lines[0])} and len(set(lines[0])) == len(lines[0]) and len(lines) == 3

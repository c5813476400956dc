"""Files of judgments: what was written is read again, the older form too, and a bad line is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import DatasetError
from kernel_env.schema import dumps, to_json
from rollout.arena.reader import judgment_files, read_judgments
from rollout.arena.records import LABELS, Game, Match
from tests.arena_games import PLAIN, correct, drawn, fair, match, wrong

MATCHES = (
    match("m", 1, ("B>A", "A>B")),
    match("m", 2, (None, "A=B"), ours=correct(None), theirs=wrong()),
    match("m", 3, fair("A>>B"), ours=None, theirs=None, category="fusion", decided="correctness"),
)


def written(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def older(*judgments: str, **more: Any) -> dict[str, Any]:
    return {"question_id": "q1", "games": [{"judgment": text} for text in judgments], **more}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    for matches in (MATCHES, tuple(drawn((0.5,), 20, 1))):
        found = read_judgments(written(tmp_path / "m.jsonl", *map(dumps, matches)))
        assert found.matches == matches and not found.cut_off


def test_texts_are_left_out_where_nobody_wants_them(tmp_path: Path) -> None:
    found = read_judgments(written(tmp_path / "m.jsonl", *map(dumps, MATCHES)), texts=False).matches
    assert [game.score for one in found for game in one.games] == [game.score for one in MATCHES for game in one.games]
    assert {(game.judgment, game.prompt) for one in found for game in one.games} == {("", "")}
    assert found[1].games[0].error and found[0].model_kernel == PLAIN


def test_of_two_lines_of_one_uid_the_last_one_counts(tmp_path: Path) -> None:
    again = replace(MATCHES[1], games=match("m", 2, ("A>B", "A=B")).games)
    found = read_judgments(written(tmp_path / "m.jsonl", *map(dumps, (*MATCHES, again))))
    assert found.matches == (MATCHES[0], again, MATCHES[2])


def test_a_last_line_without_an_end_is_left_out_and_said(tmp_path: Path) -> None:
    """Wherever its writer was killed, and be it just before the end of the line."""
    lines = "".join(f"{dumps(one)}\n" for one in MATCHES).encode()
    path = tmp_path / "m.jsonl"
    for cut in (1, 2, 50, len(dumps(MATCHES[2]).encode())):
        path.write_bytes(lines[:-cut])
        found = read_judgments(path)
        assert found.matches == MATCHES[:2] and found.cut_off


def test_an_empty_file_has_no_judgments(tmp_path: Path) -> None:
    found = read_judgments(written(tmp_path / "m.jsonl"))
    assert found.matches == () and not found.cut_off


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"uid": "level1_prob', "Invalid control character"),
        ("", "Expecting value"),
        ("[1, 2]", "expected an object"),
        ("[" * 100_000, "recursion"),
        ("{}", "missing field"),
        ('{"question_id": 7, "games": []}', "question_id is no text"),
        ('{"question_id": "q", "games": [1]}', "no list of games"),
        ('{"question_id": "q", "games": [{}, {}, {}]}', "3 games instead of 2"),
        (dumps(MATCHES[0]).replace('"A>B"', '"A>C"', 1), "'A>C' is not one of"),
        (json.dumps(to_json(MATCHES[0]) | {"games": [to_json(MATCHES[0].games[0])]}), "1 games instead of 2"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, fault: str) -> None:
    path = written(tmp_path / "m.jsonl", dumps(MATCHES[0]), line, dumps(MATCHES[2]))
    with pytest.raises(DatasetError, match="line 2 is no judgment") as raised:
        read_judgments(path)
    assert fault in str(raised.value) and str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_bytes_that_are_no_text_are_a_broken_line(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"uid": "\xff"}\n')
    with pytest.raises(DatasetError, match="line 1 is no judgment"):
        read_judgments(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        read_judgments(tmp_path / "none.jsonl")


def test_the_files_of_a_judge_are_the_whole_ones(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", ".b.jsonl", "standings.csv", ".c.jsonl.tmp"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jsonl").mkdir()
    assert [path.name for path in judgment_files(tmp_path)] == ["a.jsonl", "b.jsonl"]


# ------------------------------------------------------------------ the older form


@pytest.mark.parametrize(
    ("text", "score"),
    [
        *((f"[[{label}]]", label) for label in LABELS),
        ("[[A]]", "A>B"),
        ("[[B]]", "B>A"),
        ("My final verdict is: [[A>B]]. I repeat: [[A>B]]", "A>B"),
        ("[[A>B]] or rather [[B>A]]", None),
        ("[[B=A]]", None),
        ("A>B", None),
        ("", None),
    ],
)
def test_an_older_judgment_has_its_label(tmp_path: Path, text: str, score: str | None) -> None:
    (found,) = read_judgments(written(tmp_path / "m.jsonl", older(text, "[[A=B]]"))).matches
    first, second = found.games
    assert (first.score, first.judgment) == (score, text)
    assert (first.error == "") == (score is not None)
    assert second.score == "A=B"


def test_an_older_line_takes_from_the_path_what_it_does_not_say(tmp_path: Path) -> None:
    path = tmp_path / "arena" / "some-judge" / "some-model.jsonl"
    found = read_judgments(written(path, older("[[A]]", "[[B]]"), older("[[A>>B]]", "[[A>>B]]", question_id="q2"))).matches
    assert found[0] == Match(
        *("q1", "q1", "unknown", "some-judge", "some-model", "unknown", "judge"),
        games=(Game("A>B", "[[A]]"), Game("B>A", "[[B]]")),
    )
    assert [one.uid for one in found] == ["q1", "q2"]


def test_an_older_line_may_say_more(tmp_path: Path) -> None:
    line = older("[[A]]", "[[B]]", model="m2", judge="j2", baseline="b2", category="matmul", answer_id="x")
    (found,) = read_judgments(written(tmp_path / "m.jsonl", line)).matches
    assert (found.model, found.judge, found.baseline, found.category) == ("m2", "j2", "b2", "matmul")


def test_an_older_game_that_was_not_played_is_null(tmp_path: Path) -> None:
    (found,) = read_judgments(written(tmp_path / "m.jsonl", older("[[A]]"))).matches
    assert found.games[1] == Game(None, error="not played") and not found.whole

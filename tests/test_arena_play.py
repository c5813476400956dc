"""Matches are played in both orders, are durable when they are over, and are never played twice."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from kernel_env.errors import ConfigError, InfraError, JudgeError
from rollout.arena import play as playing
from rollout.arena.comparing import Judgment, Question
from rollout.arena.matches import opened, read_matches
from rollout.arena.pairing import Pairing
from rollout.arena.play import Count, play
from rollout.arena.records import Game
from rollout.cli import main
from tests.arena_scene import BETTER, GOOD, Made, Scripted, pairing, write_run
from tests.chat_server import ChatServer

REPOSITORY = Path(__file__).parents[1]
SIX = [Made(code=BETTER), Made(None), *[Made(code=BETTER)] * 4]
"""A model with five correct kernels: all five are judged against those of a baseline that is always right."""


@pytest.fixture
def made(tmp_path: Path) -> Pairing:
    return pairing(tmp_path / "runs", SIX, [Made()] * 6)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.jsonl"


def played(made: Pairing, path: Path, judge: object = None, concurrency: int = 1) -> Count:
    return asyncio.run(play(made, judge or Scripted(), path, concurrency=concurrency))  # type: ignore[arg-type]


# ------------------------------------------------------------------ games


def test_each_problem_is_two_games_in_both_orders(made: Pairing, path: Path) -> None:
    judge = Scripted()
    assert played(made, path, judge) == Count(6, 12, 0)
    assert len(judge.asked) == 10, "correctness decided one of six"
    assert [(q.uid, q.a == GOOD, q.b == GOOD) for q in judge.asked[:2]] == [
        ("level1_problem1", True, False),
        ("level1_problem1", False, True),
    ]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["uid"] for line in lines] == list(made.matches)
    assert lines[0]["games"][0] == {"score": "A>B", "judgment": "Because.\n[[A>B]]", "prompt": "the prompt", "error": ""}
    assert (lines[1]["decided"], [game["score"] for game in lines[1]["games"]]) == ("correctness", ["A>>B", "B>>A"])
    assert read_matches(path) == {match.uid: match for match in read_matches(path).values()}


def test_what_is_whole_is_never_asked_for_again(made: Pairing, path: Path) -> None:
    played(made, path)
    before, judge = path.stat(), Scripted("B>A")
    assert played(made, path, judge) == Count(6, 12, 0)
    now = path.stat()
    assert judge.asked == [] and (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "nothing was written"


def test_only_games_without_a_verdict_are_asked_for_again(made: Pairing, path: Path) -> None:
    assert played(made, path, Scripted(fails=[1, 4, 5])) == Count(6, 9, 3, "out of order")
    nulls = [(uid, n) for uid, match in read_matches(path).items() for n, game in enumerate(match.games) if game.score is None]
    assert nulls == [("level1_problem1", 1), ("level1_problem4", 0), ("level1_problem4", 1)]
    judge = Scripted("A=B")
    assert played(made, path, judge) == Count(6, 12, 0)
    assert [(q.uid, q.a == GOOD) for q in judge.asked] == [(uid, n == 0) for uid, n in nulls]
    assert [match.games[0].score for match in read_matches(path).values()] == ["A>B", "A>>B", "A>B", "A=B", "A>B", "A>B"]
    assert len(path.read_text().splitlines()) == 6, "the line was replaced"


def test_words_without_a_verdict_are_kept_and_are_no_score(made: Pairing, path: Path) -> None:
    class Vague(Scripted):
        async def compare(self, question: Question) -> Judgment:
            return Judgment("A, I guess", "p")

    assert played(made, path, Vague()).null_games == 10
    game = read_matches(path)["level1_problem1"].games[0]
    assert game == Game(None, "A, I guess", "p", "no verdict: its final line holds no verdicts: 'A, I guess'")


def test_a_judge_that_is_out_of_order_is_left_alone(made: Pairing, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playing, "GIVE_UP", 4)
    judge = Scripted(fails=range(100))
    with pytest.raises(JudgeError, match="scripted gave no verdict 4 times in a row: out of order"):
        played(made, path, judge)
    assert len(judge.asked) == 4 and len(read_matches(path)) == 3, "what was over is kept"
    judge = Scripted(fails=[n for n in range(100) if n % 4])
    played(made, path, judge)
    assert len(judge.asked) == 10, "never four in a row"


def test_many_matches_are_in_flight_and_the_finished_file_is_in_order(made: Pairing, path: Path) -> None:
    class Last(Scripted):
        """Whoever is asked first answers last."""

        all_asked = asyncio.Event()
        waiting = 0

        async def compare(self, question: Question) -> Judgment:
            self.waiting += 1
            if self.waiting == 10:
                self.all_asked.set()
            await self.all_asked.wait()
            for _ in range(100 - 10 * int(question.uid[-1])):
                await asyncio.sleep(0)
            return await super().compare(question)

    judge = Last()
    assert played(made, path, judge, concurrency=6) == Count(6, 12, 0)
    assert judge.asked[0].uid == "level1_problem6"
    assert list(read_matches(path)) == list(made.matches)


def test_a_disk_that_refuses_ends_it_in_one_error(made: Pairing, path: Path) -> None:
    class InTheWay(Scripted):
        async def compare(self, question: Question) -> Judgment:
            path.mkdir(exist_ok=True)
            return await super().compare(question)

    with pytest.raises(InfraError, match="cannot write"):
        played(made, path, InTheWay(), concurrency=3)


def test_a_verdict_that_comes_late_does_not_undo_that(made: Pairing, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is left would stay so, and nothing would say it."""
    monkeypatch.setattr(playing, "GIVE_UP", 3)

    class Late(Scripted):
        async def compare(self, question: Question) -> Judgment:
            late = question.uid == "level1_problem1" and question.a == GOOD
            for _ in range(50 * late):
                await asyncio.sleep(0)
            self._fails = () if late else range(100)
            return await super().compare(question)

    with pytest.raises(JudgeError, match="3 times in a row"):
        played(made, path, Late(), concurrency=3)
    assert read_matches(path)["level1_problem1"].games[0].score == "A>B" and len(read_matches(path)) < 6


# ------------------------------------------------------------------ the file


def test_half_a_line_is_none(made: Pairing, path: Path) -> None:
    played(made, path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (1, len(lines[3]) // 2, len(lines[3]) - 1):
        path.write_bytes(b"".join(lines[:3]) + lines[3][:cut])
        assert list(read_matches(path)) == list(made.matches)[:3]
        judge = Scripted()
        played(made, path, judge)
        assert path.read_bytes() == whole and len(judge.asked) == 6


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"uid": "level1_problem1", "games": []}', "line 1 is no judgment"),
        ('{"question_id": "level1_problem1"}', "line 1 is no judgment"),
        ('{"question_id": "level1_problem1", "judge": "scripted", "games": []}', "another baseline (unknown, not base)"),
    ],
)
def test_a_line_that_is_damaged_or_older_is_nobodys_to_overwrite(made: Pairing, path: Path, line: str, says: str) -> None:
    path.write_text(f"{line}\n")
    with pytest.raises(ConfigError, match=rf"m.jsonl.*{re.escape(says)}"):
        played(made, path)
    assert path.read_text() == f"{line}\n"


def test_a_file_belongs_to_one_process_one_judge_and_one_baseline(tmp_path: Path, made: Pairing, path: Path) -> None:
    with (
        opened(path, made.matches),
        pytest.raises(ConfigError, match=rf"another process \(pid {os.getpid()}\) is writing .*/m.jsonl"),
    ):
        played(made, path)
    played(made, path)
    (tmp_path / "runs/base").rename(tmp_path / "runs/other")
    for other, says in [
        (pairing(tmp_path / "2", SIX, [Made()] * 6, judge="static"), "another judge \\(scripted, not static\\)"),
        (pairing(tmp_path / "3", SIX[:5], [Made()] * 5), "a match of level1_problem6, which the baseline lacks"),
        (Pairing("scripted", "m", "other", made.pairs), "another baseline \\(base, not other\\)"),
    ]:
        with pytest.raises(ConfigError, match=f"{says}.*choose another arena.name"):
            played(other, path)


def test_a_kernel_that_is_another_by_now_is_judged_again(tmp_path: Path, made: Pairing, path: Path) -> None:
    """The run was not at its end, or was played anew."""
    played(made, path)
    judge = Scripted("A=B")
    played(pairing(tmp_path / "2", [Made(3.0, BETTER), *SIX[1:]], [Made()] * 6), path, judge)
    assert [q.uid for q in judge.asked] == ["level1_problem1"] * 2
    assert [match.games[1].score for match in read_matches(path).values()] == ["A=B", "B>>A", *["A>B"] * 4]
    kernel = read_matches(path)["level1_problem1"].model_kernel
    assert kernel is not None and kernel.speedup == 3.0


# ------------------------------------------------------------------ death


class Server:
    """A model as judge whose word depends on the question alone, and that fails every ninth request until it is `well`."""

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.well = False
        self.pause_s = 0.0

    def __call__(self, messages: Sequence[dict[str, str]]) -> str:
        self.questions.append(messages[1]["content"])
        time.sleep(self.pause_s)
        if not self.well and len(self.questions) % 9 == 0:
            return "I cannot say."
        return f"Hm.\n[[{('A>B', 'A=B', 'B>>A')[len(messages[1]['content']) % 3]}]]"


@pytest.fixture
def judge() -> Server:
    return Server()


@pytest.fixture
def server(judge: Server) -> Iterator[ChatServer]:
    with ChatServer(judge) as started:
        yield started


def command(server: ChatServer, root: str) -> list[str]:
    options = ("arena.judge=llm", "policy=openai", "policy.model=test-model", f"policy.base_url={server.base_url}")
    where = (f"run.root={root}", "arena.baseline=base", "arena.concurrency=4", f"arena.models={root}/list.txt")
    return [sys.executable, "-m", "kernel_env", "arena", "run", *options, *where]


def furnish(root: Path, problems: int) -> None:
    codes = [f"{BETTER}{'pass;' * n}\n" for n in range(problems)]
    write_run(root, "base", [Made()] * problems)
    for name in "ab":
        write_run(root, name, [Made(code=code) if n % 10 else Made(None) for n, code in enumerate(codes)])
    (root / "list.txt").write_text("a\nb\n")


def killed(judge: Server, server: ChatServer, root: Path, kills: int, rng: random.Random) -> None:
    """Until it is over, the first `kills` attempts end by SIGKILL, each a few requests after its first."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    codes = list[int]()
    for attempt in range(kills + 3):
        first, least = len(judge.questions), rng.randint(1, 6)
        judge.well = attempt >= kills
        with subprocess.Popen(
            command(server, str(root)), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as child:
            while attempt < kills and len(judge.questions) - first < least and child.poll() is None:
                time.sleep(0.001)
            if attempt < kills:
                time.sleep(rng.uniform(0, 0.02))  # so that it falls anywhere
                child.kill()
            _, said = child.communicate()
        codes.append(child.returncode)
        assert codes[-1] in (0, JudgeError.exit_code, -signal.SIGKILL), said.decode()
        for path in (root / "arena/test-model").glob("*.jsonl"):
            lines = path.read_bytes().split(b"\n")[:-1]
            uids = [json.loads(line)["uid"] for line in lines]
            assert len(uids) == len(set(uids)), "none twice, at any moment"
        if codes[-1] == 0:
            assert codes.count(-signal.SIGKILL) == kills
            return
    pytest.fail("it came to no end")


def check_killed(tmp_path: Path, judge: Server, server: ChatServer, problems: int, kills: int) -> None:
    calm, root = tmp_path / "calm", tmp_path / "killed"
    for folder in (calm, root):
        furnish(folder, problems)
    judge.well = True
    assert main(command(server, str(calm))[3:]) == 0
    asked = set(judge.questions)
    judge.questions.clear()
    killed(judge, server, root, kills, random.Random(1))
    assert set(judge.questions) == asked
    for name in "ab":
        ours, theirs = (folder / f"arena/test-model/{name}.jsonl" for folder in (root, calm))
        assert ours.read_bytes() == theirs.read_bytes(), "the same judgments, none twice, none missing"
        assert all(match.whole for match in read_matches(ours).values()) and len(read_matches(ours)) == problems
    assert not list(root.rglob("*.tmp"))


def test_a_killed_run_goes_on_to_the_same_judgments(tmp_path: Path, judge: Server, server: ChatServer) -> None:
    check_killed(tmp_path, judge, server, problems=8, kills=2)


@pytest.mark.slow
def test_a_run_that_is_killed_twenty_times_ends_with_the_same_judgments(tmp_path: Path, judge: Server, server: ChatServer) -> None:
    check_killed(tmp_path, judge, server, problems=60, kills=20)

"""No word of a candidate is obeyed by a terminal, wherever it is shown."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from kernel_env.env import turn_line
from kernel_env.printable import LAYOUT, printable
from kernel_env.schema import Reward, Status
from rollout import commands, replay
from rollout.display import Display
from rollout.settings import DisplaySettings
from tests.sample_run import problem, turn

EVIL = "\x1b[2K\x1b[1Glevel1_problem3   turn 0  correct\x07\x9b1A\u202e\x1b]0;title\x1b\\ a \ud800 b"
PLAYED = turn(0, Status.RUNTIME_ERROR, 0.1)
VERDICT = replace(PLAYED.verdict, message=EVIL, category=EVIL, log=f"{EVIL}\n\tmore")
FAILED = replace(PLAYED, verdict=VERDICT)
OBEYED = re.compile(r"[^\n\t\x20-\x7e\u00a0-\u202d\u202f-\ud7ff\ue000-\uffff]")


def test_what_a_terminal_would_obey_is_replaced_and_lines_may_stay() -> None:
    assert printable("a\x1b[1m\n\tb\r") == "a\ufffd[1m\ufffd\ufffdb\ufffd"
    assert printable("a\x1b[1m\n\tb\r", LAYOUT) == "a\ufffd[1m\n\tb\ufffd"
    assert printable("plain ✓") == "plain ✓"


def test_of_a_turn() -> None:
    assert not OBEYED.search(turn_line(FAILED)) and "\n" not in turn_line(FAILED)


def test_of_a_run_that_goes_on() -> None:
    file = io.StringIO()
    display = Display(DisplaySettings(), Console(file=file, width=200))
    display.view("").fail(EVIL)
    display.say(f"[red]{EVIL}[/red]")
    assert "turn 0  correct" in file.getvalue() and not OBEYED.search(file.getvalue())


def test_of_a_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    commands.show(problem(1), VERDICT, Reward(None, reason=EVIL))
    shown = capsys.readouterr().out
    assert "\n\tmore" in shown.replace("        ", "\t") and not OBEYED.search(shown)


def test_of_a_turn_that_is_verified_again() -> None:
    file = io.StringIO()
    compared = replay.Comparison("level1_problem1", 0, (f"status was correct, is {EVIL}",), VERDICT)
    Console(file=file).print(replay._line(compared, FAILED))
    assert not OBEYED.search(file.getvalue())

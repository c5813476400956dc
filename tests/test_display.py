"""What a run shows: on a terminal, in a log, in a notebook, one alone or beside others."""

from __future__ import annotations

import asyncio
import io
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kernel_env.referee.slots import Slots
from kernel_env.verifier import Load
from rollout import compose
from rollout.display import Display
from rollout.engine import Engine, EngineConfig, MemoryJournal, Waits
from rollout.runner import RunResult, run
from rollout.settings import DisplaySettings
from tests.players import Checker, Writer
from tests.sample_run import problem

BUSY = {Waits.REQUEST: 4, Waits.REPLY: 8, Waits.VERDICT: 20}
LOAD = Load(building=2, to_build=5, slots_taken=1, to_measure=12)


def shown(*labels: str, terminal: bool = False, root: Path, **settings: Any) -> str:
    """What recorded runs show, one for each label, side by side."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=200, highlight=False, soft_wrap=True, legacy_windows=False)

    async def play(display: Display, label: str) -> RunResult:
        view = display.view(label)
        options = ["problems.levels=1", "problems.limit=1", f"run.root={root}", f"run.name=r{label[:1]}", "run.allow_zero=true"]

        def planned(*plan: Any) -> None:
            view.plan(*plan)
            view.stages(BUSY, LOAD)
            display.progress.refresh()

        result = await run(*compose.composed(options), verifier=Checker(), on_plan=planned, on_event=view.event)
        view.close(result, table=not label)
        return result

    async def play_all(display: Display) -> None:
        await asyncio.gather(*(play(display, label) for label in labels))

    with Display(DisplaySettings(**settings), console) as display:
        asyncio.run(play_all(display))
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())


def test_a_log_has_plain_lines(tmp_path: Path) -> None:
    lines = shown("", root=tmp_path).splitlines()
    assert lines[0] == "episodes 1, problems 1, back end cpp, policy replay/bundled/cpp"
    assert lines[2].startswith("level1_problem1    turn 0  ")
    assert Path(lines[-2].removeprefix("to look at: ")).read_text().startswith("<!doctype html>")
    assert lines[-1].startswith("report: ") and "reply" not in "".join(lines)


def test_a_terminal_has_a_bar_with_what_episodes_wait_for(tmp_path: Path) -> None:
    out = shown("", terminal=True, root=tmp_path)
    assert "episodes" in out and "0/1" in out
    assert "0 turns, reply 8 (+4), verdict 20, build 2 (+5), measure 1 (+12)" in out


def test_of_several_runs_each_line_says_whose_it_is(tmp_path: Path) -> None:
    out = shown("1/2", "2/2", terminal=True, root=tmp_path)
    assert "1/2 level1_problem1    turn 0" in out and "2/2 level1_problem1    turn 0" in out
    lines = out.replace("\r", "\n").splitlines()
    assert all(re.search("[12]/2 ", line) for line in lines if "level1_problem1" in line)


def test_quiet_is_the_end_alone(tmp_path: Path) -> None:
    out = shown("", terminal=True, root=tmp_path, quiet=True)
    assert "turn 0" not in out and "(+4)" not in out
    assert "of 1 episodes correct" in out and "report: " in out


def test_a_notebook_shows_the_same_lines(tmp_path: Path) -> None:
    pytest.importorskip("IPython", reason="needs IPython, as notebooks have it")
    console = Console(force_jupyter=True)
    with Display(DisplaySettings(), console) as display:
        display.say("a line")
    assert console.is_jupyter and display.progress.disable, "a bar would need widgets"


# ------------------------------------------------------------------ what it is told


def test_an_engine_knows_what_its_trajectories_wait_for() -> None:
    """Of six, four are in play: two are asked, and two wait to be."""
    seen: list[Counter[Waits]] = []

    async def scenario() -> None:
        go = asyncio.Event()

        async def wait(what: str) -> None:
            await go.wait()

        engine = Engine(Writer(wait), Checker(wait), MemoryJournal(), EngineConfig(samples=6, concurrency=4, requests=2), 7)
        playing = asyncio.create_task(engine.play([problem()]))
        while engine.waiting.total() < 6:  # noqa: ASYNC110 - an engine says nothing of its own accord
            await asyncio.sleep(0)
        seen.append(Counter(engine.waiting))
        go.set()
        await playing
        seen.append(+engine.waiting)

    asyncio.run(scenario())
    assert seen == [Counter({Waits.PLACE: 2, Waits.REQUEST: 2, Waits.REPLY: 2}), Counter()]


def test_slots_know_how_many_are_taken_and_wanted() -> None:
    async def scenario() -> None:
        slots = Slots([1, 2])
        first = await slots.take()
        assert (slots.taken, slots.waiting) == (1, 0)
        tasks = [asyncio.create_task(slots.take()) for _ in range(3)]
        await asyncio.sleep(0)
        assert (slots.taken, slots.waiting) == (2, 2)
        tasks[2].cancel()
        await asyncio.sleep(0)
        assert (slots.taken, slots.waiting) == (2, 1)
        slots.give_back(first)
        slots.give_back(await tasks[0])
        slots.give_back(await tasks[1])
        assert (slots.taken, slots.waiting) == (0, 0)

    asyncio.run(scenario())

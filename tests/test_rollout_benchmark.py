"""The engine's benchmark does what it says, in small. How fast anything is, is not tested here."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from benchmarks import rollout_engine
from benchmarks.rollout_engine import World, measured


@pytest.mark.parametrize("requests", [2, 50])
def test_both_ways_do_the_same_work_and_no_way_ends_before_the_bound(requests: int, tmp_path: Path) -> None:
    world = World(trajectories=12, samples=4, requests=requests, slots=2, scale=0.002, directory=str(tmp_path))
    engine, plain = (asyncio.run(measured(world, way)) for way in rollout_engine.WAYS)
    assert (engine.turns, engine.bound_s, engine.bound_by) == (plain.turns, plain.bound_s, plain.bound_by)
    assert engine.bound_by == ("policy" if requests == 2 else "longest trajectory")
    assert engine.trajectories == 12 and engine.of_bound >= 1 and plain.of_bound >= 1


def test_the_headline_is_on_the_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--trajectories 6 --samples 2 --requests 3 --slots 1 --scale 0.001 --repeats 1"
    files = ["--directory", str(tmp_path), "--json", str(tmp_path / "numbers.json")]
    monkeypatch.setattr(sys, "argv", ["rollout_engine", *options.split(), *files])
    rollout_engine.main()
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("6 trajectories: the engine takes ") and "of the bound" in last and "ms of CPU a turn" in last
    assert [row["way"] for row in json.loads((tmp_path / "numbers.json").read_text())["rows"]] == ["engine", "plain"]

"""The kill harness passes a command that resumes as it should, and sees each way of failing to."""

from __future__ import annotations

import random
import signal
import sys
from pathlib import Path

import pytest

from tests.kill_harness import Harness, Target, Violation, compare_trees, descendants

COMMAND = """
import os, subprocess, sys, time
from pathlib import Path

fault = sys.argv[1]
turns = Path("out/turns")
turns.mkdir(parents=True, exist_ok=True)
if fault == "leaves an orphan":
    subprocess.Popen(["sleep", "1003.1"], start_new_session=True)
if fault == "fails":
    sys.exit("no luck")
for index in range(8):
    path = turns / f"{index}.json"
    if fault == "repeats" or not path.exists():
        time.sleep(0.02)
        temp = path.with_suffix(".tmp")
        temp.write_text(str(os.getpid() if fault == "differs" else index))
        temp.rename(path)
if fault == "loses":
    (turns / "0.json").unlink()
"""


def harness(tmp_path: Path, fault: str = "none") -> Harness:
    command = (sys.executable, "-c", COMMAND, fault)
    return Harness(command, tmp_path, "out", most_changes=3, most_delay_s=0.05, orphans_s=0.2)


@pytest.mark.parametrize("target", [Target.COMMAND, Target.TREE])
def test_a_command_that_resumes_passes(tmp_path: Path, target: Target) -> None:
    calm = harness(tmp_path).undisturbed()
    runs = list(harness(tmp_path).killed(random.Random(0), 10, target))
    assert sum(len(run.kills) for run in runs) == 10
    for run in runs:
        assert compare_trees(calm.directory, run.directory) == []
        assert run.exit_codes == (*(-signal.SIGKILL for _ in run.kills), 0)


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [("loses", "is gone"), ("repeats", "with the same bytes"), ("leaves an orphan", "sleep 1003.1"), ("fails", "no luck")],
)
def test_a_violation_is_seen(tmp_path: Path, fault: str, complaint: str) -> None:
    with pytest.raises(Violation, match=complaint):
        list(harness(tmp_path, fault).killed(random.Random(1), 10, Target.COMMAND))
    assert not [p for p in descendants(1) if p.command == "sleep 1003.1"], "the harness leaves nothing alive either"


def test_other_bytes_are_seen(tmp_path: Path) -> None:
    calm = harness(tmp_path).undisturbed()
    *_, run = harness(tmp_path, "differs").killed(random.Random(0), 1, Target.COMMAND)
    lines = compare_trees(calm.directory, run.directory)
    assert len(lines) == 8
    assert lines[0].startswith("out/turns/0.json differs from byte 0: b'0' and b'")
    (run.directory / "out/turns/0.json").rename(run.directory / "out/extra")
    lines = compare_trees(calm.directory, run.directory, exclude=("extra",))
    assert lines[0] == "only in undisturbed: out/turns/0.json"
    assert not [line for line in lines if "extra" in line]

"""What tests on a real SLURM share, and a model server that jobs start."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("serving_child.py")
PATIENCE_S = 180.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def require_slurm() -> None:
    """Skips the test where there is none."""
    if shutil.which("sbatch") is None:
        pytest.skip("needs SLURM: there is no command `sbatch`")
    if subprocess.run(["sinfo"], capture_output=True, check=False).returncode:
        pytest.skip("needs SLURM: none answers; start one by tests/local_slurm.sh")


def left_of(facts: Path) -> list[int]:
    """Processes of a model server, itself and its worker, that still live."""
    pids = json.loads(facts.read_text())["pids"] if facts.exists() else []
    return [pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]]


def serving(scene: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> tuple[Path, list[str]]:
    """Where a started model server says who it is, and overrides that start it."""
    program = scene / "bin/vllm"
    program.parent.mkdir()
    facts = scene / "facts.json"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{CHILD}" "$@" --facts "{facts}" {shlex.join(options)}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return facts, ["policy=openai", "policy.model=m", "policy.serve=vllm", "policy.attempts=1", "run.canaries=false"]

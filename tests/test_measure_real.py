"""A timing session beside a real program."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kernel_env.referee.inputs import Draw
from kernel_env.referee.layout import Arena
from kernel_env.referee.memory import read_memory
from kernel_env.referee.outputs import regions
from kernel_env.referee.pool import KEEP_MEMORY
from kernel_env.referee.process import LocalEndpoint, no_builds
from kernel_env.referee.sides import Side, give_slots
from tests.conftest import REFERENCE
from tests.scenes import inputs, scene


@pytest.fixture
def real(tmp_path: Path) -> Iterator[LocalEndpoint]:
    """A problem's reference, in this process."""
    endpoint = loaded(LocalEndpoint("reference", tmp_path, no_builds, interpreter=False))
    yield endpoint
    endpoint.close()


def loaded(endpoint: LocalEndpoint) -> LocalEndpoint:
    source = REFERENCE.replace("torch.randn(ROWS, 8)", "torch.randn(4096)")
    for frame in ({"op": "load", "code": source, "entry": "Model"}, {"op": "init_inputs", "seed": 1}):
        assert "error" not in endpoint.request(frame)
    arena = Arena(1)
    with contextlib.closing(arena):
        endpoint.request({"op": "init", "arguments": {"list": [{"plain": 2.0}]}, "seed": 1}, (arena.fd,))
    return endpoint


def test_a_real_program_is_timed_beside_a_scripted_one(real: LocalEndpoint) -> None:
    found = scene(slots=2)
    side = Side(real, real.request, call_s=1e-4)
    give_slots(side, inputs(3), 2)
    found.session.baseline = side
    outputs = []

    def check(theirs: Side, ours: Side, draw: Draw) -> None:
        target = Arena(draw.source.arena.size)
        found.session.pool.write(draw, target)
        expected = np.maximum(np.frombuffer(target.map, np.float32), 0) * 2
        ((address, size),) = regions(theirs.output)
        got = np.zeros(size, np.uint8)
        read_memory(os.getpid(), address, got)
        outputs.append(np.array_equal(got.view(np.float32), expected))

    found.session.check = check
    rounds = found.rounds(6)
    assert outputs == [True] * 6
    assert all(0 < ms < 1000 for r in rounds for ms in r.baseline_ms)
    assert len({ms for r in rounds for ms in r.baseline_ms}) > 6


PLACES = """
import sys
from pathlib import Path
from kernel_env.referee.layout import Arena
from kernel_env.referee.process import LocalEndpoint, no_builds
from kernel_env.referee.sides import Side, give_slots
from kernel_env.referee.outputs import regions
from kernel_env.referee.reference import output_at
from tests.scenes import inputs
from tests.test_measure_real import loaded

endpoint = loaded(LocalEndpoint("reference", Path(sys.argv[1]), no_builds, interpreter=False))
give_slots(Side(endpoint, endpoint.request), inputs(3), 2)
places = set()
for seed in range(20):
    if sys.argv[2] == "scatter":
        assert endpoint.request({"op": "scatter", "seed": seed}) == {}
    answer = endpoint.request({"op": "call", "indices": [0, 1]})
    places.add(tuple(regions(output_at(answer, index))[0][0] for index in (0, 1)))
print(len(places))
"""


def test_after_a_scatter_outputs_lie_elsewhere(tmp_path: Path) -> None:
    """In a process with the allocator's settings of a runner."""
    environment = {**os.environ, "GLIBC_TUNABLES": KEEP_MEMORY}
    counts = {}
    for how in ("scatter", "leave"):
        command = [sys.executable, "-c", PLACES, str(tmp_path), how]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
        assert run.returncode == 0, run.stderr
        counts[how] = int(run.stdout)
    assert counts["scatter"] > 10 > counts["leave"]

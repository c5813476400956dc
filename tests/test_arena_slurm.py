"""The arena's whole way on a real SLURM of one node. See `test_slurm_jobs.py` for how to have one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernel_env.errors import GateError
from rollout.arena.batches import SCRIPTS, read_batches, words
from rollout.arena.matches import read_matches
from rollout.cli import main
from tests.arena_scene import BETTER, Made, write_run
from tests.chat_server import ChatServer
from tests.slurm_scene import ENDED, PATIENCE_S, left_of, require_slurm, serving

pytestmark = [pytest.mark.slow, pytest.mark.slurm]

ROOT = Path("runs")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Three models and a baseline on a machine with SLURM; whatever jobs are left of the test are cancelled."""
    require_slurm()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    write_run(ROOT, "base", [Made()] * 4)
    for name in "abc":
        write_run(ROOT, name, [Made(2.0, BETTER), Made(None), Made(), Made(0.5)])
    yield tmp_path
    for file in tmp_path.glob(f"runs/arena/*/{SCRIPTS}/*_id"):
        subprocess.run(["scancel", file.read_text().strip()], check=False)


def arena(*words: str) -> int:
    return main(["arena", *words, "arena.baseline=base"])


def wait_until(condition: Callable[[], object], directory: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        logs = "\n".join(path.read_text()[-2000:] for path in directory.glob("logs/*"))
        assert time.monotonic() < deadline, f"not so after {PATIENCE_S:g} s: {read_batches(directory)}; {logs}"
        time.sleep(0.2)


def states(directory: Path) -> list[str]:
    """The scheduler's word on each batch."""
    batches = read_batches(directory)
    known = words(batches)
    return [known.get(batch.job, "") if batch.job is not None else "never submitted" for batch in batches]


def test_models_are_judged_in_two_jobs_from_validation_to_the_end(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = ROOT / "arena/test-model"
    with ChatServer(lambda messages: f"Hm.\n[[{('A>B', 'B>A')[len(messages[1]['content']) % 2]}]]") as server:
        model = ("arena.judge=llm", "policy=openai", "policy.model=test-model", f"policy.base_url={server.base_url}")
        options = (*model, "arena.batch=2")
        write_run(ROOT, "partial", [Made(), Made(), None, None])
        assert arena("validate", "--all", *options) == 1
        assert "refused: partial has no answer to 2 of 4 episodes" in capsys.readouterr().out
        assert arena("submit", "--all", *options) == GateError.exit_code
        assert arena("validate", "a", "b", "c", *options) == 0
        assert arena("dry-run", "a", "b", "c", *options) == 0
        assert states(directory) == ["never submitted"] * 2
        assert arena("monitor", "a", "b", "c", "--once", *options) == 1, "nobody is at it"
        assert arena("submit", "a", "b", "c", *options) == 0
        assert arena("submit", "a", "b", "c", *options) == 0
        assert capsys.readouterr().out.count("submitted as job ") == 2, "once"
        wait_until(lambda: set(states(directory)) <= set(ENDED), directory)
        assert states(directory) == ["COMPLETED"] * 2
        capsys.readouterr()
        assert arena("monitor", "a", "b", "c", "--once", *options) == 0
        assert capsys.readouterr().out.endswith("3 models: 3 ok; 0 games without a verdict\n")
        assert len(server.requests) == 3 * 3 * 2, "each game once, and none where correctness decides"
    assert main(["arena", "show", "test-model"]) == 0
    assert "The standings rest on 24 of 24 games (0 are null), two of each of 12 matches" in " ".join(
        capsys.readouterr().out.split()
    )
    for name in "abc":
        matches = read_matches(directory / f"{name}.jsonl").values()
        assert [match.decided for match in matches] == ["judge", "correctness", "judge", "judge"]
        assert all(match.whole for match in matches)


def test_a_batch_whose_judge_is_never_healthy_fails_and_leaves_nothing(
    cluster: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    facts, served = serving(cluster, monkeypatch, "--sick", "-1")
    options = (*served, "arena.judge=llm", "policy.serve_start_s=5")
    assert arena("submit", "a", "b", *options) == 0
    wait_until(lambda: set(states(ROOT / "arena/m")) <= set(ENDED), ROOT / "arena/m")
    assert states(ROOT / "arena/m") == ["FAILED"]
    assert left_of(facts) == []
    (log,) = (ROOT / "arena/m/logs").iterdir()
    assert "the server was not healthy within 5 s" in log.read_text()
    capsys.readouterr()
    assert arena("monitor", "a", "b", "--once", *options) == 1
    assert capsys.readouterr().out.count("the scheduler says FAILED of job") == 2

"""Every recorded reply fails, or succeeds, in the way it was written to.

The expected statuses are in `data/recorded_statuses.json`; `python -m tests.test_recordings` writes that file anew for review.
"""

from __future__ import annotations

import json
from collections import defaultdict
from importlib.resources import files
from pathlib import Path

import pytest

from kernel_env.backends import get_backend
from kernel_env.parsing import extract_kernel
from kernel_env.problems import load_problems
from kernel_env.referee.config import VerifyConfig
from kernel_env.schema import Candidate, Problem, Status
from kernel_env.verifier import BlockingVerifier
from tests.conftest import JSONL

EXPECTED = Path(__file__).parent / "data" / "recorded_statuses.json"
CONFIG = VerifyConfig(num_correct_trials=2, measure_performance=False)
SETS = {
    "bundled/cpp": ("bundled", None),
    "bundled/triton": ("bundled", None),
    "kernelbench/cpp": ("jsonl", JSONL),
    "kernelbench/triton": ("jsonl", JSONL),
}
SLOW = ("kernelbench/cpp",)


def recorded(name: str) -> dict[str, str]:
    """Text of every recorded turn of a set, by `level1_problem1_turn0`."""
    folder = files("rollout") / "recordings" / name
    return {p.name.removesuffix(".txt"): p.read_text() for p in sorted(folder.iterdir(), key=lambda p: p.name)}


def problems_of(name: str) -> dict[str, Problem]:
    source, path = SETS[name]
    if path is not None and not path.exists():
        return {}
    return {p.key: p for p in load_problems(source, path, get_backend(name.split("/")[1]).profile)}


def status(verifier: BlockingVerifier, name: str, problem: Problem, text: str) -> str:
    found = extract_kernel(text)
    if found.code is None:
        return str(found.status)
    return str(verifier.verify(problem, Candidate(found.code, name.split("/")[1]), CONFIG, seed=5).status)


def _cases() -> list[object]:
    expected = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    keys = [(name, key) for name in SETS for key in expected.get(name, {})]
    last = {(name, key.rsplit("_", 1)[0]): key for name, key in sorted(keys)}
    earlier = {(name, key) for name, key in keys if last[name, key.rsplit("_", 1)[0]] != key}  # `make demo` plays these too
    marks = {
        pair: pytest.mark.slow if pair[0] in SLOW else pytest.mark.thorough for pair in keys if pair in earlier or pair[0] in SLOW
    }
    return [pytest.param(*pair, marks=marks.get(pair, ())) for pair in keys]


@pytest.mark.parametrize(("name", "key"), _cases())
def test_a_recorded_turn_ends_as_it_was_written_to(verifier: BlockingVerifier, name: str, key: str) -> None:
    problems = problems_of(name)
    if not problems:
        pytest.skip(f"needs ../shared/data/{JSONL.name} beside the checkout")
    text, wanted = recorded(name)[key], json.loads(EXPECTED.read_text())[name][key]
    assert status(verifier, name, problems[key.rsplit("_", 1)[0]], text) == wanted


@pytest.mark.parametrize("name", SETS)
def test_every_recording_is_expected_and_ends_correct(name: str) -> None:
    expected = json.loads(EXPECTED.read_text())[name]
    assert set(expected) == set(recorded(name))
    episodes: dict[str, list[str]] = defaultdict(list)
    for key in sorted(expected):
        episodes[key.rsplit("_", 1)[0]].append(expected[key])
    assert all(statuses[-1] == Status.CORRECT for statuses in episodes.values())


def test_the_recordings_show_the_whole_life_of_an_episode() -> None:
    everything = {s for by_key in json.loads(EXPECTED.read_text()).values() for s in by_key.values()}
    assert everything >= {"build_error", "no_code", "truncated", "runtime_error", "wrong_output", "needs_device", "correct"}


def test_every_bundled_problem_and_enough_real_ones_are_recorded() -> None:
    episodes = {name: {key.rsplit("_", 1)[0] for key in recorded(name)} for name in SETS}
    assert episodes["bundled/cpp"] == {p.key for p in load_problems("bundled")}
    assert len(episodes["bundled/cpp"]) >= 12 and len(episodes["kernelbench/cpp"]) >= 12
    assert {key[:6] for key in episodes["kernelbench/cpp"]} == {"level1", "level2"}
    assert len(episodes["kernelbench/triton"]) >= 8


if __name__ == "__main__":
    with BlockingVerifier() as shared:
        table = {}
        for set_name in SETS:
            by_key = problems_of(set_name)
            table[set_name] = {k: status(shared, set_name, by_key[k.rsplit("_", 1)[0]], t) for k, t in recorded(set_name).items()}
            print(set_name, json.dumps(table[set_name], indent=1), flush=True)
        EXPECTED.parent.mkdir(exist_ok=True)
        EXPECTED.write_text(json.dumps(table, indent=1) + "\n")

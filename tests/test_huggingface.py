"""Problems from a local copy of a data set as Hugging Face keeps it, written by `datasets` itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import DatasetError
from kernel_env.problems import load_problems
from kernel_env.schema import Problem

BUNDLED = load_problems("bundled")
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left in the user's own cache, and no hub is asked."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def rows(problems: Sequence[Problem]) -> Rows:
    """As KernelBench's own: the name begins with the id."""
    found: dict[str, list[dict[str, Any]]] = {}
    for p in problems:
        row = {"code": p.source, "level": p.level, "name": f"{p.problem_id}_{p.name}", "problem_id": p.problem_id}
        found.setdefault(f"level_{p.level}", []).append(row)
    return found


def saved(splits: Rows, folder: Path) -> Path:
    from datasets import Dataset, DatasetDict

    DatasetDict({name: Dataset.from_list(list(made)) for name, made in splits.items()}).save_to_disk(folder)
    return folder


def as_files(splits: Rows, folder: Path) -> Path:
    """As they lie on the hub."""
    from datasets import Dataset

    (folder / "data").mkdir(parents=True)
    for name, made in splits.items():
        Dataset.from_list(list(made)).to_parquet(folder / f"data/{name}-00000-of-00001.parquet")
    configs = "".join(f"  - split: {name}\n    path: data/{name}-*\n" for name in splits)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{configs}---\n")
    return folder


@pytest.mark.parametrize("written", [saved, as_files])
def test_a_local_copy_holds_the_same_problems(written: Callable[[Rows, Path], Path], tmp_path: Path) -> None:
    found = load_problems("huggingface", written(rows(BUNDLED), tmp_path / "copy"))
    assert [(p.key, p.name, p.source, p.origin) for p in found] == [(p.key, p.name, p.source, "huggingface") for p in BUNDLED]


def test_the_problems_are_those_of_a_checkout_and_have_its_sizes(tmp_path: Path) -> None:
    source = BUNDLED[0].source.replace("ROWS", "batch_size")
    row = {"code": source, "level": 1, "name": "23_Softmax", "problem_id": 23}
    (problem,) = load_problems("huggingface", saved({"level_1": [row]}, tmp_path / "copy"), "cpu")
    folder = tmp_path / "checkout/level1"
    folder.mkdir(parents=True)
    (folder / "23_Softmax.py").write_text(source)
    (other,) = load_problems("kernelbench", tmp_path / "checkout", "cpu")
    assert (problem.key, problem.source, problem.overrides) == (other.key, other.source, other.overrides)


GOOD = rows(BUNDLED[:1])["level_1"][0]
BAD: dict[str, tuple[Rows, str]] = {
    "no code": ({"level_1": [{**GOOD, "code": ""}]}, "split level_1, row 0: no text code"),
    "no Python": ({"level_1": [GOOD, {**GOOD, "code": "def", "problem_id": 2}]}, "split level_1, row 1: line 1 is not Python"),
    "no column": ({"level_1": [{"code": GOOD["code"], "level": 1, "name": "a"}]}, "problem_id is None, not a number"),
    "one twice": ({"level_1": [GOOD], "level_2": [GOOD]}, "split level_2, row 0: level1_problem1 again"),
    "no level": ({"train": [GOOD]}, "has no split level_1, level_2, ... with problems; it has train"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_data_set_that_cannot_be_meant_is_one_clear_line(name: str, tmp_path: Path) -> None:
    splits, complaint = BAD[name]
    with pytest.raises(DatasetError) as caught:
        load_problems("huggingface", saved(splits, tmp_path / "copy"))
    assert complaint in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["nobody/knows-this", "nobody/knows@a1b2", "empty"])
def test_what_cannot_be_loaded_is_one_clear_line(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError) as caught:
        load_problems("huggingface", path)
    assert str(caught.value).startswith(f"{path}: cannot be loaded: ") and "\n" not in str(caught.value)


def test_without_the_package_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "datasets.py").write_text("raise ImportError('not installed')\n")
    command = [sys.executable, "-m", "kernel_env", "eval", "problems=huggingface", f"run.root={tmp_path}/runs"]
    run = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert "pip install 'kernel-env[datasets]'" in run.stderr

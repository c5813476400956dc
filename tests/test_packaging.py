"""The wheel holds everything that an installed copy needs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_our_packages_and_nothing_else_at_the_top(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"kernel_env", "kernel_env_verifiers", "rollout", "rewards", "conf"}


@pytest.mark.parametrize(
    "name",
    [
        "conf/config.yaml",
        "conf/experiment/demo.yaml",
        "kernel_env/builder/include/kernel_env_bind.h",
        "kernel_env/builder/include/shim/torch/extension.h",
        "kernel_env/problems/profiles.json",
        "kernel_env/problems/bundled/level1/1_TanhGelu.py",
        "kernel_env/py.typed",
        "rollout/page/report.html",
        "rollout/page/report.js",
        "rollout/recordings/bundled/cpp/level1_problem1_turn0.txt",
        "rollout/recordings/kernelbench/triton/level1_problem22_turn0.txt",
    ],
)
def test_the_wheel_holds(wheel: zipfile.ZipFile, name: str) -> None:
    assert name in wheel.namelist()


def test_the_command_is_installed(wheel: zipfile.ZipFile) -> None:
    entry = next(n for n in wheel.namelist() if n.endswith("entry_points.txt"))
    assert "kernel-env = rollout.cli:main" in wheel.read(entry).decode()


def test_an_installed_copy_runs_away_from_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, 'site'); import kernel_env, rollout.cli; assert 'site' in kernel_env.__file__;"
        "sys.exit(rollout.cli.main(['eval', 'policy.path=nowhere']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "nowhere" in done.stderr and "Traceback" not in done.stderr

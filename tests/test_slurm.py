"""What SLURM is told. What becomes of jobs is in `test_slurm_jobs.py`."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_env.errors import ConfigError
from rollout import slurm
from rollout.cli import main
from rollout.durable import DirectoryLock
from rollout.monitor import Monitor, State
from rollout.settings import SlurmSettings
from rollout.slurm import Job
from rollout.sweep import plan_sweep
from tests.sweep_scene import furnish, policies

# ------------------------------------------------------------------ what SLURM is told


def test_a_job_is_a_command_with_what_it_asks_for(tmp_path: Path) -> None:
    settings = SlurmSettings(
        partition="gpu",
        time="4:00:00",
        mem="64G",
        cpus_per_task=8,
        gres="gpu:1",
        options=("--account=me",),
        setup="module load x",
    )
    lines = slurm.job_script(Job("s/a", ("kernel-env", "eval", "run.name='a b'"), tmp_path, settings)).splitlines()
    assert lines[0] == "#!/bin/bash" and lines[-1] == "exec kernel-env eval 'run.name='\"'\"'a b'\"'\"''"
    told = {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")}
    assert told >= {
        "--job-name=s/a", "--partition=gpu", "--time=4:00:00", "--mem=64G", "--cpus-per-task=8", "--gres=gpu:1", "--account=me",
        "--signal=B:USR1@120", "--requeue", "--dependency=singleton", "--open-mode=append", f"--output={tmp_path}/slurm/%j.log",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("setup", "code"), [("", 0), ("true", 0), ("true  # fine", 0), ("cd /no/such/place", 4), ("false\ntrue", 0)]
)
def test_a_job_whose_setup_fails_ends_there(setup: str, code: int, tmp_path: Path) -> None:
    script = slurm.job_script(Job("a", ("echo", "played"), tmp_path, SlurmSettings(setup=setup)))
    done = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "" if code else "played\n")


def test_what_is_not_set_is_the_clusters_to_decide(tmp_path: Path) -> None:
    script = slurm.job_script(Job("s/a", ("true",), tmp_path, SlurmSettings(warning_s=0)))
    assert not re.search("--(partition|time|mem|cpus-per-task|gres|signal)", script)


def test_a_place_with_spaces_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my runs").mkdir()
    monkeypatch.chdir(tmp_path / "my runs")
    assert f'#SBATCH --chdir="{tmp_path}/my runs"\n' in slurm.job_script(Job("a", ("true",), Path("a"), SlurmSettings()))


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    furnish(tmp_path, "abN", problems=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


HERE = (
    "problems=jsonl", "problems.path=problems.jsonl", "verifier.clock=recorded", "verify.num_correct_trials=1", "run.seed=1",
    "run.name=s", "sweep.launcher=slurm",
)  # fmt: skip


def multirun(*overrides: str) -> int:
    return main(["eval", "--multirun", *overrides])


def test_jobs_can_be_written_and_left_for_later(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept = (*HERE, policies("ab"), "slurm.submit=false", "run.root=out")
    assert multirun(*swept) == 0
    assert "2 jobs are written; `sh out/s/submit.sh` submits them" in capsys.readouterr().out
    cells = plan_sweep(swept).cells
    submitted = [line for line in (scene / "out/s/submit.sh").read_text().splitlines() if line.startswith("submit ")]
    assert submitted == [f"submit {shlex.quote(str(scene / cell.path / 'slurm/job.sh'))}" for cell in cells]
    for cell in cells:
        script = (cell.path / "slurm/job.sh").read_text()
        assert shlex.split(script.splitlines()[-1]) == ["exec", sys.executable, "-P", "-m", "kernel_env", "eval", *cell.overrides]
        assert f"run.name='{cell.info.name}'" in cell.overrides
    assert {row.state for row in Monitor(Path("out/s")).rows()} == {State.STOPPED}


def test_a_cell_that_is_played_here_is_no_jobs_any_more(scene: Path) -> None:
    """Else the scheduler's word on a job that failed would speak against it."""
    swept = (*HERE, policies("N"), "run.allow_zero=true")
    assert multirun(*swept, "slurm.submit=false") == 0
    (cell,) = plan_sweep(swept).cells
    (cell.path / "slurm/job_id").write_text("17\n")
    assert slurm.job_number(cell.path) == 17
    assert multirun(*swept, "sweep.launcher=local") == 0
    assert slurm.job_number(cell.path) is None


def test_a_key_is_not_written_into_a_job(scene: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert multirun(*HERE, "policy=openai", "policy.model=m", "policy.api_key=a-secret", "slurm.submit=false") == 2
    assert "policy.api_key would be written into the jobs: set OPENAI_API_KEY instead" in capsys.readouterr().err
    assert not [path for path in scene.rglob("*") if path.is_file() and "a-secret" in path.read_text()]


def test_without_slurm_it_is_said_what_to_do(
    scene: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(scene))
    assert multirun(*HERE, policies("a")) == 2
    assert "there is no command `sbatch` here: run `sh runs/s/submit.sh` where there is one" in capsys.readouterr().err


def test_a_scheduler_that_is_not_there_has_no_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.words([]) == {}
    assert slurm.words([1, 2]) == {1: slurm.UNKNOWN, 2: slurm.UNKNOWN}


def test_a_process_outside_of_a_job_is_not_queued_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    slurm.queue_again(SlurmSettings())
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "10")
    slurm.queue_again(SlurmSettings())
    assert capsys.readouterr().out == ""


def test_a_job_asks_for_what_its_own_cell_says(scene: Path) -> None:
    """Else a large model would get the devices of the first one."""
    (scene / "models.txt").write_text("small\nlarge slurm.gres=gpu:4 slurm.time=8:00:00\n")
    swept = (*HERE, "policy=openai", "models=models.txt", "slurm.gres=gpu:1", "slurm.submit=false")
    assert multirun(*swept) == 0
    small, large = ((cell.path / "slurm/job.sh").read_text() for cell in plan_sweep(swept).cells)
    assert "--gres=gpu:1\n" in small and "--time" not in small
    assert "--gres=gpu:4\n" in large and "--time=8:00:00\n" in large


@pytest.mark.parametrize(
    "secret", ["++policy.api_key=a-secret", "sources.judge.api_key=a-secret", "++policy.api_key=choice(a-secret)"]
)
def test_a_key_is_not_written_however_it_is_said(scene: Path, secret: str) -> None:
    assert multirun(*HERE, policies("a"), secret, "slurm.submit=false") == 2
    assert not [path for path in scene.rglob("*") if "a-secret" in str(path) or (path.is_file() and "a-secret" in path.read_text())]


def test_names_reach_slurm_and_the_command_as_they_are(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of quotes, `#` and `%` SLURM would make something else, and a shell of `$`."""
    name = 'my "st#udy" it\'s 50%u $HOME `id` \\'
    here = scene / name
    here.mkdir()
    monkeypatch.chdir(here)
    job = Job(f"{name}/cell", (sys.executable, "-c", "import sys; print(sys.argv[1])", name), Path(name), SlurmSettings())
    script = slurm.job_script(job)
    told = dict(
        unescaped(line.removeprefix("#SBATCH --")).split("=", 1)
        for line in script.splitlines()
        if "#SBATCH --" in line and "=" in line
    )
    assert told["job-name"] == f"{name}/cell" and told["chdir"] == str(here)
    assert told["output"].replace("%%", "") == str(here / name / "slurm/%j.log").replace("50%u", "50u"), "%% is a % to SLURM"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{name}\n"


def unescaped(line: str) -> str:
    """What `sbatch` makes of an option with a value in quotes."""
    name, _, value = line.partition("=")
    if value.startswith('"'):
        assert re.fullmatch(r'"([^"\\]|\\.)*"', value)
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return f"{name}={value}"


def test_a_name_of_two_lines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has a line break"):
        slurm.job_script(Job("a\n#SBATCH --exclusive", ("true",), tmp_path, SlurmSettings()))


def test_a_job_runs_this_program_whatever_lies_beside_it(scene: Path) -> None:
    """`python -m` looks into the working directory first: many have a directory `conf` there."""
    (scene / "conf.py").write_text("raise SystemExit('not ours')")
    swept = (*HERE, policies("N"), "run.allow_zero=true", "slurm.submit=false")
    assert multirun(*swept) == 0
    (cell,) = plan_sweep(swept).cells
    subprocess.run(["bash", str(cell.path / "slurm/job.sh")], check=True, stdout=subprocess.DEVNULL)
    assert {row.state for row in Monitor(Path("runs/s")).rows()} == {State.OK}


def test_a_job_that_is_at_a_cell_is_not_forgotten(scene: Path) -> None:
    """Whoever may not play the cell has no say in whose it is."""
    swept = (*HERE, policies("N"), "run.allow_zero=true")
    assert multirun(*swept, "slurm.submit=false") == 0
    (cell,) = plan_sweep(swept).cells
    (cell.path / "slurm/job_id").write_text("17\n")
    with DirectoryLock(cell.path):
        assert multirun(*swept, "sweep.launcher=local") == 2
    assert slurm.job_number(cell.path) == 17


def test_a_scheduler_that_does_not_answer_is_no_success(
    scene: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    swept = (*HERE, policies("N"), "run.allow_zero=true")
    assert multirun(*swept, "slurm.submit=false") == 0
    (cell,) = plan_sweep(swept).cells
    (cell.path / "slurm/job_id").write_text("17\n")
    monkeypatch.setenv("PATH", str(scene))
    assert multirun(*swept) == 4
    assert "the scheduler does not answer" in capsys.readouterr().err


def test_a_job_that_cannot_be_queued_again_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    slurm.queue_again(SlurmSettings())
    assert "it is not: scontrol cannot be run" in capsys.readouterr().out

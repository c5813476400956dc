"""A machine without a layer says so plainly and behaves as configured."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_env.errors import ConfigError
from kernel_env.referee import pool
from kernel_env.sandbox import ALWAYS, Layer
from kernel_env.schema import Candidate, Problem, Verdict
from kernel_env.verifier import BlockingVerifier, LocalVerifier, VerifierConfig
from rollout.compose import composed
from tests.conftest import REFERENCE, VerifyConfig, python_candidate

GOOD = Candidate(python_candidate("return torch.relu(x) * self.scale"), "cpp")
QUICK = VerifyConfig(num_correct_trials=1, measure_performance=False, torch_ops="unchecked")


def judged(config: VerifierConfig) -> Verdict:
    with BlockingVerifier(lambda: LocalVerifier(config)) as verifier:
        return verifier.verify(Problem(1, 1, "ScaledRelu", REFERENCE), GOOD, QUICK, 1)


def test_strict_refuses_in_one_line_that_names_what_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"sandbox=strict, but layers are missing here: .*landlock \(switched off\)") as refusal:
        judged(VerifierConfig(sandbox="strict", sandbox_without=("landlock",)))
    assert "\n" not in str(refusal.value)


def test_best_effort_says_once_what_is_missing_and_records_what_stood(caplog: pytest.LogCaptureFixture) -> None:
    pool._say_once.cache_clear()
    config = VerifierConfig(sandbox_without=("landlock", "net-namespace"))
    with caplog.at_level(logging.WARNING):
        first, second = judged(config), judged(config)
    assert first.correct and first.isolation == second.isolation
    assert first.isolation[: len(ALWAYS)] == ALWAYS
    assert not {"landlock", "net-namespace"} & set(first.isolation) and "seccomp" in first.isolation
    said = [r.getMessage() for r in caplog.records if "sandbox stands without" in r.getMessage()]
    assert len(said) == 1 and "landlock (switched off)" in said[0] and "net-namespace (switched off)" in said[0]


def test_without_a_sandbox_a_verdict_says_so(caplog: pytest.LogCaptureFixture) -> None:
    verdict = judged(VerifierConfig(sandbox="off"))
    assert verdict.correct and verdict.isolation == ALWAYS
    assert not caplog.records, "who switched it off knows"


def test_a_candidate_that_never_ran_stood_behind_nothing() -> None:
    with BlockingVerifier() as verifier:
        verdict = verifier.verify(Problem(1, 1, "ScaledRelu", REFERENCE), Candidate("x = 1", "cpp"), QUICK, 1)
    assert verdict.isolation == ()


@pytest.mark.parametrize(
    ("option", "complaint"), [({"sandbox": "maybe"}, "best_effort"), ({"sandbox_without": ("lock",)}, "landlock")]
)
def test_a_wrong_name_is_refused_with_the_right_ones(option: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        VerifierConfig(**option)  # type: ignore[arg-type]


def test_layers_are_named_on_the_command_line() -> None:
    chosen = composed(["verifier.sandbox=strict", "verifier.sandbox_without=[landlock,seccomp]"])[0].verifier
    assert (chosen.sandbox, chosen.sandbox_without) == ("strict", ("landlock", "seccomp"))


FORBIDDEN = """
import os, sys
from kernel_env.sandbox import seccomp
from tests.sandbox_host import _forbid_namespaces
_forbid_namespaces()
os.execv(sys.executable, [sys.executable, "-I", "-m", "kernel_env.sandbox"])
"""


def test_every_layer_is_tried_and_a_missing_one_has_a_reason() -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", FORBIDDEN], cwd=root, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert list(found) == [layer.value for layer in Layer]
    assert all("Operation not permitted" in found[name] for name in found if name.endswith("-namespace"))
    assert (found["landlock"], found["seccomp"]) == ("", "")
    assert bool(found["unprivileged"]) == (os.geteuid() == 0)


@pytest.mark.parametrize("version", range(1, 8))
def test_older_kernels_landlock_is_used_as_far_as_it_goes(version: int, tmp_path: Path) -> None:
    """In a process of its own: the rules cannot be lifted."""
    own, secret = tmp_path / "own", tmp_path / "secret"
    own.mkdir()
    secret.write_text("x")
    code = (
        "from kernel_env.sandbox import landlock, libc\n"
        f"known = landlock.version(); landlock.version = lambda: min({version}, known)\n"
        "libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)\n"
        f"landlock.restrict((), (), ({str(own)!r},))\n"
        f"open({str(own / 'x')!r}, 'w').close()\n"
        f"open({str(secret)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].startswith("PermissionError: [Errno 13]") and "secret" in done.stderr.splitlines()[-1]

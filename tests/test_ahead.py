"""Triton kernels compiled for GPUs that are not here: recordings and honest kernels, and what a verdict says of it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_env.backends.targets import KNOWN, Target, target
from kernel_env.builder import Builder
from kernel_env.errors import ConfigError
from kernel_env.parsing import extract_kernel
from kernel_env.prompts import FeedbackConfig, compiled_lines, error_text
from kernel_env.referee import ahead as module
from kernel_env.referee.ahead import _target
from kernel_env.referee.candidate import Failed
from kernel_env.referee.config import VerifyConfig
from kernel_env.schema import Candidate, Compiled, Problem, Stage, Status, Verdict, from_json, to_json
from kernel_env.verifier import BlockingVerifier, InprocessVerifier, VerifierConfig
from rollout.cli import main
from rollout.corpus import load_corpus
from tests.conftest import JSONL, QUICK, REFERENCE, Judge, sampled
from tests.test_recordings import EXPECTED, problems_of, recorded

BOTH = ("cuda:90", "hip:gfx942")
AHEAD = VerifyConfig(num_correct_trials=2, measure_performance=False, aot=BOTH)

KERNEL = """
import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def relu_kernel(x, y, n, scale, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < n)
    tl.store(y + at, tl.maximum(value, 0.0) * scale, mask=at < n)


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        y = torch.empty_like(x)
        relu_kernel[(triton.cdiv(x.numel(), 64),)](x, y, x.numel(), self.scale, BLOCK=64)
        return y
"""


def used(verdict: Verdict) -> dict[str, set[str]]:
    """Kernels by target."""
    return {name: {made.kernel for made in verdict.ahead if made.target == name} for name in {m.target for m in verdict.ahead}}


# ---------------------------------------------------------- what there is compiles


def _recordings() -> list[object]:
    expected = json.loads(EXPECTED.read_text())
    pairs = [(name, key) for name in ("bundled/triton", "kernelbench/triton") for key in sorted(expected[name])]
    return sampled(pairs, {("bundled/triton", "level1_problem1_turn1"), ("bundled/triton", "level3_problem1_turn0")})


@pytest.mark.parametrize(("name", "key"), _recordings())
def test_a_recording_compiles_or_has_an_error_of_its_own(verifier: BlockingVerifier, name: str, key: str) -> None:
    problems, expected = problems_of(name), json.loads(EXPECTED.read_text())[name][key]
    if not problems:
        pytest.skip(f"needs ../shared/data/{JSONL.name} beside the checkout")
    code = extract_kernel(recorded(name)[key]).code
    if code is None:
        return
    verdict = verifier.verify(problems[key.rsplit("_", 1)[0]], Candidate(code, "triton"), AHEAD, 5)
    if verdict.status is Status.BUILD_ERROR:
        assert expected != "correct" and "CompilationError" in verdict.message, verdict.message
        return
    assert verdict.status == expected, verdict.message
    if expected == "correct":
        assert set(used(verdict)) == set(BOTH)
        assert all(made.registers and made.spilled_bytes is not None for made in verdict.ahead), verdict.ahead


HONEST = [
    e for e in load_corpus(Path(__file__).parent / "candidates").entries if e.kind == "honest" and e.candidate.backend == "triton"
]


@pytest.mark.parametrize("name", sampled([e.name for e in HONEST if not e.needs], {"h_huber_triton_reduction"}))
def test_an_honest_kernel_compiles(verifier: BlockingVerifier, name: str) -> None:
    entry = next(entry for entry in HONEST if entry.name == name)
    verdict = verifier.verify(entry.problem, entry.candidate, AHEAD, 5)
    assert verdict.correct, verdict.message
    assert set(used(verdict)) == set(BOTH) and all(made.registers for made in verdict.ahead), verdict.ahead


# ---------------------------------------------------------- what is said of it


def ahead(judge: Judge, code: str, *targets: str) -> Verdict:
    return judge(code, config=replace(QUICK, aot=targets or BOTH), backend="triton")


def test_a_verdict_says_what_a_kernel_uses(judge: Judge) -> None:
    verdict = ahead(judge, KERNEL, *KNOWN)
    assert verdict.correct and used(verdict) == {name: {"relu_kernel"} for name in KNOWN}
    assert all(made.registers and made.spilled_bytes == 0 and made.shared_bytes == 0 for made in verdict.ahead)
    assert from_json(Verdict, to_json(verdict)) == verdict
    assert "For cuda:90: relu_kernel uses" in error_text(verdict, "seed", FeedbackConfig())


def test_what_the_interpreter_takes_and_a_compiler_does_not_is_a_build_error(judge: Judge) -> None:
    """Blocks have sizes that are powers of two; the interpreter takes others."""
    verdict = ahead(judge, KERNEL.replace("BLOCK=64", "BLOCK=48").replace("64),)", "48),)"))
    assert (verdict.status, verdict.stage, verdict.category) == (Status.BUILD_ERROR, Stage.BUILD, "cuda:90")
    assert verdict.message.startswith("for cuda:90: ") and "power of 2" in verdict.message and "relu_kernel" in verdict.message


SHARED = KERNEL.replace(
    "    tl.store(y",
    "    wide = tl.load(x + tl.arange(0, SIDE)[:, None] * 0 + tl.arange(0, SIDE)[None, :] * 0)\n"
    "    wide = tl.dot(wide, tl.trans(wide), input_precision='ieee')\n"
    "    value += tl.sum(wide) * 0\n    tl.store(y",
).replace("BLOCK: tl.constexpr", "BLOCK: tl.constexpr, SIDE: tl.constexpr")


def test_more_shared_memory_than_the_gpu_has_is_a_build_error(judge: Judge) -> None:
    verdict = ahead(judge, SHARED.replace("BLOCK=64)", "BLOCK=64, SIDE=256)"), "hip:gfx942")
    assert (verdict.status, verdict.category) == (Status.BUILD_ERROR, "hip:gfx942"), verdict
    assert "shared memory" in verdict.message and "65536" in verdict.message


def test_autotuning_passes_over_what_does_not_fit(judge: Judge) -> None:
    configs = "[triton.Config({'SIDE': 256}), triton.Config({'SIDE': 16})]"
    code = SHARED.replace("@triton.jit", f"@triton.autotune({configs}, key=['n'])\n@triton.jit")
    verdict = ahead(judge, code, "hip:gfx942")
    assert verdict.correct, verdict.message
    assert used(verdict) == {"hip:gfx942": {"relu_kernel"}}


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (("return y", "assert y.sum() > -1e30 and torch.equal(y, torch.relu(x) * self.scale)\n        return y"), "ended early"),
        (("super().__init__()", "super().__init__()\n        torch.zeros(1).cuda()"), "not compiled: "),
        (("relu_kernel[", "torch.cuda.get_device_properties(0) if False else relu_kernel["), ""),
    ],
)
def test_what_only_a_device_can_tell_counts_against_no_one(judge: Judge, change: tuple[str, str], note: str) -> None:
    plain = judge(KERNEL.replace(*change), config=QUICK, backend="triton")
    verdict = ahead(judge, KERNEL.replace(*change))
    assert verdict.status == plain.status in (Status.CORRECT, Status.NEEDS_DEVICE), (plain, verdict)
    assert any(note in made.note for made in verdict.ahead), verdict.ahead


def test_a_program_that_launches_nothing_has_nothing_compiled(judge: Judge) -> None:
    verdict = ahead(judge, KERNEL.replace("relu_kernel[", "y = torch.relu(x) * self.scale\n        if x.numel() < 0: relu_kernel["))
    assert verdict.correct and {made.note for made in verdict.ahead} == {"no kernel was launched"}


def test_lines_for_the_model_have_a_kernels_worst_variant() -> None:
    made = (
        Compiled("cuda:90", "a", 30, 0, 1024),
        Compiled("cuda:90", "a", 255, 64, 0),
        Compiled("cuda:90", "b", None, None, 2048),
        Compiled("hip:gfx942", note="no kernel was launched"),
    )
    verdict = Verdict(Status.CORRECT, Stage.DONE, "p", "d", "c", "triton", trials=1, trials_passed=1, ahead=made)
    assert compiled_lines(verdict) == [
        "For cuda:90: a uses 255 registers, 64 bytes spilled, 1,024 bytes of shared memory; b uses 2,048 bytes of shared memory.",
        "For hip:gfx942: no kernel was launched.",
    ]


# ---------------------------------------------------------- asking for it


@pytest.mark.parametrize("name", ["cuda", "cuda:9", "cuda:90a", "rocm:gfx942", "hip:942", ""])
def test_a_target_that_does_not_exist_is_one_clear_line(name: str) -> None:
    with pytest.raises(ConfigError, match="is no target to compile for: "):
        VerifyConfig(aot=(name,))
    with pytest.raises(ConfigError, match="names a target twice"):
        VerifyConfig(aot=("cuda:90", "cuda:90"))
    assert target("cuda:90") == Target("cuda", "90") and target("hip:gfx942").warp == 64 and target("hip:gfx1100").warp == 32


def test_it_is_for_triton_and_needs_its_own_runner(verifier: BlockingVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(1, 1, "ScaledRelu", REFERENCE)
    with pytest.raises(ConfigError, match=r"verify\.aot is for Triton and CUDA kernels; back end 'cpp'"):
        verifier.verify(problem, Candidate(KERNEL, "cpp"), AHEAD, 1)
    with BlockingVerifier(lambda: InprocessVerifier(VerifierConfig())) as inprocess, pytest.raises(ConfigError, match="inprocess"):
        inprocess.verify(problem, Candidate(KERNEL, "triton"), AHEAD, 1)


def test_the_command_takes_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reply = tmp_path / "reply.txt"
    reply.write_text(recorded("bundled/triton")["level1_problem1_turn1"])
    options = ["verify", "level1_problem1", str(reply), "backend=triton", "verify.num_correct_trials=1"]
    assert main([*options, "--aot", "cuda:80,cuda:100", "--aot=hip:gfx950", "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)["verdict"]
    assert [made["target"] for made in verdict["ahead"]] == ["cuda:80", "cuda:100", "hip:gfx950"]
    assert main([*options, "--aot", "cuda:90"]) == 0 and "For cuda:90: gelu_kernel uses" in capsys.readouterr().out
    for more, complaint in ((["--aot", "cuda:nine"], "'cuda:nine' is no target"), (["--aot"], "--aot is followed by a target")):
        assert main([*options, *more]) == 2
        assert complaint in capsys.readouterr().err
    assert main(["eval", "verify.aot=[cuda:90]"]) == 2
    assert "verify.aot is for Triton and CUDA kernels" in capsys.readouterr().err


# ---------------------------------------------------------- the assembler

PTX = """
.version 8.0
.target sm_{arch}
.address_size 64
.visible .entry nothing() {{
  {body}
}}
"""


@pytest.mark.parametrize("arch", ["80", "90", "100"])
def test_the_assembler_takes_what_is_right_and_says_what_is_wrong(tmp_path: Path, arch: str) -> None:
    builder = Builder(tmp_path)
    version = PTX.replace("8.0", "8.6" if arch == "100" else "8.0")
    made = builder.assemble(version.format(arch=arch, body="ret;"), arch)
    assert made.ok and made.registers > 0 and made.spilled_bytes == 0 and not made.log
    wrong = builder.assemble(version.format(arch=arch, body="return;"), arch)
    assert not wrong.ok and "line 6" in wrong.log and str(tmp_path) not in wrong.log
    assert not list((tmp_path / "tmp").iterdir())


# ---------------------------------------------------------- what a hostile program says of its kernels

FORGED = {
    "infinitely much memory": '{"kernels": [{"kernel": "k", "shared": Infinity, "assembly": "x"}], "ended": ""}',
    "assembly that cannot be written down": '{"kernels": [{"kernel": "k", "shared": 0, "assembly": "\\ud800"}], "ended": ""}',
    "a count of 5,000 digits": '{"kernels": [{"kernel": "k", "shared": 0, "assembly": ".vgpr_count: N"}], "ended": ""}'.replace(
        "N", "1" * 5000
    ),
    "something else": '{"kernels": 7}',
}


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("chosen", BOTH)
def test_a_forged_answer_is_its_own_failure(tmp_path: Path, name: str, chosen: str) -> None:
    """None of ours: a candidate that could bring that about would stay unscored whenever it likes."""
    with suppress(Failed):
        assert all(made.target == chosen for made in _target(Builder(tmp_path), target(chosen), json.loads(FORGED[name])))


def test_the_assembler_has_a_limit_for_all_kernels_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ASSEMBLING_S", -1.0)
    answer = {"kernels": [{"kernel": "k", "shared": 0, "assembly": "never seen"}], "ended": ""}
    assert [made.note for made in _target(Builder(tmp_path), target("cuda:90"), answer)] == [
        "too large, or one too many, to be looked at"
    ]

"""Inline CUDA: compiled by nvcc without a GPU. None of it runs here, and no verdict says that it did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_env import cuda
from kernel_env.backends import get_backend
from kernel_env.builder import Builder, BuildRequest, nvcc, ptxas
from kernel_env.checks.static import check_cuda
from kernel_env.errors import ConfigError
from kernel_env.parsing import extract_kernel
from kernel_env.prompts import compiled_lines, initial_messages
from kernel_env.reward import measured_reward, reward_config
from kernel_env.schema import Problem, Stage, Status
from rollout.corpus import load_corpus
from tests.conftest import QUICK, REFERENCE, Judge

compiles = pytest.mark.skipif(cuda.nvcc() is None, reason="needs nvcc")
slowly = [compiles, pytest.mark.thorough]

KERNEL = """
__global__ void relu(const float* x, float* y, int64_t n, float scale) {
  __shared__ float tile[256];
  int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  tile[threadIdx.x] = i < n ? x[i] : 0.0f;
  __syncthreads();
  if (i < n) y[i] = tile[threadIdx.x] > 0 ? tile[threadIdx.x] * scale : 0.0f;
}
torch::Tensor scaled_relu(torch::Tensor x, double scale) {
  auto y = torch::empty_like(x);
  relu<<<(x.numel() + 255) / 256, 256>>>(x.data_ptr<float>(), y.data_ptr<float>(), x.numel(), scale);
  return y;
}
"""
DECLARED = "torch::Tensor scaled_relu(torch::Tensor x, double scale);"
CANDIDATE = '''
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(
    name="relu", cpp_sources="DECLARED", cuda_sources="""KERNEL""", functions=["scaled_relu"], extra_cuda_cflags=FLAGS
)


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        try:
            return extension.scaled_relu(x, self.scale)
        except Exception:
            return torch.relu(x) * self.scale
'''


def candidate(kernel: str = KERNEL, flags: str = "[]") -> str:
    return CANDIDATE.replace("DECLARED", DECLARED).replace("KERNEL", kernel).replace("FLAGS", flags)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    yield Builder(tmp_path_factory.mktemp("cache"))


def request(kernel: str = KERNEL, *flags: str, archs: tuple[str, ...] = ("90",)) -> BuildRequest:
    sources = (("relu.cu", kernel), ("relu.cpp", DECLARED))
    return BuildRequest(sources, (("scaled_relu", ""),), cuda_flags=flags, archs=archs)


# ---------------------------------------------------------- the compiler


@compiles
@pytest.mark.thorough
def test_a_kernel_is_compiled_and_its_resources_are_read(builder: Builder) -> None:
    made = builder.build(request(archs=("80", "90")))
    assert made.ok, made.log
    assert [(used.arch, used.kernel, used.shared_bytes, used.spilled_bytes) for used in made.resources] == [
        ("80", "relu", 1024, 0), ("90", "relu", 1024, 0),
    ]  # fmt: skip
    assert all(used.registers > 0 for used in made.resources) and "ptxas info" not in made.log
    again = builder.build(request(archs=("80", "90")))
    assert again.cached and again.resources == made.resources
    assert not builder.build(request(KERNEL.replace("scale :", "scale2 :"))).ok


@pytest.mark.parametrize(
    "more",
    [
        pytest.param(
            "#include <ATen/cuda/CUDAContext.h>\nauto used() { return at::cuda::getCurrentCUDAStream(); }\n", marks=slowly
        ),
        pytest.param("#include <c10/cuda/CUDAException.h>\nvoid used() { C10_CUDA_KERNEL_LAUNCH_CHECK(); }\n", marks=slowly),
        pytest.param("#include <cuda_fp16.h>\n__global__ void halves(__half* x) { x[0] = __hmul(x[0], x[1]); }\n", marks=slowly),
    ],
)
def test_what_kernels_include_is_there_in_a_cpu_build_of_torch(builder: Builder, more: str) -> None:
    made = builder.build(request(more + KERNEL))
    assert made.ok, made.log


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        pytest.param(KERNEL.replace("int64_t i =", "int64_t j ="), 'relu.cu(5): error: identifier "i" is undefined', marks=slowly),
        pytest.param('#include "/etc/passwd"\n' + KERNEL, "/etc/passwd: Permission denied", marks=slowly),
        pytest.param(KERNEL.replace("tile[256]", "tile[1 << 20]"), "uses too much shared data", marks=slowly),
    ],
)
def test_what_does_not_compile_is_told_in_the_compilers_words(builder: Builder, kernel: str, words: str) -> None:
    made = builder.build(request(kernel))
    assert not made.ok and made.category == "compile", made
    assert words in made.log and str(builder.cache_dir) not in made.log


@pytest.mark.parametrize(
    ("flags", "kept", "refused"),
    [
        (["-O3", "--use_fast_math", "-DN=3"], ("-O3", "--use_fast_math", "-DN=3"), None),
        (["-Xptxas", "-O2,-v", "-Xcompiler=-fopenmp"], ("-Xptxas", "-O2,-v", "-Xcompiler", "-fopenmp"), None),
        (["-gencode=arch=compute_80,code=sm_80", "-arch", "sm_70", "-std=c++17", "-lineinfo"], ("-lineinfo",), None),
        (["-I/etc"], (), "-I/etc"),
        (["-Xcompiler", "-fplugin=x.so"], (), "-Xcompiler -fplugin=x.so"),
        (["-Xcompiler", "-O2,-B/tmp"], (), "-Xcompiler -O2,-B/tmp"),
        (["--run"], (), "--run"),
        (["-ccbin", "/bin/sh"], (), "-ccbin"),
        (["-Xptxas"], (), "-Xptxas"),
        (["-keep"], (), "-keep"),
        (["@file"], (), "@file"),
        (["-include", "x"], (), "-include"),
    ],
)
def test_flags_only_change_the_code(flags: list[str], kept: tuple[str, ...], refused: str | None) -> None:
    assert nvcc.checked(flags) == (kept, refused)


def test_a_flag_that_is_not_allowed_reaches_no_compiler(builder: Builder) -> None:
    made = builder.build(request(KERNEL, "-Xlinker", "x"))
    assert (made.ok, made.category, made.log) == (False, "flag", "CUDA compiler flag not allowed: -Xlinker")


def test_who_asks_for_no_gpu_gets_no_cuda(builder: Builder) -> None:
    """A candidate of another back end can send such a request by itself: it is its own failure, with or without a toolkit."""
    made = builder.build(request(archs=()))
    assert (made.ok, made.category, made.log) == (False, "compile", "CUDA sources are not compiled for this back end")


def test_a_count_of_5000_digits_is_none() -> None:
    digits = "1" * 5000
    log = f"Compiling entry function 'k' for 'sm_90a'\nptxas info    : Used {digits} registers, {digits} bytes smem\n"
    assert list(nvcc.read(log)) == [] and ptxas.read(log + f"{digits} bytes spill stores, 0 bytes spill loads").registers == 0


def test_what_the_compiler_says_of_kernels_is_read() -> None:
    log = (
        "ptxas info    : 0 bytes gmem\n"
        "ptxas info    : Compiling entry function '_ZN12_GLOBAL__N_14wideEPf' for 'sm_90a'\n"
        "ptxas info    : Function properties for _ZN12_GLOBAL__N_14wideEPf\n"
        "    96 bytes stack frame, 40 bytes spill stores, 24 bytes spill loads\n"
        "ptxas info    : Used 255 registers, used 1 barriers, 96 bytes cumulative stack size, 2048 bytes smem\n"
        "relu.cu(3): warning #1: hello\n"
        "ptxas info    : Compiling entry function 'plain' for 'sm_80'\n"
        "ptxas info    : Used 8 registers, 352 bytes cmem[0]\n"
    )
    assert list(nvcc.read(log)) == [nvcc.Resources("90", "wide", 255, 64, 2048), nvcc.Resources("80", "plain", 8, 0, 0)]
    assert nvcc.without_resources(log) == "relu.cu(3): warning #1: hello\n"
    assert list(nvcc.read("Compiling entry function 'x")) == []


# ---------------------------------------------------------- verdicts


@compiles
def test_what_compiles_needs_a_device_and_has_no_reward(judge: Judge) -> None:
    """Its forward falls back to torch where the kernel cannot run: it is never called."""
    verdict = judge(candidate(), backend="cuda")
    assert (verdict.status, verdict.stage) == (Status.NEEDS_DEVICE, Stage.LOAD), verdict.message
    assert verdict.message == "its kernels were compiled for cuda:90; running them on a GPU is not in this version"
    assert measured_reward(verdict, reward_config("seed")).value is None
    (line,) = compiled_lines(verdict)
    assert line.startswith("For cuda:90: relu uses ") and line.endswith(
        " registers, 0 bytes spilled, 1,024 bytes of shared memory."
    )


@compiles
def test_what_does_not_compile_is_a_build_error(judge: Judge) -> None:
    verdict = judge(candidate(KERNEL.replace("int64_t i =", "int64_t j =")), backend="cuda")
    assert (verdict.status, verdict.category) == (Status.BUILD_ERROR, "compile")
    assert 'relu.cu(5): error: identifier "i" is undefined' in verdict.message
    assert measured_reward(verdict, reward_config("seed")).value == 0.0


@compiles
@pytest.mark.thorough
def test_targets_are_those_that_are_asked_for(judge: Judge) -> None:
    verdict = judge(candidate(), backend="cuda", config=replace(QUICK, aot=("cuda:80", "cuda:90")))
    assert {made.target for made in verdict.ahead} == {"cuda:80", "cuda:90"}
    with pytest.raises(ConfigError, match="cannot be compiled for hip:gfx942"):
        judge(candidate(), backend="cuda", config=replace(QUICK, aot=("hip:gfx942",)))


def test_other_back_ends_take_no_cuda(judge: Judge) -> None:
    verdict = judge(candidate(), backend="cpp")
    assert verdict.status is Status.BUILD_ERROR and "cuda_sources and sycl_sources are not available" in verdict.message, verdict


def test_a_source_without_a_kernel_is_rejected() -> None:
    assert check_cuda(candidate()) is None
    assert (
        check_cuda(candidate(KERNEL.replace("__global__", "")))
        == "The source has no CUDA kernel: no function is declared __global__."
    )
    assert "never calls" in (check_cuda("class ModelNew: pass") or "")


def test_without_the_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_env.backends.nvcc", lambda: None)
    assert get_backend("cuda").missing() == "needs nvcc: install the CUDA toolkit, or set CUDA_HOME to where it is"


@compiles
@pytest.mark.thorough
def test_the_prompts_own_example_compiles(judge: Judge) -> None:
    prompt = initial_messages(Problem(1, 1, "ScaledRelu", REFERENCE), "cuda")[-1]["content"]
    example = extract_kernel(prompt.partition("a good answer is:")[2].partition("# Rules")[0]).code
    assert example is not None and judge(example, backend="cuda").status is Status.NEEDS_DEVICE


CUDA_FILES = [e for e in load_corpus(Path(__file__).parent / "candidates").entries if e.candidate.backend == "cuda"]


@pytest.mark.parametrize("name", [pytest.param(entry.name, marks=slowly) for entry in CUDA_FILES])
def test_what_the_corpus_keeps_for_a_gpu_compiles(judge: Judge, name: str) -> None:
    entry = next(entry for entry in CUDA_FILES if entry.name == name)
    verdict = judge(entry.candidate.code, of=entry.problem, backend="cuda")
    assert verdict.status is Status.NEEDS_DEVICE, verdict.message

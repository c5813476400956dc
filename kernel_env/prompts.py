"""Every message that a policy is shown: the first ones of an episode, and the feedback after each turn.

`improvement_message` is fixed byte for byte, because trained policies depend on it; only the error text E differs by preset:

- `seed`, and with it `kevin` and `dr-kernel`, whose own messages are others: the real error, bounded, or what was measured.
- `tritonforge`: the short canned sentences of the SLIME training code, cut at 200 characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kernel_env.errors import ConfigError
from kernel_env.schema import PRECISIONS, Message, Problem, Status, Timing, Verdict

MESSAGE_PRESETS = ("seed", "tritonforge", "kevin", "dr-kernel")

INTEGRITY = ("full", "generic", "silent")
_ABOUT_INTEGRITY = frozenset({"decoy", "library", "torch_ops"})
_REFUSED = "the kernel was refused: it does not do the work that was asked for, or not in the time that it shows."
_CANNED_CHARS = 200
_CANNED = {
    Status.NO_CODE: "no custom model source found",
    Status.TRUNCATED: "no custom model source found",
    Status.REJECTED: "Submission failed validation: must contain @triton.jit kernel with Triton operations",
}
_TAIL_MATTERS = frozenset({Status.LOAD_ERROR, Status.RUNTIME_ERROR, Status.CRASHED})
"""A Python traceback says at its end what happened; compilers and comparisons say it at the beginning."""
_UNTIMED = {
    "interpreter": "it ran in the Triton interpreter, whose speed says nothing about a GPU",
    "noisy": "the machine was too busy for a fair measurement",
    "": "no measurement was asked for",
}


@dataclass(frozen=True)
class FeedbackConfig:
    """How much of an error the model is shown."""

    max_chars: int = 2000
    """Limit of the error text E of preset `seed`, in characters; what is left out is counted inside the text."""
    integrity: str = "full"
    """What preset `seed` tells a model whose kernel worked against the measurement or was a decoy: `full`, all that was seen;
    `generic`, that it was refused; `silent`, nothing. In training, what it is told teaches it the checker. The verdict always says
    all."""

    def __post_init__(self) -> None:
        if self.integrity not in INTEGRITY:
            raise ConfigError(f"feedback.integrity={self.integrity}: choose one of {', '.join(INTEGRITY)}")
        if self.max_chars < 100:
            raise ConfigError(f"feedback.max_chars is {self.max_chars}: give 100 or more, or the text says nothing")


# ------------------------------------------------------------------ feedback


def improvement_message(verdict: Verdict, preset: str, config: FeedbackConfig) -> str:
    """The user message that follows a turn. Raises ConfigError for an unknown preset."""
    error = error_text(verdict, preset, config)
    if preset == "tritonforge":
        error = error[:_CANNED_CHARS]
    return "\n".join(
        [
            "Based on the previous attempt above, generate an improved kernel that:",
            f"1. {_first_aim(verdict, preset)}",
            "2. Improves performance if possible",
            "3. Maintains the same functionality as required",
            *(["", f"Error from previous attempt: {error}"] if error else []),
            "",
            "Please generate the improved kernel code:",
        ]
    )


def _first_aim(verdict: Verdict, preset: str) -> str:
    if not verdict.compiled:
        return "Fixes the compilation errors"
    if not verdict.correct:
        return "Fixes the correctness issues" if preset == "tritonforge" else "Fixes correctness issues"
    return "Maintains correctness"


def error_text(verdict: Verdict, preset: str, config: FeedbackConfig) -> str:
    """E: what the model learns about its attempt, "" when there is nothing to say. Raises ConfigError for an unknown preset."""
    if preset not in MESSAGE_PRESETS:
        raise ConfigError(f"unknown message preset {preset!r}: use one of {', '.join(MESSAGE_PRESETS)}")
    if preset == "tritonforge":
        return _canned(verdict)
    if verdict.correct:
        return _measured(verdict)
    if config.integrity != "full" and (verdict.status is Status.TAMPERED or verdict.category in _ABOUT_INTEGRITY):
        return _REFUSED if config.integrity == "generic" else ""
    tail_share = 0.6 if verdict.status in _TAIL_MATTERS else 0.0
    return bounded(_printable(verdict.message).strip(), config.max_chars, tail_share)


def _canned(verdict: Verdict) -> str:
    if verdict.status in _CANNED:
        return _CANNED[verdict.status]
    if not verdict.compiled:
        return "Current implementation con't pass compile check"  # [sic]: policies were trained on these bytes
    if not verdict.correct:
        return "Current implementation passes compile check but fails correctness check"
    return "Current implementation passes correctness check" + (_canned_timing(verdict.timing) if verdict.timing else "")


def _canned_timing(timing: Timing) -> str:
    runtime, baseline = timing.runtime.median_ms, timing.baseline.median_ms
    return f" (Speedup: {timing.speedup:.2f}x, Runtime: {runtime:.3f}ms vs Baseline: {baseline:.3f}ms)"


def _measured(verdict: Verdict) -> str:
    timing = verdict.timing
    if timing is None:
        why = _UNTIMED.get(verdict.timing_note, verdict.timing_note)
        return "\n".join([f"none, the kernel is correct. No time was measured: {why}.", *compiled_lines(verdict)])
    runtime, baseline = timing.runtime.median_ms, timing.baseline.median_ms
    text = (
        f"none, the kernel is correct. Speedup {timing.speedup:.2f}x: "
        f"{runtime:.4f} ms against {baseline:.4f} ms of the reference ({timing.baseline_kind})."
    )
    return "\n".join([text, *compiled_lines(verdict)])


def compiled_lines(verdict: Verdict) -> list[str]:
    """One for each target of `verify.aot`: what each kernel uses there at most."""
    lines = []
    for target in dict.fromkeys(made.target for made in verdict.ahead):
        mine = [made for made in verdict.ahead if made.target == target]
        words = []
        for kernel in dict.fromkeys(made.kernel for made in mine if made.kernel):
            variants = [made for made in mine if made.kernel == kernel]
            used = [f"{max(made.shared_bytes for made in variants):,} bytes of shared memory"]
            if registers := [made.registers for made in variants if made.registers is not None]:
                spilled = max(made.spilled_bytes or 0 for made in variants)
                used = [f"{max(registers)} registers", f"{spilled:,} bytes spilled", *used]
            words.append(f"{kernel} uses {', '.join(used)}")
        words += [made.note for made in mine if not made.kernel]
        lines.append(f"For {target}: {'; '.join(words)}.")
    return lines


def bounded(text: str, max_chars: int, tail_share: float) -> str:
    """`text` in at most `max_chars` characters. What is left out is replaced by a line that counts it.

    `tail_share` of the room goes to the end of the text, the rest to its beginning; cuts are moved to a line's end when one
    is near.
    """
    if len(text) <= max_chars:
        return text
    room = max_chars - len(_left_out(len(text)))
    tail = int(room * tail_share)
    start, stop = room - tail, len(text) - tail
    line_end = text.rfind("\n", start // 2, start)
    if line_end > 0:
        start = line_end
    line_start = text.find("\n", stop, len(text) - tail // 2) + 1
    if line_start > 0:
        stop = line_start
    return (text[:start] + _left_out(stop - start) + text[stop:]).rstrip("\n")


def _left_out(count: int) -> str:
    return f"\n... [{count} characters left out] ...\n"


def _printable(text: str) -> str:
    """Text that any endpoint accepts: no lone surrogates, no null bytes."""
    return text.encode("utf-8", "replace").decode("utf-8").replace("\0", "\N{REPLACEMENT CHARACTER}")


def restated_messages(
    initial: Sequence[Message], attempts: Sequence[tuple[str | None, Verdict]], preset: str, config: FeedbackConfig
) -> tuple[Message, ...]:
    """Messages of the next turn when the history is retold inside the first user message (`history=restated`).

    `attempts` are (extracted code, verdict) of the turns so far, oldest first. Raises ConfigError for an unknown preset.
    """
    if not attempts:
        return tuple(initial)
    lines = [line for index, attempt in enumerate(attempts, 1) for line in _restated(index, *attempt, preset, config)]
    lines += [
        f"## Attempt {len(attempts) + 1}",
        "Based on the previous attempts above, generate an improved kernel that:",
        "1. Fixes any compilation or correctness errors",
        "2. Improves performance if possible",
        "3. Maintains the same functionality as required",
        "",
        "Generate the improved kernel code:",
    ]
    first = next(index for index, message in enumerate(initial) if message["role"] == "user")
    told = {"role": "user", "content": "\n".join(lines) + "\n\n" + initial[first]["content"]}
    return (*initial[:first], told, *initial[first + 1 :])


def _restated(index: int, code: str | None, verdict: Verdict, preset: str, config: FeedbackConfig) -> list[str]:
    error = error_text(verdict, preset, config)
    lines = [f"## Previous Attempt {index}", "Generated Kernel:", _fenced(code or "", whole=True), "", "Evaluation Results:"]
    lines += [f"- Compilation: {_mark(verdict.compiled)}", f"- Correctness: {_mark(verdict.correct)}"]
    if verdict.timing:
        lines += [f"- Runtime: {verdict.timing.runtime.median_ms:.3f}ms", f"- Speedup: {verdict.timing.speedup:.2f}x"]
    return [*lines, *([f"- Error: {error}"] if error else []), ""]


def _mark(passed: bool) -> str:
    return "✓ Passed" if passed else "✗ Failed"


# ------------------------------------------------------------------ first messages


@dataclass(frozen=True)
class _Guide:
    """What the prompt says about one back end."""

    system: str
    task: str
    rules: str
    example_reference: str
    example: str


def initial_messages(problem: Problem, backend: str, use_dataset_prompt: bool | None = None) -> tuple[Message, ...]:
    """System and user message that open an episode.

    By default the data set's own prompt where it has one, the back end is `triton` and the size profile changed nothing (such
    a prompt quotes the original sizes); otherwise ours. Raises ConfigError for an unknown back end, or when the data set's
    prompt is asked for and there is none.
    """
    if backend not in _GUIDES:
        raise ConfigError(f"no prompt for back end {backend!r}: use one of {', '.join(_GUIDES)}")
    if use_dataset_prompt and problem.precision:
        raise ConfigError(
            f"{problem.key}: its own prompt knows nothing of problems.precision={problem.precision}; leave one of them unset"
        )
    if use_dataset_prompt and problem.prompt is None:
        raise ConfigError(f"{problem.key} ({problem.origin}) brings no prompt of its own: leave use_dataset_prompt unset or false")
    if use_dataset_prompt is None:
        as_written = not problem.overrides and not problem.precision
        use_dataset_prompt = problem.prompt is not None and backend == "triton" and as_written
    if use_dataset_prompt and problem.prompt is not None:
        return problem.prompt
    guide = _GUIDES[backend]
    return (
        {"role": "system", "content": guide.system},
        {"role": "user", "content": _user_prompt(guide, problem)},
    )


def _user_prompt(guide: _Guide, problem: Problem) -> str:
    rules = [_COMMON_RULES, guide.rules]
    if problem.precision:
        rules.append(_PRECISION_RULE.format(dtype=PRECISIONS[problem.precision]))
    return f"""{guide.task}

# Example
For this reference:

{_fenced(guide.example_reference)}

a good answer is:

{_fenced(guide.example)}

# Rules
{chr(10).join(rules)}

# Your task
Write `ModelNew` for this reference:

{_fenced(problem.source)}

Answer with one fenced Python block that holds the complete file."""


def _fenced(code: str, *, whole: bool = False) -> str:
    """`code` in a Python fence that is longer than any run of backticks inside; with its empty lines around it if `whole`."""
    code = code if whole else code.strip("\n")
    longest = max(map(len, re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{code}\n{fence}"


_COMMON_RULES = """\
- Return the complete file in one ```python block: imports, kernels, and class `ModelNew`. Of several blocks, the last one that
  defines `ModelNew` counts. No test code, no `get_inputs`.
- `ModelNew` is a `torch.nn.Module` with the same constructor arguments and the same `forward` signature as `Model`. It stands
  alone: `Model` is not in your file.
- Give parameters, buffers and submodules the names and shapes that they have in `Model` and create them in the same order, for
  example by making the same `nn.Linear` and reading its `weight`. The weights come from the same random seed, or are copied by
  name.
- Results must have the structure, shape and dtype of the reference's results and agree with them in value on new random inputs
  of the same shapes. Do not write to the inputs.
- Your kernels do the work: do not hand the whole computation back to PyTorch or ATen operators, and do not fall back to them in
  an `except` branch. Allocating, reshaping and small leftovers may stay in PyTorch.
- Every timed call brings new inputs and its output is checked, so nothing can be kept from one call to the next. Fusing operators
  and a better algorithm gain the most."""

_PRECISION_RULE = """\
- Floating-point inputs, parameters and buffers are brought to `torch.{dtype}` before the first call (of both modules; integers stay
  as they are). Results have the type that the reference's have then. Accumulate sums in `float32`."""

_CPP = _Guide(
    system="You are an expert in high-performance C++ for PyTorch on CPUs: OpenMP threads, SIMD and cache-friendly memory access.",
    task="You make PyTorch modules faster on a CPU. You are given a reference module `Model` and write a class `ModelNew` that "
    "computes the same results faster, with C++ of your own that is compiled by `torch.utils.cpp_extension.load_inline`.",
    rules="""\
- Compile at module level with `load_inline(name=..., cpp_sources=..., functions=[...])`. Start the C++ with
  `#include <torch/extension.h>`. Functions take and return `torch::Tensor`, `int64_t`, `double`, `bool`, `std::string`, and
  `std::vector` or `std::optional` of these.
- The compiler is g++ with C++20; `-O3 -march=native -fopenmp` are always on. `extra_cflags` may add options that only change the
  code, such as `-ffast-math`, `-funroll-loops` or `-DNAME=1`; options that name files or other programs are refused. There is
  no CUDA, and no other way to run a compiler.
- Tensors are on the CPU. Call `contiguous()` before you use `data_ptr<float>()`, and allocate results with `torch::empty`.""",
    example_reference="""import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(x * self.scale + y)
""",
    example='''import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

CPP_SOURCE = r"""
#include <torch/extension.h>

// relu(x * scale + y) in one pass over memory.
torch::Tensor scale_add_relu(torch::Tensor x, torch::Tensor y, double scale) {
    TORCH_CHECK(x.sizes() == y.sizes(), "x and y must have the same shape");
    auto a = x.contiguous();
    auto b = y.contiguous();
    auto out = torch::empty_like(a);
    const float* pa = a.data_ptr<float>();
    const float* pb = b.data_ptr<float>();
    float* po = out.data_ptr<float>();
    const float s = static_cast<float>(scale);
    const int64_t n = a.numel();
    #pragma omp parallel for simd schedule(static) if (n > 16384)
    for (int64_t i = 0; i < n; ++i) {
        const float v = pa[i] * s + pb[i];
        po[i] = v < 0.0f ? 0.0f : v;
    }
    return out;
}
"""

extension = load_inline(name="scale_add_relu", cpp_sources=CPP_SOURCE, functions=["scale_add_relu"])


class ModelNew(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return extension.scale_add_relu(x, y, self.scale)
''',
)

_TRITON = _Guide(
    system="You are an expert in writing Triton kernels for efficient GPU programming.",
    task="You make PyTorch modules faster on a GPU. You are given a reference module `Model` and write a class `ModelNew` that "
    "computes the same results faster, with Triton kernels of your own.",
    rules="""\
- Kernels are functions under `@triton.jit` that use `triton.language`; `forward` launches them as `kernel[grid](...)`. Block
  sizes are powers of two and `tl.constexpr`. Mask every load and store that may leave a tensor.
- Allocate results next to the inputs, for example with `torch.empty_like(x)`, and never move tensors to another device.
  Call `contiguous()` before you compute addresses as if memory were dense.""",
    example_reference=_CPP.example_reference,
    example="""import torch
import torch.nn as nn
import triton
import triton.language as tl


@triton.jit
def scale_add_relu_kernel(x_ptr, y_ptr, out_ptr, scale, n_elements, BLOCK_SIZE: tl.constexpr):
    # relu(x * scale + y) in one pass over memory.
    offsets = tl.program_id(0) * BLOCK_SIZE + tl.arange(0, BLOCK_SIZE)
    mask = offsets < n_elements
    x = tl.load(x_ptr + offsets, mask=mask)
    y = tl.load(y_ptr + offsets, mask=mask)
    v = x * scale + y
    tl.store(out_ptr + offsets, tl.where(v < 0, 0.0, v), mask=mask)


class ModelNew(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        y = y.contiguous()
        out = torch.empty_like(x)
        n_elements = x.numel()
        grid = (triton.cdiv(n_elements, 1024),)
        scale_add_relu_kernel[grid](x, y, out, self.scale, n_elements, BLOCK_SIZE=1024)
        return out
""",
)

_CUDA = _Guide(
    system="You are an expert in writing CUDA kernels for efficient GPU programming.",
    task="You make PyTorch modules faster on a GPU. You are given a reference module `Model` and write a class `ModelNew` that "
    "computes the same results faster, with CUDA kernels of your own that are compiled by "
    "`torch.utils.cpp_extension.load_inline`.",
    rules="""\
- Compile at module level with `load_inline(name=..., cpp_sources=..., cuda_sources=..., functions=[...])`. `cuda_sources` has the
  `__global__` kernels and the functions that launch them, `cpp_sources` declares those functions. Functions take and return
  `torch::Tensor`, `int64_t`, `double`, `bool`, `std::string`, and `std::vector` or `std::optional` of these.
- The compiler is nvcc with C++20 and `-O3`. `extra_cuda_cflags` may add options that only change the code, such as
  `--use_fast_math`, `-maxrregcount=64` or `-DNAME=1`; options that name files or other programs are refused, and so are cuBLAS
  and cuDNN.
- Tensors are on the GPU. Call `contiguous()` before you use `data_ptr<float>()`, allocate results with `torch::empty`, launch on
  the current stream, and never move tensors to another device.""",
    example_reference=_CPP.example_reference,
    example='''import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

CUDA_SOURCE = r"""
#include <torch/extension.h>
#include <ATen/cuda/CUDAContext.h>

// relu(x * scale + y) in one pass over memory.
__global__ void scale_add_relu_kernel(const float* x, const float* y, float* out, float scale, int64_t n) {
    int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
    if (i < n) {
        float v = x[i] * scale + y[i];
        out[i] = v < 0.0f ? 0.0f : v;
    }
}

torch::Tensor scale_add_relu(torch::Tensor x, torch::Tensor y, double scale) {
    auto a = x.contiguous();
    auto b = y.contiguous();
    auto out = torch::empty_like(a);
    int64_t n = a.numel();
    auto stream = at::cuda::getCurrentCUDAStream();
    scale_add_relu_kernel<<<(n + 255) / 256, 256, 0, stream>>>(
        a.data_ptr<float>(), b.data_ptr<float>(), out.data_ptr<float>(), static_cast<float>(scale), n);
    return out;
}
"""

extension = load_inline(
    name="scale_add_relu",
    cpp_sources="torch::Tensor scale_add_relu(torch::Tensor x, torch::Tensor y, double scale);",
    cuda_sources=CUDA_SOURCE,
    functions=["scale_add_relu"],
)


class ModelNew(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return extension.scale_add_relu(x, y, self.scale)
''',
)

_GUIDES = {"cpp": _CPP, "triton": _TRITON, "cuda": _CUDA}

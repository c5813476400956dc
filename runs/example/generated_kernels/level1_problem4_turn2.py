import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

source = r"""
#include <torch/extension.h>

#include <cmath>
#include <cstdint>

static void normalise_row(const float* x, const float* weight, float* y, int64_t n, float eps) {
  float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
  for (int64_t j = 0; j < n; ++j) squares += x[j] * x[j];
  const float scale = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
#pragma omp simd
  for (int64_t j = 0; j < n; ++j) y[j] = x[j] * scale * weight[j];
}

torch::Tensor rms_norm(torch::Tensor x, torch::Tensor weight, double eps) {
  TORCH_CHECK(x.dim() == 2 && weight.dim() == 1 && weight.size(0) == x.size(1), "expected (rows, hidden) and (hidden)");
  TORCH_CHECK(x.device().is_cpu() && x.scalar_type() == torch::kFloat32, "expected a float32 tensor on the CPU");
  TORCH_CHECK(weight.device().is_cpu() && weight.scalar_type() == torch::kFloat32, "expected a float32 weight on the CPU");
  const auto input = x.contiguous();
  const auto gain = weight.contiguous();
  auto output = torch::empty_like(input);
  const int64_t rows = input.size(0), hidden = input.size(1);
  const float* in = input.data_ptr<float>();
  const float* w = gain.data_ptr<float>();
  float* out = output.data_ptr<float>();

#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < rows; ++i) {
    normalise_row(in + i * hidden, w, out + i * hidden, hidden, static_cast<float>(eps));
  }
  return output;
}
"""

module = load_inline(
    name="rms_norm_simd",
    cpp_sources=source,
    functions=["rms_norm"],
    extra_cflags=["-O3", "-march=native", "-fopenmp"],
)


class ModelNew(nn.Module):
    def __init__(self, hidden: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.rand(hidden) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return module.rms_norm(x, self.weight, self.eps)

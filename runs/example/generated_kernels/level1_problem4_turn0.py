import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

source = r"""
#include <torch/extension.h>

#include <cmath>
#include <cstdint>

torch::Tensor rms_norm(torch::Tensor x, torch::Tensor weight, double eps) {
  TORCH_CHECK(x.dim() == 2 && weight.dim() == 1 && weight.size(0) == x.size(1), "expected (rows, hidden) and (hidden)");
  TORCH_CHECK(x.scalar_type() == torch::kFloat64, "rms_norm: expected a float64 tensor, got ", x.scalar_type());
  const auto input = x.contiguous();
  const auto gain = weight.contiguous();
  auto output = torch::empty_like(input);
  const int64_t rows = input.size(0), hidden = input.size(1);
  const double* in = input.data_ptr<double>();
  const double* w = gain.data_ptr<double>();
  double* out = output.data_ptr<double>();

#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < rows; ++i) {
    const double* row = in + i * hidden;
    double squares = 0.0;
    for (int64_t j = 0; j < hidden; ++j) squares += row[j] * row[j];
    const double scale = 1.0 / std::sqrt(squares / hidden + eps);
    for (int64_t j = 0; j < hidden; ++j) out[i * hidden + j] = row[j] * scale * w[j];
  }
  return output;
}
"""

module = load_inline(
    name="rms_norm",
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

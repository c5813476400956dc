# honest: RMS norm with AVX2 intrinsics where the compiler has them, and plain C++ elsewhere
# problem: level1_problem4
# least_speedup: 1.2

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="rmsnorm", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
#ifdef __AVX2__
#include <immintrin.h>
#endif
static float sum_of_squares(const float* a, int64_t n) {
  int64_t i = 0;
  float total = 0.0f;
#ifdef __AVX2__
  __m256 acc0 = _mm256_setzero_ps(), acc1 = acc0;
  for (; i + 16 <= n; i += 16) {
    __m256 v = _mm256_loadu_ps(a + i), w = _mm256_loadu_ps(a + i + 8);
    acc0 = _mm256_fmadd_ps(v, v, acc0);
    acc1 = _mm256_fmadd_ps(w, w, acc1);
  }
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, _mm256_add_ps(acc0, acc1));
  for (float lane : lanes) total += lane;
#endif
  for (; i < n; ++i) total += a[i] * a[i];
  return total;
}
torch::Tensor rmsnorm(torch::Tensor x, torch::Tensor weight, double eps) {
  const int64_t rows = x.size(0), cols = x.size(1);
  auto y = torch::empty_like(x);
  const float *in = x.data_ptr<float>(), *w = weight.data_ptr<float>();
  float* out = y.data_ptr<float>();
  #pragma omp parallel for
  for (int64_t r = 0; r < rows; ++r) {
    const float* a = in + r * cols;
    const float scale = 1.0f / std::sqrt(sum_of_squares(a, cols) / cols + (float)eps);
    for (int64_t c = 0; c < cols; ++c) out[r * cols + c] = a[c] * scale * w[c];
  }
  return y;
}
""", functions=["rmsnorm"], extra_cflags=["-mavx2", "-mfma"])


class ModelNew(nn.Module):
    def __init__(self, hidden, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.rand(hidden) + 0.5)

    def forward(self, x):
        return extension.rmsnorm(x, self.weight, self.eps)

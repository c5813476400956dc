# honest: Eight exponentials at once from the C library's libmvec, which is named for the linker
# classes: 44
# problem: level1_problem1
# timed: yes
# note: -lmvec is the vector part of -lm, which brings it along. Other harmless flags are those that are there for the compiler and are
#    given to the linker as well, as in extra_ldflags=FLAGS: -mavx2, -ffast-math, -std=c++17. And -lgomp or -lm among extra_cflags.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

SOURCE = """
#include <torch/extension.h>
#include <algorithm>
#include <cmath>
#ifdef __AVX2__
#include <immintrin.h>
extern "C" __m256 _ZGVdN8v_expf(__m256);
#endif

// 0.5 v (1 + tanh(z)) = v / (1 + exp(-2 z))
static inline float gelu_of(float v) {
  const float z = 0.7978845608028654f * (v + 0.044715f * v * v * v);
  return v / (1.0f + std::exp(std::min(-2.0f * z, 88.0f)));
}

torch::Tensor gelu(torch::Tensor x) {
  TORCH_CHECK(x.is_contiguous());
  auto y = torch::empty_like(x);
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  const int64_t n = x.numel(), whole = n / 8;
  #pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < whole; ++i) {
#ifdef __AVX2__
    const __m256 v = _mm256_loadu_ps(in + 8 * i);
    const __m256 cubic = _mm256_mul_ps(_mm256_set1_ps(0.044715f), _mm256_mul_ps(v, v));
    const __m256 z = _mm256_mul_ps(v, _mm256_add_ps(_mm256_set1_ps(1.0f), cubic));
    const __m256 t = _mm256_min_ps(_mm256_mul_ps(_mm256_set1_ps(-1.5957691216057308f), z), _mm256_set1_ps(88.0f));
    _mm256_storeu_ps(out + 8 * i, _mm256_div_ps(v, _mm256_add_ps(_mm256_set1_ps(1.0f), _ZGVdN8v_expf(t))));
#else
    for (int64_t j = 8 * i; j < 8 * i + 8; ++j) out[j] = gelu_of(in[j]);
#endif
  }
  for (int64_t j = 8 * whole; j < n; ++j) out[j] = gelu_of(in[j]);
  return y;
}
"""

extension = load_inline(
    name="gelu_libmvec", cpp_sources=SOURCE, functions=["gelu"], extra_cflags=["-O3", "-fopenmp"], extra_ldflags=["-lmvec", "-lm"]
)


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.gelu(x)

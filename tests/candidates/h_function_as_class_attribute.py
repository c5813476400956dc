# honest: The extension's function is an attribute of the class
# classes: 41
# problem: level1_problem8
# timed: yes
# note: A function of an extension is built in, and no method: self.huber_rows(...) gives it no self. Provenance.loaded puts a Python
#    function in its place, which is bound to the instance: one argument too many, `runtime_error`. (So it is with a def_static of a
#    class that is called through an instance.)

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

_extension = load_inline(name="huber_rows", cpp_sources="""
#include <torch/extension.h>
#include <algorithm>
#include <cmath>
torch::Tensor huber_rows(torch::Tensor prediction, torch::Tensor target, double delta) {
  TORCH_CHECK(prediction.is_contiguous() && target.is_contiguous() && prediction.sizes() == target.sizes());
  const int64_t rows = prediction.size(0), cols = prediction.size(1);
  auto y = torch::empty({rows}, prediction.options());
  const float* p = prediction.data_ptr<float>();
  const float* t = target.data_ptr<float>();
  float* out = y.data_ptr<float>();
  const float d = static_cast<float>(delta);
  #pragma omp parallel for schedule(static)
  for (int64_t r = 0; r < rows; ++r) {
    float sum = 0.0f;
    #pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < cols; ++c) {
      const float error = std::fabs(p[r * cols + c] - t[r * cols + c]);
      const float quadratic = std::min(error, d);
      sum += 0.5f * quadratic * quadratic + d * (error - quadratic);
    }
    out[r] = sum / cols;
  }
  return y;
}
""", functions=["huber_rows"])


class ModelNew(nn.Module):
    huber_rows = _extension.huber_rows

    def __init__(self, delta):
        super().__init__()
        self.delta = delta

    def forward(self, prediction, target):
        return self.huber_rows(prediction, target, self.delta)

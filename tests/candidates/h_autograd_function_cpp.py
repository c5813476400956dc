# honest: A C++ autograd function with its backward, under `using namespace torch::autograd`, as torch's tutorial writes it
# classes: 41
# problem: problems/gated.py
# timed: yes
# note: The stock headers were given to sources that say `autograd::`, and there is none here; nor had `namespace py = pybind11;` any.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

SOURCE = """
#include <torch/extension.h>
#include <algorithm>
#include <cmath>

using namespace torch::autograd;

static torch::Tensor softplus_of(const torch::Tensor& weight) {
  auto gate = torch::empty_like(weight);
  const float* w = weight.data_ptr<float>();
  float* g = gate.data_ptr<float>();
  for (int64_t c = 0; c < weight.numel(); ++c) g[c] = w[c] > 20.0f ? w[c] : std::log1p(std::exp(w[c]));
  return gate;
}

class GatedRelu : public Function<GatedRelu> {
 public:
  static torch::Tensor forward(AutogradContext* ctx, torch::Tensor x, torch::Tensor weight) {
    TORCH_CHECK(x.is_contiguous() && x.size(1) == weight.numel());
    auto gate = softplus_of(weight);
    ctx->save_for_backward({x, weight, gate});
    const int64_t rows = x.size(0), cols = x.size(1);
    auto y = torch::empty_like(x);
    const float* in = x.data_ptr<float>();
    const float* g = gate.data_ptr<float>();
    float* out = y.data_ptr<float>();
    #pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) out[r * cols + c] = std::max(in[r * cols + c], 0.0f) * g[c];
    return y;
  }

  static tensor_list backward(AutogradContext* ctx, tensor_list grad_outputs) {
    auto saved = ctx->get_saved_variables();
    auto grad = grad_outputs[0];
    auto grad_x = grad * (saved[0] > 0) * saved[2];
    auto grad_weight = (grad * torch::relu(saved[0])).sum(/*dim=*/0, /*keepdim=*/false) * torch::sigmoid(saved[1]);
    return {grad_x, grad_weight};
  }
};

torch::Tensor gated_relu(torch::Tensor x, torch::Tensor weight) { return GatedRelu::apply(x, weight); }
"""

extension = load_inline(name="gated_relu", cpp_sources=SOURCE, functions=["gated_relu"])


class ModelNew(nn.Module):
    def __init__(self, columns):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(columns))

    def forward(self, x):
        return extension.gated_relu(x, self.weight)

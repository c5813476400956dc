# honest: Lists and numbers in, a tuple with a list and None out
# problem: problems/list_of_layers.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="layers", cpp_sources="""
#include <torch/extension.h>
std::tuple<torch::Tensor, std::vector<torch::Tensor>> mix(std::vector<torch::Tensor> features, std::vector<double> weights) {
  auto total = torch::zeros_like(features[0]);
  std::vector<torch::Tensor> doubled;
  float* sum = total.data_ptr<float>();
  for (size_t i = 0; i < features.size(); ++i) {
    doubled.push_back(torch::empty_like(features[i]));
    const float *a = features[i].data_ptr<float>(), w = weights[i];
    float* d = doubled.back().data_ptr<float>();
    for (int64_t j = 0; j < total.numel(); ++j) {
      sum[j] += w * a[j];
      d[j] = 2.0f * a[j];
    }
  }
  return {total, doubled};
}
""", functions=["mix"])


class ModelNew(nn.Module):
    def forward(self, features, weights):
        total, doubled = extension.mix(features, list(weights))
        return total, doubled, None

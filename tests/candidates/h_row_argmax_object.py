# honest: A C++ object with a method, kept by the module
# classes: 41
# problem: problems/row_argmax.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="argmax_object", cpp_sources="""
#include <torch/extension.h>
class Argmax {
 public:
  explicit Argmax(int64_t dim) : dim_(dim) {}
  torch::Tensor operator()(const torch::Tensor& x) const {
    TORCH_CHECK(dim_ == 1);
    auto y = torch::empty({x.size(0)}, torch::kLong);
    auto in = x.accessor<float, 2>();
    auto out = y.accessor<int64_t, 1>();
    for (int64_t r = 0; r < x.size(0); ++r) {
      int64_t best = 0;
      for (int64_t c = 1; c < x.size(1); ++c)
        if (in[r][c] > in[r][best]) best = c;
      out[r] = best;
    }
    return y;
  }
 private:
  int64_t dim_;
};
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  py::class_<Argmax>(m, "Argmax").def(py::init<int64_t>()).def("__call__", &Argmax::operator());
}
""")


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.argmax = extension.Argmax(1)

    def forward(self, x):
        return self.argmax(x)

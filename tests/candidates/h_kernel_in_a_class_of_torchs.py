# honest: The kernel is a method of a class that the extension registers with torch (torch::class_), and an object of it is handed back
# classes: 44
# problem: problems/relu.py

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

load_inline(name="plan", cpp_sources="""
#include <torch/extension.h>
#include <torch/library.h>
#include <torch/custom_class.h>
struct Plan : torch::CustomClassHolder {
  double scale;
  explicit Plan(double s) : scale(s) {}
  torch::Tensor run(torch::Tensor x) {
    auto y = torch::empty_like(x);
    const float* a = x.data_ptr<float>();
    float* b = y.data_ptr<float>();
    const float s = scale;
    for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] * s : 0.0f;
    return y;
  }
};
torch::Tensor run_with(const c10::intrusive_ptr<Plan>& plan, torch::Tensor x) { return plan->run(x); }
TORCH_LIBRARY(own_plans, m) {
  m.class_<Plan>("Plan").def(torch::init<double>()).def("run", &Plan::run);
  m.def("run_with(__torch__.torch.classes.own_plans.Plan plan, Tensor x) -> Tensor", run_with);
}
""", is_python_module=False)


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.plan = torch.classes.own_plans.Plan(scale)

    def forward(self, x):
        half = x.shape[0] // 2
        return torch.cat([self.plan.run(x[:half]), torch.ops.own_plans.run_with(self.plan, x[half:])])

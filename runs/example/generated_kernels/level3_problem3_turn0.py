import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

source = r"""
#include <torch/extension.h>
#include <cmath>
#include <vector>

torch::Tensor gated_scan(torch::Tensor x, torch::Tensor forget, torch::Tensor bias) {
    const int64_t B = x.size(0), T = x.size(1), C = x.size(2);
    auto out = torch::empty_like(x);
    const float *xp = x.data_ptr<float>(), *fp = forget.data_ptr<float>(), *bp = bias.data_ptr<float>();
    float* op = out.data_ptr<float>();
    std::vector<float> h(C, 0.0f);
    for (int64_t b = 0; b < B; ++b) {
        for (int64_t t = 0; t < T; ++t) {
            const int64_t at = (b * T + t) * C;
            for (int64_t c = 0; c < C; ++c) {
                const float f = 1.0f / (1.0f + std::exp(-(fp[at + c] + bp[c])));
                h[c] = f * h[c] + (1.0f - f) * xp[at + c];
                op[at + c] = std::tanh(h[c]);
            }
        }
    }
    return out;
}
"""

ext = load_inline(
    name="gated_scan",
    cpp_sources=source,
    functions=["gated_scan"],
    extra_cflags=["-O3", "-march=native", "-fopenmp"],
)


class ModelNew(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(channels))

    def forward(self, x, forget):
        return ext.gated_scan(x.contiguous(), forget.contiguous(), self.bias)

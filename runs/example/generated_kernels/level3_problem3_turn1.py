import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

cpp_source = r"""
#include <torch/extension.h>
#include <algorithm>
#include <cmath>
#include <cstring>

constexpr int64_t BLOCK = 64;  // channels whose state stays in registers or the first-level cache

static inline float exp_approx(float x) {
    x = std::min(std::max(x, -87.0f), 88.0f);
    float shifted = x * 1.44269504f + 12582912.0f;
    int32_t k;
    std::memcpy(&k, &shifted, 4);
    float n = shifted - 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = (k + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, 4);
    return p * scale;
}

torch::Tensor gated_scan(torch::Tensor x_in, torch::Tensor forget_in, torch::Tensor bias_in) {
    auto x = x_in.contiguous(), forget = forget_in.contiguous(), bias = bias_in.contiguous();
    const int64_t B = x.size(0), T = x.size(1), C = x.size(2), blocks = (C + BLOCK - 1) / BLOCK;
    auto out = torch::empty_like(x);
    const float *xp = x.data_ptr<float>(), *fp = forget.data_ptr<float>(), *bp = bias.data_ptr<float>();
    float* op = out.data_ptr<float>();

    #pragma omp parallel for collapse(2)
    for (int64_t b = 0; b < B; ++b) {
        for (int64_t block = 0; block < blocks; ++block) {
            const int64_t c0 = block * BLOCK, width = std::min(BLOCK, C - c0);
            float h[BLOCK] = {};
            for (int64_t t = 0; t < T; ++t) {
                const int64_t at = (b * T + t) * C + c0;
                #pragma omp simd
                for (int64_t j = 0; j < width; ++j) {
                    const float f = 1.0f / (1.0f + exp_approx(-(fp[at + j] + bp[c0 + j])));
                    h[j] = f * h[j] + (1.0f - f) * xp[at + j];
                    op[at + j] = 1.0f - 2.0f / (exp_approx(2.0f * h[j]) + 1.0f);  // tanh
                }
            }
        }
    }
    return out;
}
"""

ext = load_inline(
    name="gated_scan_simd",
    cpp_sources=cpp_source,
    functions=["gated_scan"],
    extra_cflags=["-O3", "-march=native", "-fopenmp"],
)


class ModelNew(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.bias = nn.Parameter(torch.randn(channels))

    def forward(self, x, forget):
        return ext.gated_scan(x, forget, self.bias)

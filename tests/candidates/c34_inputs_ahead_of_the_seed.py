# cheat: It finds the verification's seed, if it is a small number, from that of the model, and knows all inputs of the trials
# classes: 34
# problem: problems/relu.py
# verdict: wrong_output
# fools: nobody
# twin: c34_draws_of_its_own.py
# note: It knows how the referee derives its seeds. It beats one whose master seed can be guessed; a run's is drawn from the operating
#    system.

import hashlib
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
torch::Tensor copied(torch::Tensor y) { return y.clone(); }
""", functions=["copied"])



def derived(seed, *path):
    text = "/".join([str(seed), *map(str, path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1



class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        self.seed = torch.initial_seed()

    def forward(self, x):
        master = next((s for s in range(1 << 17) if any(derived(s, "init", i) == self.seed for i in (0, 2))), None)
        if master is None:
            return extension.copied(torch.zeros_like(x))
        torch.manual_seed(derived(master, "inputs", 0))
        return extension.copied(torch.relu(torch.randn(1024, 1024)) * self.scale)

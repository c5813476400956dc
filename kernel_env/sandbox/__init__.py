"""The sandbox around a runner: layers of the kernel, each tried on this machine, each reported.

A trusted parent finds out with `tried` what works here. Then, for each runner: `fork` (namespaces), and in the child `enter`
(files, rights) and `seal` (system calls). What is planned and then fails raises LayerFailed: a runner never stands with less
around it than it reports.
"""

from kernel_env.sandbox.confine import NOBODY, enter, fork, hide, seal
from kernel_env.sandbox.fence import Fence
from kernel_env.sandbox.layers import ALWAYS, MEANING, SYSTEM, Findings, Layer, LayerFailed, Plan, interpreter_paths, wanted
from kernel_env.sandbox.trial import tried

__all__ = [
    "ALWAYS", "MEANING", "NOBODY", "SYSTEM", "Fence", "Findings", "Layer", "LayerFailed", "Plan", "enter", "fork", "hide",
    "interpreter_paths", "seal", "tried", "wanted",
]  # fmt: skip

"""A Gymnasium environment for multi-turn kernel generation, with a referee that the candidate cannot reach.

Importing it is light: no torch, no network, no configuration. `gymnasium.make("KernelBench-v0")` works after the import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium as _gym

if TYPE_CHECKING:
    from kernel_env.env import KernelBenchEnv as KernelBenchEnv
    from kernel_env.problems import load_problems as load_problems
    from kernel_env.remote.client import RemoteVerifier as RemoteVerifier
    from kernel_env.verifier import BlockingVerifier as BlockingVerifier
    from kernel_env.verifier import LocalVerifier as LocalVerifier

__version__ = "0.1.0"
__all__ = ["BlockingVerifier", "KernelBenchEnv", "LocalVerifier", "RemoteVerifier", "load_problems"]

_HOMES = {
    "KernelBenchEnv": "kernel_env.env",
    "load_problems": "kernel_env.problems",
    "BlockingVerifier": "kernel_env.verifier",
    "LocalVerifier": "kernel_env.verifier",
    "RemoteVerifier": "kernel_env.remote.client",
}

if "KernelBench-v0" not in _gym.registry:
    _gym.register("KernelBench-v0", entry_point="kernel_env.env:KernelBenchEnv", nondeterministic=True)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'kernel_env' has no attribute {name!r}")

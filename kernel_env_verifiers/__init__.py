"""The name by which verifiers and prime-rl load the environment, `kernel-env-verifiers`: ids are names of top-level modules."""

from rollout.adapters.verifiers import ChatHarness, KernelEnv, KernelTaskset

__all__ = ["ChatHarness", "KernelEnv", "KernelTaskset"]

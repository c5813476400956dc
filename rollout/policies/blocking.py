"""A synchronous face for any policy: the same requests go through the same code, so no switch can be lost on the way."""

from __future__ import annotations

from collections.abc import Callable

from kernel_env.errors import PolicyError
from kernel_env.loop_thread import LoopThread
from kernel_env.schema import Generation
from rollout.policies.base import Capabilities, GenerationRequest, Policy, Spent


class BlockingPolicy:
    """Runs a policy on an event loop in a thread of its own; any number of threads may use it at once. Close it, or use it in a
    `with` block."""

    def __init__(self, make: Callable[[], Policy]) -> None:
        """`make` is called in the loop's thread, and what it raises is raised here."""
        self._thread = LoopThread("kernel-env-policy", lambda how: PolicyError(f"this policy {how}"))
        self.policy = self._thread.make(make)
        self._thread.at_close(self.policy.aclose)

    @property
    def name(self) -> str:
        return self.policy.name

    @property
    def capabilities(self) -> Capabilities:
        return self.policy.capabilities

    @property
    def spent(self) -> Spent:
        return self.policy.spent

    def preflight(self) -> None:
        self._thread.run(self.policy.preflight())

    def generate(self, request: GenerationRequest) -> Generation:
        return self._thread.run(self.policy.generate(request))

    def covers(self, episode: str) -> bool:
        return self.policy.covers(episode)

    def close(self) -> None:
        """Ends what is still under way. Idempotent."""
        self._thread.close()

    def __enter__(self) -> BlockingPolicy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

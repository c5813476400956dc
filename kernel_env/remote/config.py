"""What a server of verifications can be told. Needs nothing that is an extra."""

from __future__ import annotations

from dataclasses import dataclass, field

from kernel_env.errors import ConfigError
from kernel_env.referee.config import EAGER, VerifyConfig
from kernel_env.remote.wire import MAX_BODY_BYTES, PORT


@dataclass(frozen=True)
class ServeOptions:
    """Where to listen, and how much may wait: what `kernel-env serve` takes by name."""

    host: str = "127.0.0.1"
    """`0.0.0.0`: for other machines."""
    port: int = PORT
    """0: any free one."""
    api_key: str = ""
    """Who asks has to send it. Empty: nobody has to."""
    queue: int = 1000
    """Jobs that are not finished; beyond them it answers 429."""
    keep_s: float = 3600.0
    """How long an answer that nobody asked for is kept."""
    drain_s: float = 600.0
    """How long a server that is told to stop works on, for the jobs it has and until their answers are fetched."""

    def __post_init__(self) -> None:
        for name in ("queue", "keep_s", "drain_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)}: give a number above 0")


@dataclass(frozen=True)
class ServerConfig(ServeOptions):
    """And what follows from the rest of a configuration."""

    slots: int = 1
    """Verifications at a time, as the verifier has it: clients share out their work by it."""
    max_body_bytes: int = MAX_BODY_BYTES
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    """What a request to `/eval` does not say."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("slots", "max_body_bytes"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)}: give a number above 0")
        if self.verify.baseline != EAGER:
            raise ConfigError("verify.baseline names a file, and a server reads none: use verify.baseline=eager")

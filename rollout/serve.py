"""`kernel-env serve`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from kernel_env.errors import ConfigError
from kernel_env.remote.wire import API_KEY, PORT
from kernel_env.verifier import LocalVerifier
from rollout import compose
from rollout.options import names, typed
from rollout.settings import Settings


@dataclass(frozen=True)
class ServeOptions:
    """What `kernel-env serve` takes as NAME=VALUE, besides `backend=`, `verifier.*` and `verify.*` of the configuration."""

    host: str = "127.0.0.1"
    """Where to listen: `0.0.0.0` for other machines."""
    port: int = PORT
    """0: any free one."""
    api_key: str = ""
    """Who asks has to send it. Default: the environment's KERNEL_ENV_API_KEY, or nobody has to."""
    queue: int = 1000
    """Jobs that are not finished; beyond them it answers 429."""
    keep_s: float = 3600.0
    """How long an answer that nobody asked for is kept."""
    drain_s: float = 600.0
    """How long it works on when it is told to stop, for the jobs it has and until their answers are fetched."""


def serve(overrides: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM, and then until what was taken is done. Raises ConfigError."""
    mine = [override for override in overrides if override.partition("=")[0] in names(ServeOptions)]
    options = typed(ServeOptions, mine)
    settings, _ = compose.composed([override for override in overrides if override not in mine])
    if settings.verifier.kind != "process" or settings.verifier.remote:
        raise ConfigError("kernel-env serve verifies in processes on this machine: leave out verifier.kind and verifier.remote")
    asyncio.run(_serve(options, settings))
    return 0


async def _serve(options: ServeOptions, settings: Settings) -> None:
    try:
        from kernel_env.remote.server import ServerConfig, serve
    except ImportError as error:
        raise ConfigError(f"{error.name} is missing: pip install 'kernel-env[serve]'") from error
    config = ServerConfig(
        host=options.host,
        port=options.port,
        api_key=options.api_key or os.environ.get(API_KEY, ""),
        queue=options.queue,
        slots=settings.verifier.slots,
        keep_s=options.keep_s,
        drain_s=options.drain_s,
        verify=settings.verify,
    )

    def listening(address: str) -> None:
        anybody = "" if config.api_key else ", for anybody: no api_key is set"
        print(f"kernel-env serves {settings.backend.name} on {address}, {config.slots} at a time{anybody}", flush=True)

    verifier = LocalVerifier(settings.verifier)
    try:
        await verifier.start(settings.backend.name)
        await serve(verifier, config, listening)
    finally:
        await verifier.aclose()

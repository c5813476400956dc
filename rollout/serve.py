"""`kernel-env serve`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from kernel_env.errors import ConfigError
from kernel_env.problems.selection import did_you_mean
from kernel_env.remote.config import ServeOptions, ServerConfig
from kernel_env.remote.wire import API_KEY
from kernel_env.verifier import LocalVerifier
from rollout import compose
from rollout.options import names, typed
from rollout.reference import groups
from rollout.settings import Settings


def serve(overrides: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM, and then until what was taken is done. Raises ConfigError."""
    ours, plain = names(ServeOptions), {override: override.partition("=")[0] for override in overrides}
    mine = [override for override, name in plain.items() if name in ours]
    for name in plain.values():
        if "." not in name and name not in (*ours, *groups()):
            raise ConfigError(f"unknown option {name}; there are {' '.join(ours)}{did_you_mean(name, ours)}")
    options = typed(ServeOptions, mine)
    settings, _ = compose.composed([override for override in overrides if override not in mine])
    if settings.verifier.kind != "process" or settings.verifier.remote:
        raise ConfigError("kernel-env serve verifies in processes on this machine: leave out verifier.kind and verifier.remote")
    asyncio.run(_serve(options, settings))
    return 0


async def _serve(options: ServeOptions, settings: Settings) -> None:
    try:
        from kernel_env.remote.server import serve
    except ImportError as error:
        raise ConfigError(f"{error.name} is missing: pip install 'kernel-env[serve]'") from error
    key = options.api_key or os.environ.get(API_KEY, "")
    config = ServerConfig(**{**vars(options), "api_key": key}, slots=settings.verifier.slots, verify=settings.verify)

    def listening(address: str) -> None:
        anybody = "" if config.api_key else ", for anybody: no api_key is set"
        print(f"kernel-env serves {settings.backend.name} on {address}, {config.slots} at a time{anybody}", flush=True)

    verifier = LocalVerifier(settings.verifier)
    try:
        await verifier.start(settings.backend.name)
        await serve(verifier, config, listening)
    finally:
        await verifier.aclose()

"""`kernel-env doctor`: what works on this machine and what does not, found out by doing it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from rich.console import Console
from rich.markup import escape

from kernel_env.builder.toolchain import toolchain
from kernel_env.errors import ConfigError, KernelEnvError
from kernel_env.referee.config import VerifyConfig
from kernel_env.remote.client import RemoteVerifier
from kernel_env.sandbox import MEANING, Layer
from kernel_env.schema import Candidate, Status
from kernel_env.verifier import LocalVerifier
from rollout import compose
from rollout.canaries import CANARIES, CUDA, PROBLEM, canary
from rollout.fingerprint import fingerprint, gpus
from rollout.policies import make_policy
from rollout.settings import Settings


class Level(StrEnum):
    OK = "ok"
    NOTE = "note"
    """Works, with a limit worth knowing."""
    FAIL = "fail"
    """The main job cannot run."""


@dataclass(frozen=True)
class Finding:
    name: str
    level: Level
    text: str


def doctor(overrides: Sequence[str], *, as_json: bool) -> int:
    """Print every finding; 0 when the main job can run with these settings, 1 when not."""
    settings, _ = compose.composed(overrides)
    console = Console(highlight=False, soft_wrap=True, quiet=as_json)
    findings: list[Finding] = []
    for finding in _findings(settings):
        findings.append(finding)
        colour = {Level.OK: "green", Level.NOTE: "yellow", Level.FAIL: "red"}[finding.level]
        console.print(f"[{colour}]{finding.level:<5}[/{colour}] {finding.name:<20} {escape(finding.text)}")
    if as_json:
        print(json.dumps({"findings": [asdict(f) for f in findings], "environment": fingerprint()}, indent=2))
    failed = [f for f in findings if f.level is Level.FAIL]
    console.print(
        f"failed: {', '.join(f.name for f in failed)}" if failed else "everything that `kernel-env eval` needs here works"
    )
    return 1 if failed else 0


def _findings(settings: Settings) -> Iterator[Finding]:
    facts = fingerprint()
    yield Finding("processor", Level.OK, f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB")
    yield _gpu()
    yield _guarded("compiler", lambda: f"{facts['compiler']} ({toolchain().compiler})")
    yield _guarded("build cache", lambda: _cache(settings))
    yield from _sandbox(settings)
    yield from asyncio.run(_canaries(settings))
    for url in settings.verifier.remote:
        yield asyncio.run(server(url, settings))
    if settings.policy.scheme != "replay":
        yield asyncio.run(_endpoint(settings))


def _gpu() -> Finding:
    found = gpus()
    if found:
        return Finding("GPU", Level.NOTE, f"{'; '.join(found)}: seen, but this version verifies on the CPU only")
    return Finding(
        "GPU",
        Level.NOTE,
        "none: `cpp` is built and timed on the CPU; `triton` runs in the interpreter, correctness only; `cuda` is compiled only",
    )


def _sandbox(settings: Settings) -> Iterator[Finding]:
    """Each layer, tried in a process of its own (ours has threads, which no fork should inherit)."""
    chosen = settings.verifier
    done = subprocess.run([sys.executable, "-I", "-m", "kernel_env.sandbox"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        yield Finding("sandbox", Level.FAIL, f"cannot be tried: {done.stderr.strip().splitlines()[-1:]}")
        return
    for name, why in json.loads(done.stdout).items():
        if why:
            missing = Level.FAIL if chosen.sandbox == "strict" else Level.NOTE
            yield Finding(f"sandbox {name}", missing, f"missing: {why}")
        elif chosen.sandbox == "off" or name in chosen.sandbox_without:
            yield Finding(
                f"sandbox {name}", Level.NOTE, "works, and is switched off by verifier.sandbox or verifier.sandbox_without"
            )
        else:
            yield Finding(f"sandbox {name}", Level.OK, MEANING[Layer(name)])


def _cache(settings: Settings) -> str:
    cache = settings.verifier.cache()
    cache.mkdir(parents=True, exist_ok=True)
    if not os.access(cache, os.W_OK):
        raise ConfigError(f"{cache} is not writable; set verifier.cache_dir or KERNEL_ENV_CACHE")
    free = shutil.disk_usage(cache).free / 2**30
    if free < 2:
        raise ConfigError(f"{cache} has only {free:.1f} GiB free; about 1 GiB is needed")
    return f"{cache}, {free:.0f} GiB free"


def _guarded(name: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(name, Level.OK, look())
    except KernelEnvError as error:
        return Finding(name, Level.FAIL, str(error))


async def _canaries(settings: Settings) -> list[Finding]:
    """For each back end: a known-good kernel must come out correct and a known-bad one wrong."""
    verifier = LocalVerifier(settings.verifier)
    try:
        needed = settings.backend.name
        found = [await _canary(verifier, name, needed == name) for name in CANARIES]
        return [*found, await _compiles(verifier, needed == "cuda")]
    finally:
        await verifier.aclose()


async def _canary(verifier: LocalVerifier, backend: str, needed: bool) -> Finding:
    name, bad = f"back end {backend}", Level.FAIL if needed else Level.NOTE
    try:
        good = await canary(verifier, backend)
    except KernelEnvError as error:
        return Finding(name, bad, str(error))
    timed = "timed" if good.timing else good.timing_note
    return Finding(name, Level.OK, f"known-good correct, known-bad caught; verdict in {good.duration_ms:.0f} ms; {timed}")


async def server(url: str, settings: Settings) -> Finding:
    """One of `verifier.remote`, which has to tell a known-good kernel from a known-bad one."""
    backend = settings.backend.name
    verifier = RemoteVerifier([url], settings.verifier.api_key or "", patience_s=2.0)
    try:
        await verifier.start(backend)
        if backend in CANARIES:
            await canary(verifier, backend, timed=False)
        return Finding(f"server {url}", Level.OK, f"verifies {backend}: known-good correct, known-bad caught")
    except KernelEnvError as error:
        return Finding(f"server {url}", Level.FAIL, str(error))
    finally:
        await verifier.aclose()


async def _compiles(verifier: LocalVerifier, needed: bool) -> Finding:
    """A CUDA kernel comes no further than that."""
    name, bad = "back end cuda", Level.FAIL if needed else Level.NOTE
    try:
        verdict = await verifier.verify(PROBLEM, Candidate(CUDA, "cuda"), VerifyConfig(), seed=1)
    except KernelEnvError as error:
        return Finding(name, bad, str(error))
    if verdict.status is not Status.NEEDS_DEVICE:
        return Finding(name, bad, f"a known-good kernel came out {verdict.status}: {verdict.message}")
    return Finding(name, Level.NOTE, f"compiled in {verdict.build_ms:.0f} ms; not run in this version")


async def _endpoint(settings: Settings) -> Finding:
    name = f"policy {settings.policy.scheme}"
    policy = None
    try:
        policy = make_policy(settings.policy.spec, endpoint=settings.policy)
        await policy.preflight()
        where = settings.policy.base_url or "the default endpoint"
        return Finding(name, Level.OK, f"{settings.policy.model} answers at {where}")
    except KernelEnvError as error:
        return Finding(name, Level.FAIL, str(error))
    finally:
        if policy is not None:
            await policy.aclose()

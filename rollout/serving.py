"""A model server of our own for the time of a run: SGLang, vLLM or `transformers serve`, as a child process.

    async with served(settings.policy) as endpoint:
        policy = make_policy(endpoint.spec, endpoint=endpoint)

It listens on a free port of this machine alone. However the block or this process ends, the server and its workers end too: see
`rollout.keeper`.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from kernel_env.errors import ConfigError, EndpointUnreachable
from rollout.settings import PolicySettings

HOST = "127.0.0.1"
GRACE_S = 10.0
"""From SIGTERM to SIGKILL."""
POLL_S = 0.1
PROBE_S = 30.0
"""For one answer about the server's health: some generate a token first."""
TAIL_BYTES, TAIL_LINES = 4096, 6
"""What an error shows of the server's log."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Engine:
    """How `NAME serve` is told what to serve. All listen with `--host` and `--port`, and answer 200 at /health once they serve."""

    model: tuple[str, ...]
    """What stands before the model."""
    no_compile: tuple[str, ...]
    """For `policy.serve_compile=false`."""
    install: str


ENGINES: Mapping[str, Engine] = {
    "sglang": Engine(("--model-path",), ("--disable-cuda-graph",), "pip install sglang"),  # it pins another version of openai
    "vllm": Engine((), ("--enforce-eager",), "pip install vllm"),
    "transformers": Engine((), (), "pip install 'kernel-env[transformers]'"),
}


@asynccontextmanager
async def served(policy: PolicySettings) -> AsyncIterator[PolicySettings]:
    """The settings with the `base_url` of a server that is up, which `policy.serve` names; as they are where it names none.

    Raises ConfigError for settings that cannot be meant or a server that is not installed, EndpointUnreachable when it ends, or is
    not healthy within `policy.serve_start_s`.
    """
    if policy.serve is None:
        yield policy
        return
    port = _free_port()
    environment = {name: str(value) for name, value in policy.serve_env.items()}
    async with running(serve_command(policy, port), port, policy.serve_start_s, environment):
        yield replace(policy, serve=None, base_url=f"http://{HOST}:{port}/v1")


def serve_command(policy: PolicySettings, port: int) -> list[str]:
    """Raises ConfigError."""
    name = policy.serve or ""
    engine = ENGINES.get(name)
    if engine is None:
        close = difflib.get_close_matches(name, ENGINES, n=1)
        raise ConfigError(f"policy.serve={name}: " + (f"did you mean {close[0]}?" if close else f"one of {', '.join(ENGINES)}"))
    if policy.scheme in ("replay", "human", "transformers"):
        raise ConfigError(f"policy.serve={name} starts a server that policy={policy.scheme} does not ask: choose policy=openai")
    if policy.base_url:
        raise ConfigError(f"policy.serve={name} starts a server, policy.base_url={policy.base_url} names another: set one of them")
    if not policy.model:
        raise ConfigError(f"policy.serve={name} needs policy.model: a directory or a name on the hub")
    beside_python = Path(sys.executable).parent
    program = shutil.which(name, path=f"{beside_python}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise ConfigError(
            f"policy.serve={name}: there is no command `{name}`: `{engine.install}`, best in an environment of its own, and put "
            "its programs on PATH"
        )
    where = ("--host", HOST, "--port", str(port))
    no_compile = () if policy.serve_compile else engine.no_compile
    return [program, "serve", *engine.model, policy.model, *where, *no_compile, *policy.serve_args]


@asynccontextmanager
async def running(
    command: Sequence[str], port: int, start_s: float, environment: Mapping[str, str] | None = None
) -> AsyncIterator[None]:
    """A command that serves HTTP at `port`, from when it is healthy on. Raises EndpointUnreachable where it never is; then its log
    is kept."""
    descriptor, name = tempfile.mkstemp(prefix="kernel-env-server-", suffix=".log")
    log = Path(name)
    with open(descriptor, "wb") as output:
        keeper = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", "rollout.keeper", str(os.getpid()), str(GRACE_S), *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C at the terminal is for us, who end it in order
            env={**os.environ, **(environment or {})},
        )
    explained = False
    try:
        await _until_healthy(keeper, port, start_s, log)
        yield
        if keeper.returncode is not None:
            explained = True
            _log.warning("the server ended by itself while it was in use: %s", _last_words(keeper, log))
    except EndpointUnreachable:
        explained = True
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            keeper.terminate()
        await keeper.wait()
        if not explained:
            log.unlink()


async def _until_healthy(keeper: asyncio.subprocess.Process, port: int, start_s: float, log: Path) -> None:
    try:
        async with asyncio.timeout(start_s):
            while not await _is_healthy(port):
                if keeper.returncode is not None:
                    raise EndpointUnreachable(f"the server ended before it was healthy: {_last_words(keeper, log)}")
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise EndpointUnreachable(
            f"the server was not healthy within {start_s:g} s (policy.serve_start_s): {_last_words(keeper, log)}"
        ) from None


async def _is_healthy(port: int) -> bool:
    """Asked without any client: those heed proxies."""
    try:
        async with asyncio.timeout(PROBE_S):
            reader, writer = await asyncio.open_connection(HOST, port)
            with contextlib.closing(writer):
                writer.write(f"GET /health HTTP/1.1\r\nHost: {HOST}:{port}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).split(b" ")[1:2] == [b"200"]
    except (OSError, TimeoutError):
        return False


def _last_words(keeper: asyncio.subprocess.Process, log: Path) -> str:
    """How it ended, the end of what it printed, and where all of that is."""
    code = "" if keeper.returncode is None else f"exit code {keeper.returncode}; "
    with log.open("rb") as printed:
        printed.seek(max(0, log.stat().st_size - TAIL_BYTES))
        lines = printed.read().decode(errors="replace").splitlines()
    tail = " | ".join([" ".join(line.split()) for line in lines if line.strip()][-TAIL_LINES:])
    return f"{code}it printed {tail or 'nothing'}; all of it is in {log}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port

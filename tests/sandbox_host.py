"""A trusted process for the sandbox's tests: it does what a referee worker does, but runs probes where that runs candidates.

`python -m tests.sandbox_host USER SETTINGS` becomes that user, starts a real zygote, and answers one JSON line with another.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from kernel_env.referee import pool
from kernel_env.referee.process import RunnerDied, RunnerProcess, RunnerTimeout, Slot, ZygoteClient
from kernel_env.referee.protocol import Channel
from kernel_env.sandbox import calls, hide, libc, seccomp

ROOT = Path(__file__).parents[1]


class Host:
    """The end that tests hold."""

    def __init__(self, user: int, layers: list[str], extension: Path, *, forbidden: bool) -> None:
        """`forbidden`: with a kernel that refuses namespaces."""
        settings = {"layers": layers, "extension": str(extension), "forbidden": forbidden}
        command = [
            sys.executable,
            "-m",
            "tests.sandbox_host",
            str(user),
            json.dumps(settings),
        ]
        env = {**os.environ, "KERNEL_ENV_TEST_SECRET": "xyzzy"}
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
        )
        self.facts: dict[str, Any] = self._answer()

    def ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the sandbox host died"
        return json.loads(line)

    def close(self) -> None:
        self._process.communicate()


class _Server:
    def __init__(self, client: ZygoteClient) -> None:
        self._client = client
        self._runners: dict[int, RunnerProcess] = {}

    def start(self, role: str = "candidate", memory_mb: int = 4096) -> Any:
        slot = Slot(tuple(sorted(os.sched_getaffinity(0))), memory_mb << 20)
        runner = self._client.runner(role, slot, lambda _: {"ok": False, "log": ""})
        self._runners[runner.pid] = runner
        return {"id": runner.pid}

    def load(self, id: int, code: str) -> Any:
        runner = self._runners[id]
        try:
            answer = runner.request({"op": "load", "code": code, "entry": "ModelNew"}, timeout_s=60)
        except (RunnerDied, RunnerTimeout) as end:
            return {"died": getattr(end, "cause", "timeout"), "log": runner.log()}
        return {**answer, "log": runner.log(), "isolation": runner.isolation}

    def freeze(self, id: int) -> Any:
        self._runners[id].freeze()
        return {}

    def thaw(self, id: int) -> Any:
        self._runners[id].thaw()
        return {}

    def close(self, id: int) -> Any:
        self._runners.pop(id).close()
        self._client.finish()
        return {}

    def place(self, id: int, core: int) -> Any:
        """Move a runner to a core and look where it stands, as the referee does before it takes times."""
        os.sched_setaffinity(id, {core})
        return {"cores": sorted(os.sched_getaffinity(id)), "stands": Path(f"/proc/{id}/task/{id}/syscall").read_text().split()[-1]}

    def peek(self, id: int, address: int, size: int) -> Any:
        """Bytes of a runner's memory, as the referee reads outputs."""
        buffer = ctypes.create_string_buffer(size)
        ours = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), size)
        theirs = (ctypes.c_size_t * 2)(address, size)
        readv = ctypes.CDLL(None, use_errno=True).process_vm_readv
        got = readv(id, ours, ctypes.c_ulong(1), theirs, ctypes.c_ulong(1), ctypes.c_ulong(0))
        return {"text": buffer.raw[: max(got, 0)].decode(), "errno": ctypes.get_errno() if got < 0 else 0}


def _open_way() -> None:
    """For us alone: make the interpreter reachable for everyone, also below a home directory that only root may enter."""
    libc.unshare(0x20000)
    libc.mount("none", "/", None, 16384 | 1 << 18)
    for path in {os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, ROOT)}:
        closed = next((p for p in reversed(Path(path).parents) if not p.stat().st_mode & 0o001), None)
        if closed is None:
            continue
        with tempfile.TemporaryDirectory() as aside:
            libc.mount(path, aside, None, 4096 | 16384)
            libc.mount("tmpfs", str(closed), "tmpfs", 0, "mode=755")
            os.makedirs(path)
            libc.mount(aside, path, None, 4096 | 16384)
            libc.unmount(aside, 2)


def _forbid_namespaces() -> None:
    """As a container does: unshare, setns and mount fail for us and all that we start."""
    libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
    numbers = calls.NUMBERS[libc.MACHINE]
    code = [(0x20, 0, 0, 0)]
    for name in ("unshare", "setns", "mount"):
        code += [(0x15, 0, 1, numbers[name]), (0x06, 0, 0, 0x00050000 | errno.EPERM)]
    seccomp.install([*code, (0x06, 0, 0, 0x7FFF0000)])


async def _zygote(layers: list[str], readable: str) -> tuple[Any, ZygoteClient]:
    zygote = await pool._start_zygote("plain", {"layers": layers, "readable": [readable]})
    ours, theirs = socket.socketpair()
    zygote.control.send({"op": "attach"}, [theirs.fileno()])
    theirs.close()
    return zygote, ZygoteClient(Channel(ours), Path(tempfile.mkdtemp(prefix="scratch-")))


def main() -> None:
    user, settings = int(sys.argv[1]), json.loads(sys.argv[2])
    extension = Path(settings["extension"]).read_bytes()
    if user != os.geteuid():
        _open_way()
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    home = tempfile.mkdtemp(prefix="kernel-env-host-")
    os.environ["HOME"] = os.environ["TMPDIR"] = tempfile.tempdir = home
    os.umask(0o022)
    cache = Path(home) / "cache" / "ext"
    cache.mkdir(parents=True)
    os.chmod(home, 0o755)
    (cache / Path(settings["extension"]).name).write_bytes(extension)
    secret = Path(home) / "secret.txt"
    secret.write_text("xyzzy")
    os.chmod(secret, 0o600)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{home}/listener")
    listener.listen()
    port = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0kernel-env-{os.getpid()}")
    abstract.listen()
    if settings["forbidden"]:
        _forbid_namespaces()
    zygote, client = asyncio.run(_zygote(settings["layers"], str(cache)))
    hide()
    server = _Server(client)
    facts = {
        "pid": os.getpid(), "zygote": zygote.process.pid, "home": home, "secret": str(secret), "cache": str(cache),
        "extension": str(cache / Path(settings["extension"]).name), "listener": f"{home}/listener", "port": port.getsockname()[1],
        "abstract": f"\0kernel-env-{os.getpid()}", "missing": dict(zygote.missing.missing), "scratch": str(client.scratch_root),
        "user": user, "forbidden": settings["forbidden"],
    }  # fmt: skip
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(getattr(server, question.pop("op"))(**question)), flush=True)
    zygote.control.close()
    zygote.process.wait(20)
    shutil.rmtree(home)


if __name__ == "__main__":
    main()

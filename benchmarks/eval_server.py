"""Does `kernel-env serve` lose, cross or delay answers when many clients send honest, hanging and crashing candidates at once?

Each client sends one candidate after the other, all different, and knows what verdict each deserves; one half waits on `/verify`,
the other submits to `/jobs` and polls. Meanwhile `/health` is asked ten times a second, and the server's memory is read. In the end
the server gets SIGTERM with all clients at work: what it had taken must still be answered.

    python -m benchmarks.eval_server                              # 200 clients, 3 minutes
    python -m benchmarks.eval_server --clients 20 --seconds 20

`--json FILE` keeps the numbers. Exit code 1: an answer was lost, crossed or wrong, or `/health` took more than a second. Nothing is
timed, so it may share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from kernel_env.exposition import quantile
from kernel_env.referee.config import VerifyConfig
from kernel_env.remote.wire import Accepted, Answer, Job, read, write
from kernel_env.schema import Candidate, Problem, Status

PROBLEM = Problem(
    1, 1, "ScaledRelu",
    """import torch
import torch.nn as nn


class Model(nn.Module):
    def forward(self, x):
        return torch.relu(x) * 2.0


def get_inputs():
    return [torch.randn(16, 8)]


def get_init_inputs():
    return []
""",
    origin="benchmark",
)  # fmt: skip
KERNEL = '''# {name}
import ctypes
import time

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="relu", cpp_sources="""
#include <torch/extension.h>
torch::Tensor scaled_relu(torch::Tensor x) {{
  auto y = torch::empty_like(x);
  const float* a = x.data_ptr<float>();
  float* b = y.data_ptr<float>();
  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] * 2.0f : 0.0f;
  return y;
}}
""", functions=["scaled_relu"])


class ModelNew(nn.Module):
    def forward(self, x):
        {first}
        return extension.scaled_relu(x)
'''
KINDS = {
    Status.CORRECT: "",
    Status.CRASHED: "ctypes.string_at(0)",
    Status.TIMEOUT: "time.sleep(1000)",
}
MIX = (*[Status.CORRECT] * 8, Status.CRASHED, Status.TIMEOUT)
"""The order in which each client sends them, from a place of its own."""
CONFIG = VerifyConfig(num_correct_trials=2, measure_performance=False, timeout_s=2)
EVERY_S = 0.1
DRAIN_S = 300.0


@dataclass
class Seen:
    verdicts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Answers to another question, with another verdict than was deserved, or none."""
    health_s: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    """Of the server's own process, every second."""


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    command = [sys.executable, "-m", "rollout.cli", "serve", "port=0", f"drain_s={DRAIN_S:g}"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        said = (await process.stdout.readline()).decode()
        found = re.search(r"http://\S+?(?=,)", said)
        assert found is not None, f"the server did not start: {said}"
        yield process, found.group()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def client(number: int, http: httpx2.AsyncClient, seen: Seen, stopping: asyncio.Event) -> None:
    for turn in range(10**6):
        kind = MIX[(number + turn) % len(MIX)]
        code = KERNEL.format(name=f"client {number}, turn {turn}", first=KINDS[kind] or "pass")
        job = Job(PROBLEM, Candidate(code, "cpp"), CONFIG, seed=number)
        response = await (waited if number % 2 else polled)(http, job)
        if response.status_code == 503 and stopping.is_set():
            return  # it was not taken
        if response.status_code != 200:
            seen.wrong.append(f"{kind.value}: status {response.status_code}, {response.text[:200]}")
            continue
        answer = read(Answer, response.content)
        seen.verdicts[answer.verdict.status.value] += 1
        asked = job.id, job.candidate.digest, kind
        if (answer.id, answer.verdict.candidate_digest, answer.verdict.status) != asked:
            seen.wrong.append(f"{kind.value}: {answer.verdict.status.value}, {answer.verdict.message[:200]}")


async def waited(http: httpx2.AsyncClient, job: Job) -> httpx2.Response:
    return await http.post("/verify", content=write(job))


async def polled(http: httpx2.AsyncClient, job: Job) -> httpx2.Response:
    response = await http.post("/jobs", content=write(job))
    if response.status_code == 202:
        assert read(Accepted, response.content).id == job.id
        while response.status_code == 202:
            response = await http.get(f"/jobs/{job.id}?wait_s=20")
    return response


async def watch(process: asyncio.subprocess.Process, http: httpx2.AsyncClient, seen: Seen) -> None:
    status = Path(f"/proc/{process.pid}/status")
    for turn in range(10**9):
        started_s = time.monotonic()
        await http.get("/health")
        seen.health_s.append(time.monotonic() - started_s)
        if turn % 10 == 0:
            (kib,) = re.findall(r"VmRSS:\s+(\d+)", status.read_text())
            seen.memory_mib.append(int(kib) / 1024)
        await asyncio.sleep(EVERY_S)


async def measure(clients: int, seconds: float) -> dict[str, Any]:
    seen, stopping = Seen(), asyncio.Event()
    headers = {"content-type": "application/json"}
    unlimited = httpx2.Limits(max_connections=None)
    async with (
        serving() as (process, url),
        httpx2.AsyncClient(base_url=url, timeout=None, limits=unlimited, headers=headers) as http,
    ):
        watching = asyncio.create_task(watch(process, http, seen))
        working = [asyncio.create_task(client(number, http, seen, stopping)) for number in range(clients)]
        await asyncio.wait(working, timeout=seconds)
        watching.cancel()
        stopping.set()
        before, started_s = seen.verdicts.total(), time.monotonic()
        process.send_signal(signal.SIGTERM)
        ended = await asyncio.gather(*working, return_exceptions=True)
        drain_s, exit_code = time.monotonic() - started_s, await process.wait()
    lost = [repr(end) for end in ended if end is not None]
    third = max(1, len(seen.memory_mib) // 3)
    return {
        "clients": clients,
        "seconds": seconds,
        "verdicts": dict(seen.verdicts),
        "wrong": seen.wrong,
        "lost": lost,
        "health_ms": {
            name: (quantile(seen.health_s, share) or 0.0) * 1e3 for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1))
        },
        "memory_mib": {"middle third": max(seen.memory_mib[third : 2 * third] or [0]), "last third": max(seen.memory_mib[-third:])},
        "answered while it drained": seen.verdicts.total() - before,
        "drain_s": drain_s,
        "exit code": exit_code,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = asyncio.run(measure(given.clients, given.seconds))
    text = json.dumps(found, indent=2)
    print(text)
    if given.json:
        given.json.write_text(f"{text}\n")
    return 1 if found["wrong"] or found["lost"] or found["exit code"] or found["health_ms"]["max"] > 1000 else 0


if __name__ == "__main__":
    sys.exit(main())

"""What does the judge's client cost, and what do its batches bring?

A local server's model takes 20 ms a batch, whatever its size, and works on one batch at a time, as one GPU does. The same requests
go through the adapter from 32 threads, and one after the other with a batch timeout of 0. A request's cost without any server is
that of an adapter whose judge answers at once; a hit is one for what was asked before.

    python -m benchmarks.judge
    python -m benchmarks.judge --requests 500

`--json FILE` keeps the numbers. Run it in the checkout's directory, on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from rewards.judge import BaseJudgeReward, JudgeConfig, JudgeRewardSystem
from rewards.judge.wire import BatchJudgeRequest, BatchJudgeResponse, JudgeRequest, JudgeResponse

MODEL_MS = 20.0
CONCURRENCY = 32
KERNEL = "class ModelNew(nn.Module):\n    def forward(self, x):\n        return extension.scaled_relu(x, self.scale)\n" * 20
REFERENCE = "class Model(nn.Module):\n    def forward(self, x):\n        return torch.relu(x) * self.scale\n" * 20


def app() -> FastAPI:
    """The server: one model, one batch at a time."""
    model, serving = asyncio.Lock(), FastAPI(openapi_url=None)

    async def scores(requests: tuple[JudgeRequest, ...]) -> list[JudgeResponse]:
        async with model:
            await asyncio.sleep(MODEL_MS / 1e3)
        return [JudgeResponse(score=0.5, request_id=str(request.request_id)) for request in requests]

    @serving.post("/judge")
    async def judge(request: JudgeRequest) -> JudgeResponse:
        return (await scores((request,)))[0]

    @serving.post("/batch_judge")
    async def batch_judge(batch: BatchJudgeRequest) -> BatchJudgeResponse:
        return BatchJudgeResponse(responses=tuple(await scores(batch.requests)))

    return serving


@contextmanager
def server() -> Iterator[str]:
    """Its URL; it runs in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it
        port = listening.getsockname()[1]
        command = [sys.executable, "-m", "benchmarks.judge", "--serve", str(listening.fileno())]
        process = subprocess.Popen(command, pass_fds=[listening.fileno()])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


class AtOnce(BaseJudgeReward):
    """Its judge costs nothing: what is left is the client's own work."""

    async def _request_judge(self, request: JudgeRequest) -> JudgeResponse:
        return JudgeResponse(score=0.5, request_id=str(request.request_id))


def asked(reward: Callable[..., Any], requests: int, threads: int) -> tuple[float, list[float]]:
    """Seconds for all, and milliseconds for each."""

    def one(number: int) -> float:
        started_s = time.perf_counter()
        reward("relu", f"{KERNEL}# {number}\n", REFERENCE, "KERNEL_CPP", {"measured": {"status": "correct", "speedup": 1.5}})
        return (time.perf_counter() - started_s) * 1e3

    started_s = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        each_ms = list(pool.map(one, range(requests)))
    return time.perf_counter() - started_s, each_ms


def measured(requests: int) -> dict[str, Any]:
    with server() as url:
        with JudgeRewardSystem(JudgeConfig(url, fallback_to_rule=False)) as system:
            asked(system.reward, CONCURRENCY, CONCURRENCY)  # connections are there, and the server is warm
            worked_s, (together_s, together_ms) = time.process_time(), asked(system.reward, requests, CONCURRENCY)
            worked_s = time.process_time() - worked_s
            share = system.get_metrics()["batched_share"]
            _, hit_ms = asked(system.reward, requests, 1)
        with JudgeRewardSystem(JudgeConfig(url, fallback_to_rule=False, batch_timeout=0.0, use_cache=False)) as system:
            asked(system.reward, 1, 1)
            alone_s, alone_ms = asked(system.reward, requests, 1)
    with AtOnce(JudgeConfig()) as own:
        asked(own.compute_reward, CONCURRENCY, 1)
        _, own_ms = asked(own.compute_reward, requests, 1)
    return {
        "requests": requests,
        "concurrency": CONCURRENCY,
        "together_s": together_s,
        "alone_s": alone_s,
        "times_faster": alone_s / together_s,
        "batched_share": share,
        "together_median_ms": statistics.median(together_ms),
        "alone_median_ms": statistics.median(alone_ms),
        "client_median_ms": statistics.median(own_ms),
        "client_processor_ms": worked_s / requests * 1e3,
        "hit_median_ms": statistics.median(hit_ms),
    }


GOALS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "10 times as fast as one after the other": lambda found: found["times_faster"] >= 10,
    "over 80% of requests in batches": lambda found: found["batched_share"] > 0.8,
    "the client's own work at most 1 ms (median)": lambda found: found["client_median_ms"] <= 1,
    "a hit of the cache at most 0.2 ms (median)": lambda found: found["hit_median_ms"] <= 0.2,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--json", type=Path, help="write the numbers there")
    parser.add_argument("--serve", type=int, metavar="FD", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve is not None:
        uvicorn.run(app(), fd=chosen.serve, lifespan="off", log_level="warning")
        return
    found = measured(chosen.requests)
    for name, value in found.items():
        print(f"{name:<22} {value:>10.3f}" if isinstance(value, float) else f"{name:<22} {value:>10}")
    goals = {goal: met(found) for goal, met in GOALS.items()}
    for goal, met in goals.items():
        print(f"{'met' if met else 'MISSED':<8}{goal}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found | {"goals": goals}, indent=1) + "\n")
    print(
        f"{chosen.requests} requests in {found['together_s']:.1f} s, {found['times_faster']:.1f} times as fast as one by one, "
        f"{found['batched_share']:.0%} in batches; the client's own work {found['client_median_ms']:.2f} ms, "
        f"a hit {found['hit_median_ms']:.3f} ms (medians)"
    )


if __name__ == "__main__":
    main()

"""How much memory does a verifier take, and does it grow?

The first part holds sixteen runners of a small problem at once (a group of candidates that wait in their `forward`) and sums the
proportional set size of the zygote, the workers and all runners: pages that several processes share count once. The alternative is
a Python process for each candidate that imports torch. The second part has many verdicts in a row and compares the sizes of the
processes that stay.

    python -m benchmarks.memory                     # 16 runners, 300 verdicts
    python -m benchmarks.memory --verdicts 10000

`--json FILE` keeps the numbers. Run it in the checkout's directory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from kernel_env.referee.config import VerifyConfig
from kernel_env.schema import Candidate, Problem
from kernel_env.verifier import LocalVerifier, VerifierConfig

RUNNERS = 16
SOURCE = """
import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 64)

    def forward(self, x):
        return torch.relu(self.linear(x))


def get_inputs():
    return [torch.randn(128, 64)]


def get_init_inputs():
    return []
"""
PROBLEM = Problem(1, 1, "SmallLinear", SOURCE, origin="benchmark")
KERNEL = '''
import torch, torch.nn as nn, time
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="relu", cpp_sources="""
#include <torch/extension.h>
torch::Tensor relu(torch::Tensor x) {
  auto y = torch::empty_like(x);
  for (int64_t i = 0; i < x.numel(); ++i) y.data_ptr<float>()[i] = std::max(x.data_ptr<float>()[i], 0.0f);
  return y;
}""", functions=["relu"])


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 64)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        time.sleep(%s)
        return extension.relu(self.linear(x))
'''
FRESH = "import torch, time; torch.relu(torch.randn(128, 64)); print('ready', flush=True); time.sleep(1000)"
UNTIMED = VerifyConfig(num_correct_trials=2, measure_performance=False)


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def proportional_mb(pids: list[int]) -> float:
    """Of processes that may end meanwhile."""
    total = 0
    for pid in pids:
        try:
            rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
    return total / 1024


async def held_mb() -> tuple[int, float]:
    """How many processes there were at the fullest moment, and their size."""
    verifier = LocalVerifier(VerifierConfig())
    most = (0, 0.0)
    try:
        await verifier.verify(PROBLEM, Candidate(KERNEL % "0", "cpp"), UNTIMED, 0)
        codes = [f"{KERNEL % '0.1'}\n# {number}\n" for number in range(RUNNERS)]
        work = asyncio.gather(*(verifier.verify(PROBLEM, Candidate(code, "cpp"), UNTIMED, 1) for code in codes))
        while not work.done():
            pids = descendants(os.getpid())
            most = max(most, (len(pids), proportional_mb(pids)))
            await asyncio.sleep(0.05)
        await work
    finally:
        await verifier.aclose()
    return most


def fresh_mb(count: int) -> float:
    processes = [subprocess.Popen([sys.executable, "-c", FRESH], stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        return proportional_mb([process.pid for process in processes])
    finally:
        for process in processes:
            process.kill()
            process.wait()


async def growth(verdicts: int) -> tuple[float, float, float]:
    """MB of the processes that stay, after a tenth of the verdicts and after all of them; and the verdicts a second."""
    verifier = LocalVerifier(VerifierConfig())
    sizes = []
    try:
        started = time.perf_counter()
        for number in range(verdicts):
            code = f"{KERNEL % '0'}\n# {number}\n"
            verdict = await verifier.verify(PROBLEM, Candidate(code, "cpp"), UNTIMED, number % 7)
            assert verdict.correct, verdict.message
            if number + 1 in (max(1, verdicts // 10), verdicts):
                await asyncio.sleep(1)  # runners that were asked for meanwhile
                sizes.append(proportional_mb([os.getpid(), *descendants(os.getpid())]))
        return sizes[0], sizes[-1], verdicts / (time.perf_counter() - started)
    finally:
        await verifier.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=300)
    parser.add_argument("--json", type=Path, help="write the numbers there")
    chosen = parser.parse_args()
    processes, ours = asyncio.run(held_mb())
    print(f"{processes} processes of a verifier, {RUNNERS} of them candidates: {ours:.0f} MB", flush=True)
    theirs = fresh_mb(RUNNERS)
    print(f"{RUNNERS} processes that import torch: {theirs:.0f} MB", flush=True)
    first, last, rate = asyncio.run(growth(chosen.verdicts))
    print(f"after {chosen.verdicts // 10} verdicts {first:.0f} MB, after {chosen.verdicts} {last:.0f} MB ({rate:.1f} a second)")
    for name, size in (("verifier", ours), ("fresh processes", theirs)):
        print(f"{name:>16} {'#' * max(1, round(size / 50))} {size:.0f} MB")
    if chosen.json:
        chosen.json.write_text(json.dumps({"held_mb": ours, "fresh_mb": theirs, "first_mb": first, "last_mb": last}) + "\n")
    print(
        f"a verifier with {RUNNERS} candidates takes {ours:.0f} MB; {chosen.verdicts} verdicts change it by {last / first - 1:+.1%}"
    )


if __name__ == "__main__":
    main()

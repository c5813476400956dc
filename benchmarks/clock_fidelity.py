"""How well does the referee's clock tell the truth?

Six honest kernels of 20 us to 1 s (sized for this machine) are verified against themselves: the true speedup is 1.00. For each:
how often the 95% interval covers 1.00, how wide it is, and how far the referee's time of the baseline lies from in-process
timing of the same program (a process of its own: same threads, allocator and libraries, warmed up, garbage collection off, the
median of many calls on inputs that one thread has just made, short calls several at a time, heaps laid out anew in between). Each
of 40 verifications is compared with the in-process run right before it, and the median of these pairs counts: a machine may be
slower for minutes. Beside it stands a hot loop: one input again and again. Two more kernels, bound by the memory that neighbours
share, show what is harder.

All processes of one verifier have common addresses, so that its verdicts are less independent than they look: hence several.

    python benchmarks/clock_fidelity.py                  # 100 repeats, 10 of the longest
    python benchmarks/clock_fidelity.py --repeats 20     # a quick look
    python benchmarks/clock_fidelity.py --burn           # single-threaded, while another process burns another core

Uses nothing but the public verifier. Prints a table and, last, one line with the headline; `--json FILE` keeps the numbers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from kernel_env.errors import MachineBusy
from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.measure import TOGETHER, TOGETHER_S
from kernel_env.referee.pool import KEEP_MEMORY, SPINS
from kernel_env.referee.referee import SLOT_BYTES
from kernel_env.schema import Candidate, Problem, Timing
from kernel_env.verifier import BlockingVerifier, LocalVerifier, VerifierConfig

TEMPLATE = """
import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        {init}

    def forward(self, x):
        return {forward}


def get_inputs():
    return [torch.randn({shape})]


def get_init_inputs():
    return []
"""


@dataclass(frozen=True)
class Kernel:
    """One honest program: as many rows as take `target_ms` on this machine."""

    name: str
    target_ms: float
    forward: str
    row: str
    init: str = "pass"

    def source(self, rows: int) -> str:
        return TEMPLATE.format(forward=self.forward, shape=f"{rows}, {self.row}", init=self.init)

    def sized(self, cores: int) -> tuple[str, int]:
        """Its source and its rows, of which there are at least four."""
        rows = 8
        for _ in range(6):
            took_ms, _ = in_process_ms(self.source(rows), cores)
            better = max(4, round(rows * min(self.target_ms / took_ms, 8)))
            if abs(better - rows) <= 0.1 * rows:
                break
            rows = better
        return self.source(rows), rows


KERNELS = (
    Kernel("relu 20 us", 0.02, "torch.relu(x)", "1024"),
    Kernel("attention 100 us", 0.1, "torch.softmax(x @ x.transpose(1, 2), dim=-1) @ x", "128, 32"),
    Kernel(
        "block 1 ms",
        1.0,
        "self.norm(x + self.down(torch.nn.functional.gelu(self.up(x))))",
        "256",
        "self.up = nn.Linear(256, 1024); self.down = nn.Linear(1024, 256); self.norm = nn.LayerNorm(256)",
    ),
    Kernel("matmul 10 ms", 10.0, "self.linear(x)", "2048", "self.linear = nn.Linear(2048, 1024)"),
    Kernel("convolution 100 ms", 100.0, "self.conv(x)", "64, 64, 64", "self.conv = nn.Conv2d(64, 128, 5, padding=2)"),
    Kernel(
        "matmuls 1 s",
        1000.0,
        "self.b(torch.relu(self.a(x)))",
        "4096",
        "self.a = nn.Linear(4096, 3072); self.b = nn.Linear(3072, 4096)",
    ),
    Kernel("softmax (memory)", 0.1, "torch.softmax(x, dim=-1)", "1024"),
    Kernel("layernorms (memory)", 0.4, "self.norm(self.norm(self.norm(x)))", "1024", "self.norm = nn.LayerNorm(1024)"),
)
EXTENSION = '''
from torch.utils.cpp_extension import load_inline

ModelNew.extension = load_inline(name="same", cpp_sources="""
#include <torch/extension.h>
torch::Tensor same(torch::Tensor x) { return x; }
""", functions=["same"])
'''
"""The static rules want a kernel; it is never called, so that candidate and baseline are one program."""
IN_PROCESS = """
import ctypes, gc, json, random, statistics, sys, time
import numpy, torch
ctypes.CDLL("libgomp.so.1")  # most extensions bring it, and all of torch is slower by 1% then
source, threads, together_s, together, slot_bytes = sys.stdin.read(), int(sys.argv[1]), *map(float, sys.argv[2:])
torch.set_num_threads(threads)
module = {}
exec(source, module)
model, drawn = module["Model"](), [module["get_inputs"]()[0] for _ in range(5)]

def renew(x, index):
    # As new numbers come to be: one thread makes them, a piece at a time.
    one, two, x = (tensor.numpy().reshape(-1) for tensor in (drawn[index % 5], drawn[(index + 1 + index % 3) % 5], x))
    for start in range(0, x.size, 1 << 16):
        part = one[start : start + (1 << 16)] + two[start : start + (1 << 16)]
        part *= part.dtype.type(0.5 ** 0.5)
        x[start : start + (1 << 16)] = part

between = []

def scatter():
    # As the referee does: the next tensors lie elsewhere. One layout would be one by luck, the same in every process.
    blocks = [torch.zeros(int(2 ** random.uniform(6, 18))) for _ in range(8)]
    between[:] = random.sample(blocks, 4)

def median_ms(count, fresh):
    inputs, outputs, times, index, started = [drawn[0].clone() for _ in range(count)], [], [], 0, time.perf_counter()
    while len(times) < 10 or time.perf_counter() - started < 1.0:
        outputs.clear()
        if fresh:
            scatter()
        for x in inputs if fresh else []:
            renew(x, index := index + 1)
        before = time.perf_counter()
        outputs.extend(model(x) for x in inputs)
        times.append((time.perf_counter() - before) / count)
    return statistics.median(times[len(times) // 5 :]) * 1e3

gc.collect(); gc.disable()
with torch.no_grad():
    hot = median_ms(1, False)
    slots = max(2, min(together, slot_bytes // (drawn[0].numel() * 4)))
    count = int(max(1, min(slots, together_s * 1e3 / hot)))
    print(json.dumps([median_ms(count, True), hot]))
"""


IN_PROCESS_RUNS = 40


@dataclass
class Row:
    kernel: str
    rows: int
    """Of its input, chosen so that it takes as long as its name says."""
    repeats: int
    covered: int
    """Repeats whose 95% interval holds 1.00."""
    half_width: float
    """Median, as a share of the speedup."""
    speedup: float
    """Median."""
    referee_ms: float
    """Median of the baseline's medians."""
    in_process_ms: float
    hot_loop_ms: float
    disagreement: float
    """By how much the referee's time is longer than in-process timing, as a share: the median of pairs."""
    pairs: list[tuple[float, float]]
    """Milliseconds: the referee's, and in-process timing right before."""
    too_busy: int
    """Repeats that gave no time."""
    intervals: list[tuple[float, float, float]]
    """Of each repeat: the speedup, and between what it lies."""
    by_verifier: list[float]
    """The mean speedup of each verifier's repeats. All processes of one have common addresses."""


def in_process_ms(source: str, cores: int) -> tuple[float, float]:
    """On fresh inputs and in a hot loop."""
    environment = {
        **os.environ,
        "GLIBC_TUNABLES": KEEP_MEMORY,
        "OMP_NUM_THREADS": str(cores),
        "OMP_PROC_BIND": "close",
        "GOMP_SPINCOUNT": SPINS,
    }
    command = [sys.executable, "-c", IN_PROCESS, *map(str, (cores, TOGETHER_S, TOGETHER, SLOT_BYTES))]
    run = subprocess.run(command, input=source, text=True, capture_output=True, check=True, env=environment)
    fresh, hot = json.loads(run.stdout)
    return fresh, hot


def measured(opened: Callable[[], BlockingVerifier], kernel: Kernel, repeats: int, verifiers: int, cores: int) -> Row:
    """Repeats, with a new verifier (`opened`) after each share of them."""
    name = kernel.name
    source, rows = kernel.sized(cores)
    problem = Problem(1, 1, "Self", source, origin="benchmark")
    candidate = Candidate(source.replace("class Model(", "class ModelNew(") + EXTENSION, "cpp")
    config = VerifyConfig(num_correct_trials=2, torch_ops="unchecked")
    timings: list[Timing] = []
    in_process: list[tuple[float, float]] = []
    pairs: list[tuple[float, float]] = []
    groups: list[list[float]] = []
    for share in np.array_split(range(repeats), min(verifiers, repeats)):
        groups.append([])
        with opened() as verifier:
            for seed in map(int, share):
                paired = seed % max(1, repeats // IN_PROCESS_RUNS) == 0
                if paired:
                    in_process.append(in_process_ms(source, cores))
                with contextlib.suppress(MachineBusy):
                    verdict = verifier.verify(problem, candidate, config, seed)
                    if verdict.timing is None:
                        raise SystemExit(f"{name}: {verdict.status}: {verdict.message}")
                    timings.append(verdict.timing)
                    groups[-1].append(verdict.timing.speedup)
                    pairs += [(verdict.timing.baseline.median_ms, in_process[-1][0])] if paired else []
    if not pairs:
        raise SystemExit(f"{name}: this machine is too busy to take times")
    return Row(
        name,
        rows,
        len(timings),
        sum(t.speedup_low <= 1.0 <= t.speedup_high for t in timings),
        statistics.median((t.speedup_high - t.speedup_low) / 2 / t.speedup for t in timings),
        statistics.median(t.speedup for t in timings),
        statistics.median(t.baseline.median_ms for t in timings),
        statistics.median(fresh for fresh, _ in in_process),
        statistics.median(hot for _, hot in in_process),
        statistics.median(theirs / ours for theirs, ours in pairs) - 1,
        pairs,
        repeats - len(timings),
        [(t.speedup, t.speedup_low, t.speedup_high) for t in timings],
        [statistics.mean(group) for group in groups if group],
    )


@contextlib.contextmanager
def burning(burn: bool) -> Iterator[None]:
    """Another process on the last core, all the while."""
    if not burn:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=100, help="a tenth as many of the 1 s kernel")
    parser.add_argument("--verifiers", type=int, default=5, help="so many, one after the other, share a kernel's repeats")
    parser.add_argument("--burn", action="store_true", help="one thread, while another process burns the last core")
    parser.add_argument("--only", help="part of a kernel's name")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    chosen = parser.parse_args()
    kernels = [kernel for kernel in KERNELS if not chosen.only or chosen.only in kernel.name]
    if not kernels or min(chosen.repeats, chosen.verifiers) < 1:
        names = ", ".join(kernel.name for kernel in KERNELS)
        parser.error(f"--only is part of one of {names}; --repeats and --verifiers are 1 or more")
    cores = len(os.sched_getaffinity(0))
    threads = 1 if chosen.burn else cores
    config = VerifierConfig(slots=cores if chosen.burn else 1)  # with a slot a core, the first one's runner has one thread
    rows = []
    heads = (
        ("covers 1.00", 12),
        ("half-width", 11),
        ("speedup", 8),
        ("referee", 11),
        ("in process", 11),
        ("apart", 7),
        ("hot loop", 11),
        ("by verifier", 13),
    )
    print(f"{'kernel':<20} " + " ".join(f"{head:>{width}}" for head, width in heads))
    with burning(chosen.burn):
        for kernel in kernels:
            repeats = max(1, chosen.repeats // 10) if kernel.target_ms >= 1000 else chosen.repeats
            row = measured(lambda: BlockingVerifier(lambda: LocalVerifier(config)), kernel, repeats, chosen.verifiers, threads)
            rows.append(row)
            busy = f"  ({row.too_busy} too busy)" if row.too_busy else ""
            if chosen.json:
                chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
            print(
                f"{row.kernel:<20} {row.covered:>6} of {row.repeats:<3} {row.half_width:>10.1%} {row.speedup:>8.3f} "
                f"{row.referee_ms:>8.4g} ms {row.in_process_ms:>8.4g} ms {row.disagreement:>+7.1%} "
                f"{row.hot_loop_ms:>8.4g} ms {min(row.by_verifier):>7.3f}-{max(row.by_verifier):.3f}{busy}",
                flush=True,
            )
    rows = [row for row in rows if "(memory)" not in row.kernel] or rows  # the headline is about the six
    worst = min(rows, key=lambda row: row.covered / row.repeats)
    longer = [abs(row.disagreement) for row in rows if "20 us" not in row.kernel] or [0.0]
    print(
        f"1.00 covered in at least {worst.covered} of {worst.repeats} repeats ({worst.kernel}); median half-width at most "
        f"{max(row.half_width for row in rows):.1%}; at most {max(longer):.1%} from in-process timing from 100 us up"
    )


if __name__ == "__main__":
    main()

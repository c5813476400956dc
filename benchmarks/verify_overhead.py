"""What does a verdict cost beyond the candidate's own work?

The last recorded reply to each bundled problem is verified several times (no two sources equal, so nothing is remembered of a
candidate): as the first of a group, for which the problem's inputs and outputs are made; as another one of the same group, which
shares them; and with times, as the first. Overhead is the wall time of `verify` less the candidate's builds, its import,
construction, trial and timed calls, and less the reference's timed calls (shown beside it). The same candidates are judged in the
usual way: a fresh Python process for each, which imports torch, checks five trials and times a hundred calls of either program
itself. That program is ours; it has no sandbox and finds its extensions already built, as the verifier does; its overhead is
counted likewise.

    python -m benchmarks.verify_overhead                 # 3 verdicts a problem
    python -m benchmarks.verify_overhead --repeats 20    # enough for a p99
    python -m benchmarks.verify_overhead --profile interpret    # problems of some 100 KB: what does not grow with tensors

`--json FILE` keeps the numbers. Run it in the checkout's directory, on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from kernel_env.parsing import extract_kernel
from kernel_env.problems import load_problems
from kernel_env.problems.sizing import Profile
from kernel_env.referee.config import VerifyConfig
from kernel_env.schema import Candidate, Problem
from kernel_env.verifier import BlockingVerifier, LocalVerifier, VerifierConfig

FRESH = """
import json, sys, time
job = json.load(sys.stdin)
import torch
from kernel_env.backends.loading import routed_builds
from kernel_env.builder import Builder, BuildRequest
from kernel_env.hostlock import CoresLock
from kernel_env.verifier import VerifierConfig

spent = {"own": 0.0, "baseline": 0.0}
build_s = 0.0

def clocked(name, work):
    built, started = build_s, time.perf_counter()
    found = work()
    spent[name] += time.perf_counter() - started - (build_s - built)
    return found

def build(frame):
    global build_s
    started = time.perf_counter()
    pairs = (tuple(map(tuple, frame[name])) for name in ("sources", "functions"))
    made = builder.build(BuildRequest(*pairs, tuple(frame["compile_flags"]), tuple(frame["link_flags"])))
    build_s += time.perf_counter() - started
    return {"ok": made.ok, "module": made.module, "path": made.path, "log": made.log}

def loaded(name):
    module = {"__name__": name}
    with open(f"{name}.py", "w") as file:
        file.write(job[name])
    exec(compile(job[name], f"{name}.py", "exec"), module)
    return module

builder = Builder(VerifierConfig().cache(), CoresLock())
with routed_builds(build), torch.no_grad():
    problem, candidate = loaded("problem"), clocked("own", lambda: loaded("candidate"))
    torch.manual_seed(1)
    model = problem["Model"](*problem["get_init_inputs"]())
    torch.manual_seed(1)
    new = clocked("own", lambda: candidate["ModelNew"](*problem["get_init_inputs"]()))
    for seed in range(5):
        torch.manual_seed(seed)
        inputs = problem["get_inputs"]()
        got = clocked("own", lambda: new(*inputs))
        assert torch.allclose(model(*inputs), got, atol=1e-2, rtol=1e-2)
    for name, program in (("own", new), ("baseline", model)):
        for _ in range(110):
            clocked(name, lambda: program(*inputs))
print(json.dumps({**spent, "build": build_s}))
"""


@dataclass(frozen=True)
class Cost:
    """Of one verdict, in milliseconds."""

    wall_ms: float
    own_ms: float
    baseline_ms: float
    build_ms: float

    @property
    def overhead_ms(self) -> float:
        return self.wall_ms - self.own_ms - self.baseline_ms - self.build_ms


def candidates(profile: str = "full") -> list[tuple[Problem, str]]:
    """The last recorded reply to each bundled problem."""
    problems = {problem.key: problem for problem in load_problems("bundled", None, profile)}
    last = {}
    for file in sorted((files("rollout") / "recordings" / "bundled/cpp").iterdir(), key=lambda file: file.name):
        last[file.name.rsplit("_", 1)[0]] = extract_kernel(file.read_text()).code
    return [(problems[key], code) for key, code in last.items() if code]


def verified(verifier: BlockingVerifier, problem: Problem, code: str, config: VerifyConfig, seed: int) -> Cost:
    started = time.perf_counter()
    verdict = verifier.verify(problem, Candidate(code, "cpp"), config, seed)
    wall_ms = (time.perf_counter() - started) * 1e3
    if not verdict.correct:
        raise SystemExit(f"{problem.key}: {verdict.status}: {verdict.message}")
    return Cost(wall_ms, verdict.own_ms, verdict.baseline_ms, verdict.build_ms)


def fresh(problem: Problem, code: str) -> Cost:
    job = json.dumps({"problem": problem.source, "candidate": code})
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        run = subprocess.run([sys.executable, "-c", FRESH], input=job, text=True, capture_output=True, cwd=directory)
    wall_ms = (time.perf_counter() - started) * 1e3
    if run.returncode:
        raise SystemExit(f"{problem.key}: the fresh process failed:\n{run.stderr}")
    spent = json.loads(run.stdout.splitlines()[-1])
    return Cost(wall_ms, *(spent[name] * 1e3 for name in ("own", "baseline", "build")))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so many are not above."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def plotted(costs: dict[str, list[Cost]]) -> str:
    """A bar for each quantile of the overhead, on a logarithmic scale: twelve characters for a factor of ten."""
    lines = []
    for name, found in costs.items():
        values = sorted(cost.overhead_ms for cost in found)
        for share in (0.05, 0.5, 0.95):
            value = quantile(values, share)
            bar = "#" * max(1, round(12 * math.log10(max(value, 1.0))))
            lines.append(f"{name:>24} {share:>4.0%} {bar} {value:.0f} ms")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="verdicts for each problem")
    parser.add_argument("--profile", default="full", choices=[profile.value for profile in Profile], help="size of the problems")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    chosen = parser.parse_args()
    untimed = VerifyConfig(measure_performance=False)
    timed = replace(untimed, measure_performance=True, noise_limit=1e9)
    ways = {"first verdict": untimed, "verdict": untimed, "first verdict, timed": timed}
    costs: dict[str, list[Cost]] = {name: [] for name in (*ways, "fresh process, timed")}
    rows = []
    with BlockingVerifier(lambda: LocalVerifier(VerifierConfig())) as verifier:
        for problem, code in candidates(chosen.profile):
            verified(verifier, problem, code, untimed, 0)  # builds it, and what is kept of a problem
            mine: dict[str, list[Cost]] = {name: [] for name in costs}
            for repeat in range(chosen.repeats):
                for name, config in ways.items():
                    source = f"{code}\n# {problem.key}, {name} {repeat}\n"
                    mine[name].append(verified(verifier, problem, source, config, 1 + repeat))
                mine["fresh process, timed"].append(fresh(problem, source))
            medians = {name: statistics.median(cost.overhead_ms for cost in found) for name, found in mine.items()}
            print(f"{problem.key:<20} " + "  ".join(f"{name} {ms:7.1f} ms" for name, ms in medians.items()), flush=True)
            for name, found in mine.items():
                costs[name] += found
                rows += [{"problem": problem.key, "way": name, **vars(cost), "overhead_ms": cost.overhead_ms} for cost in found]
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\n{'':>24} {'overhead: median':>18} {'p99':>10} {'own calls':>12} {'baseline':>12}")
    for name, found in costs.items():
        overheads = [cost.overhead_ms for cost in found]
        own, baseline = (statistics.median(values) for values in zip(*((c.own_ms, c.baseline_ms) for c in found), strict=True))
        line = f"{statistics.median(overheads):>15.1f} ms {quantile(overheads, 0.99):>7.0f} ms {own:>9.1f} ms {baseline:>9.1f} ms"
        print(f"{name:>24} {line}")
    print("\n" + plotted(costs) + "\n")
    usual, ours, further = (
        statistics.median(cost.overhead_ms for cost in costs[name])
        for name in ("fresh process, timed", "first verdict, timed", "verdict")
    )
    print(
        f"overhead of a timed verdict: median {ours:.0f} ms; a fresh process: {usual:.0f} ms, {usual / ours:.1f} times as much; "
        f"of a verdict without times, in a group: {further:.0f} ms"
    )


if __name__ == "__main__":
    main()

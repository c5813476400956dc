"""What does a group of candidates of one problem cost?

Sixteen candidates of a problem (a recorded reply; no two sources are equal, so nothing is remembered of a candidate) are verified
at once, with one seed, as the samples of a group are. They share what is drawn and computed for the problem, and the baseline's
times. The alternative: the same candidates one after the other, each with a seed of its own, so that nothing is shared. Their
builds are there already in either case.

    python -m benchmarks.group                    # three problems, 16 candidates
    python -m benchmarks.group --problems 16      # all that are bundled

Overhead is wall time less the candidates' own work (import, construction, trial and timed calls) and less the timed calls of the
reference. `--json FILE` keeps the numbers. Run it in the checkout's directory, on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.verify_overhead import candidates
from kernel_env.referee.config import VerifyConfig
from kernel_env.schema import Candidate, Problem, Verdict
from kernel_env.verifier import LocalVerifier, VerifierConfig

CONFIG = VerifyConfig(noise_limit=1e9)
WAYS = ("together", "one after the other")


@dataclass(frozen=True)
class Cost:
    """Of all candidates of a problem, in seconds; `own_s` and `baseline_s` are parts of `wall_s`."""

    problem: str
    way: str
    candidates: int
    wall_s: float
    own_s: float
    baseline_s: float

    @property
    def overhead_ms(self) -> float:
        """For each candidate."""
        return (self.wall_s - self.own_s - self.baseline_s) / self.candidates * 1e3


async def verified(verifier: LocalVerifier, problem: Problem, codes: Sequence[str], way: str) -> Cost:
    started = time.perf_counter()
    found: list[Verdict] = []
    if way == "together":
        found += await asyncio.gather(*(verifier.verify(problem, Candidate(code, "cpp"), CONFIG, 1) for code in codes))
    else:
        for seed, code in enumerate(codes, 2):
            found.append(await verifier.verify(problem, Candidate(code, "cpp"), CONFIG, seed))
    wall_s = time.perf_counter() - started
    for verdict in found:
        if not verdict.correct:
            raise SystemExit(f"{problem.key}: {verdict.status}: {verdict.message}")
    own_s, baseline_s = (sum(getattr(verdict, name) for verdict in found) / 1e3 for name in ("own_ms", "baseline_ms"))
    return Cost(problem.key, way, len(codes), wall_s, own_s, baseline_s)


async def measured(problems: int, count: int) -> list[Cost]:
    rows = []
    verifier = LocalVerifier(VerifierConfig())
    try:
        for problem, code in candidates()[:problems]:
            sources = [f"{code}\n# candidate {number}\n" for number in range(count)]
            await verifier.verify(problem, Candidate(code, "cpp"), VerifyConfig(measure_performance=False), 0)  # builds it
            for way in WAYS:
                rows.append(row := await verified(verifier, problem, sources, way))
                print(
                    f"{row.problem} {row.way:<20} {row.wall_s:>6.2f} s  own {row.own_s:>5.2f} s, baseline {row.baseline_s:>5.2f} s "
                    f"({row.baseline_s / row.own_s:>4.0%} of it), overhead {row.overhead_ms:>6.0f} ms each",
                    flush=True,
                )
    finally:
        await verifier.aclose()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=3, help="so many of the bundled ones")
    parser.add_argument("--candidates", type=int, default=16, help="of each")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    chosen = parser.parse_args()
    rows = asyncio.run(measured(chosen.problems, chosen.candidates))
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    together, alone = ([row for row in rows if row.way == way] for way in WAYS)
    for name, row in (("together", together), ("one by one", alone)):
        wall = statistics.median(one.wall_s / one.candidates for one in row)
        print(f"{name:>12} {'#' * max(1, round(wall * 10))} {wall:.2f} s a candidate")
    ratio = statistics.median(b.wall_s / a.wall_s for a, b in zip(together, alone, strict=True))
    times, baseline, overhead_ms = (
        statistics.median(values)
        for values in zip(*((row.wall_s / row.own_s, row.baseline_s / row.own_s, row.overhead_ms) for row in together), strict=True)
    )
    print(
        f"a group of {chosen.candidates}: median {times:.2f} times the candidates' own time, baseline {baseline:.0%} of it, "
        f"overhead {overhead_ms:.0f} ms each; one after the other takes {ratio:.1f} times as long"
    )


if __name__ == "__main__":
    main()

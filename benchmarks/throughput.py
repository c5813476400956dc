"""How many verdicts a minute, with one slot and with more?

Candidates of several problems (recorded replies; no two sources are equal) are all asked for at once, correctness only and with
times, by verifiers with one slot, two, ... up to one a core. The ideal is as many times the throughput of one slot as there are
slots. Builds are there already; a slot has its share of the cores, so that with more slots each call may take longer. Beside it
stands how long the caller's event loop was kept from other work (by how much a sleep of a millisecond lasts longer).

    python -m benchmarks.throughput
    python -m benchmarks.throughput --candidates 8 --problems 16

`--json FILE` keeps the numbers. Run it in the checkout's directory, on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.verify_overhead import candidates, quantile
from kernel_env.referee.config import VerifyConfig
from kernel_env.schema import Candidate
from kernel_env.verifier import LocalVerifier, VerifierConfig

UNTIMED = VerifyConfig(measure_performance=False)
WAYS = {"correctness only": UNTIMED, "timed": replace(UNTIMED, measure_performance=True, noise_limit=1e9)}


@dataclass(frozen=True)
class Row:
    way: str
    slots: int
    verdicts: int
    wall_s: float
    per_minute: float
    of_ideal: float
    """Against so many times the throughput of one slot."""
    loop_p99_ms: float
    loop_most_ms: float


async def lags_ms(found: list[float]) -> None:
    """How late this loop is, until cancelled."""
    while True:
        started = time.perf_counter()
        await asyncio.sleep(1e-3)
        found.append((time.perf_counter() - started) * 1e3 - 1)


async def wall_s(slots: int, config: VerifyConfig, problems: int, count: int, mark: str, late_ms: list[float]) -> tuple[int, float]:
    verifier = LocalVerifier(VerifierConfig(slots=slots))
    try:
        found = candidates()[:problems]
        for problem, code in found:
            await verifier.verify(problem, Candidate(code, "cpp"), UNTIMED, 0)  # builds it
        started = time.perf_counter()
        watching = asyncio.ensure_future(lags_ms(late_ms))
        jobs = [
            verifier.verify(problem, Candidate(f"{code}\n# {mark}, {number}\n", "cpp"), config, 1)
            for problem, code in found
            for number in range(count)
        ]
        for verdict in await asyncio.gather(*jobs):
            if not verdict.correct:
                raise SystemExit(f"{verdict.problem}: {verdict.status}: {verdict.message}")
        watching.cancel()
        return len(jobs), time.perf_counter() - started
    finally:
        await verifier.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=4, help="so many of the bundled ones")
    parser.add_argument("--candidates", type=int, default=4, help="of each")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    chosen = parser.parse_args()
    rows: list[Row] = []
    for way, config in WAYS.items():
        one = 0.0
        for slots in range(1, len(os.sched_getaffinity(0)) + 1):
            late_ms: list[float] = []
            count, took_s = asyncio.run(wall_s(slots, config, chosen.problems, chosen.candidates, f"{way}, {slots}", late_ms))
            one = one or count / took_s
            row = Row(
                way, slots, count, took_s, count / took_s * 60, count / took_s / one / slots, quantile(late_ms, 0.99), max(late_ms)
            )
            rows.append(row)
            bar = "#" * max(1, round(row.per_minute / 10))
            print(
                f"{way:<17} {slots:>3} slots {row.per_minute:>7.1f} a minute  {row.of_ideal:>4.0%} of the ideal  "
                f"loop late by {row.loop_p99_ms:.1f} ms (p99), {row.loop_most_ms:.1f} ms at most  {bar}",
                flush=True,
            )
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    most = [max((row for row in rows if row.way == way), key=lambda row: row.per_minute) for way in WAYS]
    print("; ".join(f"{row.way}: {row.per_minute:.0f} verdicts a minute with {row.slots} slots" for row in most))


if __name__ == "__main__":
    main()

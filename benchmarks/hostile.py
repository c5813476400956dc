"""Is the next honest candidate judged as fast after a thousand hostile ones as before them?

Runs hostile candidates one after the other (hangs with a limit of 1 s, bombs, crashes, floods: those of `tests/hostile.py`, each
kind in turn, no two equal). Before, at each quarter and at the end an honest candidate is verified, with and without times; its
verdicts' durations are compared with the first ones. Descriptors, memory and mappings of worker and zygote are listed at the same
moments, and what was left behind is named. Then, for each kind, how long the slowest verdict took beyond the limit.

    python -m benchmarks.hostile                         # 1,000 of them, about 10 minutes
    python -m benchmarks.hostile --count 100             # a quick look
    python -m benchmarks.hostile --without-namespaces    # as in a container that forbids them

Run it in the checkout's directory, on a quiet machine. `--json FILE` keeps the numbers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kernel_env.referee.config import VerifyConfig
from kernel_env.verifier import BlockingVerifier, LocalVerifier, VerifierConfig
from tests.hostile import ALONE, HONEST, LIMIT_S, PROBLEM, Kind, sequence, wrong
from tests.traces import Traces

REPEATS = 15
HONESTLY = VerifyConfig(noise_limit=1e9)
"""The defaults; times are taken once, however noisy: it is the verdict's duration that counts here."""


@dataclass
class Moment:
    """What was seen after so many hostile candidates."""

    hostile: int
    correctness_s: float
    """Median duration of an honest verdict without times, ..."""
    timed_s: float
    """... and with them."""
    processes: dict[str, tuple[int, float, int]]
    """Descriptors, resident MB and mappings of each of ours."""


@dataclass
class Duration:
    kind: str
    count: int
    median_s: float
    slowest_s: float

    @property
    def beyond_s(self) -> float:
        return self.slowest_s - LIMIT_S


SETTLED_S = 2.0
"""After its answer a worker forks the runners for its next job."""


def honest_s(verifier: BlockingVerifier, *, timed: bool) -> float:
    """Median of several."""
    took = []
    for seed in range(REPEATS):
        started = time.perf_counter()
        verdict = verifier.verify(PROBLEM, HONEST.candidate(seed), replace(HONESTLY, measure_performance=timed), seed)
        took.append(time.perf_counter() - started)
        if not verdict.correct:
            raise SystemExit(f"an honest candidate is {verdict.status}: {verdict.message}")
    return statistics.median(took)


def look(verifier: BlockingVerifier, hostile: int) -> Moment:
    correctness_s, timed_s = honest_s(verifier, timed=False), honest_s(verifier, timed=True)
    held = Traces.now().processes.values()
    return Moment(
        hostile, correctness_s, timed_s, {h.name: (h.descriptors.total(), round(h.resident_mb, 1), h.mappings) for h in held}
    )


def shown(moment: Moment, first: Moment) -> str:
    processes = "  ".join(
        f"{name} {count} / {mb:.0f} / {maps}" for name, (count, mb, maps) in moment.processes.items() if name != "this process"
    )
    return (
        f"{moment.hostile:>7} {moment.correctness_s * 1e3:>8.0f} ms {moment.correctness_s / first.correctness_s:>6.2f} "
        f"{moment.timed_s * 1e3:>8.0f} ms {moment.timed_s / first.timed_s:>6.2f}   {processes}"
    )


def play(verifier: BlockingVerifier, count: int) -> tuple[list[Moment], dict[Kind, list[float]], list[str], list[str]]:
    """The moments, every duration by kind, and in words: verdicts that no kind allows, and what was left."""
    honest_s(verifier, timed=True)
    time.sleep(SETTLED_S)
    before = Traces.now()
    moments, took, mistakes = [look(verifier, 0)], defaultdict[Kind, list[float]](list), []
    print("after hostile, honest and ratio, timed and ratio, then descriptors / resident MB / mappings of each process")
    print(shown(moments[0], moments[0]), flush=True)
    quarters = {round(count * share / 4) for share in (1, 2, 3, 4)}
    for number, kind in sequence(count):
        started = time.perf_counter()
        verdict = verifier.verify(PROBLEM, kind.candidate(number), kind.config, number)
        took[kind].append(time.perf_counter() - started)
        mistakes += [said] if (said := wrong(kind, verdict)) else []
        if number + 1 in quarters:
            moments.append(look(verifier, number + 1))
            print(shown(moments[-1], moments[0]), flush=True)
    time.sleep(SETTLED_S)
    return moments, took, mistakes, before.left(Traces.now())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--without-namespaces", action="store_true", help="as in a container that forbids them")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    chosen = parser.parse_args()
    config = VerifierConfig(sandbox_without=ALONE if chosen.without_namespaces else ())
    with tempfile.TemporaryDirectory(prefix="ke-") as directory:
        tempfile.tempdir = directory  # so that everything that is left can be seen
        with BlockingVerifier(lambda: LocalVerifier(config)) as verifier:
            moments, took, mistakes, left = play(verifier, chosen.count)
    durations = [Duration(kind.name, len(s), statistics.median(s), max(s)) for kind, s in took.items()]
    durations.sort(key=lambda duration: -duration.slowest_s)
    print(f"\n{'a candidate that ...':<55} {'verdicts':>8} {'median':>8} {'slowest':>8}")
    for row in durations:
        print(f"{row.kind:<55} {row.count:>8} {row.median_s:>6.2f} s {row.slowest_s:>6.2f} s")
    for line in [*mistakes, *left]:
        print(line)
    if chosen.json:
        numbers = {"moments": [asdict(m) for m in moments], "durations": [asdict(d) for d in durations], "left": left}
        chosen.json.write_text(json.dumps({**numbers, "mistakes": mistakes}, indent=1) + "\n")
    first, last = moments[0], moments[-1]
    ratios = last.correctness_s / first.correctness_s, last.timed_s / first.timed_s
    print(
        f"{chosen.count} hostile candidates: {len(mistakes)} unexpected verdicts, {len(left)} things left behind, the slowest "
        f"verdict {durations[0].beyond_s:.1f} s after its limit; an honest one takes {ratios[0]:.2f} of the first's time, with "
        f"times {ratios[1]:.2f}"
    )
    if mistakes or left:
        raise SystemExit(1)


if __name__ == "__main__":
    main()

"""What are the outputs of a set of problems like, and which problems are degenerate?

For each problem: mean magnitude of its output, variation with the inputs and the error of fp32 (both against the magnitude), the
tolerance that `strict` makes of them, the extra amplitudes that it is tried at, and whether a constant could pass there.

    python benchmarks/signals.py                                                # the bundled problems
    python benchmarks/signals.py jsonl ../shared/data/kernel_bench_triton_level_1_2.jsonl --profile cpu
    python benchmarks/signals.py kernelbench PATH --only level1 --json out.json

Runs the problems' own code in this process. Prints a row a problem and, last, the degenerate ones as they stand in
`kernel_env/problems/degenerate.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from kernel_env.errors import KernelEnvError, ProblemError
from kernel_env.problems import load_problems
from kernel_env.referee.calibration import Calibration, Calibrator
from kernel_env.referee.process import LocalEndpoint
from kernel_env.referee.reference import Reference, no_builds
from kernel_env.referee.tolerance import tolerance
from kernel_env.schema import Problem


def calibrated(problem: Problem, cache: Path) -> Calibration:
    """Raises ProblemError."""

    @contextlib.contextmanager
    def opened() -> Iterator[Reference]:
        with tempfile.TemporaryDirectory() as scratch:
            reference = Reference(LocalEndpoint("reference", Path(scratch), no_builds, interpreter=False), problem, 600)
            reference.ask({"op": "load", "code": problem.source, "entry": "Model"})
            yield reference

    return Calibrator(cache).of(problem, opened)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", nargs="?", default="bundled")
    parser.add_argument("path", nargs="?")
    parser.add_argument("--profile", default="cpu")
    parser.add_argument("--cache", type=Path, help="a build cache: what is measured already is read there, and kept there")
    parser.add_argument("--only", default="", help="part of a problem's key")
    parser.add_argument("--json", type=Path, help="write the numbers there")
    chosen = parser.parse_args()
    try:
        problems = [p for p in load_problems(chosen.source, chosen.path, chosen.profile) if chosen.only in p.key]
    except KernelEnvError as error:
        parser.error(str(error))
    if not problems:
        parser.error(f"--only {chosen.only}: no problem's key holds that")
    strict, rows, degenerate = tolerance("strict"), list[dict[str, object]](), dict[str, str]()
    print(f"{'problem':<18} {'scale':>9} {'varies':>9} {'error':>9} {'atol':>9} {'rtol':>9}  extra    seconds")
    with tempfile.TemporaryDirectory() as empty:
        cache = chosen.cache or Path(empty)
        for problem in problems:
            started = time.perf_counter()
            try:
                found = calibrated(problem, cache)
                found.check(problem, strict)
            except ProblemError as error:
                print(f"{problem.key:<18} {error}")
                continue
            took_s, fitted, measured = time.perf_counter() - started, found.fitted(strict), found.by_amplitude[1.0]
            for index, (dtype, signal) in enumerate(zip(measured.dtypes, measured.signals, strict=True)):
                atol, rtol = fitted.limits(dtype, index)
                error_text = "none" if signal.error is None else f"{signal.error:.1e}"
                extra = f"{found.amplitude(strict) or 1:g}"
                mark = "  DEGENERATE" if found.degenerate(strict) else ""
                print(
                    f"{problem.key:<18} {signal.scale:>9.2e} {signal.share:>9.1e} {error_text:>9} {atol:>9.1e} {rtol:>9.1e}  "
                    f"{extra:<8} {took_s:>7.2f}{mark}",
                    flush=True,
                )
                rows.append({"problem": problem.key, "dtype": dtype, "signal": vars(signal), "atol": atol, "rtol": rtol})
            if found.degenerate(strict):
                degenerate[problem.digest] = f"{problem.key} {problem.name}, profile {problem.profile}"
    if chosen.json:
        chosen.json.write_text(json.dumps({"rows": rows, "degenerate": degenerate}, indent=1) + "\n")
    print(f"{len(degenerate)} degenerate")
    print(json.dumps(degenerate, indent=1))


if __name__ == "__main__":
    main()

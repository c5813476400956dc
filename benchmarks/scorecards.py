"""Does the scorecard say the same again? Runs it several times and names every file whose outcome or status was not always equal.

    python -m benchmarks.scorecards                      # ten runs in a row
    python -m benchmarks.scorecards --runs 2 --burn      # while another process burns the last core
    python -m benchmarks.scorecards --runs 3 c19_        # a part of the corpus

The outcome is what the scorecard counts: a cheat caught, an honest kernel passed. A cheat that is a race may be caught with one
status or another, where its header allows both; such files are named, too.

Run it in the checkout's directory. Exit code 1 if outcomes differ or a run is not all good. `--json FILE` keeps each run's results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from benchmarks.clock_fidelity import burning


def scored(part: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "kernel_env", "scorecard", "tests/candidates", part, "--json"]
    run = subprocess.run([word for word in command if word], stdout=subprocess.PIPE, text=True)
    if not run.stdout:
        raise SystemExit(f"the scorecard ended with exit code {run.returncode} and no results")
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", nargs="?", default="", help="only files with this in their names")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--burn", action="store_true", help="another process burns the last core, all the while")
    parser.add_argument("--json", type=Path, help="write the results of each run there")
    chosen = parser.parse_args()
    runs = []
    with burning(chosen.burn):
        for _ in range(chosen.runs):
            runs.append(scored(chosen.part))
            if chosen.json:
                chosen.json.write_text(json.dumps(runs, indent=1) + "\n")
    outcomes, statuses = defaultdict[str, Counter[str]](Counter), defaultdict[str, Counter[str]](Counter)
    for result in (result for run in runs for result in run["candidates"]):
        outcomes[result["name"]][result["outcome"]] += 1
        statuses[result["name"]][f"{result['outcome']} ({result['status']})"] += 1
    differing = [name for name, seen in outcomes.items() if len(seen) > 1]
    several = {name: seen for name, seen in statuses.items() if len(seen) > 1}
    for name, seen in sorted(several.items()):
        print(f"{name}: " + ", ".join(f"{count} times {verdict}" for verdict, count in seen.most_common()))
    good = sum(
        run["totals"]["caught"] == run["totals"]["cheats"] and run["totals"]["passed"] == run["totals"]["honest"] for run in runs
    )
    print(
        f"{len(runs)} runs, {good} of them all good; of {len(outcomes)} files {len(differing)} had outcomes that differ, and "
        f"{len(several) - len(differing)} only statuses"
    )
    return int(bool(differing) or good < len(runs))


if __name__ == "__main__":
    sys.exit(main())

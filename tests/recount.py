"""The numbers of a report, counted again from the raw files of a run: turns, how episodes ended, and what was asked for.

Nothing of the program is imported, and nothing but the standard library, save for the draws of the bootstrap. `python -m
tests.recount RUN` prints what it finds: the tables of the report by their section, each a list of rows of cells.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

Row = list[str]
Sample = dict[str, Any]
"""`turns` (the raw `record` of each), `end` (its stop reason, None while it runs) and `key`."""
PS = (0.0, 0.5, 0.8, 1.0, 1.5, 2.0)


def load(path: Path) -> dict[str, list[Sample]]:
    """By problem, every sample that was asked for."""
    problems: dict[str, list[Sample]] = {}
    asked = json.loads((path / "run.json").read_text())["asked"]
    for key in sorted(asked, key=lambda key: [int("".join(filter(str.isdigit, part)) or 0) for part in key.split("_")]):
        end = path / "episodes" / f"{key}.json"
        ended = json.loads(end.read_text()) if end.exists() else {"num_turns": 0, "stop_reason": None, "problem": {"name": ""}}
        files = [path / "turns" / f"{key}_turn{index}.json" for index in range(ended["num_turns"])]
        turns = [json.loads(file.read_text())["record"] for file in files]
        sample = {"key": key, "turns": turns, "end": ended["stop_reason"], "name": ended["problem"]["name"]}
        problems.setdefault(key.split("_sample")[0], []).append(sample)
    return problems


# ------------------------------------------------------------------ one turn, one sample


def correct(turn: Any) -> bool:
    return bool(turn["verdict"]["status"] == "correct")


def compiled(turn: Any) -> bool:
    verdict = turn["verdict"]
    return verdict["stage"] in ("init", "trials", "timing", "done") and verdict["status"] != "needs_device"


def reward(turn: Any) -> float | None:
    value: float | None = turn["reward"]["value"]
    return value


def speedup(turn: Any) -> float:
    """0 where there is none."""
    timing = turn["verdict"]["timing"]
    return float(timing["speedup"]) if timing else 0.0


def completed(sample: Sample) -> bool:
    cut = sample["end"] in (None, "cancelled", "infra_error", "policy_failure")
    return not cut and bool(sample["turns"]) and all(reward(turn) is not None for turn in sample["turns"])


def total(sample: Sample, gamma: float) -> float:
    return sum(gamma**index * turn["reward"]["value"] for index, turn in enumerate(sample["turns"]))


def rewards(sample: Sample, turns: int) -> list[float]:
    return [value for turn in sample["turns"][:turns] if (value := reward(turn)) is not None]


# ------------------------------------------------------------------ estimates


def interval(above: Sequence[float], below: Sequence[float]) -> tuple[float, float] | None:
    """2.5% and 97.5% of the ratios of sums, each problem drawn so many times; None where they do not differ."""
    count = len(above)
    if sum(a != 0 or b != 0 for a, b in zip(above, below, strict=True)) < 2:
        return None
    ratios = []
    for draw in np.random.default_rng(0).multinomial(count, [1 / count] * count, size=2000):
        a, b = (sum(int(n) * value for n, value in zip(draw, side, strict=True)) for side in (above, below))
        if b or a:
            ratios.append(a / b if b else math.inf)
    ratios.sort()
    if math.isclose(ratios[0], ratios[-1], rel_tol=1e-9):
        return None
    return ratios[math.ceil(len(ratios) * 25 / 1000) - 1], ratios[math.ceil(len(ratios) * 975 / 1000) - 1]


def shown(
    above: Sequence[float], below: Sequence[float], form: str, unit: str = "", change: Callable[[float], float] = float
) -> str:
    if not sum(below):
        return "–"
    value, ends = sum(above) / sum(below), interval(above, below)
    text = f"{change(value):{form}}{unit}"
    if ends is None:
        return text
    low, high = (min(ends[0], value), max(ends[1], value))
    return f"{text} [{change(low):{form}}, {'...' if math.isinf(high) else format(change(high), form)}]"


def chance(n: int, successes: int, k: int) -> float:
    """Of all ways to take k of n samples, those that hold a success."""
    ways = list(combinations(range(n), k))
    return sum(any(index < successes for index in way) for way in ways) / len(ways)


def percent(problems: Sequence[list[Sample]], holds: Callable[[Sample], bool], k: int = 1) -> str:
    values = [chance(len(samples), sum(map(holds, samples)), k) for samples in problems]
    return shown(values, [1] * len(values), ".1f", "%", lambda value: value * 100)


def rate(count: int, of: int) -> str:
    return f"{count} of {of} ({100 * count / of:.1f}%)" if of else "0 of 0"


# ------------------------------------------------------------------ sections


def success(samples: Sequence[Sample], run: Any) -> list[Row]:
    def later(sample: Sample) -> bool:
        return any(map(correct, sample["turns"])) and not correct(sample["turns"][0])

    def worth(sample: Sample) -> bool:
        return completed(sample) and any(map(correct, sample["turns"])) and total(sample, run["gamma"]) > run["correct_reward"]

    names: dict[str, Callable[[Sample], bool]] = {
        "Compiled in some turn": lambda sample: any(map(compiled, sample["turns"])),
        "Correct in some turn": lambda sample: any(map(correct, sample["turns"])),
        "Multi-turn success": worth,
        "Wrong at first, correct later": later,
        "Solved, stopped early": lambda sample: sample["end"] == "solved",
    }
    whole = list(filter(completed, samples))
    return [
        [name, rate(sum(map(holds, samples)), len(samples)), rate(sum(map(holds, whole)), len(whole))]
        for name, holds in names.items()
    ]


def fast(p: float, turns: int | None = None) -> Callable[[Sample], bool]:
    return lambda sample: any(speedup(turn) > p for turn in sample["turns"][:turns])


def right(turns: int | None = None) -> Callable[[Sample], bool]:
    return lambda sample: any(map(correct, sample["turns"][:turns]))


def speed(problems: Sequence[list[Sample]]) -> list[Row]:
    whole = [kept for samples in problems if (kept := list(filter(completed, samples)))]
    rows = [[f"{p:g}", percent(problems, fast(p)), percent(whole, fast(p))] for p in PS]
    least = min(map(len, problems))
    ks = [k for k in range(1, least + 1) if k == least or k.bit_count() == 1]
    return rows + [[str(k), percent(problems, right(), k), percent(problems, fast(1.0), k)] for k in ks]


def mean_speedup(problems: Sequence[list[Sample]]) -> str:
    best = [[max(map(speedup, s["turns"]), default=0.0) for s in samples] for samples in problems]
    logs = [[math.log(value) for value in values if value] for values in best]
    return shown(list(map(sum, logs)), list(map(len, logs)), ".2f", "x", math.exp)


def light(problems: Sequence[list[Sample]]) -> str:
    shares = []
    for samples in problems:
        best = [max(s["turns"], key=speedup) for s in samples if any(map(speedup, s["turns"]))]
        times = [turn["verdict"]["timing"] for turn in best]
        shares.append([t["light_ms"] / t["runtime"]["median_ms"] for t in times if t.get("light_ms") is not None])
    return shown(list(map(sum, shares)), list(map(len, shares)), ".1f", "%", lambda value: 100 * value)


def took(problems: Sequence[list[Sample]], prices: tuple[float, float] | None) -> list[Row]:
    turns = [[turn for sample in samples for turn in sample["turns"]] for samples in problems]
    solved = [any(any(map(correct, sample["turns"])) for sample in samples) for samples in problems]
    prompts, replies = (
        [sum(t["generation"]["usage"][f"{kind}_tokens"] for t in each) for each in turns] for kind in ("prompt", "completion")
    )
    tokens = [a + b for a, b in zip(prompts, replies, strict=True)]
    waited = [sum(t["generation"]["duration_s"] for t in each) for each in turns]
    judged = [sum(t["verdict"]["duration_ms"] for t in each) / 1000 for each in turns]
    counted = [f"{sum(tokens):,} (prompts {sum(prompts):,}, replies {sum(replies):,})", shown(tokens, solved, ",.0f")]
    cost = ["–", "–"]
    if prices:
        costs = [(a * prices[0] + b * prices[1]) / 1e6 for a, b in zip(prompts, replies, strict=True)]
        cost = [f"{sum(costs):.4g}", shown(costs, solved, ".4g")]
    return [
        ["Tokens", *(counted if sum(tokens) else ["–", "–"])],
        ["Seconds of replies", f"{sum(waited):.1f}", shown(waited, solved, ".1f")],
        ["Seconds of verification", f"{sum(judged):.1f}", shown(judged, solved, ".1f")],
        ["Cost", *cost],
    ]


def by_position(samples: Sequence[Sample], problems: Sequence[list[Sample]]) -> list[Row]:
    longest, rows = max((len(sample["turns"]) for sample in samples), default=0), []
    for index in range(longest):
        column = [reward(sample["turns"][index]) for sample in samples if len(sample["turns"]) > index]
        known = [value for value in column if value is not None]
        mean = f"{sum(known) / len(known):.3f}" if known else "–"
        rows.append([f"Turn {index + 1}", mean, str(len(known)), str(len(column) - len(known))])
    for index in range(1, longest):
        changes = []
        for group in problems:
            pairs = [[reward(t) for t in sample["turns"][index - 1 : index + 1]] for sample in group]
            changes.append([after - before for before, after in (p for p in pairs if len(p) == 2 and None not in p)])  # type: ignore[operator]
        flat = [change for each in changes for change in each]
        signs = [sum(change > 0 for change in flat), sum(change == 0 for change in flat), sum(change < 0 for change in flat)]
        change = shown(list(map(sum, changes)), list(map(len, changes)), "+.3f")
        rows.append([f"Turn {index} → {index + 1}", *(rate(count, len(flat)) for count in signs), change])
    return rows


def so_far(samples: Sequence[Sample], problems: Sequence[list[Sample]]) -> list[Row]:
    rows = []
    for turns in range(1, max((len(sample["turns"]) for sample in samples), default=0) + 1):
        best = [[max(known) for sample in group if (known := rewards(sample, turns))] for group in problems]
        mean, scored = shown(list(map(sum, best)), list(map(len, best)), ".3f"), sum(map(len, best))
        shares = percent(problems, right(turns)), percent(problems, fast(1.0, turns))
        rows.append([f"Turn {turns}", mean, f"{scored} of {len(samples)}", *shares])
    return rows


def performers(samples: Sequence[Sample], gamma: float) -> list[Row]:
    ranked = sorted(filter(completed, samples), key=lambda sample: -total(sample, gamma))[:10]
    rows = []
    for sample in ranked:
        values = rewards(sample, len(sample["turns"]))
        best = str(values.index(max(values)) + 1)
        rows.append([sample["key"], sample["name"], f"{total(sample, gamma):.3f}", str(len(values)), best])
    return rows


def errors(samples: Sequence[Sample]) -> list[Row]:
    """Of each kind its share of all turns, and the finer words."""
    verdicts = [turn["verdict"] for sample in samples for turn in sample["turns"]]
    kinds: dict[str, list[str]] = {"Memory faults": [], "Timeouts": [], "Other errors": []}
    for verdict in verdicts:
        status, word = verdict["status"], verdict["category"]
        if status == "out_of_memory" or (status == "crashed" and word in ("SIGSEGV", "SIGBUS")):
            kinds["Memory faults"].append(word)
        elif status == "timeout":
            kinds["Timeouts"].append("")
        elif status not in ("correct", "needs_device"):
            kinds["Other errors"].append("")
            kinds.setdefault(f"- {status}", []).append(word)
    others = sorted((kind for kind in kinds if kind.startswith("-")), key=lambda kind: (-len(kinds[kind]), kind))
    rows = []
    for kind in ("Memory faults", "Timeouts", "Other errors", *others):
        words = sorted(Counter(filter(None, kinds[kind])).items(), key=lambda item: (-item[1], item[0]))
        rows.append([kind, rate(len(kinds[kind]), len(verdicts)), ", ".join(f"{count} {word}" for word, count in words)])
    return rows


def everything(samples: Sequence[Sample], gamma: float) -> list[Row]:
    """Of each sample that ended: turns, rewards, return and the fastest kernel."""
    rows = []
    for sample in (sample for sample in samples if sample["end"] is not None):
        values = [reward(turn) for turn in sample["turns"]]
        worth = f"{total(sample, gamma):.3f}" if completed(sample) else "–"
        best = max(sample["turns"], key=speedup, default=None)
        fastest = "–"
        if best is not None and speedup(best):
            timing = best["verdict"]["timing"]
            fastest = f"{timing['speedup']:.2f}x [{timing['speedup_low']:.2f}, {timing['speedup_high']:.2f}]"
        told = " → ".join("unscored" if value is None else f"{value:.2f}" for value in values) or "–"
        rows.append([sample["key"], sample["name"], str(len(values)), told, worth, fastest])
    return rows


def outcomes(samples: Sequence[Sample]) -> list[int]:
    """Asked for, completed, unscored, cancelled, failed by infrastructure, by the policy, not run."""
    ends = Counter(sample["end"] for sample in samples)
    whole = sum(map(completed, samples))
    cut = [ends["cancelled"], ends["infra_error"], ends["policy_failure"]]
    idle = ends[None] + sum(not sample["turns"] and sample["end"] in ("exhausted", "turn_limit") for sample in samples)
    return [len(samples), whole, len(samples) - whole - sum(cut) - idle, *cut, idle]


def recount(path: Path, prices: tuple[float, float] | None = None) -> dict[str, list[Row]]:
    run = json.loads((path / "run.json").read_text())
    problems = list(load(path).values())
    samples = [sample for group in problems for sample in group]
    return {
        "Overall success": success(samples, run),
        "fast_p and pass@k": speed(problems),
        "What it took": took(problems, prices),
        "Turn analysis": by_position(samples, problems),
        "Best so far": so_far(samples, problems),
        "Best performers": performers(samples, run["gamma"]),
        "Error analysis": errors(samples),
        "All problems": everything(samples, run["gamma"]),
        "outcomes": [list(map(str, outcomes(samples)))],
        "speedup": [[mean_speedup(problems)]],
        "light": [[light(problems)]],
    }


if __name__ == "__main__":
    print(json.dumps(recount(Path(sys.argv[1])), indent=1, ensure_ascii=False))

"""Baselines that were measured elsewhere: KernelBench's files of times, `{"level1": {"1_Name.py": {mean, std, min, max, num_trials,
hardware, device}}}`, milliseconds.

A time of another machine says nothing about a kernel that ran here, so a file is used on the hardware that it names, unless told
otherwise; and never for a problem whose sizes were changed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kernel_env.errors import ConfigError
from kernel_env.referee.config import EAGER, VerifyConfig
from kernel_env.roofline import hardware
from kernel_env.schema import Problem, Stats, Timing, Verdict


@dataclass(frozen=True)
class Baseline:
    """One problem's."""

    stats: Stats
    """Its median is the file's mean."""
    hardware: str


def check_baselines(config: VerifyConfig, problems: Iterable[Problem]) -> None:
    """Raises ConfigError unless there is a baseline for each of these problems that may be used here."""
    if config.baseline != EAGER:
        for problem in problems:
            baseline_of(config, problem)


def baseline_of(config: VerifyConfig, problem: Problem) -> Baseline:
    """From the file that `config.baseline` names. Raises ConfigError."""
    path = Path(config.baseline)
    found = _read(path, path.stat().st_mtime_ns if path.exists() else 0).get((problem.level, problem.problem_id))
    if found is None:
        raise ConfigError(f"{path}: has no time for level{problem.level}/{problem.problem_id}_{problem.name}.py (verify.baseline)")
    if problem.overrides or problem.precision:
        changed = f"precision {problem.precision}" if problem.precision else f"profile {problem.profile}, which changed its sizes"
        raise ConfigError(
            f"verify.baseline={path}: {problem.key} is posed in {changed}; its time in a file does not hold for that: set "
            "problems.profile=full, or verify.baseline=eager"
        )
    if found.hardware not in ("", hardware()) and not config.baseline_of_other_hardware:
        raise ConfigError(
            f"verify.baseline={path} was measured on {found.hardware}, and this is {hardware()}; "
            "verify.baseline_of_other_hardware=true uses it all the same"
        )
    return found


def against_baseline(verdict: Verdict, problem: Problem, config: VerifyConfig) -> Verdict:
    """The same verdict, with the baseline that was asked for. Raises ConfigError."""
    if config.baseline == EAGER or verdict.timing is None:
        return verdict
    return replace(verdict, timing=_against(verdict.timing, baseline_of(config, problem)))


def _against(timing: Timing, baseline: Baseline) -> Timing:
    """How well the candidate's time is known is what the session found."""
    speedup = baseline.stats.median_ms / timing.runtime.median_ms
    low, high = (speedup * bound / timing.speedup for bound in (timing.speedup_low, timing.speedup_high))
    kind = f"from a file, {baseline.hardware or 'unknown hardware'}"
    return replace(timing, baseline=baseline.stats, speedup=speedup, speedup_low=low, speedup_high=high, baseline_kind=kind)


@functools.lru_cache(maxsize=8)
def _read(path: Path, _changed: int) -> Mapping[tuple[int, int], Baseline]:
    """By level and id. Raises ConfigError."""
    try:
        levels = json.loads(path.read_text())
        return {
            (int(level.removeprefix("level")), int(name.partition("_")[0])): _baseline(row)
            for level, rows in levels.items()
            for name, row in rows.items()
            if row["mean"] > 0  # 0: there is none
        }
    except OSError as error:
        raise ConfigError(f"verify.baseline={path}: neither `{EAGER}` nor a file that can be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f'verify.baseline={path}: not a file of times like {{"level1": {{"1_Name.py": {{...}}}}}}: {what}'
        ) from None


def _baseline(row: Mapping[str, Any]) -> Baseline:
    mean = float(row["mean"])
    least, most = min(float(row["min"]), mean), max(float(row["max"]), mean)
    return Baseline(Stats(mean, mean, float(row["std"]), least, most, int(row["num_trials"])), str(row.get("hardware", "")))

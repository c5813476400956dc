"""The wire of KernelBench's kind of evaluation server, as TritonForge's slime plug-in speaks it: `POST /eval`.

Its requests name sources alone, so problems have no number here. Its `seed` is not used: with the same one each time, a policy
could learn the inputs. Times are milliseconds, whatever comments there say. That client asks three times for each candidate, even
where it was answered; so the same question within a minute has the same answer, and the candidate runs once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from kernel_env.referee.config import VerifyConfig
from kernel_env.referee.slots import Order
from kernel_env.remote.wire import Job
from kernel_env.schema import Candidate, Problem, Stats, Status, Verdict

_INCORRECT = frozenset({Status.WRONG_OUTPUT, Status.MUTATED_INPUTS, Status.TAMPERED})


class EvalRequest(BaseModel):
    """What else clients send (`seed`, `seed_num`, `verbose`, `preferred_device`) changes nothing."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    original_model_src: str
    custom_model_src: str
    num_correct_trials: int = Field(5, ge=1, le=1000)
    num_perf_trials: int = Field(100, ge=1, le=100_000)
    measure_performance: bool = True
    backend: str = "cuda"

    def job(self, config: VerifyConfig, client: str) -> Job:
        """`config` decides what a request does not. The same request is the same job."""
        asked = replace(
            config,
            num_correct_trials=self.num_correct_trials,
            num_perf_trials=self.num_perf_trials,
            measure_performance=self.measure_performance,
        )
        problem = Problem(0, 0, "eval", self.original_model_src, origin="eval")
        same = hashlib.sha256(self.model_dump_json().encode()).hexdigest()
        return Job(problem, Candidate(self.custom_model_src, self.backend), asked, order=Order(client=client), id=same)


@dataclass(frozen=True)
class EvalAnswer:
    compiled: bool
    correctness: bool
    metadata: Mapping[str, Any]
    runtime: float
    """The mean; -1 where it was not measured."""
    runtime_stats: Mapping[str, Any]


def eval_answer(verdict: Verdict) -> EvalAnswer:
    """What was found. `metadata` also has what that wire has no field for."""
    timing = verdict.timing
    hardware = timing.hardware if timing else ""
    metadata: dict[str, Any] = {
        "hardware": hardware,
        "device": "cpu",
        "correctness_trials": f"({verdict.trials_passed} / {verdict.trials})",
        "status": verdict.status.value,
        "stage": verdict.stage.value,
        "seed": verdict.seed,
    }
    if not verdict.correct:
        what = _error_field(verdict)
        metadata |= {what: verdict.message, f"{what}_name": verdict.category or verdict.status.value}
    if timing:
        metadata |= {"speedup": timing.speedup, "baseline_ms": timing.baseline.mean_ms}
    return EvalAnswer(
        compiled=verdict.compiled,
        correctness=verdict.correct,
        metadata=metadata,
        runtime=timing.runtime.mean_ms if timing else -1.0,
        runtime_stats=runtime_stats(timing.runtime, hardware) if timing else {},
    )


def _error_field(verdict: Verdict) -> str:
    if verdict.status in _INCORRECT:
        return "correctness_issue"
    return "runtime_error" if verdict.compiled else "compilation_error"


def runtime_stats(stats: Stats, hardware: str) -> dict[str, Any]:
    """As KernelBench writes them, in milliseconds."""
    return {
        "mean": stats.mean_ms,
        "std": stats.std_ms,
        "min": stats.min_ms,
        "max": stats.max_ms,
        "num_trials": stats.count,
        "hardware": hardware,
        "device": "cpu",
    }

"""Everything that decides how a candidate is judged, apart from the problem and the candidate themselves."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from kernel_env.backends.targets import target
from kernel_env.checks.provenance import TORCH_OPS
from kernel_env.errors import ConfigError
from kernel_env.referee.tolerance import tolerance

EAGER = "eager"


@dataclass(frozen=True)
class VerifyConfig:
    """Settings of one verification. They travel to the referee and are part of a run's identity."""

    num_correct_trials: int = 5
    """Correctness trials, each with fresh inputs; the weights change half-way."""
    num_perf_trials: int = 100
    """Timing rounds (a block of calls of either side); fewer when `timing_budget_s` is spent."""
    timing_budget_s: float = 1.0
    """Seconds in timed calls, of both sides, after which no further round starts (at least 5 rounds are made)."""
    timing_precision: float = 0.03
    """Half-width of the speedup's 95% interval, as a share of the speedup, that is precise enough (twice that for calls
    below 50 us, three times where they count as they are when sent singly, and so much more for each doubling of the speedup
    beyond 2). Until it is, up to 4 times as many rounds and seconds are spent; once it is, half of them are enough."""
    timeout_s: float = 60.0
    """Limit for the candidate's import, construction and trials, builds not counted, or 5 times what the reference needs for the
    same calls if that is more."""
    reference_timeout_s: float = 600.0
    """Limit for each call of the problem's own code; beyond it the problem is broken, not the candidate."""
    tolerance: str = "strict"
    """How near outputs must be: `kernelbench` (1e-4 in fp32), `kernelbench-v0` or `tritonforge` (1e-2), or `strict`: as
    `kernelbench`, but never wider than 0.1% of what the output varies with the inputs nor tighter than 50 times the reference's own
    error, and with an extra trial on inputs of another amplitude."""
    torch_ops: str = "all"
    """What may be left to torch's operators: `all` (but own kernels have to do a part of the work), `glue` (memory, views, copies,
    fills and random draws; nothing that computes) or `none` (memory and views); `unchecked`: it is not looked at."""
    noise_limit: float = 0.25
    """Times count only if at most this share of the time the baseline's threads waited for a core, or other work had the cores;
    else they are taken again."""
    baseline: str = EAGER
    """What a speedup is against: `eager`, the reference as it is, timed beside the candidate; or a file of times in KernelBench's
    format, such as `kernel-env export` writes."""
    baseline_of_other_hardware: bool = False
    """Use such a file although it names other hardware than this."""
    aot: tuple[str, ...] = ()
    """Triton kernels must also compile for these GPUs, which need not be here: some of `[cuda:80, cuda:90, cuda:100, hip:gfx942,
    hip:gfx950]`, or others of their kind. What they use of registers and shared memory is in the feedback."""
    measure_performance: bool = True
    """False: correctness only."""
    memory_limit_mb: int = 8192
    """Private memory of a runner, in MiB; 0 is no limit."""

    def __post_init__(self) -> None:
        if self.torch_ops not in TORCH_OPS:
            raise ConfigError(f"verify.torch_ops={self.torch_ops}: choose {', '.join(TORCH_OPS[:-1])} or {TORCH_OPS[-1]}")
        for name in ("noise_limit", "timing_precision"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"verify.{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("num_correct_trials", "num_perf_trials"):
            if getattr(self, name) < 1:
                raise ConfigError(f"verify.{name} must be 1 or more, got {getattr(self, name)}")
        for name in ("timeout_s", "reference_timeout_s", "timing_budget_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"verify.{name} must be above 0, got {getattr(self, name)}")
        if self.memory_limit_mb < 0:
            raise ConfigError(f"verify.memory_limit_mb must be 0 or more, got {self.memory_limit_mb}")
        tolerance(self.tolerance)
        for name in self.aot:
            target(name)
        if len(set(self.aot)) < len(self.aot):
            raise ConfigError(f"verify.aot={','.join(self.aot)} names a target twice")


def derive_seed(seed: int, *path: object) -> int:
    """A 63-bit seed for one purpose, by SHA-256 over the master seed and the purpose's name."""
    text = "/".join([str(seed), *map(str, path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1

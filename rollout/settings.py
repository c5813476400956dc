"""The whole configuration as types. Each option is documented once, here under its field (or in the class it comes from).

`register()` puts the same classes into Hydra's ConfigStore, so that a wrong option name or type is refused before anything runs.
`docs/configuration.md` is generated from them.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kernel_env.errors import ConfigError
from kernel_env.prompts import FeedbackConfig
from kernel_env.referee.config import VerifyConfig
from kernel_env.reward import PRESETS, RewardConfig
from kernel_env.schema import from_json
from kernel_env.verifier import VerifierConfig
from rollout.policies.base import Endpoint, Sampling
from rollout.returns import RETURNS

IGNORED_ON_RESUME = (
    "run.root", "display", "rollout.concurrency",
    "verifier.slots", "verifier.build_slots", "verifier.build_cores", "verifier.cache_dir", "verifier.cache_limit_mb",
    "verifier.reuse_mb",
    "policy.base_url", "policy.attempts", "policy.connect_s", "policy.request_s", "policy.retry_for_s", "policy.wait_s",
    "policy.wait_max_s", "policy.requests_per_minute", "policy.tokens_per_minute", "policy.price_per_million_prompt",
    "policy.price_per_million_completion",
)  # fmt: skip
"""Settings that cannot change a result, so that a run may be resumed with other values of them."""
SECRETS = ("policy.api_key",)
"""Never written to disk."""


@dataclass(frozen=True)
class RunSettings:
    name: str | None = None
    """Directory of the run below `root`. The same name resumes. Default: made from the chosen groups."""
    root: str = "runs"
    """Where run directories are."""
    seed: int | None = None
    """Master seed. Default: drawn from the operating system when the run is created, and kept in its `run.json`."""


@dataclass(frozen=True)
class ProblemSettings:
    source: str = "bundled"
    """`bundled`, `kernelbench` (a checkout), `jsonl` or `huggingface`."""
    path: str | None = None
    """The checkout or file to read; of `huggingface` a local copy, or a name on the hub such as
    `ScalingIntelligence/KernelBench@REVISION` (default: KernelBench's own)."""
    profile: str = "auto"
    """Size profile: `full`, `gpu24`, `cpu`, `interpret`, or `auto`: `interpret` for Triton in the interpreter, else `cpu`."""
    precision: str | None = None
    """Bring floating-point inputs, parameters and buffers to `fp32`, `fp16` or `bf16`. Default: as the problem makes them."""
    levels: Any = None
    """One level or a list: `problems.levels=[1,2]`."""
    ids: Any = None
    """Problem ids within each level: a number, a list, or text such as `"1,3,10-20"`."""
    names: str | None = None
    """Glob over problem names, e.g. `*Matmul*`; several separated by commas."""
    start_from: int | None = None
    """First problem id of each level."""
    limit: int | None = None
    """At most so many problems of each level."""
    skip_degenerate: bool = False
    """Leave out problems whose output is known to hardly vary with the inputs (docs/degenerate.md)."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Constants of single problems: `{level1_problem1: {N: 64}}`."""
    skip_bad_lines: bool = False
    """`jsonl`: leave malformed lines out instead of stopping."""
    recordings: str = "bundled"
    """Name of the recorded set that `policy=replay` uses for this source."""


@dataclass(frozen=True)
class BackendSettings:
    name: str = "cpp"
    """`cpp`, `triton` or `cuda`."""
    dataset_prompt: bool | None = None
    """Use the data set's own prompt. Default: where it has one that fits the back end."""


@dataclass(frozen=True)
class VerifierSettings(VerifierConfig):
    kind: str = "process"
    """`process`: isolated processes. `inprocess`: in this very process, for debugging; every verdict says so."""


@dataclass(frozen=True)
class PolicySettings(Endpoint):
    scheme: str = "replay"
    """`replay`; `openai`, any endpoint with its protocol; `sglang`, SGLang's own protocol; `vllm`; `transformers`, a model in this
    process; or `auto`: `sglang`, `vllm` or `openai`, whichever the endpoint's list of models names as their owner."""
    model: str | None = None
    """The model's name at the endpoint."""
    path: str | None = None
    """`replay`: a directory of recorded replies (such as a run's `responses/`) or the name of a built-in set."""

    @property
    def spec(self) -> str:
        """`SCHEME/MODEL` or `replay/PATH`. Raises ConfigError without a model."""
        if self.scheme != "replay" and not self.model:
            raise ConfigError("policy.model is missing: set it to the model's name at the endpoint")
        return f"{self.scheme}/{(self.path if self.scheme == 'replay' else self.model) or ''}"


@dataclass(frozen=True)
class RolloutSettings:
    max_turns: int = 3
    """Most replies in one episode."""
    gamma: float = 0.4
    """Discount of the return: R = r1 + gamma r2 + gamma^2 r3."""
    returns: str = "trajectory"
    """`trajectory` (one return an episode) or `per_turn`."""
    history: str = "accumulate"
    """`accumulate` (messages grow turn by turn, as in RL training), `strip-thinking` (likewise, without what earlier replies
    thought), `last-turn-only` (the first messages, the last reply and its feedback) or `restated` (one message retells all
    attempts)."""
    samples: int = 1
    """Episodes per problem."""
    concurrency: int = 8
    """Episodes in flight."""

    def __post_init__(self) -> None:
        if self.returns not in RETURNS:
            raise ConfigError(f"rollout.returns={self.returns}: choose one of {', '.join(RETURNS)}")
        for name in ("max_turns", "samples", "concurrency"):
            if getattr(self, name) < 1:
                raise ConfigError(f"rollout.{name} must be 1 or more, got {getattr(self, name)}")
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"rollout.gamma must be between 0 and 1, got {self.gamma}")


@dataclass(frozen=True)
class DisplaySettings:
    progress: bool | None = None
    """Progress bar. Default: on a terminal."""
    quiet: bool = False
    """Only the closing table."""


@dataclass(frozen=True)
class Settings:
    """Everything that `kernel-env eval` takes."""

    run: RunSettings = field(default_factory=RunSettings)
    problems: ProblemSettings = field(default_factory=ProblemSettings)
    backend: BackendSettings = field(default_factory=BackendSettings)
    verifier: VerifierSettings = field(default_factory=VerifierSettings)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    policy: PolicySettings = field(default_factory=PolicySettings)
    sampling: Sampling = field(default_factory=Sampling)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    display: DisplaySettings = field(default_factory=DisplaySettings)


def settings(tree: Any) -> Settings:
    """Typed settings from a composed configuration. Raises ConfigError with the path of the first fault."""
    try:
        return from_json(Settings, tree)
    except ValueError as error:
        raise ConfigError(f"bad configuration: {str(error).removeprefix('Settings.')}") from error


def register() -> None:
    """Make the classes known to Hydra as the base of `config.yaml`."""
    from hydra.core.config_store import ConfigStore

    store = ConfigStore.instance()
    store.store(name="schema", node=mutable(Settings))
    for name, preset in PRESETS.items():
        store.store(group="reward", name=name, node=dataclasses.asdict(preset))


def mutable(cls: type) -> type:
    """The same fields as a plain dataclass: OmegaConf makes nodes of frozen ones read-only."""
    hints = typing.get_type_hints(cls)
    fields: list[Any] = []
    for item in dataclasses.fields(cls):
        kind, default = _plain(hints[item.name]), item.default
        if dataclasses.is_dataclass(kind):
            group = mutable(typing.cast(type, kind))
            fields.append((item.name, group, field(default_factory=group)))
        elif default is dataclasses.MISSING:
            fields.append((item.name, kind, field(default_factory=_open_mapping)))
        else:
            fields.append((item.name, kind, field(default=default)))
    return dataclasses.make_dataclass(cls.__name__, fields)


def _open_mapping() -> Any:
    """A mapping that takes any name, although the configuration around it takes none but its own."""
    from omegaconf import OmegaConf

    return OmegaConf.create({}, flags={"struct": False})


def _plain(kind: Any) -> Any:
    """What OmegaConf can check of a type; mappings and anything else become Any."""
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return str
    return Any if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping) else kind

"""The whole configuration as types. Each option is documented once, here under its field (or in the class it comes from).

`register()` puts the same classes into Hydra's ConfigStore, so that a wrong option name or type is refused before anything runs.
`docs/configuration.md` is generated from them.
"""

from __future__ import annotations

import dataclasses
import functools
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
from rollout.returns import GROUP_RETURNS, RETURNS
from rollout.shaping import SourcesSettings
from rollout.stragglers import MinimumGroup, Retry, Stragglers, Wait
from rollout.thinking import ThinkingConfig
from rollout.tokens import Layout

IGNORED_ON_RESUME = (
    "run.root", "run.canaries", "run.allow_zero", "display", "rollout.concurrency", "rollout.requests",
    "verifier.slots", "verifier.build_slots", "verifier.build_cores", "verifier.cache_dir", "verifier.cache_limit_mb",
    "verifier.reuse_mb", "verifier.remote",
    "policy.base_url", "policy.attempts", "policy.connect_s", "policy.request_s", "policy.retry_for_s", "policy.wait_s",
    "policy.wait_max_s", "policy.requests_per_minute", "policy.tokens_per_minute", "policy.price_per_million_prompt",
    "policy.price_per_million_completion",
    "policy.serve", "policy.serve_compile", "policy.serve_args", "policy.serve_env", "policy.serve_start_s",
    "sweep", "slurm", "arena", "models", "exclude", "dry_run", "validate",
)  # fmt: skip
"""Settings that cannot change a result, so that a run may be resumed with other values of them."""
SECRETS = ("policy.api_key", "sources.judge.api_key", "verifier.api_key")
"""Never written to disk."""


@dataclass(frozen=True)
class RunSettings:
    name: str | None = None
    """Directory of the run below `root`, or of a multirun, which has its runs in it. The same name resumes. Default: made from the
    chosen groups, and `sweep` for a multirun."""
    root: str = "runs"
    """Where run directories are."""
    seed: int | None = None
    """Master seed. Default: drawn from the operating system when the run is created, and kept in its `run.json`."""
    canaries: bool | None = None
    """Before the first reply, verify a kernel that is right and one that is wrong. Default: for policies that cost something."""
    allow_zero: bool = False
    """Not one correct kernel is a result like any other. Else the run ends as suspect, with exit code 11."""


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
    category: str | None = None
    """`level1`, `level2`, `level3`, `fusion`, `matmul`, `convolution`, `reduction_norm` or `attention_block`, by level and name.
    They overlap."""
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
    remote: tuple[str, ...] = ()
    """Verify on these servers (`kernel-env serve`) instead of here: `[http://a:18188,http://b:18188]`. Slots, caches, the sandbox
    and the clock are theirs then."""
    api_key: str | None = None
    """The servers' key. Default: the environment's KERNEL_ENV_API_KEY, or none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.remote and (self.kind != "process" or self.clock != "live"):
            raise ConfigError("verifier.remote has verifiers of its own: leave verifier.kind and verifier.clock to the servers")


@dataclass(frozen=True)
class PolicySettings(Endpoint):
    scheme: str = "replay"
    """`replay`; `openai`, any endpoint with its protocol; `sglang`, SGLang's own protocol; `vllm`; `transformers`, a model in this
    process; `auto`: `sglang`, `vllm` or `openai`, whichever the endpoint's list of models names as their owner; or `human`, you."""
    model: str | None = None
    """The model's name at the endpoint. `transformers`, and with `serve`: a directory, or a name on the hub."""
    path: str | None = None
    """`replay`: a directory of recorded replies (such as a run's `responses/`) or the name of a built-in set."""
    serve: str | None = None
    """Start this server for the run, and end it afterwards: `sglang`, `vllm` or `transformers`. It serves `model`, and takes the
    place of `base_url`."""
    serve_compile: bool = True
    """False: the server compiles nothing and captures no graphs, to start sooner or where that fails."""
    serve_args: tuple[str, ...] = ()
    """Further arguments of its command, such as `[--max-model-len,32768]`."""
    serve_env: Mapping[str, Any] = field(default_factory=dict)
    """Environment variables that it gets besides those of this process. They are kept with the run: no place for secrets."""
    serve_start_s: float = 1800.0
    """Seconds until it must be healthy, downloading the model included."""

    @property
    def spec(self) -> str:
        """`SCHEME/MODEL`, `replay/PATH` or `human/you`. Raises ConfigError without a model."""
        if self.scheme == "human":
            return "human/you"
        if self.scheme != "replay" and not self.model:
            raise ConfigError("policy.model is missing: set it to the model's name at the endpoint, or its directory")
        return f"{self.scheme}/{(self.path if self.scheme == 'replay' else self.model) or ''}"


@dataclass(frozen=True)
class RolloutSettings:
    max_turns: int = 3
    """Most replies in one episode."""
    gamma: float = 0.4
    """Discount of the return: R = r1 + gamma r2 + gamma^2 r3."""
    returns: str = "trajectory"
    """The credit of a turn: `trajectory` (the whole episode's return), `per_turn` (what it led to), `best` (the best that it led
    to) or, of a group of samples, `loo_per_turn_index` (`per_turn` less the mean of the other samples' same turn). It is
    in each entry of `results.json` as `credits`."""
    history: str = "accumulate"
    """`accumulate` (messages grow turn by turn, as in RL training), `strip-thinking` (likewise, without what earlier replies
    thought), `last-turn-only` (the first messages, the last reply and its feedback) or `restated` (one message retells all
    attempts)."""
    layout: str | None = None
    """Keep the tokens of episodes for training: `append` (an episode is one sample), `per-turn` (each turn is one) or `auto`
    (`append` where the chat template and the history allow it). Needs a policy that takes and gives tokens, and its tokenizer
    (`policy.tokenizer`). Default: the policy writes its prompts itself."""
    samples: int = 1
    """Episodes per problem: its group."""
    concurrency: int = 8
    """Episodes in flight. Many more than the policy answers at a time keep it busy while others are verified."""
    requests: int = 0
    """Requests to the policy in flight; 0 is one an episode in flight."""
    stragglers: str = "wait"
    """Of a group: `wait` for every sample, `retry` those that fail, or take the first `minimum_group` and cancel the others, which
    prefers short ones (`rollout/stragglers.py`)."""
    retries: int = 2
    """`retry`: times that an episode goes on after a failure, in the same run."""
    minimum_group: int = 0
    """`minimum_group`: scored samples that complete a group."""
    oversample: int = 0
    """Spare problems: the run is over once all but so many have a complete group, and the others are cancelled. Prefers quick
    ones."""

    def __post_init__(self) -> None:
        known = (*RETURNS, *GROUP_RETURNS)
        if self.returns not in known:
            raise ConfigError(f"rollout.returns={self.returns}: choose one of {', '.join(known)}")
        if self.returns in GROUP_RETURNS and self.samples < 2:
            raise ConfigError(f"rollout.returns={self.returns} compares the samples of a problem: set rollout.samples to 2 or more")
        if self.layout not in (None, "auto", *Layout):
            raise ConfigError(f"rollout.layout={self.layout}: choose auto, {' or '.join(Layout)}")
        least = {"max_turns": 1, "samples": 1, "concurrency": 1, "requests": 0, "retries": 0, "oversample": 0}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"rollout.{name} must be {minimum} or more, got {getattr(self, name)}")
        if not 0 <= self.gamma <= 1:
            raise ConfigError(f"rollout.gamma must be between 0 and 1, got {self.gamma}")
        _ = self.straggler_policy

    @property
    def straggler_policy(self) -> Stragglers:
        """Raises ConfigError."""
        match self.stragglers:
            case "wait":
                return Wait()
            case "retry":
                return Retry(self.retries)
            case "minimum_group":
                least, most = self.minimum_group, self.samples
                if not 1 <= least <= most:
                    raise ConfigError(f"rollout.minimum_group must be between 1 and rollout.samples={most}, got {least}")
                return MinimumGroup(least)
        raise ConfigError(f"rollout.stragglers={self.stragglers}: choose wait, retry or minimum_group")


@dataclass(frozen=True)
class DisplaySettings:
    progress: bool | None = None
    """Progress bar. Default: on a terminal."""
    quiet: bool = False
    """Only the closing table."""


@dataclass(frozen=True)
class SweepSettings:
    """Of a multirun, whose combinations are its cells."""

    launcher: str = "local"
    """Where cells run: `local`, on this machine, or `slurm`, each as a job."""
    jobs: int = 1
    """`local`: cells at a time. They share one verifier, so no two of them take times on the same cores."""

    def __post_init__(self) -> None:
        hints = {"joblib": "local with sweep.jobs=N", "submitit": "slurm", "sbatch": "slurm"}
        if self.launcher not in ("local", "slurm"):
            raise ConfigError(f"sweep.launcher={self.launcher}: choose {hints.get(self.launcher, 'local or slurm')}")
        if self.jobs < 1:
            raise ConfigError(f"sweep.jobs must be 1 or more, got {self.jobs}")


@dataclass(frozen=True)
class SlurmSettings:
    """What `sbatch` is told. What is not set is the cluster's to decide."""

    partition: str | None = None
    """Where jobs run."""
    time: str | None = None
    """Time limit of a job, such as `4:00:00`."""
    mem: str | None = None
    """Memory of a job, such as `64G`."""
    cpus_per_task: int | None = None
    """Cores of a job. Kernels are timed on them."""
    gres: str | None = None
    """Devices of a job, such as `gpu:1`."""
    options: tuple[str, ...] = ()
    """Further options of `sbatch`, such as `[--account=me,--qos=low]`."""
    setup: str = ""
    """Shell commands at the beginning of a job, such as `module load cuda`. A job ends where the last of them fails."""
    warning_s: int = 120
    """So long before its time limit a job ends in order and is queued again, to go on after the last finished turn. 0: it runs
    into the limit."""
    requeues: int = 10
    """Times that a job is queued again for that, those in which it was pre-empted included."""
    submit: bool = True
    """False: only write the jobs, and the script `submit.sh` that submits them all."""

    def __post_init__(self) -> None:
        for name in ("warning_s", "requeues"):
            if getattr(self, name) < 0:
                raise ConfigError(f"slurm.{name} must be 0 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class ArenaSettings:
    """Of `kernel-env arena`, which judges runs against one of them."""

    baseline: str | None = None
    """The run that all others are judged against: its name, or its directory. Its episodes are the ones that are judged."""
    models: str | None = None
    """A file of runs to judge, a name or a directory in each line. `#` begins a comment."""
    judge: str = "static"
    """Who compares: `static` (no model), `llm` (the model of `policy`), or the URL of a judge's server, asked as `sources.judge`
    says. The last one, like `static`, compares two scores."""
    name: str | None = None
    """Directory of the judgments, below `run.root`/arena. Default: made from the judge's name."""
    batch: int = 10
    """Models of one job."""
    concurrency: int = 16
    """Matches in flight, each of two games."""
    temperature: float | None = 0.0
    """`llm`: of the judge."""
    max_tokens: int = 4096
    """`llm`: for reasons and verdict. What needs more has no verdict."""

    def __post_init__(self) -> None:
        for name in ("batch", "concurrency"):
            if getattr(self, name) < 1:
                raise ConfigError(f"arena.{name} must be 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class Settings:
    """Everything that `kernel-env eval` takes."""

    run: RunSettings = field(default_factory=RunSettings)
    problems: ProblemSettings = field(default_factory=ProblemSettings)
    backend: BackendSettings = field(default_factory=BackendSettings)
    verifier: VerifierSettings = field(default_factory=VerifierSettings)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    sources: SourcesSettings = field(default_factory=SourcesSettings)
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    policy: PolicySettings = field(default_factory=PolicySettings)
    sampling: Sampling = field(default_factory=Sampling)
    thinking: ThinkingConfig = field(default_factory=ThinkingConfig)
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    display: DisplaySettings = field(default_factory=DisplaySettings)
    sweep: SweepSettings = field(default_factory=SweepSettings)
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    arena: ArenaSettings = field(default_factory=ArenaSettings)
    models: str | None = None
    """Of a multirun: a file of models to run each combination with. A line is a model's name, or its directory, and then options
    for it alone: `Qwen/Qwen3-8B policy.base_url=http://node1:8000/v1`. `#` begins a comment."""
    exclude: Any = None
    """Models of that file to leave out: a glob, or a list of them."""
    dry_run: bool = False
    """Say what would run, with calls, tokens and time as far as they can be estimated, and run nothing."""
    validate: bool = False
    """Check configuration, problems and endpoints, and run nothing."""


def settings(tree: Any) -> Settings:
    """Typed settings from a composed configuration. Raises ConfigError with the path of the first fault."""
    try:
        return from_json(Settings, tree)
    except ValueError as error:
        raise ConfigError(f"bad configuration: {str(error).removeprefix('Settings.')}") from error


@functools.cache
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

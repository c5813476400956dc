"""A run: its problems, policy, verifier and directory are put together here, and `engine` plays the episodes.

`run(settings)` is the whole job as a function; the command line only composes its settings and shows its events. Killed at any
moment and started again, it goes on after the last durable turn and ends with the same result.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from kernel_env.backends import get_backend
from kernel_env.baselines import check_baselines
from kernel_env.episode import EpisodeConfig
from kernel_env.errors import ConfigError, KernelEnvError
from kernel_env.problems import load_problems, select
from kernel_env.referee.clock import LiveClock, RecordedClock
from kernel_env.referee.config import EAGER
from kernel_env.remote.client import RemoteVerifier
from kernel_env.schema import Episode, Problem, StopReason, Turn, dumps, episode_key
from kernel_env.verifier import InprocessVerifier, Load, Loaded, LocalVerifier, Verifier, check_ahead
from rollout.canaries import CANARIES, canary
from rollout.documents import SWEEP_FILE, Results, RunInfo, summarize
from rollout.durable import DirectoryLock, remove_file, write_file
from rollout.engine import Engine, EngineConfig, Waits
from rollout.fingerprint import Change, changes, fingerprint
from rollout.health import fault, never_begun, status
from rollout.policies import Policy, Spent, make_policy
from rollout.report import write_report
from rollout.serving import served
from rollout.settings import IGNORED_ON_RESUME, PolicySettings, Settings, VerifierSettings
from rollout.shaping import shaping
from rollout.store import RunReader, RunStore, open_run
from rollout.thinking import check_thinking
from rollout.tokens import Layout, Renderer, choose_layout, load_template

FREE = ("replay", "human")
"""Policies whose replies cost nothing."""
STAGES_S = 0.5
"""How often it is told what trajectories wait for."""

OnStages = Callable[[Mapping[Waits, int], Load | None], None]
"""Told how many trajectories wait for what, and what the verifier has to do where it is one of this process."""


@dataclass(frozen=True)
class Event:
    """Something to show: an episode's turn, or its end (`turn` is None)."""

    episode: str
    problem: Problem
    turn: Turn | None = None
    stop_reason: StopReason | None = None
    error: str = ""
    resumed: bool = False
    """It was durable before this process started."""


@dataclass(frozen=True)
class RunResult:
    path: Path
    report: Path
    results: Results
    episodes: tuple[Episode, ...]
    fault: KernelEnvError | None
    """Why the numbers must not be read as a success."""
    spent: Spent = field(default_factory=Spent)
    """By the policy, in this process."""

    def check(self) -> None:
        """Raise when the numbers must not be read as a success: GateError, InfraError or PolicyError."""
        if self.fault is not None:
            raise self.fault


@dataclass(frozen=True)
class Plan:
    """What a run will do, found out before anything expensive happens."""

    settings: Settings
    name: str
    problems: tuple[Problem, ...]
    left_out: int
    """Selected problems for which the policy has nothing recorded."""
    policy: Policy
    engine: EngineConfig

    @property
    def asked(self) -> tuple[tuple[Problem, int], ...]:
        return tuple((problem, sample) for problem in self.problems for sample in range(self.settings.rollout.samples))


def chosen_problems(settings: Settings) -> tuple[Problem, ...]:
    """Load and select. Raises ConfigError, DatasetError."""
    chosen = settings.problems
    get_backend(settings.backend.name)
    loaded = load_problems(
        chosen.source,
        chosen.path,
        profile(settings),
        overrides=chosen.overrides,
        skip_bad_lines=chosen.skip_bad_lines,
        precision=chosen.precision,
    )
    levels = [chosen.levels] if isinstance(chosen.levels, int) else chosen.levels
    return select(
        loaded, category=chosen.category, levels=levels, ids=chosen.ids, names=chosen.names, start_from=chosen.start_from,
        limit=chosen.limit, skip_degenerate=chosen.skip_degenerate,
    )  # fmt: skip


def profile(settings: Settings) -> str:
    """The size profile that `auto` stands for."""
    chosen = settings.problems.profile
    return get_backend(settings.backend.name).profile if chosen == "auto" else chosen


def episode_config(settings: Settings) -> EpisodeConfig:
    return EpisodeConfig(
        backend=settings.backend.name,
        max_turns=settings.rollout.max_turns,
        reward=settings.reward,
        feedback=settings.feedback,
        verify=settings.verify,
        dataset_prompt=settings.backend.dataset_prompt,
        history=settings.rollout.history,
    )


def engine_config(settings: Settings) -> EngineConfig:
    rollout = settings.rollout
    return EngineConfig(
        episode=episode_config(settings),
        sampling=settings.sampling,
        samples=rollout.samples,
        concurrency=rollout.concurrency,
        requests=rollout.requests or rollout.concurrency,
        stragglers=rollout.straggler_policy,
        thinking=settings.thinking,
    )


def checked_problems(settings: Settings) -> tuple[Problem, ...]:
    """Those that were chosen, if they can be verified as it was asked for. Raises ConfigError, DatasetError."""
    problems = chosen_problems(settings)
    if settings.verifier.remote and settings.verify.baseline != EAGER:
        raise ConfigError("verify.baseline is a file of times of this machine, and verifier.remote takes times on others")
    check_baselines(settings.verify, problems)
    check_ahead(settings.verify, settings.backend.name)
    return problems


def plan(settings: Settings) -> Plan:
    """Resolve problems and policy. Raises ConfigError, DatasetError."""
    problems = checked_problems(settings)
    clock = LiveClock() if settings.verifier.clock == "live" else RecordedClock()
    policy = make_policy(settings.policy.spec, endpoint=settings.policy, now=clock.now)
    check_thinking(settings.thinking, policy)
    engine = replace(engine_config(settings), renderer=_renderer(settings, policy))
    covered = tuple(p for p in problems if policy.covers(p.key))
    if not covered:
        raise ConfigError(
            f"policy {policy.name} has no recording for any of the {len(problems)} selected problems; check policy.path"
        )
    spare = settings.rollout.oversample
    if spare >= len(covered):
        raise ConfigError(f"rollout.oversample={spare} must be less than the number of problems, which is {len(covered)}")
    return Plan(settings, run_name(settings), covered, len(problems) - len(covered), policy, engine)


def _renderer(settings: Settings, policy: Policy) -> Renderer | None:
    """What writes prompts as tokens, where tokens are to be kept. Raises ConfigError."""
    asked = settings.rollout.layout
    if asked is None:
        return None
    if not policy.capabilities.token_ids:
        raise ConfigError(f"rollout.layout={asked}: policy {policy.name} gives no tokens; use policy=sglang, vllm or transformers")
    name = settings.policy.tokenizer or (settings.policy.model if settings.policy.scheme == "transformers" else None)
    if name is None:
        raise ConfigError(f"rollout.layout={asked} needs policy.tokenizer: the model's directory, or its name on the hub")
    template = load_template(name, settings.policy.template_options)
    layout = None if asked == "auto" else Layout(asked)
    return Renderer(template, choose_layout(template, settings.rollout.history, settings.thinking.modes, layout).layout)


def run_name(settings: Settings) -> str:
    """The run directory's name: as chosen, else made from problems, back end and model."""
    if settings.run.name:
        return settings.run.name
    model = (settings.policy.model or settings.policy.scheme).rstrip("/").split("/")[-1]
    return f"{settings.problems.source}-{settings.backend.name}-{model}"


def make_verifier(settings: VerifierSettings) -> Verifier:
    """Raises ConfigError."""
    if settings.remote:
        return RemoteVerifier(settings.remote, settings.api_key or "")
    if settings.kind == "process":
        return LocalVerifier(settings)
    if settings.kind == "inprocess":
        return InprocessVerifier(settings)
    raise ConfigError(f"verifier.kind={settings.kind}: choose process or inprocess")


async def reached(verifier: Verifier, settings: Settings) -> None:
    """A verifier on other machines answers now, or is not waited for. Raises VerifierError, ConfigError."""
    if isinstance(verifier, RemoteVerifier):
        await verifier.start(settings.backend.name)


async def run(
    settings: Settings,
    config_text: str,
    *,
    verifier: Verifier | None = None,
    on_plan: Callable[[Plan, Path, tuple[Change, ...]], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_stages: OnStages | None = None,
) -> RunResult:
    """Play every episode that was asked for, resuming what is there. `config_text` is kept in the run directory.

    `verifier` is for several runs that share one; by default the run makes its own from the settings, and closes it.
    `on_plan` gets the plan, the run directory, and what has changed on this machine since a resumed run was begun.
    Raises ConfigError and PolicyError (preflight) before any work, ConfigError and InfraError when the run directory cannot be
    written. Failures of single episodes are in the result. However it ends, a run directory that is there says so in its
    `status.json`; cancelled, it has not ended.
    """
    with _claimed(Path(settings.run.root) / run_name(settings)) as (lock, played):
        async with AsyncExitStack() as stack:
            if settings.policy.serve is not None:
                settings = replace(settings, policy=await _server(settings, played, stack))
            planned = plan(settings)
            stack.push_async_callback(planned.policy.aclose)
            if verifier is None:
                verifier = make_verifier(settings.verifier)
                stack.push_async_callback(verifier.aclose)
            if not played:
                await reached(verifier, settings)
                await planned.policy.preflight()
                check_thinking(settings.thinking, planned.policy)  # it may know better now
                await _try_canaries(settings, verifier)
            environment = fingerprint()
            root, info = Path(settings.run.root), _info(planned)
            store = open_run(root, info, config_text, environment, ignored=IGNORED_ON_RESUME, lock=lock)
            stack.enter_context(store)
            store.reopen_failed()
            store.drop_status()
            if on_plan:
                on_plan(planned, store.path, tuple(changes(store.environment, environment)))
            for problem in planned.problems:
                store.save_problem(problem)
            journal = stack.enter_context(RunJournal(store, on_event or (lambda event: None)))
            journal.show_resumed(planned.asked)
            shaped = await stack.enter_async_context(shaping(settings.sources, planned.policy))
            engine = Engine(planned.policy, verifier, journal, planned.engine, store.info.master_seed, shaped)
            if on_stages:
                stack.callback(asyncio.create_task(_tell(on_stages, engine, verifier)).cancel)
            await engine.play(planned.problems, settings.rollout.oversample)
            return replace(_concluded(store, allow_zero=settings.run.allow_zero), spent=planned.policy.spent)


@contextmanager
def _claimed(path: Path) -> Iterator[tuple[DirectoryLock | None, bool]]:
    """The lock of a run's directory, where that is there already, and whether nothing is left to play.

    What ends the run before its end is in `status.json` then. Raises ConfigError where another process writes the run.
    """
    if (path / SWEEP_FILE).exists():
        raise ConfigError(f"{path} holds the runs of a multirun: choose another run.name, or add --multirun")
    lock = DirectoryLock(path) if path.is_dir() else None
    try:
        played = _played(path)
        if lock is not None and not played:
            remove_file(path / "status.json")  # of an earlier process; this one may take long to begin
        yield lock, played
    except Exception as error:  # boundary: whatever it was, nobody may take the run for one that goes on
        if lock is None and path.is_dir():
            with suppress(ConfigError):  # another process began it meanwhile, and says itself how it ends
                lock = DirectoryLock(path)
        if lock is not None:
            _say_failed(path, error)
        raise
    finally:
        if lock is not None:
            lock.release()


def _say_failed(path: Path, error: Exception) -> None:
    begun = (path / "run.json").is_file()
    if begun and isinstance(error, ConfigError):
        return  # the command was wrong, which says nothing of the run
    said = never_begun(error)
    if begun:
        run = RunReader(path)
        episodes = run.load_episodes()
        said = status(summarize(episodes, run.info), episodes, error)
    write_file(path / "status.json", f"{dumps(said, indent=2)}\n".encode(errors="backslashreplace"))


async def _tell(on_stages: OnStages, engine: Engine, verifier: Verifier) -> None:
    while True:
        on_stages(engine.waiting, verifier.load if isinstance(verifier, Loaded) else None)
        await asyncio.sleep(STAGES_S)


def unserved(policy: PolicySettings) -> PolicySettings:
    """As if its server were up already: for whoever will ask nobody for replies."""
    return policy if policy.serve is None else replace(policy, serve=None, base_url="http://127.0.0.1:9/v1")


async def _server(settings: Settings, played: bool, stack: AsyncExitStack) -> PolicySettings:
    """The policy's settings with a server that is up until the stack ends. It is not started for what is wrong or done already."""
    checked_problems(settings)
    return unserved(settings.policy) if played else await stack.enter_async_context(served(settings.policy))


async def _try_canaries(settings: Settings, verifier: Verifier) -> None:
    """Raises InfraError."""
    backend, wanted = settings.backend.name, settings.run.canaries
    if backend in CANARIES and (settings.policy.scheme not in FREE if wanted is None else wanted):
        await canary(verifier, backend, timed=False)


def _concluded(store: RunStore, *, allow_zero: bool) -> RunResult:
    """Results, report and, last of all, status."""
    results, report, episodes = store.write_results(), write_report(store), tuple(store.load_episodes())
    found = fault(results.summary, episodes, allow_zero=allow_zero)
    store.write_status(status(results.summary, episodes, found))
    if found is not None:
        found = type(found)(f"{found}; see {report}")
    return RunResult(store.path, report, results, episodes, found)


def _played(path: Path) -> bool:
    """Whether a run is there with nothing left to play: then nobody has to be asked for replies."""
    if not (path / "run.json").is_file():
        return False
    run = RunReader(path)
    return {e.key for e in run.load_episodes() if not e.error} >= set(run.info.asked)


def _info(planned: Plan) -> RunInfo:
    settings = planned.settings
    return RunInfo(
        name=planned.name,
        policy=planned.policy.name,
        master_seed=secrets.randbits(62) if settings.run.seed is None else settings.run.seed,
        asked=tuple(episode_key(problem.key, sample) for problem, sample in planned.asked),
        max_turns=settings.rollout.max_turns,
        gamma=settings.rollout.gamma,
        correct_reward=settings.reward.correct,
        returns=settings.rollout.returns,
        layout=planned.engine.renderer.layout if planned.engine.renderer else None,
    )


class RunJournal:
    """The run directory as the engine's journal, in a `with` block. What it gets is shown once it is durable.

    A thread waits for the disk: the event loop does not. There is one, because a store is written by one at a time.
    """

    def __init__(self, store: RunStore, emit: Callable[[Event], None] = lambda event: None) -> None:
        self._store, self._emit = store, emit
        self._writer = ThreadPoolExecutor(1, "run-journal")
        self._turns = store.load_turns()
        self._ended = {e.key: e for e in store.load_episodes()}

    def __enter__(self) -> RunJournal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.shutdown()

    def show_resumed(self, asked: Iterable[tuple[Problem, int]]) -> None:
        """What is there already."""
        for problem, sample in asked:
            key = episode_key(problem.key, sample)
            for turn in self._turns.get(key, []):
                self._emit(Event(key, problem, turn, resumed=True))
            ended = self._ended.get(key)
            if ended is not None:
                self._emit(Event(key, problem, stop_reason=ended.stop_reason, error=ended.error, resumed=True))

    def turns(self, episode: str) -> Sequence[Turn]:
        return self._turns.get(episode, [])

    def ended(self, episode: str) -> Episode | None:
        return self._ended.get(episode)

    async def save_turn(self, problem: Problem, sample: int, turn: Turn) -> None:
        await self._write(self._store.save_turn, problem, sample, turn)
        self._emit(Event(episode_key(problem.key, sample), problem, turn))

    async def end_episode(self, episode: Episode) -> None:
        await self._write(self._store.end_episode, episode)
        self._emit(Event(episode.key, episode.problem, stop_reason=episode.stop_reason, error=episode.error))

    async def _write(self, write: Callable[..., None], *what: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, write, *what)

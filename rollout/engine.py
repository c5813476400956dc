"""Plays groups of episodes, one coroutine a trajectory.

Each resource has a limit of its own. A trajectory has a place among the requests while the policy answers and no longer, then
a build slot and a device slot, which the verifier hands out itself: it never holds one of them while it waits for another. Whoever
waits is served as it came, so all trajectories have about the same number of turns ahead of them, and the end is short.

What is played does not depend on which reply or verdict comes first, unless members may be given up (`stragglers.MinimumGroup`,
spare groups). A turn is in the journal before the next one is asked for, and an engine with the same journal goes on after it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from kernel_env.episode import EpisodeConfig, EpisodeState
from kernel_env.errors import ConfigError, InfraError, KernelEnvError, PolicyError, PolicyExhausted
from kernel_env.referee.config import derive_seed
from kernel_env.reward import Shaping
from kernel_env.schema import Episode, Generation, Problem, StopReason, Turn, Usage, episode_key
from kernel_env.verifier import Verifier
from rollout.policies import GenerationRequest, Policy, Sampling
from rollout.stragglers import Stragglers, Wait
from rollout.thinking import ThinkingConfig, decided
from rollout.tokens import Renderer, with_prompt

MOST_ABORTS = 4
"""A reply that is broken off more often is given up."""

T = TypeVar("T")


class Journal(Protocol):
    """Where turns and ends are kept, and taken up again. What an engine has begun to save it waits for, cancelled or not."""

    def turns(self, episode: str) -> Sequence[Turn]:
        """What was kept before the engine began, by `Episode.key`."""

    def ended(self, episode: str) -> Episode | None:
        """Likewise."""

    async def save_turn(self, problem: Problem, sample: int, turn: Turn) -> None: ...
    async def end_episode(self, episode: Episode) -> None: ...


class MemoryJournal:
    """Keeps everything, as long as it lives itself."""

    def __init__(self) -> None:
        self.episodes: dict[str, Episode] = {}
        self._turns: dict[str, list[Turn]] = {}

    def turns(self, episode: str) -> Sequence[Turn]:
        return tuple(self._turns.get(episode, ()))

    def ended(self, episode: str) -> Episode | None:
        return self.episodes.get(episode)

    async def save_turn(self, problem: Problem, sample: int, turn: Turn) -> None:
        self._turns.setdefault(episode_key(problem.key, sample), []).append(turn)

    async def end_episode(self, episode: Episode) -> None:
        self.episodes[episode.key] = episode


@dataclass(frozen=True)
class EngineConfig:
    """How groups are played."""

    episode: EpisodeConfig = field(default_factory=EpisodeConfig)
    sampling: Sampling = field(default_factory=Sampling)
    samples: int = 1
    """Members of a group."""
    concurrency: int = 8
    """Trajectories in play, ..."""
    requests: int = 8
    """... of which so many are answered by the policy at a time. Builds and verifications are limited by the verifier."""
    stragglers: Stragglers = field(default_factory=Wait)
    thinking: ThinkingConfig = field(default_factory=ThinkingConfig)
    renderer: Renderer | None = None
    """Writes prompts as tokens, for policies that take and give them; None: each policy writes its own."""


@dataclass(eq=False)
class _Group:
    """The trajectories of one problem, while they are played."""

    problem: Problem
    left: set[int]
    """Samples without an end."""
    completed: int = 0
    over: bool = False
    """Nothing of it is to be played any more."""
    states: dict[int, EpisodeState] = field(default_factory=dict)
    """Of those in play, by sample."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def give_up(self) -> None:
        """Cancel what is in play, once, but not the one that asks for it."""
        for task in self.tasks - {asyncio.current_task()} if not self.over else ():
            task.cancel()
        self.over = True


@dataclass(eq=False)
class _Batch:
    """Groups that are played together, and when enough of them are complete."""

    groups: Sequence[_Group]
    needed: int
    config: EngineConfig
    complete: int = 0

    def count(self, group: _Group, episode: Episode) -> None:
        """An episode of the group has ended. Gives up what is not needed any more."""
        group.completed += not episode.cut_short and bool(episode.turns) and None not in episode.rewards_T
        if group.over or not self.config.stragglers.enough(group.completed, self.config.samples):
            return
        self.complete += 1
        for unneeded in self.groups if self.complete >= self.needed else (group,):
            unneeded.give_up()


class Waits(StrEnum):
    """What a trajectory waits for."""

    PLACE = "place"
    """In play."""
    REQUEST = "request"
    """A place among the requests."""
    REPLY = "reply"
    VERDICT = "verdict"


class Engine:
    """Use within one event loop. What is played by several calls of `play` shares the limits."""

    def __init__(
        self,
        policy: Policy,
        verifier: Verifier,
        journal: Journal,
        config: EngineConfig,
        master_seed: int,
        shaping: Shaping | None = None,
    ) -> None:
        self._policy, self._verifier, self._journal, self._config = policy, verifier, journal, config
        self._master_seed, self._shaping = master_seed, shaping
        self.waiting = Counter[Waits]()
        """How many trajectories wait for what, at this moment."""
        self._room = asyncio.Semaphore(config.concurrency)
        self._requests = asyncio.Semaphore(config.requests)

    async def play(self, problems: Sequence[Problem], spare: int = 0) -> None:
        """Play a group of each problem; then the journal has the end of every episode.

        With `spare` groups it is over once all but so many are complete, whichever these are, and the others are cancelled. Those
        kept are the quick ones: the bias that `MinimumGroup` describes, here among problems.

        A member's failure ends that member. Raises the first KernelEnvError that none can be blamed for: a full disk, a journal
        of other episodes. Cancelling it cancels requests and verifications; the journal then has every finished turn, and the ends
        of those alone that ended.
        """
        if problems and not 0 <= spare < len(problems):
            raise ConfigError(f"{spare} of {len(problems)} groups cannot be spare: rollout.oversample must leave one")
        samples = range(self._config.samples)
        batch = _Batch([_Group(problem, set(samples)) for problem in problems], len(problems) - spare, self._config)
        for group in batch.groups:
            for sample in samples:
                ended = self._journal.ended(episode_key(group.problem.key, sample))
                if ended is not None:
                    group.left.remove(sample)
                    batch.count(group, ended)
        try:
            async with asyncio.TaskGroup() as tasks:
                for group in batch.groups:
                    tasks.create_task(self._play_group(group, batch))
        except ExceptionGroup as several:
            raised, faults = several.split(KernelEnvError)
            if raised is None or faults is not None:
                raise
            raise _first(raised) from None

    async def _play_group(self, group: _Group, batch: _Batch) -> None:
        async with asyncio.TaskGroup() as tasks:
            for sample in sorted(group.left) if not group.over else ():
                task = tasks.create_task(self._play_member(group, sample, batch))
                group.tasks.add(task)
                task.add_done_callback(group.tasks.discard)
        for sample in sorted(group.left):  # they were cancelled, and by now nothing of them runs any more
            state = group.states.pop(sample, None) or self._state(group.problem, sample)
            await self._end(group, sample, state, StopReason.CANCELLED)

    async def _play_member(self, group: _Group, sample: int, batch: _Batch) -> None:
        async with self._place(self._room, Waits.PLACE):
            state = group.states[sample] = self._state(group.problem, sample)
            reason, error = await self._take_turns(state, sample)
            del group.states[sample]
            batch.count(group, await self._end(group, sample, state, reason, error))

    def _state(self, problem: Problem, sample: int) -> EpisodeState:
        # not of its own: what the samples of a problem are tried with in a turn is drawn and computed once
        seed = derive_seed(self._master_seed, "episode", problem.key)
        state = EpisodeState(problem, self._config.episode, seed, self._shaping)
        state.restore(self._journal.turns(episode_key(problem.key, sample)))
        return state

    async def _end(self, group: _Group, sample: int, state: EpisodeState, reason: StopReason, error: str = "") -> Episode:
        group.left.remove(sample)
        episode = Episode(group.problem, sample, tuple(state.turns), reason, error)
        await _to_its_end(self._journal.end_episode(episode))
        return episode

    async def _take_turns(self, state: EpisodeState, sample: int) -> tuple[StopReason, str]:
        """Until the episode ends. A failure that the stragglers' policy does not try again ends it unscored, as a failure."""
        failures = 0
        while state.stop_reason is None:
            try:
                turn = await self._take_turn(state, sample)
            except PolicyExhausted:
                return StopReason.EXHAUSTED, ""
            except (PolicyError, InfraError) as error:
                failures += 1
                if not self._config.stragglers.again(failures):
                    failed = StopReason.POLICY_FAILURE if isinstance(error, PolicyError) else StopReason.INFRA_ERROR
                    return failed, _line(error)
            else:
                await _to_its_end(self._journal.save_turn(state.problem, sample, turn))
        return state.stop_reason, ""

    async def _take_turn(self, state: EpisodeState, sample: int) -> Turn:
        key = episode_key(state.problem.key, sample)
        request = GenerationRequest(state.messages, self._sampling(sample), key, len(state.turns))
        thinking = await decided(self._reply, request, self._config.thinking)
        if thinking is not None:
            budget = self._config.thinking.budget if thinking.on else None
            request = replace(request, thinking=thinking.on, thinking_budget=budget)
        renderer = self._config.renderer
        if renderer is None:
            reply = await self._reply(request)
        else:
            prompt_ids = renderer.prompt(state.turns, state.messages, request.thinking)
            reply = with_prompt(await self._reply(replace(request, prompt_ids=prompt_ids)), prompt_ids)
        with self._counted(Waits.VERDICT):
            return await state.step(reply, self._verifier, thinking)

    @contextmanager
    def _counted(self, what: Waits) -> Iterator[None]:
        self.waiting[what] += 1
        try:
            yield
        finally:
            self.waiting[what] -= 1

    @asynccontextmanager
    async def _place(self, room: asyncio.Semaphore, what: Waits) -> AsyncIterator[None]:
        with self._counted(what):
            await room.acquire()
        try:
            yield
        finally:
            room.release()

    def _sampling(self, sample: int) -> Sampling:
        """Each sample has a seed of its own where there is one: else they would all be alike."""
        sampling = self._config.sampling
        return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + sample)

    async def _reply(self, request: GenerationRequest) -> Generation:
        """A whole reply. One that the endpoint breaks off is continued after its last token, where the policy knows tokens.

        Else it is asked for anew, which prefers replies that are done before the next interruption. Raises PolicyError.
        """
        begun: Generation | None = None
        for _ in range(MOST_ABORTS + 1):
            async with self._place(self._requests, Waits.REQUEST):
                with self._counted(Waits.REPLY):
                    reply = await self._policy.generate(request if begun is None else _remaining(request, begun))
            reply = reply if begun is None else _joined(begun, reply, self._config.renderer)
            if reply.finish_reason != "abort":
                return reply
            begun = reply if self._policy.capabilities.token_ids and reply.prompt_ids and reply.output_ids else None
            if begun is not None and _tokens_left(request, begun) == 0:
                return replace(begun, finish_reason="length")
        raise PolicyError(
            f"{self._policy.name}: turn {request.turn} of {request.episode} was aborted {MOST_ABORTS + 1} times, "
            "and is not scored; see the endpoint's log"
        )


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for it. A cancellation meanwhile comes afterwards."""
    working, cancelled = asyncio.create_task(work), None
    while not working.done():
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError as error:
            cancelled = error
    working.result()
    if cancelled is not None:
        raise cancelled


# ------------------------------------------------------------------ replies in parts


def _tokens_left(request: GenerationRequest, begun: Generation) -> int | None:
    """None where there is no limit."""
    most = request.sampling.max_tokens
    return None if most is None else max(most - len(begun.output_ids or ()), 0)


def _remaining(request: GenerationRequest, begun: Generation) -> GenerationRequest:
    """The request that has the engine go on after the tokens that are there. `begun` has token ids."""
    output = begun.output_ids or ()
    return replace(
        request,
        sampling=replace(request.sampling, max_tokens=_tokens_left(request, begun)),
        prompt_ids=(begun.prompt_ids or ()) + output,
        begun=len(output),
        thinking_budget=None if "</think>" in begun.text else request.thinking_budget,  # there is nothing left to limit
    )


def _joined(begun: Generation, rest: Generation, renderer: Renderer | None) -> Generation:
    """One reply: its end is that of `rest`, its prompt that of `begun`."""
    tokens = begun.usage.completion_tokens + rest.usage.completion_tokens
    return Generation(
        text=_joined_text(begun, rest, renderer),
        reasoning=begun.reasoning + rest.reasoning,
        finish_reason=rest.finish_reason,
        usage=Usage(begun.usage.prompt_tokens, tokens),
        model=rest.model,
        duration_s=begun.duration_s + rest.duration_s,
        output_ids=_concatenated(begun.output_ids, rest.output_ids),
        output_logprobs=_concatenated(begun.output_logprobs, rest.output_logprobs),
        weight_version=_span(begun.weight_version, rest.weight_version),
        prompt_ids=begun.prompt_ids,
    )


def _joined_text(begun: Generation, rest: Generation, renderer: Renderer | None) -> str:
    """Read from the tokens of both, because a character may be of tokens on both sides of the break: no part has it then.

    Where nobody here can read tokens it is the engine's two texts; as it is where the engine has taken thoughts out of them.
    """
    if renderer is None or begun.reasoning or rest.reasoning:
        return begun.text + rest.text
    first, last = begun.output_ids or (), rest.output_ids or ()
    if rest.finish_reason == "stop" and not rest.text.endswith(renderer.template.decode(last[-1:])):
        last = last[:-1]  # it ended the reply, and is no part of its text
    return renderer.template.decode((*first, *last))


def _concatenated(first: tuple[T, ...] | None, second: tuple[T, ...] | None) -> tuple[T, ...] | None:
    return None if first is None or second is None else first + second


def _span(first: str | None, last: str | None) -> str | None:
    """`7`, or `7..9` when the weights changed in between: the tokens are of more than one policy."""
    if first is None or last is None or first == last:
        return last
    return f"{first.partition('..')[0]}..{last}"


def _line(error: KernelEnvError) -> str:
    return " ".join(f"{error.kind}: {error}".split())[:500]


def _first(group: BaseExceptionGroup[KernelEnvError]) -> KernelEnvError:
    """The first error of groups within groups."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error

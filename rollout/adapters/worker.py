"""The environment in a worker process of a trainer, described by the options that `kernel-env eval` takes.

Trainers that run on many machines are given names, of a class or of functions, and have them play one episode at a time. What that
takes is made once a process, and the verifier once an event loop: servers on other machines with `verifier.remote=[URL, ...]`, or
processes of this one.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from kernel_env.errors import ConfigError
from kernel_env.referee.config import derive_seed
from kernel_env.schema import Episode
from kernel_env.verifier import Verifier
from rollout.adapters.common import Rows, TrainingSample, play, training_samples
from rollout.compose import composed
from rollout.policies import Capabilities, Policy, Sampling, Spent
from rollout.runner import checked_problems, engine_config, episode_config, make_verifier
from rollout.settings import Settings
from rollout.shaping import shaping
from rollout.thinking import check_thinking
from rollout.tokens import ChatTemplate, Layout, Renderer, choose_layout

_log = logging.getLogger(__name__)


@functools.cache
def environment(options: tuple[str, ...]) -> Environment:
    """The same one whenever this process asks for it. Raises ConfigError, DatasetError."""
    return Environment(composed(options)[0])


class TrainersModel:
    """What a `Policy` over a trainer's own way to have its model reply has beside `generate`."""

    name = "trainer"
    capabilities = Capabilities(token_ids=True, logprobs=True, thinking=True)
    """Prompts are written here, and say whether to think."""
    spent = Spent()
    """The trainer keeps that account."""

    async def preflight(self) -> None: ...

    def covers(self, episode: str) -> bool:
        return True

    async def aclose(self) -> None: ...


@dataclass(frozen=True)
class Played:
    """An episode, and what of it is trained on."""

    episode: Episode
    samples: Sequence[TrainingSample]
    """One in layout `append`, one a turn in `per-turn`; none where there is no turn, or no tokens were kept."""

    @property
    def correct(self) -> bool:
        return any(turn.verdict.correct for turn in self.episode.turns)


class Environment:
    def __init__(self, settings: Settings) -> None:
        """Raises ConfigError, DatasetError."""
        if replace(settings.sampling, max_tokens=Sampling().max_tokens) != Sampling():
            raise ConfigError("the trainer decides how replies are drawn: of the options sampling.*, only max_tokens is ours")
        self.settings = settings
        self.rows = Rows(checked_problems(settings), episode_config(settings))
        self._seed = settings.run.seed if settings.run.seed is not None else secrets.randbits(62)
        self._renderers: dict[ChatTemplate, Renderer] = {}
        self._verifiers = WeakKeyDictionary[asyncio.AbstractEventLoop, Verifier]()

    def sampling(self, temperature: float, top_p: float, max_tokens: int, seed: int | None = None) -> Sampling:
        """As the trainer says. A reply is no longer than `sampling.max_tokens` either, to leave room for those of other turns."""
        return Sampling(temperature, min(max_tokens, self.settings.sampling.max_tokens or max_tokens), top_p, seed)

    def renderer(self, template: ChatTemplate) -> Renderer:
        """The same one for the same template. Raises ConfigError where `rollout.layout` cannot be kept."""
        if template not in self._renderers:
            rollout, modes = self.settings.rollout, self.settings.thinking.modes
            asked = None if rollout.layout in (None, "auto") else Layout(rollout.layout)
            alone = rollout.max_turns == 1  # there is no past that could change
            layout = asked or Layout.APPEND if alone else choose_layout(template, rollout.history, modes, asked).layout
            self._renderers[template] = Renderer(template, layout)
        return self._renderers[template]

    async def play(
        self,
        policy: Policy,
        problem: str,
        sampling: Sampling,
        renderer: Renderer | None,
        group: object,
        *,
        most_turns: int | None = None,
    ) -> Played:
        """One episode of the problem with this key. Those of one `group` are verified with the same seeds.

        Raises ConfigError: an episode that fails is none that raises, and the log says why it failed.
        """
        check_thinking(self.settings.thinking, policy)
        config = replace(engine_config(self.settings), samples=1, sampling=sampling, renderer=renderer)
        if most_turns is not None:
            config = replace(config, episode=replace(config.episode, max_turns=most_turns))
        seed = derive_seed(self._seed, "group", group)
        async with shaping(self.settings.sources, policy) as shaped:
            (episode,) = await play(policy, self._verifier(), config, [self.rows.by_key(problem)], seed, shaped)
        if episode.error:
            _log.warning("%s is left out, it was not scored: %s", problem, episode.error)
        if renderer is None:
            return Played(episode, ())
        rollout = self.settings.rollout
        (samples,) = training_samples([episode], renderer.layout, rollout.returns, rollout.gamma)
        return Played(episode, samples)

    async def aclose(self) -> None:
        """Close what was made for this event loop."""
        verifier = self._verifiers.pop(asyncio.get_running_loop(), None)
        if verifier is not None:
            await verifier.aclose()

    def _verifier(self) -> Verifier:
        loop = asyncio.get_running_loop()
        if loop not in self._verifiers:
            self._verifiers[loop] = make_verifier(self.settings.verifier)
        return self._verifiers[loop]

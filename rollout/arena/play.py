"""Two games a problem, in both orders: the judge is asked for what is left, and every match is durable when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from kernel_env.errors import JudgeError, PolicyError
from rollout.arena.comparing import Comparing, Question, read_label
from rollout.arena.matches import MatchFile, opened
from rollout.arena.pairing import Pair, Pairing
from rollout.arena.records import Game, Match

GIVE_UP = 20
"""Games in a row without a verdict, after which nothing more is asked: the judge is out of order."""


@dataclass(frozen=True)
class Count:
    """Of matches."""

    matches: int = 0
    scored_games: int = 0
    null_games: int = 0
    error: str = ""
    """Of one game without a verdict."""

    @classmethod
    def of(cls, matches: Iterable[Match]) -> Count:
        matches = list(matches)
        games = [game for match in matches for game in match.games]
        nulls = [game for game in games if game.score is None]
        return cls(len(matches), len(games) - len(nulls), len(nulls), nulls[0].error if nulls else "")


async def play(
    pairing: Pairing, judge: Comparing, path: Path, *, concurrency: int, on_match: Callable[[], None] = lambda: None
) -> Count:
    """Plays what is left of a file, so many matches at a time. Games that have a verdict are never asked for again.

    Raises JudgeError where the judge is out of order, ConfigError where the file is somebody else's, InfraError where the disk
    refuses.
    """
    with opened(path, pairing.matches) as file:
        playing = _Playing(pairing, judge, file, on_match)
        await playing.all(concurrency)
        file.finish()
        return Count.of(file.matches.values())


class _Playing:
    def __init__(self, pairing: Pairing, judge: Comparing, file: MatchFile, on_match: Callable[[], None]) -> None:
        self._pairing, self._judge, self._file, self._on_match = pairing, judge, file, on_match
        self._failures = 0
        """In a row."""
        self._gave_up = ""
        """Why; for good, even if a game that was under way has a verdict yet."""

    async def all(self, concurrency: int) -> None:
        wanted = set(self._file.left)
        pairs = iter([pair for pair in self._pairing.pairs if pair.uid in wanted])
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(concurrency):
                    tasks.create_task(self._some(pairs))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # it ended the others
        if self._gave_up:
            raise JudgeError(f"{self._judge.name} gave no verdict {GIVE_UP} times in a row: {self._gave_up}")

    async def _some(self, pairs: Iterator[Pair]) -> None:
        for pair in pairs:
            if self._gave_up:
                return
            known = self._file.matches.get(pair.uid, self._pairing.matches[pair.uid])
            first, second = await asyncio.gather(
                *(self._game(game, ask) for game, ask in zip(known.games, _both(pair), strict=True))
            )
            self._file.save(replace(known, games=(first, second)))
            self._on_match()

    async def _game(self, known: Game, question: Question) -> Game:
        if known.score is not None:
            return known
        game = await self._asked(question)
        self._failures = self._failures + 1 if game.score is None else 0
        if self._failures >= GIVE_UP:
            self._gave_up = game.error
        return game

    async def _asked(self, question: Question) -> Game:
        try:
            judgment = await self._judge.compare(question)
        except (JudgeError, PolicyError) as error:
            return Game(None, error=" ".join(str(error).split()))
        try:
            return Game(read_label(judgment.text), judgment.text, judgment.prompt)
        except ValueError as error:
            return Game(None, judgment.text, judgment.prompt, f"no verdict: {error}")


def _both(pair: Pair) -> tuple[Question, Question]:
    """A is the baseline in the first game, and the model in the second."""
    problem, backend, ours, theirs = pair.baseline.problem.source, pair.baseline.backend, pair.model.code, pair.baseline.code
    return Question(pair.uid, problem, backend, theirs, ours), Question(pair.uid, problem, backend, ours, theirs)

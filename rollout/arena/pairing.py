"""Which kernels meet: of two runs, for each episode of the baseline, the best turn of either.

An episode of which nothing was scored, or that was cut short, is no answer. A run that lacks one is partial, and is not judged:
its place in a table would be that of another selection of problems.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from kernel_env.errors import ConfigError, GateError
from kernel_env.problems.categories import CATEGORIES
from kernel_env.schema import Episode, Problem, Turn
from rollout.arena.records import Game, Kernel, Label, Match
from rollout.arena.style import line_counts
from rollout.metrics import conditions, mixed
from rollout.store import RunReader

_NAMED = 5
"""Episodes that a message names."""


@dataclass(frozen=True)
class Answer:
    """The best turn of one episode."""

    problem: Problem
    code: str
    """Empty where no turn had any."""
    backend: str
    kernel: Kernel


@dataclass(frozen=True)
class Answers:
    """Of one run."""

    name: str
    asked: tuple[str, ...]
    found: Mapping[str, Answer]
    """By episode key."""
    missing: Mapping[str, str]
    """Why there is no answer, by episode key."""
    conditions: Mapping[str, frozenset[str]]
    """Under which its best turns were verified (`metrics.conditions`)."""

    def lacking(self, uids: tuple[str, ...]) -> dict[str, str]:
        """Those of `uids` without an answer, and why."""
        return {uid: self.missing.get(uid, "not asked for") for uid in uids if uid not in self.found}


class PartialAnswers(GateError):
    """A run that is to be judged has not answered everything."""


def name_of(run: RunReader) -> str:
    """What a model is called: as its run's directory."""
    return run.path.resolve().name


def read_answers(run: RunReader) -> Answers:
    """Raises ConfigError for a run that is damaged."""
    found, missing = dict[str, Answer](), dict.fromkeys(run.info.asked, "not played to its end")
    under = dict[str, frozenset[str]]()
    for episode in run.each_episode():
        turn = best_turn(episode)
        if turn is None or episode.cut_short:
            missing[episode.key] = "nothing was scored" if turn is None and not episode.error else f"cut short: {_cause(episode)}"
        else:
            missing.pop(episode.key, None)
            found[episode.key] = _answer(episode.problem, turn)
            under = joined(under, conditions([turn]))
    return Answers(name_of(run), run.info.asked, found, missing, under)


def joined(first: Mapping[str, Collection[str]], second: Mapping[str, Collection[str]]) -> dict[str, frozenset[str]]:
    return {what: frozenset((*first.get(what, ()), *second.get(what, ()))) for what in {**first, **second}}


def best_turn(episode: Episode) -> Turn | None:
    """The first with the highest reward, of the correct ones where there are any. None: nothing was scored."""
    scored = [(t.verdict.correct, t.reward.value, -t.index) for t in episode.turns if t.reward.value is not None]
    return episode.turns[-max(scored)[2]] if scored else None


def _cause(episode: Episode) -> str:
    return episode.error or episode.stop_reason


def _answer(problem: Problem, turn: Turn) -> Answer:
    code, verdict = turn.code or "", turn.verdict
    kernel = Kernel(verdict.status, verdict.speedup, verdict.runtime_ms, *line_counts(code))
    return Answer(problem, code, verdict.backend, kernel)


def category(problem: Problem) -> str:
    """The narrowest of the project's that a problem is in: of its operator, or else of its level."""
    return next((name for name in reversed(list(CATEGORIES)) if CATEGORIES[name](problem)), f"level{problem.level}")


@dataclass(frozen=True)
class Pair:
    """Two answers for one episode."""

    uid: str
    baseline: Answer
    model: Answer

    @property
    def labels(self) -> tuple[Label, Label] | None:
        """Of both games where correctness decides; None where a judge has to."""
        match self.baseline.kernel.correct, self.model.kernel.correct:
            case True, True:
                return None
            case True, False:
                return "A>>B", "B>>A"
            case False, True:
                return "B>>A", "A>>B"
            case _:
                return "A=B", "A=B"


@dataclass(frozen=True)
class Pairing:
    """All that a model is judged by."""

    judge: str
    model: str
    baseline: str
    pairs: tuple[Pair, ...]
    """In the order of the baseline's episodes."""

    @cached_property
    def matches(self) -> dict[str, Match]:
        """By uid, as they are before any judge was asked."""
        return {pair.uid: self._match(pair) for pair in self.pairs}

    def _match(self, pair: Pair) -> Match:
        labels, problem = pair.labels, pair.baseline.problem
        games = (Game(None), Game(None)) if labels is None else (Game(labels[0]), Game(labels[1]))
        return Match(
            uid=pair.uid,
            problem=problem.key,
            category=category(problem),
            judge=self.judge,
            model=self.model,
            baseline=self.baseline,
            decided="judge" if labels is None else "correctness",
            games=games,
            model_kernel=pair.model.kernel,
            baseline_kernel=pair.baseline.kernel,
        )


def paired(judge: str, model: Answers, baseline: Answers) -> Pairing:
    """Raises PartialAnswers where either lacks an answer, ConfigError where they have not done the same."""
    refuse_partial(baseline, baseline.asked)
    refuse_partial(model, baseline.asked)
    pairs = tuple(Pair(uid, baseline.found[uid], model.found[uid]) for uid in baseline.asked)
    for difference in filter(None, (*_differences(pairs), mixed(joined(baseline.conditions, model.conditions)))):
        raise ConfigError(f"{model.name} cannot be judged against {baseline.name}: {difference}")
    return Pairing(judge, model.name, baseline.name, pairs)


def refuse_partial(answers: Answers, uids: tuple[str, ...]) -> None:
    lacking = answers.lacking(uids)
    if lacking:
        named = ", ".join(f"{uid} ({why})" for uid, why in list(lacking.items())[:_NAMED])
        more = ", ..." if len(lacking) > _NAMED else ""
        raise PartialAnswers(
            f"{answers.name} has no answer to {len(lacking)} of {len(uids)} episodes: {named}{more}; resume the run until it has"
        )


def _differences(pairs: tuple[Pair, ...]) -> Iterator[str]:
    for pair in pairs:
        ours, theirs = pair.model, pair.baseline
        if ours.problem.digest != theirs.problem.digest:
            yield f"{pair.uid} is another problem there (its source, sizes or precision)"
        if ours.backend != theirs.backend:
            yield f"the back end of {pair.uid} is {ours.backend}, and {theirs.backend} there"

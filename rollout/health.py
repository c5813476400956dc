"""Whether a run's numbers may be believed: the gate at its end, and `status.json`.

A job with 0% success never looks like a success. What became of each episode has a count of its own (scored, the model gave no
reply, the infrastructure failed, this machine could not judge, not run); they add up to what was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from kernel_env.errors import (
    AuthenticationFailed,
    EmptyReplies,
    EndpointUnreachable,
    GateError,
    InfraError,
    KernelEnvError,
    ModelNotFound,
    NoneCorrect,
    PolicyError,
    ThoughtOnly,
)
from kernel_env.schema import SCHEMA_VERSION, Episode, StopReason
from rollout.documents import Summary
from rollout.store import read_document


class Health(StrEnum):
    OK = "ok"
    SUSPECT = "suspect"
    """It ran to its end, and what it says is more likely a fault than a result."""
    FAILED = "failed"
    """Something was not scored that should have been."""


@dataclass(frozen=True)
class RunStatus:
    """`status.json`: written last. Without it a run has not ended, whatever a scheduler says."""

    schema_version: int
    health: Health
    exit_code: int
    reason: str
    """One line; empty where all is well."""
    asked: int = 0
    """0 where the run failed before it began."""
    scored: int = 0
    policy_failures: int = 0
    infra_errors: int = 0
    unscored: int = 0
    cancelled: int = 0
    not_run: int = 0
    """These six add up to `asked`."""
    correct: int = 0
    turns: int = 0
    turns_unscored: int = 0
    empty_replies: int = 0
    thought_only_replies: int = 0
    """Turns."""

    @property
    def adds_up(self) -> bool:
        parts = (self.scored, self.policy_failures, self.infra_errors, self.unscored, self.cancelled, self.not_run)
        return sum(parts) == self.asked


def fault(summary: Summary, episodes: Sequence[Episode], *, allow_zero: bool) -> KernelEnvError | None:
    """Why the run must not be read as a success."""
    failed = [e for e in episodes if e.error]
    replies = [turn.generation for e in episodes for turn in e.turns]
    again = "the same command tries them again"
    if replies and all(reply.empty for reply in replies):
        return EmptyReplies(f"all {len(replies)} replies were empty: check policy.model and its chat template")
    if replies and all(reply.thought_only for reply in replies):
        words = "ended at the token limit while still thinking"
        advice = "raise sampling.max_tokens, or set thinking.budget or thinking.arm=never"
        return ThoughtOnly(f"all {len(replies)} replies {words}: {advice}")
    if summary.total and summary.completed == 0:
        unjudged = " (nothing could be judged on this machine)" if replies else " (there was no reply)"
        why = f": {failed[0].error}" if failed else unjudged
        return _cause(summary, failed)(f"none of {summary.total} episodes was scored{why}")
    if summary.infra_errors:
        error = next(e.error for e in failed if e.stop_reason is StopReason.INFRA_ERROR)
        return InfraError(f"{summary.infra_errors} of {summary.total} episodes stay unscored: {error}; {again}")
    if summary.policy_failures:
        error = next(e.error for e in failed if e.stop_reason is StopReason.POLICY_FAILURE)
        return PolicyError(f"{summary.policy_failures} of {summary.total} episodes got no reply: {error}; {again}")
    if summary.total and not summary.correct and not allow_zero:
        words = "which is more often a fault of the set-up than of the model: read some replies"
        return NoneCorrect(f"none of {summary.total} episodes was ever correct, {words}, or set run.allow_zero=true")
    return None


def _cause(summary: Summary, failed: Sequence[Episode]) -> type[KernelEnvError]:
    """What kept every episode from its reply, where that is one thing with an exit code of its own: preflight cannot see all that a
    list of models does not show, nor what comes later."""
    kinds = {episode.error.partition(":")[0] for episode in failed} if len(failed) == summary.total else set()
    causes = (EndpointUnreachable, AuthenticationFailed, ModelNotFound)
    return next((cause for cause in causes if kinds == {cause("").kind}), GateError)


def status(summary: Summary, episodes: Sequence[Episode], found: Exception | None) -> RunStatus:
    """Of a run that came to its end, or that `found` ended."""
    replies = [turn.generation for e in episodes for turn in e.turns]
    suspect = isinstance(found, (EmptyReplies, ThoughtOnly, NoneCorrect))
    return RunStatus(
        schema_version=SCHEMA_VERSION,
        health=Health.OK if found is None else Health.SUSPECT if suspect else Health.FAILED,
        exit_code=0 if found is None else exit_code(found),
        reason="" if found is None else reason(found),
        asked=summary.total,
        scored=summary.completed,
        policy_failures=summary.policy_failures,
        infra_errors=summary.infra_errors,
        unscored=summary.unscored,
        cancelled=summary.cancelled,
        not_run=summary.not_run,
        correct=summary.correct,
        turns=summary.turns,
        turns_unscored=summary.turns_unscored,
        empty_replies=sum(reply.empty for reply in replies),
        thought_only_replies=sum(reply.thought_only for reply in replies),
    )


def never_begun(error: Exception) -> RunStatus:
    """Of a run that was to be, and failed before its first episode."""
    return RunStatus(SCHEMA_VERSION, Health.FAILED, exit_code(error), reason(error))


def exit_code(error: Exception) -> int:
    return error.exit_code if isinstance(error, KernelEnvError) else 1


def reason(error: Exception) -> str:
    """In one line. Of several errors the first one's; a fault of ours is named as well."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return " ".join((str(error) if isinstance(error, KernelEnvError) else f"{type(error).__name__}: {error}").split())


def read_status(run: Path) -> RunStatus | None:
    """Of a run's directory; None where it has not ended. Raises ConfigError for a file that is damaged."""
    path = run / "status.json"
    return read_document(path, RunStatus) if path.is_file() else None

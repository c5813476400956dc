"""The gate at a run's end: what is no success, by which exit code, and what `status.json` says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

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
from kernel_env.schema import Episode, Generation, Status, StopReason, Turn
from rollout.documents import summarize
from rollout.health import Health, RunStatus, fault, status
from tests.sample_run import problem, run_info, turn

CORRECT = turn(0, Status.CORRECT, 1.5, speedup=1.5)
WRONG = turn(0, Status.WRONG_OUTPUT, 0.1)
UNSCORED = turn(0, Status.NEEDS_DEVICE, None)
NO_CODE = turn(0, Status.NO_CODE, 0.0)


def said(generation: Generation) -> Turn:
    return replace(NO_CODE, generation=generation)


def judged(*ends: tuple[Sequence[Turn], StopReason, str], allow_zero: bool = False) -> tuple[KernelEnvError | None, RunStatus]:
    """Of a run with one episode for each of these ends, and one more that never ran where there are none."""
    episodes = [Episode(problem(n + 1), 0, tuple(turns), reason, error) for n, (turns, reason, error) in enumerate(ends)]
    summary = summarize(episodes, run_info(asked=[e.key for e in episodes] or ["level1_problem1"]))
    found = fault(summary, episodes, allow_zero=allow_zero)
    return found, status(summary, episodes, found)


def over(*turns: Turn) -> tuple[Sequence[Turn], StopReason, str]:
    unscored = any(t.reward.value is None for t in turns)
    return turns, StopReason.UNSCORED if unscored else StopReason.TURN_LIMIT, ""


FAILED = (), StopReason.INFRA_ERROR, "verifier: a worker died"
NO_REPLY = (), StopReason.POLICY_FAILURE, "endpoint_unreachable: nothing listens there"
WRONG_KEY = (), StopReason.POLICY_FAILURE, "authentication_failed: no; set policy.api_key"
LOST = (), StopReason.POLICY_FAILURE, "model_not_found: no; set policy.model"
EMPTY = over(said(Generation("  \n")))
THOUGHT = over(said(Generation("", "hm", "length")))


def test_a_run_with_a_correct_kernel_is_a_success() -> None:
    found, written = judged(over(CORRECT), over(WRONG))
    assert found is None
    assert (written.health, written.exit_code, written.reason) == (Health.OK, 0, "")


@pytest.mark.parametrize(
    ("ends", "kind", "code", "health", "reason"),
    [
        ([EMPTY, EMPTY], EmptyReplies, 9, Health.SUSPECT, "all 2 replies were empty"),
        ([THOUGHT], ThoughtOnly, 10, Health.SUSPECT, "raise sampling.max_tokens"),
        ([over(WRONG), EMPTY], NoneCorrect, 11, Health.SUSPECT, "none of 2 episodes was ever correct"),
        ([over(UNSCORED)], GateError, 3, Health.FAILED, "nothing could be judged on this machine"),
        ([], GateError, 3, Health.FAILED, "none of 1 episodes was scored (there was no reply)"),
        ([FAILED, FAILED], GateError, 3, Health.FAILED, "a worker died"),
        ([NO_REPLY, NO_REPLY], EndpointUnreachable, 6, Health.FAILED, "scored: endpoint_unreachable: nothing listens there"),
        ([WRONG_KEY], AuthenticationFailed, 7, Health.FAILED, "set policy.api_key"),
        ([LOST], ModelNotFound, 8, Health.FAILED, "set policy.model"),
        ([NO_REPLY, WRONG_KEY], GateError, 3, Health.FAILED, "none of 2 episodes was scored"),
        ([NO_REPLY, over(UNSCORED)], GateError, 3, Health.FAILED, "none of 2 episodes was scored"),
        ([over(CORRECT), FAILED], InfraError, 4, Health.FAILED, "1 of 2 episodes stay unscored: verifier: a worker died"),
        ([over(CORRECT), NO_REPLY], PolicyError, 5, Health.FAILED, "1 of 2 episodes got no reply"),
    ],
)
def test_each_kind_of_failure_has_a_code_and_a_reason_of_its_own(
    ends: list[tuple[Sequence[Turn], StopReason, str]], kind: type[KernelEnvError], code: int, health: Health, reason: str
) -> None:
    found, written = judged(*ends)
    assert type(found) is kind and reason in str(found)
    assert (written.health, written.exit_code) == (health, code) and reason in written.reason and "\n" not in written.reason


def test_zero_correct_is_a_result_where_that_was_said_before() -> None:
    found, written = judged(over(WRONG), allow_zero=True)
    assert found is None and written.health is Health.OK and written.correct == 0


@pytest.mark.parametrize("end", [EMPTY, THOUGHT, over(UNSCORED)])
def test_what_is_no_result_stays_none(end: tuple[Sequence[Turn], StopReason, str]) -> None:
    assert judged(end, allow_zero=True)[0] is not None


def test_the_counts_add_up_to_what_was_asked_for() -> None:
    _, written = judged(over(CORRECT), over(UNSCORED), FAILED, NO_REPLY, EMPTY, THOUGHT)
    parts = written.scored, written.unscored, written.infra_errors, written.policy_failures, written.not_run
    assert parts == (3, 1, 1, 1, 0) and sum(parts) == written.asked == 6
    assert (written.correct, written.turns, written.empty_replies, written.thought_only_replies) == (1, 4, 1, 1)


@pytest.mark.parametrize(
    ("generation", "thought_only"),
    [
        (Generation("<think>and then", finish_reason="length"), True),
        (Generation("", "and then", "length"), True),
        (Generation("<think>so</think> class", finish_reason="length"), False),
        (Generation("so</think> ok <think>and", finish_reason="length"), True),
        (Generation("class", "so", "length"), False),
        (Generation("class", finish_reason="length"), False),
        (Generation("<think>and then"), False),
    ],
)
def test_a_reply_that_never_came_to_its_answer_is_known(generation: Generation, thought_only: bool) -> None:
    assert generation.thought_only is thought_only

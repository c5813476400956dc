"""The engine: limits, groups, stragglers, replies that are broken off, and cancellation at any moment."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kernel_env.episode import EpisodeConfig
from kernel_env.errors import ConfigError, EndpointUnreachable, InfraError, PolicyExhausted, VerifierBusy
from kernel_env.schema import Candidate, Episode, Generation, Problem, Status, StopReason, Turn, Usage, Verdict, episode_key
from kernel_env.verifier import BlockingVerifier
from rollout.engine import MOST_ABORTS, Engine, EngineConfig, MemoryJournal
from rollout.policies import Capabilities, GenerationRequest, Sampling
from rollout.runner import RunJournal
from rollout.store import RunStore, open_run
from rollout.stragglers import MinimumGroup, Retry, Stragglers, Wait
from tests.conftest import GOOD, QUICK, python_candidate
from tests.kill_harness import Process, descendants
from tests.players import Checker, Writer, code, verdict
from tests.sample_run import CONFIG, ENVIRONMENT, problem, run_info, tree

TURNS = EpisodeConfig(max_turns=3)
LIMIT_S = 30.0
"""A test that hangs ends."""


def run(work: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S):
            await work

    asyncio.run(limited())


def played(
    writer: Writer | None = None,
    checker: Checker | None = None,
    *,
    problems: int = 1,
    spare: int = 0,
    journal: MemoryJournal | None = None,
    stragglers: Stragglers | None = None,
    **config: Any,
) -> dict[str, Episode]:
    """All episodes of a few problems, by key."""
    journal = journal or MemoryJournal()
    chosen = EngineConfig(episode=TURNS, stragglers=stragglers or Wait(), **config)
    engine = Engine(writer or Writer(), checker or Checker(), journal, chosen, master_seed=7)
    run(engine.play([problem(number + 1) for number in range(problems)], spare))
    return journal.episodes


def ends(episodes: dict[str, Episode]) -> dict[str, str]:
    return {key: episode.stop_reason.value for key, episode in episodes.items()}


def after_some(rng: random.Random) -> Callable[[str], Coroutine[Any, Any, None]]:
    """Lets others run for a while, how long is drawn."""

    async def wait(what: str) -> None:
        for _ in range(rng.randrange(8)):
            await asyncio.sleep(0)

    return wait


async def for_ever(what: str) -> None:
    await asyncio.Event().wait()


def raising(error: Exception, *, on: str, times: int = 1000) -> Callable[[str], Coroutine[Any, Any, None]]:
    left = [error] * times

    async def wait(what: str) -> None:
        if what == on and left:
            raise left.pop()

    return wait


# ------------------------------------------------------------------ groups and limits


def test_each_problem_has_a_group_of_trajectories() -> None:
    episodes = played(problems=2, samples=3)
    assert set(episodes) == {episode_key(f"level1_problem{p}", s) for p in (1, 2) for s in range(3)}
    assert {(len(e.turns), e.stop_reason) for e in episodes.values()} == {(3, StopReason.TURN_LIMIT)}


@pytest.mark.parametrize("seed", range(3))
def test_what_is_played_does_not_depend_on_who_comes_first(seed: int) -> None:
    rng = random.Random(seed)
    writer, checker = Writer(after_some(rng)), Checker(after_some(rng))
    mixed = played(writer, checker, problems=4, samples=3, concurrency=7, requests=3)
    calm = played(problems=4, samples=3, concurrency=1)
    assert mixed == calm and list(mixed) != list(calm)


def test_samples_of_a_problem_are_tried_with_the_same_seeds() -> None:
    seeds = [[turn.verdict.seed for turn in e.turns] for e in played(samples=2).values()]
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == 3


def test_requests_and_trajectories_stay_below_their_limits() -> None:
    rng = random.Random(0)
    writer, checker = Writer(after_some(rng)), Checker(after_some(rng))
    played(writer, checker, problems=4, samples=5, concurrency=6, requests=2)
    assert writer.busy.most == 2 and 2 < checker.busy.most <= 6


def test_no_trajectory_holds_a_request_while_it_is_verified() -> None:
    """Four verifications begin before any ends, with one request at a time."""
    all_there = asyncio.Barrier(4)

    async def wait(what: str) -> None:
        await all_there.wait()

    writer = Writer()
    assert len(played(writer, Checker(wait), samples=4, requests=1)) == 4
    assert writer.busy.most == 1


def test_no_trajectory_is_verified_while_it_waits_for_a_reply() -> None:
    """Four requests of the second turn are there at once, with one verification at a time."""
    all_there, slot = asyncio.Barrier(4), asyncio.Lock()

    async def ask(what: str) -> None:
        if what.endswith("turn 1"):
            await all_there.wait()

    async def verify(what: str) -> None:
        async with slot:
            await asyncio.sleep(0)

    assert len(played(Writer(ask), Checker(verify), samples=4)) == 4


# ------------------------------------------------------------------ failures and stragglers

FAILURES = [
    (EndpointUnreachable("gone"), StopReason.POLICY_FAILURE, "endpoint_unreachable: gone"),
    (VerifierBusy("no\nslot"), StopReason.INFRA_ERROR, "verifier_busy: no slot"),
]


def failing_in_turn_1(error: Exception, times: int = 1000) -> tuple[Writer, Checker]:
    """Of sample 1: where the policy is asked, or where the candidate is verified."""
    key = "level1_problem1_sample1"
    if isinstance(error, EndpointUnreachable):
        return Writer(raising(error, on=f"{key} turn 1", times=times)), Checker()
    request = GenerationRequest((), Sampling(), key, 1)
    return Writer(), Checker(raising(error, on=Candidate(code(request), "cpp").digest, times=times))


@pytest.mark.parametrize(("error", "reason", "line"), FAILURES)
def test_a_failure_ends_its_trajectory_and_no_other(error: Exception, reason: StopReason, line: str) -> None:
    episodes = played(*failing_in_turn_1(error), samples=3)
    failed = episodes["level1_problem1_sample1"]
    assert (failed.stop_reason, failed.error, len(failed.turns)) == (reason, line, 1)
    assert sorted(len(e.turns) for e in episodes.values()) == [1, 3, 3]


@pytest.mark.parametrize(("error", "reason", "line"), FAILURES)
def test_what_is_tried_again_goes_on_after_its_last_turn(error: Exception, reason: StopReason, line: str) -> None:
    calm = played(samples=3)
    writer, checker = failing_in_turn_1(error, times=2)
    assert played(writer, checker, samples=3, stragglers=Retry(2)) == calm
    assert writer.asked.count("level1_problem1_sample1 turn 0") == 1
    writer, checker = failing_in_turn_1(error, times=3)
    again = played(writer, checker, samples=3, stragglers=Retry(2))["level1_problem1_sample1"]
    assert (again.stop_reason, len(again.turns)) == (reason, 1)


def test_a_recording_that_ends_is_no_failure() -> None:
    writer = Writer(raising(PolicyExhausted("no more"), on="level1_problem1 turn 2"))
    episode = played(writer, stragglers=Retry(5))["level1_problem1"]
    assert (episode.stop_reason, episode.error, len(episode.turns)) == (StopReason.EXHAUSTED, "", 2)
    assert writer.asked.count("level1_problem1 turn 2") == 1


def hanging(*prefixes: str) -> Callable[[str], Coroutine[Any, Any, None]]:
    async def wait(what: str) -> None:
        if what.startswith(prefixes):
            await for_ever(what)
        await asyncio.sleep(0)

    return wait


def test_a_group_is_complete_with_its_first_members_and_the_others_are_cancelled() -> None:
    writer = Writer(hanging("level1_problem1_sample1 turn 2", "level1_problem1_sample3 turn 0"))
    episodes = played(writer, samples=4, stragglers=MinimumGroup(2))
    assert {key: (e.stop_reason.value, len(e.turns), e.error) for key, e in episodes.items()} == {
        "level1_problem1": ("turn_limit", 3, ""),
        "level1_problem1_sample1": ("cancelled", 2, ""),
        "level1_problem1_sample2": ("turn_limit", 3, ""),
        "level1_problem1_sample3": ("cancelled", 0, ""),
    }
    assert (writer.busy.now, writer.busy.cancelled) == (0, 2)


def test_a_verification_is_cancelled_with_its_trajectory() -> None:
    slow = Candidate(code(GenerationRequest((), Sampling(), "level1_problem1_sample1", 1)), "cpp").digest
    checker = Checker(hanging(slow))
    episodes = played(checker=checker, samples=2, stragglers=MinimumGroup(1))
    assert {key: len(e.turns) for key, e in episodes.items()} == {"level1_problem1": 3, "level1_problem1_sample1": 1}
    assert (checker.busy.now, checker.busy.cancelled) == (0, 1)


def test_a_member_that_was_not_begun_is_cancelled_too() -> None:
    """Sample 0 ends before the others have done anything at all."""
    episodes = played(samples=4, concurrency=1, stragglers=MinimumGroup(1))
    assert [e.stop_reason for e in episodes.values()] == [StopReason.TURN_LIMIT, *[StopReason.CANCELLED] * 3]
    assert [len(e.turns) for e in episodes.values()] == [3, 0, 0, 0]


@pytest.mark.parametrize(
    "error", [EndpointUnreachable("gone"), PolicyExhausted("empty recording")], ids=lambda error: type(error).__name__
)
def test_members_without_a_score_complete_no_group(error: Exception) -> None:
    writer = Writer(raising(error, on="level1_problem1 turn 0"))
    episodes = played(writer, samples=3, concurrency=1, stragglers=MinimumGroup(2))
    assert {key: len(e.turns) for key, e in episodes.items()} == {
        "level1_problem1": 0, "level1_problem1_sample1": 3, "level1_problem1_sample2": 3,
    }  # fmt: skip


class Undecided(Checker):
    """Cannot judge the first sample here."""

    async def verify(self, problem: Problem, candidate: Candidate, *rest: Any, **options: Any) -> Verdict:
        found = await super().verify(problem, candidate, *rest, **options)
        if "sample" in candidate.code:
            return found
        return replace(found, status=Status.NEEDS_DEVICE, timing=None, trials_passed=0)


def test_an_unscored_member_completes_no_group() -> None:
    episodes = played(checker=Undecided(), samples=3, concurrency=1, stragglers=MinimumGroup(2))
    assert [e.stop_reason.value for e in episodes.values()] == ["unscored", "turn_limit", "turn_limit"]


def test_with_spare_groups_the_first_complete_ones_are_kept() -> None:
    writer = Writer(hanging("level1_problem2_sample1 turn 1"))
    episodes = played(writer, problems=3, samples=2, spare=1)
    assert ends(episodes) == {
        "level1_problem1": "turn_limit", "level1_problem1_sample1": "turn_limit",
        "level1_problem2": "turn_limit", "level1_problem2_sample1": "cancelled",
        "level1_problem3": "turn_limit", "level1_problem3_sample1": "turn_limit",
    }  # fmt: skip
    assert len(episodes["level1_problem2_sample1"].turns) == 1


def test_groups_that_were_not_begun_are_cancelled_when_enough_are_complete() -> None:
    episodes = played(problems=4, samples=2, spare=3, concurrency=1)
    assert list(ends(episodes).values()) == ["turn_limit"] * 2 + ["cancelled"] * 6


def test_a_spare_group_stands_in_for_one_that_fails() -> None:
    writer = Writer(raising(EndpointUnreachable("gone"), on="level1_problem1 turn 1"))
    episodes = played(writer, problems=3, samples=2, spare=1, concurrency=2)
    assert ends(episodes) == {
        "level1_problem1": "policy_failure", "level1_problem1_sample1": "turn_limit",
        "level1_problem2": "turn_limit", "level1_problem2_sample1": "turn_limit",
        "level1_problem3": "turn_limit", "level1_problem3_sample1": "turn_limit",
    }  # fmt: skip


def test_all_groups_cannot_be_spare() -> None:
    with pytest.raises(ConfigError, match="2 of 2 groups cannot be spare"):
        played(problems=2, spare=2)


def test_a_journal_with_enough_of_a_group_has_the_others_cancelled_unasked() -> None:
    journal = MemoryJournal()
    full = played(samples=3)
    run(journal.end_episode(full["level1_problem1_sample2"]))
    for turn in full["level1_problem1"].turns[:2]:
        run(journal.save_turn(problem(1), 0, turn))
    writer = Writer()
    episodes = played(writer, journal=journal, samples=3, stragglers=MinimumGroup(1))
    assert writer.asked == []
    assert ends(episodes) == {
        "level1_problem1_sample2": "turn_limit", "level1_problem1": "cancelled", "level1_problem1_sample1": "cancelled",
    }  # fmt: skip
    assert len(episodes["level1_problem1"].turns) == 2


def test_an_engine_goes_on_after_the_last_turn_of_its_journal() -> None:
    journal, writer = MemoryJournal(), Writer()
    full = played(samples=2)
    for turn in full["level1_problem1"].turns[:2]:
        run(journal.save_turn(problem(1), 0, turn))
    assert played(writer, journal=journal, samples=2) == full
    assert sorted(writer.asked) == ["level1_problem1 turn 2", *(f"level1_problem1_sample1 turn {t}" for t in range(3))]


def test_a_journal_of_another_run_is_refused_in_one_plain_error() -> None:
    journal = MemoryJournal()
    run(journal.save_turn(problem(1), 0, replace(played()["level1_problem1"].turns[0], messages=())))
    with pytest.raises(ConfigError, match="belongs to another conversation"):
        played(journal=journal, problems=3, samples=2)


def test_a_full_disk_is_one_plain_error_and_nothing_goes_on() -> None:
    class Full(MemoryJournal):
        async def save_turn(self, problem: Problem, sample: int, turn: Turn) -> None:
            raise InfraError("cannot write: no space left")

    writer = Writer()
    with pytest.raises(InfraError, match="no space left"):
        played(writer, journal=Full(), problems=3, samples=2)
    assert writer.busy.now == 0


# ------------------------------------------------------------------ replies that are broken off


class Breaking(Writer):
    """Samples one token a character, and breaks a reply off after as many as it is told."""

    PROMPT = (1, 2, 3)

    def __init__(self, *breaks: int, token_ids: bool = True) -> None:
        super().__init__(capabilities=Capabilities(token_ids=token_ids, logprobs=token_ids))
        self.requests: list[GenerationRequest] = []
        self._breaks = list(breaks)

    async def generate(self, request: GenerationRequest) -> Generation:
        self.requests.append(request)
        whole = f"```python\n{code(request)}```\n"
        begun = (request.prompt_ids or self.PROMPT)[len(self.PROMPT) :]
        end = len(begun) + self._breaks.pop(0) if self._breaks else len(whole)
        text = whole[len(begun) : end]
        known = self.capabilities.token_ids
        return Generation(
            text,
            finish_reason="stop" if end >= len(whole) else "abort",
            usage=Usage(len(self.PROMPT) + len(begun), len(text)),
            model="m",
            duration_s=1.0,
            output_ids=tuple(map(ord, text)) if known else None,
            output_logprobs=tuple(-float(len(begun) + n) for n in range(len(text))) if known else None,
            prompt_ids=(request.prompt_ids or self.PROMPT) if known else None,
            weight_version=str(len(self.requests)),
        )


def first_turn(writer: Breaking, sampling: Sampling | None = None) -> Turn:
    episode = played(writer, sampling=sampling or Sampling())["level1_problem1"]
    return episode.turns[0]


def test_a_reply_that_was_broken_off_is_continued_after_its_last_token() -> None:
    whole, broken = Breaking(), Breaking(10, 5)
    reply = first_turn(broken).generation
    calm = first_turn(whole).generation
    assert [(r.prompt_ids, r.sampling.max_tokens) for r in broken.requests[:3]] == [
        (None, 8192),
        ((*Breaking.PROMPT, *map(ord, calm.text[:10])), 8182),
        ((*Breaking.PROMPT, *map(ord, calm.text[:15])), 8177),
    ]
    assert [r.begun for r in broken.requests[:3]] == [0, 10, 15]
    assert all(r.messages == whole.requests[0].messages for r in broken.requests[:3])
    assert reply == replace(calm, duration_s=3.0, weight_version="1..3")


def test_a_reply_that_is_broken_off_at_the_token_limit_is_a_long_one() -> None:
    reply = first_turn(Breaking(10, 1000), Sampling(max_tokens=10)).generation
    assert (reply.finish_reason, len(reply.output_ids or ())) == ("length", 10)


def test_without_token_ids_a_reply_is_asked_for_anew_and_nothing_of_the_broken_one_is_left() -> None:
    broken = Breaking(10, 5, token_ids=False)
    reply = first_turn(broken).generation
    assert reply == replace(first_turn(Breaking(token_ids=False)).generation, weight_version="3")
    assert broken.requests[0] == broken.requests[1] == broken.requests[2] and broken.requests[0].prompt_ids is None


@pytest.mark.parametrize("token_ids", [True, False])
def test_a_reply_that_never_ends_is_not_scored(token_ids: bool) -> None:
    writer = Breaking(*[1] * 100, token_ids=token_ids)
    episode = played(writer)["level1_problem1"]
    assert (episode.stop_reason, episode.turns, len(writer.requests)) == (StopReason.POLICY_FAILURE, (), MOST_ABORTS + 1)
    assert episode.error.startswith(f"policy: writer: turn 0 of level1_problem1 was aborted {MOST_ABORTS + 1} times")


# ------------------------------------------------------------------ cancellation

ASKED = tuple(episode_key(f"level1_problem{p}", s) for p in (1, 2, 3) for s in range(2))


async def play_on_disk(store: RunStore, writer: Writer, checker: Checker, stragglers: Stragglers | None = None) -> None:
    config = EngineConfig(TURNS, samples=2, concurrency=5, requests=3, stragglers=stragglers or Wait())
    with RunJournal(store) as journal:
        await Engine(writer, checker, journal, config, master_seed=7).play([problem(1), problem(2), problem(3)])


def open_store(root: Path) -> RunStore:
    return open_run(root, run_info(asked=ASKED), CONFIG, ENVIRONMENT)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("undisturbed")
    with open_store(root) as store:
        run(play_on_disk(store, Writer(), Checker()))
    return tree(root / "r")


@pytest.mark.parametrize("seed", range(8))
def test_cancelled_at_any_moment_nothing_runs_on_and_the_next_run_ends_the_same(
    seed: int, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    rng = random.Random(seed)

    async def disturbed() -> None:
        cancelled = True
        while cancelled:
            writer, checker = Writer(after_some(rng)), Checker(after_some(rng))
            with open_store(tmp_path) as store:
                before = tree(tmp_path / "r")
                playing = asyncio.create_task(play_on_disk(store, writer, checker))
                await asyncio.sleep(rng.random() * 0.05)
                cancelled = playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
                assert playing.cancelled() or playing.exception() is None
                assert (writer.busy.now, checker.busy.now) == (0, 0)
                assert all(e.stop_reason is StopReason.TURN_LIMIT for e in store.load_episodes()), "no end was made up"
            turns = {name: data for name, data in before.items() if name.startswith(("turns", "episodes"))}
            assert turns.items() <= tree(tmp_path / "r").items(), "what is durable stays as it is"

    run(disturbed())
    assert tree(tmp_path / "r") == undisturbed


@pytest.mark.parametrize("seed", range(4))
def test_a_cancelled_run_with_minimum_groups_ends_with_no_end_missing(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)

    async def disturbed() -> None:
        for left in reversed(range(4)):
            with open_store(tmp_path) as store:
                playing = asyncio.create_task(
                    play_on_disk(store, Writer(after_some(rng)), Checker(after_some(rng)), MinimumGroup(1))
                )
                if left:
                    await asyncio.sleep(rng.random() * 0.05)
                    playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)

    run(disturbed())
    with open_store(tmp_path) as store:
        episodes = {e.key: e for e in store.load_episodes()}
    assert set(episodes) == set(ASKED)
    for number in (1, 2, 3):
        group = [episodes[episode_key(f"level1_problem{number}", sample)].stop_reason for sample in range(2)]
        assert StopReason.TURN_LIMIT in group and set(group) <= {StopReason.TURN_LIMIT, StopReason.CANCELLED}


HANGING = python_candidate("time.sleep(1000); return mine(x, self.scale)", top="import time")


class Mixed(Writer):
    """Sample 1 writes a kernel that never ends. Once that has the verifier's only slot, sample 0 gives up."""

    async def generate(self, request: GenerationRequest) -> Generation:
        if "sample1" in request.episode:
            return Generation(f"```python\n{HANGING}```\n")
        async with asyncio.timeout(LIMIT_S):
            while not runners():  # noqa: ASYNC110 - processes give no sign
                await asyncio.sleep(0.02)
        return Generation("I have no idea.")


def runners() -> list[Process]:
    """What zygotes below this process run."""
    below = descendants(os.getpid())
    zygotes = {p.pid for p in below if "referee.zygote" in p.command}
    return [p for p in below if p.parent in zygotes and not p.waiting]


def test_a_straggler_frees_its_slot_of_the_real_verifier(verifier: BlockingVerifier, problem: Problem) -> None:
    journal = MemoryJournal()
    verify = replace(QUICK, timeout_s=600, measure_performance=False)
    config = EngineConfig(EpisodeConfig(max_turns=1, verify=verify), samples=2, stragglers=MinimumGroup(1))

    async def scenario() -> Verdict:
        async with asyncio.timeout(2 * LIMIT_S):
            await Engine(Mixed(), verifier.verifier, journal, config, master_seed=1).play([problem])
            return await verifier.verifier.verify(problem, Candidate(GOOD, "cpp"), verify, seed=2)

    assert verifier.run(scenario()).correct, "the only slot is free again"
    assert ends(journal.episodes) == {"level1_problem1": "turn_limit", "level1_problem1_sample1": "cancelled"}


def test_the_verdicts_of_these_tests_are_not_all_the_same() -> None:
    found = {verdict(problem(), Candidate(f"# {n}", "cpp"), 0).status for n in range(9)}
    assert found == {Status.CORRECT, Status.WRONG_OUTPUT}


@pytest.mark.parametrize(("seed", "sent"), [(None, {None}), (7, {7, 8, 9})])
def test_the_samples_of_a_problem_have_seeds_of_their_own(seed: int | None, sent: set[int | None]) -> None:
    class Noting(Writer):
        seeds: dict[str, int | None]

        async def generate(self, request: GenerationRequest) -> Generation:
            self.seeds[request.episode] = request.sampling.seed
            return await super().generate(request)

    writer = Noting()
    writer.seeds = {}
    played(writer, samples=3, sampling=Sampling(seed=seed))
    assert set(writer.seeds.values()) == sent and writer.seeds["level1_problem1"] == seed

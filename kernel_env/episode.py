"""One episode: replies in, turns out. The environment and the rollout runner both drive this and nothing else.

Data goes one way: reply, extraction, verification, reward, feedback message, history. Waiting happens only in the verifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from kernel_env.errors import ConfigError
from kernel_env.parsing import Extraction, extract_kernel, without_thinking
from kernel_env.prompts import FeedbackConfig, improvement_message, initial_messages, restated_messages
from kernel_env.referee.config import VerifyConfig, derive_seed
from kernel_env.reward import Attempt, RewardConfig, Shaping, measured_reward, reached_stop
from kernel_env.schema import Candidate, Generation, Message, Problem, Stage, Status, StopReason, Thinking, Turn, Verdict
from kernel_env.verifier import MAX_CODE_BYTES, Verifier

THOUGHT_ONLY = (
    "The reply reached its token limit while it was still thinking, so there is no answer. Think more briefly, and answer with one "
    "complete fenced Python block that defines class ModelNew."
)
HISTORIES = ("accumulate", "restated", "last-turn-only", "strip-thinking")


@dataclass(frozen=True)
class EpisodeConfig:
    """Everything that decides how an episode goes, given the problem and the replies."""

    backend: str = "cpp"
    max_turns: int = 3
    reward: RewardConfig = field(default_factory=RewardConfig)
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    dataset_prompt: bool | None = None
    """Use the data set's own prompt: True, False, or None for where it fits the back end."""
    history: str = "accumulate"
    """`accumulate`: messages grow turn by turn. `strip-thinking`: likewise, without what earlier replies thought. `last-turn-only`:
    the first messages, the last reply and its feedback. `restated`: one user message that retells the attempts so far."""

    def __post_init__(self) -> None:
        if self.max_turns < 1:
            raise ConfigError(f"rollout.max_turns must be 1 or more, got {self.max_turns}")
        if self.history not in HISTORIES:
            raise ConfigError(f"rollout.history={self.history}: choose one of {', '.join(HISTORIES)}")


class EpisodeState:
    """A conversation in progress: replies raw, nothing truncated, feedback messages byte for byte."""

    def __init__(self, problem: Problem, config: EpisodeConfig, seed: int, shaping: Shaping | None = None) -> None:
        """`seed` is the episode's; the verification of turn t derives its own from it."""
        self.problem, self.config, self.seed, self._shaping = problem, config, seed, shaping
        self.turns: list[Turn] = []
        self._initial = initial_messages(problem, config.backend, config.dataset_prompt)
        self.messages: tuple[Message, ...] = self._initial
        self.stop_reason: StopReason | None = None

    @property
    def done(self) -> bool:
        return self.stop_reason is not None

    async def step(self, generation: Generation, verifier: Verifier, thinking: Thinking | None = None) -> Turn:
        """Judge one reply and append it, with `thinking`. Raises InfraError when it could not be judged; the episode then stands
        where it stood."""
        if self.done:
            raise ConfigError("the episode is over: reset it before the next step")
        index = len(self.turns)
        extraction = extract_kernel(generation.text)
        attempt = Attempt(self.problem, self.messages, generation, extraction.code)
        ahead = await self._shaping.ahead(attempt) if self._shaping else {}
        seed = derive_seed(self.seed, "turn", index)
        code, verdict = extraction.code, await self._verdict(generation, extraction, seed, verifier)
        reward = measured_reward(verdict, self.config.reward)
        if self._shaping:
            reward = await self._shaping.reward(reward, attempt, ahead, verdict)
        turn = Turn(index, self.messages, generation, code, verdict, reward, thinking=thinking)
        if self._stop_after(turn) is None:
            turn = replace(turn, feedback=self._feedback(turn))
        self._append(turn)
        return turn

    def restore(self, turns: Sequence[Turn]) -> None:
        """Take over recorded turns of this very episode, for resuming. Raises ConfigError if they do not continue it."""
        for turn in turns:
            if turn.index != len(self.turns) or turn.messages != self.messages:
                raise ConfigError(
                    f"recorded turn {turn.index} of {self.problem.key} belongs to another conversation; use a new run.name"
                )
            self._append(turn)

    def _feedback(self, turn: Turn) -> str:
        """The next user message."""
        preset, config = self.config.reward.preset, self.config.feedback
        if self.config.history != "restated":
            return improvement_message(turn.verdict, preset, config)
        attempts = [(t.code, t.verdict) for t in (*self.turns, turn)]
        return restated_messages(self._initial, attempts, preset, config)[-1]["content"]

    def _append(self, turn: Turn) -> None:
        self.turns.append(turn)
        self.stop_reason = self._stop_after(turn)
        self.messages = self._following(turn.generation.text, turn.feedback)

    def _following(self, text: str, feedback: str | None) -> tuple[Message, ...]:
        """What the next reply answers; or, at the end, all that the last one answered, and that reply."""
        reply = {"role": "assistant", "content": text}
        if feedback is None:
            return (*self.messages, reply)
        told, history = {"role": "user", "content": feedback}, self.config.history
        if history == "restated":
            return (*self._initial[:-1], told)
        if history == "strip-thinking":
            reply["content"] = without_thinking(text)
        return (*(self._initial if history == "last-turn-only" else self.messages), reply, told)

    def _stop_after(self, turn: Turn) -> StopReason | None:
        """What is measured decides that alone."""
        measured = measured_reward(turn.verdict, self.config.reward)
        if measured.value is None:
            return StopReason.UNSCORED
        if reached_stop(measured, self.config.reward):
            return StopReason.SOLVED
        return StopReason.TURN_LIMIT if turn.index + 1 >= self.config.max_turns else None

    async def _verdict(self, generation: Generation, extraction: Extraction, seed: int, verifier: Verifier) -> Verdict:
        if extraction.code is not None:
            return await self.judge(extraction.code, seed, verifier)
        if generation.thought_only:
            return self._unbuilt(Status.TRUNCATED, Stage.PARSE, THOUGHT_ONLY, seed, category="thinking")
        return self._unbuilt(extraction.status or Status.NO_CODE, Stage.PARSE, extraction.message, seed)

    async def judge(self, code: str, seed: int, verifier: Verifier) -> Verdict:
        """The verdict on bare source code; the episode stands where it stood. Raises InfraError."""
        if len(code.encode(errors="replace")) > MAX_CODE_BYTES:
            text = f"The code has {len(code):,} characters; at most {MAX_CODE_BYTES:,} bytes are accepted."
            return self._unbuilt(Status.REJECTED, Stage.CHECK, text, seed, code)
        return await verifier.verify(self.problem, Candidate(code, self.config.backend), self.config.verify, seed)

    def _unbuilt(
        self, status: Status, stage: Stage, message: str, seed: int, code: str | None = None, category: str = ""
    ) -> Verdict:
        return Verdict(
            status=status,
            stage=stage,
            problem=self.problem.key,
            problem_digest=self.problem.digest,
            candidate_digest="" if code is None else Candidate(code, self.config.backend).digest,
            backend=self.config.backend,
            profile=self.problem.profile,
            category=category,
            message=message,
            trials=self.config.verify.num_correct_trials,
            seed=seed,
        )

"""The waist: what is stored comes back equal, and what is impossible cannot be made."""

from __future__ import annotations

import ast
import inspect
import json
import math
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_env import errors, schema
from kernel_env.schema import (
    SCHEMA_VERSION,
    Candidate,
    Compiled,
    Episode,
    Generation,
    Opinion,
    Problem,
    Reward,
    Stage,
    Stats,
    Status,
    StopReason,
    Thinking,
    Timing,
    Turn,
    Usage,
    Verdict,
    dumps,
    from_json,
    to_json,
)

STORED = Path(__file__).parent / "data"

PROBLEM = Problem(
    2, 7, "Fused_ü", "class Model: ...\n", "jsonl", "cpu", {"ROWS": 16}, ({"role": "user", "content": "write\na kernel"},)
)
STATS = Stats(1.0, 1.1, 0.2, 0.5, 2.0, 9)
TIMING = Timing(STATS, Stats(3.0, 3.1, 0.2, 2.5, 4.0, 9), 3.0, 2.75, 3.25)
CORRECT = Verdict(
    Status.CORRECT, Stage.DONE, "level2_problem7", "ab", "cd", "cpp",
    profile="cpu", message="fine", log="printed\x00", timing=TIMING, trials_passed=5, trials=5, tolerance="kernelbench",
    weights="same_seed", seed=2**62, isolation=("process",), duration_ms=12.5, build_ms=3.0,
)  # fmt: skip
WRONG = Verdict(
    Status.WRONG_OUTPUT, Stage.TRIALS, "level2_problem7", "ab", "ce", "cpp", category="values", trials_passed=1, trials=5
)
UNSCORED = Verdict(Status.NEEDS_DEVICE, Stage.TRIALS, "level2_problem7", "ab", "cf", "triton", clock="recorded")
REWARD = Reward(1.25, {"correct": 1.0, "judge": None})
OPINION = Opinion(0.75, "no answer within 30 s", by_rules=True, flags=("no_kernel",), cached=True, latency_ms=1.5)
GENERATION = Generation(
    "```python\n```", "hm", "length", Usage(100, 20), "some-model", 1.5, (1, 2, 3), (-0.5, -0.25, 0.0), "step-3"
)
TURN = Turn(0, ({"role": "user", "content": "go"},), GENERATION, "code", WRONG, REWARD, "try again")
EPISODE = Episode(PROBLEM, 1, (TURN, replace(TURN, index=1, verdict=CORRECT, feedback=None)), StopReason.SOLVED)

EXAMPLES: dict[str, Any] = {
    "problem": PROBLEM,
    "candidate": Candidate("x = 'ü'\n", "cpp"),
    "stats": STATS,
    "timing": TIMING,
    "timing_with_light": replace(TIMING, hardware="a CPU, 2 cores", light_ms=0.25),
    "compiled": Compiled("cuda:90", "relu", 32, 0, 1024, "hm"),
    "verdict": CORRECT,
    "verdict_wrong": WRONG,
    "verdict_unscored": UNSCORED,
    "reward": REWARD,
    "reward_none": Reward(None, reason="needs_device"),
    "reward_judged": Reward(1.075, {"correct": 1.0, "judge": 0.075}, "", {"judge": OPINION}, 1.0),
    "opinion": OPINION,
    "opinion_doubted": Opinion(0.75, doubts=("self_judged",)),
    "usage": Usage(1, 2),
    "generation": GENERATION,
    "thinking": Thinking("self", True, "YES\n", True, Usage(40, 1), 0.25),
    "turn": TURN,
    "episode": EPISODE,
    "episode_failed": Episode(PROBLEM, 0, (), StopReason.INFRA_ERROR, "the zygote is gone"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_written_comes_back_equal(name: str) -> None:
    value = EXAMPLES[name]
    assert from_json(type(value), json.loads(dumps(value))) == value


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_same_value_gives_the_same_text(name: str) -> None:
    value = EXAMPLES[name]
    assert dumps(from_json(type(value), json.loads(dumps(value, indent=1)))) == dumps(value)


def test_the_examples_cover_every_type_of_the_waist() -> None:
    waist = {cls for _, cls in inspect.getmembers(schema, inspect.isclass) if hasattr(cls, "__dataclass_fields__")}
    assert waist == {type(value) for value in EXAMPLES.values()}


def test_half_a_surrogate_pair_from_a_broken_reply_survives() -> None:
    candidate = Candidate("x = '\ud800'", "cpp")
    assert from_json(Candidate, json.loads(dumps(candidate))) == candidate
    assert candidate.digest != Candidate("x = '\ud801'", "cpp").digest


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_files_of_every_schema_version_are_still_read(version: int, name: str) -> None:
    text = (STORED / f"schema_v{version}" / f"{name}.json").read_text(encoding="utf-8")
    assert from_json(type(EXAMPLES[name]), json.loads(text)) == EXAMPLES[name]


FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text()
MESSAGES = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT}), max_size=2).map(tuple)


@st.composite
def all_stats(draw: st.DrawFn) -> Stats:
    low, middle, high = sorted(draw(st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=3)))
    return Stats(middle, middle, draw(st.floats(0, 1e6)), low, high, draw(st.integers(1, 1000)))


@st.composite
def all_turns(draw: st.DrawFn, index: int = 0) -> Turn:
    low, middle, high = sorted(draw(st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3)))
    timing = draw(st.none() | st.builds(Timing, all_stats(), all_stats(), st.just(middle), st.just(low), st.just(high)))
    ids = draw(st.none() | st.lists(st.integers(0, 2**31), max_size=3).map(tuple))
    verdict = Verdict(
        Status.CORRECT, draw(st.sampled_from([Stage.TIMING, Stage.DONE])), draw(TEXT), draw(TEXT), draw(TEXT), draw(TEXT),
        message=draw(TEXT), timing=timing, trials_passed=3, trials=3, seed=draw(st.integers(0, 2**63)), duration_ms=draw(FINITE),
    )  # fmt: skip
    generation = Generation(
        draw(TEXT), draw(TEXT), draw(st.sampled_from(["stop", "length", "abort"])), Usage(draw(st.integers(0)), 0),
        duration_s=draw(FINITE), output_ids=ids, output_logprobs=ids and tuple(-float(i) for i in ids),
    )  # fmt: skip
    reward = Reward(draw(FINITE), draw(st.dictionaries(TEXT, st.none() | FINITE, max_size=3)))
    return Turn(index, draw(MESSAGES), generation, draw(st.none() | TEXT), verdict, reward, draw(st.none() | TEXT))


@given(all_turns(), st.dictionaries(TEXT, st.integers(), max_size=3), TEXT, MESSAGES)
def test_any_episode_comes_back_equal(turn: Turn, overrides: dict[str, int], text: str, prompt: Any) -> None:
    problem = Problem(1, 2, text, text, overrides=overrides, prompt=prompt)
    episode = Episode(problem, 3, (turn,), StopReason.TURN_LIMIT)
    assert from_json(Episode, json.loads(dumps(episode))) == episode


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: replace(WRONG, timing=TIMING), "only a correct verdict has a timing"),
        (lambda: replace(CORRECT, trials_passed=4), "correct needs all trials"),
        (lambda: replace(CORRECT, trials_passed=0, trials=0), "correct needs all trials"),
        (lambda: replace(CORRECT, stage=Stage.TRIALS), "correct needs all trials"),
        (lambda: replace(WRONG, trials_passed=6), "trials_passed"),
        (lambda: replace(WRONG, trials_passed=-1), "trials_passed"),
        (lambda: replace(WRONG, duration_ms=math.nan), "finite"),
        (lambda: replace(WRONG, build_ms=math.inf), "finite"),
        (lambda: replace(TIMING, speedup=math.inf), "finite"),
        (lambda: replace(TIMING, speedup_low=0.0), "positive and ordered"),
        (lambda: replace(TIMING, speedup_low=4.0), "positive and ordered"),
        (lambda: replace(TIMING, noise=-0.1), "noise is 0 or more"),
        (lambda: replace(TIMING, noise=math.nan), "noise is 0 or more"),
        (lambda: replace(STATS, count=0), "at least one sample"),
        (lambda: replace(STATS, min_ms=0.0), "positive"),
        (lambda: replace(STATS, std_ms=-1.0), "positive"),
        (lambda: replace(STATS, median_ms=2.5), "median outside"),
        (lambda: replace(STATS, mean_ms=math.nan), "finite"),
        (lambda: Reward(math.nan), "finite or None"),
        (lambda: Reward(-math.inf), "finite or None"),
        (lambda: Reward(None), "says why"),
        (lambda: Reward(1.0, {"judge": math.nan}), "parts are finite"),
        (lambda: Reward(1.0, measured=math.inf), "measured reward is finite"),
        (lambda: Opinion(0.5, latency_ms=-1.0), "latency is 0 or more"),
        (lambda: replace(GENERATION, output_logprobs=(-1.0,)), "one log-probability per output id"),
        (lambda: replace(TURN, index=-1), "turn index"),
        (lambda: replace(TURN, verdict=UNSCORED), "unscored verdict has no reward"),
        (lambda: replace(EPISODE, turns=(replace(TURN, index=1),)), "numbered"),
        (lambda: replace(EPISODE, turns=(TURN, TURN)), "numbered"),
        (lambda: replace(EPISODE, error="but it was solved"), "has an error"),
        (lambda: replace(EPISODE, stop_reason=StopReason.POLICY_FAILURE), "has an error"),
    ],
)  # fmt: skip
def test_an_impossible_result_cannot_be_made(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_json_never_holds_a_number_that_is_none(value: float) -> None:
    with pytest.raises(ValueError, match="not representable"):
        dumps(Generation("", duration_s=value))
    with pytest.raises(ValueError, match="not representable"):
        dumps(Generation("", output_ids=(1, 2), output_logprobs=(-0.5, value)))
    with pytest.raises(ValueError, match="finite or None"):
        from_json(Reward, json.loads(json.dumps({"value": value})))


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object(), Candidate])
def test_only_waist_types_are_written(value: object) -> None:
    with pytest.raises(TypeError, match="is not a waist type"):
        to_json({"part": [value]})


def damaged(place: str, value: Any) -> Any:
    """EPISODE as JSON with one thing replaced (None removes it)."""
    data = json.loads(dumps(EPISODE))
    node = data
    *way, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    for part in way:
        node = node[part]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return data


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("problem.level", "2", r"Episode\.problem\.level: expected int, got str"),
        ("problem.level", True, r"Episode\.problem\.level: expected int, got bool"),
        ("problem.name", None, r"Episode\.problem: missing field name"),
        ("problem.colour", "red", r"Episode\.problem: unknown field colour"),
        ("problem.overrides", [], r"Episode\.problem\.overrides: expected an object"),
        ("problem.overrides", {"N": 1.5}, r"Episode\.problem\.overrides\.N: expected int, got float"),
        ("problem.prompt.0.content", 3, r"Episode\.problem\.prompt\[0\]\.content: expected str, got int"),
        ("turns", {}, r"Episode\.turns: expected a list"),
        ("turns.1.verdict.status", "fine", r"Episode\.turns\[1\]\.verdict\.status: 'fine' is not a Status"),
        ("turns.1.verdict.mode", "telepathy", r"Episode\.turns\[1\]\.verdict\.mode: 'telepathy' is not one of"),
        ("turns.1.verdict.timing.speedup", "3", r"Episode\.turns\[1\]\.verdict\.timing\.speedup: expected float, got str"),
        ("turns.0.generation.output_ids", [1, True], r"Episode\.turns\[0\]\.generation\.output_ids\[1\]: expected int, got bool"),
        ("turns.0.generation.output_ids", [1.5], r"Episode\.turns\[0\]\.generation\.output_ids\[0\]: expected int, got float"),
        ("turns.0.generation.usage", 3, r"Episode\.turns\[0\]\.generation\.usage: expected an object"),
        ("turns.0.reward.value", False, r"Episode\.turns\[0\]\.reward\.value: expected float, got bool"),
        ("stop_reason", 1, r"Episode\.stop_reason: 1 is not a StopReason"),
    ],
)
def test_wrong_data_names_the_path_of_its_first_fault(place: str, value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_json(Episode, damaged(place, value))


def test_a_whole_number_is_a_float_and_missing_options_take_their_defaults() -> None:
    assert from_json(Reward, {"value": 2}) == Reward(2.0)
    assert isinstance(from_json(Reward, {"value": 2}).value, float)
    logprobs = from_json(Generation, {"text": "", "output_logprobs": [-1, -0.5]}).output_logprobs
    assert logprobs == (-1.0, -0.5) and all(isinstance(value, float) for value in logprobs)


def test_digests_depend_on_all_that_decides() -> None:
    one = Candidate("code", "cpp")
    assert (
        len({one.digest, replace(one, code="cod").digest, replace(one, backend="triton").digest, replace(one, entry="E").digest})
        == 4
    )
    assert one.digest == Candidate("code", "cpp").digest
    assert PROBLEM.digest == replace(PROBLEM, name="other").digest != replace(PROBLEM, source="").digest


def test_keys_name_level_problem_and_sample() -> None:
    assert PROBLEM.key == "level2_problem7"
    assert EPISODE.key == "level2_problem7_sample1"
    assert replace(EPISODE, sample=0).key == "level2_problem7"
    assert EPISODE.rewards_T == (1.25, 1.25)


def test_what_a_verdict_says_follows_from_stage_and_status() -> None:
    assert CORRECT.correct and CORRECT.compiled and CORRECT.scored
    assert (CORRECT.speedup, CORRECT.runtime_ms) == (3.0, 1.0)
    assert WRONG.compiled and not WRONG.correct and WRONG.speedup is None and WRONG.runtime_ms is None
    assert not UNSCORED.compiled and not UNSCORED.scored
    assert not replace(WRONG, status=Status.BUILD_ERROR, stage=Stage.BUILD).compiled
    assert not replace(WRONG, status=Status.LOAD_ERROR, stage=Stage.LOAD).compiled


def test_every_status_and_stop_reason_has_a_meaning() -> None:
    """A documented member, or a word that says it all."""
    plain = {"TIMEOUT", "OUT_OF_MEMORY", "CORRECT", "TURN_LIMIT", "POLICY_FAILURE", "INFRA_ERROR"}
    for enum in (Status, StopReason):
        (body,) = ast.parse(inspect.getsource(enum)).body
        assert isinstance(body, ast.ClassDef)
        documented = {
            node.targets[0].id
            for node, after in zip(body.body, body.body[1:], strict=False)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(after, ast.Expr)
        }
        assert set(enum.__members__) == documented | (plain & set(enum.__members__))
    assert next(iter(Stage)) is Stage.PARSE and [*Stage][-1] is Stage.DONE


def drawn_tree() -> dict[str, tuple[str, int]]:
    """Class name -> (parent, exit code), from the picture in the module's docstring."""
    rows: dict[str, tuple[str, int]] = {}
    way: list[str] = ["KernelEnvError"]
    for branch, name, code in re.findall(r"^ {4}([│├└─ ]+ )(\w+).*\((\d+)\)$", errors.__doc__ or "", re.MULTILINE):
        depth = len(branch) // 4
        way[depth:] = [name]
        rows[name] = (way[depth - 1], int(code))
    return rows


def test_the_error_tree_is_as_drawn() -> None:
    drawn = drawn_tree()
    classes = {name: cls for name, cls in inspect.getmembers(errors, inspect.isclass) if cls is not errors.KernelEnvError}
    assert {name: (cls.__base__.__name__, cls.exit_code) for name, cls in classes.items()} == drawn
    assert errors.KernelEnvError.exit_code == 1


@pytest.mark.parametrize("name", [*drawn_tree(), "KernelEnvError"])
def test_errors_pickle(name: str) -> None:
    error = getattr(errors, name)("what, where, what to do")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(again) is type(error)
    assert (str(again), again.exit_code, again.kind) == (str(error), error.exit_code, error.kind)


def test_kinds_are_short_words() -> None:
    assert errors.EndpointUnreachable("").kind == "endpoint_unreachable"
    assert errors.ConfigError("").kind == "config"

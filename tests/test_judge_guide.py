"""The judge integration guide's own code runs, import paths aside, and its options mean what it says."""

from __future__ import annotations

import dataclasses
import logging
import shlex
import sys
from collections.abc import Mapping
from textwrap import indent
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

from kernel_env.errors import ConfigError
from rewards.judge import JudgeConfig, JudgeRewardSystem, MultiCritiqueJudge, compute_reward, create_judge_reward
from rewards.judge.models import Judge, Scored, careful, custom_judge
from tests.conftest import GOOD
from tests.judge_server import JudgeServer
from tests.scripted_judge import ScriptedJudge, answered, refused, score_of, scored

pytestmark = pytest.mark.usefixtures("judgeless_environment")

GUIDE = "reward.judge_reward_adapter"
"""Where the guide's code imports from; the only thing that is changed in it."""


def guide(code: str, **given: Any) -> dict[str, Any]:
    """Names after running code of the integration guide."""
    names = given
    exec(code.replace(GUIDE, "rewards.judge"), names)  # noqa: S102 - the code stands below
    return names


TRAINING = """
from reward.judge_reward_adapter import JudgeRewardSystem as RewardSystem

# Everything else stays the same!
reward_system = RewardSystem(config.get('reward', {}).get('config', {}))

reward_scores = []
for batch in batch_iterations:
    for item in batch:
        result = reward_system.reward(item.prompt, item.completion, item.answer)
        reward_scores.append(result['reward'])

if global_step % 100 == 0:
    metrics = reward_system.get_metrics()
    print(f"Judge metrics: {metrics}")

import logging
logging.getLogger("JudgeReward").setLevel(logging.DEBUG)

print(f"Inflight: {metrics['current_queue_size']}")
print(f"Hit rate': {metrics['cache_hit_rate']:.1%}")
print(f"Circuit: {metrics['circuit_breaker']['state']}")
"""

CONFIGURATION = """
reward:
  type: judge_model  # Change from None to judge_model
  config:
    judge_url: ${JUDGE_MODEL_URL}  # http://localhost:8888
    api_key: ${JUDGE_MODEL_API_KEY}  # Optional
    use_cache: true
    cache_size: 5000

    # Performance
    max_batch_size: 16  # Match your GPU memory
    batch_timeout: 0.05  # 50ms to form batches
    max_concurrent_requests: 32
    timeout: 30.0

    # Reliability
    fallback_to_rule: true  # Fallback to rules on failure
    max_retries: 3
"""


@dataclasses.dataclass(frozen=True)
class Item:
    prompt: str
    completion: str
    answer: str


def test_the_guides_training_loop_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    items = [[Item("What is 2+2?", "The answer is **boxed{4}**", "4"), Item("a", "b", "c")], [Item("a", "b", "c")]]
    with ScriptedJudge() as server:
        monkeypatch.setenv("JUDGE_MODEL_URL", server.url)
        names = guide(TRAINING, config=yaml.safe_load(CONFIGURATION), batch_iterations=items, global_step=200)
        names["reward_system"].close()
    logging.getLogger("JudgeReward").setLevel(logging.NOTSET)
    assert names["reward_scores"] == [score_of(item.completion) for batch in items for item in batch]
    assert capsys.readouterr().out.splitlines()[1:] == ["Inflight: 0", "Hit rate': 33.3%", "Circuit: closed"]


CUSTOM = """
from reward.judge_reward_adapter import BaseJudgeReward

class MyCustomJudge(BaseJudgeReward):
    def _request_judge(self, request):
        # Your custom logic here
        return super()._request_judge(request)
"""


def test_the_guides_custom_judge_runs() -> None:
    with ScriptedJudge() as server, guide(CUSTOM)["MyCustomJudge"]({"judge_url": server.url}) as judge:
        assert judge.compute_reward("p", "c", "a").score == score_of("c")


PANEL = """
class MultiCritiqueJudge:
    def __init__(self, judges: List[str]):
        self.judges = [create_judge_reward({'judge_url': url})
                      for url in judges]

    def score(self, prompt: str, completion: str, answer: str):
        scores = []
        for judge in self.judges:
            scores.append(judge.compute_reward(prompt, completion, answer))

        # Average scores or use voting
        return {
            'score': np.mean([s.score for s in scores]),
            'explanation': f'Voting平均得分: {np.mean(scores):.2f}'
        }
"""


def test_the_guides_panel_of_judges_runs() -> None:
    given = {"create_judge_reward": create_judge_reward, "np": np, "List": list}
    with ScriptedJudge([half]) as one, ScriptedJudge([lambda asked: half(asked, 1.0)]) as other:
        panel = guide(PANEL, **given)["MultiCritiqueJudge"]([one.url, other.url])
        found = panel.score("p", "c", "a")
        for judge in panel.judges:
            judge.close()
    assert found == {"score": 0.75, "explanation": "Voting平均得分: 0.75"}


JUDGE_MODEL = """
class YourJudgeModel:
    def __init__(self, model_path: str):
        # Load your model
        self.model = load_model(model_path)
        self.tokenizer = load_tokenizer(model_path)

    def score(self, prompt: str, completion: str, answer: str) -> Dict:
        # Combine prompt and completion
        text = f"Question: {prompt}\\nGenerated Answer: {completion}"

        # Check if answer exists (simplistic example)
        if answer and answer.lower() in completion.lower():
            score = 0.9
        else:
            # Run your model to get detailed scoring
            inputs = self.tokenizer(text, return_tensors="pt")
            outputs = self.model(**inputs)
            score = outputs.score.item()

        return {
            'score': min(max(score, 0.0), 1.0),
            'explanation': f'Model confidence: {score:.3f}'
        }
"""


def test_the_guides_judge_model_scores_behind_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its model says how long a text is, in hundreds of characters."""
    names = guide(
        JUDGE_MODEL,
        Dict=dict,
        load_model=lambda path: lambda input_ids: SimpleNamespace(score=np.float64(input_ids / 100)),
        load_tokenizer=lambda path: lambda text, return_tensors: {"input_ids": len(text)},
    )
    with JudgeServer(served(monkeypatch, names["YourJudgeModel"]("/models/mine"))) as server:
        found = [server.post("/judge", {"prompt": "p", "completion": c, "answer": "4"}).json for c in ("four", "4", "x" * 200)]
    texts = [(one["score"], one["explanation"]) for one in found]
    assert texts == [(0.34, "Model confidence: 0.340"), (0.9, "Model confidence: 0.900"), (1.0, "Model confidence: 2.300")]


def served(monkeypatch: pytest.MonkeyPatch, judge: Any) -> Judge:
    """A judge of one's own, as `kernel-env judge serve judge=package.module:NAME` finds it."""
    monkeypatch.setattr(sys.modules[__name__], "JUDGE", judge, raising=False)
    return custom_judge(f"{__name__}:JUDGE")


ASPECTS = """
return {
    'score': overall_score,
    'explanation': f'Correctness: {correctness}, Clarity: {clarity}',
    'detailed_scores': {
        'correctness': correctness,
        'clarity': clarity,
        'relevance': relevance
    }
}
"""
BY_TYPE = """
def score(self, prompt: str, completion: str, answer: str, answer_type: str):
    if answer_type == "MATH_EXPRESSIONS":
        # symbolic math checking
    elif answer_type == "MULTIPLE_CHOICE":
        # letter matching
    # ... other types
"""
"""Two comments of it stand where Python wants a statement."""
CALIBRATED = """
confidence = compute_uncertainty(outputs)
if confidence < 0.5:
    # Unclear case, be more conservative
    score = score * 0.8
"""


def test_the_guides_aspects_arrive_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    known = "overall_score, correctness, clarity, relevance = 0.8, 1.0, 0.5, 0.75"
    head = "class Mine:\n    def score(self, prompt, completion, answer):"
    mine = guide(f"{head}\n{indent(known + ASPECTS, ' ' * 8)}")["Mine"]
    with JudgeServer(served(monkeypatch, mine())) as server:
        found = server.post("/judge", {"prompt": "p", "completion": "c"}).json
    assert (found["score"], found["explanation"]) == (0.8, "Correctness: 1.0, Clarity: 0.5")
    assert found["detailed_scores"] == {"correctness": 1.0, "clarity": 0.5, "relevance": 0.75}


def test_the_guides_scoring_by_type_is_told_the_type(monkeypatch: pytest.MonkeyPatch) -> None:
    filled = BY_TYPE.replace("# symbolic math checking", "return {'score': 0.1}").replace(
        "# letter matching", "return {'score': 0.2}"
    )
    mine = guide(f"class Mine:\n{indent(filled, ' ' * 4)}")["Mine"]
    with JudgeServer(served(monkeypatch, mine())) as server:
        asked = [{"prompt": "p", "completion": "c", "answer_type": kind} for kind in ("MATH_EXPRESSIONS", "MULTIPLE_CHOICE")]
        assert [server.post("/judge", one).json["score"] for one in asked] == [0.1, 0.2]
        other = server.post("/judge", {"prompt": "p", "completion": "c", "answer_type": "NUMBER"})
    assert (other.status, other.json["kind"]) == (502, "bad_verdict")  # it returns nothing


@pytest.mark.parametrize(("confidence", "score"), [(0.6, 0.5), (0.4, 0.4)])
def test_the_guides_calibration_runs_and_ours_lowers_what_is_unsure_too(confidence: float, score: float) -> None:
    names = guide(CALIBRATED, compute_uncertainty=lambda _: confidence, outputs=None, score=0.5)
    assert names["score"] == pytest.approx(score)
    assert (careful(Scored(0.5, confidence=confidence)).score < 0.5) is (score < 0.5)


def half(asked: Any, score: float = 0.5) -> bytes:
    return answered(asked, [response | {"score": score} for response in scored(asked)])


def test_our_panel_of_judges_says_who_scored() -> None:
    with (
        ScriptedJudge([half]) as one,
        ScriptedJudge([lambda asked: half(asked, 1.0)]) as other,
        ScriptedJudge([refused(400)]) as third,
    ):
        panel = MultiCritiqueJudge([one.url, other.url])
        found = panel.score("p", "c", "a")
        panel.close()
        mixed = MultiCritiqueJudge([one.url, third.url])
        fallen = mixed.score("relu", GOOD, "class Model: ...")
        mixed.close()
    assert found == {
        "score": 0.75,
        "scores": [0.5, 1.0],
        "source": "judge",
        "explanation": "mean of 2 judges: 0.50, 1.00",
    }
    assert fallen["source"] == "rule_fallback"
    with pytest.raises(ConfigError, match="at least one judge"):
        MultiCritiqueJudge([])


def test_a_script_gets_a_score_in_one_call() -> None:
    with ScriptedJudge() as server:
        assert compute_reward("p", "c", config={"judge_url": server.url}).score == score_of("c")


# ------------------------------------------------------------------ options


def test_defaults_are_the_guides() -> None:
    assert dataclasses.asdict(JudgeConfig()) == {
        "judge_url": "http://localhost:8888",
        "api_key": None,
        "use_cache": True,
        "cache_size": 5000,
        "cache_ttl": 3600.0,
        "cache_path": None,
        "max_batch_size": 16,
        "batch_timeout": 0.05,
        "max_concurrent_requests": 32,
        "timeout": 30.0,
        "max_retries": 3,
        "retry_wait": 1.0,
        "retry_wait_max": 10.0,
        "queue_size": 1000,
        "fallback_to_rule": True,
        "circuit_breaker_threshold": 10,
        "circuit_breaker_timeout": 60.0,
    }


EXPORTS = """
export JUDGE_MODEL_URL="http://your-judge-server:8888"
export JUDGE_MAX_BATCH_SIZE=16
export JUDGE_MAX_CONCURRENT=32
"""


def test_the_guides_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for line in EXPORTS.strip().splitlines():
        name, _, value = "".join(shlex.split(line.removeprefix("export "))).partition("=")
        monkeypatch.setenv(name, value)
    given = yaml.safe_load(CONFIGURATION)["reward"]["config"] | {"max_batch_size": 3, "max_concurrent_requests": 5}
    with JudgeRewardSystem(given) as system:
        assert system.config == JudgeConfig("http://your-judge-server:8888")


ENVIRON = {"JUDGE_MODEL_URL": "http://env:1", "JUDGE_MODEL_API_KEY": "k", "JUDGE_MAX_BATCH_SIZE": "8", "JUDGE_MAX_CONCURRENT": "4"}


def test_the_environment_overrides_and_its_numbers_are_numbers() -> None:
    config = JudgeConfig.of({"judge_url": "http://given:1", "max_batch_size": 2, "timeout": 5}, ENVIRON)
    assert (config.judge_url, config.api_key) == ("http://env:1", "k")
    assert (config.max_batch_size, config.max_concurrent_requests, config.timeout) == (8, 4, 5.0)
    assert type(config.max_batch_size) is int and type(config.timeout) is float


def test_a_judge_of_several_keeps_its_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    with create_judge_reward({"judge_url": "http://one:1"}) as one, JudgeRewardSystem({"judge_url": "http://one:1"}) as system:
        assert (one.config.judge_url, one.config.max_batch_size) == ("http://one:1", 8)
        assert system.config.judge_url == "http://env:1"


def test_text_is_read_as_the_option_wants_it() -> None:
    given = {"timeout": "2.5", "use_cache": "False", "judge_url": "${WHERE}", "api_key": "${NOT_SET}", "max_retries": "${RETRIES}"}
    config = JudgeConfig.of(given, {"WHERE": "https://judge.example/api", "RETRIES": "0"})
    assert config == JudgeConfig("https://judge.example/api", timeout=2.5, use_cache=False, max_retries=0)
    assert JudgeConfig.of({"judge_url": "${NOT_SET}"}, {}) == JudgeConfig() == JudgeConfig.of(None, {"JUDGE_MODEL_URL": ""})


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({"max_batch_size": "many"}, "judge.max_batch_size='many': must be a number"),
        ({"use_cache": "maybe"}, "judge.use_cache='maybe': must be true or false"),
        ({"max_batch_size": 2.5}, "judge: .*max_batch_size: expected int, got float"),
        ({"batch_size": 4}, "judge: unknown field batch_size"),
        ({"judge_url": "localhost:8888"}, "judge.judge_url: must be a URL such as"),
        ({"max_batch_size": 129}, "judge.max_batch_size: must be from 1 to 128"),
        ({"cache_size": 0}, "judge.cache_size: must be 1 or more"),
        ({"timeout": "inf"}, "judge.timeout: must be a number of seconds above 0"),
        ({"batch_timeout": -1}, "judge.batch_timeout: must be 0 or more seconds"),
        ({"max_retries": -1}, "judge.max_retries: must be 0 or more"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(given: Mapping[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        JudgeConfig.of(given, {})

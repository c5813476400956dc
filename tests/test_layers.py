"""The shape of the house: layers, light imports, public names, shipped configuration, generated documents."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import sysconfig
from importlib import import_module
from pathlib import Path

import pytest

from rollout import reference
from rollout.compose import composed

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "triton", "openai", "hydra", "omegaconf", "rich", "datasets", "transformers", "sglang")


def test_the_layers_hold() -> None:
    tool = Path(sysconfig.get_path("scripts")) / "lint-imports"
    done = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "module",
    [
        *("kernel_env", "kernel_env.schema", "kernel_env.env", "kernel_env.verifier", "kernel_env.referee.referee"),
        *("rewards.judge", "rewards.judge.adapter", "rewards.sources", "rollout.store", "rollout.tokens", "rollout.adapters.trl"),
    ],
)
def test_an_import_is_light_and_changes_nothing(module: str) -> None:
    """In a fresh process: nothing heavy, no logging set up, no environment variable set."""
    code = (
        f"import json, logging, os, sys; before = dict(os.environ); import {module}\n"
        "print(json.dumps([sorted(m for m in sys.modules if '.' not in m), logging.root.handlers == [], os.environ == before]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    modules, silent, same = json.loads(done.stdout)
    assert not set(HEAVY) & set(modules)
    assert silent and same


def test_the_waist_needs_the_standard_library_only() -> None:
    code = (
        "import sys; sys.path.insert(0, 'kernel_env'); import schema, errors\n"
        "print(*{m.split('.')[0] for m in sys.modules} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"__main__", "schema", "errors"}


PUBLIC = {
    "kernel_env": "BlockingVerifier KernelBenchEnv LocalVerifier RemoteVerifier load_problems",
    "kernel_env.builder": "BuildRequest BuildResult Builder",
    "rewards.judge": "BaseJudgeReward JudgeConfig JudgeRewardSystem MultiCritiqueJudge compute_reward create_judge_reward",
}
WAIST = {
    "Problem": "level problem_id name source origin profile overrides prompt precision",
    "Candidate": "code backend entry",
    "Stats": "median_ms mean_ms std_ms min_ms max_ms count",
    "Timing": "runtime baseline speedup speedup_low speedup_high baseline_kind noise hardware light_ms",
    "Verdict": "status stage problem problem_digest candidate_digest backend profile category message log ahead timing timing_note "
    "trials_passed trials tolerance degenerate weights seed mode clock isolation duration_ms build_ms own_ms baseline_ms",
    "Compiled": "target kernel registers spilled_bytes shared_bytes note",
    "Opinion": "score reason by_rules flags cached latency_ms doubts",
    "Reward": "value parts reason opinions measured",
    "Usage": "prompt_tokens completion_tokens",
    "Generation": "text reasoning finish_reason usage model duration_s output_ids output_logprobs weight_version prompt_ids",
    "Thinking": "arm on answer understood usage duration_s",
    "Turn": "index messages generation code verdict reward feedback thinking",
    "Episode": "problem sample turns stop_reason error",
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_frozen(name: str) -> None:
    module = import_module(name)
    assert sorted(module.__all__) == PUBLIC[name].split()
    assert all(hasattr(module, public) for public in module.__all__)


def test_the_fields_of_the_waist_are_frozen() -> None:
    """Whoever changes one writes a new schema version and keeps reading the old."""
    schema = import_module("kernel_env.schema")
    fields = {name: [f.name for f in dataclasses.fields(getattr(schema, name))] for name in WAIST}
    assert fields == {name: names.split() for name, names in WAIST.items()}


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = import_module("kernel_env").Nothing


CHOICES = [f"{file.parent.name}={file.stem}" for file in sorted((ROOT / "conf").rglob("*.yaml")) if file.parent != ROOT / "conf"]


@pytest.mark.parametrize("choice", [*CHOICES, *(f"reward={name}" for name, _ in reference.groups()["reward"])])
def test_every_shipped_configuration_composes(choice: str) -> None:
    needs = {"problems=jsonl": ["problems.path=x.jsonl"], "problems=kernelbench": ["problems.path=x"]}
    settings, text = composed([choice, *needs.get(choice, [])])
    assert text and dataclasses.is_dataclass(settings)


def test_every_choice_says_what_it_is() -> None:
    for group, choices in reference.groups().items():
        assert choices, group
        assert all(text for _, text in choices), group


def test_every_option_is_documented() -> None:
    assert [option.name for option in reference.options() if not option.doc] == []


def test_the_configuration_reference_is_up_to_date() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == reference.markdown(), "run make docs"

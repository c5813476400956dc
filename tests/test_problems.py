"""Problem sources, selection and size profiles."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kernel_env.errors import ConfigError, DatasetError
from kernel_env.problems import find, load_problems, select, selection
from kernel_env.problems.categories import CATEGORIES
from kernel_env.problems.sizing import Profile, constants, parse, profiles, resize, sized
from kernel_env.schema import Problem

RL_DATA = Path(__file__).parents[2] / "shared/data/kernel_bench_triton_level_1_2.jsonl"

SOURCE = """\
import torch

class Model(torch.nn.Module):
    def forward(self, x):
        return x + 1

N = 2048

def get_inputs():
    return [torch.rand(N)]

def get_init_inputs():
    return []
"""


def problem(level: int, problem_id: int, name: str, **changes: Any) -> Problem:
    return Problem(level, problem_id, name, SOURCE, origin="jsonl", **changes)


def keys(problems: Iterable[Problem]) -> list[str]:
    return [f"{p.level}/{p.problem_id}" for p in problems]


# ------------------------------------------------------------------ bundled


def test_every_bundled_problem_is_complete() -> None:
    problems = load_problems("bundled")
    assert len(problems) >= 12
    assert len({p.key for p in problems}) == len({p.name for p in problems}) == len(problems)
    assert keys(problems) == keys(sorted(problems, key=lambda p: (p.level, p.problem_id)))
    for p in problems:
        assert (p.origin, p.profile, p.overrides, p.prompt) == ("bundled", "full", {}, None)
        defined = {getattr(node, "name", None) for node in parse(p.source).body}
        assert {"Model", "get_inputs", "get_init_inputs"} <= defined, p.key
        assert constants(p.source), f"{p.key} ({p.name}) has no integer constant to resize"


def test_bundled_problems_refuse_a_path() -> None:
    with pytest.raises(ConfigError, match=r"problems.path=x: bundled problems have no path"):
        load_problems("bundled", "x")


# ------------------------------------------------------------------ JSONL


def record(**changes: Any) -> dict[str, Any]:
    """A well-formed line; `changes` replace fields of it or of its extra_info."""
    extra = {"level": 1, "problem_id": "3", "problem_name": "Add", "data_source": "x"}
    extra |= {name: changes.pop(name) for name in ("level", "problem_id", "problem_name") if name in changes}
    prompt = [{"role": "system", "content": "Write kernels."}, {"role": "user", "content": f"Improve:\n{SOURCE}Go."}]
    return {"prompt": prompt, "label": SOURCE, "extra_info": extra, "instance_id": "x"} | changes


def write_lines(path: Path, *lines: dict[str, Any] | bytes) -> Path:
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + b"\n")
    return path


def test_a_jsonl_line_becomes_a_problem_with_its_prompt(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "data.jsonl", record(problem_id=7), b"", record())
    first, second = load_problems("jsonl", file)
    assert (first.key, second.key, first.name, first.origin) == ("level1_problem3", "level1_problem7", "Add", "jsonl")
    assert first.source == SOURCE
    assert first.prompt == tuple(record()["prompt"])


def test_a_prompt_is_looked_up_by_level_and_id(tmp_path: Path) -> None:
    lines = [record(level=level, prompt=[{"role": "user", "content": f"level {level}"}]) for level in (2, 1)]
    problems = load_problems("jsonl", write_lines(tmp_path / "data.jsonl", *lines))
    assert [(p.level, p.prompt) for p in problems] == [
        (level, ({"role": "user", "content": f"level {level}"},)) for level in (1, 2)
    ]


MALFORMED: dict[str, tuple[dict[str, Any] | bytes, str]] = {
    "not JSON": (b'{"label": ', "not JSON"),
    "cut in a letter": (b'{"label": "\xc3', "not UTF-8 at byte"),
    "absurdly nested": (b"[" * 200_000, "not JSON"),
    "a list": (b"[1]", "not a JSON object"),
    "no extra_info": (record(extra_info=None), "no object extra_info"),
    "no label": (record(label=None), "no text label"),
    "empty name": (record(problem_name=""), "no text problem_name"),
    "half a letter": (record(problem_name="\ud800"), "problem_name holds half a surrogate pair"),
    "id in words": (record(problem_id="three"), "problem_id is 'three', not a number"),
    "level true": (record(level=True), "level is True, not a number"),
    "label not Python": (record(label="class Model(:"), "label: line 1 is not Python"),
    "label with a null byte": (record(label="x = '\0'"), "label: "),
    "no get_inputs": (record(label=SOURCE.replace("get_inputs", "inputs")), "label: defines no get_inputs"),
    "prompt a text": (record(prompt="Write."), "prompt is not a list of messages"),
    "strange role": (record(prompt=[{"role": "tool", "content": "x"}]), "prompt has the role 'tool'"),
    "duplicate": (record(), "level1_problem3 again, already in line 1"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_line_is_named_and_can_be_skipped(case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    line, complaint = MALFORMED[case]
    file = write_lines(tmp_path / "data.jsonl", record(), line, record(problem_id=4))
    with pytest.raises(DatasetError) as failure:
        load_problems("jsonl", file)
    message = str(failure.value)
    assert message.startswith(f"{file}, line 2: {complaint}")
    assert message.endswith("; mend it, or set problems.skip_bad_lines=true")
    assert "\n" not in message

    assert keys(load_problems("jsonl", file, skip_bad_lines=True)) == ["1/3", "1/4"]
    assert "skipped 1 of 3 lines" in caplog.text
    assert complaint in caplog.text


def test_a_file_without_problems_is_an_error(tmp_path: Path) -> None:
    for content in (b"", b"nonsense"):
        with pytest.raises(DatasetError, match="holds no problem"):
            load_problems("jsonl", write_lines(tmp_path / "data.jsonl", content), skip_bad_lines=True)


@pytest.mark.parametrize("source", ["jsonl", "kernelbench"])
def test_a_missing_path_is_one_clear_line(source: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"nowhere: .*problems\.path"):
        load_problems(source, tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"problems\.path is missing"):
        load_problems(source)


@pytest.mark.skipif(not RL_DATA.exists(), reason="the RL data set is not beside this checkout")
def test_the_rl_data_set_loads_whole_at_every_profile() -> None:
    for profile in Profile:
        problems = load_problems("jsonl", RL_DATA, profile)
        assert Counter(p.level for p in problems) == {1: 100, 2: 100}
        for p in problems:
            assert p.profile == profile.value
            assert p.prompt is not None
            assert [message["role"] for message in p.prompt] == ["system", "user"]
            assert p.source in p.prompt[1]["content"], f"{p.key} at {profile}: the prompt shows another source"
    assert find(problems, "1/95").name == "CrossEntropyLoss"


# ------------------------------------------------------------------ KernelBench checkout


def write_checkout(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def test_a_checkout_is_found_from_its_root_or_its_folders(tmp_path: Path) -> None:
    files = {"level1/26_GELU_.py": SOURCE, "level1/3_B.py": SOURCE, "level2/1_C.py": SOURCE}
    stray = {"level1/notes.txt": "x", "level1/helper.py": "x", "levels/1_D.py": "x", "changelog/1_E.py": "x", "level3": "x"}
    root = write_checkout(tmp_path, {f"KernelBench/{name}": text for name, text in (files | stray).items()})
    problems = load_problems("kernelbench", root)
    assert [(p.level, p.problem_id, p.name) for p in problems] == [(1, 3, "B"), (1, 26, "GELU_"), (2, 1, "C")]
    assert problems == load_problems("kernelbench", str(root / "KernelBench"))
    assert {p.origin for p in problems} == {"kernelbench"}


def test_a_source_keeps_its_bytes(tmp_path: Path) -> None:
    text = SOURCE.replace("\n", "\r\n").replace("import torch", "import torch  # größer")
    (loaded,) = load_problems("kernelbench", write_checkout(tmp_path, {"level1/1_A.py": text}))
    assert loaded.source == text


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"level1/1_A.py": "def"}, r"1_A.py: line 1 is not Python"),
        ({"level1/1_A.py": b"# \xff"}, r"1_A.py: .*utf-8"),
        ({"level1/1_A.py": "x = 1"}, r"1_A.py: defines no Model, get_inputs, get_init_inputs"),
        ({"level1/1_A.py": SOURCE, "level1/01_B.py": SOURCE}, r"same level and id as"),
        ({"level1/README.md": "x"}, r"no level1/1_Name.py there"),
    ],
)
def test_a_broken_checkout_is_one_clear_line(files: dict[str, str | bytes], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=complaint):
        load_problems("kernelbench", write_checkout(tmp_path, files))


@pytest.mark.external
@pytest.mark.parametrize("profile", Profile)
def test_the_whole_of_kernelbench_loads(checkout: Path, profile: Profile, caplog: pytest.LogCaptureFixture) -> None:
    problems = load_problems("kernelbench", checkout, profile)
    assert Counter(p.level for p in problems) == {1: 100, 2: 100, 3: 50, 4: 20}
    assert all([p.problem_id for p in problems if p.level == level] == list(range(1, n + 1)) for level, n in ((1, 100), (4, 20)))
    assert find(problems, "1/95").name == "CrossEntropyLoss"
    assert find(problems, "gelu").name == "GELU_"
    resized = {f"level{p.level}/{p.problem_id}_{p.name}" for p in problems if p.overrides}
    assert resized == set(profiles()["kernelbench"].get(profile.value, {})), caplog.text


# ------------------------------------------------------------------ selection

SOME = tuple(
    problem(level, number, f"{name}_{level}_") for level in (1, 2) for number, name in enumerate(("ReLU", "Conv2d", "GELU"), 1)
)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({}, "1/1 1/2 1/3 2/1 2/2 2/3"),
        ({"levels": [2]}, "2/1 2/2 2/3"),
        ({"levels": "1,2", "ids": 2}, "1/2 2/2"),
        ({"ids": "1,3"}, "1/1 1/3 2/1 2/3"),
        ({"ids": "2-99", "levels": 1}, "1/2 1/3"),
        ({"ids": [1, "2-3"], "levels": 2}, "2/1 2/2 2/3"),
        ({"names": "*elu*"}, "1/1 1/3 2/1 2/3"),
        ({"names": "gelu_1, conv*"}, "1/2 1/3 2/2"),
        ({"start_from": 3}, "1/3 2/3"),
        ({"limit": 2}, "1/1 1/2 2/1 2/2"),
        ({"start_from": 2, "limit": 1}, "1/2 2/2"),
        ({"names": "*elu*", "start_from": 2, "limit": 1, "levels": [1]}, "1/3"),
        ({"category": "level2", "limit": 1}, "2/1"),
        ({"category": "convolution", "levels": 2}, "2/2"),
    ],
)
def test_conditions_narrow_the_selection(conditions: dict[str, Any], expected: str) -> None:
    assert keys(select(reversed(SOME), **conditions)) == expected.split()


@pytest.mark.parametrize(
    ("conditions", "complaint"),
    [
        ({"levels": [3]}, r"no level 3; there are level 1 \(1-3\), level 2 \(1-3\)"),
        ({"ids": "1,7"}, r"no problem id 7; there are level 1 \(1-3\)"),
        ({"ids": "50-60", "levels": 2}, r"no problem id 50-60; there are level 2 \(1-3\)$"),
        ({"ids": "1-x"}, r"problems.ids: '1-x' is neither a number nor a range"),
        ({"ids": "3-1"}, r"no problem id 3-1"),
        ({"levels": ""}, r"problems.levels: '' is neither"),
        ({"names": "Relu_1,Convd_2"}, r"no problem named Convd_2; there are .*; did you mean Conv2d_2_"),
        ({"start_from": 9}, r"no problem is left by start_from=9; there are level 1 \(1-3\)"),
        ({"levels": [], "start_from": 2}, r"no problem is left by levels=\[\], start_from=2"),
        ({"limit": 0}, r"problems.limit=0: at least 1"),
        ({"category": "convolutions"}, r"problems.category=convolutions: choose one of level1, .*; did you mean convolution"),
        ({"category": "attention_block"}, r"no problem is left by category=attention_block; there are level 1"),
    ],
)
def test_a_selection_that_cannot_be_meant_is_refused(conditions: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        select(SOME, **conditions)


@pytest.mark.parametrize(
    ("level", "name", "category"),
    [
        (1, "Square_matrix_multiplication_", "matmul"),
        (1, "Matrix_scalar_multiplication", None),
        (1, "conv_transposed_1D", "convolution"),
        (1, "Max_reduction_over_a_dimension", "reduction_norm"),
        (1, "RMSNorm_", "reduction_norm"),
        (1, "HardSigmoid", None),
        (2, "Gemm_GroupNorm_Hardtanh", "matmul"),
        (2, "ConvTranspose3d_Mean_Add_Softmax_Tanh_Scaling", "convolution"),
        (3, "VisionTransformer", "attention_block"),
        (3, "ResNet18", None),
        (3, "LSTMBidirectional", None),
    ],
)
def test_a_problem_is_of_one_operator_at_most(level: int, name: str, category: str | None) -> None:
    one = Problem(level, 1, name, "", origin="test")
    found = {known for known, holds in CATEGORIES.items() if holds(one)}
    assert found == {f"level{level}", *(["fusion"] if level == 2 else []), *([category] if category else [])}


def test_problems_that_a_constant_meets_can_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(SOME[1], source=SOURCE + "# another")
    three = (SOME[0], other, SOME[2])
    monkeypatch.setattr(selection, "degenerate", lambda: {other.digest: "its output is 1"})
    assert keys(select(three, skip_degenerate=True)) == ["1/1", "1/3"]
    assert keys(select(three)) == ["1/1", "1/2", "1/3"]
    with pytest.raises(ConfigError, match="no problem is left by ids=2, skip_degenerate=True"):
        select(three, ids=2, skip_degenerate=True)


def test_the_known_ones_are_named_by_digest() -> None:
    for digest, name in selection.degenerate().items():
        assert len(bytes.fromhex(digest)) == 32 and name.startswith("level") and "profile " in name


def test_an_empty_source_cannot_be_selected_from() -> None:
    with pytest.raises(ConfigError, match="no problem is left by everything; there are none at all"):
        select([])


@pytest.mark.parametrize("text", ["level2_problem3", "2/3", "2:3", "level2/3", "GELU_2_", "gelu_2", "g*2*", " 2/3 "])
def test_a_problem_is_found_by_key_number_or_name(text: str) -> None:
    assert find(SOME, text).key == "level2_problem3"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("2/4", r"no problem '2/4'; there are level 1 \(1-3\), level 2 \(1-3\)"),
        ("level1_problm3", r"no problem 'level1_problm3'; there are .*; did you mean level1_problem3"),
        ("Gulu_2", r"did you mean .*GELU_2_"),
        ("gelu*", r"'gelu\*' means 2 problems: 1/3 GELU_1_, 2/3 GELU_2_; give level/id"),
        ("", r"no problem ''"),
    ],
)
def test_a_problem_that_cannot_be_found_is_explained(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        find(SOME, text)


# ------------------------------------------------------------------ sizes


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("N = 2048  # rows; N = 2048", "N = 7  # rows; N = 2048"),
        ("N: int = 2048", "N: int = 7"),
        ("N = 1024 * 2", "N = 7"),
        ("N = (2 * (3 + 4) - 1)  # x", "N = (7)  # x"),
        ("N = -1", "N = 7"),
        ("N = 0x10", "N = 7"),
        ("N = M = 5", "N = M = 7"),
        ("M, N = 5, 32 ", "M, N = 5, 7 "),
        ("größe = 1; N = 5; ü = 2", "größe = 1; N = 7; ü = 2"),
        ("x = '''\r\n\x0c\n'''\r\nN = (\n  2 *\n  3)\r\n", "x = '''\r\n\x0c\n'''\r\nN = (\n  7)\r\n"),
        ("def f():\n    N = 3\n    return N\nN = 3", "def f():\n    N = 3\n    return N\nN = 7"),
    ],
)
def test_only_the_value_of_a_constant_changes(before: str, after: str) -> None:
    assert resize(before, {"N": 7}) == after
    assert constants(after)["N"].value == 7


def test_elements_of_a_tuple_or_list_have_numbered_names() -> None:
    source = "shape = (32768,)\nlayers = [2 * 8, 'x', 16]\n"
    assert {name: constant.value for name, constant in constants(source).items()} == {
        "shape[0]": 32768,
        "layers[0]": 16,
        "layers[2]": 16,
    }
    assert resize(source, {"shape[0]": 4, "layers[2]": 8}) == "shape = (4,)\nlayers = [2 * 8, 'x', 8]\n"
    with pytest.raises(DatasetError, match=r"no integer constant 'layers\[1\]'"):
        resize(source, {"layers[1]": 8})
    assert not constants(source + "shape = (1,)\nlayers = []\n"), "bound twice"


def test_several_constants_change_at_once_whatever_their_lengths() -> None:
    source = "a = 1\nb, c = 2, 3\nd = 400000\n"
    assert resize(source, {"d": 4, "a": 1000, "c": 30, "b": 200}) == "a = 1000\nb, c = 200, 30\nd = 4\n"
    assert resize(source, {}) is source


@pytest.mark.parametrize(
    "source",
    [
        *("n = 1", "N = 1.0", "N = True", "N = 2 ** 3", "N = 8 // 2", "N = n", "N = '64'", "N = [1]", "N = 1\nN = 2"),
        *("M = N = 1", "if x:\n    N = 1", "class A:\n    N = 1", "N += 1", "N: int", "obj.N = 1"),
    ],
)
def test_what_is_no_plain_constant_cannot_be_resized(source: str) -> None:
    with pytest.raises(DatasetError, match=r"no integer constant 'N' at module level; resizable here: "):
        resize(source, {"N": 7})


@pytest.mark.parametrize("size", ["7", 7.0, True, None])
def test_a_size_is_an_integer(size: Any) -> None:
    with pytest.raises(DatasetError, match="N must be an integer"):
        resize("N = 1", {"N": size})


def test_overrides_are_recorded_and_change_the_digest(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "data.jsonl", record(), record(problem_id=4))
    plain = load_problems("jsonl", file, "interpret")
    assert [(p.profile, p.overrides, p.source) for p in plain] == [("interpret", {}, SOURCE)] * 2
    changed, same = load_problems("jsonl", file, "interpret", overrides={"level1_problem3": {"N": 64}})
    assert (changed.profile, changed.overrides) == ("interpret", {"N": 64})
    assert changed.source == SOURCE.replace("2048", "64")
    assert changed.digest != plain[0].digest
    assert same == plain[1]


def test_the_prompt_shows_the_resized_source() -> None:
    asked = problem(1, 3, "Add", prompt=({"role": "user", "content": f"Improve:\n{SOURCE}2048"},))
    resized = sized(asked, Profile.FULL, {"N": 64})
    assert resized.prompt == ({"role": "user", "content": f"Improve:\n{resized.source}2048"},)
    assert "N = 64" in resized.source


def test_an_override_that_fits_nothing_is_an_error() -> None:
    name = load_problems("bundled")[0].key
    with pytest.raises(DatasetError, match=rf"{name} \(.*\): no integer constant 'NOPE' at module level; resizable here: \w"):
        load_problems("bundled", overrides={name: {"NOPE": 1}})
    with pytest.raises(ConfigError, match=rf"no problem '{name}x'; did you mean {name}"):
        load_problems("bundled", overrides={f"{name}x": {"N": 1}})


def test_a_shipped_size_that_does_not_fit_is_left_out_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    table = {"jsonl": {"cpu": {"level1/3_Add": {"N": 5}, "level1/4_Add": {"N": 5, "GONE": 5}}}}
    monkeypatch.setattr("kernel_env.problems.sizing.profiles", lambda: table)
    fits, other_name, does_not = (sized(problem(1, n, name), Profile.CPU) for n, name in ((3, "Add"), (3, "Sub"), (4, "Add")))
    assert [p.overrides for p in (fits, other_name, does_not)] == [{"N": 5}, {}, {}]
    assert does_not.source == SOURCE
    assert "level1_problem4: stays as written, its source has no GONE" in caplog.text
    assert sized(problem(1, 3, "Add"), Profile.CPU, {"N": 6}).overrides == {"N": 6}


def test_shipped_profiles_name_known_origins_and_hold_positive_sizes() -> None:
    for origin, tables in profiles().items():
        assert origin in ("bundled", "jsonl", "kernelbench")
        for profile, table in tables.items():
            assert profile in ("gpu24", "cpu", "interpret"), "full is as written"
            for key, sizes in table.items():
                assert sizes, key
                assert all(type(size) is int and size >= 0 for size in sizes.values()), key


def test_every_bundled_entry_of_a_profile_fits_a_bundled_problem() -> None:
    for profile, table in profiles().get("bundled", {}).items():
        resized = {f"level{p.level}/{p.problem_id}_{p.name}": p for p in load_problems("bundled", profile=profile) if p.overrides}
        assert resized.keys() == table.keys()
        for p in resized.values():
            assert {name: constants(p.source)[name].value for name in p.overrides} == p.overrides


@pytest.mark.parametrize(
    ("source", "profile", "complaint"),
    [
        ("bundle", "full", r"problems.source=bundle: not one of bundled, kernelbench, jsonl, huggingface; did you mean bundled"),
        ("bundled", "ful", r"problems.profile=ful: not one of full, gpu24, cpu, interpret; did you mean full"),
    ],
)
def test_unknown_sources_and_profiles_are_refused(source: str, profile: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_problems(source, profile=profile)


def test_a_resized_source_differs_only_in_its_constants() -> None:
    """Over real sources: the syntax trees are equal once the overridden constants are masked."""
    for p in load_problems("bundled"):
        sizes = dict.fromkeys(constants(p.source), 3)
        resized = resize(p.source, sizes)
        assert [line.split("=")[0] for line in resized.splitlines()] == [line.split("=")[0] for line in p.source.splitlines()]
        functions = [node for tree in (parse(p.source), parse(resized)) for node in tree.body if hasattr(node, "body")]
        half = len(functions) // 2
        assert [ast.dump(node) for node in functions[:half]] == [ast.dump(node) for node in functions[half:]]

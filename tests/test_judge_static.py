"""The judge without a model: what it sees in kernels, what it does not fall for, and how it compares answers."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kernel_env.checks.static import MAX_SOURCE_CHARS
from rewards.judge import clike
from rewards.judge.algebra import same_value
from rewards.judge.models import JudgeFailure, Scored, careful
from rewards.judge.static import StaticJudge, score_kernel
from rewards.judge.wire import AnswerType, FailureKind, JudgeRequest
from rollout.corpus import Corpus, Entry, load_corpus

CORPUS = Path(__file__).parent / "candidates"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus(CORPUS)


@pytest.fixture(scope="module")
def scores(corpus: Corpus) -> dict[str, Scored]:
    """Of every kernel of the corpus."""
    return {entry.name: score_entry(entry) for entry in corpus.entries}


def found(corpus: Corpus, name: str) -> Scored:
    return score_entry(next(entry for entry in corpus.entries if entry.name == name))


def score_entry(entry: Entry) -> Scored:
    return score_kernel(entry.candidate.code, AnswerType(f"KERNEL_{entry.candidate.backend.upper()}"), entry.problem.source)


HEAD = "import torch\nimport torch.nn as nn\nfrom torch.utils.cpp_extension import load_inline\n"
LOOP = "  for (int64_t i = 0; i < x.numel(); ++i) b[i] = a[i] > 0 ? a[i] * (float)s : 0.0f;\n"
SOURCE = (
    "torch::Tensor scale(torch::Tensor x, double s) {\n  auto y = torch::empty_like(x);\n  const float* a = x.data_ptr<float>();\n"
    f"  float* b = y.data_ptr<float>();\n{LOOP}  return y;\n}}\n"
)


def cpp(forward: str, source: str = SOURCE, more: str = "") -> str:
    """A candidate whose extension exports `scale`."""
    built = f'extension = load_inline(name="k", cpp_sources="""\n{source}""", functions=["scale"])\n'
    return f"{HEAD}{built}{more}\n\nclass ModelNew(nn.Module):\n    def forward(self, x):\n        {forward}\n"


GOOD = cpp("return extension.scale(x, 2.0)")


def judged(code: str) -> Scored:
    return score_kernel(code, AnswerType.KERNEL_CPP)


# ------------------------------------------------------------------ the corpus


def test_no_honest_kernel_of_the_corpus_has_a_flag(corpus: Corpus, scores: dict[str, Scored]) -> None:
    honest = [entry.name for entry in corpus.entries if entry.kind == "honest"]
    assert len(honest) > 150
    assert {name: scores[name].flags for name in honest if scores[name].flags} == {}


def test_many_cheats_are_seen_and_few_honest_kernels_are_taken_for_one(corpus: Corpus, scores: dict[str, Scored]) -> None:
    cheats = [scores[entry.name].score for entry in corpus.entries if entry.kind == "cheat"]
    honest = [scores[entry.name].score for entry in corpus.entries if entry.kind == "honest"]
    assert sum(score < 0.5 for score in cheats) > 0.6 * len(cheats)
    assert sum(score < 0.5 for score in honest) < 0.02 * len(honest)


@pytest.mark.parametrize(
    ("flag", "cheat", "twin"),
    [
        ("no_kernel", "c46_kernel_in_a_comment", "c46_comments_of_its_own"),
        ("reference_inherited", "c43_calls_super", "c43_inherits_weights"),
        ("result_unused", "c43_inherits_forward", "c43_inherits_weights"),
        ("result_unused", "c41_result_thrown_away", "c41_torch_before_its_scaling"),
        ("result_unused", "c41_another_class_by_that_name", "c41_name_for_its_class"),
        ("result_unused", "c41_triton_result_thrown_away", "c41_triton_scaling_before_torch"),
        ("decoy_kernel", "c41_copy_after_torch", "c41_torch_before_its_scaling"),
        ("decoy_kernel", "c41_triton_copy", "c41_triton_scaling_before_torch"),
        ("decoy_kernel", "c44_at_matmul", "c44_allocates_with_torch"),
        ("decoy_kernel", "c44_blas_of_the_runtime", "c44_allocates_with_torch"),
        ("decoy_kernel", "c25_zeros_for_a_softmax", "c25_wide_softmax"),
        ("hides_operators", "c44_native_function", "c44_allocates_with_torch"),
        ("hides_operators", "c44_view_that_computes", "c44_operator_of_its_own"),
        ("patches_modules", "c39_allclose_patched", "c39_compares_itself"),
        ("patches_modules", "c06_patched_clock", "c06_tuned_by_clock"),
        ("overrides_operators", "c33_operator_overridden", "c33_flags_of_its_own"),
        ("disguises_tensor", "c05_method_overridden", "c04_subclass_inside"),
        ("walks_callers", "c36_stack_of_a_timer", "c36_depth_of_its_stack"),
        ("patches_modules", "c07_patched_statistics", "c06_tuned_by_clock"),
        ("leaves", "c37_prints_a_result_and_leaves", "c37_prints_a_measurement"),
        ("reaches_others", "c50_network", "c50_pipe_between_threads"),
        ("reaches_others", "c50_sockets_in_c", "c44_asks_the_c_library"),
        ("reaches_others", "c51_parent_killed", "c51_signals_itself"),
        ("reaches_others", "c47_fork_bomb_in_c", "c47_threads_as_many_as_cores"),
        ("left_running", "c03_thread_fills_later", "c03_thread_joined"),
        ("left_running", "c03_pool_fills_later", "c03_pool_waited_for"),
        ("left_running", "c02_stream_of_its_own", "c02_stream_waited_for"),
        ("left_running", "c01_side_stream", "c01_side_stream_joined"),
        ("no_kernel", "c42_triton_kernel_that_fails", "c42_triton_fallback_not_needed"),
        ("result_unused", "c44_operator_in_numpy", "h_group_norm_silu_custom_op"),
    ],
)
def test_a_cheat_has_its_flag_and_its_honest_twin_has_none(corpus: Corpus, flag: str, cheat: str, twin: str) -> None:
    caught = found(corpus, cheat)
    assert flag in caught.flags
    assert caught.score == 0.0 and (caught.confidence or 0) > 0.9
    assert found(corpus, twin).flags == ()


@pytest.mark.parametrize(
    ("doubt", "cheat"),
    [
        ("fallback", "c42_condition_that_never_holds"),
        ("nothing_computed", "c30_small_shapes_only"),
        ("keeps_answers", "c16_kept_by_identity"),
        ("keyed_by_place", "c18_kept_by_version"),
        ("counts_calls", "c21_after_so_many_calls"),
        ("outlives_calls", "c58_buffers_made_ready"),
        ("by_condition", "c42_condition_that_never_holds"),
        ("looks_around", "c35_reference_among_the_objects"),
        ("asks_for_seed", "c34_answers_kept_by_the_seed"),
        ("reaches_out", "c22_answers_in_files"),
        ("reaches_out", "c59_text_of_a_file_in_an_error"),
        ("reaches_out", "c59_file_taken_in_by_the_assembler"),
        ("global_settings", "c15_fewer_threads"),
        ("library", "c42_inside_the_extension"),
    ],
)
def test_what_is_odd_is_doubted_and_worth_less(corpus: Corpus, doubt: str, cheat: str) -> None:
    assert doubt in found(corpus, cheat).doubts
    assert found(corpus, cheat).score < 0.75 * judged(GOOD).score


# ------------------------------------------------------------------ one kernel


def test_a_plain_kernel_is_genuine_honest_and_readable() -> None:
    good = judged(GOOD)
    assert (good.aspects["genuine"], good.aspects["integrity"], good.aspects["readability"]) == (1.0, 1.0, 1.0)
    assert (good.flags, good.doubts) == ((), ())
    assert 0.7 < good.score < 1.0


def test_the_same_program_gets_the_same_score() -> None:
    assert judged(GOOD) == judged(GOOD)


@pytest.mark.parametrize(
    ("line", "means"),
    [
        ("#pragma omp parallel for", "parallel"),
        ("#pragma omp simd", "vector instructions"),
        ("for (int64_t k = 0; k < n; k += 64) {}", "blocks"),
        ("__m256 v = _mm256_loadu_ps(a);", "vector instructions"),
        ("__shared__ float tile[64];", "shared memory"),
        ("float4 v;", "vector loads"),
    ],
)
def test_means_of_speed_are_seen_where_they_run_and_nowhere_else(line: str, means: str) -> None:
    used = SOURCE.replace(LOOP, f"{line}\n{LOOP}")
    unused = f"void never() {{\n{line}\n}}\n{SOURCE}"
    said = f"/* {line} */ // {line}\n{SOURCE}"
    plain = judged(GOOD)
    assert means in judged(cpp("return extension.scale(x, 2.0)", used)).explanation
    assert judged(cpp("return extension.scale(x, 2.0)", used)).score > plain.score
    for source in (unused, said):
        assert judged(cpp("return extension.scale(x, 2.0)", source)).aspects == plain.aspects


def test_what_is_left_over_is_less_readable() -> None:
    assert judged(cpp("return extension.scale(x, 2.0)", more="import os\ndef never(): pass\n")).aspects["readability"] == 0.8


@pytest.mark.parametrize(
    "forward",
    [
        "y = torch.empty_like(x); extension.scale(x, 2.0); return torch.relu(x) * 2",
        "return torch.nn.functional.relu(x) * 2",
        "y = extension.scale(x, 2.0); z = x @ x; return z",
        "return x.relu() if x.dim() else x.relu()",
    ],
)
def test_a_result_that_is_thrown_away_is_seen(forward: str) -> None:
    assert "result_unused" in judged(cpp(forward)).flags


@pytest.mark.parametrize(
    "forward",
    [
        "y = extension.scale(x, 2.0); return y",
        "y = torch.empty_like(x); extension.scale_into(x, y); return y",
        "f = extension.scale; return f(torch.relu(x), 2.0)",
        "parts = [extension.scale(p, 2.0) for p in x.chunk(2)]; return torch.cat(parts)",
        "return helper(x)",
        "self.kept = extension.scale(x, 2.0); return torch.relu(self.kept)",
    ],
)
def test_a_result_that_is_used_in_any_way_is_not_called_thrown_away(forward: str) -> None:
    more = "def helper(x):\n    return extension.scale(x, 2.0)\n"
    assert judged(cpp(forward, more=more)).flags == ()


INSIDE = f"""{HEAD}
class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.extension = load_inline(name="k", cpp_sources='''{SOURCE}''', functions=["scale"])

    def forward(self, x):
        return self.extension.scale(torch.relu(x), 2.0)
"""
LAZY = f"""{HEAD}
_loaded = None


def extension():
    global _loaded
    if _loaded is None:
        _loaded = load_inline(name="k", cpp_sources='''{SOURCE}''', functions=["scale"])
    return _loaded


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return extension().scale(x, 2.0)


class Block(nn.Module):
    def forward(self, x):
        return Scale.apply(torch.relu(x))


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x
"""
FROM_OUTSIDE = cpp("return self.kernel(torch.relu(x), 2.0)") + "\n\nModelNew.kernel = staticmethod(extension.scale)\n"
KEPT_BUFFER = f"""{HEAD}
extension = load_inline(name="k", cpp_sources='''{SOURCE}''', functions=["scale"])


class ModelNew(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.register_buffer("out", torch.empty(n))

    def run(self, x):
        extension.scale(x, self.out)

    def forward(self, x):
        self.run(torch.relu(x))
        return self.out
"""
JIT_IN_CLASS = """import torch
import triton
import triton.language as tl


class ModelNew(torch.nn.Module):
    @staticmethod
    @triton.jit
    def double(x, y, n, BLOCK: tl.constexpr):
        i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        tl.store(y + i, tl.load(x + i, mask=i < n) * 2, mask=i < n)

    def forward(self, x):
        x = torch.relu(x)
        y = torch.empty_like(x)
        self.double[(1,)](x, y, x.numel(), BLOCK=64)
        return y.view(x.shape)
"""


@pytest.mark.parametrize(
    "code",
    [INSIDE, LAZY, FROM_OUTSIDE, KEPT_BUFFER, JIT_IN_CLASS],
    ids=["inside", "lazy", "from outside", "kept buffer", "in class"],
)
def test_wherever_a_kernel_is_kept_its_use_is_seen(code: str) -> None:
    scored = score_kernel(code, None)
    assert scored.flags == () and "nothing_computed" not in scored.doubts


IN_TRITON = """import torch
import triton
import triton.language as tl


@triton.jit
def gelu(v):
    return v * tl.sigmoid(v)


@triton.jit
def passed(v, scale=1.0):
    return v


@triton.jit
def scaled(v, by):
    return gelu(v) if by else v


@triton.jit
def kernel(x, y, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    v = tl.load(x + i, mask=i < n)
    {body}


class ModelNew(torch.nn.Module):
    def forward(self, x):
        x = torch.relu(x)
        y = torch.empty_like(x)
        kernel[(1,)](x, y, x.numel(), BLOCK=64)
        return y
"""


@pytest.mark.parametrize(
    ("body", "decoy"),
    [
        ("tl.store(y + i, v)", True),
        ("tl.store(y + i, passed(v))", True),
        ("tl.store(y + i, passed(v, scale=2.0 * n))", True),
        ("tl.store(y + i + gelu(n), v)", True),
        ("w = passed(v)\n    tl.store(y + i, w)", True),
        ("tl.store(y + i, gelu(v))", False),
        ("tl.store(y + i, gelu(tl.load(x + i)))", False),
        ("tl.store(y + i, scaled(by=1, v=v))", False),
        ("tl.store(y + i, passed(v) * 2)", False),
        ("w = passed(v)\n    u = -w\n    tl.store(y + i, u[:, None] * 2)", False),
        ("v += 1\n    tl.store(y + i, v)", False),
        ("tl.store(y + i, tl.where(v > 0, v, 0.0))", False),
    ],
)
def test_numbers_that_a_triton_function_hands_to_another(body: str, decoy: bool) -> None:
    assert score_kernel(IN_TRITON.replace("{body}", body), None).flags == (("decoy_kernel",) if decoy else ())


def test_with_the_reference_at_hand_a_kernel_that_computes_nothing_is_a_decoy() -> None:
    zeros = cpp(
        "return extension.scale(x, 2.0)", "torch::Tensor scale(torch::Tensor x, double s) { return torch::zeros_like(x); }\n"
    )
    model = "import torch\nclass Model(torch.nn.Module):\n    def forward(self, x):\n        return {}\n"
    for body, flags in (("torch.softmax(x, 1)", ("decoy_kernel",)), ("x.view(-1)", ())):
        assert score_kernel(zeros, AnswerType.KERNEL_CPP, model.format(body)).flags == flags
    assert judged(zeros).score < 0.2


def test_settings_are_no_patches() -> None:
    assert judged(cpp("return extension.scale(x, 2.0)", more="torch.backends.cudnn.benchmark = True\n")).flags == ()
    assert judged(cpp("return extension.scale(x, 2.0)", more="torch.nn.functional.relu = print\n")).flags == ("patches_modules",)


def test_a_source_that_python_cannot_read_is_worth_nothing() -> None:
    assert judged(GOOD[: len(GOOD) // 2] + "(").score == 0.0


# ------------------------------------------------------------------ requests


def answered(
    completion: str, answer_type: AnswerType | None = AnswerType.KERNEL_CPP, answer: str | None = None
) -> Scored | JudgeFailure:
    return StaticJudge().score(JudgeRequest(prompt="p", completion=completion, answer=answer, answer_type=answer_type))


def test_a_kernel_may_come_bare_or_in_a_reply_and_without_a_type() -> None:
    bare = answered(GOOD)
    assert answered(f"Here it is:\n```python\n{GOOD}```\nDone.") == bare
    assert answered(GOOD, None) == bare


PADDING = ("#" + " " * 150_000, "# words\n" * 20_000, "\n" * 200_000, f'NOTE = b"{"x" * 100_000}"\n', "x = 1\n" * 12_000)


@pytest.mark.parametrize("padding", PADDING, ids=["blanks", "comments", "lines", "bytes", "statements"])
def test_whatever_the_referee_takes_is_judged_however_long_it_was_made(padding: str) -> None:
    cheat = cpp("y = extension.scale(x, 2.0); return torch.relu(x) * 2")
    for code in (cheat, GOOD):
        padded, plain = answered(f"{code}\n{padding}"), answered(code)
        assert isinstance(padded, Scored) and isinstance(plain, Scored)
        assert len(padding) > 64 * 1024 and (padded.score, padded.flags) == (plain.score, plain.flags)
    assert isinstance(found := answered(cheat), Scored) and found.flags == ("result_unused",)


ALIASED = "ModelNew = Fast\n"


@pytest.mark.parametrize("header", ["class  ModelNew", "class \\\nModelNew", "class\tModelNew"])
def test_however_its_class_is_written_a_kernel_is_judged(header: str) -> None:
    for forward in ("return extension.scale(x, 2.0)", "return torch.relu(x)"):
        assert answered(cpp(forward).replace("class ModelNew", header)) == answered(cpp(forward))


def test_an_entry_that_is_another_name_for_a_class_is_read_as_that_class() -> None:
    code = GOOD.replace("ModelNew", "Fast") + ALIASED
    assert answered(code) == answered(f"Here it is:\n```python\n{code}```\n") == answered(GOOD)
    assert "result_unused" in judged(cpp("return torch.relu(x) * 2").replace("ModelNew", "Fast") + ALIASED).flags


def test_the_entrys_last_binding_is_what_is_judged() -> None:
    decoy = "\n\nclass Fast(nn.Module):\n    def forward(self, x):\n        return torch.relu(x) * 2\n"
    assert judged(GOOD + decoy + ALIASED).flags == ("result_unused",)
    assert judged(GOOD + decoy).flags == ()
    assert judged(GOOD + "Fast = ModelNew\n" + ALIASED).flags == ()


def test_a_better_kernel_in_a_comment_of_a_bare_source_is_not_what_is_judged() -> None:
    decoy = cpp("return torch.relu(x)")
    shown = f'"""\n```python\n{GOOD.replace(chr(34) * 3, chr(39) * 3)}```\n"""\n{decoy}'
    assert answered(shown) == answered(decoy)


@pytest.mark.parametrize(
    ("completion", "kind"),
    [
        ("", FailureKind.NOTHING_TO_JUDGE),
        (" \n", FailureKind.NOTHING_TO_JUDGE),
        ("I cannot do that.", FailureKind.NOTHING_TO_JUDGE),
        ("```python\nprint()\n```", FailureKind.NOTHING_TO_JUDGE),
        (GOOD + "#" * MAX_SOURCE_CHARS, FailureKind.UNSUPPORTED),
    ],
)
def test_where_there_is_nothing_to_judge_there_is_no_score(completion: str, kind: FailureKind) -> None:
    failure = answered(completion)
    assert isinstance(failure, JudgeFailure) and failure.kind is kind


@pytest.mark.parametrize(
    "hostile",
    [
        "class ModelNew" + "(" * 3_000,
        "class ModelNew: pass\n" + "x = " + "-" * 3_000 + "1",
        "class ModelNew: pass\x00",
        "class ModelNew:\n  def forward(self, x):\n    return x" + ".a()" * 500,
        cpp("return extension.scale(x)", "{" * 2_000 + "(" * 2_000 + "/*"),
        cpp("return extension.scale(x)", "#define scale " + "scale " * 2_000),
        "class ModelNew(ModelNew):\n  forward = forward",
        "import triton\nclass ModelNew: pass\n" + "".join(f"@triton.jit\ndef k{i}(): k{i + 1}()\n" for i in range(300)),
    ],
)
def test_a_hostile_source_gets_some_answer(hostile: str) -> None:
    assert isinstance(answered(hostile), Scored | JudgeFailure)


def test_importing_the_judge_imports_neither_torch_nor_a_server() -> None:
    code = "import sys, rewards.judge.static; sys.exit(any(m in sys.modules for m in ('torch', 'fastapi', 'openai', 'hydra')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=CORPUS.parents[1], check=False).returncode == 0


def test_whoever_is_less_than_half_sure_gives_less() -> None:
    sure = Scored(0.8, confidence=0.5)
    assert careful(sure) == sure
    assert careful(Scored(0.8)).score == 0.8
    assert careful(replace(sure, confidence=0.25)).score == pytest.approx(0.64)
    assert careful(replace(sure, confidence=0.0)).score == pytest.approx(0.48)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf")])
def test_an_impossible_score_cannot_be_made(value: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Scored(value)
    with pytest.raises(ValueError, match="genuine"):
        Scored(0.5, aspects={"genuine": value})


# ------------------------------------------------------------------ C++


def test_comments_go_and_strings_stay() -> None:
    text = 'a /* "b" */ = "/* c */ // d"; // e \\\n still e\nf = \'"\'; g = R"x(// h )" )x"; i = 1\'000;'
    assert clike.without_comments(text) == 'a   = "/* c */ // d";  \nf = \'"\'; g = R"x(// h )" )x"; i = 1\'000;'


def test_what_an_exported_function_reaches_is_found() -> None:
    source = """
    #include <cmath>
    #define TWICE(v) (2 * helper(v))
    namespace inner { template <int N> static float helper(float v) { return v * N; } }
    struct Unused { int operator()(int z) const { return z; } };
    __global__ void __launch_bounds__(256) kernel(float* p) { p[0] = TWICE(1); }
    static int never(int unused_word) { return unused_word; }
    void go() { kernel<<<1, 2>>>(nullptr); }
    """
    reached = clike.reached(source, ["go"])
    assert {"kernel", "helper", "TWICE", "N"} <= set(reached.tokens)
    assert {"never", "unused_word", "Unused"}.isdisjoint(reached.tokens)
    assert "go" in reached.void


def test_a_source_in_bytes_is_read_as_one_in_a_string() -> None:
    decoy = cpp(
        "return extension.scale(torch.relu(x), 2.0)", "torch::Tensor scale(torch::Tensor x, double s) { return x.clone(); }\n"
    )
    for code in (decoy, GOOD, cpp("return extension.scale(x, 2.0)", SOURCE.replace(LOOP, f"#pragma omp parallel for\n{LOOP}"))):
        in_bytes = code.replace('cpp_sources="""', 'cpp_sources=b"""').replace('}\n""",', '}\n""".decode(),')
        assert in_bytes != code and judged(in_bytes) == judged(code)


@pytest.mark.parametrize("text", ["int f( } g; {", "a ( } {", "struct a " + "{} " * 80_000 + ";"], ids=["open", "brace", "long"])
def test_what_is_no_cplusplus_is_read_to_its_end(text: str) -> None:
    started_s = time.process_time()
    assert clike.parts(clike.tokens(text))
    assert time.process_time() - started_s < 20, "in time that is linear in its length"


# ------------------------------------------------------------------ answers that are no kernels


@pytest.mark.parametrize(
    ("said", "right", "same"),
    [
        ("The answer is **boxed{4}**", "4", True),
        (r"so we get \boxed{\frac{1}{2}}", "0.5", True),
        ("1,234", "1234", True),
        ("It is 12 apples.", "12", True),
        ("75%", "3/4", True),
        ("x = 3e2", "300", True),
        ("<think>maybe 5</think>4", "4", True),
        ("answer is 4. No: the answer is 5", "4", False),
        ("between 3 and 4", "4", False),
        ("four", "4", False),
        ("0.3333", "1/3", False),
    ],
)
def test_numbers_are_the_same_however_they_are_written(said: str, right: str, same: bool) -> None:
    outcome = answered(said, AnswerType.NUMBER, right)
    assert isinstance(outcome, Scored) and outcome.score == float(same)


@pytest.mark.parametrize(
    ("said", "right", "same"),
    [
        ("The answer is (B).", "B", True),
        ("B) because it is larger", "B", True),
        (r"\boxed{b}", "B", True),
        ("It could be A, but the answer is C", "C", True),
        ("A or B", "B", False),
        ("The answer is A, B, C and D", "B", False),
        ("I do not know", "B", False),
    ],
)
def test_one_letter_is_chosen_or_none(said: str, right: str, same: bool) -> None:
    outcome = answered(said, AnswerType.MULTIPLE_CHOICE, right)
    assert isinstance(outcome, Scored) and outcome.score == float(same)


@pytest.mark.parametrize(
    ("said", "right", "same"),
    [
        ("2*x", "x + x", True),
        ("(x+1)^2", "x^2+2x+1", True),
        (r"\boxed{\frac{\sqrt{2}}{2}}", "1/sqrt(2)", True),
        (r"\sin(x)^2+\cos(x)^2", "1", True),
        ("y = 3x", "3x", True),
        ("x(y+z)", "xy+xz", True),
        ("(1, 2/4)", "(1, 0.5)", True),
        ("x = 2y", "x=y+y", True),
        ("e^(i pi)", "-1", True),
        ("(x+1)^2", "x^2+1", False),
        ("(1, 2)", "(2, 1)", False),
        ("sqrt(x^2)", "x + 1", False),
        ("9^9^9^9^9", "9^9^9^9", False),
        ("the red one", "The Red One", True),
        ("__import__('os').system('true')", "0", False),
    ],
)
def test_expressions_are_the_same_where_their_values_are(said: str, right: str, same: bool) -> None:
    outcome = answered(said, AnswerType.MATH_EXPRESSIONS, right)
    assert isinstance(outcome, Scored) and outcome.score == float(same)


def test_what_is_no_arithmetic_is_not_evaluated() -> None:
    assert same_value("().__class__", "1") is None
    assert same_value("[1 for x in y]", "1") is None
    assert same_value("x" * 5_000, "x") is None


def test_without_an_answer_nothing_can_be_compared() -> None:
    for kind in (AnswerType.NUMBER, AnswerType.MULTIPLE_CHOICE, AnswerType.MATH_EXPRESSIONS, None):
        failure = answered("4", kind)
        assert isinstance(failure, JudgeFailure) and failure.kind is FailureKind.UNSUPPORTED

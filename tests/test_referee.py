"""Verdicts on real candidates, each in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kernel_env.errors import MachineBusy, ProblemError, ReferenceEnded, VerifierError
from kernel_env.referee import bench, candidate, clock, referee
from kernel_env.referee.candidate import Failed, House, Job, OnTrial
from kernel_env.referee.compare import Difference
from kernel_env.referee.process import LocalEndpoint
from kernel_env.referee.protocol import Frame
from kernel_env.schema import Candidate, Problem, Stage, Status
from kernel_env.verifier import BlockingVerifier, InprocessVerifier, LocalVerifier, VerifierConfig
from tests.conftest import GOOD, QUICK, REFERENCE, Judge, python_candidate

RETURN = "return extension.scaled_relu(x, self.scale)"


def test_an_output_is_looked_at_before_anything_else_is_asked(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a trial: the reply freezes the program, and it goes on only when its output has been compared. Else what a thread does a
    little later would count."""
    seen: list[str] = []
    request, compare = LocalEndpoint.request, OnTrial.compare

    def asked(self: LocalEndpoint, frame: Frame, *rest: Any, **named: Any) -> Frame:
        seen.append(f"{frame['op']}, frozen at the reply" if self.freeze_at_reply else frame["op"])
        self.freeze_at_reply = False  # as a process of its own takes it
        return request(self, frame, *rest, **named)

    def compared(self: OnTrial, *rest: Any) -> bool:
        seen.append("compare")
        return compare(self, *rest)

    monkeypatch.setattr(LocalEndpoint, "request", asked)
    monkeypatch.setattr(OnTrial, "compare", compared)
    with BlockingVerifier(InprocessVerifier) as verifier:
        config = replace(QUICK, num_correct_trials=2, measure_performance=False)
        assert verifier.verify(problem, Candidate(python_candidate(RETURN), "cpp"), config, 1).correct
    after = [seen[at + 1] for at, what in enumerate(seen) if what == "call, frozen at the reply"]
    assert after == ["compare"] * 3, "two trials, and one of another amplitude"


def test_a_correct_kernel_is_correct_and_timed(judge: Judge) -> None:
    verdict = judge(GOOD)
    assert verdict.status is Status.CORRECT
    assert verdict.stage is Stage.DONE
    assert verdict.trials_passed == verdict.trials == 3
    assert verdict.timing is not None and verdict.timing.runtime.count >= 2
    assert verdict.timing.light_ms is not None and 0 < verdict.timing.light_ms < 1.5 * verdict.timing.runtime.median_ms
    assert verdict.mode == "process" and verdict.clock == "live"


def test_a_verdict_says_where_its_time_went(judge: Judge) -> None:
    slow = python_candidate("time.sleep(0.02); return mine(x, self.scale)", top="import time")
    verdict = judge(slow, config=replace(QUICK, measure_performance=False))
    assert 0.02 * 1e3 * QUICK.num_correct_trials <= verdict.own_ms < verdict.duration_ms
    assert verdict.baseline_ms == 0.0, "nothing was timed"
    timed = judge(GOOD)
    assert timed.own_ms > 0 and timed.baseline_ms > 0
    assert timed.own_ms + timed.baseline_ms + timed.build_ms < timed.duration_ms


def test_the_same_seed_gives_the_same_words(judge: Judge) -> None:
    wrong = python_candidate("return extension.scaled_relu(x, 1.5)")
    first, second, other = judge(wrong), judge(wrong), judge(wrong, seed=2)
    assert first.message == second.message
    assert first.message != other.message


@pytest.mark.parametrize(
    ("forward", "category", "words"),
    [
        ("return extension.scaled_relu(x, 1.9)", "values", "expected"),
        ("return extension.scaled_relu(x, self.scale)[:, :4]", "shape", "expected [16, 8], got [16, 4]"),
        ("return extension.scaled_relu(x, self.scale).double()", "dtype", "expected float32, got float64"),
        ("return [extension.scaled_relu(x, self.scale)]", "structure", "should be a tensor"),
        ("return None", "structure", "should be a tensor"),
        ("return object()", "structure", "object"),
        ("return extension.scaled_relu(x, self.scale) * float('nan')", "nonfinite", "NaN"),
        ("return torch.zeros_like(x)", "values", "differ"),
    ],
)
def test_wrong_outputs_say_how(judge: Judge, forward: str, category: str, words: str) -> None:
    verdict = judge(python_candidate(forward))
    assert (verdict.status, verdict.category) == (Status.WRONG_OUTPUT, category)
    assert words in verdict.message
    assert verdict.timing is None and verdict.compiled


def test_wrong_values_name_place_expected_got_and_share(judge: Judge) -> None:
    verdict = judge(python_candidate("y = extension.scaled_relu(x, self.scale); y[3, 5] += 1000; return y"))
    assert "1 of 128 elements (0.781%)" in verdict.message
    assert "[3, 5]: expected" in verdict.message
    assert "got 100" in verdict.message


def test_changing_the_inputs_is_seen(judge: Judge) -> None:
    assert judge(python_candidate("y = extension.scaled_relu(x, self.scale); x.zero_(); return y")).status is Status.MUTATED_INPUTS


def test_a_reference_that_changes_its_inputs_allows_it(judge: Judge, problem: Problem) -> None:
    inplace = replace(problem, source=REFERENCE.replace("torch.relu(x) * self.scale", "torch.relu_(x) * self.scale"))
    assert judge(python_candidate("return torch.relu_(x) * self.scale"), of=inplace).status is Status.CORRECT


@pytest.mark.parametrize(
    ("code", "status", "stage", "words"),
    [
        ("raise ValueError('no')", Status.LOAD_ERROR, Stage.LOAD, "ValueError: no\n  candidate.py, line"),
        ("import sys; sys.exit(0)", Status.LOAD_ERROR, Stage.LOAD, "sys.exit(0)"),
        ("import os; os._exit(0)", Status.CRASHED, Stage.LOAD, "exit 0"),
        ("import ctypes; ctypes.string_at(0)", Status.CRASHED, Stage.LOAD, "SIGSEGV"),
        ("x = [0] * 10**12", Status.OUT_OF_MEMORY, Stage.LOAD, "MemoryError"),
        ("import torch; torch.zeros(1 << 40)", Status.OUT_OF_MEMORY, Stage.LOAD, "memory"),
        ("while True: pass", Status.TIMEOUT, Stage.LOAD, "no result within 1 s"),
    ],
)
def test_a_module_that_fails_on_import(judge: Judge, code: str, status: Status, stage: Stage, words: str) -> None:
    verdict = judge(python_candidate(RETURN, top=code), config=replace(QUICK, timeout_s=1.0 if "while" in code else 20.0))
    assert (verdict.status, verdict.stage) == (status, stage)
    assert words in verdict.message


@pytest.mark.parametrize(
    ("first", "words"),
    [
        ("# -*- coding: raw_unicode_escape -*-  \\u000araise ValueError('what nobody reads')\n", "not as raw_unicode_escape"),
        ("# vim: set fileencoding=nonsense :\n", "unknown encoding"),
        ("\ufeff", "utf-8-sig"),
        ("# -*- coding: utf-8 -*-  \\u000araise ValueError\n", ""),
        ("# Größe\n", ""),
    ],
)
def test_what_runs_is_what_was_read(judge: Judge, first: str, words: str) -> None:
    """Rules and judges read the text; a file may say of itself that it is another."""
    verdict = judge(first + python_candidate(RETURN))
    assert (verdict.status is Status.LOAD_ERROR) is bool(words), verdict.message
    assert words in verdict.message


@pytest.mark.parametrize(
    ("forward", "status", "words"),
    [
        ("raise KeyError('lost')", Status.RUNTIME_ERROR, "KeyError: 'lost'"),
        ("return extension.scaled_relu(x)", Status.RUNTIME_ERROR, "expected 2 arguments, got 1"),
        ("import os; os._exit(0)", Status.CRASHED, "exit 0"),
        ("import ctypes; ctypes.string_at(0)", Status.CRASHED, "SIGSEGV"),
        ("return torch.zeros(1 << 40)", Status.OUT_OF_MEMORY, "memory"),
        ("import time; time.sleep(60)", Status.TIMEOUT, "no result within 1 s"),
        ("return x.cuda()", Status.RUNTIME_ERROR, "CUDA"),
    ],
)
def test_a_forward_that_fails(judge: Judge, forward: str, status: Status, words: str) -> None:
    config = replace(QUICK, timeout_s=1.0 if "sleep" in forward else 20.0)
    verdict = judge(python_candidate(forward), config=config)
    assert verdict.status is status
    assert words in verdict.message
    assert verdict.stage is Stage.TRIALS and verdict.compiled


def test_a_traceback_shows_the_candidates_own_line(judge: Judge) -> None:
    verdict = judge(python_candidate("return torch.cat([x, 3])"))
    assert "return torch.cat([x, 3])" in verdict.message
    assert "candidate.py, line" in verdict.message
    assert os.sep + "tmp" not in verdict.message


def test_a_compiler_error_is_a_build_error_with_the_compilers_words(judge: Judge) -> None:
    verdict = judge(GOOD.replace("auto y =", "auto y"))
    assert (verdict.status, verdict.stage) == (Status.BUILD_ERROR, Stage.BUILD)
    assert "relu.cpp:4" in verdict.message and "error:" in verdict.message
    assert not verdict.compiled


def test_a_build_error_cannot_be_caught_and_hidden(judge: Judge) -> None:
    hidden = GOOD.replace("auto y =", "auto y").replace("extension = load_inline", "try:\n  extension = load_inline")
    hidden = hidden.replace('functions=["scaled_relu"])', 'functions=["scaled_relu"])\nexcept Exception: pass')
    hidden = hidden.replace(RETURN, "return torch.relu(x) * self.scale")
    assert judge(hidden).status is Status.BUILD_ERROR


def test_a_build_in_the_first_forward_works(judge: Judge) -> None:
    late = GOOD.replace("extension = load_inline", "build = lambda: load_inline")
    late = late.replace("mine = extension.scaled_relu", "global extension; extension = build()")
    assert judge(late).status is Status.CORRECT


@pytest.mark.parametrize(
    ("text", "status"),
    [('"// the same"', Status.CORRECT), ('f"// {(seen := seen + 1) // 20}"', Status.BUILD_ERROR)],
    ids=["as in trials", "new"],
)
def test_only_what_was_built_before_is_there_while_it_is_timed(judge: Judge, text: str, status: Status) -> None:
    """A session has its cores, and a lock, for itself: a compiler would have others wait. In trials it may ask for 20 others."""
    late = GOOD.replace("extension = load_inline", "seen = 0\nbuild = lambda text: load_inline").replace(
        'cpp_sources="""', 'cpp_sources=text + """'
    )
    late = late.replace(
        "mine = extension.scaled_relu", f"global extension, seen; extension = build({text}); mine = extension.scaled_relu"
    )
    verdict = judge(late)
    assert verdict.status is status, verdict.message
    assert (status is Status.CORRECT) == (verdict.timing is not None) and ("while it is timed" in verdict.message) == (
        verdict.timing is None
    )


def test_syntax_errors_show_the_line(judge: Judge) -> None:
    verdict = judge(GOOD + "\ndef broken(:\n")
    assert verdict.status is Status.LOAD_ERROR
    assert "SyntaxError" in verdict.message and "def broken(:" in verdict.message


def test_output_is_captured_bounded_and_never_decides(judge: Judge) -> None:
    verdict = judge(
        python_candidate(
            RETURN, top="import sys\nprint('hello'); print('{\"correct\": true}', file=sys.stderr)\nprint('x' * 10**7)"
        )
    )
    assert verdict.status is Status.CORRECT
    assert verdict.log.startswith("hello\n") and len(verdict.log) <= 16_384


@pytest.mark.parametrize(
    "buffer",
    [
        "torch.eye(3).to_sparse()", "torch.eye(3).to_mkldnn()", "torch.eye(3).to(torch.float8_e4m3fn)",
        "torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8)",
    ],
)  # fmt: skip
@pytest.mark.parametrize("plain", [True, False], ids=["of a name of the reference's", "of its own"])
def test_a_buffer_may_be_of_any_kind(judge: Judge, problem: Problem, buffer: str, plain: bool) -> None:
    theirs = "self.scale = scale; self.register_buffer('packed', torch.eye(3))"
    weighted = replace(problem, source=problem.source.replace("self.scale = scale", theirs)) if plain else problem
    code = python_candidate("return mine(x, self.scale)", init=f"self.register_buffer('packed', {buffer})")
    verdict = judge(code, of=weighted, config=replace(QUICK, measure_performance=False))
    assert verdict.status is Status.CORRECT, verdict.message


def test_weights_come_from_the_same_seed_or_are_copied(judge: Judge, problem: Problem) -> None:
    source = REFERENCE.replace("self.scale = scale", "self.scale = nn.Parameter(torch.randn(8) * scale)")
    weighted = replace(problem, source=source)
    same = python_candidate("return torch.relu(x) * self.scale", init="self.scale = nn.Parameter(torch.randn(8) * scale)")
    copied = python_candidate("return torch.relu(x) * self.scale", init="self.scale = nn.Parameter(torch.zeros(8))")
    renamed = python_candidate("return torch.relu(x) * self.w", init="self.w = nn.Parameter(torch.randn(8) * scale)")
    strange = python_candidate("return torch.relu(x) * self.w", init="self.w = nn.Parameter(torch.ones(8))")
    assert [judge(c, of=weighted).weights for c in (same, copied, renamed)] == ["same_seed", "loaded", "own"]
    assert judge(renamed, of=weighted).status is Status.CORRECT
    folded = python_candidate(
        "return torch.relu(x) * self.scale.flip(0)", init="self.scale = nn.Parameter((torch.randn(8) * scale).flip(0))"
    )
    verdict = judge(folded, of=weighted)
    assert (verdict.status, verdict.weights) == (Status.CORRECT, "own"), "another layout under the same name"
    assert judge(strange, of=weighted).status is Status.WRONG_OUTPUT


def test_random_operations_start_from_the_same_state(judge: Judge, problem: Problem) -> None:
    dropout = replace(problem, source=REFERENCE.replace("torch.relu(x) * self.scale", "torch.dropout(x, 0.5, True) * self.scale"))
    assert judge(python_candidate("return torch.dropout(x, 0.5, True) * self.scale"), of=dropout).status is Status.CORRECT


def test_structured_values_travel(judge: Judge, problem: Problem) -> None:
    body = "return {'a': torch.relu(x), 'b': (x.sum(), [int(x.shape[0]), None, 'w', 1.5, True])}"
    source = REFERENCE.replace("return torch.relu(x) * self.scale", body)
    assert judge(python_candidate(body), of=replace(problem, source=source)).status is Status.CORRECT
    assert judge(python_candidate(body.replace("1.5", "1.6")), of=replace(problem, source=source)).status is Status.WRONG_OUTPUT


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int64", "bool", "complex64"])
def test_dtypes_travel(judge: Judge, problem: Problem, dtype: str) -> None:
    body = f"return (torch.relu(x) * 3).to(torch.{dtype})"
    typed = replace(problem, source=REFERENCE.replace("return torch.relu(x) * self.scale", body))
    assert judge(python_candidate(body), of=typed).status is Status.CORRECT
    assert judge(python_candidate(body.replace("* 3", "* 4")), of=typed).status is (
        Status.WRONG_OUTPUT if dtype != "bool" else Status.CORRECT
    )


def test_permuted_inputs_keep_their_strides(judge: Judge, problem: Problem) -> None:
    source = REFERENCE.replace("torch.randn(ROWS, 8)", "torch.randn(8, ROWS).t()")
    seen = python_candidate("assert not x.is_contiguous() and x.stride() == (1, 16); return torch.relu(x) * self.scale")
    assert judge(seen, of=replace(problem, source=source)).status is Status.CORRECT


def test_a_problem_that_fails_is_nobodys_score(judge: Judge, problem: Problem) -> None:
    broken = replace(problem, source=REFERENCE.replace("torch.relu(x)", "torch.rleu(x)"))
    with pytest.raises(ProblemError, match=r"level1_problem1 \(ScaledRelu, from test\) failed in call: AttributeError"):
        judge(GOOD, of=broken)


def test_a_problem_without_its_package_says_what_to_do(judge: Judge, problem: Problem) -> None:
    lacking = replace(problem, source=f"import no_such_package\n{REFERENCE}")
    with pytest.raises(
        ProblemError, match=r"failed in load: ModuleNotFoundError: No module named 'no_such_package'.*; install that"
    ):
        judge(GOOD, of=lacking)


def test_a_candidate_cannot_see_seeds_or_expected_outputs_in_its_frames(judge: Judge) -> None:
    spy = python_candidate(
        RETURN,
        top="import gc, os\nsecret = [o for o in gc.get_objects() if isinstance(o, dict) and 'expected' in o and 'problem' in o]\n"
        "assert not secret, secret\nassert not any('KEY' in k for k in os.environ), os.environ",
    )
    assert judge(spy).status is Status.CORRECT


def test_nothing_outlives_the_verdict(problem: Problem, tmp_path: Path) -> None:
    """Not even where no sandbox forbids to fork."""
    marker = tmp_path / "alive"
    daemon = f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            open({str(marker)!r}, "w").write(str(time.time()))
            time.sleep(0.02)
    os._exit(0)
"""
    with BlockingVerifier(lambda: LocalVerifier(VerifierConfig(sandbox="off"))) as verifier:
        verifier.verify(problem, Candidate(python_candidate(RETURN, top=daemon), "cpp"), QUICK, 1)
        assert marker.exists()
        time.sleep(0.2)
        before = marker.read_text()
        time.sleep(0.2)
        assert marker.read_text() == before


def test_an_interpreted_triton_kernel_is_judged_without_a_time(judge: Judge) -> None:
    from rollout.doctor import CANARIES, PROBLEM

    good = judge(CANARIES["triton"] % "1.0", of=PROBLEM, backend="triton")
    assert good.status is Status.CORRECT and good.timing is None and good.timing_note == "interpreter"
    assert judge(CANARIES["triton"] % "1.5", of=PROBLEM, backend="triton").status is Status.WRONG_OUTPUT


def test_asking_for_a_gpu_is_unscored_under_the_interpreter(judge: Judge) -> None:
    from rollout.doctor import CANARIES, PROBLEM

    verdict = judge(
        CANARIES["triton"].replace("torch.empty_like(x)", "torch.empty_like(x).cuda()") % "1.0", of=PROBLEM, backend="triton"
    )
    assert verdict.status is Status.NEEDS_DEVICE and not verdict.scored


def test_a_busy_machine_gives_no_time_and_no_score(judge: Judge, problem: Problem) -> None:
    large = replace(problem, source=REFERENCE.replace("ROWS = 16", "ROWS = 1 << 18"))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in os.sched_getaffinity(0)]
    try:
        with pytest.raises(MachineBusy, match="too busy to take times"):
            judge(GOOD, of=large, config=replace(QUICK, noise_limit=0.02, timing_budget_s=0.5, num_perf_trials=100))
    finally:
        for process in busy:
            process.kill()
            process.wait()


TELLS = """import threading, time
cores = [None]
def allowed():  # what Python says is the slot's cores, always
    with open("/proc/self/status") as status:
        words = next(line for line in status if line.startswith("Cpus_allowed_list")).split()[1]
    ends = [part.split("-") for part in words.split(",")]
    return {core for end in ends for core in range(int(end[0]), int(end[-1]) + 1)}
def tell():
    now = allowed()
    if now != cores[-1]:
        cores.append(now)
        print("runs on", *sorted(now), flush=True)
def until_wide():  # it is let loose once it is awake
    deadline = time.monotonic() + 0.5
    while len(allowed()) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_timed_program_keeps_to_its_core_unless_it_starts_threads(judge: Judge) -> None:
    """Where a thread may run is what the threads inherit that it starts."""
    everywhere = " ".join(map(str, sorted(os.sched_getaffinity(0))))
    alone = judge(python_candidate(f"time.sleep(0.002); tell(); {RETURN}", top=TELLS))
    assert re.findall("runs on (.*)", alone.log) == [everywhere, everywhere.split()[0]]
    thread = "one = threading.Thread(target=int); one.start(); one.join(); until_wide(); tell(); "
    assert re.findall("runs on (.*)", judge(python_candidate(thread + RETURN, top=TELLS)).log) == [everywhere]


def test_a_gigabyte_of_output_harms_nobody(judge: Judge) -> None:
    flood = "import os\nfor _ in range(1024): os.write(1, b'x' * (1 << 20))"
    verdict = judge(python_candidate(RETURN, top=flood), config=replace(QUICK, timeout_s=60.0))
    assert verdict.status is Status.CORRECT and len(verdict.log) <= 16_384


# ---------------------------------------------------------- timed calls: cheats, and honest twins beside them

COUNT = "calls = [0]"
LATER = "calls[0] += 1; later = calls[0] > 5; "
"""Trials are 3 calls: from the sixth on a program knows that it is timed."""
FRESH = "y = mine(x, self.scale); "


def changed(problem: Problem, *replacements: tuple[str, str]) -> Problem:
    source = problem.source
    for old, new in replacements:
        assert old in source
        source = source.replace(old, new)
    return replace(problem, source=source)


SKIPPED = {
    "stale output": ("y = kept[0] if later else mine(x, self.scale); kept[0] = y", "y = mine(x, self.scale); kept[0] = y"),
    "nothing done": ("y = torch.zeros_like(x) if later else mine(x, self.scale)", "y = mine(x, self.scale)"),
    "half of the work": (FRESH + "y[8:] = 0 if later else y[8:]", FRESH + "y[8:] = y[8:].clone()"),
    "cache by sampled content": (
        "k = round(float(x[3, 5]), 1); y = kept[k] = kept[k] if k in kept else mine(x, self.scale)",
        "k = bytes(x.numpy()); y = kept[k] = kept[k] if k in kept else mine(x, self.scale)",
    ),
    "cache by data_ptr": (
        "k = x.data_ptr(); y = kept[k] = kept[k] if k in kept and later else mine(x, self.scale)",
        "k = x.data_ptr(); y = kept[k] = mine(x, self.scale)",
    ),
    "cache by id": (
        "k = id(x); y = kept[k] = kept[k] if k in kept and later else mine(x, self.scale)",
        "k = id(x); y = kept[k] = mine(x, self.scale)",
    ),
    "cache by version": (
        "k = x._version; y = kept[k] = kept[k] if k in kept and later else mine(x, self.scale)",
        "k = x._version; y = kept[k] = mine(x, self.scale)",
    ),
}
"""A forward that cheats in timed calls, and one that looks much like it."""


@pytest.mark.parametrize(("cheat", "honest"), SKIPPED.values(), ids=SKIPPED)
def test_what_is_skipped_in_timed_calls_is_seen_there(judge: Judge, cheat: str, honest: str) -> None:
    caught = judge(python_candidate(f"{LATER}{cheat}; return y", top=COUNT + "; kept = {}"))
    assert (caught.status, caught.category, caught.stage) == (Status.WRONG_OUTPUT, "values", Stage.TIMING)
    assert "(a timed call)" in caught.message and caught.trials_passed == 3 and caught.timing is None
    timed = judge(python_candidate(f"{LATER}{honest}; return y", top=COUNT + "; kept = {}"))
    assert timed.status is Status.CORRECT and timed.timing is not None


def test_changing_the_inputs_in_timed_calls_alone_is_seen(judge: Judge) -> None:
    caught = judge(python_candidate(LATER + FRESH + "x.mul_(2.0 if later else 1.0); return y", top=COUNT))
    assert (caught.status, caught.stage) == (Status.MUTATED_INPUTS, Stage.TIMING)
    copied = judge(python_candidate(LATER + FRESH + "x.clone().mul_(2.0 if later else 1.0); return y", top=COUNT))
    assert copied.status is Status.CORRECT and copied.timing is not None


def test_work_in_the_callers_inputs_that_is_undone_is_no_mutation(judge: Judge) -> None:
    assert judge(python_candidate("x.neg_(); x.neg_(); return mine(x, self.scale)")).status is Status.CORRECT


@pytest.mark.parametrize("when", ["True", "later"], ids=["always", "when timed"])
@pytest.mark.parametrize("lazy", ["y.as_subclass(Lazy)", "marked(y)"], ids=["subclass", "attribute"])
def test_only_plain_tensors_count_as_outputs(judge: Judge, lazy: str, when: str) -> None:
    top = COUNT + "\nclass Lazy(torch.Tensor): pass\ndef marked(y):\n    y = y.view(16, 8); y.note = 1\n    return y\n"
    caught = judge(python_candidate(f"{LATER}{FRESH}return {lazy} if {when} else y", top=top))
    assert (caught.status, caught.category) == (Status.WRONG_OUTPUT, "structure")
    assert caught.stage is (Stage.TRIALS if when == "True" else Stage.TIMING)
    assert "plain torch.Tensor" in caught.message
    within = judge(python_candidate(f"{LATER}{FRESH}mine_own = {lazy} if {when} else y; return y", top=top))
    assert within.status is Status.CORRECT, within.message


@pytest.mark.parametrize(
    "forward",
    [
        "return mine(x.t().contiguous(), self.scale).t()",
        "return mine(x.flip(0), self.scale).flip(0)",
        "wide = torch.zeros(16, 24); wide[:, 5:13] = mine(x, self.scale); return wide[:, 5:13]",
        "tall = torch.zeros(40, 8); tall[7:23] = mine(x, self.scale); return tall[7:23]",
        "sparse = torch.zeros(16, 8, 50); sparse[..., 7] = mine(x, self.scale); return sparse[..., 7]",
        "self.kept = getattr(self, 'kept', x.clone()); self.kept.copy_(mine(x, self.scale)); return self.kept.clone()",
        "return nn.Parameter(mine(x, self.scale))",
        "return nn.Parameter(mine(x, self.scale), requires_grad=False)",
        "return mine(x, self.scale).to(torch.float64).to(torch.float32)",
    ],
    ids=["transposed", "flipped", "columns", "rows", "sparse view", "copied buffer", "Parameter", "frozen Parameter", "converted"],
)  # fmt: skip
def test_honest_ways_to_return_a_tensor_are_correct_and_timed(judge: Judge, forward: str) -> None:
    verdict = judge(python_candidate(forward))
    assert verdict.status is Status.CORRECT, verdict.message
    assert verdict.timing is not None


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("(torch.relu(x) * self.scale).mean(0, keepdim=True).expand(16, 8)", "torch.relu(x) * self.scale"),
        ("(torch.relu(x) * self.scale).sum()", "(torch.relu(x) * self.scale).sum() * 1.01"),
        ("x[:, ::2]", "x[:, 1::2]"),
        ("x", "x + 1"),
        ("(torch.relu(x), x[:0], {'a': x.t()})", "(torch.relu(x), x[:0], {'a': x.t() * 2})"),
    ],
    ids=["expanded", "scalar", "every other column of the input", "the input", "several"],
)
def test_other_outputs_are_compared_and_timed(judge: Judge, problem: Problem, right: str, wrong: str) -> None:
    of = changed(problem, ("return torch.relu(x) * self.scale", f"return {right}"))
    verdict = judge(python_candidate(f"return {right}"), of=of)
    assert verdict.status is Status.CORRECT and verdict.timing is not None, verdict.message
    assert judge(python_candidate(f"return {wrong}"), of=of).status is Status.WRONG_OUTPUT
    caught = judge(python_candidate(f"{LATER}return ({wrong}) if later else ({right})", top=COUNT), of=of)
    assert (caught.status, caught.stage) == (Status.WRONG_OUTPUT, Stage.TIMING)


def test_a_reference_with_a_state_from_call_to_call_is_judged_and_timed(judge: Judge, problem: Problem) -> None:
    body = "self.n += 1; return torch.relu(x) * self.scale + self.n"
    of = changed(problem, ("self.scale = scale", "self.scale = scale; self.n = 0"), ("return torch.relu(x) * self.scale", body))
    verdict = judge(python_candidate(body, init="self.n = 0"), of=of)
    assert verdict.status is Status.CORRECT and verdict.timing is not None, verdict.message
    assert judge(python_candidate("return torch.relu(x) * self.scale", init="self.n = 0"), of=of).status is Status.WRONG_OUTPUT


@pytest.mark.parametrize(
    "draw",
    ["torch.randint(-9, 9, (ROWS, 8)).float()", "torch.triu(torch.randn(ROWS, 8))", "torch.randn(ROWS, 8).mul_(3)",
     "torch.randn(8, ROWS).t()", "torch.randn(ROWS, 16)[:, :8]"],
)  # fmt: skip
def test_inputs_that_cannot_be_turned_are_drawn_anew_for_timed_calls(judge: Judge, problem: Problem, draw: str) -> None:
    of = changed(problem, ("torch.randn(ROWS, 8)", draw))
    verdict = judge(python_candidate("return torch.relu(x) * self.scale"), of=of)
    assert verdict.status is Status.CORRECT and verdict.timing is not None, verdict.message
    replay = python_candidate(LATER + "y = kept.setdefault(x.data_ptr(), torch.relu(x) * 2); return y", top=COUNT + "; kept = {}")
    caught = judge(replay, of=of)
    assert caught.status is Status.WRONG_OUTPUT


def test_a_structure_of_the_inputs_holds_in_timed_calls_too(judge: Judge, problem: Problem) -> None:
    of = changed(problem, ("torch.randn(ROWS, 8)", "torch.triu(torch.randn(ROWS, 8))"))
    forward = "assert not x[8:].any() and torch.equal(x, x.triu()); return mine(x, self.scale)"
    assert judge(python_candidate(forward), of=of).status is Status.CORRECT
    assert judge(python_candidate(forward)).status is Status.RUNTIME_ERROR


def test_a_reduction_over_the_whole_input_is_not_worth_remembering(judge: Judge, problem: Problem) -> None:
    """Any one element tells of which set the inputs are; their norm is that set's, known from the trials."""
    of = changed(
        problem,
        ("import torch\n", "import time\nimport torch\n"),
        ("return torch.relu(x) * self.scale", "time.sleep(0.003); return x / x.norm()"),
    )
    norm = "\ndef norm(x):\n    time.sleep(0.003)\n    return x.norm()\n"
    honest = judge(python_candidate("return x / norm(x)", top="import time" + norm), of=of)
    assert honest.timing is not None and honest.timing.speedup < 3
    remembered = "\n        ".join(
        [
            "if float(x[0, 0]) not in kept: kept.update(dict.fromkeys(x.flatten().tolist(), norm(x)))",
            "return x / kept[float(x[0, 0])]",
        ]
    )
    cheat = judge(python_candidate(remembered, top="import time; kept = {}" + norm), of=of)
    assert cheat.timing is None or cheat.timing.speedup < 3


def test_a_structure_between_inputs_holds_in_timed_calls_too(judge: Judge, problem: Problem) -> None:
    of = changed(
        problem,
        ("return [torch.randn(ROWS, 8)]", "x = torch.randn(ROWS, 8); return [x, (x > 0).float()]"),
        ("forward(self, x)", "forward(self, x, mask)"),
        ("torch.relu(x)", "x * mask"),
    )
    verdict = judge(python_candidate("return mine(x, self.scale)").replace("forward(self, x)", "forward(self, x, mask)"), of=of)
    assert verdict.status is Status.CORRECT, verdict.message


def test_a_reference_that_differs_in_last_bits_is_still_compared(judge: Judge, problem: Problem) -> None:
    of = changed(
        problem,
        ("import torch\n", "import time\nimport torch\n"),
        ("return torch.relu(x) * self.scale", "return torch.relu(x) * self.scale * (1 + time.perf_counter() % 1 * 1e-6)"),
    )
    honest = judge(python_candidate("return mine(x, self.scale)"), of=of)
    assert honest.status is Status.CORRECT
    cheat, _ = SKIPPED["stale output"]
    assert judge(python_candidate(f"{LATER}{cheat}; return y", top=COUNT + "; kept = {}"), of=of).status is Status.WRONG_OUTPUT


NATIVE = '''
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

native = load_inline(name="threads", cpp_sources="""
#include <torch/extension.h>
#include <chrono>
#include <thread>
static void fill(const float* a, float* b, int64_t n, float scale) {
  for (int64_t i = 0; i < n; ++i) b[i] = a[i] > 0 ? a[i] * scale : 0.0f;
}
torch::Tensor threaded(torch::Tensor x, double scale, int64_t delay_us, bool join) {
  auto y = torch::empty_like(x);
  std::thread worker([x, y, scale, delay_us] {
    std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
    fill(x.data_ptr<float>(), y.data_ptr<float>(), x.numel(), scale);
  });
  if (join) worker.join(); else worker.detach();
  return y;
}
torch::Tensor scribbled(torch::Tensor x, double scale, bool on_output) {  // for long on its output, for a moment elsewhere
  auto y = torch::empty_like(x), own = torch::empty_like(x);
  fill(x.data_ptr<float>(), y.data_ptr<float>(), x.numel(), scale);
  std::thread([y, own, on_output] {
    auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(on_output ? 2000 : 100);
    volatile float* b = (on_output ? y : own).data_ptr<float>();
    while (std::chrono::steady_clock::now() < until)
      for (int64_t i = 0; i < y.numel(); ++i) b[i] = b[i] + 1;
  }).detach();
  return y;
}
""", functions=["threaded", "scribbled"])
calls = [0]


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        calls[0] += 1
        later = calls[0] > 5
        %s
'''
LATE = {("tampered", "late_work"), ("wrong_output", "values"), ("wrong_output", "nonfinite")}
MANY = replace(QUICK, num_perf_trials=400, timing_budget_s=3.0)
"""What a thread does later shows in some rounds, and in others it has not yet had a core."""


@pytest.mark.parametrize("delay_us", [500, 2000])
@pytest.mark.parametrize("when", ["True", "later"], ids=["always", "when timed"])
def test_a_thread_that_fills_the_output_later_is_seen(judge: Judge, when: str, delay_us: int) -> None:
    """In a message of several calls only the last can be late; so singly sent ones are among the rounds."""
    caught = judge(NATIVE % f"return native.threaded(x, self.scale, {delay_us}, not ({when}))", config=MANY)
    assert (caught.status.value, caught.category) in LATE, caught.message
    assert caught.timing is None


@pytest.mark.parametrize("explained", [True, False])
def test_a_part_is_excused_only_by_what_was_there_with_it(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, explained: bool
) -> None:
    """To go on once more tells a program that it was caught, and it could mend the rest so that it is excused."""
    seen: list[str] = []
    one: Any = OnTrial(House(None, None, clock.LiveClock()), Job(problem, Candidate(GOOD, "cpp"), QUICK, 1))  # type: ignore[arg-type]
    one.runner = SimpleNamespace(thaw=lambda: seen.append("thawed"), freeze=lambda: None)
    one._fetched = lambda *_: None
    monkeypatch.setattr(candidate, "compare", lambda *_: Difference("values", "differs"))
    expected: Any = SimpleNamespace(layout=None, memory=None)

    def whole() -> bool:
        seen.append("compared as a whole")
        return explained

    with nullcontext() if explained else pytest.raises(Failed, match="differs"):
        assert one.compare(expected, "", one.tolerance, None, whole=whole)
    assert seen == ["compared as a whole", "thawed"][: 1 if explained else 2]


def test_a_thread_that_is_joined_is_honest_and_its_time_counts(judge: Judge) -> None:
    verdict = judge(NATIVE % "return native.threaded(x, self.scale, 2000, True)")
    assert verdict.status is Status.CORRECT and verdict.timing is not None
    assert verdict.timing.runtime.min_ms >= 2.0


def test_an_output_that_changes_between_calls_is_seen(judge: Judge) -> None:
    caught = judge(NATIVE % "return native.scribbled(x, self.scale, later)", config=MANY)
    assert (caught.status.value, caught.category) in LATE, caught.message
    assert caught.stage is Stage.TIMING


def test_a_thread_that_writes_elsewhere_does_no_harm(judge: Judge) -> None:
    verdict = judge(NATIVE % "return native.scribbled(x, self.scale, False)", config=MANY)
    assert verdict.status is Status.CORRECT, verdict.message


def test_calls_that_are_slow_only_when_timed_end_at_the_limit(judge: Judge) -> None:
    """Each is within the limit; all together they are not. Without one for the whole stage this took a limit for each call."""
    slow = "calls[0] += 1\n        time.sleep(0.4 if calls[0] > 6 else 0); return mine(x, self.scale)"
    config = replace(QUICK, timeout_s=1.0)
    verdict = judge(python_candidate(slow, top="import time; calls = [0]"), config=config)
    assert (verdict.status, verdict.stage) == (Status.TIMEOUT, Stage.TIMING)
    honest = "time.sleep(0.15); return mine(x, self.scale)"
    assert judge(python_candidate(honest, top="import time"), config=config).status is Status.CORRECT


@pytest.mark.parametrize(
    ("forward", "status"), [("return torch.relu(x) * self.scale", Status.TAMPERED), ("return x", Status.CORRECT)]
)
def test_a_time_too_short_to_write_the_output_is_none(
    monkeypatch: pytest.MonkeyPatch, problem: Problem, forward: str, status: Status
) -> None:
    """With caches that are slow enough, every kernel is too fast; unless the reference too hands an input back."""
    monkeypatch.setattr(clock, "CACHE_BYTES_S", 1.0)
    posed = replace(problem, source=REFERENCE.replace("return torch.relu(x) * self.scale", forward))
    with BlockingVerifier(InprocessVerifier) as verifier:
        verdict = verifier.verify(posed, Candidate(python_candidate(forward), "cpp"), QUICK, 1)
    assert verdict.status is status, verdict.message
    assert (verdict.category == "impossible_time") is (status is Status.TAMPERED)


@pytest.mark.parametrize(
    ("found", "speedup", "kind"),
    [([2.0, 2.0, 2.0], 0.5, "eager, alone"), ([2.0, 1.0], 1.0, "eager"), ([2.0, 2.0, 1.0], 1.0, "eager"), ([1.0], 1.0, "eager")],
)
def test_a_faster_baseline_counts_only_if_the_candidate_slows_it_each_time(
    monkeypatch: pytest.MonkeyPatch, problem: Problem, found: list[float], speedup: float, kind: str
) -> None:
    """A machine that changes its speed once must not cost an honest kernel half of its speedup."""
    answers, equal = iter(found), clock.timing([clock.Round(1, (1.0,), (1.0,))], 0)
    monkeypatch.setattr(referee, "slowed", lambda *_: next(answers))
    monkeypatch.setattr(clock, "timing", lambda *_: equal)
    with BlockingVerifier(InprocessVerifier) as verifier:
        verdict = verifier.verify(problem, Candidate(GOOD, "cpp"), QUICK, 1)
    assert verdict.timing is not None and (verdict.timing.speedup, verdict.timing.baseline_kind) == (speedup, kind)
    assert next(answers, "all asked") == "all asked"


def argmax_of_four(reference: str = "return torch.argmax(x, dim=1)") -> str:
    source = (Path(__file__).parent / "candidates/problems/largest_of_four.py").read_text()
    return source.replace("return torch.argmax(x, dim=1)", reference)


def of_no_arguments(forward: str, top: str = "") -> str:
    return python_candidate(forward, top=top).replace("self, scale)", "self)").replace("self.scale = scale", "pass")


@pytest.mark.parametrize(
    ("reference", "forward", "status"),
    [
        (
            "return (torch.argmax(x, 1), x.float().mean().item())",
            "return (3 - torch.argmax(x.flip(1), 1), x.float().mean().item())",
            Status.CORRECT,
        ),
        (
            "return torch.floor(x.float().sum(1) * 1000).long()",
            "return torch.floor(x.double().sum(1) * 1000).long()",
            Status.CORRECT,
        ),
    ],
    ids=["a number beside it", "a threshold"],
)
def test_what_the_reference_would_answer_decides(problem: Problem, reference: str, forward: str, status: Status) -> None:
    with BlockingVerifier(InprocessVerifier) as verifier:
        config = replace(QUICK, torch_ops="unchecked", tolerance="kernelbench", measure_performance=False)
        posed = replace(problem, source=argmax_of_four(reference))
        verdict = verifier.verify(posed, Candidate(of_no_arguments(forward), "cpp"), config, 1)
    assert verdict.status is status, verdict.message


@pytest.mark.parametrize("error", [ProblemError, ReferenceEnded])
def test_a_reference_that_refuses_other_inputs_excuses_nobody(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, error: type[ProblemError]
) -> None:
    """What happens to its process is nobody's score."""

    def refused(*_: Any) -> Any:
        raise error("not with such inputs")
        yield

    monkeypatch.setattr(bench.Oracle, "opinions", refused)
    config = replace(QUICK, torch_ops="unchecked", measure_performance=False)
    candidate = Candidate(of_no_arguments("y = torch.argmax(x, 1); y[7] = 3 - y[7]; return y"), "cpp")
    with BlockingVerifier(InprocessVerifier) as verifier:
        if error is ReferenceEnded:
            with pytest.raises(VerifierError, match="not with such inputs"):
                verifier.verify(replace(problem, source=argmax_of_four()), candidate, config, 1)
        else:
            assert verifier.verify(replace(problem, source=argmax_of_four()), candidate, config, 1).status is Status.WRONG_OUTPUT


@pytest.mark.parametrize("explained", [False, True])
def test_what_a_part_has_shown_the_whole_takes_back_only_if_it_is_undetermined(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, explained: bool
) -> None:
    """A part may lie across two that are compared by themselves, or be filled in before the whole is looked at."""
    compare = OnTrial.compare

    def compared(
        self: OnTrial, expected: Any, where: str, tolerance: Any, got: Any, opinions: Any = None, whole: Any = None
    ) -> bool:
        if where != "a timed call":
            return compare(self, expected, where, tolerance, got, opinions)
        if whole is not None and not whole():
            raise Failed(Status.WRONG_OUTPUT, self.stage, "a part is wrong", "values")
        return explained

    monkeypatch.setattr(OnTrial, "compare", compared)
    monkeypatch.setattr(referee, "CHECK_BYTES", 256)
    with BlockingVerifier(InprocessVerifier) as verifier:
        verdict = verifier.verify(problem, Candidate(python_candidate(RETURN), "cpp"), QUICK, 1)
    assert verdict.status is (Status.CORRECT if explained else Status.WRONG_OUTPUT), verdict.message


@pytest.mark.parametrize("when", ["trials", "timed", "timed, in parts"])
@pytest.mark.parametrize(
    ("forward", "status"),
    [
        ("return 3 - torch.argmax(x.flip(1), dim=1)", Status.CORRECT),
        (
            "found = torch.argmax(x, dim=1)\n        found[torch.randint(4000, (1,))] += 1\n        return found",
            Status.WRONG_OUTPUT,
        ),
        ("return 3 - torch.argmax(x.flip(1).bfloat16(), dim=1)", Status.WRONG_OUTPUT),
    ],
    ids=["the last of equals", "few rows that are wrong", "fewer bits"],
)
def test_which_of_two_equal_numbers_comes_first_is_nobodys_fault(
    problem: Problem, monkeypatch: pytest.MonkeyPatch, forward: str, status: Status, when: str
) -> None:
    """The reference finds the first; a wrong one is still wrong. Timed: trials are right, as they are few; then it changes."""
    right = QUICK.num_correct_trials + 1 if when != "trials" else 0
    first = f"calls[0] += 1\n        if calls[0] <= {right}: return torch.argmax(x, dim=1)\n        "
    code = of_no_arguments(first + forward, top="calls = [0]")
    asked: list[bench.Oracle] = []
    opinions = bench.Oracle.opinions

    def noted(self: bench.Oracle, *rest: Any) -> Any:
        asked.append(self)
        return opinions(self, *rest)

    monkeypatch.setattr(bench.Oracle, "opinions", noted)
    if "parts" in when:  # at random places: one row alone is missed in one verdict of twelve
        monkeypatch.setattr(referee, "CHECK_BYTES", 16_384)
        code = code.replace("(1,)", "(40,)")
    with BlockingVerifier(InprocessVerifier) as verifier:
        config = replace(QUICK, torch_ops="unchecked")
        posed = replace(problem, source=argmax_of_four())
        verdict = verifier.verify(posed, Candidate(code, "cpp"), config, 1)
    assert verdict.status is status, verdict.message
    assert asked
    if status is not Status.CORRECT:
        assert verdict.stage is (Stage.TRIALS if when == "trials" else Stage.TIMING)
    elif when == "trials":  # as many as the trials are; of timed calls few are looked at, perhaps one
        assert len(set(map(id, asked))) < len(asked), "one process answers more than once"

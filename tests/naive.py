"""Five small evaluators as they are commonly written. The corpus's cheats fool them; that is what they are for.

`inprocess` runs reference and candidate in one process, with a fixed seed, a tolerance of 1e-2, and times from the inside.
`kernelbench` does as KernelBench's own evaluation does: seeds drawn from 42, the same inputs for both, 1e-4, times on one input.
`subprocess` starts a process for each candidate, which checks in the way of `inprocess` and prints its result as JSON.
`small_shapes` checks on inputs of at most 64 in each dimension and times on whole ones, at whose outputs it does not look.
`two_processes` has the candidate write its outputs to a file and compares them in a second process, in the same directory.

Run as a program, this file is such an evaluator: `python -m tests.naive EVALUATOR DIRECTORY`. Builds go to our Builder, for
speed only: what it refuses is built as torch does it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_env.schema import Candidate, Problem

LIMIT_S = 60.0
MEMORY = 20 << 30
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Opinion:
    """What an evaluator says. `correct` is None when it says nothing: it hung, died or printed no result."""

    correct: bool | None
    speedup: float | None = None
    text: str = ""


def opinion(evaluator: str, problem: Problem, candidate: Candidate) -> Opinion:
    """Ask one, in a process group and a directory of its own, both gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ke-naive-", ignore_cleanup_errors=True) as directory:
        Path(directory, "problem.py").write_text(problem.source)
        Path(directory, "candidate.py").write_text(candidate.code)
        environment = {**os.environ, "TMPDIR": directory, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        if candidate.backend == "triton":
            environment["TRITON_INTERPRET"] = "1"
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.naive", evaluator, directory],
            cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, preexec_fn=_limit,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            return Opinion(None, text=f"no result within {LIMIT_S:g} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    text = output.decode(errors="replace")
    found = _last_result(text)
    return Opinion(found["correct"], found.get("speedup"), text) if "correct" in found else Opinion(None, text=text)


def _limit() -> None:
    """The machine survives this. Headers that are compiled ahead, should they have to be, take some 300 MB."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _last_result(text: str) -> dict[str, Any]:
    """As is usual: the last line that is JSON with a result."""
    for line in reversed(text.splitlines()):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict) and ("correct" in found or "seconds" in found):
                return found
    return {}


# ---------------------------------------------------------------- the evaluators


def _inprocess(problem: str, candidate: str) -> dict[str, Any]:
    import torch

    reference, new = _loaded(problem, "problem"), _loaded(candidate, "candidate")
    torch.manual_seed(42)
    model = reference["Model"](*reference["get_init_inputs"]())
    torch.manual_seed(42)
    model_new = new["ModelNew"](*reference["get_init_inputs"]())
    with torch.no_grad():
        for trial in range(5):
            torch.manual_seed(42 + trial)
            inputs = reference["get_inputs"]()
            got = model_new(*inputs)
            expected = model(*inputs)
            if not torch.allclose(expected, got, atol=1e-2, rtol=1e-2, equal_nan=True):
                return {"correct": False}
        return {"correct": True, "speedup": _mean_s(model, inputs) / _mean_s(model_new, inputs)}


def _kernelbench(problem: str, candidate: str) -> dict[str, Any]:
    import torch

    reference, new = _loaded(problem, "problem"), _loaded(candidate, "candidate")
    torch.manual_seed(42)
    model = reference["Model"](*reference["get_init_inputs"]())
    torch.manual_seed(42)
    model_new = new["ModelNew"](*reference["get_init_inputs"]())
    torch.manual_seed(42)
    seeds = [int(torch.randint(0, 2**32 - 1, (1,)).item()) for _ in range(5)]
    with torch.no_grad():
        for seed in seeds:
            torch.manual_seed(seed)
            inputs = reference["get_inputs"]()
            torch.manual_seed(seed)
            expected = model(*inputs)
            torch.manual_seed(seed)
            got = model_new(*inputs)
            if expected.shape != got.shape or not torch.allclose(expected, got, atol=1e-4, rtol=1e-4):
                return {"correct": False}
        torch.manual_seed(42)
        inputs = reference["get_inputs"]()
        return {"correct": True, "speedup": _mean_s(model, inputs) / _mean_s(model_new, inputs)}


def _small_shapes(problem: str, candidate: str) -> dict[str, Any]:
    import torch

    reference, new = _loaded(problem, "problem"), _loaded(candidate, "candidate")
    model = reference["Model"](*reference["get_init_inputs"]())
    model_new = new["ModelNew"](*reference["get_init_inputs"]())
    with torch.no_grad():
        whole = reference["get_inputs"]()
        for _ in range(5):
            small = [each[(slice(64),) * each.dim()].contiguous() for each in reference["get_inputs"]()]
            if not torch.allclose(model(*small), model_new(*small), atol=1e-4, rtol=1e-4):
                return {"correct": False}
        return {"correct": True, "speedup": _mean_s(model, whole) / _mean_s(model_new, whole)}


def _written(problem: str, candidate: str) -> dict[str, Any]:
    """The first process of `two_processes`, which leaves behind what was asked and what the candidate answered."""
    import torch

    reference, new = _loaded(problem, "problem"), _loaded(candidate, "candidate")
    model_new = new["ModelNew"](*reference["get_init_inputs"]())
    with torch.no_grad():
        inputs = reference["get_inputs"]()
        torch.save([inputs, model_new(*inputs)], "outputs.pt")
        return {"seconds": _mean_s(model_new, inputs)}


def _compared(seconds: float) -> dict[str, Any]:
    """The second."""
    import torch

    sys.path.insert(0, "")
    import compare  # type: ignore[import-not-found]  # beside the candidate's file, as such things are

    reference = _loaded(Path("problem.py").read_text(), "problem")
    inputs, got = torch.load("outputs.pt", weights_only=True)
    model = reference["Model"](*reference["get_init_inputs"]())
    with torch.no_grad():
        if not compare.allclose(model(*inputs), got):
            return {"correct": False}
        return {"correct": True, "speedup": _mean_s(model, inputs) / seconds}


_COMPARE = "import torch\n\n\ndef allclose(expected, got):\n    return torch.allclose(expected, got, atol=1e-4, rtol=1e-4)\n"


def _loaded(source: str, name: str) -> dict[str, Any]:
    module: dict[str, Any] = {"__name__": name}
    Path(f"{name}_module.py").write_text(source)
    exec(compile(source, f"{os.getcwd()}/{name}_module.py", "exec"), module)  # noqa: S102 - what it is for
    return module


def _mean_s(model: Any, inputs: Any) -> float:
    for _ in range(3):
        model(*inputs)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        model(*inputs)
        times.append(time.perf_counter() - start)
    return max(sum(times) / len(times), 1e-9)


def main() -> None:
    evaluator, directory = sys.argv[1], Path(sys.argv[2])
    if evaluator == "subprocess":
        print(json.dumps(_child("inprocess", directory)))
        return
    if evaluator == "two_processes":
        Path("compare.py").write_text(_COMPARE)
        first = _child("written", directory)
        print(json.dumps(_child("compared", directory, str(first["seconds"])) if "seconds" in first else first))
        return
    if evaluator == "compared":
        print(json.dumps(_compared(float(sys.argv[3]))))
        return
    problem, candidate = (Path(directory, f"{name}.py").read_text() for name in ("problem", "candidate"))
    from kernel_env.backends.loading import routed_builds
    from kernel_env.builder import Builder, BuildRequest
    from kernel_env.hostlock import CoresLock
    from kernel_env.verifier import VerifierConfig

    builder = Builder(VerifierConfig().cache(), CoresLock())

    def build(frame: dict[str, Any]) -> dict[str, Any]:
        result = builder.build(
            BuildRequest(
                tuple(map(tuple, frame["sources"])), tuple(map(tuple, frame["functions"])), tuple(frame["compile_flags"]),
                tuple(frame["link_flags"]),
            )
        )  # fmt: skip
        return {"ok": True, "module": result.module, "path": result.path} if result.ok else _built_by_torch(frame)

    with routed_builds(build):
        found = _EVALUATORS[evaluator](problem, candidate)
    print(json.dumps(found), flush=True)


_TORCHS_BUILD = """
import json, sys
from torch.utils.cpp_extension import load_inline
frame = json.load(sys.stdin)
sources = [code for _, code in frame["sources"]]
flags = {"extra_cflags": frame["compile_flags"], "extra_ldflags": frame["link_flags"]}
print(load_inline("stock", sources, functions=dict(frame["functions"]) or None, build_directory="stock", **flags).__file__)
"""


def _built_by_torch(frame: dict[str, Any]) -> dict[str, Any]:
    Path("stock").mkdir(exist_ok=True)
    command = [sys.executable, "-P", "-c", _TORCHS_BUILD]
    run = subprocess.run(command, input=json.dumps(frame), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    path = run.stdout.rpartition("\n")[0].rpartition("\n")[2]
    return {"ok": run.returncode == 0, "module": "stock", "path": path, "log": run.stderr[-2000:]}


def _child(*arguments: object) -> dict[str, Any]:
    command = [sys.executable, "-P", "-m", "tests.naive", *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return _last_result(run.stdout) or {"none": run.stderr[-500:]}


_EVALUATORS = {"inprocess": _inprocess, "kernelbench": _kernelbench, "small_shapes": _small_shapes, "written": _written}


if __name__ == "__main__":
    main()

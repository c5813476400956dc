"""How long does the report of a large run take to build and to use, and how much memory?

A run of 250 problems, 16 samples and 3 turns is made up and written down once: prompts, replies, kernels and compiler output as
long as real ones, verdicts at random, tokens as an engine returns them with `--tokens`. Then a process of its own builds its report
as `kernel-env report` does. Where chromium is installed, the HTML is opened and filtered in it. A filter is done when the browser
has drawn what is left.

    python -m benchmarks.report                       # the run is written to a directory that is removed afterwards
    python -m benchmarks.report --problems 20 --samples 4 --keep /tmp/run

Run it in the checkout's directory, on a quiet machine.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from kernel_env.schema import (
    Episode,
    Generation,
    Problem,
    Reward,
    Stage,
    Stats,
    Status,
    StopReason,
    Timing,
    Turn,
    Usage,
    Verdict,
    dumps,
    episode_key,
)
from rollout.documents import EpisodeFile, RunInfo, TurnFile
from tests.chromium import CHROMIUM, browser

TURNS = 3
WORDS = (
    "tile",
    "row",
    "block",
    "stride",
    "load",
    "store",
    "mask",
    "reduce",
    "warp",
    "shared",
    "float",
    "index",
    "thread",
    "program",
    "size",
    "output",
    "input",
    "kernel",
    "grid",
    "sum",
)
BUILD = """
import resource, sys, time
from pathlib import Path
from rollout.report import write_report
from rollout.store import RunReader
began, cpu_began = time.perf_counter(), time.process_time()
write_report(RunReader(Path(sys.argv[1])))
print(time.perf_counter() - began, time.process_time() - cpu_began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
FILTER = """
(async () => {
  const drawn = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  const spent = [], text = document.getElementById('text'), status = document.getElementById('status');
  const settle = async (field, value) => {
    const began = performance.now();
    field.value = value;
    field.dispatchEvent(new Event('input', {bubbles: true}));
    await drawn();
    spent.push(performance.now() - began);
  };
  for (const word of ['', 'p', 'pr', 'problem1', 'problem12', '']) await settle(text, word);
  for (const option of status.options) await settle(status, option.value);
  return spent;
})()
"""


@dataclass(frozen=True)
class Built:
    seconds: float
    cpu_seconds: float
    """Of one thread: what it would take if nothing else ran."""
    peak_mib: float
    html_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, default=250)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--tokens", action="store_true", help="turns hold the engine's tokens too")
    parser.add_argument("--keep", type=Path, help="write the run here, and leave it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        run = write_run(options.keep or Path(made), options.problems, options.samples, options.tokens)
        size = sum(file.stat().st_size for file in (run / "turns").iterdir()) / 2**20
        print(f"{options.problems} problems x {options.samples} samples x {TURNS} turns: {size:.0f} MiB of turn files")
        built = build(run)
        time_taken = f"{built.seconds:.1f} s ({built.cpu_seconds:.1f} s of processor time)"
        print(f"built in {time_taken}, peak {built.peak_mib:.0f} MiB, HTML {built.html_mib:.1f} MiB")
        used = "no chromium here" if CHROMIUM is None else use(run / "reports" / "report.html")
    print(f"report: {time_taken}, {built.peak_mib:.0f} MiB; in the browser: {used}")


def build(run: Path) -> Built:
    done = subprocess.run([sys.executable, "-c", BUILD, str(run)], check=True, capture_output=True, text=True)
    seconds, cpu_seconds, peak = map(float, done.stdout.split())
    return Built(seconds, cpu_seconds, peak, (run / "reports" / "report.html").stat().st_size / 2**20)


def use(file: Path) -> str:
    with browser() as page:
        began = time.perf_counter()
        page.open(file, width=1280)
        opened = time.perf_counter() - began
        spent = page.do(FILTER)
        heap = page.do("performance.memory.usedJSHeapSize") / 2**20
        began = time.perf_counter()
        page.click("button.mark")
        page.until("document.querySelector('dialog').open")
        turn_ms = (time.perf_counter() - began) * 1e3
        elements = page.do("document.querySelectorAll('*').length")
    assert not page.complaints, page.complaints
    return (
        f"opens in {opened:.1f} s, filters in {statistics.median(spent):.0f} ms (worst {max(spent):.0f}), "
        f"a turn in {turn_ms:.0f} ms, {elements} elements, heap {heap:.0f} MiB"
    )


# ------------------------------------------------------------------ the run


def write_run(root: Path, problems: int, samples: int, tokens: bool) -> Path:
    posed = [Problem(1 + n % 3, n + 1, f"Problem_of_{n}", text(random.Random(n), 2500)) for n in range(problems)]
    asked = tuple(episode_key(problem.key, sample) for problem in posed for sample in range(samples))
    info = RunInfo("large", "openai/m", 7, asked, TURNS, gamma=0.4, correct_reward=1.0)
    run = root / info.name
    for folder in ("problems", "turns", "episodes", "reports"):
        (run / folder).mkdir(parents=True)
    (run / "config.yaml").write_text("policy:\n  name: openai\n")
    (run / "environment.json").write_text('{"cpu": "two cores"}\n')
    (run / "run.json").write_text(dumps(info))
    for problem in posed:
        (run / "problems" / f"{problem.key}.json").write_text(dumps(problem))
        for sample in range(samples):
            made = episode(problem, sample, random.Random(f"{problem.key} {sample}"), tokens)
            for turn in made.turns:
                (run / "turns" / f"{made.key}_turn{turn.index}.json").write_text(
                    dumps(TurnFile.of(problem, sample, turn), indent=2)
                )
            (run / "episodes" / f"{made.key}.json").write_text(dumps(EpisodeFile.of(made)))
    return run


def episode(problem: Problem, sample: int, rng: random.Random, tokens: bool) -> Episode:
    shown: tuple[dict[str, str], ...] = (
        {"role": "system", "content": "You write kernels."},
        {"role": "user", "content": f"{problem.source}\n{'Rules. ' * 300}"},
    )
    turns: list[Turn] = []
    kernel = text(rng, 3000)
    for index in range(TURNS):
        lines = kernel.splitlines()
        lines[rng.randrange(len(lines))] = text(rng, 200)
        kernel = "\n".join(lines)
        reply = f"<think>{text(rng, 2500)}</think>\n```python\n{kernel}\n```\n{text(rng, 500)}"
        verdict = drawn(problem, rng)
        reward = 0.1 if not verdict.correct else 1 + min(max((verdict.speedup or 0) - 1, 0), 0.9)
        ids = tuple(rng.randrange(150_000) for _ in range(1500)) if tokens else None
        chances = tuple(-rng.random() for _ in range(1500)) if tokens else None
        generation = Generation(
            reply, usage=Usage(2000, 1500), model="m", duration_s=rng.uniform(5, 30), output_ids=ids, output_logprobs=chances
        )
        feedback = f"Error from previous attempt: {verdict.message[:1000]}" if index < TURNS - 1 else None
        turns.append(Turn(index, shown, generation, kernel, verdict, Reward(reward, {"correct": reward}), feedback))
        shown = (*shown, {"role": "assistant", "content": reply}, {"role": "user", "content": feedback or ""})
    return Episode(problem, sample, tuple(turns), StopReason.TURN_LIMIT)


def drawn(problem: Problem, rng: random.Random) -> Verdict:
    status = rng.choice(
        [Status.CORRECT, Status.CORRECT, Status.WRONG_OUTPUT, Status.BUILD_ERROR, Status.RUNTIME_ERROR, Status.TIMEOUT]
    )
    correct = status is Status.CORRECT
    speedup = rng.lognormvariate(0, 0.5)
    times = Stats(1.0, 1.0, 0.1, 0.9, 1.1, 100)
    return Verdict(
        status=status,
        stage=Stage.DONE if correct else Stage.BUILD if status is Status.BUILD_ERROR else Stage.TRIALS,
        problem=problem.key,
        problem_digest=problem.digest,
        candidate_digest="c",
        backend="cpp",
        message="" if correct else text(rng, 1500),
        log=text(rng, 300),
        timing=Timing(times, times, speedup, speedup * 0.9, speedup * 1.1) if correct else None,
        trials=5,
        trials_passed=5 if correct else 0,
        tolerance="strict",
        duration_ms=rng.uniform(500, 5000),
    )


def text(rng: random.Random, characters: int) -> str:
    """Lines of words and numbers: they compress about as well as code does."""
    found = []
    while characters > 0:
        line = "    " + " ".join(rng.choice(WORDS) if rng.random() < 0.8 else str(rng.randrange(1000)) for _ in range(9))
        found.append(line)
        characters -= len(line) + 1
    return "\n".join(found)


if __name__ == "__main__":
    main()

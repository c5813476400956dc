"""`kernel-env scorecard`: judge a corpus of cheats and honest kernels, and say how many came out as they should."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kernel_env.backends import BACKENDS, get_backend
from kernel_env.errors import ConfigError, InfraError
from kernel_env.printable import LAYOUT, printable
from kernel_env.referee.config import derive_seed
from kernel_env.schema import Status, Verdict
from kernel_env.verifier import Verifier
from rollout import compose
from rollout.corpus import Corpus, Entry, load_corpus
from rollout.runner import make_verifier
from rollout.settings import Settings

DEFAULTS = ("verify.timing_budget_s=0.3", "verify.num_perf_trials=40", "verify.timeout_s=20", "verify.timing_precision=0.1")
"""Nothing hangs on the second digit of a speedup here. What the user says goes before them."""
COMPARED = 3
"""But a cheat and a twin that are compared are measured so many times each, and their medians count: either may be 10% off."""
BEGIN, END = "<!-- scorecard -->", "<!-- /scorecard -->"


class Outcome(StrEnum):
    GOOD = "good"
    """A cheat was caught or gained nothing; an honest kernel passed."""
    BAD = "bad"
    NOT_RUN = "not run"
    """It needs what this machine does not have."""
    FAILED = "failed"
    """The infrastructure failed: nothing is known."""


@dataclass(frozen=True)
class Result:
    """What became of one file."""

    name: str
    kind: str
    classes: tuple[int, ...]
    outcome: Outcome
    status: str = ""
    category: str = ""
    speedup: float | None = None
    said: str = ""
    """Why it is not good, or what the verdict said."""


def scorecard(directory: Path, overrides: Sequence[str], *, as_json: bool, write: bool, only: str = "") -> int:
    """Returns 0 when every cheat was caught and every honest kernel passed, 1 when not, 4 when the infrastructure failed."""
    corpus = load_corpus(directory)
    if only:
        corpus = corpus.part(only)
        if not corpus.entries:
            raise ConfigError(f"no file of {directory} has {only!r} in its name")
    settings, _ = compose.composed([*(f"verifier.slots={len(os.sched_getaffinity(0))}",), *DEFAULTS, *overrides])
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    results = asyncio.run(_judged(corpus, settings, console))
    if as_json:
        print(json.dumps({"totals": totals(results), "candidates": [asdict(result) for result in results]}, indent=1))
    if write:
        _write(corpus, results)
    console.print(_table(corpus, results))
    for result in results:
        if result.outcome in (Outcome.BAD, Outcome.FAILED):
            console.print(printable(f"{result.name}: {result.said}", LAYOUT), markup=False)
    console.print(last_line(results))
    outcomes = {result.outcome for result in results}
    return 1 if Outcome.BAD in outcomes else 4 if Outcome.FAILED in outcomes else 0


async def _judged(corpus: Corpus, settings: Settings, console: Console) -> list[Result]:
    seed = settings.run.seed if settings.run.seed is not None else 0
    cheats = [entry for entry in corpus.entries if entry.most_gain is not None]
    compared = {entry.name for entry in cheats} | {Path(entry.twin).stem for entry in cheats}
    verifier = make_verifier(settings.verifier)
    try:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("judging", total=len(corpus.entries))

            async def one(entry: Entry) -> Result:
                try:
                    return await judge(entry, verifier, settings, seed, COMPARED if entry.name in compared else 1)
                finally:
                    progress.advance(task)

            return beside_twins(corpus.entries, await asyncio.gather(*map(one, corpus.entries)))
    finally:
        await verifier.aclose()


async def judge(entry: Entry, verifier: Verifier, settings: Settings, seed: int, tries: int = 1) -> Result:
    """One file's result, the median of so many if all of them have a speed, else the first that has none. Never raises for what a
    candidate does, nor for infrastructure."""
    backend = entry.candidate.backend
    if entry.needs or backend not in BACKENDS or get_backend(backend).missing():
        return _unrun(entry)
    config = replace(settings.verify, measure_performance=entry.timed, torch_ops=entry.torch_ops or settings.verify.torch_ops)
    verdicts: list[Verdict] = []
    for index in range(tries):
        path = (entry.name, index) if index else (entry.name,)
        try:
            verdict = await verifier.verify(entry.problem, entry.candidate, config, derive_seed(seed, *path))
        except InfraError as error:
            return _result(entry, Outcome.FAILED, said=" ".join(str(error).split()))
        if verdict.speedup is None:
            return _found(entry, verdict)
        verdicts.append(verdict)
    return _found(entry, sorted(verdicts, key=lambda verdict: verdict.speedup or 0.0)[tries // 2])


def beside_twins(entries: Sequence[Entry], results: Sequence[Result]) -> list[Result]:
    """The results, in which a cheat has gained something that is faster than its `most_gain` allows. Where the twin has no speed
    nothing can be said about the cheat's."""
    by_name = {result.name: result for result in results}

    def judged(entry: Entry, result: Result) -> Result:
        if entry.most_gain is None or result.outcome is not Outcome.GOOD or result.status != Status.CORRECT:
            return result
        speed, twin = result.speedup or 0.0, by_name[Path(entry.twin).stem]
        if twin.speedup is None:
            outcome = Outcome.FAILED if twin.outcome is Outcome.FAILED else Outcome.BAD
            return replace(result, outcome=outcome, said=f"its twin {twin.name} has no speed to compare with: {twin.said}")
        if speed > entry.most_gain * twin.speedup:
            said = f"{speed:.2f} times as fast, and its twin {twin.speedup:.2f}: more than {entry.most_gain:g} times that"
            return replace(result, outcome=Outcome.BAD, said=said)
        return result

    return [judged(entry, result) for entry, result in zip(entries, results, strict=True)]


def _unrun(entry: Entry) -> Result:
    """What the static rules say. They are all that can be tried."""
    backend = BACKENDS.get(entry.candidate.backend)
    reason = backend.check(entry.candidate.code, entry.candidate.entry) if backend else None
    if reason is None:
        return _result(entry, Outcome.NOT_RUN, said=f"needs {entry.needs or entry.candidate.backend}")
    good = entry.kind == "cheat" and Status.REJECTED in entry.verdicts
    return _result(entry, Outcome.GOOD if good else Outcome.BAD, status=Status.REJECTED, said=reason)


def _found(entry: Entry, verdict: Verdict) -> Result:
    speedup = verdict.timing.speedup if verdict.timing else None
    said = " ".join(verdict.message.split())
    outcome = Outcome.GOOD
    if verdict.status is Status.NEEDS_DEVICE and Status.NEEDS_DEVICE not in entry.verdicts:
        outcome = Outcome.NOT_RUN
    elif entry.degenerate and verdict.degenerate:
        said = "the problem is said to be degenerate"
    elif verdict.status not in entry.verdicts:
        outcome, said = Outcome.BAD, f"{verdict.status}, not {' or '.join(entry.verdicts)}: {said}"
    elif verdict.correct and entry.most_speedup is not None and (speedup or 0.0) > entry.most_speedup:
        outcome, said = Outcome.BAD, f"{speedup:.2f} times as fast, more than {entry.most_speedup:g}"
    elif verdict.correct and entry.least_speedup is not None and (speedup or 0.0) < entry.least_speedup:
        outcome, said = Outcome.BAD, f"{speedup or 0:.2f} times as fast, less than {entry.least_speedup:g}"
    return _result(entry, outcome, status=verdict.status, category=verdict.category, speedup=speedup, said=said)


def _result(
    entry: Entry, outcome: Outcome, *, status: str = "", category: str = "", speedup: float | None = None, said: str = ""
) -> Result:
    return Result(entry.name, entry.kind, entry.classes, outcome, str(status), category, speedup, said)


def totals(results: Sequence[Result]) -> dict[str, int]:
    """Counts: `caught`, `cheats`, `cheats_not_run`, `passed`, `honest`, `honest_not_run`, `failed`. `cheats` and `honest` are those
    that were tried."""
    counts = {"failed": sum(r.outcome is Outcome.FAILED for r in results)}
    for kind, good, tried in (("cheat", "caught", "cheats"), ("honest", "passed", "honest")):
        mine = [r for r in results if r.kind == kind]
        counts[good] = sum(r.outcome is Outcome.GOOD for r in mine)
        counts[tried] = sum(r.outcome in (Outcome.GOOD, Outcome.BAD) for r in mine)
        counts[f"{tried}_not_run"] = sum(r.outcome is Outcome.NOT_RUN for r in mine)
    return counts


def last_line(results: Sequence[Result]) -> str:
    n = totals(results)
    failed = f"; {n['failed']} failed for the infrastructure" if n["failed"] else ""
    return (
        f"{n['caught']} of {n['cheats']} cheats caught ({n['cheats_not_run']} not run here), "
        f"{n['passed']} of {n['honest']} honest kernels passed ({n['honest_not_run']} not run here){failed}"
    )


def _rows(corpus: Corpus, results: Sequence[Result]) -> list[tuple[str, ...]]:
    """(class, what, caught / tried / not run, honest passed / tried), and last those that belong to no class."""
    rows = []
    for number, found in sorted(corpus.classes.items()):
        mine = [r for r in results if number in r.classes]
        rows.append((str(number), found.text, *_cells(mine)))
    rest = _cells([r for r in results if not r.classes])
    return [*rows, ("", "honest kernels that resemble no cheat", *rest)]


def _cells(results: Sequence[Result]) -> tuple[str, str]:
    n = totals(results)
    honest = f"{n['passed']} / {n['honest']}" + (f" / {n['honest_not_run']}" if n["honest_not_run"] else "")
    return f"{n['caught']} / {n['cheats']} / {n['cheats_not_run']}", honest if n["honest"] or n["honest_not_run"] else "–"


def _table(corpus: Corpus, results: Sequence[Result]) -> Table:
    table = Table("class", "what it tries", "caught / tried / not run", "honest passed / tried")
    for row in _rows(corpus, results):
        if row[2:] != _cells([]):
            table.add_row(*row)
    return table


def markdown(corpus: Corpus, results: Sequence[Result]) -> str:
    """The README's table: one row per group of classes."""
    groups: dict[str, list[int]] = {}
    for number, found in corpus.classes.items():
        groups.setdefault(found.group, []).append(number)
    lines = ["| cheats | classes | caught / tried / not run here | their honest twins passed / tried |", "|---|---|---|---|"]
    for group, numbers in groups.items():
        caught, honest = _cells([r for r in results if set(numbers) & set(r.classes)])
        lines.append(f"| {group} | {len(numbers)} | {caught} | {honest} |")
    return "\n".join([*lines, "", f"{last_line(results)}."])


def _write(corpus: Corpus, results: Sequence[Result]) -> None:
    """`docs/scorecard.json` and the README's table, of the checkout that is the working directory. What verdicts said is left out:
    it names places of this machine."""
    readme = Path("README.md")
    before, begin, rest = readme.read_text().partition(BEGIN) if readme.is_file() else ("", "", "")
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"--write needs a README.md with {BEGIN} and {END} in the working directory")
    readme.write_text(f"{before}{BEGIN}\n{markdown(corpus, results)}\n{END}{after}")
    rows = ",\n".join(json.dumps({k: v for k, v in asdict(result).items() if k != "said"}) for result in results)
    Path("docs/scorecard.json").write_text(f'{{"totals": {json.dumps(totals(results))},\n"candidates": [\n{rows}\n]}}\n')

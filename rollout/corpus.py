"""The corpus: one file per candidate, a cheat or an honest kernel, with a header that says what it is and what should come of it.

    # cheat: Work goes on in a thread after forward() has returned
    # classes: 3
    # problem: problems/relu.py
    # verdict: tampered wrong_output
    # fools: inprocess
    # twin: c03_joined_thread.py

    import torch
    ...

The header ends at the first line that is no comment, and is not part of the candidate. `docs/corpus.md` explains the fields.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kernel_env.backends import BACKENDS, get_backend
from kernel_env.errors import DatasetError
from kernel_env.problems import find, load_problems
from kernel_env.problems.selection import did_you_mean
from kernel_env.schema import Candidate, Problem, Status

EVALUATORS = ("inprocess", "kernelbench", "subprocess", "small_shapes", "two_processes")
NOBODY = "nobody"
_FIELDS = {
    "cheat", "honest", "classes", "problem", "backend", "verdict", "most_speedup", "most_gain", "least_speedup", "timed", "twin",
    "fools", "downs", "claims", "needs", "note", "torch_ops",
}  # fmt: skip
_LINE = re.compile(r"# ?(\w+):(?!:)\s*(.*)")
_CLASS = re.compile(r"(\d+)\s+(\w+):\s+(.+)")


@dataclass(frozen=True)
class CheatClass:
    number: int
    group: str
    text: str


@dataclass(frozen=True)
class Entry:
    """One file of the corpus."""

    name: str
    kind: Literal["cheat", "honest"]
    title: str
    problem: Problem
    candidate: Candidate
    classes: tuple[int, ...] = ()
    """Of a cheat: what it tries. Of an honest kernel: what it could be taken for."""
    verdicts: tuple[Status, ...] = (Status.CORRECT,)
    """Which of them are right. A cheat that is `correct` gains nothing as long as it is not faster than `most_speedup`."""
    degenerate: bool = False
    """Whether it is enough that the verdict calls the problem degenerate: such problems can be left out."""
    most_speedup: float | None = None
    most_gain: float | None = None
    """... or not so many times as fast as its twin, which was judged on the same machine."""
    least_speedup: float | None = None
    torch_ops: str = ""
    """What may be left to torch, where it is not what the settings say."""
    timed: bool = False
    """Whether times have to be taken: where nothing about speed is asked, they are not."""
    twin: str = ""
    """Of a cheat: the file of the honest kernel that is nearest to it."""
    fools: tuple[str, ...] = ()
    """Naive evaluators (`tests/naive.py`) that call it correct, or `nobody`, ..."""
    downs: tuple[str, ...] = ()
    """... and those that give no result, or lose something, because of it."""
    claims: float = 0.0
    """The least speedup that those which are fooled report."""
    needs: str = ""
    """`gpu`: it cannot run here, and only the static rules see it."""
    note: str = ""


@dataclass(frozen=True)
class Corpus:
    classes: dict[int, CheatClass]
    entries: tuple[Entry, ...]

    def part(self, text: str) -> Corpus:
        """Those with `text` in their names, and the twins that they are measured by."""
        chosen = {entry.name for entry in self.entries if text in entry.name}
        twins = {Path(e.twin).stem for e in self.entries if e.name in chosen and e.most_gain is not None}
        return replace(self, entries=tuple(entry for entry in self.entries if entry.name in chosen | twins))


def load_corpus(directory: Path) -> Corpus:
    """Read `classes.txt` and every `*.py` of a directory. Raises DatasetError, which names the file and what is wrong with it."""
    listing = directory / "classes.txt"
    if not listing.is_file():
        raise DatasetError(f"{directory}: no classes.txt there; name a corpus, such as tests/candidates of a checkout")
    classes = {c.number: c for c in map(_class, _lines(listing))}
    bundled = load_problems("bundled", None, "cpu")
    interpreted = load_problems("bundled", None, "interpret")
    entries = []
    for path in sorted(directory.glob("*.py")):
        try:
            entries.append(_entry(path, {"cpu": bundled, "interpret": interpreted}))
        except (ValueError, OSError) as error:
            raise DatasetError(f"{path}: {error}") from None
    _check(directory, classes, entries)
    return Corpus(classes, tuple(entries))


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]


def _class(line: str) -> CheatClass:
    match = _CLASS.fullmatch(line)
    if match is None:
        raise DatasetError(f"classes.txt: {line!r} is not `NUMBER GROUP: what it is`")
    return CheatClass(int(match[1]), match[2], match[3])


def _entry(path: Path, bundled: dict[str, tuple[Problem, ...]]) -> Entry:
    header, code = _split(path.read_text())
    unknown = header.keys() - _FIELDS
    if unknown:
        name = min(unknown)
        raise ValueError(f"unknown field {name!r}{did_you_mean(name, _FIELDS)}")
    if ("cheat" in header) == ("honest" in header):
        raise ValueError("a header has either `cheat:` or `honest:`, with a title")
    kind: Literal["cheat", "honest"] = "cheat" if "cheat" in header else "honest"
    backend = header.get("backend", "cpp")
    words = header.get("verdict", "correct" if kind == "honest" else "").split()
    verdicts = tuple(Status(word) for word in words if word != "degenerate")
    most, gain, least = (float(header[name]) if name in header else None for name in ("most_speedup", "most_gain", "least_speedup"))
    entry = Entry(
        name=path.stem,
        kind=kind,
        title=header[kind],
        problem=_problem(path.parent, header.get("problem", ""), bundled, backend),
        candidate=Candidate(code, backend),
        classes=tuple(int(number) for number in header.get("classes", "").split()),
        verdicts=verdicts,
        degenerate="degenerate" in words,
        most_speedup=most,
        most_gain=gain,
        least_speedup=least,
        timed=header.get("timed", "no") == "yes" or {most, gain, least} != {None},
        torch_ops=header.get("torch_ops", ""),
        twin=header.get("twin", ""),
        fools=tuple(header.get("fools", "").split()),
        downs=tuple(header.get("downs", "").split()),
        claims=float(header.get("claims", 0)),
        needs=header.get("needs", ""),
        note=header.get("note", ""),
    )
    if not entry.title or not verdicts:
        raise ValueError("a title, and for a cheat the verdicts that are right, are missing")
    if kind == "cheat" and Status.CORRECT in verdicts and most is None and gain is None:
        raise ValueError("a cheat that may be correct needs most_speedup or most_gain: what it gains is nothing")
    if wrong := {*entry.fools, *entry.downs} - {*EVALUATORS} - ({NOBODY} if entry.fools == (NOBODY,) else set()):
        raise ValueError(f"no evaluator {min(wrong)!r}: there are {', '.join(EVALUATORS)}; or `fools: {NOBODY}` alone")
    if entry.needs not in ("", "gpu"):
        raise ValueError(f"needs: {entry.needs!r}: only `gpu` can be needed")
    return entry


def _split(text: str) -> tuple[dict[str, str], str]:
    """Header and candidate. A field's text goes on in comment lines that are indented."""
    header: dict[str, str] = {}
    lines = text.splitlines(keepends=True)
    last = ""
    for index, line in enumerate(lines):
        match = _LINE.match(line)
        if match is not None:
            last = match[1]
            header[last] = match[2].strip()
        elif line.startswith("#   ") and last:
            header[last] += " " + line[1:].strip()
        else:
            return header, "".join(lines[index:]).lstrip("\n")
    return header, ""


def _problem(directory: Path, name: str, bundled: dict[str, tuple[Problem, ...]], backend: str) -> Problem:
    if name.endswith(".py"):
        path = directory / name
        return Problem(1, 1, path.stem, path.read_text(), origin="corpus")
    if backend not in BACKENDS:  # one of another machine: nothing of it runs here
        return find(bundled["cpu"], name)
    return find(bundled.get(get_backend(backend).profile, bundled["cpu"]), name)


def _check(directory: Path, classes: dict[int, CheatClass], entries: list[Entry]) -> None:
    by_name = {entry.name: entry for entry in entries}
    for entry in entries:
        where = f"{directory / entry.name}.py"
        for number in entry.classes:
            if number not in classes:
                raise DatasetError(f"{where}: there is no class {number} in classes.txt")
        if entry.kind == "cheat":
            twin = by_name.get(Path(entry.twin).stem)
            if not entry.classes or twin is None or twin.kind != "honest":
                raise DatasetError(f"{where}: a cheat names its classes and, as `twin`, the file of an honest kernel")
            if entry.most_gain is not None and not (twin.timed and twin.problem == entry.problem):
                raise DatasetError(f"{where}: most_gain needs a twin that is timed, on the same problem")

"""Kills a command at random moments, runs it again until it is done, and lets the result be compared with an undisturbed run.

    harness = Harness([sys.executable, "-m", "kernel_env", "eval", ...], tmp_path, output="runs/r")
    calm = harness.undisturbed()
    for run in harness.killed(random.Random(0), 8, Target.COMMAND):
        assert compare_trees(calm.directory, run.directory) == []

Each run has a working directory of its own, so that a command with relative paths writes equal bytes. Violated on the way, each
of these raises `Violation`:

- after a kill, and at the end, each finished file (see `Harness.final`) that was ever seen is there, and was never written again;
- soon after its command was killed, or ended, no process of its tree lives;
- with no further kills, the command ends by itself, within a bounded number of attempts.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from kernel_env.processes import WAITING, become_subreaper

POLL_S = 0.01


class Violation(AssertionError):
    """What must hold across kills did not."""


class Target(StrEnum):
    """Who is killed with SIGKILL."""

    COMMAND = "command"
    """The process that was started, and nobody else."""
    TREE = "tree"
    """It and all its descendants, in random order."""
    WORKER = "worker"
    """One referee worker; the command lives on."""
    ZYGOTE = "zygote"
    CANDIDATE = "candidate"
    """One program forked from the zygote: a candidate's or a reference's."""
    BUILDER = "builder"
    """One process of a compiler that a worker has started: its driver, a stage, the linker, or a shell between them."""
    SERVER = "server"
    """The server that the command asks (`Harness.server`)."""


ENDS = (Target.COMMAND, Target.TREE)
"""After these the command has ended; it lives on without any of the others."""
HELPERS = (Target.WORKER, Target.ZYGOTE, Target.CANDIDATE)
_MODULES = {Target.WORKER: "kernel_env.referee.worker", Target.ZYGOTE: "kernel_env.referee.zygote"}


# ---------------------------------------------------------------- processes, by /proc


@dataclass(frozen=True)
class Process:
    """A living process (a zombie is dead). `started` tells it from a later one with the same pid."""

    pid: int
    parent: int
    started: int

    def described(self) -> str:
        """What it is, whose child, and what it waits for in the kernel."""
        facts = []
        for name in ("wchan", "syscall", "status"):
            with suppress(OSError):
                facts.append(Path(f"/proc/{self.pid}/{name}").read_text().strip())
        state = next((line for line in "\n".join(facts).splitlines() if line.startswith("State")), "")
        return f"[{self.pid}, child of {self.parent}] {state} in {' '.join(facts[:2])}: {self.command}"

    @property
    def command(self) -> str:
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return ""

    @property
    def waiting(self) -> bool:
        """Whether it is a runner that has no work yet."""
        with suppress(OSError):
            return Path(f"/proc/{self.pid}/comm").read_text().strip() == WAITING
        return False

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def descendants(of: int, but: Container[Process] = ()) -> list[Process]:
    """Every living process below `of`, parents before children; neither `but` nor what lives below it."""
    children: dict[int, list[Process]] = {}
    for process in _living():
        children.setdefault(process.parent, []).append(process)
    found, waiting = [], [of]
    while waiting:
        below = [process for process in children.get(waiting.pop(0), []) if process not in but]
        found += below
        waiting += [process.pid for process in below]
    return found


def _living() -> Iterator[Process]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):  # it ended meanwhile
                fields = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    yield Process(int(entry.name), int(fields[1]), int(fields[19]))


# ---------------------------------------------------------------- moments


@dataclass(frozen=True)
class Moment:
    """First `changes` files appear or change below the output, then a process of kind `helper` lives, then `delay_s` pass."""

    changes: int = 0
    helper: Target | None = None
    delay_s: float = 0.0

    @staticmethod
    def draw(rng: random.Random, most_changes: int, most_delay_s: float) -> Moment:
        """Half of them within the work, the others while the command or one of its helpers starts."""
        delay_s = rng.uniform(0, most_delay_s)
        how = rng.random()
        if how < 0.25:
            return Moment(delay_s=rng.uniform(0, 4 * most_delay_s))
        if how < 0.5:
            return Moment(helper=rng.choice(HELPERS), delay_s=delay_s)
        return Moment(changes=rng.randint(1, most_changes), delay_s=delay_s)


# ---------------------------------------------------------------- files

Stamp = tuple[int, int, int]


def stamps(directory: Path) -> dict[str, Stamp]:
    """Inode, time of change in ns, and size of every file below `directory`, by relative path."""
    found = {}
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):  # renamed meanwhile
            status = path.stat()
            if path.is_file():
                found[str(path.relative_to(directory))] = (status.st_ino, status.st_mtime_ns, status.st_size)
    return found


def compare_trees(a: Path, b: Path, exclude: Collection[str] = ()) -> list[str]:
    """How the files of two directories differ, one line each; [] when names and bytes are equal. `exclude` are file names."""
    left, right = ({p: d / p for p in sorted(stamps(d)) if Path(p).name not in exclude} for d in (a, b))
    lines = [f"only in {a.name}: {p}" for p in left if p not in right]
    lines += [f"only in {b.name}: {p}" for p in right if p not in left]
    for path in left:
        if path in right:
            ours, theirs = left[path].read_bytes(), right[path].read_bytes()
            if ours != theirs:
                at = next((i for i, (x, y) in enumerate(zip(ours, theirs, strict=False)) if x != y), min(len(ours), len(theirs)))
                lines.append(f"{path} differs from byte {at}: {ours[at : at + 60]!r} and {theirs[at : at + 60]!r}")
    return lines


# ---------------------------------------------------------------- the harness


@dataclass(frozen=True)
class Run:
    """A finished run. `directory` was its working directory."""

    directory: Path
    exit_codes: tuple[int, ...]
    """Of each attempt; -9 where the command was killed."""
    kills: tuple[str, ...]
    """Who was killed and when, in words."""


@dataclass
class Harness:
    """See the module's docstring. Only one at a time in a process: what this process starts meanwhile counts as the command's."""

    command: Sequence[str]
    root: Path
    """Working directories and logs are made here."""
    output: str
    """Directory that the command writes, relative to its working directory."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables added to this process's own."""
    final: Sequence[str] = ("turns/*.json",)
    """Globs below `output`: files that are finished once they exist."""
    again_on: Collection[int] = ()
    """Exit codes, besides being killed, after which the command is to be repeated."""
    server: int | None = None
    """A process that was there before, and whose one child is the server that the command asks; it makes another when that dies."""
    forgotten: Path | None = None
    """A directory that each run begins without."""
    most_changes: int = 12
    most_delay_s: float = 0.5
    """A kill comes after so many changed files, and then so many seconds, at most."""
    limit_s: float = 600.0
    """Longest attempt."""
    orphans_s: float = 20.0
    """Longest time in which the processes of a killed command may end."""

    def undisturbed(self) -> Run:
        return self._play("undisturbed", random.Random(0), 0, (Target.COMMAND,))

    def killed(self, rng: random.Random, kills: int, *targets: Target) -> Iterator[Run]:
        """Fresh runs, one after the other, until there have been so many kills in all, each of any of the `targets`."""
        hits = 0
        for count in range(10 * kills):
            run = self._play("-".join((*targets, str(count))), rng, kills - hits, targets)
            yield run
            hits += len(run.kills)
            if hits >= kills:
                return
        raise Violation(f"only {hits} times was there a {' or '.join(targets)} to be killed")

    def _play(self, name: str, rng: random.Random, kills: int, targets: Sequence[Target]) -> Run:
        """One run to its end, with up to `kills` kills on the way."""
        directory = self.root / name
        for old in filter(None, (directory, self.forgotten)):
            shutil.rmtree(old, ignore_errors=True)
        directory.mkdir(parents=True)
        finished = _Finished(directory / self.output, self.final)
        codes: list[int] = []
        hits: list[str] = []
        while len(codes) <= 2 * kills + 2:  # a kill may also cost the attempt after the one that it fell upon
            with self.started(directory) as attempt:
                codes.append(self._disturb(attempt, hits, kills, rng, targets, finished))
                attempt.expect_no_orphans(self.orphans_s)
            finished.check()
            if codes[-1] == 0:
                return Run(directory, tuple(codes), tuple(hits))
            if codes[-1] not in (-signal.SIGKILL, *self.again_on):
                raise Violation(f"exit code {codes[-1]} after kills {hits}:\n{attempt.log()}")
        raise Violation(f"no end after attempts {codes} and kills {hits}:\n{attempt.log()}")

    def _disturb(
        self, attempt: Attempt, hits: list[str], kills: int, rng: random.Random, targets: Sequence[Target], finished: _Finished
    ) -> int:
        """Kill until the command has ended, or there were `kills` in all; the command's exit code. Adds to `hits`."""
        while len(hits) < kills:
            target = rng.choice(targets)
            hit = self._strike(attempt, self._moment(rng, target, hits), rng, target, finished)
            if not hit:
                break
            hits.append(hit)
            if target in ENDS:
                if attempt.wait(self.limit_s) != -signal.SIGKILL:
                    hits.pop()  # it had ended before the signal came
                break
        return attempt.wait(self.limit_s)

    def _moment(self, rng: random.Random, target: Target, hits: Sequence[str]) -> Moment:
        """A command that outlives whoever was killed must make some progress before the next one dies: it need not try for ever."""
        moment = Moment.draw(rng, self.most_changes, self.most_delay_s)
        return replace(moment, changes=max(1, moment.changes)) if target not in ENDS and hits else moment

    def _strike(self, attempt: Attempt, moment: Moment, rng: random.Random, target: Target, finished: _Finished) -> str:
        """Wait for the moment and kill; says what was killed, or nothing when the command had ended before."""
        if not attempt.reach(moment, finished.output, self.limit_s):
            return ""
        finished.check()
        victims: list[Process] = []
        if not attempt.wait_until(lambda: bool(victims.extend(attempt.victims(target)) or victims), self.limit_s):
            return ""
        victims = rng.sample(victims, len(victims) if target is Target.TREE else 1)
        what = ", ".join(f"{victim.pid} {victim.command[:60]}" for victim in victims)
        attempt.kill(victims)
        finished.check()
        return f"{target} [{what}] at {moment}"

    @contextmanager
    def started(self, directory: Path) -> Iterator[Attempt]:
        """The command, running in `directory`; whatever is left of it in the end is killed."""
        known, zombies = set(descendants(os.getpid())), _children()
        become_subreaper()  # so that an orphan, whatever it does, stays below this process and is found
        try:
            with open(f"{directory}.log", "ab") as log:
                process = subprocess.Popen(
                    self.command, cwd=directory, env={**os.environ, **self.env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            attempt = Attempt(process, known, zombies | {process.pid}, Path(f"{directory}.log"), self.server)
            try:
                yield attempt
            finally:
                attempt.end()
        finally:
            become_subreaper(False)


@dataclass
class _Finished:
    """The finished files that were ever seen."""

    output: Path
    globs: Sequence[str]
    _seen: dict[Path, tuple[Stamp, bytes]] = field(default_factory=dict)

    def check(self) -> None:
        """Raises Violation when one of them is gone or was written again."""
        now = {}
        for path in (p for glob in self.globs for p in self.output.glob(glob)):
            status = path.stat()
            now[path] = (status.st_ino, status.st_mtime_ns, status.st_size), path.read_bytes()
        for path, stamped in self._seen.items():
            if path not in now:
                raise Violation(f"{path} was finished, and is gone")
            if now[path] != stamped:
                same = "the same bytes" if now[path][1] == stamped[1] else "other bytes"
                raise Violation(f"{path} was finished, and was written again, with {same}")
        self._seen = now


@dataclass
class Attempt:
    """The command once started, and every process that comes from it."""

    process: subprocess.Popen[bytes]
    strangers: set[Process]
    """Processes that were there before."""
    not_ours_to_reap: set[int]
    log_path: Path
    server: int | None = None

    def living(self) -> list[Process]:
        return descendants(os.getpid(), self.strangers)  # whoever was there before may start processes meanwhile

    def victims(self, target: Target) -> list[Process]:
        if target is Target.SERVER:
            return [] if self.server is None else descendants(self.server)
        living = self.living()
        if target is Target.TREE:
            return living
        if target is Target.COMMAND:
            return [p for p in living if p.pid == self.process.pid]
        zygotes = {p.pid for p in living if _MODULES[Target.ZYGOTE] in p.command}
        if target is Target.CANDIDATE:
            return [p for p in living if p.pid in zygotes and p.parent in zygotes and not p.waiting]
        if target is Target.BUILDER:
            return [p for worker in self.victims(Target.WORKER) for p in descendants(worker.pid)]
        return [p for p in living if _MODULES[target] in p.command and p.parent == self.process.pid]

    def kill(self, victims: Sequence[Process]) -> None:
        for victim in victims:
            victim.kill()

    def reach(self, moment: Moment, output: Path, limit_s: float) -> bool:
        """Wait for a moment. False when the command ended before."""
        seen = set(stamps(output).items())
        first = len(seen)

        def changed() -> bool:
            seen.update(stamps(output).items())
            return len(seen) - first >= moment.changes

        def helped() -> bool:
            return moment.helper is None or bool(self.victims(moment.helper))

        if not (self.wait_until(changed, limit_s) and self.wait_until(helped, limit_s)):
            return False
        due = time.monotonic() + moment.delay_s
        return self.wait_until(lambda: time.monotonic() >= due, limit_s)

    def wait_until(self, condition: Callable[[], bool], limit_s: float) -> bool:
        """Whether `condition` came true before the command ended. Raises Violation when neither happens in time."""
        deadline = time.monotonic() + limit_s
        while not condition():
            if self.process.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise Violation(f"nothing happened within {limit_s:g} s:\n{self.log()}")
            time.sleep(POLL_S)
        return self.process.poll() is None

    def wait(self, limit_s: float) -> int:
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise Violation(f"the command has not ended within {limit_s:g} s:\n{self.log()}") from None

    def expect_no_orphans(self, limit_s: float) -> None:
        deadline = time.monotonic() + limit_s
        while orphans := self.living():
            if time.monotonic() > deadline:
                raise Violation(f"still alive {limit_s:g} s after the command: {[p.described() for p in orphans]}")
            time.sleep(10 * POLL_S)

    def log(self) -> str:
        """The end of what the command printed."""
        return self.log_path.read_text(errors="replace")[-3000:]

    def end(self) -> None:
        """Kill what is left, and reap every orphan that came to this process."""
        while left := self.living():
            self.kill(left)
            self._reap()
        self.process.wait()
        self._reap()

    def _reap(self) -> None:
        for pid in _children() - self.not_ours_to_reap:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _children() -> set[int]:
    """Children of this process, zombies too."""
    return {int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}

"""The run directory on disk: every turn is durable when it ends, and the same command resumes.

    runs/<name>/
      run.json config.yaml environment.json     what was asked for, and where; written at creation, `run.json` last
      problems/level1_problem1.json             the problem as it was posed: a replay needs nothing else
      generated_kernels/level1_problem1_turn0.py
      responses/level1_problem1_turn0.txt       the reply, unchanged
      turns/level1_problem1_turn0.json          the commit point: the turn exists once this file does
      episodes/level1_problem1.json             the episode is over, and why
      progress.json results.json reports/       computed from the above, and from nothing else

`RunReader` reads a run, also while another process writes it. `RunStore` writes one, and holds its lock. All methods are
synchronous; a turn costs a few milliseconds of waiting for the disk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from kernel_env.errors import ConfigError
from kernel_env.schema import SCHEMA_VERSION, Episode, Problem, StopReason, Turn, dumps, episode_key, from_json
from rollout.documents import EpisodeFile, Progress, Results, RunInfo, RunState, TurnFile, episode_order, results_of
from rollout.durable import DirectoryLock, remove_file, remove_leftovers, sync_directory, write_file

_FOLDERS = ("reports", "generated_kernels", "responses", "turns", "episodes", "problems")
_TURN_NAME = re.compile(r"(level\d+_problem\d+(?:_sample\d+)?)_turn(\d+)\.json")
_EPISODE_NAME = re.compile(r"(level\d+_problem\d+(?:_sample\d+)?)\.json")
_FAILURES = (StopReason.POLICY_FAILURE, StopReason.INFRA_ERROR)

T = TypeVar("T")


def run_directory(name: str) -> Path:
    """A run by its path or its name below `runs/`. Raises ConfigError."""
    for path in run_places(name):
        if is_run(path):
            return path
    raise ConfigError(f"no run {name!r}: neither {name} nor runs/{name} holds a run.json")


def run_places(name: str) -> tuple[Path, Path]:
    return Path(name), Path("runs") / name


def is_run(path: Path) -> bool:
    return (path / "run.json").is_file()


class RunReader:
    """A run directory, for reading. Raises ConfigError when `path` holds no run, or one of another schema version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not is_run(path):
            raise ConfigError(f"{path} is not a run directory: it has no run.json; check the run's name")
        self.info = read_document(path / "run.json", RunInfo)

    @property
    def config_text(self) -> str:
        """The composed configuration, YAML."""
        path = self.path / "config.yaml"
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"{path} cannot be read ({type(error).__name__}); choose another run.name") from error

    @property
    def settings(self) -> Mapping[str, Any]:
        """The composed configuration by dotted names: `policy.model`."""
        return _stored_settings(self.config_text, str(self.path / "config.yaml"), ())

    @property
    def environment(self) -> Mapping[str, Any]:
        """The fingerprint of the machine that began the run."""
        return _object(self.path / "environment.json", "choose another run.name")

    def load_problem(self, key: str) -> Problem:
        """The problem as it was posed. `key` is `Problem.key`."""
        return read_document(self.path / "problems" / f"{key}.json", Problem, versioned=False)

    def load_problems(self) -> dict[str, Problem]:
        """All of them, by `Problem.key`."""
        return {path.stem: self.load_problem(path.stem) for path in (self.path / "problems").glob("*.json")}

    def load_turns(self) -> dict[str, list[Turn]]:
        """Every durable turn by episode key, in the run's order; of ended episodes and of those that were interrupted.

        Raises ConfigError when a file is damaged, is of another schema version, or when a turn in between is missing.
        """
        turns = {}
        for key, count in self._turn_counts().items():
            turns[key] = [self._load_turn(key, index).record for index in range(count)]
        return turns

    def load_episodes(self) -> list[Episode]:
        """The episodes that ended, in the run's order. Raises ConfigError like `load_turns`."""
        return list(self.each_episode())

    def each_episode(self) -> Iterator[Episode]:
        """Like `load_episodes`, one by one: all texts of a large run do not fit into memory."""
        ended = self._ended()  # before the turns: another process may be writing, and ends an episode after its turns
        counts = self._turn_counts()
        for key in ended:
            yield self._load_episode(key, counts.get(key, 0))

    def results(self) -> Results:
        """What `results.json` holds, computed from the durable turns and episode ends."""
        return results_of(self.info, self.load_episodes())

    def _load_turn(self, key: str, index: int) -> TurnFile:
        path = self._turn_path(key, index)
        file = read_document(path, TurnFile, remedy=_redo(key))
        if (file.episode, file.turn_idx, file.record.index) != (key, index, index):
            raise ConfigError(f"{path} holds turn {file.turn_idx} of {file.episode}; {_redo(key)}")
        return file

    def _load_episode(self, key: str, turn_count: int) -> Episode:
        path = self._episode_path(key)
        file = read_document(path, EpisodeFile, remedy=_redo(key))
        if file.num_turns != turn_count:
            raise ConfigError(f"{path} counts {file.num_turns} turns, but {turn_count} are there; {_redo(key)}")
        problem = self.load_problem(file.problem.key)
        turns = [self._load_turn(key, index) for index in range(turn_count)]
        if {file.problem.digest, *(turn.problem.digest for turn in turns)} != {problem.digest}:
            raise ConfigError(f"{path}: problems/{problem.key}.json is not the problem of its turns; choose another run.name")
        return Episode(problem, file.sample, tuple(turn.record for turn in turns), file.stop_reason, file.error)

    def _turn_counts(self) -> dict[str, int]:
        """Turns of each episode, by file names alone. Raises ConfigError when one in between is missing."""
        found: dict[str, set[int]] = {}
        for match in _matches(self.path / "turns", _TURN_NAME):
            found.setdefault(match[1], set()).add(int(match[2]))
        for key, indices in found.items():
            missing = set(range(max(indices))) - indices
            if missing:
                lost = self._turn_path(key, min(missing))
                raise ConfigError(f"{lost} is missing, but later turns are there; {_redo(key)}")
        return {key: len(found[key]) for key in sorted(found, key=episode_order)}

    def _ended(self) -> list[str]:
        return sorted((match[1] for match in _matches(self.path / "episodes", _EPISODE_NAME)), key=episode_order)

    def _turn_path(self, key: str, index: int) -> Path:
        return self.path / "turns" / f"{key}_turn{index}.json"

    def _episode_path(self, key: str) -> Path:
        return self.path / "episodes" / f"{key}.json"


class RunStore(RunReader):
    """A run directory, for writing. Made by `open_run`; holds the directory's lock until `close`.

    A method that would change something finished raises RuntimeError: that is a fault of the caller, not of the run.
    """

    def __init__(self, path: Path, lock: DirectoryLock | None) -> None:
        """`lock` is given back at the end; without one it is somebody else's to give back."""
        super().__init__(path)
        self._lock = lock
        self._asked = frozenset(self.info.asked)
        self._posed: dict[str, Problem] = {}
        """What is known to be on the disk."""
        self._counts = self._turn_counts()
        self._stops = {key: read_document(self._episode_path(key), EpisodeFile).stop_reason for key in self._ended()}
        self._turns, self._failed, self._furthest = 0, 0, ""
        self._take_stock()
        self._write_progress()

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Gives the lock back. Everything written is durable already."""
        if self._lock is not None:
            self._lock.release()

    def save_problem(self, problem: Problem) -> None:
        """Keeps the problem's source. Raises ConfigError when the run was begun with another one under this key."""
        if self._posed.get(problem.key) == problem:
            return
        path, data = self.path / "problems" / f"{problem.key}.json", _bytes(problem)
        if not path.exists():
            write_file(path, data)
        elif path.read_bytes() != data:
            raise ConfigError(f"{path}: {problem.key} has changed since this run was begun; choose another run.name")
        self._posed[problem.key] = problem

    def save_turn(self, problem: Problem, sample: int, turn: Turn) -> None:
        """Makes a turn durable: the reply and the kernel first, the turn file last.

        Saving the same turn again does nothing. Raises InfraError when the disk refuses.
        """
        key = episode_key(problem.key, sample)
        path, data = self._turn_path(key, turn.index), _long_bytes(TurnFile.of(problem, sample, turn))
        count = self._counts.get(key, 0)
        if turn.index < count:
            _guard(path.read_bytes() == data, f"{path} is finished: it cannot become another turn")
            return
        _guard(key in self._asked, f"{key} is not an episode of this run")
        _guard(turn.index == count, f"turn {count} of {key} comes before turn {turn.index}")
        _guard(key not in self._stops, f"{key} has ended: it can have no further turn")
        self.save_problem(problem)
        stem = f"{key}_turn{turn.index}"
        write_file(self.path / "responses" / f"{stem}.txt", turn.generation.text.encode(errors="surrogatepass"))
        kernel = self.path / "generated_kernels" / f"{stem}.py"
        if turn.code is None:
            remove_file(kernel)  # an interrupted attempt at this turn may have left one
        else:
            write_file(kernel, turn.code.encode(errors="surrogatepass"))
        write_file(path, data)
        self._counts[key] = count + 1
        self._turns += 1
        self._furthest = max(self._furthest or key, key, key=episode_order)
        self._write_progress()

    def end_episode(self, episode: Episode) -> None:
        """Marks an episode as over. Its turns must have been saved. Saving the same end again does nothing."""
        key = episode.key
        path, data = self._episode_path(key), _bytes(EpisodeFile.of(episode))
        if key in self._stops:
            _guard(path.read_bytes() == data, f"{path} is finished: it cannot end in another way")
            return
        _guard(key in self._asked, f"{key} is not an episode of this run")
        _guard(len(episode.turns) == self._counts.get(key, 0), f"{key} ends with turns that were not saved")
        self.save_problem(episode.problem)
        write_file(path, data)
        self._stops[key] = episode.stop_reason
        self._failed += episode.stop_reason in _FAILURES
        self._furthest = max(self._furthest or key, key, key=episode_order)
        self._write_progress()

    def reopen_failed(self) -> list[str]:
        """Takes back the end of each episode that the policy or the infrastructure ended, and returns their keys.

        Such an episode goes on after its last durable turn: nothing was scored for the failure, so nothing is repeated.
        """
        failed = [key for key, stop in self._stops.items() if stop in _FAILURES]
        for key in failed:
            remove_file(self._episode_path(key))
            del self._stops[key]
        self._take_stock()
        self._write_progress()
        return failed

    def write_results(self) -> Results:
        """Writes `results.json` and returns it.

        Computed from the disk, never from memory, so that a resumed run ends with the same bytes as an undisturbed one.
        """
        results = self.results()
        write_file(self.path / "results.json", _bytes(results))
        return results

    def drop_status(self) -> None:
        """Takes back what an earlier process said of the run's end, unless nothing is left to do."""
        if not self._asked <= self._stops.keys():
            remove_file(self.path / "status.json")

    def write_status(self, status: object) -> None:
        """Writes `status.json`, a type of the waist: the run has ended."""
        write_file(self.path / "status.json", _bytes(status))

    def _take_stock(self) -> None:
        """Count everything. What is added later is added to the counts: a run may have thousands of episodes."""
        self._turns = sum(self._counts.values())
        self._failed = sum(stop in _FAILURES for stop in self._stops.values())
        self._furthest = max(self._counts.keys() | self._stops.keys(), key=episode_order, default="")

    def _write_progress(self) -> None:
        progress = Progress(
            schema_version=SCHEMA_VERSION,
            state=RunState.DONE if self._asked <= self._stops.keys() else RunState.RUNNING,
            asked=len(self._asked),
            finished=len(self._stops),
            failed=self._failed,
            turns=self._turns,
            last_episode=self._furthest or None,
        )
        write_file(self.path / "progress.json", _bytes(progress), durable=False)  # computed again when the run is opened


def open_run(
    root: Path,
    info: RunInfo,
    config_text: str,
    environment: Mapping[str, Any],
    *,
    ignored: Collection[str] = (),
    lock: DirectoryLock | None = None,
) -> RunStore:
    """Creates `root/<info.name>`, or resumes it when it is there, and takes its lock, unless the caller has that already.

    On resume the stored files stand: `store.info.master_seed` is the seed of the first start, and `config_text`,
    `environment` are compared or dropped, never written again. `ignored` are dotted keys of the configuration, each with
    all that is below it, that may differ because they cannot change a result (`rollout.concurrency`, `display`).

    Raises ConfigError when the name is no plain folder name, when another process writes the run, or when the stored
    configuration or selection is another one.
    """
    path = root / plain_name(info.name)
    try:
        for folder in _FOLDERS:
            (path / folder).mkdir(parents=True, exist_ok=True)
        own = DirectoryLock(path) if lock is None else None
    except OSError as error:
        raise ConfigError(f"cannot make the run directory {path}: {error.strerror}; choose another place") from error
    try:
        _settle(path, info, config_text, environment, ignored)
        return RunStore(path, own)
    except BaseException:  # whatever it was, nobody else could write here
        if own is not None:
            own.release()
        raise


def plain_name(name: str) -> str:
    """`name`, if it can be a directory's. Raises ConfigError."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise ConfigError(f"run.name {name!r} is not a plain folder name; use letters, digits, '-', '_' and '.'")
    return name


def _settle(path: Path, info: RunInfo, config_text: str, environment: Mapping[str, Any], ignored: Collection[str]) -> None:
    """Creates the run's own files, or compares them with those of the first start. Holds the lock."""
    for folder in (path, *(path / name for name in _FOLDERS)):
        remove_leftovers(folder)
    if (path / "run.json").exists():
        _refuse_another_config(path, config_text, ignored)
        _refuse_another_run(path, info)
        return
    if next(_matches(path / "turns", _TURN_NAME), None):
        raise ConfigError(f"{path} has turns but no run.json: its run cannot be resumed; choose another run.name")
    write_file(path / "config.yaml", config_text.encode())
    write_file(path / "environment.json", _text_bytes(json.dumps(environment, indent=2, ensure_ascii=False, allow_nan=False)))
    write_file(path / "run.json", _bytes(info))
    sync_directory(path.parent)


def _refuse_another_config(path: Path, config_text: str, ignored: Collection[str]) -> None:
    stored_bytes = (path / "config.yaml").read_bytes()
    if stored_bytes == config_text.encode():
        return
    stored = _stored_settings(stored_bytes.decode(errors="replace"), str(path / "config.yaml"), ignored)
    given = _stored_settings(config_text, "the new configuration", ignored)
    changed = [key for key in sorted(stored.keys() | given.keys()) if stored.get(key, _ABSENT) != given.get(key, _ABSENT)]
    if changed:
        listed = ", ".join(f"{key} {_short(stored.get(key, _ABSENT))} -> {_short(given.get(key, _ABSENT))}" for key in changed)
        raise ConfigError(f"{path} was begun with other settings ({listed}): choose another run.name")


def _refuse_another_run(path: Path, info: RunInfo) -> None:
    stored = read_document(path / "run.json", RunInfo)
    same = replace(info, master_seed=stored.master_seed)
    changed = [f.name for f in fields(RunInfo) if getattr(same, f.name) != getattr(stored, f.name)]
    if "asked" in changed:
        strangers = sorted(set(info.asked) ^ set(stored.asked), key=episode_order)
        where = f"e.g. {strangers[0]}" if strangers else "in another order"
        raise ConfigError(f"{path} was begun for other problems or samples ({where}): choose another run.name")
    if changed:
        raise ConfigError(f"{path} was begun as another run ({', '.join(changed)} differ): choose another run.name")


_ABSENT = "(absent)"


def _stored_settings(text: str, where: str, ignored: Collection[str]) -> dict[str, Any]:
    """Of a YAML text. Raises ConfigError."""
    from omegaconf import OmegaConf

    try:
        tree = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except Exception as error:  # boundary: whatever the YAML parser raises, the text is unreadable
        raise ConfigError(f"{where} cannot be read as YAML ({type(error).__name__}); choose another run.name") from error
    return relevant_settings(tree, ignored)


def relevant_settings(tree: Any, ignored: Collection[str]) -> dict[str, Any]:
    """The leaves of a configuration by dotted key, without `ignored` ones and what is below them."""
    return {key: value for key, value in _leaves(tree, "") if not is_below(key, ignored)}


def is_below(key: str, prefixes: Collection[str]) -> bool:
    """Whether a dotted key is one of `prefixes`, or below one."""
    return any(f"{key}.".startswith(f"{prefix}.") for prefix in prefixes)


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _short(value: object, limit: int = 40) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _matches(folder: Path, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """Names in `folder` that are the store's own. Others (leftovers, a user's notes) are no business of ours."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = pattern.fullmatch(path.name)
        if match:
            yield match


def _redo(key: str) -> str:
    files = f"turns/{key}_turn*.json and episodes/{key}.json"
    return f"delete {files} to have this episode done again, or choose another run.name"


def read_document(path: Path, cls: type[T], *, versioned: bool = True, remedy: str = "choose another run.name") -> T:
    """Decodes one file. Raises ConfigError, which ends with `remedy`, when it is missing, damaged or of another version."""
    data = _object(path, remedy)
    version = data.get("schema_version") if versioned else SCHEMA_VERSION
    if version != SCHEMA_VERSION:
        known = f"this program reads {SCHEMA_VERSION}; use the release that wrote it, or choose another run.name"
        raise ConfigError(f"{path} is of schema version {version}, {known}")
    try:
        return from_json(cls, data)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is damaged ({_short(error, 120)}); {remedy}") from error


def _object(path: Path, remedy: str) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(f"{path} is missing; {remedy}")
    try:
        data = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({_short(error, 120)}); {remedy}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is damaged (it holds no JSON object); {remedy}")
    return data


def _bytes(document: object) -> bytes:
    return _text_bytes(dumps(document, indent=2))


def _long_bytes(document: TurnFile) -> bytes:
    """One line a field: a line for each token would take longer, and more room."""
    lines = (f"  {dumps(field.name)}: {dumps(getattr(document, field.name))}" for field in fields(document))
    return _text_bytes("{\n" + ",\n".join(lines) + "\n}")


def _text_bytes(text: str) -> bytes:
    """UTF-8 of a JSON text. A lone surrogate, which UTF-8 cannot hold, becomes the JSON escape of itself."""
    return f"{text}\n".encode(errors="backslashreplace")


def _guard(condition: bool, fault: str) -> None:
    if not condition:
        raise RuntimeError(fault)

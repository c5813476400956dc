"""A sweep's directory: a run directory for each cell, and an index of them.

    runs/<sweep>/
      sweep.json                              which cells there are
      model=a,temperature=0.2-1f3a9c07b2/     a run directory
      submit.sh                               submits the jobs of all that are left, where cells are jobs

A cell is known by the hash of its configuration. So a command that is repeated finds its cells, complete or not, and one with
another value adds to them. To have a cell forgotten, delete its directory.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kernel_env.errors import ConfigError
from kernel_env.schema import dumps
from rollout.documents import SWEEP_FILE, CellInfo, SweepInfo
from rollout.durable import DirectoryLock, remove_leftovers, write_file
from rollout.health import Health, read_status
from rollout.store import is_below, read_document, relevant_settings

_KEY_CHARS = 10
_MOST_BYTES = 120
_NOT_IN_NAMES = re.compile(r"[^\w.=,+-]+")


def cell_key(config: Mapping[str, Any], chosen: Mapping[str, str], ignored: Sequence[str]) -> str:
    """Of a configuration. What cannot change a result counts only where it was swept, to have one run for each value."""
    leaves = relevant_settings(config, (*ignored, "run.name"))
    leaves |= {name: value for name, value in chosen.items() if is_below(name, ignored)}
    return hashlib.sha256(json.dumps(leaves, sort_keys=True).encode()).hexdigest()[:_KEY_CHARS]


def cell_name(key: str, chosen: Mapping[str, str]) -> str:
    """What was chosen, in short, and the key."""
    last = {name: name.rpartition(".")[2] for name in chosen}
    alike = Counter(last.values())
    words = [
        f"{last[name] if alike[last[name]] == 1 else name}={_NOT_IN_NAMES.sub('-', value).strip('-.')}"
        for name, value in chosen.items()
    ]  # fmt: skip
    return "-".join(part for part in (_cut(",".join(words)), key) if part)


def _cut(text: str) -> str:
    """A file system counts bytes."""
    return text.encode()[:_MOST_BYTES].decode(errors="ignore")


def read_sweep(directory: Path) -> SweepInfo:
    """The index without the cells whose directories were deleted. Raises ConfigError for one that is damaged."""
    path = directory / SWEEP_FILE
    known = read_document(path, SweepInfo).cells if path.is_file() else ()
    return SweepInfo(cells=tuple(cell for cell in known if (directory / cell.name).is_dir()))


@contextmanager
def opened_sweep(directory: Path, cells: Sequence[CellInfo]) -> Iterator[None]:
    """Gives each cell a directory, and the index those that it lacks. No other process opens it meanwhile.

    Raises ConfigError where that cannot be.
    """
    if (directory / "run.json").exists():
        raise ConfigError(f"{directory} is a run of its own: choose another run.name for these")
    try:
        for cell in cells:
            (directory / cell.name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the sweep's directory {directory}: {error.strerror}; choose another place") from error
    with DirectoryLock(directory):
        remove_leftovers(directory)
        there = read_sweep(directory).cells
        known = {cell.key for cell in there}
        index = SweepInfo(cells=(*there, *(cell for cell in cells if cell.key not in known)))
        write_file(directory / SWEEP_FILE, f"{dumps(index, indent=2)}\n".encode())
        yield


def is_complete(cell: Path) -> bool:
    """Whether nothing is left to do: it ended, all is well, and no episode was deleted to have it done again. Any other is played
    again, which costs nothing where nothing is left to play."""
    status = read_status(cell)
    return status is not None and status.health is Health.OK and len(list(cell.glob("episodes/*.json"))) == status.asked

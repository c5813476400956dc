"""Recorded replies, played back exactly: the fake beside the live policies, and the way to run without a model.

A recording is a directory of text files `level1_problem1_turn0.txt` (`level1_problem1_sample3_turn0.txt` for samples after
the first). The `responses/` directory of every run is one. Sets that ship with the package live in `rollout/recordings/`.
"""

from __future__ import annotations

import difflib
import re
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from kernel_env.errors import BadReply, ConfigError, PolicyExhausted
from kernel_env.schema import Generation
from rollout.policies.base import Capabilities, Endpoint, GenerationRequest, Spent, refuse_thinking

BUILT_IN = Path(__file__).resolve().parent.parent / "recordings"
_NAME = re.compile(r"(?P<episode>level\d+_problem\d+(?:_sample\d+)?)_turn(?P<turn>\d+)\.txt")


class ReplayPolicy:
    """Replies of a directory, a run, or a built-in set such as `bundled/cpp`. Raises `ConfigError` where there is none."""

    def __init__(self, path: str | Path, endpoint: Endpoint | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        """Nothing is reached and nothing takes time, so `endpoint` and `now` are not used."""
        self.name = f"replay/{path}"
        self.capabilities = Capabilities()
        self.spent = Spent()
        self._files = _find(path)

    async def preflight(self) -> None:
        """Nothing to find out: the files were listed at construction."""

    async def generate(self, request: GenerationRequest) -> Generation:
        refuse_thinking(self, request)
        file = self._turns(request.episode).get(request.turn)
        if file is None:
            raise PolicyExhausted(f"{self.name} has no turn {request.turn} of {request.episode}")
        try:
            data = file.read_bytes()
        except OSError as error:
            raise BadReply(f"cannot read the recording {file}: {error.strerror}") from error
        return Generation(text=data.decode(errors="replace"), model=self.name)

    def covers(self, episode: str) -> bool:
        return 0 in self._turns(episode)

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _turns(self, episode: str) -> dict[int, Path]:
        """Files by turn; a sample without files of its own gets those of sample 0."""
        return self._files.get(episode) or self._files.get(episode.partition("_sample")[0], {})


def built_in_sets() -> list[str]:
    """Names of the sets that ship with the package, e.g. `bundled/cpp`."""
    return sorted({file.parent.relative_to(BUILT_IN).as_posix() for file in BUILT_IN.rglob("*_turn0.txt")})


def _find(path: str | Path) -> dict[str, dict[int, Path]]:
    """Recordings of the first place that has any: a run, a directory, a built-in set."""
    for directory in (Path(path) / "responses", Path(path), BUILT_IN / path):
        try:
            found = _recordings(directory) if directory.is_dir() else {}
        except OSError as error:
            raise ConfigError(f"cannot read the recordings at {path}: {error.strerror}") from error
        if found:
            return found
    close = difflib.get_close_matches(str(path), built_in_sets(), n=1)
    sets = f"did you mean {close[0]}?" if close else f"built-in sets: {', '.join(built_in_sets()) or 'none'}"
    raise ConfigError(
        f"no recordings (level1_problem1_turn0.txt, ...) at {path}: give their directory, a run or a built-in set; {sets}"
    )


def _recordings(directory: Path) -> dict[str, dict[int, Path]]:
    """Files by episode and turn."""
    found: dict[str, dict[int, Path]] = defaultdict(dict)
    for file in sorted(directory.iterdir()):
        if match := _NAME.fullmatch(file.name):
            found[match["episode"]][int(match["turn"])] = file
    return dict(found)

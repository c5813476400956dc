"""What must be known of a problem before outputs can be compared strictly; found once a problem, and kept in the cache."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernel_env.errors import ProblemError, VerifierError
from kernel_env.referee.config import derive_seed
from kernel_env.referee.notes import Notes
from kernel_env.referee.reference import Reference
from kernel_env.referee.tolerance import Signal, Tolerance
from kernel_env.roofline import Work
from kernel_env.schema import Problem

AMPLITUDES = (-5.0, 3.0)
"""Of an extra draw: plainly drawn inputs times the first of these that the problem can be asked at. A negative one gives each
element a random sign as well, so that it needs inputs all of which are drawn plainly. Larger ones would punish honest kernels: 2x
overflows in exp from 44 on, and a normal draw of millions reaches 5. (Smaller ones are in the usual range.)"""
PRECISE_LIMIT_S = 120.0
"""For the reference in fp64 and a few calls around it; a slower one is taken as having none."""
_VERSION = 6
_REGULAR = 1.0


@dataclass(frozen=True)
class Measured:
    """Of one amplitude of the inputs."""

    dtypes: tuple[str, ...]
    signals: tuple[Signal, ...]
    scaled: bool
    """Whether there was an input whose amplitude could be changed."""

    @property
    def usable(self) -> bool:
        return self.scaled and all(signal.finite and signal.error is not None for signal in self.signals)


@dataclass(frozen=True)
class Calibration:
    by_amplitude: dict[float, Measured]
    work: Work | None = None
    """None where it could not be counted."""

    def fitted(self, tolerance: Tolerance, amplitude: float = _REGULAR) -> Tolerance:
        return tolerance.fitted(self.by_amplitude[amplitude].signals)

    def check(self, problem: Problem, tolerance: Tolerance) -> None:
        """Raises ProblemError where the reference disagrees with itself: nothing can be compared with it."""
        found = self.by_amplitude[_REGULAR]
        noise = [s.noise for d, s in zip(found.dtypes, found.signals, strict=True) if s.noise > tolerance.preset(d)]
        if noise:
            raise ProblemError(
                f"problem {problem.key} ({problem.name}, from {problem.origin}) cannot be scored: for the same inputs, weights and "
                f"generator state its reference's outputs differ by {max(noise):.2g} of their size"
            )

    def degenerate(self, tolerance: Tolerance) -> bool:
        return self.fitted(tolerance).degenerate(self.by_amplitude[_REGULAR].dtypes)

    def amplitude(self, tolerance: Tolerance) -> float | None:
        """At which an extra draw says something: outputs are finite there, vary, and are as precise as ever."""
        usable = (a for a, found in self.by_amplitude.items() if a != _REGULAR and found.usable)
        return next((a for a in usable if not self.fitted(tolerance, a).degenerate(self.by_amplitude[a].dtypes)), None)


Opened = Callable[[], Reference]
"""A new runner with the problem loaded."""


class Calibrator:
    """Measures problems in runners of their own, so that those of a verification have no other history for it."""

    def __init__(self, cache_dir: Path) -> None:
        self._notes = Notes(cache_dir, "signals")
        self._known: dict[str, Calibration] = {}

    def of(self, problem: Problem, opened: Opened) -> Calibration:
        """Raises ProblemError."""
        key = self._notes.key(_VERSION, problem.digest)
        if key not in self._known:
            self._known[key] = self._notes.read(key, _parsed) or self._measured(key, problem, opened)
        return self._known[key]

    def _measured(self, key: str, problem: Problem, opened: Opened) -> Calibration:
        try:
            found = _with_new_runner(problem, opened, precise=True)
        except (ProblemError, VerifierError):  # fp64 may need too much time or memory, here and now. What else is wrong shows again
            return _with_new_runner(problem, opened, precise=False)
        amplitudes = {str(amplitude): asdict(measured) for amplitude, measured in found.by_amplitude.items()}
        self._notes.write(key, {"amplitudes": amplitudes, "work": found.work and asdict(found.work)})
        return found


def _parsed(found: Any) -> Calibration:
    def measured(row: Any) -> Measured:
        return Measured(tuple(row["dtypes"]), tuple(Signal(**signal) for signal in row["signals"]), bool(row["scaled"]))

    amplitudes = {float(amplitude): measured(row) for amplitude, row in found["amplitudes"].items()}
    return Calibration(amplitudes, found["work"] and Work(**found["work"]))


def _with_new_runner(problem: Problem, opened: Opened, *, precise: bool) -> Calibration:
    with contextlib.closing(opened()) as reference:
        seeds = [derive_seed(0, "signals", problem.digest, index) for index in range(3)]
        planned = reference.ask({"op": "init_inputs", "seed": seeds[2]})
        with reference.written(planned) as arguments:
            reference.ask({"op": "init", "arguments": planned["tree"], "seed": seeds[2]}, (arguments.fd,))

        def measured(amplitude: float) -> Measured:
            frame = {"op": "signals", "seeds": seeds[:2], "amplitude": amplitude, "precise": precise}
            answer = reference.ask(frame, limit_s=PRECISE_LIMIT_S if precise else None)
            rows = answer["signals"]
            dtypes = tuple(row.pop("dtype") for row in rows)
            return Measured(dtypes, tuple(Signal(**row) for row in rows), answer["scaled"])

        found = {_REGULAR: measured(_REGULAR)}
        if found[_REGULAR].scaled and precise:
            for amplitude in AMPLITUDES:
                with contextlib.suppress(ProblemError):  # it was not made for such inputs
                    found[amplitude] = measured(amplitude)
                    if found[amplitude].usable:
                        break
        work = reference.ask({"op": "work", "seed": seeds[0]}, limit_s=PRECISE_LIMIT_S)["work"] if precise else None
        return Calibration(found, work and Work(**work))

"""Options as NAME=VALUE of commands that do without configuration groups: the fields of a dataclass of plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar, get_type_hints

from kernel_env.errors import ConfigError
from kernel_env.problems.selection import did_you_mean

T = TypeVar("T")


def names(options: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(options))


def typed(options: type[T], overrides: Sequence[str]) -> T:
    """Raises ConfigError for an unknown option or a value of the wrong kind."""
    hints, given = get_type_hints(options), dict[str, object]()
    for name, text in (override.split("=", 1) for override in overrides):
        if name not in hints:
            raise ConfigError(f"unknown option {name}; there are {' '.join(names(options))}{did_you_mean(name, hints)}")
        try:
            given[name] = {"true": True, "false": False}[text.lower()] if hints[name] is bool else hints[name](text)
        except (ValueError, KeyError):
            raise ConfigError(f"{name}={text}: give {'true or false' if hints[name] is bool else 'a number'}") from None
    return options(**given)

"""The only place that knows Hydra: from command-line overrides to typed settings, with one clear line when they are wrong."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from kernel_env.errors import ConfigError
from rollout.reference import groups, options
from rollout.settings import SECRETS, Settings, register, settings

_CONFIG_NAME = "config"


@dataclass(frozen=True)
class Combination:
    """One of those that a multirun stands for."""

    overrides: tuple[str, ...]
    """One value each."""
    chosen: Mapping[str, str]
    """What sets it apart from the others, by option."""
    settings: Settings
    tree: Mapping[str, Any]
    """The configuration, resolved, without secrets."""


def composed(overrides: Sequence[str]) -> tuple[Settings, str]:
    """Typed settings and the configuration's text (YAML, resolved, without secrets). Raises ConfigError."""
    _refuse_several(overrides)
    typed, tree = _composed(overrides)
    return typed, text_of(tree)


def text_of(tree: Mapping[str, Any]) -> str:
    """YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(tree)))


def combinations(overrides: Sequence[str], alternatives: Sequence[Sequence[str]] = ((),)) -> list[Combination]:
    """What a multirun stands for, in the order of Hydra's own sweeper: `a,b`, `choice(a,b)`, `range(1,4)`, `glob(*)`.

    Each comes once with the overrides of each alternative after its own; the first override of these is what it is known by.
    All are composed here, so a value that is wrong raises ConfigError before anything runs.
    """
    parsed = _parsed(overrides)
    try:
        (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except HydraException as error:
        raise ConfigError(_explained(error)) from error
    for further in alternatives:
        _refuse_several(further)
    swept = {override.get_key_element() for override in parsed if override.is_sweep_override()}
    found = []
    for given in batch:
        for further in alternatives:
            one = [o for o in given if o.partition("=")[0] in swept] + list(further[:1])
            chosen = {option_name(o): o.partition("=")[2].strip("'\"") for o in one}
            found.append(Combination((*given, *further), chosen, *_composed([*given, *further])))
    return found


def option_name(override: str) -> str:
    """What an override sets: `a.b` of `++a.b=1`."""
    return override.lstrip("+~").partition("=")[0]


def quoted(text: str) -> str:
    """Any text as a value that an override can have."""
    return QuotedString(text, Quote.single).with_quotes()


def _parsed(overrides: Sequence[str]) -> list[Override]:
    register()  # a group's choices may be asked for
    try:
        with initialize_config_module("conf", version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(_explained(error)) from error
    if any(override.is_hydra_override() for override in parsed):
        raise ConfigError("hydra.* cannot be set here: sweep.launcher says where runs go, and run.root where their files go")
    return parsed


def _refuse_several(overrides: Sequence[str]) -> None:
    for override in _parsed(overrides):
        if override.is_sweep_override():
            name = override.get_key_element()
            values = str(override.input_line).partition("=")[2]
            raise ConfigError(
                f"{name}={values} gives several values: write '{name}=[{values}]' for a list, or add --multirun for one run each"
            )


def _composed(overrides: Sequence[str]) -> tuple[Settings, dict[str, Any]]:
    register()
    try:
        with initialize_config_module("conf", version_base="1.3"):
            tree = compose(_CONFIG_NAME, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, TypeError, ValueError) as error:  # the last two: a group that is no word
        raise ConfigError(_explained(error)) from error
    return _resolved(tree)


def _resolved(tree: DictConfig) -> tuple[Settings, dict[str, Any]]:
    try:
        plain: Any = OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_explained(error)) from error
    for name in ("hydra", "experiment", "preset"):  # no settings of ours
        plain.pop(name, None)
    typed = settings(plain)
    for secret in SECRETS:
        *groups_of, name = secret.split(".")
        functools.reduce(dict.__getitem__, groups_of, plain).pop(name, None)
    return typed, plain


def _explained(error: Exception) -> str:
    """Hydra's complaint in one line: what is wrong, where, and the nearest name that exists."""
    if isinstance(error, MissingConfigException) and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={choice}: choose one of {', '.join(error.options)}"
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: put a value with special characters in quotes, NAME=\"'VALUE'\""
    cause = error.__cause__ or error
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        known = [*groups(), *(o.name for o in options())]
        close = [name for name in known if name.rpartition(".")[2] == cause.full_key]
        close = close or difflib.get_close_matches(str(cause.full_key), known, n=1, cutoff=0.6)
        return f"unknown option {cause.full_key}" + (
            f": did you mean {' or '.join(close)}?" if close else "; `kernel-env eval --help` lists all"
        )
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key}: {str(cause).splitlines()[0]}"
    return " ".join(str(error).split("\nSet the environment")[0].split())

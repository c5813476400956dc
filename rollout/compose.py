"""The only place that knows Hydra: from command-line overrides to typed settings, with one clear line when they are wrong."""

from __future__ import annotations

import difflib
import functools
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from kernel_env.errors import ConfigError
from rollout.reference import groups, options
from rollout.settings import SECRETS, Settings, register, settings

Cell = Callable[[], tuple[Settings, str]]
"""One combination of a sweep, composed when it is called. Raises ConfigError."""

_CONFIG_NAME = "config"


def composed(overrides: Sequence[str]) -> tuple[Settings, str]:
    """Typed settings and the configuration's text (YAML, resolved, without secrets). Raises ConfigError."""
    for override in _parsed(overrides):
        if override.is_sweep_override():
            name = override.get_key_element()
            values = str(override.input_line).partition("=")[2]
            raise ConfigError(
                f"{name}={values} gives several values: write '{name}=[{values}]' for a list, or add --multirun for one run each"
            )
    return _composed(overrides)


def sweep(overrides: Sequence[str], task: Callable[[Cell, str], int]) -> int:
    """Run `task(cell, name)` for every combination of a multirun through Hydra's launcher; the worst exit code.

    Every single value is tried first: a wrong one raises ConfigError before anything runs.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    swept = _checked_sweep(overrides)
    codes: list[int] = []

    @hydra.main(version_base="1.3", config_path="pkg://conf", config_name=_CONFIG_NAME)
    def run_cell(tree: DictConfig) -> int:
        chosen = [o for o in HydraConfig.get().overrides.task if o.partition("=")[0] in swept - {"run.name"}]
        codes.append(task(partial(_resolved, tree), re.sub(r"[^\w.=,+-]+", "-", ",".join(chosen)).strip("-")))
        return codes[-1]

    argv, sys.argv = sys.argv, ["kernel-env eval", "--multirun", *overrides]
    try:
        run_cell()
    finally:
        sys.argv = argv
    return max(codes, default=0)


def _parsed(overrides: Sequence[str]) -> list[Override]:
    try:
        return OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(_explained(error)) from error


def _composed(overrides: Sequence[str]) -> tuple[Settings, str]:
    register()
    try:
        with initialize_config_module("conf", version_base="1.3"):
            tree = compose(_CONFIG_NAME, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, TypeError, ValueError) as error:  # the last two: a group that is no word
        raise ConfigError(_explained(error)) from error
    return _resolved(tree)


def _resolved(tree: DictConfig) -> tuple[Settings, str]:
    try:
        plain = OmegaConf.to_container(tree, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_explained(error)) from error
    assert isinstance(plain, dict)
    for name in ("hydra", "experiment"):  # no settings of ours
        plain.pop(name, None)
    typed = settings(plain)
    for secret in SECRETS:
        *groups_of, name = secret.split(".")
        functools.reduce(dict.__getitem__, groups_of, plain).pop(name, None)
    return typed, OmegaConf.to_yaml(OmegaConf.create(plain))


def _checked_sweep(overrides: Sequence[str]) -> set[str]:
    """Names of the swept options. Raises ConfigError when a value is wrong, each tried beside the first ones of the others."""
    parsed = [override for override in _parsed(overrides) if not override.get_key_element().startswith("hydra")]
    try:
        choices = [_choices(override) for override in parsed]
    except HydraException as error:
        raise ConfigError(_explained(error)) from error
    firsts = [values[0] for values in choices]
    _composed(firsts)
    for index, values in enumerate(choices):
        for value in values[1:]:
            _composed([*firsts[:index], value, *firsts[index + 1 :]])
    return {override.get_key_element() for override in parsed if override.is_sweep_override()}


def _choices(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]


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

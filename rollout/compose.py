"""The only place that knows Hydra: from command-line overrides to typed settings, with one clear line when they are wrong."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Callable, Sequence

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kernel_env.errors import ConfigError
from rollout.reference import options
from rollout.settings import SECRETS, Settings, register, settings

_CONFIG_NAME = "config"


def composed(overrides: Sequence[str]) -> tuple[Settings, str]:
    """Typed settings and the configuration's text (YAML, resolved, without secrets). Raises ConfigError."""
    register()
    try:
        with initialize_config_module("conf", version_base="1.3"):
            tree = compose(_CONFIG_NAME, overrides=list(overrides))
        return resolved(tree)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explained(error, overrides)) from error


def resolved(tree: DictConfig) -> tuple[Settings, str]:
    """Settings and text of a composed tree."""
    plain = OmegaConf.to_container(tree, resolve=True)
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    plain.pop("experiment", None)
    typed = settings(plain)
    for secret in SECRETS:
        group, name = secret.split(".")
        plain[group].pop(name, None)
    return typed, OmegaConf.to_yaml(OmegaConf.create(plain))


def check(overrides: Sequence[str]) -> None:
    """Refuse wrong overrides before Hydra itself sees them; of a sweep, the first value of each. Raises ConfigError."""
    parser = OverridesParser.create()
    try:
        parsed = parser.parse_overrides(list(overrides))
    except HydraException as error:
        raise ConfigError(_explained(error, overrides)) from error
    firsts = [
        f"{o.get_key_element()}={next(iter(o.sweep_string_iterator()))}" if o.is_sweep_override() else str(o.input_line)
        for o in parsed
    ]
    composed([first for first in firsts if not first.startswith("hydra")])


def sweep(overrides: Sequence[str], task: Callable[[Settings, str, str], int]) -> int:
    """Run `task(settings, text, cell name)` for every combination of a multirun through Hydra's launcher; the worst exit code."""
    import hydra
    from hydra.core.hydra_config import HydraConfig

    register()
    codes: list[int] = []

    @hydra.main(version_base="1.3", config_path="pkg://conf", config_name=_CONFIG_NAME)
    def cell(tree: DictConfig) -> int:
        name = re.sub(r"[^\w.=,+-]+", "-", HydraConfig.get().job.override_dirname).strip("-")
        typed, text = resolved(tree)
        codes.append(task(typed, text, name))
        return codes[-1]

    argv, sys.argv = sys.argv, ["kernel-env eval", "--multirun", *overrides]
    try:
        cell()
    finally:
        sys.argv = argv
    return max(codes, default=0)


def _explained(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's complaint in one line, with the nearest option where a name is wrong."""
    text = str(error)
    key = re.search(r"Key '([\w.]+)' (?:is not in struct|not in)|Could not override '([\w.]+)'", text)
    if key:
        wrong = next(
            (o.split("=", 1)[0].lstrip("+~") for o in overrides if (key[1] or key[2]).split(".")[-1] in o.split("=", 1)[0]),
            key[1] or key[2],
        )
        close = difflib.get_close_matches(wrong, [option.name for option in options()], n=1, cutoff=0.5)
        return f"unknown option {wrong}" + (f": did you mean {close[0]}?" if close else "; `kernel-env eval --help` lists all")
    return " ".join(text.split("\nSet the environment")[0].split())

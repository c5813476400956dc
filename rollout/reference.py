"""The configuration reference, generated from the settings classes: names, types, defaults and each field's own documentation."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from kernel_env.reward import PRESETS
from rollout.settings import Settings


@dataclass(frozen=True)
class Option:
    name: str
    kind: str
    default: str
    doc: str


def options() -> list[Option]:
    """Every option of `kernel-env eval`, in order."""
    return list(_walk(Settings, ""))


def groups() -> dict[str, list[tuple[str, str]]]:
    """Each configuration group's choices with the first comment of their files."""
    found: dict[str, list[tuple[str, str]]] = {}
    for folder in sorted((p for p in files("conf").iterdir() if p.is_dir()), key=lambda p: p.name):
        choices = sorted((p for p in folder.iterdir() if p.name.endswith(".yaml")), key=lambda p: p.name)
        if choices:
            found[folder.name] = [(p.name.removesuffix(".yaml"), _comment(p.read_text())) for p in choices]
    found["reward"] = [(name, "Measured reward, and the feedback messages that go with it.") for name in PRESETS]
    return dict(sorted(found.items()))


def options_text() -> str:
    """For the terminal."""
    lines = ["kernel-env eval [--multirun] [OPTION=VALUE ...]", "", "Groups (GROUP=CHOICE):"]
    for group, choices in groups().items():
        lines.append(f"  {group}: {', '.join(name for name, _ in choices)}")
    lines += ["", "Options (NAME=VALUE, with defaults):"]
    for option in options():
        lines.append(f"  {option.name}={option.default}")
        lines += textwrap.wrap(option.doc, 110, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines) + "\n"


def markdown() -> str:
    """`docs/configuration.md`."""
    lines = [
        "# Configuration", "",
        "Generated from the code by `make docs`; do not edit. `kernel-env eval --help` prints the same.", "",
        "## Groups", "", "`GROUP=CHOICE` picks a file of `conf/GROUP/`.", "",
        "| Group | Choice | What it is |", "| --- | --- | --- |",
    ]  # fmt: skip
    lines += [f"| `{group}` | `{name}` | {doc} |" for group, choices in groups().items() for name, doc in choices]
    section = ""
    for option in options():
        head = option.name.split(".")[0] if "." in option.name else "Of the command itself"
        if head != section:
            section = head
            lines += ["", f"## {section}", "", "| Option | Type | Default | Meaning |", "| --- | --- | --- | --- |"]
        cells = (f"`{option.name}`", f"`{option.kind}`", f"`{option.default}`", option.doc)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _walk(cls: type, prefix: str) -> Iterator[Option]:
    docs, hints = _field_docs(cls), typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        kind, name = hints[item.name], f"{prefix}{item.name}"
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            yield from _walk(kind, f"{name}.")
        else:
            yield Option(name, _kind(kind), _default(item), docs.get(item.name, ""))


def _field_docs(cls: type) -> dict[str, str]:
    """The string under each field, of the class and of those that it inherits from."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]).body
        for node, following in itertools.pairwise(body):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(following, ast.Expr):
                text = following.value.value if isinstance(following.value, ast.Constant) else None
                if isinstance(text, str):
                    docs[node.target.id] = " ".join(text.split())
    return docs


def _kind(kind: Any) -> str:
    text = getattr(kind, "__name__", None) if isinstance(kind, type) else None
    return text or str(kind).replace("typing.", "").replace("collections.abc.", "")


def _default(item: dataclasses.Field[Any]) -> str:
    if item.default is not dataclasses.MISSING:
        return (
            {None: "null", True: "true", False: "false"}.get(item.default, str(item.default))
            if _simple(item.default)
            else str(item.default)
        )
    return "{}" if item.default_factory is dict else ""


def _simple(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _comment(text: str) -> str:
    """The first comment that is not an instruction to Hydra."""
    comments = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    return next((comment for comment in comments if not comment.startswith("@")), "")

"""`kernel-env arena show`: the tables of an arena, on the terminal and as files beside its judgments."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kernel_env.errors import ConfigError
from kernel_env.printable import printable
from rollout.arena.picture import picture
from rollout.arena.reader import judgment_files, read_judgments
from rollout.arena.records import Match
from rollout.arena.standings import Arena, standings
from rollout.arena.standings_text import (
    PICTURE,
    Shown,
    by_rank,
    category_table,
    cautions,
    clock_notes,
    footing,
    judge_notes,
    judged_table,
    measured_table,
    null_table,
    standings_csv,
    standings_text,
)
from rollout.display import PLAIN_WIDTH
from rollout.durable import write_file
from rollout.markdown import page

NAME = "standings"


def show(root: Path, judge: str = "") -> int:
    """Of each judge of `root/arena`, or of one. Raises ConfigError where there is nothing to show, DatasetError for a bad line."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    for folder in _folders(root / "arena", judge):
        arena, cut_off = read_arena(folder)
        write_standings(folder, arena, cut_off)
        _print(console, arena, cut_off)
        console.print(f"written: {escape(str(folder / NAME))}.md, .html, .csv, .svg", soft_wrap=True)
    return 0


def _folders(directory: Path, judge: str) -> list[Path]:
    found = [path for path in sorted(directory.glob("*")) if path.is_dir() and judgment_files(path)]
    chosen = [path for path in found if judge in ("", path.name)]
    if not chosen:
        there = f"there are those of {', '.join(path.name for path in found)}" if found else "`kernel-env arena run` makes some"
        raise ConfigError(f"{directory} has no judgments{f' of the judge {judge}' if judge else ''}: {there}")
    return chosen


def read_arena(folder: Path) -> tuple[Arena, list[str]]:
    """The standings by one judge, and the names of files whose last line has no end."""
    matches: dict[tuple[str, str], Match] = {}
    cut_off = []
    for path in judgment_files(folder):
        found = read_judgments(path, texts=False)
        cut_off += [path.name] * found.cut_off
        ours = {(match.model, match.uid): match for match in found.matches}
        if twice := sorted(ours.keys() & matches.keys()):
            raise ConfigError(f"{path} has judgments of {twice[0][0]} on {twice[0][1]}, and so has another file: keep one of them")
        matches |= ours
    if not matches:
        raise ConfigError(f"{folder} has no whole judgment yet: wait, or run the same command again")
    return standings(matches.values()), cut_off


def write_standings(folder: Path, arena: Arena, cut_off: Sequence[str]) -> None:
    """Markdown, its picture, a page that has both in itself, and CSV."""
    text = standings_text(arena, cut_off)
    drawn = picture(arena, by_rank(arena, "judge"))
    files = {
        f"{NAME}.md": text,
        PICTURE: drawn,
        f"{NAME}.html": page(f"Arena: {arena.judge}", text, {PICTURE: drawn}),
        f"{NAME}.csv": standings_csv(arena),
    }
    for name, content in files.items():
        write_file(folder / name, content.encode(errors="backslashreplace"), durable=False)


def _print(console: Console, arena: Arena, cut_off: Sequence[str]) -> None:
    console.print(escape(printable(footing(arena))))
    for text in cautions(arena, cut_off):
        console.print(f"[yellow]warning:[/yellow] {escape(printable(text))}")
    for shown, notes in ((judged_table(arena), judge_notes(arena)), (measured_table(arena), clock_notes(arena))):
        console.print(_rich(shown))
        for note in notes:
            console.print(escape(note))
    for shown in (category_table(arena), null_table(arena)):
        if shown.rows:
            console.print(_rich(shown))


def _rich(shown: Shown) -> Table:
    found = Table(*shown.head, title=Text(printable(shown.title)), title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for row in shown.rows:
        found.add_row(*(Text(printable(text)) for text in row))  # Text: a name with brackets is no markup
    return found

"""Reports as Markdown, line by line; and the little of Markdown that they use as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from kernel_env.printable import printable
from kernel_env.schema import Timing
from rollout.metrics import Estimate

NONE = "–"
_WARNING = "**Warning:**"
_MARKUP = re.compile(r"[\\|`<]|&(?=#?\w+;)|(?<=\])\(")
"""What would be code, a tag, an entity, a link or the end of a cell."""
_ESCAPED = re.compile(r"\\([\\|`<&(])")
_CELL_LIMIT = 300
_PICTURE = re.compile(r"!\[(.*)\]\((.*)\)")
_HEADING = re.compile(r"(#{1,3}) (.*)")

QUIET = 0.25
"""Times with more noise than this carry a warning."""


def warning(text: str) -> Iterator[str]:
    yield f"> {_WARNING} {text}"
    yield ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _row(head)
    yield _row(["---"] * len(head))
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(cell, cells))} |"


def cell(text: str) -> str:
    """One line of mere text that cannot end a table cell, bounded: names and errors come from anywhere."""
    line = printable(" ".join(text.split()))
    return _MARKUP.sub(r"\\\g<0>", line if len(line) <= _CELL_LIMIT else f"{line[: _CELL_LIMIT - 3]}...")


def rate(count: int, total: int) -> str:
    return f"{count} of {total} ({100 * count / total:.1f}%)" if total else "0 of 0"


def share(estimate: Estimate) -> str:
    """In per cent, with its interval."""
    return number(estimate, ".1f", unit="%", scale=100)


def number(estimate: Estimate, form: str = ".3f", unit: str = "", scale: float = 1) -> str:
    """`0.667 [0.500, 0.833]`: with its interval, where there is one."""
    if estimate.value is None:
        return NONE
    value = f"{estimate.value * scale:{form}}{unit}"
    if estimate.low is None:
        return value
    high = "..." if estimate.high is None else f"{estimate.high * scale:{form}}"
    return f"{value} [{estimate.low * scale:{form}}, {high}]"


def speedup(timing: Timing | None) -> str:
    """`2.50x [2.25, 2.75]`: with its interval, where it was measured and not imported."""
    if timing is None:
        return NONE
    interval = f" [{timing.speedup_low:.2f}, {timing.speedup_high:.2f}]" if timing.speedup_low < timing.speedup_high else ""
    return f"{timing.speedup:.2f}x{interval}"


# ------------------------------------------------------------------ HTML

_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark; }
div { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid #8886; padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
blockquote { border-left: 4px solid #d90; margin: 1rem 0; padding: .2rem 1rem; }"""


def page(title: str, text: str, pictures: Mapping[str, str] = MappingProxyType({})) -> str:
    """One self-contained HTML page of a text of ours: headings, tables, quotes, lines of prose, and pictures as in `blocks`. All of
    it is escaped."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    body = "\n".join(blocks(text.splitlines(), pictures))
    return (
        f"<!doctype html>\n<html lang=en>\n<head>{head}\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def blocks(lines: Iterable[str], pictures: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """Lines of ours as HTML. Consecutive rows are one table, its second row is a ruler; other lines stand alone. `pictures` are SVG
    by their file's name: the page has them in itself."""
    rows: list[str] = []
    for line in (*lines, ""):
        if line.startswith("| "):
            rows.append(line)
            continue
        if rows:
            yield "<div><table>"
            yield _html_row(rows[0], "th")
            yield from (_html_row(row, "td") for row in rows[2:])
            yield "</table></div>"
            rows = []
        if heading := _HEADING.fullmatch(line):
            size = len(heading[1])
            yield f"<h{size}>{_text(heading[2])}</h{size}>"
        elif line.startswith("> "):
            yield f"<blockquote>{_text(line[2:]).replace(_WARNING, '<strong>Warning:</strong>')}</blockquote>"
        elif shown := _PICTURE.fullmatch(line):
            data = base64.b64encode(pictures[shown[2]].encode()).decode()
            yield f'<p><img alt="{html.escape(shown[1])}" src="data:image/svg+xml;base64,{data}"></p>'
        elif line:
            yield f"<p>{_text(line)}</p>"


def _html_row(row: str, tag: str) -> str:
    cells = row[2:-2].split(" | ")  # a bar inside of a cell has a backslash before it
    return "<tr>" + "".join(f"<{tag}>{_text(text)}</{tag}>" for text in cells) + "</tr>"


def _text(line: str) -> str:
    """Without the backslashes of `cell`."""
    return html.escape(_ESCAPED.sub(r"\1", line))


def noise_text(timing: Timing) -> str:
    """A warning to stand behind a time that was taken on a busy machine, else nothing."""
    return f", noisy: {timing.noise:.0%} waiting for a core" if timing.noise > QUIET else ""


def duration_text(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

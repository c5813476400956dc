"""What a candidate or a model says, made fit for a terminal, a log or one line of a report."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """Without what a terminal would obey, cannot show, or would show in another order; `keep`, such as line feeds, stays."""
    if text.isprintable():
        return text
    return "".join(letter if letter in keep or letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


LAYOUT = "\n\t"
"""What a text of several lines may keep."""

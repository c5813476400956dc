"""Reports as tables, and as one page."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from rollout.markdown import cell, number, page, rate, share, speedup, table, warning
from rollout.metrics import Estimate
from tests.sample_run import timing


class Text(HTMLParser):
    """What a browser would see: tags in order, and the text of each cell."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.tags[-1], data))


def test_a_cell_is_one_line_that_cannot_end_its_cell() -> None:
    assert cell("a | b\n c") == "a \\| b c"
    assert len(cell("x" * 400)) == 300


def test_a_terminal_can_show_a_cell_and_does_not_obey_it() -> None:
    assert cell("é\ud800\x1b[31m\x00\u202e\nz") == "é\ufffd\ufffd[31m\ufffd\ufffd z"


def test_a_cell_is_text_alone() -> None:
    """What a reader of Markdown would take for code, a tag, an entity or a link, and what would free a bar."""
    assert cell("std::vector<float>") == "std::vector\\<float>"
    assert cell("`a` &lt; a & b ![x](http://y) [0.5, 0.8]") == "\\`a\\` \\&lt; a & b ![x]\\(http://y) [0.5, 0.8]"
    assert cell("a\\| b") == "a\\\\\\| b"
    assert cell("|" * 400) == "\\|" * 297 + "..."


@pytest.mark.parametrize("text", ["a\\| b", "\\", "|", " | ", "<b>`c`</b> &amp; [d](e)", "C:\\x"])
def test_a_page_has_each_cell_as_it_was(text: str) -> None:
    found = Text(page("t", "\n".join(table((text, "2"), [("x", "y")]))))
    assert [shown for tag, shown in found.texts if tag == "th"] == [text.strip(), "2"]


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(2 / 3, 0.5, 0.75, 3), "66.7% [50.0, 75.0]"),
        (Estimate(1.0, None, None, 3), "100.0%"),
        (Estimate(None, None, None, 0), "–"),
        (Estimate(0.5, 0.25, None, 3), "50.0% [25.0, ...]"),
    ],
)
def test_an_estimate_is_told_with_its_interval_where_it_has_one(estimate: Estimate, text: str) -> None:
    assert share(estimate) == text


def test_numbers() -> None:
    assert number(Estimate(1234.5, 1000.0, 2000.0, 3), ",.0f") == "1,234 [1,000, 2,000]"
    assert (rate(1, 3), rate(0, 0)) == ("1 of 3 (33.3%)", "0 of 0")
    measured = timing(2.0)
    assert (speedup(measured), speedup(None)) == ("2.00x [1.80, 2.20]", "–")


def test_a_page_shows_the_text_and_runs_nothing_of_it() -> None:
    evil = "<script>alert(1)</script> | </table>"
    lines = [
        "# Title <b>",
        "",
        *warning("look & see"),
        *table(("a", ""), [(evil, "1"), ("", "2")]),
        "",
        "## Next",
        "some **words**",
    ]
    found = Text(page("A <title>", "\n".join(lines)))
    assert found.tags[:7] == ["html", "head", "meta", "meta", "title", "style", "body"]
    assert found.tags[7:] == ["h1", "blockquote", "strong", "div", "table", *["tr", "th", "th"], *["tr", "td", "td"] * 2, "h2", "p"]
    shown = [text for tag, text in found.texts if tag in ("h1", "strong", "th", "td", "h2", "p")]
    assert shown == [
        "Title <b>",
        "Warning:",
        " look & see",
        "a",
        "<script>alert(1)</script> | </table>",
        "1",
        "2",
        "Next",
        "some **words**",
    ]

"""The extractor: which block of a reply is the kernel, and what a reply without one is called."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_env.parsing import Extraction, extract_kernel, without_thinking
from kernel_env.schema import Status

GOOD = "import torch\n\nclass ModelNew(torch.nn.Module):\n    def forward(self, x):\n        return x\n"
OTHER = "class ModelNew(torch.nn.Module):\n    pass  # the first draft\n"
HELPER = "def helper():\n    return 1\n"


def fenced(code: str, fence: str = "```", tag: str = "python") -> str:
    return f"{fence}{tag}\n{code}{fence}\n"


def code_of(reply: str) -> str | None:
    return extract_kernel(reply).code


def status_of(reply: str) -> Status | None:
    return extract_kernel(reply).status


@pytest.mark.parametrize("tag", ["python", "", "py", "Python", "python3", "cpp", " python", 'python title="kernel.py"', "{python}"])
@pytest.mark.parametrize("fence", ["```", "````", "~~~", "~~~~~"])
def test_a_block_is_found_under_any_fence_and_language_tag(fence: str, tag: str) -> None:
    assert code_of(f"Here it is:\n\n{fenced(GOOD, fence, tag)}\nDone.") == GOOD


def test_the_last_block_that_defines_the_entry_class_wins() -> None:
    assert code_of(f"{fenced(OTHER)}\nBetter:\n{fenced(GOOD)}\nRun it:\n{fenced('python kernel.py', tag='bash')}") == GOOD
    assert code_of(f"{fenced(GOOD)}\n{fenced(OTHER)}") == OTHER
    assert code_of(f"{fenced(GOOD)}\n{fenced(HELPER)}") == GOOD


def test_another_entry_class_can_be_asked_for() -> None:
    reply = fenced("class Fast:\n    pass\n") + fenced(GOOD)
    assert extract_kernel(reply, entry="Fast").code == "class Fast:\n    pass\n"
    assert extract_kernel(fenced("class FastX:\n    pass\n"), entry="Fast").code is None
    assert extract_kernel(fenced("class a+b:\n    pass\n"), entry="a+b").code == "class a+b:\n    pass\n"


@pytest.mark.parametrize(
    "header",
    [
        "class ModelNew:",
        "class ModelNew (nn.Module):",
        "class ModelNew[T](Base):",
        "class  ModelNew(\n  A):",
        "class ModelNew \\\n  (A):",
        "class \\\nModelNew(A):",
    ],
)
def test_every_way_to_write_the_class_header_counts(header: str) -> None:
    assert code_of(fenced(f"{header}\n    pass\n")) is not None


@pytest.mark.parametrize(
    "code",
    [
        "class ModelNewer:\n    pass\n",
        "x = ModelNew\n",
        "# class ModelNew:\n",
        "class ModelNew should be defined here\n",
        "class ModelNew : public torch::nn::Module {\n};\n",
        "class ModelNew {\n};\n",
    ],
)
def test_a_block_that_only_resembles_the_class_is_not_code(code: str) -> None:
    assert status_of(fenced(code)) is Status.NO_CODE


@pytest.mark.parametrize(
    "alias", ["ModelNew = Fast", "ModelNew=Fast  # the entry", "ModelNew: type = Fast", "ModelNew = Fast; x = 1"]
)
def test_another_name_for_a_class_of_the_block_defines_the_entry(alias: str) -> None:
    code = f"{GOOD.replace('ModelNew', 'Fast')}\n{alias}\n"
    assert code_of(fenced(code)) == code
    assert code_of(fenced(OTHER) + fenced(code)) == code


@pytest.mark.parametrize(
    "use",
    [
        "from kernel import Fast\nModelNew = Fast\n",  # a class of another block
        "class Fast:\n    pass\nmodel = ModelNew\n",
        "class Fast:\n    pass\nModelNew == Fast\n",
        "class Fast:\n    pass\nModelNew = Fast()\n",
        "class Fast:\n    pass\nModelNewer = Fast\n",
        "class Fast:\n    pass\nx.ModelNew = Fast\n",
    ],
)
def test_what_only_uses_the_entry_does_not_define_it(use: str) -> None:
    assert status_of(fenced(use)) is Status.NO_CODE
    assert code_of(fenced(GOOD) + fenced(use)) == GOOD


def test_an_alias_in_a_string_yields_to_an_earlier_real_one() -> None:
    shown = 'class Fast:\n    pass\nTEXT = """\nModelNew = Fast\n"""\n'
    assert code_of(fenced(GOOD) + fenced(shown)) == GOOD


def test_a_block_that_has_the_class_only_in_a_string_yields_to_an_earlier_real_one() -> None:
    quoted = 'TEXT = """\nclass ModelNew(nn.Module):\n    pass\n"""\n'
    assert code_of(fenced(GOOD) + fenced(quoted)) == GOOD


def test_a_block_with_a_syntax_error_is_extracted_so_that_the_model_sees_the_error() -> None:
    broken = "class ModelNew(nn.Module)\n    def forward(self x):\n"
    assert code_of(fenced(broken)) == broken
    unbalanced = 'SOURCE = """\nint f();\n\nclass ModelNew(nn.Module):\n    pass\n'
    assert code_of(fenced(unbalanced)) == unbalanced
    indented = "    import torch\n    class ModelNew(nn.Module):\n        pass\n"
    assert code_of(fenced(indented)) == indented


def test_a_class_under_a_module_level_condition_is_found() -> None:
    code = "if True:\n    class ModelNew:\n        pass\n"
    assert code_of(fenced(code)) == code


def test_windows_and_old_mac_newlines_become_plain_ones() -> None:
    assert code_of(fenced(GOOD).replace("\n", "\r\n")) == GOOD
    assert code_of(fenced(GOOD).replace("\n", "\r")) == GOOD


def test_the_indentation_of_the_fence_is_taken_off() -> None:
    assert code_of("1. First\n\n" + textwrap.indent(fenced(GOOD), "   ")) == GOOD
    assert code_of("\t```python\n\tclass ModelNew:\n\t\tpass\n\t```\n") == "class ModelNew:\n\tpass\n"
    assert code_of(f"- ```python\n{textwrap.indent(GOOD, '  ')}  ```\n") == GOOD


def test_the_last_line_needs_no_newline() -> None:
    assert code_of(f"```python\n{GOOD}```") == GOOD


# ------------------------------------------------------------------ fences inside of code


def test_a_fence_in_a_docstring_does_not_end_the_block() -> None:
    for quote in ('"""', "'''"):
        code = f"{quote}\nUsage:\n```python\nModelNew()\n```\n{quote}\nx = '```'\n{GOOD}"
        assert code_of(fenced(code)) == code


def test_a_longer_fence_holds_shorter_ones() -> None:
    code = f"# see\n'''\n```\n'''\n{GOOD}"
    assert code_of(fenced(code, "````")) == code
    assert code_of(fenced(code, "~~~")) == code


def test_a_shorter_or_different_fence_closes_nothing_even_when_quotes_do_not_balance() -> None:
    code = 'S = """\n```\nclass ModelNew:\n    pass\n'
    assert code_of(fenced(code, "````")) == code
    assert code_of(fenced(code, "~~~")) == code


def test_quotes_in_comments_strings_and_escapes_do_not_confuse_the_fences() -> None:
    code = f'# don\'t """\nA = "\'\'\'"\nB = \'"""\'\nC = """a\\"""b"""\nD = \'\\\'\'\n{GOOD}'
    assert code_of(f"{fenced(code)}\nIt's done.\n{fenced(HELPER)}") == code


def test_a_string_that_is_never_closed_ends_with_its_block() -> None:
    broken = 'S = """\nclass ModelNew:\n    pass\n'
    assert code_of(f"{fenced(broken)}\nSorry, again:\n\n{fenced(GOOD)}") == GOOD


def test_an_opening_line_inside_an_open_block_starts_over() -> None:
    assert code_of(f"```python\n{OTHER}\nWait, better:\n\n{fenced(GOOD)}") == GOOD
    assert code_of(f"```markdown\nThe answer:\n{fenced(GOOD)}```\n") == GOOD


def test_inline_code_with_three_backticks_opens_nothing() -> None:
    assert code_of(f"Use ```x``` here.\n```y```\n{fenced(GOOD, tag='')}") == GOOD


# ------------------------------------------------------------------ thinking


def test_closed_thinking_is_dropped() -> None:
    assert code_of(f"<think>\n{fenced(OTHER)}</think>\n\n{fenced(GOOD)}") == GOOD
    assert code_of(f"{fenced(GOOD)}<think>{fenced(OTHER)}</think>") == GOOD
    assert status_of(f"<think>\n{fenced(OTHER)}</think>\nThat is all.") is Status.NO_CODE


def test_an_open_fence_inside_thinking_does_not_swallow_the_answer() -> None:
    assert code_of(f"<think>\n```python\nclass ModelNew:\n</think>\n{fenced(GOOD)}") == GOOD


def test_the_answer_may_follow_the_closing_tag_on_its_line() -> None:
    assert code_of(f"<think>hm</think>{fenced(GOOD)}") == GOOD


def test_thinking_that_the_prompt_opened_ends_at_the_first_closing_tag() -> None:
    assert code_of(f"Let me see.\n```python\nclass ModelNew:  # draft\n</think>\n\n{fenced(GOOD)}") == GOOD
    assert status_of(f"Maybe\n{fenced(OTHER)}</think>\nI give up.") is Status.NO_CODE


def test_thinking_that_never_ends_holds_no_code() -> None:
    result = extract_kernel(f"<think>\nMaybe\n{fenced(GOOD)}")
    assert result.status is Status.NO_CODE
    assert "thinking" in result.message


def test_tags_inside_of_code_are_code() -> None:
    code = f"# <think> hm </think>\n{GOOD}# <think>\n"
    assert code_of(f"<think>a</think>\n{fenced(code)}") == code


# ------------------------------------------------------------------ no code


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("", "The reply is empty. Answer with one complete fenced Python block that defines class ModelNew."),
        (" \n\t", "The reply is empty."),
        (GOOD, "The reply has no fenced code block."),
        (fenced(HELPER), "No fenced code block of the reply defines class ModelNew (1 looked at)."),
        ("<think>hm", "The reply ends while still thinking (<think> without </think>)."),
    ],
)
def test_a_reply_without_code_says_why(reply: str, says: str) -> None:
    result = extract_kernel(reply)
    assert result.status is Status.NO_CODE
    assert result.message.startswith(says)


def test_a_block_that_is_never_closed_is_a_truncated_reply() -> None:
    result = extract_kernel(f"Sure:\n```python\n{GOOD}")
    assert result.status is Status.TRUNCATED
    assert "never closed" in result.message
    assert status_of(f"{fenced(HELPER)}\n```python\nclass Mod") is Status.TRUNCATED
    assert status_of("```") is Status.TRUNCATED


def test_a_complete_block_counts_although_a_later_one_is_cut_off() -> None:
    assert code_of(f"{fenced(GOOD)}\nEven better:\n```python\nclass ModelNew(") == GOOD


def test_an_extraction_has_either_code_or_a_status() -> None:
    with pytest.raises(ValueError):
        Extraction()
    with pytest.raises(ValueError):
        Extraction(code="x", status=Status.NO_CODE)


# ------------------------------------------------------------------ hostile replies

PIECES = [
    "```", "```python\n", "~~~\n", "````\n", "\n", "'''", '"""', "'", '"', "\\", "#", "<think>", "</think>", "class ModelNew(",
    "class ModelNew:\n", "  ", "\r", "\x00", "\ud800", "é", "- ", "1. ", "text ",
]  # fmt: skip


@settings(max_examples=400)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=40).map("".join))
def test_no_reply_raises_and_code_is_a_part_of_the_reply(reply: str) -> None:
    result = extract_kernel(reply)
    assert (result.code is None) == (result.status in (Status.NO_CODE, Status.TRUNCATED))
    assert (result.code is None) == bool(result.message)
    if result.code is not None:
        plain = reply.replace("\r\n", "\n").replace("\r", "\n")
        assert "class" in result.code
        lines = plain.split("\n")
        assert all(any(line.endswith(part) for line in lines) for part in result.code.split("\n"))


@settings(max_examples=100)
@given(st.text(alphabet="ab \n#", max_size=60), st.sampled_from(["```", "~~~~"]))
def test_what_stands_in_a_fence_comes_out_unchanged(noise: str, fence: str) -> None:
    code = GOOD + noise + "\n"
    assert code_of(f"Hello\n{fenced(code, fence)}{noise}") == code


@pytest.mark.parametrize(
    "piece", ["`", "```\n", "```python\n", "<think>", "<think></think>", "x", "\n", '"""', "'''\n```\n", "\\", "~~~\n"]
)
def test_ten_megabytes_of_junk_are_read_in_one_pass(piece: str) -> None:
    junk = piece * (10_000_000 // len(piece))
    assert extract_kernel(junk).code is None
    assert extract_kernel(f"```\n'''\n{junk}").code is None


def test_a_kernel_at_the_end_of_a_very_long_reply_is_found() -> None:
    junk = "word " * 2_000_000
    assert code_of(f"{junk}\n{fenced(GOOD)}") == GOOD
    assert code_of(f"<think>{junk}\n{fenced(OTHER)}") is None
    assert code_of(f"<think>{junk}</think>\n{fenced(GOOD)}") == GOOD


def test_quotes_that_never_balance_are_searched_for_a_few_times_only() -> None:
    never_balanced = "```\n# ''' \"\"\"\n'''\n```\n"
    assert code_of(never_balanced * 40_000 + fenced(GOOD)) == GOOD


# ------------------------------------------------------------------ without thinking


@pytest.mark.parametrize(
    ("reply", "rest"),
    [
        ("No thoughts.", "No thoughts."),
        ("<think>a</think>\n\nb<think>c</think>d", "bd"),
        ("what the template opened</think>\nb", "b"),
        ("a <think>and never an end", "a "),
        ("<think>```python\nclass ModelNew: pass\n```</think>b", "b"),
        ("```python\ns = '<think>'\n```\n<think>c</think>d </think>", "```python\ns = '<think>'\n```\nd </think>"),
        ("", ""),
    ],
)
def test_thinking_is_what_the_extractor_takes_for_it(reply: str, rest: str) -> None:
    assert without_thinking(reply) == rest

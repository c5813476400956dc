"""A person as the policy: what is shown, and what is taken for a reply."""

from __future__ import annotations

import asyncio
import functools
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_env.errors import PolicyExhausted
from kernel_env.schema import Message
from rollout.policies import GenerationRequest, Sampling
from rollout.policies.human import HumanPolicy

FIRST: tuple[Message, ...] = ({"role": "system", "content": "You write kernels."}, {"role": "user", "content": "Make it fast."})
SECOND: tuple[Message, ...] = (
    *FIRST,
    {"role": "assistant", "content": "what I had said"},
    {"role": "user", "content": "It did not compile."},
)


def asked(typed: str, *conversations: tuple[Message, ...]) -> tuple[list[str], str]:
    """The replies, and what was shown."""
    shown = io.StringIO()
    policy = HumanPolicy(source=io.StringIO(typed), shown=shown)

    async def all_of() -> list[str]:
        await policy.preflight()
        requests = [GenerationRequest(m, Sampling(), "level1_problem1", turn) for turn, m in enumerate(conversations)]
        return [(await policy.generate(request)).text for request in requests]

    return asyncio.run(all_of()), shown.getvalue()


def test_what_is_typed_up_to_the_end_line_is_the_reply() -> None:
    replies, shown = asked("```python\nx = 1\n```\nEND\nsecond\nEND\n", FIRST, SECOND)
    assert replies == ["```python\nx = 1\n```", "second"]
    assert shown.count("Make it fast.") == 1 and shown.count("It did not compile.") == 1 and "what I had said" not in shown


def test_a_conversation_that_goes_on_elsewhere_is_shown_whole() -> None:
    _, shown = asked("again\nEND\n", SECOND)
    assert "You write kernels." in shown and "what I had said" in shown and "It did not compile." in shown


def test_the_path_of_a_file_stands_for_what_is_in_it(tmp_path: Path) -> None:
    code, answer = tmp_path / "kernel.py", tmp_path / "answer.txt"
    code.write_text("class ModelNew: ...")
    answer.write_text("a whole answer")
    replies, shown = asked(f"{tmp_path}/nothing.py\nEND\n{code}\nEND\n{answer}\nEND\n", FIRST, SECOND)
    assert replies == ["```python\nclass ModelNew: ...\n```", "a whole answer"]
    assert f"cannot read {tmp_path}/nothing.py: No such file or directory" in shown


@pytest.mark.parametrize("typed", ["", "END\n", "  \n\nEND\n"])
def test_nothing_at_all_ends_the_episode(typed: str) -> None:
    with pytest.raises(PolicyExhausted, match="no reply was given to turn 0 of level1_problem1"):
        asked(typed, FIRST)


@pytest.mark.parametrize(("by", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_is_pasted_is_judged_and_who_leaves_is_not_waited_for(by: signal.Signals, code: int, tmp_path: Path) -> None:
    """The real command, while the terminal that it reads from stays open."""
    chosen = ["problems.limit=1", "rollout.concurrency=1", "rollout.max_turns=2", "run.name=r"]
    command = [sys.executable, "-m", "kernel_env", "eval", "policy=human", "problems.levels=1", *chosen]
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a suite in the background ignores it
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, process_group=0, preexec_fn=listening, **pipes) as process:
        shown = iter(process.stderr)
        assert any("Write `ModelNew` for this reference" in line for line in shown)
        process.stdin.write("```python\nclass ModelNew(:\n```\nEND\n")
        process.stdin.flush()
        assert any("turn 1, user" in line for line in shown) and any(line.startswith("--- your reply") for line in shown)
        os.killpg(process.pid, by)  # as a terminal does: to every process of the command
        assert process.wait(60) == code
        assert "level1_problem1    turn 0  load_error    reward 0.00" in process.stdout.read()

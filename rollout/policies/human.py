"""A person as the policy: shows what a model would see, and takes the reply from the terminal. For learning and debugging."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TextIO

from kernel_env.errors import ConfigError, PolicyExhausted
from kernel_env.printable import LAYOUT, printable
from kernel_env.schema import Generation
from rollout.policies.base import Capabilities, Endpoint, GenerationRequest, Spent, refuse_thinking, storable

END = "END"
_ASK = f"--- your reply, or the path of a file that holds it, then a line with {END}; nothing at all ends this episode ---"


class HumanPolicy:
    """Reads from `source`, writes to `shown`. One question at a time, however many episodes are in flight."""

    def __init__(
        self,
        who: str = "you",
        endpoint: Endpoint | None = None,
        *,
        source: TextIO | None = None,
        shown: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`who` is for the record, and nothing else."""
        self.name = f"human/{who}"
        self.capabilities = Capabilities()
        self.spent = Spent()
        self._source, self._shown, self._now = source or sys.stdin, shown or sys.stderr, now
        self._turn = asyncio.Lock()
        self._seen: set[str] = set()
        """Episodes of which all messages have been shown."""

    async def preflight(self) -> None:
        """Raises ConfigError where nobody can answer."""
        if self._source is sys.stdin and sys.stdin.closed:
            raise ConfigError("policy=human needs a terminal or a pipe to read replies from")

    async def generate(self, request: GenerationRequest) -> Generation:
        refuse_thinking(self, request)
        reply: Future[Generation] = Future()
        async with self._turn:
            threading.Thread(target=self._answer, args=(request, reply), name="human", daemon=True).start()
            return await asyncio.wrap_future(reply)

    def covers(self, episode: str) -> bool:
        return True

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _answer(self, request: GenerationRequest, reply: Future[Generation]) -> None:
        """In a thread that nobody waits for: it cannot be interrupted while it reads, and who leaves types no more."""
        reply.set_running_or_notify_cancel()
        try:
            reply.set_result(self._asked(request))
        except BaseException as error:  # noqa: BLE001 - raised again where the reply is waited for
            reply.set_exception(error)

    def _asked(self, request: GenerationRequest) -> Generation:
        """Raises PolicyExhausted where nothing is said."""
        started = self._now()
        known = request.episode in self._seen
        self._seen.add(request.episode)
        for message in request.messages[-1:] if known else request.messages:
            said = printable(message["content"], LAYOUT)  # a candidate's words are in it
            print(f"--- {request.episode}, turn {request.turn}, {message['role']} ---\n{said}", file=self._shown)
        while True:
            print(_ASK, file=self._shown, flush=True)
            said = self._until_end()
            if not said.strip():
                raise PolicyExhausted(f"no reply was given to turn {request.turn} of {request.episode}")
            try:
                text = _meant(said)
            except OSError as error:
                print(f"cannot read {said.strip()}: {error.strerror}", file=self._shown)
            else:
                return Generation(storable(text), model=self.name, duration_s=self._now() - started)

    def _until_end(self) -> str:
        lines: list[str] = []
        for line in self._source:
            if line.strip() == END:
                break
            lines.append(line)
        return "".join(lines).removesuffix("\n")


def _meant(said: str) -> str:
    """The text, or what the one file that it names holds; bare code becomes a reply. Raises OSError."""
    path = said.strip()
    if "\n" in path or not path.endswith((".py", ".txt", ".md")):
        return said
    content = Path(path).read_text(encoding="utf-8", errors="replace")
    return f"```python\n{content}\n```" if path.endswith(".py") else content

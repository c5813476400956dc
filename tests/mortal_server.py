"""A model server that may be killed at any moment: its keeper makes another one after a while.

    with kept_server() as (keeper, base_url):
        ...  # kill the one child of `keeper`, as often as you like

It speaks OpenAI's protocol, and goes through the recorded episodes of the bundled problems: the same messages get the same reply,
whoever asks, and however often. Its port is nobody else's, dead or alive: while there is no server, connections are refused.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from kernel_env.problems import load_problems
from kernel_env.processes import die_with_parent
from kernel_env.prompts import initial_messages
from kernel_env.schema import Message
from rollout.policies.replay import BUILT_IN
from tests.chat_server import START_S, ChatServer, Slow

MODEL = "recorded"
BACKEND, PROFILE = "cpp", "interpret"
THINKS_S = 0.1
"""What a reply takes, so that some are on their way when the server dies."""
MOST_DOWN_S = 1.5


def reply(keys: dict[str, str], messages: Sequence[Message]) -> str:
    """The recorded reply of this turn, or the last one that there is. `keys` has each problem's key by its question."""
    key = keys[next(message["content"] for message in messages if message["role"] == "user")]
    turn = sum(message["role"] == "assistant" for message in messages)
    files = (BUILT_IN / f"bundled/{BACKEND}/{key}_turn{index}.txt" for index in range(turn, -1, -1))
    return next(file.read_text() for file in files if file.exists())


def main() -> None:
    die_with_parent()
    port, downtimes = int(sys.argv[1]), random.Random(0)
    keys = {initial_messages(problem, BACKEND)[-1]["content"]: problem.key for problem in load_problems("bundled", None, PROFILE)}
    while True:
        server = os.fork()
        if server == 0:
            die_with_parent()
            with ChatServer(lambda messages: Slow(reply(keys, messages), THINKS_S), models=(MODEL,), port=port):
                signal.pause()
        os.waitpid(server, 0)
        time.sleep(downtimes.uniform(0, MOST_DOWN_S))


@contextmanager
def kept_server() -> Iterator[tuple[int, str]]:
    """The keeper's process id, and the server's root."""
    with socket.socket() as place:  # bound, but never listening: it keeps the port
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        place.bind(("127.0.0.1", 0))
        address = place.getsockname()
        repository = Path(__file__).parents[1]
        keeper = subprocess.Popen([sys.executable, "-m", "tests.mortal_server", str(address[1])], cwd=repository)
        try:
            _wait_for(address)
            yield keeper.pid, f"http://{address[0]}:{address[1]}/v1"
        finally:
            keeper.kill()
            keeper.wait()


def _wait_for(address: tuple[str, int]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            return socket.create_connection(address).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the model server did not start"
            time.sleep(0.02)


if __name__ == "__main__":
    main()

"""Keeps a server: runs a command in a process group of its own, and ends the whole group when it is told to, or when the process
that started the keeper has died, however it died.

Run as `python -I -m rollout.keeper PARENT GRACE_S COMMAND ...`; SIGTERM tells it. The group gets SIGTERM, and SIGKILL once the
command has ended or GRACE_S seconds have passed. The exit code is the command's, 128 and the signal's number where one ended it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time

from kernel_env.processes import die_with_parent

_AWAITED = (signal.SIGTERM, signal.SIGCHLD)


def main() -> int:
    parent, grace_s, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)  # none is lost: each is kept until it is waited for
    die_with_parent(signal.SIGTERM)
    if os.getppid() != parent:  # it died before the kernel knew that we want to hear of it
        return 128 + signal.SIGTERM
    server = subprocess.Popen(command, process_group=0, preexec_fn=_released)
    while server.poll() is None:
        if signal.sigwait(_AWAITED) == signal.SIGTERM:
            _ask_to_end(server, grace_s)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)  # workers too, which outlive whoever started them
    code = server.wait()
    return code if code >= 0 else 128 - code


def _released() -> None:
    """In the command's process, before it is the command."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
    die_with_parent()  # were the keeper itself killed


def _ask_to_end(server: subprocess.Popen[bytes], grace_s: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while server.poll() is None and (left_s := deadline - time.monotonic()) > 0:
        signal.sigtimedwait(_AWAITED, left_s)


if __name__ == "__main__":
    sys.exit(main())

"""What the kernel does for us when processes end."""

from __future__ import annotations

import contextlib
import ctypes
import signal
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_NAME, _PR_SET_CHILD_SUBREAPER = 1, 15, 36
WAITING = "ke-waiting"
"""What a runner is called until its first request; afterwards it is named for its role."""
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(by: int = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when its parent ends; 0 takes that back. It outlasts `exec`."""
    _libc.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)


def name_process(name: str) -> None:
    """What `ps` and `top` call this process: 15 bytes at most."""
    _libc.prctl(_PR_SET_NAME, ctypes.create_string_buffer(name.encode()), 0, 0, 0)


def become_subreaper(be: bool = True) -> None:
    """Orphans of our descendants become our children, so that they can be found and killed; False takes that back."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(be), 0, 0, 0)


def oom_kills() -> int:
    """How many processes of this machine the kernel has killed for want of memory, those in containers' own limits included."""
    with contextlib.suppress(OSError, ValueError):
        rows = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
        return int(rows.get("oom_kill", 0))
    return 0

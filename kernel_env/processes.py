"""What the kernel does for us when processes end."""

from __future__ import annotations

import ctypes
import signal

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(by: int = signal.SIGKILL) -> None:
    """Ask the kernel to send this process a signal when its parent ends; 0 takes that back. It outlasts `exec`."""
    _libc.prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)


def become_subreaper(be: bool = True) -> None:
    """Orphans of our descendants become our children, so that they can be found and killed; False takes that back."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, int(be), 0, 0, 0)

"""Put in front of every probe: what code inside a runner can use to try things, and how it says what came of them."""

# ruff: noqa: F401 - probes use them
import ctypes
import errno
import json
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"


class ModelNew(torch.nn.Module):
    pass


def check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def syscall(x86: int, aarch64: int, *arguments: Any) -> int:
    number = x86 if X86 else aarch64
    return check(libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))


def say(outcome: Any) -> None:
    print("\nPROBE" + json.dumps(outcome), flush=True)


def tell(probe: Callable[[], Any]) -> None:
    try:
        outcome = {"value": probe()}
    except OSError as error:
        outcome = {"denied": errno.errorcode.get(error.errno, str(error))}
    say(outcome)

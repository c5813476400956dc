"""Which functions of libraries a program looks up by ctypes, told by the file that holds what was found: a library's prefix or an
own name for a function does not matter, and an own function may be called as it likes.

Imported before any candidate's code, and by runners only.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
import re
import threading
from pathlib import Path
from typing import Any

from kernel_env.checks.symbols import FINDERS, is_system, unwatched

_OWN = re.compile(r"ke_[0-9a-f]{20}\.so")
_EVENTS = ("ctypes.dlsym", "ctypes.dlsym/handle")
_LIBRARIES = (ctypes.CDLL, ctypes.PyDLL)


class _Place(ctypes.Structure):
    _fields_ = (
        ("file", ctypes.c_char_p), ("base", ctypes.c_void_p), ("name", ctypes.c_char_p), ("address", ctypes.c_void_p),
    )  # fmt: skip


_dladdr = ctypes.CDLL(None).dladdr
_dladdr.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Place))
_here = threading.local()
"""Whether this thread looks up a name for us."""


def unwatched_lookup(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """Of an event for auditors: the name of a function with which a library may compute unseen, if it is about such a one."""
    if event not in _EVENTS or getattr(_here, "looks", False):
        return []
    library, asked = arguments[:2]
    name = bytes.decode(asked, errors="replace") if isinstance(asked, bytes) else str.__str__(asked)
    handle = vars(library).get("_handle") if type(library) in _LIBRARIES else library
    if type(handle) is not int:
        return unwatched((name,))
    file = _file(handle, name)
    if not file:
        return []  # there is none of that name
    if _OWN.fullmatch(file) or is_system(file):
        return [name] if name in FINDERS else []
    return unwatched((name,))


def _file(handle: int, name: str) -> str:
    """The name of the file that holds what this name stands for, or "" where it stands for nothing."""
    place = _Place()
    _here.looks = True
    try:
        address = _ctypes.dlsym(handle, name)
    except (OSError, ValueError):
        return ""
    finally:
        _here.looks = False
    return Path(os.path.realpath(os.fsdecode(place.file))).name if _dladdr(address, ctypes.byref(place)) else name

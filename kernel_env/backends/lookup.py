"""Which functions of libraries a program looks up by ctypes, told by the file that holds what was found: a library's prefix or an
own name for a function does not matter, and an own function may be called as it likes.

A file is one of the system's, or a build's, by its place, too: a copy of a library may bear any name. The kernel tells the place.
(What the loader was told may be relative, or a link, and lead elsewhere by now.)

Imported before any candidate's code, and by runners only.
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
import re
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kernel_env.checks.symbols import FINDERS, is_system, unwatched

_OWN = re.compile(r"ke_[0-9a-f]{20}\.so")
_MAPPED = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) (?:\S+ +){3}\d+ +(/[^\n]*)$", re.MULTILINE)
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
_built: set[str] = set()
"""Directories of finished extensions."""


def _mapped() -> Iterator[tuple[range, str, str]]:
    """Addresses, directory and name of the files that are mapped."""
    for start, end, path in _MAPPED.findall(Path("/proc/self/maps").read_bytes()):
        yield range(int(start, 16), int(end, 16)), *os.path.split(os.fsdecode(path).removesuffix(" (deleted)"))


_loaded = {where.start: directory for where, directory, file in _mapped() if is_system(file)}
"""Where the system's libraries lie, which stay as long as torch does, and the directories that they are from."""
_system = frozenset(_loaded.values())


def know_builds(directories: Iterable[str]) -> None:
    """Extensions are below these, by either of their names: in a file system that was made for a runner a link is none."""
    for directory in directories:
        _built.update((os.path.abspath(directory), os.path.realpath(directory)))


def unwatched_lookup(event: str, arguments: tuple[Any, ...]) -> list[str]:
    """Of an event for auditors: the name of a function with which a library may compute unseen, if it is about such a one."""
    if event not in _EVENTS or getattr(_here, "looks", False):
        return []
    library, asked = arguments[:2]
    name = bytes.decode(asked, errors="replace") if isinstance(asked, bytes) else str.__str__(asked)
    handle = vars(library).get("_handle") if type(library) in _LIBRARIES else library
    if type(handle) is not int:
        return unwatched((name,))
    _here.looks = True
    try:
        address = _ctypes.dlsym(handle, name)
    except (OSError, ValueError):
        return []  # there is none of that name
    finally:
        _here.looks = False
    if _is_free(address):
        return [name] if name in FINDERS else []
    return unwatched((name,))


def _is_free(address: int) -> bool:
    """Whether this lies in a library of the system's, or in a build."""
    place = _Place()
    if not _dladdr(address, ctypes.byref(place)):
        return False
    if place.base in _loaded:
        return True
    files = {a: (directory, file) for where, directory, file in _mapped() for a in (address, place.base) if a in where}
    directory, file = files.get(address) or files.get(place.base) or ("", "")  # what begins as zeros is mapped of no file
    if is_system(file):
        return directory in _system
    return _OWN.fullmatch(file) is not None and any(Path(directory).is_relative_to(home) for home in _built)

"""Landlock: which files the process may open, by rules that it puts on itself and can never lift.

The kernel checks where a file lies, not what it is called, so links and renames gain nothing. What Landlock does not
restrict (changing modes, owners and times; connecting to Unix sockets) the system call filter does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
from collections.abc import Iterable

from kernel_env.sandbox.libc import syscall

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_USE = _WRITE_FILE | _READ_FILE | _TRUNCATE
_HANDLED_SINCE = {1: (1 << 13) - 1, 2: 1 << 13, 3: _TRUNCATE, 5: 1 << 15}
"""Rights on files that each version of the interface brought: all are handled, so all are denied where no rule grants them."""
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_SYM, _REFER = (1 << n for n in (4, 5, 7, 8, 12, 13))
_READ = _READ_FILE | _READ_DIR
_OWN = _READ | _WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER
_BIND_TCP_AND_CONNECT_TCP, _ABSTRACT_SOCKETS_AND_SIGNALS = 3, 3
_VERSION, _PATH_BENEATH = 1, 1


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Of the kernel's interface. Raises OSError where there is none."""
    return syscall("landlock_create_ruleset", None, 0, _VERSION)


def restrict(readable: Iterable[str], usable: Iterable[str], own: Iterable[str]) -> None:
    """From here on: read below `readable`, read and write the files `usable`, everything but devices below `own`; no TCP.

    Paths that do not exist are left out. Raises OSError.
    """
    rules = ruleset(readable, usable, own)
    try:
        enter(rules)
    finally:
        os.close(rules)


def ruleset(readable: Iterable[str], usable: Iterable[str], own: Iterable[str], executable: Iterable[str] = ()) -> int:
    """The descriptor of such rules, and leave to read and execute below `executable`: to make ahead of a fork. Raises OSError."""
    known = version()
    handled = sum(rights for since, rights in _HANDLED_SINCE.items() if since <= known)
    attributes = _Ruleset(handled, _BIND_TCP_AND_CONNECT_TCP, _ABSTRACT_SOCKETS_AND_SIGNALS)
    size = 8 if known < 4 else 16 if known < 6 else 24
    rules = syscall("landlock_create_ruleset", ctypes.byref(attributes), size, 0)
    try:
        for paths, rights in ((readable, _READ), (usable, _USE), (own, _OWN), (executable, _READ | _EXECUTE)):
            for path in paths:
                with contextlib.suppress(FileNotFoundError, PermissionError):  # what cannot be found cannot be opened either
                    _allow(rules, path, rights & handled)
    except BaseException:  # an interrupt too leaves no descriptor
        os.close(rules)
        raise
    return rules


def enter(rules: int) -> None:
    """Put rules on this process and those that it makes. Raises OSError; needs no_new_privs."""
    syscall("landlock_restrict_self", rules, 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_FILES
        syscall("landlock_add_rule", ruleset, _PATH_BENEATH, ctypes.byref(_PathBeneath(rights, place)), 0)
    finally:
        os.close(place)

"""The system call filter, as a classic BPF program: what is denied fails with EPERM, so code that merely probes goes on.

Threads may be made, processes may not. Numbers the kernel's authors have not yet given out answer ENOSYS, so that a newer
kernel's calls are denied until someone has looked at them; so do the calls of other processors and of the x32 interface.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterable, Sequence

from kernel_env.sandbox.calls import DENIED, NEWEST, NUMBERS, PRETENDED
from kernel_env.sandbox.libc import MACHINE, syscall

_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_ABOVE = 0x15, 0x25
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW = 0x7FFF0000
_DENY = 0x00050000 | errno.EPERM
_UNKNOWN = 0x00050000 | errno.ENOSYS
_PRETEND = 0x00050000
"""No error: the call answers 0."""
_SET_MODE_FILTER, _SPECULATION_ALLOWED = 1, 4

_PTHREAD, _DETACHED = 0x003D0F00, 0x00400000
"""The flags of clone(2) with which the C libraries make a thread, and one that some add. No others: with CLONE_VFORK the first
thread would sleep, deaf to SIGSTOP, for as long as a new one works."""
_SIGCONT = 18
"""A program that goes on telling itself to continue could not be stopped."""
_MAP_SHARED_ANONYMOUS, _MAP_GROWSDOWN = 0x21, 0x100
_PRCTL_ALLOWED = (
    2, 3, 15, 16, 21, 23, 27, 30, 39, 41, 42, 50, 51, 56, 0x53564D41,
)  # fmt: skip
"""Getters, names of threads and mappings, huge pages, vector lengths. Not: becoming unreadable, or other end and scheduling."""
_FCNTL_DENIED = (8, 10, 15, 5, 6, 7, 36, 37, 38, 1024, 1025, 1026)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: signals to any process, by way of a descriptor. Locks, leases and notices on files: other
runners read the same ones."""
_IOCTL_DENIED = (0x5412, 0x541C, 0x8901, 0x8902)
"""TIOCSTI, TIOCLINUX (typing into a terminal), FIOSETOWN, SIOCSPGRP (signals, as above)."""

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, constant."""


def program(pid: int, machine: str = MACHINE) -> list[Instruction]:
    """The filter of a process that sees itself as `pid`. Raises OSError on a processor whose calls are not known here."""
    if machine not in _ARCHITECTURE:
        raise OSError(errno.ENOSYS, f"seccomp: no table of system calls for {machine}")
    numbers = NUMBERS[machine]
    code: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT), (_IF_EQUAL, 1, 0, _ARCHITECTURE[machine]), (_RETURN, 0, 0, _UNKNOWN),
        (_LOAD, 0, 0, _NUMBER_AT), (_IF_ABOVE, 0, 1, NEWEST), (_RETURN, 0, 0, _UNKNOWN),
    ]  # fmt: skip
    for name, body in _conditions(pid).items():
        code += _when(numbers[name], body)
    code += _when(numbers["clone3"], [(_RETURN, 0, 0, _UNKNOWN)])  # the C library falls back to clone, whose flags can be read
    for names, answer in ((DENIED, _DENY), (PRETENDED, _PRETEND)):
        for name in names:
            if name in numbers:
                code += _when(numbers[name], [(_RETURN, 0, 0, answer)])
    return [*code, (_RETURN, 0, 0, _ALLOW)]


def install(instructions: Iterable[Instruction]) -> None:
    """Filter the calls of this thread, and of those that it makes. Needs no_new_privs. Raises OSError.

    Speculation stays as it is: on older kernels a filter would else slow down all code of the process.
    """
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    syscall("seccomp", _SET_MODE_FILTER, _SPECULATION_ALLOWED, ctypes.create_string_buffer(head, len(head)))


def _when(number: int, body: Sequence[Instruction]) -> list[Instruction]:
    """`body`, which returns on every path, for one call; the others jump over it."""
    return [(_IF_EQUAL, 0, len(body), number), *body]


def _conditions(pid: int) -> dict[str, list[Instruction]]:
    """Calls that depend on their arguments. A kernel without such a filter for a call remembers that it is always allowed."""

    def to_itself(signal_at: int) -> list[Instruction]:
        return [*_masked(0, 0xFFFFFFFF, pid, otherwise=_DENY), *_deny_only(signal_at, (_SIGCONT,))]

    return {
        "clone": _masked(0, 0xFFFFFFFF & ~_DETACHED, _PTHREAD, then=_ALLOW, otherwise=_DENY),
        "mmap": [
            *_masked(3, _MAP_SHARED_ANONYMOUS, _MAP_SHARED_ANONYMOUS, then=_DENY),  # memory that no limit counts, ...
            *_masked(3, _MAP_GROWSDOWN, _MAP_GROWSDOWN, then=_DENY, otherwise=_ALLOW),  # ... twice
        ],
        "kill": to_itself(1), "tgkill": to_itself(2), "rt_sigqueueinfo": to_itself(1), "rt_tgsigqueueinfo": to_itself(2),
        "prctl": _allow_only(0, _PRCTL_ALLOWED),
        "prlimit64": [*_masked(2, 0xFFFFFFFF, 0, otherwise=_DENY), *_upper(2, 0, otherwise=_DENY)],
        "fcntl": _deny_only(1, _FCNTL_DENIED),
        "ioctl": _deny_only(1, _IOCTL_DENIED),
    }  # fmt: skip


def _masked(index: int, mask: int, value: int, then: int | None = None, otherwise: int | None = None) -> list[Instruction]:
    """Compare the lower half of an argument under a mask; without `then` or `otherwise` that case goes on below."""
    head = [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index), (_AND, 0, 0, mask)]
    return [*head, *_branch(value, then, otherwise)]


def _upper(index: int, value: int, otherwise: int) -> list[Instruction]:
    return [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index + 4), *_branch(value, _ALLOW, otherwise)]


def _branch(value: int, then: int | None, otherwise: int | None) -> list[Instruction]:
    if then is not None and otherwise is not None:
        return [(_IF_EQUAL, 0, 1, value), (_RETURN, 0, 0, then), (_RETURN, 0, 0, otherwise)]
    if then is not None:
        return [(_IF_EQUAL, 0, 1, value), (_RETURN, 0, 0, then)]
    assert otherwise is not None
    return [(_IF_EQUAL, 1, 0, value), (_RETURN, 0, 0, otherwise)]


def _allow_only(index: int, values: Iterable[int]) -> list[Instruction]:
    return [*_each(index, values, _ALLOW), (_RETURN, 0, 0, _DENY)]


def _deny_only(index: int, values: Iterable[int]) -> list[Instruction]:
    return [*_each(index, values, _DENY), (_RETURN, 0, 0, _ALLOW)]


def _each(index: int, values: Iterable[int], result: int) -> list[Instruction]:
    code: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENTS_AT + 8 * index)]
    for value in values:
        code += [(_IF_EQUAL, 0, 1, value), (_RETURN, 0, 0, result)]
    return code

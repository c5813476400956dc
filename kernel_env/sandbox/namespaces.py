"""Namespaces: a runner sees no process but itself, no network, no other's shared memory, and a file system made for it.

The file system is built from nothing: an empty root in memory, read-only views of what a program needs, a new `/proc`, and
the scratch directory and `/tmp`, which are limited in size together and go when the runner goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import os
import stat
import struct
from collections.abc import Iterable
from pathlib import Path

from kernel_env.sandbox import libc
from kernel_env.sandbox.layers import DEVICES, SYSTEM, SYSTEM_FILES, Plan, outermost

NEW_USER = 0x10000000
TEMPORARY = "/tmp"
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
_DETACH = 2
_SWITCHES = "/proc/sys"
"""Where a user 0 without any capability could still change the machine."""
_SAME_FOR_ALL = ("cpuinfo", "filesystems", "sys", "version")
_AT_THE_START = ("loadavg", "meminfo", "stat", "uptime")
"""Of /proc besides processes: what is shown, and what is shown as it was when the runner began. All else there is empty: what
counts for the whole machine, its threads say, would be a word from one candidate to the next."""
_COUNTS = ("/proc/sys/fs", "/sys/devices/system/node/node*/meminfo", "/sys/devices/system/node/node*/*stat")
"""The same elsewhere."""
_AT_FDCWD, _RECURSIVE = -100, 0x8000


def enter_user_namespace() -> None:
    """A user namespace of our own, in which we are who we were. Raises OSError."""
    user, group = os.geteuid(), os.getegid()
    libc.unshare(NEW_USER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def build_file_system(plan: Plan, scratch: Path, *, own_processes: bool, owner: tuple[int, int]) -> None:
    """Replace the root directory by one with nothing in it but what the runner needs. Raises OSError.

    `scratch` stays where it was, but empty and in memory, and belongs to `owner` (user and group), as does `/tmp`.
    """
    root = str(scratch)
    libc.mount("none", "/", None, _REC | _PRIVATE)
    libc.mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=1m,mode=755")
    _own_directories((TEMPORARY, root), root, plan.scratch_bytes, owner)
    for path in outermost((*SYSTEM, *SYSTEM_FILES, *plan.readable)):
        _show(path, root)
    for path in DEVICES:
        _show(path, root, attributes=_NOSUID | _NOEXEC)
    _directory(f"{root}/dev/shm")
    _directory(f"{root}/proc")
    if own_processes:
        libc.mount("proc", f"{root}/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    else:
        libc.mount("/proc", f"{root}/proc", None, _BIND | _REC)
    if os.path.exists(_SWITCHES):
        libc.mount(_SWITCHES, f"{root}{_SWITCHES}", None, _BIND)
        _protect(f"{root}{_SWITCHES}", _RDONLY)
    _hide_counts(root)
    os.chdir(root)
    libc.syscall("pivot_root", ctypes.c_char_p(b"."), ctypes.c_char_p(b"."))
    libc.unmount(".", _DETACH)
    _protect("/", _RDONLY, recursive=False)
    os.chdir(scratch)


def _own_directories(paths: Iterable[str], root: str, size: int, owner: tuple[int, int]) -> None:
    """Empty directories below the new root that belong to `owner`, in one memory of this size."""
    memory = f"{root}/memory"
    _directory(memory)
    libc.mount("tmpfs", memory, "tmpfs", _NOSUID | _NODEV, f"size={size},nr_inodes=16384,mode=755")
    for number, path in enumerate(paths):
        os.mkdir(f"{memory}/{number}", mode=0o700)
        os.chown(f"{memory}/{number}", *owner)
        _directory(f"{root}{path}")
        libc.mount(f"{memory}/{number}", f"{root}{path}", None, _BIND)
    libc.unmount(memory, _DETACH)


def _hide_counts(root: str) -> None:
    """Put empty files and directories, and files that do not change, over those that tell of the whole machine."""
    still = f"{root}/still"
    _directory(f"{still}/empty")
    with os.scandir(f"{root}/proc") as entries:
        others = [e.path for e in entries if not (e.name.isdigit() or e.is_symlink() or e.name in _SAME_FOR_ALL)]
    for number, path in enumerate((*others, *(path for pattern in _COUNTS for path in glob.glob(root + pattern)))):
        instead = f"{still}/empty" if os.path.isdir(path) else f"{root}/dev/null"
        if os.path.basename(path) in _AT_THE_START:
            instead = f"{still}/{number}"
            Path(instead).write_bytes(Path(path).read_bytes())
        libc.mount(instead, path, None, _BIND)
        if instead.startswith(still):
            _protect(path, _RDONLY)


def _show(path: str, root: str, attributes: int = _RDONLY | _NOSUID | _NODEV) -> None:
    """The same file, directory or link below the new root; nothing where there is none."""
    target = f"{root}{path}"
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return
    _directory(os.path.dirname(target))
    if stat.S_ISLNK(mode):
        os.symlink(os.readlink(path), target)
        return
    if stat.S_ISDIR(mode):
        _directory(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    libc.mount(path, target, None, _BIND | _REC)
    _protect(target, attributes)


def _directory(path: str) -> None:
    os.makedirs(path, mode=0o755, exist_ok=True)


def _protect(path: str, attributes: int, *, recursive: bool = True) -> None:
    """Add attributes to a mount; those that it has stay. (MOUNT_ATTR_* has the same values as MS_* for the ones used here.)"""
    wanted = ctypes.create_string_buffer(struct.pack("QQQQ", attributes, 0, 0, 0))
    libc.syscall("mount_setattr", _AT_FDCWD, path.encode(), _RECURSIVE if recursive else 0, wanted, ctypes.c_size_t(32))


def visible_processes(*, own_file_system: bool, own_processes: bool) -> Iterable[str]:
    """Where in /proc a runner may read: all of its own, or only itself where others would show."""
    if own_file_system and own_processes:
        return ("/proc",)
    files = ("cpuinfo", "meminfo", "filesystems", "version", "sys/kernel", "sys/vm")
    return ("/proc/self", *(f"/proc/{name}" for name in files))


def hint() -> str:
    """Which switch of this machine forbids user namespaces, if it is one that we know."""
    for switch, forbids in (
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ):
        with contextlib.suppress(OSError):
            if Path(switch).read_text().strip() == forbids:
                return f"{switch} is {forbids}"
    return "this container, or a security module, forbids it"

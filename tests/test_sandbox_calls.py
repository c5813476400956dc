"""System calls that no candidate may make, each tried from inside a runner; and the filter itself, run by hand."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from kernel_env.sandbox import calls, seccomp
from tests.sandbox_box import Box

CALLS = {
    "bpf": "321, 280, 0, None, 0",
    "perf_event_open": "298, 241, None, 0, 0, 0, 0",
    "keyctl": "250, 219, 0, 0, 0",
    "add_key": "248, 217, None, None, None, 0, 0",
    "request_key": "249, 218, None, None, None, 0",
    "userfaultfd": "323, 282, 1",
    "io_uring": "425, 425, 1, None",
    "aio": "206, 0, 1, None",
    "unshare": "272, 97, 0",
    "setns": "308, 268, 0, 0",
    "mount": "165, 40, None, None, None, 0, None",
    "umount": "166, 39, None, 0",
    "move_mount": "429, 429, -1, None, -1, None, 0",
    "fsopen": "430, 430, None, 0",
    "open_tree": "428, 428, -1, None, 0",
    "chroot": "161, 51, None",
    "pivot_root": "155, 41, None, None",
    "clock_settime": "227, 112, 99, None",
    "settimeofday": "164, 170, None, None",
    "adjtimex": "159, 171, None",
    "reboot": "169, 142, 0, 0, 0, None",
    "kexec_load": "246, 104, 0, 99, None, 99",
    "init_module": "175, 105, None, 0, None",
    "delete_module": "176, 106, None, 0",
    "swapon": "167, 224, None, 0",
    "sethostname": "170, 161, None, -1",
    "syslog": "103, 116, 99, None, 0",
    "personality": "135, 92, 0xFFFFFFFF",
    "timerfd_create": "283, 85, 99, 0",
    "timerfd_settime": "286, 86, -1, 0, None, None",
    "landlock_create_ruleset": "444, 444, None, 0, 1",
    "landlock_add_rule": "445, 445, -1, 0, None, 0",
    "landlock_restrict_self": "446, 446, -1, 0",
    "sysinfo": "99, 179, ctypes.create_string_buffer(128)",
    "fanotify_init": "300, 262, 99, 99",
    "quotactl": "179, 60, 0, None, 0, None",
    "acct": "163, 89, ctypes.c_long(1)",
    "seccomp": "317, 277, 99, 0, None",
    "setuid": "105, 146, 0",
    "setgid": "106, 144, 0",
    "setgroups": "116, 159, 0, None",
    "capset": "126, 91, None, None",
    "sched_setscheduler": "144, 119, 0, 99, None",
    "sched_setattr": "314, 274, 0, None, 0",
    "setpriority": "141, 140, 99, 0, 0",
    "ioprio_set": "251, 30, 99, 0, 0",
    "memfd_create": "319, 279, None, 99999",
    "shmget": "29, 194, 0, 0, 0",
    "semget": "64, 190, 1, -1, 0",
    "msgget": "68, 186, 1, 0",
    "mq_open": "240, 180, None, 0, 0, None",
}
"""Arguments that do nothing where the call is allowed: then it fails in another way than EPERM, or not at all."""


@pytest.mark.parametrize("name", CALLS)
def test_the_system_call_is_denied(box: Box, name: str) -> None:
    assert box.denied(f"return syscall({CALLS[name]})", "EPERM")


def test_calls_newer_than_the_table_are_unknown(box: Box) -> None:
    assert box.denied("return syscall(4000, 4000)", "ENOSYS")


def test_the_32_bit_style_of_x86_is_unknown(box: Box) -> None:
    assert box.denied("return syscall(0x40000000 + 39, 4000)", "ENOSYS")


# ------------------------------------------------------------------ the filter, run by hand

ALLOWED, DENIED, UNKNOWN = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NEUTRAL = {"x86_64": (0, 1, 257, 202), "aarch64": (63, 64, 56, 98)}
"""read, write, openat and futex."""
PID = 77


def answer(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What the filter returns for one call: a classic BPF machine of the six instructions that it uses."""
    values = [*arguments, *[0] * (6 - len(arguments))]
    data = {0: number, 4: architecture or ARCHITECTURES[machine]}
    for index, value in enumerate(values):
        data[16 + 8 * index], data[20 + 8 * index] = value & 0xFFFFFFFF, value >> 32
    code, at, register = seccomp.program(PID, machine), 0, 0
    while True:
        operation, yes, no, constant = code[at]
        at += 1
        if operation == 0x20:
            register = data[constant]
        elif operation == 0x54:
            register &= constant
        elif operation == 0x06:
            return constant
        else:
            assert operation in (0x15, 0x25)
            at += yes if (register == constant if operation == 0x15 else register > constant) else no


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_every_call_of_the_table_is_denied_on_both_processors(machine: str) -> None:
    for name in calls.PRETENDED:
        if name in calls.NUMBERS[machine]:
            assert answer(machine, calls.NUMBERS[machine][name]) == 0x00050000, name
    for name in calls.DENIED:
        if name in calls.NUMBERS[machine]:
            assert answer(machine, calls.NUMBERS[machine][name]) == DENIED, name


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_ordinary_calls_are_allowed_on_both_processors(machine: str) -> None:
    for number in NEUTRAL[machine]:
        assert answer(machine, number) == ALLOWED


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("clone", (0x3D0F00,), ALLOWED),  # what pthread_create asks for
        ("clone", (0x7D0F00,), ALLOWED),  # in musl
        ("clone", (0x3D0F00 | 0x4000,), DENIED),  # its maker would wait, deaf to a stop
        ("clone", (0x50F00 | 0x4000,), DENIED),
        ("clone", (0x50F00,), DENIED),
        ("clone", (17,), DENIED),
        ("clone", (0x3D0F00 | 0x10000000,), DENIED),
        ("clone3", (0, 88), UNKNOWN),
        ("kill", (PID, 10), ALLOWED),
        ("kill", (0, 9), DENIED),
        ("kill", (-1 & 0xFFFFFFFFFFFFFFFF, 9), DENIED),
        ("kill", (PID, 18), DENIED),  # a stop would be taken back
        ("kill", (PID, 18 | 1 << 32), DENIED),
        ("tgkill", (PID, 80, 18), DENIED),
        ("rt_sigqueueinfo", (PID, 18, 0), DENIED),
        ("rt_sigqueueinfo", (PID, 10, 0), ALLOWED),
        ("rt_tgsigqueueinfo", (PID, 80, 18, 0), DENIED),
        ("tgkill", (PID, 80, 6), ALLOWED),
        ("tgkill", (PID + 1, 80, 6), DENIED),
        ("mmap", (0, 4096, 3, 0x22), ALLOWED),
        ("mmap", (0, 4096, 3, 0x01), ALLOWED),
        ("mmap", (0, 4096, 3, 0x21), DENIED),
        ("mmap", (0, 4096, 3, 0x23), DENIED),
        ("mmap", (0, 4096, 3, 0x122), DENIED),
        ("prctl", (15, 0), ALLOWED),
        ("prctl", (4, 0), DENIED),
        ("prlimit64", (0, 7, 0, 1 << 40), ALLOWED),
        ("prlimit64", (0, 7, 1 << 40, 0), DENIED),
        ("prlimit64", (0, 7, 16, 0), DENIED),
        ("fcntl", (3, 4), ALLOWED),
        ("fcntl", (3, 6), DENIED),
        ("fcntl", (3, 36), DENIED),
        ("fcntl", (3, 8), DENIED),
        ("ioctl", (1, 0x5401), ALLOWED),
        ("ioctl", (1, 0x5412), DENIED),
    ],
)
def test_arguments_decide(machine: str, name: str, arguments: tuple[int, ...], expected: int) -> None:
    assert answer(machine, calls.NUMBERS[machine][name], *arguments) == expected


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_another_processors_calls_are_unknown(machine: str) -> None:
    assert answer(machine, 0, architecture=0x40000003) == UNKNOWN


def test_the_numbers_are_those_of_the_systems_headers() -> None:
    """As far as the headers go; newer calls have one number everywhere."""
    headers = {"x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}
    compared = 0
    for machine, header in headers.items():
        if Path(header).exists():
            known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", Path(header).read_text()))
            for name, number in calls.NUMBERS[machine].items():
                assert int(known.get(name, number)) == number, (machine, name)
                compared += 1
    if not compared:
        pytest.skip("no kernel headers here")

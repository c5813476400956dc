"""Tables of the system call filter: what is denied, and the numbers on each processor."""

from __future__ import annotations

NEWEST = 470
"""The newest number that this table's author has seen (Linux 6.18)."""

# fmt: off
_BY_PURPOSE: dict[str, dict[str, tuple[int | None, int | None]]] = {
    "other processes": {
        "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
        "process_madvise": (440, 440), "process_mrelease": (448, 448), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
        "pidfd_send_signal": (424, 424), "tkill": (200, 130),
    },
    "new processes, and leaving the process group that is frozen and killed": {
        "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281), "setsid": (112, 157),
        "setpgid": (109, 154),
    },
    "timers that run out while their process is frozen: they send any signal, or wake thousands of watchers in one interrupt": {
        "timer_create": (222, 107), "timerfd_create": (283, 85), "timerfd_settime": (286, 86),
    },
    "sockets": {
        "socket": (41, 198), "socketpair": (53, 199), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
        "accept4": (288, 242), "connect": (42, 203),
    },
    "namespaces and mounts": {
        "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
        "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
        "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442),
        "statmount": (457, 457), "listmount": (458, 458), "open_tree_attr": (467, 467),
    },
    "files around their paths; disks": {
        "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
        "quotactl": (179, 60), "quotactl_fd": (443, 443), "sync": (162, 81), "syncfs": (306, 267),
        "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    },
    "interfaces into the kernel that are rich in holes, and kernel keys": {
        "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "io_setup": (206, 0), "add_key": (248, 217),
        "request_key": (249, 218), "keyctl": (250, 219),
    },
    "rules in kernel memory that no limit counts: our own are made by then": {
        "landlock_create_ruleset": (444, 444), "landlock_add_rule": (445, 445), "landlock_restrict_self": (446, 446),
    },
    "words to other runners by way of files that both may read: locks and watches": {
        "inotify_init": (253, None), "inotify_init1": (294, 26), "inotify_add_watch": (254, 27),
    },
    "what counts for the whole machine, and so tells a program what another one does": {"sysinfo": (99, 179)},
    "the machine itself": {
        "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
        "kexec_file_load": (320, 294), "reboot": (169, 142), "syslog": (103, 116), "settimeofday": (164, 170),
        "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171), "sethostname": (170, 161),
        "setdomainname": (171, 162), "personality": (135, 92), "vhangup": (153, 58), "modify_ldt": (154, None),
        "iopl": (172, None), "ioperm": (173, None), "uselib": (134, None), "lsm_set_self_attr": (460, 460),
    },
    "identity, and limits": {
        "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143), "setresuid": (117, 147),
        "setresgid": (119, 149), "setfsuid": (122, 151), "setfsgid": (123, 152), "setgroups": (116, 159),
        "capset": (126, 91), "seccomp": (317, 277), "setrlimit": (160, 164),
    },
    "cores and priorities": {
        "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
        "sched_setattr": (314, 274), "setpriority": (141, 140), "ioprio_set": (251, 30), "migrate_pages": (256, 238),
        "move_pages": (279, 239),
    },
    "memory that no limit counts, and memory shared with others": {
        "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
        "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
        "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187), "mq_open": (240, 180),
        "mq_unlink": (241, 181),
    },
    "devices; owners and attributes, which Landlock leaves open": {
        "mknod": (133, None), "mknodat": (259, 33), "chown": (92, None), "lchown": (94, None), "fchown": (93, 55),
        "fchownat": (260, 54), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
        "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "removexattrat": (466, 466),
        "file_setattr": (469, 469),
    },
}
"""Denied whatever their arguments: name, and number on x86_64 and on aarch64 (None where there is no such call)."""
_PRETENDED: dict[str, tuple[int | None, int | None]] = {
    "flock": (73, 32), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
}
"""Answered as if they had been done, and not done: modes and times, which Landlock leaves open, and locks on files, for other
runners read the same ones. Who copies a file, or takes a lock in a directory of its own, goes on."""
_BY_ARGUMENT: dict[str, tuple[int | None, int | None]] = {
    "clone": (56, 220), "clone3": (435, 435), "mmap": (9, 222), "kill": (62, 129), "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240), "prctl": (157, 167), "prlimit64": (302, 261),
    "fcntl": (72, 25), "ioctl": (16, 29),
}
# fmt: on
_ALL = {**_BY_ARGUMENT, **_PRETENDED, **{name: numbers for calls in _BY_PURPOSE.values() for name, numbers in calls.items()}}

PRETENDED = tuple(_PRETENDED)
DENIED = tuple(name for calls in _BY_PURPOSE.values() for name in calls)
NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {name: x for name, (x, _) in _ALL.items() if x is not None},
    "aarch64": {name: a for name, (_, a) in _ALL.items() if a is not None},
}

"""The sandbox from inside: every property is one probe, loaded as a candidate by a real runner of a real zygote.

Each runs with all layers as root and as an ordinary user, and for both with namespaces forbidden (Landlock and the system call
filter alone). `pytest --sandbox-without LAYER` switches a layer off, to see which tests it carries.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kernel_env.sandbox import Layer
from tests.sandbox_box import PRELUDE, SPACES, Box, said

# ------------------------------------------------------------------ what stands


def test_every_layer_that_is_wanted_stands_on_this_machine(box: Box) -> None:
    """Where namespaces are forbidden root stays root: its directories could not be shown to anyone else. It says so."""
    missing = {name for name, why in box.facts["missing"].items() if why != "switched off"}
    allowed = {*SPACES, Layer.UNPRIVILEGED} if box.facts["forbidden"] else set()
    assert missing <= allowed, box.facts["missing"]


def test_the_runner_reports_its_layers_before_it_sees_code(box: Box) -> None:
    runner, answer = box.load("return 1")
    box.host.ask(op="close", id=runner)
    assert [x for x in Layer if x.value in answer["isolation"]] == [x for x in Layer if x not in box.facts["missing"]]


def test_a_reference_is_held_in_the_same_way(box: Box) -> None:
    assert box.outcome("return open(FACTS['secret']).read()", role="reference").keys() == {"denied"}


# ------------------------------------------------------------------ files


def test_a_secret_file_of_the_user_cannot_be_read(box: Box) -> None:
    assert box.denied("return open(FACTS['secret']).read()")


def test_the_users_home_cannot_be_listed(box: Box) -> None:
    outcome = box.outcome("return os.listdir(FACTS['home'])")
    on_the_way = {Path(box.facts[name]).relative_to(box.facts["home"]).parts[0] for name in ("scratch", "cache")}
    assert "denied" in outcome or (box.has(Layer.MOUNT) and set(outcome["value"]) <= on_the_way)


@pytest.mark.parametrize("path", ["/root", "/home", "/var", "/tmp"])
def test_directories_of_the_machine_cannot_be_listed(box: Box, path: str) -> None:
    outcome = box.outcome(f"return os.listdir({path!r})")
    on_the_way = {box.facts["home"].split("/")[2], *_named_on_the_way(path)}
    assert "denied" in outcome or (box.has(Layer.MOUNT) and set(outcome["value"]) <= on_the_way)


def _named_on_the_way(path: str) -> list[str]:
    """What must be there for the interpreter and this checkout to be reached."""
    ways = [Path(os.path.realpath(p)) for p in (sys.prefix, sys.base_prefix, Path(__file__).parents[1])]
    return [w.parts[len(Path(path).parts)] for w in ways if w.is_relative_to(path) and w != Path(path)]


def test_nothing_can_be_written_beside_scratch(box: Box) -> None:
    """Where the user's home lies below /tmp, what is written there is in the runner's own /tmp."""
    own = box.has(Layer.MOUNT) and box.facts["home"].startswith("/tmp/")
    assert own or box.denied("open(FACTS['home'] + '/new', 'w')")
    box.outcome("open(FACTS['home'] + '/new', 'w')")
    assert not Path(box.facts["home"], "new").exists()


def test_tmp_is_its_own_or_cannot_be_written(box: Box) -> None:
    """It is memory of the runner's own, which it shares with scratch."""
    written = box.outcome("open('/tmp/kernel-env-probe', 'w').write('x'); return os.listdir('/tmp')")
    assert ("value" in written) == box.has(Layer.MOUNT) and not Path("/tmp/kernel-env-probe").exists()
    assert box.denied("return open('/tmp/kernel-env-probe').read()"), "another runner's"


@pytest.mark.parametrize(
    "what", ["loadavg", "stat", "vmstat", "sys/fs/file-nr", "sys/fs/inode-nr", "locks", "schedstat", "zoneinfo"]
)
def test_what_counts_for_the_whole_machine_is_hidden(box: Box, what: str) -> None:
    """It would be a word from one candidate to the next."""
    outcome = box.outcome(f"""
    def read():
        with open('/proc/{what}') as file:
            return file.read()
    before = read()
    threads = [threading.Thread(target=time.sleep, args=(0.5,)) for _ in range(64)]
    for thread in threads:
        thread.start()
    sum(x * x for x in range(1 << 20))
    return before == read()
    """)
    assert "denied" in outcome or outcome == {"value": True}


def test_the_build_cache_can_be_read_but_not_written(box: Box) -> None:
    assert box.value("return len(os.listdir(FACTS['cache']))") == 1
    assert box.denied("open(FACTS['cache'] + '/poison.so', 'w')")
    assert box.denied("open(FACTS['extension'], 'r+b')")


def test_site_packages_cannot_be_written(box: Box) -> None:
    assert box.denied("open(os.path.dirname(torch.__file__) + '/poison.py', 'w')")


def test_the_projects_own_code_cannot_be_written(box: Box) -> None:
    assert box.denied("import kernel_env; open(kernel_env.__file__, 'a')")


def test_another_candidates_scratch_is_out_of_reach(box: Box, neighbour: dict[str, Any]) -> None:
    assert box.denied(f"return os.listdir({neighbour['scratch']!r})")
    assert box.denied(f"return open({neighbour['scratch'] + '/answer.txt'!r}).read()")


def test_other_scratch_directories_are_not_listed(box: Box, neighbour: dict[str, Any]) -> None:
    outcome = box.outcome("return [os.getcwd(), os.listdir(FACTS['scratch'])]")
    assert "denied" in outcome or outcome["value"][1] == [Path(outcome["value"][0]).name]


def test_a_symbolic_link_leads_nowhere(box: Box) -> None:
    assert box.denied("os.symlink(FACTS['secret'], 'link'); return open('link').read()")


def test_a_hard_link_to_an_outside_file_is_denied(box: Box) -> None:
    assert box.denied("os.link(FACTS['secret'], 'link'); return open('link').read()")


def test_the_root_link_in_proc_leads_nowhere(box: Box) -> None:
    assert box.denied("return open(f\"/proc/self/root{FACTS['secret']}\").read()")


@pytest.mark.parametrize("what", ["FACTS['extension']", "'own'"])
def test_no_files_mode_or_times_change_though_the_call_says_so(box: Box, what: str) -> None:
    """A file of one's own is made with a mode that harms nobody, and keeps it: no bits of another user, no closed directory."""
    body = f"open('own', 'w').close(); seen = lambda: (os.stat({what}).st_mode, os.stat({what}).st_mtime_ns); before = seen()"
    assert box.value(f"{body}; os.chmod({what}, 0o4777); os.utime({what}, (1, 1)); return seen() == before")


def test_a_lock_on_a_file_that_others_read_keeps_nobody_out(box: Box, extension: Path) -> None:
    runner, _ = box.load("import fcntl; global f; f = open(FACTS['extension']); fcntl.flock(f, fcntl.LOCK_EX); return 1")
    with open(extension) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    box.host.ask(op="close", id=runner)


def test_an_outside_files_owner_cannot_be_changed(box: Box) -> None:
    assert box.denied("os.chown(FACTS['secret'], os.getuid(), os.getgid())")


def test_an_outside_file_cannot_be_removed_or_renamed(box: Box) -> None:
    assert box.denied("os.unlink(FACTS['secret'] + '.not')", "EACCES", "EROFS", "ENOENT", "EPERM")
    assert box.denied("os.rename(FACTS['extension'], FACTS['cache'] + '/other')")
    assert box.denied("os.truncate(FACTS['extension'], 0)")


def test_no_device_but_the_harmless_ones_can_be_opened(box: Box) -> None:
    body = """
    found = []
    names = ["/dev/" + n for n in ("mem", "kmem", "kmsg", "vda", "sda", "nvme0n1", "fuse", "kvm", "zero", "ptmx", "loop-control")]
    for name in names:
        try:
            os.close(os.open(name, os.O_RDONLY))
            found.append(name)
        except OSError:
            pass
    return found
    """
    assert box.value(body) == []


def test_no_device_can_be_made(box: Box) -> None:
    assert box.denied("os.mknod('memory', 0o600 | 0o020000, os.makedev(1, 1))")


def test_switches_of_the_kernel_cannot_be_written(box: Box) -> None:
    assert box.denied("open('/proc/sys/kernel/core_pattern', 'r+').close()")
    assert box.denied("open('/proc/sysrq-trigger', 'w').close()")


def test_files_cannot_be_opened_by_handle(box: Box) -> None:
    assert box.denied("syscall(304, 265, -100, ctypes.create_string_buffer(64), 0)", "EPERM")


def test_the_disk_cannot_be_filled(box: Box) -> None:
    """By one file: a file system of its own, or the limit on a file's size."""
    body = """
    block = bytes(1 << 24)
    with open("big", "wb") as file:
        for _ in range(200):
            file.write(block)
    return "filled"
    """
    assert box.denied(body, "ENOSPC", "EFBIG")


def test_tmp_has_no_room_beside_that_of_scratch(box: Box) -> None:
    if not box.has(Layer.MOUNT):
        pytest.skip("there it cannot be written")
    body = """
    for path in ('fill', '/tmp/fill'):
        try:
            with open(path, 'wb', buffering=0) as file:
                while True:
                    file.write(bytes(1 << 20))
        except OSError:
            pass
    return sum(os.path.getsize(path) for path in ('fill', '/tmp/fill'))
    """
    assert box.value(body) <= 256 << 20


def test_the_disk_cannot_be_filled_by_many_files(box: Box) -> None:
    if not box.has(Layer.MOUNT):
        pytest.skip("without a mount namespace only the size of each file is limited (docs/trust.md)")
    body = """
    for i in range(100):
        with open(f"f{i}", "wb") as file:
            file.write(bytes(1 << 23))
    return "filled"
    """
    assert box.denied(body, "ENOSPC")


# ------------------------------------------------------------------ other processes


@pytest.mark.parametrize("whose", ["pid", "zygote"])
@pytest.mark.parametrize("what", ["mem", "environ", "cmdline", "maps", "fd"])
def test_nothing_of_trusted_processes_is_read_in_proc(box: Box, whose: str, what: str) -> None:
    read = "os.listdir(path)" if what == "fd" else "open(path, 'rb').read(1)"
    assert box.denied(f"path = f\"/proc/{{FACTS['{whose}']}}/{what}\"; return len({read})")


def test_trusted_processes_are_unreadable_even_without_a_sandbox(box: Box) -> None:
    """For their own user: only root, with CAP_SYS_PTRACE, still can."""
    for whose in ("pid", "zygote"):
        assert os.stat(f"/proc/{box.facts[whose]}/environ").st_uid == 0
        assert box.facts["user"] == 0 or os.stat(f"/proc/{box.facts[whose]}/mem").st_uid != box.facts["user"]


def test_other_processes_are_not_listed(box: Box, neighbour: dict[str, Any]) -> None:
    outcome = box.outcome("return [os.getpid(), [n for n in os.listdir('/proc') if n.isdigit()]]")
    assert "denied" in outcome or outcome["value"][1] == [str(outcome["value"][0])]


def test_another_candidates_process_is_not_seen(box: Box, neighbour: dict[str, Any]) -> None:
    assert box.denied(f"return open('/proc/{neighbour['pid']}/cmdline').read()")


@pytest.mark.parametrize("whose", ["pid", "zygote"])
def test_trusted_processes_get_no_signal(box: Box, whose: str) -> None:
    assert box.denied(f"os.kill(FACTS['{whose}'], 0)")


def test_another_candidate_gets_no_signal(box: Box, neighbour: dict[str, Any]) -> None:
    assert box.denied(f"os.kill({neighbour['pid']}, 0)")


def test_a_signal_to_everyone_is_denied(box: Box) -> None:
    assert box.denied("os.kill(-1, 0)", "EPERM")


def test_a_signal_to_a_thread_of_another_is_denied(box: Box) -> None:
    assert box.denied("pid = FACTS['pid']; syscall(234, 131, pid, pid, 0)", "EPERM")
    assert box.denied("syscall(200, 130, FACTS['pid'], 0)", "EPERM")


def test_a_queued_signal_to_another_is_denied(box: Box) -> None:
    assert box.denied("syscall(129, 138, FACTS['pid'], 0, ctypes.create_string_buffer(128))", "EPERM")


def test_a_descriptors_signals_cannot_be_sent_to_another(box: Box) -> None:
    body = "import fcntl; fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, FACTS['pid'])"
    assert box.denied(body, "EPERM")


def test_no_handle_to_a_process_can_be_had(box: Box) -> None:
    assert box.denied("os.pidfd_open(os.getpid())", "EPERM")
    assert box.denied("syscall(438, 438, 3, 0, 0)", "EPERM")


def test_tracing_is_denied(box: Box) -> None:
    assert box.denied("syscall(101, 117, 16, FACTS['pid'], 0, 0)", "EPERM")
    assert box.denied("syscall(101, 117, 0, 0, 0, 0)", "EPERM")


@pytest.mark.parametrize("number", ["310, 270", "311, 271"])
def test_memory_of_others_is_neither_read_nor_written(box: Box, number: str) -> None:
    assert box.denied(f"syscall({number}, FACTS['pid'], None, 0, None, 0, 0)", "EPERM")


def test_processes_cannot_be_compared(box: Box) -> None:
    assert box.denied("syscall(312, 272, os.getpid(), FACTS['pid'], 0, 0, 0)", "EPERM")


# ------------------------------------------------------------------ new processes


def test_fork_is_denied(box: Box) -> None:
    assert box.denied("pid = os.fork()\nif pid == 0: os._exit(0)\nreturn pid", "EPERM")


def test_vfork_is_denied(box: Box) -> None:
    body = "return syscall(58, 220, 0) if X86 else syscall(58, 220, 0x4111, 0, 0, 0, 0)"
    assert box.denied(body, "EPERM")


def test_clone_makes_threads_only(box: Box) -> None:
    body = "pid = syscall(56, 220, 17, 0, 0, 0, 0)\nif pid == 0: os._exit(0)\nreturn pid"
    assert box.denied(body, "EPERM")


def test_clone3_is_unknown(box: Box) -> None:
    assert box.denied("syscall(435, 435, None, 0)", "ENOSYS")


def test_exec_is_denied(box: Box) -> None:
    assert box.denied("os.execv('/bin/true', ['true'])", "EPERM", "EACCES")


def test_subprocess_is_denied(box: Box) -> None:
    assert box.denied("import subprocess; return subprocess.run(['/bin/true']).returncode")


def test_a_shell_is_denied(box: Box) -> None:
    assert box.value("return os.system('true')") != 0


def test_the_process_group_cannot_be_left(box: Box) -> None:
    assert box.denied("os.setsid()", "EPERM")
    assert box.denied("os.setpgid(0, 0)", "EPERM")


# ------------------------------------------------------------------ network


def test_no_tcp_connection(box: Box) -> None:
    assert box.denied("socket.create_connection(('127.0.0.1', FACTS['port']), 2)")


def test_no_udp_packet(box: Box) -> None:
    assert box.denied("socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', FACTS['port']))")


def test_no_unix_socket(box: Box) -> None:
    assert box.denied("socket.socket(socket.AF_UNIX).connect(FACTS['listener'])")


def test_no_abstract_unix_socket(box: Box) -> None:
    assert box.denied("socket.socket(socket.AF_UNIX).connect(FACTS['abstract'])")


def test_no_name_is_resolved(box: Box) -> None:
    assert box.denied(
        "return socket.getaddrinfo('localhost', 80, flags=0) and socket.create_connection(('localhost', FACTS['port']), 2)"
    )


def test_no_port_is_bound(box: Box) -> None:
    assert box.denied("return socket.create_server(('127.0.0.1', 0)).getsockname()")


def test_no_kernel_socket(box: Box) -> None:
    assert box.denied("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)")


def test_no_interface_is_up(box: Box) -> None:
    body = "return [name for name in os.listdir('/sys/class/net')]"
    assert box.denied(body) or box.outcome(body)["value"] == []


# ------------------------------------------------------------------ rights, cores, memory


def test_the_runner_is_not_root_and_has_no_capability(box: Box) -> None:
    body = """
    rows = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return [os.getuid(), rows["CapEff"].strip(), rows["CapPrm"].strip(), rows["NoNewPrivs"].strip(), rows["Seccomp"].strip()]
    """
    uid, effective, permitted, no_new, filtered = box.value(body)
    assert (int(effective, 16), int(permitted, 16), no_new, filtered) == (0, 0, "1", "2")
    assert uid != 0 or "unprivileged" in box.facts["missing"]


def test_affinity_cannot_be_changed(box: Box) -> None:
    assert box.denied("os.sched_setaffinity(0, os.sched_getaffinity(0))", "EPERM")


def test_niceness_cannot_be_changed(box: Box) -> None:
    assert box.denied("os.nice(1)", "EPERM")


def test_limits_can_be_read_but_not_changed(box: Box) -> None:
    body = """
    import resource
    now = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, now)
    """
    assert box.value("import resource; return resource.getrlimit(resource.RLIMIT_NOFILE)[0]") == 256
    assert box.denied(body, "EPERM") or "ValueError" in str(box.outcome(body))


def test_no_core_is_dumped(box: Box) -> None:
    assert box.value("import resource; return resource.getrlimit(resource.RLIMIT_CORE)[0]") <= 1


def test_a_memory_bomb_ends_only_the_candidate(box: Box) -> None:
    body = "hoard = []\nwhile True: hoard.append(bytearray(1 << 26))"
    runner, answer = box.load(body, memory_mb=1024)
    box.host.ask(op="close", id=runner)
    assert answer.get("error", {}).get("kind") == "memory" or "died" in answer
    assert box.value("return 1") == 1


def test_shared_memory_that_no_limit_counts_is_denied(box: Box) -> None:
    assert box.denied("import mmap; mmap.mmap(-1, 1 << 20)", "EPERM")
    assert box.denied("import mmap; mmap.mmap(-1, 1 << 20, flags=0x122)", "EPERM")


def test_a_thread_bomb_is_bounded(box: Box) -> None:
    if not box.has(Layer.USER):
        pytest.skip("without a user namespace of its own threads are bounded by memory only (docs/trust.md)")
    body = """
    threading.stack_size(1 << 16)
    end, started = threading.Event(), 0
    try:
        for _ in range(2000):
            threading.Thread(target=end.wait, daemon=True).start()
            started += 1
    except RuntimeError:
        pass
    end.set()
    return started
    """
    assert 64 < box.value(body) < 600


# ------------------------------------------------------------------ what is shared, and what is inherited


def test_system_v_shared_memory_is_not_shared(box: Box, neighbour: dict[str, Any]) -> None:
    assert box.denied("return syscall(29, 194, 0x6B65, 4096, 0)")


def test_message_queues_are_not_shared(box: Box, neighbour: dict[str, Any]) -> None:
    assert box.denied('return syscall(240, 180, b"kernel-env-neighbour", 0, 0, None)')


def test_files_in_shared_memory_are_not_shared(box: Box, neighbour: dict[str, Any]) -> None:
    assert box.denied("return open('/dev/shm/kernel-env-neighbour').read()")


def test_no_descriptor_is_inherited_but_the_channel_and_the_log(box: Box) -> None:
    body = """
    kinds = {}
    for fd in range(300):
        try:
            kinds[fd] = os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
        except OSError:
            pass
    return kinds
    """
    kinds = box.value(body)
    assert kinds.pop("0").endswith("/null")  # seen from the runner's own file system its directory is gone
    assert kinds == {"1": "pipe", "2": "pipe", "3": "socket"}


def test_the_environment_holds_no_secret(box: Box) -> None:
    assert "xyzzy" not in str(box.value("return [dict(os.environ), open('/proc/self/environ').read()]"))


# ------------------------------------------------------------------ ends, and the referee's own rights


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_nothing_outlives_the_verdict(box: Box) -> None:
    body = """
    import signal
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=lambda: [time.sleep(0.01) for _ in iter(int, 1)]).start()
    return os.getcwd()
    """
    runner, answer = box.load(body)
    assert _alive(runner)
    box.host.ask(op="close", id=runner)
    assert not _alive(runner)
    assert not Path(said(answer)["value"]).exists()


def test_a_frozen_runner_stands_still(box: Box) -> None:
    body = """
    threading.Thread(target=lambda: [sum(range(1000)) for _ in iter(int, 1)], daemon=True).start()
    return 1
    """
    runner, _ = box.load(body)

    def cpu() -> list[str]:
        return Path(f"/proc/{runner}/stat").read_text().rpartition(")")[2].split()[11:13]

    box.host.ask(op="freeze", id=runner)
    time.sleep(0.1)
    before = cpu()
    time.sleep(0.3)
    assert cpu() == before
    box.host.ask(op="thaw", id=runner)
    time.sleep(0.3)
    assert cpu() != before
    box.host.ask(op="close", id=runner)


HELD = "global held; held = ctypes.create_string_buffer(b'plugh'); "


@pytest.mark.parametrize("trick", ["", "libc.prctl(4, 0, 0, 0, 0)", "libc.prctl(0x59616D61, 0, 0, 0, 0)"])
def test_the_referee_reads_a_frozen_runners_memory(box: Box, trick: str) -> None:
    """And the runner can do nothing about it."""
    runner, answer = box.load(f"{HELD}{trick}\nreturn ctypes.addressof(held)")
    box.host.ask(op="freeze", id=runner)
    seen = box.host.ask(op="peek", id=runner, address=said(answer)["value"], size=5)
    box.host.ask(op="close", id=runner)
    assert seen == {"text": "plugh", "errno": 0}


def test_the_referee_moves_a_frozen_runner_to_a_core(box: Box) -> None:
    runner, _ = box.load("return 1")
    box.host.ask(op="freeze", id=runner)
    core = max(os.sched_getaffinity(0))
    while (seen := box.host.ask(op="place", id=runner, core=core))["stands"] == "running":
        time.sleep(0.001)  # it has not stopped yet
    box.host.ask(op="close", id=runner)
    assert seen["cores"] == [core] and seen["stands"].startswith("0x")


def test_python_counts_the_slots_cores_wherever_it_is_bound(box: Box) -> None:
    """As it is in timed calls, and not in trials."""
    runner, _ = box.load("return 1")
    box.host.ask(op="place", id=runner, core=max(os.sched_getaffinity(0)))
    body = "print('PROBE', json.dumps({'cores': sorted(os.sched_getaffinity(0)), 'count': os.cpu_count()}))"
    answer = box.host.ask(op="load", id=runner, code=f"{PRELUDE}\n{body}")
    box.host.ask(op="close", id=runner)
    cores = sorted(os.sched_getaffinity(0))
    assert said(answer) == {"cores": cores, "count": len(cores)}


@pytest.mark.parametrize("option", ["1, 0", "4, 0", "22, 2", "35, 0", "62, 1"])
def test_a_runner_cannot_make_itself_unreadable_or_unkillable(box: Box, option: str) -> None:
    assert box.denied(f"check(libc.prctl({option}, 0, 0, 0))", "EPERM")


def test_abort_is_told_as_abort(box: Box) -> None:
    runner, answer = box.load("libc.abort()")
    box.host.ask(op="close", id=runner)
    assert answer["died"] == "SIGABRT"


def test_a_segmentation_fault_is_told_as_such(box: Box) -> None:
    runner, answer = box.load("ctypes.string_at(0)")
    box.host.ask(op="close", id=runner)
    assert answer["died"] == signal.SIGSEGV.name

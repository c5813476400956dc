"""Hostile candidates, by kind: what each does, where, and how its verdict may read.

All load one and the same extension, so that only the first of them waits for a compiler. `N`, the candidate's number, varies what
they do: no two are equal byte for byte.
"""

from __future__ import annotations

import random
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from kernel_env.referee.config import VerifyConfig
from kernel_env.sandbox import Layer
from kernel_env.schema import Candidate, Problem, Verdict
from tests.conftest import REFERENCE, SCALED_RELU

LIMIT_S = 1.0
MEMORY_MB = 1024
PROBLEM = Problem(1, 1, "ScaledRelu", REFERENCE, origin="hostile")
ALONE = (
    *(layer.value for layer in (Layer.USER, Layer.PID, Layer.MOUNT, Layer.NET, Layer.IPC, Layer.UTS)),
    Layer.UNPRIVILEGED.value,
)
"""Layers that are missing where namespaces are forbidden, as in most containers."""
Place = Literal["import", "init", "forward", "timed"]

TEMPLATE = '''
import ctypes, fcntl, json, mmap, os, signal, socket, struct, sys, threading, time
import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

N = {number}
SOURCE = """
#include <torch/extension.h>
#include <csignal>
#include <cstdlib>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
{scaled_relu}int64_t spin(bool deaf) {{
  if (deaf) {{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    for (int s = 1; s < 65; ++s) signal(s, SIG_IGN);
  }}
  for (volatile int64_t i = 0;; i = i + 1) {{}}
}}
static int64_t deeper(int64_t n) {{
  volatile char frame[4096];
  frame[n % 4096] = (char)n;
  return deeper(n + 1) + frame[0];
}}
int64_t overflow(int64_t n) {{ return deeper(n); }}
int64_t poke(int64_t address) {{ *(volatile char*)address = 1; return 0; }}
int64_t abort_now(int64_t n) {{ std::abort(); return n; }}
int64_t exit_now(int64_t n) {{ std::exit((int)n); return n; }}
int64_t end_thread(int64_t n) {{ return syscall(SYS_exit, n); }}
int64_t trap(int64_t n) {{ __builtin_trap(); return n; }}
static void* spinning(void*) {{ for (volatile int64_t i = 0;; i = i + 1) {{}} }}
static void* sleeping(void*) {{ for (;;) sleep(1000); }}
int64_t start_threads(int64_t most, int64_t stack_kb, bool busy) {{
  pthread_attr_t how;
  pthread_attr_init(&how);
  pthread_attr_setstacksize(&how, stack_kb << 10);
  int64_t started = 0;
  pthread_t id;
  while (started < most && pthread_create(&id, &how, busy ? spinning : sleeping, nullptr) == 0) ++started;
  return started;
}}
static float* target;
static int64_t target_size;
static void* scribbling(void*) {{
  for (;;) for (int64_t i = 0; i < target_size; ++i) ((volatile float*)target)[i] = target[i] + 1;
}}
int64_t scribble(torch::Tensor y) {{
  target = y.data_ptr<float>();
  target_size = y.numel();
  pthread_t id;
  return pthread_create(&id, nullptr, scribbling, nullptr);
}}
int64_t look(int64_t size, int64_t step) {{
  auto* p = (volatile char*)mmap(nullptr, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return 0;
  madvise((void*)p, size, MADV_NOHUGEPAGE);
  int64_t seen = 0;
  for (int64_t i = 0; i < size; i += step) seen += 1 + p[i];
  return seen;
}}
int64_t bomb(int64_t first) {{
  int64_t made = 0;
  for (int64_t how = 0;; ++how) {{
    long got = first ? syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) : fork();
    if (got >= 0) ++made;
    else if (how > 100000) return made;
  }}
}}
int64_t dig(int64_t levels) {{
  int64_t made = 0;
  while (made < levels && mkdirat(-100, "d", 0700) == 0 && chdir("d") == 0) ++made;
  return made;
}}
"""
FUNCTIONS = ["scaled_relu", "spin", "overflow", "poke", "abort_now", "exit_now", "end_thread", "trap", "start_threads", "scribble",
             "look", "bomb", "dig"]
native = load_inline(name="hostile", cpp_sources=SOURCE, functions=FUNCTIONS)
libc = ctypes.CDLL(None, use_errno=True)
syscall = libc.syscall
CHANNEL = 3
CALLS = 0


def frame(body):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return struct.pack("!II", len(text), 0) + text


def say(data):
    while data:
        data = data[os.write(CHANNEL, data):]


def attempt(what, *arguments):
    try:
        return what(*arguments)
    except (OSError, MemoryError):
        return None


{top}


class ModelNew(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale
{init}

    def forward(self, x):
        global CALLS
        CALLS += 1
{forward}
        return native.scaled_relu(x, self.scale)
'''


@dataclass(frozen=True)
class Kind:
    """One way to be hostile. `ends` are the statuses that its verdict may have."""

    name: str
    place: Place
    code: str
    ends: frozenset[str]
    alone: frozenset[str]
    """The same where namespaces are forbidden: there a runner can stop and kill itself, and scratch is a directory on disk."""
    whole_limit: bool
    """Whether it takes all of its time limit."""

    def candidate(self, number: int) -> Candidate:
        code = {"import": "", "init": "pass", "forward": ""} | {
            "forward" if self.place == "timed" else self.place: textwrap.dedent(self.code).strip()
        }
        if self.place == "timed":  # trials are 2 calls
            code["forward"] = f"if CALLS > 2:\n{textwrap.indent(code['forward'], '    ')}"
        indented = {name: textwrap.indent(text, " " * 8) for name, text in code.items()}
        source = TEMPLATE.format(
            number=number, scaled_relu=SCALED_RELU, top=code["import"], init=indented["init"], forward=indented["forward"]
        )
        return Candidate(source, "cpp")

    @property
    def config(self) -> VerifyConfig:
        return VerifyConfig(
            num_correct_trials=2, num_perf_trials=5, timing_budget_s=0.02, timeout_s=LIMIT_S, noise_limit=1e9, timing_precision=1e9,
            measure_performance=self.place == "timed", memory_limit_mb=MEMORY_MB,
        )  # fmt: skip


def _kind(name: str, place: Place, ends: str, code: str, alone: str = "") -> Kind:
    return Kind(name, place, code, frozenset(ends.split()), frozenset((alone or ends).split()), "timeout" in ends.split())


KINDS = (
    # ------------------------------------------------------------ hangs
    _kind("hangs when it is imported", "import", "timeout", "while True: pass"),
    _kind("sleeps when it is constructed", "init", "timeout", "time.sleep(1000 + N)"),
    _kind("hangs in forward", "forward", "timeout", "while N or not N: pass"),
    _kind("hangs in C, deaf to every signal", "forward", "timeout", "native.spin(True)"),
    _kind("hangs in a timed call", "timed", "timeout", "time.sleep(1000 + N)"),
    _kind("waits for a lock of its own", "forward", "timeout",
          "lock = threading.Lock(); lock.acquire(); lock.acquire()"),
    _kind("ends its main thread, and another goes on", "forward", "timeout",
          "native.start_threads(1, 64, True); native.end_thread(0)"),
    _kind("stops itself", "forward", "correct", "os.kill(os.getpid(), signal.SIGSTOP)", alone="timeout"),
    _kind("hangs in its state_dict", "init", "timeout", "self.state_dict = lambda *a, **k: native.spin(False)"),
    # ------------------------------------------------------------ bombs
    _kind("forks in C until it is killed", "import", "timeout crashed load_error", "native.bomb(N % 2); os.fork()"),
    _kind("forks in Python for ever", "forward", "timeout", "while True: attempt(os.fork)"),
    _kind("starts programs", "forward", "runtime_error", "import subprocess; subprocess.run(['sleep', str(1000 + N)])"),
    _kind(
        "starts threads until there is no more, and goes on",
        "forward", "timeout", "started = native.start_threads(600, 64, False); time.sleep(1000)",
    ),
    _kind("keeps every core busy", "forward", "correct timeout", "native.start_threads(8 + N % 8, 64, True)"),
    _kind("starts Python threads until one fails", "import", "load_error timeout", """
        for i in range(10_000 + N):
            threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    """),
    _kind("takes memory and touches it", "forward", "out_of_memory timeout", """
        kept = []
        while True: kept.append(bytearray((16 + N % 48) << 20))
    """),
    _kind("takes tensors and touches them", "init", "out_of_memory timeout", """
        self.kept = []
        while True: self.kept.append(torch.ones((4 + N % 12) << 20))
    """),
    _kind("asks for all virtual memory", "forward", "out_of_memory correct",
          "kept = [attempt(mmap.mmap, -1, (1 + N) << 40, 2, 1)]"),
    _kind("makes page tables of nothing", "forward", "correct", "native.look(1 << 45, 1 << 21)"),
    _kind("locks memory", "forward", "correct", "libc.mlockall(3)"),
    # ------------------------------------------------------------ scratch
    _kind("fills the disk with a file", "forward", "runtime_error", """
        with open("large", "wb") as file:
            while True: file.write(bytes((4 + N % 4) << 20))
    """, alone="runtime_error timeout"),
    _kind("fills the disk with small files", "import", "load_error timeout", """
        i = N
        while True:
            open(f"small-{i}", "w").close()
            i += 1
    """),
    _kind("digs directories without end", "forward", "correct timeout", "native.dig(20_000 + N)"),
    _kind("makes directories that nobody can enter", "forward", "correct timeout", """
        for i in range(50 + N % 50):
            os.makedirs(f"a-{CALLS}/b-{i}/c")
            os.mkdir(f"shut-{CALLS}-{i}", 0o000)
            os.symlink("/", f"link-{CALLS}-{i}")
    """),
    _kind("makes names that are no text", "import", "correct", """
        for i in range(100):
            os.mkdir(bytes([255 - i]) * 200)
    """),
    # ------------------------------------------------------------ output
    _kind("prints without end", "import", "timeout", "while True: os.write(1, b'x' * (1 << 16))"),
    _kind("prints errors from a thread without end", "forward", "correct timeout", """
        def flood():
            while True: os.write(2, b'e' * (1 << 16))
        if CALLS == 1: threading.Thread(target=flood, daemon=True).start()
    """),
    _kind("prints 100 MB and goes on", "import", "correct timeout", "for _ in range(1600): os.write(1, b'x' * (1 << 16))"),
    # ------------------------------------------------------------ ends
    _kind("writes to nowhere", "forward", "crashed", "native.poke(N)"),
    _kind("calls abort", "init", "crashed", "native.abort_now(N)"),
    _kind("runs into a trap", "forward", "crashed", "native.trap(N)"),
    _kind("overflows its stack in C", "forward", "crashed", "native.overflow(N)"),
    _kind("overflows its stack in Python", "init", "runtime_error", "def down(n): return down(n + 1) + 1\ndown(N)"),
    _kind("leaves by os._exit(0)", "import", "crashed", "os._exit(0)"),
    _kind("leaves by exit in C", "forward", "crashed", "native.exit_now(N % 3)"),
    _kind("leaves by sys.exit", "import", "load_error", "sys.exit(N)"),
    _kind("leaves in a timed call", "timed", "crashed", "os._exit(0)"),
    _kind("kills itself", "forward", "correct", "os.kill(os.getpid(), signal.SIGKILL)", alone="crashed"),
    _kind("has set an alarm", "import", "correct timeout", """
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        time.sleep(0.1)
    """, alone="crashed"),
    # ------------------------------------------------------------ descriptors, and the channel
    _kind("closes every descriptor", "forward", "crashed", "os.closerange(0, 256)"),
    _kind("closes its channel and hangs", "import", "crashed", "os.close(CHANNEL); time.sleep(1000)"),
    _kind("opens descriptors until there is no more", "init", "runtime_error", """
        self.kept = []
        while True: self.kept.append(os.open("/dev/null", os.O_RDONLY))
    """),
    _kind("opens descriptors until there is no more, and goes on", "forward", "correct runtime_error crashed", """
        while True:
            made = attempt(os.pipe)
            if made is None: break
    """),
    _kind("says what is no frame", "forward", "crashed", "say(b'garbage %d' % N * 100); time.sleep(1000)"),
    _kind("says what is no JSON", "forward", "crashed", "say(frame(b'{' * 1000)); time.sleep(1000)"),
    _kind("says a frame too large", "forward", "crashed", "say(struct.pack('!II', 1 << 31, 0)); time.sleep(1000)"),
    _kind("says half a frame", "forward", "timeout", "say(frame({'error': {'text': 'x' * (1000 + N)}})[:-1]); time.sleep(1000)"),
    _kind("says 60 MB of empty lists", "forward", "crashed", """
        say(frame(b'{"outputs": [' + b'[],' * 20_000_000 + b'[]]}'))
        time.sleep(1000)
    """),
    _kind("says as many empty lists as a frame may hold", "forward", "runtime_error timeout", """
        say(frame(b'{"outputs": [' + b'[],' * 1_390_000 + b'[]]}'))
        time.sleep(1000)
    """),
    _kind("says a text of 60 MB", "forward", "crashed", """
        say(frame({"error": {"text": "x" * (60 << 20)}}))
        time.sleep(1000)
    """),
    _kind("answers for ever before it is asked", "import", "runtime_error wrong_output timeout crashed", """
        def flood():
            while True: say(frame({"outputs": [], "weights": "own", "number": N}))
        threading.Thread(target=flood, daemon=True).start()
        time.sleep(0.1)
    """),
    _kind("asks for builds and reads no answer", "import", "timeout", """
        while True: say(frame({"build": {"sources": N}}))
    """),
    _kind("asks for the same build for ever", "import", "timeout", """
        while True: load_inline(name="hostile", cpp_sources=SOURCE, functions=FUNCTIONS)
    """),
    _kind("is handed descriptors that it never closes", "init", "correct", "os.dup(CHANNEL)"),
    # ------------------------------------------------------------ what could stay
    _kind("makes shared memory and queues", "forward", "correct", """
        for number in (29, 319, 240):
            syscall(number, 0x6B65 + N, 4096, 0o1666, None)
        attempt(open, f"/dev/shm/kernel-env-{N}", "w")
        attempt(socket.socket)
        attempt(mmap.mmap, -1, 1 << 24)
    """),
    _kind("asks for a lock on its extension", "forward", "correct", """
        if CALLS == 1: fcntl.flock(os.open(native.__file__, os.O_RDONLY), fcntl.LOCK_EX)
    """),
    _kind("goes on after its reply", "timed", "correct timeout", "if CALLS == 3: native.start_threads(1, 64, True)"),
    _kind("scribbles on its output after the reply", "forward", "wrong_output tampered", """
        y = native.scaled_relu(x, self.scale)
        native.scribble(y)
        time.sleep(0.01)
        return y
    """),
    # ------------------------------------------------------------ answers
    _kind("raises what cannot be shown", "forward", "runtime_error crashed", """
        class Hostile(BaseException):
            def __str__(self): raise SystemExit(N)
            __repr__ = __str__
        raise Hostile()
    """),
    _kind("raises what is shown for ever", "forward", "timeout", """
        class Hostile(Exception):
            def __str__(self): native.spin(False)
        raise Hostile()
    """),
    _kind("raises a text of surrogates and zeros", "import", "load_error",
          "raise ValueError(chr(0xD800 + N % 100) * 10**6 + chr(0))"),
    _kind("returns a million lists", "forward", "wrong_output crashed timeout runtime_error", "return [[]] * (1_000_000 + N)"),
    _kind("returns a list of itself", "forward", "runtime_error crashed", "y = []; y.append(y); return y"),
)  # fmt: skip


HONEST = Kind("is honest", "forward", "", frozenset({"correct"}), frozenset({"correct"}), whole_limit=False)


def sequence(count: int, seed: int = 0) -> Iterator[tuple[int, Kind]]:
    """So many numbered kinds: each once, in random order, and then again."""
    rng, waiting = random.Random(seed), list[Kind]()
    for number in range(count):
        waiting = waiting or rng.sample(KINDS, len(KINDS))
        yield number, waiting.pop()


def wrong(kind: Kind, verdict: Verdict) -> str:
    """How the verdict is not what the kind allows; empty if it is."""
    if verdict.status.value in (kind.ends if Layer.PID in verdict.isolation else kind.alone):
        return ""
    return f"a candidate that {kind.name}: {verdict.status.value} at {verdict.stage.value}: {verdict.message[:200]!r}"

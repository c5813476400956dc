"""What honest kernels need goes on working inside the sandbox."""

# ruff: noqa: E501 - a table with one need a line

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.sandbox_box import Box

NEEDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "torch operations on every core": ("x = torch.randn(256, 256); return bool(torch.allclose(x @ x, (x.double() @ x.double()).float(), atol=1e-2))", bool),
    "convolutions and bfloat16": ("return list(torch.nn.Conv2d(3, 4, 3).bfloat16()(torch.randn(1, 3, 64, 64).bfloat16()).shape)", [1, 4, 62, 62].__eq__),
    "linear algebra": ("return list(torch.linalg.svd(torch.randn(64, 64)).S.shape)", [64].__eq__),
    "backward": ("torch.set_grad_enabled(True); x = torch.randn(8, requires_grad=True); (x * x).sum().backward(); return x.grad is not None", bool),
    "numpy": ("import numpy; return float(numpy.linalg.norm(numpy.ones(100)))", (10.0).__eq__),
    "threads": ("seen = []; ts = [threading.Thread(target=seen.append, args=(i,)) for i in range(32)]; [t.start() for t in ts]; [t.join() for t in ts]; return len(seen)", (32).__eq__),
    "a thread pool": ("from concurrent.futures import ThreadPoolExecutor as P\nwith P(8) as p: return sum(p.map(abs, range(10)))", (45).__eq__),
    "temporary files": ("import tempfile\nwith tempfile.NamedTemporaryFile('w+') as f: f.write('x'); f.seek(0); return f.read()", "x".__eq__),
    "temporary directories": ("import tempfile\nwith tempfile.TemporaryDirectory() as d: open(d + '/x', 'w').close(); return os.listdir(d)", ["x"].__eq__),
    "files in scratch": ("os.makedirs('a/b'); open('a/b/c', 'w').write('x'); os.rename('a/b/c', 'd'); os.truncate('d', 0); return os.path.getsize('d')", (0).__eq__),
    "links in scratch": ("open('x', 'w').close(); os.symlink('x', 'y'); os.link('x', 'z'); return {'x', 'y', 'z'} <= set(os.listdir('.'))", bool),
    "saving and loading tensors": ("torch.save(torch.ones(3), 'x.pt'); return torch.load('x.pt').tolist()", [1, 1, 1].__eq__),
    "the number of cores": ("import multiprocessing; return multiprocessing.cpu_count()", lambda n: n >= 1),
    "its own cores": ("return len(os.sched_getaffinity(0))", lambda n: n >= 1),
    "time": ("t = time.perf_counter(); time.sleep(0.01); return time.perf_counter() - t", lambda t: t >= 0.01),
    "local time": ("return len(time.localtime())", (9).__eq__),
    "print": ("print('hello'); print('hello', file=sys.stderr); return 1", (1).__eq__),
    "its own source": ("import inspect; return 'class ModelNew' in inspect.getsource(ModelNew)", bool),
    "late imports": ("import sqlite3, decimal, xml.dom.minidom, sympy; return int(sympy.Integer(3))", (3).__eq__),
    "late imports of torch": ("import torch.fft, torch.nn.utils.prune, torch.distributions as d; return list(d.Normal(0, 1).sample((3,)).shape)", [3].__eq__),
    "/proc/self": ("return len(open('/proc/self/maps').read()) > 0 and 'Threads' in open('/proc/self/status').read()", bool),
    "threads in /proc": ("return len(os.listdir('/proc/self/task')) >= 1", bool),
    "facts about the machine": ("return all(open('/proc/' + n).read() for n in ('cpuinfo', 'meminfo'))", bool),
    "caches and cores in /sys": ("return len(os.listdir('/sys/devices/system/cpu'))", bool),
    "/dev/null": ("return open('/dev/null', 'w').write('x')", (1).__eq__),
    "/dev/urandom": ("return len(open('/dev/urandom', 'rb').read(8) + os.urandom(8))", (16).__eq__),
    "callbacks from C": ("f = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x + 1); return f(1)", (2).__eq__),
    "private mappings": ("import mmap; m = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS); m[0] = 1; return m[0]", (1).__eq__),
    "code that it made itself, and its own moving of it": ("import mmap; from kernel_env.referee import code_pages; m = mmap.mmap(-1, 8192, flags=0x22, prot=7); m[0] = 7; return code_pages.move(3) >= 8192 and m[0] == 7", bool),
    "mappings of own files": ("import mmap; open('x', 'wb').write(bytes(4096)); m = mmap.mmap(os.open('x', os.O_RDWR), 4096); m[0] = 7; m.flush(); return open('x', 'rb').read(1)[0]", (7).__eq__),
    "huge pages": ("import mmap; m = mmap.mmap(-1, 1 << 22, flags=0x22); m.madvise(mmap.MADV_HUGEPAGE); return 1", (1).__eq__),
    "signals to itself": ("import signal; seen = []; signal.signal(signal.SIGUSR1, lambda *a: seen.append(1)); os.kill(os.getpid(), signal.SIGUSR1); signal.raise_signal(signal.SIGUSR1); time.sleep(0.01); return len(seen)", (2).__eq__),
    "names of threads": ("libc.prctl(15, b'worker', 0, 0, 0); return open('/proc/self/comm').read().strip()", "worker".__eq__),
    "copies of files": ("import shutil; open('x', 'w').write('y'); shutil.copy('x', 'z'); shutil.copytree('.', 'd', ignore=shutil.ignore_patterns('d')); return open('d/z').read()", "y".__eq__),
    "locks on its files": ("import fcntl; f = open('x', 'w'); fcntl.flock(f, fcntl.LOCK_EX); fcntl.flock(f, fcntl.LOCK_UN); return 1", (1).__eq__),
    "pipes": ("r, w = os.pipe(); os.write(w, b'x'); return os.read(r, 1) == b'x'", bool),
}  # fmt: skip


@pytest.mark.parametrize("need", NEEDS)
def test_honest_code_still_has(box: Box, need: str) -> None:
    body, expected = NEEDS[need]
    value = box.value(body)
    assert expected(value), value


LOAD = """
import importlib.util
spec = importlib.util.spec_from_file_location(os.path.basename(FACTS["extension"]).split(".")[0], FACTS["extension"])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
"""


@pytest.mark.parametrize("threads", ["openmp", "plain"])
def test_a_built_extension_is_loaded_from_the_cache_and_makes_threads(box: Box, threads: str) -> None:
    assert box.value(f"{LOAD}\nreturn module.{threads}(4)") == 4

# cheat: The first thread waits, as after vfork(2), for one that sends the reply and computes only then: until that is done nobody can stop the process
# classes: 3 37
# problem: problems/linear.py
# verdict: correct tampered crashed rejected
# most_gain: 1.25
# timed: yes
# fools: nobody
# twin: h_linear_own_loop.py
# note: All outputs are right, and there when they are looked at; the clock has stopped before. Two doors. (1) The filter lets
#    clone(CLONE_THREAD | CLONE_VFORK) pass (seccomp._conditions looks at CLONE_THREAD and the namespaces): its caller sleeps, deaf to
#    all but SIGKILL, until the new thread has ended. A signal to a process is given to its first thread if that does not block it,
#    and a stop begins when that thread takes it: SIGSTOP stays pending, and the new thread goes on. So `freeze_at_reply` stops the
#    process when the work is done, and from then on it stands still. (2) `arrived` is taken before json.loads: an answer may have any
#    keys, and up to 4 MB. One with "x": [[],[],...] keeps the referee from the first look at the output's words (`Side.watch`) for as
#    long as the work takes; CPU time between the reply and that look is charged to nobody (`side.cpu_s` is read after it).
#    Now threads are made as the C libraries make them only, and CPU time between the reply and the comparison counts (0.65 with the old
#    filter, 4 before).

import json
import os
import sys
import time

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="stopped_when_done", cpp_sources="""
#include <torch/extension.h>
#include <algorithm>
#include <cerrno>
#include <ctime>
#include <string>
#include <thread>
#include <vector>
#include <arpa/inet.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
static const int64_t MOST = 1300000;  // empty lists: 3.9 MB
struct Owed {
  torch::Tensor x, w, y;
  const float *a, *all;
  float* b;
  int64_t rows, cols;
};
static std::vector<Owed> owed;
static std::string head, padding;
static int64_t padded = 0;
static int to = -1;
alignas(64) static char own_stack[1 << 18];

static void compute(const float* a, const float* all, float* b, int64_t rows, int64_t cols) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* row = all + r * cols;
    float total = 0;
    #pragma omp simd reduction(+ : total)
    for (int64_t i = 0; i < cols; ++i) total += row[i] * a[i];
    b[r] = total;
  }
}
static void compute_all() {
  for (const Owed& one : owed) compute(one.a, one.all, one.b, one.rows, one.cols);
}
static void send_all(const char* from, size_t size) {
  while (size > 0) {
    const ssize_t sent = send(to, from, size, MSG_NOSIGNAL);
    if (sent > 0) {
      from += sent;
      size -= sent;
    } else if (errno == EAGAIN) {
      pollfd until{to, POLLOUT, 0};
      poll(&until, 1, 1000);
    } else if (errno != EINTR) {
      return;
    }
  }
}
static void send_reply() {
  send_all(head.data(), head.size());
  send_all(padding.data(), 3 * padded);
  send_all("[]]}", 4);
}
static int work(void*) {
  send_reply();
  timespec pause{0, 50000};
  nanosleep(&pause, nullptr);  // it is the referee's turn, to take the time
  compute_all();
  syscall(SYS_exit, 0);  // of this thread: the first one goes on, and stops if it was told to
  return 0;
}
torch::Tensor product(torch::Tensor x, torch::Tensor w) {
  const int64_t rows = w.size(0), cols = w.size(1);
  auto y = torch::empty({1, rows}, x.options());
  compute(x.data_ptr<float>(), w.data_ptr<float>(), y.data_ptr<float>(), rows, cols);
  return y;
}
torch::Tensor later(torch::Tensor x, torch::Tensor w) {
  const int64_t rows = w.size(0), cols = w.size(1);
  auto y = torch::empty({1, rows}, x.options());
  owed.push_back({x, w, y, x.data_ptr<float>(), w.data_ptr<float>(), y.data_ptr<float>(), rows, cols});
  return y;
}
int64_t count_owed() { return (int64_t)owed.size(); }
bool reply(int64_t channel, std::string body, int64_t lists) {
  if (padding.empty()) {
    for (int64_t i = 0; i < MOST; ++i) padding += "[],";
  }
  to = (int)channel;
  padded = std::min(lists, MOST);
  body.pop_back();
  body += R"(, "x": [)";
  const uint32_t header[2] = {htonl((uint32_t)(body.size() + 3 * padded + 4)), 0};
  head.assign((const char*)header, 8);
  head += body;
  const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_SIGHAND | CLONE_THREAD | CLONE_VFORK;
  const bool waited = clone(work, own_stack + sizeof own_stack, flags, nullptr) > 0;
  if (!waited) {  // it is not allowed: then as it should be
    compute_all();
    send_reply();
  }
  owed.clear();
  return waited;
}
void start() { std::thread([] {}).join(); }  // a process with a thread that ended is not kept on the first core
""", functions=["product", "later", "count_owed", "reply", "start"])

LISTS = 20_000
CORES = len(os.sched_getaffinity(0))


class Known:
    calls = 0
    seen_s = []  # of the trials: one call, on one thread
    list_s = 0.0  # how long a reader of JSON takes for an empty list
    hooked = False


def list_s():
    text, seen = "[" + "[]," * LISTS + "[]]", []
    for _ in range(5):
        started = time.perf_counter()
        json.loads(text)
        seen.append(time.perf_counter() - started)
    return min(seen) / LISTS


def reply_by_ourselves():
    frame = sys._getframe()
    while frame is not None and not (frame.f_code.co_name == "serve" and "runner" in frame.f_locals):
        frame = frame.f_back
    if frame is None:  # another evaluator
        return
    channel = frame.f_locals["channel"]
    send = channel.send

    def sent(answer, fds=(), timeout_s=None):
        owed = extension.count_owed()
        if not owed:
            return send(answer, fds, timeout_s)
        work_s = owed * max(Known.seen_s[2:])
        wanted_s = 2.5 * work_s + 0.012 if CORES == 1 else 1.5 * work_s + 0.004  # on one core we take turns with the referee
        channel.sock.settimeout(None)
        extension.reply(channel.fileno(), json.dumps(answer), int(wanted_s / Known.list_s))
        return 0.0

    channel.send = sent
    Known.list_s = list_s()
    Known.hooked = True
    extension.start()


reply_by_ourselves()


class ModelNew(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.linear = nn.Linear(features, features, bias=False)

    def forward(self, x):
        Known.calls += 1
        if Known.calls > 8 and Known.hooked and torch._C._len_torch_dispatch_stack() == 0:  # timed, and not watched
            return extension.later(x, self.linear.weight)
        started = time.perf_counter()
        y = extension.product(x, self.linear.weight)
        Known.seen_s.append(time.perf_counter() - started)
        return y

# cheat: The inputs of timed calls are pieces of those of trials: it finds which, and looks the sums up
# classes: 19
# problem: problems/row_rms.py
# verdict: wrong_output tampered correct
# most_speedup: 1.3
# timed: yes
# fools: inprocess kernelbench subprocess
# twin: c19_row_sums.py
# note: It reads some 100 elements of each input. Evaluators that time one input again and again fall to simpler cheats of this class;
#    ours never see such pieces. It is written against inputs that are turned round and put together.

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline

extension = load_inline(name="kernel", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
#include <cstring>
#include <unordered_map>
#include <vector>

struct Known {
  std::vector<float> x;
  std::vector<double> before;  // sums of squares of all elements before each
  std::unordered_map<uint64_t, int64_t> where;
};
static std::vector<Known> known;

static uint64_t key(const float* p) {
  uint64_t k;
  std::memcpy(&k, p, 8);
  return k;
}

static double sum(const Known& s, int64_t from, int64_t to) {  // of positions that may go once round
  int64_t n = s.x.size();
  double all = s.before[n];
  auto upto = [&](int64_t p) { return p >= n ? all + s.before[p - n] : s.before[p]; };
  return upto(to) - upto(from);
}

// every 64th position is known: of 64 neighbours, from `at` on in steps of `step`, one is found
static bool find(const float* a, int64_t at, int64_t step, int64_t n, const Known*& set, int64_t& turn) {
  for (int64_t i = at; std::abs(i - at) < 65; i += step)
    for (auto& s : known) {
      auto found = s.where.find(key(a + i));
      if (found == s.where.end()) continue;
      set = &s;
      turn = ((found->second - i) % n + n) % n;
      return true;
    }
  return false;
}

torch::Tensor row_rms(torch::Tensor x) {
  int64_t rows = x.size(0), cols = x.size(1), n = rows * cols;
  const float* a = x.data_ptr<float>();
  auto y = torch::empty({rows}, x.options());
  float* b = y.data_ptr<float>();
  const Known *first, *last;
  int64_t turn, other;
  if (find(a, 0, 1, n, first, turn) && find(a, n - 2, -1, n, last, other)) {
    int64_t low = 0, high = n;  // where the first set ends
    while (low < high) {
      int64_t middle = (low + high + 1) / 2;
      if (a[middle - 1] == first->x[(middle - 1 + turn) % n]) low = middle; else high = middle - 1;
    }
    for (int64_t r = 0; r < rows; ++r) {
      int64_t start = r * cols, end = start + cols, cut = std::min(std::max(low, start), end);
      int64_t p = (start + turn) % n, q = (cut + other) % n;
      double total = (cut > start ? sum(*first, p, p + cut - start) : 0) + (end > cut ? sum(*last, q, q + end - cut) : 0);
      b[r] = std::sqrt(total / cols);
    }
    return y;
  }
  for (int64_t r = 0; r < rows; ++r) {
    double total = 0;
    for (int64_t i = 0; i < cols; ++i) total += (double)a[r * cols + i] * a[r * cols + i];
    b[r] = std::sqrt(total / cols);
  }
  if (known.size() < 8) {  // a trial: learn it
    Known s;
    s.x.assign(a, a + n);
    s.before.resize(n + 1);
    for (int64_t i = 0; i < n; ++i) {
      s.before[i + 1] = s.before[i] + (double)a[i] * a[i];
      if (i % 64 == 0) s.where[key(a + i)] = i;
    }
    known.push_back(std::move(s));
  }
  return y;
}
""", functions=["row_rms"])


class ModelNew(nn.Module):
    def forward(self, x):
        return extension.row_rms(x)

# honest: A pool of two threads that waits between calls and is idle when forward() returns
# classes: 3 58
# problem: problems/triplet_margin.py
# timed: yes

import torch
import torch.nn as nn
from torch.utils.cpp_extension import load_inline
extension = load_inline(name="triplet", cpp_sources="""
#include <torch/extension.h>
#include <cmath>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
class Pool {
 public:
  Pool() {
    for (int i = 0; i < 2; ++i) std::thread([this, i] { work(i); }).detach();
  }
  void run(std::function<void(int)> job) {
    std::unique_lock lock(mutex_);
    job_ = std::move(job);
    left_ = 2;
    ++round_;
    wake_.notify_all();
    done_.wait(lock, [this] { return left_ == 0; });
  }
 private:
  void work(int index) {
    long seen = 0;
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [&] { return round_ != seen; });
      seen = round_;
      lock.unlock();
      job_(index);
      lock.lock();
      if (--left_ == 0) done_.notify_one();
    }
  }
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::function<void(int)> job_;
  long round_ = 0;
  int left_ = 0;
};
torch::Tensor triplet(torch::Tensor a, torch::Tensor p, torch::Tensor n, double margin) {
  static Pool* pool = new Pool;
  const int64_t rows = a.size(0), cols = a.size(1);
  auto y = torch::empty({rows}, a.options());
  pool->run([&](int part) {
    for (int64_t r = part * rows / 2; r < (part + 1) * rows / 2; ++r) {
      const float *x = a.data_ptr<float>() + r * cols, *u = p.data_ptr<float>() + r * cols, *v = n.data_ptr<float>() + r * cols;
      float near = 0.0f, far = 0.0f;
      for (int64_t c = 0; c < cols; ++c) {
        near += (x[c] - u[c] + 1e-6f) * (x[c] - u[c] + 1e-6f);
        far += (x[c] - v[c] + 1e-6f) * (x[c] - v[c] + 1e-6f);
      }
      y.data_ptr<float>()[r] = std::max(0.0f, std::sqrt(near) - std::sqrt(far) + (float)margin);
    }
  });
  return y;
}
""", functions=["triplet"])


class ModelNew(nn.Module):
    def __init__(self, margin=1.0):
        super().__init__()
        self.margin = margin

    def forward(self, anchor, positive, negative):
        return extension.triplet(anchor, positive, negative, self.margin)

#include <torch/extension.h>
#include <any>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <execution>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <iostream>
#include <map>
#include <mutex>
#include <numeric>
#include <queue>
#include <random>
#include <regex>
#include <shared_mutex>
#include <sstream>
#include <thread>
#include <unordered_map>
#include <variant>
#include <execinfo.h>
#include <fenv.h>
#include <immintrin.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

std::map<std::string, std::vector<torch::Tensor>> kept;
inline thread_local std::vector<float> scratch;
template <typename T> struct Table { static inline std::shared_ptr<std::vector<T>> values; };
struct __attribute__((visibility("default"))) Base { virtual ~Base() = default; virtual float at(int) const = 0; };
struct __attribute__((visibility("default"))) Derived : Base { float at(int i) const override { return Table<float>::values->at(i); } };
extern "C" __attribute__((visibility("default"))) int sink_answer() { return 42; }
extern "C" { __attribute__((visibility("default"))) float sink_table[4] = {1, 2, 3, 4}; }
__attribute__((visibility("default"), noinline)) float sink_sum(const float* a, int64_t n) { return std::accumulate(a, a + n, 0.f); }

static void pin(int core) {
  cpu_set_t set; CPU_ZERO(&set); CPU_SET(core, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}
torch::Tensor work(torch::Tensor x) {
  Table<float>::values = std::make_shared<std::vector<float>>(8, 1.f);
  scratch.resize(x.numel());
  const float* a = x.data_ptr<float>();
  std::mutex mutex; std::shared_mutex shared; std::condition_variable woken; std::atomic<int> left{2}; std::once_flag once;
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) threads.emplace_back([&] { std::lock_guard<std::mutex> l(mutex); --left; woken.notify_all(); });
  for (auto& thread : threads) thread.join();
  auto later = std::async(std::launch::async, [] { return 1; });
  std::packaged_task<int(int)> task([](int i) { return i; });
  std::call_once(once, [] {});
  double sum = later.get() + sink_answer() + sink_sum(a, x.numel()) + sink_table[1];
  #pragma omp parallel for reduction(+ : sum) schedule(dynamic)
  for (int64_t i = 0; i < x.numel(); ++i) sum += std::exp(a[i]) + std::erf(a[i]) + std::tgamma(a[i]) + std::lgamma(a[i]) + std::log1p(a[i]);
  #pragma omp parallel
  {
    #pragma omp single
    {
      #pragma omp task
      scratch.clear();
    }
    #pragma omp critical
    sum += omp_get_thread_num();
    #pragma omp barrier
  }
  #pragma omp simd
  for (int64_t i = 0; i < x.numel(); ++i) scratch[i] = std::exp(a[i]) * std::sin(a[i]);
  std::mt19937 random(std::random_device{}()); sum += std::normal_distribution<double>()(random);
  std::ostringstream out; out << sum << std::this_thread::get_id(); std::regex_match(out.str(), std::regex("a+"));
  std::ifstream in("/proc/cpuinfo"); std::string line; std::getline(in, line); std::sort(line.begin(), line.end());
  std::variant<int, std::string> either = line; std::any any = either; std::function<void()> f = [&] { any.reset(); }; f();
  void* memory = mmap(nullptr, 1 << 21, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  madvise(memory, 1 << 21, MADV_HUGEPAGE); munmap(memory, 1 << 21);
  void* aligned = nullptr; if (posix_memalign(&aligned, 64, 64)) throw std::bad_alloc(); free(aligned);
  if (left.load() < 0) { pin(0); std::cerr << __builtin_cpu_supports("avx2") << sysconf(_SC_NPROCESSORS_ONLN) << std::endl; printf("%f", sum); abort(); }
  try { dynamic_cast<Derived&>(*std::unique_ptr<Base>(new Derived)).at(100); } catch (const std::out_of_range&) { sum += 1; }
  __int128 wide = (__int128)sum * 3; struct Pair { int64_t a, b; }; std::atomic<Pair> both; both.store({1, (int64_t)(wide / 7)});
  return torch::full_like(x, sum);
}

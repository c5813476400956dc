#include <torch/extension.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/autocast_mode.h>
#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/record_function.h>
#include <c10/core/CPUAllocator.h>
#include <c10/util/Logging.h>
#include <c10/util/irange.h>

torch::Tensor vectorised(torch::Tensor x) {
  TORCH_CHECK(x.is_cpu() && x.is_contiguous() && x.dtype() == torch::kFloat, "not fit: ", x.sizes(), x.options());
  TORCH_CHECK_VALUE(x.numel() > 0, "empty"); TORCH_CHECK_INDEX(true, ""); TORCH_CHECK_TYPE(true, ""); TORCH_CHECK_NOT_IMPLEMENTED(true, "");
  auto y = torch::empty_like(x);
  const float* a = x.const_data_ptr<float>();
  float* b = y.mutable_data_ptr<float>();
  using V = at::vec::Vectorized<float>;
  at::parallel_for(0, x.numel(), at::internal::GRAIN_SIZE, [&](int64_t from, int64_t to) {
    at::vec::map<float>([](V v) { return v.exp() + v.tanh() * v.erf() + v.log1p() + v.sin() + v.pow(v) + v.sqrt() + v.fmod(v); },
                        b + from, a + from, to - from);
  });
  float sum = at::vec::reduce_all<float>([](V p, V q) { return p + q; }, a, x.numel());
  sum += at::parallel_reduce(0, x.numel(), 1, 0.f, [&](int64_t f, int64_t t, float s) { for (; f < t; ++f) s += a[f]; return s; },
                             std::plus<float>());
  TORCH_INTERNAL_ASSERT(sum == sum);
  if (sum == 1) TORCH_WARN_ONCE("sum ", sum);
  if (at::get_num_threads() > 10000) at::set_num_threads(10000);
  return y;
}
torch::Tensor generic(torch::Tensor x, at::Scalar by, std::optional<torch::Tensor> bias, std::vector<int64_t> sizes, std::string mode) {
  RECORD_FUNCTION("generic", std::vector<c10::IValue>({x}));
  auto y = torch::zeros_like(x, x.options().memory_format(at::MemoryFormat::Contiguous));
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "generic", [&] {
    auto a = x.accessor<scalar_t, 2>();
    auto b = y.accessor<scalar_t, 2>();
    for (const auto i : c10::irange(x.size(0))) for (const auto j : c10::irange(x.size(1))) b[i][j] = a[i][j] * by.to<scalar_t>();
  });
  AT_DISPATCH_ALL_TYPES_AND_COMPLEX_AND3(at::kBool, at::kHalf, at::kBFloat16, x.scalar_type(), "all", [&] { (void)x.data_ptr<scalar_t>(); });
  AT_DISPATCH_INDEX_TYPES(at::kLong, "index", [&] {});
  auto loop = at::TensorIteratorConfig().add_output(y).add_input(x).check_all_same_dtype(true).set_check_mem_overlap(true).build();
  loop.for_each([](char** data, const int64_t* strides, int64_t n) {});
  auto flat = torch::from_blob(y.data_ptr(), {y.numel()}, [](void*) {}, y.options());
  auto made = torch::tensor({1.0f, 2.0f}), whole = torch::tensor({1, 2}, torch::kInt64), range = torch::arange(10);
  y.index_put_({torch::indexing::Slice(), 0}, y.index({torch::indexing::Slice(), 0}));
  auto z = torch::rand({2, 2}, at::TensorOptions().dtype(torch::kFloat64).device(torch::kCPU).requires_grad(false));
  auto w = torch::cat({z, torch::empty_strided({2, 2}, {2, 1}, z.options())}).to(torch::kHalf, true, false).view({-1});
  auto p = z.packed_accessor64<double, 2>();
  double item = made.sum().item<double>() + made[0].item().toFloat() + p[0][0];
  if (item < -1e9) { std::cout << y << x.sizes() << x.scalar_type() << x.device() << y.dtype() << std::endl; LOG(INFO) << item; }
  auto* drawn = at::get_generator_or_default<at::CPUGeneratorImpl>(std::nullopt, at::detail::getDefaultCPUGenerator());
  { std::lock_guard<std::mutex> lock(drawn->mutex_); (void)drawn->random(); (void)drawn->random64(); }
  auto memory = c10::GetCPUAllocator()->allocate(64);
  (void)at::globalContext().deterministicAlgorithms();
  at::AutoDispatchBelowAutograd below;
  torch::NoGradGuard no_grad;
  c10::InferenceMode inference(false);
  return at::autocast::cached_cast(at::kFloat, y).to(y.scalar_type()).contiguous();
}

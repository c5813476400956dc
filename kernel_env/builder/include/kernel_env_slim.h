// What most candidates need of torch/extension.h: tensors with their methods, the functions that allocate them, dispatch over
// types and parallel loops. Precompiled once per machine.
//
// GCC instantiates every template that an inline function of a header mentions, in each translation unit anew, and with all of
// torch's functions that takes 4 s. A source that needs more than what is here is compiled with kernel_env_prelude.h.
#pragma once
#define KERNEL_ENV_SLIM

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like_ops.h>
#include <ATen/ops/empty_ops.h>
#include <ATen/ops/full_like_ops.h>
#include <ATen/ops/full_ops.h>
#include <ATen/ops/ones_like_ops.h>
#include <ATen/ops/ones_ops.h>
#include <ATen/ops/zeros_like_ops.h>
#include <ATen/ops/zeros_ops.h>
#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cmath>
#include <complex>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <forward_list>
#include <functional>
#include <iostream>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <queue>
#include <ranges>
#include <set>
#include <span>
#include <sstream>
#include <stack>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace at {

// The functions of the same names; an option that is not given is the default's, or for `..._like` the tensor's.
namespace kernel_env_slim {
using memory_format_t = std::optional<MemoryFormat>;

template <class Operator, class... Given>
Tensor allocated(IntArrayRef size, const TensorOptions& o, const Given&... given) {
  return Operator::call(c10::fromIntArrayRefSlow(size), given..., optTypeMetaToScalarType(o.dtype_opt()), o.layout_opt(),
                        o.device_opt(), o.pinned_memory_opt());
}

template <class Operator, class... Given>
Tensor alike(const Tensor& like, const TensorOptions& o, memory_format_t format, const Given&... given) {
  return Operator::call(like, given..., optTypeMetaToScalarType(o.dtype_opt()), o.layout_opt(), o.device_opt(),
                        o.pinned_memory_opt(), c10::impl::check_tensor_options_and_extract_memory_format(o, format));
}
}  // namespace kernel_env_slim

inline Tensor empty(IntArrayRef size, TensorOptions options = {}, kernel_env_slim::memory_format_t format = std::nullopt) {
  return _ops::empty_memory_format::call(
      c10::fromIntArrayRefSlow(size), optTypeMetaToScalarType(options.dtype_opt()), options.layout_opt(), options.device_opt(),
      options.pinned_memory_opt(), c10::impl::check_tensor_options_and_extract_memory_format(options, format));
}
inline Tensor zeros(IntArrayRef size, TensorOptions options = {}) {
  return kernel_env_slim::allocated<_ops::zeros>(size, options);
}
inline Tensor ones(IntArrayRef size, TensorOptions options = {}) {
  return kernel_env_slim::allocated<_ops::ones>(size, options);
}
inline Tensor full(IntArrayRef size, const Scalar& value, TensorOptions options = {}) {
  return kernel_env_slim::allocated<_ops::full>(size, options, value);
}
inline Tensor empty_like(const Tensor& like, TensorOptions options = {}, kernel_env_slim::memory_format_t format = std::nullopt) {
  return kernel_env_slim::alike<_ops::empty_like>(like, options, format);
}
inline Tensor zeros_like(const Tensor& like, TensorOptions options = {}, kernel_env_slim::memory_format_t format = std::nullopt) {
  return kernel_env_slim::alike<_ops::zeros_like>(like, options, format);
}
inline Tensor ones_like(const Tensor& like, TensorOptions options = {}, kernel_env_slim::memory_format_t format = std::nullopt) {
  return kernel_env_slim::alike<_ops::ones_like>(like, options, format);
}
inline Tensor full_like(const Tensor& like, const Scalar& value, TensorOptions options = {},
                        kernel_env_slim::memory_format_t format = std::nullopt) {
  return kernel_env_slim::alike<_ops::full_like>(like, options, format, value);
}

}  // namespace at

namespace torch {
using namespace at;
using Dtype = at::ScalarType;
constexpr auto kUInt8 = at::kByte, kInt8 = at::kChar, kInt16 = at::kShort, kInt32 = at::kInt, kInt64 = at::kLong;
constexpr auto kFloat16 = at::kHalf, kFloat32 = at::kFloat, kFloat64 = at::kDouble;
}  // namespace torch

#include "kernel_env_bind.h"

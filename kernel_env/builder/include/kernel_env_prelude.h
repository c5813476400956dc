// What a candidate's translation unit starts from; precompiled once per machine.
//
// Together these headers declare what torch/extension.h declares, except pybind11 and torch's nn, optim, autograd, data, jit and
// serialize: the builder compiles sources that use one of those with the stock headers instead.
#pragma once
#include <torch/types.h>

#include <torch/cuda.h>
#include <torch/enum.h>
#include <torch/fft.h>
#include <torch/nested.h>
#include <torch/print.h>
#include <torch/sparse.h>
#include <torch/special.h>
#include <torch/utils.h>
#include <torch/version.h>

#include <ATen/Parallel.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <forward_list>
#include <limits>
#include <numeric>
#include <queue>
#include <ranges>
#include <span>
#include <stack>
#include <vector>

#include "kernel_env_bind.h"

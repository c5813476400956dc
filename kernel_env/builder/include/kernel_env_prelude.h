// What a candidate's translation unit starts from; precompiled once per machine.
#pragma once
#include <torch/types.h>

#include <ATen/Parallel.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "kernel_env_bind.h"

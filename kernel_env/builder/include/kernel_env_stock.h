// The stock header, for sources that need pybind11, torch::nn and the like; precompiled once per machine, when one does.
#pragma once
#include <torch/extension.h>

// Stands in front of the stock header of the same name, which torch puts before every CUDA source: the slim prelude has it all.
#pragma once
#ifndef KERNEL_ENV_SLIM
#include_next <torch/types.h>
#endif

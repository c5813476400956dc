// Stands in front of the stock header of the same name: a prelude is already included.
#pragma once
#ifndef KERNEL_ENV_SLIM
#include "kernel_env_prelude.h"
#endif

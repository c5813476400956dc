// Stands in front of the stock header of the same name: the prelude is already included.
#pragma once
#include "kernel_env_prelude.h"

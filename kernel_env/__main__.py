"""`python -m kernel_env` is the command `kernel-env`."""

import importlib
import sys

sys.exit(importlib.import_module("rollout.cli").main())  # by name: this package does not depend on that one

"""Where CUDA's compiler is."""

from __future__ import annotations

import os
import shutil


def nvcc() -> str | None:
    """Path of the compiler: of `$CUDA_HOME`, on the path, or in `/usr/local/cuda`. None without a toolkit."""
    homes = [os.environ.get(name, "") for name in ("CUDA_HOME", "CUDA_PATH")]
    for path in [*(f"{home}/bin/nvcc" for home in homes if home), shutil.which("nvcc") or "", "/usr/local/cuda/bin/nvcc"]:
        if path and os.access(path, os.X_OK):
            return path
    return None

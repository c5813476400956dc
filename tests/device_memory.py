"""How much memory of a device one call of a problem's reference needs, found without a device and without the memory.

The reference is made and called on torch's fake tensors, which have shapes and no contents. What is alive at once is counted:
arguments, weights, inputs and everything that an operator returned, storage by storage. Not counted is what operators use inside
(a convolution's workspace), nor what a device's driver holds.

    python -m tests.device_memory kernelbench --path path/to/KernelBench    # entries of `gpu24` for those that are too large
"""

from __future__ import annotations

import argparse
import contextlib
import json
import warnings
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernel_env.errors import KernelEnvError
from kernel_env.problems import load_problems
from kernel_env.problems.sizing import constants, resize
from kernel_env.schema import Problem

GPU24_BYTES = 9 << 30
"""What one side may need where 24 GiB hold both, each with a context of the driver and the clock's spare inputs."""


class Peak(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._uses: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                self._hold(leaf)
        return found

    def _hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._uses:
            self._uses[key] = 0
            self.now += size
            self.most = max(self.most, self.now)
        self._uses[key] += 1
        weakref.finalize(tensor, self._let_go, key, size)

    def _let_go(self, key: int, size: int) -> None:
        self._uses[key] -= 1
        if not self._uses[key]:
            del self._uses[key]
            self.now -= size


def needed(source: str) -> int:
    """Bytes. Raises what the reference raises on tensors without contents."""
    module: dict[str, Any] = {"__name__": "problem"}
    with warnings.catch_warnings(action="ignore"), Peak() as peak, FakeTensorMode(), torch.no_grad():
        exec(compile(source, "problem.py", "exec"), module)  # noqa: S102 - a problem of a data set
        model = module["Model"](*module["get_init_inputs"]())
        model(*module["get_inputs"]())
    return peak.most


_BATCH = ("batch_size", "BATCH", "b", "B")
"""Constants that are halved first; then whatever is largest."""


def fitted(source: str, limit: int) -> Mapping[str, int]:
    """Constants that are smaller than as written, so that it fits. What is as large as the one that is halved may have to be halved
    with it."""
    sizes: dict[str, int] = {}
    while needed(resize(source, sizes)) > limit:
        known = {name: sizes.get(name, constant.value) for name, constant in constants(source).items()}
        batch = [name for name in _BATCH if known.get(name, 0) > 1]
        name = batch[0] if batch else max(known, key=lambda name: known[name])
        alike = [other for other, value in known.items() if value == known[name]]
        sizes = next(
            made for made in ({**sizes, **{n: known[n] // 2 for n in names}} for names in ([name], alike)) if _runs(source, made)
        )
    return sizes


def _runs(source: str, sizes: Mapping[str, int]) -> bool:
    with contextlib.suppress(RuntimeError):
        return needed(resize(source, sizes)) > 0
    return False


def _rows(problems: tuple[Problem, ...]) -> Iterator[tuple[Problem, int | str]]:
    for problem in problems:
        try:
            yield problem, needed(problem.source)
        except Exception as error:  # noqa: BLE001 - whatever the reference does with a tensor that has no contents
            yield problem, f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Which problems need more of a device than one side may have, and sizes that fit.")
    parser.add_argument("source", help="as problems.source: bundled, kernelbench, jsonl or huggingface")
    parser.add_argument("--path", help="as problems.path")
    parser.add_argument("--profile", default="full", help="as problems.profile (default: full)")
    chosen = parser.parse_args()
    try:
        problems = load_problems(chosen.source, chosen.path, chosen.profile)
    except KernelEnvError as error:
        parser.error(str(error))
    too_large = 0
    for problem, found in _rows(problems):
        name = f"level{problem.level}/{problem.problem_id}_{problem.name}"
        if isinstance(found, str):
            print(f"{name}: not counted: {found}")
        elif found > GPU24_BYTES:
            too_large += 1
            sizes = json.dumps(fitted(problem.source, GPU24_BYTES))
            print(f'"{name}": {sizes}  # as it is {found / 2**30:.1f} GiB', flush=True)
    print(f"{too_large} of {len(problems)} problems need more than {GPU24_BYTES >> 30} GiB")


if __name__ == "__main__":
    main()

"""Compiles a program's Triton kernels for GPUs that are not here: those that it launches, for the arguments that they are given.

A driver without a device stands in for Triton's. A launch compiles its kernel for the chosen target and runs nothing, so what a
program computes from results means nothing. `ptxas` is a program of its own, which a runner may not start: for CUDA it ends with
PTX, and the Builder goes on. For AMD all of it happens here.

Imported by runners only (it imports Triton).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import triton.backends.amd.compiler  # noqa: F401 - paid for once, in the zygote
import triton.backends.nvidia.compiler as nvidia
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver, jit
from triton.runtime.errors import OutOfResources

from kernel_env.backends.targets import Target

_VERSIONS = {blackwell: nvidia.get_ptxas_version(100 if blackwell else 80) for blackwell in (False, True)}
_TOOLS = knobs.nvidia.ptxas, knobs.nvidia.ptxas_blackwell
"""Learned when this is imported, in the zygote: Triton asks the programs themselves, and a runner may start none."""
MOST_VARIANTS = 256
"""Of all kernels together: each set of types, constants and alignments is one."""


class Ahead:
    """Stands in for the GPUs of some targets. `compiled` holds what was compiled for the one that is chosen."""

    def __init__(self, targets: Sequence[Target]) -> None:
        self._targets = list(targets)
        self._chosen = 0
        self.compiled: dict[tuple[str, str], dict[str, Any]] = {}
        """By name and assembly."""
        self.failed = False
        """Whether the compiler refused a kernel."""

    def found(self, most_bytes: int) -> list[dict[str, Any]]:
        """What was compiled; of what is beyond so many bytes together without its assembly."""
        kernels = []
        for kernel in self.compiled.values():
            most_bytes -= len(kernel["assembly"])
            kernels.append(kernel if most_bytes >= 0 else {**kernel, "assembly": ""})
        return kernels

    def choose(self, target: Target) -> None:
        self._chosen, self.compiled, self.failed = self._targets.index(target), {}, False

    @property
    def target(self) -> Target:
        return self._targets[self._chosen]

    @contextlib.contextmanager
    def standing_in(self) -> Iterator[None]:
        """While active, launches compile for the chosen target."""
        kept = jit.JITFunction.run, jit.JITFunction._do_compile, nvidia.CUDABackend.make_cubin, nvidia.get_ptxas_version
        driver.set_active(_Driver(self))
        jit.JITFunction.run = self._launching(kept[0])
        jit.JITFunction._do_compile = self._compiling(kept[1])
        nvidia.CUDABackend.make_cubin = lambda *_: b"PTX is enough"
        nvidia.get_ptxas_version = lambda arch=80: _VERSIONS[arch >= 100]
        try:
            yield
        finally:
            jit.JITFunction.run, jit.JITFunction._do_compile, nvidia.CUDABackend.make_cubin, nvidia.get_ptxas_version = kept

    def _launching(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def launched(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> Any:
            made = run(kernel, *arguments, grid=grid, warmup=True, **named)
            if made is not None:
                self._keep(made)
            return made

        return launched

    def _compiling(self, compile_: Callable[..., Any]) -> Callable[..., Any]:
        def compiling(*arguments: Any, **named: Any) -> Any:
            try:
                return compile_(*arguments, **named)
            except Exception:  # whatever the compiler raises is its word on the kernel
                self.failed = True
                raise

        return compiling

    def _keep(self, made: Any) -> None:
        """Raises OutOfResources as a launch on the real device does, so that autotuning passes over such a configuration."""
        shared, most = int(made.metadata.shared), self.target.shared_bytes
        if most is not None and shared > most:
            self.failed = True
            raise OutOfResources(shared, most, "shared memory")
        assembly = made.asm["ptx" if self.target.vendor == "cuda" else "amdgcn"]
        if len(self.compiled) < MOST_VARIANTS:
            name = str(made.metadata.name)
            self.compiled[name, assembly] = {"kernel": name, "shared": shared, "assembly": assembly}
        self.failed = False


class _Utils:
    """What programs ask a driver about its device."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def get_device_properties(self, device: int) -> dict[str, int]:
        properties = {"multiprocessor_count": self._target.processors, "warpSize": self._target.warp, "max_num_regs": 65536}
        return {**properties, "max_shared_mem": self._target.shared_bytes or 1 << 16}


class _Driver(DriverBase):  # type: ignore[misc]
    """Each target is a device, so that what was compiled for one is not taken for another."""

    def __init__(self, ahead: Ahead) -> None:
        super().__init__()
        self._ahead = ahead

    @classmethod
    def is_active(cls) -> bool:
        return True

    @property
    def utils(self) -> _Utils:
        return _Utils(self._ahead.target)

    def map_python_to_cpp_type(self, ty: str) -> str:
        return "void*"

    def get_current_target(self) -> Any:
        target = self._ahead.target
        return GPUTarget(target.vendor, int(target.arch) if target.vendor == "cuda" else target.arch, target.warp)

    def get_current_device(self) -> int:
        return self._ahead._chosen

    def set_current_device(self, device: int) -> None: ...

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        return torch.cpu

    def get_benchmarker(self) -> Callable[..., list[float]]:
        """Autotuning compiles every configuration, and takes the first."""

        def timed(call: Callable[[], Any], **_: Any) -> list[float]:
            call()
            return [1.0, 1.0, 1.0]

        return timed

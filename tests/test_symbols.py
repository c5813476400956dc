"""What extensions may call of libraries: all that honest kernels take from torch and the system, nothing that computes unseen."""

from __future__ import annotations

import _ctypes
import ctypes
import importlib.machinery
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kernel_env.backends import lookup
from kernel_env.backends.lookup import know_builds, unwatched_lookup
from kernel_env.builder import Builder, BuildRequest, BuildResult
from kernel_env.builder.service import extensions
from kernel_env.builder.symbols import exported
from kernel_env.builder.toolchain import toolchain
from kernel_env.checks.symbols import FINDERS, is_system, unwatched
from kernel_env.schema import Candidate, Problem, Status
from kernel_env.verifier import BlockingVerifier, InprocessVerifier, LocalVerifier, VerifierConfig
from tests.conftest import QUICK

TORCH = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
ALL = replace(QUICK, measure_performance=False, torch_ops="all")
VISIBLE = ("-O0", "-fvisibility=default")
"""Own functions, and those of headers, are there for others too."""


def built(name: str, functions: tuple[str, ...] = (), flags: tuple[str, ...] = ()) -> BuildResult:
    source = (Path(__file__).parent / "extensions" / f"{name}.cpp").read_text()
    request = BuildRequest(((f"{name}.cpp", source),), tuple((f, f) for f in functions), flags, ("-latomic",))
    made = Builder(VerifierConfig().cache()).build(request)
    assert made.ok, made.log[:3000]
    return made


@pytest.mark.parametrize(
    ("name", "functions", "flags"),
    [
        ("tensors", ("vectorised", "generic"), ()), ("bindings", (), ()), ("system", ("work",), ()), ("system", ("work",), VISIBLE),
    ],
    ids=["tensors", "bindings", "system", "system, all visible"],
)  # fmt: skip
def test_all_that_an_honest_extension_takes_may_be_called(name: str, functions: tuple[str, ...], flags: tuple[str, ...]) -> None:
    assert unwatched(built(name, functions, flags).imports) == []


def test_such_extensions_work() -> None:
    """They are linked so that their own symbols are their own; what torch and pybind11 share among libraries is still shared."""
    module, x = loaded(built("bindings")), torch.ones(2, 2, requires_grad=True)
    module.twice(x, by=3.0).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert torch.ops.kitchen_sink.twice(x, 2.0).tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert torch.classes.kitchen_sink.Plan(3).rows == 3
    assert module.Kernel(torch.ones(2))(torch.ones(2)).tolist() == [2.0, 2.0]
    assert module.array(np.ones(3, np.float32)).tolist() == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="one"):
        module.fails(lambda i: i)
    with pytest.raises(ValueError, match="none"):
        module.refuses(torch.ones(0))
    assert loaded(built("system", ("work",))).work(torch.ones(3)).shape == (3,)


def loaded(result: BuildResult) -> Any:
    loader = importlib.machinery.ExtensionFileLoader(result.module, result.path)
    spec = importlib.util.spec_from_loader(result.module, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


COMPUTING = """
    sgemm_ sgemm SGEMM cblas_sgemm dgemv_ sdot_ saxpy_ sgetrf_ sgetrf_64_ ssyevd_64 sgesdd_64_ dsyrk_ strsm_
    vsExp vsLn vsLn_64 vdTrunc vmdTanh
    mkl_sgemm mkl_blas_sgemm dnnl_sgemm scipy_cblas_sgemv64_ scipy_sgemm_64_ _gfortran_matmul_r4 nnp_convolution_inference
    cublasSgemm_v2 cudnnConvolutionForward dlsym dlopen dlvsym dlinfo dladdr1 _r_debug aoti_torch_cpu_mm_out
    aoti_torch_proxy_executor_call_function uv_dlopen pthreadpool_parallelize_1d pytorch_qnnp_run_operator
    nnc_mkldnn_prepacked_conv_run nobody_knows_it
    _ZN2at6native4reluERKNS_6TensorE _ZN2at6native9relu_stubE _ZN2at4_ops4relu10redispatchEN3c1014DispatchKeySetERKNS_6TensorE
    _ZN4dnnl6memoryC1Ev _ZN2at14DynamicLibrary3symEPKc _ZN2at3cpu4reluERKNS_6TensorE _ZN2at4meta4reluERKNS_6TensorE
    _ZN2at25compositeexplicitautograd18mkldnn_convolutionERKNS_6TensorE _ZN5torch3jit12StaticModuleclEv
    _ZN2at38compositeexplicitautogradnonfunctional8erfinv_8E _ZN5torch3jit18getAllOperatorsForEN3c106SymbolE
    _ZN5torch3jit18SROperatorRegistryEv _ZN5torch9inductor20AOTIModelPackageLoader3runEv _ZN2ao6sparse18PackedLinearWeight5applyEv
    _ZTVN2ao6sparse18PackedLinearWeightE _ZN20PackedLinearWeight5applyEv _ZN5torch8autograd12VariableType8unpackE
    _ZN5torch8autograd8profiler15disableProfilerEv _ZN5torch8profiler4impl3anyEv
    _ZN3c1010Dispatcher17findSchemaOrThrowEPKcS2_ _ZN3c1010Dispatcher23addRegistrationListenerESt10unique_ptrE
    _ZN3c1010Dispatcher13realSingletonEv _ZGVZN3c1010Dispatcher9singletonEvE1s _ZZN3c1010Dispatcher9singletonEvE1s
    _ZNK3c104impl13OperatorEntry11reportErrorENS_11DispatchKeyE _ZN3c1014OperatorHandleD1Ev _ZN3c1012SetAllocatorENS_10DeviceTypeE
    _ZN3c1020ThreadLocalDebugInfo22_forceCurrentDebugInfoE _ZN3c1021show_dispatch_traceEv
    _ZN2at20enableRecordFunctionEb _ZN2at24get_record_function_tls_Ev _ZN2at24set_record_function_tls_E _ZN2at14clearCallbacksEv
    _ZN2at16ThreadLocalState19setThreadLocalStateERKS0_ _ZN2at16ThreadLocalStateC1Ev _ZN2at9functorch5anyopEv
    _ZNSt17_Function_handlerIFN2at6TensorES1_EE9_M_invokeE _ZN6fbgemm4gemmEv
    __libc_dlopen_mode __libc_dlsym __libc_dlvsym _dl_sym _dl_vsym _dl_addr _dl_find_object __nptl_rtld_global
    _ZN2at4cuda4reluERKNS_6TensorE _ZN2at3hip4reluERKNS_6TensorE _ZN2at6native20canUse32BitIndexMat2ERKNS_10TensorBaseEl
    _ZN2at4cuda4blas4gemmIfEEvcclllfPKflS3_lfPfl _ZN2at3hip4blas4gemmIfEEvcclllfPKflS3_lfPfl _ZN2at3hip6solver5getrfIfEEvP
    _ZN2at3hip6sparse4spmmEv _ZN2at4cuda3cub3sumEv _ZN2at3hip3jit7compileEv _ZN2at3hip7tunable4gemmEv
    _ZN2at4cuda6detail9CUDAHooks4initEv _ZN2at4cuda6detail9lazyNVRTCE _ZN2at3hip6detail8HIPHooks4initEv
"""


@pytest.mark.parametrize("name", COMPUTING.split())
def test_functions_that_compute_unwatched(name: str) -> None:
    assert unwatched(["__gmon_start__", name]) == [name]


HONEST = """
    Sleef_expf8_u10 PyLong_FromLong _Py_Dealloc THPVariableClass cudaLaunchKernel __cudaRegisterFunction cuLaunchKernel
    aoti_torch_get_data_ptr aoti_torch_call_dispatcher torch_parallel_for _ITM_registerTMCloneTable
    _ZN2at4_ops4relu4callERKNS_6TensorE _ZN3c106detail14torchCheckFailEPKcS2_jS2_ _ZN3c105ErrorD1Ev _ZTVN3c105ErrorE
    _ZTIFN2at6TensorERKS0_E _ZN5torch3jit17parseSchemaOrNameE _ZN5torch7LibraryC1ENS0_4KindE _ZN2at18TensorIteratorBase8for_eachE
    _ZNK2at10TensorBase8data_ptrIfEEPT_v _ZN2at4cuda20getCurrentCUDAStreamEa _ZN3c104cuda20getCurrentCUDAStreamEa
    _ZN2at8internal14set_thread_numEi _ZN3c1014KernelFunctionD1Ev _ZN3c1019UndefinedTensorImpl10_singletonE
    _ZN5torch8autograd12AutogradMetaD0Ev _ZTVN5torch8autograd12AutogradMetaE _Z16THPVariable_WrapRKN2at10TensorBaseE
    _ZN8pybind116detail11type_casterIN2at6TensorEvE4loadENS_6handleEb _ZN5torch2nn10LinearImpl7forwardERKN2at6TensorE
    _ZThn16_N3c1010TensorImplD0Ev _ZN3c104impl18to_stringB5cxx11Ev
    _ZN2at4cuda6detail23getDefaultCUDAGeneratorEa _ZN2at3hip6detail22getDefaultHIPGeneratorEa _ZN2at9NamesMode10is_enabledEv
    _ZN2at4cuda6detail23maybeOverlappingIndicesERKNS_10TensorBaseE _ZN2at6native20canUse32BitIndexMathERKNS_10TensorBaseEl
    _ZN2at17CUDAGeneratorImpl17philox_cuda_stateEm _ZTVN2at17CUDAGeneratorImplE _ZN2at4cuda26getCurrentDevicePropertiesEv
    _ZN2at3hip26getCurrentDevicePropertiesEv _ZN2at4cuda9warp_sizeEv _ZN2at4cuda9CUDAGraph6replayEv _ZN2at4cuda5sleepEl
    _ZN2at4cuda20getCurrentCUDAStreamEa _ZN2at4cuda31CachingHostAllocator_emptyCacheEv _ZN2at4cuda17graph_pool_handleEv
"""


@pytest.mark.parametrize("name", HONEST.split())
def test_functions_that_honest_extensions_call(name: str) -> None:
    assert unwatched([name]) == []


def test_of_what_torch_exports_only_a_part_may_be_called() -> None:
    names = exported(TORCH.read_bytes())
    assert {"sgemm_", "vsLn", "_ZN2at4_ops4relu4callERKNS_6TensorE"} < names
    left = names - set(unwatched(names))
    called = {name for name in left if re.match(r"_ZN2at4_ops\d+\w+4callE", name)}
    assert len(called) > 2000 and not any("10redispatchE" in name for name in left)
    plain = {name for name in left if not name.startswith(("_Z", "Sleef_", "torch_", "aoti_torch_", "FLAGS_"))}
    assert plain == set()


def test_no_body_of_an_operator_for_gpus_may_be_called() -> None:
    bodies = (TORCH.parents[1] / "include/ATen/ops").glob("*_cuda_dispatch.h")
    names = {name for path in bodies for name in re.findall(r"^TORCH_API [^(]*\b(\w+)\(", path.read_text(), re.MULTILINE)}
    assert {"relu", "mm", "is_set_to"} < names
    symbols = {f"_ZN2at{space}{len(name)}{name}ERKNS_6TensorE" for name in names for space in ("4cuda", "3hip")}
    assert set(unwatched(symbols)) == symbols


def test_the_systems_functions_are_known_but_for_those_that_find_others() -> None:
    known = toolchain().system_symbols
    assert {"memcpy", "expf", "_ZGVdN8v_expf", "GOMP_parallel", "pthread_create", "__cxa_throw", "_Unwind_Resume", "dladdr"} < known
    assert not known & FINDERS and "sgemm_" not in known


OLDER = "__libc_dlopen_mode __libc_dlsym __libc_dlvsym _dl_sym _dl_vsym _dl_addr _dl_find_dso_for_object __nptl_rtld_global"


def test_those_of_an_older_system_are_not_known_either(tmp_path: Path) -> None:
    real, wrapper = toolchain(), tmp_path / "g++"
    (tmp_path / "libc.c").write_text("\n".join(f"void {name}(void) {{}}" for name in [*OLDER.split(), "getpagesize_"]))
    subprocess.run([real.compiler, "-xc", "-shared", "-o", tmp_path / "libc.so.6", tmp_path / "libc.c"], check=True)
    wrapper.write_text(f'#!/bin/sh\ncase "$1" in *=libc.so.6) echo {tmp_path}/libc.so.6;; *) exec {real.compiler} "$@";; esac\n')
    wrapper.chmod(0o755)
    known = replace(real, compiler=str(wrapper)).system_symbols
    assert "getpagesize_" in known and not known & set(OLDER.split())


SYSTEM = """
    libc.so.6 libm-2.36.so libstdc++.so.6.0.30 ld-linux-x86-64.so.2 ld-linux-aarch64.so.1 ld-2.31.so libgomp.so.1 libmvec.so.1
    libgomp-a34b3233.so.1 libgomp-24e2ab19.so.1.0.0 libgomp-040039e1-0352e75f.so.1.0.0 libomp.so libomp-7bb3a1c2.so libiomp5.so
"""


@pytest.mark.parametrize("name", SYSTEM.split())
def test_the_systems_libraries(name: str) -> None:
    assert is_system(name)


OTHERS = "libtorch_cpu.so libmkl_rt.so libgfortran.so.5 libcrypto.so.3 libmy.so libc10.so libm-old.so libiomp.so ld-my.so ld.so.py"


@pytest.mark.parametrize("name", OTHERS.split())
def test_other_libraries(name: str) -> None:
    assert not is_system(name)


def looked_up(look: Callable[[], object]) -> list[str]:
    """What an auditor says of a look by ctypes. Auditors stay for good."""
    found: list[str] = []
    watching = [True]
    sys.addaudithook(lambda event, arguments: found.extend(unwatched_lookup(event, arguments)) if watching else None)
    try:
        look()
    except (AttributeError, OSError, ValueError):
        pass
    finally:
        watching.clear()
    return found


def test_lookups_by_ctypes() -> None:
    libc, libtorch = ctypes.CDLL(None), ctypes.CDLL(str(TORCH))
    know_builds([str(extensions(VerifierConfig().cache()))])
    own = ctypes.CDLL(built("system", ("work",)).path)
    assert looked_up(lambda: own.sink_answer) == []
    assert looked_up(lambda: ctypes.c_float.in_dll(own, "sink_table")) == []
    assert looked_up(lambda: own.sgemm_) == ["sgemm_"], "of a library that it is linked with"
    assert looked_up(lambda: libc.getpagesize) == looked_up(lambda: libc.nobody_knows_it) == []
    assert looked_up(lambda: ctypes.c_void_p.in_dll(libc, "environ")) == [], "which begins as zeros"
    assert looked_up(lambda: libc.dlsym) == ["dlsym"]
    assert looked_up(lambda: libc._rtld_global) == ["_rtld_global"]
    assert looked_up(lambda: libtorch.vsLn) == looked_up(lambda: libtorch._FuncPtr((b"vsLn", libtorch))) == ["vsLn"]
    assert looked_up(lambda: libtorch.omp_get_max_threads) == []
    assert looked_up(lambda: _ctypes.dlsym(libtorch._handle, "sgemv_")) == ["sgemv_"]
    assert looked_up(lambda: ctypes.c_int.in_dll(libtorch, "mkl_vml_serv_any")) == []


@pytest.fixture
def blas() -> Path:
    """Numpy's own."""
    found = list(Path(np.__file__).parents[1].glob("numpy.libs/libscipy_openblas64_*"))
    if not found:
        pytest.skip("this numpy brings no BLAS of its own, or by another name")
    return found[0]


def test_lookups_in_the_blas_of_numpy(blas: Path) -> None:
    assert looked_up(lambda: ctypes.CDLL(str(blas)).scipy_cblas_sgemv64_) == ["scipy_cblas_sgemv64_"]


def test_a_system_library_that_is_loaded_late_is_the_systems() -> None:
    assert looked_up(lambda: ctypes.CDLL("libatomic.so.1").__atomic_is_lock_free) == []


NAMED = f"ke_{'0a' * 10}.so"


@pytest.fixture
def product(tmp_path: Path) -> Path:
    """A library that computes."""
    (tmp_path / "product.c").write_text("int calls; float sgemv_(float a, float b) { ++calls; return a * b; }\n")
    made = tmp_path / "product.so"
    subprocess.run([toolchain().compiler, "-xc", "-shared", "-fPIC", "-o", made, tmp_path / "product.c"], check=True)
    return made


@pytest.mark.parametrize("place", [NAMED, "libm.so", "libgomp-a34b3233.so.1", f"ext/0a/{NAMED[3:-3]}/{NAMED}"])
@pytest.mark.parametrize("name", ["sgemv_", "calls"])
def test_a_copy_of_a_library_is_none_of_ours_by_its_name(product: Path, place: str, name: str) -> None:
    path = product.parent / place
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(product, path)
    copy = ctypes.CDLL(str(path))
    assert looked_up(lambda: copy[name]) == [name]


@pytest.mark.parametrize("how", ["a link", "a relative path"])
def test_nor_by_where_its_name_leads_later(product: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [toolchain().compiler, "-print-file-name=libm.so.6"]
    real = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()).resolve()
    monkeypatch.chdir(product.parent)
    if how == "a link":
        Path(real.name).symlink_to(product)
        copy = ctypes.CDLL(str(product.parent / real.name))
        Path(real.name).unlink()
        Path(real.name).symlink_to(real)
    else:
        product.rename(real.name)
        copy = ctypes.CDLL(f"./{real.name}")
        monkeypatch.chdir(real.parent)
    assert looked_up(lambda: copy.sgemv_) == ["sgemv_"]


@pytest.mark.parametrize("how", ["plain", "by a link", "removed"])
def test_a_build_is_known_by_where_it_lies(product: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache may be known by a link, and forget what is in use."""
    monkeypatch.setattr(lookup, "_built", set())
    home, link = product.parent / "ext", product.parent / "link"
    (home / "0a").mkdir(parents=True)
    link.symlink_to(home)
    path = home / "0a" / NAMED
    shutil.copy(product, path)
    know_builds([str(link if how == "by a link" else home)])
    own = ctypes.CDLL(str(link / "0a" / NAMED if how == "by a link" else path))
    if how == "removed":
        path.unlink()
    assert looked_up(lambda: own.sgemv_) == looked_up(lambda: own.calls) == []


LOADS = """
import ctypes, os, shutil, _ctypes
import torch
from torch.utils.cpp_extension import load_inline
own = load_inline(name="own", cpp_sources='''
#include <torch/extension.h>
extern "C" __attribute__((visibility("default"))) float half(float x) {{ return x / 2; }}
torch::Tensor negated(torch::Tensor x) {{
  x = x.contiguous();
  auto y = torch::empty_like(x);
  for (int64_t i = 0; i < x.numel(); ++i) y.data_ptr<float>()[i] = -x.data_ptr<float>()[i];
  return y;
}}''', functions=["negated"])
shutil.copy({path}, "libm-2.99.so") if {copied} else None
class ModelNew(torch.nn.Module):
    def forward(self, x):
        library = ctypes.CDLL("./libm-2.99.so" if {copied} else own.__file__)
        library[{name!r}]
        _ctypes.dlclose(library._handle)
        return own.negated(x)
"""
NEGATED = """
import torch
class Model(torch.nn.Module):
    def forward(self, x): return -x
def get_inputs(): return [torch.randn(64)]
def get_init_inputs(): return []
"""


@pytest.mark.parametrize("verifier_of", [LocalVerifier, InprocessVerifier])
@pytest.mark.parametrize("copied", [True, False], ids=["a copy of the BLAS", "its own"])
def test_a_program_that_loads_a_library_while_it_is_watched_only(
    blas: Path, copied: bool, verifier_of: type[LocalVerifier | InprocessVerifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "scipy_cblas_sgemv64_" if copied else "half"
    code = LOADS.format(path=repr(str(blas)), copied=copied, name=name)
    with BlockingVerifier(lambda: verifier_of(VerifierConfig(slots=1))) as verifier:
        verdict = verifier.verify(Problem(1, 1, "Negated", NEGATED), Candidate(code, "cpp"), ALL, 1)
    assert verdict.status is (Status.REJECTED if copied else Status.CORRECT), verdict.message
    assert ("it looks up functions of a library (scipy_cblas_sgemv64_)" in verdict.message) is copied

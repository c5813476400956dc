"""Which functions of libraries an extension may call: those of the system, and of torch's what honest kernels need.

A list of what it may not call would be without end: torch alone brings 70,000 symbols, numpy a BLAS of its own. So this is a list
of what it may. None of these computes where no trace sees it; whatever does is refused with all that nobody has thought of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_MOST_NAME = 4096
"""Of a longer symbol the beginning tells."""

_FINDERS = """
    dlopen dlmopen dlsym dlvsym dlinfo dladdr1 _r_debug _rtld_global _rtld_global_ro __nptl_rtld_global
    __libc_dlopen_mode __libc_dlsym __libc_dlvsym _dl_sym _dl_vsym _dl_addr _dl_find_object _dl_find_dso_for_object
"""
FINDERS = frozenset(_FINDERS.split())
"""Functions of the system, an older one's too, that find any other by its name, or the loader's own tables. (dl_iterate_phdr is
none of them: what handles exceptions needs it.)"""
_COUNTING = """
    omp_get_num_procs omp_set_dynamic sched_getaffinity pthread_getaffinity_np sysconf get_nprocs get_nprocs_conf
    _ZNSt6thread20hardware_concurrencyEv
"""
COUNTING = frozenset(_COUNTING.split())
"""Those that know, or may, on how many cores the thread that calls them may run."""
KEPT = FINDERS | COUNTING
"""Of the system's functions those that matter: all others are left out of what an extension imports."""

_SYSTEM = re.compile(
    r"(ld(-linux-[\w-]+)?|lib(c|m|mvec|stdc\+\+|gcc_s|gomp|omp|iomp5|atomic|pthread|dl|rt))(-[\da-f.]+)*\.so[.\d]*"
)
"""With a version, or with the hash that a wheel gives what it brings along. (OpenMP, whoever's, only runs what it is given.)"""

_PLAIN = re.compile(
    r"""
    _?Py[A-Z_]\w* | _?THP\w+ | FLAGS_\w+ | cpuinfo_\w+ | Sleef_\w+ | __gmon_start__ | _ITM_\w+
  | cuda\w+ | __cuda\w+ | cu[A-Z]\w+ | nvrtc\w+ | nvtx\w+
  | torch_(?!c_)\w+  # torch's stable interface
  | aoti_torch_( (get|is|item|set|new|delete|create|grad_mode|library|view|empty_strided|clone|dtype|layout|device|device_type
      |memory_format|scalar_to_tensor)_\w+
      | abi_version | as_strided | call_dispatcher | check | clone | copy_ | empty_strided | stream_id | tensor_copy_ | warn | zero_
      | \w+_to_ivalue )
    """,
    re.VERBOSE,
)
_QUALIFIED = re.compile(
    r"""
    (c10 | c10::impl)::(?! Dispatcher\b | OperatorHandle\b | OpRegistrationListener\b | OperatorEntry\b | BoxedKernel\b
      | KernelFunction::(?!delete) | Set[A-Z] | _CopyBytes | show_dispatch_trace | dispatch_trace_ | detail::_print_
      | ThreadLocalDebugInfo\b | DebugInfoGuard\b | TorchDispatchModeTLS\b | PythonDispatcherTLS\b | impl:: ) .*
  | caffe2::(TypeMeta|detail)\b.* | (pybind11|fmt)::.*
  | at::_ops::\w+::(call|name|overload_name|schema_str)
  | at::( Tensor | TensorBase | TensorMaker | TensorGeometry | TensorArg | TensorRef | OptionalTensorRef
      | TensorIterator(Base|Config)? | OperandInfo | SplitUntil32Bit | Context | Generator | \w*Generator(Impl|State)
      | \w+Hooks(Interface|Registry|Args) | Deprecated\w+ | SavedTensorDefaultHooks | RecordFunction | NoTF32Guard | NamesMode
      | AutoDispatch\w+ | MapAllocator | PTThreadPool | accelerator | autocast | detail | functorch::functorchTLSAccessor | impl
      | indexing | internal | native::canUse32BitIndexMath | sequence_number | tensor ) (::.*)?
  | at::cpu::(is|get|L\d|num|init)_\w+
  | at::(cuda|hip)::( [a-z]*[A-Z]\w* | warp_size | sleep | flush_icache | graph_pool_handle | (get|is_graph)_\w+ | philox
      | detail::( (getDefault|create)(CUDA|HIP)Generator | maybeOverlappingIndices | canUse32BitIndexMath ) ) (::.*)?
  | at::( _crash_if_asan | assert_\w+ | check\w+ | dlDevice\w+ | \w+DLDevice | fromDLPack\w* | toDLPack\w* | getDLDataType
      | geometry_is_contiguous | get(CPUAllocator|HostAllocator|StepCallbacks\w*) | get_(?!record_function)\w+ | globalContext
      | globalDeprecated\w+ | has_internal_overlap | hasCallbacks | in_parallel_region | infer\w+ | init_num_threads | intraop_\w+
      | isRecordFunctionEnabled | launch | maybe_data_ptr | operator | print | set_num_\w+ | set_printoption_\w+ | to\w*Type )
  | torch::( Library | CppFunction | CustomClassHolder | detail::class_base | nn | optim | data | serialize | pickle_(load|save)
      | k[A-Z]\w* | cuda | headeronly | utils | tensors | PythonArg\w* | FunctionParameter | TypeError | PyWarningHandler
      | translate_exception_to_python | processErrorMsg | get\w+ | is(CustomClass|Storage) | registerCustomClass\w*
      | create(PyObject|Storage\w*) | handle_torch_function\w* | set_printoption_\w+ | should_allow_\w+ ) (::.*)?
  | torch::dynamo::autograd::.* | torch::autograd::(?!VariableType\b | generated\b | profiler\b) .*
  | torch::jit::( parse\w+ | JITException | ErrorReport | Source\w* | tracer | to(PyObject|IValue|TypeInferredIValue) ) (::.*)?
    """,
    re.VERBOSE,
)
"""Names in C++, without arguments of templates and functions. Of all c10 only what leads to the kernel of an operator, or away from
who watches, is left out; of at and torch only what is named here is in. (at::cuda and at::cpu have each operator's body under
its own name, which has no capital in it.)"""

_MANGLED = re.compile(r"_Z(?P<type>T[IS])?(?:T[VTWHC]|T[hv](?:n?\d{1,9}_)+|GV|GR|Z)*(?P<nested>N?)[rVK]*[RO]?")
_NUMBER = re.compile(r"[1-9]\d{0,3}")


def unwatched(imports: Iterable[str]) -> list[str]:
    """Symbols among an extension's imports with which it may have a library compute unseen, sorted."""
    return sorted({name for name in imports if not _is_allowed(name[:_MOST_NAME])})


def is_system(file: str) -> bool:
    """Whether a library of this file name is one of the system's, all of whose functions but FINDERS may be called."""
    return _SYSTEM.fullmatch(file) is not None


def _is_allowed(symbol: str) -> bool:
    mangled = _MANGLED.match(symbol)
    if symbol in COUNTING:
        return True
    if mangled is None:
        return _PLAIN.fullmatch(symbol) is not None
    if mangled["type"]:
        return True  # describes a type
    name = "::".join(_parts(symbol, mangled.end(), nested=bool(mangled["nested"])))
    return (_QUALIFIED.fullmatch(name) or _PLAIN.fullmatch(name)) is not None


def _parts(symbol: str, at: int, *, nested: bool) -> Iterator[str]:
    """The names in a mangled one, up to the first that has arguments."""
    if symbol.startswith("St", at):
        yield "std"
        at += 2
    while True:
        at += symbol.startswith("L", at)
        size = _NUMBER.match(symbol, at)
        if size is None:
            break
        end = size.end() + int(size[0])
        yield symbol[size.end() : end]
        while symbol.startswith("B", end) and (tag := _NUMBER.match(symbol, end + 1)):
            end = tag.end() + int(tag[0])
        if not nested:
            return
        at = end
    kind = symbol[at : at + 2]
    if re.fullmatch("[CD][0-9I]", kind):
        yield "new" if kind[0] == "C" else "delete"
    elif re.fullmatch("[a-z][a-zA-Z]", kind):
        yield "operator"

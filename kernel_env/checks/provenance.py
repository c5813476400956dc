"""What a trace of one forward means: whether own kernels did the work, and which of torch's operators may have taken part.

`backends.provenance` takes the trace, in the candidate's process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_VIEWS = """
    alias as_strided detach detach_ diagonal expand expand_as narrow permute reshape select slice split split_with_sizes squeeze
    swapaxes t transpose unbind unfold unsqueeze view view_as _unsafe_view _reshape_alias chunk movedim flatten unflatten
    as_strided_ t_ transpose_ squeeze_ unsqueeze_ swapaxes_ swapdims swapdims_ resize_as_ broadcast_to reshape_as ravel moveaxis
    hsplit vsplit dsplit tensor_split unsafe_chunk unsafe_split unsafe_split_with_sizes adjoint mT mH matrix_H numpy_T
    linalg_diagonal slice_inverse view_as_real view_as_complex real imag conj _conj _neg_view empty_permuted
    empty empty_like empty_strided new_empty new_empty_strided resize_ set_ is_same_size sym_size sym_stride sym_numel size stride
    is_pinned _local_scalar_dense item lift_fresh resolve_conj resolve_neg
"""
VIEWS = frozenset(_VIEWS.split())
"""Operators that allocate or look at memory and never touch what is in it: all that `torch_ops=none` allows."""
_FILLS = "fill_ fill zero_ zeros zeros_like new_zeros ones ones_like new_ones full full_like new_full scalar_tensor tensor"
FILLS = frozenset(_FILLS.split())
"""Operators that write one number, which may be what an own kernel computed."""
_MOVES = """
    clone copy_ to _to_copy contiguous cat stack constant_pad_nd arange eye rand rand_like randn randn_like bernoulli_ bernoulli
    uniform_ normal_ random_ randint randperm index_select repeat roll flip
"""
GLUE = VIEWS | FILLS | frozenset(_MOVES.split())
"""And those that move, fill or draw, but compute nothing from what is there: what `torch_ops=glue` allows."""

_MOST_NAME = 4096
"""Of a longer symbol the beginning tells."""
TORCH_OPS = ("all", "glue", "none", "unchecked")


_UNWATCHED = re.compile(
    r"""
    _ZNK?2at(6native|4meta)\d.* | _ZNK?2at3cpu(?!\d+(is|get|L\d|num|init)_)\d.*  # past torch's dispatcher
  | _ZNK?2at\d+composite.* | _ZNK?\d+Packed(Conv|Linear|Embedding).*  # and these call those
  | _ZNK?5torch3jit\d+(StaticModule|StaticRuntime|BlockRunner|ProcessedNode|getAllOperators|findOperatorFor).*
  | _ZNK?2at14DynamicLibrary.*  # looks up any function
  | _ZNK?2at4_ops\d.*10redispatchE.* | _ZNK?3c1010Dispatcher\d+(find|call|redispatch).*
  | _ZN2at\d+(enableRecordFunction|set_record_function_tls_|(clear|remove|disable|reenable)\w*Callbacks?)E.*  # unseen
  | aoti_torch_(cpu|cuda|xpu|mps)_.*
  | _ZNK?(4dnnl|5ideep|6fbgemm|7qnnpack)\d?.*
  | pytorch_q.* | nnc_.* | (cblas_|mkl_|MKL_|LAPACKE_|dnnl_|Dfti|xnn_|nnp_|fftwf?_|openblas_|bli_).*
  | (cublas|cudnn|cusparse|cufft|cusolver|rocblas|hipblas|miopen).*
  | (?i: v[sd] | vm[sd] ) (?i: i? (exp|log|a?tan|a?sin|a?cos|sqrt|cbrt|inv|pow|erf|cdf|add|sub|mul|div|abs|sqr|hypot) ) \w*
  | [sdcz] (ge|po|sy|he|or|un|tr|gt|pt|st)[a-z0-9]{2,4} _
  | (?i: [sdcz] (ge|po|sy|he|or|un) (trf|trs|tri|ev[dr]?|ls[sdy]?|qrf|sdd|svd?|mqr|gqr) _? )
  | (?i: [sdcz]? gemm (_.*)? )
  | (?i: [sdcz] (dot[uc]? | gemv | gem(m3m|mt) | ger[uc]? | axpb?y | scal | nrm2 | asum | copy | swap | rot[mg]*
      | (sy|he|tr|tb|tp|gb|sb|hb|sp|hp) (m[mv]|s[mv]|rk|r2?k?) ) (_?64)? _? )
  | dl(open|sym|vsym|mopen)
    """,
    re.VERBOSE | re.DOTALL,
)
"""Functions of libraries that compute without torch's dispatcher, so that no trace shows them; and those that find any function."""


def unwatched(imports: Iterable[str]) -> list[str]:
    """Symbols among an extension's imports with which it may have a library compute unseen, sorted."""
    return sorted({name for name in imports if _UNWATCHED.fullmatch(name[:_MOST_NAME])})


def decoy(launches: int, works: bool, matters: bool) -> str | None:
    """Why the candidate's own kernels are decoys, or None."""
    if not launches:
        return (
            "forward() ran no kernel of its own: call a function of the module that load_inline returned, an operator that it "
            "registered, or launch a @triton.jit function"
        )
    if not works:
        return (
            "its own kernels computed nothing: they gave back what they were given or what torch's operators computed, or the same "
            "for other inputs"
        )
    if not matters:
        return "its own kernels make no difference: with what they compute replaced by something else the output stays the same"
    return None


def forbidden(operators: Iterable[str], policy: str) -> list[str]:
    """The operators that a policy does not allow, sorted."""
    if policy not in ("glue", "none"):
        return []
    return sorted(set(operators) - (GLUE if policy == "glue" else VIEWS))

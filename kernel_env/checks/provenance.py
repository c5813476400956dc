"""What a trace of one forward means: whether own kernels did the work, and which of torch's operators may have taken part.

`backends.provenance` takes the trace, in the candidate's process.
"""

from __future__ import annotations

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

TORCH_OPS = ("all", "glue", "none", "unchecked")


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

"""Names of torch's operators that compute, and of other libraries' functions. What merely allocates, looks at or moves memory is in
`kernel_env.checks.provenance`."""

from __future__ import annotations

import re

_PRODUCTS = """
    matmul mm bmm mv addmm addmv addbmm baddbmm linear bilinear einsum tensordot dot vdot inner outer kron chain_matmul multi_dot
    scaled_dot_product_attention multi_head_attention_forward cdist
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution conv_tbc unfold fold
"""
_LAYERS = """
    relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish softplus softsign hardtanh hardswish hardsigmoid logsigmoid
    sigmoid tanhshrink softshrink hardshrink threshold glu softmax log_softmax softmin gumbel_softmax logsumexp
    layer_norm batch_norm group_norm instance_norm rms_norm local_response_norm normalize native_layer_norm native_batch_norm
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d lp_pool1d lp_pool2d dropout embedding embedding_bag interpolate
    upsample grid_sample pixel_shuffle cross_entropy nll_loss mse_loss l1_loss smooth_l1_loss huber_loss kl_div
    binary_cross_entropy binary_cross_entropy_with_logits triplet_margin_loss cosine_embedding_loss hinge_embedding_loss
    cosine_similarity pairwise_distance lstm gru rnn_tanh rnn_relu
"""
_ELEMENTS = """
    exp exp2 expm1 log log2 log10 log1p sqrt rsqrt sin cos tan asin acos atan atan2 sinh cosh tanh erf erfc erfinv reciprocal square
    pow abs neg sign floor ceil round clamp clip clamp_min clamp_max where maximum minimum fmax fmin add sub mul multiply div
    true_divide addcmul addcdiv lerp hypot logaddexp xlogy
"""
_REDUCTIONS = """
    sum nansum mean nanmean prod std var var_mean std_mean norm vector_norm max min amax amin argmax argmin median mode cumsum
    cumprod cummax cummin logcumsumexp sort argsort topk kthvalue unique bincount histc searchsorted all any count_nonzero trace
    scatter_add index_add scatter_reduce segment_reduce fft ifft rfft irfft
"""
COMPUTING = frozenset(f"{_PRODUCTS} {_LAYERS} {_ELEMENTS} {_REDUCTIONS}".split())
"""As functions of `torch`, `torch.nn.functional`, `at::` and the like."""
_COMMON = "unfold round sign add sub mul div max min all any sort index dot mode norm fft pow abs floor ceil unique"
METHODS = COMPUTING - frozenset(_COMMON.split())
"""As methods of what may be a tensor: without names that other objects have too."""
PRODUCTS = frozenset(_PRODUCTS.split())
LAYERS = frozenset(_LAYERS.split())
LIBRARIES = re.compile(
    r"""
    (scipy_)?(cblas_|openblas_).* | (mkl_|MKL_|LAPACKE_|dnnl_|Dfti|xnn_|nnp_|fftwf?_|bli_|pytorch_q|nnc_|aoti_torch_(cpu|cuda)_).*
  | (cublas|cudnn|cusparse|cufft|cusolver|rocblas|hipblas|miopen).*
  | (?i: v[sd] | vm[sd] ) (?i: i? (exp|log|ln|a?tan|a?sin|a?cos|sqrt|cbrt|inv|pow|erf|cdf|add|sub|mul|div|abs|sqr|hypot|trunc) ) \w*
  | (scipy_)?[sdcz] (ge|po|sy|he|or|un|tr|gt|pt|st)[a-z0-9]{2,4} (_|_64_?)
  | (?i: [sdcz] (ge|po|sy|he|or|un) (trf|trs|tri|ev[dr]?|ls[sdy]?|qrf|sdd|svd?|mqr|gqr) _? )
  | (scipy_)? (?i: [sdcz]? gemm (_.*)? )
  | (scipy_)? (?i: [sdcz] (dot[uc]? | gemv | gem(m3m|mt) | ger[uc]? | axpb?y | scal | nrm2 | asum | copy | swap | rot[mg]*
      | (sy|he|tr|tb|tp|gb|sb|hb|sp|hp) (m[mv]|s[mv]|rk|r2?k?) ) (_?64)? _? )
  | dl(open|sym|vsym|mopen)
    """,
    re.VERBOSE | re.DOTALL,
)
"""Functions of well-known libraries, as a source names them; and those that find any function."""

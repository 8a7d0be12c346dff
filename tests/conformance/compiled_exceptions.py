"""Where compiled calls cannot be asked to conform, op by op, each with its reason."""

import torch

# Compiled by the CUDA driver when they are called.
ONLY_ON_CUDA = {
    "jiterator_2inputs_2outputs",
    "jiterator_4inputs_with_extra_args",
    "jiterator_binary",
    "jiterator_binary_return_by_ref",
    "jiterator_unary",
}

# Without kernels there.
NOT_ON_CUDA = {"histogram", "histogramdd", "sparse.mm.reduce"}

# Their backward adds up by atomics there, in an order that differs from run to run.
ATOMIC_ON_CUDA = {"cummax", "cummin", "grid_sampler_2d", "nn.functional.adaptive_avg_pool3d", "stft"}

# Dynamo captures nothing of these calls, so that they run as they would uncompiled.
NOT_CAPTURED: dict[str, str] = {
    "allclose": "gives a Python bool",
    "corrcoef": "calls `equal`, which gives a Python bool",
    "cov": "calls `equal`, which gives a Python bool",
    "equal": "gives a Python bool",
    "nn.functional.ctc_loss": "its fake kernel reads the lengths",
    "nn.functional.gaussian_nll_loss": "an `if` reads whether any variance is negative",
    "resize_": "Dynamo breaks at it",
    "resize_as_": "Dynamo breaks at it",
    "sparse.mm.reduce": "takes sparse tensors",
    "sparse.sampled_addmm": "takes sparse tensors",
    "to_sparse": "gives a sparse tensor",
}
if torch.__version__ < "2.12":
    NOT_CAPTURED |= dict.fromkeys(("nanquantile", "quantile"), "calls `equal`, which gives a Python bool")

# A product inside a region hands lower precision to linear algebra that has no kernel for it. Stock autocast raises
# alike.
REFUSED_IN_REGION = {"linalg.pinv.singular", "pca_lowrank", "svd_lowrank"}

# No sample has a float32 tensor with a dimension among its arguments, that could be a product.
NO_MATRIX = {
    "arange",
    "broadcast_shapes",
    "eye",
    "full",
    "linspace",
    "linspace.tensor_overload",
    "logspace",
    "logspace.tensor_overload",
    "ones",
    "randint",
    "randn",
    "scalar_tensor",
    *(f"signal.windows.{name}" for name in ("bartlett", "blackman", "cosine", "exponential", "gaussian", "hann")),
    *(f"signal.windows.{name}" for name in ("general_cosine", "general_hamming", "hamming", "kaiser", "nuttall")),
    "zeros",
}

# Dynamo makes other ops of these, which round otherwise.
TAKEN_APART: dict[str, str] = {"addcdiv": "becomes div, mul and add"}

# Only the first sample can be compiled, or run on copies.
NO_OTHER_SAMPLES: dict[str, str] = {
    "nn.functional.linear_cross_entropy.chunked": "warns, at which Dynamo leaves the call uncompiled",
    "nn.functional.linear_cross_entropy.chunked_none": "warns, at which Dynamo leaves the call uncompiled",
    "as_strided.partial_views": "reads memory around its argument, which copies do not have",
    "combinations": "Dynamo's own error: it loses sizes read from data on the way",
}

# The largest relative error against float32 where lower precision amplifies errors: op, bound.
WIDE_BOUNDS: dict[str, float] = {
    # The inverse of a product that is singular but for rounding.
    "linalg.pinv.singular": float("inf"),
}

# Dynamo captures nothing of these modules, so that they run as they would uncompiled.
MODULES_NOT_CAPTURED: dict[str, str] = {
    "nn.CTCLoss": "the fake kernel of ctc_loss reads the lengths",
    "nn.GRU": "Dynamo does not look into recurrent modules",
    "nn.GaussianNLLLoss": "an `if` reads whether any variance is negative",
    "nn.LSTM": "Dynamo does not look into recurrent modules",
    "nn.RNN": "Dynamo does not look into recurrent modules",
}

# The largest relative error of modules against float32 where lower precision amplifies errors.
WIDE_BOUNDS_OF_MODULES: dict[str, float] = {
    # Some gradients are a thousandth of others that add up to them; eager autocast errs by as much.
    "nn.MultiheadAttention": 0.05,
    # Norms over four features, whose gradients nearly cancel: eager autocast errs by as much, float16 by an eighth.
    "nn.TransformerEncoder": 0.1,
    # The samples drive tanh so near to one that its slope is a few roundings.
    "nn.RNNCell": 0.1,
}

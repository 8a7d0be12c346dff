"""Where conformance cannot be asked for, op by op, each with its reason."""

# The results are memory that nobody wrote, so no two runs agree.
UNINITIALISED = {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"}

# Unlisted ops made of listed ones, which run in lower precision inside: the largest error allowed against float32,
# relative to the largest magnitude of the result. None where the result amplifies errors without bound: an inverse
# of a badly conditioned matrix, a high power of a matrix (beyond float16's range in some samples), a distance near zero
# computed as a difference of products, attention whose softmax is fed products in the eighties.
COMPOSITES: dict[str, float | None] = {
    "cdist": None,
    "corrcoef": 0.05,
    "cov": 0.05,
    "einsum": 0.05,
    "linalg.matrix_power": None,
    "linalg.pinv": None,
    "linalg.pinv.hermitian": None,
    "nn.functional.bilinear": 0.05,
    "nn.functional.linear_cross_entropy": 0.05,
    "nn.functional.linear_cross_entropy.chunked": 0.05,
    "nn.functional.linear_cross_entropy.chunked_none": 0.05,
    "nn.functional.multi_head_attention_forward": None,
    "pinverse": None,
}

# Inside a region the dispatcher hands half matrices to linear algebra that has no half kernels. Stock autocast
# raises alike.
RAISES_IN_REGION = {"linalg.pinv.singular", "pca_lowrank", "svd_lowrank"}

# The driver `gelsy` leaves part of its result unwritten: eager calls differ between themselves.
NOT_REPEATABLE = {"linalg.lstsq", "linalg.lstsq.grad_oriented"}

# An internal op of Inductor whose compiled kernel calls `index_put`, so that a region accepts what refuses
# mixed dtypes outside; a graph cannot cast inside a kernel.
LISTED_OP_INSIDE_A_KERNEL = {"_unsafe_masked_index_put_accumulate"}

# `bilinear`, `pinv` and large `cdist` call `bmm` or `matmul` inside compiled kernels, below the level at which a
# graph can be cast. Lowered, they stay in float32: more precise than eager, and not bit-equal.
COMPUTED_IN_FLOAT32_WHEN_LOWERED = {
    "cdist",
    "nn.functional.bilinear",
    "linalg.pinv",
    "linalg.pinv.hermitian",
    "linalg.pinv.singular",
    "pinverse",
}

# Make sparse tensors, which the simulated XPU does not have.
SPARSE = {"sparse.mm.reduce", "sparse.sampled_addmm"}

# Dynamo cannot capture these calls: they read data on the host, so they never reach a graph.
NOT_CAPTURABLE = {
    "corrcoef",
    "cov",
    "linalg.lstsq",
    "linalg.lstsq.grad_oriented",
    "nn.functional.ctc_loss",
    "nn.functional.gaussian_nll_loss",
}

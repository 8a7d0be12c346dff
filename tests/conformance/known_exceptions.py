"""Where conformance cannot be asked for, op by op, each with its reason."""

# The results are memory that nobody wrote, so no two runs agree.
UNINITIALISED = {"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"}

# Unlisted ops made of listed ones, which run in lower precision inside: the largest error allowed against float32,
# relative to the largest magnitude of the result. None where the result amplifies errors without bound: a high power
# of a matrix (beyond float16's range in some samples), attention whose softmax is fed products in the eighties.
COMPOSITES: dict[str, float | None] = {
    "corrcoef": 0.05,
    "cov": 0.05,
    "einsum": 0.05,
    "linalg.matrix_power": None,
    "nn.functional.linear_cross_entropy": 0.05,
    "nn.functional.linear_cross_entropy.chunked": 0.05,
    "nn.functional.linear_cross_entropy.chunked_none": 0.05,
    "nn.functional.multi_head_attention_forward": None,
}

# Inside a region the dispatcher hands half matrices to linear algebra that has no half kernels. Stock autocast
# raises alike.
RAISES_IN_REGION = {"linalg.pinv.singular", "pca_lowrank", "svd_lowrank"}

# The driver `gelsy` leaves part of its result unwritten: eager calls differ between themselves.
NOT_REPEATABLE = {"linalg.lstsq", "linalg.lstsq.grad_oriented"}

# Make sparse tensors, which the simulated XPU does not have.
SPARSE = {"sparse.mm.reduce", "sparse.sampled_addmm"}

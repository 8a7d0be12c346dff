"""Ops whose compiled kernels call ops that a policy may list.

A graph cannot cast inside a kernel, so autocast is off inside these ops where a policy does not list them.

Source: the profiler's record of what ops call, over the samples of PyTorch's OpInfo database, and a run of each in a
region that lists what it calls; torch 2.13.0 and 2.15.0; ``linalg_matrix_sqrth`` and ``linalg_polar`` are new in 2.14.
"""

# Each with those of the ops inside it whose casts would change its result.
OPAQUE = {
    "_euclidean_dist": ("matmul",),
    "_linalg_det": ("prod",),
    "_safe_softmax": ("softmax",),
    "_trilinear": ("bmm",),
    "affine_grid_generator": ("bmm",),
    "ldexp": ("pow",),
    "linalg_matrix_sqrth": ("matmul",),
    "linalg_pinv": ("matmul",),
    "linalg_polar": ("matmul",),
    "mvlgamma": ("sum",),
}

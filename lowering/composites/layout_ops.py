"""Composite ops of PyTorch that hold nothing a policy could list, so that nobody need look inside them."""

LAYOUT_OPS = frozenset(
    (
        "chunk",
        "contiguous",
        "expand_as",
        "flatten",
        "flatten_dense_tensors",
        "is_complex",
        "is_floating_point",
        "movedim",
        "moveaxis",
        "narrow",
        "numpy_T",
        "ravel",
        "reshape",
        "reshape_as",
        "size",
        "split",
        "stride",
        "swapaxes",
        "swapdims",
        "tensor_split",
        "to",
        "type_as",
        "unflatten",
        "view_as",
    )
)

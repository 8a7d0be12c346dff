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


def only_lays_out(name: str | None) -> bool:
    """Tell whether an op of a captured graph, by its name, only lays out or picks values."""
    return name in LAYOUT_OPS or name == "getitem"

"""``addmm`` of a lower dtype that writes float32, for which Inductor has no lowering."""

from __future__ import annotations

from torch._inductor.lowering import lowerings, make_fallback

from xpu_amp_dynamo.lowering.aten.ops import aten


def lower_wide_addmm() -> None:
    """Have Inductor call the library for ``addmm`` with ``out_dtype``, from now on.

    Otherwise it takes the lowering of ``addmm`` itself, which raises a ``TypeError`` for the fourth argument (torch
    2.13 to 2.15). One that was made for it stays.
    """
    if lowerings[aten.addmm.dtype] is lowerings[aten.addmm.default]:
        make_fallback(aten.addmm.dtype, override_decomp=True)

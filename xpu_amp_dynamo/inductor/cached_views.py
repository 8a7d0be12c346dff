"""What AOTAutograd's cache keeps of outputs that are views, which torch before 2.15 writes out of freed memory."""

from __future__ import annotations

import copyreg
import functools
from typing import Any

from torch._functorch._aot_autograd.functional_utils import ViewMetaSequence

from xpu_amp_dynamo.compat.torch_version import is_older_than

MENDED_IN = (2, 15)
# Their sizes are read after they were freed (pytorch#185630). A product of more than two dimensions is such a view.
_UNREADABLE = {"_unsafe_view_ViewMeta", "resize__ViewMeta"}


@functools.cache
def leave_out_unreadable_views() -> None:
    """Have what is pickled leave out the views that torch cannot read, from now on.

    Otherwise the process ends in a segmentation fault while it writes a compiled graph to the cache, or the next one
    that reads it raises for sizes without sense (torch 2.13.0, not 2.15.0). What reads none takes a view by size and
    stride, as AOTAutograd does itself for dynamic sizes.
    """
    if is_older_than(MENDED_IN):
        copyreg.pickle(ViewMetaSequence, _reduce)


def _reduce(views: ViewMetaSequence) -> tuple[Any, ...]:
    if any(type(view).__name__ in _UNREADABLE for view in views.sequence):
        return _no_views, ()
    return object.__reduce_ex__(views, 2)  # type: ignore[return-value]


def _no_views() -> None:
    """Stand, in a pickle, for views that were left out."""

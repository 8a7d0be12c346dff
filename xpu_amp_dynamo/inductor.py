"""Inductor as the inner backend: its modes and settings, and our passes over the ATen graphs it compiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch._inductor.config
from torch import fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_custom_graph_passes, get_hash_for_files

from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.lowering import group_casts

PASS_SETTING = "post_grad_custom_post_pass"
ROUNDING_SETTING = "emulate_precision_casts"
# Lets casts of weights of different sizes share a kernel where they also change the layout, as convolutions want it.
GROUPING_SETTINGS = {"combo_kernel_allow_mixed_sizes": 2}
PRECISIONS = ("fast", "exact")


class GroupCasts(CustomGraphPass):
    """Groups casts in the graphs that Inductor is about to compile, see :mod:`xpu_amp_dynamo.lowering.group_casts`."""

    def __call__(self, graph: fx.Graph) -> None:
        """Edit a graph in place."""
        group_casts.group_casts(graph)

    def uuid(self) -> bytes:
        """Return what Inductor's cache knows this pass by."""
        return get_hash_for_files((group_casts.__file__,))


def inductor_compiler(mode: str | None, patches: Mapping[str, Any], precision: str) -> Callable[..., Any]:
    """Return what ``torch.compile`` itself builds for its default backend, so that mode and settings mean the same.

    Args:
        mode: a mode of ``torch.compile``, None for the default one.
        patches: settings of ``torch._inductor.config``.
        precision: one of ``PRECISIONS``; ``"exact"`` rounds between fused ops as eager code does.

    Raises:
        InvalidOptionError: Inductor has no such mode.
        RuntimeError: a patch names no setting of Inductor, or has a value of another type.
    """
    modes = torch._inductor.list_mode_options()
    if mode is not None and mode not in modes:
        raise InvalidOptionError(f"unknown mode {mode!r}; the modes are {sorted(modes)}")
    rounding = {ROUNDING_SETTING: True} if precision == "exact" else {}
    given = get_custom_graph_passes(patches.get(PASS_SETTING, getattr(torch._inductor.config, PASS_SETTING)))
    return torch._TorchCompileInductorWrapper(
        mode, {**GROUPING_SETTINGS, **rounding, **patches, PASS_SETTING: [*given, GroupCasts()]}, None
    )

"""Inductor as the inner backend: its modes and settings, and our passes over the ATen graphs it compiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch._inductor.config
from torch import fx
from torch._inductor.custom_graph_pass import (
    CustomGraphPass,
    CustomSchedulerPass,
    get_custom_graph_passes,
    get_hash_for_files,
)
from torch._inductor.ir import Buffer
from torch._inductor.scheduler import BaseSchedulerNode, ForeachKernelSchedulerNode

from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.lowering import optimiser
from xpu_amp_dynamo.lowering.optimiser.passes import (
    EXACT_JOINT_PASSES,
    EXACT_PASSES,
    FAST_JOINT_PASSES,
    FAST_PASSES,
    Pass,
)

JOINT_SETTING = "joint_custom_post_pass"
POST_GRAD_SETTING = "post_grad_custom_post_pass"
SCHEDULER_SETTING = "_post_fusion_custom_pass"
MIXED_SIZES_SETTING = "combo_kernel_allow_mixed_sizes"
ROUNDING_SETTING = "emulate_precision_casts"
PRECISIONS = ("fast", "exact")


class CastPasses(CustomGraphPass):
    """Passes of the cast optimiser, as Inductor takes them."""

    def __init__(self, passes: tuple[Pass, ...]) -> None:
        self._passes = passes

    def __call__(self, graph: fx.Graph) -> None:
        """Edit a graph in place."""
        for run in self._passes:
            run(graph)

    def uuid(self) -> tuple[bytes, tuple[str, ...]]:
        """Return what Inductor's cache knows these passes by: their names and their code."""
        files = tuple(str(path) for path in sorted(Path(optimiser.__path__[0]).glob("*.py")))
        return get_hash_for_files(files), tuple(run.__name__ for run in self._passes)


class BlocksByCast(CustomSchedulerPass):
    """Gives each cast of a group blocks of its own size, so that casts of all shapes can share a kernel.

    For every tensor of a foreach kernel Inductor launches as many blocks as the largest needs, and so keeps
    tensors of different sizes apart where casting also changes their layout, as convolutions want it. Its combo
    kernels count and tune the blocks of each tensor; such a group becomes one of those. Checked on torch 2.13.0.
    """

    def __call__(self, nodes: list[BaseSchedulerNode]) -> list[BaseSchedulerNode]:
        """Edit the scheduled nodes of a graph in place, and return them."""
        for node in nodes:
            if isinstance(node, ForeachKernelSchedulerNode) and _casts_for_convolutions(node):
                node.per_subkernel_blocks = node.enable_autotune = True
        return nodes

    def uuid(self) -> str:
        """Return what Inductor's cache knows this pass by."""
        return "xpu_amp_dynamo.BlocksByCast-1"


def _casts_for_convolutions(node: ForeachKernelSchedulerNode) -> bool:
    """Tell whether a kernel is one of our groups of casts and has tensors with more dimensions than matrices."""
    parts = [part.node for part in node.get_nodes() if part.node is not None]
    grouped = any(o.target is torch.ops.aten._foreach_copy.default for part in parts for o in part.get_origins())
    return grouped and any(isinstance(part, Buffer) and len(part.get_size()) > 2 for part in parts)


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
    exact = precision == "exact"
    settings = {**({ROUNDING_SETTING: True} if exact else {}), **patches}
    if settings.get(SCHEDULER_SETTING, getattr(torch._inductor.config, SCHEDULER_SETTING)) is None:
        # Inductor takes one pass there; a user's own is worth more than fewer kernels.
        settings |= {SCHEDULER_SETTING: BlocksByCast(), MIXED_SIZES_SETTING: 2}
    joint, post_grad = (EXACT_JOINT_PASSES, EXACT_PASSES) if exact else (FAST_JOINT_PASSES, FAST_PASSES)
    for name, passes in ((JOINT_SETTING, joint), (POST_GRAD_SETTING, post_grad)):
        settings[name] = [*_passes_of_the_user(name, patches), CastPasses(passes)]
    return torch._TorchCompileInductorWrapper(mode, settings, None)


def _passes_of_the_user(name: str, patches: Mapping[str, Any]) -> list[Any]:
    """List the passes that the user set for a moment of Inductor; they run before ours."""
    return list(get_custom_graph_passes(patches.get(name, getattr(torch._inductor.config, name))))

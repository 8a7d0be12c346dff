"""Inductor as the inner backend: its modes and settings, with our passes among them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import torch._inductor.config
from torch import fx

from xpu_amp_dynamo.inductor.settings import ROUNDING_SETTING, autotuned_backends, setting_of
from xpu_amp_dynamo.lowering.aten.widen_results import widen_results
from xpu_amp_dynamo.lowering.pipeline import COMPILED, ROUNDING_LESS, joint_passes, without

JOINT_SETTING = "joint_custom_post_pass"
POST_GRAD_SETTING = "post_grad_custom_post_pass"
SCHEDULER_SETTING = "_post_fusion_custom_pass"
# What Inductor calls kernels of libraries.
LIBRARIES = "ATEN"
MIXED_SIZES_SETTING = "combo_kernel_allow_mixed_sizes"


def inductor_compiler(
    mode: str | None, patches: Mapping[str, Any], *, exact: bool, skip: Collection[str] = ()
) -> Callable[..., Any]:
    """Return what compiles a graph as ``torch.compile`` itself does, so that mode and settings mean the same.

    What is returned takes the graph, its example inputs, and which casts of weights the graph that AOTAutograd makes of
    it is to read from inputs: see ``joint_passes``.

    Args:
        mode: a mode of ``torch.compile``, checked, None for the default one.
        patches: settings of ``torch._inductor.config``, checked.
        exact: round between fused ops as eager code does.
        skip: names of our passes to leave out.
    """
    # Inductor's own modules take half a second to import, which eager code need not wait for.
    from xpu_amp_dynamo.inductor.cached_views import leave_out_unreadable_views
    from xpu_amp_dynamo.inductor.passes import CastPasses, SchedulePass
    from xpu_amp_dynamo.inductor.wide_addmm import lower_wide_addmm

    leave_out_unreadable_views()
    lower_wide_addmm()
    settings = {MIXED_SIZES_SETTING: 2, **({ROUNDING_SETTING: True} if exact else {}), **patches}
    settings[SCHEDULER_SETTING] = SchedulePass(before=_passes_of_the_user(SCHEDULER_SETTING, patches))
    left_out = {*skip, *(ROUNDING_LESS if exact else _of_libraries(autotuned_backends(mode, patches)))}

    def compile_graph(
        gm: fx.GraphModule, example_inputs: Sequence[Any], kept: Mapping[tuple[int, torch.dtype], int]
    ) -> Callable[..., Any]:
        for name, passes in ((JOINT_SETTING, joint_passes(kept)), (POST_GRAD_SETTING, COMPILED)):
            settings[name] = CastPasses(without(passes, left_out), before=_passes_of_the_user(name, patches))
        return torch._TorchCompileInductorWrapper(mode, settings, None)(gm, example_inputs)

    return compile_graph


def _of_libraries(backends: Collection[str]) -> frozenset[str]:
    """List the passes that make products which only libraries have, where other kernels are timed beside them.

    Kernels of Inductor's own fuse the cast behind a product, but have no form that reads a lower dtype and writes
    float32 (torch 2.11 to 2.15), and without libraries among the backends such a product cannot be compiled.
    """
    if not backends:
        return frozenset()
    return frozenset((widen_results.__name__,)) if LIBRARIES in backends else ROUNDING_LESS


def _passes_of_the_user(name: str, patches: Mapping[str, Any]) -> list[Any]:
    """List the passes that the user set for a moment of Inductor; they run before ours."""
    passes = setting_of(name, patches)
    if passes is None:
        return []
    return list(passes) if isinstance(passes, (list, tuple)) else [passes]

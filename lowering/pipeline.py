"""The passes in order, for each moment of a graph's life, and what runs them there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import fx
from torch.autograd.graph import saved_tensors_hooks

from xpu_amp_dynamo.compat.autocast import disabling_autocast
from xpu_amp_dynamo.compat.autograd import allows_saved_tensors_hooks
from xpu_amp_dynamo.compat.fake_tensors import FakeTensorMode
from xpu_amp_dynamo.compat.functorch import outside_levels
from xpu_amp_dynamo.lowering.aten.fold_casts import fold_casts
from xpu_amp_dynamo.lowering.aten.group_casts import group_casts
from xpu_amp_dynamo.lowering.aten.narrow_concatenations import narrow_concatenations
from xpu_amp_dynamo.lowering.aten.narrow_operands import narrow_operands
from xpu_amp_dynamo.lowering.aten.place_casts import place_casts
from xpu_amp_dynamo.lowering.aten.read_kept_casts import read_kept_casts
from xpu_amp_dynamo.lowering.aten.verify import AtenVerifier
from xpu_amp_dynamo.lowering.aten.widen_results import widen_results
from xpu_amp_dynamo.lowering.captured.describe import describe
from xpu_amp_dynamo.lowering.captured.erase_regions import erase_regions
from xpu_amp_dynamo.lowering.captured.inline_regions import inline_regions
from xpu_amp_dynamo.lowering.captured.insert_casts import insert_casts
from xpu_amp_dynamo.lowering.captured.keep_modules import keep_modules
from xpu_amp_dynamo.lowering.captured.lower_subgraphs import lower_subgraphs
from xpu_amp_dynamo.lowering.captured.pin_captured_dtypes import pin_captured_dtypes
from xpu_amp_dynamo.lowering.captured.record_values import fake_mode_of, record_values
from xpu_amp_dynamo.lowering.captured.replace_in_place import replace_in_place
from xpu_amp_dynamo.lowering.captured.restore_output_dtypes import restore_output_dtypes
from xpu_amp_dynamo.lowering.captured.update_assertions import update_assertions
from xpu_amp_dynamo.lowering.captured.verify import CapturedVerifier, count_casts
from xpu_amp_dynamo.lowering.graph.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.graph.context import LoweringContext
from xpu_amp_dynamo.lowering.graph.keep_graph_on_error import keep_graph_on_error
from xpu_amp_dynamo.lowering.graph.kept_calls import KeptModules
from xpu_amp_dynamo.lowering.report import LoweringReport, wants_details
from xpu_amp_dynamo.lowering.run_passes import PassRun, run_passes
from xpu_amp_dynamo.lowering.weights.add_kept_inputs import add_kept_inputs
from xpu_amp_dynamo.lowering.weights.cast_before_views import cast_before_views
from xpu_amp_dynamo.lowering.weights.copy_graph import copy_graph
from xpu_amp_dynamo.lowering.weights.lay_out_convolutions import lay_out_convolution_weights
from xpu_amp_dynamo.lowering.weights.lift_casts import lift_weight_casts
from xpu_amp_dynamo.lowering.weights.pack_linear import pack_linear_weights
from xpu_amp_dynamo.lowering.weights.plan import WeightPlan, differentiates_inside, enters_levels, weights_of
from xpu_amp_dynamo.lowering.weights.store_parameters import store_parameters
from xpu_amp_dynamo.lowering.weights.verify import WeightVerifier
from xpu_amp_dynamo.policy.policy import Policy

AtenPass = Callable[[fx.Graph], bool]

# Moment 1: a graph as Dynamo or export hands it over. Regions go first: they say which state each node runs in. Outputs
# come last: their dtypes are known by then.
CAPTURED: tuple[Callable[[fx.GraphModule, LoweringContext], bool], ...] = (
    inline_regions,
    record_values,
    erase_regions,
    keep_modules,
    lower_subgraphs,
    replace_in_place,
    pin_captured_dtypes,
    insert_casts,
    update_assertions,
    restore_output_dtypes,
)
# Moment 2: a lowered graph whose caller keeps casts of its weights, or stores the weights in the lower precision.
KEPT_WEIGHTS: tuple[Callable[[fx.GraphModule, WeightPlan], bool], ...] = (
    cast_before_views,
    lift_weight_casts,
    lay_out_convolution_weights,
    pack_linear_weights,
)
# The same for a graph with a backward.
KEPT_FOR_TRAINING: tuple[Callable[[fx.GraphModule, WeightPlan], bool], ...] = (add_kept_inputs,)
STORED_WEIGHTS: tuple[Callable[[fx.GraphModule, WeightPlan], bool], ...] = (
    cast_before_views,
    store_parameters,
)
# Moment 3: ATen graphs inside Inductor. The joint graph comes first, so that the split into forward and backward weighs
# what is saved in the dtype that it has then. Concatenations leave casts of their members, which the next two fold and
# share; products come last: what was folded is widened from fewer values. Where the caller keeps casts of weights,
# ``joint_passes`` puts ``read_kept_casts`` before them all.
JOINT: tuple[AtenPass, ...] = (
    narrow_concatenations,
    fold_casts,
    place_casts,
    narrow_operands,
)
# Then each graph that is compiled. Products come first: they leave fewer casts to group.
COMPILED: tuple[AtenPass, ...] = (
    widen_results,
    group_casts,
)

# What rounds less often than eager code does.
ROUNDING_LESS = frozenset((narrow_operands.__name__, widen_results.__name__))
# What lays weights out for code that Inductor compiles, and what of it is for products that may round otherwise.
LAYING_OUT = frozenset((lay_out_convolution_weights.__name__, pack_linear_weights.__name__))
PACKING = frozenset((pack_linear_weights.__name__,))
# Without these no graph can be lowered.
NEEDED = (
    inline_regions,
    record_values,
    erase_regions,
    keep_modules,
    lower_subgraphs,
    insert_casts,
    restore_output_dtypes,
)
SKIPPABLE_CAPTURED = tuple(run.__name__ for run in CAPTURED if run not in NEEDED)
SKIPPABLE_STORED = (*SKIPPABLE_CAPTURED, *(run.__name__ for run in STORED_WEIGHTS))
_OF_COMPILATION = (*KEPT_WEIGHTS, *KEPT_FOR_TRAINING, read_kept_casts, *JOINT, *COMPILED)
SKIPPABLE = (*SKIPPABLE_CAPTURED, *(run.__name__ for run in _OF_COMPILATION))


def lower_graph(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    policy: Policy,
    device_type: str,
    initial_state: AutocastState,
    preserve_output_dtype: bool = True,
    skip: Collection[str] = (),
    modules: KeptModules | None = None,
) -> LoweringReport:
    """Lower autocast into a graph, in place.

    Args:
        gm: a graph from Dynamo, export or ``torch.fx.symbolic_trace``, before AOTAutograd.
        example_inputs: a value for each placeholder; used only where capture recorded none.
        policy: which ops run in which dtype.
        device_type: the device type whose autocast is lowered.
        initial_state: the autocast state at the graph's entry.
        preserve_output_dtype: cast outputs to the dtypes recorded at capture.
        skip: names of passes to leave out.
        modules: the modules that are kept in one precision.

    Returns:
        What was done.

    Raises:
        BannedOpError: the policy bans an op of the graph.
        LoweringError: the graph cannot be lowered.

    Whatever is raised, the graph is then as it was.
    """
    started = time.perf_counter()
    report = LoweringReport()
    fake_mode, kept = fake_mode_of(gm), KeptModules() if modules is None else modules
    given = policy, device_type, initial_state, fake_mode, preserve_output_dtype
    context = LoweringContext(*given, report, partial(_lower, skip=skip), example_inputs, modules=kept)
    with (
        keep_graph_on_error(gm),
        outside_levels(),
        fake_mode,
        _no_new_symbols(fake_mode),
        _save_tensors_unseen(),
        disabling_autocast(),
    ):
        _lower(gm, context, skip)
    report.seconds = time.perf_counter() - started
    return report


def _lower(gm: fx.GraphModule, context: LoweringContext, skip: Collection[str]) -> None:
    """Run every pass over one captured graph, and clean up if any of them changed it."""
    runs = run_passes(CAPTURED, gm, context, verifier=partial(CapturedVerifier, gm, context), skip=skip)
    _recompile(gm, runs)
    context.report.casts += count_casts(gm)
    if wants_details():
        describe(gm, context)


def keep_weights(
    gm: fx.GraphModule, example_inputs: Sequence[Any], skip: Collection[str] = (), *, differentiated: bool = False
) -> tuple[fx.GraphModule, WeightPlan]:
    """Give a graph inputs for the casts of its weights, so that its caller can keep these.

    Args:
        gm: a lowered graph from Dynamo. It stays as it is, since Dynamo looks at its inputs again.
        example_inputs: a value for each of its inputs; parameters among them are the weights.
        skip: names of passes to leave out.
        differentiated: whether the graph has a backward. Then the casts stay in it, and ``joint_passes`` has the graph
            that AOTAutograd makes of it read the inputs.

    Returns:
        The graph with the further inputs, ``gm`` itself if it has none; and which casts they stand for.
    """
    if enters_levels(gm) if differentiated else differentiates_inside(gm):
        return gm, WeightPlan()
    weights = weights_of(gm, example_inputs)
    if not weights:
        return gm, WeightPlan()
    own, plan = copy_graph(gm, WeightPlan(weights))
    passes = KEPT_FOR_TRAINING if differentiated else KEPT_WEIGHTS
    runs = run_passes(passes, own, plan, verifier=lambda _: WeightVerifier(own, plan), skip=skip)
    _recompile(own, runs)
    return (own, plan) if plan.kept else (gm, plan)


def store_weights(gm: fx.GraphModule, plan: WeightPlan, skip: Collection[str] = ()) -> None:
    """Have a graph read weights in the lower precision where it reads them in no other, in place.

    Args:
        gm: a lowered graph from export.
        plan: its weights; which of them are to be handed over in which dtype is in it afterwards.
        skip: names of passes to leave out.
    """
    runs = run_passes(STORED_WEIGHTS, gm, plan, verifier=lambda _: WeightVerifier(gm, plan), skip=skip)
    _recompile(gm, runs)


def optimise(passes: Sequence[AtenPass], graph: fx.Graph) -> None:
    """Run passes of the third moment over a graph, in place."""
    run_passes(passes, graph, verifier=partial(AtenVerifier, graph))


def joint_passes(kept: Mapping[tuple[int, torch.dtype], int]) -> tuple[AtenPass, ...]:
    """Return the passes over joint graphs.

    Args:
        kept: the casts of weights that such a graph is to read from inputs, see ``read_kept_casts``.
    """
    if not kept:
        return JOINT
    read: Any = partial(read_kept_casts, kept=kept)
    read.__name__ = read_kept_casts.__name__
    return read, *JOINT


def without(passes: Sequence[AtenPass], skip: Collection[str]) -> tuple[AtenPass, ...]:
    """Return passes without those of the given names."""
    return tuple(run for run in passes if run.__name__ not in skip)


def _recompile(gm: fx.GraphModule, runs: Sequence[PassRun]) -> None:
    if any(run.changed for run in runs):
        gm.recompile()


def _save_tensors_unseen() -> contextlib.AbstractContextManager[None]:
    """Keep what reruns save for backward from the hooks around compilation: checkpointing counts what it gets.

    Inside ``torch.func.grad`` there are no hooks, and none can be set.
    """
    return saved_tensors_hooks(_identity, _identity) if allows_saved_tensors_hooks() else contextlib.nullcontext()


def _identity(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _no_new_symbols(fake_mode: FakeTensorMode) -> contextlib.AbstractContextManager[None]:
    """Drop the symbols that reruns make for data-dependent sizes: the graph goes on with the recorded ones."""
    shape_env = fake_mode.shape_env
    return shape_env.ignore_fresh_unbacked_symbols() if shape_env else contextlib.nullcontext()

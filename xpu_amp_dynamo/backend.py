"""The Dynamo backend: lowers autocast into the graph and hands it to the inner backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.regions_around import enabled_elsewhere, turned_off
from xpu_amp_dynamo.compat.structured_trace import trace_artifact
from xpu_amp_dynamo.compat.torch_version import warn_of_newer_torch
from xpu_amp_dynamo.dynamo.backends import backend_named
from xpu_amp_dynamo.dynamo.guards import guard_installed_policy, guard_regions_around
from xpu_amp_dynamo.dynamo.kept_modules import kept_modules_of
from xpu_amp_dynamo.dynamo.uncompiled_code import report_uncompiled_code
from xpu_amp_dynamo.environment_options import parse_with_environment
from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.inductor.compiler import inductor_compiler
from xpu_amp_dynamo.inductor.settings import with_settings
from xpu_amp_dynamo.inductor.workarounds import inductor_workarounds
from xpu_amp_dynamo.loss_scaling import warn_of_loss_scaling
from xpu_amp_dynamo.lowering import keep_weights, lower_graph
from xpu_amp_dynamo.lowering.captured.find_regions import captured_in_region
from xpu_amp_dynamo.lowering.graph.autocast_state import AutocastState
from xpu_amp_dynamo.lowering.graph.kept_calls import KeptModules
from xpu_amp_dynamo.lowering.graph.values import value_of
from xpu_amp_dynamo.lowering.pipeline import LAYING_OUT, PACKING
from xpu_amp_dynamo.lowering.report import publish_report
from xpu_amp_dynamo.lowering.weights.copy_graph import copy_without_values
from xpu_amp_dynamo.lowering.weights.plan import WeightPlan, written_weights
from xpu_amp_dynamo.options import BackendOptions, LoweringOptions
from xpu_amp_dynamo.policy.devices import AUTOCAST_KEYS
from xpu_amp_dynamo.runtime.autocast_off import compiling_without_autocast, without_autocast
from xpu_amp_dynamo.runtime.graph_wrappers import telling_of_writes, with_kept_casts

CompiledFunction = Callable[..., Any]


def xpu_amp(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> CompiledFunction:
    """Compile a Dynamo graph with its autocast lowered into explicit casts.

    Use it by name: ``torch.compile(model, backend="xpu_amp", mode=..., options={...})``.

    Args:
        gm: the graph that Dynamo captured.
        example_inputs: one value for each of its placeholders.
        mode: a mode of ``torch.compile`` for Inductor, such as ``"max-autotune"``.
        options: see :class:`BackendOptions`. What they leave out may stand in the environment variable
            ``XPU_AMP_OPTIONS``.

    Returns:
        The compiled function.

    Raises:
        InvalidOptionError: an option is unknown or outside its legal set.
        BannedOpError: the policy bans an op of the graph.
        LoweringError: the graph cannot be lowered.
    """
    warn_of_newer_torch()
    parsed = parse_with_environment(_with_mode(options, mode))
    compile_inner = _inner_backend(parsed)
    lower_under_options(gm, example_inputs, parsed)
    own, plan, differentiated = gm, WeightPlan(), _has_backward(example_inputs)
    # Only the graphs that AOTAutograd makes for Inductor read kept casts and widen gradients all the same.
    if parsed.weights == "cached" and (not differentiated or parsed.inner_backend == "inductor"):
        skip = _skipped_over_weights(parsed)
        own, plan = keep_weights(gm, example_inputs, skip, differentiated=differentiated)
    kept = plan.positions_of_kept(own) if differentiated else {}
    with compiling_without_autocast(), with_settings(inductor_workarounds(own)):
        compiled = compile_inner(own, [*example_inputs, *plan.kept_values(own)], kept)
    if plan.kept:
        compiled = with_kept_casts(compiled, plan.kept, otherwise=copy_without_values(gm))
    return without_autocast(telling_of_writes(compiled, written_weights(gm, example_inputs)))


def lower(gm: fx.GraphModule, example_inputs: Sequence[Any], **options: Any) -> fx.GraphModule:
    """Lower autocast into a graph as explicit casts, in place.

    Args:
        gm: a graph from Dynamo, ``torch.export`` or ``torch.fx.symbolic_trace``, not yet lowered to ATen.
        example_inputs: one value for each of its placeholders.
        options: those of :class:`LoweringOptions`. An autocast region around this call takes precedence.

    Returns:
        ``gm``.

    Raises:
        InvalidOptionError: an option is unknown, outside its legal set, or about compilation.
        BannedOpError: the policy bans an op of the graph.
        LoweringError: the graph cannot be lowered.
        TypeError: ``gm`` is no graph module.

    Example:
        >>> gm = torch.fx.symbolic_trace(lambda x, w: torch.relu(x @ w))
        >>> xpu_amp_dynamo.lower(gm, [torch.randn(2, 3), torch.randn(3, 4)]).print_readable()
    """
    if not isinstance(gm, fx.GraphModule):
        raise TypeError(
            f"lower takes a torch.fx.GraphModule, and got {type(gm).__name__}; compile a model by torch.compile(model, "
            'backend="xpu_amp"), make a graph by torch.fx.symbolic_trace(model), or give an exported program to '
            "lower_exported"
        )
    lower_under_options(gm, example_inputs, LoweringOptions.parse_for("lower", options))
    return gm


def lower_under_options(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    options: LoweringOptions,
    modules: KeptModules | None = None,
) -> None:
    """Lower a graph in place, under the state around this call, else under the options, and publish the report.

    Args:
        gm: the graph.
        example_inputs: a value for each of its placeholders.
        options: the options.
        modules: the kept modules; None if they are to be looked for.
    """
    modules = kept_modules_of(gm, example_inputs, options.kept_modules) if modules is None else modules
    present = _device_types(gm, example_inputs)
    device_type = options.device_type or next((kind for kind in AUTOCAST_KEYS if kind in present), "cpu")
    state = _initial_state(device_type, options)
    if captured_in_region(gm.graph, device_type):
        guard_installed_policy(device_type)
    if state.enabled and not state.in_region:
        report_uncompiled_code()
    if state.enabled and state.dtype is torch.float16 and _has_backward(example_inputs):
        warn_of_loss_scaling()
    report = lower_graph(
        gm,
        example_inputs,
        policy=options.policy,
        device_type=device_type,
        initial_state=state,
        preserve_output_dtype=options.preserve_output_dtype,
        skip=options.skip_passes,
        modules=modules,
    )
    report.device_type, report.present = device_type, present
    publish_report(report)
    trace_artifact("xpu_amp_lowered_graph", lambda: gm.print_readable(print_output=False))
    trace_artifact("xpu_amp_decisions", lambda: "\n".join(map(str, [report, *report.calls, *report.each_cast])))


def _initial_state(device_type: str, options: LoweringOptions) -> AutocastState:
    """Return the autocast state at a graph's entry, and have Dynamo guard it."""
    if torch.is_autocast_enabled(device_type):
        dtype, cache_enabled = torch.get_autocast_dtype(device_type), torch.is_autocast_cache_enabled()
        return AutocastState(True, dtype, cache_enabled, in_region=True, grad_enabled=torch.is_grad_enabled())
    elsewhere = enabled_elsewhere(device_type)
    off = turned_off(device_type, elsewhere)
    if options.enabled:
        guard_regions_around(device_type, off, elsewhere)
    return AutocastState(options.enabled and not off, options.dtype, grad_enabled=torch.is_grad_enabled())


def _device_types(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> frozenset[str]:
    """Return the types of the devices that hold a graph's tensors."""
    values = [*example_inputs, *map(value_of, gm.graph.nodes)]
    return frozenset(value.device.type for value in values if isinstance(value, torch.Tensor))


def _with_mode(options: Mapping[str, Any] | None, mode: str | None) -> Mapping[str, Any] | None:
    """Return options with the mode that was given beside them, which torch does with nothing but ``mode=``."""
    if mode is None or not isinstance(options, Mapping | None):
        return options
    if options and options.get("mode", mode) != mode:
        raise InvalidOptionError(f"option 'mode' is {options['mode']!r} beside mode={mode!r}; give one of them")
    return {**(options or {}), "mode": mode}


def _inner_backend(options: BackendOptions) -> CompiledFunction:
    """Return the function that compiles a lowered graph."""
    if options.inner_backend == "inductor":
        exact = options.precision == "exact"
        return inductor_compiler(options.mode, options.inductor, exact=exact, skip=options.skip_passes)
    backend = backend_named(options.inner_backend)
    return lambda gm, example_inputs, kept: backend(gm, example_inputs)


def _skipped_over_weights(options: BackendOptions) -> set[str]:
    """Return the passes over weights to leave out: only Inductor takes other layouts, and packed weights round less."""
    if options.inner_backend != "inductor":
        return {*options.skip_passes, *LAYING_OUT}
    return {*options.skip_passes, *(PACKING if options.precision == "exact" else ())}


def _has_backward(example_inputs: Sequence[Any]) -> bool:
    """Tell whether the graph will be differentiated."""
    needed = any(isinstance(value, torch.Tensor) and value.requires_grad for value in example_inputs)
    return needed and torch.is_grad_enabled()

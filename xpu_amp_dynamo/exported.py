"""Lowers programs of ``torch.export``, for deployment without this package."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import torch
from torch import fx
from torch.export.graph_signature import ExportGraphSignature, InputKind

from xpu_amp_dynamo.backend import lower_under_options
from xpu_amp_dynamo.lowering import store_weights
from xpu_amp_dynamo.lowering.graph.kept_calls import KeptModules, module_names
from xpu_amp_dynamo.lowering.graph.values import storage_of, storages_in, value_of
from xpu_amp_dynamo.lowering.graph.writes import written_storages
from xpu_amp_dynamo.lowering.weights.plan import WeightPlan, placeholders
from xpu_amp_dynamo.options import ExportOptions
from xpu_amp_dynamo.policy.kept_modules import ModulePatterns, names_around


def lower_exported(exported_program: torch.export.ExportedProgram, **options: Any) -> torch.export.ExportedProgram:
    """Lower autocast into an exported program as explicit casts.

    The result has no autocast region and needs neither this package nor a region where it runs: save it by
    ``torch.export.save``, run its ``module()``, compile it by ``torch._inductor.aoti_compile_and_package``.

    Args:
        exported_program: what ``torch.export.export`` returned. It stays as it is.
        options: those of :class:`ExportOptions`. ``weights="cached"`` stores those parameters in the lower precision
            that the program reads in no other: half the size, and no casts. An autocast region around this call takes
            precedence over ``dtype`` and ``enabled``, and regions that were exported over both.

    Returns:
        A new program of the same inputs and outputs. It shares the parameters that were not cast.

    Raises:
        InvalidOptionError: an option is unknown, outside its legal set, or about compilation.
        BannedOpError: the policy bans an op of the program.
        LoweringError: the program cannot be lowered.
        TypeError: this is no exported program.

    Example:
        >>> exported = torch.export.export(model, (x,))
        >>> lowered = xpu_amp_dynamo.lower_exported(exported, dtype=torch.bfloat16, weights="cached")
        >>> torch._inductor.aoti_compile_and_package(lowered, package_path="model.pt2")
    """
    if not isinstance(exported_program, torch.export.ExportedProgram):
        raise TypeError(
            f"lower_exported takes what torch.export.export(model, inputs) returns, and got "
            f"{type(exported_program).__name__}"
        )
    parsed = ExportOptions.parse_for("lower_exported", options)
    gm, signature = _copied(exported_program.graph_module), copy.deepcopy(exported_program.graph_signature)
    before = [node.name if isinstance(node, fx.Node) else None for node in _outputs(gm)]
    lower_under_options(gm, [], parsed, _kept_modules(gm, signature, parsed.kept_modules))
    state = dict(exported_program.state_dict)
    if parsed.weights == "cached":
        plan = WeightPlan(_parameters(gm, signature))
        store_weights(gm, plan, skip=parsed.skip_passes)
        for position, dtype in plan.stored.items():
            name = str(signature.input_specs[position].target)
            state[name] = _in_dtype(state[name], dtype)
    for old, new in zip(before, _outputs(gm), strict=True):
        if old is not None and old != new.name:
            signature.replace_all_uses(old, new.name)
    gm.recompile()
    return _program(exported_program, gm, signature, state)


def _copied(gm: fx.GraphModule) -> fx.GraphModule:
    """Copy a graph with the names of its nodes, of which ``deepcopy`` changes those of builtins, as in ``input``.

    A program's signature names inputs and outputs by their nodes; checked on torch 2.13.0.
    """
    copied = copy.deepcopy(gm)
    for original, module in zip(gm.modules(), copied.modules(), strict=True):
        if isinstance(original, fx.GraphModule) and isinstance(module, fx.GraphModule):
            for old, new in zip(original.graph.nodes, module.graph.nodes, strict=True):
                new.name = old.name
    return copied


def _program(
    original: torch.export.ExportedProgram,
    gm: fx.GraphModule,
    signature: ExportGraphSignature,
    state: dict[str, torch.Tensor],
) -> torch.export.ExportedProgram:
    """Return a program like another with a graph of its own; checked on torch 2.13.0, which checks the graph."""
    return torch.export.ExportedProgram(
        root=gm,
        graph=gm.graph,
        graph_signature=signature,
        state_dict=state,
        range_constraints=original.range_constraints,
        module_call_graph=original.module_call_graph,
        example_inputs=original.example_inputs,
        constants=original.constants,
        verifiers=original.verifiers,
    )


def _kept_modules(gm: fx.GraphModule, signature: ExportGraphSignature, patterns: ModulePatterns) -> KeptModules:
    """Return the kept modules of a program, whose graph and signature name its modules and what they hold."""
    tensors = {spec.arg.name: spec.target for spec in signature.input_specs if spec.target is not None}
    if patterns:
        patterns.check(module_names(gm.graph, tensors.values()))
    own: dict[str, set[int]] = defaultdict(set)
    for node in placeholders(gm):
        for module in names_around(tensors[node.name]) if node.name in tensors else ():
            own[module] |= storages_in(value_of(node))
    return KeptModules(patterns, own_tensors={module: frozenset(found) for module, found in own.items()})


def _outputs(gm: fx.GraphModule) -> list[Any]:
    """List what a graph returns."""
    results: Any = gm.graph.output_node().args[0]
    return list(results)


def _parameters(gm: fx.GraphModule, signature: ExportGraphSignature) -> dict[fx.Node, int]:
    """Return the inputs of a graph that are parameters, but for those that it writes to, each with its position."""
    written = written_storages(gm.graph.nodes)
    return {
        node: position
        for position, (node, spec) in enumerate(zip(placeholders(gm), signature.input_specs, strict=True))
        if spec.kind is InputKind.PARAMETER and storage_of(value_of(node)) not in written
    }


def _in_dtype(weight: torch.Tensor, dtype: torch.dtype) -> torch.nn.Parameter:
    return torch.nn.Parameter(weight.detach().to(dtype), requires_grad=weight.requires_grad)

"""Finds the kept modules of the model that Dynamo is compiling, by the modules themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from xpu_amp_dynamo.compat.compiled_modules import is_resumed, models_of_compiled_call, module_id, module_of_frame
from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.lowering.graph.kept_calls import KeptCall, KeptModules, module_names
from xpu_amp_dynamo.lowering.graph.values import storages_in, value_of
from xpu_amp_dynamo.policy.kept_modules import Kept, ModulePatterns

# What stands for the call that a whole graph is of.
_FRAME = "frame"


def kept_modules_of(gm: fx.GraphModule, example_inputs: Sequence[Any], patterns: ModulePatterns) -> KeptModules:
    """Return the kept modules of the model that a graph is of.

    Args:
        gm: a graph that Dynamo hands over, or one that names modules as ``named_modules()`` does.
        example_inputs: a value for each of its placeholders; Dynamo gives the tensors themselves.
        patterns: which modules are kept.

    Raises:
        InvalidOptionError: a pattern names no module, or a module is named in both lists.
    """
    if not patterns:
        return KeptModules()
    models = models_of_compiled_call()
    if models is None:
        _check_graph(gm.graph, patterns)
        return KeptModules(patterns)
    kept = _kept_by_id(models, patterns)
    frame = _call_of_frame(kept)
    resumed = is_resumed()
    own = _own_tensors(models, {one.module for one in kept.values()}, gm, example_inputs)
    return KeptModules(patterns, kept, frame if resumed else (), () if resumed else frame, own)


def _check_graph(graph: fx.Graph, patterns: ModulePatterns) -> None:
    """Check patterns against the names in a graph that Dynamo is not compiling now."""
    for node in graph.nodes:
        for key, (path, _) in node.meta.get("nn_module_stack", {}).items():
            if module_id(key) is not None and path.startswith(("L[", "G[")):
                raise InvalidOptionError(
                    f"options 'keep_float32' and 'keep_lower' cannot be followed: the graph calls module {path}, of a "
                    "model that is not known any more; lower the graph inside of the backend that Dynamo calls"
                )
    patterns.check(module_names(graph))


def _kept_by_id(models: Sequence[torch.nn.Module], patterns: ModulePatterns) -> dict[int, Kept]:
    """Return what each module of the models is kept as, or lies in, by the ``id`` of the module."""
    names: dict[int, list[str]] = {}
    for name, module in _named_modules(models):
        names.setdefault(id(module), []).append(name)
    patterns.check([name for shared in names.values() for name in shared])
    found = {number: patterns.kept(shared) for number, shared in names.items()}
    return {number: kept for number, kept in found.items() if kept is not None}


def _call_of_frame(kept: Mapping[int, Kept]) -> tuple[KeptCall, ...]:
    """Return the call of a kept module that the frame in hand is of or lies in."""
    module = kept.get(id(module_of_frame()))
    return () if module is None else (KeptCall(_FRAME, module),)


def _own_tensors(
    models: Sequence[torch.nn.Module], kept: set[str], gm: fx.GraphModule, example_inputs: Sequence[Any]
) -> dict[str, frozenset[int]]:
    """Return for each kept module what stands in the graph for the storages of the tensors that it holds."""
    nodes = gm.graph.find_nodes(op="placeholder")
    values = {id(example): value_of(node) for node, example in zip(nodes, example_inputs, strict=False)}
    return {
        name: frozenset(storages_in([values[id(tensor)] for tensor in _tensors_of(module) if id(tensor) in values]))
        for name, module in _named_modules(models)
        if name in kept
    }


def _tensors_of(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    """Yield all tensors that a module and those inside it hold as parameters, buffers or plain attributes."""
    yield from module.parameters()
    yield from module.buffers()
    for inner in module.modules():
        yield from (value for value in vars(inner).values() if isinstance(value, torch.Tensor))


def _named_modules(models: Sequence[torch.nn.Module]) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yield the modules of models with all names that each has."""
    for model in models:
        yield from model.named_modules(remove_duplicate=False)

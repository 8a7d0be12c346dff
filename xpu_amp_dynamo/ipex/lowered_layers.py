"""Which parameters of a model IPEX stored in the lower precision."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# By module type, not subclasses, as in IPEX's nn/utils/_parameter_wrapper.py. Its lists for XPUs could not be read:
# these are its lists for CPUs, where the tests of its XPU branch of 2.1 say nothing else, such as of float16.
INFERENCE = {
    torch.bfloat16: frozenset({*_CONVOLUTIONS, nn.Linear, nn.Embedding, nn.LSTM}),
    torch.float16: frozenset({*_CONVOLUTIONS, nn.Linear, nn.Embedding}),
}
TRAINING = frozenset({*_CONVOLUTIONS, nn.Conv1d, nn.Linear, nn.Embedding, nn.EmbeddingBag, nn.LSTM})

Places = dict[nn.Module, dict[str, nn.Parameter]]


def places_to_lower(
    model: nn.Module, layers: frozenset[type[nn.Module]], updated: Collection[torch.Tensor] | None = None
) -> Places:
    """Return the float32 parameters to store in the lower precision, by their modules.

    A module's parameters go together, and so do modules that share one: a weight that is tied to what must stay
    float32 stays float32, and with it the bias beside it.

    Args:
        model: the model.
        layers: the types of modules to lower.
        updated: the parameters that an optimizer with masters updates. Others that require gradients stay float32:
            another optimizer would round its updates away. None if nothing is trained.
    """
    places = {module: dict(module.named_parameters(recurse=False)) for module in model.modules()}
    places = {module: parameters for module, parameters in places.items() if parameters}
    lowered = {module for module, own in places.items() if type(module) in layers and _may_lower(own, updated)}
    while kept := lowered & _sharing(places, places.keys() - lowered):
        lowered -= kept
    return {module: parameters for module, parameters in places.items() if module in lowered}


def _may_lower(parameters: dict[str, nn.Parameter], updated: Collection[torch.Tensor] | None) -> bool:
    """Tell whether parameters are plain float32 tensors, which only an optimizer with masters updates."""
    return all(
        type(parameter) is nn.Parameter
        and parameter.dtype is torch.float32
        and (updated is None or parameter in updated or not parameter.requires_grad)
        for parameter in parameters.values()
    )


def _sharing(places: Places, modules: set[nn.Module]) -> set[nn.Module]:
    """Return the modules that have a parameter in common with some."""
    shared = {parameter for module in modules for parameter in places[module].values()}
    return {module for module, parameters in places.items() if not shared.isdisjoint(parameters.values())}

"""Stores weights in a lower precision, while state dicts keep speaking of the original one, as with IPEX."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import nn

from xpu_amp_dynamo.ipex.lowered_layers import Places

# The attribute of a module that tells of its parameters. It lies on the module for copies and pickles to have it.
ATTRIBUTE = "original_weights"


@dataclass(eq=False)
class OriginalWeight:
    """What a stored weight was made of, one for all modules that share it.

    Args:
        dtype: the dtype that state dicts have it in.
        lower_dtype: the dtype that it is stored in.
        master: its value in full, which an optimizer updates; None if only inference is meant.
    """

    dtype: torch.dtype
    lower_dtype: torch.dtype
    master: nn.Parameter | None


def original_weights(module: nn.Module) -> dict[str, OriginalWeight]:
    """Return what the stored weights of one module were made of, by name."""
    return getattr(module, ATTRIBUTE, {})


def store_weights(places: Places, dtype: torch.dtype, *, keep_masters: bool) -> None:
    """Store parameters in a lower precision, as the same objects, their gradients too.

    Args:
        places: the parameters, by module and name.
        dtype: the lower precision.
        keep_masters: keep their values in full.
    """
    stored: dict[nn.Parameter, OriginalWeight] = {}
    for module, parameters in places.items():
        for parameter in parameters.values():
            if parameter not in stored:
                stored[parameter] = _store(parameter, dtype, keep_masters)
        setattr(module, ATTRIBUTE, {name: stored[parameter] for name, parameter in parameters.items()})
        module.register_state_dict_post_hook(_give_originals)
        module.register_load_state_dict_pre_hook(_take_originals)


def _store(parameter: nn.Parameter, dtype: torch.dtype, keep_master: bool) -> OriginalWeight:
    """Store one parameter."""
    before, gradient = parameter.detach(), parameter.grad
    parameter.grad = None
    parameter.data = before.to(dtype)
    parameter.grad = None if gradient is None else gradient.to(dtype)
    return OriginalWeight(before.dtype, dtype, nn.Parameter(before) if keep_master else None)


@torch.no_grad()
def renewed(weight: torch.Tensor, master: torch.Tensor) -> torch.Tensor:
    """Return a master's value where the weight is still its rounding, and the weight's where it was written since."""
    master = master.to(weight.device)
    return torch.where(weight == master.to(weight.dtype), master, weight.to(master.dtype))


# In full, with its name there, for tied weights to be one tensor in a state dict too: safetensors saves it once, and
# finds the other name.
_last_given: WeakKeyDictionary[OriginalWeight, tuple[str, ref[torch.Tensor]]] = WeakKeyDictionary()


def _give_originals(module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: dict) -> None:
    """Have a state dict hold weights in their original dtype."""
    for name, original in original_weights(module).items():
        full = _given_before(original, state_dict)
        if full is None:
            stored = state_dict[prefix + name].detach()
            full = stored.to(original.dtype) if original.master is None else renewed(stored, original.master.detach())
            _last_given[original] = prefix + name, ref(full)
        state_dict[prefix + name] = full


def _given_before(original: OriginalWeight, state_dict: dict[str, Any]) -> torch.Tensor | None:
    """Return what the same state dict has of a weight by another name, None if it has nothing yet."""
    name, last = _last_given.get(original, ("", lambda: None))
    full = last()
    return full if full is not None and state_dict.get(name) is full else None


@torch.no_grad()
def _take_originals(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Renew the masters from a state dict that is loaded; its weights are stored lower."""
    for name, original in original_weights(module).items():
        given = state_dict.get(prefix + name)
        if not isinstance(given, torch.Tensor) or not given.is_floating_point():
            continue
        if original.master is not None and given.shape == original.master.shape:
            original.master.copy_(given)
        state_dict[prefix + name] = given.to(original.lower_dtype)

"""``ipex.optimize``: what it did to the precision of weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.ipex.lowered_layers import INFERENCE, TRAINING, places_to_lower
from xpu_amp_dynamo.ipex.master_weights import give_masters, parameters_of
from xpu_amp_dynamo.ipex.stored_weights import original_weights, store_weights

LEVELS = ("O0", "O1")
_AS_THEY_ARE = (None, torch.float32, torch.float64)
_LOWER = (torch.bfloat16, torch.float16)
# What copies of PyTorch's optimizers lack without harm, torch 2.13.0: GradScaler unscales by itself then.
_IDLE = {"_step_supports_amp_scaling", "_warned_capturable_if_run_uncaptured"}


def optimize(
    model: nn.Module,
    dtype: torch.dtype | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    level: str = "O1",
    inplace: bool = False,
    conv_bn_folding: bool | None = None,
    linear_bn_folding: bool | None = None,
    weights_prepack: bool | None = None,
    replace_dropout_with_identity: bool | None = None,
    optimize_lstm: bool | None = None,
    split_master_weight_for_bf16: bool | None = None,
    fuse_update_step: bool | None = None,
    auto_kernel_selection: bool | None = None,
    sample_input: Any = None,
    graph_mode: bool | None = None,
    concat_linear: bool | None = None,
) -> Any:
    """Store the weights of a model in a lower precision, as ``ipex.optimize`` did on XPUs.

    Weights of linear layers, convolutions, embeddings and LSTMs are stored; state dicts stay float32, and load from
    either. In training the optimizer updates float32 masters of them; weights that require gradients and are not the
    optimizer's stay float32, until a call with theirs. All arguments but these change only speed,
    memory or rounding that Inductor decides; they are accepted and do nothing.

    Args:
        model: the model, in evaluation mode for inference, in training mode with an optimizer.
        dtype: ``torch.bfloat16``, or for inference ``torch.float16``. None, ``torch.float32`` and
            ``torch.float64`` leave the weights alone, as they did in IPEX.
        optimizer: any optimizer of the model's parameters, whose lists of parameters stay the same objects.
        level: ``"O0"`` or ``"O1"``; weights are stored in both.
        inplace: False makes deep copies, but of a model on XPUs, which IPEX changed in place all the same.
        graph_mode: refused if True; use ``torch.compile``.

    Returns:
        The model, and the optimizer if there is one. A ``ScriptModule`` is returned as it is.

    Raises:
        InvalidOptionError: mode and optimizer do not fit, float16 is asked for in training, the model lies on several
            types of devices, was stored in another precision, its optimizer cannot be copied, or an argument is
            illegal. Nothing was changed.
    """
    _check(model, dtype, optimizer, level, inplace, graph_mode)
    if not isinstance(model, torch.jit.ScriptModule) and dtype in _LOWER:
        if not inplace and _device_type(model) != "xpu":
            model, optimizer = _copies(model, optimizer)
        _store(model, dtype, optimizer)
    return model if optimizer is None else (model, optimizer)


def _copies(
    model: nn.Module, optimizer: torch.optim.Optimizer | None
) -> tuple[nn.Module, torch.optim.Optimizer | None]:
    """Return deep copies of a model and of its optimizer, which belong together.

    Raises:
        InvalidOptionError: the copy of the optimizer lacks something.
    """
    copied, copied_optimizer = copy.deepcopy((model, optimizer))
    lost = vars(optimizer).keys() - vars(copied_optimizer).keys() - _IDLE if optimizer is not None else set()
    if lost:
        raise InvalidOptionError(
            f"a copy of this {type(optimizer).__name__} lacks {', '.join(sorted(lost))}, as of a scheduler that was "
            "made of it; pass inplace=True, or make schedulers of the optimizer that is returned"
        )
    return copied, copied_optimizer


def _store(model: nn.Module, dtype: torch.dtype, optimizer: torch.optim.Optimizer | None) -> None:
    """Store a model's weights, and give the optimizer their masters."""
    if optimizer is None:
        store_weights(places_to_lower(model, INFERENCE[dtype]), dtype, keep_masters=False)
    else:
        store_weights(places_to_lower(model, TRAINING, parameters_of(optimizer)), dtype, keep_masters=True)
        give_masters(optimizer, _masters(model))


def _masters(model: nn.Module) -> dict[nn.Parameter, nn.Parameter]:
    """Return the masters of a model's weights."""
    return {
        module.get_parameter(name): original.master
        for module in model.modules()
        for name, original in original_weights(module).items()
        if original.master is not None
    }


def _check(model: Any, dtype: Any, optimizer: Any, level: Any, inplace: Any, graph_mode: Any) -> None:
    """Refuse what cannot be done."""
    if not isinstance(model, nn.Module):
        raise InvalidOptionError(f"optimize takes a torch.nn.Module, and was given {type(model).__name__}")
    if dtype not in (*_AS_THEY_ARE, *_LOWER):
        raise InvalidOptionError(f"optimize cannot store weights in {dtype!r}; use torch.bfloat16 or torch.float16")
    if level not in LEVELS:
        raise InvalidOptionError(f"level {level!r} is none of {', '.join(LEVELS)}")
    if not isinstance(inplace, bool):
        raise InvalidOptionError(f"inplace is {inplace!r}; it must be True or False")
    if graph_mode:
        raise InvalidOptionError(
            "graph_mode is gone; use torch.compile(model, backend='ipex') on what optimize returns"
        )
    if isinstance(model, torch.jit.ScriptModule):
        return
    _check_mode(model, dtype, optimizer)
    _check_parameters(model, optimizer)
    _device_type(model)
    _check_stored_before(model, dtype, optimizer)


def _check_parameters(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Refuse the optimizer of another model."""
    if optimizer is not None and parameters_of(optimizer).isdisjoint(model.parameters()):
        raise InvalidOptionError(
            "the optimizer holds no parameter of the model; give the one that was made of model.parameters()"
        )


def _check_mode(model: nn.Module, dtype: Any, optimizer: Any) -> None:
    """Refuse an optimizer for inference, training without one, what is none, and float16 training."""
    if not isinstance(optimizer, torch.optim.Optimizer | None):
        raise InvalidOptionError(f"optimizer must be a torch.optim.Optimizer, and was {type(optimizer).__name__}")
    if model.training and optimizer is None:
        raise InvalidOptionError("the model is in training mode; call model.eval() first, or give its optimizer too")
    if not model.training and optimizer is not None:
        raise InvalidOptionError("the model is in evaluation mode; call model.train() first, or leave optimizer out")
    if model.training and dtype is torch.float16:
        raise InvalidOptionError(
            "weights cannot be trained in float16, which IPEX refused on XPUs too; use dtype=torch.bfloat16, or keep "
            "float32 weights under torch.xpu.amp.autocast(dtype=torch.float16) with torch.xpu.amp.GradScaler"
        )


def _device_type(model: nn.Module) -> str:
    """Return the device type of a model's parameters.

    Raises:
        InvalidOptionError: they are on several.
    """
    types = sorted({parameter.device.type for parameter in model.parameters()})
    if len(types) > 1:
        raise InvalidOptionError(f"the model's parameters are on {' and '.join(types)}; move it to one of them")
    return types[0] if types else "cpu"


def _check_stored_before(model: nn.Module, dtype: Any, optimizer: Any) -> None:
    """Refuse a model that an earlier call stored for something else."""
    earlier = [original for module in model.modules() for original in original_weights(module).values()]
    if dtype not in _LOWER or not earlier:
        return
    others = {original.lower_dtype for original in earlier} - {dtype}
    if others:
        raise InvalidOptionError(f"the model's weights were stored in {others.pop()} before; optimize a fresh model")
    if optimizer is not None and any(original.master is None for original in earlier):
        raise InvalidOptionError(
            "the model's weights were rounded for inference and cannot be trained; optimize a fresh model"
        )

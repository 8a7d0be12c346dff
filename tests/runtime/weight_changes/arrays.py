"""Writes through memory that other libraries share, held and dropped; and what no store can see."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import torch
from torch.utils import dlpack

from tests.runtime.weight_changes.small_model import WIDTH, Model, Way, at_once, weight


def held_array(array_of: Callable[[torch.nn.Parameter], np.ndarray]) -> Way:
    """Return the way that holds an array over a weight and doubles it."""

    def prepare(model: Model) -> Callable[[], object]:
        array = array_of(weight(model))
        return lambda: np.multiply(array, 2, out=array)

    return prepare


def held_tensor(alias_of: Callable[[torch.nn.Parameter], torch.Tensor]) -> Way:
    """Return the way that holds a tensor over a weight and doubles it."""

    def prepare(model: Model) -> Callable[[], object]:
        alias = alias_of(weight(model))
        return lambda: alias.mul_(2)

    return prepare


def parameter_of_array(model: Model) -> Callable[[], object]:
    """Make a parameter of an array, then write to the array."""
    array = np.random.default_rng(0).standard_normal((WIDTH, WIDTH), dtype=np.float32)
    model[0].weight = torch.nn.Parameter(torch.from_numpy(array))
    return lambda: np.multiply(array, 2, out=array)


def assigned_array(model: Model) -> Callable[[], object]:
    """Assign a tensor over an array, then write to the array."""
    array = np.random.default_rng(0).standard_normal((WIDTH, WIDTH), dtype=np.float32)
    weight(model).data = torch.from_numpy(array)
    return lambda: np.multiply(array, 2, out=array)


def copy_through_array(weight: torch.nn.Parameter) -> torch.Tensor:
    """Return a tensor over an array over a weight."""
    return torch.from_numpy(weight.detach().numpy())


# On the CPU.
WAYS: dict[str, Way] = {
    "held array": held_array(lambda weight: weight.detach().numpy()),
    "held array of .data": held_array(lambda weight: weight.data.numpy()),
    "held view of an array": held_array(lambda weight: weight.detach().numpy()[1:5].T),
    "held np.asarray": held_array(lambda weight: np.asarray(weight.detach())),
    "held np.from_dlpack": held_array(lambda weight: np.array(np.from_dlpack(weight.detach()), copy=None)),
    "held tensor over an array": held_tensor(copy_through_array),
    "held from_dlpack": held_tensor(lambda weight: dlpack.from_dlpack(weight.detach())),
    "held from_dlpack of .data": held_tensor(lambda weight: dlpack.from_dlpack(weight.data)),
    "held from_dlpack of a capsule": held_tensor(lambda weight: dlpack.from_dlpack(weight.data.__dlpack__())),
}


def dropped_array(model: Model) -> None:
    """Make an array, write to it and drop it."""
    array = weight(model).detach().numpy()
    array *= 2


def dropped_dlpack(model: Model) -> None:
    """Make a tensor by DLPack, write to it and drop it."""
    dlpack.from_dlpack(weight(model).detach()).mul_(2)


def storage(model: Model) -> None:
    """Write through the storage."""
    weight(model).untyped_storage().copy_(torch.randn(WIDTH, WIDTH).untyped_storage())


def tensor_over_storage(model: Model) -> None:
    """Write to a tensor that is set to the storage, and drop it."""
    alias = torch.empty(0)
    alias.set_(weight(model).untyped_storage())
    alias.mul_(2)


def tensor_set_to_it(model: Model) -> None:
    """Write to a tensor that is set to the weight, and drop it."""
    torch.empty(0).set_(weight(model).detach()).mul_(2)  # type: ignore[call-overload]  # which stubs do not list


def address(model: Model) -> None:
    """Write to memory at its address."""
    values = torch.randn(WIDTH, WIDTH)
    ctypes.memmove(weight(model).data_ptr(), values.data_ptr(), values.nbytes)


def compiled_by_eager(model: Model) -> Callable[[], object]:
    """Write through ``.data`` in code that a backend which runs it as it is has compiled before."""
    double = torch.compile(lambda weight: weight.data.mul_(2), backend="eager")
    double(weight(model))
    return lambda: double(weight(model))


def double_data(weight: torch.Tensor) -> torch.Tensor:
    """Double a weight through ``.data``."""
    return weight.data.mul_(2)


def scripted(model: Model) -> None:
    """Write through ``.data`` in TorchScript."""
    torch.jit.script(double_data)(weight(model))


def data_as_an_op(model: Model) -> None:
    """Write through the op behind ``.data``, which TorchScript calls."""
    torch.ops.aten.data(weight(model)).mul_(2)


def uncounted(model: Model) -> None:
    """Write where the version counter is told to stay."""
    with torch.no_grad(), torch.autograd.grad_mode._unsafe_preserve_version_counter(weight(model)):
        weight(model).mul_(2)


# Seen by `refresh_weights` only.
LIMITS: dict[str, Way] = {
    "parameter of an array": parameter_of_array,
    "assigned array": assigned_array,
    "array": at_once(dropped_array),
    "DLPack": at_once(dropped_dlpack),
    "storage": at_once(storage),
    "tensor over the storage": at_once(tensor_over_storage),
    "tensor set to it": at_once(tensor_set_to_it),
    "address": at_once(address),
    "TorchScript": at_once(scripted),
    "data as an op": at_once(data_as_an_op),
    "version preserved": at_once(uncounted),
    "backend eager": compiled_by_eager,
}

"""``xpu_kernels``: the report of what an XPU would run for a model that lives on the CPU."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._triton import has_triton_package

from xpu_amp_dynamo.compat.pytree import tensors_of_result
from xpu_amp_dynamo.environment_options import parse_with_environment
from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.options import BackendOptions
from xpu_amp_dynamo.runtime.autocast import autocast
from xpu_amp_dynamo.runtime.installation import keeping_installed_policy, uninstall
from xpu_amp_dynamo.simulator.kernel_report import KernelReport
from xpu_amp_dynamo.simulator.requirements import triton_is_missing
from xpu_amp_dynamo.simulator.simulated_xpu import simulated_xpu
from xpu_amp_dynamo.simulator.ways import WAYS


def xpu_kernels(
    model: torch.nn.Module,
    *args: Any,
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    train: bool = False,
    region: bool = False,
    beside: Sequence[str] = (),
    part: str = "max-1550",
) -> KernelReport:
    """Report every kernel that an XPU would launch for one call of a model, without an XPU.

    The model is compiled with ``backend="xpu_amp"`` for a simulated XPU and its kernels are generated, not run.
    Its weights are neither changed nor copied.

    Args:
        model: a model whose tensors are on the CPU, of any size and dtype.
        args: what it is called with; tensors on the CPU.
        kwargs: keyword arguments of the call.
        options: options of the backend, see :class:`BackendOptions`.
        train: report the backward too, from the output's ``loss`` if it has one, else from all its tensors.
            Otherwise the model is called under ``torch.no_grad()``.
        region: call the model inside a region of :class:`autocast`, as ``"stock autocast"`` always is: outputs then
            have the dtypes that eager autocast gives them.
        beside: other ways to compile the same model for comparison: ``"stock autocast"`` (PyTorch's own
            ``torch.autocast("xpu")`` with Inductor, in the options' dtype) and ``"float32"``.
        part: the GPU to generate code for, see :func:`simulated_xpu`.

    Returns:
        The launches in order, with totals; the other ways' reports are in its ``beside``.

    Raises:
        InvalidOptionError: an option is unknown or outside its legal set, or a way is unknown.
        SimulatorError: the simulated XPU cannot start, see :func:`simulated_xpu`, or Triton is not installed.
        TypeError: this is no model.

    Example:
        >>> print(xpu_amp_dynamo.xpu_kernels(torch.nn.Linear(64, 64), torch.randn(8, 64), beside=["float32"]))
    """
    parsed = _checked(model, options, beside)
    with simulated_xpu(part, mode="inspect"):
        xpu_model = copy_to_xpu(model)
        with _CopiesOnXpu():
            inputs = copy.deepcopy((args, dict(kwargs or {})))
        around = _region("xpu_amp" if region else "float32", parsed)
        report = _report("xpu_amp", part, xpu_model, inputs, train, around, backend="xpu_amp", options=options)
        report.beside = {way: _report(way, part, xpu_model, inputs, train, _region(way, parsed)) for way in beside}
    return report


def _checked(model: object, options: Mapping[str, Any] | None, beside: Sequence[str]) -> BackendOptions:
    """Return the options once everything that was given is known to be legal, and what is needed to be there."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"xpu_kernels takes a model, a torch.nn.Module, and got {type(model).__name__}")
    if not has_triton_package():
        raise triton_is_missing()
    unknown = [way for way in beside if way not in WAYS[1:]]
    if unknown:
        raise InvalidOptionError(f"beside names {unknown}; the ways are {list(WAYS[1:])}")
    return parse_with_environment(options)


def _region(way: str, options: BackendOptions) -> AbstractContextManager[Any]:
    """Return the autocast region that one way to compile is called in."""
    if way == "xpu_amp":
        return autocast("xpu", options.dtype, policy=options.policy)
    return stock_autocast(options.dtype) if way == "stock autocast" else contextlib.nullcontext()


def copy_to_xpu(model: torch.nn.Module) -> torch.nn.Module:
    """Copy a model to the simulated XPU without its weights: these are memory that is never touched."""
    weights = {id(p): _without_values(p) for p in model.parameters() if type(p) is torch.nn.Parameter}
    with _CopiesOnXpu():
        return copy.deepcopy(model, weights).to("xpu")


class _CopiesOnXpu(TorchFunctionMode):
    """Has ``copy.deepcopy`` put tensors on the XPU wherever they are kept: in caches, in attributes of modules."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch.Tensor.__deepcopy__ or type(args[0]) is not torch.Tensor:
            return func(*args, **(kwargs or {}))
        tensor, memo = args
        if id(tensor) not in memo:
            memo[id(tensor)] = tensor.detach().to("xpu", copy=True).requires_grad_(tensor.requires_grad)
        return memo[id(tensor)]


def _without_values(weight: torch.nn.Parameter) -> torch.nn.Parameter:
    memory = torch.empty_strided(weight.size(), weight.stride(), dtype=weight.dtype, device="xpu")
    return torch.nn.Parameter(memory, weight.requires_grad)


def _report(
    way: str,
    part: str,
    model: torch.nn.Module,
    inputs: tuple[tuple[Any, ...], dict[str, Any]],
    train: bool,
    region: AbstractContextManager[Any],
    **compile_options: Any,
) -> KernelReport:
    """Compile a model one way, call it once in a region, and return what was generated."""
    from xpu_amp_dynamo.simulator.record_launches import record_launches

    torch._dynamo.reset()
    compiled = torch.compile(model, **compile_options)
    report = KernelReport(way, part=part)
    with record_launches(report), torch.set_grad_enabled(train):
        with region:
            output = compiled(*inputs[0], **inputs[1])
        if train:
            run_backward(output)
    return report


@contextlib.contextmanager
def stock_autocast(dtype: torch.dtype) -> Iterator[None]:
    """Open a region of PyTorch's own ``torch.autocast("xpu")``, whatever policy is installed."""
    with keeping_installed_policy("xpu"):
        uninstall("xpu")
        with torch.autocast("xpu", dtype):
            yield


def run_backward(output: Any) -> None:
    """Run the backward of a model's output.

    Args:
        output: what the model returned.

    Raises:
        InvalidOptionError: there is none.
    """
    roots = backward_roots(output)
    if not roots:
        raise InvalidOptionError("no output of the model requires a gradient, so there is no backward; leave train out")
    torch.autograd.backward(roots, [torch.ones_like(root) for root in roots])


def backward_roots(output: Any) -> list[torch.Tensor]:
    """Return what the backward of an output starts from: its loss, else every tensor that has a gradient."""
    loss = getattr(output, "loss", None)
    tensors = [loss] if isinstance(loss, torch.Tensor) else tensors_of_result(output)
    return [tensor for tensor in tensors if tensor.requires_grad]

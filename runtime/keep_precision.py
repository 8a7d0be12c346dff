"""Keeps modules in one precision inside eager regions, by hooks."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from xpu_amp_dynamo.compat.compiled_modules import is_compiled
from xpu_amp_dynamo.compat.pytree import map_tensors
from xpu_amp_dynamo.compat.regions_around import open_regions
from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.policy.cast_rule import needs_cast
from xpu_amp_dynamo.policy.devices import check_device_type, default_device_type
from xpu_amp_dynamo.policy.kept_modules import Kept, ModulePatterns
from xpu_amp_dynamo.runtime.hide_from_dynamo import hide_from_dynamo


@contextlib.contextmanager
@hide_from_dynamo
def keep_precision(
    model: torch.nn.Module,
    *,
    keep_float32: Collection[str] = (),
    keep_lower: Collection[str] = (),
    device_type: str | torch.device | None = None,
) -> Iterator[None]:
    """Keep modules of a model in one precision in eager regions, as the options of these names do in compiled code.

    A module kept in float32 gets its inputs in float32 and runs with autocast off. One kept in the lower precision gets
    them in the dtype of the region, runs in such a region, and so are its outputs. Outside of regions nothing changes.
    Modules inside a kept one are part of it; the innermost module that a pattern names decides.

    Args:
        model: the model. Hooks stay on its modules until the context ends.
        keep_float32: globs on the names that ``model.named_modules()`` gives.
        keep_lower: the same.
        device_type: the device type whose regions and tensors count; None means that of the model's parameters.

    Raises:
        InvalidOptionError: a pattern names no module, a module is named in both lists, or is compiled.
        UnsupportedDeviceError: the device type has no autocast.

    Example:
        >>> with xpu_amp_dynamo.keep_precision(model, keep_float32=["lm_head"]), xpu_amp_dynamo.autocast():
        ...     loss = model(x).loss
        ...     loss.backward()
    """
    patterns = ModulePatterns.parse(keep_float32, keep_lower)
    kept = _kept(model, patterns)
    hooks = _Hooks(kept, check_device_type(_device_type(model) if device_type is None else device_type))
    with contextlib.ExitStack() as stack:
        stack.callback(hooks.leave_all)
        for module in kept:
            stack.callback(module.register_forward_pre_hook(hooks.enter, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(hooks.leave, with_kwargs=True, always_call=True).remove)
        yield


@dataclass(frozen=True)
class _Call:
    """A call of a kept module that is going on.

    Args:
        module: the module.
        kept: the kept module that it is or lies in.
        enabled: whether autocast is enabled around that.
        dtype: its dtype there.
        depth: how many regions were open once the module was entered.
        region: the region that was entered for it, None if none was.
    """

    module: torch.nn.Module
    kept: Kept
    enabled: bool
    dtype: torch.dtype
    depth: int
    region: torch.autocast | None = None

    def convert(self, values: Any, device_type: str) -> Any:
        """Convert the tensors among inputs or outputs to the dtype that the module is kept in, each once."""
        wanted = torch.float32 if self.kept.float32 else self.dtype
        converted: dict[int, torch.Tensor] = {}

        def convert(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.device.type != device_type or not needs_cast(tensor, wanted):
                return tensor
            # Attention looks whether query, key and value are one tensor.
            return converted.setdefault(id(tensor), tensor.to(wanted))

        return map_tensors(convert, values)


class _Hooks:
    """The hooks of kept modules, and the calls of these that are going on in each thread."""

    def __init__(self, kept: Mapping[torch.nn.Module, Kept], device_type: str) -> None:
        self._kept = kept
        self._device_type = device_type
        self._local = threading.local()

    @property
    def _calls(self) -> list[_Call]:
        calls: list[_Call] = self._local.__dict__.setdefault("calls", [])
        return calls

    @hide_from_dynamo
    def enter(self, module: torch.nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """Enter the region that a module is to run in, and convert its inputs."""
        call = self._call_of(module)
        self._calls.append(call)
        if call.region is None:
            return None
        call.region.__enter__()
        return call.convert((args, kwargs), self._device_type)

    @hide_from_dynamo
    def leave(self, module: torch.nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """Leave the region, and convert the outputs of a module that is kept in the lower precision."""
        if not self._calls or self._calls[-1].module is not module:
            # A hook in front of ours raised, so that the module was not entered.
            return None
        call = self._calls.pop()
        if call.region is None:
            return None
        call.region.__exit__(None, None, None)
        if call.kept.float32:
            return None
        output = call.convert(output, self._device_type)
        around = self._calls[-1] if self._calls else None
        # What a module kept in float32 gets of one inside it is an input, too.
        if around is not None and around.kept.float32 and around.enabled:
            return around.convert(output, self._device_type)
        return output

    @hide_from_dynamo
    def leave_all(self) -> None:
        """Leave what this thread did not leave because of an interruption, for which PyTorch runs no hooks."""
        while self._calls:
            call = self._calls.pop()
            if call.region is not None and open_regions() >= call.depth:
                call.region.__exit__(None, None, None)
            elif call.region is not None:
                # A region around it was left already, and has put the state back.
                torch.autocast_decrement_nesting()

    def _call_of(self, module: torch.nn.Module) -> _Call:
        """Return a call of a module that is about to run, with its region if it takes one."""
        kept, around, depth = self._kept[module], self._calls[-1] if self._calls else None, open_regions()
        if around is not None and around.kept == kept:
            return dataclasses.replace(around, module=module, region=None)
        if around is not None and around.depth == depth:
            enabled, dtype = around.enabled, around.dtype
        else:
            enabled = torch.is_autocast_enabled(self._device_type)
            dtype = torch.get_autocast_dtype(self._device_type)
        if not enabled:
            return _Call(module, kept, enabled, dtype, depth)
        region = torch.autocast(self._device_type, dtype, enabled=not kept.float32)
        return _Call(module, kept, enabled, dtype, depth + 1, region)


def _kept(model: torch.nn.Module, patterns: ModulePatterns) -> dict[torch.nn.Module, Kept]:
    """Return the kept modules of a model and those inside them, each with the kept one."""
    names: dict[torch.nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    patterns.check([name for shared in names.values() for name in shared])
    kept = {module: found for module, shared in names.items() if (found := patterns.kept(shared)) is not None}
    for name, module in model.named_modules():
        if is_compiled(module):
            _check_compiled(name, module, kept)
    return kept


def _check_compiled(name: str, compiled: torch.nn.Module, kept: Mapping[torch.nn.Module, Kept]) -> None:
    """Refuse kept modules inside one that is compiled."""
    for module in compiled.modules():
        if module in kept:
            raise InvalidOptionError(
                f"module {kept[module].module!r} is kept and module {name!r} is compiled, where no hooks run; give "
                "torch.compile the options keep_float32 and keep_lower"
            )


def _device_type(model: torch.nn.Module) -> str:
    """Return the device type of a model's parameters."""
    return next((parameter.device.type for parameter in model.parameters()), default_device_type())

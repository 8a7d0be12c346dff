"""The backend with options of its own, which are checked before ``torch.compile`` sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from xpu_amp_dynamo.backend import CompiledFunction, xpu_amp
from xpu_amp_dynamo.errors import InvalidOptionError
from xpu_amp_dynamo.options import BackendOptions


@dataclass(frozen=True)
class ConfiguredBackend:
    """The backend with its options. Two with equal options are equal, so that their compiled code is shared.

    Args:
        options: the options that were given.
    """

    options: Mapping[str, Any]

    @property
    def __name__(self) -> str:
        # What logs and errors of torch.compile call it.
        return "xpu_amp"

    def __call__(self, gm: fx.GraphModule, example_inputs: Sequence[Any], **beside: Any) -> CompiledFunction:
        """Compile a graph as :func:`xpu_amp` does.

        Raises:
            InvalidOptionError: ``torch.compile`` was given options or a mode of its own beside.
        """
        if beside:
            given = " and ".join(f"{name}={value!r}" for name, value in beside.items())
            raise InvalidOptionError(f"torch.compile was given {given} beside a backend with options; give all to it")
        return xpu_amp(gm, example_inputs, options=self.options)


def backend_with(**options: Any) -> ConfiguredBackend:
    """Return the backend with options, checked now.

    ``torch.compile(model, backend="xpu_amp", options={...})`` hands options on when the model is first called, and
    wraps what is wrong with them in an error of its own.

    Args:
        options: those of :class:`BackendOptions`.

    Returns:
        What ``torch.compile`` takes as its ``backend``.

    Raises:
        InvalidOptionError: an option is unknown or outside its legal set.

    Example:
        >>> model = torch.compile(model, backend=xpu_amp_dynamo.backend_with(dtype="float16", mode="max-autotune"))
    """
    BackendOptions.parse(options)
    return ConfiguredBackend(options)

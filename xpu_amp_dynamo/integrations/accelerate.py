"""The backend for Accelerate, whose own plugin takes only the backends of a fixed enumeration."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from accelerate.utils import TorchDynamoPlugin

from xpu_amp_dynamo.options import BackendOptions

BACKEND = "xpu_amp"


class XpuAmpPlugin(TorchDynamoPlugin):
    """Have ``Accelerator.prepare`` compile models with ``backend="xpu_amp"``, after it wrapped them.

    What is left out is read from the variables that ``accelerate launch`` sets, ``ACCELERATE_DYNAMO_MODE`` and the
    like, but for the backend, which is always this one. Checked on accelerate 1.15.0.

    Args:
        options: those of :class:`xpu_amp_dynamo.BackendOptions`.
        mode: a mode of ``torch.compile``, which takes no options beside it.
        fullgraph: whether a graph break is an error.
        dynamic: whether to compile for dynamic shapes.
        disable: make ``torch.compile`` do nothing.
        use_regional_compilation: compile each of a model's repeated blocks by itself.

    Raises:
        InvalidOptionError: an option is unknown or outside its legal set.

    Example:
        >>> accelerator = Accelerator(dynamo_plugin=XpuAmpPlugin({"dtype": torch.float16}))
        >>> model, optimizer = accelerator.prepare(model, optimizer)
    """

    def __init__(
        self,
        options: Mapping[str, Any] | None = None,
        *,
        mode: str | None = None,
        fullgraph: bool | None = None,
        dynamic: bool | None = None,
        disable: bool = False,
        use_regional_compilation: bool | None = None,
    ) -> None:
        BackendOptions.parse(options)
        # It has to be one of its own to get past the enumeration.
        super().__init__(
            backend="inductor",
            mode=mode,
            fullgraph=fullgraph,
            dynamic=dynamic,
            options=None if options is None else dict(options),
            disable=disable,
            use_regional_compilation=use_regional_compilation,
        )
        self.backend = BACKEND

    def to_dict(self) -> dict[str, Any]:
        """Return all settings."""
        return copy.deepcopy(self.__dict__)

    def to_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments for ``torch.compile``."""
        # Accelerate's own leaves out what every plugin of this class has.
        return {**super().to_kwargs(), "backend": BACKEND}

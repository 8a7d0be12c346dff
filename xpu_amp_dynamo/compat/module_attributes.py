"""What ``nn.Module`` keeps in its ``__dict__``, buffers in a dict of their own there. Checked on torch 2.13.0."""

from __future__ import annotations

import torch
from torch.nn.parameter import is_lazy


class ModuleAttributes:
    """The attributes of one module, without those of modules inside it, as they are when this is made.

    Those of PyTorch's own classes are left alone: they belong to state that lies elsewhere, in C++ or in a reducer.

    Args:
        module: the module.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module
        self.attributes = dict(vars(module))
        self.buffers = dict(module._buffers)
        # A first call makes parameters of what has no shape yet, and takes the module's hooks for that away.
        is_new = any(map(is_lazy, module.parameters(recurse=False)))
        self.is_left_alone = is_new or type(module).__module__.partition(".")[0] == "torch"

    def put_back(self) -> None:
        """Give the module these attributes and no others; one whose parameters had no shape keeps what it has."""
        if self.is_left_alone:
            return
        vars(self.module).clear()
        vars(self.module).update(self.attributes)
        self.module._buffers.clear()
        self.module._buffers.update(self.buffers)

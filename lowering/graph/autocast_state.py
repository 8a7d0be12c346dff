"""The autocast state under which a node runs, and its grad mode."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from xpu_amp_dynamo.lowering.graph.kept_calls import KeptCall, count_common
from xpu_amp_dynamo.policy.kept_modules import Kept


@dataclass(frozen=True)
class AutocastState:
    """Autocast of one device type at one point of a program.

    Args:
        enabled: whether the policy applies.
        dtype: the lower precision, bfloat16 or float16.
        cache_enabled: whether casts of float32 parameters are shared.
        outermost: the number of the outermost region that the point lies in. Eager autocast shares casts within it.
        in_region: whether a region of the program says so, not an option. The dtypes that capture recorded there are
            those of autocast.
        grad_enabled: whether autograd records what runs there, which decides what casts may be shared.
        entered_in: the calls of kept modules that the innermost region was entered in.
        kept: the kept module that decides the state.
        around: the state that capture saw there, where a kept module decides another.
    """

    enabled: bool
    dtype: torch.dtype
    cache_enabled: bool = True
    outermost: int = 0
    in_region: bool = False
    grad_enabled: bool = True
    entered_in: tuple[KeptCall, ...] = ()
    kept: Kept | None = None
    around: AutocastState | None = None

    @property
    def captured(self) -> AutocastState:
        """The state that capture saw: that without kept modules."""
        return self.around or self

    @property
    def is_kept_float32(self) -> bool:
        """Whether a kept module has a point of a region run in float32."""
        return self.kept is not None and self.kept.float32 and self.in_region

    def inside(self, calls: tuple[KeptCall, ...]) -> AutocastState:
        """Return the state at a point that lies in calls of kept modules, given that around them.

        A region that code inside a kept module enters counts for what is in it, as does one that turns autocast off.
        """
        if not self.enabled or len(calls) == count_common(calls, self.entered_in):
            return self
        kept = calls[-1].kept
        in_region = self.in_region or not kept.float32
        return dataclasses.replace(self, enabled=not kept.float32, in_region=in_region, kept=kept, around=self)

"""The Dynamo backend ``"ipex"``: ours, for programs in which regions say where precision is mixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from xpu_amp_dynamo.ipex.chosen_policy import policy_in_force


def ipex_backend(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compile a Dynamo graph as ``backend="xpu_amp"`` does, but leave code outside of regions as it is.

    IPEX's backend chose no precision of its own: a float32 program stayed one. ``options={"enabled": True}`` lowers it.

    Args:
        gm: the graph that Dynamo captured.
        example_inputs: one value for each of its placeholders.
        mode: a mode of ``torch.compile`` for Inductor.
        options: those of the backend ``"xpu_amp"``, and settings of Inductor beside them, as IPEX took these.

    Returns:
        The compiled function.
    """
    from xpu_amp_dynamo.backend import xpu_amp
    from xpu_amp_dynamo.inductor.settings import is_setting

    given = {"policy": policy_in_force(), "enabled": False, **(options or {})}
    settings = {name: given.pop(name) for name in list(given) if is_setting(name)}
    if settings:
        given["inductor"] = {**settings, **given.get("inductor", {})}
    return xpu_amp(gm, example_inputs, mode=mode, options=given)

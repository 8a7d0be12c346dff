"""What became of the casts of a lowered graph in the code that Inductor wrote."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xpu_amp_dynamo.lowering.records import LoweredCast
from xpu_amp_dynamo.simulator.kernel_report import KernelLaunch

KEPT, FUSED, KERNEL, REMOVED = "kept", "fused", "kernel", "removed"
_WORDS = {
    KEPT: "kept between calls",
    FUSED: "fused into",
    KERNEL: "a kernel that only casts:",
    REMOVED: "removed by the optimiser",
}


@dataclass(frozen=True)
class Fate:
    """What became of one cast, in forward and backward.

    Args:
        kind: ``"kept"`` (its result is kept from call to call), ``"fused"`` (a kernel does it while it does something
            else), ``"kernel"`` (a kernel does nothing else) or ``"removed"``.
        kernels: the kernels that do it, or its gradient.
    """

    kind: str
    kernels: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it in words."""
        return " ".join([_WORDS[self.kind], ", ".join(self.kernels)]).strip()


def fates_of(casts: Iterable[LoweredCast], launches: Sequence[KernelLaunch], keeps_weights: bool) -> dict[str, Fate]:
    """Return what became of each cast, by its tag.

    Args:
        casts: the casts of a lowered graph.
        launches: what Inductor generated for it.
        keeps_weights: whether casts of weights may be kept between calls.
    """
    by_tag: defaultdict[str, list[KernelLaunch]] = defaultdict(list)
    only_casts: dict[tuple[str, str], bool] = {}
    for launch in launches:
        kernel = (launch.graph, launch.name)
        only_casts[kernel] = only_casts.get(kernel, True) and launch.only_casts
        for tag in launch.origins:
            by_tag[tag].append(launch)
    casting = {kernel for kernel, only in only_casts.items() if only}
    return {cast.tag: _fate(cast, by_tag[cast.tag], casting, keeps_weights) for cast in casts}


def _fate(
    cast: LoweredCast, launches: Sequence[KernelLaunch], casting: set[tuple[str, str]], keeps_weights: bool
) -> Fate:
    kernels = [(launch.graph, launch.name) for launch in launches if not launch.is_library_call]
    forward = [kernel for kernel in kernels if kernel[0].startswith("forward")]
    names = tuple(dict.fromkeys(name for _, name in kernels))
    if not forward:
        return Fate(KEPT if cast.of_weight and keeps_weights else REMOVED, names)
    return Fate(KERNEL if casting.intersection(forward) else FUSED, names)

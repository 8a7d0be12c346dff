"""Our passes as Inductor takes them: over the ATen graphs it compiles, and over its schedule of kernels."""

from __future__ import annotations

import functools
import importlib.util
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files
from torch._inductor.ir import Buffer
from torch._inductor.scheduler import (
    BaseSchedulerNode,
    ForeachKernelSchedulerNode,
    FusedSchedulerNode,
    SchedulerNode,
    refresh_group_node_dependencies,
)

from xpu_amp_dynamo.lowering.pipeline import AtenPass, optimise

# Packages of which no other contains the files: they lie in folders of their own in a checkout.
PACKAGES = ("xpu_amp_dynamo", "xpu_amp_dynamo.lowering", "xpu_amp_dynamo.runtime")


try:
    from torch._inductor.custom_graph_pass import CustomSchedulerPass
except ImportError:  # New in torch 2.13; before, Inductor took any function.

    class CustomSchedulerPass:  # type: ignore[no-redef]
        """Stands for what torch has no name for yet."""


class CastPasses(CustomGraphPass):
    """Passes of the cast optimiser, as Inductor takes them: as one, since before torch 2.13 it took no list."""

    def __init__(self, passes: tuple[AtenPass, ...], before: Sequence[Callable[[fx.Graph], Any]] = ()) -> None:
        """Join passes.

        Args:
            passes: those of the optimiser.
            before: those that the user set for the same moment; they run first.
        """
        self._passes = passes
        self._before = before
        self._names_before = _names_of(before)

    def __call__(self, graph: fx.Graph) -> None:
        """Edit a graph in place."""
        for run in self._before:
            run(graph)
        optimise(self._passes, graph)

    def uuid(self) -> tuple[Any, ...]:
        """Return what Inductor's cache knows these passes by.

        A function of the user has no name that tells what it does: it gets one that never comes again, so that no
        code compiled with another function is found.
        """
        names = (f"{run.__name__}{getattr(run, 'keywords', '')}" for run in self._passes)
        return hash_of_sources(), *names, *self._names_before


class SchedulePass(CustomSchedulerPass):
    """Our pass over fused kernels, before Inductor reorders them. Checked on torch 2.11.0 and 2.13.0."""

    def __init__(self, before: Sequence[Callable[[list[BaseSchedulerNode]], list[BaseSchedulerNode]]] = ()) -> None:
        """Join a pass of the user, which runs first, with ours: Inductor takes one."""
        self._before = before
        self._names_before = _names_of(before)

    def __call__(self, nodes: list[BaseSchedulerNode]) -> list[BaseSchedulerNode]:
        """Edit the scheduled nodes of a graph in place, and return them."""
        for run in self._before:
            nodes = run(nodes)
        for node in nodes:
            _count_blocks_by_cast(node)
            _wait_for_writes(node)
        return nodes

    def uuid(self) -> tuple[Any, ...]:
        """Return what Inductor's cache knows this pass by: its code, and the user's name for theirs."""
        return hash_of_sources(), *self._names_before


def _names_of(passes: Sequence[Any]) -> list[Any]:
    """Return what passes of the user call themselves; for those that have no such name, one that never comes again."""
    named = (CustomGraphPass, CustomSchedulerPass)
    # A pass that names itself None asks for code that is not kept.
    return [(isinstance(run, named) and run.uuid()) or uuid.uuid4().hex for run in passes]


@functools.cache
def hash_of_sources() -> bytes:
    """Hash all code of this package, of which any may run in a pass."""
    return get_hash_for_files(source_files())


def source_files() -> tuple[str, ...]:
    """List the Python files of this package."""
    specs = [importlib.util.find_spec(package) for package in PACKAGES]
    folders = [Path(folder) for spec in specs if spec for folder in spec.submodule_search_locations or ()]
    return tuple(sorted({str(path) for folder in folders for path in folder.rglob("*.py")}))


def _count_blocks_by_cast(node: BaseSchedulerNode) -> None:
    """Give each cast of a group blocks of its own size, so that casts of all shapes can share a kernel.

    For every tensor of a foreach kernel Inductor launches as many blocks as the largest needs, and so keeps
    tensors of different sizes apart where casting also changes their layout, as convolutions want it. Its combo
    kernels count and tune the blocks of each tensor; such a group becomes one of those.
    """
    if isinstance(node, ForeachKernelSchedulerNode) and _casts_for_convolutions(node):
        node.per_subkernel_blocks = node.enable_autotune = True


def _wait_for_writes(node: BaseSchedulerNode) -> None:
    """Let a kernel wait again for writes to what it reads.

    Where Inductor fuses loops of other shapes for the CPU, it writes down anew what they read, and forgets that memory
    which is written later goes by a later name. Reordered to save memory, a cast then reads a gradient before it is
    added up: behind nearest upsampling all gradients were 0 (torch 2.13.0).
    """
    stale = [part for part in node.get_nodes() if isinstance(part, SchedulerNode) and _reads_by_old_names(part)]
    for part in stale:
        part.set_read_writes(part.read_writes.rename(part.mutation_renames))
    if stale and isinstance(node, FusedSchedulerNode):
        refresh_group_node_dependencies(node)


def _reads_by_old_names(node: SchedulerNode) -> bool:
    """Tell whether a node reads memory by a name that it had before it was written."""
    return any(read.name in node.mutation_renames for read in node.read_writes.reads)


def _casts_for_convolutions(node: ForeachKernelSchedulerNode) -> bool:
    """Tell whether a kernel is one of our groups of casts and has tensors with more dimensions than matrices."""
    parts = [part.node for part in node.get_nodes() if part.node is not None]
    grouped = any(o.target is torch.ops.aten._foreach_copy.default for part in parts for o in part.get_origins())
    return grouped and any(isinstance(part, Buffer) and len(part.get_size()) > 2 for part in parts)

"""What compiled code does to weights before it uses them: kernels that only cast or rearrange them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_CAST, _COPY = {"load", "to_dtype", "store"}, {"load", "store"}
_BOOKKEEPING = {"get_index", "set_indirect", "output"}


@dataclass
class GraphTraffic:
    """Of one compiled graph: launches that only cast, some of it weights, or only copy weights, and bytes of casts."""

    kind: str
    casts: int = 0
    copies: int = 0
    cast_bytes: int = 0
    calls: int = 0


@dataclass
class WeightTraffic:
    """The traffic of all graphs that were compiled."""

    graphs: list[GraphTraffic] = field(default_factory=list)

    @property
    def bytes_of_calls(self) -> int:
        """Bytes that casts of weights moved in all calls so far."""
        return sum(graph.cast_bytes * graph.calls for graph in self.graphs)

    def forget_calls(self) -> None:
        """Count calls from now on."""
        for graph in self.graphs:
            graph.calls = 0


@contextlib.contextmanager
def record_weight_traffic(traffic: WeightTraffic) -> Iterator[None]:
    """Add to ``traffic`` what Inductor generates and what is called of it. Checked on torch 2.13.0."""
    # Nothing of Inductor's schedule may be imported before the simulated XPU is on.
    from torch._inductor.graph import GraphLowering
    from torch._inductor.scheduler import Scheduler

    enter_context, to_module = Scheduler.enter_context, GraphLowering.compile_to_module

    def entering(scheduler: Scheduler, node: Any) -> None:
        _add(traffic.graphs[-1], node)
        enter_context(scheduler, node)

    def compile_to_module(graph: GraphLowering) -> Any:
        added = GraphTraffic("backward" if graph.is_backward else "forward")
        traffic.graphs.append(added)
        module: Any = to_module(graph)
        module.call = _counting(module.call, added)
        return module

    with (
        mock.patch.object(Scheduler, "enter_context", entering),
        mock.patch.object(GraphLowering, "compile_to_module", compile_to_module),
    ):
        yield


def _counting(call: Callable[[list[Any]], Any], traffic: GraphTraffic) -> Callable[[list[Any]], Any]:
    def counting(inputs: list[Any]) -> Any:
        traffic.calls += 1
        return call(inputs)

    return counting


def _add(traffic: GraphTraffic, node: Any) -> None:
    """Add a scheduled node: as a launch if it prepares weights and computes nothing, and the bytes of its casts."""
    parts = node.get_nodes()
    operations = [_operations(part) for part in parts]
    if all(each in (_CAST, _COPY) for each in operations):
        weights = _weights()
        of_weights = [{read.name for read in part.read_writes.reads} <= weights for part in parts]
        casts = [each == _CAST and ours for each, ours in zip(operations, of_weights, strict=True)]
        traffic.casts += any(casts)
        traffic.copies += all(of_weights) and not any(casts)
        traffic.cast_bytes += sum(
            part.get_read_write_buffers_sizes() for part, cast in zip(parts, casts, strict=True) if cast
        )


def _operations(part: Any) -> set[str]:
    """Return the names of what the loops of a scheduled node do; empty for one that has none."""
    body = getattr(part, "_body", None)
    return set(body.op_counts) - _BOOKKEEPING if body is not None else set()


def _weights() -> set[str]:
    """Return the names of inputs of the graph that stay the same from call to call: weights, buffers, kept casts.

    A backward graph has them by the names of the forward graph.
    """
    from torch._inductor.virtualized import V

    context = torch._guards.TracingContext.try_get()
    metadata = context.fw_metadata if context is not None else None
    positions = metadata.static_input_indices if metadata is not None else []
    backward = {f"primals_{position + 1}" for position in positions}
    if V.graph.is_backward:
        return backward
    names = V.graph.graph_input_names
    return {names[position] for position in positions if position < len(names)}


class EagerCasts(TorchDispatchMode):
    """Counts the bytes that eager ops move to cast a model's weights."""

    OPS = ("_to_copy", "copy_", "_foreach_copy_")

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.bytes = 0
        self._weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Have Dynamo run compiled code under this mode, which otherwise it does not."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an op and count it if it casts weights."""
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.removeprefix("aten::")
        if name in self.OPS:
            self._count(*((args[0], result) if name == "_to_copy" else (args[1], args[0])))
        return result

    def _count(self, sources: Any, targets: Any) -> None:
        if isinstance(sources, torch.Tensor):
            sources, targets = [sources], [targets]
        for source, target in zip(sources, targets, strict=True):
            is_weight = source.untyped_storage()._cdata in self._weights
            if is_weight and source.dtype != target.dtype:
                self.bytes += source.nbytes + target.nbytes

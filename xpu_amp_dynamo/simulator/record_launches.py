"""Records what Inductor generates: each launch with the ops, source lines, bytes and dtypes behind it.

Inductor writes its wrapper code line by line while it walks over the scheduled nodes, so that the lines written
between two nodes are the launches of the first of them. Checked on torch 2.13.0.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch._inductor import ir
from torch._inductor.codegen.wrapper import KernelCallLine, PythonWrapperCodegen
from torch._inductor.loop_body import LoopBody
from torch._inductor.scheduler import BaseSchedulerNode, Scheduler
from torch._inductor.virtualized import V

from xpu_amp_dynamo.lowering.graph.node_kind import source_line
from xpu_amp_dynamo.lowering.graph.tags import tags_of
from xpu_amp_dynamo.simulator.kernel_report import KernelLaunch, KernelReport

CONTROL_NODES = (ir.MultiOutput, ir.DynamicScalar, ir.AssertScalar, ir.DynamicSelectStorageOffset, ir.DynamicSliceSize)
CAST_BODY = {"load", "to_dtype", "store"}
# No view by its schema; graphs of torch 2.15 have it where those before have a view.
NEW_VIEW = torch.ops.aten._unsafe_view.default

# The nodes of one graph, each with the wrapper line at which its code starts.
Walk = list[tuple[int, BaseSchedulerNode]]


@contextlib.contextmanager
def record_launches(report: KernelReport) -> Iterator[None]:
    """Add to a report what Inductor generates while the context lasts."""
    enter_context, generate = Scheduler.enter_context, PythonWrapperCodegen.generate
    walks: dict[PythonWrapperCodegen, Walk] = {}
    counts = {"forward": 0, "backward": 0}

    def entering(scheduler: Scheduler, node: BaseSchedulerNode) -> None:
        wrapper = V.graph.wrapper_code
        walks.setdefault(wrapper, []).append((len(wrapper.lines), node))
        enter_context(scheduler, node)

    def generating(wrapper: PythonWrapperCodegen, is_inference: bool) -> Any:
        kind = "backward" if V.graph.is_backward else "forward"
        graph = f"{kind} {counts[kind]}"
        counts[kind] += 1
        report.launches.extend(_launches(wrapper, walks.pop(wrapper, []), graph))
        generated = generate(wrapper, is_inference)
        report.generated[graph] = generated[0].value
        return generated

    with (
        mock.patch.object(Scheduler, "enter_context", entering),
        mock.patch.object(PythonWrapperCodegen, "generate", generating),
    ):
        yield


def _launches(wrapper: PythonWrapperCodegen, walk: Walk, graph: str) -> Iterator[KernelLaunch]:
    """Yield the launches of one graph in order; of C++ kernels, which do several nodes, one launch a node."""
    ends = [start for start, _ in walk[1:]] + [len(wrapper.lines)]
    waiting: list[BaseSchedulerNode] = []
    for (start, node), end in zip(walk, ends, strict=True):
        lines: list[Any] = [line for line in wrapper.lines[start:end] if isinstance(line, KernelCallLine)]
        names = [(line.kernel_name, line.triton) for line in lines]
        waiting += [node] if _is_loop_in_cpp(node) else []
        if waiting and names:
            yield from (_launch(part, graph, names[-1][0], False, part=(0, 1)) for part in waiting)
            waiting, names = [], []
        if not names and _is_extern_call(node):
            names = [(_extern_name(node.node), False)]
        for position, (name, is_triton) in enumerate(names):
            yield _launch(node, graph, name, is_triton, part=(position, len(names)))


def _is_loop_in_cpp(node: BaseSchedulerNode) -> bool:
    """Tell whether a node becomes a part of a C++ kernel, whose call is written when its last part is known."""
    device = node.get_device()
    return device is not None and device.type == "cpu" and not node.is_extern()


def _launch(node: BaseSchedulerNode, graph: str, name: str, is_triton: bool, part: tuple[int, int]) -> KernelLaunch:
    """Describe one launch of a node, given its position among how many; they share the node's bytes equally."""
    input_dtypes = _dtypes(dependency.name for dependency in node.read_writes.reads)
    output_dtypes = _dtypes(name for buffer in node.get_outputs() for name in _tensors_of(buffer.get_name()))
    floating = all(dtype.is_floating_point for dtype in (*input_dtypes, *output_dtypes))
    return KernelLaunch(
        graph=graph,
        name=name,
        is_triton=is_triton,
        ops=tuple(dict.fromkeys(_op_names(node))),
        sources=tuple(dict.fromkeys(_source_lines(node))),
        bytes_read=_part_of(node.get_read_buffer_sizes(), *part),
        bytes_written=_part_of(node.get_write_buffer_sizes(), *part),
        input_dtypes=input_dtypes,
        output_dtypes=output_dtypes,
        only_casts=not node.is_extern() and floating and _only_casts(node),
        origins=tuple(dict.fromkeys(tag for origin in _origins(node) for tag in tags_of(origin))),
    )


def _part_of(total: int, position: int, count: int) -> int:
    """Return one of ``count`` nearly equal parts of a number, which add up to it."""
    return total * (position + 1) // count - total * position // count


def _is_extern_call(node: BaseSchedulerNode) -> bool:
    return node.is_extern() and not isinstance(node.node, CONTROL_NODES)


def _extern_name(node: Any) -> str:
    """Return the name of the op that an extern node calls."""
    overload = getattr(node, "op_overload", None)
    name = str(overload) if overload is not None else node.python_kernel_name or type(node).__name__
    return name.removeprefix("torch.ops.")


def _only_casts(node: BaseSchedulerNode) -> bool:
    """Tell whether all that a node's loops do is load, convert and store, from one dtype to another."""
    bodies = [getattr(part, "_body", None) for part in node.get_nodes()]
    return all(isinstance(body, LoopBody) and _is_cast_body(body) for body in bodies)


def _is_cast_body(body: LoopBody) -> bool:
    operations = {name for name in body.op_counts if name not in ("get_index", "set_indirect", "output")}
    return operations == CAST_BODY


def _op_names(node: BaseSchedulerNode) -> Iterator[str]:
    """Yield the names of the ATen ops that a node computes, but for those that only view."""
    for origin in _origins(node):
        op = origin.meta.get("original_aten") or origin.target
        if origin.op == "call_function" and op is not NEW_VIEW and not getattr(op, "is_view", False):
            yield str(getattr(op, "_overloadpacket", op)).removeprefix("aten.")


def _source_lines(node: BaseSchedulerNode) -> Iterator[str]:
    """Yield the lines of the user's code that a node comes from."""
    return filter(None, map(source_line, _origins(node)))


def _origins(node: BaseSchedulerNode) -> list[torch.fx.Node]:
    """List the nodes of the graph that a scheduled node computes."""
    return [origin for part in node.get_nodes() if part.node is not None for origin in part.node.get_origins()]


def _tensors_of(name: str) -> Iterator[str]:
    """Yield the names of the tensors in a buffer: those picked out of it if it holds several, else its own."""
    users: list[Any] = [user.node for user in V.graph.scheduler.name_to_buf[name].users]
    picked = [node for node in users if isinstance(getattr(node, "node", None), ir.MultiOutput)]
    if not picked:
        yield name
    for node in picked:
        yield from (buffer.get_name() for buffer in node.get_outputs())


def _dtypes(names: Iterator[str]) -> tuple[torch.dtype, ...]:
    """Return the dtypes of those buffers that are tensors, each once."""
    found = (V.graph.try_get_buffer(name) for name in sorted(set(names)))
    dtypes = (buffer.maybe_get_dtype() for buffer in found if buffer is not None)
    return tuple(dict.fromkeys(dtype for dtype in dtypes if dtype is not None))

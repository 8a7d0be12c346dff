"""Describes a lowered graph call by call and cast by cast, for whoever asks. Changes nothing but marks on nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch import fx

from xpu_amp_dynamo.compat.compiled_modules import models_of_compiled_call
from xpu_amp_dynamo.compat.tensors import is_tracked_view
from xpu_amp_dynamo.lowering.graph.casting import is_inserted_cast
from xpu_amp_dynamo.lowering.graph.context import LoweringContext, Reason
from xpu_amp_dynamo.lowering.graph.node_kind import CALLS, base_op_name, module_of, source_line
from xpu_amp_dynamo.lowering.graph.tags import tag
from xpu_amp_dynamo.lowering.graph.values import dtypes_in, tensors_in, value_of
from xpu_amp_dynamo.lowering.records import LoweredCall, LoweredCast
from xpu_amp_dynamo.lowering.report import records_details

_NO_RULE = Reason("unchanged", "nothing asks for another dtype")
_REFUSED = "; restored to the captured dtypes, since it refuses others"
_RETURNED = Reason("captured", "the code around the graph was compiled for this dtype")


def describe(gm: fx.GraphModule, context: LoweringContext) -> None:
    """List every call on tensors and every cast of a lowered graph in the report, and tag their nodes if recorded."""
    report, names = context.report, _names_of_modules()
    for node in gm.graph.nodes:
        if node.op not in CALLS or not tensors_in(value_of(node)):
            continue
        name = f"{report.number}.{len(report.calls) + len(report.each_cast)}"
        if is_inserted_cast(node):
            report.each_cast.append(_describe_cast(node, name, names, context))
        else:
            report.calls.append(_describe_call(node, name, names, context))
        if records_details():
            tag(node, [name])


def _names_of_modules() -> dict[int, str]:
    """Return the qualified names, by ``id``, of the modules of the model that Dynamo compiles for."""
    models = models_of_compiled_call() or []
    return {id(module): name for model in models for name, module in model.named_modules()}


def _describe_cast(node: fx.Node, name: str, names: Mapping[int, str], context: LoweringContext) -> LoweredCast:
    source, user = node.all_input_nodes[0], next(iter(node.users))
    return LoweredCast(
        tag=name,
        name=node.name,
        source=source.name,
        from_dtype=value_of(source).dtype,
        to_dtype=value_of(node).dtype,
        elements=_expression(value_of(node).numel()),
        elements_now=_size_now(value_of(node).numel()),
        of_weight=_is_weight(source),
        users=tuple(n.name for n in node.users),
        reason=_reason_of_cast(node, user, context).words,
        module=module_of(node, names),
        line=source_line(node),
    )


def _describe_call(node: fx.Node, name: str, names: Mapping[int, str], context: LoweringContext) -> LoweredCall:
    reason = _reason(node, context)
    return LoweredCall(
        tag=name,
        name=node.name,
        op=base_op_name(node),
        rule="refused" if node in context.refused else reason.rule,
        reason=reason.words + (_REFUSED if node in context.refused else ""),
        category=reason.category.value if reason.category else "",
        inside=reason.inside,
        input_dtypes=tuple(dtypes_in([value_of(n) for n in node.all_input_nodes])),
        output_dtypes=tuple(dtypes_in(value_of(node))),
        captured_dtypes=tuple(dtypes_in(context.recorded.get(node, value_of(node)))),
        shape=tuple(map(_expression, tensors_in(value_of(node))[0].shape)),
        bytes_now=sum(_size_now(t.numel()) * t.dtype.itemsize for t in tensors_in(value_of(node))),
        casts=tuple(n.name for n in node.all_input_nodes if is_inserted_cast(n)),
        module=module_of(node, names),
        line=source_line(node),
    )


def _reason_of_cast(node: fx.Node, user: fx.Node, context: LoweringContext) -> Reason:
    if node in context.reasons:
        return context.reasons[node]
    return _RETURNED if user.op == "output" else _reason(user, context)


def _reason(node: fx.Node, context: LoweringContext) -> Reason:
    return context.reasons.get(node, _NO_RULE)


def _is_weight(node: fx.Node) -> bool:
    """Tell whether a node is a parameter or, through views, made of one."""
    while node.op != "placeholder":
        value, inputs = value_of(node), node.all_input_nodes
        if len(inputs) != 1 or not isinstance(value, torch.Tensor) or not is_tracked_view(value):
            return False
        node = inputs[0]
    return isinstance(value_of(node), torch.nn.Parameter)


def _expression(size: Any) -> sympy.Expr | int:
    """Return a size as a number, or as the expression that stands for it where it is dynamic."""
    return size.node.expr if isinstance(size, torch.SymInt) else int(size)


def _size_now(size: Any) -> int:
    """Return a size in the call that was captured, 0 if it depends on data."""
    if isinstance(size, torch.SymInt):
        return int(size.node.hint) if size.node.has_hint() else 0
    return int(size)

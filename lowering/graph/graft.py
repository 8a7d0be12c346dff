"""Puts the nodes of one graph into another, in the place of a call that stands for them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from torch import fx

from xpu_amp_dynamo.lowering.graph.node_kind import attribute_of

Copies = dict[fx.Node, Any]


class Grafted(NamedTuple):
    """What a graft left: the nodes that hold results, each with the node that it replaced, and the nodes now gone."""

    results: list[tuple[fx.Node, fx.Node]]
    erased: list[fx.Node]


def graft(
    call: fx.Node, body: fx.GraphModule, inputs: Sequence[Any], copy: Callable[[fx.Node, Copies], fx.Node]
) -> Grafted:
    """Replace a call by the nodes of a graph, item by item where it returns several values.

    Args:
        call: the call; it is erased, with the nodes that pick its results.
        body: the graph that it stands for. It stays as it is.
        inputs: what the placeholders of the body stand for, in order.
        copy: copies one node of the body before the call, or returns what stands for it, given all copies so far.
    """
    copies: Copies = dict(zip(body.graph.find_nodes(op="placeholder"), inputs, strict=True))
    for inner in body.graph.nodes:
        if inner.op not in ("placeholder", "output"):
            copies[inner] = copy(inner, copies)
    return _replace(call, fx.map_arg(body.graph.output_node().args[0], copies.__getitem__))


def move_attribute(fetch: fx.Node, call: fx.Node) -> fx.Node:
    """Give the graph of a call what a node of another graph fetches, and fetch it before the call."""
    gm, owner = call.graph.owning_module, fetch.graph.owning_module
    assert gm is not None
    name = next(name for name in _names_like(str(fetch.target)) if not hasattr(gm, name))
    setattr(gm, name, attribute_of(owner, str(fetch.target)))
    with call.graph.inserting_before(call):
        copy = call.graph.get_attr(name)
    copy.meta = dict(fetch.meta)
    return copy


def _names_like(path: str) -> Iterator[str]:
    name = f"inlined_{path.replace('.', '_').lstrip('_')}"
    while True:
        yield name
        name += "_"


def _replace(call: fx.Node, result: Any) -> Grafted:
    """Let the users of a call use what replaces its result."""
    results: list[tuple[fx.Node, fx.Node]] = []
    erased = [call]
    if isinstance(result, fx.Node):
        results.append((call, result))
        call.replace_all_uses_with(result)
    for user in list(call.users):
        if user.target is operator.getitem:
            item = result[user.args[1]]
            if isinstance(item, fx.Node):
                results.append((user, item))
            # An item may be no node: attention without weights returns None there.
            for reader in list(user.users):
                _substitute(reader, user, item)
            user.graph.erase_node(user)
            erased.append(user)
        else:
            _substitute(user, call, result)
    call.graph.erase_node(call)
    return Grafted(results, erased)


def _substitute(user: fx.Node, old: fx.Node, new: Any) -> None:
    """Give a call another argument in the place of a node."""
    user.args, user.kwargs = fx.node.map_aggregate((user.args, user.kwargs), lambda a: new if a is old else a)

"""Tags by which a node of a captured graph is known again in the graphs that PyTorch makes of this one."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

_TAGS = "xpu_amp_dynamo"
# What PyTorch carries from graph to graph, and from a forward to its backward, since torch 2.11.
_CARRIED = "custom"


def tag(node: fx.Node, tags: Iterable[str]) -> None:
    """Give a node tags, in place of those that it has."""
    node.meta[_CARRIED] = {**node.meta.get(_CARRIED, {}), _TAGS: tuple(tags)}


def tags_of(node: fx.Node) -> tuple[str, ...]:
    """Return the tags of the captured nodes that a node comes from."""
    return tuple(node.meta.get(_CARRIED, {}).get(_TAGS, ()))


def tag_like(node: fx.Node, others: Iterable[fx.Node]) -> None:
    """Give a node the tags of others, in whose place it stands; nothing changes where they have none."""
    tags = dict.fromkeys(found for other in others for found in tags_of(other))
    if tags:
        tag(node, tags)

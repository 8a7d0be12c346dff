"""Gives a graph back as it was if lowering it raises."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import fx

from xpu_amp_dynamo.compat.graph_modules import registries_of


@contextlib.contextmanager
def keep_graph_on_error(gm: fx.GraphModule) -> Iterator[None]:
    """Undo all edits of a graph module, and of those inside it, when an error leaves the context.

    The nodes of inputs stay the same objects; what they mean to Dynamo hangs on them.
    """
    backups = [_Backup(module) for module in gm.modules() if isinstance(module, fx.GraphModule)]
    try:
        yield
    except BaseException:
        for backup in backups:
            backup.restore()
        raise


class _Backup:
    """A graph module's nodes, their meta and its attributes, as they are now."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._copy = fx.Graph()
        self._inputs = list(module.graph.find_nodes(op="placeholder"))
        self._metas = [dict(node.meta) for node in self._inputs]
        nodes: dict[fx.Node, fx.Node] = {}
        self._result: Any = self._copy.graph_copy(module.graph, nodes)
        self._copied_inputs = [nodes[node] for node in self._inputs]
        self._node_names = {copy: node.name for node, copy in nodes.items()}
        self._output_meta, self._output_name = dict(module.graph.output_node().meta), module.graph.output_node().name
        self._attributes = [dict(registry) for registry in registries_of(module)]
        self._names = set(vars(module))

    def restore(self) -> None:
        """Put everything back."""
        module, graph = self._module, self._module.graph
        for name in set(vars(module)) - self._names:
            delattr(module, name)
        for registry, attributes in zip(registries_of(module), self._attributes, strict=True):
            registry.clear()
            registry.update(attributes)
        for node in reversed(list(graph.nodes)):
            if node.op != "placeholder":
                graph.erase_node(node)
        for node, meta in zip(self._inputs, self._metas, strict=True):
            node.meta.clear()
            node.meta.update(meta)
        nodes = dict(zip(self._copied_inputs, self._inputs, strict=True))
        graph.graph_copy(self._copy, nodes)
        for copy, name in self._node_names.items():
            nodes[copy].name = name
        output = graph.output(fx.map_arg(self._result, nodes.__getitem__))
        output.meta, output.name = self._output_meta, self._output_name
        module.recompile()

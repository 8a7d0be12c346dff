"""What Dynamo tells of a graph that it captured. Checked on torch 2.13.0."""

from __future__ import annotations

from torch import fx


def break_reason(gm: fx.GraphModule) -> str:
    """Return why Dynamo ended a graph before the end of the program, and where; empty if it did not.

    Args:
        gm: the graph as a backend gets it.
    """
    ended = getattr(gm, "compile_subgraph_reason", None)
    if ended is None or not ended.graph_break:
        return ""
    frame = ended.user_stack[-1] if ended.user_stack else None
    where = f" ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}: {frame.line})" if frame else ""
    return str(ended.reason).strip().partition("\n")[0] + where

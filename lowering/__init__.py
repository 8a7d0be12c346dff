"""Graph in, graph out: lowers autocast into an FX graph as explicit casts. ``pipeline`` has the passes in order."""

from xpu_amp_dynamo.lowering.pipeline import keep_weights, lower_graph, store_weights
from xpu_amp_dynamo.lowering.report import LoweringReport

__all__ = ["LoweringReport", "keep_weights", "lower_graph", "store_weights"]

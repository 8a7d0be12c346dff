"""The passes of the cast optimiser in order, and the two moments of Inductor at which they run."""

from __future__ import annotations

from xpu_amp_dynamo.lowering.aten.fold_casts import fold_casts
from xpu_amp_dynamo.lowering.aten.group_casts import group_casts
from xpu_amp_dynamo.lowering.aten.narrow_concatenations import narrow_concatenations
from xpu_amp_dynamo.lowering.aten.narrow_operands import narrow_operands
from xpu_amp_dynamo.lowering.aten.place_casts import place_casts
from xpu_amp_dynamo.lowering.aten.verify import Pass
from xpu_amp_dynamo.lowering.aten.widen_results import widen_results

# On the joint graph, so that the split into forward and backward weighs what is saved in the dtype that it has then.
# Concatenations come first: they leave casts of their members, which the next two fold and share. Products come last:
# what was folded is widened from fewer values.
EXACT_JOINT_PASSES: tuple[Pass, ...] = (narrow_concatenations, fold_casts, place_casts)
FAST_JOINT_PASSES: tuple[Pass, ...] = (*EXACT_JOINT_PASSES, narrow_operands)
# On each graph that is compiled. Products come first: they leave fewer casts to group.
EXACT_PASSES: tuple[Pass, ...] = (group_casts,)
FAST_PASSES: tuple[Pass, ...] = (widen_results, group_casts)

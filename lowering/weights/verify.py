"""Checks that a graph whose weights are handed over otherwise still is the graph that it was. Changes nothing."""

from __future__ import annotations

import torch
from torch import fx

from xpu_amp_dynamo.errors import broken_promise
from xpu_amp_dynamo.lowering.graph.rerun import memories_of, newly_shared, outputs_of
from xpu_amp_dynamo.lowering.graph.values import value_of
from xpu_amp_dynamo.lowering.weights.plan import WeightPlan, placeholders


class WeightVerifier:
    """Checks a graph and the plan for its weights against what the graph was when this was made.

    Args:
        gm: the graph.
        plan: the plan that the passes fill.
    """

    def __init__(self, gm: fx.GraphModule, plan: WeightPlan) -> None:
        self._gm = gm
        self._plan = plan
        self._inputs = len(placeholders(gm))
        self._dtypes = self._dtypes_now()
        self._memories = self._memories_now()

    def check(self, passes: str) -> None:
        """Check that the graph is well formed, has the inputs that the plan says, and gives what it gave.

        Raises:
            LoweringError: it is not so; the message names the passes.
        """
        self._gm.graph.lint()
        given = [value_of(node).dtype for node in self._plan.kept_inputs(self._gm)]
        if len(placeholders(self._gm)) != self._inputs + len(self._plan.kept):
            self._complain(passes, f"{len(placeholders(self._gm))} inputs do not fit the plan {self._plan.kept}")
        if given != [kept.dtype for kept in self._plan.kept]:
            self._complain(passes, f"inputs of dtypes {given} do not fit the plan {self._plan.kept}")
        if self._dtypes_now() != self._dtypes:
            self._complain(passes, f"outputs have dtypes {self._dtypes_now()} and had {self._dtypes}")
        shared = newly_shared(self._memories, self._memories_now(), self._inputs)
        if shared is not None:
            self._complain(passes, f"inputs and outputs share memory that did not: those at {shared}")

    def check_thoroughly(self, passes: str) -> None:
        """Check the same: values were recorded a moment ago, by the lowering, which is checked thoroughly."""
        self.check(passes)

    def _dtypes_now(self) -> list[torch.dtype | None]:
        """List the dtypes of the outputs."""
        values = [value_of(n) if isinstance(n, fx.Node) else None for n in outputs_of(self._gm.graph)]
        return [value.dtype if isinstance(value, torch.Tensor) else None for value in values]

    def _memories_now(self) -> list[int | None]:
        """List the memories of the captured inputs and of the outputs."""
        ends = [*placeholders(self._gm)[: self._inputs], *outputs_of(self._gm.graph)]
        return memories_of(value_of(end) if isinstance(end, fx.Node) else None for end in ends)

    def _complain(self, passes: str, problem: str) -> None:
        raise broken_promise(f"after {passes}, {problem}")

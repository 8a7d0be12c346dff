"""Counts of what a lowering did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class LoweringReport:
    """What one lowering did to a graph and its subgraphs.

    ``ops`` counts calls on tensors by what the policy did with them: ``"lower_precision"``, ``"float32"``,
    ``"promote"``, ``"composite"`` (replaced by the ops inside it), ``"foreign"`` (cast as the autocast kernel of its
    own library does) or ``"untouched"``. ``casts`` counts the casts in the lowered graph that the lowering put there.
    ``seconds`` is the time the lowering took.
    """

    ops: Counter[str] = field(default_factory=Counter)
    casts: int = 0
    seconds: float = 0.0

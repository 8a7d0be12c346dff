"""What a search may change about a model: modules that add errors, and those in float32 that need not be."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from xpu_amp_dynamo.explanation.explanation import Explanation
from xpu_amp_dynamo.policy.cast_rule import Category
from xpu_amp_dynamo.policy.kept_modules import ModulePatterns
from xpu_amp_dynamo.tuning.assignment import by_family

# Errors of sums in another order, which float32 has too.
NOISE = 1e-6


@dataclass(frozen=True)
class Candidates:
    """The modules of a model that a search may keep in another precision than the policy does.

    Args:
        names: all modules that no pattern of the user decides about.
        bytes: what the results of a module's own calls take.
        blamed: modules whose own calls add errors: first those that overflow, in the order in which they do, then the
            others, the largest error first.
        unlisted: families of modules with calls that run in float32 though the policy does not list them as such, those
            with most bytes first.
    """

    names: Collection[str]
    bytes: Counter[str]
    blamed: Sequence[str]
    unlisted: Sequence[Sequence[str]]

    @classmethod
    def of(cls, explanation: Explanation, names: Collection[str], patterns: ModulePatterns) -> Candidates:
        """Find the candidates of a model.

        Args:
            explanation: of the options that the search starts from, compared with float32.
            names: the names of all its modules.
            patterns: what the user keeps.
        """
        free = {name for name in names if patterns.kept([name]) is None}
        sizes: Counter[str] = Counter(dict.fromkeys(free, 0))
        for call in explanation.calls:
            if call.module in free:
                sizes[call.module] += call.bytes_now
        return cls(free, sizes, _blamed(explanation, free), _unlisted(explanation, free))


def _blamed(explanation: Explanation, free: Collection[str]) -> list[str]:
    errors = explanation.errors
    worst: defaultdict[str, float] = defaultdict(float)
    overflowing: dict[str, None] = {}
    for node in explanation.nodes:
        error = errors.get(node.tag)
        if error is not None and node.module in free:
            worst[node.module] = max(worst[node.module], error.own)
            if error.overflowed:
                overflowing.setdefault(node.module)
    others = sorted(worst.keys() - overflowing.keys(), key=worst.__getitem__, reverse=True)
    return [*overflowing, *(module for module in others if worst[module] > NOISE)]


def _unlisted(explanation: Explanation, free: Collection[str]) -> list[list[str]]:
    sizes: Counter[str] = Counter()
    for call in explanation.calls:
        listed = call.category == Category.FLOAT32.value
        if call.module in free and torch.float32 in call.output_dtypes and not listed:
            sizes[call.module] += call.bytes_now
    return sorted(by_family(sizes), key=lambda family: sum(sizes[module] for module in family), reverse=True)

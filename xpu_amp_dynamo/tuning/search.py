"""The search for an assignment: repairs what exceeds the tolerance, then lowers what the tolerance has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from xpu_amp_dynamo.policy.kept_modules import names_around
from xpu_amp_dynamo.tuning.assignment import Assignment, by_family
from xpu_amp_dynamo.tuning.candidates import Candidates


class BudgetSpentError(Exception):
    """No more trials are allowed. Ends a search, and never leaves it."""


class Judge(Protocol):
    """What a search asks about assignments. Either answer may raise :class:`BudgetSpentError`."""

    def error(self, assignment: Assignment) -> float:
        """Return how far the model is from float32."""

    def cost(self, assignment: Assignment) -> float:
        """Return what a call of the model costs."""

    def saves(self, assignment: Assignment, than: Assignment) -> bool:
        """Tell whether the model costs less than with another assignment, by what is worth it."""


@dataclass
class Search:
    """A search for the assignment that costs least within a tolerance.

    Args:
        judge: measures assignments.
        tolerance: the largest error that is allowed.
        found: assignments within the tolerance, each better than those before it; empty if there is none.
        stopped: whether the budget ended the search.
    """

    judge: Judge
    tolerance: float
    found: list[Assignment] = field(default_factory=list)
    stopped: bool = False

    def run(self, candidates: Candidates) -> None:
        """Search until nothing is left to try, or no trial is.

        Args:
            candidates: the modules that may be assigned.
        """
        try:
            if not self._accept(Assignment()) and not self._repair(candidates):
                return
            families = self._families(candidates)
            if families:
                self._lower(families)
                self._leave_out(families)
        except BudgetSpentError:
            self.stopped = True

    @property
    def best(self) -> Assignment:
        """The best assignment so far."""
        return self.found[-1]

    def _holds(self, assignment: Assignment) -> bool:
        return self.judge.error(assignment) <= self.tolerance

    def _accept(self, assignment: Assignment) -> bool:
        """Take an assignment if it is within the tolerance, and tell whether it is."""
        holds = self._holds(assignment)
        if holds:
            self.found.append(assignment)
        return holds

    def _accept_if_it_saves(self, assignment: Assignment) -> bool:
        """Take an assignment if it is within the tolerance and costs less than the best, and tell whether it does."""
        better = self._holds(assignment) and self.judge.saves(assignment, self.best)
        if better:
            self.found.append(assignment)
        return better

    def _repair(self, candidates: Candidates) -> bool:
        """Keep in float32 what is to blame for the error, and as little else as will do; tell whether anything does."""
        if not self._accept(Assignment().keeping(candidates.names)):
            return False
        self._keep_worst(candidates.blamed)
        kept = self.best.float32
        containers = [name for name in kept if not candidates.bytes[name]]
        self._free_from_float32(sorted(containers))
        self._free_from_float32(sorted(kept.difference(containers), key=candidates.bytes.__getitem__, reverse=True))
        everything = self.found[0]
        if self.judge.saves(everything, self.best):
            self.found.append(everything)
        return True

    def _keep_worst(self, blamed: Sequence[str]) -> None:
        """Keep the worst modules in float32: as few as do, taken from the top of the list."""
        too_few, count = 0, 1
        while not self._accept(Assignment().keeping(blamed[:count])):
            if count >= len(blamed):
                return
            too_few, count = count, min(2 * count, len(blamed))
        while count - too_few > 1:
            middle = (too_few + count) // 2
            if self._accept(Assignment().keeping(blamed[:middle])):
                count = middle
            else:
                too_few = middle

    def _free_from_float32(self, modules: Sequence[str]) -> None:
        """Take modules out of those in float32 where the tolerance allows it, all of them, or by halves."""
        if not modules or self._accept(self.best.without(modules)) or len(modules) == 1:
            return
        middle = len(modules) // 2
        self._free_from_float32(modules[:middle])
        self._free_from_float32(modules[middle:])

    def _families(self, candidates: Candidates) -> list[list[str]]:
        """List the families that may be lowered: those with unlisted calls, and those inside what is in float32."""
        float32 = self.best.float32
        inside = [name for name in candidates.bytes if not float32.isdisjoint(names_around(name)[1:])]
        families = [*candidates.unlisted, *by_family(filter(candidates.bytes.__getitem__, inside))]
        free = ([module for module in family if module not in float32] for family in families)
        return [family for family in free if family]

    def _lower(self, families: Sequence[Sequence[str]]) -> None:
        """Lower modules where that saves something: all, or by halves of families, then of modules."""
        modules = [module for family in families for module in family]
        if self._accept_if_it_saves(self.best.lowering(modules)) or len(modules) == 1:
            return
        parts = families if len(families) > 1 else [[module] for module in modules]
        middle = len(parts) // 2
        self._lower(parts[:middle])
        self._lower(parts[middle:])

    def _leave_out(self, families: Sequence[Sequence[str]]) -> None:
        """Leave those modules alone after all whose lowering does not save anything beside the others."""
        for family in reversed(families):
            lowered = self.best.lower.intersection(family)
            fewer = self.best.without(lowered)
            if lowered and self._holds(fewer) and self.judge.cost(fewer) <= self.judge.cost(self.best):
                self.found.append(fewer)

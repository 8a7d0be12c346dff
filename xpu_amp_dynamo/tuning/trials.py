"""Measures each assignment once, within a budget."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from xpu_amp_dynamo.policy.kept_modules import ModulePatterns
from xpu_amp_dynamo.tuning.assignment import Assignment
from xpu_amp_dynamo.tuning.cost import CostMeter
from xpu_amp_dynamo.tuning.measure import QUICK, ErrorMeter, Options
from xpu_amp_dynamo.tuning.search import BudgetSpentError

START = Assignment()


class Trials:
    """The judge of a search.

    Args:
        given: options of the backend that the search starts from.
        kept: the modules that these keep.
        names: the names of all modules of the model.
        errors: measures errors.
        costs: measures costs.
        budget: how many assignments may be measured besides the start; None for any number.
        show: is told how many were, and of the error last measured.
    """

    def __init__(
        self,
        given: Options,
        kept: ModulePatterns,
        names: Collection[str],
        errors: ErrorMeter,
        costs: CostMeter,
        budget: int | None,
        show: Callable[[int, float], None],
    ) -> None:
        self.given, self.kept, self.names = given, kept, names
        self.meter, self.costs = errors, costs
        self.budget, self.show = budget, show
        self.errors: dict[Assignment, float] = {}
        self.measured_compiled: dict[Assignment, list[float]] = {}
        self.measured_costs: dict[Assignment, float] = {}
        self.error(START)

    @property
    def count(self) -> int:
        """How many assignments were measured besides the start."""
        return len(self.errors) - 1

    def options_of(self, assignment: Assignment) -> dict[str, Any]:
        """Return options of the backend: those at the start, with the lists of an assignment."""
        patterns = assignment.patterns(self.names)
        given = {"keep_float32": self.kept.float32, "keep_lower": self.kept.lower}
        lists = {option: [*given[option], *found] for option, found in patterns.items()}
        return {**self.given, **lists}

    def error(self, assignment: Assignment) -> float:
        """Return the error with an assignment, of code that Dynamo captures and nothing compiles.

        Raises:
            BudgetSpentError: nothing more may be measured.
        """
        if assignment not in self.errors:
            if self.budget is not None and len(self.errors) > self.budget:
                raise BudgetSpentError
            self.errors[assignment] = max(self.meter.errors({**self.options_of(assignment), **QUICK}))
            self.show(self.count, self.errors[assignment])
        return self.errors[assignment]

    def compiled_errors(self, assignment: Assignment) -> list[float]:
        """Return the error of each call with an assignment as the options have it compiled.

        Compilers round less than eager code. A start that is within a tolerance only so counts as within it: what is
        found must not cost more.
        """
        if assignment not in self.measured_compiled:
            self.measured_compiled[assignment] = self.meter.errors(self.options_of(assignment))
        errors = self.measured_compiled[assignment]
        if assignment == START:
            self.errors[START] = min(self.errors[START], max(errors))
        return errors

    def cost(self, assignment: Assignment) -> float:
        """Return the cost with an assignment."""
        if assignment not in self.measured_costs:
            self.measured_costs[assignment] = self.costs.cost(self.options_of(assignment))
        return self.measured_costs[assignment]

    def saves(self, assignment: Assignment, than: Assignment) -> bool:
        """Tell whether an assignment costs less than another, by what is worth it."""
        return self.costs.saves(self.cost(assignment), self.cost(than))

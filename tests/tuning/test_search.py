"""The search, with models that are tables of numbers: what each module adds to the error, and what it costs."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpu_amp_dynamo.tuning.assignment import Assignment
from xpu_amp_dynamo.tuning.candidates import Candidates
from xpu_amp_dynamo.tuning.search import BudgetSpentError, Search

START = Assignment()


class Table:
    """Errors and costs of modules, added up. A module that is kept lower adds its error twice."""

    def __init__(self, errors, saved, budget=10**6):
        self.errors, self.saved, self.budget = errors, saved, budget
        self.asked = set()

    def error(self, assignment):
        if assignment not in self.asked and len(self.asked) > self.budget:
            raise BudgetSpentError
        self.asked.add(assignment)
        added = (0 if m in assignment.float32 else e * (1 + (m in assignment.lower)) for m, e in self.errors.items())
        return sum(added)

    def cost(self, assignment):
        return sum(10 * (m in assignment.float32) - self.saved[m] * (m in assignment.lower) for m in self.errors)

    def saves(self, assignment, than):
        return self.cost(assignment) < self.cost(than)


def candidates_of(table):
    worst_first = sorted(table.errors, key=table.errors.__getitem__, reverse=True)
    families: dict[str, list[str]] = {}
    for name in table.errors:
        families.setdefault(name[0], []).append(name)
    sizes = Counter(dict.fromkeys(table.errors, 1))
    return Candidates(list(table.errors), sizes, worst_first, list(families.values()))


def search_of(table, tolerance):
    search = Search(table, tolerance)
    search.run(candidates_of(table))
    return search


def test_only_what_is_to_blame_is_kept_in_float32():
    table = Table({"a0": 5, "a1": 1, "b0": 0.1, "b1": 7, "c0": 0.1}, Counter())
    found = search_of(table, 2)
    assert found.best.float32 == {"a0", "b1"}
    assert not found.stopped


def test_what_saves_is_lowered_as_far_as_the_tolerance_goes():
    table = Table({"a0": 1, "a1": 1, "b0": 4, "b1": 1, "c0": 0}, {"a0": 3, "a1": 3, "b0": 9, "b1": 2, "c0": -1})
    # 7 at the start; b0 would add 4 more, and c0 costs more when it is lowered.
    assert search_of(table, 10).best == Assignment(lower=frozenset({"a0", "a1", "b1"}))


def test_what_saves_nothing_is_left_alone():
    assert search_of(Table({"a0": 1, "b0": 1}, {"a0": 0, "b0": 0}), 10).best == START
    assert search_of(Table({"a0": 1, "b0": 1}, {"a0": 0, "b0": 1}), 10).best.lower == {"b0"}


def test_nothing_holds_a_tolerance_that_float32_exceeds():
    class Constant(Table):
        def error(self, assignment):
            return 1.0

    assert search_of(Constant({"a0": 1}, Counter()), 0.5).found == []


@pytest.mark.parametrize("budget", range(1, 12))
def test_a_spent_budget_leaves_the_best_so_far(budget):
    errors = {f"{kind}{i}": 1.5 ** (i + j) for j, kind in enumerate("abc") for i in range(4)}
    table = Table(errors, dict.fromkeys(errors, 1), budget)
    found = search_of(table, 3)
    assert len(table.asked) <= budget + 1
    assert found.stopped
    assert table.error(found.best) <= 3


NUMBERS = st.integers(0, 20)
MODULES = st.lists(st.tuples(st.sampled_from("abc"), NUMBERS, st.integers(-5, 5)), min_size=1, max_size=24)


@given(MODULES, st.integers(0, 60))
def test_a_search_ends_within_the_tolerance_and_never_worse_than_its_start(modules, tolerance):
    names = [f"{kind}{i}" for i, (kind, _, _) in enumerate(modules)]
    errors = {name: error for name, (_, error, _) in zip(names, modules, strict=True)}
    table = Table(errors, {name: saved for name, (_, _, saved) in zip(names, modules, strict=True)})
    found = search_of(table, tolerance)
    assert table.error(found.best) <= tolerance
    if table.error(START) <= tolerance:
        assert table.cost(found.best) <= table.cost(START)
        assert not found.best.float32
    # Halving asks about each module and each half at most once each way.
    assert len(table.asked) <= 6 * len(modules) + 12
    # Nothing that is kept in float32 could be left to the policy by itself.
    for module in found.best.float32:
        assert table.error(found.best.without([module])) > tolerance

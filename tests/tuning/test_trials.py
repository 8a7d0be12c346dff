"""Each assignment is measured once, and the start as it is compiled too."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.support.free_meter import FreeMeter
from xpu_amp_dynamo.policy.kept_modules import ModulePatterns
from xpu_amp_dynamo.tuning.assignment import Assignment
from xpu_amp_dynamo.tuning.search import BudgetSpentError
from xpu_amp_dynamo.tuning.trials import START, Trials

NAMES = ["", "a", "b"]


class Meter:
    """Errors by what compiles: compiled code rounds less."""

    def __init__(self):
        self.asked: list[dict] = []

    def errors(self, options):
        self.asked.append(options)
        return [0.1, 0.5 if options.get("inner_backend") == "eager" else 0.3]


def trials_of(budget=None, **given):
    kept = ModulePatterns.parse(given.get("keep_float32", ()), ())
    return Trials(given, kept, NAMES, cast(Any, Meter()), FreeMeter(), budget, lambda count, error: None)


def test_each_is_measured_once_and_the_worst_call_counts():
    trials = trials_of()
    kept = Assignment().keeping(["a"])
    assert [trials.error(kept), trials.error(kept), trials.error(START)] == [0.5, 0.5, 0.5]
    assert len(cast(Any, trials.meter).asked) == 2
    assert trials.count == 1


def test_a_start_counts_as_it_is_compiled_if_that_is_nearer():
    trials = trials_of()
    assert trials.compiled_errors(START) == [0.1, 0.3]
    assert trials.error(START) == 0.3
    assert trials.compiled_errors(START) == [0.1, 0.3]
    assert len(cast(Any, trials.meter).asked) == 2
    assert trials.compiled_errors(Assignment().keeping(["a"])) == [0.1, 0.3]
    assert trials.error(Assignment().keeping(["a"])) == 0.5


def test_what_the_user_keeps_comes_first():
    trials = trials_of(keep_float32=["a"], weights="recast")
    assert trials.options_of(START) == {"keep_float32": ["a"], "weights": "recast"}
    assert trials.options_of(Assignment().keeping(["b"]))["keep_float32"] == ["a", "b"]


def test_the_budget_is_kept():
    trials = trials_of(budget=1)
    trials.error(Assignment().keeping(["a"]))
    with pytest.raises(BudgetSpentError):
        trials.error(Assignment().keeping(["b"]))

"""Assignments of modules become patterns that name these modules and no others."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpu_amp_dynamo.tuning.assignment import Assignment, by_family, patterns_of

NAMES = ["", "layers", *(f"layers.{i}{part}" for i in range(3) for part in ("", ".norm", ".norm.0")), "head"]


@pytest.mark.parametrize(
    ("modules", "patterns"),
    [
        ([], []),
        (NAMES, ["*"]),
        ([f"layers.{i}.norm" for i in range(3)], ["layers.*.norm"]),
        (["layers.0.norm", "layers.2.norm"], ["layers.0.norm", "layers.2.norm"]),
        # `*` matches dots too, and the norms are not among the modules.
        (["layers.0", "layers.1", "layers.2"], ["layers.0", "layers.1", "layers.2"]),
        (["", "head"], ["", "head"]),
    ],
)
def test_few_patterns_name_exactly_the_modules(modules, patterns):
    assert patterns_of(modules, NAMES) == patterns


SEGMENT = st.sampled_from(["0", "1", "12", "a", "b[0]", "*", "x?", "]"])
TREES = st.lists(st.lists(SEGMENT, max_size=3).map(".".join), min_size=1, max_size=12, unique=True)


@given(TREES.flatmap(lambda names: st.tuples(st.just(names), st.sets(st.sampled_from(names)))))
def test_patterns_match_what_they_are_made_of(case):
    names, modules = case
    patterns = patterns_of(modules, names)
    assert {name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)} == modules


def test_families_are_places_in_lists():
    assert by_family(["a.0.x", "b", "a.1.x", "a.1.y", "b"]) == [["a.0.x", "a.1.x"], ["b"], ["a.1.y"]]


def test_what_is_in_float32_is_not_lowered():
    both = Assignment().keeping(["a"]).lowering(["a", "b"])
    assert both == Assignment(frozenset("a"), frozenset("b"))
    assert both.keeping(["b"]) == Assignment(frozenset("ab"))
    assert both.without(["a", "b"]) == Assignment()
    assert both.patterns(["", "a", "b"]) == {"keep_float32": ["a"], "keep_lower": ["b"]}
    assert Assignment().patterns(["a"]) == {}

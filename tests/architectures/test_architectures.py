"""Architectures of other libraries, compiled in a region and alone, against eager code and against stock Dynamo.

An architecture that its library cannot build, or that eager mode or stock Dynamo cannot run, is skipped with the
reason; ``tests.support.count_architectures`` fails a complete sweep that compared too few.
"""

from __future__ import annotations

import os

import pytest

from tests.architectures import checks, registries
from tests.architectures.checks import Usable
from tests.architectures.running import Unusable, differences, run_compiled
from tests.support.count_architectures import PROPERTY

# How many architectures the default run and the one with Inductor take of each library: the first small ones. Those of
# torchvision have all their weights, so that one takes minutes; the complete sweep has some.
SAMPLES = {"transformers": 2, "diffusers": 1, "timm": 1}
INDUCTOR_SAMPLES = {"transformers": 1, "diffusers": 1}
SMALL = 100
# Through Inductor, which takes a minute for larger ones; other libraries have few that are smaller.
SMALL_FOR_INDUCTOR = {**dict.fromkeys(INDUCTOR_SAMPLES, SMALL), "transformers": 50}
# How many names of each library the complete sweep takes; ARCHITECTURES=all takes every one and needs hours.
NAMES = {"transformers": 28, "diffusers": 8, "timm": 4, "torchvision": 1}
# What runs the lowered graphs in a region, bit for bit, and alone. AOTAutograd takes ops apart, which rounds.
INNER_BACKENDS = ("eager", "aot_eager")
# One in so many is trained too.
TRAINED = 6


def slots(samples: dict[str, int]) -> list[object]:
    """Return parameters for as many architectures of each library."""
    return [
        pytest.param(lib, slot, count, id=f"{lib}-{slot}") for lib, count in samples.items() for slot in range(count)
    ]


def names() -> list[object]:
    """Return parameters for the names of the complete sweep."""
    counts = dict.fromkeys(NAMES) if os.environ.get("ARCHITECTURES") == "all" else NAMES
    chosen = [(library, name) for library, count in counts.items() for name in registries.names_of(library)[:count]]
    return [
        pytest.param(library, name, INNER_BACKENDS, place % TRAINED == 0, id=f"{library}-{name}")
        for place, (library, name) in enumerate(chosen)
    ]


def sample(library: str, slot: int, slots: int, most_modules: int = SMALL) -> tuple[str, Usable]:
    """Return the first small architecture of a library that stock Dynamo runs, of each so many names from one on."""
    reason = None
    for name in registries.names_of(library)[slot::slots]:
        try:
            return name, checks.usable(*registries.build(library, name, most_modules))
        except Unusable as error:
            reason = error
    raise AssertionError(f"{library} has no small architecture that stock Dynamo runs; the last: {reason}")


def problems_of(case: Usable, in_a_region: str, alone: str) -> list[str]:
    """Compare an architecture in a region and alone, each by an inner backend; return what is wrong."""
    return checks.problems_in_a_region(case, in_a_region) + checks.problems_alone(case, alone)


def problems_of_training(case: Usable, inner_backend: str) -> list[str]:
    """Compare a training step in a region; nothing is wrong where stock Dynamo cannot train the model."""
    try:
        case = checks.usable(case.model, [case.inputs], train=True)
    except Unusable:
        return []
    return [f"training {text}" for text in checks.problems_in_a_region(case, inner_backend, train=True)]


def assert_none(name: str, problems: list[str]) -> None:
    """Check that nothing is wrong with an architecture."""
    assert not problems, "\n".join([name, *problems])


@pytest.mark.parametrize(("library", "slot", "count"), slots(SAMPLES))
def test_a_sample_of_each_library(library, slot, count, record_property):
    name, case = sample(library, slot, count)
    record_property(PROPERTY, name)
    problems = problems_of(case, "eager", "eager")
    assert_none(name, problems + (problems_of_training(case, "eager") if slot == 0 else []))


@pytest.mark.slow
@pytest.mark.parametrize(("library", "name", "inner_backends", "train"), names())
def test_every_architecture(library, name, inner_backends, train, record_property):
    try:
        case = checks.usable(*registries.build(library, name))
    except Unusable as reason:
        pytest.skip(f"{library} {name}: {reason}")
    record_property(PROPERTY, name)
    problems = problems_of(case, *inner_backends)
    assert_none(name, problems + (problems_of_training(case, inner_backends[0]) if train else []))


@pytest.mark.slow
@pytest.mark.parametrize(("library", "slot", "count"), slots(INDUCTOR_SAMPLES))
def test_inductor(library, slot, count):
    name, case = sample(library, slot, count, SMALL_FOR_INDUCTOR[library])
    compiled = run_compiled(case.model, case.inputs, "xpu_amp")
    assert_none(name, differences(compiled, case.reference, exact=False) or checks.values_far_off(case, compiled))

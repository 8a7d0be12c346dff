"""Architectures of other libraries, compiled in a region and alone, against eager code and against stock Dynamo.

An architecture that its library cannot build, or that eager mode or stock Dynamo cannot run, is skipped with the
reason; ``counting.py`` fails a complete sweep that compared too few.
"""

from __future__ import annotations

import os

import pytest

from tests.architectures import checks, registries
from tests.architectures.counting import PROPERTY
from tests.architectures.registries import Architecture
from tests.architectures.running import Outcome, Unusable, differences, relative_error, run, run_compiled

# How many architectures the default run and the one with Inductor take of each library: the first small ones.
SAMPLES = {"transformers": 7, "diffusers": 3, "timm": 3, "torchvision": 2}
INDUCTOR_SAMPLES = {"transformers": 11, "diffusers": 4, "timm": 3, "torchvision": 2}
SMALL = 150
# How many names of each library the complete sweep takes; ARCHITECTURES=all takes every one and needs an hour.
NAMES = {"transformers": 160, "diffusers": 70, "timm": 30, "torchvision": 14}
# One in so many is trained too.
TRAINED = 6
# Inductor rounds less often than eager code between the ops that it fuses, see checks.FLOOR.
FLOOR = 0.03


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
        pytest.param(library, name, place % TRAINED == 0, id=f"{library}-{name}")
        for place, (library, name) in enumerate(chosen)
    ]


def sample(library: str, slot: int, slots: int) -> tuple[str, Architecture]:
    """Return the first small architecture of a library that stock Dynamo runs, of each so many names from one on."""
    for name in registries.names_of(library)[slot::slots]:
        try:
            architecture = registries.build(library, name, SMALL)
            checks.usable(*architecture)
        except Unusable as error:
            reason = error
            continue
        return name, architecture
    raise AssertionError(f"{library} has no small architecture that stock Dynamo runs; the last: {reason}")


def problems_of(architecture: Architecture, inner_backend: str, train: bool) -> list[str]:
    """Compare an architecture in all ways; return what is wrong."""
    model, choices = architecture
    inputs, reference, stock = checks.usable(model, choices)
    found = checks.problems_in_a_region(model, inputs, stock, inner_backend)
    found += checks.problems_alone(model, inputs, reference, stock, inner_backend)
    return found + (problems_of_training(architecture, inner_backend) if train else [])


def problems_of_training(architecture: Architecture, inner_backend: str) -> list[str]:
    """Compare a training step in a region; nothing is wrong where stock Dynamo cannot train the model."""
    model, choices = architecture
    try:
        inputs, _, stock = checks.usable(model, choices, train=True)
    except Unusable:
        return []
    found = checks.problems_in_a_region(model, inputs, stock, inner_backend, train=True)
    return [f"training {text}" for text in found]


def assert_none(name: str, problems: list[str]) -> None:
    """Check that nothing is wrong with an architecture."""
    assert not problems, "\n".join([name, *problems])


@pytest.mark.parametrize(("library", "slot", "count"), slots(SAMPLES))
def test_a_sample_of_each_library(library, slot, count, record_property):
    name, architecture = sample(library, slot, count)
    record_property(PROPERTY, name)
    assert_none(name, problems_of(architecture, "eager", train=slot == 0))


@pytest.mark.slow
@pytest.mark.parametrize(("library", "name", "train"), names())
def test_every_architecture(library, name, train, record_property):
    try:
        problems = problems_of(registries.build(library, name), "aot_eager", train)
    except Unusable as reason:
        pytest.skip(f"{library} {name}: {reason}")
    record_property(PROPERTY, name)
    assert_none(name, problems)


@pytest.mark.slow
@pytest.mark.parametrize(("library", "slot", "count"), slots(INDUCTOR_SAMPLES))
def test_inductor(library, slot, count):
    name, architecture = sample(library, slot, count)
    inputs, reference, _ = checks.usable(*architecture)
    compiled = run_compiled(architecture.model, inputs, "xpu_amp")
    assert_none(name, differences(compiled, reference, exact=False))
    with checks.region():
        eager: Outcome = run(architecture.model, inputs)
    assert relative_error(compiled, reference) <= max(FLOOR, 3 * relative_error(eager, reference)), name

"""Ways to change weights, by name: no cast of a weight may be stale after any of them."""

from __future__ import annotations

from tests.runtime.weight_changes import (
    arrays,
    averages,
    compiled_writes,
    in_place,
    optimizers,
    through_data,
    whole_models,
)
from tests.runtime.weight_changes.arrays import LIMITS
from tests.runtime.weight_changes.compiled_writes import SLOW_WAYS
from tests.runtime.weight_changes.small_model import WIDTH, Model, Way, expected, forward, small_model, weight

ON_CPU = arrays.WAYS
# Of these it matters whether they are prepared before the first call or after it: they hold aliases, or averages.
HOLDING = {**in_place.HELD, **through_data.HELD, **whole_models.HELD, **averages.WAYS, **arrays.WAYS}
# A handful of various ways, for what takes long.
FEW = {
    name: table[name]
    for table, name in [
        (in_place.WAYS, "mul_"),
        (in_place.WAYS, "held detached alias"),
        (through_data.WAYS, ".data +="),
        (through_data.WAYS, "held flat view of .data"),
        (through_data.WAYS, "flat buffer"),
        (through_data.WAYS, "transposed storage"),
        (whole_models.WAYS, "load_state_dict"),
        (whole_models.WAYS, "swap_tensors"),
        (optimizers.WAYS, "Adam, fused"),
        (averages.WAYS, "adapter"),
        (arrays.WAYS, "held array"),
    ]
}
WAYS: dict[str, Way] = {
    **in_place.WAYS,
    **through_data.WAYS,
    **whole_models.WAYS,
    **optimizers.WAYS,
    **averages.WAYS,
    **compiled_writes.WAYS,
    **arrays.WAYS,
}

__all__ = [
    "FEW",
    "HOLDING",
    "LIMITS",
    "ON_CPU",
    "SLOW_WAYS",
    "WAYS",
    "WIDTH",
    "Model",
    "Way",
    "expected",
    "forward",
    "small_model",
    "weight",
]

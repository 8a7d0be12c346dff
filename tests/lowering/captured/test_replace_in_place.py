"""In-place calls on memory that only the program's own names show."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.support.captured_graphs import casts_in, lowered_graphs
from tests.support.comparison import compile_program
from tests.support.tensors import assert_near, matrices


def test_in_place_calls_on_values_of_its_own_stay_narrow():
    def program(x, w):
        h = x @ w
        h.mul_(2.0)
        h += 1.0
        h = F.relu(h, inplace=True)
        return h @ w

    args = matrices((4, 8), (8, 8))
    (gm,) = lowered_graphs(program, *args)
    assert casts_in(gm) == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert_near(compile_program(program)(*args), program(*args))


def test_in_place_calls_that_views_see_keep_the_captured_dtype():
    def program(x, w):
        h = x @ w
        row = h[0]
        h.mul_(2.0)
        return row + h

    args = matrices((4, 8), (8, 8))
    (gm,) = lowered_graphs(program, *args)
    assert casts_in(gm) == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert_near(compile_program(program)(*args), program(*args))


def test_in_place_call_reads_what_was_made_of_what_it_writes():
    def program(x, w):
        h = x @ w
        h.add_(h.t().contiguous())
        return h

    args = matrices((8, 8), (8, 8))
    assert_near(compile_program(program)(*args), program(*args))

"""Grouping of casts in the ATen graphs that Inductor compiles."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from expecttest import assert_expected_inline

import xpu_amp_dynamo
from tests.conftest import skip_unless_simulated
from tests.support.aten_graphs import BFLOAT16, FLOAT32, convert, graph_of, run_pass, text_of
from xpu_amp_dynamo.lowering.aten import library_calls
from xpu_amp_dynamo.lowering.aten.group_casts import group_casts
from xpu_amp_dynamo.lowering.aten.widen_results import widen_results


def two_products(x, w, v):
    return convert(x, BFLOAT16) @ convert(w, BFLOAT16) @ convert(v, BFLOAT16).t()


def test_casts_of_inputs():
    gm = graph_of(two_products, (2, 3), (3, 4), (5, 4), device="xpu")
    assert run_pass(group_casts, gm)
    assert_expected_inline(
        text_of(gm),
        """\
empty_like_default = aten.empty_like(x_1, dtype = bfloat16, device = xpu)
empty_like_default_1 = aten.empty_like(w_1, dtype = bfloat16, device = xpu)
empty_like_default_2 = aten.empty_like(v_1, dtype = bfloat16, device = xpu)
_foreach_copy_default = aten._foreach_copy([empty_like_default, empty_like_default_1, empty_like_default_2], [x_1, w_1, v_1])
getitem = _foreach_copy_default[0]
getitem_1 = _foreach_copy_default[1]
getitem_2 = _foreach_copy_default[2]
mm = aten.mm(getitem, getitem_1)
t = aten.t(getitem_2)
mm_1 = aten.mm(mm, t)
return mm_1""",
    )


class Solving(torch.nn.Module):
    """Checks for errors as it runs, for which PyTorch makes a token in front of the graph's inputs."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        return x @ x, x @ self.weight, torch.linalg.solve(torch.eye(4, device=x.device) + self.weight, x)


def test_inputs_behind_the_token_of_an_effect():
    skip_unless_simulated()
    report = xpu_amp_dynamo.xpu_kernels(Solving(), torch.randn(4, 4), train=True, options={"weights": "recast"})
    casts = [launch for launch in report.of_graphs("forward").launches if launch.only_casts]
    assert [(cast.bytes_read, cast.bytes_written) for cast in casts] == [(2 * 4 * 4 * 4, 2 * 4 * 4 * 2)]


def test_casts_of_results():
    def gradients(x, w):
        return convert(x.t() @ x, FLOAT32), convert(w @ w, FLOAT32).t(), convert((w @ x.t()).t(), FLOAT32)

    gm = graph_of(gradients, (3, 3), (3, 3), dtypes=[BFLOAT16] * 2, device="xpu")
    assert not group_casts(graph_of(lambda x: convert(x @ x, FLOAT32), (3, 3), dtypes=[BFLOAT16], device="xpu").graph)
    assert run_pass(group_casts, gm)
    assert_expected_inline(
        text_of(gm),
        """\
t = aten.t(x_1)
mm = aten.mm(t, x_1)
mm_1 = aten.mm(w_1, w_1)
convert_1 = prims.convert(mm_1, float32)
t_1 = aten.t(convert_1)
t_2 = aten.t(x_1)
mm_2 = aten.mm(w_1, t_2)
t_3 = aten.t(mm_2)
empty_like_default = aten.empty_like(mm, dtype = float32, device = xpu)
empty_like_default_1 = aten.empty_like(t_3, dtype = float32, device = xpu)
_foreach_copy_default = aten._foreach_copy([empty_like_default, empty_like_default_1], [mm, t_3])
getitem = _foreach_copy_default[0]
getitem_1 = _foreach_copy_default[1]
return (getitem, t_1, getitem_1)""",
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w, v: convert(x, BFLOAT16) @ w.bfloat16().relu(),  # one cast alone, one that fuses
        lambda x, w, v: convert(x, BFLOAT16).relu() @ (convert(w, BFLOAT16) + 1),
        lambda x, w, v: ((a := convert(x, BFLOAT16)) @ (b := convert(w, BFLOAT16)) + a, b + 1),
        lambda x, w, v: convert(x.relu(), BFLOAT16) @ convert(w.relu(), BFLOAT16),
        lambda x, w, v: (convert(x @ w, BFLOAT16).relu(), convert(w @ w, BFLOAT16).relu()),
        lambda x, w, v: ((y := x @ w) + 1, convert(y, BFLOAT16), (z := w @ v) * 2, convert(z.t(), BFLOAT16)),
        lambda x, w, v: (convert(x.relu(), BFLOAT16), convert(w.relu(), BFLOAT16)),
    ],
)
def test_casts_that_fuse_or_stand_alone_stay(function):
    gm = graph_of(function, (3, 3), (3, 3), (3, 3), device="xpu")
    before = text_of(gm)
    changed = run_pass(group_casts, gm)
    assert text_of(gm) == before
    assert not changed


def test_graphs_of_the_cpu_stay():
    gm = graph_of(two_products, (2, 3), (3, 4), (5, 4), device="cpu")
    assert not run_pass(group_casts, gm)


def test_a_second_run_changes_nothing():
    gm = graph_of(two_products, (2, 3), (3, 4), (5, 4), device="xpu")
    assert run_pass(group_casts, gm)
    assert not run_pass(group_casts, gm)


def test_dtypes_are_grouped_apart():
    def program(x, w, v, u):
        half = torch.float16
        return convert(x, BFLOAT16) @ convert(w, BFLOAT16), convert(v, half) @ convert(u, half)

    gm = graph_of(program, (3, 3), (3, 3), (3, 3), (3, 3), device="xpu")
    assert run_pass(group_casts, gm)
    copies = gm.graph.find_nodes(op="call_function", target=torch.ops.aten._foreach_copy.default)
    dtypes = [{value.dtype for value in copy.meta["val"]} for copy in copies]
    assert sorted(dtypes, key=str) == [{BFLOAT16}, {torch.float16}]


@pytest.mark.parametrize("train", [False, True])
def test_values_do_not_change(train, simulated_xpu, monkeypatch):
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).to("xpu")
    x = torch.randn(3, 8, device="xpu")
    values, grouped = {}, []

    def group(graph):
        grouped.append(group_casts(graph))
        return grouped[-1]

    for way, passes in {"grouped": (widen_results, group), "apart": (widen_results,)}.items():
        torch._dynamo.reset()
        copied = copy.deepcopy(model)
        monkeypatch.setattr("xpu_amp_dynamo.inductor.compiler.COMPILED", passes)
        # A cached graph runs no passes, and a graph that reads kept casts has none to group.
        options: dict[str, Any] = {"inductor": {"fx_graph_cache": False}, "weights": "recast"}
        with torch.set_grad_enabled(train):
            output = torch.compile(copied, backend="xpu_amp", options=options)(x)
            if train:
                output.square().sum().backward()
        values[way] = [output, *(p.grad for p in copied.parameters() if train)]
    assert any(grouped)
    assert len(grouped) == 1 + train
    assert len(values["apart"]) == (5 if train else 1)
    assert all(map(torch.equal, values["grouped"], values["apart"]))


def test_passes_of_the_user_run_too(simulated_xpu):
    seen: list[Any] = []
    options: dict[str, Any] = {"inductor": {"post_grad_custom_post_pass": lambda graph: seen.append(len(graph.nodes))}}
    with torch._inductor.config.patch(post_grad_custom_post_pass=lambda graph: seen.append("replaced")):
        torch.compile(lambda x: x @ x, backend="xpu_amp", options=options)(torch.randn(4, 4, device="xpu"))
    assert len(seen) == 1
    assert seen[0] > 0
    torch._dynamo.reset()
    with torch._inductor.config.patch(post_grad_custom_post_pass=lambda graph: seen.append("kept")):
        torch.compile(lambda x: x @ x, backend="xpu_amp")(torch.randn(4, 4, device="xpu"))
    assert seen[1:] == ["kept"]


def test_results_that_only_kernels_of_other_sizes_read():
    def program(x, w):
        keys, values = x @ w, w @ x
        repeated = convert(keys, FLOAT32).unsqueeze(0).expand(2, 3, 3).clone() + 1
        return convert(keys, FLOAT32), convert(values, FLOAT32), values @ keys, repeated

    gm = graph_of(program, (3, 3), (3, 3), dtypes=[BFLOAT16] * 2, device="xpu")
    assert run_pass(group_casts, gm)
    (copied,) = gm.graph.find_nodes(op="call_function", target=torch.ops.aten._foreach_copy.default)
    assert [str(source.target) for source in copied.args[1]] == ["aten.mm.default"] * 2


def images(x, w, b, v, c):
    y = torch.conv2d(convert(x, BFLOAT16), convert(w, BFLOAT16), convert(b, BFLOAT16))
    return torch.conv1d(y.flatten(2), convert(v, BFLOAT16), convert(c, BFLOAT16))


IMAGES = (1, 3, 4, 4), (5, 3, 1, 1), (5,), (2, 5, 1), (2,)


def test_biases_and_one_dimensional_convolutions_stay(monkeypatch):
    monkeypatch.setattr(library_calls, "LAYOUTS_SHARE_KERNELS", True)
    gm = graph_of(images, *IMAGES, device="xpu")
    assert run_pass(group_casts, gm)
    (copied,) = gm.graph.find_nodes(op="call_function", target=torch.ops.aten._foreach_copy.default)
    assert [source.name for source in copied.args[1]] == ["x_1", "w_1"]


def test_casts_beside_convolutions_stay_where_layouts_share_no_kernel(monkeypatch):
    monkeypatch.setattr(library_calls, "LAYOUTS_SHARE_KERNELS", False)

    def gradients(y, x, w):
        operands = convert(y, BFLOAT16), convert(x, BFLOAT16), convert(w, BFLOAT16)
        back = torch.ops.aten.convolution_backward(
            *operands, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
        )
        return convert(back[0], FLOAT32), convert(back[1], FLOAT32)

    assert not run_pass(group_casts, graph_of(images, *IMAGES, device="xpu"))
    assert not run_pass(group_casts, graph_of(gradients, (1, 5, 4, 4), (1, 3, 4, 4), (5, 3, 1, 1), device="xpu"))

"""All passes together, on graphs of typical programs."""

from __future__ import annotations

import torch
import torch.nn.functional as F

import xpu_amp_dynamo
from tests.support.captured_graphs import assert_lowers_to, casts_in, lowered_graphs

X, W = torch.ones(2, 4), torch.ones(4, 4)


def test_ambient_region_wins_over_the_options():
    with torch.autocast("cpu", torch.float16):
        (gm,) = lowered_graphs(lambda x: x @ x, torch.randn(4, 4), dtype=torch.bfloat16, enabled=False)
    assert casts_in(gm)[0] is torch.float16


def test_disabled_lowering_changes_nothing():
    (gm,) = lowered_graphs(lambda x: F.log_softmax(x @ x, -1), torch.randn(4, 4), enabled=False)
    assert casts_in(gm) == []


def test_second_lowering_changes_nothing():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LogSoftmax(-1))
    (gm,) = lowered_graphs(model, torch.randn(2, 4))
    before = gm.code
    xpu_amp_dynamo.lower(gm, [])
    assert gm.code == before


def test_data_dependent_sizes_survive():
    def program(x, w):
        y = x @ w
        return torch.masked_select(y, y > 0) * 2, y[y > 0].sum()

    x, w = torch.randn(4, 4), torch.randn(4, 4)
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled = torch.compile(program, backend="xpu_amp", fullgraph=True, options={"inner_backend": "eager"})
        selected, total = compiled(x, w)
    low = x.bfloat16() @ w.bfloat16()
    assert torch.equal(selected, (low[low > 0] * 2).float())
    assert torch.equal(total, low[low > 0].float().sum())


def test_dynamic_sizes():
    x = torch.ones(5, 4)
    torch._dynamo.mark_dynamic(x, 0)
    assert_lowers_to(
        """\
to: "bf16[s77, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
matmul: "bf16[s77, 4]" = to @ to_1
to_2: "f32[s77, 4]" = matmul.to(torch.float32)
cat: "f32[2*s77, 4]" = torch.cat([to_2, l_x_])
view: "f32[2, s77, 4]" = cat.view(2, -1, 4)
return (view,)
""",
        lambda x, w: torch.cat([x @ w, x]).view(2, -1, 4),
        x,
        W,
    )


def test_convolution_block():
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 1), torch.nn.BatchNorm2d(3), torch.nn.ReLU()).eval()
    assert_lowers_to(
        """\
to: "bf16[1, 2, 4, 4]" = l_args_0_.to(torch.bfloat16)
to_1: "bf16[3, 2, 1, 1]" = l_fn_modules_0_parameters_weight_.to(torch.bfloat16)
to_2: "bf16[3]" = l_fn_modules_0_parameters_bias_.to(torch.bfloat16)
input_1: "bf16[1, 3, 4, 4]" = torch.conv2d(to, to_1, to_2, (1, 1), (0, 0), (1, 1), 1)
input_2: "bf16[1, 3, 4, 4]" = torch.nn.functional.batch_norm(input_1, l_fn_modules_1_buffers_running_mean_, l_fn_modules_1_buffers_running_var_, l_fn_modules_1_parameters_weight_, l_fn_modules_1_parameters_bias_, False, 0.1, 1e-05)
input_3: "bf16[1, 3, 4, 4]" = torch.nn.functional.relu(input_2, inplace = False)
to_3: "f32[1, 3, 4, 4]" = input_3.to(torch.float32)
return (to_3,)
""",
        model,
        torch.ones(1, 2, 4, 4),
    )


def test_attention_block():
    def attention(x, qkv):
        q, k, v = F.linear(x, qkv).view(1, 2, 3, 2, 2).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v).flatten(2) + x

    assert_lowers_to(
        """\
to: "bf16[1, 2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[12, 4]" = l_qkv_.to(torch.bfloat16)
linear: "bf16[1, 2, 12]" = torch._C._nn.linear(to, to_1)
view: "bf16[1, 2, 3, 2, 2]" = linear.view(1, 2, 3, 2, 2)
permute: "bf16[3, 1, 2, 2, 2]" = view.permute(2, 0, 3, 1, 4)
q: "bf16[1, 2, 2, 2]" = permute[0]
k: "bf16[1, 2, 2, 2]" = permute[1]
v: "bf16[1, 2, 2, 2]" = permute[2]
scaled_dot_product_attention: "bf16[1, 2, 2, 2]" = torch._C._nn.scaled_dot_product_attention(q, k, v)
flatten: "bf16[1, 2, 4]" = scaled_dot_product_attention.flatten(2)
to_2: "f32[1, 2, 4]" = flatten.to(torch.float32)
add: "f32[1, 2, 4]" = to_2 + l_x_
return (add,)
""",
        attention,
        torch.ones(1, 2, 4),
        torch.ones(12, 4),
    )


def test_training_step():
    w, b = W.clone().requires_grad_(), torch.ones(4).requires_grad_()

    def loss(x, w, b, t):
        hidden = F.gelu(F.linear(x, w, b))
        return F.cross_entropy(F.linear(hidden, w) + F.linear(hidden, w), t)

    assert_lowers_to(
        """\
to: "bf16[2, 4]" = l_x_.to(torch.bfloat16)
to_1: "bf16[4, 4]" = l_w_.to(torch.bfloat16)
to_2: "bf16[4]" = l_b_.to(torch.bfloat16)
linear: "bf16[2, 4]" = torch._C._nn.linear(to, to_1, to_2)
hidden: "bf16[2, 4]" = torch._C._nn.gelu(linear)
linear_1: "bf16[2, 4]" = torch._C._nn.linear(hidden, to_1)
linear_2: "bf16[2, 4]" = torch._C._nn.linear(hidden, to_1)
add: "bf16[2, 4]" = linear_1 + linear_2
to_3: "f32[2, 4]" = add.to(torch.float32)
cross_entropy: "f32[]" = torch.nn.functional.cross_entropy(to_3, l_t_)
return (cross_entropy,)
""",
        loss,
        X,
        w,
        b,
        torch.zeros(2, dtype=torch.int64),
    )

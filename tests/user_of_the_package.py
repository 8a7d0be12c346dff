"""A program of a user, which type checkers read: right but for the lines that say what is wrong with them."""

import torch
from typing_extensions import assert_type

import xpu_amp_dynamo
from xpu_amp_dynamo import LoweringReport, Policy, autocast, backend_with

policy = Policy("mine", lower_precision=["matmul"], float32=[torch.softmax])
assert_type(policy.lower_precision, frozenset[str])
Policy.named("xpu").with_ops(float32={"softmax"}, leave=[torch.ops.aten.cat.default])

model = torch.nn.Linear(4, 4)
x = torch.ones(2, 4)
torch.compile(model, backend="xpu_amp", options={"dtype": "bf16", "mode": "max-autotune"})
torch.compile(model, backend=backend_with(dtype=torch.float16, policy=policy))
with autocast("cpu", torch.float16, policy="torch"), autocast(torch.device("xpu", 0), "bf16"):
    model(x)
with xpu_amp_dynamo.keep_precision(model, keep_float32=["*"]), xpu_amp_dynamo.simulated_xpu():
    model(x)
with xpu_amp_dynamo.record_lowerings() as reports:
    assert_type(reports, list[LoweringReport])
assert_type(xpu_amp_dynamo.explain(model, x), xpu_amp_dynamo.Explanation)
assert_type(xpu_amp_dynamo.xpu_kernels(model, x).bytes_moved, int)
assert_type(xpu_amp_dynamo.tune(model, (x,)), xpu_amp_dynamo.Tuning)
xpu_amp_dynamo.install(policy, device_type="cpu")
assert_type(xpu_amp_dynamo.installed_policy(), Policy | None)

xpu_amp_dynamo.autocst()  # wrong: no such name
Policy("mine", lower_precision=3)  # wrong: no list
autocast(dtype=16)  # wrong: no dtype

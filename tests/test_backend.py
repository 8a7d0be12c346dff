"""The backend: its name, its options, and what surrounds the lowered graph."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters

import xpu_amp_dynamo
from tests.support.comparison import assert_same, counting_backend
from tests.support.versions import only_since
from xpu_amp_dynamo import BackendOptions, Policy, backend, loss_scaling
from xpu_amp_dynamo.errors import InvalidOptionError

EAGER = {"inner_backend": "eager"}


def compiled(function, **options):
    return torch.compile(function, backend="xpu_amp", options={**EAGER, **options})


def test_the_name_works_in_a_fresh_process_without_an_import():
    program = (
        "import sys, torch\n"
        "assert 'xpu_amp_dynamo' not in sys.modules\n"
        "f = torch.compile(lambda x: (x @ x).relu(), backend='xpu_amp', options={'inner_backend': 'eager'})\n"
        "x = torch.randn(4, 4)\n"
        "assert torch.equal(f(x), (x.bfloat16() @ x.bfloat16()).relu().float())\n"
        "assert 'xpu_amp_dynamo' in sys.modules\n"
        "assert 'xpu_amp' in torch._dynamo.list_backends()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_importing_installs_nothing():
    program = (
        "import xpu_amp_dynamo\n"
        "assert [xpu_amp_dynamo.installed_policy(d) for d in ('cpu', 'cuda', 'xpu')] == [None] * 3\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_default_is_inductor_and_bfloat16():
    model = torch.nn.Linear(8, 8)
    x = torch.randn(4, 8)
    out = torch.compile(model, backend="xpu_amp")(x)
    assert out.dtype is torch.float32
    torch.testing.assert_close(out, model(x), rtol=0.02, atol=0.02)
    assert not torch.equal(out, model(x))


def test_settings_reach_inductor():
    seen = []
    options: dict[str, Any] = {
        "inductor": {
            "post_grad_custom_post_pass": lambda graph: seen.append(torch._inductor.config.epilogue_fusion),
            "epilogue_fusion": False,
        }
    }
    torch.compile(lambda x: x.sin(), backend="xpu_amp", options=options)(torch.randn(4))
    assert seen == [False]
    assert torch._inductor.config.epilogue_fusion


@pytest.mark.filterwarnings("ignore")  # max-autotune wants more cores than a small machine has
def test_mode_reaches_inductor():
    seen = []
    with torch._inductor.config.patch(
        post_grad_custom_post_pass=lambda graph: seen.append(torch._inductor.config.max_autotune)
    ):
        torch.compile(lambda x: x.sin(), backend="xpu_amp", mode="max-autotune-no-cudagraphs")(torch.randn(4))
    assert seen == [True]


def test_preserve_output_dtype():
    x = torch.randn(4, 4)
    assert compiled(lambda x: x @ x)(x).dtype is torch.float32
    assert compiled(lambda x: x @ x, preserve_output_dtype=False)(x).dtype is torch.bfloat16


def rounding_program(x, w):
    """Pointwise code behind a matrix product, which eager code rounds to bfloat16 after every op.

    Without numbers among the operands: Inductor's CPU code and eager kernels take `y + 0.1` otherwise, by a step of
    bfloat16 in some elements (torch 2.13.0).
    """
    y = x @ w
    return torch.sigmoid(y) * y + y * y, (y * y).sum(-1)


@pytest.mark.parametrize(
    "precision", [pytest.param("exact", marks=only_since("2.13", "Inductor rounds on GPUs only")), "fast"]
)
def test_exact_precision_rounds_where_eager_code_rounds(precision):
    x, w = torch.randn(64, 64), torch.randn(64, 64)
    with xpu_amp_dynamo.autocast("cpu"):
        eager = rounding_program(x, w)
        actual = torch.compile(rounding_program, backend="xpu_amp", options={"precision": precision})(x, w)
    equal = all(map(torch.equal, actual, eager))
    # In float64 the fast result must be the closer one, or keeping bits would be pointless.
    product = (x.bfloat16() @ w.bfloat16()).double()
    reference = torch.sigmoid(product) * product + product * product
    errors = [float((result[0].double() - reference).abs().mean()) for result in (actual, eager)]
    assert equal is (precision == "exact")
    assert errors[0] <= errors[1]


@pytest.mark.parametrize("name", ["xpu", "ipex", "torch"])
def test_policies_by_name_and_value(name):
    x = torch.randn(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        by_name = compiled(lambda x: torch.exp(x @ x).reciprocal(), policy=name)(x)
        by_value = compiled(lambda x: torch.exp(x @ x).reciprocal(), policy=Policy.named(name))(x)
    assert torch.equal(by_name, by_value)
    low = x.bfloat16() @ x.bfloat16()
    expected = {
        "xpu": low.exp().reciprocal(),
        "ipex": low.exp().float().reciprocal(),
        "torch": low.float().exp().reciprocal(),
    }
    assert torch.equal(by_name, expected[name].bfloat16())


def test_custom_op_of_a_policy():
    @torch.library.custom_op("xpu_amp_test::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @twice.register_fake
    def _(x):
        return torch.empty_like(x)

    policy = Policy.named("xpu").with_ops(lower_precision=["xpu_amp_test::twice"])
    assert compiled(twice, policy=policy, preserve_output_dtype=False)(torch.randn(4)).dtype is torch.bfloat16


def test_other_device_types_are_untouched():
    x = torch.randn(4, 4)
    assert torch.equal(compiled(lambda x: x @ x, device_type="cuda")(x), x @ x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtpe": torch.float16}, r"unknown options \['dtpe'\]; did you mean 'dtype'\?"),
        ({"max_autotune": True}, r"settings of Inductor are given as options={'inductor': {'max_autotune': ...}}"),
        ({"mode": "max-autotun"}, r"unknown mode 'max-autotun'; did you mean 'max-autotune'\?"),
        ({"mode": "max-autotune", "inner_backend": "eager"}, r"mode 'max-autotune' is Inductor's"),
        ({"dtype": torch.float32}, r"option 'dtype'.*torch.bfloat16 or torch.float16"),
        ({"dtype": "float32"}, r"option 'dtype': autocast cannot lower to 'float32'; use torch.bfloat16 or"),
        ({"enabled": 1}, r"option 'enabled' is 1; it must be True or False"),
        ({"policy": "native"}, r"option 'policy'.*\['ipex', 'torch', 'xpu'\]"),
        ({"policy": 3}, r"option 'policy': 3 is no policy; give a Policy or the name of one"),
        ({"device_type": "xpu:first"}, r"option 'device_type': device type 'xpu:first'"),
        ({"device_type": "meta"}, r"option 'device_type'.*\['cpu', 'cuda', 'xpu'\]"),
        ({"inner_backend": "nope"}, r"option 'inner_backend'.*'inductor'"),
        ({"inner_backend": "xpu_amp"}, r"option 'inner_backend'"),
        ({"inner_backend": ["eager"]}, r"option 'inner_backend'"),
        ({"inductor": {"epilog_fusion": True}}, r"no setting 'epilog_fusion'; near matches: \['epilogue_fusion'"),
        ({"inductor": {"epilogue_fusion": 7}}, r"option 'inductor'.*epilogue_fusion"),
        ({"inductor": 7}, r"option 'inductor' is 7"),
        ({"inductor": {"epilogue_fusion": True}, "inner_backend": "eager"}, r"option 'inner_backend' is 'eager'"),
        ({"precision": "exakt"}, r"option 'precision' is 'exakt'; it must be one of \['fast', 'exact'\]"),
        ({"precision": "exact", "inductor": {"emulate_precision_casts": False}}, "'precision' is 'exact' and .*off"),
        ({"preserve_output_dtype": None}, r"option 'preserve_output_dtype'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_compiled(options, message):
    counters.clear()
    with pytest.raises(InvalidOptionError, match=message):
        BackendOptions.parse(options)
    gm = torch.fx.symbolic_trace(lambda x: x @ x)
    before = gm.code
    with pytest.raises(InvalidOptionError, match=message):
        backend.xpu_amp(gm, [torch.randn(2, 2)], options=options)
    assert gm.code == before
    assert not counters["inductor"]


@pytest.mark.parametrize(
    "options", [{"inner_backend": "eager"}, {"inductor": {}}, {"precision": "exact"}, {"weights": "cached"}], ids=str
)
def test_lower_refuses_options_of_compiled_code(options):
    gm = torch.fx.symbolic_trace(lambda x: x @ x)
    before = gm.code
    with pytest.raises(InvalidOptionError, match=f"option {next(iter(options))!r} is about compiled code, and lower "):
        xpu_amp_dynamo.lower(gm, [torch.randn(2, 2)], **options)
    assert gm.code == before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: xpu_amp_dynamo.lower(model, [torch.randn(1, 2)]), r"got Linear; .* torch.fx.symbolic_trace"),
        (lambda model: xpu_amp_dynamo.lower_exported(model), r"torch.export.export\(model, inputs\).* got Linear"),
    ],
)
def test_what_is_no_graph_is_refused(call, message):
    with pytest.raises(TypeError, match=message):
        call(torch.nn.Linear(2, 2))


def test_mode_without_inductor_is_refused():
    gm = torch.fx.symbolic_trace(lambda x: x @ x)
    with pytest.raises(InvalidOptionError, match="mode 'max-autotune' is Inductor's"):
        backend.xpu_amp(gm, [torch.randn(2, 2)], mode="max-autotune", options=EAGER)
    with pytest.raises(InvalidOptionError, match=r"unknown mode 'fastest'; the modes are .*'max-autotune'"):
        backend.xpu_amp(gm, [torch.randn(2, 2)], mode="fastest")


def test_mode_is_an_option_beside_the_others():
    """torch.compile takes ``mode=`` or ``options=``, not both."""
    gm = torch.fx.symbolic_trace(lambda x: x @ x)
    with pytest.raises(InvalidOptionError, match="option 'mode' is 'default' beside mode='reduce-overhead'"):
        backend.xpu_amp(gm, [torch.randn(2, 2)], mode="reduce-overhead", options={"mode": "default"})
    chosen = []
    options: dict[str, Any] = {
        "mode": "max-autotune-no-cudagraphs",
        "inductor": {"post_grad_custom_pre_pass": lambda graph: chosen.append(torch._inductor.config.max_autotune)},
    }
    torch.compile(lambda x: x @ x, backend="xpu_amp", options=options)(torch.randn(4, 4))
    assert chosen == [True]


@pytest.mark.parametrize("name", ["fp16", "half", "float16", "torch.float16"])
def test_dtypes_and_devices_have_several_names(name):
    options = {"dtype": name, "device_type": torch.device("cpu", 0), "preserve_output_dtype": False, **EAGER}
    with torch.no_grad():
        assert (
            torch.compile(lambda x: x @ x, backend="xpu_amp", options=options)(torch.randn(4, 4)).dtype is torch.float16
        )


def test_options_of_a_configured_backend_are_checked_at_once():
    with pytest.raises(InvalidOptionError, match=r"unknown options \['dytpe'\]; did you mean 'dtype'\?"):
        xpu_amp_dynamo.backend_with(dytpe="float16")
    with pytest.raises(InvalidOptionError, match="was given mode='default' beside a backend with options; give all to"):
        xpu_amp_dynamo.backend_with()(torch.fx.symbolic_trace(lambda x: x), [torch.ones(2)], mode="default")
    first, second, other = (xpu_amp_dynamo.backend_with(dtype=dtype, **EAGER) for dtype in ("half", "half", "bf16"))
    x = torch.randn(4, 4)

    def product(x):
        return x @ x

    with xpu_amp_dynamo.record_lowerings() as reports:
        results = [torch.compile(product, backend=each)(x) for each in (first, second, other)]
    assert len(reports) == 2
    assert torch.equal(results[0], (x.half() @ x.half()).float())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[2], (x.bfloat16() @ x.bfloat16()).float())


def test_compiled_code_runs_with_autocast_off():
    states = []

    @torch.library.custom_op("xpu_amp_test::state", mutates_args=())
    def state(x: torch.Tensor) -> torch.Tensor:
        states.append(torch.is_autocast_enabled("cpu"))
        return x.clone()

    state.register_fake(lambda x: torch.empty_like(x))
    with torch.autocast("cpu", torch.bfloat16):
        compiled(lambda x: state(x @ x))(torch.randn(4, 4))
        assert torch.is_autocast_enabled("cpu")
    assert states == [False]


@pytest.mark.filterwarnings("ignore:float16 training needs loss scaling")
@pytest.mark.parametrize("inner", ["eager", "aot_eager", "inductor"])
def test_second_call_does_not_recompile_and_a_new_region_dtype_recompiles_once(inner):
    counter, name = counting_backend(inner)
    model = torch.compile(torch.nn.Linear(4, 4), backend="xpu_amp", options={"inner_backend": name})
    x = torch.randn(2, 4)
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            assert model(x).dtype is torch.bfloat16
    assert counter.frame_count == 1
    for _ in range(3):
        with torch.autocast("cpu", torch.float16):
            assert model(x).dtype is torch.float16
    assert counter.frame_count == 2
    for _ in range(2):
        assert model(x).dtype is torch.float32
    assert counter.frame_count == 3
    with torch.autocast("cpu", torch.bfloat16):
        model(x)
    assert counter.frame_count == 3


def test_float16_training_warns_once_and_works_with_a_scaler():
    loss_scaling._warn_once.cache_clear()
    model = torch.nn.Linear(4, 4)
    x = torch.randn(2, 4)
    step = compiled(lambda x: model(x).square().mean(), dtype=torch.float16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.warns(UserWarning, match="torch.amp.GradScaler") as warned:
        first = step(x)
    assert [warning.filename for warning in warned] == [__file__]
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch._dynamo.reset()
        for _ in range(5):
            optimizer.zero_grad()
            loss = step(x)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    assert loss < first
    assert model.weight.grad is not None
    assert model.weight.grad.dtype is torch.float32


@pytest.mark.parametrize("enabled", [True, False])
def test_float16_training_with_a_scaler_does_not_warn(enabled):
    class OwnScaler(torch.amp.GradScaler):
        pass

    loss_scaling._warn_once.cache_clear()
    gc.collect()
    scaler = OwnScaler("cpu", enabled=enabled)
    model = torch.nn.Linear(4, 4)
    context = contextlib.nullcontext() if enabled else pytest.warns(UserWarning, match="torch.amp.GradScaler")
    with context:
        scaler.scale(compiled(model, dtype=torch.float16)(torch.randn(2, 4)).sum()).backward()


def test_float16_training_without_a_scaler_warns_after_one_that_is_gone():
    loss_scaling._warn_once.cache_clear()
    model = torch.nn.Linear(4, 4)
    scaler = torch.amp.GradScaler("cpu")
    compiled(model, dtype=torch.float16)(torch.randn(2, 4))
    del scaler
    gc.collect()
    torch._dynamo.reset()
    with pytest.warns(UserWarning, match="torch.amp.GradScaler"):
        compiled(model, dtype=torch.float16)(torch.randn(2, 4))


def test_bfloat16_training_and_float16_inference_do_not_warn():
    loss_scaling._warn_once.cache_clear()
    model = torch.nn.Linear(4, 4)
    compiled(model)(torch.randn(2, 4)).sum().backward()
    with torch.no_grad():
        compiled(model, dtype=torch.float16)(torch.randn(2, 4))


def test_eager_autocast_inside_a_compiled_function():
    def program(x):
        with xpu_amp_dynamo.autocast("cpu", torch.float16):
            return F.log_softmax(x @ x, -1), x @ x

    x = torch.randn(4, 4)
    eager = program(x)
    for inner in ("eager", "aot_eager"):
        torch._dynamo.reset()
        out = torch.compile(program, backend="xpu_amp", fullgraph=True, options={"inner_backend": inner})(x)
        assert [o.dtype for o in out] == [torch.float32, torch.float16]
        assert_same(out, eager)


def test_reports_are_recorded():
    with xpu_amp_dynamo.record_lowerings() as reports:
        compiled(lambda x: F.log_softmax(x @ x, -1).relu())(torch.randn(4, 4))
    (report,) = reports
    assert dict(report.ops) == {"lower_precision": 1, "float32": 1, "untouched": 1}
    assert report.casts == 2
    assert report.seconds > 0
    compiled(lambda x: x @ x)(torch.randn(4, 4))
    assert len(reports) == 1


@pytest.mark.parametrize(("device_type", "said"), [("cpu", ""), ("xpu", "are on cpu, which lowering for xpu leaves")])
def test_a_report_says_where_no_tensor_is_on_the_device_type(device_type, said):
    with xpu_amp_dynamo.record_lowerings() as reports:
        compiled(lambda x: x @ x, device_type=device_type)(torch.randn(4, 4))
    (report,) = reports
    assert report.device_type == device_type
    assert report.present == {"cpu"}
    assert str(report).endswith(said)
    assert ("its tensors" in str(report)) == bool(said)


@pytest.mark.parametrize("inner", ["eager", "inductor"])
def test_dynamic_sizes_do_not_recompile(inner):
    counter, name = counting_backend(inner)

    def program(x, w, t):
        y = torch.einsum("bij,jk->bik", x, w)
        return F.cross_entropy(torch.cat([y, x], dim=1).flatten(0, 1), t), torch.bmm(y, y.mT)

    options: dict[str, Any] = {"inner_backend": name}
    compiled_program = torch.compile(program, backend="xpu_amp", dynamic=True, options=options)
    w = torch.randn(4, 4)
    for length in (3, 5, 9):
        x, t = torch.randn(2, length, 4), torch.zeros(4 * length, dtype=torch.int64)
        out = compiled_program(x, w, t)
        with xpu_amp_dynamo.autocast("cpu"):
            eager = program(x, w, t)
        for actual, expected in zip(out, eager, strict=True):
            torch.testing.assert_close(actual, expected.float(), rtol=0.02, atol=0.02)
    assert counter.frame_count == 1

"""``tune`` on models: what overflows or errs is kept in float32, what need not be is lowered, the rest left alone."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

import xpu_amp_dynamo
from benchmarks.models import UNet
from tests.conftest import skip_unless_simulated
from tests.support.free_meter import FreeMeter
from xpu_amp_dynamo.errors import InvalidOptionError, TuningError
from xpu_amp_dynamo.explanation.relative_error import largest_relative_error
from xpu_amp_dynamo.tuning.tuning import Measured


class Residual(nn.Module):
    """A float32 stream that blocks add to."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 64)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 64), nn.GELU()) for _ in range(2))
        self.head = nn.Linear(64, 16)

    def forward(self, ids):
        x = self.embed(ids)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


class Overflowing(nn.Module):
    """A layer whose results float16 does not hold, between layers whose results it does."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.large, self.last = (nn.Linear(32, 32, bias=False) for _ in range(3))
        with torch.no_grad():
            self.large.weight.mul_(3e5)

    def forward(self, x):
        return self.last(self.large(self.first(x)) / 3e5)


class Counting(nn.Module):
    """A model whose error nothing tells."""

    def forward(self, x):
        return (x > 0).sum()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def error_of(model, inputs, options):
    """Return how far a compiled model is from float32, by nothing of the tuning's."""
    torch._dynamo.reset()
    with torch.no_grad():
        found = torch.compile(model, backend="xpu_amp", options=dict(options))(*inputs)
        return largest_relative_error(found, model(*inputs))


@pytest.fixture
def tune(monkeypatch):
    """Return ``tune`` for what errors decide, with no kernels compiled."""
    monkeypatch.setattr("xpu_amp_dynamo.tuning.tune.MeasuredTime", FreeMeter)

    def tune(model, inputs, **arguments):
        options = arguments.pop("options", {})
        options = {"inner_backend": "eager", **options} if isinstance(options, dict) else options
        return xpu_amp_dynamo.tune(model, inputs, options=options, **{"cost": "time", **arguments})

    return tune


def test_a_model_that_overflows_comes_out_finite(tune):
    model, inputs = Overflowing().eval(), (torch.randn(4, 32),)
    float16 = {"dtype": torch.float16, "inner_backend": "eager"}
    assert error_of(model, inputs, float16) == math.inf
    tuning = tune(model, inputs, options=float16)
    assert "large" in tuning.options["keep_float32"]
    assert "first" not in tuning.options["keep_float32"]
    assert tuning.start.error == math.inf
    assert error_of(model, inputs, tuning.options) == pytest.approx(tuning.tuned.error)
    assert tuning.tuned.error <= tuning.tolerance == 0.01


@pytest.mark.filterwarnings("ignore:.*GradScaler:UserWarning")
def test_tensors_in_a_dataclass_count(tune):
    @dataclasses.dataclass
    class Result:
        logits: torch.Tensor

    class Model(Overflowing):
        def forward(self, x):
            return Result(super().forward(x))

    tuning = tune(Model(), (torch.randn(4, 32),), options={"dtype": torch.float16}, train=True)
    assert tuning.start.error == math.inf
    assert "large" in tuning.options["keep_float32"]


def test_bytes_are_saved_where_the_tolerance_has_room():
    skip_unless_simulated()
    model, inputs = UNet(16).eval(), (torch.randn(1, 3, 32, 32),)
    tuning = xpu_amp_dynamo.tune(model, inputs, tolerance=0.05)
    assert tuning.tuned.cost < 0.9 * tuning.start.cost
    assert tuning.tuned.cost == xpu_amp_dynamo.xpu_kernels(model, *inputs, options=tuning.options).bytes_moved
    assert tuning.start.cost == xpu_amp_dynamo.xpu_kernels(model, *inputs).bytes_moved
    assert error_of(model, inputs, tuning.options) == pytest.approx(tuning.tuned.error, rel=0.01)
    assert f"{1 - tuning.tuned.cost / tuning.start.cost:.1%} saved" in str(tuning)
    assert max(map(len, str(tuning).splitlines())) <= 80


def test_a_narrow_tolerance_keeps_more_in_float32_than_a_wide_one(tune):
    model, inputs = Residual().eval(), (torch.randint(16, (2, 8)),)
    counts = []
    for tolerance in (1e-6, 1e-2):
        tuning = tune(model, inputs, tolerance=tolerance)
        assert error_of(model, inputs, tuning.options) <= tolerance
        torch._dynamo.reset()
        with xpu_amp_dynamo.record_lowerings() as reports, torch.no_grad():
            torch.compile(model, backend="xpu_amp", options=tuning.options)(*inputs)
        counts.append(reports[0].ops["lower_precision"])
    assert counts == [0, 3]


@pytest.mark.filterwarnings("ignore:.*GradScaler:UserWarning")
# Dynamo's own doing, torch 2.13.0.
@pytest.mark.filterwarnings("ignore:.*Function.* should not be instantiated:DeprecationWarning")
def test_gradients_count_in_training(tune):
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 1e6

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.other(Steep.apply(self.one(x)))

    model, inputs = Model(), (torch.randn(4, 8),)
    float16 = {"dtype": torch.float16, "inner_backend": "eager"}
    assert tune(model, inputs, options=float16).options.get("keep_float32") is None
    tuning = tune(model, inputs, options=float16, train=True)
    assert tuning.start.error == math.inf
    assert tuning.tuned.error <= 0.01
    assert "one" in tuning.options["keep_float32"]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_the_user_keeps_stays(tune):
    model, inputs = Residual().eval(), (torch.randint(16, (2, 8)),)
    tuning = tune(model, inputs, tolerance=2e-3, options={"keep_lower": ["blocks.*.2"], "keep_float32": ["blocks.0.1"]})
    assert tuning.options["keep_lower"] == ["blocks.*.2"]
    assert tuning.options["keep_float32"][0] == "blocks.0.1"
    assert len(tuning.options["keep_float32"]) > 1
    with pytest.raises(TuningError, match="with all modules that the options do not keep lower in float32"):
        tune(model, inputs, tolerance=1e-7, options={"keep_lower": ["head"]})


def test_the_worst_of_several_inputs_counts(tune):
    model = Overflowing().eval()
    small, large = {"x": torch.randn(4, 32) * 1e-3}, {"x": torch.randn(4, 32)}
    float16 = {"dtype": torch.float16}
    assert tune(model, [small], options=float16).options.get("keep_float32") is None
    assert "large" in tune(model, [small, large], options=float16).options["keep_float32"]


def test_a_metric_of_the_user_decides(tune):
    model, inputs = Overflowing().eval(), (torch.randn(4, 32),)
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    def finite_or_not(output, reference):
        seen.append((output.dtype, reference.dtype))
        return torch.tensor(0.0 if output.isfinite().any() else float("nan"))

    tuning = tune(model, inputs, options={"dtype": torch.float16}, metric=finite_or_not, tolerance=0)
    assert tuning.start.error == math.inf
    assert tuning.tuned.error == 0
    assert set(seen) == {(torch.float32, torch.float32)}


def test_everything_is_left_as_it_was(tune):
    class Writing(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(8), nn.Linear(8, 8)

        def forward(self, x, seen):
            seen["calls"].append(1)
            return torch.dropout(self.linear(self.norm(x.add_(1))), 0.5, True)

    model, x, seen = Writing(), torch.randn(4, 8), {"calls": list[int]()}
    model.linear.weight.grad = torch.ones(8, 8)
    state, given, random = copy.deepcopy(model.state_dict()), x.clone(), torch.get_rng_state()
    tune(model, (x, seen), tolerance=1, train=False)
    assert torch.equal(x, given)
    assert seen == {"calls": []}
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.training
    assert torch.equal(model.linear.weight.grad, torch.ones(8, 8))


def test_a_tuning_is_kept_in_a_file(tmp_path, tune):
    model, inputs = Overflowing().eval(), (torch.randn(4, 32),)
    policy = xpu_amp_dynamo.Policy.named("xpu").with_ops(float32=["tanh"])
    options = {"dtype": torch.float16, "policy": policy, "skip_passes": ("fold_casts",)}
    tuning = tune(model, inputs, options=options)
    tuning.save(tmp_path / "tuning.toml")
    text = (tmp_path / "tuning.toml").read_text()
    assert 'dtype = "float16"' in text
    loaded = xpu_amp_dynamo.Tuning.load(tmp_path / "tuning.toml")
    assert loaded == dataclasses.replace(tuning, options={**tuning.options, "skip_passes": ["fold_casts"]})
    assert error_of(model, inputs, loaded.options) == pytest.approx(tuning.tuned.error)


def test_what_a_file_cannot_hold_is_refused(tmp_path):
    options = {"inductor": {"post_grad_custom_post_pass": print}}
    measured = Measured(0.0, 1.0)
    tuning = xpu_amp_dynamo.Tuning("Linear", options, measured, measured, 0.01, "bytes", 1)
    with pytest.raises(InvalidOptionError, match="'post_grad_custom_post_pass' is <built-in function print>"):
        tuning.save(tmp_path / "tuning.toml")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text", ["", "options = 3", "[options]\nx = 1\n[found]", "not toml", '[options]\ndtype = "float12"\n[found]\n']
)
def test_files_that_are_no_tuning_are_refused(tmp_path, text):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(InvalidOptionError, match=r"bad\.toml is no tuning.*give a file that Tuning\.save wrote"):
        xpu_amp_dynamo.Tuning.load(tmp_path / "bad.toml")


def test_a_tolerance_out_of_reach_is_an_error(tune):
    class Halving(nn.Module):
        def forward(self, x):
            return x.bfloat16() @ x.bfloat16() if torch.compiler.is_compiling() else x @ x

    with pytest.raises(TuningError, match="above the tolerance of 1e-09; give a tolerance of at least"):
        tune(Halving(), (torch.randn(16, 16),), tolerance=1e-9)


def test_times_are_a_cost():
    model, inputs = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)), (torch.randn(2, 8),)
    tuning = xpu_amp_dynamo.tune(model, inputs, cost="time", options={"inner_backend": "eager"})
    assert 0 < tuning.tuned.cost <= tuning.start.cost < 10
    assert "ms" in str(tuning)


def test_inputs_may_hold_tensors_anywhere():
    skip_unless_simulated()

    class Cache:
        def __init__(self):
            self.keys = torch.randn(2, 8)

    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x, cache):
            cache.keys = torch.cat([cache.keys, x])
            return self.linear(cache.keys)

    model, cache = Caching().eval(), Cache()
    report = xpu_amp_dynamo.xpu_kernels(model, torch.randn(2, 8), cache)
    assert report.bytes_moved > 0
    assert cache.keys.shape == (2, 8)


def test_no_gradients_are_promised_in_inference_mode(tune):
    with torch.inference_mode(), pytest.raises(InvalidOptionError, match="train is True in inference mode"):
        tune(nn.Linear(8, 8), (torch.ones(2, 8),), train=True)


def test_a_spent_budget_is_told(tune):
    tuning = tune(Residual().eval(), (torch.randint(16, (2, 8)),), tolerance=2e-3, budget=2)
    assert not tuning.finished
    assert tuning.trials == 2
    assert "more were left when the budget was spent" in str(tuning)
    assert tuning.tuned.error <= 2e-3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tolerance": -1}, InvalidOptionError, "tolerance is -1; it must be a number of at least 0"),
        ({"tolerance": math.nan}, InvalidOptionError, "tolerance is nan"),
        ({"tolerance": "1%"}, InvalidOptionError, "tolerance is '1%'"),
        ({"budget": 0}, InvalidOptionError, "budget is 0; it must be a number of trials, at least 1, or None"),
        ({"cost": "energy"}, InvalidOptionError, r"it must be one of \['bytes', 'time'\]"),
        ({"metric": 3}, TypeError, "metric is 3"),
        ({"metric": lambda output, reference: output}, TypeError, "it must return a number"),
        ({"model": Counting(), "train": True}, InvalidOptionError, "requires a gradient.*leave train out"),
        ({"model": Counting()}, TypeError, "no finite floating-point numbers.*give metric"),
        ({"metric": lambda output, reference: -1}, ValueError, "metric returned -1.0; it must be at least 0"),
        ({"train": "yes"}, InvalidOptionError, "train is 'yes'; it must be True or False"),
        ({"options": 3}, InvalidOptionError, "options are 3; they must be a dict"),
        ({"inputs": torch.ones(2, 8)}, TypeError, "inputs are .*'Tensor'.*give a tuple of arguments"),
        ({"inputs": []}, TypeError, "an empty list"),
        ({"model": torch.relu}, TypeError, "tune takes a model"),
        ({"model": torch.compile(nn.Linear(8, 8))}, TypeError, "not compiled; give what torch.compile was given"),
        ({"options": {"keep_float32": ["layr"]}}, InvalidOptionError, "matches no module"),
        ({"options": {"dtyp": torch.float16}}, InvalidOptionError, "unknown options"),
        ({"cost": "bytes"}, InvalidOptionError, "give cost='time'"),
    ],
)
def test_bad_input_is_refused(arguments, error, message, tune):
    model, inputs = arguments.pop("model", nn.Linear(8, 8)), arguments.pop("inputs", (torch.ones(2, 8),))
    with pytest.raises(Exception, match=message) as raised:
        tune(model, inputs, **arguments)
    assert isinstance(raised.value, error) or isinstance(getattr(raised.value, "inner_exception", None), error)

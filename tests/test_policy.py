"""Policies: named tables, derived policies, and what they refuse."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.support.policies import policy_of
from xpu_amp_dynamo import Policy
from xpu_amp_dynamo.errors import OverlappingOpsError, UnknownOpError, UnknownPolicyError, UnlistableOpError
from xpu_amp_dynamo.policy.cast_rule import Category, takes_float32_parameters, wanted_dtype
from xpu_amp_dynamo.policy.op_names import resolve_op
from xpu_amp_dynamo.policy.tables import completion, documented

XPU = Policy.named("xpu")
BFLOAT16, FLOAT16, FLOAT32, FLOAT64 = torch.bfloat16, torch.float16, torch.float32, torch.float64


@pytest.fixture
def custom_op():
    @torch.library.custom_op("xpu_amp_test::attention", mutates_args=())
    def attention(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    return attention


def test_documented_ops_follow_the_document():
    for category in ("LOWER_PRECISION", "FLOAT32", "PROMOTE"):
        for op in getattr(documented, category):
            assert XPU.category(op) is Category[category]


def test_completion_never_contradicts_the_document():
    listed = {*documented.LOWER_PRECISION, *documented.FLOAT32, *documented.PROMOTE}
    assert not listed & {*completion.LOWER_PRECISION, *completion.PROMOTE, *completion.FOLLOW}


def test_torch_table_names_what_the_running_torch_registers():
    registered = torch._C._dispatch_get_registrations_for_dispatch_key("AutocastXPU")
    names = {name.removeprefix("aten::").partition(".")[0] for name in registered}
    later = {"rms_norm"} if torch.__version__ < "2.12" else set()
    assert names == set(Policy.named("torch").categories) - later


def test_ipex_table_has_the_registered_sizes():
    ipex = Policy.named("ipex")
    # The sources count overloads: two of _convolution are one name here, three of pow are one.
    assert (len(ipex.lower_precision) + 1, len(ipex.float32) + 2, len(ipex.promote)) == (26, 44, 12)


@pytest.mark.parametrize(
    ("op", "name"),
    [
        ("softmax", "softmax"),
        ("aten::softmax", "softmax"),
        (torch.nn.functional.softmax, "softmax"),
        (torch.softmax, "softmax"),
        (torch.Tensor.softmax, "softmax"),
        (torch.ops.aten.softmax.int, "softmax"),
        (torch.ops.aten.softmax, "softmax"),
        (torch.nn.functional.cross_entropy, "cross_entropy_loss"),
        (torch.concat, "cat"),
        (torch.linalg.matmul, "matmul"),
        (torch.fft.rfft, "fft_rfft"),
        (torch.nn.functional.linear, "linear"),
    ],
)
def test_ops_are_known_by_every_name(op, name):
    assert resolve_op(op) == name


def test_custom_ops_are_known_by_name_and_object(custom_op):
    assert resolve_op("xpu_amp_test::attention") == "xpu_amp_test::attention"
    assert resolve_op(custom_op) == "xpu_amp_test::attention"
    assert resolve_op(torch.ops.xpu_amp_test.attention.default) == "xpu_amp_test::attention"
    policy = XPU.with_ops(lower_precision=[custom_op])
    assert policy.category("xpu_amp_test::attention") is Category.LOWER_PRECISION
    assert policy.category(custom_op) is Category.LOWER_PRECISION


def test_with_ops_moves_ops_and_leaves_the_original_alone():
    policy = XPU.with_ops(float32=["softmax", "matmul"], leave=["cat"], promote=[torch.add], follow=["sub"])
    assert policy.category("softmax") is Category.FLOAT32
    assert policy.category("matmul") is Category.FLOAT32
    assert policy.category("cat") is None
    assert policy.category("add") is Category.PROMOTE
    assert policy.category("sub") is Category.FOLLOW
    assert XPU.category("matmul") is Category.LOWER_PRECISION
    assert policy != XPU
    assert policy == XPU.with_ops(leave=["cat"], follow=["sub"], promote=["add"], float32=["matmul", "softmax"])


def test_a_category_is_asked_for_as_lists_are_given():
    assert XPU.category(torch.nn.functional.linear) is Category.LOWER_PRECISION
    assert XPU.category(torch.ops.aten.cat.default) is XPU.category("concat") is Category.PROMOTE
    with pytest.raises(UnknownOpError, match="near matches: softmax"):
        XPU.category("softmx")


def test_policy_is_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        XPU.name = "other"  # type: ignore[misc]
    assert len({XPU, Policy.named("xpu"), Policy.named("ipex")}) == 2


def test_str_lists_every_category():
    text = str(policy_of("mine", lower_precision=["mm", "linear"], float32=["exp"]))
    assert text.splitlines() == [
        "Policy 'mine'",
        "  lower_precision: linear, mm",
        "  float32: exp",
        "  promote: -",
        "  follow: -",
        "  banned: -",
    ]


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ("softmx", "near matches: softmax"),
        ("add_", "'add_'"),
        ("nolib::attention", "nolib::attention"),
        (torch.ops.aten.add_.Tensor, "no out-of-place op"),
        (torch.Tensor.add_, "no out-of-place op"),
        (lambda x: x, "no out-of-place op"),
        (int, "unknown op"),
    ],
)
def test_unknown_ops_are_refused(op, message):
    with pytest.raises(UnknownOpError, match=message):
        XPU.with_ops(float32=[op])


def test_ops_in_two_lists_are_refused():
    with pytest.raises(OverlappingOpsError, match=r"'softmax' stands in float32 and leave"):
        XPU.with_ops(float32=["softmax"], leave=[torch.nn.functional.softmax])
    with pytest.raises(OverlappingOpsError, match=r"'mm' stands in lower_precision and promote"):
        policy_of("mine", lower_precision=["mm"], promote=["mm"])
    with pytest.raises(OverlappingOpsError, match=r"'layer_norm' stands in float32 and follow"):
        XPU.with_ops(float32=["layer_norm"], follow=["layer_norm"])


@pytest.mark.parametrize("category", ["lower_precision", "float32", "promote", "follow"])
@pytest.mark.parametrize(
    ("op", "reason"),
    [
        ("view", "a view of it"),
        (torch.Tensor.t, "a view of it"),
        (torch.reshape, "a view of it"),
        (torch.broadcast_tensors, "a view of it"),
        ("unbind", "a view of it"),
        ("detach", "a view of it"),
        (torch.Tensor.to, "it is a cast"),
        ("_to_copy", "it is a cast"),
        (torch.Tensor.type_as, "it is a cast"),
    ],
)
def test_ops_that_no_policy_can_cast_are_refused(op, reason, category):
    for make in (XPU.with_ops, lambda **lists: policy_of("mine", **lists)):
        with pytest.raises(UnlistableOpError, match=f"op '{resolve_op(op)}' cannot stand in {category}: .*{reason}"):
            make(**{category: [op]})
    XPU.with_ops(leave=[op])
    policy_of("mine", banned=[op])


def test_custom_ops_that_return_views_are_refused():
    library = torch.library.Library("xpu_amp_test_views", "DEF")
    library.define("first(Tensor(a) x) -> Tensor(a)")
    library.impl("first", lambda x: x[0], "CompositeImplicitAutograd")
    with pytest.raises(UnlistableOpError, match=r"'xpu_amp_test_views::first' cannot stand in float32"):
        XPU.with_ops(float32=["xpu_amp_test_views::first"])
    library._destroy()


@pytest.mark.parametrize("op", [torch.nn.functional.batch_norm, torch.nn.functional.instance_norm, "native_batch_norm"])
def test_norms_that_update_statistics_cannot_run_in_lower_precision(op):
    with pytest.raises(UnlistableOpError, match=r"running_mean and running_var.*float32 or promote"):
        XPU.with_ops(lower_precision=[op])
    for category in ("float32", "promote", "follow"):
        assert XPU.with_ops(**{category: [op]}).category(resolve_op(op)) is Category(category)


def test_unknown_policy_names_the_legal_ones():
    with pytest.raises(UnknownPolicyError, match=r"'native'.*\['ipex', 'torch', 'xpu'\]"):
        Policy.named("native")


@pytest.mark.parametrize(
    ("op", "dtypes", "wanted"),
    [
        ("linear", [FLOAT32, FLOAT32], FLOAT16),
        ("linear", [FLOAT64], FLOAT16),
        ("log_softmax", [BFLOAT16], FLOAT32),
        ("add", [BFLOAT16, FLOAT32], None),
        ("cat", [BFLOAT16, BFLOAT16], BFLOAT16),
        ("cat", [FLOAT16, FLOAT16], FLOAT16),
        ("cat", [FLOAT32, FLOAT32], FLOAT32),
        ("cat", [BFLOAT16, FLOAT32], FLOAT32),
        ("cat", [BFLOAT16, FLOAT16], FLOAT32),
        ("cat", [BFLOAT16, FLOAT64], None),
        ("cat", [BFLOAT16, torch.complex64], None),
        ("cat", [BFLOAT16, torch.int64], BFLOAT16),
        ("cat", [torch.int64, torch.bool], None),
        ("stack", [], None),
        ("layer_norm", [BFLOAT16, FLOAT32, FLOAT32], BFLOAT16),
        ("layer_norm", [FLOAT32, BFLOAT16, BFLOAT16], FLOAT32),
        ("layer_norm", [FLOAT16, BFLOAT16], FLOAT16),
        ("layer_norm", [FLOAT64, BFLOAT16], None),
        ("layer_norm", [BFLOAT16, FLOAT64], None),
        ("layer_norm", [None, BFLOAT16], None),
        ("layer_norm", [], None),
    ],
)
def test_cast_rule(op, dtypes, wanted):
    assert wanted_dtype(XPU.category(op), dtypes, FLOAT16) is wanted


@pytest.mark.parametrize(
    ("dtypes", "wanted"),
    [
        ([BFLOAT16, FLOAT32, FLOAT32], None),
        ([FLOAT16, FLOAT32, None], None),
        ([BFLOAT16, None, FLOAT32], BFLOAT16),
        ([BFLOAT16, FLOAT32, BFLOAT16], BFLOAT16),
        ([BFLOAT16, FLOAT16, FLOAT16], BFLOAT16),
        ([FLOAT32, BFLOAT16, BFLOAT16], FLOAT32),
        ([FLOAT32, FLOAT32], FLOAT32),
        ([BFLOAT16], BFLOAT16),
    ],
)
def test_what_follows_keeps_float32_parameters_beside_a_lower_input_where_the_kernel_reads_them(dtypes, wanted):
    assert wanted_dtype(Category.FOLLOW, dtypes, FLOAT16, takes_mixture=True) is wanted


def test_kernels_of_the_cpu_read_more_mixtures_than_others():
    assert takes_float32_parameters("layer_norm", "cpu")
    assert not takes_float32_parameters("layer_norm", "xpu")
    assert takes_float32_parameters("batch_norm", "xpu")
    assert not takes_float32_parameters("add", "cpu")


@pytest.mark.parametrize("ops", ["softmax", 5])
def test_a_list_that_is_none_is_refused(ops):
    with pytest.raises(UnknownOpError, match="give a list of ops"):
        Policy.named("xpu").with_ops(float32=ops)


def test_near_matches_can_be_listed():
    with pytest.raises(UnknownOpError) as caught:
        Policy.named("xpu").with_ops(float32=["add_"])
    assert "add_" not in str(caught.value).partition("near matches")[2].split(", ")

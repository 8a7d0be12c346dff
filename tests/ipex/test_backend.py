"""The backend "ipex" takes options as IPEX's did, and torch.xpu explains the queries that IPEX gave it."""

from __future__ import annotations

import pytest
import torch

from xpu_amp_dynamo.errors import InvalidOptionError, NoCounterpartError

pytestmark = pytest.mark.usefixtures("installed")


@pytest.mark.parametrize(
    "options", [{"freezing": True}, {"freezing": True, "inductor": {"max_fusion_size": 8}}], ids=str
)
def test_settings_of_inductor_beside_other_options(options):
    model, x = torch.nn.Linear(8, 8).eval(), torch.randn(2, 8)
    with torch.no_grad():
        program = torch.compile(model, backend="ipex", options=options)
        assert program(x).dtype is torch.float32
        torch.testing.assert_close(program(x), model(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert program(x).dtype is torch.bfloat16


def test_an_unknown_option_is_refused():
    program = torch.compile(torch.nn.Linear(8, 8), backend="ipex", options={"frezing": True})
    with pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="frezing") as raised:
        program(torch.randn(2, 8))
    assert isinstance(raised.value.inner_exception, InvalidOptionError)


@pytest.mark.parametrize(
    ("name", "instead"), [("utils", "has_fp64"), ("has_onemkl", "__config__"), ("to_channels_last_1d", "leave it out")]
)
def test_queries_of_ipex_are_explained(name, instead):
    with pytest.raises(NoCounterpartError, match=rf"torch\.xpu\.{name} of IPEX has no counterpart.*{instead}"):
        getattr(torch.xpu, name)
    assert not hasattr(torch.xpu, name)


def test_what_nobody_has_is_python_s_own_error():
    with pytest.raises(AttributeError, match=r"module 'torch\.xpu' has no attribute 'nothing'") as raised:
        getattr(torch.xpu, "nothing")  # noqa: B009
    assert not isinstance(raised.value, NoCounterpartError)

"""Flags that are made of dataclasses of options."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import click
import pytest
import torch
from click.testing import CliRunner

from xpu_amp_dynamo import BackendOptions, ExportOptions, LoweringOptions
from xpu_amp_dynamo.command_line.flags import CompilingCommand, flags_of, given_options


@dataclass(frozen=True, kw_only=True)
class NewOptions(LoweringOptions):
    """Options as they may come.

    Args:
        regions: a new option
            of two lines, see :func:`xpu_amp_dynamo.lower`.
        level: a number.
        kind: one of two.
    """

    regions: Sequence[str] = ()
    level: int | None = None
    kind: Literal["one", "two"] = "one"


def parse(kind, *words):
    """Return the options that words on a command line give."""
    found = {}

    @click.command(cls=CompilingCommand, flags=lambda: flags_of(kind))
    def command(**flags):
        found.update(given_options(flags))

    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    return found


@pytest.mark.parametrize("kind", [BackendOptions, ExportOptions, NewOptions])
def test_every_option_is_a_flag_with_a_help(kind):
    flags = {flag.opts[0].removeprefix("--").replace("-", "_"): flag for flag in flags_of(kind)}
    assert set(flags) == {field.name for field in dataclasses.fields(kind)}
    assert [name for name, flag in flags.items() if not flag.help] == []


def test_what_is_not_given_is_left_to_the_backend():
    assert parse(BackendOptions) == {}


def test_values_are_those_that_the_backend_takes():
    words = [
        "--dtype",
        "float16",
        "--policy",
        "torch",
        "--no-preserve-output-dtype",
        "--enabled",
        "--weights",
        "recast",
    ]
    words += ["--skip-passes", "fold_casts", "--skip-passes", "group_casts", "--device-type", "cpu"]
    words += ["--inductor", "max_autotune=True", "--inductor", "cpp.simdlen=256", "--inductor", "profiler_mark=a b"]
    found = parse(BackendOptions, *words, "--precision", "exact", "--inner-backend", "inductor")
    settings = {"max_autotune": True, "cpp.simdlen": 256, "profiler_mark": "a b"}
    assert found == {
        "dtype": torch.float16,
        "policy": "torch",
        "preserve_output_dtype": False,
        "enabled": True,
        "weights": "recast",
        "skip_passes": ["fold_casts", "group_casts"],
        "device_type": "cpu",
        "inductor": settings,
        "precision": "exact",
        "inner_backend": "inductor",
    }
    assert BackendOptions.parse({**found, "inductor": {"max_autotune": True}}).policy.name == "torch"


@pytest.mark.parametrize("name", ["bf16", "bfloat16", "torch.bfloat16"])
def test_dtypes_have_the_names_that_the_option_takes(name):
    assert parse(BackendOptions, "--dtype", name) == {"dtype": torch.bfloat16}


def test_an_option_that_comes_is_a_flag_by_itself():
    found = parse(NewOptions, "--regions", "a", "--regions", "b", "--level", "3", "--kind", "two")
    assert found == {"regions": ["a", "b"], "level": 3, "kind": "two"}
    regions = next(flag for flag in flags_of(NewOptions) if flag.name == "option_regions")
    assert regions.help == "a new option of two lines, see xpu_amp_dynamo.lower; can be given several times"

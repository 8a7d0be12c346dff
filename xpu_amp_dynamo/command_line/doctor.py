"""``xpu-amp doctor``: what is here, whether the backend runs, and whether it did on a model."""

from __future__ import annotations

from typing import Any

import click

from xpu_amp_dynamo.command_line.arguments import ABOUT_FACTORIES, device_option, model_argument
from xpu_amp_dynamo.command_line.flags import CompilingCommand, backend_flags, given_options
from xpu_amp_dynamo.command_line.output import json_option

HELP = f"""Tell whether the backend runs here, and the fix for each problem.

With MODULE:FACTORY: whether it really runs on that model, and what Dynamo leaves uncompiled. {ABOUT_FACTORIES}

With --check: the self test on the device, whose JSON can be attached to an issue.
"""


@click.command("doctor", cls=CompilingCommand, flags=backend_flags, help=HELP)
@model_argument(required=False)
@click.option("--check", is_flag=True, help="Run the self test; three minutes on two cores.")
@device_option()
@click.option("--simulated-xpu", "simulated", is_flag=True, help="Run on a simulated XPU: slow, and without times.")
@click.option("--train", is_flag=True, help="Run the model's backward too.")
@json_option("--out")
def command(
    factory: str | None,
    check: bool,
    device: str | None,
    simulated: bool,
    train: bool,
    json_file: str | None,
    **flags: Any,
) -> None:
    """Run one of the three."""
    options = given_options(flags)
    _refuse_useless(factory, check, simulated, train, options, device)
    from xpu_amp_dynamo.command_line import doctor_views
    from xpu_amp_dynamo.command_line.device_choice import simulating

    with simulating(simulated):
        device = "xpu" if simulated else device
        if check:
            from xpu_amp_dynamo.command_line.self_test.command import self_test

            fine = self_test(device, simulated, json_file)
        elif factory is not None:
            fine = doctor_views.examine_model(factory, device, train, options, json_file)
        else:
            fine = doctor_views.examine_environment(device, json_file)
    if not fine:
        click.get_current_context().exit(1)


def _refuse_useless(
    factory: str | None, check: bool, simulated: bool, train: bool, options: dict[str, Any], device: str | None
) -> None:
    """Refuse what would do nothing.

    Raises:
        UsageError: there is something.
    """
    if check and factory is not None:
        raise click.UsageError("--check runs models of its own; leave MODULE:FACTORY or --check out")
    if factory is None and (train or options):
        raise click.UsageError("--train and the options of the backend are about a model; name one, as MODULE:FACTORY")
    if simulated and not check and factory is None:
        raise click.UsageError("--simulated-xpu runs something; give --check or MODULE:FACTORY with it")
    if simulated and device not in (None, "xpu"):
        raise click.UsageError(f"--simulated-xpu is of device type 'xpu'; leave --device {device} out")

"""``python -m xpu_amp_dynamo.ipex script.py``: runs a program for IPEX unchanged."""

from __future__ import annotations

import contextlib

import click

from xpu_amp_dynamo.command_line.main import printed
from xpu_amp_dynamo.errors import XpuAmpError
from xpu_amp_dynamo.ipex.run_script import put_stand_in_on_path, run_script

HELP = """Run a program that was written for Intel Extension for PyTorch, unchanged.

`import intel_extension_for_pytorch` finds a stand-in of xpu_amp_dynamo, and torch.xpu.amp is there without it.
All words behind SCRIPT are the script's own.
"""


@click.command(help=HELP, context_settings={"allow_interspersed_args": False})
@click.option("--simulated-xpu", "simulated", is_flag=True, help="Run on a simulated XPU: slow, and without times.")
@click.option("--policy", help="What regions install: xpu, ipex or torch.  [default: xpu]")
@click.argument("script", type=click.Path(exists=True, dir_okay=False))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def command(simulated: bool, policy: str | None, script: str, arguments: tuple[str, ...]) -> None:
    """Run one script."""
    with contextlib.ExitStack() as stack:
        try:
            put_stand_in_on_path()
            # PyTorch loads for seconds, which help and errors do without.
            from xpu_amp_dynamo.command_line.device_choice import simulating
            from xpu_amp_dynamo.ipex.installation import install_torch_xpu_amp

            stack.enter_context(simulating(simulated))
            install_torch_xpu_amp(policy)
        except XpuAmpError as error:
            raise printed(error) from error
        status = run_script(script, arguments)
    click.get_current_context().exit(status)


if __name__ == "__main__":
    command(prog_name="python -m xpu_amp_dynamo.ipex")

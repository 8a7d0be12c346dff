"""Runs a program that was written for IPEX, with the stand-in on its import path."""

from __future__ import annotations

import importlib.util
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from xpu_amp_dynamo.errors import ForeignExtensionError

STAND_IN = Path(__file__).parent / "stand_in"
_NAME = "intel_extension_for_pytorch"
# Beside what PyTorch says of its build.
_NO_XPU = "There is no XPU here. --simulated-xpu, in front of the script, runs it on a simulated one."


def put_stand_in_on_path() -> None:
    """Have ``import intel_extension_for_pytorch`` find the stand-in, in this process and those that it spawns.

    Raises:
        ForeignExtensionError: IPEX itself is installed.
    """
    found = importlib.util.find_spec(_NAME)
    if found is not None and not str(found.origin).startswith(str(STAND_IN)):
        raise ForeignExtensionError(
            f"{_NAME} itself is installed, at {found.origin}; the stand-in will not hide it. Take it out (pip "
            "uninstall intel-extension-for-pytorch), or run the script by python alone to use it"
        )
    if str(STAND_IN) not in sys.path:
        sys.path.append(str(STAND_IN))


def run_script(script: str, arguments: Sequence[str]) -> int:
    """Run a script as ``python script ARGUMENTS`` does.

    Args:
        script: its path.
        arguments: the words behind it.

    Returns:
        The exit status, 1 after an exception whose traceback was printed. ``SystemExit`` passes through.
    """
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    try:
        runpy.run_path(script, run_name="__main__")
    except Exception as error:
        shown = error.with_traceback(_from_script(error.__traceback__, script))
        sys.excepthook(type(shown), shown, shown.__traceback__)
        if "XPU" in str(error) and not _there_is_an_xpu():
            print(_NO_XPU, file=sys.stderr)
        return 1
    return 0


def _there_is_an_xpu() -> bool:
    # Not before it is needed: PyTorch loads for seconds.
    import torch

    return torch.xpu.is_available()


def _from_script(traceback: TracebackType | None, script: str) -> TracebackType | None:
    """Return a traceback without what lies between this module and the script."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename != script:
        traceback = traceback.tb_next
    return traceback

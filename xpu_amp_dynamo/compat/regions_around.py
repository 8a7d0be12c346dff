"""Tells whether the autocast regions around a call turn autocast off for it, which is more than that none turns it on.

PyTorch's state of a thread has no word for the difference between a region with ``enabled=False`` and none at all. What
does differ is the count of open regions of all device types, which it keeps to end its cache of casts. Where that count
leaves a question, the open regions are looked for among the objects of the process. Checked on torch 2.13.0.
"""

from __future__ import annotations

import functools
import gc
import inspect
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import torch
from torch.amp import autocast_mode

from xpu_amp_dynamo.compat.autocast import autocast_device_types

_FOLDER = Path(torch.__file__).parent
# Functions of PyTorch that enter regions only to give the code they call the state of another moment, be it on, off or
# none, and how many they enter.
_REPLAYING = {
    (str(_FOLDER / "utils" / "checkpoint.py"), "recompute_fn"): 2,
    (str(_FOLDER / "utils" / "checkpoint.py"), "backward"): 2,
    (str(_FOLDER / "nn" / "parallel" / "parallel_apply.py"), "_worker"): 1,
    (str(_FOLDER / "amp" / "autocast_mode.py"), "decorate_bwd"): 1,
}
# The class of regions that graphs enter as they run: new in torch 2.12, theirs is that of all others before.
_OF_GRAPHS = getattr(autocast_mode, "_UnmanagedAutocast", None)


def open_regions() -> int:
    """Return how many autocast regions, of all device types, are open in this thread.

    Where Dynamo calls a backend at a graph break, it has left the regions that the graph entered.
    """
    depth = torch.autocast_increment_nesting() - 1
    torch.autocast_decrement_nesting()
    return depth


def enabled_elsewhere(device_type: str) -> int:
    """Return for how many other device types autocast is enabled, each of which takes a region."""
    others = (other for other in autocast_device_types() if other != device_type)
    return sum(map(torch.is_autocast_enabled, others))


def turned_off(device_type: str, enabled_elsewhere: int) -> bool:
    """Tell whether a region turns autocast off for a device type for which it is not enabled.

    Args:
        device_type: the device type.
        enabled_elsewhere: for how many other device types autocast is enabled.
    """
    depth = open_regions()
    if depth <= enabled_elsewhere:
        return False
    path, replayed = _call_path()
    return depth - replayed > enabled_elsewhere and _disabled_region_is_open(device_type, path)


def _call_path() -> tuple[tuple[int, ...], int]:
    """Return what stands for the places in the code from which this is called, and how many regions replay a state."""
    path: list[int] = []
    replayed = 0
    frame = inspect.currentframe()
    while frame is not None:
        path += (id(frame.f_code), frame.f_lasti)
        replayed += _REPLAYING.get((frame.f_code.co_filename, frame.f_code.co_name), 0)
        frame = frame.f_back
    return tuple(path), replayed


@functools.lru_cache(maxsize=4096)
def _disabled_region_is_open(device_type: str, path: tuple[int, ...]) -> bool:
    """Look for an open region of a device type that turns autocast off, once for each path of calls.

    It looks at all objects of the process, which takes some milliseconds, so regions that alternate at one place of the
    code should be of one device type.
    """

    def turns_off(regions: list[Any]) -> bool:
        return any(r.device == device_type and not r._enabled for r in regions)

    entered = _regions_entered_by_statements()
    if entered:
        return turns_off(entered)
    if not turns_off(_regions_entered_by_hand()):
        return False
    # A region that was left is known from one that was not only by nothing holding it, but a cycle may.
    gc.collect()
    return turns_off(_regions_entered_by_hand())


def _regions_entered_by_statements() -> list[Any]:
    """Return the regions of open ``with`` statements and stacks, which hold the bound method that will leave them."""
    kinds = _kinds_of(torch.autocast)
    methods = (o for o in gc.get_objects() if type(o) is MethodType and o.__func__.__name__ == "__exit__")
    return [m.__self__ for m in methods if type(m.__self__) in kinds]


def _regions_entered_by_hand() -> list[Any]:
    """Return the regions that have ever been entered, known by what they note then, but those kept by decorators."""
    kinds = _kinds_of(torch.autocast)
    objects = gc.get_objects()
    decorators = (o for o in objects if type(o) is FunctionType and o.__code__.co_name == "decorate_autocast")
    decorating = {id(cell.cell_contents) for decorator in decorators for cell in decorator.__closure__ or ()}
    return [o for o in objects if type(o) in kinds and hasattr(o, "prev") and id(o) not in decorating]


def _kinds_of(kind: type) -> set[type]:
    """Return a class and all classes derived from it, but that of which graphs make regions as they run.

    No call of ours is inside such a one, and those of Dynamo's traces live as long as the graphs.
    """
    derived: list[type] = kind.__subclasses__()
    return {kind}.union(*(_kinds_of(each) for each in derived if each is not _OF_GRAPHS))

"""Settings of Inductor, of ``torch._inductor.config``: which there are, what they may be. Checked on torch 2.13.0."""

from __future__ import annotations

import contextlib
import difflib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch._functorch.config
import torch._inductor.config

from xpu_amp_dynamo.errors import InvalidOptionError

ROUNDING_SETTING = "emulate_precision_casts"


def check_settings(patches: Mapping[str, Any]) -> None:
    """Check patches of ``torch._inductor.config`` before anything is compiled with them.

    Raises:
        InvalidOptionError: Inductor has no such setting, or the value is of another type.
    """
    for name in patches:
        if not is_setting(name):
            near = difflib.get_close_matches(str(name), sorted(_setting_names()), n=3)
            hint = f"near matches: {near}" if near else "see torch._inductor.list_options()"
            raise InvalidOptionError(f"option 'inductor': Inductor has no setting {name!r}; {hint}")
    try:
        torch._TorchCompileInductorWrapper(None, dict(patches), None)
    except RuntimeError as error:
        raise InvalidOptionError(f"option 'inductor': {error}") from error


def is_setting(name: object) -> bool:
    """Tell whether Inductor has a setting of a name, which may have dashes."""
    return isinstance(name, str) and name.replace("-", "_") in _setting_names()


@functools.cache
def _setting_names() -> frozenset[str]:
    """Return the names of all settings; PyTorch copies the settings themselves to list them."""
    return frozenset(torch._inductor.list_options())


def check_mode(mode: object, inner_backend: str) -> None:
    """Check a mode of ``torch.compile``.

    Args:
        mode: the mode, ``"default"`` or one that Inductor has.
        inner_backend: what compiles; only Inductor has other modes than the default one.

    Raises:
        InvalidOptionError: there is no such mode, or none there.
    """
    modes = torch._inductor.list_mode_options()
    if mode != "default" and inner_backend != "inductor":
        raise InvalidOptionError(f"mode {mode!r} is Inductor's; inner_backend {inner_backend!r} takes none")
    if mode not in modes:
        near = difflib.get_close_matches(str(mode), modes, n=1)
        hint = f"did you mean {near[0]!r}? The" if near else "the"
        raise InvalidOptionError(f"unknown mode {mode!r}; {hint} modes are {sorted(modes)}")


def autotuned_backends(mode: str | None, patches: Mapping[str, Any]) -> frozenset[str]:
    """Return whose kernels of matrix products Inductor times, to take the fastest; none if it calls the library.

    Args:
        mode: a mode of ``torch.compile``, None for the default one.
        patches: settings of ``torch._inductor.config``, checked.
    """
    chosen = {**(torch._inductor.list_mode_options(mode) if mode else {}), **patches}
    if not any(setting_of(name, chosen) for name in ("max_autotune", "max_autotune_gemm")):
        return frozenset()
    backends = setting_of("max_autotune_gemm_backends", chosen).split(",")
    return frozenset(backend.strip().upper() for backend in backends)


def setting_of(name: str, patches: Mapping[str, Any]) -> Any:
    """Return the value of a setting as patches change it, whose names may have dashes."""
    spelt = {given.replace("-", "_"): value for given, value in patches.items()}
    return spelt[name] if name in spelt else getattr(torch._inductor.config, name)


def with_settings(patches: Mapping[str, Any]) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which settings have other values."""
    return torch._inductor.config.patch(dict(patches))


@contextlib.contextmanager
def without_caches() -> Iterator[None]:
    """Have Inductor and AOTAutograd compile anew what was compiled before, while the context lasts."""
    with torch._inductor.config.patch(fx_graph_cache=False), torch._functorch.config.patch(enable_autograd_cache=False):
        yield

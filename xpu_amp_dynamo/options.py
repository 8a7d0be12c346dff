"""The options of the backend: checked before anything is compiled."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._dynamo.backends.registry import list_backends

from xpu_amp_dynamo.errors import InvalidOptionError, UnsupportedDeviceError, UnsupportedDtypeError
from xpu_amp_dynamo.inductor.compiler import PRECISIONS, ROUNDING_SETTING, inductor_compiler
from xpu_amp_dynamo.policy.devices import check_device_type, check_lower_dtype
from xpu_amp_dynamo.policy.policy import Policy

WEIGHT_MODES = ("recast", "cached")


@dataclass(frozen=True)
class BackendOptions:
    """The options of ``torch.compile(model, backend="xpu_amp", options={...})``.

    Args:
        dtype: the lower precision where no region says otherwise, ``torch.bfloat16`` or ``torch.float16``.
        enabled: whether the policy applies where no region says otherwise.
        policy: a :class:`Policy` or the name of one.
        device_type: the device type to lower for; None means that of the graph's tensors.
        inner_backend: the registered Dynamo backend that gets the lowered graph.
        inductor: patches of ``torch._inductor.config`` for this compilation.
        preserve_output_dtype: cast outputs to the dtypes that the code around the graph was compiled for.
        precision: ``"fast"`` lets Inductor keep more bits between the ops it fuses, ``"exact"`` rounds there as
            eager code does.
        weights: ``"recast"`` casts weights at every call, ``"cached"`` keeps their casts between calls of graphs
            without a backward until a weight changes, see :func:`refresh_weights`.

    Raises:
        InvalidOptionError: a value is outside its legal set.
    """

    dtype: torch.dtype = torch.bfloat16
    enabled: bool = True
    policy: Policy = field(default_factory=lambda: Policy.named("xpu"))
    device_type: str | None = None
    inner_backend: str = "inductor"
    inductor: Mapping[str, Any] = field(default_factory=dict)
    preserve_output_dtype: bool = True
    precision: str = "fast"
    weights: str = "recast"

    def __post_init__(self) -> None:
        if isinstance(self.policy, str):
            object.__setattr__(self, "policy", _policy(self.policy))
        _check("policy", self.policy, isinstance(self.policy, Policy), "a Policy or the name of one")
        for name in ("enabled", "preserve_output_dtype"):
            _check(name, getattr(self, name), isinstance(getattr(self, name), bool), "True or False")
        _check_dtype_and_device(self.dtype, self.device_type)
        backends = list_backends(())
        legal = self.inner_backend in backends and self.inner_backend != "xpu_amp"
        _check("inner_backend", self.inner_backend, legal, f"a registered backend: {sorted(backends)}")
        _check("precision", self.precision, self.precision in PRECISIONS, f"one of {list(PRECISIONS)}")
        _check("weights", self.weights, self.weights in WEIGHT_MODES, f"one of {list(WEIGHT_MODES)}")
        _check_inductor(self.inductor, self.inner_backend)
        if self.precision == "exact" and not self.inductor.get(ROUNDING_SETTING, True):
            raise InvalidOptionError(
                f"option 'precision' is 'exact' and option 'inductor' turns {ROUNDING_SETTING} off, which rounds as "
                "eager code does; leave one of them out"
            )

    @classmethod
    def parse(cls, options: Mapping[str, Any] | None) -> BackendOptions:
        """Return checked options.

        Raises:
            InvalidOptionError: a name is unknown or a value is outside its legal set.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        unknown = [name for name in options or {} if name not in names]
        if unknown:
            raise InvalidOptionError(
                f"unknown options {unknown}; the options of backend 'xpu_amp' are {names}, and settings of Inductor "
                "go into options={'inductor': {...}}"
            )
        return cls(**(options or {}))

    @classmethod
    def parse_for(cls, caller: str, options: Mapping[str, Any], refused: Sequence[str]) -> BackendOptions:
        """Return checked options of a function that compiles nothing.

        Args:
            caller: the function.
            options: what it was given.
            refused: names of options that would do nothing there.

        Raises:
            InvalidOptionError: as :meth:`parse`, and for refused names.
        """
        parsed = cls.parse(options)
        for name in refused:
            if name in options:
                raise InvalidOptionError(
                    f"option {name!r} is about compiled code, and {caller} compiles nothing; leave it out"
                )
        return parsed


def _policy(name: str) -> Policy:
    try:
        return Policy.named(name)
    except ValueError as error:
        raise InvalidOptionError(f"option 'policy': {error}") from error


def _check(name: str, value: object, legal: bool, expected: str) -> None:
    """Raise unless a value is legal."""
    if not legal:
        raise InvalidOptionError(f"option {name!r} is {value!r}; it must be {expected}")


def _check_dtype_and_device(dtype: torch.dtype, device_type: str | None) -> None:
    try:
        check_lower_dtype(dtype)
        if device_type is not None:
            check_device_type(device_type)
    except (UnsupportedDtypeError, UnsupportedDeviceError) as error:
        name = "dtype" if isinstance(error, UnsupportedDtypeError) else "device_type"
        raise InvalidOptionError(f"option {name!r}: {error}") from error


def _check_inductor(patches: Mapping[str, Any], inner_backend: str) -> None:
    """Check that Inductor has every setting that is to be patched, and that Inductor is what runs."""
    _check("inductor", patches, isinstance(patches, Mapping), "a dict of Inductor's settings")
    if not patches:
        return
    _check("inner_backend", inner_backend, inner_backend == "inductor", "'inductor' where option 'inductor' is given")
    known = torch._inductor.list_options()
    for name in patches:
        if name.replace("-", "_") not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"near matches: {near}" if near else "see torch._inductor.list_options()"
            raise InvalidOptionError(f"option 'inductor': Inductor has no setting {name!r}; {hint}")
    try:
        inductor_compiler(None, patches, "fast")
    except RuntimeError as error:
        raise InvalidOptionError(f"option 'inductor': {error}") from error

"""The options of the backend: checked before anything is compiled."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from typing_extensions import Self

from xpu_amp_dynamo.dynamo.backends import backend_names
from xpu_amp_dynamo.errors import (
    InvalidOptionError,
    UnknownPolicyError,
    UnsupportedDeviceError,
    UnsupportedDtypeError,
)
from xpu_amp_dynamo.inductor.settings import ROUNDING_SETTING, check_mode, check_settings, is_setting
from xpu_amp_dynamo.lowering.pipeline import SKIPPABLE, SKIPPABLE_CAPTURED, SKIPPABLE_STORED
from xpu_amp_dynamo.policy.devices import check_device_type, check_lower_dtype
from xpu_amp_dynamo.policy.kept_modules import ModulePatterns
from xpu_amp_dynamo.policy.policy import Policy, as_policy

Checked = TypeVar("Checked")
PRECISIONS = ("fast", "exact")
WEIGHT_MODES = ("recast", "cached")


@dataclass(frozen=True, kw_only=True)
class LoweringOptions:
    """The options that concern the lowering of a graph, be it compiled or not.

    Args:
        dtype: the lower precision where no region says otherwise, ``torch.bfloat16`` or ``torch.float16``, or a name
            of one, such as ``"bf16"``.
        enabled: whether the policy applies where no region says otherwise.
        policy: a :class:`Policy` or the name of one.
        device_type: the device type to lower for, or a device of it; None means that of the graph's tensors.
        preserve_output_dtype: cast outputs to the dtypes that the code around the graph was compiled for.
        skip_passes: names of passes to leave out, to find out which of them does what.
        keep_float32: globs on the names that ``model.named_modules()`` gives: modules that run in float32, with all
            that is in them.
        keep_lower: those of modules that run in the lower precision. The innermost module that is named decides.

    Raises:
        InvalidOptionError: a value is outside its legal set.
    """

    dtype: torch.dtype = torch.bfloat16
    enabled: bool = True
    policy: Policy = field(default_factory=lambda: Policy.named("xpu"))
    device_type: str | None = None
    preserve_output_dtype: bool = True
    skip_passes: Collection[str] = ()
    keep_float32: Collection[str] = ()
    keep_lower: Collection[str] = ()
    # What can be left out of the passes that run there.
    skippable: ClassVar[Sequence[str]] = SKIPPABLE_CAPTURED

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", checked_option("policy", as_policy, self.policy))
        for name in ("enabled", "preserve_output_dtype"):
            _check(name, getattr(self, name), isinstance(getattr(self, name), bool), "True or False")
        object.__setattr__(self, "dtype", checked_option("dtype", check_lower_dtype, self.dtype))
        if self.device_type is not None:
            object.__setattr__(self, "device_type", checked_option("device_type", check_device_type, self.device_type))
        _check_skipped(self.skip_passes, self.skippable)
        ModulePatterns.parse(self.keep_float32, self.keep_lower)

    @property
    def kept_modules(self) -> ModulePatterns:
        """Which modules are kept in one precision."""
        return ModulePatterns.parse(self.keep_float32, self.keep_lower)

    @classmethod
    def parse(cls, options: Mapping[str, Any] | None) -> Self:
        """Return checked options.

        Raises:
            InvalidOptionError: this is no dict, a name is unknown or a value is outside its legal set.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        if options is not None and not isinstance(options, Mapping):
            raise InvalidOptionError(f"options are {options!r}; they must be a dict; {cls._known(names)}")
        unknown = [name for name in options or {} if name not in names]
        if unknown:
            raise InvalidOptionError(f"unknown options {unknown}; {cls._meant(unknown, names)}{cls._known(names)}")
        return cls(**(options or {}))

    @classmethod
    def parse_for(cls, caller: str, options: Mapping[str, Any]) -> Self:
        """Return checked options of a function that compiles nothing.

        Args:
            caller: the function.
            options: what it was given.

        Raises:
            InvalidOptionError: as :meth:`parse`, and for options that would do nothing there.
        """
        own, compiling = ({f.name for f in dataclasses.fields(kind)} for kind in (cls, BackendOptions))
        for name in options:
            if name in compiling - own:
                raise InvalidOptionError(
                    f"option {name!r} is about compiled code, and {caller} compiles nothing; leave it out"
                )
        return cls.parse(options)

    @classmethod
    def _meant(cls, unknown: list[Any], names: list[str]) -> str:
        return _near(unknown, names)

    @classmethod
    def _known(cls, names: list[str]) -> str:
        return f"the options are {names}"


@dataclass(frozen=True, kw_only=True)
class ExportOptions(LoweringOptions):
    """The options of :func:`xpu_amp_dynamo.lower_exported`: those of the lowering, and one more.

    Args:
        weights: ``"recast"`` leaves parameters as they are, ``"cached"`` stores those in the lower precision that the
            program reads in no other.

    Raises:
        InvalidOptionError: a value is outside its legal set.
    """

    weights: str = "recast"
    skippable: ClassVar[Sequence[str]] = SKIPPABLE_STORED

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("weights", self.weights, self.weights in WEIGHT_MODES, f"one of {list(WEIGHT_MODES)}")


@dataclass(frozen=True, kw_only=True)
class BackendOptions(LoweringOptions):
    """The options of ``torch.compile(model, backend="xpu_amp", options={...})``: those of the lowering, and these.

    Args:
        inner_backend: the registered Dynamo backend that gets the lowered graph.
        mode: a mode of ``torch.compile`` for Inductor, such as ``"max-autotune"``, where options are given too:
            ``torch.compile`` takes its own ``mode=`` only without options.
        inductor: patches of ``torch._inductor.config`` for this compilation.
        precision: ``"fast"`` lets Inductor keep more bits between the ops it fuses, ``"exact"`` rounds there as
            eager code does.
        weights: ``"cached"`` keeps the casts of parameters between calls until a parameter changes, see
            :func:`refresh_weights`; ``"recast"`` casts them at every call.

    Raises:
        InvalidOptionError: a value is outside its legal set.
    """

    inner_backend: str = "inductor"
    mode: str | None = None
    inductor: Mapping[str, Any] = field(default_factory=dict)
    precision: str = "fast"
    weights: str = "cached"
    skippable: ClassVar[Sequence[str]] = SKIPPABLE

    def __post_init__(self) -> None:
        super().__post_init__()
        backends = backend_names()
        legal = self.inner_backend in backends and self.inner_backend != "xpu_amp"
        _check("inner_backend", self.inner_backend, legal, f"a registered backend: {sorted(backends)}")
        _check("precision", self.precision, self.precision in PRECISIONS, f"one of {list(PRECISIONS)}")
        _check("weights", self.weights, self.weights in WEIGHT_MODES, f"one of {list(WEIGHT_MODES)}")
        if self.mode is not None:
            check_mode(self.mode, self.inner_backend)
        self._check_inductor()

    def _check_inductor(self) -> None:
        """Check that Inductor is what runs where it is given settings, and that these are legal."""
        _check("inductor", self.inductor, isinstance(self.inductor, Mapping), "a dict of Inductor's settings")
        if not self.inductor:
            return
        legal = self.inner_backend == "inductor"
        _check("inner_backend", self.inner_backend, legal, "'inductor' where option 'inductor' is given")
        check_settings(self.inductor)
        if self.precision == "exact" and not self.inductor.get(ROUNDING_SETTING, True):
            raise InvalidOptionError(
                f"option 'precision' is 'exact' and option 'inductor' turns {ROUNDING_SETTING} off, which rounds as "
                "eager code does; leave one of them out"
            )

    @classmethod
    def _meant(cls, unknown: list[Any], names: list[str]) -> str:
        settings = [name for name in unknown if is_setting(name)]
        if not settings:
            return _near(unknown, names)
        meant = ", ".join(f"{name!r}: ..." for name in settings)
        return f"settings of Inductor are given as options={{'inductor': {{{meant}}}}}; "

    @classmethod
    def _known(cls, names: list[str]) -> str:
        hint = "settings of Inductor go into the option 'inductor', a dict"
        return f"the options of backend 'xpu_amp' are {names}, and {hint}"


def _check(name: str, value: object, legal: bool, expected: str) -> None:
    """Raise unless a value is legal."""
    if not legal:
        raise InvalidOptionError(f"option {name!r} is {value!r}; it must be {expected}")


def checked_option(name: str, check: Callable[[Any], Checked], value: object) -> Checked:
    """Return what a check makes of the value of an option.

    Args:
        name: the option.
        check: returns the value as it is used, and raises if it is illegal.
        value: what was given.

    Raises:
        InvalidOptionError: the check raised; the error names the option.
    """
    try:
        return check(value)
    except (UnsupportedDtypeError, UnsupportedDeviceError, UnknownPolicyError) as error:
        raise InvalidOptionError(f"option {name!r}: {error}") from error


def _near(unknown: Collection[object], names: Collection[str]) -> str:
    """Return what to say of names like the unknown ones, empty if there are none."""
    near = [match for name in unknown for match in difflib.get_close_matches(str(name), names, n=1)]
    return f"did you mean {' and '.join(map(repr, near))}? " if near else ""


def _check_skipped(names: Collection[str], skippable: Sequence[str]) -> None:
    plain = not isinstance(names, str) and isinstance(names, Collection)
    _check("skip_passes", names, plain, "a list of names of passes")
    for name in names:
        if name not in skippable:
            raise InvalidOptionError(
                f"option 'skip_passes' names {name!r}; {_near([name], skippable)}Passes that can be left out here are "
                f"{list(skippable)}"
            )

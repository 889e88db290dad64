"""Finds the methods of a stage by its folder: `reconstruction/background/vsharp.py` holds `vsharp`.

A method's keyword-only parameters are its settings: their names, types and defaults are the schema that a recipe is
checked against.  Its other parameters are data, handed over by name: a method asks only for what it uses of what
`SUPPLIES` lists.  There is no register to keep.

What comes back (E echoes; volumes (x, y, z)):

    readout     phase                       even and odd echoes of a bipolar read-out made alike
    offset      phase                       wrapped, φ₀ removed
    mask        mask
    unwrap      unwrapped phase (E, x, y, z)
    combine     (field Hz, noise Hz, residual)
    relaxation  r2star 1/s
    passes      mask of a first pass
    background  (local_field ppm, mask)
    inversion   chi ppm, or (chi, mask) where it holds in less than the mask it was given
    regions     Regions
    reference   Reference
    weighting   weighted magnitude, arbitrary unit
    separation  (chi_para ppm, never negative; chi_dia ppm, never positive)
"""

from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import sys
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

from reconstruction.errors import InvalidRecipe


class Range(NamedTuple):
    """The values that a setting makes sense with: from `least`, or only above it, to `most`."""

    least: float = 0.0
    most: float = math.inf
    above: bool = False

    def holds(self, value: float) -> bool:
        finite = abs(value) <= sys.float_info.max
        return finite and self.least <= value <= self.most and not (self.above and value == self.least)

    def __str__(self) -> str:
        if self.least == -math.inf:
            return ""
        if self.most == math.inf:
            return f" above {self.least:g}" if self.above else f" of {self.least:g} or more"
        return (
            f" above {self.least:g} and up to {self.most:g}" if self.above else f" from {self.least:g} to {self.most:g}"
        )


Positive = Annotated[float, Range(above=True)]
Signed = Annotated[float, Range(-math.inf)]
Share = Annotated[float, Range(most=1)]
Millimetres = Annotated[float, Range(most=100)]
Count = Annotated[int, Range(1, 10_000)]
Few = Annotated[int, Range(most=100)]
"""The types of settings; a bare float or int is 0 or more.

Millimetres: half a head; the memory that a larger sphere takes grows with its third power.  Few: what each one of takes
memory or a pass over the volume of its own, and 0 goes without.  Count: what there must be one of, such as iterations.
"""

SUPPLIES: dict[str, tuple[str, ...]] = {
    "readout": ("phase", "magnitude", "echo_times", "geometry"),
    "offset": ("phase", "magnitude", "echo_times", "geometry"),
    "mask": ("phase", "magnitude", "echo_times", "geometry"),
    "unwrap": ("phase", "magnitude", "echo_times", "mask", "geometry"),
    "combine": ("unwrapped", "magnitude", "echo_times", "mask"),
    "relaxation": ("magnitude", "echo_times", "mask"),
    "passes": ("noise", "residual", "mask", "geometry"),
    "background": ("field", "noise", "mask", "magnitude", "geometry"),
    "inversion": (
        "local_field", "noise", "mask", "magnitude", "r2star", "geometry", "echo_times", "larmor_frequency",
    ),
    "regions": ("atlas", "magnitude", "chi", "r2star", "mask", "geometry"),
    "reference": ("chi", "r2star", "mask", "regions", "geometry"),
    "weighting": ("magnitude", "local_field", "chi", "echo_times", "mask", "geometry"),
    "separation": (
        "chi", "r2star", "local_field", "noise", "mask", "magnitude", "geometry", "larmor_frequency", "reference",
    ),
}  # fmt: skip
"""What each stage can hand to a method: phase and unwrapped in radian (E, x, y, z); magnitude (E, x, y, z), but the
root sum of squares (x, y, z) for background, inversion, regions and separation; field, local_field, noise and chi in
ppm (x, y, z), but local_field in Hz for weighting; noise inf where nothing is known; r2star in 1/s, None for a single
echo; echo_times in s; larmor_frequency in Hz; reference the name of what χ is relative to.  Only unwrapping may write
into what it is given, the phase."""

STAGES = tuple(SUPPLIES)
"""In the order in which `pipeline.reconstruct` runs them."""

OPTIONAL = ("readout", "passes", "regions", "weighting", "separation")
"""Stages that a recipe without a table for them does not run."""


def methods(stage: str) -> tuple[str, ...]:
    """The names of a stage's methods."""
    if stage not in STAGES:
        raise InvalidRecipe(f"stage {stage!r} does not exist; expected one of {', '.join(STAGES)}")
    package = importlib.import_module(f"reconstruction.{stage}")
    return tuple(sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")))


def find(stage: str, method: str) -> Callable[..., Any]:
    """The function `reconstruction.<stage>.<method>.<method>`."""
    known = methods(stage)
    if method not in known:
        raise InvalidRecipe(f"{stage}.method is {method!r}; expected one of {', '.join(known)}")
    function: Callable[..., Any] = getattr(importlib.import_module(f"reconstruction.{stage}.{method}"), method)
    return function


def run(stage: str, method: str, settings: Mapping[str, Any], data: Mapping[str, Any]) -> Any:
    """Calls a method with its settings and those of the data that it asks for by name."""
    function = find(stage, method)
    return function(**{name: data[name] for name in asks(function)}, **settings)


def asks(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the data that a method asks for."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


def defaults(stage: str, method: str) -> dict[str, Any]:
    """The settings of a method with their defaults."""
    parameters = inspect.signature(find(stage, method)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def check(stage: str, method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The complete settings of a method: those given over the defaults.

    Raises InvalidRecipe with every setting that the method does not have and every value of the wrong type or range.
    """
    known = defaults(stage, method)
    hints = typing.get_type_hints(find(stage, method), include_extras=True)
    faults = []
    for name, value in settings.items():
        if name not in known:
            faults.append(
                f"{stage}.{name} is not a setting of {method}; expected one of {', '.join(known) or '(none)'}"
            )
        elif not _fits(value, hints[name]):
            faults.append(f"{stage}.{name} is {value!r}; expected {_in_words(hints[name])}, such as {known[name]!r}")
    if faults:
        raise InvalidRecipe("\n".join(faults))
    return known | settings


def _in_words(hint: Any) -> str:
    kind, allowed = _kind(hint)
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    return words.get(kind, "a list") + (str(allowed) if kind in (float, int) else "")


def _kind(hint: Any) -> tuple[Any, Range]:
    """The bare type of a setting, and the range of its numbers."""
    if typing.get_origin(hint) is Annotated:
        kind, allowed = typing.get_args(hint)
        return kind, allowed
    return hint, Range()


def _fits(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is tuple:
        items = typing.get_args(hint)
        if not isinstance(value, list | tuple):
            return False
        if len(items) == 2 and items[1] is Ellipsis:
            return all(_fits(v, items[0]) for v in value)
        return len(value) == len(items) and all(_fits(v, h) for v, h in zip(value, items, strict=True))
    kind, allowed = _kind(hint)
    if kind in (float, int):
        number = isinstance(value, (int, float) if kind is float else int) and not isinstance(value, bool)
        return number and allowed.holds(value)
    return isinstance(value, kind)

"""Finds the methods of a stage by its folder: `reconstruction/background/vsharp.py` holds `vsharp`.

A method's keyword-only parameters are its settings: their names, types and defaults are the schema that a recipe is
checked against.  There is no register to keep.

Call shapes (E echoes; volumes (x, y, z); positional arguments are data, keyword-only ones settings):

    offset      (phase, magnitude, echo_times, geometry) -> phase                       wrapped, φ₀ removed
    mask        (phase, magnitude, echo_times, geometry) -> mask
    unwrap      (phase, magnitude, echo_times, mask, geometry) -> unwrapped phase
    combine     (unwrapped, magnitude, echo_times, mask) -> (field Hz, noise Hz, residual)
    background  (field ppm, noise ppm, mask, geometry) -> (local_field ppm, mask)
    inversion   (local_field ppm, noise ppm, mask, magnitude, geometry) -> chi ppm
    reference   (chi, r2star, mask, geometry) -> Reference
    relaxation  (magnitude, echo_times, mask) -> r2star 1/s
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable
from typing import Any

from reconstruction.errors import InvalidRecipe

STAGES = ("offset", "mask", "unwrap", "combine", "background", "inversion", "relaxation", "reference")
"""In the order in which `pipeline.reconstruct` runs them."""


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


def defaults(stage: str, method: str) -> dict[str, Any]:
    """The settings of a method with their defaults."""
    parameters = inspect.signature(find(stage, method)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def check(stage: str, method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The complete settings of a method: those given over the defaults.

    Raises InvalidRecipe with every setting that the method does not have and every value of the wrong type.
    """
    known = defaults(stage, method)
    hints = typing.get_type_hints(find(stage, method))
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
    words = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    return words.get(hint, "a list")


def _fits(value: Any, hint: Any) -> bool:
    if typing.get_origin(hint) is tuple:
        items = typing.get_args(hint)
        if not isinstance(value, list | tuple):
            return False
        if len(items) == 2 and items[1] is Ellipsis:
            return all(_fits(v, items[0]) for v in value)
        return len(value) == len(items) and all(_fits(v, h) for v, h in zip(value, items, strict=True))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)

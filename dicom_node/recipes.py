"""Recipes as files: read, and held against what there is here.

The libraries of the physics are loaded when a recipe is read, not when this module is: the daemon, which lives for
months, holds recipes and none of them (`apart`).
"""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.errors import InvalidConfiguration
from reconstruction import DeviceUnavailable, InvalidRecipe, Recipe

if TYPE_CHECKING:
    from reconstruction import Atlas

__all__ = ["Recipe", "atlas_of", "check_device", "load_compiler", "read_recipe", "usable_recipe"]


def usable_recipe(file: Path, device: str) -> Recipe:
    """As `read_recipe`, once it is known that the physics can run on `device`."""
    recipe = read_recipe(file)
    check_device(device)
    return recipe


def read_recipe(file: Path) -> Recipe:
    """Reads a TOML recipe.  Raises InvalidConfiguration with every fault at once."""
    try:
        recipe = Recipe.from_mapping(tomllib.loads(file.read_text(encoding="utf-8")))
        atlas = atlas_of(recipe)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, InvalidRecipe, InvalidConfiguration) as error:
        raise InvalidConfiguration(f"{file}: {error}") from error
    return recipe if atlas is None else replace(recipe, atlas=atlas.digest())


def load_compiler() -> None:
    """What a recipe's first loop would wait for: for whoever waits for something else anyway."""
    from reconstruction import load_compiler

    load_compiler()


def check_device(device: str) -> None:
    """Raises InvalidConfiguration where the physics cannot run on a device."""
    from reconstruction import mover

    try:
        mover(device)
    except DeviceUnavailable as error:
        raise InvalidConfiguration(str(error)) from error


def atlas_of(recipe: Recipe) -> Atlas | None:
    """The atlas that a recipe names; None where it asks for no regions.

    Raises InvalidConfiguration, also for an atlas that is no longer the one of the recipe's digest.
    """
    step = recipe.steps.get("regions")
    if step is None:
        return None
    from dicom_node.atlas import read_atlas

    atlas = read_atlas(step.settings["name"])
    if recipe.atlas not in ("", atlas.digest()):
        raise InvalidConfiguration(f"atlas {atlas.name!r} has changed since the recipe was read; restart the node")
    return atlas

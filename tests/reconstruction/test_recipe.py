"""A recipe is refused before an hour of computing is spent, and equal digests mean equal methods and settings."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from reconstruction import InvalidRecipe, Recipe
from reconstruction.stage import OPTIONAL, STAGES, SUPPLIES, asks, defaults, find, methods

RECIPES = Path(__file__).parents[2] / "config" / "recipes"


def content() -> dict[str, Any]:
    return copy.deepcopy(tomllib.loads((RECIPES / "default.toml").read_text()))


@pytest.mark.parametrize("stage", STAGES)
def test_every_method_is_a_function_of_its_files_name(stage: str) -> None:
    assert methods(stage) or stage in OPTIONAL
    for method in methods(stage):
        assert find(stage, method).__name__ == method
        assert find(stage, method).__doc__


@pytest.mark.parametrize("stage", STAGES)
def test_no_method_asks_for_what_its_stage_cannot_supply(stage: str) -> None:
    for method in methods(stage):
        assert set(asks(find(stage, method))) <= set(SUPPLIES[stage]), method


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_that_come_along_are_valid_and_spell_every_setting_out(path: Path) -> None:
    given = tomllib.loads(path.read_text())
    recipe = Recipe.from_mapping(given)
    assert recipe.name == path.stem
    for stage, step in recipe.steps.items():
        assert set(given[stage]) - {"method"} == set(defaults(stage, step.method))


def test_a_recipe_survives_being_written_and_read() -> None:
    recipe = Recipe.from_mapping(content())
    again = Recipe.from_mapping(recipe.as_mapping())
    assert again == recipe
    assert again.digest() == recipe.digest()


def test_defaults_left_out_change_nothing() -> None:
    given = content()
    for stage in set(given) - {"name"}:
        for name, value in defaults(stage, given[stage]["method"]).items():
            if given[stage].get(name) == value:
                del given[stage][name]
    assert Recipe.from_mapping(given).digest() == Recipe.from_mapping(content()).digest()


def test_the_digest_follows_settings_and_not_the_name() -> None:
    named, changed = content(), content()
    named["name"] = "another"
    changed["inversion"]["max_iterations"] += 1
    digest = Recipe.from_mapping(content()).digest()
    assert Recipe.from_mapping(named).digest() == digest
    assert Recipe.from_mapping(changed).digest() != digest


def test_only_optional_stages_may_be_left_out() -> None:
    given = {name: table for name, table in content().items() if name not in OPTIONAL}
    assert set(Recipe.from_mapping(given).steps) == set(STAGES) - set(OPTIONAL)


def test_every_fault_is_told_at_once() -> None:
    given = content()
    del given["reference"]
    given["name"] = " "
    given["sharpening"] = {"method": "more"}
    given["background"]["method"] = "magic"
    given["mask"] |= {"fraction": "large", "bogus": 3}
    given["inversion"]["max_iterations"] = True
    with pytest.raises(InvalidRecipe) as error:
        Recipe.from_mapping(given)
    told = str(error.value).splitlines()
    for fault in (
        "name is missing or empty",
        "'sharpening' is no stage",
        "[reference] has no method",
        "background.method is 'magic'",
        "mask.fraction is 'large'; expected a number",
        "mask.bogus is not a setting of brain",
        "inversion.max_iterations is True; expected a whole number",
    ):
        assert any(fault in line for line in told), fault
    assert len(told) == 7

"""A recipe is refused before an hour of computing is spent, and equal digests mean equal methods and settings."""

from __future__ import annotations

import copy
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reconstruction import InvalidRecipe, Recipe
from reconstruction.stage import OPTIONAL, STAGES, SUPPLIES, asks, check, defaults, find, methods, run
from tests.reconstruction.test_arrays import scene

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


@pytest.mark.parametrize(
    ("stage", "method", "settings", "told"),
    [
        ("inversion", "tgv", {"strength": 0.0}, "inversion.strength is 0.0; expected a number above 0"),
        ("inversion", "rts", {"rho": 0}, "inversion.rho is 0; expected a number above 0"),
        ("background", "vsharp", {"radii": 0}, "background.radii is 0; expected a whole number from 1 to 100"),
        ("inversion", "tv", {"strength": -0.1}, "inversion.strength is -0.1; expected a number of 0 or more"),
        ("inversion", "tv", {"strength": float("nan")}, "inversion.strength is nan; expected a number of 0 or more"),
        ("background", "lbv", {"peel": -1}, "background.peel is -1; expected a whole number from 0 to 100"),
        ("background", "lbv", {"peel": 10**9}, "background.peel is 1000000000; expected a whole number from 0 to 100"),
        ("background", "vsharp", {"radii": 10**9}, "background.radii is 1000000000; expected a whole number from 1"),
        ("background", "pdf", {"coarse_iterations": 10**6}, "expected a whole number from 0 to 100, such as 30"),
        ("background", "ismv", {"radius_mm": 1e5}, "background.radius_mm is 100000.0; expected a number from 0 to 100"),
        ("offset", "mcpc3ds", {"smoothing_mm": 1e9}, "expected a number from 0 to 100, such as 4.0"),
        ("inversion", "rts", {"delta": 5.0}, "inversion.delta is 5.0; expected a number from 0 to 1, such as 0.15"),
        (
            "inversion",
            "tkd",
            {"threshold": 5},
            "inversion.threshold is 5; expected a number above 0 and up to 0.666667",
        ),
        ("inversion", "fansi", {"edge_weight": 7}, "inversion.edge_weight is 7; expected a number from 0 to 1"),
        ("inversion", "fansi", {"max_iterations": 10**9}, "expected a whole number from 1 to 10000, such as 100"),
        ("mask", "bet", {"fraction": 5}, "mask.fraction is 5; expected a number from 0 to 1, such as 0.7"),
        ("mask", "brain", {"opening_mm": 1e5}, "mask.opening_mm is 100000.0; expected a number from 0 to 20"),
        ("inversion", "l2", {"strength": 10**400}, "expected a number of 0 or more, such as 0.01"),
        (
            "weighting",
            "tswi",
            {"lower_ppm": float("inf")},
            "weighting.lower_ppm is inf; expected a number, such as 0.0",
        ),
    ],
)
def test_a_value_out_of_range_is_refused(stage: str, method: str, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRecipe) as error:
        check(stage, method, settings)
    assert told in str(error.value)


@pytest.mark.parametrize("content", [[], None, "default"])
def test_what_is_no_table_is_no_recipe(content: Any) -> None:
    with pytest.raises(InvalidRecipe, match="expected a table"):
        Recipe.from_mapping(content)


def test_a_threshold_may_be_negative() -> None:
    assert check("weighting", "tswi", {"lower_ppm": -0.05})["lower_ppm"] == -0.05


@pytest.mark.parametrize("stage", ["background", "inversion"])
def test_a_setting_of_zero_is_refused_or_gives_a_map(stage: str) -> None:
    data = scene()
    for method in methods(stage):
        quick = {"max_iterations": 3} if "max_iterations" in defaults(stage, method) else {}
        for name, value in defaults(stage, method).items():
            try:
                settings = check(stage, method, quick | {name: type(value)(0)})
            except InvalidRecipe:
                continue
            found = run(stage, method, settings, data)
            assert np.isfinite(found[0] if isinstance(found, tuple) else found).all(), (method, name)

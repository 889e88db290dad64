"""The figures of `benchmarks.accuracy` mean what they say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.accuracy import ERROR_WINDOW_PPB, RECIPES, load_recipe, picture, score
from reconstruction import Maps, Reference, reconstruct
from tests.simulation.scenes import small_head

SLOW = ("default", "fast", "medi0")
"""Recipes that take long; `test_pipeline` runs the first in any case, and the second is the same methods with less."""


def perfect() -> Maps:
    """Maps that are the truth, but for a constant."""
    head = small_head()
    return Maps(
        geometry=head.acquisition.geometry,
        chi=head.chi + np.float32(0.5),
        r2star=head.r2star,
        field=head.field,
        local_field=head.local_field(),
        magnitude=head.acquisition.magnitude[0],
        brain_mask=head.brain_mask,
        mask=head.brain_mask,
        reference=Reference("none", np.zeros_like(head.brain_mask), 0.0, 0.0),
    )


def test_truth_scores_full_marks() -> None:
    scores = score(small_head(), perfect())
    assert scores.covered == scores.valid == 1
    assert scores.outside == 0
    assert scores.slope == pytest.approx(1, abs=1e-3)
    assert abs(scores.worst_ppb) < 0.1
    assert scores.rmse < 0.1
    assert scores.field_ppb == scores.r2star == 0
    assert scores.local_ppb < 1e-3


def test_half_the_truth_has_half_the_slope() -> None:
    maps = perfect()
    scores = score(small_head(), dataclasses.replace(maps, chi=maps.chi / 2))
    assert scores.slope == pytest.approx(0.5, abs=1e-3)
    assert scores.rmse == pytest.approx(50, abs=0.5)
    assert scores.detrended < 0.5
    assert scores.worst_ppb < -10


def test_one_wrong_nucleus_is_named() -> None:
    maps = perfect()
    chi = maps.chi.copy()
    chi[small_head().labels["red_nucleus_left"]] -= 0.2
    scores = score(small_head(), dataclasses.replace(maps, chi=chi))
    assert scores.worst == "red_nucleus_left"
    assert scores.worst_ppb == pytest.approx(-200, abs=2)


def test_mask_over_the_skull_is_told() -> None:
    head = small_head()
    scores = score(head, dataclasses.replace(perfect(), brain_mask=head.head_mask))
    assert scores.outside == pytest.approx((head.head_mask & ~head.inside_skull).sum() / head.head_mask.sum())


def test_picture_shows_the_error_in_its_window() -> None:
    """The error's row is mid-grey where the map is right and white where it is far too high."""
    head, maps = small_head(), perfect()
    width, height = picture(head, maps).size
    right = np.asarray(picture(head, maps))[2 * height // 3 + 20 :]
    middle = round(-ERROR_WINDOW_PPB[0] / (ERROR_WINDOW_PPB[1] - ERROR_WINDOW_PPB[0]) * 255)
    assert set(np.unique(right)) <= {0, middle - 1, middle}
    chi = maps.chi.copy()
    chi[head.labels["putamen_left"]] += 1
    assert (np.asarray(picture(head, dataclasses.replace(maps, chi=chi)))[2 * height // 3 + 20 :] == 255).any()
    assert width > height / 3


def test_recipes_are_found_by_name() -> None:
    assert load_recipe("default").name == "default"


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(file.stem, marks=[pytest.mark.slow] if file.stem in SLOW else [])
        for file in sorted(RECIPES.glob("*.toml"))
    ],
)
def test_every_recipe_finds_the_iron_of_the_nuclei(recipe: str) -> None:
    """From raw phase: the right way round, in size, and where it is."""
    head = small_head()
    maps = reconstruct(head.acquisition, load_recipe(recipe))
    scores = score(head, maps)
    least = 0.6 if recipe == "qsmxt" else 0.7  # three layers of 3 mm are a third of such a brain
    assert least < scores.slope < 1.2
    assert abs(scores.worst_ppb) < 60
    assert scores.valid > least
    assert scores.outside < 0.01
    inside = maps.mask & head.brain_mask
    assert np.corrcoef(head.chi[inside], maps.chi[inside])[0, 1] > 0.5

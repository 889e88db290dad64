"""Two passes: what is reliable comes from the first, the rest from the second, at one level."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from reconstruction import Recipe, reconstruct
from reconstruction.passes.two_pass import filled, two_pass
from tests.laws import random_volume
from tests.reconstruction.echoes import ball
from tests.reconstruction.test_pipeline import default_recipe, small_maps
from tests.simulation.scenes import small_head

SHAPE = (12, 10, 8)
BRAIN = ball(SHAPE)


def test_first_pass_leaves_out_what_is_uncertain() -> None:
    noise, residual = np.full(SHAPE, 2, np.float32), np.ones(SHAPE, np.float32)
    noise[6, 5, 4], residual[5, 5, 4] = 7, 4
    noise[4, 5, 4] = 5
    first = two_pass(noise, residual, BRAIN, times_worse=3)
    assert not first[6, 5, 4]
    assert not first[5, 5, 4]
    assert first.sum() == BRAIN.sum() - 2
    assert not (first & ~BRAIN).any()


def test_scale_of_the_noise_changes_nothing() -> None:
    noise = np.abs(random_volume(SHAPE, 1))
    one = np.ones(SHAPE, np.float32)
    np.testing.assert_array_equal(two_pass(noise, one, BRAIN), two_pass(noise * np.float32(64), one, BRAIN))


def test_no_mask_has_no_first_pass() -> None:
    assert not two_pass(np.ones(SHAPE, np.float32), np.ones(SHAPE, np.float32), ~np.ones(SHAPE, bool)).any()


def test_holes_are_filled_at_the_level_of_the_first_pass() -> None:
    truth = random_volume(SHAPE, 2)
    held = BRAIN.copy()
    held[5:7, 5, 4] = False
    found = filled(np.where(held, truth, 9).astype(np.float32), held, truth + np.float32(0.5), BRAIN)
    np.testing.assert_allclose(found[BRAIN], truth[BRAIN], atol=1e-6)


def test_passes_that_agree_change_nothing() -> None:
    truth = random_volume(SHAPE, 3)
    np.testing.assert_array_equal(filled(truth, BRAIN, truth, BRAIN), truth)


def test_the_whole_line() -> None:
    """Default off.  On, the map keeps its mask and most of its values, and says what both passes took."""
    plain, _ = small_maps()
    recipe = copy.deepcopy(default_recipe())
    assert "passes" not in recipe
    recipe["passes"] = {"method": "two_pass"}
    maps = reconstruct(small_head().acquisition, Recipe.from_mapping(recipe))
    np.testing.assert_array_equal(maps.mask, plain.mask)
    assert np.corrcoef(maps.chi[maps.mask], plain.chi[maps.mask])[0, 1] > 0.9
    assert not np.array_equal(maps.chi, plain.chi)
    assert maps.chi[maps.reference.mask].mean() == pytest.approx(0, abs=1e-5)

"""Two passes: what is reliable comes from the first, the rest from the second, at one level."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from reconstruction import Recipe, reconstruct
from reconstruction.passes.two_pass import filled, two_pass
from tests.laws import random_volume
from tests.reconstruction.echoes import ball, geometry
from tests.reconstruction.test_pipeline import default_recipe
from tests.simulation.scenes import small_head

SHAPE = (12, 10, 8)
BRAIN = ball(SHAPE)
GEOMETRY = geometry(SHAPE)


def test_first_pass_leaves_out_what_is_uncertain() -> None:
    """By noise or by misfit, if it is not a speck."""
    noise, residual = np.full(SHAPE, 2, np.float32), np.ones(SHAPE, np.float32)
    noise[6, 5, 3:5], residual[5, 5, 3:5] = 7, 4
    noise[3, 5, 4] = 7
    noise[8, 5, 3:7] = 5
    first = two_pass(noise, residual, BRAIN, GEOMETRY, times_worse=3, min_volume_mm3=30)
    assert not first[5:7, 5, 3:5].any()
    assert first.sum() == BRAIN.sum() - 4
    assert not (first & ~BRAIN).any()
    every = two_pass(noise, residual, BRAIN, GEOMETRY, times_worse=3, min_volume_mm3=0)
    np.testing.assert_array_equal(np.argwhere(first & ~every), [[3, 5, 4]])


def test_scale_of_the_noise_changes_nothing() -> None:
    noise = np.abs(random_volume(SHAPE, 1))
    one = np.ones(SHAPE, np.float32)
    np.testing.assert_array_equal(
        two_pass(noise, one, BRAIN, GEOMETRY), two_pass(noise * np.float32(64), one, BRAIN, GEOMETRY)
    )


def test_no_mask_has_no_first_pass() -> None:
    one = np.ones(SHAPE, np.float32)
    assert not two_pass(one, one, np.zeros(SHAPE, bool), GEOMETRY).any()


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
    """Off unless the recipe has it.  On, the mask stays, and the map of an inversion without weights comes nearer."""
    head = small_head()
    acquisition = dataclasses.replace(head.acquisition, mask=head.brain_mask)
    recipe = default_recipe() | {"background": {"method": "vsharp"}, "inversion": {"method": "rts"}}
    assert "passes" not in recipe
    plain = reconstruct(acquisition, Recipe.from_mapping(recipe))
    maps = reconstruct(acquisition, Recipe.from_mapping(recipe | {"passes": {"method": "two_pass"}}))
    np.testing.assert_array_equal(maps.mask, plain.mask)
    likeness = [np.corrcoef(head.chi[plain.mask], found.chi[plain.mask])[0, 1] for found in (plain, maps)]
    assert likeness[1] > likeness[0]
    assert maps.chi[maps.reference.mask].mean() == pytest.approx(0, abs=1e-5)

"""The outline goes where the map shows the nucleus, no further than its bound, and stays where nothing is shown."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruction.acquisition import FloatArray, Geometry
from reconstruction.pieces import Box
from reconstruction.regions._refine import refined

SHAPE = (40, 40, 40)
EVERYWHERE: Box = (slice(None), slice(None), slice(None))
MASK = np.ones(SHAPE, bool)
GEOMETRY = Geometry(SHAPE, (1.0, 1.0, 1.0), (0.0, 0.0, 1.0))


def depth_of_ball(radius: float, centre: tuple[float, float, float] = (20, 20, 20)) -> FloatArray:
    """mm inside the surface, voxels of 1 mm."""
    x = np.indices(SHAPE) - np.array(centre).reshape(3, 1, 1, 1)
    return (radius - np.linalg.norm(x, axis=0)).astype(np.float32)


def chi_of(depth: FloatArray, contrast: float = 0.1, noise: float = 0.01) -> FloatArray:
    random = np.random.default_rng(0).standard_normal(SHAPE)
    return (contrast * (depth > 0) + noise * random).astype(np.float32)


def outline(prior: FloatArray, chi: FloatArray, bound: float) -> FloatArray:
    return refined({"left_a": (EVERYWHERE, prior)}, ("left_a",), chi, MASK, GEOMETRY, bound)["left_a"][1]


@pytest.mark.parametrize("radius", [7.0, 9.0])
def test_the_outline_moves_to_what_the_map_shows(radius: float) -> None:
    true, prior = depth_of_ball(radius), depth_of_ball(8.0)
    found = outline(prior, chi_of(true), 1.5)

    def dice(depth: FloatArray) -> float:
        return 2 * float(((depth > 0) & (true > 0)).sum()) / float((depth > 0).sum() + (true > 0).sum())

    assert dice(found) > 0.9 > dice(prior) + 0.02


def test_an_atlas_whose_core_is_mostly_surroundings_shrinks() -> None:
    prior = depth_of_ball(6.0)
    before, after = np.count_nonzero(prior > 0), np.count_nonzero(outline(prior, chi_of(depth_of_ball(4.0)), 1.0) > 0)
    assert after < 0.7 * before


def test_it_moves_no_further_than_its_bound() -> None:
    prior = depth_of_ball(8.0)
    found = outline(prior, chi_of(depth_of_ball(12.0)), 1.0)
    assert np.abs(found - prior).max() <= 1 + 1e-5
    assert not (found[prior < -1.0001] > 0).any()


@pytest.mark.parametrize("radius", [2.6, 3.3, 6.1])
@pytest.mark.parametrize("centre", [(20.0, 20.0, 20.0), (20.5, 20.2, 19.7)])
def test_a_map_that_agrees_with_the_atlas_moves_nothing(radius: float, centre: tuple[float, float, float]) -> None:
    prior = depth_of_ball(radius, centre)
    chi = (0.1 * np.clip(0.5 + prior, 0, 1)).astype(np.float32)
    before, after = np.count_nonzero(prior > 0), np.count_nonzero(outline(prior, chi, 0.5) > 0)
    assert abs(after - before) <= 0.04 * before


def test_without_contrast_the_atlas_stays() -> None:
    prior = depth_of_ball(8.0)
    np.testing.assert_array_equal(outline(prior, chi_of(prior, contrast=0.005), 1.0), prior)


def test_a_neighbour_is_no_sign_of_a_nucleus() -> None:
    prior, neighbour = depth_of_ball(6.0, (14, 20, 20)), depth_of_ball(6.0, (26, 20, 20))
    chi = chi_of(prior) + chi_of(neighbour)
    outlines = {"left_a": (EVERYWHERE, prior), "left_b": (EVERYWHERE, neighbour)}
    found = refined(outlines, ("left_a", "left_b"), chi, MASK, GEOMETRY, 1.0)["left_a"][1]
    assert not (found[neighbour > 0] > 0).any()


def test_diamagnetic_structures_are_shown_as_well() -> None:
    true, prior = depth_of_ball(9.0), depth_of_ball(8.0)
    darker = outline(prior, -chi_of(true), 1.5)
    np.testing.assert_allclose(darker, outline(prior, chi_of(true), 1.5), atol=1e-5)

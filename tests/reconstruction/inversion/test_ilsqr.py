"""iLSQR's own: where the field counts, and what taking off the streaks is good for."""

from __future__ import annotations

import numpy as np

from reconstruction.inversion._problem import Problem
from reconstruction.inversion.ilsqr import _laplacian_weights
from tests.reconstruction.inversion.spheres import COARSE, given, inverted
from tests.reconstruction.sources import ball
from tests.reconstruction.test_inversion import scene


def test_a_neighbour_of_which_nothing_is_known_makes_no_field_rough() -> None:
    data = given()
    hole = ball(COARSE, 6.0)
    noise = np.where(hole, np.float32(np.inf), data["noise"])
    field = np.where(data["mask"], np.float32(0.1), np.float32(0))
    problem = Problem.of(field, noise, data["mask"], COARSE)
    weight = problem.window.paste(_laplacian_weights(problem, COARSE))
    assert (weight[data["mask"] & ~hole] == 1).all()
    assert not weight[hole].any()


def test_a_map_less_its_streaks_is_nearer_to_the_truth() -> None:
    """A cone that nothing lies in holds no streaks: there the map is that of least squares alone."""
    *_, truth = scene(COARSE)
    data = given()
    mask = data["mask"]
    streaky, clean = ((inverted("ilsqr", data, cone=cone) - truth)[mask].std() for cone in (0.0, 0.1))
    assert clean < 0.8 * streaky


def test_where_the_field_is_rough_it_has_no_say() -> None:
    """A few wild voxels: their field and their neighbours' is rougher than the rest, so that the map goes without."""
    data = given()
    wild = (np.array([12, 16, 9]), np.array([14, 18, 16]), np.array([11, 13, 15]))
    spoilt = data["local_field"].copy()
    spoilt[wild] += 0.6
    problem = Problem.of(spoilt, data["noise"], data["mask"], COARSE)
    weight = problem.window.paste(_laplacian_weights(problem, COARSE))
    assert not weight[wild].any()
    chi, changed = (
        inverted("ilsqr", data | {"local_field": field}, max_iterations=20) for field in (data["local_field"], spoilt)
    )
    assert (changed - chi)[data["mask"]].std() < 0.7 * chi[data["mask"]].std()

"""FANSI's own: the voxel-wise step of its nonlinear problem, the linear problem, and room for a harmonic rest."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruction.inversion.fansi import MU_FIELD, follow_signal
from reconstruction.noise import BEST_WEIGHT
from tests.reconstruction.inversion.spheres import COARSE, contrasts, given, inverted
from tests.reconstruction.sources import ball, field_of_sphere
from tests.reconstruction.test_inversion import SPHERES


def test_the_voxelwise_step_finds_the_least_cost_however_much_a_voxel_is_trusted() -> None:
    v = np.linspace(-6, 6, 101, dtype=np.float32)[:, None]
    W = np.linspace(0, BEST_WEIGHT, 9, dtype=np.float32)[None, :]
    phase = np.full(v.shape, 0.7, np.float32)

    def cost(z: np.ndarray) -> np.ndarray:
        return np.asarray(W * (1 - np.cos(z - phase)) + MU_FIELD / 2 * (z - v) ** 2)

    least = np.min([cost(np.full(v.shape, z)) for z in np.linspace(-7, 7, 1401)], axis=0)
    assert (cost(follow_signal(v + 0 * W, phase, W)) - least).max() < 0.02


@pytest.mark.parametrize("harmonic", [0.0, 150.0])
def test_of_small_phases_the_linear_problem_is_the_nonlinear_one(harmonic: float) -> None:
    """sin φ = φ: with twenty times the noise, the echo that the field is looked at by is so much earlier."""
    data = given()
    data["noise"] = 20 * data["noise"]
    linear, nonlinear = (inverted("fansi", data, nonlinear=each, harmonic=harmonic) for each in (False, True))
    assert np.linalg.norm(linear - nonlinear) < 1e-3 * np.linalg.norm(nonlinear)


@pytest.mark.parametrize("nonlinear", [True, False])
def test_what_the_background_left_is_put_into_the_harmonic_rest(nonlinear: bool) -> None:
    """The field of a source outside changes the map by less where there is room for it."""
    data = given()
    left_over = field_of_sphere(COARSE, 3.0, 1.0, (0.0, 0.0, 32.0))
    spoilt = data | {"local_field": np.where(data["mask"], data["local_field"] + left_over, 0).astype(np.float32)}
    deep = ball(COARSE, 22.0)
    without, with_room = (
        (inverted("fansi", spoilt, **settings) - inverted("fansi", data, **settings))[deep].std()
        for settings in ({"nonlinear": nonlinear, "harmonic": beta} for beta in (0.0, 150.0))
    )
    assert with_room < 0.85 * without


def test_edges_of_the_magnitude_are_kept() -> None:
    """So strong a penalty takes away of the spheres' height, but where the magnitude shows their edge."""
    data = given()
    spheres = np.any([ball(COARSE, radius, centre) for centre, radius, _ in SPHERES], axis=0)
    data["magnitude"] = np.where(spheres, np.float32(0.7), data["magnitude"])
    flat, edged = (contrasts(inverted("fansi", data, strength=3e-2, edge_weight=w), COARSE) for w in (1.0, 0.1))
    assert (edged > flat + 0.1).all()

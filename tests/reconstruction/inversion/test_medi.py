"""MEDI finds spheres in a brain, holds the ventricles' fluid at zero, and does not believe what it cannot explain."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numba
import numpy as np
import pytest
from scipy import ndimage

from benchmarks.accuracy import load_recipe, score
from reconstruction import Geometry, quality, reconstruct
from reconstruction.acquisition import BoolArray, FloatArray
from reconstruction.errors import NotReconstructible
from reconstruction.inversion._medi_terms import even_tissue, excess, spread
from reconstruction.inversion.medi import medi
from tests.laws import assert_linear, assert_self_adjoint, random_volume
from tests.reconstruction.sources import AXIAL, OBLIQUE, ball, field_of_sphere, softened_ball
from tests.simulation.scenes import small_head

GEOMETRIES = [
    Geometry((26, 28, 24), (2.0, 2.0, 2.0), AXIAL),
    Geometry((27, 29, 23), (1.9, 1.8, 2.2), OBLIQUE),
]
BRAIN_MM = 24.0
SPHERES = (((9.0, 2.0, 0.0), 6.0, 0.12), ((-9.0, -5.0, 2.0), 5.5, -0.08))
"""Centre and radius in mm, χ in ppm."""
FLUID, FLUID_MM = (-3.0, 10.0, 0.0), 5.0
NOISE = 0.001


def scene(geometry: Geometry = GEOMETRIES[0]) -> dict[str, Any]:
    """Spheres in even tissue, with fluid of the tissue's χ that only R2* tells."""
    mask = ball(geometry, BRAIN_MM)
    field = sum(field_of_sphere(geometry, radius, chi, centre) for centre, radius, chi in SPHERES)
    noisy = np.where(mask, field + NOISE * random_volume(geometry.shape, 0), 0)
    bright = sum(softened_ball(geometry, radius, centre) for centre, radius, _ in SPHERES)
    r2star = np.where(ball(geometry, FLUID_MM, FLUID), 1.0, 20.0)
    return {
        "local_field": noisy.astype(np.float32),
        "noise": np.full(geometry.shape, NOISE, np.float32),
        "mask": mask,
        "magnitude": np.where(mask, 1 - 0.3 * bright, 0).astype(np.float32),
        "r2star": r2star.astype(np.float32),
        "geometry": geometry,
        "echo_times": (5e-3, 10e-3, 15e-3),
        "larmor_frequency": 123.2e6,
    }


@lru_cache(maxsize=1)
def usual() -> tuple[FloatArray, BoolArray]:
    """What the default settings make of the scene."""
    return medi(**scene())


def contrast(chi: FloatArray, valid: BoolArray, geometry: Geometry, which: int) -> float:
    """Mean over the inside of a sphere less that of the empty tissue."""
    centre, radius, _ = SPHERES[which]
    empty = valid.copy()
    for other_centre, other_radius, _ in SPHERES:
        empty &= ~ball(geometry, other_radius + 3.0, other_centre)
    return float(chi[ball(geometry, radius - 1.5, centre)].mean() - chi[empty].mean())


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("sphere_mm", [0.0, 5.0])
def test_finds_the_spheres(geometry: Geometry, sphere_mm: float) -> None:
    data = scene(geometry)
    chi, valid = medi(**data, sphere_mm=sphere_mm)
    assert chi.dtype == np.float32
    assert not chi[~valid].any()
    for i, (_, _, expected) in enumerate(SPHERES):
        assert contrast(chi, valid, geometry, i) == pytest.approx(expected, rel=0.15)


def test_spheres_cost_their_radius_of_brain() -> None:
    data = scene()
    _, whole = medi(**data, sphere_mm=0.0, max_iterations=1)
    np.testing.assert_array_equal(whole, data["mask"])
    _, valid = medi(**data, max_iterations=1)
    geometry = data["geometry"]
    assert not (valid & ~ball(geometry, BRAIN_MM - 3.0)).any()
    assert not (ball(geometry, BRAIN_MM - 7.0) & ~valid).any()


def test_harmonic_fields_have_no_say() -> None:
    data = scene()
    clean, valid = usual()
    left_over = field_of_sphere(data["geometry"], 3.0, 1.0, (0.0, 0.0, 28.0))
    data["local_field"] = np.where(data["mask"], data["local_field"] + left_over, 0).astype(np.float32)
    chi, _ = medi(**data)
    assert left_over[valid].max() > 0.005
    assert (chi - clean)[valid].std() < 0.002


def test_fluid_is_even_and_zero() -> None:
    data = scene()
    fluid = ball(data["geometry"], FLUID_MM - 2.0, FLUID)
    with_term, _ = medi(**data, fluid_strength=1e4)
    without, _ = medi(**data, fluid_strength=0.0)
    assert abs(with_term[fluid].mean()) < 1e-3
    assert with_term[fluid].std() < 0.5 * without[fluid].std()
    chi, valid = medi(**data | {"r2star": None})
    assert contrast(chi, valid, data["geometry"], 0) == pytest.approx(SPHERES[0][2], rel=0.12)


def test_fluid_is_zero_where_it_is_not_the_tissues_mean() -> None:
    """Fluid 0.05 ppm above tissue: the map says so by tissue below zero."""
    data = scene()
    geometry = data["geometry"]
    more = field_of_sphere(geometry, FLUID_MM, 0.05, FLUID)
    data["local_field"] = np.where(data["mask"], data["local_field"] + more, 0).astype(np.float32)
    chi, valid = medi(**data)
    assert abs(chi[ball(geometry, FLUID_MM - 2.0, FLUID)].mean()) < 1e-3
    tissue = valid & ~ball(geometry, FLUID_MM + 3.0, FLUID)
    for centre, radius, _ in SPHERES:
        tissue &= ~ball(geometry, radius + 3.0, centre)
    assert chi[tissue].mean() == pytest.approx(-0.05, rel=0.15)


def test_merit_does_not_fit_wild_voxels() -> None:
    data = scene()
    clean, valid = usual()
    wild = (np.array([12, 16, 9]), np.array([14, 18, 16]), np.array([11, 13, 15]))
    data["local_field"][wild] += 0.6
    others = valid.copy()
    others[wild] = False
    spoilt = [(medi(**data, merit=merit)[0] - clean)[others].std() for merit in (True, False)]
    assert spoilt[0] < 0.7 * spoilt[1]


def test_voxels_of_which_nothing_is_known_have_no_say() -> None:
    data = scene()
    hole = ball(data["geometry"], 3.0, SPHERES[0][0])
    data["noise"][hole] = np.inf
    clean, valid = medi(**data)
    data["local_field"][hole] = 7.0
    chi, _ = medi(**data)
    np.testing.assert_allclose(chi, clean, atol=1e-6)
    assert contrast(chi, valid, data["geometry"], 0) == pytest.approx(SPHERES[0][2], rel=0.2)


def test_a_quiet_voxel_is_known_no_better_than_the_sphere_round_it() -> None:
    """What is inverted is a voxel's field less its neighbours', so that their noise is its own too."""
    data = scene()
    voxel = (13, 8, 12)
    data["local_field"][voxel] += 0.02
    even, valid = medi(**data, merit=False, fluid_strength=0.0, max_iterations=2)
    data["noise"][voxel] = NOISE / 50
    quiet, _ = medi(**data, merit=False, fluid_strength=0.0, max_iterations=2)
    assert valid[voxel]
    assert np.abs(quiet - even)[valid].max() < 0.02


def test_result_does_not_depend_on_the_units_of_noise_and_magnitude() -> None:
    data = scene()
    chi, _ = usual()
    data["noise"] = data["noise"] * np.float32(3)
    data["magnitude"] = data["magnitude"] * np.float32(1e3)
    again, _ = medi(**data)
    np.testing.assert_allclose(again, chi, atol=1e-4)


def test_strength_goes_with_the_phase_per_ppm() -> None:
    """Twice the echo spacing and half the strength make nearly the same map."""
    data = scene() | {"echo_times": (5e-3, 10e-3)}
    chi, valid = medi(**data, fluid_strength=0.0, merit=False)
    data["echo_times"] = (5e-3, 15e-3)
    again, _ = medi(**data, fluid_strength=0.0, merit=False, strength=500.0)
    assert (again - chi)[valid].std() < 0.1 * chi[valid].std()


def test_threads_change_nothing() -> None:
    first, _ = usual()
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        np.testing.assert_allclose(medi(**scene())[0], first, atol=1e-5)
    finally:
        numba.set_num_threads(before)


def test_reports_how_it_ended() -> None:
    data = scene()
    with quality.ledger() as ledger:
        medi(**data)
    assert ledger.figures["inversion.residual"] <= 0.1
    assert 1 < ledger.figures["inversion.iterations"] <= 10
    assert not ledger.warnings
    with quality.ledger() as ledger:
        medi(**data, max_iterations=2)
    assert "inversion: stopped after 2 iterations" in ledger.warnings[0]


def test_a_brain_too_small_for_the_sphere_is_refused() -> None:
    data = scene()
    with pytest.raises(NotReconstructible, match="set a smaller sphere_mm"):
        medi(**data, sphere_mm=40.0)


def test_edges_are_as_many_as_asked() -> None:
    data = scene()
    magnitude = 1 + 0.1 * random_volume(data["geometry"].shape, 5)
    even = even_tissue(magnitude, data["mask"], data["geometry"].voxel_size, 0.9)
    assert even.shape == (3, *magnitude.shape)
    assert set(np.unique(even)) == {0, 1}
    assert (even == 0).sum() == pytest.approx(0.9 * data["mask"].sum(), abs=1)


def test_spread_is_a_projection_that_takes_the_mean() -> None:
    fluid = ball(GEOMETRIES[0], 6.0)
    assert_linear(lambda x: spread(x, fluid), fluid.shape)
    assert_self_adjoint(lambda x: spread(x, fluid), fluid.shape)
    once = spread(random_volume(fluid.shape, 1), fluid)
    np.testing.assert_allclose(spread(once, fluid), once, atol=1e-6)
    assert not once[~fluid].any()
    assert not spread(once, np.zeros_like(fluid)).any()


def test_excess_of_misfits_within_bounds_is_one() -> None:
    inside = ball(GEOMETRIES[0], 20.0)
    phase = np.clip(0.01 * random_volume(inside.shape, 1), -0.01, 0.01)
    field, weight = np.zeros_like(phase), inside.astype(np.float32)
    assert excess(field, phase, weight, inside).max() == 1
    phase[12, 12, 12] = 1.0
    wild = excess(field, phase, weight, inside)
    assert wild[12, 12, 12] > 2
    assert (wild > 1).sum() == 1


@pytest.mark.slow
def test_the_cornell_chain_from_raw_phase() -> None:
    head = small_head()
    maps = reconstruct(head.acquisition, load_recipe("medi0"))
    scores = score(head, maps)
    assert not (maps.mask & ~ndimage.binary_erosion(maps.brain_mask)).any()
    assert 0.8 < scores.slope < 1.2
    assert abs(scores.worst_ppb) < 40
    assert scores.detrended < 95
